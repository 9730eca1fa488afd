//! The server's half: as much of it as gateways and tests need.

use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use portolan_core::{Error, Kind, Phase, Result};

use super::accept_key;
use super::verify::{all, has_token, only};
use crate::codec::{DeflateAgreed, PROTOCOL, Role};
use crate::options::Options;

/// Answers an upgrade of HTTP/1.1 (RFC 6455 4.2) with 101, and says how the connection is to behave. `subprotocols` are those
/// that the server speaks, the best first. Whether the origin and the path are right is for the caller to check.
pub fn accept(request: &Request<()>, options: Options, subprotocols: &[&str]) -> Result<(Response<()>, Options)> {
    let headers = request.headers();
    let upgrade = all(headers, &header::UPGRADE)?.iter().any(|value| has_token(value, "websocket"));
    let connection = all(headers, &header::CONNECTION)?.iter().any(|value| has_token(value, "upgrade"));
    if request.method() != Method::GET || !upgrade || !connection {
        return Err(bad("no request for an upgrade to websocket"));
    }
    let key = only(headers, &header::SEC_WEBSOCKET_KEY)?.map(str::trim).unwrap_or_default();
    // Sixteen bytes in base64.
    if key.len() != 24 || !key.ends_with("==") {
        return Err(bad("no key of sixteen bytes"));
    }
    let (mut response, options) = answer(headers, options, subprotocols)?;
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let map = response.headers_mut();
    map.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    map.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    map.insert(header::SEC_WEBSOCKET_ACCEPT, value(&accept_key(key.as_bytes()))?);
    Ok((response, options))
}

/// Answers an extended CONNECT (RFC 8441 5) with 200. That its `:protocol` is `websocket` is for the caller to check.
pub fn accept_extended(
    request: &Request<()>,
    options: Options,
    subprotocols: &[&str],
) -> Result<(Response<()>, Options)> {
    answer(request.headers(), options, subprotocols)
}

fn answer(headers: &HeaderMap, options: Options, subprotocols: &[&str]) -> Result<(Response<()>, Options)> {
    if only(headers, &header::SEC_WEBSOCKET_VERSION)?.map(str::trim) != Some("13") {
        return Err(bad("another version than 13"));
    }
    let mut response = Response::new(());
    let offered = all(headers, &header::SEC_WEBSOCKET_PROTOCOL)?;
    let chosen =
        subprotocols.iter().find(|known| offered.iter().any(|value| value.split(',').any(|p| p.trim() == **known)));
    if let Some(chosen) = chosen {
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, value(chosen)?);
    }
    let mut agreed: Option<DeflateAgreed> = None;
    if let Some(deflate) = &options.deflate {
        let offers = all(headers, &header::SEC_WEBSOCKET_EXTENSIONS)?;
        if let Some((choice, text)) = deflate.choose(&offers)? {
            response.headers_mut().insert(header::SEC_WEBSOCKET_EXTENSIONS, value(&text)?);
            agreed = Some(choice);
        }
    }
    Ok((response, options.role(Role::Server).agreed(agreed)))
}

fn value(text: &str) -> Result<HeaderValue> {
    HeaderValue::try_from(text).map_err(|_| bad("a value that no header can carry"))
}

fn bad(what: &str) -> Error {
    let error = Error::new(Kind::Protocol, format!("the client sent {what}"));
    error.with_protocol(PROTOCOL).with_phase(Phase::Handshake)
}
