//! The head of an HTTP/1.1 response, bounded.

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use portolan_core::{Error, Kind, Phase, Result};

use crate::codec::PROTOCOL;

/// The longest head (tungstenite's CVE-2023-43669 was the want of this).
pub(crate) const MAX_HEAD: usize = 64 << 10;
/// The most headers.
const MAX_HEADERS: usize = 100;

/// A response's head off the front of `src`, and its length; `None` needs more.
pub(crate) fn parse(src: &[u8]) -> Result<Option<(Response<()>, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut fields);
    let len = match parsed.parse(src) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if src.len() < MAX_HEAD => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(limit("the head of the answer is too long")),
        Err(httparse::Error::TooManyHeaders) => return Err(limit("the answer has too many headers")),
        Err(error) => return Err(broken("no HTTP/1.1 response").with_source(error)),
    };
    if len > MAX_HEAD {
        return Err(limit("the head of the answer is too long"));
    }
    // RFC 6455 4.1: the answer is one of HTTP/1.1 or later.
    if parsed.version != Some(1) {
        return Err(broken("an answer of another version than HTTP/1.1"));
    }
    let mut response = Response::new(());
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    *response.status_mut() = status.ok_or_else(|| broken("a status that is none"))?;
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| broken("a header name that is none"))?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| broken("a header value that is none"))?;
        headers.append(name, value);
    }
    *response.headers_mut() = headers;
    Ok(Some((response, len)))
}

pub(crate) fn broken(what: &'static str) -> Error {
    Error::protocol(PROTOCOL, what).with_phase(Phase::Handshake)
}

fn limit(what: &'static str) -> Error {
    Error::new(Kind::Limit, what).with_protocol(PROTOCOL).with_phase(Phase::Handshake)
}
