//! A timer that is cheap to move: it is armed once and, when it rings too early, armed again for what is left.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use portolan_core::clock::{self, Instant};
use tokio::task::coop;

/// Moving a runtime's timer takes its lock; most deadlines are met, so this one is moved only when it rings.
#[derive(Debug, Default)]
pub struct Alarm {
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
    deadline: Option<Instant>,
}

impl Alarm {
    /// Rings after `limit` from now; never if there is none.
    pub fn after(&mut self, limit: Option<Duration>) {
        self.at(limit.and_then(|limit| clock::now().checked_add(limit)));
    }

    /// Rings at `deadline`; never if there is none.
    pub fn at(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    /// Whether a deadline is set.
    pub fn is_set(&self) -> bool {
        self.deadline.is_some()
    }

    /// Ready when the deadline has passed; never where there is none.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if clock::now() >= deadline {
                self.sleep = None;
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        // A task that has used up its turn is told of no timer: a peer that never pauses would outlive every deadline.
        if !coop::has_budget_remaining() && clock::now() >= deadline {
            self.sleep = None;
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[tokio::test(start_paused = true)]
    async fn it_rings_for_a_task_that_has_used_up_its_turn() {
        let mut alarm = Alarm::default();
        alarm.after(Some(Duration::from_secs(1)));
        assert!(poll_fn(|cx| Poll::Ready(alarm.poll(cx))).await.is_pending());
        tokio::time::advance(Duration::from_secs(2)).await;
        let rang = poll_fn(|cx| {
            while let Poll::Ready(turn) = coop::poll_proceed(cx) {
                turn.made_progress();
            }
            Poll::Ready(alarm.poll(cx))
        });
        assert!(rang.await.is_ready());
    }
}
