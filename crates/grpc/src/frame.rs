//! Messages on the wire: a flag, a length, the bytes.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use bytes::{Buf, BufMut, Bytes, BytesMut};
use portolan_core::{Error, Result};
use portolan_wire::{Codec, DecodeError};

use crate::PROTOCOL;

/// What stands before each message: one byte of flags and four of length, big-endian.
pub const PREFIX: usize = 5;
/// The flag of a compressed message.
pub const COMPRESSED: u8 = 0x01;

/// One message as it travels, perhaps compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frame {
    /// The flags: 0, or [`COMPRESSED`].
    pub flags: u8,
    /// The bytes, as sent.
    pub data: Bytes,
}

impl Frame {
    /// A frame.
    pub fn new(flags: u8, data: impl Into<Bytes>) -> Self {
        Self { flags, data: data.into() }
    }

    /// Whether the message is compressed.
    pub fn is_compressed(&self) -> bool {
        self.flags & COMPRESSED != 0
    }
}

/// The codec of length-prefixed messages: a length beyond the limit is refused before there is room for it.
#[derive(Debug, Clone)]
pub struct Frames {
    max: usize,
}

impl Frames {
    /// Messages of at most `max` bytes.
    pub fn new(max: usize) -> Self {
        Self { max }
    }

    /// The flags and the length that `head` begins with.
    fn head(&self, mut head: &[u8]) -> Result<Option<(u8, usize)>, DecodeError> {
        let Ok(flags) = head.try_get_u8() else { return Ok(None) };
        if flags & !COMPRESSED != 0 {
            return Err(DecodeError::invalid("message flags", 0));
        }
        let Ok(length) = head.try_get_u32() else { return Ok(None) };
        let length = usize::try_from(length).map_err(|_| DecodeError::too_long("message", 1))?;
        if length > self.max {
            return Err(DecodeError::too_long("message", 1));
        }
        Ok(Some((flags, length)))
    }
}

impl Codec for Frames {
    type Frame = Frame;
    type Out = Frame;

    fn protocol(&self) -> &'static str {
        PROTOCOL
    }

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, DecodeError> {
        let Some((flags, length)) = self.head(src)? else { return Ok(None) };
        if src.len() < length.saturating_add(PREFIX) {
            return Ok(None);
        }
        src.advance(PREFIX);
        Ok(Some(Frame { flags, data: src.split_to(length).freeze() }))
    }

    fn encode(&mut self, item: &Frame, dst: &mut BytesMut) -> Result<()> {
        let length = length(item.data.len(), self.max)?;
        dst.reserve(item.data.len().saturating_add(PREFIX));
        dst.put_u8(item.flags);
        dst.put_u32(length);
        dst.put_slice(&item.data);
        Ok(())
    }
}

/// The length of a message as the wire says it, if it is within the limit.
pub(crate) fn length(length: usize, max: usize) -> Result<u32> {
    let wire = u32::try_from(length).ok().filter(|_| length <= max);
    wire.ok_or_else(|| Error::usage("the message is longer than max_send_bytes").with_protocol(PROTOCOL))
}

/// Frames out of the pieces of a body. A message that lies whole in one piece is not copied, and of a piece that ends another
/// message no more than that message's bytes are.
#[derive(Debug)]
pub(crate) struct Deframer {
    frames: Frames,
    /// A message that has begun.
    begun: BytesMut,
    piece: Bytes,
}

impl Deframer {
    pub(crate) fn new(frames: Frames) -> Self {
        Self { frames, begun: BytesMut::new(), piece: Bytes::new() }
    }

    /// Takes the next piece. All frames of the pieces before must have been taken.
    pub(crate) fn push(&mut self, piece: Bytes) {
        let rest = std::mem::replace(&mut self.piece, piece);
        self.begun.extend_from_slice(&rest);
    }

    pub(crate) fn next(&mut self) -> Result<Option<Frame>, DecodeError> {
        if !self.begun.is_empty() {
            return self.finish();
        }
        let Some((flags, length)) = self.frames.head(&self.piece)? else { return Ok(None) };
        if self.piece.len() < length.saturating_add(PREFIX) {
            return Ok(None);
        }
        self.piece.advance(PREFIX);
        Ok(Some(Frame { flags, data: self.piece.split_to(length) }))
    }

    /// The frame that an earlier piece began.
    fn finish(&mut self) -> Result<Option<Frame>, DecodeError> {
        self.fill(PREFIX);
        let Some((_, length)) = self.frames.head(&self.begun)? else { return Ok(None) };
        self.fill(length.saturating_add(PREFIX));
        self.frames.decode(&mut self.begun)
    }

    /// Brings the message that has begun up to this length, as far as there are bytes.
    fn fill(&mut self, length: usize) {
        let missing = length.saturating_sub(self.begun.len()).min(self.piece.len());
        self.begun.extend_from_slice(&self.piece.split_to(missing));
    }

    /// Whether the bytes end between two frames.
    pub(crate) fn is_empty(&self) -> bool {
        self.begun.is_empty() && self.piece.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "a test that slices wrongly fails")]

    use super::*;
    use portolan_wire::laws;

    const SEEDS: &[&[u8]] = &[
        b"\0\0\0\0\0",
        b"\0\0\0\0\x05hello",
        b"\x01\0\0\0\x02\x03\0\0\0\0\0\x01x",
        b"\0\0\0\x01\0aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ];

    #[test]
    fn the_decoder_keeps_the_laws() {
        laws::check(|| Frames::new(1 << 20), SEEDS);
    }

    #[test]
    fn the_codec_reads_what_it_writes() {
        let mut codec = Frames::new(100);
        let mut buf = BytesMut::new();
        let sent = [Frame::new(0, "one"), Frame::new(1, ""), Frame::new(0, vec![7; 100])];
        for frame in &sent {
            codec.encode(frame, &mut buf).unwrap();
        }
        assert!(codec.encode(&Frame::new(0, vec![7; 101]), &mut buf).is_err());
        for frame in &sent {
            assert_eq!(codec.decode(&mut buf).unwrap().as_ref(), Some(frame));
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_the_bytes_come() {
        let decode = |bytes: &[u8]| Frames::new(10).decode(&mut BytesMut::from(bytes));
        assert_eq!(decode(&[0, 0, 0, 0, 11]).unwrap_err(), DecodeError::too_long("message", 1));
        assert_eq!(decode(&[0, 0xff, 0xff, 0xff, 0xff]).unwrap_err(), DecodeError::too_long("message", 1));
        assert_eq!(decode(&[2]).unwrap_err(), DecodeError::invalid("message flags", 0));
        assert_eq!(decode(&[0, 0, 0, 0, 10]).unwrap(), None);
    }

    #[test]
    fn pieces_of_any_size_give_the_same_frames() {
        let wire: Vec<u8> = SEEDS[..3].concat();
        let whole = [Frame::new(0, ""), Frame::new(0, "hello"), Frame::new(1, "\x03\0"), Frame::new(0, "x")];
        for size in 1..=wire.len() {
            let mut deframer = Deframer::new(Frames::new(100));
            let mut seen = Vec::new();
            for piece in wire.chunks(size) {
                deframer.push(Bytes::copy_from_slice(piece));
                while let Some(frame) = deframer.next().unwrap() {
                    seen.push(frame);
                }
            }
            assert_eq!(seen, whole, "{size}");
            assert!(deframer.is_empty());
        }
    }
}
