//! Messages on their way out.

use bytes::{BufMut, Bytes, BytesMut};
use portolan_core::Result;

use crate::codec::Codec;
use crate::compress::Encoding;
use crate::frame::{self, COMPRESSED, PREFIX};

/// Encodes a message, with room for its prefix before it.
pub(crate) fn encode<C: Codec>(codec: &C, message: &C::Request) -> Result<BytesMut> {
    let mut buffer = BytesMut::with_capacity(codec.size_hint(message).saturating_add(PREFIX));
    buffer.put_bytes(0, PREFIX);
    codec.encode(message, &mut buffer)?;
    Ok(buffer)
}

/// Fills the prefix in, once it is known how the message is to be compressed. The limit is that of the message as it was.
pub(crate) fn finish(mut buffer: BytesMut, encoding: Encoding, max: usize) -> Result<Bytes> {
    let plain = buffer.get(PREFIX..).unwrap_or_default();
    frame::length(plain.len(), max)?;
    let mut flags = 0;
    if encoding != Encoding::Identity {
        let mut small = BytesMut::with_capacity(PREFIX + plain.len() / 2);
        small.put_bytes(0, PREFIX);
        encoding.compress(plain, &mut small)?;
        (buffer, flags) = (small, COMPRESSED);
    }
    let length = frame::length(buffer.len().saturating_sub(PREFIX), usize::MAX)?;
    if let Some(mut prefix) = buffer.get_mut(..PREFIX) {
        prefix.put_u8(flags);
        prefix.put_u32(length);
    }
    Ok(buffer.freeze())
}

/// What a stream's messages go through.
#[derive(Debug, Clone)]
pub(crate) struct Outbound<C> {
    pub(crate) codec: C,
    pub(crate) encoding: Encoding,
    pub(crate) max: usize,
}

impl<C: Codec> Outbound<C> {
    pub(crate) fn frame(&self, message: &C::Request) -> Result<Bytes> {
        finish(encode(&self.codec, message)?, self.encoding, self.max)
    }

    pub(crate) fn plain(&self, message: &C::Request) -> Result<Bytes> {
        finish(encode(&self.codec, message)?, Encoding::Identity, self.max)
    }
}
