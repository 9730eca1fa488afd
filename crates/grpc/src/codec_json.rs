//! Messages as JSON.

use std::fmt;
use std::marker::PhantomData;

use bytes::{BufMut, Bytes, BytesMut};
use portolan_core::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::PROTOCOL;
use crate::codec::Codec;

/// JSON messages, by serde: the content type is `application/grpc+json`.
pub struct Json<Q, R>(PhantomData<fn(Q) -> R>);

impl<Q, R> Json<Q, R> {
    /// The codec.
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<Q, R> Default for Json<Q, R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<Q, R> Clone for Json<Q, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Q, R> Copy for Json<Q, R> {}

impl<Q, R> fmt::Debug for Json<Q, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Json")
    }
}

impl<Q, R> Codec for Json<Q, R>
where
    Q: Serialize + Send + 'static,
    R: DeserializeOwned + Send + 'static,
{
    type Request = Q;
    type Response = R;

    fn content_suffix(&self) -> &'static str {
        "+json"
    }

    fn encode(&self, message: &Q, dst: &mut BytesMut) -> Result<()> {
        let written = serde_json::to_writer(dst.writer(), message);
        written.map_err(|error| Error::usage("the message is no JSON").with_protocol(PROTOCOL).with_source(error))
    }

    fn decode(&self, src: Bytes) -> Result<R> {
        let message = serde_json::from_slice(&src);
        message.map_err(|error| Error::protocol(PROTOCOL, "a message that is no JSON of its type").with_source(error))
    }
}
