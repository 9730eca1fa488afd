//! JSON becomes gRPC's answer again.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame};
use portolan_core::{BoxError, Error, Result};
use portolan_wire::Codec;
use prost_reflect::prost::Message;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, FieldDescriptor, MessageDescriptor};
use serde_json::{Map, Value};

use super::failure::Failure;
use super::rule::is_raw;
use super::values::Values;
use crate::PROTOCOL;
use crate::body::BoxBody;
use crate::tail::broken;
use crate::whole::framed;

/// What gateways write before the names of metadata.
const PREFIXES: [&str; 2] = ["grpc-metadata-", "grpc-trailer-"];

/// What is known of an answer before it comes.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    pub(super) output: MessageDescriptor,
    /// The field that the body is, if it is not the whole message.
    pub(super) field: Option<FieldDescriptor>,
    /// The caller takes JSON, not protobuf.
    pub(super) json: bool,
}

impl Expected {
    /// A message out of JSON, framed as the caller takes it.
    pub(super) fn message(&self, json: Value) -> Result<Bytes> {
        let json = match &self.field {
            Some(field) => Value::Object(Map::from_iter([(field.json_name().to_owned(), json)])),
            None => json,
        };
        // A server may know more fields than we do.
        let options = DeserializeOptions::new().deny_unknown_fields(false);
        let message = DynamicMessage::deserialize_with_options(self.output.clone(), json, &options);
        self.frame(&message.map_err(|error| not_its_type(error.into()))?)
    }

    /// A message whose body is bytes as they are.
    pub(super) fn raw(&self, kind: Option<&HeaderValue>, data: Bytes) -> Result<Bytes> {
        let mut message = DynamicMessage::new(self.output.clone());
        let body = match self.field.as_ref().filter(|field| is_raw(field)) {
            Some(field) => message.get_field_mut(field).as_message_mut(),
            None => Some(&mut message),
        };
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
        let body = body.ok_or_else(|| broken("a body of another type"))?;
        let set = body.try_set_field_by_name("content_type", prost_reflect::Value::String(kind));
        set.and_then(|()| body.try_set_field_by_name("data", prost_reflect::Value::Bytes(data)))
            .map_err(|error| not_its_type(error.into()))?;
        self.frame(&message)
    }

    fn frame(&self, message: &DynamicMessage) -> Result<Bytes> {
        if self.json {
            let json = serde_json::to_vec(message).map_err(|error| not_its_type(error.into()))?;
            return framed(0, &json);
        }
        framed(0, &message.encode_to_vec())
    }

    pub(super) fn pool(&self) -> &DescriptorPool {
        self.output.parent_pool()
    }
}

fn not_its_type(error: BoxError) -> Error {
    broken("a response that is no JSON of its type").with_source(error)
}

pub(super) fn parse(json: &[u8]) -> Result<Value> {
    serde_json::from_slice(json).map_err(|error| broken("a response that is no JSON").with_source(error))
}

/// Metadata under their own names.
pub(super) fn rename(headers: HeaderMap) -> HeaderMap {
    let mut renamed = HeaderMap::with_capacity(headers.len());
    let mut last: Option<HeaderName> = None;
    for (name, value) in headers {
        last = name.or(last);
        let Some(name) = &last else { continue };
        let short = PREFIXES.iter().find_map(|prefix| name.as_str().strip_prefix(prefix));
        // Never into what belongs to the protocol.
        let short = short.filter(|short| !crate::metadata::is_reserved(short));
        let name = short.and_then(|short| HeaderName::try_from(short).ok()).unwrap_or_else(|| name.clone());
        renamed.append(name, value);
    }
    renamed
}

/// The body of a stream: every value is a message, or the error that ends it.
pub(super) struct Messages {
    inner: BoxBody,
    expected: Arc<Expected>,
    values: Values,
    buffer: BytesMut,
    /// Values are under `result`, as grpc-gateway has them.
    wrapped: bool,
    /// The body's end, with its trailers.
    end: Option<HeaderMap>,
    over: bool,
}

impl Messages {
    pub(super) fn new(inner: BoxBody, expected: Arc<Expected>, max: usize, wrapped: bool) -> Self {
        Self { inner, expected, values: Values::new(max), buffer: BytesMut::new(), wrapped, end: None, over: false }
    }

    fn frame(&mut self, value: &Bytes) -> Result<Frame<Bytes>> {
        let mut json = parse(value)?;
        let wrapper = json.as_object_mut().filter(|object| self.wrapped && object.len() == 1);
        if let Some(wrapper) = wrapper.filter(|_| !self.values.is_array()) {
            if let Some(result) = wrapper.remove("result") {
                return self.expected.message(result).map(Frame::data);
            }
            // An error that can't be read is no message either, but where messages have such a field.
            let own = self.expected.output.get_field_by_json_name("error").is_some();
            let failure =
                if wrapper.contains_key("error") { Failure::parse(&json, self.expected.pool()) } else { None };
            if let Some(failure) = failure.or_else(|| (json.get("error").is_some() && !own).then(Failure::unreadable)) {
                let mut trailers = HeaderMap::new();
                failure.fields(&mut trailers);
                self.over = true;
                return Ok(Frame::trailers(trailers));
            }
        }
        self.expected.message(json).map(Frame::data)
    }

    /// What is left once the body has ended.
    fn rest(&mut self, trailers: HeaderMap) -> Result<Frame<Bytes>> {
        let value = self.values.decode_eof(&mut self.buffer).map_err(|error| error.into_error(PROTOCOL));
        let mut trailers = rename(trailers);
        match (value, trailers.contains_key("grpc-status")) {
            (Ok(Some(value)), _) => {
                self.end = Some(trailers);
                return self.frame(&value);
            }
            // What was cut short has no good status by itself; a bad one says why.
            (Err(error), false) => return Err(error.with_delivery(portolan_core::Delivery::Answered)),
            (Err(_), true) | (Ok(None), true) => {}
            (Ok(None), false) => drop(trailers.insert("grpc-status", HeaderValue::from_static("0"))),
        }
        self.over = true;
        Ok(Frame::trailers(trailers))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame<Bytes>, BoxError>> {
        loop {
            if let Some(trailers) = self.end.take() {
                return Poll::Ready(self.rest(trailers).map_err(Into::into));
            }
            let value = self.values.decode(&mut self.buffer).map_err(|error| error.into_error(PROTOCOL))?;
            if let Some(value) = value {
                return Poll::Ready(self.frame(&value).map_err(Into::into));
            }
            match ready!(self.inner.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(frame) => self.end = Some(frame.into_trailers().unwrap_or_default()),
                },
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => self.end = Some(HeaderMap::new()),
            }
        }
    }
}

impl Body for Messages {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let frame = ready!(self.poll(cx));
        self.over |= frame.is_err();
        Poll::Ready(Some(frame))
    }
}

/// A stream of bytes as they are: every piece is a message.
pub(super) struct Pieces {
    pub(super) inner: BoxBody,
    pub(super) expected: Arc<Expected>,
    pub(super) kind: Option<HeaderValue>,
    pub(super) over: bool,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let trailers = match ready!(self.inner.as_mut().poll_frame(cx)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    let frame = self.expected.raw(self.kind.as_ref(), data);
                    return Poll::Ready(Some(frame.map(Frame::data).map_err(Into::into)));
                }
                Err(frame) => frame.into_trailers().unwrap_or_default(),
            },
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => HeaderMap::new(),
        };
        self.over = true;
        let mut trailers = rename(trailers);
        trailers.entry("grpc-status").or_insert(HeaderValue::from_static("0"));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}
