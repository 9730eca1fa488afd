//! A stream whose peer is never kept waiting for an acknowledgement.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use portolan_core::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// OpenSSH gathers small writes to its client (Nagle), so the second of two waits until the first is acknowledged, which our kernel
/// puts off for 40 ms when there is nothing to send: measured, that is the time of most answers through a tunnel.
#[derive(Debug)]
pub(super) struct Prompt(pub(super) Stream);

impl AsyncRead for Prompt {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.0).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            // Where it cannot be done the answer is late, and no worse.
            let _ = self.0.ack_now();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prompt {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
