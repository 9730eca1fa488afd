//! UTF-8 alone.

use std::borrow::Cow;

pub(super) fn decode<'a>(_label: Option<&str>, bytes: &'a [u8]) -> Cow<'a, str> {
    String::from_utf8_lossy(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes))
}
