//! The head of a request, from values to bytes.

use bytes::{BufMut, BytesMut};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, Version, header};
use portolan_core::{Error, Result};

use crate::ext::AbsoluteForm;
use crate::options::Options;

/// How the body of a request is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// No body.
    None,
    /// This many bytes are left.
    Length(u64),
    /// As many chunks as it takes.
    Chunked,
}

/// What a request's head says about the exchange.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) framing: Framing,
    pub(crate) head: bool,
    pub(crate) connect: bool,
    pub(crate) upgrade: bool,
    pub(crate) expect: bool,
    pub(crate) close: bool,
}

/// Writes the head of `parts` to `out`, for a body of `length` bytes if that is known. `proxy` are the fields for the proxy that
/// is at the other end, if one is.
pub(crate) fn encode(
    parts: &Parts,
    length: Option<u64>,
    proxy: Option<&HeaderMap>,
    options: &Options,
    out: &mut BytesMut,
) -> Result<Asked> {
    if !matches!(parts.version, Version::HTTP_11 | Version::HTTP_10 | Version::HTTP_2 | Version::HTTP_3) {
        return Err(usage("a request's version is none that can be sent"));
    }
    // RFC 9112 3.2: servers that choose between two of them choose differently.
    if parts.headers.get_all(header::HOST).iter().nth(1).is_some() {
        return Err(usage("two host fields"));
    }
    let framing = framing(parts, length)?;
    let mut asked = Asked {
        framing,
        head: parts.method == Method::HEAD,
        connect: parts.method == Method::CONNECT,
        upgrade: false,
        expect: false,
        close: false,
    };
    target(parts, proxy.is_some(), out)?;
    if !parts.headers.contains_key(header::HOST) {
        let authority = parts.uri.authority().ok_or_else(|| usage("a request without a host"))?;
        field_name(&header::HOST, options.title_case, out);
        let host = without_user(authority.as_str());
        let default = match parts.uri.scheme_str() {
            Some("https" | "wss") => ":443",
            _ => ":80",
        };
        let host = if asked.connect { host } else { host.strip_suffix(default).unwrap_or(host) };
        out.put_slice(host.as_bytes());
        out.put_slice(b"\r\n");
    }
    for (name, value) in &parts.headers {
        if name == header::CONTENT_LENGTH || name == header::TRANSFER_ENCODING {
            continue;
        }
        if name == header::CONNECTION {
            asked.close |= lists(value.as_bytes(), b"close");
            asked.upgrade |= lists(value.as_bytes(), b"upgrade");
        } else if name == header::EXPECT {
            asked.expect = value.as_bytes().eq_ignore_ascii_case(b"100-continue") && framing != Framing::None;
        }
        field_name(name, options.title_case, out);
        out.put_slice(value.as_bytes());
        out.put_slice(b"\r\n");
    }
    for (name, value) in proxy.into_iter().flatten().filter(|(name, _)| !parts.headers.contains_key(*name)) {
        field_name(name, options.title_case, out);
        out.put_slice(value.as_bytes());
        out.put_slice(b"\r\n");
    }
    match framing {
        Framing::Chunked => {
            field_name(&header::TRANSFER_ENCODING, options.title_case, out);
            out.put_slice(b"chunked\r\n");
        }
        Framing::Length(length) => content_length(length, options, out),
        Framing::None if says_zero(parts) => content_length(0, options, out),
        Framing::None => {}
    }
    out.put_slice(b"\r\n");
    Ok(asked)
}

/// RFC 9110 4.2.4: user information is not sent.
fn without_user(authority: &str) -> &str {
    let at = authority.bytes().rposition(|byte| byte == b'@');
    at.and_then(|at| authority.get(at + 1..)).unwrap_or(authority)
}

/// RFC 9110 8.6: a method that usually has a body says that it has none.
fn says_zero(parts: &Parts) -> bool {
    matches!(parts.method, Method::POST | Method::PUT | Method::PATCH)
        || parts.headers.contains_key(header::CONTENT_LENGTH)
}

fn content_length(length: u64, options: &Options, out: &mut BytesMut) {
    field_name(&header::CONTENT_LENGTH, options.title_case, out);
    out.put_slice(itoa::Buffer::new().format(length).as_bytes());
    out.put_slice(b"\r\n");
}

/// The request line (RFC 9112 3).
fn target(parts: &Parts, proxied: bool, out: &mut BytesMut) -> Result<()> {
    let (method, uri) = (&parts.method, &parts.uri);
    out.reserve(256);
    out.put_slice(method.as_str().as_bytes());
    out.put_u8(b' ');
    if *method == Method::CONNECT {
        let authority = uri.authority().filter(|authority| authority.port().is_some());
        let authority = authority.ok_or_else(|| usage("CONNECT without host and port"))?;
        if authority.as_str().contains('@') {
            return Err(usage("CONNECT with user information"));
        }
        out.put_slice(authority.as_str().as_bytes());
    } else {
        if proxied || parts.extensions.get::<AbsoluteForm>().is_some() {
            let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
                return Err(usage("an absolute form without scheme and host"));
            };
            out.put_slice(scheme.as_bytes());
            out.put_slice(b"://");
            out.put_slice(without_user(authority.as_str()).as_bytes());
        }
        match uri.path_and_query() {
            // RFC 9112 3.2.4: `OPTIONS *`.
            Some(path) if path.as_str().starts_with('/') || path.as_str() == "*" => {
                out.put_slice(path.as_str().as_bytes())
            }
            Some(path) => {
                out.put_u8(b'/');
                out.put_slice(path.as_str().as_bytes());
            }
            None => out.put_u8(b'/'),
        }
    }
    out.put_slice(if parts.version == Version::HTTP_10 { b" HTTP/1.0\r\n" } else { b" HTTP/1.1\r\n" });
    Ok(())
}

/// RFC 9112 6: the length if it is known, chunks if not; what the caller says must agree.
fn framing(parts: &Parts, length: Option<u64>) -> Result<Framing> {
    let mut lengths = parts.headers.get_all(header::CONTENT_LENGTH).iter();
    let said = match (lengths.next(), lengths.next()) {
        (None, _) => None,
        (Some(_), Some(_)) => return Err(usage("two content-length fields")),
        (Some(value), None) => {
            Some(decimal(value.as_bytes()).ok_or_else(|| usage("a content-length that is no number"))?)
        }
    };
    let chunked = match parts.headers.get(header::TRANSFER_ENCODING) {
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"chunked") => true,
        Some(_) => return Err(usage("a transfer-encoding other than chunked")),
        None => false,
    };
    if chunked && said.is_some() {
        return Err(usage("both content-length and transfer-encoding"));
    }
    if let (Some(said), Some(length)) = (said, length)
        && said != length
    {
        return Err(usage(format!("content-length {said} for a body of {length} bytes")));
    }
    if parts.method == Method::CONNECT && length != Some(0) {
        return Err(usage("CONNECT with a body"));
    }
    match (length, chunked, said) {
        (Some(0), _, _) => Ok(Framing::None),
        (Some(length), false, _) | (None, false, Some(length)) => Ok(Framing::Length(length)),
        _ if parts.version == Version::HTTP_10 => Err(usage("HTTP/1.0 with a body of unknown length")),
        _ => Ok(Framing::Chunked),
    }
}

fn field_name(name: &HeaderName, title_case: bool, out: &mut BytesMut) {
    if title_case {
        let mut upper = true;
        for &byte in name.as_str().as_bytes() {
            out.put_u8(if upper { byte.to_ascii_uppercase() } else { byte });
            upper = byte == b'-';
        }
    } else {
        out.put_slice(name.as_str().as_bytes());
    }
    out.put_slice(b": ");
}

/// Trailers as they end a chunked body (RFC 9112 7.1.2). Fields that frame or route a message can't come late.
pub(crate) fn trailers(trailers: &HeaderMap, options: &Options, out: &mut BytesMut) -> Result<()> {
    out.put_slice(b"0\r\n");
    for (name, value) in trailers {
        if forbidden_in_trailers(name) {
            return Err(usage(format!("{name} can't be a trailer")));
        }
        field_name(name, options.title_case, out);
        out.put_slice(value.as_bytes());
        out.put_slice(b"\r\n");
    }
    out.put_slice(b"\r\n");
    Ok(())
}

/// RFC 9110 6.5.1.
pub(crate) fn forbidden_in_trailers(name: &HeaderName) -> bool {
    [
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::HOST,
        header::TRAILER,
        header::TE,
        header::CONTENT_ENCODING,
        header::CONTENT_TYPE,
        header::CONTENT_RANGE,
        header::AUTHORIZATION,
        header::SET_COOKIE,
        header::CONNECTION,
        header::UPGRADE,
    ]
    .contains(name)
}

/// Whether a comma-separated list names `token`, in any case.
pub(crate) fn lists(value: &[u8], token: &[u8]) -> bool {
    value.split(|&byte| byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
}

/// Digits alone, within 64 bits: no sign, no space (RFC 9110 8.6).
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 20 {
        return None;
    }
    text.iter().try_fold(0u64, |number, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

fn usage(message: impl Into<Box<str>>) -> Error {
    Error::usage(message).with_protocol(crate::PROTOCOL)
}
