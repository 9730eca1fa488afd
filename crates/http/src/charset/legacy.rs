//! All charsets of the web.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8};

pub(super) fn decode<'a>(label: Option<&str>, bytes: &'a [u8]) -> Cow<'a, str> {
    let encoding = label.and_then(|label| Encoding::for_label(label.as_bytes())).unwrap_or(UTF_8);
    encoding.decode(bytes).0
}
