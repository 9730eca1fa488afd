//! Idle connections end on time, whether or not anybody asks for their key again.

use std::hash::Hash;
use std::sync::{Arc, Weak};
use std::time::Duration;

use portolan_core::clock::{self, Instant};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::options::PoolOptions;
use crate::pool::{Inner, Manage};
use crate::state::Books;

/// Connections whose times are closer together than this go together.
const STEP: Duration = Duration::from_millis(10);

/// The task that drops what has been idle too long: there while anything is idle, and no longer than the pool.
#[derive(Debug)]
pub(crate) struct Reaper(AbortHandle);

impl Reaper {
    /// Whether it is at work: a runtime that was shut down has taken it along.
    pub(crate) fn is_there(&self) -> bool {
        !self.0.is_finished()
    }

    /// Begins, on the runtime of the caller, or on the one that connections were made on last.
    pub(crate) fn new<M: Manage>(pool: &Arc<Inner<M>>, last: Option<&Handle>) -> Option<Self> {
        let runtime = Handle::try_current().ok().or_else(|| last.cloned())?;
        Some(Self(runtime.spawn(reap(Arc::downgrade(pool))).abort_handle()))
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn reap<M: Manage>(pool: Weak<Inner<M>>) {
    loop {
        let mut trash = Vec::new();
        let next = {
            let Some(pool) = pool.upgrade() else { return };
            let mut books = pool.lock();
            books.sweep_all(&pool.options, clock::now(), &mut trash);
            let next = books.next_end(&pool.options);
            if next.is_none() {
                books.reaper = None;
            }
            next
        };
        drop(trash);
        let Some(next) = next else { return };
        clock::sleep_until(next.max(clock::now() + STEP)).await;
    }
}

impl<K: Eq + Hash + Clone, C> Books<K, C> {
    /// Drops what is to go of all keys, and forgets those of which nothing is left.
    pub(crate) fn sweep_all(&mut self, options: &PoolOptions, now: Instant, trash: &mut Vec<C>) {
        let keys: Vec<_> = self.buckets.keys().cloned().collect();
        for key in keys {
            self.sweep(&key, options, now, trash);
        }
        self.forget();
    }

    /// When the first of the idle connections is to go.
    fn next_end(&self, options: &PoolOptions) -> Option<Instant> {
        let quiet = self.buckets.values().flat_map(|bucket| {
            let shared = bucket.shared.iter().filter(|shared| shared.leases == 0);
            let shared = shared.map(|shared| (shared.since, &shared.tag));
            bucket.idle.iter().map(|idle| (idle.since, &idle.tag)).chain(shared)
        });
        let ends = quiet.flat_map(|(since, tag)| {
            let idle = options.idle_timeout.and_then(|limit| since.checked_add(limit));
            [idle, tag.retire_at]
        });
        ends.flatten().min()
    }
}
