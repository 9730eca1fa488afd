//! Flow control (RFC 9113 5.2): what may be sent, what may be received, and how far the latter grows.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use super::frame::MAX_31;

/// What we may send; below zero after the peer lowered its initial window (RFC 9113 6.9.2).
#[derive(Debug, Clone, Copy)]
pub(crate) struct SendWindow(i64);

impl SendWindow {
    pub(crate) fn new(size: u32) -> Self {
        Self(i64::from(size))
    }

    pub(crate) fn available(self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }

    pub(crate) fn take(&mut self, bytes: usize) {
        self.0 = self.0.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Moves the window; `false` when it passes 2^31-1, which is the peer's fault.
    #[must_use]
    pub(crate) fn shift(&mut self, delta: i64) -> bool {
        self.0 = self.0.saturating_add(delta);
        self.0 <= i64::from(MAX_31)
    }
}

/// The least that is worth a frame, a frame's usual length: the peer would send no more at once.
const WORTH: i64 = 16 << 10;

/// What the peer may send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecvWindow {
    /// Granted and not yet used.
    available: i64,
    /// Received and not yet read by the caller.
    held: i64,
    /// What `available` and `held` may be together.
    target: i64,
}

impl RecvWindow {
    pub(crate) fn new(size: u32) -> Self {
        Self { available: i64::from(size), held: 0, target: i64::from(size) }
    }

    /// Counts received bytes; `false` when the peer sent more than it was granted.
    #[must_use]
    #[inline]
    pub(crate) fn receive(&mut self, bytes: usize) -> bool {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.available = self.available.saturating_sub(bytes);
        self.held = self.held.saturating_add(bytes);
        self.available >= 0
    }

    /// The caller has read `bytes`; gives the increment to send, when there is enough of it to be worth a frame.
    #[must_use]
    #[inline]
    pub(crate) fn release(&mut self, bytes: usize) -> Option<u32> {
        self.read(bytes);
        self.grant(self.target >> 1)
    }

    /// The same for the window that all streams share. What is held there may stay: half of what that leaves is enough, or those who
    /// read would wait for ever for those who don't.
    #[must_use]
    #[inline]
    pub(crate) fn release_shared(&mut self, bytes: usize) -> Option<u32> {
        self.read(bytes);
        let usable = self.target.saturating_sub(self.held);
        self.grant((usable >> 1).max(WORTH.min(self.target >> 1)))
    }

    #[inline]
    fn read(&mut self, bytes: usize) {
        self.held = self.held.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX)).max(0);
    }

    #[inline]
    fn grant(&mut self, least: i64) -> Option<u32> {
        let grant = self.target.saturating_sub(self.available).saturating_sub(self.held);
        if grant < least {
            return None;
        }
        self.available = self.available.saturating_add(grant);
        u32::try_from(grant).ok().filter(|grant| *grant > 0)
    }

    /// Lets the window grow to `target` with the next release. It never shrinks.
    pub(crate) fn grow(&mut self, target: u32) {
        self.target = self.target.max(i64::from(target.min(MAX_31)));
    }

    /// Grants the whole target at once: for the connection's window at the start.
    pub(crate) fn open(&mut self, target: u32) -> Option<u32> {
        self.grow(target);
        let grant = self.target.saturating_sub(self.available);
        self.available = self.target;
        u32::try_from(grant).ok().filter(|grant| *grant > 0)
    }
}

/// Estimates the bandwidth-delay product: bytes that arrive between a PING and its answer are what a window must hold.
#[derive(Debug)]
pub(crate) struct Estimator {
    /// Bytes since the PING in flight, if one is.
    sample: Option<usize>,
    /// What a stream's window should be.
    target: usize,
    max: usize,
}

/// Less than this in one frame is no bulk transfer, and not worth a PING.
const BULK: usize = 8 << 10;

impl Estimator {
    /// `max` at or below `start` turns it off.
    pub(crate) fn new(start: u32, max: u32) -> Self {
        Self { sample: None, target: start as usize, max: max as usize }
    }

    /// Counts received data; `true` asks for a PING.
    #[inline]
    pub(crate) fn receive(&mut self, bytes: usize) -> bool {
        match &mut self.sample {
            Some(sample) => {
                *sample = sample.saturating_add(bytes);
                false
            }
            None if bytes >= BULK && self.target < self.max => {
                self.sample = Some(bytes);
                true
            }
            None => false,
        }
    }

    /// The PING could not be sent.
    pub(crate) fn give_up(&mut self) {
        self.sample = None;
    }

    /// What a new stream's window may grow to.
    pub(crate) fn target(&self) -> u32 {
        u32::try_from(self.target).unwrap_or(MAX_31)
    }

    /// The PING was answered; gives the new target if it grew.
    pub(crate) fn answered(&mut self) -> Option<u32> {
        let sample = self.sample.take()?;
        // Within a third of the window the window itself may have been the bound.
        if sample < self.target.saturating_mul(2).div_ceil(3) {
            return None;
        }
        self.target = self.target.max(sample.saturating_mul(2)).min(self.max);
        u32::try_from(self.target).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receive_window_gives_back_by_halves() {
        let mut window = RecvWindow::new(100);
        assert!(window.receive(60));
        assert_eq!(window.release(40), None);
        assert_eq!(window.release(20), Some(60));
        assert!(window.receive(100));
        assert!(!window.receive(1), "one byte beyond the grant");
    }

    #[test]
    fn a_shared_window_is_given_back_though_most_of_it_is_held() {
        let mut window = RecvWindow::new(1 << 20);
        assert!(window.receive(768 << 10), "which nobody reads");
        for _ in 0..100 {
            assert!(window.receive(128 << 10));
            assert_eq!(window.release_shared((128 << 10) - 2), None);
            assert_eq!(window.release_shared(2), Some(128 << 10));
        }
        // Not by the byte, however little is left.
        assert!(window.receive(256 << 10));
        assert_eq!(window.release_shared((16 << 10) - 1), None);
        assert_eq!(window.release_shared(1), Some(16 << 10));
    }

    #[test]
    fn a_grown_window_is_granted_with_the_next_release() {
        let mut window = RecvWindow::new(100);
        assert!(window.receive(100));
        window.grow(1000);
        assert_eq!(window.release(100), Some(1000));
    }

    #[test]
    fn a_send_window_may_fall_below_zero_and_not_pass_its_bound() {
        let mut window = SendWindow::new(10);
        window.take(8);
        assert!(window.shift(-10));
        assert_eq!(window.available(), 0);
        assert!(window.shift(9));
        assert_eq!(window.available(), 1);
        assert!(!window.shift(i64::from(MAX_31)));
    }

    #[test]
    fn the_estimate_doubles_while_windows_fill_and_stops_at_its_bound() {
        let mut estimator = Estimator::new(64 << 10, 200 << 10);
        assert!(!estimator.receive(100), "a small answer asks for no PING");
        assert!(estimator.receive(32 << 10));
        assert!(!estimator.receive(32 << 10));
        assert_eq!(estimator.answered(), Some(128 << 10));
        assert!(estimator.receive(120 << 10));
        assert_eq!(estimator.answered(), Some(200 << 10));
        assert!(!estimator.receive(1 << 20), "at the bound no more is asked");
    }
}
