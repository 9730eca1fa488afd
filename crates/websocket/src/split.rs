//! The two halves, for two tasks.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_core::Stream;
use futures_util::Sink;
use futures_util::task::AtomicWaker;
use portolan_core::{Error, Result};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::codec::{CloseCode, CloseFrame, DataKind, Event, Message};
use crate::pieces::{MessageReader, MessageWriter, Pull, Push};
use crate::socket::{Wakers, WebSocket, usage};

/// Wakes both halves: whichever polled the transport last for writing, the other may wait for the same.
#[derive(Debug, Default)]
struct Pair {
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Wake for Pair {
    fn wake(self: Arc<Self>) {
        self.reader.wake();
        self.writer.wake();
    }
}

struct Shared<T> {
    /// Held for the length of a poll, never across an await.
    socket: Mutex<WebSocket<T>>,
    pair: Arc<Pair>,
    both: Waker,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, WebSocket<T>> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> WebSocket<T> {
    /// A half that receives and a half that sends, for two tasks.
    ///
    /// The connection lives until both are dropped. Pings are answered, and closes confirmed, by whichever half is polled
    /// next; it needs the reader to notice them.
    pub fn split(self) -> (Reader<T>, Writer<T>) {
        let pair = Arc::new(Pair::default());
        let both = Waker::from(Arc::clone(&pair));
        let shared = Arc::new(Shared { socket: Mutex::new(self), pair, both });
        (Reader { shared: Arc::clone(&shared) }, Writer { shared })
    }
}

/// The half that receives.
pub struct Reader<T> {
    shared: Arc<Shared<T>>,
}

/// The half that sends.
pub struct Writer<T> {
    shared: Arc<Shared<T>>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Reader<T> {
    /// The next message, as [`WebSocket::recv`] gives it. Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Result<Option<Message>> {
        let event = std::future::poll_fn(|cx| self.poll_pull(cx, false)).await?;
        Ok(event.map(Event::into_message))
    }

    /// The next message piece by piece, as [`WebSocket::recv_stream`] gives it.
    pub async fn recv_stream(&mut self) -> Result<Option<MessageReader<'_>>>
    where
        T: Send,
    {
        MessageReader::begin(self).await
    }

    /// Both halves as one again; halves of different connections are given back.
    pub fn reunite(self, writer: Writer<T>) -> Result<WebSocket<T>, (Self, Writer<T>)> {
        if !Arc::ptr_eq(&self.shared, &writer.shared) {
            return Err((self, writer));
        }
        drop(writer);
        match Arc::try_unwrap(self.shared) {
            Ok(shared) => Ok(shared.socket.into_inner().unwrap_or_else(PoisonError::into_inner)),
            // Two halves are all there are: a third owner can't be.
            Err(shared) => Err((Self { shared: Arc::clone(&shared) }, Writer { shared })),
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Pull for Reader<T> {
    fn poll_pull(&mut self, cx: &mut Context<'_>, pieces: bool) -> Poll<Result<Option<Event>>> {
        let shared = &self.shared;
        shared.pair.reader.register(cx.waker());
        let mut socket = shared.lock();
        let polled = socket.poll_event(Wakers { read: cx.waker(), write: &shared.both }, pieces);
        let waiting = std::mem::take(&mut socket.core.writer_waits);
        drop(socket);
        if waiting {
            // What the reader wrote made room, or what it read ended the connection.
            shared.pair.writer.wake();
        }
        polled
    }

    fn skip(&mut self) {
        self.shared.lock().core.skip_message();
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Writer<T> {
    /// Sends a message and flushes it, as [`WebSocket::send`] does.
    pub async fn send(&mut self, message: impl Into<Message>) -> Result<()> {
        self.feed(message).await?;
        self.flush().await
    }

    /// Takes a message into the write buffer without flushing.
    pub async fn feed(&mut self, message: impl Into<Message>) -> Result<()> {
        let mut message = Some(message.into());
        std::future::poll_fn(|cx| self.with(cx, |socket, waker| socket.poll_send(&mut message, waker))).await
    }

    /// Writes all that waits, answers to pings included.
    pub async fn flush(&mut self) -> Result<()> {
        std::future::poll_fn(|cx| self.with(cx, |socket, waker| socket.poll_flush(waker))).await
    }

    /// Says Close and flushes it; the reader gets the peer's answer and then the end, within
    /// [`Options::close_timeout`](crate::Options::close_timeout).
    pub async fn close(&mut self, code: CloseCode, reason: &str) -> Result<()> {
        self.start_close(Some(CloseFrame::new(code, reason)))?;
        self.flush().await
    }

    /// A message in fragments, as [`WebSocket::send_stream`] makes it.
    pub fn send_stream(&mut self, kind: DataKind) -> Result<MessageWriter<'_>>
    where
        T: Send,
    {
        MessageWriter::begin(self, kind)
    }

    /// Bytes that were sent and that the transport has not taken yet.
    pub fn write_backlog(&self) -> usize {
        self.shared.lock().write_backlog()
    }

    fn start_close(&mut self, frame: Option<CloseFrame>) -> Result<()> {
        let result = self.shared.lock().core.start_close(frame);
        // The reader has a deadline now.
        self.shared.pair.reader.wake();
        result
    }

    pub(crate) fn with(
        &mut self,
        cx: &mut Context<'_>,
        work: impl FnOnce(&mut WebSocket<T>, &Waker) -> Poll<Result<()>>,
    ) -> Poll<Result<()>> {
        let shared = &self.shared;
        shared.pair.writer.register(cx.waker());
        let mut socket = shared.lock();
        let polled = work(&mut socket, &shared.both);
        socket.core.writer_waits = polled.is_pending();
        polled
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Push for Writer<T> {
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.with(cx, |socket, waker| socket.poll_room(waker))
    }

    fn push(&mut self, kind: DataKind, data: bytes::Bytes, fin: bool) -> Result<()> {
        self.shared.lock().push(kind, data, fin)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.with(cx, |socket, waker| socket.poll_flush(waker))
    }

    fn in_message(&self) -> bool {
        self.shared.lock().core.out.in_message()
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for Reader<T> {
    type Item = Result<Message>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Message>>> {
        self.poll_pull(cx, false).map(|event| event.map(|event| event.map(Event::into_message)).transpose())
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Sink<Message> for Writer<T> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_room(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<()> {
        match message {
            Message::Close(frame) => Self::start_close(&mut self, frame),
            message => self.shared.lock().start_send(message),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Push::poll_flush(&mut *self, cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Self::start_close(&mut self, Some(CloseFrame::new(CloseCode::NORMAL, "")))?;
        Push::poll_flush(&mut *self, cx)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for WebSocket<T> {
    type Item = Result<Message>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Message>>> {
        self.poll_recv(Wakers::same(cx))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Sink<Message> for WebSocket<T> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_room(cx.waker())
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<()> {
        Self::start_send(&mut self, message)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Self::poll_flush(&mut self, cx.waker())
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.core.start_close(Some(CloseFrame::new(CloseCode::NORMAL, "")))?;
        self.poll_finish(Wakers::same(cx))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> WebSocket<T> {
    /// A frame of a message in fragments.
    pub(crate) fn push(&mut self, kind: DataKind, data: bytes::Bytes, fin: bool) -> Result<()> {
        self.core.writable()?;
        if !self.core.out.has_room() {
            return Err(usage("a fragment was sent before there was room"));
        }
        self.core.out.data(kind, data, fin)
    }
}

impl<T> fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Writer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}
