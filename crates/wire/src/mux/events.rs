//! Frames that nobody asked for: a bounded queue to one reader.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use portolan_core::Result;

use super::Shared;
use crate::codec::Codec;

/// What happens to an unsolicited frame when its queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// The oldest is dropped, and counted in [`Events::missed`].
    DropOldest,
    /// The new one is dropped, and counted in [`Events::missed`].
    DropNewest,
    /// The driver stops reading until there is room, so the peer feels it. Replies wait too: for connections that carry
    /// events only.
    Wait,
    /// The connection ends with `Kind::Limit`.
    Close,
}

pub(super) struct Queue<F> {
    frames: VecDeque<F>,
    capacity: usize,
    overflow: Overflow,
    waker: Option<Waker>,
    missed: u64,
    claimed: bool,
    /// The reader is gone, or there will be no more.
    ended: bool,
}

impl<F> Queue<F> {
    pub(super) fn new(capacity: usize, overflow: Overflow) -> Self {
        Self { frames: VecDeque::new(), capacity, overflow, waker: None, missed: 0, claimed: false, ended: false }
    }

    pub(super) fn overflow(&self) -> Overflow {
        self.overflow
    }

    pub(super) fn claim(&mut self) -> bool {
        !std::mem::replace(&mut self.claimed, true)
    }

    /// Takes a frame in, or gives it back where it has to wait or must not be lost.
    pub(super) fn push(&mut self, frame: F, wakers: &mut Vec<Waker>) -> Result<(), F> {
        if self.ended {
            return Ok(());
        }
        if self.frames.len() >= self.capacity {
            match self.overflow {
                Overflow::DropOldest => drop(self.frames.pop_front()),
                // With nobody to make room, waiting would be for ever.
                Overflow::Wait | Overflow::Close if self.claimed => return Err(frame),
                _ => {
                    self.missed = self.missed.saturating_add(1);
                    return Ok(());
                }
            }
            self.missed = self.missed.saturating_add(1);
        }
        self.frames.push_back(frame);
        wakers.extend(self.waker.take());
        Ok(())
    }

    pub(super) fn close(&mut self) -> Option<Waker> {
        self.ended = true;
        self.waker.take()
    }
}

/// The reader of a [`Mux`](super::Mux)'s unsolicited frames. It does not keep the connection open by itself.
pub struct Events<C: Codec>(Arc<Shared<C>>);

impl<C: Codec> Events<C> {
    pub(super) fn new(shared: Arc<Shared<C>>) -> Self {
        Self(shared)
    }

    /// The next frame; `None` when we closed the connection, an error when something else ended it. Cancel safe.
    pub async fn recv(&mut self) -> Result<Option<C::Frame>> {
        poll_fn(|cx| {
            let mut guard = self.0.state.lock();
            let state = &mut *guard;
            if let Some(frame) = state.events.frames.pop_front() {
                // A driver that waits for room can go on.
                let driver = if state.events.overflow == Overflow::Wait { state.driver.take() } else { None };
                drop(guard);
                if let Some(driver) = driver {
                    driver.wake();
                }
                return Poll::Ready(Ok(Some(frame)));
            }
            if let Some(death) = &state.death {
                return Poll::Ready(death.as_event().map_or(Ok(None), Err));
            }
            state.events.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Frames that were dropped because the queue was full.
    pub fn missed(&self) -> u64 {
        self.0.state.lock().events.missed
    }
}

impl<C: Codec> Drop for Events<C> {
    fn drop(&mut self) {
        let driver = {
            let mut state = self.0.state.lock();
            state.events.ended = true;
            state.events.frames = VecDeque::new();
            state.driver.take()
        };
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}

impl<C: Codec> fmt::Debug for Events<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("missed", &self.missed()).finish_non_exhaustive()
    }
}
