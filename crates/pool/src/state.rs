//! The books of a pool: which connections there are, who holds them, who waits.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use portolan_core::clock::{self, Instant};
use portolan_core::{Kind, Phase};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::liveness::{Life, Liveness};
use crate::once::Once;
use crate::options::PoolOptions;
use crate::pool::Manage;
use crate::reaper::Reaper;

/// Keys of which nothing is left that are kept before they are looked through.
const MAX_EMPTY: usize = 1024;
/// After so long a runtime may have been kept from hearing of the wire: one of one thread runs only while it is waited for.
const QUIET: Duration = Duration::from_millis(10);

/// What a pool has done and holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Metrics {
    /// Connections that wait for use.
    pub idle: usize,
    /// Connections in use, and those being made.
    pub busy: usize,
    /// Callers that wait.
    pub waiting: usize,
    /// Connections made.
    pub opened: u64,
    /// Connections that could not be made.
    pub failed: u64,
    /// Connections dropped because they had died or were draining.
    pub dead: u64,
    /// Connections dropped by age, idleness, number of uses, or for want of room.
    pub retired: u64,
    /// Times that a connection was handed out.
    pub leases: u64,
    /// Of these, times that it had been used before.
    pub reused: u64,
    /// Callers who had to wait.
    pub waited: u64,
    /// Callers who got nothing: the queue was full, the wait too long, or they were dropped.
    pub gave_up: u64,
    /// The time that callers have waited, all together.
    pub wait_time: Duration,
}

/// One connection as the books see it.
#[derive(Debug, Clone)]
pub(crate) struct Tag {
    pub(crate) id: u64,
    pub(crate) live: Liveness,
    pub(crate) retire_at: Option<Instant>,
    pub(crate) uses: u64,
}

#[derive(Debug)]
pub(crate) struct Idle<C> {
    pub(crate) conn: C,
    pub(crate) tag: Tag,
    pub(crate) since: Instant,
}

/// A connection that many use at once.
#[derive(Debug)]
pub(crate) struct Shared<C> {
    pub(crate) conn: C,
    pub(crate) tag: Tag,
    pub(crate) leases: usize,
    pub(crate) capacity: usize,
    pub(crate) since: Instant,
}

#[derive(Debug)]
pub(crate) struct Bucket<C> {
    pub(crate) idle: VecDeque<Idle<C>>,
    pub(crate) shared: Vec<Shared<C>>,
    /// All connections of the key, those being made and those in use included.
    pub(crate) open: usize,
    pub(crate) making: usize,
    pub(crate) waiters: VecDeque<(u64, oneshot::Sender<()>)>,
    /// Why the last connection could not be made: told to those whose wait is over.
    pub(crate) trouble: Option<(Kind, Option<Phase>, String)>,
}

impl<C> Bucket<C> {
    /// Whether something is to go: the idle are looked at from the longest idle on, and the rest when it is their turn to be used.
    pub(crate) fn is_untidy(&self, options: &PoolOptions, now: Instant) -> bool {
        self.idle.front().is_some_and(|idle| stale(&idle.tag, idle.since, options, now).is_some())
            || self.shared.iter().any(|shared| shared.stale(options, now).is_some())
    }
}

impl<C> Shared<C> {
    fn stale(&self, options: &PoolOptions, now: Instant) -> Option<bool> {
        stale(&self.tag, if self.leases == 0 { self.since } else { now }, options, now)
    }
}

impl<C> Default for Bucket<C> {
    fn default() -> Self {
        Self { idle: VecDeque::new(), shared: Vec::new(), open: 0, making: 0, waiters: VecDeque::new(), trouble: None }
    }
}

impl<C> Bucket<C> {
    /// Since when the connection that has been idle longest has been so.
    fn quiet_since(&self) -> Option<Instant> {
        let shared = self.shared.iter().filter(|shared| shared.leases == 0).map(|shared| shared.since);
        self.idle.front().map(|idle| idle.since).into_iter().chain(shared).min()
    }

    /// Takes that one out.
    fn take_quiet(&mut self) -> Option<(Tag, C)> {
        let since = self.quiet_since()?;
        if self.idle.front().is_some_and(|idle| idle.since == since) {
            return self.idle.pop_front().map(|idle| (idle.tag, idle.conn));
        }
        let at = self.shared.iter().position(|shared| shared.leases == 0 && shared.since == since)?;
        let shared = self.shared.remove(at);
        Some((shared.tag, shared.conn))
    }
}

#[derive(Debug)]
pub(crate) struct Books<K, C> {
    pub(crate) buckets: HashMap<K, Bucket<C>, Once>,
    pub(crate) open: usize,
    pub(crate) next_id: u64,
    pub(crate) metrics: Metrics,
    pub(crate) closed: bool,
    pub(crate) reaper: Option<Reaper>,
    /// Where connections were made last.
    pub(crate) runtime: Option<Handle>,
    /// How many keys there may be before those of which nothing is left are forgotten.
    max_keys: usize,
}

/// What a caller may do next.
pub(crate) enum Turn<C> {
    /// Use this one; whether others use it too.
    Use(C, Tag, bool),
    /// Make one: a place is taken for it.
    Make,
    /// Wait.
    Wait,
    /// Look again once the runtime has had a turn: there is one, but what became of it may not be known yet.
    Doubt,
}

impl<K: Eq + Hash + Clone, C> Books<K, C> {
    pub(crate) fn new() -> Self {
        Self {
            buckets: HashMap::default(),
            open: 0,
            next_id: 0,
            metrics: Metrics::default(),
            closed: false,
            reaper: None,
            runtime: None,
            max_keys: MAX_EMPTY,
        }
    }

    pub(crate) fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// The best there is for `key`. Dead and worn-out connections are dropped on the way, into `trash`, so that nothing of
    /// theirs runs under the lock.
    pub(crate) fn turn(
        &mut self,
        key: &K,
        options: &PoolOptions,
        manager: &impl Manage<Key = K, Conn = C>,
        called: bool,
        sure: bool,
        trash: &mut Vec<C>,
    ) -> Turn<C> {
        let now = clock::now();
        match self.buckets.get(key) {
            // Whoever waits already comes first.
            Some(bucket) if !called && !bucket.waiters.is_empty() => return Turn::Wait,
            Some(bucket) if bucket.is_untidy(options, now) => self.tidy(key, options, now, trash),
            _ => {}
        }
        if let Some(bucket) = self.buckets.get_mut(key) {
            let quiet = |since: Instant| !sure && now.saturating_duration_since(since) >= QUIET;
            if bucket.idle.back().is_some_and(|idle| quiet(idle.since))
                || bucket.shared.iter().any(|shared| shared.leases == 0 && quiet(shared.since))
            {
                return Turn::Doubt;
            }
            for shared in &mut bucket.shared {
                if shared.leases < shared.capacity
                    && let Some(conn) = manager.share(&shared.conn)
                {
                    shared.leases += 1;
                    shared.tag.uses += 1;
                    self.metrics.leases += 1;
                    self.metrics.reused += u64::from(shared.tag.uses > 1);
                    return Turn::Use(conn, shared.tag.clone(), true);
                }
            }
            // The one used last is the likeliest to be alive.
            while let Some(mut idle) = bucket.idle.pop_back() {
                if stale(&idle.tag, idle.since, options, now).is_none() && manager.is_fit(&mut idle.conn) {
                    idle.tag.uses += 1;
                    self.metrics.leases += 1;
                    self.metrics.reused += 1;
                    return Turn::Use(idle.conn, idle.tag, false);
                }
                idle.tag.live.unwatch();
                trash.push(idle.conn);
                bucket.open -= 1;
                self.open -= 1;
                self.metrics.dead += 1;
            }
            if bucket.open >= options.per_key || (bucket.making > 0 && manager.is_shared(key)) {
                return Turn::Wait;
            }
        }
        if self.open >= options.total && !self.make_room(key, trash) {
            return Turn::Wait;
        }
        self.open += 1;
        let bucket = self.buckets.entry(key.clone()).or_default();
        bucket.open += 1;
        bucket.making += 1;
        if self.buckets.len() > self.max_keys {
            self.forget();
            self.max_keys = MAX_EMPTY.max(self.buckets.len() * 2);
        }
        Turn::Make
    }

    /// Drops the idle connections of `key` that are dead, too old or too long idle.
    pub(crate) fn sweep(&mut self, key: &K, options: &PoolOptions, now: Instant, trash: &mut Vec<C>) {
        let Some(bucket) = self.buckets.get_mut(key) else { return };
        let mut gone = Gone::default();
        let mut at = 0;
        while let Some(idle) = bucket.idle.get(at) {
            match stale(&idle.tag, idle.since, options, now) {
                Some(was_dead) => gone.add(was_dead, bucket.idle.remove(at).map(|idle| (idle.tag, idle.conn)), trash),
                None => at += 1,
            }
        }
        self.settle(key, gone, options, now, trash);
    }

    /// The same as far as each call needs it, see [`Bucket::is_untidy`].
    pub(crate) fn tidy(&mut self, key: &K, options: &PoolOptions, now: Instant, trash: &mut Vec<C>) {
        let Some(bucket) = self.buckets.get_mut(key) else { return };
        let mut gone = Gone::default();
        while let Some(was_dead) = bucket.idle.front().and_then(|idle| stale(&idle.tag, idle.since, options, now)) {
            gone.add(was_dead, bucket.idle.pop_front().map(|idle| (idle.tag, idle.conn)), trash);
        }
        self.settle(key, gone, options, now, trash);
    }

    /// Drops the shared connections that are to go, and books what went.
    fn settle(&mut self, key: &K, mut gone: Gone, options: &PoolOptions, now: Instant, trash: &mut Vec<C>) {
        let Some(bucket) = self.buckets.get_mut(key) else { return };
        let mut at = 0;
        while let Some(entry) = bucket.shared.get_mut(at) {
            match entry.stale(options, now) {
                Some(was_dead) if entry.leases == 0 => {
                    let entry = bucket.shared.remove(at);
                    gone.add(was_dead, Some((entry.tag, entry.conn)), trash);
                }
                // In use: nothing new begins on it, and it goes when it is quiet.
                Some(_) => {
                    entry.capacity = 0;
                    at += 1;
                }
                None => at += 1,
            }
        }
        bucket.open -= gone.dead + gone.retired;
        self.open -= gone.dead + gone.retired;
        self.metrics.dead += gone.dead as u64;
        self.metrics.retired += gone.retired as u64;
        if bucket.open == 0 && bucket.waiters.is_empty() && bucket.trouble.is_none() {
            self.buckets.remove(key);
        }
    }

    /// Forgets the keys of which nothing is left.
    pub(crate) fn forget(&mut self) {
        self.buckets.retain(|_, bucket| bucket.open > 0 || !bucket.waiters.is_empty());
    }

    /// Drops the idle connection of another key that has been idle longest, whether it was one user's or many's.
    fn make_room(&mut self, key: &K, trash: &mut Vec<C>) -> bool {
        let others = self.buckets.iter().filter(|(other, _)| *other != key);
        let oldest = others.filter_map(|(other, bucket)| Some((bucket.quiet_since()?, other))).min_by_key(|it| it.0);
        let Some(other) = oldest.map(|(_, other)| other.clone()) else { return false };
        let Some(bucket) = self.buckets.get_mut(&other) else { return false };
        let Some((tag, conn)) = bucket.take_quiet() else { return false };
        tag.live.unwatch();
        trash.push(conn);
        bucket.open -= 1;
        self.open -= 1;
        self.metrics.retired += 1;
        true
    }

    /// Gives a place back that was taken for a connection which is not, or no longer, there.
    pub(crate) fn release(&mut self, key: &K, making: bool) {
        self.open -= 1;
        if let Some(bucket) = self.buckets.get_mut(key) {
            bucket.open -= 1;
            bucket.making -= usize::from(making);
        }
    }

    /// The longest waiting caller, of any key where the total was the limit.
    pub(crate) fn next_waiter(&mut self, key: &K, total_was_full: bool) -> Option<oneshot::Sender<()>> {
        if let Some((_, waiter)) = self.buckets.get_mut(key).and_then(|bucket| bucket.waiters.pop_front()) {
            return Some(waiter);
        }
        if !total_was_full {
            return None;
        }
        let first = self
            .buckets
            .iter()
            .filter_map(|(key, bucket)| Some((bucket.waiters.front()?.0, key.clone())))
            .min_by_key(|(id, _)| *id);
        let (_, key) = first?;
        self.buckets.get_mut(&key)?.waiters.pop_front().map(|(_, waiter)| waiter)
    }

    pub(crate) fn snapshot(&self) -> Metrics {
        let idle =
            self.buckets.values().map(|b| b.idle.len() + b.shared.iter().filter(|s| s.leases == 0).count()).sum();
        let waiting = self.buckets.values().map(|bucket| bucket.waiters.len()).sum();
        Metrics { idle, busy: self.open - idle, waiting, ..self.metrics }
    }
}

/// What a look at the idle connections took away.
#[derive(Debug, Default)]
struct Gone {
    dead: usize,
    retired: usize,
}

impl Gone {
    fn add<C>(&mut self, was_dead: bool, conn: Option<(Tag, C)>, trash: &mut Vec<C>) {
        let Some((tag, conn)) = conn else { return };
        *(if was_dead { &mut self.dead } else { &mut self.retired }) += 1;
        tag.live.unwatch();
        trash.push(conn);
    }
}

/// Whether an idle connection is to go, and if so whether it is dead.
pub(crate) fn stale(tag: &Tag, since: Instant, options: &PoolOptions, now: Instant) -> Option<bool> {
    if tag.live.life() != Life::Open {
        return Some(true);
    }
    let old = tag.retire_at.is_some_and(|at| at <= now) || options.uses.is_some_and(|uses| tag.uses >= uses);
    let end = options.idle_timeout.and_then(|limit| since.checked_add(limit));
    let idle = end.is_some_and(|end| end <= now);
    (old || idle).then_some(false)
}

/// When a connection made now is to go: up to a tenth earlier by chance.
pub(crate) fn retire_at(lifetime: Option<Duration>) -> Option<Instant> {
    let lifetime = lifetime?;
    let mut random = [0];
    let early = if getrandom::fill(&mut random).is_ok() { f64::from(random[0]) / 2560.0 } else { 0.0 };
    Some(clock::now() + lifetime.mul_f64(1.0 - early))
}

#[cfg(test)]
mod tests {
    use portolan_core::{Error, Kind, Result};

    use super::*;

    /// Never connects.
    struct Nobody;

    impl Manage for Nobody {
        type Key = u32;
        type Conn = ();

        async fn connect(&self, _: &u32) -> Result<()> {
            Err(Error::new(Kind::Connect, "nobody"))
        }

        fn is_fit(&self, (): &mut ()) -> bool {
            true
        }
    }

    #[test]
    fn keys_of_which_nothing_is_left_are_forgotten() {
        let mut books = Books::<u32, ()>::new();
        let (options, mut trash) = (PoolOptions::default().per_key(1), Vec::new());
        let mut ask = |books: &mut Books<u32, ()>, key| books.turn(&key, &options, &Nobody, false, true, &mut trash);
        // One key has a connection in the making, and one who waits for it.
        assert!(matches!(ask(&mut books, 0), Turn::Make));
        assert!(matches!(ask(&mut books, 0), Turn::Wait));
        let (sender, _waits) = oneshot::channel();
        books.buckets.get_mut(&0).expect("it is there").waiters.push_back((1, sender));
        for key in 1..20_000 {
            assert!(matches!(ask(&mut books, key), Turn::Make));
            books.release(&key, true);
            // Why there was no connection is kept for those who wait, and goes with the rest.
            let trouble = (Kind::Connect, None, String::from("nobody"));
            books.buckets.get_mut(&key).expect("it was just asked for").trouble = Some(trouble);
            assert!(books.buckets.len() <= MAX_EMPTY + 1, "{}", books.buckets.len());
        }
        assert_eq!((books.open, books.buckets.get(&0).map(|bucket| bucket.waiters.len())), (1, Some(1)));
    }
}
