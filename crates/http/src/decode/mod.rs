//! Compressed responses made plain again (RFC 9110 8.4), in pieces, within limits.
//!
//! - **What works**: `gzip` with several members, `deflate` in a zlib wrapping and raw as some servers send it (feature
//!   `gzip`), `br` (feature `brotli`), `zstd` with several frames (feature `zstd`); codings stacked up to five deep; trailers
//!   are passed on.
//! - **What is not done**: a coding that this build lacks leaves the response as it came, headers too. So does a partial
//!   response (206): its range counts compressed bytes.
//! - **Security**: no more than 64 KiB come out at once, and nothing is decompressed ahead of the reader. The ratio of each
//!   coding is bounded from 8 MiB on, and the output in all if you say so ([`DecodeOptions`]); both end in
//!   [`Kind::Limit`]. zstd windows are bounded to 8 MiB (RFC 9659), br windows to 16 MiB.
//!   A body that ends before its coding does is an error.

mod body;
#[cfg(feature = "brotli")]
mod brotli;
#[cfg(feature = "gzip")]
mod gzip;
mod stage;
#[cfg(test)]
#[cfg(all(feature = "brotli", feature = "gzip", feature = "zstd"))]
mod tests;
#[cfg(feature = "zstd")]
mod zstd;

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use portolan_core::{Delivery, Error, Kind, Phase, Result};

pub use body::Decoded;
use stage::{Coding, Stage};

/// No honest server stacks more; each costs memory and multiplies what a bomb can do.
const MAX_CODINGS: usize = 5;
/// Deflate can't say more than 1032 bytes in one, and only a bomb comes near it for long.
const MAX_RATIO: u32 = 400;

type Open = fn() -> Result<Box<dyn Coding>>;

/// What this build can undo, in the order that we ask for it.
const CODINGS: &[&[(&str, Open)]] = &[
    #[cfg(feature = "gzip")]
    gzip::CODINGS,
    #[cfg(feature = "brotli")]
    brotli::CODINGS,
    #[cfg(feature = "zstd")]
    zstd::CODINGS,
];

/// How much a response may grow.
#[derive(Debug, Clone)]
pub struct DecodeOptions {
    max_ratio: Option<u32>,
    max_output: Option<u64>,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self { max_ratio: Some(MAX_RATIO), max_output: None }
    }
}

impl DecodeOptions {
    /// At most 400 bytes out for each byte in, no absolute limit.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes may come out of each coding for a byte that went in, once it gave more than 8 MiB. Default 400; `None` is
    /// no limit. Too low a value refuses honest but dull data, such as logs and sparse images.
    #[must_use]
    pub fn with_max_ratio(mut self, ratio: impl Into<Option<u32>>) -> Self {
        self.max_ratio = ratio.into();
        self
    }

    /// How many bytes may come out of each coding in all. Default `None`: no limit.
    #[must_use]
    pub fn with_max_output(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.max_output = bytes.into();
        self
    }
}

/// The value of `Accept-Encoding` for what this build can undo; `None` if it can undo nothing.
pub fn accept_encoding() -> Option<HeaderValue> {
    let names: Vec<&str> =
        CODINGS.iter().copied().flatten().map(|(name, _)| *name).filter(|name| !name.starts_with("x-")).collect();
    HeaderValue::from_str(&names.join(", ")).ok().filter(|value| !value.is_empty())
}

/// Wraps the body of a response to a request of `method`, so that it comes out plain, and removes `Content-Encoding` and
/// `Content-Length` if there was anything to undo. Responses that have no body by definition (HEAD, 204, 304) stay as they are.
pub fn decode<B>(method: &Method, response: Response<B>, options: &DecodeOptions) -> Result<Response<Decoded<B>>> {
    let (mut parts, body) = response.into_parts();
    let status = parts.status;
    let untouched = method == Method::HEAD
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
        || status == StatusCode::PARTIAL_CONTENT;
    let stages = if untouched { Vec::new() } else { stages(&parts.headers, options)? };
    if !stages.is_empty() {
        parts.headers.remove(CONTENT_ENCODING);
        parts.headers.remove(CONTENT_LENGTH);
    }
    Ok(Response::from_parts(parts, Decoded::new(body, stages)))
}

/// The stages in the order of their work; none if one of them is not known.
fn stages(headers: &HeaderMap, options: &DecodeOptions) -> Result<Vec<Stage>> {
    let mut stages = Vec::new();
    // Codings are listed in the order they were applied (RFC 9110 8.4), so the last comes off first.
    for field in headers.get_all(CONTENT_ENCODING).iter().rev() {
        let Ok(field) = field.to_str() else { return Ok(Vec::new()) };
        let names = field.rsplit(',').map(str::trim).filter(|name| !name.is_empty());
        for name in names.filter(|name| !name.eq_ignore_ascii_case("identity")) {
            let known = CODINGS.iter().copied().flatten().find(|(known, _)| known.eq_ignore_ascii_case(name));
            let Some((name, open)) = known else { return Ok(Vec::new()) };
            if stages.len() == MAX_CODINGS {
                return Err(limit(format!("content coded more than {MAX_CODINGS} times")));
            }
            stages.push(Stage::new(name, open()?, options));
        }
    }
    Ok(stages)
}

fn limit(message: String) -> Error {
    answered(Error::new(Kind::Limit, message))
}

#[cfg_attr(
    not(any(feature = "gzip", feature = "brotli", feature = "zstd")),
    expect(dead_code, reason = "no coding can be broken")
)]
fn broken(message: &'static str) -> Error {
    answered(Error::new(Kind::Protocol, message))
}

/// The head of the response was read, so the request is never sent again.
fn answered(error: Error) -> Error {
    error.with_protocol("http").with_phase(Phase::Idle).with_delivery(Delivery::Answered)
}
