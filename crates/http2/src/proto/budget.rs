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
    /// Bytes that we sent and the peer may still grant anew: on the stream's window and on the connection's.
    owed: u64,
}

/// A window update of so much answers what we sent; smaller ones are paid for like any other frame without use.
const WORTH: u32 = 1024;

impl Budget {
    pub(crate) fn new(now: Instant) -> Self {
        Self { left: BURST, at: now, owed: 0 }
    }

    /// A useful frame came: a response, or data that the caller asked for. It pays for the pings around it.
    #[inline]
    pub(crate) fn useful(&mut self) {
        if self.left < BURST {
            self.left = self.left.saturating_add(2).min(BURST);
        }
    }

    /// We sent data, which the peer answers by window updates, and may do so all at once.
    #[inline]
    pub(crate) fn earn(&mut self, bytes: usize) {
        self.left = self.left.saturating_add(4).min(BURST);
        self.owed = self.owed.saturating_add((bytes as u64).saturating_mul(2));
    }

    /// A window grew by `increment`; `false` when there were too many of these for what we had sent.
    #[must_use]
    pub(crate) fn granted(&mut self, increment: u32, now: Instant) -> bool {
        match self.owed.checked_sub(u64::from(increment)) {
            Some(owed) if increment >= WORTH => {
                self.owed = owed;
                true
            }
            _ => self.spend(now),
        }
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

#[cfg(test)]
mod tests {
    use portolan_core::clock;

    use super::*;

    #[test]
    fn what_we_sent_may_be_granted_anew_all_at_once_and_no_more() {
        let now = clock::now();
        let mut budget = Budget::new(now);
        (0..1280).for_each(|_| budget.earn(16 << 10));
        // The connection's window and the stream's, by as little as a large buffer of the peer's at a time.
        assert!((0..2560).all(|_| budget.granted(16 << 10, now)));
        assert!((0..BURST).all(|_| budget.granted(16 << 10, now)));
        assert!(!budget.granted(16 << 10, now));
        let mut tiny = Budget::new(now);
        tiny.earn(1 << 30);
        assert!((0..BURST).all(|_| tiny.granted(1, now)) && !tiny.granted(1, now));
    }
}
