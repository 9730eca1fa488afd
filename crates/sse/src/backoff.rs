//! How long to wait before the next attempt.

use std::time::Duration;

/// The waits of a source: the server's `retry` or our own, doubled with each failure in a row, never below the floor.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    pub(crate) base: Duration,
    pub(crate) floor: Duration,
    pub(crate) ceiling: Duration,
    pub(crate) failures: u32,
}

impl Backoff {
    /// The next wait: between half of it and all of it, so that clients of a server that restarts come back one by one.
    pub(crate) fn next(&self, retry_after: Option<Duration>) -> Duration {
        let doubled = self.base.max(self.floor).saturating_mul(1 << self.failures.saturating_sub(1).min(16));
        let most = doubled.min(self.ceiling.max(self.floor));
        let jittered = most.mul_f64(0.5 + random() / 2.0).max(self.floor);
        // What the server asks for is granted, within our own patience.
        jittered.max(retry_after.unwrap_or_default().min(self.ceiling))
    }
}

/// From 0 to 1. Without random numbers from the system there is no jitter, which is no reason to fail.
fn random() -> f64 {
    let mut bytes = [0; 4];
    match getrandom::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_within_floor_and_ceiling() {
        let secs = Duration::from_secs;
        let at = |base, failures| Backoff { base, floor: secs(1), ceiling: secs(60), failures }.next(None);
        for _ in 0..50 {
            assert!((secs(1)..=secs(1)).contains(&at(Duration::ZERO, 0)));
            assert!((secs(2)..=secs(4)).contains(&at(secs(1), 3)));
            assert!((secs(30)..=secs(60)).contains(&at(secs(3), 4_000_000)));
        }
        let patient = Backoff { base: secs(1), floor: secs(1), ceiling: secs(60), failures: 1 };
        assert_eq!(patient.next(Some(secs(20))), secs(20));
        assert_eq!(patient.next(Some(secs(86_400))), secs(60));
    }
}
