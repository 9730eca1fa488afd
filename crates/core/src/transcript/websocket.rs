//! WebSocket within a conversation: what its client makes of random numbers (RFC 6455).

use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem;
use sha1::{Digest, Sha1};

use super::redact::Side;

/// RFC 6455 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Where in the client's bytes the key stands.
pub(super) fn key(client: &[u8]) -> Option<Range<usize>> {
    const FIELD: &[u8] = b"\r\nsec-websocket-key:";
    let at = client.windows(FIELD.len()).position(|window| window.eq_ignore_ascii_case(FIELD))?;
    let rest = client.get(at + FIELD.len()..)?;
    let blank = rest.iter().take_while(|byte| **byte == b' ').count();
    let from = at + FIELD.len() + blank;
    let length = memchr::memchr(b'\r', client.get(from..)?)?;
    Some(from..from + length)
}

/// Where the key stands, and where the handshake ends: `None` until both are there.
pub(super) fn handshake(client: &[u8]) -> Option<(Range<usize>, usize)> {
    let key = key(client)?;
    let end = memmem::find(client.get(key.end..)?, b"\r\n\r\n")?;
    let end = key.end + end + 4;
    Some((key, end))
}

/// What a server answers to a key (RFC 6455 4.2.2).
pub(super) fn accept(key: &[u8]) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// The same conversation, turn by turn, with the client's frames unmasked if it is one of WebSocket.
pub(super) fn unmasked<'a>(said: impl Iterator<Item = (Side, &'a [u8])>) -> Vec<(Side, Vec<u8>)> {
    let mut said: Vec<(Side, Vec<u8>)> = said.map(|(side, bytes)| (side, bytes.to_vec())).collect();
    let of =
        |side: Side| -> Vec<u8> { said.iter().filter(|one| one.0 == side).flat_map(|one| one.1.clone()).collect() };
    let Some((_, mut head)) = handshake(&of(Side::Client)) else { return said };
    if memmem::find(&of(Side::Server), b"HTTP/1.1 101").is_none() {
        return said;
    }
    let mut frames = Frames::default();
    for (_, bytes) in said.iter_mut().filter(|one| one.0 == Side::Client) {
        let before = head.min(bytes.len());
        head -= before;
        frames.unmask(bytes.get_mut(before..).unwrap_or_default());
    }
    said
}

/// Frames of a client as they pass, in pieces of any size.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// The header so far, up to its last byte.
    header: Vec<u8>,
    mask: [u8; 4],
    /// What is left of the payload, and how much of it went by.
    left: u64,
    at: usize,
}

impl Frames {
    /// Makes these bytes those of a client whose masks are all zeros.
    pub(super) fn unmask(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            if self.left > 0 {
                *byte ^= self.mask.get(self.at % 4).copied().unwrap_or_default();
                self.at = (self.at + 1) % 4;
                self.left -= 1;
                continue;
            }
            self.header.push(*byte);
            let second = self.header.get(1).copied().unwrap_or_default();
            let extended = match second & 0x7f {
                126 => 2,
                127 => 8,
                _ => 0,
            };
            let masked = second & 0x80 != 0;
            let whole = 2 + extended + if masked { 4 } else { 0 };
            if masked && self.header.len() > 2 + extended {
                *byte = 0;
            }
            if self.header.len() < whole {
                continue;
            }
            let number = |bytes: &[u8]| bytes.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
            self.left = match extended {
                0 => u64::from(second & 0x7f),
                _ => number(self.header.get(2..2 + extended).unwrap_or_default()),
            };
            self.mask = self.header.get(2 + extended..).and_then(|mask| mask.try_into().ok()).unwrap_or_default();
            self.at = 0;
            self.header.clear();
        }
    }
}
