//! Several resolvers, in the order in which to prefer them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::{Answer, Family, Resolve, ResolveFailure, Servers, Services, Texts};
use crate::clock::{self, Instant};
use crate::dial::BoxFuture;
use crate::error::{Error, Kind, Phase, Result};

/// How long one is waited for before the next is asked besides: well within what a whole look-up may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long one that failed is asked after the others.
const TROUBLE: Duration = Duration::from_secs(30);

/// Asks the first of several resolvers, and the next where that one fails or has not answered for two seconds; whichever answers
/// first is believed. "No such name" is an answer. One that failed or was too slow is asked last for the next 30 seconds.
///
/// It asks nobody who isn't in the list: for names that may be sent in the clear when all else fails, put
/// [`System`](super::System) at its end.
#[derive(Debug)]
pub struct Failover {
    resolvers: Vec<Arc<dyn Resolve>>,
    /// Until when each counts as failing.
    trouble: Mutex<Vec<Option<Instant>>>,
}

impl Failover {
    /// Of these, the best first. None at all is an error of every look-up.
    pub fn new(resolvers: Vec<Arc<dyn Resolve>>) -> Self {
        let trouble = Mutex::new(vec![None; resolvers.len()]);
        Self { resolvers, trouble }
    }

    /// Their places: those without trouble first.
    fn order(&self) -> Vec<usize> {
        let now = clock::now();
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let failing = |place: &usize| trouble.get(*place).is_some_and(|until| until.is_some_and(|until| until > now));
        let (last, first): (Vec<_>, Vec<_>) = (0..self.resolvers.len()).partition(failing);
        first.into_iter().chain(last).collect()
    }

    fn note(&self, place: usize, fails: bool) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = trouble.get_mut(place) {
            *until = fails.then(|| clock::now() + TROUBLE);
        }
    }

    /// As [`first`](Self::first), unless none of them is able.
    fn any<'a, T: 'a>(
        &'a self,
        ask: impl Fn(&'a dyn Resolve) -> Option<BoxFuture<'a, Result<T>>> + Send + 'a,
    ) -> Option<BoxFuture<'a, Result<T>>> {
        let able = self.resolvers.iter().any(|resolver| ask(&**resolver).is_some());
        able.then(|| Box::pin(self.first(ask)) as BoxFuture<'a, _>)
    }

    /// The first answer of those that `ask` finds able.
    async fn first<'a, T>(
        &'a self,
        ask: impl Fn(&'a dyn Resolve) -> Option<BoxFuture<'a, Result<T>>> + Send,
    ) -> Result<T> {
        let mut waiting = self.order().into_iter();
        let mut asked = FuturesUnordered::new();
        let mut unanswered = Vec::new();
        let mut words: Vec<String> = Vec::new();
        let mut last = None;
        loop {
            let next = waiting.by_ref().find_map(|place| Some((place, ask(&**self.resolvers.get(place)?)?)));
            let patience = next.as_ref().map(|_| PATIENCE);
            if let Some((place, answer)) = next {
                unanswered.push(place);
                asked.push(async move { (place, answer.await) });
            }
            // Until it is the next one's turn.
            let turn = clock::within(patience, Phase::Resolve, async { Ok(asked.next().await) }).await;
            if let Ok(Some((place, result))) = turn {
                unanswered.retain(|other| *other != place);
                match result {
                    Err(error) if !is_certain(&error) => {
                        self.note(place, true);
                        words.push(error.message().to_owned());
                        last = Some(error);
                    }
                    result => {
                        self.note(place, false);
                        unanswered.iter().for_each(|place| self.note(*place, true));
                        return result;
                    }
                }
            }
            if asked.is_empty() && waiting.len() == 0 {
                return Err(none_answered(&words, last));
            }
        }
    }
}

/// What all of them said.
fn none_answered(words: &[String], last: Option<Error>) -> Error {
    let words = if words.is_empty() { "no resolver to ask".to_owned() } else { words.join("; ") };
    let error = Error::new(Kind::Resolve, words).with_phase(Phase::Resolve).with_reply(ResolveFailure::Unavailable);
    match last {
        Some(last) => error.with_source(last),
        None => error,
    }
}

/// Whether no other resolver would say anything else.
fn is_certain(error: &Error) -> bool {
    error.kind() == Kind::Usage || error.server() == Some(&ResolveFailure::NoSuchName)
}

impl Resolve for Failover {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Answer>> {
        Box::pin(self.first(move |resolver| Some(resolver.resolve(name))))
    }

    fn resolve_family<'a>(&'a self, name: &'a str, family: Family) -> Option<BoxFuture<'a, Result<Answer>>> {
        // One that cannot is asked for both, by somebody who then asks for both families.
        let all = self.resolvers.iter().all(|resolver| resolver.resolve_family(name, family).is_some());
        all.then(|| Box::pin(self.first(move |resolver| resolver.resolve_family(name, family))) as BoxFuture<'a, _>)
    }

    fn finds_services(&self) -> bool {
        self.resolvers.iter().any(|resolver| resolver.finds_services())
    }

    fn services<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Services>> {
        Box::pin(self.first(move |resolver| resolver.finds_services().then(|| resolver.services(name))))
    }

    fn texts<'a>(&'a self, name: &'a str) -> Option<BoxFuture<'a, Result<Texts>>> {
        self.any(move |resolver| resolver.texts(name))
    }

    fn servers<'a>(&'a self, name: &'a str) -> Option<BoxFuture<'a, Result<Servers>>> {
        self.any(move |resolver| resolver.servers(name))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::{Resolver, failed};
    use super::*;

    #[derive(Debug, Clone)]
    struct Says {
        after: Duration,
        answer: Option<u8>,
        certain: bool,
        asked: Arc<AtomicUsize>,
    }

    fn says(after: u64, answer: Option<u8>) -> Says {
        Says { after: Duration::from_millis(after), answer, certain: false, asked: Arc::default() }
    }

    impl Says {
        fn count(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }
    }

    impl Resolve for Says {
        fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Answer>> {
            Box::pin(async move {
                self.asked.fetch_add(1, Ordering::SeqCst);
                clock::sleep(self.after).await;
                let why = if self.certain { ResolveFailure::NoSuchName } else { ResolveFailure::Unavailable };
                let addr = |last| Answer::new(vec![[192, 0, 2, last].into()], None);
                self.answer.map(addr).ok_or_else(|| failed(name, why))
            })
        }
    }

    fn over(list: &[&Says]) -> Resolver {
        let list = list.iter().map(|says| Arc::new((*says).clone()) as Arc<dyn Resolve>).collect();
        Resolver::new(Failover::new(list)).uncached()
    }

    async fn last(resolver: &Resolver) -> u8 {
        let answer = resolver.lookup("a.test").await.unwrap();
        match answer.addrs[0] {
            std::net::IpAddr::V4(ip) => ip.octets()[3],
            std::net::IpAddr::V6(_) => 0,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_fails_is_followed_by_the_next_and_comes_last_for_a_while() {
        let (bad, good) = (says(1, None), says(1, Some(2)));
        let resolver = over(&[&bad, &good]);
        assert_eq!((last(&resolver).await, bad.count()), (2, 1));
        assert_eq!((last(&resolver).await, bad.count(), good.count()), (2, 1, 2));
        clock::sleep(TROUBLE).await;
        assert_eq!((last(&resolver).await, bad.count()), (2, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_silent_holds_nobody_up_for_longer_than_its_turn() {
        let (silent, good) = (says(3_600_000, Some(1)), says(1, Some(2)));
        let resolver = over(&[&silent, &good]);
        let began = clock::now();
        assert_eq!(last(&resolver).await, 2);
        assert!(began.elapsed() < PATIENCE + Duration::from_millis(50));
        let began = clock::now();
        assert_eq!((last(&resolver).await, silent.count()), (2, 1));
        assert!(began.elapsed() < Duration::from_millis(50));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_slow_may_still_win() {
        let (slow, slower) = (says(2500, Some(1)), says(5000, Some(2)));
        assert_eq!((last(&over(&[&slow, &slower])).await, slower.count()), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn no_such_name_is_an_answer() {
        let (first, second) = (Says { certain: true, ..says(1, None) }, says(1, Some(2)));
        let error = over(&[&first, &second]).lookup("a.test").await.unwrap_err();
        assert_eq!((error.server(), second.count()), (Some(&ResolveFailure::NoSuchName), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_fail_each_has_its_word() {
        let error = over(&[&says(1, None), &says(2, None)]).lookup("a.test").await.unwrap_err();
        assert_eq!((error.kind(), error.server()), (Kind::Resolve, Some(&ResolveFailure::Unavailable)));
        assert_eq!(error.message().matches("a.test: no answer").count(), 2, "{error}");
        assert_eq!(over(&[]).lookup("a.test").await.unwrap_err().kind(), Kind::Resolve);
        assert_eq!(over(&[]).texts("a.test").await.unwrap_err().kind(), Kind::Unsupported);
    }
}
