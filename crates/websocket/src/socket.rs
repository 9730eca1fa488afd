//! A connection: messages out, messages in, and the closing handshake.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use portolan_core::clock::{self, Instant};
use portolan_core::{Delivery, Error, Kind, Phase, Result, Stream};
use portolan_wire::Alarm;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

use crate::codec::{CloseCode, CloseFrame, Decoder, Event, Message, PROTOCOL, Violation};
use crate::heard::Ear;
use crate::options::Options;
use crate::outbound::Outbound;

/// What one read asks for at first, and at most once reads come full.
const READ: usize = 4 << 10;
const READ_MOST: usize = 64 << 10;
const READ_MOST_LEAN: usize = 32 << 10;
/// Less room than this is not worth a read.
const READ_LEAST: usize = 1 << 10;
/// The most that is reserved on the word of a frame's header alone.
const RESERVE: usize = 1 << 20;
/// How long the peer may take to end the connection after both have said Close; and how long one that broke a rule may take to
/// hear of it, since closing at once would reset the connection, and it would not.
const LINGER: Duration = Duration::from_secs(1);
/// A buffer made for a long frame is let go after this many reads that had no use for it.
const SHRINK_AFTER: u8 = 16;

/// A WebSocket connection over `T`, after the handshake.
///
/// It does its work in the task that polls it: pings are answered and closes confirmed while messages are received (or
/// the connection is flushed), and nothing runs behind the caller's back. Dropping it closes the transport without a word.
pub struct WebSocket<T = Stream> {
    pub(crate) io: T,
    pub(crate) core: Core,
}

pub(crate) struct Core {
    decoder: Decoder,
    pub(crate) out: Outbound,
    input: BytesMut,
    read_size: usize,
    small_reads: u8,
    phase: Stage,
    /// What is told once the last words are written.
    error: Option<Error>,
    options: Options,
    alarm: Alarm,
    heard: Option<Instant>,
    pinged: bool,
    peer_close: Option<CloseFrame>,
    /// Messages that nobody will read are passed over until the end of the one at hand.
    skip: bool,
    shut: bool,
    /// The transport ended before the conversation did.
    broken: bool,
    /// The writing half waits: the reading half is to wake it when that may have changed.
    pub(crate) writer_waits: bool,
    subprotocol: Option<Box<str>>,
    ear: Option<Box<Ear>>,
}

/// Where the closing handshake stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// We said Close, and wait for the peer's.
    Closing,
    /// Both did: the transport is to end.
    Ending,
    /// The peer broke a rule and is told so, then it is over.
    Failing,
    Over,
}

/// The two wakers of a poll: they differ when the halves are polled by different tasks.
#[derive(Clone, Copy)]
pub(crate) struct Wakers<'a> {
    pub(crate) read: &'a Waker,
    pub(crate) write: &'a Waker,
}

impl<'a> Wakers<'a> {
    pub(crate) fn same(cx: &Context<'a>) -> Self {
        Self { read: cx.waker(), write: cx.waker() }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> WebSocket<T> {
    /// Goes on after a handshake that was made elsewhere: say what it agreed on by [`Options::agreed`], and hand over what it
    /// had read too far by [`Options::early`].
    pub fn from_stream(io: T, mut options: Options) -> Self {
        let early = std::mem::take(&mut options.early);
        Self { io, core: Core::new(options, early) }
    }

    /// The same conversation over the same stream under another type.
    pub(crate) fn map_io<U>(self, change: impl FnOnce(T) -> U) -> WebSocket<U> {
        WebSocket { io: change(self.io), core: self.core }
    }

    pub(crate) fn with_subprotocol(mut self, subprotocol: Option<String>) -> Self {
        self.core.subprotocol = subprotocol.map(String::into_boxed_str);
        self
    }

    /// The subprotocol that the server chose.
    pub fn subprotocol(&self) -> Option<&str> {
        self.core.subprotocol.as_deref()
    }

    /// Whether both ends compress.
    pub fn is_compressed(&self) -> bool {
        self.core.options.agreed.is_some()
    }

    /// The transport, for its facts. Reading from or writing to it breaks the conversation.
    pub fn transport(&self) -> &T {
        &self.io
    }

    /// Bytes that were sent and that the transport has not taken yet.
    pub fn write_backlog(&self) -> usize {
        self.core.out.waiting()
    }

    /// The next message, whole. `None` after the closing handshake, whoever began it; the peer's Close is given before it.
    ///
    /// A connection that ends without one is an error of [`Kind::Closed`]. Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Result<Option<Message>> {
        if let Some(message) = self.core.at_hand() {
            return Ok(Some(message));
        }
        std::future::poll_fn(|cx| self.poll_recv(Wakers::same(cx))).await.transpose()
    }

    /// Sends a message and flushes it to the transport.
    ///
    /// It waits while the write buffer is full. Dropping the future before the message was taken leaves it unsent; dropping it
    /// later leaves the message in the buffer, to go with the next flush.
    pub async fn send(&mut self, message: impl Into<Message>) -> Result<()> {
        self.feed(message).await?;
        self.flush().await
    }

    /// Takes a message into the write buffer without flushing: for many small ones in a row.
    pub async fn feed(&mut self, message: impl Into<Message>) -> Result<()> {
        if self.core.out.has_room() {
            return self.start_send(message.into());
        }
        let mut message = Some(message.into());
        std::future::poll_fn(|cx| self.poll_send(&mut message, cx.waker())).await
    }

    /// Writes all that waits, answers to pings included. Dropping the future leaves the rest in the buffer.
    pub async fn flush(&mut self) -> Result<()> {
        std::future::poll_fn(|cx| self.poll_flush(cx.waker())).await
    }

    /// Closes in good order: says why, passes over what still comes, and gives the peer's last word.
    ///
    /// It takes no longer than [`Options::close_timeout`]. Dropping the future leaves the handshake where it stands; calling
    /// again goes on with it.
    pub async fn close(&mut self, code: CloseCode, reason: &str) -> Result<Option<CloseFrame>> {
        self.core.start_close(Some(CloseFrame::new(code, reason)))?;
        std::future::poll_fn(|cx| self.poll_finish(Wakers::same(cx))).await?;
        Ok(self.core.peer_close.clone())
    }

    pub(crate) fn poll_send(&mut self, message: &mut Option<Message>, waker: &Waker) -> Poll<Result<()>> {
        ready!(self.poll_room(waker))?;
        let Some(message) = message.take() else { return Poll::Ready(Ok(())) };
        Poll::Ready(self.start_send(message))
    }

    /// Waits for room in the write buffer.
    pub(crate) fn poll_room(&mut self, waker: &Waker) -> Poll<Result<()>> {
        self.core.writable()?;
        if !self.core.out.has_room() {
            let sent = self.core.out.poll_write(&mut self.io, &mut Context::from_waker(waker), false);
            if let Poll::Ready(Err(error)) = sent {
                return Poll::Ready(Err(error));
            }
        }
        if self.core.out.has_room() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    #[inline]
    pub(crate) fn start_send(&mut self, message: Message) -> Result<()> {
        self.core.writable()?;
        if let Message::Close(frame) = message {
            return self.core.start_close(frame);
        }
        if message.is_data() && self.core.out.in_message() {
            return Err(usage("a message sent in fragments was not finished"));
        }
        self.core.out.message(message)
    }

    pub(crate) fn poll_flush(&mut self, waker: &Waker) -> Poll<Result<()>> {
        if self.core.broken {
            return Poll::Ready(Err(Error::closed("ended before all was written").with_protocol(PROTOCOL)));
        }
        self.core.out.poll_write(&mut self.io, &mut Context::from_waker(waker), true)
    }

    /// The next whole message, as the caller wants to see it.
    pub(crate) fn poll_recv(&mut self, wakers: Wakers<'_>) -> Poll<Option<Result<Message>>> {
        if let Some(message) = self.core.at_hand() {
            return Poll::Ready(Some(Ok(message)));
        }
        match ready!(self.poll_event(wakers, false)) {
            Ok(event) => Poll::Ready(event.map(|event| Ok(event.into_message()))),
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }

    /// Reads to the end, and closes the transport.
    pub(crate) fn poll_finish(&mut self, wakers: Wakers<'_>) -> Poll<Result<()>> {
        loop {
            if ready!(self.poll_event(wakers, true))?.is_none() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// The next event; `None` when the conversation ended in good order.
    pub(crate) fn poll_event(&mut self, wakers: Wakers<'_>, pieces: bool) -> Poll<Result<Option<Event>>> {
        if self.core.skip && !self.core.decoder.in_message() {
            self.core.skip = false;
        }
        loop {
            match self.core.phase {
                Stage::Open | Stage::Closing => {}
                Stage::Ending | Stage::Failing => return self.poll_end(wakers).map(|result| result.map(|()| None)),
                Stage::Over => return Poll::Ready(self.core.error.take().map_or(Ok(None), Err)),
            }
            let skip = self.core.skip;
            let next = self.core.decoder.next(&mut self.core.input, pieces || skip);
            if let (Some(ear), Ok(Some(event))) = (&mut self.core.ear, &next) {
                match event {
                    Event::Message(kind, data) => ear.piece(*kind, data, true),
                    Event::Piece { kind, data, end } => ear.piece(*kind, data, *end),
                    _ => {}
                }
            }
            match next {
                Ok(Some(Event::Piece { end, .. })) if skip => self.core.skip = !end,
                Ok(Some(event @ (Event::Message(..) | Event::Piece { .. }))) => return Poll::Ready(Ok(Some(event))),
                Ok(Some(event)) => {
                    if let Some(event) = self.handle(event, wakers)? {
                        return Poll::Ready(Ok(Some(event)));
                    }
                }
                Ok(None) => ready!(self.poll_input(wakers))?,
                Err(violation) => self.core.fail(violation),
            }
        }
    }

    /// Does what an event asks for; gives it back if it is for the caller.
    fn handle(&mut self, event: Event, wakers: Wakers<'_>) -> Result<Option<Event>> {
        match event {
            Event::Ping(data) => {
                // After our Close nothing more is sent (RFC 6455 5.5.1).
                if self.core.phase == Stage::Open {
                    self.core.out.pong(data.clone())?;
                    self.write_aside(wakers);
                }
                Ok(self.core.options.control_messages.then_some(Event::Ping(data)))
            }
            Event::Pong(data) => Ok(self.core.options.control_messages.then_some(Event::Pong(data))),
            Event::Close(frame) => {
                self.core.peer_close.clone_from(&frame);
                if self.core.phase == Stage::Open {
                    // RFC 6455 5.5.1: the answer usually repeats the code.
                    self.core.out.close(frame.as_ref().map(|frame| CloseFrame::new(frame.code, "")))?;
                    self.core.arm_close();
                }
                self.core.phase = Stage::Ending;
                self.write_aside(wakers);
                Ok(Some(Event::Close(frame)))
            }
            event => Ok(Some(event)),
        }
    }

    /// Writes what the reading side has to say. A failure shows where it matters: in the next read, or the next send.
    fn write_aside(&mut self, wakers: Wakers<'_>) {
        let _ = self.core.out.poll_write(&mut self.io, &mut Context::from_waker(wakers.write), true);
    }

    fn poll_input(&mut self, wakers: Wakers<'_>) -> Poll<Result<()>> {
        if !self.core.out.is_idle() {
            self.write_aside(wakers);
        }
        let core = &mut self.core;
        core.make_room();
        let room = core.input.capacity() - core.input.len();
        let mut cx = Context::from_waker(wakers.read);
        match poll_read_buf(Pin::new(&mut self.io), &mut cx, &mut core.input) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(core.lost(None))),
            Poll::Ready(Ok(count)) => {
                core.heard_bytes(count, room);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(core.lost(Some(error)))),
            Poll::Pending => {
                if core.options.lean && core.input.is_empty() {
                    // The next read is small again: what is given of it keeps the whole buffer alive.
                    (core.input, core.read_size) = (BytesMut::new(), READ);
                }
                self.poll_alarm(wakers)
            }
        }
    }

    /// Pings a silent peer, and gives up one that stays silent or does not close.
    fn poll_alarm(&mut self, wakers: Wakers<'_>) -> Poll<Result<()>> {
        let mut cx = Context::from_waker(wakers.read);
        loop {
            let core = &mut self.core;
            core.set_alarm();
            ready!(core.alarm.poll(&mut cx));
            if core.phase != Stage::Open {
                return Poll::Ready(Err(core.over(Error::timeout(Phase::Close, core.options.close_timeout))));
            }
            let Some((_, timeout)) = core.options.keepalive else { return Poll::Pending };
            if core.pinged {
                return Poll::Ready(Err(core.over(Error::timeout(Phase::Idle, timeout))));
            }
            core.pinged = true;
            core.heard = Some(clock::now());
            core.out.ping(b"")?;
            self.write_aside(wakers);
        }
    }

    /// The last words are written, the peer ends the connection (a client lets the server go first, RFC 6455 7.1.1), and so
    /// do we; what is not done in time is left.
    fn poll_end(&mut self, wakers: Wakers<'_>) -> Poll<Result<()>> {
        let mut cx = Context::from_waker(wakers.read);
        let mut late = self.core.alarm.poll(&mut cx).is_ready();
        if !late && !self.core.shut {
            let mut write = Context::from_waker(wakers.write);
            let written = ready!(self.core.out.poll_write(&mut self.io, &mut write, true));
            // A server ends the connection at once; a client only when the server does (RFC 6455 7.1.1, it spares the server the
            // TIME-WAIT), or has broken the rules. A stream of HTTP/2 has no TIME-WAIT.
            if written.is_ok() && !self.core.waits_for_eof() {
                let _ = ready!(Pin::new(&mut self.io).poll_shutdown(&mut write));
            }
            self.core.shut = true;
            self.core.alarm.after(Some(self.core.options.close_timeout.min(LINGER)));
            late = self.core.alarm.poll(&mut cx).is_ready();
        }
        if !late {
            ready!(self.poll_drain(&mut cx));
        }
        if self.core.waits_for_eof() {
            let _ = Pin::new(&mut self.io).poll_shutdown(&mut cx);
        }
        self.core.phase = Stage::Over;
        Poll::Ready(self.core.error.take().map_or(Ok(()), Err))
    }
    /// Passes over what still comes, until the peer ends the connection.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.core.input.clear();
            self.core.input.reserve(READ_LEAST);
            match ready!(poll_read_buf(Pin::new(&mut self.io), cx, &mut self.core.input)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
    }
}

impl Core {
    fn new(options: Options, early: Bytes) -> Self {
        Self {
            decoder: Decoder::new(options.role, options.limits, options.agreed),
            out: Outbound::new(&options),
            input: BytesMut::from(early),
            read_size: READ,
            small_reads: 0,
            phase: Stage::Open,
            error: None,
            alarm: Alarm::default(),
            heard: None,
            pinged: false,
            peer_close: None,
            skip: false,
            shut: false,
            broken: false,
            writer_waits: false,
            subprotocol: None,
            ear: Ear::new(&options.heard_by, false),
            options,
        }
    }

    /// A short message that came together with others, as most do where there are many.
    #[inline]
    fn at_hand(&mut self) -> Option<Message> {
        if self.phase != Stage::Open || self.skip {
            return None;
        }
        match self.decoder.short(&mut self.input) {
            Ok(whole) => {
                let (kind, data) = whole?;
                if let Some(ear) = &self.ear {
                    ear.whole(kind, &data);
                }
                Some(Event::Message(kind, data).into_message())
            }
            Err(violation) => {
                self.fail(violation);
                None
            }
        }
    }

    /// Whether the caller may send: not after a Close, of either end.
    pub(crate) fn writable(&self) -> Result<()> {
        if self.phase == Stage::Open {
            return Ok(());
        }
        let error = Error::new(Kind::Closed, "the connection is closing or closed");
        Err(error.with_delivery(Delivery::NotSent).with_phase(Phase::Send).with_protocol(PROTOCOL))
    }

    pub(crate) fn is_over(&self) -> bool {
        self.phase == Stage::Over
    }

    /// The rest of the message at hand is of no interest.
    pub(crate) fn skip_message(&mut self) {
        self.skip = self.decoder.in_message();
    }

    pub(crate) fn start_close(&mut self, frame: Option<CloseFrame>) -> Result<()> {
        if self.phase == Stage::Open {
            self.out.close(frame)?;
            self.phase = Stage::Closing;
            self.arm_close();
        }
        Ok(())
    }

    fn arm_close(&mut self) {
        self.alarm.after(Some(self.options.close_timeout));
    }

    /// The peer is told why, and the caller after that.
    fn fail(&mut self, violation: Violation) {
        if self.phase == Stage::Open {
            // Nothing was promised about this Close: if it can't be encoded, the connection just ends.
            let _ = self.out.close(Some(CloseFrame::new(violation.code, violation.error.what)));
        }
        self.error = Some(violation.into_error().with_phase(Phase::Idle));
        self.phase = Stage::Failing;
        self.alarm.after(Some(self.options.close_timeout.min(LINGER)));
    }

    /// The transport ended.
    fn lost(&mut self, cause: Option<io::Error>) -> Error {
        let error = match cause {
            Some(cause) => Error::io(Phase::Idle, cause),
            None if self.phase == Stage::Closing => Error::closed("ended without an answer to our Close"),
            None if self.decoder.in_message() || !self.input.is_empty() => Error::closed("ended in mid-message"),
            None => Error::closed("ended without a Close"),
        };
        self.over(error.with_phase(Phase::Idle))
    }

    fn over(&mut self, error: Error) -> Error {
        self.phase = Stage::Over;
        self.broken = true;
        self.out.clear();
        error.with_protocol(PROTOCOL)
    }

    fn waits_for_eof(&self) -> bool {
        self.phase == Stage::Ending && self.options.role == crate::codec::Role::Client && !self.options.ends_first
    }

    fn make_room(&mut self) {
        let room = self.input.capacity() - self.input.len();
        let wanted = self.decoder.wanted().min(RESERVE);
        if wanted > READ_MOST {
            self.small_reads = 0;
        } else if self.input.is_empty() && room > 2 * READ_MOST {
            self.small_reads += 1;
            if self.small_reads >= SHRINK_AFTER {
                self.small_reads = 0;
                self.input = BytesMut::new();
            }
        }
        if self.input.capacity() - self.input.len() < wanted.max(READ_LEAST) {
            self.input.reserve(wanted.max(self.read_size));
        }
    }

    fn heard_bytes(&mut self, count: usize, room: usize) {
        if count == room {
            let most = if self.options.lean { READ_MOST_LEAN } else { READ_MOST };
            self.read_size = (self.read_size * 2).min(most);
        }
        if self.options.keepalive.is_some() {
            self.heard = Some(clock::now());
            self.pinged = false;
        }
    }

    fn set_alarm(&mut self) {
        if self.phase != Stage::Open {
            return;
        }
        let Some((idle, timeout)) = self.options.keepalive else { return };
        let heard = *self.heard.get_or_insert_with(clock::now);
        self.alarm.at(heard.checked_add(if self.pinged { timeout } else { idle }));
    }
}

pub(crate) fn usage(message: &'static str) -> Error {
    Error::usage(message).with_protocol(PROTOCOL)
}

impl<T: fmt::Debug> fmt::Debug for WebSocket<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").field("io", &self.io).field("core", &self.core).finish()
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("stage", &self.phase).field("waiting", &self.out.waiting()).finish_non_exhaustive()
    }
}
