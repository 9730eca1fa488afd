//! Who waits for a place among the concurrent streams, in the order of coming.

use std::collections::VecDeque;
use std::task::Waker;

/// One who waits.
pub(crate) type Ticket = u64;

/// The bounded queue of those who wait.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    waiting: VecDeque<(Ticket, Waker)>,
    next: Ticket,
}

impl Slots {
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether it is this one's turn: nobody else waits, or it is the first of them.
    pub(crate) fn is_turn(&self, ticket: Option<Ticket>) -> bool {
        match (self.waiting.front(), ticket) {
            (None, _) => true,
            (Some((first, _)), ticket) => Some(*first) == ticket,
        }
    }

    /// Joins the queue or renews the waker; `None` when the queue is full.
    pub(crate) fn wait(&mut self, ticket: Option<Ticket>, waker: &Waker, max: usize) -> Option<Ticket> {
        if let Some(ticket) = ticket
            && let Some((_, old)) = self.waiting.iter_mut().find(|(waiting, _)| *waiting == ticket)
        {
            old.clone_from(waker);
            return Some(ticket);
        }
        if self.waiting.len() >= max {
            return None;
        }
        self.next += 1;
        self.waiting.push_back((self.next, waker.clone()));
        Some(self.next)
    }

    /// Leaves the queue.
    pub(crate) fn leave(&mut self, ticket: Ticket) {
        self.waiting.retain(|(waiting, _)| *waiting != ticket);
    }

    /// A place may be free: wakes the first.
    pub(crate) fn freed(&self, open: usize, limit: usize, wakes: &mut Vec<Waker>) {
        if open < limit
            && let Some((_, waker)) = self.waiting.front()
        {
            wakes.push(waker.clone());
        }
    }

    pub(crate) fn wake_all(&mut self, wakes: &mut Vec<Waker>) {
        wakes.extend(self.waiting.iter().map(|(_, waker)| waker.clone()));
    }
}
