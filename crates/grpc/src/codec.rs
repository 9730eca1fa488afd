//! What messages are made of.

use bytes::{BufMut, Bytes, BytesMut};
use portolan_core::Result;

/// How messages of one method become bytes, and bytes messages.
pub trait Codec: Clone + Send + Sync + 'static {
    /// What is sent.
    type Request: Send + 'static;
    /// What is received.
    type Response: Send + 'static;

    /// What stands behind `application/grpc` in the content type: `+proto`, `+json`, or nothing.
    fn content_suffix(&self) -> &'static str;

    /// About how many bytes the message will take: room that is made at once.
    fn size_hint(&self, message: &Self::Request) -> usize {
        let _ = message;
        128
    }

    /// Appends the message to `dst`. What is there already stays as it is.
    fn encode(&self, message: &Self::Request, dst: &mut BytesMut) -> Result<()>;

    /// Makes a message of all of `src`.
    fn decode(&self, src: Bytes) -> Result<Self::Response>;
}

/// Bytes as they are: the caller's own encoding.
///
/// ```
/// use portolan_grpc::{Codec, Raw};
///
/// assert_eq!(Raw::protobuf().content_suffix(), "+proto");
/// assert_eq!(Raw::json().content_suffix(), "+json");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Raw {
    suffix: &'static str,
}

impl Raw {
    /// The bytes are protobuf.
    pub const fn protobuf() -> Self {
        Self { suffix: "+proto" }
    }

    /// The bytes are JSON.
    pub const fn json() -> Self {
        Self { suffix: "+json" }
    }

    /// The bytes are what the method takes by default.
    pub const fn plain() -> Self {
        Self { suffix: "" }
    }
}

impl Codec for Raw {
    type Request = Bytes;
    type Response = Bytes;

    fn content_suffix(&self) -> &'static str {
        self.suffix
    }

    fn size_hint(&self, message: &Bytes) -> usize {
        message.len()
    }

    fn encode(&self, message: &Bytes, dst: &mut BytesMut) -> Result<()> {
        dst.put_slice(message);
        Ok(())
    }

    fn decode(&self, src: Bytes) -> Result<Bytes> {
        Ok(src)
    }
}
