//! How much a peer may ask of us for nothing: unknown frames and streams, and empty data, are cheap to send and cost us work.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use portolan_core::clock::Instant;

/// Frames without use that may come at once. Well above what servers do: grease comes one by one.
const BURST: u32 = 1024;
/// Frames without use per second in the long run.
const PER_SECOND: u32 = 128;

/// A bucket that fills with time and with useful frames.
#[derive(Debug)]
pub(crate) struct Budget {
    left: u32,
    at: Instant,
}

impl Budget {
    pub(crate) fn new(now: Instant) -> Self {
        Self { left: BURST, at: now }
    }

    /// Data that the caller asked for came so many times. It pays for what is strewn between.
    #[inline]
    pub(crate) fn useful(&mut self, count: u32) {
        self.left = self.left.saturating_add(count.saturating_mul(2)).min(BURST);
    }

    /// Something without use came, at this cost; `false` when there was too much.
    #[must_use]
    pub(crate) fn spend(&mut self, cost: u32, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.at);
        let refill =
            u32::try_from(elapsed.as_millis()).unwrap_or(u32::MAX).saturating_mul(PER_SECOND).wrapping_div(1000);
        if refill > 0 {
            self.left = self.left.saturating_add(refill).min(BURST);
            self.at = now;
        }
        let (left, over) = self.left.overflowing_sub(cost);
        if !over {
            self.left = left;
        }
        !over
    }
}
