//! How much a peer may ask of us for nothing: SETTINGS, PING, resets and empty frames are cheap to send and cost us work.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use portolan_core::clock::Instant;

/// Frames without use that may come at once. Well above what servers do: some answer each WINDOW_UPDATE by a PING.
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

    /// A useful frame came: a response, or data that the caller asked for. It pays for the pings around it.
    #[inline]
    pub(crate) fn useful(&mut self) {
        if self.left < BURST {
            self.left = self.left.saturating_add(2).min(BURST);
        }
    }

    /// We sent data, which the peer answers by window updates.
    #[inline]
    pub(crate) fn earn(&mut self) {
        self.left = self.left.saturating_add(4).min(BURST);
    }

    /// A frame without use came; `false` when there were too many.
    #[must_use]
    pub(crate) fn spend(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.at);
        let refill =
            u32::try_from(elapsed.as_millis()).unwrap_or(u32::MAX).saturating_mul(PER_SECOND).wrapping_div(1000);
        if refill > 0 {
            self.left = self.left.saturating_add(refill).min(BURST);
            self.at = now;
        }
        let (left, over) = self.left.overflowing_sub(1);
        if !over {
            self.left = left;
        }
        !over
    }
}
