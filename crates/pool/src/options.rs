//! The limits of a pool.

use std::time::Duration;

/// How many connections are kept, for how long, and how long callers wait for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct PoolOptions {
    pub(crate) per_key: usize,
    pub(crate) total: usize,
    pub(crate) idle_per_key: usize,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) lifetime: Option<Duration>,
    pub(crate) uses: Option<u64>,
    pub(crate) queue: usize,
    pub(crate) wait: Option<Duration>,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            per_key: 64,
            total: 1024,
            idle_per_key: 16,
            idle_timeout: Some(Duration::from_secs(90)),
            lifetime: Some(Duration::from_secs(1800)),
            uses: None,
            queue: 10_000,
            wait: Some(Duration::from_secs(30)),
        }
    }
}

impl PoolOptions {
    /// Connections of one key at once, those being made included. Default 64.
    pub fn per_key(mut self, count: usize) -> Self {
        self.per_key = count.max(1);
        self
    }

    /// Connections of all keys at once. Default 1024; an idle one of another key makes room.
    pub fn total(mut self, count: usize) -> Self {
        self.total = count.max(1);
        self
    }

    /// Idle connections kept of one key. Default 16; 0 closes each after use.
    pub fn idle_per_key(mut self, count: usize) -> Self {
        self.idle_per_key = count;
        self
    }

    /// How long an idle connection is kept. Default 90 s: many servers and NATs forget it soon after.
    pub fn idle_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.idle_timeout = limit.into();
        self
    }

    /// How old a connection may become, less up to a tenth by chance so that all do not end at once. Default 30 minutes: a
    /// changed DNS answer is then noticed.
    pub fn lifetime(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.lifetime = limit.into();
        self
    }

    /// How often a connection may be used. Default without bound.
    pub fn uses(mut self, count: impl Into<Option<u64>>) -> Self {
        self.uses = count.into();
        self
    }

    /// Callers that may wait for one key; one more fails at once. Default 10,000.
    pub fn queue(mut self, callers: usize) -> Self {
        self.queue = callers;
        self
    }

    /// How long a caller waits for its turn. Default 30 s; the time of connecting is not counted, it has bounds of its own.
    pub fn wait(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.wait = limit.into();
        self
    }
}
