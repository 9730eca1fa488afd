//! Connections to a proxy that many tunnels share.

use std::fmt;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};

/// How many connections to one proxy there are at most: a further one is opened only when the others' streams are all taken.
const MAX_CONNECTIONS: usize = 8;

/// A connection that carries many streams; clones share it.
pub trait Shareable: Clone + Send + Sync + 'static {
    /// Whether it takes a stream now, without waiting.
    fn is_ready(&self) -> bool;

    /// Whether it takes no more streams, now and later.
    fn is_over(&self) -> bool;
}

/// Keeps the connections to one proxy: one as a rule, more when the proxy's limit of streams is reached.
pub struct Kept<C> {
    connections: Mutex<Vec<C>>,
    opening: tokio::sync::Mutex<()>,
    failures: Mutex<Failures>,
}

#[derive(Default)]
struct Failures {
    count: u64,
    last: Option<Error>,
}

impl<C> Default for Kept<C> {
    fn default() -> Self {
        Self { connections: Mutex::default(), opening: tokio::sync::Mutex::default(), failures: Mutex::default() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<C: Shareable> Kept<C> {
    /// A connection that takes streams, and whether it was there already. Who comes while one is being opened waits for it,
    /// and shares its failure too: a proxy that is down is not asked by each in turn.
    pub async fn get(&self, open: impl Future<Output = Result<C>>) -> Result<(C, bool)> {
        if let Some(connection) = self.ready() {
            return Ok((connection, true));
        }
        let seen = lock(&self.failures).count;
        let _opening = self.opening.lock().await;
        if let Some(connection) = self.ready() {
            return Ok((connection, true));
        }
        {
            let failures = lock(&self.failures);
            if let Some(error) = failures.last.as_ref().filter(|_| failures.count != seen) {
                return Err(again(error));
            }
        }
        match open.await {
            Ok(connection) => {
                lock(&self.connections).push(connection.clone());
                Ok((connection, false))
            }
            Err(error) => {
                let mut failures = lock(&self.failures);
                failures.count += 1;
                failures.last = Some(again(&error));
                Err(error)
            }
        }
    }

    fn ready(&self) -> Option<C> {
        let mut connections = lock(&self.connections);
        connections.retain(|connection| !connection.is_over());
        let ready = connections.iter().find(|connection| connection.is_ready());
        // All are full: who comes now waits for a stream of the last one.
        ready.or_else(|| connections.last().filter(|_| connections.len() >= MAX_CONNECTIONS)).cloned()
    }
}

/// The same failure, told to another caller.
fn again(error: &Error) -> Error {
    let mut copy = Error::new(error.kind(), error.message()).with_delivery(crate::Delivery::NotSent);
    if let Some(phase) = error.phase() {
        copy = copy.with_phase(phase);
    }
    if let Some(code) = error.code() {
        copy = copy.with_code(code);
    }
    if let Some(hop) = error.hop() {
        copy = copy.with_hop(hop);
    }
    copy
}

impl<C> fmt::Debug for Kept<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("connections", &lock(&self.connections).len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;
    use crate::Kind;

    #[derive(Clone, Default)]
    struct Fake {
        over: Arc<AtomicBool>,
        full: Arc<AtomicBool>,
    }

    impl Shareable for Fake {
        fn is_ready(&self) -> bool {
            !self.full.load(Ordering::Relaxed)
        }

        fn is_over(&self) -> bool {
            self.over.load(Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn one_connection_serves_all_until_it_is_over_or_full() {
        let kept = Kept::<Fake>::default();
        let opened = AtomicUsize::new(0);
        let get = || {
            kept.get(async {
                opened.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Ok(Fake::default())
            })
        };
        let (a, b, c) = tokio::join!(get(), get(), get());
        assert_eq!(opened.load(Ordering::Relaxed), 1);
        assert_eq!([a.as_ref().unwrap().1, b.unwrap().1, c.unwrap().1], [false, true, true]);
        let first = a.unwrap().0;
        first.full.store(true, Ordering::Relaxed);
        get().await.unwrap();
        assert_eq!(opened.load(Ordering::Relaxed), 2);
        first.full.store(false, Ordering::Relaxed);
        assert!(Arc::ptr_eq(&get().await.unwrap().0.full, &first.full));
        lock(&kept.connections).iter().for_each(|one| one.over.store(true, Ordering::Relaxed));
        assert!(!get().await.unwrap().1);
        for _ in 0..2 * MAX_CONNECTIONS {
            get().await.unwrap().0.full.store(true, Ordering::Relaxed);
        }
        assert_eq!(lock(&kept.connections).len(), MAX_CONNECTIONS);
    }

    #[tokio::test]
    async fn a_failure_is_shared_by_those_who_waited_and_not_by_the_next() {
        let kept = Kept::<Fake>::default();
        let opened = AtomicUsize::new(0);
        let get = || {
            kept.get(async {
                opened.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Err(Error::new(Kind::Hop, "down").with_hop(1).with_code(7))
            })
        };
        let (a, b) = tokio::join!(get(), get());
        for error in [a.err().unwrap(), b.err().unwrap()] {
            assert_eq!(
                (error.kind(), error.message(), error.hop(), error.code()),
                (Kind::Hop, "down", Some(1), Some(7))
            );
        }
        assert_eq!(opened.load(Ordering::Relaxed), 1);
        assert!(get().await.is_err());
        assert_eq!(opened.load(Ordering::Relaxed), 2);
    }
}
