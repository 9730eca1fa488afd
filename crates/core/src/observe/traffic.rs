//! What a connection carries, counted for those who asked.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Closed, Observers};
use crate::clock::{self, Instant};
use crate::endpoint::Endpoint;

/// The counters of one connection. When they go, the connection is gone.
pub(crate) struct Traffic {
    id: u64,
    endpoint: Endpoint,
    since: Instant,
    observers: Observers,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    pub(crate) fn new(id: u64, endpoint: Endpoint, observers: Observers) -> Self {
        Self { id, endpoint, since: clock::now(), observers, sent: AtomicU64::new(0), received: AtomicU64::new(0) }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(crate) fn observers(&self) -> &Observers {
        &self.observers
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        let closed = Closed {
            id: self.id,
            endpoint: &self.endpoint,
            age: clock::now() - self.since,
            sent: *self.sent.get_mut(),
            received: *self.received.get_mut(),
        };
        tracing::debug!(
            endpoint = %self.endpoint,
            bytes_sent = closed.sent,
            bytes_received = closed.received,
            "connection closed"
        );
        self.observers.tell(|observer| observer.closed(&closed));
    }
}
