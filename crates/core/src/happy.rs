//! Happy Eyeballs v2 (RFC 8305): names resolved per family, many addresses, one connection, little waiting.
//!
//! [`Race`] is the machine: answers and outcomes in, what to do next out, time passed in. [`race`] drives it with futures
//! that it polls in place: no task is spawned, and losers are dropped. [`Winners`] remembers which family won where the one
//! that should lead is broken.

mod machine;
mod memory;
#[cfg(test)]
mod tests;

use std::future::{Future, pending};
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt};

use crate::clock::{self, Instant};
use crate::error::{Error, Kind, Phase, Result};
use crate::resolve::{Family, ResolveFailure};

use machine::{Race, Step};
pub(crate) use memory::Winners;

/// How addresses are raced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HappyOptions {
    attempt_delay: Duration,
    resolution_delay: Duration,
    first_family_count: usize,
    memory: Duration,
    prefer_v4: bool,
}

/// RFC 8305 8: less would flood a slow network with handshakes.
const MIN_ATTEMPT_DELAY: Duration = Duration::from_millis(10);

/// More would be no delay, but a second time limit.
const MAX_DELAY: Duration = Duration::from_secs(60);

impl Default for HappyOptions {
    fn default() -> Self {
        Self {
            attempt_delay: Duration::from_millis(250),
            resolution_delay: Duration::from_millis(50),
            first_family_count: 1,
            memory: Duration::from_secs(600),
            prefer_v4: false,
        }
    }
}

impl HappyOptions {
    /// How long one address may be alone before the next is tried as well. Default 250 ms, at least 10 ms, at most 60 s.
    #[must_use]
    pub fn attempt_delay(mut self, delay: Duration) -> Self {
        self.attempt_delay = delay.clamp(MIN_ATTEMPT_DELAY, MAX_DELAY);
        self
    }

    /// How long the addresses of the other family wait for the answer of the family that leads. Default 50 ms, at most 60 s;
    /// it matters only with a resolver that asks for the families apart. Zero takes whichever answers first; too long and
    /// every name whose AAAA query is swallowed costs that long.
    #[must_use]
    pub fn resolution_delay(mut self, delay: Duration) -> Self {
        self.resolution_delay = delay.min(MAX_DELAY);
        self
    }

    /// How many addresses of the leading family are tried before the families take turns. Default 1, at least 1.
    #[must_use]
    pub fn first_family_count(mut self, count: usize) -> Self {
        self.first_family_count = count.max(1);
        self
    }

    /// How long a host is remembered at which the family that should lead lost against the other: that one leads meanwhile.
    /// Default 10 minutes; zero remembers nothing. Too long and a network that was mended is not noticed.
    #[must_use]
    pub fn memory(mut self, time: Duration) -> Self {
        self.memory = time;
        self
    }

    /// Try IPv4 first. Default off: IPv6 begins, or where the resolver knows both families at once only, the family of its
    /// first address, as it sorted them (RFC 6724).
    #[must_use]
    pub fn prefer_v4(mut self, on: bool) -> Self {
        self.prefer_v4 = on;
        self
    }

    pub(crate) fn memory_time(&self) -> Duration {
        self.memory
    }
}

/// One answer: the family asked for, or `None` for both, and the addresses that may be connected to.
pub(crate) type Answered = (Option<Family>, Result<Vec<SocketAddr>>);

/// What bounds and directs one race.
#[derive(Debug)]
pub(crate) struct Rules<'a> {
    pub(crate) options: &'a HappyOptions,
    /// The family that won last time, against the odds.
    pub(crate) remembered: Option<Family>,
    /// The families that are asked for.
    pub(crate) families: &'a [Family],
    /// From the first attempt on, over all of them.
    pub(crate) limit: Option<Duration>,
}

/// How a race ended well.
#[derive(Debug)]
pub(crate) struct Won<T> {
    pub(crate) value: T,
    pub(crate) addr: SocketAddr,
    /// When the first attempt began.
    pub(crate) began: Instant,
    /// The family that should have won: that leads where nothing is remembered.
    pub(crate) expected: Family,
    /// The other family had its chance, or would have had it.
    pub(crate) contested: bool,
}

/// How it ended otherwise. `tried` says whether any address was.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) error: Error,
    pub(crate) tried: bool,
}

/// Connects to the first address that answers, of those that come out of `answers`. Cancel safe: dropping it drops every
/// attempt.
pub(crate) async fn race<T, F, Fut>(
    mut answers: impl Stream<Item = Answered> + Unpin,
    rules: Rules<'_>,
    connect: F,
) -> std::result::Result<Won<T>, Lost>
where
    F: Fn(SocketAddr) -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let mut race = Race::new(rules.options, rules.remembered);
    for family in [Family::V4, Family::V6] {
        if !rules.families.contains(&family) {
            race.without(family);
        }
    }
    let mut attempts = FuturesUnordered::new();
    let (mut began, mut failures, mut misses) = (None, Vec::new(), Vec::new());
    loop {
        let wait = match race.poll(clock::now()) {
            Step::Start(addr) => {
                began.get_or_insert_with(clock::now);
                let attempt = connect(addr);
                attempts.push(async move { (addr, attempt.await) });
                continue;
            }
            Step::Wait(until) => until,
            Step::Failed => return Err(Lost { error: summed_up(failures, misses), tried: began.is_some() }),
        };
        let over = began.zip(rules.limit).and_then(|(began, limit)| began.checked_add(limit));
        tokio::select! {
            biased;
            Some((addr, ended)) = attempts.next(), if race.running() => match ended {
                Ok(value) => {
                    let contested = race.contested(Family::of(addr.ip()));
                    let began = began.unwrap_or_else(clock::now);
                    return Ok(Won { value, addr, began, expected: race.expected(), contested });
                }
                Err(error) => {
                    race.failed();
                    failures.push((addr, error));
                }
            },
            answer = answers.next(), if race.awaits_answers() => match answer {
                Some((family, Ok(addrs))) => race.answered(family, addrs, clock::now()),
                Some((family, Err(error))) => {
                    misses.push(error);
                    race.answered(family, Vec::new(), clock::now());
                }
                None => race.end_of_answers(),
            },
            () = until(over) => {
                let limit = rules.limit.unwrap_or_default();
                return Err(Lost { error: Error::timeout(Phase::Connect, limit), tried: true });
            }
            () = until(wait) => {}
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => clock::sleep_until(time).await,
        None => pending().await,
    }
}

/// One error for all: the most telling failure, and in its words every address with its own. Where nothing could be tried,
/// the most telling reason for that.
fn summed_up(mut failures: Vec<(SocketAddr, Error)>, misses: Vec<Error>) -> Error {
    if failures.len() <= 1 {
        return match failures.pop() {
            Some((addr, error)) => {
                let message = format!("{addr}: {}", error.message());
                rephrased(error, message)
            }
            None => misses
                .into_iter()
                .max_by_key(telling)
                .unwrap_or_else(|| Error::new(Kind::Connect, "no address").with_phase(Phase::Connect)),
        };
    }
    let message =
        failures.iter().map(|(addr, error)| format!("{addr}: {}", error.message())).collect::<Vec<_>>().join("; ");
    // A refusal says more than silence.
    let telling = failures.iter().position(|(_, error)| !error.is_timeout()).unwrap_or(0);
    rephrased(failures.swap_remove(telling).1, message)
}

/// That an address is forbidden says more than that nobody could say, and that more than that a family has none.
fn telling(miss: &Error) -> u8 {
    match miss.kind() {
        Kind::Blocked => 2,
        _ if miss.server::<ResolveFailure>() == Some(&ResolveFailure::NoSuchName) => 0,
        _ => 1,
    }
}

fn rephrased(error: Error, message: String) -> Error {
    let rephrased = Error::new(error.kind(), message).with_phase(Phase::Connect).with_delivery(error.delivery());
    rephrased.with_source(error)
}
