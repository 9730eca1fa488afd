//! Whether a failed call may be made again.
//!
//! The classification rests on [`Delivery`]: what became of the work. The kind of the error can only forbid a repetition (a
//! broken protocol stays broken), never grant one, and no text is ever read.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use portolan_core::{Delivery, Error, Kind, Result, clock};

/// Connections that may end under one call before it was served: a peer that serves seven requests each, with fifty under way at
/// once, sends most of them on several times.
const MAX_MOVES: u32 = 50;
/// The longest wait before the next of these, so that all don't come at once.
const MOVE_WAIT: Duration = Duration::from_millis(20);

/// What the caller says of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use]
pub struct Request {
    idempotent: bool,
    spent: bool,
}

impl Request {
    /// A request whose body can be sent again, and that must not be run twice.
    pub fn new() -> Self {
        Self::default()
    }

    /// Running it twice does no harm.
    pub fn idempotent(mut self, on: bool) -> Self {
        self.idempotent = on;
        self
    }

    /// Its body is gone once sent (a stream): nothing can be sent again.
    pub fn replayable(mut self, on: bool) -> Self {
        self.spent = !on;
        self
    }
}

/// What to do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// Call again, on a fresh connection, after this long.
    Again(Duration),
    /// Give the error to the caller; the reason in a few words.
    GiveUp(&'static str),
}

/// A bucket of repetitions shared by many calls: when everything fails, repeating everything makes it worse.
#[derive(Debug, Clone)]
pub struct Budget(Arc<AtomicI64>, i64);

impl Budget {
    /// At most `repetitions` in a row; every tenth success earns one back.
    pub fn new(repetitions: u32) -> Self {
        let full = i64::from(repetitions) * 10;
        Self(Arc::new(AtomicI64::new(full)), full)
    }

    fn withdraw(&self) -> bool {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| (left >= 10).then_some(left - 10));
        taken.is_ok()
    }

    fn deposit(&self) {
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| (left < self.1).then_some(left + 1));
    }
}

/// How calls are made again: attempts, waiting, budget.
#[derive(Debug, Clone)]
#[must_use]
pub struct Retry {
    attempts: u32,
    base: Duration,
    cap: Duration,
    after_cap: Duration,
    budget: Option<Budget>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 3,
            base: Duration::from_millis(50),
            cap: Duration::from_secs(5),
            after_cap: Duration::from_secs(60),
            budget: None,
        }
    }
}

impl Retry {
    /// Three attempts in all, 50 ms to 5 s apart.
    pub fn new() -> Self {
        Self::default()
    }

    /// No repetition.
    pub fn never() -> Self {
        Self::default().attempts(1)
    }

    /// Attempts in all, the first included. Default 3.
    pub fn attempts(mut self, count: u32) -> Self {
        self.attempts = count.max(1);
        self
    }

    /// The first wait and the longest: each is drawn between zero and a bound that doubles. Default 50 ms and 5 s.
    pub fn backoff(mut self, base: Duration, cap: Duration) -> Self {
        (self.base, self.cap) = (base, cap.max(base));
        self
    }

    /// The longest wait that a peer may ask for; a call told to wait longer gives up. Default 60 s.
    pub fn retry_after_cap(mut self, cap: Duration) -> Self {
        self.after_cap = cap;
        self
    }

    /// Shares a bucket of repetitions with other calls.
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// What to do after the `attempt`th attempt (from 1) ended in `error`.
    pub fn decide(&self, error: &Error, request: Request, attempt: u32) -> Decision {
        if let Some(reason) = forbidden(error.kind()) {
            return Decision::GiveUp(reason);
        }
        match error.delivery() {
            Delivery::NotSent | Delivery::Refused => {}
            Delivery::Unknown if request.idempotent => {}
            Delivery::Unknown => return Decision::GiveUp("it may have been done, and must not be done twice"),
            _ => return Decision::GiveUp("it was answered"),
        }
        // A request that never left is still whole, whatever its body is made of.
        if request.spent && error.delivery() != Delivery::NotSent {
            return Decision::GiveUp("its body cannot be sent again");
        }
        // The connection came to its end, which is no failure of the peer's: neither counted nor paid for.
        if error.is_drained() && self.attempts > 1 && attempt <= MAX_MOVES {
            let bound = if attempt == 1 { Duration::ZERO } else { MOVE_WAIT.min(self.base) };
            return Decision::Again(jitter(bound));
        }
        if attempt >= self.attempts {
            return Decision::GiveUp("no attempts left");
        }
        let wait = self.wait(attempt);
        let wait = match error.retry_after() {
            Some(after) if after > self.after_cap => return Decision::GiveUp("the peer asks for too long a wait"),
            Some(after) => after.max(wait),
            None => wait,
        };
        match &self.budget {
            Some(budget) if !budget.withdraw() => Decision::GiveUp("the budget of repetitions is spent"),
            _ => Decision::Again(wait),
        }
    }

    /// A call went well: it earns the budget a part of a repetition. [`run`](Self::run) does this by itself.
    pub fn succeeded(&self) {
        if let Some(budget) = &self.budget {
            budget.deposit();
        }
    }

    /// Full jitter: anything up to a bound that doubles with each attempt.
    fn wait(&self, attempt: u32) -> Duration {
        jitter(self.base.saturating_mul(1 << attempt.saturating_sub(1).min(20)).min(self.cap))
    }

    /// Runs `call` until it succeeds or may not be made again. It is told the number of the attempt, from 1.
    pub async fn run<T, Fut: Future<Output = Result<T>>>(
        &self,
        request: Request,
        mut call: impl FnMut(u32) -> Fut,
    ) -> Result<T> {
        let mut attempt = 1;
        loop {
            let error = match call(attempt).await {
                Ok(value) => {
                    self.succeeded();
                    return Ok(value);
                }
                Err(error) => error,
            };
            match self.decide(&error, request, attempt) {
                Decision::GiveUp(_) => return Err(error),
                Decision::Again(wait) => clock::sleep(wait).await,
            }
            attempt += 1;
        }
    }
}

/// Anything up to `bound`.
fn jitter(bound: Duration) -> Duration {
    let mut random = [0; 4];
    // Without randomness there is still a wait.
    if bound.is_zero() || getrandom::fill(&mut random).is_err() {
        return bound;
    }
    bound.mul_f64(f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX))
}

/// Kinds that a repetition cannot cure, whatever became of the work.
fn forbidden(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Protocol => Some("a peer that breaks the rules breaks them again"),
        Kind::Usage => Some("the caller's mistake"),
        Kind::Auth => Some("the same credentials are refused again"),
        Kind::Blocked => Some("the policy forbids it"),
        Kind::Limit => Some("the same answer is too large again"),
        Kind::Unsupported => Some("it is not supported"),
        Kind::Tls => Some("the same certificate is shown again"),
        _ => None,
    }
}

/// Whether an older version of a protocol may be tried instead (HTTP/3, then 2, then 1): only where the way failed or time
/// ran out, never because of what the peer said.
pub fn may_fall_back(error: &Error) -> bool {
    let way =
        matches!(error.kind(), Kind::Connect | Kind::Closed | Kind::Timeout | Kind::Hop | Kind::Resolve | Kind::Tls);
    way && matches!(error.delivery(), Delivery::NotSent | Delivery::Refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: Kind, delivery: Delivery) -> Error {
        Error::new(kind, "connection is closed").with_delivery(delivery)
    }

    fn again(decision: Decision) -> bool {
        matches!(decision, Decision::Again(_))
    }

    #[test]
    fn what_became_of_the_work_decides_and_not_the_text() {
        let retry = Retry::new();
        let (once, twice) = (Request::new(), Request::new().idempotent(true));
        for (delivery, for_once, for_twice) in [
            (Delivery::NotSent, true, true),
            (Delivery::Refused, true, true),
            (Delivery::Unknown, false, true),
            (Delivery::Answered, false, false),
        ] {
            let error = error(Kind::Closed, delivery);
            assert_eq!(again(retry.decide(&error, once, 1)), for_once, "{delivery:?}");
            assert_eq!(again(retry.decide(&error, twice, 1)), for_twice, "{delivery:?}");
        }
    }

    #[test]
    fn a_protocol_error_is_never_repeated_whatever_became_of_the_work() {
        for kind in [Kind::Protocol, Kind::Usage, Kind::Auth, Kind::Blocked, Kind::Limit, Kind::Unsupported, Kind::Tls]
        {
            for delivery in [Delivery::NotSent, Delivery::Refused, Delivery::Unknown] {
                let decision = Retry::new().decide(&error(kind, delivery), Request::new().idempotent(true), 1);
                assert!(!again(decision), "{kind:?} {delivery:?}");
            }
        }
    }

    #[test]
    fn a_spent_body_is_sent_again_only_if_it_never_left() {
        let stream = Request::new().idempotent(true).replayable(false);
        assert!(again(Retry::new().decide(&error(Kind::Connect, Delivery::NotSent), stream, 1)));
        assert!(!again(Retry::new().decide(&error(Kind::Closed, Delivery::Refused), stream, 1)));
    }

    #[test]
    fn the_peers_wait_is_honoured_up_to_a_cap() {
        let asked = |secs| error(Kind::Server, Delivery::Refused).with_retry_after(Duration::from_secs(secs));
        assert!(
            matches!(Retry::new().decide(&asked(7), Request::new(), 1), Decision::Again(wait) if wait >= Duration::from_secs(7))
        );
        assert!(!again(Retry::new().decide(&asked(61), Request::new(), 1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_always_closes_is_asked_a_bounded_number_of_times() {
        let mut calls = 0;
        let result: Result<()> = Retry::new()
            .attempts(4)
            .run(Request::new().idempotent(true), |_| {
                calls += 1;
                async { Err(error(Kind::Closed, Delivery::Unknown)) }
            })
            .await;
        assert!(result.is_err() && calls == 4);
    }

    #[tokio::test(start_paused = true)]
    async fn connections_that_end_in_good_order_are_neither_counted_nor_paid_for() {
        let retry = Retry::new().budget(Budget::new(1));
        let drained = |served| error(Kind::Closed, Delivery::Refused).with_drained(served);
        let tries = async |served, retry: &Retry| {
            let mut calls = 0;
            let result: Result<()> = retry
                .run(Request::new(), |_| {
                    calls += 1;
                    async { Err(drained(served)) }
                })
                .await;
            assert!(result.is_err());
            calls
        };
        assert_eq!(tries(true, &retry).await, MAX_MOVES + 1);
        // One that served nobody is a failure like any other, and who wants no repetition gets none.
        assert_eq!(tries(false, &retry).await, 2);
        assert_eq!(tries(true, &Retry::never()).await, 1);
        // What may have been done is not sent again for this.
        let unknown = error(Kind::Closed, Delivery::Unknown).with_drained(true);
        assert!(!again(retry.decide(&unknown, Request::new(), 1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_spent_budget_ends_a_storm() {
        let retry = Retry::new().attempts(3).budget(Budget::new(5));
        let mut calls = 0;
        for _ in 0..100 {
            let result: Result<()> = retry
                .run(Request::new(), |_| {
                    calls += 1;
                    async { Err(error(Kind::Connect, Delivery::NotSent)) }
                })
                .await;
            assert!(result.is_err());
        }
        assert_eq!(calls, 105);
    }

    #[test]
    fn versions_fall_back_only_where_the_way_failed() {
        assert!(may_fall_back(&error(Kind::Timeout, Delivery::NotSent)));
        assert!(may_fall_back(&error(Kind::Connect, Delivery::NotSent)));
        assert!(!may_fall_back(&error(Kind::Protocol, Delivery::NotSent)));
        assert!(!may_fall_back(&error(Kind::Server, Delivery::Refused)));
        assert!(!may_fall_back(&error(Kind::Closed, Delivery::Unknown)));
    }
}
