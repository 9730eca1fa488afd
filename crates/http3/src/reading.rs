//! The reading half of a request stream: polled by whoever waits for the answer, and by nobody else, so that a slow reader
//! holds back its own stream alone.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Response, StatusCode};
use portolan_core::{Delivery, Error, Kind, Phase};
use portolan_hpack::qpack;
use quinn::{ReadError, RecvStream};

use crate::proto::Violation;
use crate::proto::code::Code;
use crate::proto::failure::Failure;
use crate::proto::frame::{Frame, Frames, Role};
use crate::proto::message::{Exchange, Message, Section};
use crate::shared::Critical;
use crate::slot::{EarlyRecv, Ended, Slot};

/// What a header list may take as it is coded, beyond what it stands for: never more than twice.
const CODED: u64 = 2;

/// What came.
#[derive(Debug)]
pub(crate) enum Piece {
    Informational(Response<()>),
    Head(StatusCode, HeaderMap),
    Data(Bytes),
    Trailers(HeaderMap),
    End,
}

/// The stream, or a share in one that was opened as early data.
#[derive(Debug)]
pub(crate) enum Recv {
    Own(RecvStream),
    Early(EarlyRecv),
}

impl Recv {
    fn poll_chunks(&mut self, cx: &mut Context<'_>, into: &mut [Bytes]) -> Poll<Result<Option<usize>, ReadError>> {
        let mut guard;
        let stream = match self {
            Self::Own(stream) => stream,
            Self::Early(share) => {
                guard = share.lock().unwrap_or_else(PoisonError::into_inner);
                match guard.as_mut() {
                    Some(stream) => stream,
                    None => return Poll::Ready(Err(ReadError::ZeroRttRejected)),
                }
            }
        };
        pin!(stream.read_chunks(into)).poll(cx)
    }

    /// It does nothing where the stream has ended by itself.
    pub(crate) fn stop(&mut self, code: Code) {
        let _ = match self {
            Self::Own(stream) => stream.stop(code.varint()),
            Self::Early(share) => match share.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
                Some(stream) => stream.stop(code.varint()),
                None => Ok(()),
            },
        };
    }
}

/// Pieces of a stream, of about a datagram each, that are taken from QUIC at once: each time locks the connection.
const AT_ONCE: usize = 8;

/// What was taken and is yet to be parsed, the next at the end.
#[derive(Debug, Default)]
struct Ahead {
    chunks: [Bytes; AT_ONCE],
    left: usize,
}

/// One response being read. Dropped before its end it tells the peer to stop.
#[derive(Debug)]
pub(crate) struct Reading {
    /// Before the slot: who finds no slot finds no stream either.
    recv: Recv,
    slot: Arc<Slot>,
    frames: Frames,
    input: Bytes,
    ahead: Ahead,
    /// A section that waits for entries of the header table.
    blocked: Option<Bytes>,
    exchange: Exchange,
    /// Data frames since the last one without use.
    useful: u32,
    over: bool,
    early_rejected: bool,
}

impl Reading {
    pub(crate) fn new(slot: Arc<Slot>, recv: Recv, exchange: Exchange) -> Self {
        let max_section = u64::from(slot.shared.config.max_field_section_size).saturating_mul(CODED);
        Self {
            recv,
            slot,
            frames: Frames::new(Role::Request, max_section),
            input: Bytes::new(),
            ahead: Ahead::default(),
            blocked: None,
            exchange,
            useful: 0,
            over: false,
            early_rejected: false,
        }
    }

    /// How much of the body is to come, where the response said so.
    pub(crate) fn left(&self) -> Option<u64> {
        self.exchange.left()
    }

    /// Whether it failed because the server refused early data.
    pub(crate) fn early_rejected(&self) -> bool {
        self.early_rejected
    }

    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Error>> {
        if self.over {
            return Poll::Ready(Ok(Piece::End));
        }
        if let Some(ended) = self.slot.ended(cx.waker()) {
            return Poll::Ready(Err(self.ended(ended)));
        }
        loop {
            match self.poll_parsed(cx) {
                Poll::Ready(Ok(Some(piece))) => return Poll::Ready(Ok(piece)),
                Poll::Ready(Ok(None)) => {}
                Poll::Ready(Err(violation)) => {
                    let error = self.violated(violation);
                    // What came breaks the rules or the limits: it came all the same.
                    let error = if violation.stream_only { error.with_delivery(Delivery::Answered) } else { error };
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => return Poll::Pending,
            }
            match self.poll_input(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => return Poll::Ready(self.on_end()),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.read_failed(error))),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// After the head: whether the stream has ended already, so that nobody need wait to learn it.
    pub(crate) fn has_ended(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        if self.over || self.input.has_remaining() || !self.frames.is_between() {
            return Ok(self.over);
        }
        match self.poll_input(cx) {
            Poll::Ready(Ok(true)) => {}
            Poll::Ready(Ok(false)) => return self.on_end().map(|_| true),
            // What is wrong is said to who reads the body.
            Poll::Ready(Err(_)) | Poll::Pending => {}
        }
        Ok(false)
    }

    /// Takes what comes next as the input; false at the end.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, ReadError>> {
        if self.ahead.left == 0 {
            match ready!(self.recv.poll_chunks(cx, &mut self.ahead.chunks))? {
                Some(count) => self.ahead.left = count,
                None => return Poll::Ready(Ok(false)),
            }
            // Taken from the back.
            self.ahead.chunks[..self.ahead.left].reverse();
        }
        self.ahead.left -= 1;
        self.input = std::mem::take(&mut self.ahead.chunks[self.ahead.left]);
        Poll::Ready(Ok(true))
    }

    /// What can be made of what is here. Pending only while a section is blocked.
    fn poll_parsed(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Piece>, Violation>> {
        if let Some(section) = self.blocked.take() {
            return self.poll_section(section, cx);
        }
        loop {
            match self.frames.next(&mut self.input)? {
                None => return Poll::Ready(Ok(None)),
                Some(Frame::Data(data)) => {
                    self.exchange.on_data(data.len())?;
                    self.useful = self.useful.saturating_add(1);
                    return Poll::Ready(Ok(Some(Piece::Data(data))));
                }
                Some(Frame::Headers(section)) => {
                    self.exchange.may_have_section()?;
                    return self.poll_section(section, cx);
                }
                Some(Frame::Idle(len)) => {
                    let useful = std::mem::take(&mut self.useful);
                    let spent = self.slot.shared.spend(len, useful);
                    spent.map_err(|()| Violation::of_stream(Code::EXCESSIVE_LOAD, "frames without use"))?;
                }
                // The role allows no other.
                Some(Frame::Settings(_) | Frame::GoAway(_) | Frame::Origin(_)) => {}
            }
        }
    }

    fn poll_section(&mut self, section: Bytes, cx: &mut Context<'_>) -> Poll<Result<Option<Piece>, Violation>> {
        let id = self.slot.id;
        let mut message = Message::new();
        let decoded = self.slot.shared.with(|state| {
            // What came before the end is read after it, too; not by tables that are out of step.
            let over = state.failure.as_ref().map(|failure| failure.kind);
            if over.is_some_and(|kind| !matches!(kind, Kind::Closed | Kind::Timeout)) {
                return Ok(None);
            }
            let out = &mut state.outlets[Critical::Decoder as usize].bytes;
            let decoded = state.decoder.decode(id, &section, out, &mut |field| message.push(field))?;
            state.written(Critical::Decoder)?;
            if decoded == qpack::Section::Blocked && over.is_some() {
                // What it waits for will never come.
                return Ok(None);
            }
            if decoded == qpack::Section::Blocked {
                state.blocked.retain(|(blocked, _)| *blocked != id);
                state.blocked.push((id, cx.waker().clone()));
            }
            Ok::<_, Violation>(Some(decoded))
        })?;
        match decoded {
            Some(qpack::Section::Decoded(summary)) if summary.cut => {
                Poll::Ready(Err(Violation::of_stream(Code::EXCESSIVE_LOAD, "a header list beyond the limit")))
            }
            Some(qpack::Section::Decoded(_)) => {
                let piece = match self.exchange.on_section(message)? {
                    Section::Informational(response) => Piece::Informational(response),
                    Section::Trailers(trailers) => Piece::Trailers(trailers),
                    Section::Head(status, fields) => {
                        self.slot.answered();
                        Piece::Head(status, fields)
                    }
                };
                Poll::Ready(Ok(Some(piece)))
            }
            Some(_) => {
                self.blocked = Some(section);
                Poll::Pending
            }
            // The connection is over, and why is known: this is not what is told.
            None => Poll::Ready(Err(Violation::new(Code::INTERNAL_ERROR, "the connection is over"))),
        }
    }

    fn on_end(&mut self) -> Result<Piece, Error> {
        match self.frames.end().and_then(|()| self.exchange.on_end()) {
            Ok(()) => {
                self.over = true;
                Ok(Piece::End)
            }
            Err(violation) => Err(self.violated(violation)),
        }
    }

    fn violated(&mut self, violation: Violation) -> Error {
        let failure = if violation.stream_only {
            self.give_up(violation.code);
            Failure::violation(violation)
        } else {
            self.over = true;
            self.slot.shared.violated(violation)
        };
        self.error(&failure)
    }

    fn ended(&mut self, ended: Ended) -> Error {
        // Nothing else that has left is known not to have come.
        self.early_rejected = ended.failure.delivery == Some(Delivery::NotSent);
        self.give_up(Code::REQUEST_CANCELLED);
        let error = self.error(&ended.failure);
        match ended.body_error {
            Some(source) => error.with_phase(Phase::Send).with_source(source),
            None => error,
        }
    }

    fn read_failed(&mut self, error: ReadError) -> Error {
        let failure = match error {
            ReadError::Reset(code) => Failure::reset(Code::new(code.into_inner())),
            ReadError::ConnectionLost(error) => self.slot.shared.lost(&error),
            ReadError::ZeroRttRejected => {
                self.early_rejected = true;
                Failure::early_rejected()
            }
            ReadError::ClosedStream | ReadError::IllegalOrderedRead => Failure::new(Kind::Closed, "the stream is over"),
        };
        self.give_up(Code::REQUEST_CANCELLED);
        self.error(&failure)
    }

    fn error(&self, failure: &Failure) -> Error {
        if self.exchange.has_head() {
            failure.error(Delivery::Answered, Phase::Idle)
        } else {
            failure.error(Delivery::Unknown, Phase::FirstByte)
        }
    }

    /// Reads no more, and ends the upload too.
    fn give_up(&mut self, code: Code) {
        if self.over {
            return;
        }
        self.over = true;
        self.input = Bytes::new();
        self.ahead = Ahead::default();
        self.recv.stop(code);
        self.slot.cancel(code);
        let id = self.slot.id;
        let early = self.early_rejected;
        let queued = self.slot.shared.with(|state| {
            state.blocked.retain(|(blocked, _)| *blocked != id);
            // RFC 9204 4.4.2: its sections will not be acknowledged. Of early data the peer may know
            // nothing, and another stream may get its id.
            if early || state.early || state.failure.is_some() {
                return Ok(());
            }
            state.decoder.cancel(id, &mut state.outlets[Critical::Decoder as usize].bytes);
            state.written(Critical::Decoder)
        });
        if let Err(violation) = queued {
            self.slot.shared.violated(violation);
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.give_up(Code::REQUEST_CANCELLED);
    }
}
