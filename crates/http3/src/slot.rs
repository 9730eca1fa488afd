//! One request stream, as its reader, its upload and the driver share it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use portolan_core::{BoxError, Delivery, Kind};
use quinn::RecvStream;
use tokio::sync::OwnedSemaphorePermit;

use crate::proto::code::Code;
use crate::proto::failure::Failure;
use crate::shared::Shared;

/// A reading half that two may drop: whoever reads it, and whoever learns first that the server refused it.
pub(crate) type EarlyRecv = Arc<Mutex<Option<RecvStream>>>;

/// A place among the open streams; given back when the last who holds it lets go.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: u64,
    ctl: Mutex<Ctl>,
    /// The reading half of early data, to be taken away should the server refuse it.
    early: Option<EarlyRecv>,
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug, Default)]
struct Ctl {
    failure: Option<Failure>,
    body_error: Option<BoxError>,
    answered: bool,
    /// The upload is to end, with this code.
    cancelled: Option<Code>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// What ended a stream from this side.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) failure: Failure,
    pub(crate) body_error: Option<BoxError>,
}

impl Slot {
    pub(crate) fn new(shared: Arc<Shared>, id: u64, permit: OwnedSemaphorePermit, early: Option<EarlyRecv>) -> Self {
        Self { shared, id, ctl: Mutex::default(), early, _permit: permit }
    }

    fn ctl(&self) -> MutexGuard<'_, Ctl> {
        self.ctl.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What ended the stream, for its reader, who is woken when there is something.
    pub(crate) fn ended(&self, waker: &Waker) -> Option<Ended> {
        let mut ctl = self.ctl();
        if let Some(failure) = ctl.failure.take() {
            return Some(Ended { failure, body_error: ctl.body_error.take() });
        }
        renew(&mut ctl.reader, waker);
        None
    }

    /// With which code the upload is to end, if it is; otherwise it is woken when that changes.
    pub(crate) fn cancelled(&self, waker: &Waker) -> Option<Code> {
        let mut ctl = self.ctl();
        if ctl.cancelled.is_none() {
            renew(&mut ctl.writer, waker);
        }
        ctl.cancelled
    }

    /// The final response has begun.
    pub(crate) fn answered(&self) {
        self.ctl().answered = true;
    }

    /// The upload is no longer wanted.
    pub(crate) fn cancel(&self, code: Code) {
        let mut ctl = self.ctl();
        ctl.cancelled.get_or_insert(code);
        let writer = ctl.writer.take();
        drop(ctl);
        writer.into_iter().for_each(Waker::wake);
    }

    /// The peer said that it has not processed the stream (RFC 9114 5.2). An answer under way says otherwise.
    pub(crate) fn refuse(&self, served: bool) {
        if self.ctl().answered {
            return;
        }
        let failure = Failure::new(Kind::Closed, "the peer is closing the connection, and did not take the request");
        self.fail(failure.with_delivery(Delivery::Refused).with_drained(served), None);
    }

    /// The server refused early data. The stream must be gone before another gets its id: `quinn` 0.11 forgets who waits for
    /// the new one when the old one is dropped.
    pub(crate) fn refuse_early(&self) {
        if let Some(early) = &self.early {
            let stale = early.lock().unwrap_or_else(PoisonError::into_inner).take();
            drop(stale);
            self.fail(Failure::early_rejected(), None);
        }
    }

    /// The request's body failed: its stream ends, and whoever reads the answer is told why.
    pub(crate) fn body_failed(&self, error: BoxError) {
        let failure = Failure::new(Kind::Usage, "the request body failed").with_code(Code::REQUEST_CANCELLED);
        self.fail(failure, Some(error));
    }

    fn fail(&self, failure: Failure, body_error: Option<BoxError>) {
        let mut ctl = self.ctl();
        ctl.failure.get_or_insert(failure);
        ctl.body_error = body_error;
        ctl.cancelled.get_or_insert(Code::REQUEST_CANCELLED);
        let wakes = [ctl.reader.take(), ctl.writer.take()];
        drop(ctl);
        wakes.into_iter().flatten().for_each(Waker::wake);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let this: *const Self = self;
        let id = self.id;
        self.shared.with(|state| {
            // After refused early data another stream has the same id.
            if state.streams.get(&id).is_some_and(|slot| std::ptr::eq(slot.as_ptr(), this)) {
                state.streams.remove(&id);
                if let Some(queue) = state.datagrams.remove(&(id / 4)) {
                    queue.close();
                }
            }
            if state.is_done() {
                state.wake_driver();
            }
        });
    }
}

fn renew(slot: &mut Option<Waker>, waker: &Waker) {
    match slot {
        Some(old) => old.clone_from(waker),
        None => *slot = Some(waker.clone()),
    }
}
