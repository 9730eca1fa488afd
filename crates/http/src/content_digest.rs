//! `Content-Digest` (RFC 9530): hashes of what a message carries, made and checked.
//!
//! ```
//! use portolan_http::content_digest::{Algorithm, check, content_digest};
//!
//! let value = content_digest(Algorithm::Sha256, b"{\"hello\": \"world\"}");
//! assert_eq!(value, "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:");
//! let headers = http::HeaderMap::from_iter([(http::HeaderName::from_static("content-digest"), value)]);
//! check(&headers, b"{\"hello\": \"world\"}")?;
//! assert!(check(&headers, b"{\"hello\": \"moon\"}").is_err());
//! # Ok::<(), portolan_core::Error>(())
//! ```

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};
use portolan_core::{Delivery, Error, Result};
use sha2::{Digest, Sha256, Sha512};

use crate::incoming::Incoming;
use crate::structured::{Bare, Dictionary, Member};

/// The field.
pub const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

/// How it is hashed. What RFC 9530 calls deprecated is not made, and not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Algorithm {
    /// `sha-256`.
    #[default]
    Sha256,
    /// `sha-512`.
    Sha512,
}

impl Algorithm {
    /// Its name in the field.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha-256",
            Self::Sha512 => "sha-512",
        }
    }

    pub(crate) fn hasher(self) -> Hasher {
        match self {
            Self::Sha256 => Hasher::Sha256(Sha256::new()),
            Self::Sha512 => Hasher::Sha512(Sha512::new()),
        }
    }

    pub(crate) fn field(self, hash: &[u8]) -> HeaderValue {
        let text = format!("{}=:{}:", self.as_str(), STANDARD.encode(hash));
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

/// The value of the field for a body: as it is sent, compressed or not.
pub fn content_digest(algorithm: Algorithm, body: &[u8]) -> HeaderValue {
    let mut hasher = algorithm.hasher();
    hasher.update(body);
    algorithm.field(&hasher.finish())
}

/// Whether a body has every digest that is said of it and that is known here; there must be one at least. The body is that of the wire:
/// compressed as it came.
pub fn check(headers: &HeaderMap, body: &[u8]) -> Result<()> {
    let mut expected = Expected::of(headers)?;
    expected.update(body);
    expected.finish()
}

#[derive(Debug)]
pub(crate) enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    pub(crate) fn update(&mut self, data: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(data),
            Self::Sha512(hash) => hash.update(data),
        }
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        match self {
            Self::Sha256(hash) => hash.finalize().to_vec(),
            Self::Sha512(hash) => hash.finalize().to_vec(),
        }
    }
}

/// What was said of a body.
#[derive(Debug)]
pub(crate) struct Expected(Vec<(Hasher, Vec<u8>)>);

impl Expected {
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self> {
        let field = Dictionary::of(headers, CONTENT_DIGEST).map_err(|error| error.into_error(crate::PROTOCOL))?;
        let known = [Algorithm::Sha256, Algorithm::Sha512].into_iter().filter_map(|algorithm| {
            let Member::Item(item) = field.get(algorithm.as_str())? else { return None };
            let Bare::Bytes(hash) = &item.value else { return None };
            Some((algorithm.hasher(), hash.clone()))
        });
        let known: Vec<_> = known.collect();
        if known.is_empty() { Err(broken("no content-digest that is known here")) } else { Ok(Self(known)) }
    }

    /// The body, which fails at its end if it is another.
    #[cfg_attr(not(feature = "signatures"), expect(dead_code, reason = "signatures cover digests"))]
    pub(crate) fn guard(self, body: Incoming) -> Incoming {
        Incoming::from_body(Guarded { body, expected: self, done: false })
    }

    fn update(&mut self, data: &[u8]) {
        self.0.iter_mut().for_each(|(hasher, _)| hasher.update(data));
    }

    fn finish(&mut self) -> Result<()> {
        let good = std::mem::take(&mut self.0).into_iter().all(|(hasher, expected)| hasher.finish() == expected);
        if good { Ok(()) } else { Err(broken("the body is not what content-digest says")) }
    }
}

fn broken(what: &'static str) -> Error {
    Error::protocol(crate::PROTOCOL, what).with_delivery(Delivery::Answered)
}

struct Guarded {
    body: Incoming,
    expected: Expected,
    done: bool,
}

impl http_body::Body for Guarded {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        if self.done {
            return Poll::Ready(None);
        }
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.expected.update(data);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => {
                self.done = true;
                Poll::Ready(self.expected.finish().err().map(Err))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
