//! A timer that is cheap to move: it is armed once and, when it rings too early, armed again for what is left.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use portolan_core::clock::{self, Instant};

/// Moving a runtime's timer takes its lock; most deadlines are met, so this one is moved only when it rings.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
    deadline: Option<Instant>,
}

impl Alarm {
    /// From now on.
    pub(crate) fn after(&mut self, limit: Option<Duration>) {
        self.at(limit.and_then(|limit| clock::now().checked_add(limit)));
    }

    pub(crate) fn at(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    /// Ready when the deadline has passed; never where there is none.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
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
        Poll::Pending
    }
}
