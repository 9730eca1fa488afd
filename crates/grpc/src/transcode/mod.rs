//! JSON transcoding (`google/api/http.proto`): methods that are annotated with `google.api.http` are called as the plain HTTP and
//! JSON interface that gateways (Envoy, grpc-gateway, Google's own) make of them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    USER_AGENT,
};
use http::uri::{PathAndQuery, Uri};
use http::{Request, Response, StatusCode, request, response};
use portolan_core::{Error, Kind, Result};
use prost_reflect::{DynamicMessage, MessageDescriptor};

use crate::PROTOCOL;
use crate::body::{Body, BoxBody, boxed_body};
use crate::compress::Encoding;
use crate::dynamic::Schema;
use crate::frame::{COMPRESSED, PREFIX};
use crate::tail::{TranslatedBody, broken};
use crate::transport::Transport;
use crate::whole::{MAX_FAILURE, MAX_RESPONSE, answer as good, collect, encodings, set_grpc_type};

mod answer;
mod bind;
mod failure;
mod rule;
mod template;
mod upload;
mod values;

pub use template::PathTemplate;
pub use values::Values;

use answer::{Expected, Messages, Pieces, parse, rename};
use failure::Failure;
use rule::Rpc;
use upload::{Form, Layout};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A transport that makes plain HTTP and JSON of calls, as their methods' HTTP rules say, over another transport.
///
/// Fields of the message become the path, the query and the body, and the answer's JSON a message again: generated clients, calls
/// by name and everything else of a [`Client`](crate::Client) work as they are. What the rules are is said by a [`Schema`]: one
/// from the descriptor set that `portolan-grpc-build` writes, or from a server's reflection, holds them. A method without a rule
/// is a POST of the whole message to `/package.Service/Method`.
///
/// Streams from the server are read as lines (grpc-gateway's objects of `result` and `error`, or plain messages) and as a JSON
/// array. Streams to the server are written as lines, as grpc-gateway takes them, or as an array ([`array_uploads`](Self::array_uploads)),
/// by rules whose body is `"*"` and whose path has no fields; others are refused. Metadata travel under `grpc-metadata-`, but for `authorization`, and the deadline as
/// `grpc-timeout`.
///
/// ```no_run
/// # async fn example(http: portolan_grpc::Channel, descriptors: &[u8]) -> portolan_core::Result<()> {
/// use portolan_grpc::{Client, Transcode, dynamic::Schema};
/// use serde_json::json;
///
/// // Any transport will do; `portolan_http::Client` is one that knows HTTP/1.1 too.
/// let schema = Schema::from_descriptor_set(descriptors)?;
/// let client = Client::new(Transcode::new(http, &schema)?, "https://library.example")?;
/// // GET /v1/shelves/1/books/2
/// let get = schema.method("library.v1.Library/GetBook")?;
/// let book = client.unary(&get, &json!({"name": "shelves/1/books/2"})).await?;
/// println!("{}", book.message());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Transcode<T> {
    inner: T,
    rpcs: Arc<HashMap<String, Rpc>>,
    chosen: HashMap<String, usize>,
    max: usize,
    prefix: bool,
    wrapped: bool,
    layout: Layout,
}

impl<T: Transport> Transcode<T> {
    /// Transcodes calls of all services in the schema. A rule that is none is the error.
    pub fn new(inner: T, schema: &Schema) -> Result<Self> {
        let methods = schema.pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
        let rpcs = methods.map(|method| {
            let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
            Ok((path, Rpc::new(&method)?))
        });
        let rpcs = Arc::new(rpcs.collect::<Result<_>>()?);
        Ok(Self {
            inner,
            rpcs,
            chosen: HashMap::new(),
            max: MAX_RESPONSE,
            prefix: true,
            wrapped: true,
            layout: Layout::Lines,
        })
    }

    /// The longest response of one message that is taken, and the longest message of a stream, in bytes as they travel. Default
    /// 4 MiB; the client has its own bound too.
    #[must_use]
    pub fn max_response_bytes(mut self, bytes: usize) -> Self {
        self.max = bytes;
        self
    }

    /// Calls a method (`package.Service/Method`) by one of its bindings alone: 0 is the rule's own, 1 the first of its
    /// `additional_bindings`. Default the first whose path the message fits; of the additional ones, if its fields are set.
    pub fn binding(mut self, method: &str, index: usize) -> Result<Self> {
        let path = format!("/{}", method.trim_start_matches('/'));
        match self.rpcs.get(&path) {
            Some(rpc) if index < rpc.bindings.len() => drop(self.chosen.insert(path, index)),
            Some(_) => return Err(usage("the method has no such binding")),
            None => return Err(usage("no such method")),
        }
        Ok(self)
    }

    /// Sends metadata under their own names, as Envoy hands them on. Default under `grpc-metadata-`, as grpc-gateway wants it.
    #[must_use]
    pub fn plain_metadata(mut self) -> Self {
        self.prefix = false;
        self
    }

    /// Says that streams are messages as they are. Default an object of nothing but `result` or `error` is what grpc-gateway
    /// puts around a message or an error: set this where messages have a field of that name, and the server is another.
    #[must_use]
    pub fn plain_streams(mut self) -> Self {
        self.wrapped = false;
        self
    }

    /// Writes the messages of a stream to the server as the items of one JSON array, as Envoy takes them. Default each on a line of its
    /// own, as grpc-gateway takes them; its version 1 hands the first on when it has read the last.
    #[must_use]
    pub fn array_uploads(mut self) -> Self {
        self.layout = Layout::Array;
        self
    }

    /// Without a body's bytes at hand only what all messages have in common can be said before it: where it goes.
    fn stream_request(
        &self,
        mut parts: request::Parts,
        body: Body,
        rpc: &Rpc,
        chosen: Option<usize>,
    ) -> Result<(Request<Body>, Expected, bool)> {
        let (binding, target) = rpc.bind_stream(chosen)?;
        let (shape, wait, safe) = (body.shape(), body.wait_for_ready(), body.is_safe());
        let json = is_grpc_json(&parts.headers);
        let encoding = parts.headers.remove("grpc-encoding").and_then(|name| Encoding::from_name(name.to_str().ok()?));
        let form = Form { input: rpc.input.clone(), json, encoding: encoding.unwrap_or_default(), layout: self.layout };
        let body = Body::stream(upload::Messages::new(boxed_body(body), form));
        let expected = Expected { output: rpc.output.clone(), field: binding.answer.clone(), json };
        let raw = binding.answers_raw(&rpc.output);
        parts.headers =
            self.headers(parts.headers, Some("application/json"), Encoding::Identity, shape.answers_once())?;
        if raw {
            parts.headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        }
        parts.method = binding.method.clone();
        parts.uri = with_target(&parts.uri, &target)?;
        Ok((Request::from_parts(parts, body.for_call(shape, wait, safe)), expected, raw))
    }

    fn request(&self, mut parts: request::Parts, body: Body) -> Result<(Request<Body>, Expected, bool)> {
        let unmapped = || Error::new(Kind::Unsupported, "the schema has no such method").with_protocol(PROTOCOL);
        let rpc = self.rpcs.get(parts.uri.path()).ok_or_else(unmapped)?;
        let chosen = self.chosen.get(parts.uri.path()).copied();
        let (shape, wait, safe) = (body.shape(), body.wait_for_ready(), body.is_safe());
        if !shape.asks_once() {
            return self.stream_request(parts, body, rpc, chosen);
        }
        let json = is_grpc_json(&parts.headers);
        let frame = body.into_full().map_err(|_| usage("one message of which nobody knows the end"))?;
        let encoding = parts.headers.remove("grpc-encoding").and_then(|name| Encoding::from_name(name.to_str().ok()?));
        let (message, encoding) = message(frame, encoding.unwrap_or_default())?;
        let bound = rpc.bind(&read(&rpc.input, json, message)?, chosen)?;
        let expected = Expected { output: rpc.output.clone(), field: bound.binding.answer.clone(), json };
        let raw = bound.binding.answers_raw(&rpc.output);
        let kind = bound.body.as_ref().map(|(kind, _)| &**kind);
        parts.headers = self.headers(parts.headers, kind, encoding, shape.answers_once())?;
        if raw {
            parts.headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        }
        parts.method = bound.binding.method.clone();
        parts.uri = with_target(&parts.uri, &bound.target)?;
        let body = match bound.body {
            Some((_, bytes)) => Body::full(compressed(bytes, encoding)?),
            None => Body::default(),
        };
        Ok((Request::from_parts(parts, body.for_call(shape, wait, safe)), expected, raw))
    }

    /// The fields of gRPC become those of HTTP.
    fn headers(&self, old: HeaderMap, kind: Option<&str>, encoding: Encoding, whole: bool) -> Result<HeaderMap> {
        let mut headers = HeaderMap::with_capacity(old.len());
        headers.insert(ACCEPT, JSON);
        if let Some(kind) = kind {
            let kind = HeaderValue::try_from(kind).map_err(|_| usage("a content type that is no field value"))?;
            headers.insert(CONTENT_TYPE, kind);
            if encoding != Encoding::Identity {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding.name()));
            }
        }
        let mut last = None;
        for (name, value) in old {
            last = name.or(last);
            let Some(name) = &last else { continue };
            match name.as_str() {
                "grpc-accept-encoding" => {
                    if let Some(accepted) = encodings(&value).filter(|_| whole) {
                        headers.insert(ACCEPT_ENCODING, accepted);
                    }
                }
                "content-type" => {}
                reserved if crate::metadata::is_reserved(reserved) => drop(headers.append(name, value)),
                _ if name == AUTHORIZATION || name == USER_AGENT || !self.prefix => drop(headers.append(name, value)),
                own => {
                    let long = HeaderName::try_from(format!("grpc-metadata-{own}"));
                    headers.append(long.map_err(|_| usage("a metadata name that is no field name"))?, value);
                }
            }
        }
        Ok(headers)
    }

    async fn whole(&self, mut parts: response::Parts, body: BoxBody, expected: &Expected, raw: bool) -> Result<Answer> {
        let (mut bytes, trailers) = collect(body, self.max).await?;
        if let Some(encoding) = content_encoding(&mut parts.headers)? {
            bytes = encoding.inflate(&bytes, self.max)?;
        }
        let frame = if raw {
            expected.raw(parts.headers.get(CONTENT_TYPE), bytes)?
        } else if bytes.is_empty() {
            expected.message(serde_json::Value::Object(serde_json::Map::new()))?
        } else {
            expected.message(parse(&bytes)?)?
        };
        set_grpc_type(&mut parts.headers, expected.json);
        Ok(Response::from_parts(parts, good(frame, rename(trailers))))
    }

    fn stream(&self, mut parts: response::Parts, body: BoxBody, expected: Expected, raw: bool) -> Result<Answer> {
        if content_encoding(&mut parts.headers)?.is_some() {
            return Err(broken("a compressed stream, which was not asked for"));
        }
        let (json, expected) = (expected.json, Arc::new(expected));
        let kind = parts.headers.get(CONTENT_TYPE).cloned();
        set_grpc_type(&mut parts.headers, json);
        let body: BoxBody = if raw {
            Box::pin(Pieces { inner: body, expected, kind, over: false })
        } else {
            Box::pin(Messages::new(body, expected, self.max, self.wrapped))
        };
        Ok(Response::from_parts(parts, TranslatedBody::new(body)))
    }
}

type Answer = Response<TranslatedBody>;

impl<T: Transport> Transport for Transcode<T> {
    type Body = TranslatedBody;

    async fn send(&self, request: Request<Body>) -> Result<Answer> {
        let (parts, body) = request.into_parts();
        let once = body.shape().answers_once();
        let (request, expected, raw) = self.request(parts, body)?;
        let (mut parts, body) = self.inner.send(request).await?.into_parts();
        let body = boxed_body(body);
        parts.headers = rename(parts.headers);
        let bad = parts.headers.get("grpc-status").is_some_and(|status| status != "0");
        if bad || !parts.status.is_success() {
            return failed(parts, body, &expected).await;
        }
        // Of a good call nothing is said here that its end does not say.
        parts.headers.remove("grpc-status");
        let empty = parts.status == StatusCode::NO_CONTENT || !parts.headers.contains_key(CONTENT_TYPE) && once;
        parts.status = StatusCode::OK;
        if !raw && !empty && !is_json(&parts.headers) {
            // Not ours: the client says what it is instead.
            return Ok(Response::from_parts(parts, TranslatedBody::new(body)));
        }
        if once { self.whole(parts, body, &expected, raw).await } else { self.stream(parts, body, expected, raw) }
    }
}

impl<T: fmt::Debug> fmt::Debug for Transcode<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transcode")
            .field("inner", &self.inner)
            .field("methods", &self.rpcs.len())
            .finish_non_exhaustive()
    }
}

fn usage(what: &'static str) -> Error {
    Error::usage(what).with_protocol(PROTOCOL)
}

/// The one message of a frame, plain, and how it was compressed.
fn message(mut frame: Bytes, encoding: Encoding) -> Result<(Bytes, Encoding)> {
    let compressed = frame.first().is_some_and(|flags| flags & COMPRESSED != 0);
    frame.advance(PREFIX.min(frame.len()));
    if compressed { Ok((encoding.inflate(&frame, usize::MAX)?, encoding)) } else { Ok((frame, Encoding::Identity)) }
}

fn compressed(plain: Bytes, encoding: Encoding) -> Result<Bytes> {
    if encoding == Encoding::Identity {
        return Ok(plain);
    }
    let mut small = BytesMut::new();
    encoding.compress(&plain, &mut small)?;
    Ok(small.freeze())
}

/// The message as the caller's codec wrote it.
fn read(input: &MessageDescriptor, json: bool, bytes: Bytes) -> Result<DynamicMessage> {
    let wrong = || usage("the message is not of the method's type");
    if !json {
        return DynamicMessage::decode(input.clone(), bytes).map_err(|error| wrong().with_source(error));
    }
    let mut json = serde_json::Deserializer::from_slice(&bytes);
    DynamicMessage::deserialize(input.clone(), &mut json).map_err(|error| wrong().with_source(error))
}

fn with_target(uri: &Uri, target: &str) -> Result<Uri> {
    let mut parts = uri.clone().into_parts();
    let target = PathAndQuery::try_from(target);
    parts.path_and_query = Some(target.map_err(|error| usage("no URI can be made of the call").with_source(error))?);
    Uri::from_parts(parts).map_err(|error| usage("no URI can be made of the call").with_source(error))
}

/// Whether the caller's messages are JSON themselves.
fn is_grpc_json(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().ends_with(b"+json"))
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json") || kind.to_ascii_lowercase().ends_with("+json")
}

/// What the body was compressed by, if it was.
fn content_encoding(headers: &mut HeaderMap) -> Result<Option<Encoding>> {
    let Some(name) = headers.remove(CONTENT_ENCODING) else { return Ok(None) };
    let encoding = name.to_str().ok().and_then(Encoding::from_name);
    let encoding = encoding.ok_or_else(|| broken("a body compressed by an encoding that was not offered"))?;
    Ok(Some(encoding).filter(|encoding| *encoding != Encoding::Identity))
}

/// An answer that is an error: as the server says it in its fields or in JSON, or whatever a proxy had to say.
async fn failed(mut parts: response::Parts, body: BoxBody, expected: &Expected) -> Result<Answer> {
    let json = is_json(&parts.headers);
    let encoding = content_encoding(&mut parts.headers).ok().flatten().unwrap_or_default();
    // What can't be read is told by the HTTP status alone.
    let text = if json { collect(body, MAX_FAILURE).await.ok().map(|(text, _)| text) } else { None };
    let text = match encoding {
        Encoding::Identity => text,
        encoding => text.and_then(|text| encoding.inflate(&text, MAX_FAILURE).ok()),
    };
    let failure = text.and_then(|text| Failure::parse(&parse(&text).ok()?, expected.pool()));
    let said = parts.headers.get("grpc-status").is_some_and(|status| status != "0");
    match failure {
        // The fields may lack the details that the body has.
        Some(failure) if !said || !parts.headers.contains_key("grpc-status-details-bin") => {
            failure.fields(&mut parts.headers);
        }
        None if !said => Failure::of_http(parts.status).fields(&mut parts.headers),
        _ => {}
    }
    parts.status = StatusCode::OK;
    set_grpc_type(&mut parts.headers, expected.json);
    Ok(Response::from_parts(parts, TranslatedBody::new(boxed_body(Body::default()))))
}
