//! How a connection is to behave.

use std::time::Duration;

use portolan_http::{OnMessage, SocketMessage};

use crate::codec::{Deflate, DeflateAgreed, Limits, Role};

/// The options of a connection; the defaults are right for a client of the open internet.
#[derive(Debug, Clone)]
#[must_use]
pub struct Options {
    pub(crate) role: Role,
    pub(crate) limits: Limits,
    pub(crate) write_buffer: usize,
    pub(crate) deflate: Option<Deflate>,
    pub(crate) agreed: Option<DeflateAgreed>,
    pub(crate) close_timeout: Duration,
    pub(crate) keepalive: Option<(Duration, Duration)>,
    pub(crate) control_messages: bool,
    pub(crate) lean: bool,
    pub(crate) early: bytes::Bytes,
    /// The transport is a stream of HTTP/2 or HTTP/3: nothing is gained by letting the server end it.
    pub(crate) ends_first: bool,
    /// Who hears the messages, beside the caller.
    pub(crate) heard_by: Vec<OnMessage>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            role: Role::Client,
            limits: Limits::default(),
            write_buffer: 128 << 10,
            deflate: None,
            agreed: None,
            close_timeout: Duration::from_secs(5),
            keepalive: None,
            control_messages: false,
            lean: false,
            early: bytes::Bytes::new(),
            ends_first: false,
            heard_by: Vec::new(),
        }
    }
}

impl Options {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls back with each message of text or bytes, sent and received, in order: for logs and recordings. It must not block.
    ///
    /// A message that was sent is told when it is taken to be written; of one in fragments it hears the first mebibyte, when its
    /// last fragment is there.
    pub fn on_message(mut self, callback: impl Fn(SocketMessage<'_>) + Send + Sync + 'static) -> Self {
        self.heard_by.push(OnMessage::new(callback));
        self
    }

    /// The longest payload of one frame, in bytes of the wire. Default 16 MiB. A longer one ends the connection with 1009.
    pub fn max_frame(mut self, bytes: usize) -> Self {
        self.limits.frame = bytes;
        self
    }

    /// The longest message in bytes, its fragments together and inflated. Default 64 MiB. A longer one ends the connection
    /// with 1009, also when it is read in pieces.
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.limits.message = bytes;
        self
    }

    /// How many bytes may wait to be written before senders wait. Default 128 KiB. One message beyond it may be in hand: it
    /// is the caller's memory, copied and masked up to 512 KiB at a time as the peer takes it.
    pub fn write_buffer(mut self, bytes: usize) -> Self {
        self.write_buffer = bytes.max(1);
        self
    }

    /// Offers permessage-deflate in the handshake. Default off: see [`Deflate`] for what it costs.
    pub fn deflate(mut self, deflate: Deflate) -> Self {
        self.deflate = Some(deflate);
        self
    }

    /// What a handshake agreed on, for [`WebSocket::from_stream`](crate::WebSocket::from_stream).
    pub fn agreed(mut self, agreed: Option<DeflateAgreed>) -> Self {
        self.agreed = agreed;
        self
    }

    /// Which end this is. Default [`Role::Client`].
    pub fn role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }

    /// Bytes of the conversation that the handshake had already read.
    pub fn early(mut self, bytes: bytes::Bytes) -> Self {
        self.early = bytes;
        self
    }

    /// How long the closing handshake may take, from our Close to the end of the connection. Default 5 s.
    pub fn close_timeout(mut self, limit: Duration) -> Self {
        self.close_timeout = limit;
        self
    }

    /// After `idle` without a byte from the peer it is pinged; without a byte within `timeout` the connection is given up.
    /// It works while the reading side is polled. Default off.
    pub fn keepalive(mut self, idle: Duration, timeout: Duration) -> Self {
        self.keepalive = Some((idle, timeout));
        self
    }

    /// Whether pings (answered already) and pongs are given to the reader too. Default false.
    pub fn control_messages(mut self, on: bool) -> Self {
        self.control_messages = on;
        self
    }

    /// Whether buffers are given back whenever the connection waits: for thousands of connections that are idle mostly. Each
    /// message then costs an allocation. Default false.
    pub fn lean(mut self, on: bool) -> Self {
        self.lean = on;
        self
    }
}
