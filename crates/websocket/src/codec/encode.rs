//! Messages to bytes.

use bytes::{Bytes, BytesMut};
use portolan_core::{Error, Result};

use super::deflate::Deflater;
use super::extension::{Deflate, DeflateAgreed};
use super::frame::{Header, MAX_CONTROL, Opcode, Role};
use super::message::{DataKind, Message};
use super::{PROTOCOL, mask};

/// The longest header: two bytes, a length of eight, a key.
const MAX_HEADER: usize = 14;
/// The longest payload whose length is in the second byte of its header.
const SHORT: u8 = 125;
/// The first bit of a header: no fragment follows.
const FIN: u8 = 0x80;
/// The first bit of its second byte.
const MASKED: u8 = 0x80;
/// A payload is copied and masked in steps of this many bytes, so that the second pass finds it in the first cache.
const STEP: usize = 8 << 10;

/// Payloads up to this length are copied behind their header, to be one write with it.
pub(crate) const IN_PLACE: usize = 16 << 10;

/// The sending half of a connection.
#[derive(Debug)]
pub(crate) struct Encoder {
    role: Role,
    keys: mask::Keys,
    deflate: Option<Compression>,
    /// A message has begun: its kind, and whether it is compressed.
    open: Option<Open>,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    compressed: bool,
}

#[derive(Debug)]
struct Compression {
    level: u32,
    threshold: usize,
    bits: u8,
    takeover: bool,
    engine: Option<Box<Deflater>>,
}

/// The payload of a frame whose header was written: it is copied out bit by bit.
#[derive(Debug)]
pub(crate) struct Payload {
    data: Bytes,
    key: Option<[u8; 4]>,
    at: usize,
}

impl Payload {
    /// A long one that nobody else holds is masked where it lies, and written from there.
    fn new(data: Bytes, key: Option<[u8; 4]>) -> Self {
        let Some(mask) = key.filter(|_| data.len() > IN_PLACE) else { return Self { data, key, at: 0 } };
        match data.try_into_mut() {
            Ok(mut own) => {
                mask::apply(&mut own, mask, 0);
                Self { data: own.freeze(), key: None, at: 0 }
            }
            Err(data) => Self { data, key, at: 0 },
        }
    }

    /// Appends the next `room` bytes at most, masked; whether that was all.
    pub(crate) fn write(&mut self, dst: &mut BytesMut, room: usize) -> bool {
        let to = self.data.len().min(self.at.saturating_add(room));
        append(dst, self.data.get(self.at..to).unwrap_or_default(), self.key, self.at);
        self.at = to;
        to == self.data.len()
    }

    pub(crate) fn len(&self) -> usize {
        self.data.len() - self.at
    }

    /// What is left, where it can be written as it is: a server's payloads are not masked, and some of a client's are already.
    pub(crate) fn plain(&self) -> Option<&[u8]> {
        if self.key.is_none() { self.data.get(self.at..) } else { None }
    }

    /// So much of it was written elsewhere; whether that was all.
    pub(crate) fn advance(&mut self, n: usize) -> bool {
        self.at = self.data.len().min(self.at.saturating_add(n));
        self.at == self.data.len()
    }
}

fn append(dst: &mut BytesMut, data: &[u8], key: Option<[u8; 4]>, offset: usize) {
    let Some(key) = key else { return dst.extend_from_slice(data) };
    dst.reserve(data.len());
    let mut at = offset;
    for step in data.chunks(STEP) {
        let start = dst.len();
        dst.extend_from_slice(step);
        mask::apply(dst.get_mut(start..).unwrap_or_default(), key, at);
        at += step.len();
    }
}

impl Encoder {
    pub(crate) fn new(role: Role, agreed: Option<DeflateAgreed>, options: Option<&Deflate>) -> Self {
        let deflate = agreed.and_then(|agreed| {
            let (bits, takeover) = match role {
                Role::Client => (agreed.client_bits, agreed.client_takeover),
                Role::Server => (agreed.server_bits, agreed.server_takeover),
            };
            let (level, threshold) = options.map_or((6, 0), |options| (options.level, options.threshold));
            // A window of 8 is none that the compressor knows: messages go as they are, which is always allowed.
            (bits >= super::deflate::MIN_WINDOW).then_some(Compression {
                level,
                threshold,
                bits,
                takeover,
                engine: None,
            })
        });
        Self { role, keys: mask::Keys::new(), deflate, open: None }
    }

    fn key(&mut self) -> Result<Option<[u8; 4]>> {
        match self.role {
            Role::Client => self.keys.next().map(Some),
            Role::Server => Ok(None),
        }
    }

    /// A control frame.
    pub(crate) fn control(&mut self, opcode: Opcode, payload: &[u8], dst: &mut BytesMut) -> Result<()> {
        if payload.len() > MAX_CONTROL {
            return Err(Error::usage("a control frame holds 125 bytes at most").with_protocol(PROTOCOL));
        }
        let key = self.key()?;
        Header { fin: true, compressed: false, opcode, len: payload.len() as u64, key }.encode(dst);
        append(dst, payload, key, 0);
        Ok(())
    }

    /// Whether a message was begun and not ended.
    pub(crate) fn in_message(&self) -> bool {
        self.open.is_some()
    }

    /// The header of a frame of data; its payload, compressed where that was agreed, is for the caller to write.
    ///
    /// The first frame of a message names its kind; while the message is open the others continue it.
    pub(crate) fn data(&mut self, kind: DataKind, data: Bytes, fin: bool, dst: &mut BytesMut) -> Result<Payload> {
        let first = self.open.is_none();
        let compressed = match (&self.open, &self.deflate) {
            (Some(open), _) => open.compressed,
            (None, Some(deflate)) => !fin || data.len() >= deflate.threshold,
            (None, None) => false,
        };
        let data = match &mut self.deflate {
            Some(deflate) if compressed => deflate.run(&data, fin)?,
            _ => data,
        };
        let key = self.key()?;
        let opcode = if first { kind.opcode() } else { Opcode::Continuation };
        Header { fin, compressed: compressed && first, opcode, len: data.len() as u64, key }.encode(dst);
        self.open = (!fin).then_some(Open { compressed });
        Ok(Payload::new(data, key))
    }

    /// A frame of data out of a borrowed slice that is not compressed: the caller holds to what fits.
    #[inline]
    pub(crate) fn slice(&mut self, kind: DataKind, data: &[u8], dst: &mut BytesMut) -> Result<()> {
        match u8::try_from(data.len()) {
            Ok(len @ ..=SHORT) if self.role == Role::Client => self.short(kind, len, data, dst),
            _ => self.long(kind, data, dst),
        }
    }

    /// Most frames of a client: a header whose length is known, and one pass over a payload of few bytes.
    #[inline]
    fn short(&mut self, kind: DataKind, len: u8, data: &[u8], dst: &mut BytesMut) -> Result<()> {
        let key = self.keys.next()?;
        let [a, b, c, d] = key;
        dst.reserve(usize::from(SHORT) + MAX_HEADER);
        dst.extend_from_slice(&[FIN | kind.opcode().bits(), MASKED | len, a, b, c, d]);
        let start = dst.len();
        dst.extend_from_slice(data);
        mask::apply(dst.get_mut(start..).unwrap_or_default(), key, 0);
        Ok(())
    }

    fn long(&mut self, kind: DataKind, data: &[u8], dst: &mut BytesMut) -> Result<()> {
        let key = self.key()?;
        dst.reserve(data.len().saturating_add(MAX_HEADER));
        Header { fin: true, compressed: false, opcode: kind.opcode(), len: data.len() as u64, key }.encode(dst);
        append(dst, data, key, 0);
        Ok(())
    }

    /// Whether data is compressed before it is sent.
    pub(crate) fn compresses(&self) -> bool {
        self.deflate.is_some()
    }

    /// A whole message at once.
    pub(crate) fn message(&mut self, message: &Message, dst: &mut BytesMut) -> Result<()> {
        match message {
            Message::Text(text) => self.whole(DataKind::Text, text.clone().into_bytes(), dst),
            Message::Binary(data) => self.whole(DataKind::Binary, data.clone(), dst),
            Message::Ping(data) => self.control(Opcode::Ping, data, dst),
            Message::Pong(data) => self.control(Opcode::Pong, data, dst),
            Message::Close(None) => self.control(Opcode::Close, &[], dst),
            Message::Close(Some(frame)) => self.control(Opcode::Close, &frame.payload(), dst),
        }
    }

    fn whole(&mut self, kind: DataKind, data: Bytes, dst: &mut BytesMut) -> Result<()> {
        self.data(kind, data, true, dst)?.write(dst, usize::MAX);
        Ok(())
    }
}

impl Compression {
    fn run(&mut self, data: &[u8], last: bool) -> Result<Bytes> {
        let engine = self.engine.get_or_insert_with(|| Box::new(Deflater::new(self.level, self.bits, self.takeover)));
        let packed = engine.deflate(data, last);
        packed.map(Bytes::from).map_err(|_| Error::usage("the compressor failed").with_protocol(PROTOCOL))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_frames_are_the_same_as_by_the_long_way() {
        let mut encoder = Encoder::new(Role::Client, None, None);
        for len in [0, 1, 63, 64, 124, 125, 126, 127, 200] {
            let plain: Vec<u8> = (0..len).collect();
            let (mut short, mut long) = (BytesMut::from("before"), BytesMut::from("before"));
            encoder.slice(DataKind::Text, &plain, &mut short).unwrap();
            encoder.long(DataKind::Text, &plain, &mut long).unwrap();
            for frame in [&mut short, &mut long] {
                let start = frame.len() - plain.len();
                let key = *frame[..start].last_chunk::<4>().unwrap();
                mask::apply(&mut frame[start..], key, 0);
                frame[start - 4..start].fill(0);
            }
            assert_eq!(short, long, "{len}");
        }
    }

    #[test]
    fn a_long_payload_is_masked_where_it_lies_unless_somebody_else_holds_it() {
        let mut encoder = Encoder::new(Role::Client, None, None);
        let plain: Vec<u8> = (0..=255).cycle().take(IN_PLACE + 1).collect();
        for shared in [false, true] {
            let data = Bytes::from(plain.clone());
            let (place, other) = (data.as_ptr(), shared.then(|| data.clone()));
            let mut head = BytesMut::new();
            let mut payload = encoder.data(DataKind::Binary, data, true, &mut head).unwrap();
            let key = *head.last_chunk::<4>().unwrap();
            let mut sent = match payload.plain() {
                Some(masked) => {
                    assert!(!shared && masked.as_ptr() == place);
                    BytesMut::from(masked)
                }
                None => {
                    assert!(shared);
                    let mut copy = BytesMut::new();
                    assert!(payload.write(&mut copy, usize::MAX));
                    copy
                }
            };
            assert_ne!(sent, plain);
            mask::apply(&mut sent, key, 0);
            assert!(sent == plain && other.is_none_or(|other| other == plain));
        }
    }
}
