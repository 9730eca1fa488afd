//! Service configs: what holds for which method, as the gRPC project defines it (gRFC A2, A6).

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::status::Code;

/// The most attempts, whatever a config says (gRFC A6).
pub(crate) const MAX_ATTEMPTS: u32 = 5;

/// When a failed call is made again, by what the server said.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct RetryPolicy {
    pub(crate) max_attempts: u32,
    pub(crate) initial_backoff: Duration,
    pub(crate) max_backoff: Duration,
    pub(crate) multiplier: f64,
    pub(crate) codes: Vec<Code>,
}

impl RetryPolicy {
    /// At most `attempts` in all (2 to 5) upon these codes, 100 ms to 10 s apart, doubling.
    pub fn new(attempts: u32, codes: impl IntoIterator<Item = Code>) -> Self {
        Self {
            max_attempts: attempts.clamp(1, MAX_ATTEMPTS),
            initial_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(10),
            multiplier: 2.0,
            codes: codes.into_iter().collect(),
        }
    }

    /// The first wait, the longest, and by how much each is longer than the one before. Each is drawn within a fifth of its length.
    pub fn backoff(mut self, initial: Duration, max: Duration, multiplier: f64) -> Self {
        (self.initial_backoff, self.max_backoff, self.multiplier) = (initial, max, multiplier.max(1.0));
        self
    }

    /// How long to wait after the `attempt`th attempt, counted from 1.
    pub(crate) fn wait(&self, attempt: u32) -> Duration {
        let factor = self.multiplier.powi(i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX));
        let wait = self.initial_backoff.as_secs_f64() * factor;
        Duration::from_secs_f64(wait.min(self.max_backoff.as_secs_f64()) * jitter())
    }
}

/// Sends a call again before it has failed, and takes the first answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct HedgingPolicy {
    pub(crate) max_attempts: u32,
    pub(crate) delay: Duration,
    pub(crate) non_fatal: Vec<Code>,
}

impl HedgingPolicy {
    /// At most `attempts` at once (2 to 5), one each `delay`; upon a code of `non_fatal` the next one at once. Any other failure
    /// ends the call. For methods that may be run more than once alone.
    pub fn new(attempts: u32, delay: Duration, non_fatal: impl IntoIterator<Item = Code>) -> Self {
        Self { max_attempts: attempts.clamp(1, MAX_ATTEMPTS), delay, non_fatal: non_fatal.into_iter().collect() }
    }
}

/// What holds for a method. Unset is the client's own.
#[derive(Debug, Clone, Default, PartialEq)]
#[must_use]
pub struct MethodConfig {
    pub(crate) timeout: Option<Duration>,
    pub(crate) wait_for_ready: Option<bool>,
    pub(crate) max_request: Option<usize>,
    pub(crate) max_response: Option<usize>,
    pub(crate) retry: Option<RetryPolicy>,
    pub(crate) hedging: Option<HedgingPolicy>,
}

impl MethodConfig {
    /// Nothing set.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long a call may take; a shorter one said by the call holds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Whether calls wait for a connection.
    pub fn wait_for_ready(mut self, on: bool) -> Self {
        self.wait_for_ready = Some(on);
        self
    }

    /// The longest request message, if that is less than the client's.
    pub fn max_request_bytes(mut self, bytes: usize) -> Self {
        self.max_request = Some(bytes);
        self
    }

    /// The longest response message, if that is less than the client's.
    pub fn max_response_bytes(mut self, bytes: usize) -> Self {
        self.max_response = Some(bytes);
        self
    }

    /// Makes failed calls again. It takes the place of hedging.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        (self.retry, self.hedging) = (Some(policy), None);
        self
    }

    /// Hedges calls. It takes the place of retries.
    pub fn hedging(mut self, policy: HedgingPolicy) -> Self {
        (self.retry, self.hedging) = (None, Some(policy));
        self
    }
}

/// Stops repetitions while most calls fail: each failure takes a token, each success gives a part of one back, and at half of the
/// tokens or below no call is made again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Throttling {
    pub(crate) max_tokens: f64,
    pub(crate) ratio: f64,
}

impl Throttling {
    /// So many tokens (1 to 1000), and so much back for a success.
    pub fn new(max_tokens: u32, ratio: f64) -> Self {
        Self { max_tokens: f64::from(max_tokens.clamp(1, 1000)), ratio: ratio.max(0.001) }
    }
}

/// What holds for which method of a service.
///
/// ```
/// use portolan_grpc::{Code, MethodConfig, RetryPolicy, ServiceConfig};
///
/// let retry = MethodConfig::new().retry(RetryPolicy::new(3, [Code::Unavailable]));
/// let config = ServiceConfig::new().method("shop.Stock", "Count", retry);
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
#[must_use]
pub struct ServiceConfig {
    /// By `service/method`, by `service/`, and by `/` for all.
    pub(crate) methods: HashMap<Box<str>, MethodConfig>,
    pub(crate) throttling: Option<Throttling>,
    pub(crate) balancing: Option<Box<str>>,
    pub(crate) health_service: Option<Box<str>>,
}

impl ServiceConfig {
    /// Nothing set.
    pub fn new() -> Self {
        Self::default()
    }

    /// For one method of a service.
    pub fn method(self, service: &str, method: &str, config: MethodConfig) -> Self {
        self.named(format!("{service}/{method}"), config)
    }

    /// For all methods of a service that have nothing of their own.
    pub fn service(self, service: &str, config: MethodConfig) -> Self {
        self.named(format!("{service}/"), config)
    }

    /// For all that is not named otherwise.
    pub fn default_config(self, config: MethodConfig) -> Self {
        self.named("/".to_owned(), config)
    }

    /// When to stop making calls again.
    pub fn throttling(mut self, throttling: Throttling) -> Self {
        self.throttling = Some(throttling);
        self
    }

    pub(crate) fn named(mut self, name: String, config: MethodConfig) -> Self {
        self.methods.insert(name.into(), config);
        self
    }

    /// What holds for the method at `/service/method`.
    pub fn for_path(&self, path: &str) -> Option<&MethodConfig> {
        let name = path.strip_prefix('/')?;
        let service = name.rfind('/').and_then(|at| name.get(..=at))?;
        let named = self.methods.get(name).or_else(|| self.methods.get(service));
        named.or_else(|| self.methods.get("/"))
    }

    /// The balancing policy that it names, such as `round_robin`.
    pub fn load_balancing(&self) -> Option<&str> {
        self.balancing.as_deref()
    }

    /// The service whose health it asks clients to watch.
    pub fn health_service(&self) -> Option<&str> {
        self.health_service.as_deref()
    }
}

/// A config in use, and the state of its throttling.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) service: ServiceConfig,
    /// In thousandths.
    tokens: AtomicI64,
}

impl Config {
    pub(crate) fn new(service: ServiceConfig) -> Self {
        let tokens = service.throttling.map_or(0, |throttling| thousandths(throttling.max_tokens));
        Self { service, tokens: AtomicI64::new(tokens) }
    }

    /// An attempt failed in a way that might be retried. Whether another may be made.
    pub(crate) fn failed(&self) -> bool {
        let Some(throttling) = self.service.throttling else { return true };
        let before = self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some((left - 1000).max(0)));
        let left = before.map_or(0, |before| (before - 1000).max(0));
        left > thousandths(throttling.max_tokens) / 2
    }

    /// Whether another attempt may be made, without a failure.
    pub(crate) fn allows(&self) -> bool {
        let half = self.service.throttling.map(|throttling| thousandths(throttling.max_tokens) / 2);
        half.is_none_or(|half| self.tokens.load(Ordering::Relaxed) > half)
    }

    pub(crate) fn succeeded(&self) {
        let Some(throttling) = self.service.throttling else { return };
        let (full, back) = (thousandths(throttling.max_tokens), thousandths(throttling.ratio));
        let _ = self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some((left + back).min(full)));
    }
}

fn thousandths(value: f64) -> i64 {
    #[allow(clippy::cast_possible_truncation, reason = "at most a million")]
    let whole = (value * 1000.0) as i64;
    whole
}

/// Between 0.8 and 1.2, as gRFC A6 draws it.
pub(crate) fn jitter() -> f64 {
    let mut random = [0; 4];
    // Without randomness there is still a wait.
    if getrandom::fill(&mut random).is_err() {
        return 1.0;
    }
    0.8 + 0.4 * f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_name_holds() {
        let config = |secs| MethodConfig::new().timeout(Duration::from_secs(secs));
        let service =
            ServiceConfig::new().method("a.B", "C", config(1)).service("a.B", config(2)).default_config(config(3));
        let timeout = |path| service.for_path(path).and_then(|config| config.timeout).map(|timeout| timeout.as_secs());
        assert_eq!(timeout("/a.B/C"), Some(1));
        assert_eq!(timeout("/a.B/D"), Some(2));
        assert_eq!(timeout("/x.Y/Z"), Some(3));
        assert_eq!(ServiceConfig::new().for_path("/a.B/C"), None);
    }

    #[test]
    fn throttling_stops_at_half_of_the_tokens_and_recovers() {
        let config = Config::new(ServiceConfig::new().throttling(Throttling::new(4, 0.5)));
        assert!(config.failed());
        assert!(!config.failed());
        assert!(!config.allows());
        config.succeeded();
        assert!(config.allows());
        for _ in 0..100 {
            config.succeeded();
        }
        assert!(config.failed() && !config.failed() && !config.failed());
    }

    #[test]
    fn waits_grow_up_to_their_bound() {
        let policy = RetryPolicy::new(9, []).backoff(Duration::from_millis(100), Duration::from_millis(350), 2.0);
        assert_eq!(policy.max_attempts, 5);
        for (attempt, middle) in [(1, 100), (2, 200), (3, 350), (4, 350)] {
            let wait = policy.wait(attempt).as_millis();
            assert!((middle * 8 / 10..=middle * 12 / 10).contains(&wait), "{attempt} {wait}");
        }
    }
}
