//! Responses.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use http::header::{self, HeaderMap};
use http::response::Parts;
use http::{Extensions, Method, StatusCode, Uri, Version};
use http_body_util::{BodyDataStream, BodyExt};
use portolan_core::clock::{self, Instant};
use portolan_core::{ConnectionInfo, Delivery, Error, Kind, Phase, Result};
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

use crate::charset::{self, ContentType};
use crate::client::named;
use crate::decode::{DecodeOptions, decode};
use crate::incoming::Incoming;

/// How long the parts of one call took: the connection's own phases are in [`ConnectionInfo::timings`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Timings {
    /// Until there was a connection: waiting for one, or making one.
    pub connection: Duration,
    /// From there to the head of the response.
    pub first_byte: Duration,
    /// From the call to the head of the response, with redirects and repetitions.
    pub total: Duration,
}

/// A response whose head has come; its body is read as it is asked for.
pub struct Response(Box<Whole>);

/// One piece of memory: a response is handed on from layer to layer.
pub(crate) struct Whole {
    pub(crate) parts: Parts,
    pub(crate) body: Incoming,
    pub(crate) meta: Meta,
}

/// What is known besides.
#[derive(Debug, Clone)]
pub(crate) struct Meta {
    /// Said when the call is over.
    pub(crate) uri: Uri,
    pub(crate) info: Arc<ConnectionInfo>,
    /// When its head was there.
    pub(crate) came: Instant,
    pub(crate) timings: Timings,
    pub(crate) redirects: Vec<Uri>,
    pub(crate) attempts: u32,
    pub(crate) max_body: usize,
}

impl Meta {
    /// Of a response whose head is there now.
    pub(crate) fn new(info: Arc<ConnectionInfo>, max_body: usize) -> Self {
        Self {
            uri: Uri::default(),
            info,
            came: clock::now(),
            timings: Timings::default(),
            redirects: Vec::new(),
            attempts: 1,
            max_body,
        }
    }
}

impl Response {
    /// A response that came from no server: a cache's, a middleware's, a test's.
    pub fn from_http<B: Into<Incoming>>(response: http::Response<B>, uri: Uri) -> Self {
        let (parts, body) = response.into_parts();
        let meta = Meta::new(Arc::default(), crate::builder::MAX_BODY);
        Self::new(parts, body.into(), Meta { uri, attempts: 0, ..meta })
    }

    pub(crate) fn new(parts: Parts, body: Incoming, meta: Meta) -> Self {
        Self(Box::new(Whole { parts, body, meta }))
    }

    /// Status, version, fields and extensions together, as the `http` crate has them.
    pub fn parts(&self) -> &Parts {
        &self.0.parts
    }

    /// Head and body changed together.
    pub(crate) fn map_http(self, change: impl FnOnce(http::Response<Incoming>) -> http::Response<Incoming>) -> Self {
        let Whole { parts, body, meta } = *self.0;
        let (parts, body) = change(http::Response::from_parts(parts, body)).into_parts();
        Self::new(parts, body, meta)
    }

    pub(crate) fn meta_mut(&mut self) -> &mut Meta {
        &mut self.0.meta
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.0.parts.status
    }

    /// The version it came by.
    pub fn version(&self) -> Version {
        self.0.parts.version
    }

    /// The fields.
    pub fn headers(&self) -> &HeaderMap {
        &self.0.parts.headers
    }

    /// The fields, to be changed.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.0.parts.headers
    }

    /// What middleware and the engines passed along.
    pub fn extensions(&self) -> &Extensions {
        &self.0.parts.extensions
    }

    /// What middleware passes along, to be changed.
    pub fn extensions_mut(&mut self) -> &mut Extensions {
        &mut self.0.parts.extensions
    }

    /// Where it came from: after redirects, the last URL.
    pub fn uri(&self) -> &Uri {
        &self.0.meta.uri
    }

    /// What a reference in the body means, such as a link: the URL that it is relative to this one (RFC 3986 5). What a URL can't
    /// hold is encoded, as browsers do it.
    ///
    /// ```
    /// let page = http::Response::new(portolan_http::Incoming::from_body(portolan_http::Body::empty()));
    /// let response = portolan_http::Response::from_http(page, "http://example.org/x/a/".parse()?);
    /// assert_eq!(response.resolve("../b?c")?, "http://example.org/x/b?c");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn resolve(&self, reference: &str) -> Result<Uri> {
        crate::uri::resolve(&self.0.meta.uri, reference)
    }

    /// The URLs that redirected here, the first one first.
    pub fn redirects(&self) -> &[Uri] {
        &self.0.meta.redirects
    }

    /// The connection it came by: addresses, hops, TLS, and how long each phase took when it was made.
    pub fn connection_info(&self) -> &ConnectionInfo {
        &self.0.meta.info
    }

    pub(crate) fn shared_info(&self) -> Arc<ConnectionInfo> {
        self.0.meta.info.clone()
    }

    /// Whether the connection had been used before.
    pub fn is_reused(&self) -> bool {
        self.0.meta.info.reused
    }

    /// The address at the other end of our socket: the first proxy's, where there is one.
    pub fn remote_addr(&self) -> Option<SocketAddr> {
        self.0.meta.info.peer
    }

    /// How long the parts of this call took.
    pub fn timings(&self) -> Timings {
        self.0.meta.timings
    }

    /// How often the last request was sent: more than once if it was tried again.
    pub fn attempts(&self) -> u32 {
        self.0.meta.attempts
    }

    /// The body's length, where it is known before it is read.
    pub fn content_length(&self) -> Option<u64> {
        http_body::Body::size_hint(&self.0.body).exact()
    }

    /// [`error_for_status`](Self::error_for_status) for a response that is still wanted whole.
    pub fn error_for_status_ref(&self) -> Result<&Self> {
        let Whole { parts, meta, .. } = &*self.0;
        match refused(parts.status, &parts.headers, &meta.uri) {
            Some(error) => Err(error),
            None => Ok(self),
        }
    }

    /// An error for a status of 400 and above: [`Kind::Server`] with the status as its code, and [`Failed`] as its reply.
    pub fn error_for_status(self) -> Result<Self> {
        match self.error_for_status_ref() {
            Err(error) => Err(error),
            Ok(_) => Ok(self),
        }
    }

    /// The next piece of the body; `None` at its end. Cancel safe.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        loop {
            let frame = self.0.body.frame().await.transpose();
            match frame.map_err(|error| named(error, &self.0.meta.uri))? {
                None => return Ok(None),
                Some(frame) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Ok(Some(data)),
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            self.0.parts.extensions.insert(Trailers(trailers));
                        }
                    }
                },
            }
        }
    }

    /// The trailers, once the body has been read to its end by [`chunk`](Self::chunk).
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.0.parts.extensions.get::<Trailers>().map(|trailers| &trailers.0)
    }

    /// The whole body, within the client's limit ([`ClientBuilder::max_body`](crate::ClientBuilder::max_body)).
    pub async fn bytes(self) -> Result<Bytes> {
        Ok(self.collect().await?.0)
    }

    /// The whole body and its trailers.
    pub async fn collect(mut self) -> Result<(Bytes, Option<HeaderMap>)> {
        let max = self.0.meta.max_body;
        if self.content_length().is_some_and(|length| length > max as u64) {
            return Err(self.too_long());
        }
        let Some(first) = self.chunk().await? else { return Ok((Bytes::new(), self.take_trailers())) };
        if first.len() > max {
            return Err(self.too_long());
        }
        if http_body::Body::is_end_stream(&self.0.body) {
            return Ok((first, self.take_trailers()));
        }
        let Some(second) = self.chunk().await? else { return Ok((first, self.take_trailers())) };
        let mut whole = BytesMut::with_capacity((first.len() + second.len()) * 2);
        whole.extend_from_slice(&first);
        whole.extend_from_slice(&second);
        loop {
            if whole.len() > max {
                return Err(self.too_long());
            }
            match self.chunk().await? {
                Some(data) => whole.extend_from_slice(&data),
                None => return Ok((whole.freeze(), self.take_trailers())),
            }
        }
    }

    fn too_long(&self) -> Error {
        let error = Error::new(Kind::Limit, format!("a body of more than {} bytes", self.0.meta.max_body));
        named(error.with_delivery(Delivery::Answered).with_phase(Phase::Idle), &self.0.meta.uri)
    }

    fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.0.parts.extensions.remove::<Trailers>().map(|trailers| trailers.0)
    }

    /// The whole body as text, by the charset of its content type; UTF-8 where none is said.
    pub async fn text(self) -> Result<String> {
        let content_type = ContentType::of(self.headers());
        let bytes = self.bytes().await?;
        Ok(charset::decode(content_type.as_ref(), &bytes).into_owned())
    }

    /// The whole body, which is JSON.
    #[cfg(feature = "json")]
    pub async fn json<T: serde::de::DeserializeOwned>(self) -> Result<T> {
        let uri = self.0.meta.uri.clone();
        let bytes = self.bytes().await?;
        serde_json::from_slice(&bytes).map_err(|error| {
            let broken = Error::protocol(crate::PROTOCOL, format!("expected JSON: {error}"));
            named(broken.with_delivery(Delivery::Answered).with_phase(Phase::Idle).with_source(error), &uri)
        })
    }

    /// The body's data, piece by piece.
    pub fn bytes_stream(self) -> impl Stream<Item = Result<Bytes>> + Send + Unpin + 'static {
        BodyDataStream::new(self.0.body)
    }

    /// The body's data as a reader.
    pub fn into_reader(self) -> impl AsyncRead + Send + Unpin + 'static {
        StreamReader::new(futures_util::TryStreamExt::map_err(self.bytes_stream(), std::io::Error::other))
    }

    /// The same with its body made plain.
    pub(crate) fn decoded(self, method: &Method, options: &DecodeOptions) -> Result<Self> {
        if !self.headers().contains_key(header::CONTENT_ENCODING) {
            return Ok(self);
        }
        let Whole { parts, body, meta } = *self.0;
        let (parts, body) = decode(method, http::Response::from_parts(parts, body), options)?.into_parts();
        let body = if body.is_coded() { Incoming::from_body(body) } else { body.into_inner() };
        Ok(Self::new(parts, body, meta))
    }

    /// The body by itself.
    pub fn into_body(self) -> Incoming {
        self.0.body
    }

    /// The same in the types of the `http` crate.
    pub fn into_http(self) -> http::Response<Incoming> {
        let Whole { parts, body, .. } = *self.0;
        http::Response::from_parts(parts, body)
    }

    /// The same response with another body, made of its own: for middleware.
    pub fn map_body(self, change: impl FnOnce(Incoming) -> Incoming) -> Self {
        let Whole { parts, body, meta } = *self.0;
        Self::new(parts, change(body), meta)
    }
}

/// Trailers that were read on the way.
#[derive(Clone)]
struct Trailers(HeaderMap);

/// The reply that an error of [`Response::error_for_status`] carries: `error.server::<Failed>()`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Failed {
    /// The status.
    pub status: StatusCode,
    /// The fields.
    pub headers: HeaderMap,
}

impl Failed {
    pub(crate) fn new(status: StatusCode, headers: HeaderMap) -> Self {
        Self { status, headers }
    }
}

/// The error that a status stands for, if it says no.
fn refused(status: StatusCode, headers: &HeaderMap, uri: &Uri) -> Option<Error> {
    if !status.is_client_error() && !status.is_server_error() {
        return None;
    }
    let message = format!("{status} from {}", crate::uri::Redacted(uri));
    let reply = Failed { status, headers: headers.clone() };
    let error = Error::from_server(crate::PROTOCOL, message, reply).with_code(i64::from(status.as_u16()));
    Some(match retry_after(headers) {
        Some(after) => error.with_retry_after(after),
        None => error,
    })
}

/// How long `Retry-After` asks to wait (RFC 9110 10.2.3): seconds, or until a date, which may be past.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(portolan_core::clock::wall()).unwrap_or_default())
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status())
            .field("version", &self.version())
            .field("uri", &crate::uri::Redacted(&self.0.meta.uri))
            .finish_non_exhaustive()
    }
}
