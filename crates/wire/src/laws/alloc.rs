//! An allocator that counts what its own thread holds, so tests that run side by side do not see each other.

#![allow(
    unsafe_code,
    reason = "GlobalAlloc is an unsafe trait; every call is passed on to the system's allocator as it came"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use super::{Violation, broken};

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting per thread: [`install!`](super::install) makes it that of a test binary.
#[derive(Debug, Default)]
pub struct CountingAlloc(());

impl CountingAlloc {
    /// For the static that holds it.
    pub const fn new() -> Self {
        Self(())
    }

    /// How many allocations this thread has made: for tests that say how many an operation may make.
    pub fn allocations() -> u64 {
        COUNT.get()
    }

    fn grew(by: usize) {
        let _ = COUNT.try_with(|count| count.set(count.get().wrapping_add(1)));
        let by = isize::try_from(by).unwrap_or(isize::MAX);
        // A thread on its way out has no counters left, and nothing to count either.
        let _ = LIVE.try_with(|live| {
            live.set(live.get().saturating_add(by));
            let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
        });
    }

    fn shrank(by: usize) {
        let by = isize::try_from(by).unwrap_or(isize::MAX);
        let _ = LIVE.try_with(|live| live.set(live.get().saturating_sub(by)));
    }
}

// SAFETY: every request is passed on to `System` unchanged, and the counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for CountingAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::grew(layout.size());
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::grew(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        Self::shrank(layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // The old and the new may live side by side for a moment, but `System` mostly grows in place.
        Self::shrank(layout.size());
        Self::grew(size);
        // SAFETY: as above.
        unsafe { System.realloc(place, layout, size) }
    }
}

/// Counts from now on.
pub(super) struct Watch(isize);

impl Watch {
    pub(super) fn start() -> Self {
        let live = LIVE.get();
        PEAK.set(live);
        Self(live)
    }

    /// The most that was held at once beyond what was held at the start.
    pub(super) fn peak(&self) -> usize {
        usize::try_from(PEAK.get().saturating_sub(self.0)).unwrap_or(0)
    }
}

/// Fails where the counters do not count: law 3 would pass unseen.
pub(super) fn demand_installed() -> Result<(), Violation> {
    let watch = Watch::start();
    std::hint::black_box(Vec::<u8>::with_capacity(4096));
    if watch.peak() >= 4096 {
        return Ok(());
    }
    Err(broken("memory is counted", "put `#[cfg(test)] portolan_wire::laws::install!();` into the crate's lib.rs", &[]))
}
