//! A stream of a multiplexed connection as a byte stream: a request body that is written, a response body that is read.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::error::{BoxError, Error, Kind};

/// How much may wait for the connection to take it.
const ROOM: usize = 64 << 10;

/// Both ends of the way out. What the writer puts in, the reader gives; it is bounded by bytes.
pub fn pipe() -> (PipeWriter, PipeReader) {
    let pipe = Arc::new(Mutex::new(Pipe::default()));
    (PipeWriter { pipe: Arc::clone(&pipe) }, PipeReader { pipe })
}

#[derive(Default)]
struct Pipe {
    data: BytesMut,
    /// The writer is done, for better (`Some(true)`) or worse.
    ended: Option<bool>,
    /// The reader is gone: nobody will take what is written.
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

/// The writing end. Dropped without a shutdown it fails the reader, and so resets the stream.
pub struct PipeWriter {
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

impl fmt::Debug for PipeWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeWriter").finish_non_exhaustive()
    }
}

/// The reading end: what a request's body gives. It is asked for no more than the connection takes, so the peer's window holds
/// the writer back. It fails when the writer was dropped without a shutdown.
pub struct PipeReader {
    pipe: Arc<Mutex<Pipe>>,
}

impl Stream for PipeReader {
    type Item = Result<Bytes, BoxError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut pipe = lock(&self.pipe);
        if pipe.data.is_empty() {
            return match pipe.ended {
                Some(true) => Poll::Ready(None),
                Some(false) => Poll::Ready(Some(Err("the tunnel was dropped".into()))),
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
        Poll::Ready(Some(Ok(data)))
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        let mut pipe = lock(&self.pipe);
        pipe.gone = true;
        let writer = pipe.writer.take();
        drop(pipe);
        wake(writer);
    }
}

impl fmt::Debug for PipeReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeReader").finish_non_exhaustive()
    }
}

/// A byte stream that is read from `S`, the data of a response, and written to a request's body.
///
/// Shut down it ends the stream our way alone. Dropped before that it resets the stream.
pub struct Duplex<S> {
    from: S,
    left: Bytes,
    out: PipeWriter,
}

impl<S> Duplex<S> {
    /// Joins both ways.
    pub fn new(from: S, out: PipeWriter) -> Self {
        Self { from, left: Bytes::new(), out }
    }
}

impl<S: Stream<Item = Result<Bytes, Error>> + Unpin> AsyncRead for Duplex<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.left.is_empty() {
            match ready!(Pin::new(&mut self.from).poll_next(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(data)) => self.left = data,
                Some(Err(error)) => return Poll::Ready(Err(read_error(error))),
            }
        }
        let n = self.left.len().min(buf.remaining());
        buf.put_slice(self.left.get(..n).unwrap_or_default());
        self.left.advance(n);
        Poll::Ready(Ok(()))
    }
}

/// A stream that was reset is what a connection that was reset is to TCP (RFC 9113 8.5).
fn read_error(error: Error) -> io::Error {
    match error.kind() {
        Kind::Timeout => io::Error::new(io::ErrorKind::TimedOut, error),
        _ => io::Error::new(io::ErrorKind::ConnectionReset, error),
    }
}

impl<S: Unpin> AsyncWrite for Duplex<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.out.poll_write(cx, buf)
    }

    /// What was written is on its way: the connection's driver takes it as the peer's window allows.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The end of our way, after what was written.
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.out.end(true);
        Poll::Ready(Ok(()))
    }
}

impl<S> fmt::Debug for Duplex<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Duplex").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_is_written_is_given_and_the_end_is_told_from_a_drop() {
        let (out, mut body) = pipe();
        let answers = futures_util::stream::iter([Ok(Bytes::from_static(b"ab")), Ok(Bytes::from_static(b"c"))]);
        let mut duplex = Duplex::new(answers, out);
        duplex.write_all(b"hello").await.unwrap();
        assert_eq!(body.next().await.unwrap().unwrap(), "hello");
        let mut read = Vec::new();
        duplex.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"abc");
        duplex.shutdown().await.unwrap();
        assert!(body.next().await.is_none());
        let (out, mut body) = pipe();
        drop(out);
        assert!(body.next().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn the_writer_waits_for_room_and_fails_when_nobody_reads() {
        let (out, body) = pipe();
        let mut duplex = Duplex::new(futures_util::stream::pending::<Result<Bytes, Error>>(), out);
        duplex.write_all(&vec![0; ROOM]).await.unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut duplex).poll_write(&mut cx, b"x").is_pending());
        drop(body);
        assert_eq!(duplex.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
