//! Whether a channel is made use of.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portolan_core::clock::{self, Instant};
use tokio::task::AbortHandle;

/// The calls of a channel that is to rest when there are none for so long.
#[derive(Debug)]
pub(super) struct Usage {
    pub(super) limit: Duration,
    calls: Mutex<Calls>,
}

#[derive(Debug)]
pub(super) struct Calls {
    running: usize,
    /// When the last one ended.
    since: Instant,
    /// Lets the channel rest, unless it rests already.
    timer: Option<AbortHandle>,
}

/// One call that is under way, from the choice of its connection until its response is let go.
#[derive(Debug)]
pub(super) struct InUse(Arc<Usage>);

impl Usage {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, calls: Mutex::new(Calls { running: 0, since: clock::now(), timer: None }) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call begins; `timer` is made where there is none.
    pub(super) fn begin(self: &Arc<Self>, timer: impl FnOnce() -> AbortHandle) -> InUse {
        let mut calls = self.lock();
        calls.running += 1;
        // One that ended with its runtime is none.
        if calls.timer.as_ref().is_none_or(AbortHandle::is_finished) {
            calls.timer = Some(timer());
        }
        InUse(Arc::clone(self))
    }
}

impl Calls {
    /// When to look again; `None` if the time has come, and the timer is done.
    pub(super) fn next_look(&mut self, limit: Duration) -> Option<Instant> {
        let now = clock::now();
        let due = if self.running > 0 { now + limit } else { self.since + limit };
        if due > now {
            return Some(due);
        }
        self.timer = None;
        None
    }

    /// The channel is no more.
    pub(super) fn stop(&mut self) {
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut calls = self.0.lock();
        calls.running = calls.running.saturating_sub(1);
        calls.since = clock::now();
    }
}
