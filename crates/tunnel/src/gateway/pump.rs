//! One tunnel: a WebSocket, a connection to the target, and what waits between them.

use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Sink;
use portolan_core::clock::{self, Instant};
use portolan_core::{BoxFuture, Error, Kind, Result, Stream};
use portolan_websocket::{CloseCode, DataKind, Incoming, Message, WebSocket};
use portolan_wire::Alarm;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::limits::Limits;
use super::metrics::{Counters, Outcome, add};
use super::queue::Queue;
use crate::protocol::{FIN, MAX_WORD, OPEN, Reason};

/// What one read from the target asks for. It lies on the stack: an idle tunnel has no buffer.
const READ: usize = 16 << 10;

enum Target {
    Opening(BoxFuture<'static, Result<Stream>>),
    Open(Stream),
    Gone,
}

/// The way from the client to the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Up {
    Flowing,
    /// The client's side is over; the target hears of it when it has taken what waits.
    Fin,
    Done,
    /// The target takes nothing more: what the client still sends goes nowhere.
    Broken,
}

/// The way from the target to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Down {
    Flowing,
    /// The target's side is over; the client is yet to hear of it.
    Fin,
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    /// The client said Close: what waits for the target is still delivered.
    Draining,
    /// We said Close.
    Closing,
}

pub(super) struct Pump {
    socket: WebSocket<Stream>,
    /// The WebSocket has ended.
    over: bool,
    target: Target,
    queue: Queue,
    word: Vec<u8>,
    up: Up,
    down: Down,
    stage: Stage,
    /// The target was given bytes that are not flushed.
    unflushed: bool,
    outcome: Option<Outcome>,
    limits: Arc<Limits>,
    counters: Arc<Counters>,
    bytes_up: u64,
    bytes_down: u64,
    held_most: usize,
    started: Instant,
    moved_at: Instant,
    alarm: Alarm,
    /// When a closing tunnel is given up.
    give_up: Option<Instant>,
}

impl Pump {
    pub(super) fn new(
        socket: WebSocket<Stream>,
        target: BoxFuture<'static, Result<Stream>>,
        limits: Arc<Limits>,
        counters: Arc<Counters>,
    ) -> Self {
        let now = clock::now();
        Self {
            socket,
            over: false,
            target: Target::Opening(target),
            queue: Queue::default(),
            word: Vec::new(),
            up: Up::Flowing,
            down: Down::Flowing,
            stage: Stage::Running,
            unflushed: false,
            outcome: None,
            limits,
            counters,
            bytes_up: 0,
            bytes_down: 0,
            held_most: 0,
            started: now,
            moved_at: now,
            alarm: Alarm::default(),
            give_up: None,
        }
    }

    /// Bytes that went up and down.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.bytes_up, self.bytes_down)
    }

    /// Moves what can be moved; ready when the tunnel is over and everything it held is let go.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        loop {
            let mut moved = self.poll_open(cx);
            moved |= self.poll_client(cx);
            moved |= self.poll_up(cx);
            moved |= self.poll_down(cx);
            moved |= self.settle();
            self.note_held();
            if !self.over {
                // Why it fails is told to the reading side. Room that it made is to be used at once.
                let before = self.socket.write_backlog();
                let _ = Sink::poll_flush(Pin::new(&mut self.socket), cx);
                moved |= self.socket.write_backlog() < before;
            }
            if let Some(outcome) = self.ended() {
                return Poll::Ready(outcome);
            }
            if moved {
                self.moved_at = clock::now();
            } else if self.poll_alarm(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Says Close, and lets the target go. Only the first reason counts.
    pub(super) fn close(&mut self, code: CloseCode, words: &str, outcome: Outcome) {
        if self.stage == Stage::Closing {
            return;
        }
        self.outcome.get_or_insert(outcome);
        self.let_go();
        // If the client said Close before, this does nothing.
        let _ = self.socket.start_close(code, words);
        self.stage = Stage::Closing;
        self.give_up_later();
    }

    fn end(&mut self, reason: Reason, outcome: Outcome) {
        self.close(reason.close_code(), reason.words(), outcome);
    }

    fn let_go(&mut self) {
        self.target = Target::Gone;
        self.queue.clear();
        (self.up, self.down) = (Up::Done, Down::Done);
    }

    fn give_up_later(&mut self) {
        if self.give_up.is_none() {
            self.give_up = clock::now().checked_add(self.limits.close);
        }
    }

    /// Takes the target's connection when it is made.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> bool {
        let Target::Opening(opening) = &mut self.target else { return false };
        match opening.as_mut().poll(cx) {
            Poll::Pending => return false,
            Poll::Ready(Ok(stream)) => {
                self.target = Target::Open(stream);
                add(&self.counters.opened, 1);
                if self.stage == Stage::Running {
                    // It is the first message, so there is room.
                    let _ = Sink::start_send(Pin::new(&mut self.socket), Message::from(OPEN));
                }
            }
            Poll::Ready(Err(error)) => {
                tracing::debug!(%error, "target not opened");
                self.end(not_opened(&error), Outcome::NotOpened);
            }
        }
        true
    }

    /// Reads from the client while less than the window waits for the target.
    fn poll_client(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while !self.over && (self.stage != Stage::Running || self.queue.len() < self.limits.window) {
            match self.socket.poll_incoming(cx) {
                Poll::Pending => break,
                Poll::Ready(Ok(Some(Incoming::Data { kind, data, end }))) => self.data(kind, data, end),
                Poll::Ready(Ok(Some(_))) => self.client_closed(),
                Poll::Ready(Ok(None)) => self.over = true,
                Poll::Ready(Err(error)) => self.client_lost(&error),
            }
            moved = true;
        }
        moved
    }

    fn data(&mut self, kind: DataKind, data: Bytes, end: bool) {
        if self.stage != Stage::Running || self.up == Up::Broken {
            return;
        }
        if kind == DataKind::Text {
            return self.word(&data, end);
        }
        if self.up != Up::Flowing {
            return self.close(CloseCode::PROTOCOL, "bytes after the end", Outcome::Violation);
        }
        let len = data.len() as u64;
        self.bytes_up += len;
        add(&self.counters.bytes_up, len);
        self.queue.push(data);
        self.check_bytes();
    }

    fn word(&mut self, data: &[u8], end: bool) {
        self.word.extend_from_slice(data.get(..data.len().min(MAX_WORD + 1)).unwrap_or_default());
        if self.word.len() > MAX_WORD {
            return self.close(CloseCode::UNSUPPORTED, "unknown word", Outcome::Violation);
        }
        if !end {
            return;
        }
        if std::mem::take(&mut self.word) != FIN.as_bytes() {
            return self.close(CloseCode::UNSUPPORTED, "unknown word", Outcome::Violation);
        }
        if self.up != Up::Flowing {
            return self.close(CloseCode::PROTOCOL, "a second end", Outcome::Violation);
        }
        self.up = Up::Fin;
    }

    fn check_bytes(&mut self) {
        if self.limits.bytes.is_some_and(|limit| self.bytes_up + self.bytes_down > limit) {
            self.end(Reason::Bytes, Outcome::Limit);
        }
    }

    /// The client wants nothing more; what it sent before is delivered, in the time that closing may take.
    fn client_closed(&mut self) {
        if self.stage != Stage::Running {
            return;
        }
        self.outcome.get_or_insert(Outcome::Done);
        self.stage = Stage::Draining;
        self.give_up_later();
        self.down = Down::Done;
        if self.up == Up::Flowing {
            self.up = Up::Fin;
        }
        if self.queue.len() == 0 && matches!(self.target, Target::Opening(_)) {
            self.let_go();
        }
    }

    fn client_lost(&mut self, error: &Error) {
        self.over = true;
        let outcome = match error.kind() {
            Kind::Protocol | Kind::Limit => Outcome::Violation,
            _ => Outcome::ClientLost,
        };
        self.outcome.get_or_insert(outcome);
        // After a Close in good order what waits is still delivered, whatever becomes of the connection.
        if self.stage != Stage::Draining {
            self.let_go();
            self.stage = Stage::Closing;
        }
    }

    /// Writes to the target, and says FIN after all of it.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> bool {
        let Target::Open(target) = &mut self.target else { return false };
        let mut moved = false;
        let mut target = Pin::new(target);
        while self.queue.len() > 0 {
            match target.as_mut().poll_write(cx, self.queue.front()) {
                Poll::Pending => return moved,
                Poll::Ready(Ok(n @ 1..)) => self.queue.advance(n),
                Poll::Ready(_) => return self.broken(),
            }
            (moved, self.unflushed) = (true, true);
        }
        if self.unflushed {
            match target.as_mut().poll_flush(cx) {
                Poll::Pending => return moved,
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(_)) => return self.broken(),
            }
        }
        if self.up == Up::Fin {
            match target.poll_shutdown(cx) {
                Poll::Pending => return moved,
                Poll::Ready(Ok(())) => self.up = Up::Done,
                Poll::Ready(Err(_)) => return self.broken(),
            }
            moved = true;
        }
        moved
    }

    fn broken(&mut self) -> bool {
        self.queue.clear();
        self.unflushed = false;
        self.up = Up::Broken;
        true
    }

    /// Reads from the target while the client takes it.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while self.down == Down::Flowing && self.has_room(cx) {
            let Target::Open(target) = &mut self.target else { return moved };
            let mut space = [MaybeUninit::<u8>::uninit(); READ];
            let mut buf = ReadBuf::uninit(&mut space);
            match Pin::new(target).poll_read(cx, &mut buf) {
                Poll::Pending => return moved,
                Poll::Ready(Ok(())) if buf.filled().is_empty() => self.down = Down::Fin,
                Poll::Ready(Ok(())) => {
                    let n = buf.filled().len();
                    self.bytes_down += n as u64;
                    add(&self.counters.bytes_down, n as u64);
                    match self.socket.poll_write_bytes(cx, buf.filled()) {
                        Poll::Ready(Ok(taken)) if taken == n => self.check_bytes(),
                        // There was room, so the WebSocket is at its end: the reading side says why.
                        _ => self.down = Down::Done,
                    }
                }
                Poll::Ready(Err(_)) => self.end(Reason::Reset, Outcome::TargetReset),
            }
            moved = true;
        }
        if self.down == Down::Fin && self.has_room(cx) {
            let _ = Sink::start_send(Pin::new(&mut self.socket), Message::from(FIN));
            self.down = Down::Done;
            moved = true;
        }
        moved
    }

    fn has_room(&mut self, cx: &mut Context<'_>) -> bool {
        !self.over && matches!(Sink::poll_ready(Pin::new(&mut self.socket), cx), Poll::Ready(Ok(())))
    }

    fn note_held(&mut self) {
        let held = self.queue.len() + self.socket.write_backlog();
        if held > self.held_most {
            self.held_most = held;
            self.counters.held_most.fetch_max(held, Ordering::Relaxed);
        }
    }

    /// Says Close once both sides are over.
    fn settle(&mut self) -> bool {
        let up = matches!(self.up, Up::Done | Up::Broken);
        if self.stage != Stage::Running || !up || self.down != Down::Done {
            return false;
        }
        if self.up == Up::Broken {
            self.end(Reason::Reset, Outcome::TargetReset);
        } else {
            self.close(CloseCode::NORMAL, "", Outcome::Done);
        }
        true
    }

    /// How the tunnel ended, if it has.
    fn ended(&self) -> Option<Outcome> {
        let up = matches!(self.up, Up::Done | Up::Broken);
        let done = match self.stage {
            Stage::Running => false,
            Stage::Draining => up && self.over,
            Stage::Closing => self.over,
        };
        self.outcome.filter(|_| done)
    }

    /// What rings next: the end of an idle tunnel, of a long one, or of a slow goodbye.
    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let idle = self.limits.idle.and_then(|limit| self.moved_at.checked_add(limit));
        let lifetime = self.limits.lifetime.and_then(|limit| self.started.checked_add(limit));
        let next = match self.give_up {
            Some(at) => Some(at),
            None => [idle, lifetime].into_iter().flatten().min(),
        };
        self.alarm.at(next);
        std::task::ready!(self.alarm.poll(cx));
        if self.give_up.is_some() {
            self.let_go();
            self.over = true;
        } else if lifetime.is_some_and(|at| Some(at) == next) {
            self.end(Reason::Lifetime, Outcome::Limit);
        } else {
            self.end(Reason::Idle, Outcome::Limit);
        }
        Poll::Ready(())
    }
}

fn not_opened(error: &Error) -> Reason {
    match error.kind() {
        Kind::Blocked => Reason::Forbidden,
        Kind::Resolve => Reason::Unresolved,
        Kind::Timeout => Reason::OpenTimeout,
        _ => Reason::Unreachable,
    }
}
