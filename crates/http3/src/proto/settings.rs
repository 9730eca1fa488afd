//! SETTINGS (RFC 9114 7.2.4): the peer's, and ours as they are written.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use bytes::BytesMut;

use super::code::Code;
use super::{Config, Violation, frame, varint};

const QPACK_MAX_TABLE_CAPACITY: u64 = 0x1;
const MAX_FIELD_SECTION_SIZE: u64 = 0x6;
const QPACK_BLOCKED_STREAMS: u64 = 0x7;
/// RFC 9220 3.
const ENABLE_CONNECT_PROTOCOL: u64 = 0x8;
/// RFC 9297 2.1.1.
const H3_DATAGRAM: u64 = 0x33;
/// One of the settings without meaning, so that peers learn to ignore what they don't know (RFC 9114 7.2.4.1).
const GREASE: u64 = 0x1f * 0x3b9a_ca07 + 0x21;
/// Settings in one frame. A real peer sends about ten; each known one may come once only.
const MAX_SETTINGS: usize = 256;

/// What the peer said, defaults where it said nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PeerSettings {
    /// Bytes of the header table that we may use.
    pub qpack_max_table_capacity: u64,
    /// Streams that we may let wait for header table entries. Ours never do.
    pub qpack_blocked_streams: u64,
    /// The longest header list that the peer takes; `None`: it didn't say.
    pub max_field_section_size: Option<u64>,
    /// Whether extended CONNECT is understood (RFC 9220).
    pub enable_connect_protocol: bool,
    /// Whether HTTP datagrams are understood (RFC 9297).
    pub h3_datagram: bool,
}

fn wrong(what: &'static str) -> Violation {
    Violation::new(Code::SETTINGS_ERROR, what)
}

impl PeerSettings {
    /// Reads a SETTINGS payload; an unknown setting is ignored, one that comes twice is not (RFC 9114 7.2.4).
    pub(crate) fn read(mut payload: &[u8]) -> Result<Self, Violation> {
        let mut settings = Self::default();
        let mut seen = Vec::new();
        while !payload.is_empty() {
            let (key, value) = entry(&mut payload)
                .ok_or_else(|| Violation::new(Code::FRAME_ERROR, "SETTINGS that end within a setting"))?;
            if seen.contains(&key) {
                return Err(wrong("a setting twice"));
            }
            if seen.len() >= MAX_SETTINGS {
                return Err(Violation::new(Code::EXCESSIVE_LOAD, "settings without end"));
            }
            seen.push(key);
            settings.apply(key, value)?;
        }
        Ok(settings)
    }

    fn apply(&mut self, key: u64, value: u64) -> Result<(), Violation> {
        match key {
            QPACK_MAX_TABLE_CAPACITY => self.qpack_max_table_capacity = value,
            QPACK_BLOCKED_STREAMS => self.qpack_blocked_streams = value,
            MAX_FIELD_SECTION_SIZE => self.max_field_section_size = Some(value),
            ENABLE_CONNECT_PROTOCOL => {
                self.enable_connect_protocol = flag(value, "SETTINGS_ENABLE_CONNECT_PROTOCOL is neither 0 nor 1")?;
            }
            H3_DATAGRAM => self.h3_datagram = flag(value, "SETTINGS_H3_DATAGRAM is neither 0 nor 1")?,
            // RFC 9114 7.2.4.1: what these meant in HTTP/2 has no place here.
            0x0 | 0x2..=0x5 => return Err(wrong("a setting of HTTP/2")),
            _ => {}
        }
        Ok(())
    }
}

fn flag(value: u64, what: &'static str) -> Result<bool, Violation> {
    if value > 1 { Err(wrong(what)) } else { Ok(value == 1) }
}

fn entry(payload: &mut &[u8]) -> Option<(u64, u64)> {
    let (key, key_len) = varint::read(payload)?;
    let rest = payload.get(key_len..)?;
    let (value, value_len) = varint::read(rest)?;
    *payload = rest.get(value_len..)?;
    Some((key, value))
}

/// Writes our SETTINGS frame.
pub(crate) fn put(config: &Config, out: &mut BytesMut) {
    let entries = [
        (QPACK_MAX_TABLE_CAPACITY, u64::from(config.header_table_size)),
        (MAX_FIELD_SECTION_SIZE, u64::from(config.max_field_section_size)),
        (QPACK_BLOCKED_STREAMS, u64::from(config.blocked_streams)),
        (H3_DATAGRAM, u64::from(config.datagrams)),
        (GREASE, 0),
    ];
    let mut payload = BytesMut::new();
    for (key, value) in entries.into_iter().filter(|(key, value)| *key != H3_DATAGRAM || *value != 0) {
        varint::put(key, &mut payload);
        varint::put(value, &mut payload);
    }
    frame::put_head(frame::SETTINGS, payload.len(), out);
    out.extend_from_slice(&payload);
}
