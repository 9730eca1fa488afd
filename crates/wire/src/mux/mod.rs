//! Many calls in flight over one stream, paired by order or by id.

mod driver;
mod events;
mod state;

use std::fmt;
use std::future::poll_fn;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::BytesMut;
use portolan_core::{Delivery, Error, Phase, Result, clock};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

pub use driver::Driver;
pub use events::{Events, Overflow};
use state::{Guarded, Request, State, Want};

use crate::codec::Codec;

/// Calls in flight, cancelled ones included until their late replies have come: what a peer may make us remember.
const DEFAULT_IN_FLIGHT: usize = 4096;
/// Bytes that wait to be written before callers wait instead: enough for one large write.
const DEFAULT_QUEUED: usize = 256 * 1024;
/// Bytes read without a whole frame among them.
const DEFAULT_MAX_BUFFER: usize = 64 * 1024 * 1024;
/// Unsolicited frames that wait for their reader.
const DEFAULT_EVENTS: usize = 1024;
/// How long a call waits for its reply, unless said otherwise: as `Timeouts` has it for the first byte.
const DEFAULT_CALL: Duration = Duration::from_secs(60);

/// What a frame that has arrived is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Route {
    /// The next reply of the oldest call.
    Next,
    /// A reply to the call that was given this id; `last` when no more of it follows.
    Id {
        /// The id, as it was given to [`Correlate::encode_call`].
        id: u64,
        /// Whether the call is thereby answered.
        last: bool,
    },
    /// Unasked: it goes to the [`Events`].
    Event,
    /// Of no interest: a keepalive, an acknowledgement.
    Ignore,
}

/// How replies find their calls.
///
/// The codec is cloned once: one half encodes on the callers' side, the other decodes in the driver. State that the two
/// must share belongs behind an `Arc` in it.
pub trait Correlate: Codec + Clone {
    /// What `frame` is about.
    fn route(&mut self, frame: &Self::Frame) -> Route;

    /// The ids that calls are given, in turn, those in use left out; `None` pairs by order.
    fn ids(&self) -> Option<RangeInclusive<u64>> {
        None
    }

    /// Encodes a call with its id. By order the id means nothing.
    fn encode_call(&mut self, id: u64, item: &Self::Out, dst: &mut BytesMut) -> Result<()> {
        let _ = id;
        self.encode(item, dst)
    }
}

/// The bounds of a [`Mux`].
#[derive(Debug, Clone)]
pub struct MuxOptions {
    in_flight: usize,
    queued: usize,
    max_buffer: usize,
    events: usize,
    overflow: Overflow,
    call: Option<Duration>,
}

impl Default for MuxOptions {
    fn default() -> Self {
        Self {
            in_flight: DEFAULT_IN_FLIGHT,
            queued: DEFAULT_QUEUED,
            max_buffer: DEFAULT_MAX_BUFFER,
            events: DEFAULT_EVENTS,
            overflow: Overflow::DropOldest,
            call: Some(DEFAULT_CALL),
        }
    }
}

impl MuxOptions {
    /// Calls in flight at once; further callers wait in turn. Default 4096. Too many and a slow peer holds that much.
    #[must_use]
    pub fn in_flight(mut self, calls: usize) -> Self {
        self.in_flight = calls.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// Bytes that may wait to be written; callers wait in turn while there are more. Default 256 KiB. One call larger
    /// than this still goes through.
    #[must_use]
    pub fn queued_bytes(mut self, bytes: usize) -> Self {
        self.queued = bytes.max(1);
        self
    }

    /// Bytes buffered for one frame. Default 64 MiB; a larger frame ends the connection with `Kind::Limit`.
    #[must_use]
    pub fn max_buffer(mut self, bytes: usize) -> Self {
        self.max_buffer = bytes;
        self
    }

    /// Unsolicited frames that may wait, and what happens to one more. Default 1024, the oldest is dropped and counted.
    #[must_use]
    pub fn events(mut self, capacity: usize, overflow: Overflow) -> Self {
        self.events = capacity.max(1);
        self.overflow = overflow;
        self
    }

    /// How long a call may take, waiting for its turn included; `None` is for ever. Default 60 s. A call that is late is
    /// given up, and its reply dropped when it comes.
    #[must_use]
    pub fn call_limit(mut self, limit: Option<Duration>) -> Self {
        self.call = limit;
        self
    }
}

/// What the handles, the events and the driver share.
struct Shared<C: Codec> {
    state: Guarded<C>,
    gate: Semaphore,
    /// The turnstile of callers that wait for queued bytes to be written, and how many they are.
    turn: tokio::sync::Mutex<()>,
    turning: AtomicUsize,
    /// Whether as many bytes are queued as may be: changed under the lock, looked at without.
    full: AtomicBool,
    drained: Notify,
    done: Notify,
    protocol: &'static str,
    options: MuxOptions,
}

impl<C: Codec> Shared<C> {
    /// After bytes were queued: whether there is room for more, and the driver to be woken.
    fn note_room(&self, state: &mut State<C>) -> Option<Waker> {
        if !state.has_room() {
            self.full.store(true, Ordering::Relaxed);
        }
        state.driver.take()
    }

    /// Marks it dead, then fails every call: whoever is woken finds it closed already.
    fn die(&self, death: state::Death) {
        let mut wakers = Vec::new();
        self.state.lock().die(death, &mut wakers);
        self.gate.close();
        self.drained.notify_waiters();
        self.done.notify_waiters();
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// The handles together: when the last goes, so does the driver.
struct Owner<C: Codec>(Arc<Shared<C>>);

impl<C: Codec> Drop for Owner<C> {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.0.state.lock();
            state.abandoned = true;
            state.driver.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A handle to a connection that many callers use at once. Cloning is cheap; when the last handle is dropped, the driver
/// stops and the connection closes, and what was only [posted](Self::post) may be lost: [`close`](Self::close) loses nothing.
///
/// Callers encode straight into one shared buffer; the driver lets the others that are ready do so too, and writes them
/// all at once. Replies are kept in recycled slots: a call on a warmed-up connection allocates nothing of its own.
///
/// **Dropping a call's future** leaves the request on its way; its late reply is dropped, by id or by counting, and the
/// connection stays in step. Until then it counts as in flight.
///
/// **Delivery**: when the connection dies, a call that was still queued fails as [`Delivery::NotSent`], one of which
/// bytes were written as [`Delivery::Unknown`]. By then [`is_closed`](Self::is_closed) is true.
pub struct Mux<C: Codec> {
    owner: Arc<Owner<C>>,
    limit: Option<Duration>,
}

impl<C> Mux<C>
where
    C: Correlate + Send + 'static,
    C::Frame: Send + 'static,
{
    /// Starts the driver as a task of the current tokio runtime.
    pub fn spawn<S>(io: S, codec: C, options: MuxOptions) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mux, driver) = Self::pair(io, codec, options);
        tokio::spawn(driver);
        mux
    }
}

impl<C: Correlate> Mux<C> {
    /// A handle and the driver, which is a future to be run wherever the caller likes; without it nothing moves.
    pub fn pair<S: AsyncRead + AsyncWrite + Unpin>(io: S, codec: C, mut options: MuxOptions) -> (Self, Driver<C, S>) {
        // No more calls at once than there are ids, so that none is refused for want of one.
        if let Some(ids) = codec.ids() {
            let ids = ids.end().saturating_sub(*ids.start()).saturating_add(1);
            options.in_flight = options.in_flight.min(usize::try_from(ids).unwrap_or(usize::MAX));
        }
        let shared = Arc::new(Shared {
            state: Guarded::new(State::new(codec.clone(), &options)),
            gate: Semaphore::new(options.in_flight),
            turn: tokio::sync::Mutex::new(()),
            turning: AtomicUsize::new(0),
            full: AtomicBool::new(false),
            drained: Notify::new(),
            done: Notify::new(),
            protocol: codec.protocol(),
            options,
        });
        let limit = shared.options.call;
        let driver = Driver::new(io, codec, shared.clone());
        (Self { owner: Arc::new(Owner(shared)), limit }, driver)
    }

    fn shared(&self) -> &Shared<C> {
        &self.owner.0
    }

    /// A handle to the same connection whose calls may take this long; `None` is for ever.
    #[must_use]
    pub fn with_limit(&self, limit: Option<Duration>) -> Self {
        Self { owner: self.owner.clone(), limit }
    }

    /// Sends a request and waits for its reply. By id, where a reply has several frames, it is the last.
    ///
    /// Dropping the future gives the reply up and harms nobody else.
    pub async fn call(&self, item: &C::Out) -> Result<C::Frame> {
        self.call_with(|codec, id, dst| codec.encode_call(id, item, dst)).await
    }

    /// The same, for a request that `encode` appends to the buffer itself. It runs under a lock: it must be short.
    pub async fn call_with(&self, encode: impl FnOnce(&mut C, u64, &mut BytesMut) -> Result<()>) -> Result<C::Frame> {
        self.submit(Want::One, State::take_one, encode).await
    }

    /// Sends what `encode` appends and waits for `replies` frames: a pipeline, a transaction. By order only.
    ///
    /// Dropping the future gives the replies up and harms nobody else.
    pub async fn call_many(
        &self,
        replies: usize,
        encode: impl FnOnce(&mut C, u64, &mut BytesMut) -> Result<()>,
    ) -> Result<Vec<C::Frame>> {
        if replies == 0 {
            return self.post_with(|codec, dst| encode(codec, 0, dst)).await.map(|()| Vec::new());
        }
        self.submit(Want::Count(replies), State::take_many, encode).await
    }

    /// Sends a request and collects its reply's frames up to the last, and at most `max` of them. By id only.
    ///
    /// Dropping the future gives the reply up and harms nobody else.
    pub async fn collect(&self, item: &C::Out, max: usize) -> Result<Vec<C::Frame>> {
        self.submit(Want::UntilLast(max), State::take_many, |codec, id, dst| codec.encode_call(id, item, dst)).await
    }

    /// Queues a request that has no reply. Success means queued, not sent.
    pub async fn post(&self, item: &C::Out) -> Result<()> {
        self.post_with(|codec, dst| codec.encode(item, dst)).await
    }

    /// The same, for a request that `encode` appends to the buffer itself.
    pub async fn post_with(&self, encode: impl FnOnce(&mut C, &mut BytesMut) -> Result<()>) -> Result<()> {
        let shared = self.shared();
        clock::within(self.limit, Phase::Pool, async {
            let _turn = self.bytes_turn().await?;
            let driver = {
                let mut state = shared.state.lock();
                state.check(shared.protocol)?;
                state.append(|codec, dst| encode(codec, dst))?;
                shared.note_room(&mut state)
            };
            if let Some(driver) = driver {
                driver.wake();
            }
            Ok(())
        })
        .await
    }

    /// The unsolicited frames; once, and `None` after.
    pub fn events(&self) -> Option<Events<C>> {
        self.shared().state.lock().events.claim().then(|| Events::new(self.owner.0.clone()))
    }

    /// Whether calls can no longer succeed.
    pub fn is_closed(&self) -> bool {
        let state = self.shared().state.lock();
        state.death.is_some() || state.closing
    }

    /// Calls in flight, given-up ones included until their late replies have come.
    pub fn in_flight(&self) -> usize {
        self.shared().state.lock().in_flight()
    }

    /// Replies to ids that no call has, or had given up: they were dropped.
    pub fn strays(&self) -> u64 {
        self.shared().state.lock().strays
    }

    /// Takes no more calls, lets those in flight finish, and closes the stream; all that within `limit`, after which the
    /// connection is cut. Dropping the future leaves the closing to go on by itself.
    pub async fn close(&self, limit: Duration) -> Result<()> {
        let shared = self.shared();
        let mut done = std::pin::pin!(shared.done.notified());
        done.as_mut().enable();
        let driver = {
            let mut state = shared.state.lock();
            if let Some(death) = &state.death {
                return death.as_close();
            }
            state.closing = true;
            state.driver.take()
        };
        if let Some(driver) = driver {
            driver.wake();
        }
        let closed = clock::within(Some(limit), Phase::Close, async {
            done.await;
            Ok(())
        })
        .await;
        if let Err(error) = closed {
            let driver = {
                let mut state = shared.state.lock();
                state.abandoned = true;
                state.driver.take()
            };
            if let Some(driver) = driver {
                driver.wake();
            }
            return Err(error.with_protocol(shared.protocol));
        }
        shared.state.lock().death.as_ref().map_or(Ok(()), state::Death::as_close)
    }

    /// Waits for a place, queues the request, and waits until the slot is filled.
    async fn submit<T>(
        &self,
        want: Want,
        take: fn(&mut State<C>, usize) -> Option<T>,
        encode: impl FnOnce(&mut C, u64, &mut BytesMut) -> Result<()>,
    ) -> Result<T> {
        let shared = self.shared();
        let deadline = self.limit.and_then(|limit| clock::now().checked_add(limit));
        let mut entry = Some((self.place().await?, encode));
        let mut ticket = None;
        poll_fn(|cx| {
            let Some(((permit, turn), encode)) = entry.take() else {
                return match &mut ticket {
                    Some(ticket) => Ticket::poll(ticket, cx, take),
                    None => Poll::Pending,
                };
            };
            let request = Request { want, deadline, limit: self.limit, waker: cx.waker().clone() };
            let mut state = shared.state.lock();
            state.check(shared.protocol)?;
            let key = state.submit(request, encode)?;
            let driver = shared.note_room(&mut state);
            drop(state);
            ticket = Some(Ticket { shared, key, armed: true });
            // The place is given back by whoever sees the reply come.
            permit.forget();
            drop(turn);
            if let Some(driver) = driver {
                driver.wake();
            }
            Poll::Pending
        })
        .await
    }

    /// A place among the calls in flight, and among the bytes that wait.
    async fn place(&self) -> Result<(SemaphorePermit<'_>, Option<Turn<'_>>)> {
        let shared = self.shared();
        if let Ok(permit) = shared.gate.try_acquire()
            && shared.turning.load(Ordering::Relaxed) == 0
            && !shared.full.load(Ordering::Relaxed)
        {
            return Ok((permit, None));
        }
        clock::within(self.limit, Phase::Pool, async {
            let permit = match shared.gate.acquire().await {
                Ok(permit) => permit,
                Err(_) => return Err(self.refused()),
            };
            Ok((permit, self.bytes_turn().await?))
        })
        .await
        .map_err(|error| error.with_protocol(shared.protocol))
    }

    /// Waits, in turn, until there is room for more bytes.
    async fn bytes_turn(&self) -> Result<Option<Turn<'_>>> {
        let shared = self.shared();
        if shared.turning.load(Ordering::Relaxed) == 0 && !shared.full.load(Ordering::Relaxed) {
            return Ok(None);
        }
        shared.turning.fetch_add(1, Ordering::Relaxed);
        let count = Counted(&shared.turning);
        let turn = Turn { _guard: shared.turn.lock().await, _count: count };
        loop {
            let mut drained = std::pin::pin!(shared.drained.notified());
            drained.as_mut().enable();
            {
                let state = shared.state.lock();
                state.check(shared.protocol)?;
                if state.has_room() {
                    return Ok(Some(turn));
                }
            }
            drained.await;
        }
    }

    fn refused(&self) -> Error {
        let state = self.shared().state.lock();
        match state.check(self.shared().protocol) {
            Err(error) => error,
            Ok(()) => Error::closed("connection closed").with_delivery(Delivery::NotSent),
        }
    }
}

struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The turnstile, held until the bytes are queued.
struct Turn<'a> {
    _guard: tokio::sync::MutexGuard<'a, ()>,
    _count: Counted<'a>,
}

/// A slot in use; dropped early, it gives the reply up.
struct Ticket<'a, C: Codec> {
    shared: &'a Shared<C>,
    key: usize,
    armed: bool,
}

impl<C: Codec> Ticket<'_, C> {
    fn poll<T>(&mut self, cx: &mut Context<'_>, take: fn(&mut State<C>, usize) -> Option<T>) -> Poll<Result<T>> {
        let mut state = self.shared.state.lock();
        ready!(state.poll_slot(self.key, cx))?;
        self.armed = false;
        let reply = take(&mut state, self.key);
        Poll::Ready(reply.ok_or_else(|| Error::protocol(self.shared.protocol, "reply without a frame")))
    }
}

impl<C: Codec> Drop for Ticket<'_, C> {
    fn drop(&mut self) {
        if self.armed {
            self.shared.state.lock().give_up(self.key);
        }
    }
}

impl<C: Codec> Clone for Mux<C> {
    fn clone(&self) -> Self {
        Self { owner: self.owner.clone(), limit: self.limit }
    }
}

impl<C: Codec> fmt::Debug for Mux<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.owner.0.state.lock();
        f.debug_struct("Mux")
            .field("protocol", &self.owner.0.protocol)
            .field("in_flight", &state.in_flight())
            .field("closed", &state.death.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
