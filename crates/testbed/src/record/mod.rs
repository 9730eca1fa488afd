//! Records what two sides say to each other, without their secrets, and plays it again.
//!
//! [`Recorder`] stands between a client and a server, over TCP or UDP; [`Recorded`] wraps a stream that is there already (and
//! so records what goes *inside* TLS). What they give is a [`Transcript`]: readable text that can be saved, loaded, and turned
//! into a [`Script`](crate::rogue::Script) that says again what the server said.
//!
//! Passwords are hidden by [`Redact`] before a transcript leaves the recorder: literal secrets, and what stands in the
//! usual places (`AUTH` and `PASS` lines, `Authorization` headers, SASL exchanges, Redis's `AUTH`). It sees each direction
//! as one run of bytes, so a secret that is split over several writes is found too.

mod proxy;
mod redact;
mod stream;
#[cfg(test)]
mod tests;
mod transcript;
mod udp;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

pub use proxy::Recorder;
pub use redact::Redact;
pub use stream::{Recorded, Tap};
pub use transcript::{Entry, Piece, Side, Transcript, What};

/// What one recording may hold; behind that it ends, and says so.
const KEPT: usize = 64 << 20;

/// A thing seen, before redaction.
#[derive(Debug, Clone)]
pub(crate) struct Raw {
    pub(crate) at: Duration,
    pub(crate) connection: usize,
    pub(crate) side: Side,
    pub(crate) what: RawWhat,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RawWhat {
    Said(Vec<u8>),
    Closed,
    Reset,
}

/// Where recorders write.
#[derive(Debug)]
pub(crate) struct Log {
    started: Instant,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    raw: Vec<Raw>,
    held: usize,
    cut_short: bool,
    opened: usize,
    ended: usize,
}

impl Log {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), state: Mutex::default(), changed: Notify::new() }
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        let result = look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_waiters();
        result
    }

    /// A new connection's number.
    pub(crate) fn open(&self) -> usize {
        self.with(|state| {
            state.opened += 1;
            state.opened - 1
        })
    }

    pub(crate) fn end(&self) {
        self.with(|state| state.ended += 1);
    }

    pub(crate) fn said(&self, connection: usize, side: Side, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.add(connection, side, RawWhat::Said(bytes.to_vec()));
        }
    }

    pub(crate) fn add(&self, connection: usize, side: Side, what: RawWhat) {
        let at = self.started.elapsed();
        let size = if let RawWhat::Said(bytes) = &what { bytes.len() } else { 0 };
        self.with(|state| {
            if state.held + size > KEPT {
                state.cut_short = true;
            } else if !state.cut_short {
                state.held += size;
                state.raw.push(Raw { at, connection, side, what });
            }
        });
    }

    /// Waits until every connection has ended.
    pub(crate) async fn quiet(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.all_ended() {
                return;
            }
            changed.await;
        }
    }

    fn all_ended(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.opened > 0 && state.ended == state.opened
    }

    pub(crate) fn raw(&self) -> Vec<Raw> {
        let (raw, cut_short) = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            (state.raw.clone(), state.cut_short)
        };
        assert!(!cut_short, "more was said than a recording holds: {KEPT} bytes");
        raw
    }

    pub(crate) fn transcript(&self, redact: &Redact) -> Transcript {
        Transcript { entries: redact.apply(&self.raw()) }
    }
}
