//! Messages of the prost crate.

use std::fmt;
use std::marker::PhantomData;

use bytes::{Bytes, BytesMut};
use portolan_core::{Error, Result};
use prost::Message;

use crate::PROTOCOL;
use crate::codec::Codec;

/// Protobuf messages, by their prost types.
pub struct Prost<Q, R>(PhantomData<fn(Q) -> R>);

impl<Q, R> Prost<Q, R> {
    /// The codec.
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<Q, R> Default for Prost<Q, R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<Q, R> Clone for Prost<Q, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Q, R> Copy for Prost<Q, R> {}

impl<Q, R> fmt::Debug for Prost<Q, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prost")
    }
}

impl<Q, R> Codec for Prost<Q, R>
where
    Q: Message + 'static,
    R: Message + Default + 'static,
{
    type Request = Q;
    type Response = R;

    fn content_suffix(&self) -> &'static str {
        // What every server takes, also those that know no `+proto`.
        ""
    }

    fn size_hint(&self, message: &Q) -> usize {
        message.encoded_len()
    }

    fn encode(&self, message: &Q, dst: &mut BytesMut) -> Result<()> {
        let fits = message.encode(dst);
        fits.map_err(|error| Error::usage("the message can't be encoded").with_protocol(PROTOCOL).with_source(error))
    }

    fn decode(&self, src: Bytes) -> Result<R> {
        let message = R::decode(src);
        message
            .map_err(|error| Error::protocol(PROTOCOL, "a message that is no protobuf of its type").with_source(error))
    }
}
