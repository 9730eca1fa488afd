//! Answers that are held whole, and made into gRPC's: those of Connect and of JSON transcoding.

use std::array;
use std::pin::Pin;
use std::task::{Context, Poll};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use http_body::{Body, Frame};
use portolan_core::{BoxError, Delivery, Error, Kind, Result};
use prost::Message;

use crate::PROTOCOL;
use crate::body::BoxBody;
use crate::details::{Any, RpcStatus};
use crate::frame::PREFIX;
use crate::status::{Code, encode_message};
use crate::tail::TranslatedBody;

/// The longest response of one message, where nothing else is said: it is held before it can be handed on.
pub(crate) const MAX_RESPONSE: usize = 4 << 20;
/// The longest error.
pub(crate) const MAX_FAILURE: usize = 64 << 10;

/// The whole of a body, and its trailers.
pub(crate) async fn collect(mut body: BoxBody, max: usize) -> Result<(Bytes, HeaderMap)> {
    let (mut all, mut trailers) = (BytesMut::new(), HeaderMap::new());
    while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let frame = frame.map_err(|error| match error.downcast::<Error>() {
            Ok(error) => *error,
            Err(error) => Error::closed("the response broke off").with_protocol(PROTOCOL).with_source(error),
        })?;
        match frame.into_data() {
            Ok(data) if all.len().saturating_add(data.len()) > max => return Err(too_long()),
            Ok(data) => all.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    Ok((all.freeze(), trailers))
}

pub(crate) fn too_long() -> Error {
    Error::new(Kind::Limit, "a response longer than max_response_bytes")
        .with_delivery(Delivery::Answered)
        .with_protocol(PROTOCOL)
}

/// One message as gRPC frames it.
pub(crate) fn framed(flags: u8, message: &[u8]) -> Result<Bytes> {
    let length = u32::try_from(message.len()).map_err(|_| too_long())?;
    let mut frame = BytesMut::with_capacity(message.len().saturating_add(PREFIX));
    frame.put_u8(flags);
    frame.put_u32(length);
    frame.put_slice(message);
    Ok(frame.freeze())
}

/// A good answer of one message.
pub(crate) fn answer(frame: Bytes, mut trailers: HeaderMap) -> TranslatedBody {
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Ok(Frame::data(frame)), Ok(Frame::trailers(trailers))];
    TranslatedBody::new(Box::pin(AtHand { frames: frames.into_iter() }))
}

/// A head that the client takes for gRPC's, of messages in JSON or not.
pub(crate) fn set_grpc_type(headers: &mut HeaderMap, json: bool) {
    let value = if json { "application/grpc+json" } else { "application/grpc+proto" };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
    headers.remove(CONTENT_LENGTH);
}

/// A list of encodings without the one that is none.
pub(crate) fn encodings(value: &HeaderValue) -> Option<HeaderValue> {
    let text = value.to_str().ok()?;
    let names: Vec<_> = text.split(',').map(str::trim).filter(|name| *name != "identity").collect();
    if names.is_empty() { None } else { HeaderValue::try_from(names.join(",")).ok() }
}

/// A bad status as the fields of gRPC.
pub(crate) fn set_status(headers: &mut HeaderMap, code: Code, message: &str, details: Vec<Any>) {
    let code = if code == Code::Ok { Code::Unknown } else { code };
    headers.insert("grpc-status", HeaderValue::from(code.number()));
    if let Ok(message) = HeaderValue::try_from(encode_message(message)) {
        headers.insert("grpc-message", message);
    }
    if !details.is_empty() {
        let code = i32::try_from(code.number()).unwrap_or_default();
        let status = RpcStatus { code, message: message.to_owned(), details };
        if let Ok(details) = HeaderValue::try_from(STANDARD_NO_PAD.encode(status.encode_to_vec())) {
            headers.insert("grpc-status-details-bin", details);
        }
    }
}

/// A few frames at hand.
struct AtHand {
    frames: array::IntoIter<Result<Frame<Bytes>, BoxError>, 2>,
}

impl Body for AtHand {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(self.frames.next())
    }
}
