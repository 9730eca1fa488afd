//! A request's head, as HTTP/2 and HTTP/3 have it: checked before anything is sent, with its pseudo-headers apart.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Uri};

use crate::{ENTRY_OVERHEAD, Pseudo};

/// What goes into a HEADERS frame (RFC 9113 8.3.1, RFC 9114 4.3.1), all of it checked.
#[derive(Debug)]
pub struct RequestHead<'a> {
    method: &'a Method,
    scheme: Option<&'a str>,
    authority: &'a str,
    path: Option<&'a str>,
    protocol: Option<&'a str>,
    headers: &'a HeaderMap,
    content_length: Option<HeaderValue>,
}

/// A field of the head, in the order of the wire.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::exhaustive_enums, reason = "a field is one or the other")]
pub enum Line<'a> {
    /// A pseudo-header: they come first.
    Pseudo(Pseudo, &'a [u8]),
    /// A plain field.
    Field(&'a HeaderName, &'a HeaderValue),
}

/// Why a head or trailers can't be sent: the caller's mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsendable(Box<str>);

impl Unsendable {
    fn new(why: impl Into<Box<str>>) -> Self {
        Self(why.into())
    }

    /// What is wrong.
    pub fn message(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Unsendable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unsendable {}

impl<'a> RequestHead<'a> {
    /// Checks a request. `protocol` is that of an extended CONNECT (RFC 8441, RFC 9220); `body_len` is what its body says of its
    /// length, to be told when the caller didn't.
    pub fn new(parts: &'a Parts, protocol: Option<&'a str>, body_len: Option<u64>) -> Result<Self, Unsendable> {
        check_fields(&parts.headers)?;
        if protocol.is_some() && parts.method != Method::CONNECT {
            return Err(Unsendable::new("the Protocol extension is for CONNECT alone"));
        }
        let authority = authority(&parts.uri, &parts.headers)?;
        let connect = parts.method == Method::CONNECT && protocol.is_none();
        // RFC 9113 8.5, RFC 9114 4.4: a plain CONNECT has neither scheme nor path.
        let (scheme, path) = if connect {
            (None, None)
        } else {
            let scheme = parts.uri.scheme_str().ok_or_else(|| Unsendable::new("the URI has no scheme"))?;
            (Some(scheme), Some(path(&parts.method, &parts.uri)))
        };
        check_length(&parts.headers, body_len)?;
        let length = match body_len {
            Some(0) if !matches!(parts.method, Method::POST | Method::PUT | Method::PATCH) => None,
            _ if connect || protocol.is_some() || parts.headers.contains_key(header::CONTENT_LENGTH) => None,
            length => length.map(HeaderValue::from),
        };
        Ok(Self {
            method: &parts.method,
            scheme,
            authority,
            path,
            protocol,
            headers: &parts.headers,
            content_length: length,
        })
    }

    /// The method.
    pub fn method(&self) -> &Method {
        self.method
    }

    /// The protocol of an extended CONNECT.
    pub fn protocol(&self) -> Option<&str> {
        self.protocol
    }

    /// The size of the header list as the peer counts it (RFC 9113 6.5.2, RFC 9114 4.2.2).
    pub fn list_size(&self) -> usize {
        let mut size = 0usize;
        self.each(|line| {
            let (name, value) = match line {
                Line::Pseudo(name, value) => (name.as_str(), value.len()),
                Line::Field(name, value) => (name.as_str(), value.len()),
            };
            size = size.saturating_add(name.len()).saturating_add(value).saturating_add(ENTRY_OVERHEAD);
        });
        size
    }

    /// Every field of it, in order.
    #[inline]
    pub fn each(&self, mut sink: impl FnMut(Line<'_>)) {
        sink(Line::Pseudo(Pseudo::Method, self.method.as_str().as_bytes()));
        if let Some(protocol) = self.protocol {
            sink(Line::Pseudo(Pseudo::Protocol, protocol.as_bytes()));
        }
        if let Some(scheme) = self.scheme {
            sink(Line::Pseudo(Pseudo::Scheme, scheme.as_bytes()));
        }
        sink(Line::Pseudo(Pseudo::Authority, self.authority.as_bytes()));
        if let Some(path) = self.path {
            sink(Line::Pseudo(Pseudo::Path, path.as_bytes()));
        }
        for (name, value) in self.headers {
            // Said by :authority already, and the two must not differ (RFC 9113 8.3.1, RFC 9114 4.3.1).
            if name != header::HOST {
                sink(Line::Field(name, value));
            }
        }
        if let Some(length) = &self.content_length {
            sink(Line::Field(&header::CONTENT_LENGTH, length));
        }
    }
}

/// Checks what is forbidden in requests and trailers (RFC 9113 8.2.2, RFC 9114 4.2): fields of the connection.
pub fn check_fields(headers: &HeaderMap) -> Result<(), Unsendable> {
    for (name, value) in headers {
        if is_connection_field(name) {
            return Err(Unsendable::new(format!("{name} is for HTTP/1.1 alone")));
        }
        if name == header::TE && !value.as_bytes().eq_ignore_ascii_case(b"trailers") {
            return Err(Unsendable::new("te may say nothing but trailers above HTTP/1.1"));
        }
    }
    Ok(())
}

/// A body that is not as long as was said makes a request malformed (RFC 9113 8.1.1, RFC 9114 4.1.2).
fn check_length(headers: &HeaderMap, body_len: Option<u64>) -> Result<(), Unsendable> {
    let mut said = headers.get_all(header::CONTENT_LENGTH).iter();
    let (Some(first), next) = (said.next(), said.next()) else { return Ok(()) };
    let digits = first.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let number: Option<u64> = digits.and_then(|text| text.parse().ok());
    match (number, body_len) {
        _ if next.is_some() => Err(Unsendable::new("two content-length fields")),
        (None, _) => Err(Unsendable::new("a content-length that is no number")),
        (Some(said), Some(length)) if said != length => {
            Err(Unsendable::new(format!("content-length {said} for a body of {length} bytes")))
        }
        _ => Ok(()),
    }
}

/// The size of a list without pseudo-headers, as trailers are, counted as [`RequestHead::list_size`] counts.
pub fn fields_size(headers: &HeaderMap) -> usize {
    let size = |name: &HeaderName, value: &HeaderValue| {
        name.as_str().len().saturating_add(value.len()).saturating_add(ENTRY_OVERHEAD)
    };
    headers.iter().map(|(name, value)| size(name, value)).fold(0, usize::saturating_add)
}

/// Whether a field speaks of one HTTP/1.1 connection.
#[inline]
pub fn is_connection_field(name: &HeaderName) -> bool {
    *name == header::CONNECTION
        || *name == header::TRANSFER_ENCODING
        || *name == header::UPGRADE
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

fn authority<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Result<&'a str, Unsendable> {
    let said = match uri.authority() {
        Some(authority) => authority.as_str(),
        None => match headers.get(header::HOST) {
            Some(host) => host.to_str().map_err(|_| Unsendable::new("the host header is no text"))?,
            None => return Err(Unsendable::new("the URI has no authority and there is no host header")),
        },
    };
    // RFC 9113 8.3.1, RFC 9114 4.3.1: user information has no place in :authority.
    let at = said.bytes().rposition(|byte| byte == b'@');
    Ok(at.and_then(|at| said.get(at.saturating_add(1)..)).unwrap_or(said))
}

fn path<'a>(method: &Method, uri: &'a Uri) -> &'a str {
    match uri.path_and_query() {
        // RFC 9113 8.3.1, RFC 9114 4.3.1: OPTIONS without a path asks about the server as a whole.
        Some(path) if *method == Method::OPTIONS && path.as_str() == "/" => "*",
        Some(path) => path.as_str(),
        None => "/",
    }
}
