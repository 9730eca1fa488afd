//! A cache with a life time for every answer, short memory for certain refusals, and one look-up per question at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::{Answer, Family, Resolve, ResolveFailure, ask, canonical, failed};
use crate::clock::{self, Instant};
use crate::error::{Error, Phase, Result};

/// The longest that one look-up may take: a resolver that never answers must not hold its name for ever.
pub(super) const MAX_LOOKUP: Duration = Duration::from_secs(30);

/// How often a caller asks anew after the task that asked was cut short with the runtime of somebody else.
const MAX_TAKE_OVERS: usize = 3;

/// Names asked for at once. Each is a task that outlives callers who give up, so a slow name service must not gather more.
const MAX_UNDER_WAY: usize = 1024;

/// How long answers are kept, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheOptions {
    unknown_ttl: Duration,
    min_ttl: Duration,
    max_ttl: Duration,
    negative_ttl: Duration,
    entries: usize,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            unknown_ttl: Duration::from_secs(30),
            min_ttl: Duration::from_secs(1),
            max_ttl: Duration::from_secs(3600),
            negative_ttl: Duration::from_secs(5),
            entries: 4096,
        }
    }
}

impl CacheOptions {
    /// How long an answer without a time of its own is kept, as the system's resolver gives. Default 30 s.
    #[must_use]
    pub fn unknown_ttl(mut self, ttl: Duration) -> Self {
        self.unknown_ttl = ttl;
        self
    }

    /// The bounds of an answer's own time. Default 1 s to 1 h: a TTL of zero still serves one burst of connections.
    #[must_use]
    pub fn ttl_bounds(mut self, min: Duration, max: Duration) -> Self {
        (self.min_ttl, self.max_ttl) = (min, max.max(min));
        self
    }

    /// How long "no such name" is believed. Default 5 s; zero never.
    #[must_use]
    pub fn negative_ttl(mut self, ttl: Duration) -> Self {
        self.negative_ttl = ttl;
        self
    }

    /// How many answers are kept: a name whose families are asked for apart has two. Default 4096; the ones that end soonest
    /// make room.
    #[must_use]
    pub fn entries(mut self, count: usize) -> Self {
        self.entries = count.max(1);
        self
    }
}

/// What a look-up ends in, in a form that many can have. A refusal that is not certain carries its words.
type Outcome = Result<Answer, (ResolveFailure, Arc<str>)>;

/// A question: a name, and one family or both. Each question has its own answer, life time and refusal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) family: Option<Family>,
}

impl Key {
    pub(super) fn new(name: &str, family: Option<Family>) -> Self {
        Self { name: canonical(name), family }
    }
}

pub(super) struct Cache {
    options: CacheOptions,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    kept: HashMap<Key, (Outcome, Instant)>,
    under_way: HashMap<Key, (u64, watch::Receiver<Option<Outcome>>)>,
    /// Numbers the look-ups, so that one that was forgotten knows that it is no longer the one of its name.
    begun: u64,
}

enum Found {
    Kept(Outcome),
    UnderWay(watch::Receiver<Option<Outcome>>),
}

impl Cache {
    pub(super) fn new(options: CacheOptions) -> Self {
        Self { options, state: Arc::default() }
    }

    pub(super) fn options(&self) -> CacheOptions {
        self.options
    }

    /// The kept answer, or that of the one look-up for this question. The look-up is a task of its own, so that a caller who
    /// gives up does not take it away from the others; it ends with its resolver's own answer and holds no caller's data.
    pub(super) async fn lookup(&self, key: &Key, beneath: impl Fn() -> Arc<dyn Resolve>) -> Result<Answer> {
        let mut outcome = None;
        for _ in 0..=MAX_TAKE_OVERS {
            outcome = match self.find_or_begin(key, &beneath) {
                Found::Kept(outcome) => Some(outcome),
                // Nothing at all: the task ended with its runtime, which need not be this caller's.
                Found::UnderWay(mut receiver) => {
                    receiver.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone())
                }
            };
            if outcome.is_some() {
                break;
            }
        }
        let outcome = outcome.unwrap_or_else(|| Err((ResolveFailure::Unavailable, "".into())));
        outcome.map_err(|(why, words)| restored(&key.name, why, &words))
    }

    /// The kept answer, if there is one.
    pub(super) fn kept(&self, key: &Key) -> Option<Result<Answer>> {
        let outcome = lock(&self.state).fresh(key)?;
        Some(outcome.map_err(|(why, words)| restored(&key.name, why, &words)))
    }

    fn find_or_begin(&self, key: &Key, beneath: &impl Fn() -> Arc<dyn Resolve>) -> Found {
        let mut state = lock(&self.state);
        if let Some(outcome) = state.fresh(key) {
            return Found::Kept(outcome);
        }
        if let Some((_, receiver)) = state.under_way.get(key) {
            return Found::UnderWay(receiver.clone());
        }
        if state.under_way.len() >= MAX_UNDER_WAY {
            let words = format!("{}: {MAX_UNDER_WAY} other names are being looked up", key.name);
            return Found::Kept(Err((ResolveFailure::Unavailable, words.into())));
        }
        let (sender, receiver) = watch::channel(None);
        state.begun += 1;
        let number = state.begun;
        state.under_way.insert(key.clone(), (number, receiver.clone()));
        drop(state);
        let under_way = UnderWay { state: self.state.clone(), key: key.clone(), number, sender };
        tokio::spawn(run(under_way, beneath(), self.options));
        Found::UnderWay(receiver)
    }

    /// Also what is under way: its answer may be as old as the one that is forgotten, or never come.
    pub(super) fn forget(&self, name: &str) {
        let mut state = lock(&self.state);
        for family in [None, Some(Family::V4), Some(Family::V6)] {
            let key = Key { name: name.to_owned(), family };
            state.kept.remove(&key);
            state.under_way.remove(&key);
        }
    }

    pub(super) fn clear(&self) {
        let mut state = lock(&self.state);
        state.kept.clear();
        state.under_way.clear();
    }
}

impl State {
    /// The kept answer, unless its time is over.
    fn fresh(&mut self, key: &Key) -> Option<Outcome> {
        let (outcome, until) = self.kept.get(key)?;
        if *until > clock::now() {
            return Some(outcome.clone());
        }
        self.kept.remove(key);
        None
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the question off the list of look-ups under way, also when the task is cut short by the end of its runtime.
struct UnderWay {
    state: Arc<Mutex<State>>,
    key: Key,
    number: u64,
    sender: watch::Sender<Option<Outcome>>,
}

impl UnderWay {
    fn is_current(&self, state: &State) -> bool {
        state.under_way.get(&self.key).is_some_and(|(number, _)| *number == self.number)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        if self.is_current(&state) {
            state.under_way.remove(&self.key);
        }
        drop(state);
        if std::thread::panicking() {
            // A resolver with a fault of its own would have it again: its callers are told, and do not ask anew.
            self.sender.send_replace(Some(Err((ResolveFailure::Unavailable, "".into()))));
        }
    }
}

async fn run(under_way: UnderWay, beneath: Arc<dyn Resolve>, options: CacheOptions) {
    let key = &under_way.key;
    let answer = clock::within(Some(MAX_LOOKUP), Phase::Resolve, ask(&*beneath, &key.name, key.family)).await;
    let outcome = answer.map_err(|error| {
        let why = error.server::<ResolveFailure>().copied().unwrap_or(ResolveFailure::Unavailable);
        (why, Arc::from(if error.is_timeout() { "" } else { error.message() }))
    });
    let keep = match &outcome {
        Ok(answer) => answer.ttl.unwrap_or(options.unknown_ttl).clamp(options.min_ttl, options.max_ttl),
        Err((ResolveFailure::NoSuchName, _)) => options.negative_ttl,
        Err(_) => Duration::ZERO,
    };
    let now = clock::now();
    let mut state = lock(&under_way.state);
    if under_way.is_current(&state) {
        state.under_way.remove(key);
        if !keep.is_zero() {
            if state.kept.len() >= options.entries {
                make_room(&mut state, now);
            }
            state.kept.insert(key.clone(), (outcome.clone(), now + keep));
        }
    }
    drop(state);
    // Nobody may be waiting any more.
    under_way.sender.send_replace(Some(outcome));
}

/// Drops what has ended, and if that is not enough the entry that ends soonest.
fn make_room(state: &mut State, now: Instant) {
    let before = state.kept.len();
    state.kept.retain(|_, (_, until)| *until > now);
    if state.kept.len() == before {
        let soonest = state.kept.iter().min_by_key(|(_, (_, until))| *until).map(|(key, _)| key.clone());
        if let Some(key) = soonest {
            state.kept.remove(&key);
        }
    }
}

fn restored(name: &str, why: ResolveFailure, words: &str) -> Error {
    if words.is_empty() {
        return failed(name, why);
    }
    Error::new(crate::Kind::Resolve, words).with_phase(crate::Phase::Resolve).with_reply(why)
}

#[cfg(test)]
mod tests {
    use super::super::Resolver;
    use super::*;
    use crate::dial::BoxFuture;
    use std::net::IpAddr;
    use std::sync::atomic::{AtomicU8, Ordering};

    #[derive(Debug, Clone, Default)]
    struct Counting {
        asked: Arc<AtomicU8>,
        ttl: Option<Duration>,
        missing: bool,
    }

    impl Resolve for Counting {
        fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Answer>> {
            Box::pin(async move {
                clock::sleep(Duration::from_millis(50)).await;
                let n = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
                if self.missing {
                    return Err(failed(name, ResolveFailure::NoSuchName));
                }
                Ok(Answer::new(vec![IpAddr::from([192, 0, 2, n])], self.ttl))
            })
        }
    }

    fn last(answer: &Answer) -> u8 {
        match answer.addrs[0] {
            IpAddr::V4(ip) => ip.octets()[3],
            IpAddr::V6(_) => 0,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_callers_of_one_name_ask_once() {
        let beneath = Counting::default();
        let resolver = Resolver::new(beneath.clone());
        let calls = (0..20).map(|_| {
            let resolver = resolver.clone();
            tokio::spawn(async move { resolver.lookup("A.example.").await })
        });
        for call in calls.collect::<Vec<_>>() {
            assert_eq!(last(&call.await.unwrap().unwrap()), 1);
        }
        assert_eq!(beneath.asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_who_gives_up_does_not_take_the_answer_from_the_others() {
        let resolver = Resolver::new(Counting::default());
        let first = tokio::time::timeout(Duration::from_millis(10), resolver.lookup("a.example"));
        let (first, second) = tokio::join!(first, resolver.lookup("a.example"));
        assert!(first.is_err());
        assert_eq!(last(&second.unwrap()), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_hold_for_their_time_and_no_longer() {
        let resolver = Resolver::new(Counting { ttl: Some(Duration::from_secs(10)), ..Counting::default() });
        assert_eq!(last(&resolver.lookup("a.example").await.unwrap()), 1);
        clock::sleep(Duration::from_secs(9)).await;
        assert_eq!(last(&resolver.lookup("a.example").await.unwrap()), 1);
        clock::sleep(Duration::from_secs(2)).await;
        assert_eq!(last(&resolver.lookup("a.example").await.unwrap()), 2);
        resolver.forget("a.example");
        assert_eq!(last(&resolver.lookup("a.example").await.unwrap()), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_certain_refusal_is_remembered_for_a_little_while() {
        let beneath = Counting { missing: true, ..Counting::default() };
        let resolver = Resolver::new(beneath.clone());
        for _ in 0..3 {
            let error = resolver.lookup("no.example").await.unwrap_err();
            assert_eq!(error.server::<ResolveFailure>(), Some(&ResolveFailure::NoSuchName));
            assert_eq!((error.kind(), error.phase()), (crate::Kind::Resolve, Some(crate::Phase::Resolve)));
        }
        assert_eq!(beneath.asked.load(Ordering::SeqCst), 1);
        clock::sleep(Duration::from_secs(6)).await;
        resolver.lookup("no.example").await.unwrap_err();
        assert_eq!(beneath.asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_cache_is_bounded() {
        let resolver = Resolver::new(Counting::default()).cached(CacheOptions::default().entries(8));
        for n in 0..100 {
            resolver.lookup(&format!("n{n}.example")).await.unwrap();
        }
        let cache = resolver.0.cache.as_ref().unwrap();
        assert!(lock(&cache.state).kept.len() <= 8);
    }

    #[tokio::test]
    async fn overrides_localhost_and_onion_never_leave_the_house() {
        let resolver = Resolver::new(Counting { missing: true, ..Counting::default() })
            .with_override("db.example", ["192.0.2.77".parse().unwrap()]);
        assert_eq!(last(&resolver.lookup("DB.example").await.unwrap()), 77);
        assert_eq!(resolver.lookup("x.localhost").await.unwrap().addrs.len(), 2);
        assert!(resolver.lookup("abc.onion").await.is_err());
    }
}
