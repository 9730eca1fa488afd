//! How a connection is to behave.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use portolan_core::{Error, Result};

use crate::event::Event;
use crate::proto::failure::PROTOCOL;
use crate::proto::frame::MAX_31;
use crate::proto::settings::FRAME_SIZES;
use crate::proto::{Config, Keepalive};

/// The options of a connection; the defaults are right for a client of the open internet.
#[derive(Clone)]
#[must_use]
pub struct Options {
    config: Config,
    pub(crate) on_event: Option<OnEvent>,
}

pub(crate) type OnEvent = Arc<dyn Fn(Event) + Send + Sync>;

impl Default for Options {
    fn default() -> Self {
        Self {
            config: Config {
                header_table_size: 4096,
                encoder_table_size: 4096,
                stream_window: 256 << 10,
                connection_window: 32 << 20,
                max_window: 8 << 20,
                max_frame_size: 16 << 10,
                max_header_list_size: 64 << 10,
                max_header_fields: 512,
                initial_max_streams: 100,
                max_streams: 1 << 14,
                max_waiting: 1024,
                keepalive: None,
                expect: Duration::from_secs(1),
            },
            on_event: None,
        }
    }
}

impl Options {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of response body that may wait for the reader of one stream. Default 256 KiB. Larger is faster over long ways
    /// until the estimate has grown, and holds more memory for a slow reader.
    pub fn stream_window(mut self, bytes: u32) -> Self {
        self.config.stream_window = bytes;
        self
    }

    /// The same for all streams together: responses that nobody reads stop the others of their connection when they hold this much.
    /// Default 32 MiB: those of 128 streams, or of four that have grown to the full. Smaller than a stream's window, it lets one
    /// slow reader stop all.
    pub fn connection_window(mut self, bytes: u32) -> Self {
        self.config.connection_window = bytes;
        self
    }

    /// How far a stream's window grows with the bandwidth-delay product; the connection's grows to twice that. Default 8 MiB.
    /// At or below the stream window nothing is measured and nothing grows.
    pub fn max_window(mut self, bytes: u32) -> Self {
        self.config.max_window = bytes;
        self
    }

    /// The longest frame that the peer may send: 16 KiB (the default, and the least) to 16 MiB - 1. Longer frames block others
    /// for longer and need larger buffers.
    pub fn max_frame_size(mut self, bytes: u32) -> Self {
        self.config.max_frame_size = bytes;
        self
    }

    /// The longest header list taken, as RFC 9113 6.5.2 counts it. Default 64 KiB. A longer one fails its stream alone.
    pub fn max_header_list_size(mut self, bytes: u32) -> Self {
        self.config.max_header_list_size = bytes;
        self
    }

    /// The most fields in a header list. Default 512.
    pub fn max_header_fields(mut self, count: usize) -> Self {
        self.config.max_header_fields = count;
        self
    }

    /// Bytes of the table that responses are decoded by, as said to the peer. Default 4096; 0 turns it off.
    pub fn header_table_size(mut self, bytes: u32) -> Self {
        self.config.header_table_size = bytes;
        self
    }

    /// Bytes of the table that requests are encoded by, whatever the peer allows. Default 4096; 0 turns it off.
    pub fn encoder_table_size(mut self, bytes: usize) -> Self {
        self.config.encoder_table_size = bytes;
        self
    }

    /// Streams open at once, whatever the peer allows. Default 16384.
    pub fn max_streams(mut self, count: usize) -> Self {
        self.config.max_streams = count;
        self
    }

    /// Streams opened before the peer has said its limit. Default 100, what RFC 9113 6.5.2 asks servers for at least.
    pub fn initial_max_streams(mut self, count: usize) -> Self {
        self.config.initial_max_streams = count;
        self
    }

    /// Requests that may wait for a stream. Default 1024. One more fails at once, not sent.
    pub fn max_waiting(mut self, count: usize) -> Self {
        self.config.max_waiting = count;
        self
    }

    /// How long the peer's word is awaited after `expect: 100-continue`, before the body is sent unasked (RFC 9110 10.1.1).
    /// Default 1 s.
    pub fn expect(mut self, limit: Duration) -> Self {
        self.config.expect = limit;
        self
    }

    /// After `idle` without a byte from the peer it is asked by PING, while streams are open; without an answer within
    /// `timeout` the connection is given up. Off by default.
    pub fn keepalive(mut self, idle: Duration, timeout: Duration) -> Self {
        self.config.keepalive = Some(Keepalive { idle, timeout, always: false });
        self
    }

    /// The keepalive of [`keepalive`](Self::keepalive), also while no stream is open: for connections kept in a pool.
    pub fn keepalive_while_idle(mut self, idle: Duration, timeout: Duration) -> Self {
        self.config.keepalive = Some(Keepalive { idle, timeout, always: true });
        self
    }

    /// No keepalive.
    pub fn disable_keepalive(mut self) -> Self {
        self.config.keepalive = None;
        self
    }

    /// Called by the connection's driver with what concerns the connection as a whole. It must not block.
    pub fn on_event(mut self, callback: impl Fn(Event) + Send + Sync + 'static) -> Self {
        self.on_event = Some(Arc::new(callback));
        self
    }

    pub(crate) fn checked(self) -> Result<(Config, Option<OnEvent>)> {
        let config = self.config;
        let usage = |message: &'static str| Err(Error::usage(message).with_protocol(PROTOCOL));
        if !FRAME_SIZES.contains(&config.max_frame_size) {
            return usage("max_frame_size is out of 16 KiB to 16 MiB - 1");
        }
        if config.stream_window == 0
            || config.stream_window.max(config.connection_window).max(config.max_window) > MAX_31
        {
            return usage("a window is 0 or beyond 2^31-1");
        }
        Ok((config, self.on_event))
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("config", &self.config).finish_non_exhaustive()
    }
}
