//! Why a conversation ends (RFC 6455 7.4).

use std::fmt;

use portolan_wire::DecodeError;

use super::frame::MAX_CONTROL;
use super::text::Text;

/// The reason in a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CloseCode(u16);

impl CloseCode {
    /// 1000: all is done.
    pub const NORMAL: Self = Self(1000);
    /// 1001: this end goes away.
    pub const GOING_AWAY: Self = Self(1001);
    /// 1002: the peer broke the protocol.
    pub const PROTOCOL: Self = Self(1002);
    /// 1003: a kind of data that this end doesn't take.
    pub const UNSUPPORTED: Self = Self(1003);
    /// 1007: text that is not UTF-8, or data that doesn't inflate.
    pub const INVALID_DATA: Self = Self(1007);
    /// 1008: against this end's policy.
    pub const POLICY: Self = Self(1008);
    /// 1009: too big.
    pub const TOO_BIG: Self = Self(1009);
    /// 1010: the server didn't agree to an extension that the client needs.
    pub const EXTENSION: Self = Self(1010);
    /// 1011: this end failed.
    pub const INTERNAL: Self = Self(1011);
    /// 1012: the service restarts.
    pub const RESTART: Self = Self(1012);
    /// 1013: try again later.
    pub const AGAIN_LATER: Self = Self(1013);

    /// A code that may be sent: a registered one, or 3000 to 4999 (RFC 6455 7.4.2). 1004, 1005, 1006 and 1015 never travel.
    pub fn new(code: u16) -> Option<Self> {
        matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999).then_some(Self(code))
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What a Close frame says, when it says anything.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloseFrame {
    /// Why.
    pub code: CloseCode,
    /// The same in words, at most 123 bytes.
    pub reason: Text,
}

impl CloseFrame {
    /// A code and words for it. Words beyond 123 bytes are cut at a character.
    pub fn new(code: CloseCode, reason: impl Into<Text>) -> Self {
        let reason = reason.into();
        let most = MAX_CONTROL - 2;
        if reason.len() <= most {
            return Self { code, reason };
        }
        let cut = (0..=most).rev().find(|at| reason.is_char_boundary(*at)).unwrap_or(0);
        Self { code, reason: Text::from(reason.get(..cut).unwrap_or_default()) }
    }

    /// The payload of a Close frame. A single byte, a code that must not travel and words that are not UTF-8 are refused.
    pub(crate) fn decode(payload: &[u8]) -> Result<Option<Self>, DecodeError> {
        let Some((code, reason)) = payload.split_first_chunk::<2>() else {
            return if payload.is_empty() { Ok(None) } else { Err(DecodeError::invalid("close payload", 0)) };
        };
        let code = CloseCode::new(u16::from_be_bytes(*code)).ok_or(DecodeError::invalid("close code", 0))?;
        let reason = std::str::from_utf8(reason).map_err(|_| DecodeError::invalid("utf-8", 2))?;
        Ok(Some(Self { code, reason: Text::from(reason) }))
    }

    pub(crate) fn payload(&self) -> Vec<u8> {
        [&self.code.0.to_be_bytes(), self.reason.as_bytes()].concat()
    }
}

impl fmt::Display for CloseFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reason.is_empty() {
            return self.code.fmt(f);
        }
        write!(f, "{} {:?}", self.code, self.reason.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_must_not_travel_are_refused() {
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
            assert!(CloseFrame::decode(&u16::to_be_bytes(code)).unwrap().is_some(), "{code}");
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            let bad = Err(DecodeError::invalid("close code", 0));
            assert_eq!(CloseFrame::decode(&u16::to_be_bytes(code)), bad, "{code}");
        }
    }

    #[test]
    fn words_are_cut_at_a_character_and_checked() {
        let frame = CloseFrame::new(CloseCode::NORMAL, "\u{e9}".repeat(100));
        assert_eq!(frame.payload().len(), 2 + 122);
        assert_eq!(CloseFrame::decode(&frame.payload()), Ok(Some(frame)));
        assert_eq!(CloseFrame::decode(b"\x03"), Err(DecodeError::invalid("close payload", 0)));
        assert_eq!(CloseFrame::decode(b"\x03\xe8\xff"), Err(DecodeError::invalid("utf-8", 2)));
        assert_eq!(CloseFrame::decode(b""), Ok(None));
    }
}
