//! The writing half of a request stream: the head, and a body that is asked for more only when there is room for it.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http_body::Body;
use portolan_core::BoxError;
use portolan_core::kit::Held;
use quinn::{SendStream, WriteError};

use crate::proto::code::Code;
use crate::proto::{frame, request};
use crate::shared::{Critical, Shared};
use crate::slot::Slot;

/// Frames written before the other tasks get their turn.
const TURN: usize = 64;

/// Our half of a stream, with what is yet to be written. Dropped unfinished it is reset: `quinn` would finish it, and a cut
/// request would look whole.
pub(crate) struct Outgoing {
    stream: SendStream,
    /// Asked only while there is no room: `quinn` 0.11 says that the connection is full before it says that the peer wants no
    /// more, and what nobody wants would keep the connection full.
    stopped: Option<Stopped>,
    /// A frame's head and its payload.
    pending: [Bytes; 2],
    done: bool,
}

type Stopped = Pin<Box<dyn Future<Output = Result<Option<quinn::VarInt>, quinn::StoppedError>> + Send>>;

impl Outgoing {
    pub(crate) fn new(stream: SendStream, head: Bytes) -> Self {
        Self { stream, stopped: None, pending: [head, Bytes::new()], done: false }
    }

    /// A stream that was opened and is not wanted.
    pub(crate) fn unwanted(stream: SendStream) -> Self {
        Self::new(stream, Bytes::new())
    }

    pub(crate) fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        while self.pending.iter().any(|bytes| !bytes.is_empty()) {
            let from = usize::from(self.pending[0].is_empty());
            if pin!(self.stream.write_chunks(&mut self.pending[from..])).poll(cx)?.is_ready() {
                continue;
            }
            let stopped = self.stopped.get_or_insert_with(|| Box::pin(self.stream.stopped()));
            match ready!(stopped.as_mut().poll(cx)) {
                Ok(code) => return Poll::Ready(Err(WriteError::Stopped(code.unwrap_or_default()))),
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ends the stream in good order.
    pub(crate) fn finish(&mut self) {
        self.done = true;
        // It fails where the peer has stopped it, which its answer says.
        let _ = self.stream.finish();
    }

    fn reset(&mut self, code: Code) {
        self.done = true;
        let _ = self.stream.reset(code.varint());
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if !self.done {
            self.reset(Code::REQUEST_CANCELLED);
        }
    }
}

/// Ends when the body has been sent, has failed, or is no longer wanted.
pub(crate) struct Sending<B> {
    slot: Arc<Slot>,
    outgoing: Outgoing,
    body: Pin<Box<B>>,
    last: bool,
    /// Until the peer asks for it.
    held: Option<Held>,
}

impl<B> Sending<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    pub(crate) fn new(slot: Arc<Slot>, outgoing: Outgoing, body: B, held: Option<Held>) -> Self {
        Self { slot, outgoing, body: Box::pin(body), last: false, held }
    }

    fn poll_sending(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(code) = self.slot.cancelled(cx.waker()) {
            self.outgoing.reset(code);
            return Poll::Ready(());
        }
        for _ in 0..TURN {
            match ready!(self.outgoing.poll_written(cx)) {
                Ok(()) => {}
                // RFC 9114 4.1: a server may have answered without wanting the rest. What it thinks, its answer says.
                Err(_) => {
                    self.outgoing.reset(Code::REQUEST_CANCELLED);
                    return Poll::Ready(());
                }
            }
            if let Some(held) = &mut self.held {
                if !ready!(held.poll(cx)) {
                    // The answer came without the body: it is read all the same.
                    self.outgoing.reset(Code::REQUEST_CANCELLED);
                    return Poll::Ready(());
                }
                self.held = None;
            }
            if self.last {
                self.outgoing.finish();
                return Poll::Ready(());
            }
            match ready!(self.body.as_mut().poll_frame(cx)) {
                None => self.last = true,
                Some(Ok(frame)) => self.take(frame),
                Some(Err(error)) => self.fail(error.into()),
            }
            if self.outgoing.done {
                return Poll::Ready(());
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn take(&mut self, frame: http_body::Frame<B::Data>) {
        let trailers = match frame.into_data() {
            Ok(mut data) => {
                let data = data.copy_to_bytes(data.remaining());
                if !data.is_empty() {
                    let mut head = BytesMut::with_capacity(16);
                    frame::put_head(frame::DATA, data.len(), &mut head);
                    self.outgoing.pending = [head.freeze(), data];
                }
                self.last = self.body.is_end_stream();
                return;
            }
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => trailers,
                Err(_) => return,
            },
        };
        let hindered = request::check_trailers(&trailers).err().or_else(|| self.slot.shared.hinders(&trailers));
        if let Some(error) = hindered {
            return self.fail(error.into());
        }
        let id = self.slot.id;
        let section = self.slot.shared.with(|state| {
            let out = &mut state.outlets[Critical::Encoder as usize].bytes;
            let section = request::encode_trailers(&trailers, &mut state.encoder, id, out);
            (section, state.written(Critical::Encoder))
        });
        if let (_, Err(violation)) = section {
            self.slot.shared.violated(violation);
        }
        self.outgoing.pending = [section.0, Bytes::new()];
        self.last = true;
    }

    fn fail(&mut self, error: BoxError) {
        self.outgoing.reset(Code::REQUEST_CANCELLED);
        self.slot.body_failed(error);
    }
}

impl<B> Future for Sending<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_sending(cx)
    }
}

/// Waits for room and for a turn: who is told that there is none yet stays in this count.
#[derive(Debug)]
pub(crate) struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    pub(crate) fn new(shared: &'a Shared) -> portolan_core::Result<Self> {
        use std::sync::atomic::Ordering;
        let before = shared.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Self(shared);
        if before >= shared.config.max_waiting.max(1) { Err(Shared::full()) } else { Ok(waiting) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}
