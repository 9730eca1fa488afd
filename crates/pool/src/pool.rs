//! The pool itself.

use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use portolan_core::clock::Instant;
use portolan_core::{Delivery, Error, Kind, Phase, Result, clock};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::liveness::{Life, Liveness};
use crate::options::PoolOptions;
use crate::reaper::Reaper;
use crate::state::{Books, Bucket, Idle, Metrics, Shared, Tag, Turn, retire_at, stale};

/// How connections of one protocol are made, looked at and shared.
pub trait Manage: Send + Sync + 'static {
    /// What makes two connections interchangeable: host, port, way, TLS configuration, identity. Settings that are applied
    /// when a connection is made (keepalive, buffer sizes) are not part of it. One whose `Hash` writes a single `u64` is taken to
    /// be hashed well already.
    type Key: Clone + Eq + Hash + Send + Sync + fmt::Debug + 'static;
    /// A connection, or a handle of one that many share.
    type Conn: Send + 'static;

    /// Makes a connection. Dropping the future gives the place to the next caller.
    fn connect(&self, key: &Self::Key) -> impl Future<Output = Result<Self::Conn>> + Send;

    /// Whether an idle connection can be used: never waits. A protocol looks for an unexpected byte or end here.
    fn is_fit(&self, conn: &mut Self::Conn) -> bool;

    /// Whether a connection that comes back can be used again, as far as its own state says: the look at the wire is for the
    /// next one who takes it.
    fn is_done(&self, conn: &mut Self::Conn) -> bool {
        self.is_fit(conn)
    }

    /// How the connection says that it drains or is dead, where it has a driver that notices.
    fn liveness(&self, conn: &Self::Conn) -> Option<Liveness> {
        let _ = conn;
        None
    }

    /// A further handle of a connection that many use at once; `None` where only one may.
    fn share(&self, conn: &Self::Conn) -> Option<Self::Conn> {
        let _ = conn;
        None
    }

    /// How many may use it at once; asked when it has been made.
    fn capacity(&self, conn: &Self::Conn) -> usize {
        let _ = conn;
        1
    }

    /// Whether connections of `key` will be shared: then only one is made at a time, and the others wait for it.
    fn is_shared(&self, key: &Self::Key) -> bool {
        let _ = key;
        false
    }
}

/// Connections by key, kept between calls: cheap to clone.
///
/// Callers who find no connection and no place wait in order. One who gives up leaves nothing behind: its turn goes to the
/// next, and a connection it was making is dropped. A connection error goes to the caller who was making the connection,
/// as it is; one whose wait is over is told the last such error.
pub struct Pool<M: Manage>(Arc<Inner<M>>);

pub(crate) struct Inner<M: Manage> {
    manager: M,
    pub(crate) options: PoolOptions,
    books: Mutex<Books<M::Key, M::Conn>>,
}

impl<M: Manage> Pool<M> {
    /// An empty pool.
    pub fn new(manager: M, options: PoolOptions) -> Self {
        Self(Arc::new(Inner { manager, options, books: Mutex::new(Books::new()) }))
    }

    /// A connection for `key`: an idle one, a share of one in use, or a new one. Dropping the future leaves nothing behind.
    pub async fn acquire(&self, key: &M::Key) -> Result<Lease<M>> {
        match self.0.look(key, None, false)? {
            Begun::Lease(lease) => Ok(lease),
            // Boxed: every caller's future has room for this, and most find a connection.
            begun => Box::pin(self.wait_or_make(key, begun)).await,
        }
    }

    async fn wait_or_make(&self, key: &M::Key, begun: Begun<M>) -> Result<Lease<M>> {
        let begun = match begun {
            Begun::Doubt => {
                // The first lets the runtime hear of the wire, the second lets those run who wait for it.
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
                self.0.look(key, None, true)?
            }
            begun => begun,
        };
        let mut turn = Some(begun);
        let waited = async {
            loop {
                match turn.take() {
                    Some(Begun::Lease(lease)) => return Ok(Begun::Lease(lease)),
                    Some(Begun::Make(place)) => return Ok(Begun::Make(place)),
                    Some(Begun::Wait(mut ticket)) => {
                        // An error means that the pool was closed: the next look says so.
                        let _ = (&mut ticket.turn).await;
                        ticket.called = true;
                        turn = Some(self.0.look(key, Some(&ticket), true)?);
                        // From here on the turn is used, or handed on by the ticket's drop if there was nothing for it.
                        ticket.called = matches!(turn, Some(Begun::Wait(_)));
                        ticket.done = true;
                    }
                    Some(Begun::Doubt) | None => return Err(Error::usage("a pool without a turn")),
                }
            }
        };
        let begun = clock::within(self.0.options.wait, Phase::Pool, waited)
            .await
            .map_err(|error| self.0.explained(key, error))?;
        match begun {
            Begun::Lease(lease) => Ok(lease),
            Begun::Make(place) => place.make(&self.0).await,
            Begun::Wait(_) | Begun::Doubt => Err(Error::usage("a pool without a turn")),
        }
    }

    /// Who makes its connections.
    pub fn manager(&self) -> &M {
        &self.0.manager
    }

    /// What the pool has done and holds.
    pub fn metrics(&self) -> Metrics {
        self.0.lock().snapshot()
    }

    /// Drops what is dead, too old or too long idle. The pool does it by itself when the time of an idle connection has come,
    /// as long as a runtime runs.
    pub fn sweep(&self) {
        let mut trash = Vec::new();
        {
            self.0.lock().sweep_all(&self.0.options, clock::now(), &mut trash);
        }
        drop(trash);
    }

    /// Closes: idle connections are dropped, waiting callers fail, connections in use end with their leases.
    pub fn close(&self) {
        let buckets = {
            let mut books = self.0.lock();
            books.closed = true;
            books.reaper = None;
            let idle: usize =
                books.buckets.values().map(|b| b.idle.len() + b.shared.iter().filter(|s| s.leases == 0).count()).sum();
            books.open -= idle;
            std::mem::take(&mut books.buckets)
        };
        for bucket in buckets.values() {
            bucket
                .idle
                .iter()
                .map(|idle| &idle.tag)
                .chain(bucket.shared.iter().map(|s| &s.tag))
                .for_each(|tag| tag.live.unwatch());
        }
    }
}

impl<M: Manage> Clone for Pool<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: Manage> fmt::Debug for Pool<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("options", &self.0.options).field("metrics", &self.metrics()).finish()
    }
}

enum Begun<M: Manage> {
    Lease(Lease<M>),
    Make(Place<M>),
    Wait(Ticket<M>),
    Doubt,
}

/// A place in the queue. Dropped before its turn it is taken off; dropped after, the turn goes to the next.
struct Ticket<M: Manage> {
    pool: Arc<Inner<M>>,
    key: M::Key,
    id: u64,
    turn: oneshot::Receiver<()>,
    since: Instant,
    called: bool,
    done: bool,
}

impl<M: Manage> Drop for Ticket<M> {
    fn drop(&mut self) {
        {
            let metrics = &mut self.pool.lock().metrics;
            metrics.wait_time += clock::now().saturating_duration_since(self.since);
            metrics.gave_up += u64::from(!self.done);
        }
        let missed = !self.done && (self.called || self.turn.try_recv().is_ok());
        if missed {
            self.pool.wake(&self.key, true);
            return;
        }
        if !self.done {
            let mut books = self.pool.lock();
            if let Some(bucket) = books.buckets.get_mut(&self.key) {
                bucket.waiters.retain(|(id, _)| *id != self.id);
            }
        }
    }
}

/// A place for a connection that is being made; given back when dropped.
struct Place<M: Manage> {
    pool: Arc<Inner<M>>,
    key: M::Key,
    kept: bool,
    /// Whether the others wait for this one.
    single: bool,
}

impl<M: Manage> Drop for Place<M> {
    fn drop(&mut self) {
        if !self.kept {
            let full = self.pool.free(&self.key, true);
            self.pool.wake(&self.key, full);
        }
    }
}

impl<M: Manage> Place<M> {
    async fn make(mut self, pool: &Arc<Inner<M>>) -> Result<Lease<M>> {
        let made = pool.manager.connect(&self.key).await;
        let conn = match made {
            Ok(conn) => conn,
            Err(error) => {
                let mut books = pool.lock();
                books.metrics.failed += 1;
                if let Some(bucket) = books.buckets.get_mut(&self.key) {
                    bucket.trouble = Some((error.kind(), error.phase(), error.to_string()));
                }
                drop(books);
                return Err(error);
            }
        };
        self.kept = true;
        // The first connection of a key says whether it is one of many users; if it is not, the others make their own.
        let told = self.single && !pool.manager.is_shared(&self.key);
        let live = pool.manager.liveness(&conn).unwrap_or_default();
        let capacity = pool.manager.capacity(&conn);
        let second = if capacity > 1 { pool.manager.share(&conn) } else { None };
        let shared = second.is_some();
        let tag = {
            let mut books = pool.lock();
            let tag = Tag { id: books.id(), live: live.clone(), retire_at: retire_at(pool.options.lifetime), uses: 1 };
            books.metrics.opened += 1;
            books.metrics.leases += 1;
            books.runtime = Handle::try_current().ok();
            let bucket = books.buckets.entry(self.key.clone()).or_default();
            bucket.making -= usize::from(bucket.making > 0);
            bucket.trouble = None;
            if let Some(second) = second {
                bucket.shared.push(Shared { conn: second, tag: tag.clone(), leases: 1, capacity, since: clock::now() });
            }
            tag
        };
        let (weak, key) = (Arc::downgrade(pool), self.key.clone());
        live.watch(Arc::new(move || evict(&weak, &key)));
        // It may have died before anyone watched.
        if live.life() != Life::Open {
            evict(&Arc::downgrade(pool), &self.key);
        }
        let lease =
            Lease { pool: pool.clone(), key: self.key.clone(), held: Some((conn, tag)), shared, discard: false };
        // One connection serves as many as it has room for, and the next one makes another; where it turned out to be
        // nobody else's, they all make their own.
        let room = if shared {
            capacity
        } else if told {
            pool.options.per_key
        } else {
            0
        };
        for _ in 0..room {
            if !pool.wake(&self.key, false) {
                break;
            }
        }
        Ok(lease)
    }
}

/// A connection has marked itself as draining or dead: the books drop it now, not at its idle timeout.
fn evict<M: Manage>(pool: &Weak<Inner<M>>, key: &M::Key) {
    let Some(pool) = pool.upgrade() else { return };
    let (mut trash, mut full) = (Vec::new(), false);
    if let Ok(mut books) = pool.books.try_lock() {
        full = books.open >= pool.options.total;
        books.sweep(key, &pool.options, clock::now(), &mut trash);
    }
    // The books are held: by this very thread if a look at an idle connection made it mark itself, else by someone who is at
    // work on them. Whoever asks for this key next sweeps it before anything is handed out.
    if !trash.is_empty() {
        pool.wake(key, full);
    }
    // Never drop a connection under its own mark: its drop may mark it again.
    drop(trash);
}

impl<M: Manage> Inner<M> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Books<M::Key, M::Conn>> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is for a caller: a new one, or one who waited and was `called`.
    fn look(self: &Arc<Self>, key: &M::Key, called: Option<&Ticket<M>>, sure: bool) -> Result<Begun<M>> {
        let mut trash = Vec::new();
        let mut books = self.lock();
        if books.closed {
            return Err(Error::closed("the pool is closed").with_phase(Phase::Pool).with_delivery(Delivery::NotSent));
        }
        let turn = books.turn(key, &self.options, &self.manager, called.is_some(), sure, &mut trash);
        let begun = match turn {
            Turn::Use(conn, tag, shared) => {
                let (pool, key) = (self.clone(), key.clone());
                Begun::Lease(Lease { pool, key, held: Some((conn, tag)), shared, discard: false })
            }
            Turn::Make => Begun::Make(Place {
                pool: self.clone(),
                key: key.clone(),
                kept: false,
                single: self.manager.is_shared(key),
            }),
            Turn::Doubt => Begun::Doubt,
            Turn::Wait => {
                let id = called.map_or_else(|| books.id(), |ticket| ticket.id);
                let bucket = books.buckets.entry(key.clone()).or_default();
                if called.is_none() && bucket.waiters.len() >= self.options.queue {
                    books.metrics.gave_up += 1;
                    drop(books);
                    let message = format!("{} callers wait for this key already", self.options.queue);
                    return Err(Error::new(Kind::Limit, message)
                        .with_phase(Phase::Pool)
                        .with_delivery(Delivery::NotSent));
                }
                let (sender, turn) = oneshot::channel();
                // Whoever was called in vain keeps its place at the front.
                if called.is_some() {
                    bucket.waiters.push_front((id, sender));
                } else {
                    bucket.waiters.push_back((id, sender));
                    books.metrics.waited += 1;
                }
                let (pool, key, since) = (self.clone(), key.clone(), clock::now());
                Begun::Wait(Ticket { pool, key, id, turn, since, called: false, done: false })
            }
        };
        drop(books);
        drop(trash);
        Ok(begun)
    }

    /// Gives a place back; whether the total was the limit until now.
    fn free(&self, key: &M::Key, making: bool) -> bool {
        let mut books = self.lock();
        let full = books.open >= self.options.total;
        books.release(key, making);
        full
    }

    /// Calls the next caller in; whether there was one.
    fn wake(&self, key: &M::Key, any: bool) -> bool {
        let waiter = self.lock().next_waiter(key, any);
        self.call(waiter, key, any)
    }

    /// The same, with the one who comes next.
    fn call(&self, mut waiter: Option<oneshot::Sender<()>>, key: &M::Key, any: bool) -> bool {
        while let Some(next) = waiter {
            if next.send(()).is_ok() {
                return true;
            }
            // It gave up just now, and is no longer there to be woken: the turn is the next one's.
            waiter = self.lock().next_waiter(key, any);
        }
        false
    }

    /// Says why there was no connection, where that is known.
    fn explained(&self, key: &M::Key, error: Error) -> Error {
        let books = self.lock();
        match books.buckets.get(key).and_then(|bucket| bucket.trouble.clone()) {
            Some((kind, phase, words)) => {
                let cause = Error::new(kind, words);
                error.with_source(phase.map_or(cause, |phase| Error::new(kind, "").with_phase(phase)))
            }
            None => error,
        }
    }
}

/// A connection in use. Dropping it gives it back, unless it is dead, draining, unfit or discarded.
pub struct Lease<M: Manage> {
    pool: Arc<Inner<M>>,
    key: M::Key,
    /// Until it is dropped.
    held: Option<(M::Conn, Tag)>,
    shared: bool,
    discard: bool,
}

impl<M: Manage> Lease<M> {
    /// Whether it had been used before.
    pub fn is_reused(&self) -> bool {
        self.held.as_ref().is_some_and(|(_, tag)| tag.uses > 1)
    }

    /// What it was acquired for.
    pub fn key(&self) -> &M::Key {
        &self.key
    }

    /// Drops the connection instead of giving it back: a conversation is unfinished, a state is unknown.
    pub fn discard(mut self) {
        self.discard = true;
    }
}

impl<M: Manage> Deref for Lease<M> {
    type Target = M::Conn;

    #[allow(clippy::expect_used, reason = "only the drop takes the connection out")]
    fn deref(&self) -> &M::Conn {
        &self.held.as_ref().expect("a lease holds its connection until it is dropped").0
    }
}

impl<M: Manage> DerefMut for Lease<M> {
    #[allow(clippy::expect_used, reason = "only the drop takes the connection out")]
    fn deref_mut(&mut self) -> &mut M::Conn {
        &mut self.held.as_mut().expect("a lease holds its connection until it is dropped").0
    }
}

impl<M: Manage> fmt::Debug for Lease<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("key", &self.key)
            .field("live", &self.held.as_ref().map(|(_, tag)| &tag.live))
            .finish_non_exhaustive()
    }
}

impl<M: Manage> Drop for Lease<M> {
    fn drop(&mut self) {
        let Some((mut conn, tag)) = self.held.take() else { return };
        let mut trash = Vec::new();
        let pool = &*self.pool;
        let fit = !self.discard && (self.shared || pool.manager.is_done(&mut conn));
        let mut guard = pool.lock();
        let books = &mut *guard;
        let full = books.open >= pool.options.total;
        let closed = books.closed;
        let now = clock::now();
        let mut gone = true;
        // What is to be dropped without the lock.
        let own = if self.shared {
            let mut untidy = false;
            if let Some(bucket) = books.buckets.get_mut(&self.key)
                && let Some(entry) = bucket.shared.iter_mut().find(|entry| entry.tag.id == tag.id)
            {
                gone = false;
                entry.leases -= 1;
                entry.since = now;
                if self.discard {
                    entry.tag.live.drain();
                }
                untidy = bucket.is_untidy(&pool.options, now);
            }
            if untidy {
                books.tidy(&self.key, &pool.options, now, &mut trash);
            }
            Some((conn, tag))
        } else {
            let stays = fit && !closed && stale(&tag, now, &pool.options, now).is_none();
            let bucket = if stays { books.buckets.get_mut(&self.key) } else { None };
            // A waiting caller takes it whatever the limit of idle ones.
            let room =
                |bucket: &&mut Bucket<_>| bucket.idle.len() < pool.options.idle_per_key || !bucket.waiters.is_empty();
            match bucket.filter(room) {
                Some(bucket) => {
                    bucket.idle.push_back(Idle { conn, tag, since: now });
                    gone = false;
                    None
                }
                None => {
                    let worn = fit && tag.live.life() == Life::Open;
                    *(if worn { &mut books.metrics.retired } else { &mut books.metrics.dead }) += 1;
                    Some((conn, tag))
                }
            }
        };
        if gone && !closed {
            if let Some((_, tag)) = &own {
                tag.live.unwatch();
            }
            books.release(&self.key, false);
        } else if !closed && !books.reaper.as_ref().is_some_and(Reaper::is_there) {
            books.reaper = Reaper::new(&self.pool, books.runtime.as_ref());
        }
        let next = if closed { None } else { books.next_waiter(&self.key, full) };
        drop(guard);
        pool.call(next, &self.key, full);
        drop((own, trash));
    }
}
