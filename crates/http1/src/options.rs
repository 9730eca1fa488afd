//! How a connection is to behave.

use std::time::Duration;

/// The options of a connection; the defaults are right for a client of the open internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Options {
    pub(crate) max_head: usize,
    pub(crate) max_headers: usize,
    pub(crate) max_informational: usize,
    pub(crate) max_trailers: usize,
    pub(crate) drain: usize,
    pub(crate) first_byte: Option<Duration>,
    pub(crate) idle: Option<Duration>,
    pub(crate) expect: Duration,
    pub(crate) title_case: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_head: 64 << 10,
            max_headers: 128,
            max_informational: 16,
            max_trailers: 16 << 10,
            drain: 64 << 10,
            first_byte: Some(Duration::from_secs(60)),
            idle: Some(Duration::from_secs(60)),
            expect: Duration::from_secs(1),
            title_case: false,
        }
    }
}

impl Options {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The longest head of a response, status line and fields together. Default 64 KiB; a longer one is an error.
    pub fn max_head(mut self, bytes: usize) -> Self {
        self.max_head = bytes;
        self
    }

    /// The most fields in a head. Default 128, at most 1024.
    pub fn max_headers(mut self, count: usize) -> Self {
        self.max_headers = count.min(1024);
        self
    }

    /// Informational responses before the final one. Default 16.
    pub fn max_informational(mut self, count: usize) -> Self {
        self.max_informational = count;
        self
    }

    /// The longest trailer section, in bytes. Default 16 KiB.
    pub fn max_trailers(mut self, bytes: usize) -> Self {
        self.max_trailers = bytes;
        self
    }

    /// Bytes of an unread body that are read away when it is dropped, if they have come already; with more to come the
    /// connection is closed. Default 64 KiB.
    pub fn drain(mut self, bytes: usize) -> Self {
        self.drain = bytes;
        self
    }

    /// From the last byte of a request to the first of its response. Default 60 s.
    pub fn first_byte(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.first_byte = limit.into();
        self
    }

    /// Between two bytes of a response, and between two of a request that the peer takes. Default 60 s.
    pub fn idle(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.idle = limit.into();
        self
    }

    /// How long the peer's word is awaited after `expect: 100-continue`, before the body is sent unasked (RFC 9110 10.1.1).
    /// Default 1 s.
    pub fn expect(mut self, limit: Duration) -> Self {
        self.expect = limit;
        self
    }

    /// Writes field names as `Content-Type`, not as `content-type`: for servers that can't tell that both are the same.
    pub fn title_case(mut self, on: bool) -> Self {
        self.title_case = on;
        self
    }
}
