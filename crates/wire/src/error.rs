//! What is wrong with bytes, exactly enough for a test to assert it.

use std::fmt;

use portolan_core::{Error, Kind};

/// In which way the bytes are wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Why {
    /// They end too soon. Of a whole frame or datagram this is an error; of a growing buffer it is "read more".
    Truncated,
    /// They break the rules.
    Invalid,
    /// They are more than a limit of ours grants: a length, a count, a depth.
    TooLong,
    /// They are well-formed and ask for what we do not do.
    Unsupported,
}

/// Bytes that could not be decoded: what was being read, what was wrong with it, and where.
///
/// ```
/// use portolan_core::Kind;
/// use portolan_wire::DecodeError;
///
/// let error = DecodeError::invalid("reply type", 3);
/// assert_eq!(error.to_string(), "reply type: invalid at byte 3");
/// assert_eq!(error.into_error("redis").kind(), Kind::Protocol);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub struct DecodeError {
    /// What was being read.
    pub what: &'static str,
    /// What was wrong with it.
    pub why: Why,
    /// Where, counted from the start of the frame.
    pub offset: usize,
}

impl DecodeError {
    /// The bytes end too soon.
    pub fn truncated(what: &'static str, offset: usize) -> Self {
        Self { what, why: Why::Truncated, offset }
    }

    /// The bytes break the rules.
    pub fn invalid(what: &'static str, offset: usize) -> Self {
        Self { what, why: Why::Invalid, offset }
    }

    /// The bytes are more than a limit grants.
    pub fn too_long(what: &'static str, offset: usize) -> Self {
        Self { what, why: Why::TooLong, offset }
    }

    /// The bytes ask for what we do not do.
    pub fn unsupported(what: &'static str, offset: usize) -> Self {
        Self { what, why: Why::Unsupported, offset }
    }

    /// The same, found in a part that starts `base` bytes into the frame.
    #[must_use]
    pub fn shifted(mut self, base: usize) -> Self {
        self.offset = self.offset.saturating_add(base);
        self
    }

    /// The workspace's error: the peer broke the rules, passed a limit, or speaks what we do not.
    ///
    /// The delivery is that of the kind; an exchange that knows better sets it.
    pub fn into_error(self, protocol: &'static str) -> Error {
        let kind = match self.why {
            Why::Truncated | Why::Invalid => Kind::Protocol,
            Why::TooLong => Kind::Limit,
            Why::Unsupported => Kind::Unsupported,
        };
        Error::new(kind, self.to_string()).with_protocol(protocol).with_source(self)
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.why {
            Why::Truncated => "ends too soon",
            Why::Invalid => "invalid",
            Why::TooLong => "too long",
            Why::Unsupported => "not supported",
        };
        write!(f, "{}: {why} at byte {}", self.what, self.offset)
    }
}

/// Turns "ends too soon" into "read more": for decoders that try a frame on a growing buffer.
///
/// [`Reader::scope_u16_be`](crate::Reader::scope_u16_be) and its kin make readers whose end is known, and those say
/// [`Why::Invalid`] instead, so a frame that lies about its inner lengths never waits for bytes that will not come.
pub fn incomplete<T>(result: Result<T, DecodeError>) -> Result<Option<T>, DecodeError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.why == Why::Truncated => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_becomes_the_kind_that_names_the_guilty() {
        let kind = |error: DecodeError| error.into_error("x").kind();
        assert_eq!(kind(DecodeError::truncated("a", 0)), Kind::Protocol);
        assert_eq!(kind(DecodeError::invalid("a", 0)), Kind::Protocol);
        assert_eq!(kind(DecodeError::too_long("a", 0)), Kind::Limit);
        assert_eq!(kind(DecodeError::unsupported("a", 0)), Kind::Unsupported);
    }

    #[test]
    fn only_truncation_means_read_more() {
        assert_eq!(incomplete::<u8>(Err(DecodeError::truncated("a", 1))), Ok(None));
        assert_eq!(incomplete::<u8>(Err(DecodeError::invalid("a", 1))), Err(DecodeError::invalid("a", 1)));
        assert_eq!(incomplete(Ok(7)), Ok(Some(7)));
    }
}
