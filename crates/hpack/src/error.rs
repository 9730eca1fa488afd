//! What is wrong with a header block.

use std::fmt;

/// What kind of wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Why {
    /// The block ends in mid-field.
    Truncated,
    /// Bytes that no encoder may send.
    Invalid,
    /// An integer, a string or a table beyond what is granted.
    TooLong,
}

/// A header block that can't be decoded: the state of the two ends is lost, and the connection with it (RFC 7541 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct DecodeError {
    /// What was being read.
    pub what: &'static str,
    /// What is wrong with it.
    pub why: Why,
    /// How many bytes into the block.
    pub offset: usize,
}

impl DecodeError {
    pub(crate) fn new(what: &'static str, why: Why, offset: usize) -> Self {
        Self { what, why, offset }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.why {
            Why::Truncated => "cut short",
            Why::Invalid => "invalid",
            Why::TooLong => "beyond the limit",
        };
        write!(f, "header block: {} {why} at byte {}", self.what, self.offset)
    }
}

impl std::error::Error for DecodeError {}
