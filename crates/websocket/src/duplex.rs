//! A stream of HTTP/2 or HTTP/3 as a byte stream: a request body that is written, a response body that is read.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body, Frame};
use portolan_core::{BoxError, Error, Kind};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much may wait for the connection to take it.
const ROOM: usize = 64 << 10;

/// Both ends of the way out. What the writer puts in, the body gives; it is bounded by bytes.
pub(crate) fn pipe() -> (PipeWriter, PipeBody) {
    let pipe = Arc::new(Mutex::new(Pipe::default()));
    (PipeWriter { pipe: Arc::clone(&pipe) }, PipeBody { pipe })
}

#[derive(Default)]
struct Pipe {
    data: BytesMut,
    /// The writer is done, for better (`Some(true)`) or worse.
    ended: Option<bool>,
    /// The body is gone: nobody will take what is written.
    gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

fn lock(pipe: &Mutex<Pipe>) -> MutexGuard<'_, Pipe> {
    pipe.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait(place: &mut Option<Waker>, cx: &Context<'_>) {
    if !place.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *place = Some(cx.waker().clone());
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// The writing end. Dropped without a shutdown it fails the body, and so resets the stream.
pub(crate) struct PipeWriter {
    pipe: Arc<Mutex<Pipe>>,
}

impl PipeWriter {
    fn poll_write(&mut self, cx: &Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut pipe = lock(&self.pipe);
        if pipe.gone || pipe.ended.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let n = buf.len().min(ROOM.saturating_sub(pipe.data.len()));
        if n == 0 && !buf.is_empty() {
            wait(&mut pipe.writer, cx);
            return Poll::Pending;
        }
        pipe.data.extend_from_slice(buf.get(..n).unwrap_or_default());
        let reader = pipe.reader.take();
        drop(pipe);
        wake(reader);
        Poll::Ready(Ok(n))
    }

    fn end(&mut self, well: bool) {
        let mut pipe = lock(&self.pipe);
        pipe.ended.get_or_insert(well);
        let reader = pipe.reader.take();
        drop(pipe);
        wake(reader);
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        self.end(false);
    }
}

/// The request body of an extended CONNECT: what the WebSocket sends.
///
/// It asks for no more than the connection takes, so the peer's window holds the writer back.
pub struct PipeBody {
    pipe: Arc<Mutex<Pipe>>,
}

impl Body for PipeBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut pipe = lock(&self.pipe);
        if pipe.data.is_empty() {
            return match pipe.ended {
                Some(true) => Poll::Ready(None),
                Some(false) => Poll::Ready(Some(Err("the WebSocket was dropped".into()))),
                None => {
                    wait(&mut pipe.reader, cx);
                    Poll::Pending
                }
            };
        }
        let data = pipe.data.split().freeze();
        let writer = pipe.writer.take();
        drop(pipe);
        wake(writer);
        Poll::Ready(Some(Ok(Frame::data(data))))
    }
}

impl Drop for PipeBody {
    fn drop(&mut self) {
        let mut pipe = lock(&self.pipe);
        pipe.gone = true;
        let writer = pipe.writer.take();
        drop(pipe);
        wake(writer);
    }
}

impl fmt::Debug for PipeBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeBody").finish_non_exhaustive()
    }
}

/// A stream of HTTP/2 or HTTP/3, read from its response body `B` and written to its request body.
pub struct Duplex<B> {
    body: B,
    left: Bytes,
    out: PipeWriter,
}

impl<B> Duplex<B> {
    pub(crate) fn new(body: B, out: PipeWriter) -> Self {
        Self { body, left: Bytes::new(), out }
    }
}

impl<B> AsyncRead for Duplex<B>
where
    B: Body<Data = Bytes, Error = Error> + Unpin,
{
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.left.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(frame)) => self.left = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Poll::Ready(Err(read_error(error))),
            }
        }
        let n = self.left.len().min(buf.remaining());
        buf.put_slice(self.left.get(..n).unwrap_or_default());
        self.left.advance(n);
        Poll::Ready(Ok(()))
    }
}

/// A stream that was reset is what a connection that was reset is to TCP (RFC 8441 5).
fn read_error(error: Error) -> io::Error {
    match error.kind() {
        Kind::Timeout => io::Error::new(io::ErrorKind::TimedOut, error),
        _ => io::Error::new(io::ErrorKind::ConnectionReset, error),
    }
}

impl<B: Unpin> AsyncWrite for Duplex<B> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.out.poll_write(cx, buf)
    }

    /// What was written is on its way: the connection's driver takes it as the peer's window allows.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// END_STREAM, after what was written.
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.out.end(true);
        Poll::Ready(Ok(()))
    }
}

impl<B> fmt::Debug for Duplex<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Duplex").finish_non_exhaustive()
    }
}
