//! What waits to be written.

use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use portolan_core::{Error, Kind, Phase, Result};
use tokio::io::AsyncWrite;

use crate::codec::{CloseFrame, DataKind, Encoder, IN_PLACE, Message, Opcode, PROTOCOL};
use crate::heard::Ear;
use crate::options::Options;

/// How much of a long payload is copied, masked and written at once. Large, since each write wakes the peer once more.
const CHUNK: usize = 512 << 10;
/// The most of a borrowed slice that becomes one message.
const SLICE: usize = 64 << 10;
/// A buffer that grew beyond this is let go after so many rounds in which it was not needed.
const KEEP: usize = 160 << 10;
const KEEP_ROUNDS: u8 = 16;

/// Frames on their way out. Between two frames, control frames go first.
#[derive(Debug)]
pub(crate) struct Outbound {
    encoder: Encoder,
    /// Encoded, in order.
    buf: BytesMut,
    /// The frame whose header is in `buf` and whose payload is not, or not all.
    payload: Option<crate::codec::Payload>,
    /// The answer to the last ping, while a payload is in the way (RFC 6455 5.5.3: to the last one is enough).
    pong: Option<Bytes>,
    /// The Close that waits for a payload to end. `Some(None)` has no reason.
    close: Option<Option<CloseFrame>>,
    high: usize,
    unflushed: bool,
    /// No room is kept for the next message.
    lean: bool,
    /// Rounds in which a large buffer was not needed.
    small: u8,
    ear: Option<Box<Ear>>,
}

impl Outbound {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            encoder: Encoder::new(options.role, options.agreed, options.deflate.as_ref()),
            buf: BytesMut::new(),
            payload: None,
            pong: None,
            close: None,
            high: options.write_buffer,
            unflushed: false,
            lean: options.lean,
            small: 0,
            ear: Ear::new(&options.heard_by, true),
        }
    }

    /// Whether a message may be taken: otherwise the writer waits.
    pub(crate) fn has_room(&self) -> bool {
        self.payload.is_none() && self.buf.len() < self.high
    }

    /// Bytes that the peer has not taken yet.
    pub(crate) fn waiting(&self) -> usize {
        self.buf.len() + self.payload.as_ref().map_or(0, crate::codec::Payload::len)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.waiting() == 0 && self.pong.is_none() && self.close.is_none() && !self.unflushed
    }

    /// Takes a message whole; ask [`has_room`](Self::has_room) before.
    #[inline]
    pub(crate) fn message(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Text(text) => self.data(DataKind::Text, text.into_bytes(), true),
            Message::Binary(data) => self.data(DataKind::Binary, data, true),
            control => {
                let start = self.buf.len();
                self.encoder.message(&control, &mut self.buf).inspect_err(|_| self.buf.truncate(start))
            }
        }
    }

    /// Takes a frame of data; the first of a message names its kind.
    pub(crate) fn data(&mut self, kind: DataKind, data: Bytes, fin: bool) -> Result<()> {
        let Some(mut ear) = self.ear.take() else { return self.take(kind, data, fin) };
        let taken = self.take(kind, data.clone(), fin);
        if taken.is_ok() {
            ear.piece(kind, &data, fin);
        }
        self.ear = Some(ear);
        taken
    }

    #[inline]
    fn take(&mut self, kind: DataKind, data: Bytes, fin: bool) -> Result<()> {
        if fin && data.len() <= IN_PLACE && !self.encoder.compresses() && !self.encoder.in_message() {
            // Most messages: whole, short, and as they are.
            return self.encoder.slice(kind, &data, &mut self.buf);
        }
        let mut payload = self.encoder.data(kind, data, fin, &mut self.buf)?;
        // A long payload that is ready as it lies is not copied at all, any other as the peer takes it.
        let direct = payload.plain().is_some_and(|data| data.len() > IN_PLACE);
        if direct || !payload.write(&mut self.buf, CHUNK) {
            self.payload = Some(payload);
        }
        Ok(())
    }

    /// Takes as much of borrowed bytes as there is room for, as one message.
    pub(crate) fn slice(&mut self, data: &[u8]) -> Result<usize> {
        let fits = data.len().min(SLICE);
        let data = data.get(..fits).unwrap_or_default();
        if self.encoder.compresses() {
            self.data(DataKind::Binary, Bytes::copy_from_slice(data), true)?;
        } else {
            self.encoder.slice(DataKind::Binary, data, &mut self.buf)?;
            if let Some(ear) = &self.ear {
                ear.whole(DataKind::Binary, data);
            }
        }
        Ok(fits)
    }

    /// Whether a message was begun in fragments and not ended.
    pub(crate) fn in_message(&self) -> bool {
        self.encoder.in_message()
    }

    /// Answers a ping, after the frame at hand. Unanswered ones before it are passed over when the peer reads slowly.
    pub(crate) fn pong(&mut self, data: Bytes) -> Result<()> {
        if self.has_room() {
            return self.encoder.control(Opcode::Pong, &data, &mut self.buf);
        }
        self.pong = Some(data);
        Ok(())
    }

    pub(crate) fn ping(&mut self, data: &[u8]) -> Result<()> {
        // With no room the peer isn't taking anything: one more frame would tell nothing new.
        if self.has_room() { self.encoder.control(Opcode::Ping, data, &mut self.buf) } else { Ok(()) }
    }

    /// Says goodbye, after the frame at hand.
    pub(crate) fn close(&mut self, frame: Option<CloseFrame>) -> Result<()> {
        self.pong = None;
        if self.payload.is_some() {
            self.close = Some(frame);
            return Ok(());
        }
        self.encoder.message(&Message::Close(frame), &mut self.buf)
    }

    /// Nothing more is written.
    pub(crate) fn clear(&mut self) {
        self.buf = BytesMut::new();
        (self.payload, self.pong, self.close, self.unflushed) = (None, None, None, false);
    }

    /// Moves what waits behind the buffer into it.
    fn fill(&mut self) -> Result<()> {
        if let Some(payload) = &mut self.payload {
            // What needs no mask is written from where it lies.
            if !self.buf.is_empty() || payload.plain().is_some() {
                return Ok(());
            }
            if !payload.write(&mut self.buf, CHUNK) {
                return Ok(());
            }
            self.payload = None;
        }
        if let Some(data) = self.pong.take() {
            self.encoder.control(Opcode::Pong, &data, &mut self.buf)?;
        }
        if let Some(frame) = self.close.take() {
            self.encoder.message(&Message::Close(frame), &mut self.buf)?;
        }
        Ok(())
    }

    /// Writes until nothing waits, or the peer takes no more; with `flush` the transport is flushed after that.
    pub(crate) fn poll_write<T>(&mut self, io: &mut T, cx: &mut Context<'_>, flush: bool) -> Poll<Result<()>>
    where
        T: AsyncWrite + Unpin,
    {
        loop {
            self.fill()?;
            let plain = self.payload.as_ref().and_then(crate::codec::Payload::plain).unwrap_or_default();
            let written = match (self.buf.is_empty(), plain.is_empty()) {
                (true, true) => break,
                (false, true) => Pin::new(&mut *io).poll_write(cx, &self.buf),
                (true, false) => Pin::new(&mut *io).poll_write(cx, plain),
                // The header and its payload in one.
                (false, false) => {
                    Pin::new(&mut *io).poll_write_vectored(cx, &[IoSlice::new(&self.buf), IoSlice::new(plain)])
                }
            };
            match ready!(written).map_err(failed)? {
                0 => {
                    let error = Error::new(Kind::Closed, "the transport takes nothing");
                    return Poll::Ready(Err(error.with_protocol(PROTOCOL).with_phase(Phase::Send)));
                }
                n => self.advance(n),
            }
        }
        if self.lean || self.small >= KEEP_ROUNDS {
            (self.buf, self.small) = (BytesMut::new(), 0);
        }
        if flush && self.unflushed {
            ready!(Pin::new(io).poll_flush(cx)).map_err(failed)?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut n: usize) {
        self.unflushed = true;
        let payload = n.saturating_sub(self.buf.len());
        if payload > 0 && self.payload.as_mut().is_some_and(|waiting| waiting.advance(payload)) {
            self.payload = None;
        }
        n -= payload;
        if self.buf.is_empty() {
            return;
        }
        if n >= self.buf.len() {
            self.small = if self.buf.capacity() > KEEP && n < KEEP / 2 { self.small + 1 } else { 0 };
            // Keeps the room, from its start.
            self.buf.clear();
        } else {
            self.buf.advance(n);
        }
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::io(Phase::Send, error).with_protocol(PROTOCOL)
}
