//! Connections to a proxy that many tunnels share.

use std::fmt;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::dial::{BoxFuture, DialContext};
use crate::endpoint::Endpoint;
use crate::error::{Delivery, Error, Kind, Result};
use crate::hop::{Way, cannot_reach};
use crate::info::HopInfo;

/// How many connections to one proxy there are at most where nothing else is said: a further one is opened only when the others'
/// streams are all taken.
const MAX_CONNECTIONS: usize = 8;

/// A connection that carries many streams; clones share it.
pub trait Shareable: Clone + Send + Sync + 'static {
    /// Whether it takes a stream now, without waiting.
    fn is_ready(&self) -> bool;

    /// Whether it takes no more streams, now and later.
    fn is_over(&self) -> bool;

    /// What was passed on the way to the proxy: [`DialContext::hops`] as it was then.
    fn hops(&self) -> &[HopInfo];
}

/// Keeps the connections to one proxy: one as a rule, more when the proxy's limit of streams is reached.
pub struct Kept<C> {
    most: usize,
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
        Self::up_to(MAX_CONNECTIONS)
    }
}

impl<C> Kept<C> {
    /// At most so many connections; the default is 8.
    pub fn up_to(most: usize) -> Self {
        Self { most, connections: Mutex::default(), opening: tokio::sync::Mutex::default(), failures: Mutex::default() }
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

    /// A tunnel to `to`: `open` makes a connection to the proxy, `ask` asks on one for a target. Gives what `ask` made, the
    /// target it was made for, and the connection.
    ///
    /// The targets are tried in turn while the proxy says that it cannot reach them. A connection that was there already may
    /// have died unseen: then another one is asked, once. To be asked twice for a tunnel harms nothing.
    pub async fn tunnel<'a, T>(
        &self,
        way: &Way,
        to: &Endpoint,
        cx: &DialContext,
        open: impl Fn() -> BoxFuture<'a, Result<C>> + Sync,
        ask: impl Fn(C, Endpoint) -> BoxFuture<'a, Result<T>> + Sync,
    ) -> Result<(T, Endpoint, C)> {
        // The proxy always resolves: there is no other form than a name or an address in text.
        let targets = cx.targets(to, way.place(), true).await?;
        let mut last = None;
        for target in targets {
            match self.attempt(way, &target, cx, &open, &ask).await {
                Err(error) if cannot_reach(&error) => last = Some(error),
                result => return result.map(|(made, connection)| (made, target, connection)),
            }
        }
        Err(way.none_left(last))
    }

    async fn attempt<'a, T>(
        &self,
        way: &Way,
        target: &Endpoint,
        cx: &DialContext,
        open: &(impl Fn() -> BoxFuture<'a, Result<C>> + Sync),
        ask: &(impl Fn(C, Endpoint) -> BoxFuture<'a, Result<T>> + Sync),
    ) -> Result<(T, C)> {
        let mut again = true;
        loop {
            let (connection, reused) = self.get(open()).await?;
            if reused {
                cx.reuse(connection.hops());
            }
            let may_retry = reused && again;
            let asked = ask(connection.clone(), target.clone());
            let work = async {
                match asked.await {
                    Err(error) if may_retry && is_stale(&error) => Ok(None),
                    result => result.map(Some),
                }
            };
            if let Some(made) = way.pass(cx, work).await? {
                if reused {
                    cx.hop_reused();
                }
                return Ok((made, connection));
            }
            again = false;
        }
    }

    fn ready(&self) -> Option<C> {
        let mut connections = lock(&self.connections);
        connections.retain(|connection| !connection.is_over());
        let ready = connections.iter().find(|connection| connection.is_ready());
        // All are full: who comes now waits for a stream of the last one.
        ready.or_else(|| connections.last().filter(|_| connections.len() >= self.most)).cloned()
    }
}

/// Whether a connection that was there already has ended under the request: the proxy has not seen it, or it is lost.
fn is_stale(error: &Error) -> bool {
    error.kind() == Kind::Closed || error.delivery() == Delivery::Refused
}

/// The same failure, told to another caller.
fn again(error: &Error) -> Error {
    let mut copy = Error::new(error.kind(), error.message()).with_delivery(Delivery::NotSent).with_reply_of(error);
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

        fn hops(&self) -> &[HopInfo] {
            &[]
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
