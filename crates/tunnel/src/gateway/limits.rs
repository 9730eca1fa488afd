//! How much a gateway grants.

use std::time::Duration;

/// The most that a gateway ever holds of one direction of a tunnel: the mark at which the source is no longer read. It
/// is an upper bound for [`Limits::window`], whose default is far below it.
pub const HIGH_WATER: usize = 1 << 20;

/// The least that a direction may hold.
const LEAST_WINDOW: usize = 1 << 10;

/// What a gateway grants to its clients. The defaults suit a gateway of the open internet.
#[derive(Debug, Clone)]
#[must_use]
pub struct Limits {
    pub(super) window: usize,
    pub(super) open: Duration,
    pub(super) handshake: Duration,
    pub(super) close: Duration,
    pub(super) idle: Option<Duration>,
    pub(super) lifetime: Option<Duration>,
    pub(super) bytes: Option<u64>,
    pub(super) tunnels: usize,
    pub(super) per_client: usize,
    pub(super) handshakes: usize,
    pub(super) keepalive: Option<(Duration, Duration)>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            window: 64 << 10,
            open: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            close: Duration::from_secs(5),
            idle: Some(Duration::from_secs(600)),
            lifetime: None,
            bytes: None,
            tunnels: 10_000,
            per_client: 256,
            handshakes: 512,
            keepalive: None,
        }
    }
}

impl Limits {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes of one direction may wait before its source is no longer read. Default 64 KiB, at most
    /// [`HIGH_WATER`]. Up to one read more (64 KiB) may be held above it, so the mark is never passed.
    pub fn window(mut self, bytes: usize) -> Self {
        self.window = bytes.clamp(LEAST_WINDOW, HIGH_WATER - (128 << 10));
        self
    }

    /// How long connecting to the target may take, its name's resolution included. Default 10 s.
    pub fn open(mut self, limit: Duration) -> Self {
        self.open = limit;
        self
    }

    /// How long a client may take for TLS, its upgrade and its authentication together. Default 10 s.
    pub fn handshake(mut self, limit: Duration) -> Self {
        self.handshake = limit;
        self
    }

    /// How long a closing tunnel may take: the handshake of Close, and what the target has still to take. Default 5 s.
    pub fn close(mut self, limit: Duration) -> Self {
        self.close = limit;
        self
    }

    /// How long a tunnel may be without a byte either way. Default 10 minutes.
    pub fn idle(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.idle = limit.into();
        self
    }

    /// How long a tunnel may be open. Default no limit.
    pub fn lifetime(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.lifetime = limit.into();
        self
    }

    /// How many bytes may go through a tunnel, both ways together. Default no limit.
    pub fn bytes(mut self, limit: impl Into<Option<u64>>) -> Self {
        self.bytes = limit.into();
        self
    }

    /// How many tunnels there may be. Default 10,000; one more is refused with 503.
    pub fn max_tunnels(mut self, count: usize) -> Self {
        self.tunnels = count;
        self
    }

    /// How many tunnels one client may have: one identity, or one address where there is no identity. Default 256; one
    /// more is refused with 429.
    pub fn max_per_client(mut self, count: usize) -> Self {
        self.per_client = count;
        self
    }

    /// How many clients may be in their handshake. Default 512; further ones wait to be accepted.
    pub fn max_handshakes(mut self, count: usize) -> Self {
        self.handshakes = count.max(1);
        self
    }

    /// A client that was silent for `idle` is pinged, and given up after `timeout` more. Default off: the idle limit
    /// ends dead ones.
    pub fn keepalive(mut self, idle: Duration, timeout: Duration) -> Self {
        self.keepalive = Some((idle, timeout));
        self
    }
}
