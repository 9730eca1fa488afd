//! Response bodies, whatever version they come by.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use portolan_core::{Delivery, Error, Phase, Result, Stream, clock};
use portolan_http1 as h1;
use portolan_http2 as h2;
use portolan_http3 as h3;
use portolan_pool::Lease;
use portolan_wire::Alarm;

use crate::body::BoxBody;
use crate::connection::{Held, Manager};

/// The body of a response: data as it is read, then trailers if there are any.
///
/// Reading gives the peer leave to send more; not reading stops it. Dropped before its end it cancels the response: over
/// HTTP/1.1 that ends the connection unless the rest is short and there already, over HTTP/2 and 3 the stream alone.
pub struct Incoming {
    source: Source,
    /// How long the peer may stay silent, where the connection beneath doesn't say so itself.
    idle: Alarm,
    idle_limit: Option<Duration>,
    deadline: Option<Box<Deadline>>,
}

enum Source {
    H1(h1::RecvBody<Held, Stream>),
    H2(h2::RecvBody, Option<Lease<Manager>>),
    H3(h3::RecvBody, Option<Lease<Manager>>),
    Other(BoxBody),
}

/// The end of the whole call.
struct Deadline {
    total: Alarm,
    at: clock::Instant,
    limit: Duration,
}

impl Deadline {
    fn is_over(&self) -> bool {
        clock::now() >= self.at
    }
}

impl Incoming {
    pub(crate) fn h1(body: h1::RecvBody<Held, Stream>) -> Self {
        Self::new(Source::H1(body), None)
    }

    pub(crate) fn h2(body: h2::RecvBody, lease: Lease<Manager>, idle: Option<Duration>) -> Self {
        let lease = (!body.is_end_stream()).then_some(lease);
        Self::new(Source::H2(body, lease), idle)
    }

    pub(crate) fn h3(body: h3::RecvBody, lease: Lease<Manager>, idle: Option<Duration>) -> Self {
        let lease = (!body.is_end_stream()).then_some(lease);
        Self::new(Source::H3(body, lease), idle)
    }

    fn new(source: Source, idle_limit: Option<Duration>) -> Self {
        Self { source, idle: Alarm::default(), idle_limit, deadline: None }
    }

    /// Any body: of a middleware that answers by itself, of a cache, of a test.
    pub fn from_body<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<portolan_core::BoxError>,
    {
        Self::new(Source::Other(Box::pin(http_body_util::BodyExt::map_err(body, Into::into))), None)
    }

    pub(crate) fn with_deadline(mut self, at: clock::Instant, limit: Duration) -> Self {
        if !self.is_end_stream() {
            let mut total = Alarm::default();
            total.at(Some(at));
            self.deadline = Some(Box::new(Deadline { total, at, limit }));
        }
        self
    }

    pub(crate) fn into_h1(self) -> Option<h1::RecvBody<Held, Stream>> {
        match self.source {
            Source::H1(body) => Some(body),
            _ => None,
        }
    }

    /// Ready when a bound has passed.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        if let Some(deadline) = &mut self.deadline
            && deadline.total.poll(cx).is_ready()
        {
            return Poll::Ready(Error::timeout(Phase::Total, deadline.limit));
        }
        let Some(limit) = self.idle_limit else { return Poll::Pending };
        if !self.idle.is_set() {
            self.idle.after(Some(limit));
        }
        self.idle.poll(cx).map(|()| Error::timeout(Phase::Idle, limit))
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.source {
            Source::H1(body) => Pin::new(body).poll_frame(cx),
            Source::H2(body, lease) => poll_shared(body, lease, cx),
            Source::H3(body, lease) => poll_shared(body, lease, cx),
            Source::Other(body) => Poll::Ready(ready!(body.as_mut().poll_frame(cx)).map(|frame| frame.map_err(typed))),
        }
    }
}

/// Reads from a stream of a connection that others use too, and lets go of it at the stream's end.
fn poll_shared<B>(
    body: &mut B,
    lease: &mut Option<Lease<Manager>>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, Error>>>
where
    B: Body<Data = Bytes, Error = Error> + Unpin,
{
    let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
    if body.is_end_stream() || !matches!(frame, Some(Ok(_))) {
        *lease = None;
    }
    Poll::Ready(frame)
}

/// The workspace's error, where it is one already.
fn typed(error: portolan_core::BoxError) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => *error,
        Err(error) => Error::closed("the body failed").with_source(error).with_delivery(Delivery::Answered),
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let ended = this.is_end_stream();
        // The end of the call comes however much there is to read.
        let late = match &this.deadline {
            Some(deadline) if !ended && deadline.is_over() => Error::timeout(Phase::Total, deadline.limit),
            _ => match this.poll_source(cx) {
                Poll::Ready(frame) => {
                    this.idle.at(None);
                    return Poll::Ready(frame);
                }
                Poll::Pending => ready!(this.poll_late(cx)),
            },
        };
        (this.deadline, this.idle_limit) = (None, None);
        this.source = Source::Other(Box::pin(crate::Body::empty()));
        Poll::Ready(Some(Err(late.with_delivery(Delivery::Answered).with_protocol(crate::PROTOCOL))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::H1(body) => body.is_end_stream(),
            Source::H2(body, _) => body.is_end_stream(),
            Source::H3(body, _) => body.is_end_stream(),
            Source::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::H1(body) => body.size_hint(),
            Source::H2(body, _) => body.size_hint(),
            Source::H3(body, _) => body.size_hint(),
            Source::Other(body) => body.size_hint(),
        }
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("length", &self.size_hint().exact()).finish_non_exhaustive()
    }
}
