//! The one task that owns a [`Mux`](super::Mux)'s stream.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::BytesMut;
use portolan_core::{Error, Kind, Phase, Result, clock};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::state::Death;
use super::{Correlate, Route, Shared};
use crate::alarm::Alarm;

/// The first read buffer, and all of it that an idle connection keeps.
const READ_CHUNK: usize = 2 * 1024;
/// The largest step by which the read buffer grows.
const MAX_READ_CHUNK: usize = 256 * 1024;
/// Frames handed out under one lock, so that callers are not kept from it for long.
const BATCH: usize = 256;
/// Write buffers larger than this are given back when they are empty.
const KEPT_BUFFER: usize = 256 * 1024;
/// Write buffers larger than this are given back when the connection is idle.
const IDLE_BUFFER: usize = 1024;
/// How long nothing must have come before a connection is idle, at most twice this: between bursts the buffers are kept.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// Moves a [`Mux`](super::Mux)'s bytes until the connection ends, we close it, or the last handle is dropped. Dropping it
/// ends the connection and fails the calls in flight.
pub struct Driver<C: Correlate, S> {
    io: S,
    codec: C,
    shared: Arc<Shared<C>>,
    read: BytesMut,
    chunk: usize,
    eof: bool,
    frames: VecDeque<(Route, C::Frame)>,
    /// An event has no room and must not be lost: nothing is read until it has.
    stalled: bool,
    write: BytesMut,
    written: usize,
    flushing: bool,
    /// The other callers that were ready have had their chance to join this write.
    yielded: bool,
    alarm: Alarm,
    wakers: Vec<Waker>,
    /// Set while there are large buffers; the bytes read so far, modulo a lot, now and when it rang last.
    idle: Alarm,
    received: u64,
    seen: u64,
}

// Nothing in it is ever pinned: every future it polls is made anew for each poll.
impl<C: Correlate, S> Unpin for Driver<C, S> {}

impl<C: Correlate, S: AsyncRead + AsyncWrite + Unpin> Driver<C, S> {
    pub(super) fn new(io: S, codec: C, shared: Arc<Shared<C>>) -> Self {
        Self {
            io,
            codec,
            shared,
            read: BytesMut::new(),
            chunk: READ_CHUNK,
            eof: false,
            frames: VecDeque::new(),
            stalled: false,
            write: BytesMut::new(),
            written: 0,
            flushing: false,
            yielded: false,
            alarm: Alarm::default(),
            wakers: Vec::new(),
            idle: Alarm::default(),
            received: 0,
            seen: 0,
        }
    }

    fn run(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            self.receive(cx)?;
            if self.send(cx)? {
                // Scheduled again already, behind whoever is ready to add to this write.
                return Poll::Pending;
            }
            if self.expire(cx) || self.shrink(cx) {
                continue;
            }
            let mut state = self.shared.state.lock();
            if state.abandoned {
                return Poll::Ready(Ok(()));
            }
            let idle = self.written >= self.write.len();
            if idle && !state.out.is_empty() {
                continue;
            }
            if state.closing && idle && state.is_drained() {
                drop(state);
                ready!(Pin::new(&mut self.io).poll_shutdown(cx)).map_err(|error| Error::io(Phase::Close, error))?;
                return Poll::Ready(Ok(()));
            }
            if state.driver.is_none() {
                state.driver = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
    }

    /// Reads and hands out until there is nothing more to read.
    fn receive(&mut self, cx: &mut Context<'_>) -> Result<()> {
        loop {
            self.hand_out()?;
            if self.stalled {
                return Ok(());
            }
            if self.eof {
                return Err(Error::closed("the peer closed"));
            }
            if self.read.len() >= self.shared.options.max_buffer {
                let message = format!("{} bytes without a whole frame", self.read.len());
                return Err(Error::new(Kind::Limit, message));
            }
            if self.read.capacity().saturating_sub(self.read.len()) < self.chunk / 2 {
                self.read.reserve(self.chunk);
            }
            let room = self.read.capacity().saturating_sub(self.read.len());
            match pin!(self.io.read_buf(&mut self.read)).poll(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => self.eof = true,
                Poll::Ready(Ok(n)) => {
                    self.received = self.received.wrapping_add(u64::try_from(n).unwrap_or(1));
                    if n == room {
                        self.chunk = self.chunk.saturating_mul(2).min(MAX_READ_CHUNK);
                    }
                }
                Poll::Ready(Err(error)) => return Err(Error::io(Phase::Idle, error)),
            }
        }
    }

    /// Decodes what has arrived and gives it to the callers, a batch under each lock.
    fn hand_out(&mut self) -> Result<()> {
        loop {
            let decoded = self.decode();
            let mut places = 0;
            let delivered = self.deliver(&mut places);
            if places > 0 {
                self.shared.gate.add_permits(places);
            }
            for waker in self.wakers.drain(..) {
                waker.wake();
            }
            delivered?;
            if !decoded? || self.stalled {
                return Ok(());
            }
        }
    }

    /// A batch of frames; whether there may be more.
    fn decode(&mut self) -> Result<bool> {
        while self.frames.len() < BATCH {
            if self.read.is_empty() && !self.eof {
                return Ok(false);
            }
            let result =
                if self.eof { self.codec.decode_eof(&mut self.read) } else { self.codec.decode(&mut self.read) };
            match result {
                Ok(Some(frame)) => {
                    let route = self.codec.route(&frame);
                    self.frames.push_back((route, frame));
                }
                Ok(None) => return Ok(false),
                Err(error) if self.eof && error.is_truncated() => {
                    return Err(Error::closed("the peer closed in mid-reply").with_source(error));
                }
                Err(error) => return Err(error.into_error(self.shared.protocol)),
            }
        }
        Ok(true)
    }

    fn deliver(&mut self, places: &mut usize) -> Result<()> {
        self.stalled = false;
        if self.frames.is_empty() {
            return Ok(());
        }
        let mut state = self.shared.state.lock();
        while let Some((route, frame)) = self.frames.pop_front() {
            if let Some(frame) = state.deliver(route, frame, &mut self.wakers, places)? {
                self.frames.push_front((route, frame));
                self.stalled = true;
                break;
            }
        }
        Ok(())
    }

    /// Writes what is queued; true when it gave way to other callers first.
    fn send(&mut self, cx: &mut Context<'_>) -> Result<bool> {
        loop {
            if self.written >= self.write.len() && !self.refill() {
                if self.flushing
                    && let Poll::Ready(flushed) = Pin::new(&mut self.io).poll_flush(cx)
                {
                    flushed.map_err(|error| Error::io(Phase::Send, error))?;
                    self.flushing = false;
                }
                return Ok(false);
            }
            if self.written >= self.write.len() {
                self.yielded = true;
                cx.waker().wake_by_ref();
                return Ok(true);
            }
            let bytes = self.write.get(self.written..).unwrap_or(&[]);
            match Pin::new(&mut self.io).poll_write(cx, bytes) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Ok(0)) => return Err(Error::closed("the stream takes no more").with_phase(Phase::Send)),
                Poll::Ready(Ok(n)) => {
                    self.written = self.written.saturating_add(n);
                    self.flushing = true;
                    let mut state = self.shared.state.lock();
                    state.written = state.written.saturating_add(u64::try_from(n).unwrap_or(u64::MAX));
                }
                Poll::Ready(Err(error)) => return Err(Error::io(Phase::Send, error)),
            }
        }
    }

    /// Takes the queued bytes over, on the second look; whether there are any.
    fn refill(&mut self) -> bool {
        self.write.clear();
        self.written = 0;
        if self.write.capacity() > KEPT_BUFFER {
            self.write = BytesMut::new();
        }
        let was_full = {
            let mut state = self.shared.state.lock();
            if state.out.is_empty() {
                return false;
            }
            if !self.yielded {
                return true;
            }
            let was_full = !state.has_room();
            std::mem::swap(&mut state.out, &mut self.write);
            self.shared.full.store(false, Ordering::Relaxed);
            was_full
        };
        self.yielded = false;
        if was_full {
            self.shared.drained.notify_waiters();
        }
        true
    }

    /// Gives the large buffers of a burst back when nothing has come for a while; whether the stream must be polled again.
    fn shrink(&mut self, cx: &mut Context<'_>) -> bool {
        if self.chunk <= READ_CHUNK && self.write.capacity() <= IDLE_BUFFER {
            return false;
        }
        loop {
            if !self.idle.is_set() {
                self.idle.after(Some(IDLE_AFTER));
            }
            if self.idle.poll(cx).is_pending() {
                return false;
            }
            self.idle.at(None);
            if self.seen == self.received {
                break;
            }
            self.seen = self.received;
        }
        if !self.read.is_empty() || self.written < self.write.len() {
            return false;
        }
        (self.read, self.chunk) = (BytesMut::new(), READ_CHUNK);
        (self.write, self.written) = (BytesMut::new(), 0);
        (self.frames, self.wakers) = (VecDeque::new(), Vec::new());
        self.shared.state.lock().shrink(IDLE_BUFFER);
        true
    }

    /// Fails the calls that are late; whether there may be any.
    fn expire(&mut self, cx: &mut Context<'_>) -> bool {
        let earliest = self.shared.state.lock().earliest;
        self.alarm.at(earliest);
        if self.alarm.poll(cx).is_pending() {
            return false;
        }
        self.shared.state.lock().expire(clock::now(), self.shared.protocol, &mut self.wakers);
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
        true
    }
}

impl<C: Correlate, S: AsyncRead + AsyncWrite + Unpin> Future for Driver<C, S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let protocol = this.shared.protocol;
        let death = match ready!(this.run(cx)) {
            Ok(()) => Death::by_us(protocol, "connection was closed"),
            Err(error) => Death::of(protocol, error),
        };
        this.shared.die(death);
        Poll::Ready(())
    }
}

impl<C: Correlate, S> Drop for Driver<C, S> {
    fn drop(&mut self) {
        // A runtime that ends, or a task that was aborted; after an orderly end this changes nothing.
        self.shared.die(Death::by_us(self.shared.protocol, "connection's driver was dropped"));
    }
}

impl<C: Correlate, S> fmt::Debug for Driver<C, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("protocol", &self.shared.protocol).finish_non_exhaustive()
    }
}

#[cfg(test)]
impl<C: Correlate, S> Driver<C, S> {
    pub(super) fn held(&self) -> usize {
        self.read.capacity() + self.write.capacity()
    }
}
