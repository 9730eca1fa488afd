//! How a connection is to behave.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use portolan_core::{Error, Result};
use quinn::{IdleTimeout, TransportConfig, VarInt};

use crate::event::Event;
use crate::proto::Config;
use crate::proto::failure::PROTOCOL;

/// Streams that a server may open at once: control, two of QPACK, and a few that we don't know (RFC 9114 6.2 asks for three).
pub(crate) const PEER_STREAMS: u32 = 16;
/// Bytes of HTTP datagrams that may wait to be sent, or to be taken out by the driver.
const DATAGRAM_BUFFER: usize = 1 << 20;

/// The options of a connection; the defaults are right for a client of the open internet.
#[derive(Clone)]
#[must_use]
pub struct Options {
    config: Config,
    transport: Transport,
    pub(crate) early_data: bool,
    pub(crate) on_event: Option<OnEvent>,
}

#[derive(Debug, Clone)]
struct Transport {
    stream_window: u32,
    connection_window: u32,
    send_window: u32,
    keepalive: Option<Duration>,
    idle_timeout: Option<Duration>,
    segmentation_offload: bool,
}

pub(crate) type OnEvent = Arc<dyn Fn(Event) + Send + Sync>;

impl Default for Options {
    fn default() -> Self {
        Self {
            config: Config {
                header_table_size: 4096,
                blocked_streams: 16,
                encoder_table_size: 4096,
                max_field_section_size: 64 << 10,
                max_header_fields: 512,
                max_streams: 100,
                max_waiting: 1024,
                datagrams: false,
                datagram_queue: 64,
                answer_timeout: Some(Duration::from_secs(5)),
                expect: Duration::from_secs(1),
            },
            transport: Transport {
                stream_window: 4 << 20,
                connection_window: 16 << 20,
                send_window: 4 << 20,
                keepalive: None,
                idle_timeout: Some(Duration::from_secs(30)),
                segmentation_offload: true,
            },
            early_data: false,
            on_event: None,
        }
    }
}

impl Options {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of response that may wait for the reader of one stream. Default 4 MiB: 300 Mbit/s over a way of 100 ms.
    /// Less is slower over long ways, more holds more memory for a slow reader.
    pub fn stream_window(mut self, bytes: u32) -> Self {
        self.transport.stream_window = bytes;
        self
    }

    /// The same for all streams together. Default 16 MiB. Smaller than a stream's window, it lets one slow reader stop all.
    pub fn connection_window(mut self, bytes: u32) -> Self {
        self.transport.connection_window = bytes;
        self
    }

    /// Bytes of all requests that may wait for the peer's acknowledgement. Default 4 MiB. Less slows uploads over long ways.
    pub fn send_window(mut self, bytes: u32) -> Self {
        self.transport.send_window = bytes;
        self
    }

    /// The longest header list taken, as RFC 9114 4.2.2 counts it. Default 64 KiB. A longer one fails its stream alone.
    pub fn max_field_section_size(mut self, bytes: u32) -> Self {
        self.config.max_field_section_size = bytes;
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

    /// Responses that may wait for entries of that table at once. Default 16; 0 keeps the peer from risking it.
    pub fn max_blocked_streams(mut self, count: u32) -> Self {
        self.config.blocked_streams = count;
        self
    }

    /// Bytes of the table that requests are encoded by, whatever the peer allows. Default 4096; 0 turns it off.
    pub fn encoder_table_size(mut self, bytes: usize) -> Self {
        self.config.encoder_table_size = bytes;
        self
    }

    /// Streams open at once, whatever the peer allows. Default 100, what most servers allow.
    pub fn max_streams(mut self, count: usize) -> Self {
        self.config.max_streams = count;
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

    /// Asks an idle peer whether it is still there, this often. Off by default; it must be shorter than the idle timeout of
    /// either side to keep a connection alive.
    pub fn keepalive(mut self, interval: Duration) -> Self {
        self.transport.keepalive = Some(interval);
        self
    }

    /// No keepalive.
    pub fn disable_keepalive(mut self) -> Self {
        self.transport.keepalive = None;
        self
    }

    /// Without a packet from the peer for this long, the connection is given up; the shorter of both sides holds. Default 30 s;
    /// `None` leaves it to the peer alone.
    pub fn idle_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.transport.idle_timeout = timeout;
        self
    }

    /// A peer that has acknowledged nothing of what was sent to it for about this long is taken for gone, and what waits for it ends
    /// in a timeout. A server that thinks for long is no such peer: it acknowledges the request. Default 5 s; `None` leaves it
    /// to the idle timeout.
    pub fn answer_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.config.answer_timeout = timeout.filter(|timeout| !timeout.is_zero());
        self
    }

    /// Sends safe requests without a body before the handshake is done, where an earlier session allows it (RFC 8470). Who
    /// records them can send them again, so leave it off where even a safe request must not be repeated. Default off.
    pub fn early_data(mut self, on: bool) -> Self {
        self.early_data = on;
        self
    }

    /// Hands many datagrams to the kernel in one call, which cuts them apart (UDP GSO), where it can. Default on. Off for a peer on
    /// this machine, or beside it, that asks for joined datagrams and has no room for them: Envoy without `prefer_gro` loses
    /// most of an upload so.
    pub fn segmentation_offload(mut self, on: bool) -> Self {
        self.transport.segmentation_offload = on;
        self
    }

    /// Takes and sends HTTP datagrams (RFC 9297), for CONNECT requests. Default off.
    pub fn datagrams(mut self, on: bool) -> Self {
        self.config.datagrams = on;
        self
    }

    /// Datagrams that may wait for the reader of one stream; more are dropped, as a network would. Default 64.
    pub fn datagram_queue(mut self, count: usize) -> Self {
        self.config.datagram_queue = count;
        self
    }

    /// Called by the connection's driver with what concerns the connection as a whole. It must not block.
    pub fn on_event(mut self, callback: impl Fn(Event) + Send + Sync + 'static) -> Self {
        self.on_event = Some(Arc::new(callback));
        self
    }

    /// QUIC's part of these options, for a `quinn` endpoint of the caller's own: [`connect`](crate::connect) does this by itself.
    pub fn to_transport(&self) -> Result<TransportConfig> {
        self.check()?;
        let mut config = TransportConfig::default();
        config
            .stream_receive_window(self.transport.stream_window.into())
            .receive_window(self.transport.connection_window.into())
            .send_window(self.transport.send_window.into())
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .max_concurrent_uni_streams(PEER_STREAMS.into())
            .keep_alive_interval(self.transport.keepalive)
            .enable_segmentation_offload(self.transport.segmentation_offload)
            .datagram_receive_buffer_size(self.config.datagrams.then_some(DATAGRAM_BUFFER))
            .datagram_send_buffer_size(DATAGRAM_BUFFER);
        let idle = self.transport.idle_timeout.map(IdleTimeout::try_from).transpose();
        let idle = idle.map_err(|_| Error::usage("the idle timeout is beyond what QUIC can say"))?;
        config.max_idle_timeout(idle);
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        let windows = [self.transport.stream_window, self.transport.connection_window, self.transport.send_window];
        if windows.contains(&0) {
            return Err(Error::usage("a window is 0").with_protocol(PROTOCOL));
        }
        if self.config.max_streams == 0 {
            return Err(Error::usage("no stream is allowed").with_protocol(PROTOCOL));
        }
        Ok(())
    }

    pub(crate) fn checked(self) -> Result<(Config, Option<OnEvent>)> {
        self.check()?;
        Ok((self.config, self.on_event))
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("config", &self.config)
            .field("transport", &self.transport)
            .field("early_data", &self.early_data)
            .finish_non_exhaustive()
    }
}
