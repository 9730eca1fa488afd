//! The Connect protocol (connectrpc.com, version 1): calls of one message are plain HTTP, and streams are framed as gRPC's are.

use base64::Engine;
use bytes::Buf;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE};
use http::{Method, Request, Response, StatusCode, request, response};
use portolan_core::{Error, Result};

use crate::PROTOCOL;
use crate::body::{Body, BoxBody, Shape, boxed_body};
use crate::deadline::Deadline;
use crate::frame::{COMPRESSED, PREFIX};
use crate::tail::{TranslatedBody, broken};
use crate::transport::Transport;
use crate::whole::{MAX_FAILURE, MAX_RESPONSE, answer, collect, encodings, framed, set_grpc_type};

mod failure;
mod get;

use failure::Failure;

/// The flag of the frame that ends a stream.
const END: u8 = 0x02;

/// A transport that speaks the Connect protocol over another one.
///
/// Calls of one message each way are plain HTTP POSTs, which every proxy lets through, or [GETs](Self::get), which caches know.
/// Messages are protobuf or JSON, as the codec says.
///
/// ```no_run
/// # async fn example(channel: portolan_grpc::Channel) -> portolan_core::Result<()> {
/// use portolan_grpc::{Client, Connect};
///
/// let client = Client::new(Connect::new(channel), "https://api.example")?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Connect<T> {
    inner: T,
    max: usize,
    get: Option<usize>,
}

impl<T: Transport> Connect<T> {
    /// Speaks Connect over `inner`.
    pub fn new(inner: T) -> Self {
        Self { inner, max: MAX_RESPONSE, get: None }
    }

    /// The longest response of one message that is taken, in bytes as they travel. Default 4 MiB; the client has its own bound too.
    #[must_use]
    pub fn max_response_bytes(mut self, bytes: usize) -> Self {
        self.max = bytes;
        self
    }

    /// Sends calls of methods [without side effects](crate::Method::no_side_effects) as GETs, where path and query are not longer
    /// than this many bytes. The message is then part of the URL, which proxies and servers log. Default not.
    #[must_use]
    pub fn get(mut self, max_path_bytes: usize) -> Self {
        self.get = Some(max_path_bytes);
        self
    }
}

impl<T: Transport> Transport for Connect<T> {
    type Body = TranslatedBody;

    async fn send(&self, request: Request<Body>) -> Result<Response<TranslatedBody>> {
        let (mut parts, body) = request.into_parts();
        let unary = body.shape() == Shape::Unary;
        let name = message_type(&parts.headers);
        fields(&mut parts.headers);
        let request = if unary { one(parts, body, name, self.get)? } else { many(parts, body, name)? };
        let (parts, body) = self.inner.send(request).await?.into_parts();
        let theirs = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let theirs = theirs.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if parts.status != StatusCode::OK {
            return failed(parts, boxed_body(body), &theirs, name).await;
        }
        let expected = if unary { format!("application/{name}") } else { format!("application/connect+{name}") };
        if theirs != expected {
            // Not ours: the client says what it is instead.
            return Ok(Response::from_parts(parts, TranslatedBody::new(boxed_body(body))));
        }
        if unary { self.answer(parts, boxed_body(body), name).await } else { Ok(stream(parts, boxed_body(body), name)) }
    }
}

/// `proto` or `json`, by the content type of gRPC.
fn message_type(headers: &HeaderMap) -> &'static str {
    let json = headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().ends_with(b"+json"));
    if json { "json" } else { "proto" }
}

/// The fields of gRPC become those of Connect.
fn fields(headers: &mut HeaderMap) {
    headers.remove(TE);
    headers.insert(HeaderName::from_static("connect-protocol-version"), HeaderValue::from_static("1"));
    if let Some(timeout) = headers.remove("grpc-timeout") {
        let left = timeout.to_str().ok().and_then(Deadline::parse).map(|deadline| deadline.left().as_millis().max(1));
        // At most ten digits; a longer time is as good as none.
        if let Some(millis) = left.and_then(|left| u64::try_from(left).ok()).filter(|left| *left <= 9_999_999_999) {
            headers.insert(HeaderName::from_static("connect-timeout-ms"), HeaderValue::from(millis));
        }
    }
}

/// A call of one message: the message alone is the body.
fn one(mut parts: request::Parts, body: Body, name: &'static str, get: Option<usize>) -> Result<Request<Body>> {
    let (shape, wait, safe) = (body.shape(), body.wait_for_ready(), body.is_safe());
    let Ok(mut message) = body.into_full() else {
        return Err(Error::usage("a call of one message without its message").with_protocol(PROTOCOL));
    };
    let compressed = message.first().is_some_and(|flags| flags & COMPRESSED != 0);
    message.advance(PREFIX.min(message.len()));
    let headers = &mut parts.headers;
    if let Some(accepted) = headers.remove("grpc-accept-encoding").as_ref().and_then(encodings) {
        headers.insert(ACCEPT_ENCODING, accepted);
    }
    let encoding = headers.remove("grpc-encoding").filter(|_| compressed);
    if let Some(max) = get.filter(|_| safe) {
        let query = get::query(&message, name, encoding.as_ref());
        if let Some(uri) = get::uri(&parts.uri, &query, max)? {
            (parts.method, parts.uri) = (Method::GET, uri);
            get::FIELDS.iter().for_each(|field| drop(parts.headers.remove(*field)));
            return Ok(Request::from_parts(parts, Body::default().for_call(shape, wait, safe)));
        }
    }
    let headers = &mut parts.headers;
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static(if name == "json" { "application/json" } else { "application/proto" }),
    );
    if let Some(encoding) = encoding {
        headers.insert(CONTENT_ENCODING, encoding);
    }
    Ok(Request::from_parts(parts, Body::full(message).for_call(shape, wait, safe)))
}

/// A call of many messages: framed as in gRPC.
fn many(mut parts: request::Parts, body: Body, name: &'static str) -> Result<Request<Body>> {
    let headers = &mut parts.headers;
    let value = HeaderValue::try_from(format!("application/connect+{name}"));
    headers.insert(CONTENT_TYPE, value.map_err(|_| broken("a content type that is none"))?);
    if let Some(encoding) = headers.remove("grpc-encoding") {
        headers.insert(HeaderName::from_static("connect-content-encoding"), encoding);
    }
    if let Some(accepted) = headers.remove("grpc-accept-encoding").as_ref().and_then(encodings) {
        headers.insert(HeaderName::from_static("connect-accept-encoding"), accepted);
    }
    Ok(Request::from_parts(parts, body))
}

/// The answer of many messages.
fn stream(mut parts: response::Parts, body: BoxBody, name: &str) -> Response<TranslatedBody> {
    set_grpc_type(&mut parts.headers, name == "json");
    if let Some(encoding) = parts.headers.remove("connect-content-encoding") {
        parts.headers.insert("grpc-encoding", encoding);
    }
    Response::from_parts(parts, TranslatedBody::tail(body, END, failure::end_of_stream))
}

impl<T: Transport> Connect<T> {
    /// The answer of one message: its trailers came with the head, under names of their own.
    async fn answer(&self, mut parts: response::Parts, body: BoxBody, name: &str) -> Result<Response<TranslatedBody>> {
        let (message, _) = collect(body, self.max).await?;
        set_grpc_type(&mut parts.headers, name == "json");
        let mut flags = 0;
        if let Some(encoding) = parts.headers.remove(CONTENT_ENCODING).filter(|value| value.as_bytes() != b"identity") {
            parts.headers.insert("grpc-encoding", encoding);
            flags = COMPRESSED;
        }
        let trailers = take_trailers(&mut parts.headers);
        Ok(Response::from_parts(parts, answer(framed(flags, &message)?, trailers)))
    }
}

/// What is said under `trailer-*`.
fn take_trailers(headers: &mut HeaderMap) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    let named: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with("trailer-")).cloned().collect();
    for name in named {
        let Some(short) = name.as_str().strip_prefix("trailer-").and_then(|name| HeaderName::try_from(name).ok())
        else {
            continue;
        };
        for value in headers.get_all(&name) {
            trailers.append(short.clone(), value.clone());
        }
        headers.remove(&name);
    }
    trailers
}

/// An answer that is an error: JSON of Connect's own, or whatever a proxy had to say.
async fn failed(
    mut parts: response::Parts,
    body: BoxBody,
    theirs: &str,
    name: &str,
) -> Result<Response<TranslatedBody>> {
    let empty = || TranslatedBody::new(boxed_body(Body::default()));
    let failure = match theirs {
        // What can't be read is told by the HTTP status alone.
        "application/json" => collect(body, MAX_FAILURE).await.ok().and_then(|(json, _)| Failure::parse(&json)),
        _ => None,
    };
    let Some(failure) = failure else { return Ok(Response::from_parts(parts, empty())) };
    parts.status = StatusCode::OK;
    let trailers = take_trailers(&mut parts.headers);
    set_grpc_type(&mut parts.headers, name == "json");
    parts.headers.extend(trailers);
    failure.fields(&mut parts.headers);
    Ok(Response::from_parts(parts, empty()))
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    base64::engine::general_purpose::STANDARD_NO_PAD.decode(text).ok()
}
