//! Text of unknown charset.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

/// What a server said, byte for byte: none of these protocols names a charset.
///
/// ```
/// use portolan_classic::Text;
///
/// let text = Text::from("caf\u{e9}\r\n\x1b[2Jx\n");
/// assert_eq!(text.lossy(), "caf\u{e9}\r\n\x1b[2Jx\n");
/// assert_eq!(text.printable(), "caf\u{e9}\n[2Jx\n");
/// assert_eq!(text.lines().count(), 2);
/// ```
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Text(Bytes);

impl Text {
    /// The bytes as they came.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as they came.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// As UTF-8, with a mark for what is none.
    pub fn lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    /// As ISO 8859-1, which every byte is: for old servers.
    pub fn latin1(&self) -> String {
        self.0.iter().copied().map(char::from).collect()
    }

    /// [`lossy`](Self::lossy) without control characters but tab and line feed: safe to show on a terminal (RFC 1288 3.3).
    pub fn printable(&self) -> String {
        self.lossy().chars().filter(|c| !c.is_control() || matches!(c, '\t' | '\n')).collect()
    }

    /// The lines without their ends, LF or CRLF.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let body = self.0.strip_suffix(b"\n").unwrap_or(&self.0);
        let lines = (!self.0.is_empty()).then(|| body.split(|byte| *byte == b'\n')).into_iter().flatten();
        lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line))
    }
}

impl From<Bytes> for Text {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}
