//! The one clock of the workspace: monotonic, and held still by tokio's paused time in tests.

#![allow(clippy::disallowed_methods, reason = "this is the clock that the others are told to use")]

use std::future::Future;
use std::time::{Duration, SystemTime};

use crate::error::{Error, Phase, Result};

/// A point of the monotonic clock.
pub type Instant = tokio::time::Instant;

/// Now, by the monotonic clock.
pub fn now() -> Instant {
    Instant::now()
}

/// Now, by the wall clock: for dates on the wire, never for measuring.
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Waits. Cancel safe.
pub async fn sleep(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Waits until `deadline`. Cancel safe.
pub async fn sleep_until(deadline: Instant) {
    tokio::time::sleep_until(deadline).await;
}

/// Runs `work` for at most `limit` (for ever if `None`); a late one is dropped and named by `phase`.
pub async fn within<T>(limit: Option<Duration>, phase: Phase, work: impl Future<Output = Result<T>>) -> Result<T> {
    match limit {
        None => work.await,
        Some(limit) => match tokio::time::timeout(limit, work).await {
            Ok(result) => result,
            Err(_) => Err(Error::timeout(phase, limit)),
        },
    }
}
