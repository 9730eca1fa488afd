//! Messages in pieces, both ways: for those that are too long to hold, or that are not whole yet.

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;
use portolan_core::Result;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::codec::{DataKind, Event, Utf8};
use crate::socket::{Wakers, WebSocket, usage};

/// What messages are read from: a connection, or its half.
pub(crate) trait Pull {
    fn poll_pull(&mut self, cx: &mut Context<'_>, pieces: bool) -> Poll<Result<Option<Event>>>;
    /// The rest of the message at hand is of no interest.
    fn skip(&mut self);
}

/// What messages are written to.
pub(crate) trait Push {
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>>;
    fn push(&mut self, kind: DataKind, data: Bytes, fin: bool) -> Result<()>;
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>>;
    fn in_message(&self) -> bool;
}

impl<T: AsyncRead + AsyncWrite + Unpin> Pull for WebSocket<T> {
    fn poll_pull(&mut self, cx: &mut Context<'_>, pieces: bool) -> Poll<Result<Option<Event>>> {
        self.poll_event(Wakers::same(cx), pieces)
    }

    fn skip(&mut self) {
        self.core.skip_message();
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Push for WebSocket<T> {
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_room(cx.waker())
    }

    fn push(&mut self, kind: DataKind, data: Bytes, fin: bool) -> Result<()> {
        self.push(kind, data, fin)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_flush(cx.waker())
    }

    fn in_message(&self) -> bool {
        self.core.out.in_message()
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> WebSocket<T> {
    /// The next message piece by piece, as it arrives; `None` when the conversation has ended, or the peer says Close.
    ///
    /// Nothing of it is held but the piece at hand. [`Options::max_message`](crate::Options::max_message) holds for the whole
    /// of it.
    pub async fn recv_stream(&mut self) -> Result<Option<MessageReader<'_>>>
    where
        T: Send,
    {
        MessageReader::begin(self).await
    }

    /// Begins a message that is sent in fragments, one for each [`write`](MessageWriter::write).
    pub fn send_stream(&mut self, kind: DataKind) -> Result<MessageWriter<'_>>
    where
        T: Send,
    {
        MessageWriter::begin(self, kind)
    }
}

/// A message that is read as it arrives. Dropped before its end, what is left of it is passed over.
pub struct MessageReader<'a> {
    from: &'a mut (dyn Pull + Send),
    kind: DataKind,
    first: Option<Bytes>,
    end: bool,
}

impl<'a> MessageReader<'a> {
    pub(crate) async fn begin(from: &'a mut (dyn Pull + Send)) -> Result<Option<Self>> {
        loop {
            match poll_fn(|cx| from.poll_pull(cx, true)).await? {
                Some(Event::Piece { kind, data, end }) => {
                    return Ok(Some(Self { from, kind, first: Some(data), end }));
                }
                Some(Event::Message(kind, data)) => {
                    return Ok(Some(Self { from, kind, first: Some(data), end: true }));
                }
                Some(Event::Ping(_) | Event::Pong(_)) => {}
                Some(Event::Close(_)) | None => return Ok(None),
            }
        }
    }

    /// Whether it is text. A piece of text may end within a character.
    pub fn kind(&self) -> DataKind {
        self.kind
    }

    /// The next piece, which may be empty; `None` at the end. Dropping the future loses nothing.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        while !self.end {
            match poll_fn(|cx| self.from.poll_pull(cx, true)).await {
                Ok(Some(Event::Piece { data, end, .. })) => {
                    self.end = end;
                    return Ok(Some(data));
                }
                Ok(Some(Event::Ping(_) | Event::Pong(_))) => {}
                other => {
                    self.end = true;
                    // A Close in mid-message ends the message for ever.
                    other?;
                    return Err(portolan_core::Error::closed("closed in mid-message"));
                }
            }
        }
        Ok(None)
    }
}

impl Drop for MessageReader<'_> {
    fn drop(&mut self) {
        if !self.end {
            self.from.skip();
        }
    }
}

impl fmt::Debug for MessageReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageReader").field("kind", &self.kind).field("end", &self.end).finish_non_exhaustive()
    }
}

/// A message that is sent in fragments.
///
/// Dropped before [`finish`](Self::finish), the message can't be ended truthfully: no further data can be sent, and the
/// connection is good for closing alone.
pub struct MessageWriter<'a> {
    to: &'a mut (dyn Push + Send),
    kind: DataKind,
    text: Utf8,
}

impl<'a> MessageWriter<'a> {
    pub(crate) fn begin(to: &'a mut (dyn Push + Send), kind: DataKind) -> Result<Self> {
        if to.in_message() {
            return Err(usage("a message sent in fragments was not finished"));
        }
        Ok(Self { to, kind, text: Utf8::default() })
    }

    /// Sends a fragment. It waits while the write buffer is full; dropped before there was room, the fragment is not sent.
    pub async fn write(&mut self, data: impl Into<Bytes>) -> Result<()> {
        let data = data.into();
        poll_fn(|cx| self.to.poll_room(cx)).await?;
        self.check(&data)?;
        self.to.push(self.kind, data, false)?;
        poll_fn(|cx| self.to.poll_flush(cx)).await
    }

    /// Sends the last fragment, which may be empty, and flushes.
    pub async fn finish(mut self, data: impl Into<Bytes>) -> Result<()> {
        let data = data.into();
        poll_fn(|cx| self.to.poll_room(cx)).await?;
        self.check(&data)?;
        if self.kind == DataKind::Text && self.text.finish().is_err() {
            return Err(usage("the text ends within a character"));
        }
        self.to.push(self.kind, data, true)?;
        poll_fn(|cx| self.to.poll_flush(cx)).await
    }

    fn check(&mut self, data: &[u8]) -> Result<()> {
        if self.kind == DataKind::Text && self.text.push(data).is_err() {
            return Err(usage("the text is not UTF-8"));
        }
        Ok(())
    }
}

impl fmt::Debug for MessageWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageWriter").field("kind", &self.kind).finish_non_exhaustive()
    }
}
