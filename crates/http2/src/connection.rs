//! The driver: bytes between the transport and the engine, and nothing else.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::stream::{FuturesUnordered, StreamExt};
use portolan_core::clock::{self, Instant};
use portolan_core::{Delivery, Phase, Result};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

use crate::handle::SendRequest;
use crate::options::{OnEvent, Options};
use crate::proto::Engine;
use crate::proto::failure::Failure;
use crate::proto::output::Output;
use crate::shared::{Shared, Task};

/// What one read asks for at first, and at most once reads come full.
const READ: usize = 16 << 10;
const READ_MOST: usize = 256 << 10;
/// Reads in a row before the other tasks of the runtime get their turn.
const READS: usize = 16;
/// Slices of one vectored write: more than most kernels' default stack copy, far under their limit of 1024.
const SLICES: usize = 64;
/// How long the last bytes (GOAWAY) may take once the connection is over.
const FAREWELL: Duration = Duration::from_secs(1);

/// Begins HTTP/2 as a client on a connected stream, by prior knowledge or after ALPN chose `h2`.
///
/// Nothing is awaited: requests may be sent at once, and travel with the preface. The [`Connection`] must be polled (spawned)
/// for anything to move; it ends when the connection does.
pub fn handshake<T>(io: T, options: Options) -> Result<(SendRequest, Connection<T>)>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let (config, on_event) = options.checked()?;
    let shared = Arc::new(Shared::new(Engine::new(config, clock::now())));
    let handle = SendRequest::new(Arc::clone(&shared));
    let connection = Connection {
        io,
        shared,
        on_event,
        input: BytesMut::new(),
        read_size: READ,
        writing: Output::default(),
        uploads: FuturesUnordered::new(),
        timer: None,
        wakes: Vec::new(),
        yielded: false,
        unflushed: false,
        deaf: None,
        lost: false,
        ending: None,
    };
    Ok((handle, connection))
}

/// The driver of one connection: a future to be spawned. It gives `Ok` after a graceful end, and the reason otherwise.
///
/// Dropping it closes the transport at once and fails what is in flight.
#[must_use = "nothing moves unless the connection is polled"]
pub struct Connection<T> {
    io: T,
    shared: Arc<Shared>,
    on_event: Option<OnEvent>,
    input: BytesMut,
    read_size: usize,
    writing: Output,
    uploads: FuturesUnordered<Task>,
    timer: Option<(Instant, Task)>,
    /// Kept for its room.
    wakes: Vec<Waker>,
    /// The others had their turn to add to this batch.
    yielded: bool,
    /// The transport may hold what was written: TLS does.
    unflushed: bool,
    /// The transport takes nothing any more; what the peer said before is read for so long.
    deaf: Option<Deaf>,
    /// The transport takes or gives nothing any more.
    lost: bool,
    ending: Option<Ending>,
}

struct Deaf {
    error: io::Error,
    by: Instant,
}

struct Ending {
    failure: Option<Failure>,
    by: Instant,
}

/// What the write side came to.
enum Wrote {
    /// The batch may still grow: come back after the others.
    Later,
    All,
    Blocked,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Connection<T> {
    /// Works on the engine, then wakes who is due, with the lock let go.
    fn with<R>(&mut self, work: impl FnOnce(&mut Engine) -> R) -> R {
        let mut engine = self.shared.lock();
        let result = work(&mut engine);
        std::mem::swap(&mut engine.wakes, &mut self.wakes);
        let events = if engine.events.is_empty() { Default::default() } else { std::mem::take(&mut engine.events) };
        drop(engine);
        self.wakes.drain(..).for_each(Waker::wake);
        if let Some(on_event) = &self.on_event {
            events.into_iter().for_each(|event| on_event(event));
        }
        result
    }

    fn read(&mut self, cx: &mut Context<'_>) {
        for _ in 0..READS {
            if self.lost || self.ending.is_some() {
                return;
            }
            let wanted = self.shared.lock().wanted(&self.input);
            if self.input.capacity() - self.input.len() < wanted.max(self.read_size / 4) {
                self.input.reserve(wanted.max(self.read_size));
            }
            let room = self.input.capacity() - self.input.len();
            match poll_read_buf(Pin::new(&mut self.io), cx, &mut self.input) {
                Poll::Pending => return,
                Poll::Ready(Ok(0)) => {
                    self.lost = true;
                    let deaf = self.deaf.take();
                    self.give_up(|engine| match deaf {
                        Some(deaf) if engine.goaway.is_none() => engine.on_io_error(&deaf.error),
                        _ => engine.on_eof(),
                    });
                }
                Poll::Ready(Ok(count)) => {
                    if count == room {
                        self.read_size = (self.read_size * 2).min(READ_MOST);
                    }
                    let now = clock::now();
                    let mut input = std::mem::take(&mut self.input);
                    self.with(|engine| engine.recv(&mut input, now));
                    self.input = input;
                }
                Poll::Ready(Err(error)) => self.transport_failed(&error),
            }
        }
        cx.waker().wake_by_ref();
    }

    fn transport_failed(&mut self, error: &io::Error) {
        self.lost = true;
        self.give_up(|engine| engine.on_io_error(error));
    }

    /// The transport takes nothing more. The end of a socket is told to who writes before what came ahead of it is told to who
    /// reads: a GOAWAY may be there, and answers. No request is taken from here on.
    fn write_failed(&mut self, error: io::Error) {
        if self.ending.is_some() {
            return self.transport_failed(&error);
        }
        let unwritten = std::mem::take(&mut self.writing).len();
        self.with(|engine| engine.deafened(unwritten));
        self.deaf = Some(Deaf { error, by: clock::now() + FAREWELL });
    }

    /// What was handed over and not written is not sent: a request wholly within it is told so.
    fn give_up(&mut self, fail: impl FnOnce(&mut Engine)) {
        let unwritten = std::mem::take(&mut self.writing).len();
        self.with(|engine| {
            engine.not_written(unwritten);
            fail(engine);
        });
    }

    fn drive_uploads(&mut self, cx: &mut Context<'_>) {
        self.uploads.extend(self.shared.take_uploads());
        while !self.uploads.is_empty() {
            match self.uploads.poll_next_unpin(cx) {
                Poll::Ready(Some(())) => {}
                Poll::Ready(None) | Poll::Pending => return,
            }
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Wrote {
        while !self.lost && self.deaf.is_none() {
            if self.writing.is_empty() {
                if self.shared.lock().out.is_empty() {
                    break;
                }
                // The scheduler runs us after each caller; callers that are ready now share one write.
                if !self.yielded && self.ending.is_none() {
                    self.yielded = true;
                    cx.waker().wake_by_ref();
                    return Wrote::Later;
                }
                let mut writing = std::mem::take(&mut self.writing);
                self.with(|engine| engine.take_output(&mut writing));
                self.writing = writing;
                // Uploads that waited for room add to the next batch.
                self.drive_uploads(cx);
            }
            self.unflushed = true;
            match self.poll_write(cx) {
                Poll::Pending => return Wrote::Blocked,
                Poll::Ready(Ok(0)) => self.write_failed(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => self.writing.advance(count),
                Poll::Ready(Err(error)) => self.write_failed(error),
            }
        }
        self.yielded = false;
        if self.deaf.is_some() {
            self.shared.lock().out = Output::default();
        } else if self.unflushed && !self.lost {
            match Pin::new(&mut self.io).poll_flush(cx) {
                Poll::Pending => return Wrote::Blocked,
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => self.write_failed(error),
            }
        }
        Wrote::All
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let count = self.writing.slices(&mut slices);
        match slices.get(..count).unwrap_or_default() {
            [one] => Pin::new(&mut self.io).poll_write(cx, one),
            many => Pin::new(&mut self.io).poll_write_vectored(cx, many),
        }
    }

    /// Begins the end when there is nothing left to do.
    fn check_end(&mut self) {
        if self.ending.is_some() || !self.shared.lock().is_done() {
            return;
        }
        if let Some(deaf) = self.deaf.take() {
            self.transport_failed(&deaf.error);
        }
        let failure = self.with(|engine| {
            let failure = engine.failure.clone();
            engine.finish();
            failure
        });
        self.ending = Some(Ending { failure, by: clock::now() + FAREWELL });
    }

    /// Waits for the deadline that is due first; `true` when it has passed.
    fn poll_timer(&mut self, cx: &mut Context<'_>, due: Option<Instant>) -> bool {
        let Some(due) = due else {
            self.timer = None;
            return false;
        };
        // A timer that rings too early costs one poll; setting one for each read would cost more.
        if self.timer.as_ref().is_none_or(|(set, _)| *set > due) {
            self.timer = Some((due, Box::pin(clock::sleep_until(due))));
        }
        while let Some((set, timer)) = &mut self.timer {
            if timer.as_mut().poll(cx).is_pending() {
                return false;
            }
            if *set >= due {
                self.timer = None;
                return true;
            }
            self.timer = Some((due, Box::pin(clock::sleep_until(due))));
        }
        false
    }

    fn poll_farewell(&mut self, cx: &mut Context<'_>, wrote: &Wrote) -> Poll<Result<()>> {
        let Some(ending) = &self.ending else { return Poll::Pending };
        let (by, failure) = (ending.by, ending.failure.clone());
        let late = self.poll_timer(cx, Some(by));
        if !late && !self.lost {
            if !matches!(wrote, Wrote::All) {
                return Poll::Pending;
            }
            // Its failure changes nothing: the connection is over already.
            let _ = ready!(Pin::new(&mut self.io).poll_shutdown(cx));
        }
        Poll::Ready(failure.map_or(Ok(()), |failure| Err(failure.error(Delivery::Unknown, Phase::Idle))))
    }

    /// Leaves the waker with the engine; `false` when there is more to do first.
    fn park(&mut self, cx: &mut Context<'_>, wrote: &Wrote) -> bool {
        let mut engine = self.shared.lock();
        let more = matches!(wrote, Wrote::All) && !engine.out.is_empty();
        if more || engine.is_done() || self.shared.has_uploads() {
            return false;
        }
        let due = engine.next_timeout().into_iter().chain(self.deaf.as_ref().map(|deaf| deaf.by)).min();
        match &mut engine.driver {
            Some(driver) => driver.clone_from(cx.waker()),
            None => engine.driver = Some(cx.waker().clone()),
        }
        drop(engine);
        if due.is_none() && self.timer.is_none() {
            return true;
        }
        if self.poll_timer(cx, due) {
            let now = clock::now();
            self.with(|engine| engine.on_timeout(now));
            if let Some(deaf) = self.deaf.take_if(|deaf| deaf.by <= now) {
                self.transport_failed(&deaf.error);
            }
            return false;
        }
        true
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Future for Connection<T> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        this.read(cx);
        loop {
            this.drive_uploads(cx);
            this.check_end();
            let wrote = this.write(cx);
            if this.ending.is_some() {
                return this.poll_farewell(cx, &wrote);
            }
            if matches!(wrote, Wrote::Later) {
                return Poll::Pending;
            }
            if this.park(cx, &wrote) {
                return Poll::Pending;
            }
        }
    }
}

impl<T> Drop for Connection<T> {
    fn drop(&mut self) {
        let unwritten = self.writing.len();
        self.shared.with(|engine| {
            engine.not_written(unwritten);
            engine.fail(Failure::new(portolan_core::Kind::Closed, "the connection's driver was dropped"));
        });
        self.shared.refuse_uploads();
    }
}

impl<T> fmt::Debug for Connection<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("status", &self.shared.lock().status()).finish_non_exhaustive()
    }
}
