//! Text protocols: lines that arrive, by rules for CR and LF, and arguments that cannot smuggle a line.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};
use portolan_core::{Error, Result};

use crate::codec::Codec;
use crate::error::DecodeError;

/// What ends a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LineRule {
    /// CRLF alone; a bare CR or a bare LF is invalid, since somebody between might take it for a line end.
    Strict,
    /// LF or CRLF; a bare CR is invalid.
    Lenient,
}

/// Takes lines off a growing buffer, as a [`Codec`] whose frames are lines without their ends.
///
/// ```
/// use bytes::BytesMut;
/// use portolan_wire::{Codec, LineRule, Lines};
///
/// let mut lines = Lines::new("smtp", LineRule::Strict, 512);
/// let mut buf = BytesMut::from("220 hello\r");
/// assert_eq!(lines.decode(&mut buf)?, None);
/// buf.extend_from_slice(b"\n");
/// assert_eq!(lines.decode(&mut buf)?.unwrap(), "220 hello");
/// # Ok::<(), portolan_wire::DecodeError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Lines {
    protocol: &'static str,
    rule: LineRule,
    max: usize,
    unterminated: bool,
    /// How much of the buffer is known to hold no line end, so that a slow line is not searched over and over.
    scanned: usize,
}

impl Lines {
    /// Lines of at most `max` bytes, their ends not counted.
    pub fn new(protocol: &'static str, rule: LineRule, max: usize) -> Self {
        Self { protocol, rule, max, unterminated: false, scanned: 0 }
    }

    /// Takes a last line that the peer's close ended instead of a line end: whois, finger. Off unless asked for, since
    /// elsewhere it is a truncated reply.
    #[must_use]
    pub fn unterminated_last(mut self, on: bool) -> Self {
        self.unterminated = on;
        self
    }

    /// Forgets how far the buffer was searched: needed when somebody else took bytes off it after a `None`.
    pub fn reset(&mut self) {
        self.scanned = 0;
    }

    fn take(&mut self, src: &mut BytesMut, len: usize, end: usize) -> Bytes {
        self.scanned = 0;
        let line = src.split_to(len).freeze();
        src.advance(end);
        line
    }

    fn find(&mut self, src: &mut BytesMut) -> Result<Option<Bytes>, DecodeError> {
        // A CR may stand at `max`, its LF one further. Nothing past that is looked at, so the answer does not depend on
        // how much has arrived.
        let window = src.get(..=self.max).unwrap_or(src);
        // A shorter buffer than was searched is another one.
        let from = if src.len() < self.scanned { 0 } else { self.scanned };
        let Some(at) = window.get(from..).and_then(|new| memchr::memchr2(b'\r', b'\n', new)) else {
            if src.len() > self.max {
                return Err(DecodeError::too_long("line", self.max));
            }
            self.scanned = window.len();
            return Ok(None);
        };
        let at = at.saturating_add(from);
        if src.get(at) == Some(&b'\n') {
            return match self.rule {
                LineRule::Strict => Err(DecodeError::invalid("bare LF", at)),
                LineRule::Lenient => Ok(Some(self.take(src, at, 1))),
            };
        }
        match src.get(at.saturating_add(1)) {
            Some(b'\n') => Ok(Some(self.take(src, at, 2))),
            Some(_) => Err(DecodeError::invalid("bare CR", at)),
            None => {
                self.scanned = at;
                Ok(None)
            }
        }
    }
}

impl Codec for Lines {
    type Frame = Bytes;
    type Out = [u8];

    fn protocol(&self) -> &'static str {
        self.protocol
    }

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Bytes>, DecodeError> {
        self.find(src)
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Bytes>, DecodeError> {
        match self.find(src)? {
            Some(line) => Ok(Some(line)),
            None if src.is_empty() => Ok(None),
            None if self.unterminated && src.last() != Some(&b'\r') => {
                let len = src.len();
                Ok(Some(self.take(src, len, 0)))
            }
            None => Err(DecodeError::truncated("line", src.len())),
        }
    }

    /// Appends the line and CRLF; CR, LF or NUL within is a usage error.
    fn encode(&mut self, line: &[u8], dst: &mut BytesMut) -> Result<()> {
        check_line("line", line)?;
        dst.extend_from_slice(line);
        dst.extend_from_slice(b"\r\n");
        Ok(())
    }
}

/// Refuses CR, LF and NUL: what would end a line early, or a string.
pub fn check_line(what: &str, bytes: &[u8]) -> Result<()> {
    match bytes.iter().find(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        None => Ok(()),
        Some(byte) => Err(Error::usage(format!("{what} holds {}", name(*byte)))),
    }
}

/// Refuses the empty argument, space and every control character: what would change the number of arguments.
pub fn check_token(what: &str, bytes: &[u8]) -> Result<()> {
    if bytes.is_empty() {
        return Err(Error::usage(format!("{what} is empty")));
    }
    match bytes.iter().find(|&&byte| byte <= b' ' || byte == 0x7f) {
        None => Ok(()),
        Some(byte) => Err(Error::usage(format!("{what} holds {}", name(*byte)))),
    }
}

fn name(byte: u8) -> String {
    match byte {
        b'\r' => "a CR".into(),
        b'\n' => "an LF".into(),
        0 => "a NUL".into(),
        b' ' => "a space".into(),
        other => format!("the control character {other:#04x}"),
    }
}

macro_rules! argument {
    ($(#[$doc:meta])* $name:ident, $check:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name<'a>(&'a str);

        impl<'a> $name<'a> {
            /// Checks `text`; `what` names it in the usage error.
            pub fn new(what: &str, text: &'a str) -> Result<Self> {
                $check(what, text.as_bytes())?;
                Ok(Self(text))
            }

            /// The same, refusing more than `max` bytes.
            pub fn within(what: &str, text: &'a str, max: usize) -> Result<Self> {
                if text.len() > max {
                    return Err(Error::usage(format!("{what} of {} bytes is longer than {max}", text.len())));
                }
                Self::new(what, text)
            }

            /// The text.
            pub fn as_str(self) -> &'a str {
                self.0
            }
        }

        impl fmt::Display for $name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.0)
            }
        }
    };
}

argument! {
    /// A text argument that ends its line: it cannot hold CR, LF or NUL.
    ///
    /// ```
    /// use portolan_wire::Line;
    ///
    /// assert!(Line::new("subject", "hello there").is_ok());
    /// assert!(Line::new("subject", "hello\r\nRSET").is_err());
    /// ```
    Line, check_line
}

argument! {
    /// One argument among others: it cannot be empty, nor hold a space or a control character.
    ///
    /// ```
    /// use portolan_wire::Token;
    ///
    /// assert!(Token::new("key", "user:7").is_ok());
    /// assert!(Token::new("key", "user 7").is_err());
    /// ```
    Token, check_token
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(rule: LineRule, bytes: &[u8]) -> Vec<Result<String, DecodeError>> {
        let mut lines = Lines::new("test", rule, 8);
        let mut buf = BytesMut::from(bytes);
        let mut seen = Vec::new();
        loop {
            match lines.decode(&mut buf) {
                Ok(Some(line)) => seen.push(Ok(String::from_utf8(line.to_vec()).unwrap())),
                Ok(None) => return seen,
                Err(error) => {
                    seen.push(Err(error));
                    return seen;
                }
            }
        }
    }

    #[test]
    fn strict_takes_crlf_alone_and_lenient_takes_lf_too() {
        use LineRule::{Lenient, Strict};
        assert_eq!(all(Strict, b"a\r\n\r\nb"), [Ok("a".into()), Ok(String::new())]);
        assert_eq!(all(Strict, b"a\n"), [Err(DecodeError::invalid("bare LF", 1))]);
        assert_eq!(all(Strict, b"a\rb\r\n"), [Err(DecodeError::invalid("bare CR", 1))]);
        assert_eq!(all(Lenient, b"a\nb\r\n"), [Ok("a".into()), Ok("b".into())]);
        assert_eq!(all(Lenient, b"a\rb\n"), [Err(DecodeError::invalid("bare CR", 1))]);
    }

    #[test]
    fn a_line_at_its_limit_passes_and_one_byte_more_does_not() {
        assert_eq!(all(LineRule::Strict, b"12345678\r\n"), [Ok("12345678".into())]);
        assert_eq!(all(LineRule::Strict, b"123456789\r\n"), [Err(DecodeError::too_long("line", 8))]);
        assert_eq!(all(LineRule::Strict, b"123456789"), [Err(DecodeError::too_long("line", 8))]);
        assert_eq!(all(LineRule::Strict, b"12345678\r"), []);
    }

    #[test]
    fn a_last_line_without_its_end_is_truncated_unless_asked_for() {
        let mut lines = Lines::new("whois", LineRule::Lenient, 8);
        assert_eq!(lines.decode_eof(&mut BytesMut::from("tail")), Err(DecodeError::truncated("line", 4)));
        let mut lines = Lines::new("whois", LineRule::Lenient, 8).unterminated_last(true);
        let mut buf = BytesMut::from("a\r\ntail");
        assert_eq!(lines.decode_eof(&mut buf).unwrap().unwrap(), "a");
        assert_eq!(lines.decode_eof(&mut buf).unwrap().unwrap(), "tail");
        assert_eq!(lines.decode_eof(&mut buf), Ok(None));
    }

    #[test]
    fn no_argument_changes_the_number_of_lines_or_arguments() {
        for byte in 0..=0x7f_u8 {
            let text = format!("a{}b", char::from(byte));
            assert_eq!(Line::new("x", &text).is_err(), matches!(byte, 0 | b'\r' | b'\n'), "{byte:#x}");
            assert_eq!(Token::new("x", &text).is_err(), byte <= b' ' || byte == 0x7f, "{byte:#x}");
        }
        assert!(Token::new("x", "").is_err());
        assert!(Line::new("x", "").is_ok());
        assert!(Token::within("x", "abc", 3).is_ok() && Token::within("x", "abcd", 3).is_err());
        let error = Line::new("subject", "a\nb").unwrap_err();
        assert_eq!(error.message(), "subject holds an LF");
    }

    #[cfg(feature = "laws")]
    #[test]
    fn lines_keep_the_laws() {
        for rule in [LineRule::Strict, LineRule::Lenient] {
            crate::laws::check(
                || Lines::new("test", rule, 24),
                &[b"220 hello\r\n250-x\r\n\r\n", b"lf\nonly\n", b"\r\r\n"],
            );
            crate::laws::round_trip(
                || Lines::new("test", rule, 24),
                &[b"".as_slice(), b"one", b"two words"],
                |out, frame| out == frame,
            );
        }
    }
}
