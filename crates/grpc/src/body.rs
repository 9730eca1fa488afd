//! Request bodies, as a transport gets them.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use portolan_core::BoxError;

/// Which sides of a call are streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Shape {
    /// One message each way.
    #[default]
    Unary,
    /// Many messages to the server, one back.
    ClientStreaming,
    /// One message to the server, many back.
    ServerStreaming,
    /// Many messages each way, in any order.
    Duplex,
}

impl Shape {
    /// Whether the response is one message.
    pub fn answers_once(self) -> bool {
        matches!(self, Self::Unary | Self::ClientStreaming)
    }

    /// Whether the request is one message.
    pub fn asks_once(self) -> bool {
        matches!(self, Self::Unary | Self::ServerStreaming)
    }
}

/// The body of a gRPC request: framed messages at hand, or a stream of them. Beside the bytes it tells the transport what it
/// may need to know of the call.
pub struct Body {
    inner: Inner,
    shape: Shape,
    wait_for_ready: bool,
    safe: bool,
}

pub(crate) type BoxBody = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BoxError> + Send>>;

enum Inner {
    Full(Option<Bytes>),
    Stream(BoxBody),
}

impl Body {
    /// Bytes at hand.
    pub fn full(bytes: Bytes) -> Self {
        Self { inner: Inner::Full(Some(bytes)), shape: Shape::Unary, wait_for_ready: false, safe: false }
    }

    /// Pieces as they come.
    pub fn stream<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static,
    {
        Self { inner: Inner::Stream(Box::pin(body)), shape: Shape::Duplex, wait_for_ready: false, safe: false }
    }

    /// Any body.
    pub fn wrap<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        Self { inner: Inner::Stream(boxed_body(body)), shape: Shape::Duplex, wait_for_ready: false, safe: false }
    }

    /// Which sides of the call are streams.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Whether the call would rather wait for a connection than fail without one.
    pub fn wait_for_ready(&self) -> bool {
        self.wait_for_ready
    }

    /// Whether the method said that it has [no side effects](crate::Method::no_side_effects).
    pub fn is_safe(&self) -> bool {
        self.safe
    }

    /// The bytes, if they are at hand; the body by itself if not.
    #[cfg_attr(
        not(any(feature = "connect", feature = "prost", feature = "transcoding", feature = "web")),
        allow(dead_code, reason = "for translations and records alone")
    )]
    pub(crate) fn into_full(self) -> Result<Bytes, BoxBody> {
        match self.inner {
            Inner::Full(bytes) => Ok(bytes.unwrap_or_default()),
            Inner::Stream(body) => Err(body),
        }
    }

    #[must_use]
    pub(crate) fn for_call(mut self, shape: Shape, wait_for_ready: bool, safe: bool) -> Self {
        (self.shape, self.wait_for_ready, self.safe) = (shape, wait_for_ready, safe);
        self
    }
}

impl Default for Body {
    fn default() -> Self {
        Self { inner: Inner::Full(None), shape: Shape::Unary, wait_for_ready: false, safe: false }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.inner {
            Inner::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Inner::Stream(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Full(bytes) => bytes.is_none(),
            Inner::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Inner::Stream(body) => body.size_hint(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("shape", &self.shape).finish_non_exhaustive()
    }
}

/// Any body, of one type.
pub(crate) fn boxed_body<B>(body: B) -> BoxBody
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    Box::pin(Boxed(Box::pin(body)))
}

/// A body whose errors are boxed.
struct Boxed<B>(Pin<Box<B>>);

impl<B> http_body::Body for Boxed<B>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.as_mut().poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
