//! Happy Eyeballs v2 (RFC 8305): many addresses, one connection, little waiting.
//!
//! [`Race`] is the machine: addresses and outcomes in, what to do next out, time passed in. [`race`] drives it with futures
//! that it polls in place: no task is spawned, and losers are dropped.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::clock::{self, Instant};
use crate::error::{Error, Kind, Phase, Result};

/// How addresses are raced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HappyOptions {
    attempt_delay: Duration,
    prefer_v4: bool,
}

/// RFC 8305 8: less would flood a slow network with handshakes.
const MIN_ATTEMPT_DELAY: Duration = Duration::from_millis(10);

impl Default for HappyOptions {
    fn default() -> Self {
        Self { attempt_delay: Duration::from_millis(250), prefer_v4: false }
    }
}

impl HappyOptions {
    /// How long one address may be alone before the next is tried as well. Default 250 ms, at least 10 ms.
    #[must_use]
    pub fn attempt_delay(mut self, delay: Duration) -> Self {
        self.attempt_delay = delay.max(MIN_ATTEMPT_DELAY);
        self
    }

    /// Try IPv4 first. Default off: the family of the first address, as the resolver sorted it (RFC 6724), begins.
    #[must_use]
    pub fn prefer_v4(mut self, on: bool) -> Self {
        self.prefer_v4 = on;
        self
    }
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Connect to this one as well.
    Start(SocketAddr),
    /// Wait until then, or until an attempt ends.
    Wait(Instant),
    /// Wait until an attempt ends.
    WaitForEnd,
    /// All have failed.
    Failed,
}

/// The machine: no I/O, no clock.
#[derive(Debug)]
struct Race {
    queue: VecDeque<SocketAddr>,
    running: usize,
    next_at: Option<Instant>,
    delay: Duration,
}

impl Race {
    fn new(addrs: Vec<SocketAddr>, options: &HappyOptions) -> Self {
        Self { queue: interleaved(addrs, options.prefer_v4), running: 0, next_at: None, delay: options.attempt_delay }
    }

    fn poll(&mut self, now: Instant) -> Step {
        let due = self.next_at.is_none_or(|at| at <= now);
        match self.queue.front() {
            Some(_) if due => {
                self.running += 1;
                self.next_at = Some(now + self.delay);
                self.queue.pop_front().map_or(Step::Failed, Step::Start)
            }
            Some(_) => Step::Wait(self.next_at.unwrap_or(now)),
            None if self.running > 0 => Step::WaitForEnd,
            None => Step::Failed,
        }
    }

    /// An attempt failed: the next address need not wait any longer (RFC 8305 5).
    fn failed(&mut self) {
        self.running = self.running.saturating_sub(1);
        self.next_at = None;
    }
}

/// The families in turn, beginning with the preferred one; within a family the order stays (RFC 8305 4).
fn interleaved(addrs: Vec<SocketAddr>, prefer_v4: bool) -> VecDeque<SocketAddr> {
    let v4_first = prefer_v4 || addrs.first().is_some_and(SocketAddr::is_ipv4);
    let (v4, v6): (VecDeque<_>, VecDeque<_>) = addrs.into_iter().partition(SocketAddr::is_ipv4);
    let (mut first, mut second) = if v4_first { (v4, v6) } else { (v6, v4) };
    let mut out = VecDeque::with_capacity(first.len() + second.len());
    while !first.is_empty() || !second.is_empty() {
        out.extend(first.pop_front());
        out.extend(second.pop_front());
    }
    out
}

/// Connects to the first of `addrs` that answers; also gives the address and how many were tried. Cancel safe: dropping it
/// drops every attempt.
pub(crate) async fn race<T, F, Fut>(
    addrs: Vec<SocketAddr>,
    options: &HappyOptions,
    limit: Option<Duration>,
    connect: F,
) -> Result<(T, SocketAddr, u32)>
where
    F: Fn(SocketAddr) -> Fut,
    Fut: Future<Output = io::Result<T>>,
{
    let mut race = Race::new(addrs, options);
    let mut attempts = FuturesUnordered::new();
    let (mut tried, mut failures) = (0, Vec::new());
    loop {
        let wait = match race.poll(clock::now()) {
            Step::Start(addr) => {
                tried += 1;
                let attempt = connect(addr);
                attempts.push(async move {
                    let work = async { attempt.await.map_err(|error| Error::io(Phase::Connect, error)) };
                    (addr, clock::within(limit, Phase::Connect, work).await)
                });
                continue;
            }
            Step::Wait(at) => Some(at),
            Step::WaitForEnd => None,
            Step::Failed => return Err(summed_up(failures)),
        };
        // Never empty while the machine says wait: an attempt was started before, or has just failed and the next starts now.
        let ended = match wait {
            None => attempts.next().await,
            Some(at) => tokio::select! {
                ended = attempts.next(), if race.running > 0 => ended,
                () = clock::sleep_until(at) => continue,
            },
        };
        match ended {
            Some((addr, Ok(value))) => return Ok((value, addr, tried)),
            Some((addr, Err(error))) => {
                race.failed();
                failures.push((addr, error));
            }
            None => return Err(summed_up(failures)),
        }
    }
}

/// One error for all: the most telling failure, and in its words every address with its own.
fn summed_up(mut failures: Vec<(SocketAddr, Error)>) -> Error {
    if failures.len() <= 1 {
        return match failures.pop() {
            Some((addr, error)) => {
                let message = format!("{addr}: {}", error.message());
                rephrased(error, message)
            }
            None => Error::new(Kind::Connect, "no address").with_phase(Phase::Connect),
        };
    }
    let message =
        failures.iter().map(|(addr, error)| format!("{addr}: {}", error.message())).collect::<Vec<_>>().join("; ");
    // A refusal says more than silence.
    let telling = failures.iter().position(|(_, error)| !error.is_timeout()).unwrap_or(0);
    rephrased(failures.swap_remove(telling).1, message)
}

fn rephrased(error: Error, message: String) -> Error {
    let rephrased = Error::new(error.kind(), message).with_phase(Phase::Connect).with_delivery(error.delivery());
    rephrased.with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    async fn behave(addr: SocketAddr) -> io::Result<u16> {
        match addr.port() {
            1 => std::future::pending().await,
            2 => Err(io::ErrorKind::ConnectionRefused.into()),
            port => {
                clock::sleep(Duration::from_millis(20)).await;
                Ok(port)
            }
        }
    }

    async fn run(list: &[&str]) -> (Result<(u16, SocketAddr, u32)>, Duration) {
        let started = clock::now();
        let result = race(addrs(list), &HappyOptions::default(), Some(Duration::from_secs(3)), behave).await;
        (result, clock::now() - started)
    }

    #[tokio::test(start_paused = true)]
    async fn a_black_hole_costs_a_quarter_of_a_second() {
        let (result, took) = run(&["[2001:db8::1]:1", "192.0.2.1:80"]).await;
        assert_eq!(result.unwrap().2, 2);
        assert!(took < Duration::from_millis(400), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_moves_on_at_once() {
        let (result, took) = run(&["[2001:db8::1]:2", "192.0.2.1:2", "192.0.2.2:80"]).await;
        assert_eq!(result.unwrap().1, "192.0.2.2:80".parse().unwrap());
        assert!(took < Duration::from_millis(50), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_to_answer_wins_though_it_was_not_the_last_to_start() {
        let (result, _) = run(&["192.0.2.1:80", "[2001:db8::1]:1"]).await;
        assert_eq!(result.unwrap().2, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_fail_each_is_named_and_a_refusal_outweighs_silence() {
        let (result, took) = run(&["192.0.2.1:1", "192.0.2.2:2"]).await;
        let error = result.unwrap_err();
        assert!(
            error.is_refused() && error.message().contains("192.0.2.1:1") && error.message().contains("192.0.2.2:2"),
            "{error}"
        );
        assert!(took >= Duration::from_secs(3));
        let (silent, _) = run(&["192.0.2.1:1"]).await;
        assert!(silent.unwrap_err().is_timeout());
        let (none, _) = run(&[]).await;
        assert_eq!(none.unwrap_err().kind(), Kind::Connect);
    }

    #[test]
    fn families_take_turns_and_keep_their_order() {
        let list = addrs(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"]);
        let order: Vec<_> = interleaved(list.clone(), false).into();
        assert_eq!(order, addrs(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"]));
        assert!(interleaved(list, true)[0].is_ipv4());
    }
}
