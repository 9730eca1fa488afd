//! A body that is kept as it is read.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use http::{request, response};
use http_body::{Body, Frame, SizeHint};

use super::engine::Cache;

/// The body of a response that goes to the cache once it was read to its end. Dropped before, or broken, it leaves nothing.
#[derive(Debug)]
pub struct Recorded<B> {
    body: B,
    recorder: Option<Box<Recorder>>,
}

pub(super) struct Recorder {
    pub(super) cache: Cache,
    pub(super) request: request::Parts,
    pub(super) sent: SystemTime,
    pub(super) response: response::Parts,
    pub(super) bytes: BytesMut,
}

impl<B: Body> Recorded<B> {
    pub(super) fn new(body: B, recorder: Option<Recorder>) -> Self {
        let mut recorded = Self { body, recorder: recorder.map(Box::new) };
        recorded.finish_if_ended();
        recorded
    }

    /// Whether it is still on its way to the cache.
    pub fn is_recording(&self) -> bool {
        self.recorder.is_some()
    }

    /// The body inside; nothing of it is kept.
    pub fn into_inner(self) -> B {
        self.body
    }

    /// Readers that know the length stop at the last byte, without asking for the end.
    fn finish_if_ended(&mut self) {
        if self.body.is_end_stream()
            && let Some(recorder) = self.recorder.take()
        {
            recorder.finish();
        }
    }
}

impl Recorder {
    fn finish(self) {
        self.cache.store(&self.request, self.sent, &self.response, self.bytes.freeze());
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl<B> Body for Recorded<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let this = &mut *self;
        match &frame {
            None => {
                if let Some(recorder) = this.recorder.take() {
                    recorder.finish();
                }
            }
            Some(Err(_)) => this.recorder = None,
            Some(Ok(frame)) => {
                if let (Some(recorder), Some(data)) = (&mut this.recorder, frame.data_ref()) {
                    if recorder.bytes.len() + data.len() > recorder.cache.max_body() {
                        this.recorder = None;
                    } else {
                        recorder.bytes.extend_from_slice(data);
                    }
                }
                this.finish_if_ended();
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
