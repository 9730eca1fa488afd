//! Text that shares its memory.

#![allow(unsafe_code, reason = "one conversion without a second check: the text was checked as it arrived")]

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use bytes::Bytes;
use portolan_core::{Error, Result};

/// UTF-8 in shared memory: it derefs to `str`, and clones without a copy.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(Bytes);

impl Text {
    /// Text that lives as long as the program.
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// Text from bytes, checked and not copied.
    pub fn from_utf8(bytes: Bytes) -> Result<Self> {
        match simdutf8::basic::from_utf8(&bytes) {
            Ok(_) => Ok(Self(bytes)),
            Err(_) => Err(Error::usage("the text is not UTF-8")),
        }
    }

    /// Text from bytes that [`Utf8`](super::utf8::Utf8) has seen all of, from the first to the last.
    pub(super) fn checked(bytes: Bytes) -> Self {
        debug_assert!(std::str::from_utf8(&bytes).is_ok());
        Self(bytes)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        // SAFETY: every constructor checks, or takes what was checked: `from_utf8`, `From<&str>` and `From<String>`, and
        // `checked`, which this crate's decoder calls after its incremental check has passed over every byte and ended.
        unsafe { std::str::from_utf8_unchecked(&self.0) }
    }

    /// The bytes, shared.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<Cow<'_, str>> for Text {
    fn from(text: Cow<'_, str>) -> Self {
        text.into_owned().into()
    }
}

impl From<Text> for Bytes {
    fn from(text: Text) -> Self {
        text.0
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        text.as_str().to_owned()
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_checked_when_it_is_made() {
        assert!(Text::from_utf8(Bytes::from_static(b"\xff")).is_err());
        let text = Text::from_utf8(Bytes::from_static("\u{e9}t\u{e9}".as_bytes())).unwrap();
        assert_eq!(text, "\u{e9}t\u{e9}");
        assert_eq!(text.clone().into_bytes().as_ptr(), text.as_ptr());
    }
}
