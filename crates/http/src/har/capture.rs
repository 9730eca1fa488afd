//! A body that is kept as it passes.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use portolan_core::{Error, Result};

use crate::incoming::Incoming;
use crate::response::Response;

/// What was seen of a body.
pub(super) struct Seen<'a> {
    pub(super) kept: &'a [u8],
    /// How many bytes came, if that is known.
    pub(super) total: Option<u64>,
    /// Whether they were all there are.
    pub(super) whole: bool,
}

/// Called when the body has ended or is dropped.
type Ended = Box<dyn FnOnce(Seen<'_>) + Send>;

/// The same response; up to `max` bytes of its body are kept for `ended`.
pub(super) fn capture(response: Response, max: usize, ended: impl FnOnce(Seen<'_>) + Send + 'static) -> Response {
    // What follows is no body, and who asked for it needs the connection itself.
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        ended(Seen { kept: b"", total: Some(0), whole: true });
        return response;
    }
    let ended: Ended = Box::new(ended);
    response
        .map_body(|body| Incoming::from_body(Captured { body, kept: Vec::new(), max, total: 0, ended: Some(ended) }))
}

struct Captured {
    body: Incoming,
    kept: Vec<u8>,
    max: usize,
    total: u64,
    ended: Option<Ended>,
}

impl Captured {
    fn end(&mut self, whole: bool) {
        if let Some(ended) = self.ended.take() {
            ended(Seen { kept: &self.kept, total: Some(self.total), whole });
        }
    }
}

impl Body for Captured {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                let data = frame.data_ref().map(Bytes::as_ref).unwrap_or_default();
                let room = self.max.saturating_sub(self.kept.len());
                self.kept.extend_from_slice(data.get(..room).unwrap_or(data));
                self.total += data.len() as u64;
                if self.body.is_end_stream() {
                    self.end(true);
                }
            }
            Some(Err(_)) => self.end(false),
            None => self.end(true),
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

impl Drop for Captured {
    fn drop(&mut self) {
        let whole = self.body.is_end_stream();
        self.end(whole);
    }
}
