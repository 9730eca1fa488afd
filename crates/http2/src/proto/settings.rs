//! SETTINGS (RFC 9113 6.5): the peer's, and ours as they are written.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use bytes::{BufMut, BytesMut};

use super::code::Code;
use super::frame::{self, MAX_31};
use super::{Config, Violation};

const HEADER_TABLE_SIZE: u16 = 0x1;
const ENABLE_PUSH: u16 = 0x2;
const MAX_CONCURRENT_STREAMS: u16 = 0x3;
const INITIAL_WINDOW_SIZE: u16 = 0x4;
const MAX_FRAME_SIZE: u16 = 0x5;
const MAX_HEADER_LIST_SIZE: u16 = 0x6;
/// RFC 8441 3.
const ENABLE_CONNECT_PROTOCOL: u16 = 0x8;

/// The smallest and the greatest frame size that may be said (RFC 9113 6.5.2).
pub(crate) const FRAME_SIZES: std::ops::RangeInclusive<u32> = 0x4000..=0x00ff_ffff;

/// What the peer said, defaults where it said nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerSettings {
    /// Bytes of the header table that we may use.
    pub header_table_size: u32,
    /// Streams that we may have open at once; `None` until the peer says.
    pub max_concurrent_streams: Option<u32>,
    /// What a stream may be sent before the peer says more.
    pub initial_window_size: u32,
    /// The longest payload that we may send.
    pub max_frame_size: u32,
    /// The longest header list that the peer takes; `None`: it didn't say.
    pub max_header_list_size: Option<u32>,
    /// Whether extended CONNECT is understood (RFC 8441).
    pub enable_connect_protocol: bool,
}

impl Default for PeerSettings {
    fn default() -> Self {
        Self {
            header_table_size: 4096,
            max_concurrent_streams: None,
            initial_window_size: 65_535,
            max_frame_size: *FRAME_SIZES.start(),
            max_header_list_size: None,
            enable_connect_protocol: false,
        }
    }
}

impl PeerSettings {
    /// Applies a SETTINGS payload in its order; an unknown setting is ignored (RFC 9113 6.5.2). Each size of the header table is
    /// told by itself.
    pub(crate) fn apply(&mut self, payload: &[u8], mut table_size: impl FnMut(u32)) -> Result<(), Violation> {
        let entries = payload.chunks_exact(6);
        if !entries.remainder().is_empty() {
            return Err(Violation::new(Code::FRAME_SIZE_ERROR, "SETTINGS whose length is no multiple of 6"));
        }
        for entry in entries {
            let &[k0, k1, v0, v1, v2, v3] = entry.first_chunk::<6>().unwrap_or(&[0; 6]);
            let (key, value) = (u16::from_be_bytes([k0, k1]), u32::from_be_bytes([v0, v1, v2, v3]));
            self.apply_one(key, value)?;
            if key == HEADER_TABLE_SIZE {
                table_size(value);
            }
        }
        Ok(())
    }

    fn apply_one(&mut self, key: u16, value: u32) -> Result<(), Violation> {
        match key {
            HEADER_TABLE_SIZE => self.header_table_size = value,
            // A server may only say 0, which is what we said already (RFC 9113 6.5.2).
            ENABLE_PUSH if value != 0 => {
                return Err(Violation::protocol("SETTINGS_ENABLE_PUSH from a server is not 0"));
            }
            MAX_CONCURRENT_STREAMS => self.max_concurrent_streams = Some(value),
            INITIAL_WINDOW_SIZE if value > MAX_31 => {
                return Err(Violation::new(Code::FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE beyond 2^31-1"));
            }
            INITIAL_WINDOW_SIZE => self.initial_window_size = value,
            MAX_FRAME_SIZE if !FRAME_SIZES.contains(&value) => {
                return Err(Violation::protocol("SETTINGS_MAX_FRAME_SIZE out of range"));
            }
            MAX_FRAME_SIZE => self.max_frame_size = value,
            MAX_HEADER_LIST_SIZE => self.max_header_list_size = Some(value),
            ENABLE_CONNECT_PROTOCOL => match (self.enable_connect_protocol, value) {
                (_, 1) => self.enable_connect_protocol = true,
                (false, 0) => {}
                // RFC 8441 3: once granted it is not taken back, and there are two values only.
                _ => return Err(Violation::protocol("SETTINGS_ENABLE_CONNECT_PROTOCOL taken back or out of range")),
            },
            _ => {}
        }
        Ok(())
    }
}

/// Writes our SETTINGS.
pub(crate) fn put(config: &Config, out: &mut BytesMut) {
    let entries = [
        (HEADER_TABLE_SIZE, config.header_table_size),
        (ENABLE_PUSH, 0),
        (INITIAL_WINDOW_SIZE, config.stream_window),
        (MAX_FRAME_SIZE, config.max_frame_size),
        (MAX_HEADER_LIST_SIZE, config.max_header_list_size),
    ];
    frame::put_head(entries.len().saturating_mul(6), frame::SETTINGS, 0, 0, out);
    for (key, value) in entries {
        out.put_u16(key);
        out.put_u32(value);
    }
}
