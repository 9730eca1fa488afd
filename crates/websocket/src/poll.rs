//! The same by polls, for relays that drive a connection from a task of their own.

use std::task::{Context, Poll};

use bytes::Bytes;
use portolan_core::Result;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::codec::{CloseCode, CloseFrame, DataKind, Event};
use crate::pieces::Pull;
use crate::socket::{Wakers, WebSocket};
use crate::split::{Reader, Writer};

/// What a relay reads: data as it arrives, and the peer's last word.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Incoming {
    /// A piece of a message.
    Data {
        /// Whether the message is text; a piece of text may end within a character.
        kind: DataKind,
        /// What has come of it, as it lies in the read buffer. Empty at most at the end.
        data: Bytes,
        /// Whether the message ends here.
        end: bool,
    },
    /// The peer says goodbye; the answer is on its way.
    Close(Option<CloseFrame>),
}

impl Incoming {
    /// What a relay wants to see: pings and pongs are no business of its.
    fn of(event: Event) -> Option<Self> {
        match event {
            Event::Piece { kind, data, end } => Some(Self::Data { kind, data, end }),
            Event::Message(kind, data) => Some(Self::Data { kind, data, end: true }),
            Event::Close(frame) => Some(Self::Close(frame)),
            Event::Ping(_) | Event::Pong(_) => None,
        }
    }
}

/// Passes over what is not for relays.
fn next(mut event: impl FnMut() -> Poll<Result<Option<Event>>>) -> Poll<Result<Option<Incoming>>> {
    loop {
        match std::task::ready!(event())? {
            None => return Poll::Ready(Ok(None)),
            Some(event) => {
                if let Some(incoming) = Incoming::of(event) {
                    return Poll::Ready(Ok(Some(incoming)));
                }
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> WebSocket<T> {
    /// What has arrived, without waiting for whole messages; `None` once both have said Close and the connection has
    /// ended.
    pub fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Incoming>>> {
        next(|| self.poll_event(Wakers::same(cx), true))
    }

    /// Takes some of `data` as one binary message, once there is room, and says how much: at most 64 KiB. It goes with
    /// the next flush.
    pub fn poll_write_bytes(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<Result<usize>> {
        std::task::ready!(self.poll_room(cx.waker()))?;
        Poll::Ready(self.core.out.slice(data))
    }

    /// Says Close with the next flush, and takes nothing more to send. What arrives until the peer's Close is still
    /// given.
    pub fn start_close(&mut self, code: CloseCode, reason: &str) -> Result<()> {
        self.core.start_close(Some(CloseFrame::new(code, reason)))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Reader<T> {
    /// What has arrived, as [`WebSocket::poll_incoming`] gives it.
    pub fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Incoming>>> {
        next(|| self.poll_pull(cx, true))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Writer<T> {
    /// Takes some of `data`, as [`WebSocket::poll_write_bytes`] does, and flushes as far as that goes without waiting.
    pub fn poll_write_bytes(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<Result<usize>> {
        let mut taken = 0;
        let polled = self.with(cx, |socket, waker| {
            std::task::ready!(socket.poll_room(waker))?;
            taken = socket.core.out.slice(data)?;
            if let Poll::Ready(Err(error)) = socket.poll_flush(waker) {
                return Poll::Ready(Err(error));
            }
            Poll::Ready(Ok(()))
        });
        polled.map(|result| result.map(|()| taken))
    }
}
