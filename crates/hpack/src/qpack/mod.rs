//! QPACK (RFC 9204): header compression for HTTP/3, where streams arrive in any order.
//!
//! [`Encoder`] and [`Decoder`] are sans-IO: each takes the bytes of the stream that the peer opened for it, and leaves bytes for
//! the stream that we opened. Their errors end the connection, with the code that [`Fault`] names.

mod decoder;
mod encoder;

pub use decoder::{Decoder, Section};
pub use encoder::Encoder;

use crate::DecodeError;

/// Which of the three conversations failed (RFC 9204 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A field section could not be decoded: QPACK_DECOMPRESSION_FAILED.
    Decompression(DecodeError),
    /// An instruction of the peer's encoder: QPACK_ENCODER_STREAM_ERROR.
    EncoderStream(DecodeError),
    /// An instruction of the peer's decoder: QPACK_DECODER_STREAM_ERROR.
    DecoderStream(DecodeError),
}

impl Fault {
    /// The HTTP/3 error code.
    pub fn code(&self) -> u64 {
        match self {
            Self::Decompression(_) => 0x200,
            Self::EncoderStream(_) => 0x201,
            Self::DecoderStream(_) => 0x202,
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Decompression(error) => write!(f, "field section: {error}"),
            Self::EncoderStream(error) => write!(f, "encoder stream: {error}"),
            Self::DecoderStream(error) => write!(f, "decoder stream: {error}"),
        }
    }
}

impl std::error::Error for Fault {}

/// The most entries a table of this capacity can hold (RFC 9204 4.5.1.1).
fn max_entries(capacity: u64) -> u64 {
    capacity / 32
}

#[cfg(test)]
mod tests;
