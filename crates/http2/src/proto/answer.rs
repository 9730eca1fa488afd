//! What waits for its caller: heads, bodies, trailers, or the reason why none will come.

use std::task::{Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Response};
use portolan_core::clock::Instant;
use portolan_core::{Delivery, Error, Kind, Phase};

use super::Engine;
use super::code::Code;
use super::failure::{Failure, PROTOCOL};
use super::stream::{Head, Key, Received};

/// A body up to this that is complete with its head is handed over with it; a larger one stays under flow control until read.
const WHOLE_BODY: usize = 16 << 10;

/// What a caller who waits for a response gets.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A 1xx; the response is still to come.
    Informational(Response<()>),
    /// The head; the body stays with the stream.
    Head(Head),
    /// Head and body; the stream is gone.
    Whole(Head, Received),
    Failed(Error),
}

/// What a reader of a body gets.
#[derive(Debug)]
pub(crate) enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
    Failed(Error),
}

impl Engine {
    pub(crate) fn poll_answer(&mut self, key: Key, waker: &Waker) -> Poll<Answer> {
        let handed = self.handed;
        let Some(stream) = self.streams.get(key) else {
            return Poll::Ready(Answer::Failed(lost(Delivery::Unknown)));
        };
        if let Some(response) = stream.informational.pop_front() {
            return Poll::Ready(Answer::Informational(response));
        }
        if let Some(head) = stream.head.take() {
            let whole = stream.gone && stream.remote_closed && stream.received.len() <= WHOLE_BODY;
            if !whole {
                return Poll::Ready(Answer::Head(head));
            }
            let received = std::mem::take(&mut stream.received);
            self.streams.remove(key);
            self.release_connection(received.len());
            return Poll::Ready(Answer::Whole(head, received));
        }
        if let Some(failure) = stream.failure.take() {
            let history = stream.delivery(handed);
            let error = failed(&failure, stream.body_error.take(), history, Phase::FirstByte);
            return Poll::Ready(Answer::Failed(error));
        }
        renew(&mut stream.reader, waker);
        Poll::Pending
    }

    /// Resets the streams whose responses should have begun, and looks when the next one should.
    pub(crate) fn give_up_overdue(&mut self, now: Instant) {
        self.first_due = None;
        for key in self.streams.keys() {
            let Some(stream) = self.streams.get(key).filter(|stream| !stream.head_seen) else { continue };
            let Some(mut due) = stream.due else { continue };
            if due.at <= now {
                if !std::mem::take(&mut stream.moved) {
                    let message = format!("{} took longer than {:?}", Phase::FirstByte, due.limit);
                    let failure = Failure::new(Kind::Timeout, message).with_delivery(Delivery::Unknown);
                    self.reset(key, Code::CANCEL, failure);
                    continue;
                }
                due.at = now.checked_add(due.limit).unwrap_or(due.at);
                stream.due = Some(due);
            }
            self.first_due = self.first_due.into_iter().chain([due.at]).min();
        }
    }

    pub(crate) fn poll_body(&mut self, key: Key, waker: &Waker) -> Poll<Piece> {
        let Some(stream) = self.streams.get(key) else {
            return Poll::Ready(Piece::Failed(lost(Delivery::Answered)));
        };
        if let Some(data) = stream.received.pop() {
            self.release_stream(key, data.len());
            return Poll::Ready(Piece::Data(data));
        }
        if let Some(failure) = stream.failure.take() {
            let error = failed(&failure, stream.body_error.take(), Delivery::Answered, Phase::Idle);
            return Poll::Ready(Piece::Failed(error));
        }
        if stream.remote_closed {
            let trailers = stream.received.trailers.take();
            return Poll::Ready(trailers.map_or(Piece::End, |trailers| Piece::Trailers(*trailers)));
        }
        renew(&mut stream.reader, waker);
        Poll::Pending
    }
}

fn failed(failure: &Failure, body_error: Option<portolan_core::BoxError>, history: Delivery, phase: Phase) -> Error {
    match body_error {
        Some(source) => failure.error(history, Phase::Send).with_source(source),
        None => failure.error(history, phase),
    }
}

/// Only a handle used after its end sees this.
fn lost(delivery: Delivery) -> Error {
    Error::closed("the stream is over").with_delivery(delivery).with_protocol(PROTOCOL)
}

fn renew(slot: &mut Option<Waker>, waker: &Waker) {
    match slot {
        Some(old) => old.clone_from(waker),
        None => *slot = Some(waker.clone()),
    }
}
