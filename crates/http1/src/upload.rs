//! A request on its way: head and body, gathered into as few writes as they fit in.

use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, BytesMut};
use http_body::Body;
use portolan_core::{BoxError, Delivery, Error, Phase, Result};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::connection::Connection;
use crate::head::{self, Framing};

/// A chunk this small is copied next to its frame; a larger one is written from where it is.
const COPIED: usize = 1024;

/// What is left to be sent of a request.
pub(crate) struct Upload<B: Body> {
    /// None where nothing is to be sent.
    body: Option<Pin<Box<B>>>,
    framing: Framing,
    /// Too large to be copied into the connection's buffer.
    chunk: Option<B::Data>,
    /// What follows the chunk.
    tail: &'static [u8],
    ended: bool,
    /// Whether any byte left.
    pub(crate) begun: bool,
}

/// The same without its type: kept by a response whose request is still being sent.
pub(crate) trait Sending<T>: Send {
    fn poll(&mut self, conn: &mut Connection<T>, cx: &mut Context<'_>) -> Poll<Result<()>>;
}

impl<B: Body> Upload<B>
where
    B::Error: Into<BoxError>,
{
    pub(crate) fn new(body: B, framing: Framing) -> Self {
        let ended = framing == Framing::None;
        let body = (!ended).then(|| Box::pin(body));
        Self { body, framing, chunk: None, tail: b"", ended, begun: false }
    }

    /// Sends until all is sent.
    pub(crate) fn poll_send<T>(&mut self, conn: &mut Connection<T>, cx: &mut Context<'_>) -> Poll<Result<()>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            // The first piece of the body goes out with the head; after that a piece waits for the one before.
            if !self.ended && self.chunk.is_none() && (conn.write.is_empty() || !self.begun) {
                match self.poll_piece(&mut conn.write, &conn.options, cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending if conn.write.is_empty() => {
                        ready!(self.poll_flush(conn, cx))?;
                        return Poll::Pending;
                    }
                    Poll::Pending => {}
                }
            }
            ready!(self.poll_write(conn, cx))?;
            if self.ended {
                return self.poll_flush(conn, cx);
            }
        }
    }

    /// Sends the head alone, for a body that waits for the peer's word.
    pub(crate) fn poll_head<T>(&mut self, conn: &mut Connection<T>, cx: &mut Context<'_>) -> Poll<Result<()>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        ready!(self.poll_write(conn, cx))?;
        self.poll_flush(conn, cx)
    }

    fn poll_flush<T>(&self, conn: &mut Connection<T>, cx: &mut Context<'_>) -> Poll<Result<()>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        Pin::new(&mut conn.io).poll_flush(cx).map_err(|error| self.lost(error))
    }

    /// Writes what is queued: the buffer, the chunk and its tail in one call.
    fn poll_write<T>(&mut self, conn: &mut Connection<T>, cx: &mut Context<'_>) -> Poll<Result<()>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            let chunk = self.chunk.as_ref().map_or(&[][..], |chunk| chunk.chunk());
            let whole = self.chunk.as_ref().is_none_or(|data| data.remaining() == chunk.len());
            let tail = if whole { self.tail } else { b"" };
            let total = conn.write.len() + chunk.len() + tail.len();
            if total == 0 {
                self.chunk = None;
                return Poll::Ready(Ok(()));
            }
            let io = Pin::new(&mut conn.io);
            let written = if total == conn.write.len() {
                io.poll_write(cx, &conn.write)
            } else {
                io.poll_write_vectored(cx, &[IoSlice::new(&conn.write), IoSlice::new(chunk), IoSlice::new(tail)])
            };
            let Poll::Ready(written) = written else {
                if !conn.alarm.is_set() {
                    conn.alarm.after(conn.options.idle);
                }
                ready!(conn.alarm.poll(cx));
                return Poll::Ready(Err(
                    self.delivered(Error::timeout(Phase::Send, conn.options.idle.unwrap_or_default()))
                ));
            };
            let mut written = written.map_err(|error| self.lost(error))?;
            if written == 0 {
                return Poll::Ready(Err(self.lost(std::io::ErrorKind::WriteZero.into())));
            }
            self.begun = true;
            conn.alarm.at(None);
            let from_buffer = written.min(conn.write.len());
            conn.write.advance(from_buffer);
            written -= from_buffer;
            if let Some(data) = &mut self.chunk {
                let from_chunk = written.min(chunk_len(data));
                data.advance(from_chunk);
                written -= from_chunk;
            }
            self.tail = self.tail.get(written..).unwrap_or_default();
            if self.chunk.as_ref().is_some_and(|data| !data.has_remaining()) {
                self.chunk = None;
                conn.write.put_slice(std::mem::take(&mut self.tail));
            }
        }
    }

    /// Asks the body for its next piece, and frames it.
    fn poll_piece(&mut self, out: &mut BytesMut, options: &crate::Options, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let Some(body) = &mut self.body else { return Poll::Ready(self.end(None, out, options)) };
        let frame = match ready!(body.as_mut().poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Err(self.failed(error.into()))),
            None => return Poll::Ready(self.end(None, out, options)),
        };
        match frame.into_data() {
            Ok(data) if data.has_remaining() => {
                let last = body.is_end_stream();
                let framed = self.piece(data, out);
                Poll::Ready(framed.and_then(|()| if last { self.end(None, out, options) } else { Ok(()) }))
            }
            Ok(_) => Poll::Ready(Ok(())),
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => Poll::Ready(self.end(Some(&trailers), out, options)),
                Err(_) => Poll::Ready(Ok(())),
            },
        }
    }

    fn piece(&mut self, data: B::Data, out: &mut BytesMut) -> Result<()> {
        let length = data.remaining();
        match &mut self.framing {
            Framing::None => return Err(self.misfit("a body where none was said")),
            Framing::Length(left) => match left.checked_sub(length as u64) {
                Some(rest) => *left = rest,
                None => return Err(self.misfit("a body longer than it was said to be")),
            },
            Framing::Chunked => {
                put_hex(out, length);
                out.put_slice(b"\r\n");
                self.tail = b"\r\n";
            }
        }
        if length <= COPIED {
            out.put(data);
            out.put_slice(std::mem::take(&mut self.tail));
        } else {
            self.chunk = Some(data);
        }
        Ok(())
    }

    fn end(&mut self, trailers: Option<&http::HeaderMap>, out: &mut BytesMut, options: &crate::Options) -> Result<()> {
        match (self.framing, trailers) {
            (Framing::Length(left), _) if left > 0 => {
                return Err(self.misfit(&format!("a body {left} bytes shorter than it was said to be")));
            }
            // The last chunk follows the data that is queued: behind its tail, if that is not copied yet.
            (Framing::Chunked, None) if self.chunk.is_some() => self.tail = b"\r\n0\r\n\r\n",
            (Framing::Chunked, None) => out.put_slice(b"0\r\n\r\n"),
            (Framing::Chunked, Some(trailers)) => {
                head::trailers(trailers, options, out).map_err(|error| self.delivered(error.with_phase(Phase::Send)))?
            }
            _ => {}
        }
        self.ended = true;
        Ok(())
    }

    /// The caller's body is not what the head said: what was sent can't be finished.
    fn misfit(&self, message: &str) -> Error {
        let error = Error::usage(message).with_phase(Phase::Send).with_protocol(crate::PROTOCOL);
        error.with_delivery(self.delivery())
    }

    fn failed(&self, error: BoxError) -> Error {
        let failed = Error::usage("the request's body failed").with_phase(Phase::Send).with_protocol(crate::PROTOCOL);
        failed.with_delivery(self.delivery()).with_source(error)
    }

    fn lost(&self, error: std::io::Error) -> Error {
        self.delivered(Error::io(Phase::Send, error).with_protocol(crate::PROTOCOL))
    }

    fn delivered(&self, error: Error) -> Error {
        error.with_delivery(self.delivery())
    }

    fn delivery(&self) -> Delivery {
        if self.begun { Delivery::Unknown } else { Delivery::NotSent }
    }
}

fn chunk_len<D: Buf>(data: &D) -> usize {
    data.chunk().len()
}

fn put_hex(out: &mut BytesMut, number: usize) {
    let digits = (usize::BITS - number.leading_zeros()).div_ceil(4).max(1);
    for at in (0..digits).rev() {
        let digit = (number >> (at * 4)) & 0xf;
        out.put_u8(b"0123456789abcdef".get(digit).copied().unwrap_or(b'0'));
    }
}

impl<T, B> Sending<T> for Upload<B>
where
    T: AsyncRead + AsyncWrite + Unpin,
    B: Body + Send,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    fn poll(&mut self, conn: &mut Connection<T>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_send(conn, cx)
    }
}
