//! The header of a frame (RFC 6455 5.2): strict both ways.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use bytes::{BufMut, BytesMut};
use portolan_wire::DecodeError;

/// The longest payload of a control frame (RFC 6455 5.5).
pub const MAX_CONTROL: usize = 125;

/// Which end of the connection this is: clients mask what they send, servers don't (RFC 6455 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// Sends masked frames, takes unmasked ones.
    Client,
    /// Sends unmasked frames, takes masked ones.
    Server,
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Opcode {
    /// The next fragment of a message.
    Continuation,
    /// A text message, or its first fragment.
    Text,
    /// A binary message, or its first fragment.
    Binary,
    /// The closing handshake.
    Close,
    /// A question whether the peer is there.
    Ping,
    /// The answer to it.
    Pong,
}

impl Opcode {
    /// The four bits of the wire.
    pub fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    /// Whether it is a control frame.
    pub fn is_control(self) -> bool {
        self.bits() >= 8
    }
}

/// A decoded header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) fin: bool,
    /// RSV1: the first frame of a compressed message.
    pub(crate) compressed: bool,
    pub(crate) opcode: Opcode,
    pub(crate) len: u64,
    pub(crate) key: Option<[u8; 4]>,
}

/// What a header is held against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeaderRules {
    pub(crate) role: Role,
    /// permessage-deflate was agreed on, so RSV1 has a meaning.
    pub(crate) deflate: bool,
}

impl Header {
    /// Reads a header off the front of `src` without consuming it: the header and its length. `None` needs more bytes.
    ///
    /// What two bytes already show to be wrong is refused with two bytes.
    pub(crate) fn decode(src: &[u8], rules: HeaderRules) -> Result<Option<(Self, usize)>, DecodeError> {
        let Some(&[first, second]) = src.first_chunk::<2>() else { return Ok(None) };
        let (fin, rsv) = (first & 0x80 != 0, first & 0x70);
        let opcode = Opcode::from_bits(first & 0x0f).ok_or(DecodeError::invalid("opcode", 0))?;
        // RFC 7692 6: RSV1 marks a compressed message, on its first frame alone.
        let compressed = rsv == 0x40 && rules.deflate && matches!(opcode, Opcode::Text | Opcode::Binary);
        if rsv != 0 && !compressed {
            return Err(DecodeError::invalid("reserved bits", 0));
        }
        let (masked, short) = (second & 0x80 != 0, second & 0x7f);
        // RFC 6455 5.5: control frames are short and whole.
        if opcode.is_control() && (!fin || usize::from(short) > MAX_CONTROL) {
            return Err(DecodeError::invalid("control frame", 1));
        }
        // RFC 6455 5.1: the server closes on an unmasked frame, the client on a masked one.
        if masked != (rules.role == Role::Server) {
            return Err(DecodeError::invalid("mask bit", 1));
        }
        let Some((len, at)) = length(src, short)? else { return Ok(None) };
        if !masked {
            return Ok(Some((Self { fin, compressed, opcode, len, key: None }, at)));
        }
        let Some(&key) = src.get(at..).and_then(<[u8]>::first_chunk::<4>) else { return Ok(None) };
        Ok(Some((Self { fin, compressed, opcode, len, key: Some(key) }, at.saturating_add(4))))
    }

    /// Appends the header.
    pub(crate) fn encode(&self, dst: &mut BytesMut) {
        let mask_bit = if self.key.is_some() { 0x80 } else { 0 };
        let rsv = if self.compressed { 0x40 } else { 0 };
        let first = self.opcode.bits() | rsv | if self.fin { 0x80 } else { 0 };
        if let (Some([a, b, c, d]), Ok(len @ ..=125)) = (self.key, u8::try_from(self.len)) {
            // Most frames of a client: at once.
            return dst.put_slice(&[first, 0x80 | len, a, b, c, d]);
        }
        dst.put_u8(first);
        match (u8::try_from(self.len), u16::try_from(self.len)) {
            (Ok(len), _) if usize::from(len) <= MAX_CONTROL => dst.put_u8(mask_bit | len),
            (_, Ok(len)) => {
                dst.put_u8(mask_bit | 126);
                dst.put_u16(len);
            }
            _ => {
                dst.put_u8(mask_bit | 127);
                dst.put_u64(self.len);
            }
        }
        if let Some(key) = self.key {
            dst.put_slice(&key);
        }
    }
}

/// The length, in the fewest bytes that hold it (RFC 6455 5.2), and where it ends.
fn length(src: &[u8], short: u8) -> Result<Option<(u64, usize)>, DecodeError> {
    let (len, at, least) = match short {
        126 => match src.get(2..).and_then(<[u8]>::first_chunk::<2>) {
            Some(&bytes) => (u64::from(u16::from_be_bytes(bytes)), 4, 126),
            None => return Ok(None),
        },
        127 => match src.get(2..).and_then(<[u8]>::first_chunk::<8>) {
            Some(&bytes) => (u64::from_be_bytes(bytes), 10, 1 << 16),
            None => return Ok(None),
        },
        short => (u64::from(short), 2, 0),
    };
    if len < least || len > i64::MAX.unsigned_abs() {
        return Err(DecodeError::invalid("payload length", 2));
    }
    Ok(Some((len, at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: HeaderRules = HeaderRules { role: Role::Client, deflate: false };

    #[test]
    fn the_examples_of_the_rfc_decode() {
        let (header, at) = Header::decode(b"\x81\x05Hello", CLIENT).unwrap().unwrap();
        assert_eq!((header.opcode, header.fin, header.len, at), (Opcode::Text, true, 5, 2));
        let server = HeaderRules { role: Role::Server, deflate: false };
        let (header, at) = Header::decode(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", server).unwrap().unwrap();
        assert_eq!((header.key, at), (Some([0x37, 0xfa, 0x21, 0x3d]), 6));
        let (header, at) = Header::decode(b"\x82\x7E\x01\x00", CLIENT).unwrap().unwrap();
        assert_eq!((header.len, at), (256, 4));
        let (header, at) = Header::decode(b"\x82\x7F\0\0\0\0\0\x01\0\0", CLIENT).unwrap().unwrap();
        assert_eq!((header.len, at), (65536, 10));
    }

    #[test]
    fn every_length_comes_back_in_its_shortest_form() {
        for (len, size) in [(0, 2), (125, 2), (126, 4), (65535, 4), (65536, 10), (i64::MAX.unsigned_abs(), 10)] {
            let mut dst = BytesMut::new();
            let header = Header { fin: true, compressed: false, opcode: Opcode::Binary, len, key: None };
            header.encode(&mut dst);
            assert_eq!(Header::decode(&dst, CLIENT), Ok(Some((header, size))), "{len}");
            while !dst.is_empty() {
                dst.truncate(dst.len() - 1);
                assert_eq!(Header::decode(&dst, CLIENT), Ok(None), "{len} cut at {}", dst.len());
            }
        }
    }

    #[test]
    fn a_longer_length_than_needed_and_the_64th_bit_are_refused() {
        let bad = Err(DecodeError::invalid("payload length", 2));
        assert_eq!(Header::decode(b"\x82\x7e\0\x7d", CLIENT), bad);
        assert_eq!(Header::decode(b"\x82\x7f\0\0\0\0\0\0\xff\xff", CLIENT), bad);
        assert_eq!(Header::decode(b"\x82\x7f\x80\0\0\0\0\0\0\0", CLIENT), bad);
    }

    #[test]
    fn reserved_opcodes_bits_and_forms_are_refused_by_two_bytes() {
        for opcode in [3u8, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
            let bad = Err(DecodeError::invalid("opcode", 0));
            assert_eq!(Header::decode(&[0x80 | opcode, 0], CLIENT), bad, "{opcode}");
        }
        for rsv in [0x10u8, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70] {
            let bad = Err(DecodeError::invalid("reserved bits", 0));
            assert_eq!(Header::decode(&[0x81 | rsv, 0], CLIENT), bad, "{rsv:x}");
        }
        let deflate = HeaderRules { role: Role::Client, deflate: true };
        assert!(Header::decode(b"\xc1\0", deflate).unwrap().unwrap().0.compressed);
        for first in [0xc0u8, 0xc8, 0xc9, 0xca, 0xd1, 0xe1] {
            assert_eq!(Header::decode(&[first, 0], deflate), Err(DecodeError::invalid("reserved bits", 0)));
        }
        for control in [b"\x09\0", b"\x08\0", b"\x0a\0", b"\x89\x7e", b"\x88\x7f"] {
            assert_eq!(Header::decode(control, CLIENT), Err(DecodeError::invalid("control frame", 1)));
        }
        assert_eq!(Header::decode(b"\x81\x80", CLIENT), Err(DecodeError::invalid("mask bit", 1)));
        let server = HeaderRules { role: Role::Server, deflate: false };
        assert_eq!(Header::decode(b"\x81\0", server), Err(DecodeError::invalid("mask bit", 1)));
    }
}
