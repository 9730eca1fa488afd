//! What we send on streams: heads, data within both windows, trailers, resets.

use std::task::{Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Method};
use portolan_core::{BoxError, Delivery, Error, Kind, Phase, Result};
use portolan_hpack::request::{RequestHead, fields_size};

use super::code::Code;
use super::failure::{Failure, PROTOCOL};
use super::flow::{RecvWindow, SendWindow};
use super::request;
use super::slots::Ticket;
use super::stream::{Due, Key, Received, Stream};
use super::{Engine, frame};

/// Queued output beyond which uploads wait for the transport.
const OUTPUT_HIGH: usize = 256 << 10;
/// What one upload may queue at a time before the others get their turn.
const TURN: usize = 64 << 10;

/// The stream ended before the upload did: nothing more can or need be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Over;

/// What an attempt to open a stream came to.
#[derive(Debug)]
pub(crate) enum Opened {
    Stream(Key),
    Wait(Ticket),
}

impl Engine {
    /// Opens a stream with this head, or joins the queue for a place.
    pub(crate) fn open(
        &mut self,
        head: &RequestHead<'_>,
        end_stream: bool,
        due: Option<Due>,
        ticket: Option<Ticket>,
        waker: &Waker,
    ) -> Result<Opened> {
        if !self.is_open() {
            return Err(self.refusal().error(Delivery::NotSent, Phase::Send));
        }
        // RFC 8441 3: extended CONNECT may be sent only once the peer has said that it understands it.
        let unsure = head.protocol().is_some() && !self.settings_seen;
        if unsure || self.streams.open() >= self.stream_limit() || !self.slots.is_turn(ticket) {
            let full = || unsent(Kind::Limit, "too many requests wait for a stream").with_phase(Phase::Pool);
            return self.slots.wait(ticket, waker, self.config.max_waiting).map(Opened::Wait).ok_or_else(full);
        }
        if let Some(ticket) = ticket {
            self.slots.leave(ticket);
        }
        let opened = self.open_now(head, end_stream, due);
        // There may be room for the next one too.
        let limit = self.stream_limit();
        self.slots.freed(self.streams.open(), limit, &mut self.wakes);
        opened.map(Opened::Stream)
    }

    fn open_now(&mut self, head: &RequestHead<'_>, end_stream: bool, due: Option<Due>) -> Result<Key> {
        if head.protocol().is_some() && !self.peer.enable_connect_protocol {
            return Err(unsent(Kind::Unsupported, "the peer doesn't understand extended CONNECT"));
        }
        if let Some(limit) = self.peer.max_header_list_size {
            let size = head.list_size();
            if size > limit as usize {
                let message = format!("a header list of {size} bytes, and the peer takes {limit}");
                return Err(unsent(Kind::Limit, message));
            }
        }
        let id = self.take_id();
        let begins_at = self.queued;
        let max_frame = self.peer.max_frame_size as usize;
        let tail = self.out.tail();
        let start = tail.len();
        tail.extend_from_slice(&[0; frame::HEAD]);
        request::encode(head, &mut self.encoder, tail);
        request::frame_block(start, id, end_stream, max_frame, tail);
        self.queued += (tail.len() - start) as u64;
        self.wake_driver();
        self.first_due = self.first_due.into_iter().chain(due.map(|due| due.at)).min();
        let mut recv_window = RecvWindow::new(self.config.stream_window);
        recv_window.grow(self.estimator.target());
        Ok(self.streams.insert(Stream {
            id,
            send_window: SendWindow::new(self.peer.initial_window_size),
            recv_window,
            local_closed: end_stream,
            remote_closed: false,
            gone: false,
            detached: false,
            abandoned: false,
            head: None,
            head_seen: false,
            is_head: *head.method() == Method::HEAD,
            is_connect: *head.method() == Method::CONNECT,
            promised: None,
            received: Received::default(),
            failure: None,
            body_error: None,
            informational: std::collections::VecDeque::new(),
            informational_seen: 0,
            reader: None,
            writer: None,
            supplier: None,
            begins_at,
            due,
            moved: false,
        }))
    }

    /// Whether an upload may ask its body for more: there is window and room. Otherwise `waker` is left where that will change.
    pub(crate) fn poll_capacity(&mut self, key: Key, waker: &Waker) -> Poll<Result<(), Over>> {
        let full = self.out.len() >= OUTPUT_HIGH || self.send_window.available() == 0;
        let Some(stream) = self.streams.get(key).filter(|stream| !stream.gone && !stream.local_closed) else {
            return Poll::Ready(Err(Over));
        };
        if stream.send_window.available() > 0 && !full {
            return Poll::Ready(Ok(()));
        }
        // Even one that waits for the connection must hear of its stream's end.
        stream.writer = Some(waker.clone());
        if full {
            // A peer that wakes uploads while the connection is full must not make this grow: all of them ask anew.
            if self.blocked.len() > self.streams.open().saturating_mul(2) {
                self.wakes.append(&mut self.blocked);
            }
            self.blocked.push(waker.clone());
        }
        Poll::Pending
    }

    /// While an upload waits for its caller's body it waits for the end of its stream too.
    pub(crate) fn poll_over(&mut self, key: Key, waker: &Waker) -> Poll<Over> {
        match self.streams.get(key).filter(|stream| !stream.gone && !stream.local_closed) {
            Some(stream) => {
                stream.supplier = Some(waker.clone());
                Poll::Pending
            }
            None => Poll::Ready(Over),
        }
    }

    /// Sends as much of `data` as windows, room and turn allow; ready when all is queued.
    pub(crate) fn poll_send(&mut self, key: Key, data: &mut Bytes, end: bool, waker: &Waker) -> Poll<Result<(), Over>> {
        let mut turn = TURN;
        loop {
            if data.is_empty() {
                return Poll::Ready(if end { self.send_end(key) } else { Ok(()) });
            }
            if self.poll_capacity(key, waker)?.is_pending() {
                return Poll::Pending;
            }
            if turn == 0 {
                waker.wake_by_ref();
                return Poll::Pending;
            }
            let Some(stream) = self.streams.get(key) else { return Poll::Ready(Err(Over)) };
            let room = stream.send_window.available().min(self.send_window.available());
            let count = data.len().min(room).min(self.peer.max_frame_size as usize);
            let last = end && count == data.len();
            stream.send_window.take(count);
            stream.moved = true;
            self.send_window.take(count);
            let part = data.split_to(count);
            let flags = if last { frame::END_STREAM } else { 0 };
            self.write(|out, _| frame::put_head(count, frame::DATA, flags, key.id, out));
            self.out.push(part);
            self.budget.earn(count);
            self.queued += count as u64;
            turn = turn.saturating_sub(count);
            if last {
                self.close_local(key);
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn send_end(&mut self, key: Key) -> Result<(), Over> {
        if self.streams.get(key).is_none_or(|stream| stream.gone) {
            return Err(Over);
        }
        self.write(|out, _| frame::put_head(0, frame::DATA, frame::END_STREAM, key.id, out));
        self.close_local(key);
        Ok(())
    }

    /// Why the peer would not take these trailers, if it would not.
    pub(crate) fn hinders(&self, trailers: &HeaderMap) -> Option<Error> {
        let limit = self.peer.max_header_list_size?;
        let size = fields_size(trailers);
        let message = || format!("trailers of {size} bytes, and the peer takes {limit}");
        let error = || Error::new(Kind::Limit, message()).with_phase(Phase::Send).with_protocol(PROTOCOL);
        (size > limit as usize).then(error)
    }

    /// Sends trailers, which end the stream.
    pub(crate) fn send_trailers(&mut self, key: Key, trailers: &HeaderMap) -> Result<(), Over> {
        if self.streams.get(key).is_none_or(|stream| stream.gone) {
            return Err(Over);
        }
        let max_frame = self.peer.max_frame_size as usize;
        let tail = self.out.tail();
        let start = tail.len();
        tail.extend_from_slice(&[0; frame::HEAD]);
        self.encoder.start_block(tail);
        for (name, value) in trailers {
            self.encoder.field(name, value, tail);
        }
        request::frame_block(start, key.id, true, max_frame, tail);
        self.queued += (tail.len() - start) as u64;
        self.wake_driver();
        self.close_local(key);
        Ok(())
    }

    fn close_local(&mut self, key: Key) {
        if let Some(stream) = self.streams.get(key) {
            stream.local_closed = true;
        }
        self.settle(key);
    }

    /// The body will not be sent, and the answer is read all the same.
    pub(crate) fn abandon(&mut self, key: Key) {
        if let Some(stream) = self.streams.get(key) {
            stream.abandoned = true;
        }
        self.settle(key);
    }

    /// The caller's body failed: its stream alone is reset, and who waits for the answer gets the body's own error.
    pub(crate) fn body_failed(&mut self, key: Key, error: BoxError) {
        if let Some(stream) = self.streams.get(key) {
            stream.body_error.get_or_insert(error);
        }
        self.reset(key, Code::CANCEL, Failure::new(Kind::Usage, "the request body failed").with_code(Code::CANCEL));
    }
}

fn unsent(kind: Kind, message: impl Into<Box<str>>) -> Error {
    Error::new(kind, message).with_delivery(Delivery::NotSent).with_phase(Phase::Send).with_protocol(PROTOCOL)
}
