//! A whole response of one message.

use bytes::Bytes;
use portolan_core::{Delivery, Kind, Result};

use crate::codec::Codec;
use crate::metadata::Metadata;
use crate::status::{Code, Status};

/// A message and what came with it.
#[derive(Debug, Clone)]
pub struct Response<M> {
    message: M,
    metadata: Metadata,
    trailers: Metadata,
    compressed: bool,
}

impl<M> Response<M> {
    pub(crate) fn new(message: M, metadata: Metadata, trailers: Metadata, compressed: bool) -> Self {
        Self { message, metadata, trailers, compressed }
    }

    /// The message.
    pub fn message(&self) -> &M {
        &self.message
    }

    /// The message alone.
    pub fn into_message(self) -> M {
        self.message
    }

    /// The initial metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The trailing metadata.
    pub fn trailers(&self) -> &Metadata {
        &self.trailers
    }

    /// Whether the message came compressed.
    pub fn is_compressed(&self) -> bool {
        self.compressed
    }

    /// The same with another message.
    pub fn map<O>(self, map: impl FnOnce(M) -> O) -> Response<O> {
        let Self { message, metadata, trailers, compressed } = self;
        Response { message: map(message), metadata, trailers, compressed }
    }
}

impl Response<Bytes> {
    pub(crate) fn decode<C: Codec>(self, codec: &C) -> Result<Response<C::Response>> {
        let Self { message, metadata, trailers, compressed } = self;
        Ok(Response { message: decode(codec, message)?, metadata, trailers, compressed })
    }
}

/// Decodes a message; what can't be decoded is the server's mistake, and the call's end.
pub(crate) fn decode<C: Codec>(codec: &C, bytes: Bytes) -> Result<C::Response> {
    codec.decode(bytes).map_err(|error| {
        let code = if error.kind() == Kind::Limit { Code::ResourceExhausted } else { Code::Internal };
        let status = Status::new(code, error.message());
        error.with_delivery(Delivery::Answered).with_code(code.number()).with_reply(status)
    })
}
