//! What a connection carries, counted for those who asked.

use std::io::IoSlice;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Carried, Closed, Observers, Said};
use crate::clock::{self, Instant};
use crate::endpoint::Endpoint;
use crate::info::TlsInfo;

/// The counters of one connection. When they go, the connection is gone.
pub(crate) struct Traffic {
    id: u64,
    endpoint: Endpoint,
    since: Instant,
    observers: Observers,
    sent: AtomicU64,
    received: AtomicU64,
    /// Observers know it as opened, or will before they can hear that it is gone.
    opened: AtomicBool,
}

impl Traffic {
    pub(crate) fn new(id: u64, endpoint: Endpoint, observers: Observers) -> Self {
        Self {
            id,
            endpoint,
            since: clock::now(),
            observers,
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            opened: AtomicBool::new(true),
        }
    }

    /// That of several attempts, of which none has won yet: nobody is told of its end.
    pub(crate) fn contended(self) -> Self {
        self.opened.store(false, Ordering::Relaxed);
        self
    }

    /// One has won.
    pub(crate) fn won(&self) {
        self.opened.store(true, Ordering::Relaxed);
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

    pub(crate) fn sent(&self, bytes: &[u8]) {
        self.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.tell(Said::Sent(bytes));
    }

    /// So many bytes of these were sent.
    pub(crate) fn sent_vectored(&self, bufs: &[IoSlice<'_>], mut bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        for buf in bufs {
            let part = buf.get(..bytes).unwrap_or(buf);
            bytes -= part.len();
            if !part.is_empty() {
                self.tell(Said::Sent(part));
            }
        }
    }

    pub(crate) fn received(&self, bytes: &[u8]) {
        self.received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.tell(Said::Received(bytes));
    }

    /// Bytes that nobody here has seen.
    pub(crate) fn moved(&self, sent: usize, received: usize) {
        self.sent.fetch_add(sent as u64, Ordering::Relaxed);
        self.received.fetch_add(received as u64, Ordering::Relaxed);
    }

    pub(crate) fn tell(&self, said: Said<'_>) {
        let carried = Carried { id: self.id, endpoint: &self.endpoint, said };
        self.observers.tell(|observer| observer.carried(&carried));
    }

    pub(crate) fn secured(&self, tls: &TlsInfo) {
        self.observers.tell(|observer| observer.secured(self.id, tls));
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        if !*self.opened.get_mut() {
            return;
        }
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
