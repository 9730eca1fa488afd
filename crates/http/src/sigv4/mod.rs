//! AWS Signature Version 4: requests to AWS, and to what asks for the same signatures (feature `sigv4`).
//!
//! - **What works**: signed fields, presigned URLs, session tokens; the rules of S3 for paths and payloads, streamed bodies signed piece
//!   by piece, with a checksum behind them if asked for; keys from the environment and the shared profile file, or from a
//!   [`ProvideKey`] of your own; a clock that is wrong is corrected by the server's. Signed anew for each attempt.
//! - **What is not done**: SigV4a, S3 Express sessions, keys from containers, IMDS, SSO and assumed roles ([`ProvideKey`] is the place for
//!   them), the region out of `~/.aws/config`.
//! - **Tested against**: AWS's test suite and the examples of the S3 reference, botocore request by request, moto as a server.
//! - **Security**: the secret never leaves; keys are wiped, `Debug` shows their names alone. The path and the query are sent in the form
//!   that is signed. A request that is redirected to another origin goes there unsigned.
//!
//! ```no_run
//! # async fn run() -> portolan_core::Result<()> {
//! use std::time::Duration;
//! use portolan_http::Client;
//! use portolan_http::sigv4::{KeyChain, SigV4};
//!
//! let s3 = SigV4::new(KeyChain::from_env(), "eu-central-1", "s3");
//! let client = Client::builder().sign(s3.clone()).build()?;
//! let object = "https://bucket.s3.eu-central-1.amazonaws.com/key";
//! client.put(object).body("hello").send().await?.error_for_status()?;
//! let shared = s3.presign(&http::Method::GET, object, Duration::from_secs(600)).await?;
//! println!("good for ten minutes: {shared}");
//! # Ok(()) }
//! ```

mod canonical;
mod chunked;
mod credentials;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::BodyExt;
use portolan_core::{Error, Result, clock};
use sha2::{Digest, Sha256};

use self::canonical::{ALGORITHM, Scope, canonical, encode, encode_component, hex, with_path};
use self::chunked::{CHECKSUM, Chunked, Seed, encoded_length};
use self::credentials::Provider;
use crate::body::Body;
use crate::civil;
use crate::sign::Sign;
use crate::uri::IntoUri;

pub use self::credentials::{AccessKey, KeyChain, Profile, ProvideKey};

const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const CONTENT: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
const DECODED_LENGTH: HeaderName = HeaderName::from_static("x-amz-decoded-content-length");
const TRAILER: HeaderName = HeaderName::from_static("x-amz-trailer");

const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
const STREAMING: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
const STREAMING_TRAILER: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER";

/// A presigned URL is good for no longer: seven days.
const MAX_EXPIRY: Duration = Duration::from_secs(7 * 86_400);
/// A clock that is wrong by more is corrected, in seconds: AWS allows five minutes at most services, fifteen at S3.
const MAX_SKEW: u64 = 240;

type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Signs requests for one service in one region.
#[derive(Clone)]
#[must_use]
pub struct SigV4 {
    provider: Arc<dyn Provider>,
    region: String,
    service: String,
    payload: Payload,
    trailer: bool,
    path_as_it_is: bool,
    clock: Clock,
    /// What the server's clock is ahead of ours, in seconds; shared by clones.
    skew: Option<Arc<AtomicI64>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Payload {
    /// Hashed where that can be done before the request, in signed pieces otherwise.
    Auto,
    Chunked,
    Unsigned,
}

impl SigV4 {
    /// A signer for a service, as it is called in signatures: `s3`, `execute-api`, `dynamodb`. For S3 (`s3`, `s3-outposts`,
    /// `s3-object-lambda`, `s3express`) paths are signed as they are, and the payload's hash is sent.
    pub fn new(keys: impl ProvideKey, region: impl Into<String>, service: impl Into<String>) -> Self {
        let service = service.into();
        Self {
            provider: Arc::new(keys),
            region: region.into(),
            path_as_it_is: matches!(service.as_str(), "s3" | "s3-outposts" | "s3-object-lambda" | "s3express"),
            service,
            payload: Payload::Auto,
            trailer: false,
            clock: Arc::new(clock::wall),
            skew: Some(Arc::default()),
        }
    }

    /// Leaves the body out of the signature: for streams whose length nobody knows. Whoever can change what is on its way can then change
    /// it, so use it over https alone. S3 allows it, most others don't.
    pub fn unsigned_payload(mut self) -> Self {
        self.payload = Payload::Unsigned;
        self
    }

    /// Signs every body piece by piece, as S3 can read it. Default: streams alone, to S3. The length must be known: by the body itself, or
    /// said in `content-length`.
    pub fn chunked_payload(mut self) -> Self {
        self.payload = Payload::Chunked;
        self
    }

    /// Sends a SHA-256 of the whole body behind one that is signed piece by piece, for S3 to keep. Default off.
    pub fn trailing_checksum(mut self, on: bool) -> Self {
        self.trailer = on;
        self
    }

    /// What time it is. Default: the machine's clock.
    pub fn clock(mut self, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(now);
        self
    }

    /// Where a server refuses and its `date` is more than four minutes off, goes by its clock from then on and sends the request once
    /// more. Default on.
    pub fn correct_skew(mut self, on: bool) -> Self {
        self.skew = on.then(Arc::default);
        self
    }

    /// A URL with the signature in its query, good for `expires` (seven days at most) to whoever has it. The body is not a part of it at
    /// S3, and must be empty elsewhere. Dropping the future changes nothing.
    pub async fn presign(&self, method: &Method, uri: impl IntoUri, expires: Duration) -> Result<Uri> {
        self.presign_with(method, uri, &HeaderMap::new(), expires).await
    }

    /// The same with fields that must then be sent as they are here.
    pub async fn presign_with(
        &self,
        method: &Method,
        uri: impl IntoUri,
        headers: &HeaderMap,
        expires: Duration,
    ) -> Result<Uri> {
        if expires < Duration::from_secs(1) || expires > MAX_EXPIRY {
            return Err(Error::usage("a presigned URL is good for one second at least and seven days at most"));
        }
        let mut parts = http::Request::new(()).into_parts().0;
        (parts.method, parts.uri, parts.headers) = (method.clone(), uri.into_uri()?, headers.clone());
        if parts.uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(Error::usage("a URL with a user and a signature"));
        }
        crate::sign::plain_authority(&mut parts)?;
        let (access, scope) = (self.provider.key().await?, self.scope());
        let host = crate::sign::authority(&parts)?;
        parts.uri = encode(&parts.uri)?;
        let (_, names) = canonical(&parts, &parts.headers, &host, "", true);
        let credential = format!("{}/{}", access.id, scope.scope);
        let expires = expires.as_secs().to_string();
        let mut pairs = vec![
            ("X-Amz-Algorithm", ALGORITHM),
            ("X-Amz-Credential", &credential),
            ("X-Amz-Date", &scope.date),
            ("X-Amz-Expires", &expires),
            ("X-Amz-SignedHeaders", &names),
        ];
        if let Some(token) = &access.token {
            pairs.push(("X-Amz-Security-Token", token.expose()));
        }
        let said = pairs.iter().map(|(name, value)| format!("{name}={}", encode_component(value)));
        let said = said.collect::<Vec<_>>().join("&");
        parts.uri = crate::uri::with_query(&parts.uri, &said)?;
        let payload = if self.path_as_it_is { UNSIGNED.to_owned() } else { hex(&Sha256::digest([])) };
        let (text, _) = canonical(&parts, &parts.headers, &host, &payload, self.path_as_it_is);
        let signature = scope.signature(&*scope.key(&access), &text);
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        with_path(&parts.uri, &format!("{path}&X-Amz-Signature={signature}"))
    }

    fn scope(&self) -> Scope {
        let skew = self.skew.as_ref().map_or(0, |skew| skew.load(Ordering::Relaxed));
        Scope::new(self.now().saturating_add(skew), &self.region, &self.service)
    }

    fn now(&self) -> i64 {
        civil::unix((self.clock)())
    }

    /// What is said of the body, and the length of one that is signed in pieces; `None` if it must be read first.
    fn payload(&self, headers: &HeaderMap, body: &Body) -> Result<Option<(String, Option<u64>)>> {
        match (self.payload, body.as_bytes()) {
            (Payload::Unsigned, _) => Ok(Some((UNSIGNED.to_owned(), None))),
            (Payload::Auto, Some(bytes)) | (Payload::Chunked, Some(bytes @ [])) => {
                Ok(Some((hex(&Sha256::digest(bytes)), None)))
            }
            (Payload::Auto, None) if !self.path_as_it_is => Ok(None),
            (Payload::Auto | Payload::Chunked, bytes) => {
                let said = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
                let known =
                    bytes.map(|bytes| bytes.len() as u64).or_else(|| body.try_clone()?.ready().size_hint().exact());
                let length = known.or_else(|| body.size_hint().exact()).or(said).ok_or_else(|| {
                    Error::usage("a streamed body is signed with its length: say content-length, or unsigned_payload")
                })?;
                let name = if self.trailer { STREAMING_TRAILER } else { STREAMING };
                Ok(Some((name.to_owned(), Some(length))))
            }
        }
    }
}

/// The hash of a body that can be had again.
async fn read_through(copy: Option<Body>) -> Result<String> {
    let copy = copy.ok_or_else(|| {
        Error::usage(
            "a body that can be had once can't be signed here: make it with Body::from_fn, or say unsigned_payload",
        )
    })?;
    let (mut copy, mut hash) = (copy.ready(), Sha256::new());
    while let Some(frame) = copy.frame().await {
        let frame =
            frame.map_err(|error| Error::usage("the body failed as it was read to be signed").with_source(error))?;
        if let Some(data) = frame.data_ref() {
            hash.update(data);
        }
    }
    Ok(hex(&hash.finalize()))
}

impl Sign for SigV4 {
    async fn sign(&self, request: &mut Parts, body: Body) -> Result<Body> {
        let (access, scope) = (self.provider.key().await?, self.scope());
        let (payload, pieces) = match self.payload(&request.headers, &body)? {
            Some(payload) => payload,
            None => {
                let copy = body.try_clone();
                (read_through(copy).await?, None)
            }
        };
        request.uri = encode(&request.uri)?;
        let headers = &mut request.headers;
        for name in [header::AUTHORIZATION, DATE, CONTENT, TOKEN, DECODED_LENGTH, TRAILER] {
            headers.remove(name);
        }
        headers.insert(DATE, value(&scope.date)?);
        if self.path_as_it_is || pieces.is_some() || payload == UNSIGNED {
            headers.insert(CONTENT, value(&payload)?);
        }
        if let Some(token) = &access.token {
            headers.insert(TOKEN, secret_value(token.expose())?);
        }
        if let Some(length) = pieces {
            headers.insert(DECODED_LENGTH, length.into());
            headers.insert(header::CONTENT_LENGTH, encoded_length(length, self.trailer).into());
            let coding = match headers.get(header::CONTENT_ENCODING).and_then(|value| value.to_str().ok()) {
                Some(coding) => format!("aws-chunked,{coding}"),
                None => "aws-chunked".to_owned(),
            };
            headers.insert(header::CONTENT_ENCODING, value(&coding)?);
            if self.trailer {
                headers.insert(TRAILER, HeaderValue::from_static(CHECKSUM));
            }
        }
        let host = crate::sign::authority(request)?;
        let (text, names) = canonical(request, &request.headers, &host, &payload, self.path_as_it_is);
        let key = scope.key(&access);
        let signature = scope.signature(&*key, &text);
        let field = format!(
            "{ALGORITHM} Credential={}/{}, SignedHeaders={names}, Signature={signature}",
            access.id, scope.scope
        );
        request.headers.insert(header::AUTHORIZATION, secret_value(&field)?);
        Ok(match pieces {
            None => body,
            Some(length) => {
                Body::from_body(Chunked::new(body, length, Seed { scope, key, previous: signature }, self.trailer))
            }
        })
    }

    fn refused(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let date = headers.get(header::DATE).and_then(|value| value.to_str().ok());
        let date = date.and_then(|text| httpdate::parse_http_date(text).ok()).map(civil::unix);
        let (Some(skew), Some(date), StatusCode::FORBIDDEN) = (&self.skew, date, status) else { return false };
        let off = date.saturating_sub(self.now());
        let before = skew.load(Ordering::Relaxed);
        let wrong = off.abs_diff(before) > MAX_SKEW;
        if wrong {
            skew.store(off, Ordering::Relaxed);
        }
        wrong
    }
}

fn value(text: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(text).map_err(|_| Error::usage("a key or a region that no field can hold"))
}

fn secret_value(text: &str) -> Result<HeaderValue> {
    let mut value = value(text)?;
    value.set_sensitive(true);
    Ok(value)
}

impl fmt::Debug for SigV4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigV4").field("region", &self.region).field("service", &self.service).finish_non_exhaustive()
    }
}
