//! A byte stream out of binary messages: for protocols that ride on WebSocket, such as MQTT.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::codec::{CloseCode, CloseFrame, DataKind, Event};
use crate::socket::{Wakers, WebSocket};

/// Reads and writes as a socket does: the borders of messages mean nothing.
///
/// Each write becomes one binary message of at most 64 KiB; nothing is held for reading but the piece at hand. The peer's Close
/// is the end of the stream; shutting down says Close with 1000.
#[derive(Debug)]
pub struct ByteStream<T> {
    socket: WebSocket<T>,
    left: Bytes,
    accept_text: bool,
    ended: bool,
}

impl<T: AsyncRead + AsyncWrite + Unpin> WebSocket<T> {
    /// The connection as a byte stream of binary messages.
    pub fn into_io(self) -> ByteStream<T> {
        ByteStream { socket: self, left: Bytes::new(), accept_text: false, ended: false }
    }
}

impl<T> ByteStream<T> {
    /// Whether text is read like binary. Default false: it ends the connection with 1003, as MQTT 6.0 wants it.
    #[must_use]
    pub fn accept_text(mut self, on: bool) -> Self {
        self.accept_text = on;
        self
    }

    /// The connection again; bytes that were read and not taken are lost.
    pub fn into_inner(self) -> WebSocket<T> {
        self.socket
    }

    /// The connection, for its facts.
    pub fn socket(&self) -> &WebSocket<T> {
        &self.socket
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for ByteStream<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.left.is_empty() && !this.ended {
            match ready!(this.socket.poll_event(Wakers::same(cx), true))? {
                Some(Event::Piece { kind, data, .. } | Event::Message(kind, data)) => {
                    if kind == DataKind::Text && !this.accept_text {
                        let frame = CloseFrame::new(CloseCode::UNSUPPORTED, "binary only");
                        this.socket.core.start_close(Some(frame))?;
                        // It goes out as far as it may without waiting.
                        let _ = this.socket.poll_flush(cx.waker());
                        this.ended = true;
                        return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a text message")));
                    }
                    this.left = data;
                }
                Some(Event::Ping(_) | Event::Pong(_)) => {}
                Some(Event::Close(_)) | None => this.ended = true,
            }
        }
        let n = this.left.len().min(buf.remaining());
        buf.put_slice(this.left.get(..n).unwrap_or_default());
        this.left.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ByteStream<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.socket.poll_room(cx.waker()))?;
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let taken = self.socket.core.out.slice(buf)?;
        // Sent at once where it can be: callers of a socket need not flush.
        if let Poll::Ready(Err(error)) = self.socket.poll_flush(cx.waker()) {
            return Poll::Ready(Err(error.into()));
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_flush(cx.waker()).map_err(io::Error::from)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.socket.core.is_over() {
            return Poll::Ready(Ok(()));
        }
        self.socket.core.start_close(Some(CloseFrame::new(CloseCode::NORMAL, "")))?;
        self.socket.poll_flush(cx.waker()).map_err(io::Error::from)
    }
}
