//! A stream that is recorded as it is used.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::redact::Redact;
use super::transcript::{Side, Transcript};
use super::{Log, RawWhat};

/// A client's stream that writes down what goes through it: reads are the server's words, writes the client's.
pub struct Recorded<S> {
    io: S,
    log: Arc<Log>,
    ended: bool,
}

/// What a [`Recorded`] stream has written down; it outlives the stream.
#[derive(Debug, Clone)]
pub struct Tap {
    log: Arc<Log>,
    redact: Redact,
}

impl<S> Recorded<S> {
    /// Records this stream from now on.
    pub fn new(io: S, redact: Redact) -> (Self, Tap) {
        let log = Arc::new(Log::new());
        log.open();
        (Self { io, log: log.clone(), ended: false }, Tap { log, redact })
    }
}

impl Tap {
    /// What was said so far.
    pub fn transcript(&self) -> Transcript {
        self.log.transcript(&self.redact)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Recorded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        let came = &buf.filled()[before..];
        let what = match &result {
            Ok(()) if came.is_empty() && buf.remaining() > 0 => Some(RawWhat::Closed),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Some(RawWhat::Reset),
            _ => None,
        };
        self.log.said(0, Side::Server, came);
        if let Some(what) = what
            && !std::mem::replace(&mut self.ended, true)
        {
            self.log.add(0, Side::Server, what);
        }
        Poll::Ready(result)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Recorded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.log.said(0, Side::Client, &buf[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        self.log.add(0, Side::Client, RawWhat::Closed);
        Poll::Ready(Ok(()))
    }
}

impl<S> fmt::Debug for Recorded<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorded").finish_non_exhaustive()
    }
}
