//! A server that talks once it is spoken to.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The server's bytes in pieces, then its end, from the client's first word on; what the client says goes nowhere.
pub(crate) struct Tape {
    left: Bytes,
    piece: usize,
    asked: bool,
    reader: Option<Waker>,
}

impl Tape {
    pub(crate) fn new(said: &[u8], piece: usize) -> Self {
        Self { left: Bytes::copy_from_slice(said), piece, asked: false, reader: None }
    }

    /// Says no more until it is asked again.
    pub(crate) fn hush(&mut self) {
        self.asked = false;
    }
}

impl AsyncRead for Tape {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.asked {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let n = self.piece.min(self.left.len()).min(buf.remaining());
        buf.put_slice(&self.left.split_to(n));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tape {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.asked = true;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
