//! URLs: from text, against a base, with a query.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use http::Uri;
use http::uri::Scheme;
use portolan_core::{Error, Result, percent_encode_into};

/// Whatever names a URL.
pub trait IntoUri {
    /// The URL, with what a URL can't hold as it is percent-encoded.
    fn into_uri(self) -> Result<Uri>;
}

impl IntoUri for Uri {
    fn into_uri(self) -> Result<Uri> {
        Ok(self)
    }
}

impl IntoUri for &Uri {
    fn into_uri(self) -> Result<Uri> {
        Ok(self.clone())
    }
}

impl IntoUri for &str {
    fn into_uri(self) -> Result<Uri> {
        parse(self)
    }
}

impl IntoUri for String {
    fn into_uri(self) -> Result<Uri> {
        parse(&self)
    }
}

impl IntoUri for &String {
    fn into_uri(self) -> Result<Uri> {
        parse(self)
    }
}

/// Parses a URL. A space or a letter beyond ASCII in the path or the query is encoded, as browsers do.
pub(crate) fn parse(text: &str) -> Result<Uri> {
    let plain = text.bytes().fold(true, |plain, byte| plain & PLAIN[usize::from(byte)]);
    let parsed =
        if plain { Uri::from_maybe_shared(shared(text)) } else { encoded(without_fragment(text).trim())?.parse() };
    // Never quote the text: it may hold a password.
    parsed.map_err(|error: http::uri::InvalidUri| match text.contains("://") {
        true => Error::usage(format!("no URL: {error}")),
        false => Error::usage("no URL: it begins with no scheme, such as https://"),
    })
}

/// What a URL is held in that is no longer than most: in one piece of memory with the count of those who share it.
struct Short {
    text: [u8; Self::MOST],
    len: usize,
}

impl Short {
    const MOST: usize = 120;
}

impl AsRef<[u8]> for Short {
    fn as_ref(&self) -> &[u8] {
        &self.text[..self.len]
    }
}

fn shared(text: &str) -> Bytes {
    let mut short = Short { text: [0; Short::MOST], len: text.len() };
    match short.text.get_mut(..text.len()) {
        Some(room) => {
            room.copy_from_slice(text.as_bytes());
            Bytes::from_owner(short)
        }
        None => Bytes::copy_from_slice(text.as_bytes()),
    }
}

/// A field's value as the text of a URL: what is no UTF-8 is kept octet by octet.
pub(crate) fn text_of(value: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(value) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => {
            let mut out = String::with_capacity(value.len() + 16);
            percent_encode_into(value.iter().copied(), |_| true, &mut out);
            Cow::Owned(out)
        }
    }
}

fn without_fragment(text: &str) -> &str {
    memchr::memchr(b'#', text.as_bytes()).map_or(text, |at| &text[..at])
}

/// Bytes that a URL may hold as they are, and that are no sign of a fragment.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0u8;
    while byte < 0x80 {
        plain[byte as usize] = byte.is_ascii_graphic() && byte != b'#' && !is_unwise(byte);
        byte += 1;
    }
    plain
};

/// What http::Uri refuses and browsers encode.
const fn is_unwise(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
}

fn encoded(text: &str) -> Result<String> {
    let start = text.find("://").map_or(0, |at| at + 3);
    let path = text[start..].find(['/', '?']).map_or(text.len(), |at| start + at);
    let mut out = String::with_capacity(text.len() + 16);
    out.push_str(&text[..start]);
    push_authority(&text[start..path], &mut out)?;
    // A control character stays, and is refused.
    percent_encode_into(text[path..].bytes(), |byte| byte != b' ' && !is_unwise(byte), &mut out);
    Ok(out)
}

/// User, host and port; what is beyond ASCII in the first is encoded, and in the second becomes punycode.
fn push_authority(authority: &str, out: &mut String) -> Result<()> {
    if authority.is_ascii() {
        out.push_str(authority);
        return Ok(());
    }
    let (user, place) = match authority.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, authority),
    };
    if let Some(user) = user {
        percent_encode_into(user.bytes(), |_| true, out);
        out.push('@');
    }
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (place, None),
    };
    out.push_str(&punycode(host)?);
    if let Some(port) = port {
        out.push(':');
        out.push_str(port);
    }
    Ok(())
}

#[cfg(feature = "idn")]
use self::idn::punycode;
#[cfg(not(feature = "idn"))]
use self::no_idn::punycode;

#[cfg(feature = "idn")]
mod idn {
    use portolan_core::{Error, Result};

    /// A host as browsers make it (UTS 46).
    pub(super) fn punycode(host: &str) -> Result<String> {
        match idna::domain_to_ascii(host) {
            // What maps to other than a host's letters could end it.
            Ok(name) if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')) => {
                Ok(name)
            }
            Ok(_) => Err(Error::usage("a URL whose host is no name")),
            Err(error) => Err(Error::usage("a URL whose host is no name").with_source(error)),
        }
    }
}

#[cfg(not(feature = "idn"))]
mod no_idn {
    use portolan_core::{Error, Result};

    pub(super) fn punycode(host: &str) -> Result<String> {
        if host.is_ascii() {
            return Ok(host.to_owned());
        }
        Err(Error::usage("a host beyond ASCII: write it in punycode, or turn on the feature idn"))
    }
}

/// Pairs as a form sends them (WHATWG URL 5.2).
pub(crate) fn form(pairs: impl serde::Serialize) -> Result<String> {
    serde_urlencoded::to_string(pairs)
        .map_err(|error| Error::usage("a value that is no list of pairs").with_source(error))
}

/// The same URL with more in its query.
pub(crate) fn with_query(uri: &Uri, encoded: &str) -> Result<Uri> {
    if encoded.is_empty() {
        return Ok(uri.clone());
    }
    let path = match uri.path() {
        "" => "/",
        path => path,
    };
    let path = match uri.query() {
        Some(query) if !query.is_empty() => format!("{path}?{query}&{encoded}"),
        _ => format!("{path}?{encoded}"),
    };
    with_path(uri, &path)
}

fn with_path(uri: &Uri, path: &str) -> Result<Uri> {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path.parse().map_err(|error| Error::usage(format!("no path of a URL: {error}")))?);
    Uri::from_parts(parts).map_err(|error| Error::usage(format!("no URL: {error}")))
}

/// A reference against a base (RFC 3986 5.2).
pub(crate) fn resolve(base: &Uri, reference: &str) -> Result<Uri> {
    let reference = without_fragment(reference).trim();
    let scheme = base.scheme_str().unwrap_or("http");
    if scheme_of(reference).is_some() {
        return parse(reference);
    }
    if let Some(rest) = reference.strip_prefix("//") {
        return parse(&format!("{scheme}://{rest}"));
    }
    let authority = base.authority().map_or("", |authority| authority.as_str());
    let (path, query) = match reference.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (reference, None),
    };
    let target = if path.is_empty() {
        let query = query.or(base.query());
        (base.path().to_owned(), query)
    } else if path.starts_with('/') {
        (without_dots(path), query)
    } else {
        let folder = base.path().rfind('/').map_or("/", |at| &base.path()[..=at]);
        (without_dots(&format!("{folder}{path}")), query)
    };
    let (path, query) = target;
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    parse(&format!("{scheme}://{authority}{path}{query}"))
}

/// The scheme of a reference that has one.
pub(crate) fn scheme_of(reference: &str) -> Option<&str> {
    let (scheme, _) = reference.split_once(':')?;
    let valid = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    valid.then_some(scheme)
}

/// RFC 3986 5.2.4.
fn without_dots(path: &str) -> String {
    let mut out: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    out.pop();
                }
                if last {
                    out.push("");
                }
            }
            segment => out.push(segment),
        }
    }
    format!("/{}", out.join("/"))
}

/// Whether both have the same scheme, host and port.
pub(crate) fn same_origin(a: &Uri, b: &Uri) -> bool {
    let host = |uri: &Uri| uri.host().unwrap_or_default().to_ascii_lowercase();
    a.scheme_str() == b.scheme_str() && host(a) == host(b) && port(a) == port(b)
}

/// The port, said or not.
pub(crate) fn port(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 })
}

/// A URL for logs: without user, password and query values.
pub(crate) struct Redacted<'a>(pub(crate) &'a Uri);

impl fmt::Display for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.0.authority().map_or("", |authority| authority.as_str());
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        write!(f, "{}://{host}{}", self.0.scheme_str().unwrap_or("?"), self.0.path())?;
        if self.0.query().is_some() { f.write_str("?..") } else { Ok(()) }
    }
}

impl fmt::Debug for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The same over TLS; the default port becomes the default port.
pub(crate) fn secure(uri: &Uri) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    parts.scheme = match uri.scheme_str()? {
        "http" => Some(Scheme::HTTPS),
        "ws" => Scheme::try_from("wss").ok(),
        _ => return None,
    };
    let authority = parts.authority.as_ref()?.as_str();
    if uri.port_u16() == Some(80) {
        parts.authority = Some(authority.rsplit_once(':').map_or(authority, |(bare, _)| bare).parse().ok()?);
    }
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_resolved_as_rfc_3986_does() {
        // RFC 3986 5.4, as far as http and https go.
        let base: Uri = "http://a/b/c/d;p?q".parse().unwrap();
        for (reference, target) in [
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g/"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y", "http://a/b/c/g?y"),
            ("#s", "http://a/b/c/d;p?q"),
            (";x", "http://a/b/c/;x"),
            ("", "http://a/b/c/d;p?q"),
            (".", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../g", "http://a/b/g"),
            ("../..", "http://a/"),
            ("../../../g", "http://a/g"),
            ("/./g", "http://a/g"),
            ("g;x=1/../y", "http://a/b/c/y"),
            ("https://b/x", "https://b/x"),
        ] {
            assert_eq!(resolve(&base, reference).unwrap().to_string(), target, "{reference}");
        }
    }

    #[test]
    fn what_a_url_cannot_hold_is_encoded() {
        assert_eq!(parse("http://a/ä b?q=\"x\"#f").unwrap().to_string(), "http://a/%C3%A4%20b?q=%22x%22");
        assert!(parse("http://a/\r\nx: y").is_err());
    }

    #[cfg(feature = "idn")]
    #[test]
    fn a_host_in_any_script_becomes_what_dns_knows() {
        for (text, url) in [
            ("http://Bücher.example/ä", "http://xn--bcher-kva.example/%C3%A4"),
            ("https://例え.テスト:8443", "https://xn--r8jz45g.xn--zckzah:8443/"),
            ("http://jö:p@faß.example/", "http://j%C3%B6:p@xn--fa-hia.example/"),
            ("http://１２７.0.0.1/", "http://127.0.0.1/"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), url, "{text}");
        }
        // What would map to the end of the host, or to nothing.
        for bad in
            ["http://a\u{2048}b.example/", "http://evil\u{ff0f}.example/", "http://\u{ad}/", "http://a\u{ff20}b/"]
        {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert!(parse("http://plain.example/").is_ok());
    }

    #[test]
    fn what_is_no_utf8_keeps_its_octets() {
        assert_eq!(text_of(b"/caf\xe9?q"), "/caf%E9?q");
        assert_eq!(text_of("/café".as_bytes()), "/café");
    }

    #[test]
    fn a_query_is_added_to() {
        let uri = with_query(&"http://a/b?c=d".parse().unwrap(), &form([("k é", "v&=")]).unwrap()).unwrap();
        assert_eq!(uri.to_string(), "http://a/b?c=d&k+%C3%A9=v%26%3D");
    }
}
