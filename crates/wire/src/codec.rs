//! The contract between a protocol's frames and bytes.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use bytes::BytesMut;
use portolan_core::Result;

use crate::error::{DecodeError, Why};
use crate::read::Reader;

/// Frames to bytes and back, without I/O.
///
/// [`decode`](Codec::decode) looks at a growing buffer and takes whole frames off its front. It keeps the laws (module
/// `laws`): it never panics, gives the same frames however the bytes were split, allocates no more than the bytes that
/// have arrived justify, and never gives a frame without consuming one.
pub trait Codec {
    /// What arrives.
    type Frame;
    /// What is sent. Often the same type; a slice or a `str` where requests are borrowed.
    type Out: ?Sized;

    /// The protocol's name, for errors.
    fn protocol(&self) -> &'static str;

    /// Takes one frame off the front of `src`; `None` needs more bytes, and leaves `src` to grow.
    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Self::Frame>, DecodeError>;

    /// The same when the peer has closed and nothing more will come; called until it gives `None`.
    ///
    /// A form that is ended by close gives its last frame here. For all others the default holds: what is left over is
    /// a truncated frame, and never a success.
    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Self::Frame>, DecodeError> {
        match self.decode(src)? {
            Some(frame) => Ok(Some(frame)),
            None if src.is_empty() => Ok(None),
            None => Err(DecodeError::truncated("frame", src.len())),
        }
    }

    /// Appends `item` to `dst`. An item that does not fit the format is the caller's mistake: `Error::usage`.
    ///
    /// On an error, what was appended is cut off again by whoever called.
    fn encode(&mut self, item: &Self::Out, dst: &mut BytesMut) -> Result<()>;
}

/// Decodes a datagram that is one whole frame; anything left over is an error.
pub fn whole<C: Codec>(codec: &mut C, datagram: &[u8]) -> Result<C::Frame, DecodeError> {
    let mut src = BytesMut::from(datagram);
    let frame = codec.decode(&mut src)?.ok_or(DecodeError::truncated("datagram", datagram.len()))?;
    if src.is_empty() {
        Ok(frame)
    } else {
        Err(DecodeError::invalid("bytes after the frame", datagram.len().saturating_sub(src.len())))
    }
}

/// Decodes a datagram with a [`Reader`]; anything left over is an error.
pub fn decode_datagram<'a, T>(
    datagram: &'a [u8],
    decode: impl FnOnce(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    let mut reader = Reader::new(datagram);
    let value = decode(&mut reader)?;
    reader.expect_end("bytes after the frame")?;
    Ok(value)
}

/// Whether an error only says that more bytes are needed.
impl DecodeError {
    /// Whether the bytes merely end too soon.
    pub fn is_truncated(&self) -> bool {
        self.why == Why::Truncated
    }
}

/// A [`Codec`] as a `tokio_util` decoder and encoder, so that `Framed` and its kin take it.
///
/// Errors come as `io::Error`, with the workspace's error inside.
#[cfg(feature = "tokio-util")]
#[derive(Debug, Clone)]
pub struct Framing<C>(C);

#[cfg(feature = "tokio-util")]
mod framing {
    use super::{BytesMut, Codec, Framing};
    use std::io;

    impl<C> Framing<C> {
        /// Wraps a codec.
        pub fn new(codec: C) -> Self {
            Self(codec)
        }

        /// The codec again.
        pub fn into_inner(self) -> C {
            self.0
        }
    }

    impl<C: Codec> tokio_util::codec::Decoder for Framing<C> {
        type Item = C::Frame;
        type Error = io::Error;

        fn decode(&mut self, src: &mut BytesMut) -> io::Result<Option<C::Frame>> {
            self.0.decode(src).map_err(|error| error.into_error(self.0.protocol()).into())
        }

        fn decode_eof(&mut self, src: &mut BytesMut) -> io::Result<Option<C::Frame>> {
            self.0.decode_eof(src).map_err(|error| error.into_error(self.0.protocol()).into())
        }
    }

    impl<C: Codec> tokio_util::codec::Encoder<&C::Out> for Framing<C> {
        type Error = io::Error;

        fn encode(&mut self, item: &C::Out, dst: &mut BytesMut) -> io::Result<()> {
            let start = dst.len();
            self.0.encode(item, dst).map_err(|error| {
                dst.truncate(start);
                error.into()
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::{LineRule, Lines};

    #[test]
    fn a_datagram_is_one_frame_and_nothing_more() {
        let mut lines = Lines::new("test", LineRule::Strict, 16);
        assert_eq!(whole(&mut lines, b"one\r\n").unwrap(), "one");
        assert_eq!(whole(&mut lines, b"one\r\ntwo"), Err(DecodeError::invalid("bytes after the frame", 5)));
        assert_eq!(whole(&mut lines, b"on"), Err(DecodeError::truncated("datagram", 2)));
        assert_eq!(decode_datagram(&[1, 2], |r| r.u16_be("n")), Ok(0x0102));
        assert_eq!(decode_datagram(&[1, 2], |r| r.u8("n")), Err(DecodeError::invalid("bytes after the frame", 1)));
    }

    #[cfg(feature = "tokio-util")]
    #[test]
    fn a_codec_serves_as_a_tokio_util_codec() {
        use tokio_util::codec::{Decoder, Encoder};
        let mut framing = Framing::new(Lines::new("test", LineRule::Strict, 16));
        let mut buf = BytesMut::new();
        framing.encode(b"hi".as_slice(), &mut buf).unwrap();
        assert_eq!(framing.decode(&mut buf).unwrap().unwrap(), "hi");
        assert!(framing.encode(b"a\nb".as_slice(), &mut buf).is_err());
        assert!(buf.is_empty());
        buf.extend_from_slice(b"bad\n");
        assert_eq!(framing.decode(&mut buf).unwrap_err().kind(), std::io::ErrorKind::InvalidData);
    }
}
