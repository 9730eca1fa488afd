//! The tunnel as a byte stream, at the client's end.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::Sink;
use portolan_core::{Error, Stream};
use portolan_websocket::{CloseCode, CloseFrame, DataKind, Incoming, Message, Reader, WebSocket, Writer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::protocol::{FIN, MAX_WORD, PROTOCOL, Reason};

/// Reads and writes as a TCP socket does, half-close included. Its halves may be polled by different tasks.
pub(crate) struct TunnelIo {
    reader: Reader<Stream>,
    writer: Writer<Stream>,
    left: Bytes,
    word: Vec<u8>,
    /// The peer's side is over.
    ended: bool,
    /// Ours is.
    fin: bool,
    /// Close was said, by either.
    closed: bool,
    /// There are no words: the end of our side is a Close.
    raw: bool,
}

impl TunnelIo {
    pub(crate) fn new(socket: WebSocket) -> Self {
        let (reader, writer) = socket.split();
        Self {
            reader,
            writer,
            left: Bytes::new(),
            word: Vec::new(),
            ended: false,
            fin: false,
            closed: false,
            raw: false,
        }
    }

    /// Of messages that are bytes and nothing else.
    pub(crate) fn raw(socket: WebSocket) -> Self {
        Self { raw: true, ..Self::new(socket) }
    }

    fn data(&mut self, kind: DataKind, data: Bytes, end: bool) -> io::Result<()> {
        if kind == DataKind::Binary {
            self.left = data;
            return Ok(());
        }
        if self.raw {
            return Err(wrong("a text message"));
        }
        if self.word.len() + data.len() > MAX_WORD {
            return Err(wrong("a word that is too long"));
        }
        self.word.extend_from_slice(&data);
        if !end {
            return Ok(());
        }
        if std::mem::take(&mut self.word) != FIN.as_bytes() {
            return Err(wrong("an unknown word"));
        }
        self.ended = true;
        Ok(())
    }

    /// Both sides are over: says goodbye, as far as that goes without waiting.
    fn part(&mut self, cx: &mut Context<'_>) {
        if self.ended && self.fin && !self.closed {
            self.closed = true;
            let _ = Sink::poll_close(Pin::new(&mut self.writer), cx);
        }
    }
}

impl AsyncRead for TunnelIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.left.is_empty() && !this.ended {
            match ready!(this.reader.poll_incoming(cx)) {
                Ok(Some(Incoming::Data { kind, data, end })) => this.data(kind, data, end)?,
                Ok(Some(Incoming::Close(frame))) => {
                    (this.ended, this.closed) = (true, true);
                    over(frame.as_ref())?;
                }
                Ok(_) => (this.ended, this.closed) = (true, true),
                Err(error) => {
                    (this.ended, this.closed) = (true, true);
                    return Poll::Ready(Err(error.into()));
                }
            }
        }
        this.part(cx);
        let n = this.left.len().min(buf.remaining());
        buf.put_slice(this.left.get(..n).unwrap_or_default());
        this.left.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TunnelIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.fin {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.writer.poll_write_bytes(cx, buf).map_err(io::Error::from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Sink::poll_flush(Pin::new(&mut self.writer), cx).map_err(io::Error::from)
    }

    /// The end of our side; what the target still says is read as before.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.closed {
            let _ = ready!(Sink::poll_flush(Pin::new(&mut this.writer), cx));
            return Poll::Ready(Ok(()));
        }
        if this.raw && !this.fin {
            this.fin = true;
            return Sink::poll_close(Pin::new(&mut this.writer), cx).map_err(io::Error::from);
        }
        if !this.fin {
            ready!(Sink::poll_ready(Pin::new(&mut this.writer), cx))?;
            Sink::start_send(Pin::new(&mut this.writer), Message::from(FIN))?;
            this.fin = true;
        }
        this.part(cx);
        Sink::poll_flush(Pin::new(&mut this.writer), cx).map_err(io::Error::from)
    }
}

impl fmt::Debug for TunnelIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelIo").field("ended", &self.ended).field("fin", &self.fin).finish_non_exhaustive()
    }
}

/// A Close of 1000, or without a code, is the end of the stream; any other cuts it short.
fn over(frame: Option<&CloseFrame>) -> io::Result<()> {
    let Some(frame) = frame.filter(|frame| frame.code != CloseCode::NORMAL) else { return Ok(()) };
    let code = frame.code.get();
    let words = Reason::of(code).map_or("the gateway closed the tunnel", Reason::words);
    let error = Error::closed(format!("{words} (close code {code})"));
    let error = error.with_protocol(PROTOCOL).with_code(i64::from(code));
    Err(io::Error::new(io::ErrorKind::ConnectionReset, error))
}

fn wrong(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Error::protocol(PROTOCOL, what))
}
