//! Strict request and response over one stream, driven by the caller's own task.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io::IoSlice;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use portolan_core::{Delivery, Error, Kind, Phase, Result, Stream, Timeouts, clock};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::alarm::Alarm;
use crate::codec::Codec;

/// The first read buffer: an idle connection keeps no more than this.
const READ_CHUNK: usize = 4 * 1024;
/// The largest step by which the read buffer grows for a peer that fills it.
const MAX_READ_CHUNK: usize = 64 * 1024;
/// What one frame may need at most, unless said otherwise: more is a peer without end.
const DEFAULT_MAX_BUFFER: usize = 16 * 1024 * 1024;
/// Buffers larger than this are given back once they are empty.
const KEPT_BUFFER: usize = 64 * 1024;

/// A conversation in turns: a request out, its reply in, over one stream that nobody else reads.
///
/// There is no task and no channel: whoever calls drives the socket. A batch goes out in one write, and what arrives is
/// read straight into the buffer that the codec parses.
///
/// **Dropping a future** between the first byte of a request and the last of its reply leaves the conversation out of
/// step, so it poisons the exchange: every later call fails with [`Kind::Closed`] and the reason, and
/// [`is_reusable`](Self::is_reusable) is false. Waiting with [`recv`](Self::recv) while no reply is owed (an event, a
/// notification) may be dropped at any time and loses nothing. An error poisons too.
///
/// **Delivery** on errors is exact: nothing of the batch written is [`Delivery::NotSent`], some of it is
/// [`Delivery::Unknown`], and once a byte of the reply has come it is [`Delivery::Answered`].
///
/// ```
/// use portolan_wire::{Exchange, LineRule, Lines};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> portolan_core::Result<()> {
/// # let (near, mut far) = tokio::io::duplex(64);
/// # tokio::spawn(async move {
/// #     let mut asked = [0; 6];
/// #     far.read_exact(&mut asked).await.unwrap();
/// #     far.write_all(b"250 ok\r\n").await.unwrap();
/// # });
/// let mut exchange = Exchange::new(near, Lines::new("smtp", LineRule::Strict, 512));
/// assert_eq!(exchange.call(b"NOOP".as_slice()).await?, "250 ok");
/// assert!(exchange.is_reusable());
/// # Ok(()) }
/// ```
pub struct Exchange<C, S = Stream> {
    io: S,
    codec: C,
    read: BytesMut,
    write: BytesMut,
    /// How much of `write` is on the wire already.
    written: usize,
    timeouts: Timeouts,
    max_buffer: usize,
    chunk: usize,
    alarm: Alarm,
    /// Replies that requests still wait for.
    owed: usize,
    /// Whether a byte of the batch has been written, and whether one of the reply has come.
    sent: bool,
    answered: bool,
    eof: bool,
    /// Set while a future that must not be dropped is running.
    running: Option<&'static str>,
    poison: Option<Box<str>>,
}

impl<C: Codec, S: AsyncRead + AsyncWrite + Unpin> Exchange<C, S> {
    /// A conversation over `io`, with the default bounds.
    pub fn new(io: S, codec: C) -> Self {
        Self {
            io,
            codec,
            read: BytesMut::new(),
            write: BytesMut::new(),
            written: 0,
            timeouts: Timeouts::default(),
            max_buffer: DEFAULT_MAX_BUFFER,
            chunk: READ_CHUNK,
            alarm: Alarm::default(),
            owed: 0,
            sent: false,
            answered: false,
            eof: false,
            running: None,
            poison: None,
        }
    }

    /// The bounds of waiting: `first_byte` for a reply to begin, `idle` between its bytes and for each write to move,
    /// `total` for a whole [`call`](Self::call).
    #[must_use]
    pub fn with_timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// The most that is buffered for one frame. Default 16 MiB; too small and a large reply fails with [`Kind::Limit`].
    #[must_use]
    pub fn with_max_buffer(mut self, bytes: usize) -> Self {
        self.max_buffer = bytes;
        self
    }

    /// Other bounds of waiting, for what follows.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        self.timeouts = timeouts;
    }

    /// The bounds of waiting.
    pub fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// The codec.
    pub fn codec(&self) -> &C {
        &self.codec
    }

    /// The codec, to change its mode between frames.
    pub fn codec_mut(&mut self) -> &mut C {
        &mut self.codec
    }

    /// The stream, to look at.
    pub fn stream(&self) -> &S {
        &self.io
    }

    /// The stream, to complete what it knows of itself. Reading or writing it directly puts the conversation out of step.
    pub fn stream_mut(&mut self) -> &mut S {
        &mut self.io
    }

    /// Encodes a request into the batch without sending it; a request that does not encode leaves the batch as it was.
    pub fn queue(&mut self, item: &C::Out) -> Result<()> {
        self.check()?;
        let start = self.write.len();
        if let Err(error) = self.codec.encode(item, &mut self.write) {
            self.write.truncate(start);
            return Err(error);
        }
        self.owe(self.owed.saturating_add(1));
        Ok(())
    }

    /// The batch itself, for bytes that no codec makes. Say with [`owe`](Self::owe) how many replies they ask for.
    pub fn write_buf(&mut self) -> &mut BytesMut {
        &mut self.write
    }

    /// Sets how many replies are still to come: each queued request counts one, each received frame takes one off.
    ///
    /// A protocol whose reply is several frames calls `owe(1)` after each that is not the last, one without a reply calls
    /// `owe(0)`: what is owed decides whether a dropped future poisons and whether the connection may be reused.
    pub fn owe(&mut self, replies: usize) {
        if self.owed == 0 && replies > 0 && self.written == 0 {
            (self.sent, self.answered) = (false, false);
        }
        self.owed = replies;
    }

    /// How many replies are still to come.
    pub fn owed(&self) -> usize {
        self.owed
    }

    /// Sends one request. Dropping the future poisons the exchange.
    pub async fn send(&mut self, item: &C::Out) -> Result<()> {
        self.queue(item)?;
        self.flush().await
    }

    /// Sends requests in one batch; if one does not encode, none is sent. Dropping the future poisons the exchange.
    pub async fn send_all<'i>(&mut self, items: impl IntoIterator<Item = &'i C::Out>) -> Result<()>
    where
        C::Out: 'i,
    {
        let (start, owed) = (self.write.len(), self.owed);
        for item in items {
            if let Err(error) = self.queue(item) {
                self.write.truncate(start);
                self.owed = owed;
                return Err(error);
            }
        }
        self.flush().await
    }

    /// Sends the batch. Dropping the future poisons the exchange.
    pub async fn flush(&mut self) -> Result<()> {
        self.write_raw(&[]).await
    }

    /// Sends the batch and then `body`, which is not copied. Dropping the future poisons the exchange.
    pub async fn write_raw(&mut self, body: &[u8]) -> Result<()> {
        self.begin("a request was dropped while it was being sent")?;
        self.alarm.after(self.timeouts.idle_limit());
        let mut done = 0;
        let result = poll_fn(|cx| self.poll_send(cx, body, &mut done)).await;
        self.end(result)
    }

    /// Receives one frame.
    ///
    /// Dropping the future poisons the exchange if a reply is owed; otherwise nothing is lost.
    pub async fn recv(&mut self) -> Result<C::Frame> {
        match self.recv_or_end().await? {
            Some(frame) => Ok(frame),
            None => {
                let error = self.closed("the peer closed before it answered");
                self.end(Err(error))
            }
        }
    }

    /// Receives one frame, or `None` where the peer closed between frames: for forms that end that way.
    ///
    /// Dropping the future poisons the exchange if a reply is owed; otherwise nothing is lost.
    pub async fn recv_or_end(&mut self) -> Result<Option<C::Frame>> {
        self.begin_read()?;
        self.arm();
        let result = poll_fn(|cx| self.poll_frame(cx)).await;
        if let Ok(Some(_)) = result {
            self.owed = self.owed.saturating_sub(1);
            self.answered = !self.read.is_empty();
            self.tidy();
        }
        self.end(result)
    }

    /// Sends a request and receives its reply. Dropping the future poisons the exchange.
    pub async fn call(&mut self, item: &C::Out) -> Result<C::Frame> {
        self.queue(item)?;
        let limit = self.timeouts.total_limit();
        let result = clock::within(limit, Phase::Total, async {
            self.flush().await?;
            self.recv().await
        })
        .await;
        // Only the outer bound leaves the inner future unfinished.
        match result {
            Err(error) if self.running.is_some() => self.end(Err(error)),
            result => result,
        }
    }

    /// What has arrived and is not parsed yet, for bodies that no codec frames. Take from its front only.
    pub fn read_buf(&mut self) -> &mut BytesMut {
        &mut self.read
    }

    /// Reads more into [`read_buf`](Self::read_buf); 0 when the peer has closed.
    ///
    /// Dropping the future poisons the exchange if a reply is owed; otherwise nothing is lost.
    pub async fn fill(&mut self) -> Result<usize> {
        self.begin_read()?;
        self.arm();
        let result = poll_fn(|cx| self.poll_fill(cx)).await;
        self.end(result)
    }

    /// Reads exactly `n` bytes that no codec frames; more than the buffer's limit is [`Kind::Limit`], so a larger body
    /// is taken with [`read_chunk`](Self::read_chunk).
    ///
    /// Dropping the future poisons the exchange if a reply is owed; otherwise nothing is lost.
    pub async fn read_raw(&mut self, n: usize) -> Result<Bytes> {
        if n > self.max_buffer {
            let error = self.limit(format!("{n} bytes at once"));
            return self.end(Err(error));
        }
        while self.read.len() < n {
            if self.fill().await? == 0 {
                let error = self.closed("the peer closed in mid-body");
                return self.end(Err(error));
            }
        }
        Ok(self.read.split_to(n).freeze())
    }

    /// Reads what is there of a body, up to `max` bytes; `None` when the peer has closed.
    ///
    /// Dropping the future poisons the exchange if a reply is owed; otherwise nothing is lost.
    pub async fn read_chunk(&mut self, max: usize) -> Result<Option<Bytes>> {
        if self.read.is_empty() && self.fill().await? == 0 {
            return Ok(None);
        }
        let n = self.read.len().min(max);
        Ok(Some(self.read.split_to(n).freeze()))
    }

    /// Whether another caller may use it: in step, nothing owed, nothing buffered, not closed.
    pub fn is_reusable(&self) -> bool {
        self.poison.is_none()
            && self.running.is_none()
            && !self.eof
            && self.owed == 0
            && self.read.is_empty()
            && self.write.is_empty()
    }

    /// Whether it is reusable and the peer has neither closed nor said anything unasked: to be asked when it is taken
    /// out of a pool. Never waits. Anything else poisons it.
    pub fn is_idle_clean(&mut self) -> bool {
        if !self.is_reusable() {
            return false;
        }
        let mut cx = Context::from_waker(std::task::Waker::noop());
        self.read.reserve(1);
        match pin!(self.io.read_buf(&mut self.read)).poll(&mut cx) {
            Poll::Pending => true,
            Poll::Ready(outcome) => {
                self.poison(match outcome {
                    Ok(0) => "the peer closed the idle connection",
                    Ok(_) => "the peer spoke on an idle connection",
                    Err(_) => "the idle connection broke",
                });
                false
            }
        }
    }

    /// Marks it as unfit for use, with the reason that later calls are told.
    pub fn poison(&mut self, reason: impl Into<Box<str>>) {
        self.poison.get_or_insert_with(|| reason.into());
    }

    /// The stream and the codec, for another protocol on top: TLS above all.
    ///
    /// Bytes that were read ahead are refused as an injection across the upgrade (CVE-2011-0411): what a peer says in the
    /// clear after agreeing to TLS must not be believed afterwards.
    pub fn into_parts(self) -> Result<(S, C)> {
        self.check()?;
        if !self.read.is_empty() {
            let message = format!("{} plaintext bytes before the upgrade: injection", self.read.len());
            return Err(Error::protocol(self.codec.protocol(), message).with_phase(Phase::Handshake));
        }
        if !self.write.is_empty() || self.owed > 0 {
            return Err(Error::usage("an exchange is taken apart between calls"));
        }
        Ok((self.io, self.codec))
    }

    /// The stream, the codec, and what was read ahead: for a protocol whose next stage may begin in the same segment.
    pub fn into_parts_with_rest(self) -> Result<(S, C, Bytes)> {
        self.check()?;
        Ok((self.io, self.codec, self.read.freeze()))
    }

    /// Changes the stream under the conversation, as STARTTLS does; nothing may be buffered (see
    /// [`into_parts`](Self::into_parts)). Dropping the future closes the connection.
    pub async fn upgrade<T, F>(self, change: impl FnOnce(S) -> F) -> Result<Exchange<C, T>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
        F: Future<Output = Result<T>>,
    {
        let (timeouts, max_buffer) = (self.timeouts, self.max_buffer);
        let (io, codec) = self.into_parts()?;
        Ok(Exchange::new(change(io).await?, codec).with_timeouts(timeouts).with_max_buffer(max_buffer))
    }

    /// Shuts the stream down in good order, for at most `limit`.
    pub async fn shutdown(mut self, limit: Duration) -> Result<()> {
        let io = &mut self.io;
        clock::within(Some(limit), Phase::Close, async {
            poll_fn(|cx| Pin::new(&mut *io).poll_shutdown(cx)).await.map_err(|error| Error::io(Phase::Close, error))
        })
        .await
    }

    /// An error unless the exchange is in step.
    fn check(&self) -> Result<()> {
        match self.poison.as_deref().or(self.running) {
            None => Ok(()),
            Some(reason) => {
                let message = format!("connection no longer usable: {reason}");
                Err(Error::closed(message).with_protocol(self.codec.protocol()).with_delivery(Delivery::NotSent))
            }
        }
    }

    fn begin(&mut self, dropped: &'static str) -> Result<()> {
        self.check()?;
        self.running = Some(dropped);
        Ok(())
    }

    fn begin_read(&mut self) -> Result<()> {
        self.check()?;
        if self.owed > 0 {
            self.running = Some("a call was dropped before its reply was read");
        }
        Ok(())
    }

    fn end<T>(&mut self, result: Result<T>) -> Result<T> {
        self.running = None;
        result.map_err(|error| {
            self.poison(error.to_string());
            let delivery = self.delivery();
            let phase = error.phase().unwrap_or(if self.answered { Phase::Idle } else { Phase::FirstByte });
            error.with_protocol(self.codec.protocol()).with_delivery(delivery).with_phase(phase)
        })
    }

    fn delivery(&self) -> Delivery {
        match (self.sent, self.answered) {
            (_, true) => Delivery::Answered,
            (true, false) => Delivery::Unknown,
            (false, false) => Delivery::NotSent,
        }
    }

    fn waiting(&self) -> (Option<Duration>, Phase) {
        if self.answered {
            (self.timeouts.idle_limit(), Phase::Idle)
        } else {
            (self.timeouts.first_byte_limit(), Phase::FirstByte)
        }
    }

    fn arm(&mut self) {
        self.alarm.after(self.waiting().0);
    }

    fn closed(&self, message: &'static str) -> Error {
        Error::closed(message)
    }

    fn limit(&self, what: String) -> Error {
        Error::new(Kind::Limit, format!("{what}; the buffer's limit is {}", self.max_buffer))
    }

    /// Gives large buffers back between calls, so that an idle connection is small.
    fn tidy(&mut self) {
        if self.owed == 0 && self.read.is_empty() && self.read.capacity() > KEPT_BUFFER {
            self.read = BytesMut::new();
            self.chunk = READ_CHUNK;
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, body: &[u8], done: &mut usize) -> Poll<Result<()>> {
        loop {
            let head = self.write.get(self.written..).unwrap_or(&[]);
            let tail = body.get(*done..).unwrap_or(&[]);
            let outcome = match (head.is_empty(), tail.is_empty()) {
                (true, true) => break,
                (false, true) => Pin::new(&mut self.io).poll_write(cx, head),
                (true, false) => Pin::new(&mut self.io).poll_write(cx, tail),
                (false, false) => {
                    Pin::new(&mut self.io).poll_write_vectored(cx, &[IoSlice::new(head), IoSlice::new(tail)])
                }
            };
            let head = head.len();
            let n = match self.timed(cx, outcome, Phase::Send) {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(Error::closed("the stream takes no more").with_phase(Phase::Send)));
                }
                Poll::Ready(Ok(n)) => n,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            };
            self.sent = true;
            self.written = self.written.saturating_add(n.min(head));
            *done = done.saturating_add(n.saturating_sub(head));
            self.alarm.after(self.timeouts.idle_limit());
        }
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        ready!(self.timed(cx, flushed, Phase::Send))?;
        self.write.clear();
        self.written = 0;
        if self.write.capacity() > KEPT_BUFFER {
            self.write = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    fn timed<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<std::io::Result<T>>, phase: Phase) -> Poll<Result<T>> {
        match outcome {
            Poll::Ready(result) => Poll::Ready(result.map_err(|error| Error::io(phase, error))),
            Poll::Pending => {
                ready!(self.alarm.poll(cx));
                let limit = match phase {
                    Phase::FirstByte => self.timeouts.first_byte_limit(),
                    _ => self.timeouts.idle_limit(),
                };
                Poll::Ready(Err(Error::timeout(phase, limit.unwrap_or_default())))
            }
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<C::Frame>>> {
        loop {
            let decoded =
                if self.eof { self.codec.decode_eof(&mut self.read) } else { self.codec.decode(&mut self.read) };
            match decoded {
                Ok(None) if self.eof => return Poll::Ready(Ok(None)),
                Ok(None) => {}
                Ok(frame) => return Poll::Ready(Ok(frame)),
                // At the end of the stream "ends too soon" is the peer's going away, not its breaking a rule.
                Err(error) if self.eof && error.is_truncated() => {
                    return Poll::Ready(Err(self.closed("the peer closed in mid-reply").with_source(error)));
                }
                Err(error) => return Poll::Ready(Err(error.into_error(self.codec.protocol()))),
            }
            if self.read.len() >= self.max_buffer {
                return Poll::Ready(Err(self.limit(format!("{} bytes without a whole frame", self.read.len()))));
            }
            ready!(self.poll_fill(cx))?;
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize>> {
        if self.eof {
            return Poll::Ready(Ok(0));
        }
        if self.read.capacity().saturating_sub(self.read.len()) < self.chunk / 2 {
            self.read.reserve(self.chunk);
        }
        let room = self.read.capacity().saturating_sub(self.read.len());
        let outcome = pin!(self.io.read_buf(&mut self.read)).poll(cx);
        let phase = self.waiting().1;
        let n = ready!(self.timed(cx, outcome, phase))?;
        if n == 0 {
            self.eof = true;
        } else {
            self.answered = true;
            self.alarm.after(self.timeouts.idle_limit());
            if n == room {
                self.chunk = self.chunk.saturating_mul(2).min(MAX_READ_CHUNK);
            }
        }
        Poll::Ready(Ok(n))
    }
}

impl<C: Codec> Exchange<C, Stream> {
    /// Turns to TLS with the settings of the connector that made the stream; plaintext read ahead is refused.
    pub async fn start_tls(self, name: &str) -> Result<Self> {
        self.upgrade(async |stream| stream.start_tls(name).await).await
    }

    /// The stream again, with what was read ahead put back in front.
    pub fn into_stream(self) -> Result<Stream> {
        let (stream, _, rest) = self.into_parts_with_rest()?;
        Ok(stream.with_early(rest))
    }
}

impl<C, S: fmt::Debug> fmt::Debug for Exchange<C, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("stream", &self.io)
            .field("owed", &self.owed)
            .field("buffered", &self.read.len())
            .field("poison", &self.poison)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
