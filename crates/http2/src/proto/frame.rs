//! Frames: the nine bytes before each (RFC 9113 4.1), what lies in them, and how the ones we send are written.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use bytes::{BufMut, BytesMut};

use super::code::Code;

/// The length of a frame's head.
pub(crate) const HEAD: usize = 9;
/// What a connection begins with (RFC 9113 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Stream ids and window sizes have 31 bits.
pub(crate) const MAX_31: u32 = 0x7fff_ffff;

pub(crate) const DATA: u8 = 0x0;
pub(crate) const HEADERS: u8 = 0x1;
pub(crate) const PRIORITY: u8 = 0x2;
pub(crate) const RST_STREAM: u8 = 0x3;
pub(crate) const SETTINGS: u8 = 0x4;
pub(crate) const PUSH_PROMISE: u8 = 0x5;
pub(crate) const PING: u8 = 0x6;
pub(crate) const GOAWAY: u8 = 0x7;
pub(crate) const WINDOW_UPDATE: u8 = 0x8;
pub(crate) const CONTINUATION: u8 = 0x9;
/// RFC 7838 4.
pub(crate) const ALTSVC: u8 = 0xa;
/// RFC 8336 2.
pub(crate) const ORIGIN: u8 = 0xc;

/// END_STREAM of DATA and HEADERS.
pub(crate) const END_STREAM: u8 = 0x1;
/// ACK of SETTINGS and PING.
pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;
pub(crate) const HAS_PRIORITY: u8 = 0x20;

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) len: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) id: u32,
}

impl Head {
    /// Reads a head, if all of it is here.
    #[inline]
    pub(crate) fn parse(input: &[u8]) -> Option<Self> {
        let &[l0, l1, l2, kind, flags, i0, i1, i2, i3] = input.first_chunk::<HEAD>()?;
        let len = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        // The highest bit of the id is reserved and ignored (RFC 9113 4.1).
        let id = u32::from_be_bytes([i0, i1, i2, i3]) & MAX_31;
        Some(Self { len, kind, flags, id })
    }

    pub(crate) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Writes a head. `len` is at most the peer's frame size, which has 24 bits.
#[inline]
pub(crate) fn put_head(len: usize, kind: u8, flags: u8, id: u32, out: &mut BytesMut) {
    out.put_slice(&head_bytes(len, kind, flags, id));
}

pub(crate) fn head_bytes(len: usize, kind: u8, flags: u8, id: u32) -> [u8; HEAD] {
    let [.., l0, l1, l2] = (len as u64).to_be_bytes();
    let [i0, i1, i2, i3] = id.to_be_bytes();
    [l0, l1, l2, kind, flags, i0, i1, i2, i3]
}

/// Writes RST_STREAM.
pub(crate) fn put_reset(id: u32, code: Code, out: &mut BytesMut) {
    put_head(4, RST_STREAM, 0, id, out);
    out.put_u32(code.value());
}

/// Writes WINDOW_UPDATE; id 0 is the connection.
pub(crate) fn put_window_update(id: u32, increment: u32, out: &mut BytesMut) {
    put_head(4, WINDOW_UPDATE, 0, id, out);
    out.put_u32(increment);
}

/// Writes PING.
pub(crate) fn put_ping(flags: u8, payload: [u8; 8], out: &mut BytesMut) {
    put_head(8, PING, flags, 0, out);
    out.put_slice(&payload);
}

/// Writes GOAWAY. Servers open no streams with us, so that the last id is always 0.
pub(crate) fn put_goaway(code: Code, debug: &[u8], out: &mut BytesMut) {
    put_head(debug.len().saturating_add(8), GOAWAY, 0, 0, out);
    out.put_u32(0);
    out.put_u32(code.value());
    out.put_slice(debug);
}

/// What is between the padding, and the padding's length with its length byte (RFC 9113 6.1). `None`: more padding than payload.
#[inline]
pub(crate) fn unpad(head: Head, payload: &[u8]) -> Option<(&[u8], usize)> {
    if !head.has(PADDED) {
        return Some((payload, 0));
    }
    let (&pad, rest) = payload.split_first()?;
    let kept = rest.len().checked_sub(usize::from(pad))?;
    Some((rest.get(..kept)?, usize::from(pad).saturating_add(1)))
}

/// The big-endian number that a payload begins with.
pub(crate) fn u32_at_start(payload: &[u8]) -> Option<u32> {
    payload.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes))
}
