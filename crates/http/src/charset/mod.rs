//! Content types, and text by its charset.
//!
//! [`ContentType`] is read once and asked often. [`decode`] makes text of bytes: a byte order mark counts first, then the `charset`
//! parameter, then UTF-8, as the WHATWG Encoding standard decodes. Without the feature `charset` all is read as UTF-8.
//! Bytes that are no text of their charset become U+FFFD.

#[cfg(feature = "charset")]
mod legacy;
#[cfg(not(feature = "charset"))]
mod utf8;

use std::borrow::Cow;
use std::fmt;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};

use crate::field::Cursor;

#[cfg(feature = "charset")]
use legacy as decoder;
#[cfg(not(feature = "charset"))]
use utf8 as decoder;

/// More than any honest content type has; the rest are not looked at.
const MAX_PARAMS: usize = 16;

/// A content type (RFC 9110 8.3.1), taken apart.
///
/// ```
/// use portolan_http::charset::ContentType;
///
/// let html = ContentType::parse("Text/HTML; charset=\"ISO-8859-1\"").expect("one");
/// assert_eq!((html.essence(), html.charset()), ("text/html", Some("ISO-8859-1")));
/// assert!(ContentType::parse("application/problem+json").expect("one").is_json());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentType {
    /// In lower case.
    essence: Box<str>,
    /// Names in lower case.
    params: Vec<(Box<str>, String)>,
}

impl ContentType {
    /// Reads a content type; `None` where there is no `type/subtype`. What follows a mistake in the parameters is left out.
    pub fn parse(text: &str) -> Option<Self> {
        let mut cursor = Cursor::new(text);
        cursor.skip_blanks();
        let kind = cursor.token()?;
        let subtype = cursor.eat('/').then(|| cursor.token()).flatten()?;
        let essence = format!("{kind}/{subtype}").to_ascii_lowercase().into();
        let mut params: Vec<(Box<str>, String)> = Vec::new();
        for _ in 0..MAX_PARAMS {
            cursor.skip_blanks();
            if !cursor.eat(';') {
                break;
            }
            cursor.skip_blanks();
            let Some(name) = cursor.token() else { continue };
            let Some(value) = cursor.value(&[';', ',']) else { break };
            // The first of a name counts (WHATWG MIME Sniffing 4.4).
            let name: Box<str> = name.to_ascii_lowercase().into();
            if params.iter().all(|(known, _)| *known != name) {
                params.push((name, value));
            }
        }
        Some(Self { essence, params })
    }

    /// Reads the value of a field.
    pub fn from_value(value: &HeaderValue) -> Option<Self> {
        Self::parse(value.to_str().ok()?)
    }

    /// The content type that the fields name. Of many the last counts, as browsers have it.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        headers.get_all(CONTENT_TYPE).iter().rev().find_map(Self::from_value)
    }

    /// Type and subtype in lower case, without parameters.
    pub fn essence(&self) -> &str {
        &self.essence
    }

    /// A parameter by its name in lower case.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(known, _)| **known == *name).map(|(_, value)| value.as_str())
    }

    /// The charset as it was named.
    pub fn charset(&self) -> Option<&str> {
        self.param("charset")
    }

    /// Whether it is JSON, by itself or by its suffix.
    pub fn is_json(&self) -> bool {
        matches!(&*self.essence, "application/json" | "text/json") || self.essence.ends_with("+json")
    }

    /// Whether it can be shown as text: `text/*`, JSON, XML, JavaScript and forms.
    pub fn is_text(&self) -> bool {
        let known = ["application/xml", "application/javascript", "application/x-www-form-urlencoded"];
        self.essence.starts_with("text/")
            || self.is_json()
            || self.essence.ends_with("+xml")
            || known.contains(&&*self.essence)
    }
}

impl fmt::Display for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.essence)?;
        self.params.iter().try_for_each(|(name, value)| {
            write!(f, "; {name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
        })
    }
}

/// Bytes as text, by their mark, the content type's charset, or else as UTF-8. Nothing is copied where the bytes are UTF-8.
pub fn decode<'a>(content_type: Option<&ContentType>, bytes: &'a [u8]) -> Cow<'a, str> {
    decoder::decode(content_type.and_then(ContentType::charset), bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_are_read_leniently() {
        let parse = |text: &str| ContentType::parse(text).map(|found| found.to_string());
        for (text, shown) in [
            ("text/html", Some("text/html")),
            (
                " Text/HTML ; Charset=UTF-8;;x=\"a;\\\"b\"; charset=other",
                Some("text/html; charset=\"UTF-8\"; x=\"a;\\\"b\""),
            ),
            ("a/b; x; charset=c", Some("a/b")),
            ("a/b, c/d", Some("a/b")),
            ("a/b; x=\"open", Some("a/b")),
            ("a/b;x=", Some("a/b")),
            ("text", None),
            ("/html", None),
            ("", None),
        ] {
            assert_eq!(parse(text).as_deref(), shown, "{text}");
            if let Some(shown) = shown {
                assert_eq!(parse(shown).as_deref(), Some(shown));
            }
        }
        let is = |text: &str| ContentType::parse(text).map(|found| (found.is_json(), found.is_text())).unwrap();
        assert_eq!(is("application/vnd.api+json"), (true, true));
        assert_eq!(is("image/svg+xml"), (false, true));
        assert_eq!(is("image/png"), (false, false));
        let mut headers = HeaderMap::new();
        headers.append(CONTENT_TYPE, HeaderValue::from_static("a/b"));
        headers.append(CONTENT_TYPE, HeaderValue::from_static("c/d"));
        headers.append(CONTENT_TYPE, HeaderValue::from_static("nonsense"));
        assert_eq!(ContentType::of(&headers).unwrap().essence(), "c/d");
    }

    #[test]
    fn utf8_is_what_is_read_where_nothing_else_is_said() {
        assert_eq!(decode(None, "grüße".as_bytes()), "grüße");
        assert_eq!(decode(None, b"\xef\xbb\xbfmarked"), "marked");
        assert_eq!(decode(None, b"a\xffb"), "a\u{fffd}b");
        let unknown = ContentType::parse("text/plain; charset=klingon");
        assert_eq!(decode(unknown.as_ref(), "grüße".as_bytes()), "grüße");
        assert!(matches!(decode(None, b"plain"), Cow::Borrowed(_)));
    }

    #[cfg(feature = "charset")]
    #[test]
    fn other_charsets_are_read_by_name_and_marks_win() {
        let as_charset = |charset: &str, bytes: &[u8]| {
            let content_type = ContentType::parse(&format!("text/plain; charset={charset}"));
            decode(content_type.as_ref(), bytes).into_owned()
        };
        assert_eq!(as_charset("iso-8859-1", b"gr\xfc\xdfe \x80"), "grüße €");
        assert_eq!(as_charset("Shift_JIS", b"\x93\xfa\x96\x7b"), "日本");
        assert_eq!(as_charset("windows-1251", b"\xcc\xe8\xf0"), "Мир");
        assert_eq!(as_charset("utf-16le", b"h\0i\0"), "hi");
        assert_eq!(as_charset("gb18030", b"\xd6\xd0"), "中");
        assert_eq!(as_charset("iso-8859-1", b"\xef\xbb\xbf\xc3\xbc"), "ü");
        assert_eq!(as_charset("utf-8", b"\xff\xfeh\0i\0"), "hi");
        assert_eq!(as_charset("utf-8", b"\xfe\xff\0h\0i"), "hi");
    }
}
