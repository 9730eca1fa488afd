//! What the answer makes of the request.

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderMap, Response, StatusCode};
use portolan_core::{Delivery, Error, Kind, Phase, Result};

use super::{Request, accept_key};
use crate::codec::{Deflate, DeflateAgreed, PROTOCOL};
use crate::options::Options;

/// What the handshake came to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Agreed {
    /// The subprotocol that the server chose.
    pub subprotocol: Option<String>,
    /// The compression that both ends keep to.
    pub deflate: Option<DeflateAgreed>,
    /// The headers of the answer.
    pub headers: HeaderMap,
}

/// An answer that opens no WebSocket: a redirect, a demand for credentials, an error. [`Error::server`] gives it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Rejected {
    /// The status.
    pub status: StatusCode,
    /// The headers: `Location`, `WWW-Authenticate`, `Retry-After`.
    pub headers: HeaderMap,
    /// The first 16 KiB of the body.
    pub body: Bytes,
}

impl Rejected {
    pub(crate) fn into_error(status: StatusCode, headers: HeaderMap, body: Bytes) -> Error {
        let message = match status.as_u16() {
            300..=399 => "the server redirects",
            401 => "the server wants credentials",
            403 => "the server forbids it",
            426 => "the server wants another version of the protocol",
            _ => "the server opened no WebSocket",
        };
        let after = portolan_http::retry_after(&headers);
        let mut error = Error::from_server(PROTOCOL, message, Self { status, headers, body });
        if let Some(after) = after {
            error = error.with_retry_after(after);
        }
        error.with_code(i64::from(status.as_u16())).with_phase(Phase::Handshake).with_delivery(Delivery::Answered)
    }
}

impl Request {
    /// Checks the answer to [`upgrade`](Self::upgrade) (RFC 6455 4.1): status, upgrade tokens, accept key, subprotocol,
    /// extensions. Any status but 101 is for [`Rejected`], and refused here.
    pub fn verify(&self, options: &Options, response: &Response<()>) -> Result<Agreed> {
        let headers = response.headers();
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(Rejected::into_error(response.status(), headers.clone(), Bytes::new()));
        }
        let upgrade = only(headers, &header::UPGRADE)?;
        if !upgrade.is_some_and(|value| value.trim().eq_ignore_ascii_case("websocket")) {
            return Err(refused("no upgrade to websocket"));
        }
        if !all(headers, &header::CONNECTION)?.iter().any(|value| has_token(value, "upgrade")) {
            return Err(refused("no Connection: Upgrade"));
        }
        let accept = only(headers, &header::SEC_WEBSOCKET_ACCEPT)?;
        if accept.map(str::trim) != Some(accept_key(self.key()).as_str()) {
            return Err(refused("a wrong Sec-WebSocket-Accept"));
        }
        self.agreed(options, headers)
    }

    /// Checks the answer to [`extended`](Self::extended) (RFC 8441 5.1): any 2xx opens the connection, and there is no key.
    pub fn verify_extended(&self, options: &Options, response: &Response<()>) -> Result<Agreed> {
        if !response.status().is_success() {
            return Err(Rejected::into_error(response.status(), response.headers().clone(), Bytes::new()));
        }
        self.agreed(options, response.headers())
    }

    fn agreed(&self, options: &Options, headers: &HeaderMap) -> Result<Agreed> {
        let subprotocol = match only(headers, &header::SEC_WEBSOCKET_PROTOCOL)?.map(str::trim) {
            Some(chosen) if self.subprotocols.iter().any(|offered| offered == chosen) => Some(chosen.to_owned()),
            Some(_) => return Err(refused("a subprotocol that was not offered")),
            None => None,
        };
        let extensions = all(headers, &header::SEC_WEBSOCKET_EXTENSIONS)?;
        let deflate = Deflate::verify(options.deflate.as_ref(), &extensions)?;
        Ok(Agreed { subprotocol, deflate, headers: headers.clone() })
    }
}

/// The one value of a header that may come once.
pub(super) fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>> {
    match all(headers, name)?[..] {
        [] => Ok(None),
        [value] => Ok(Some(value)),
        _ => Err(refused("a header twice that may come once")),
    }
}

pub(super) fn all<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Vec<&'a str>> {
    let values = headers.get_all(name).iter().map(|value| value.to_str());
    values.collect::<Result<_, _>>().map_err(|_| refused("a header that is not ASCII"))
}

pub(super) fn has_token(value: &str, token: &str) -> bool {
    value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token))
}

fn refused(what: &str) -> Error {
    let error = Error::new(Kind::Protocol, format!("the answer to the handshake has {what}"));
    error.with_protocol(PROTOCOL).with_phase(Phase::Handshake)
}
