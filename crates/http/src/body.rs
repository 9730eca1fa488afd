//! Request bodies.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;
use http_body::{Frame, SizeHint};
use portolan_core::BoxError;
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use crate::multipart::FormBody;

/// The body of a request: bytes at hand, or a stream of them. What is at hand, and what can be made anew, can be sent again.
pub struct Body(Inner);

pub(crate) type BoxBody = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BoxError> + Send>>;
type Make = Arc<dyn Fn() -> Body + Send + Sync>;

enum Inner {
    Empty,
    Bytes(Bytes),
    Stream(BoxBody),
    /// Made when it is needed, as often as it is needed.
    Made(Make, Option<BoxBody>),
    /// It was sent, and there is no other.
    Spent,
}

impl Body {
    /// No body.
    pub const fn empty() -> Self {
        Self(Inner::Empty)
    }

    /// Pieces as they come. Sent once: a failed request with such a body is tried again only if nothing of it left.
    pub fn from_stream<S, B, E>(stream: S) -> Self
    where
        S: Stream<Item = Result<B, E>> + Send + 'static,
        B: Into<Bytes>,
        E: Into<BoxError>,
    {
        Self(Inner::Stream(Box::pin(Streamed(Box::pin(stream)))))
    }

    /// Whatever a reader gives: a file, a pipe. Sent once, as [`from_stream`](Self::from_stream) is.
    pub fn from_reader(reader: impl AsyncRead + Send + 'static) -> Self {
        Self::from_stream(ReaderStream::with_capacity(reader, 64 << 10))
    }

    /// What a reader gives, which must be `length` bytes: fewer or more is an error while it is sent. Sent once.
    pub fn from_reader_with_length(reader: impl AsyncRead + Send + 'static, length: u64) -> Self {
        let body = Self::from_reader(reader);
        Self(Inner::Stream(Box::pin(Measured { body, left: length })))
    }

    /// Any body of the `http-body` crate, trailers and all.
    pub fn from_body<B>(body: B) -> Self
    where
        B: http_body::Body + Send + 'static,
        B::Data: Into<Bytes>,
        B::Error: Into<BoxError>,
    {
        if body.is_end_stream() {
            return Self::empty();
        }
        Self(Inner::Stream(Box::pin(Converted(Box::pin(body)))))
    }

    /// A body that is made anew each time the request is sent: a file that is opened again, a stream that can start over.
    pub fn from_fn(make: impl Fn() -> Self + Send + Sync + 'static) -> Self {
        Self(Inner::Made(Arc::new(make), None))
    }

    /// The same body, telling `told` how many bytes have been taken to be sent so far, and how many there are if that is known.
    /// Taken is not arrived: the connection and the network hold some.
    pub fn with_progress(self, told: impl Fn(u64, Option<u64>) + Send + Sync + 'static) -> Self {
        let told: Told = Arc::new(told);
        match self.try_clone() {
            Some(_) => {
                let body = std::sync::Mutex::new(self);
                Self::from_fn(move || {
                    let copy = body.lock().unwrap_or_else(std::sync::PoisonError::into_inner).try_clone();
                    Self(Inner::Stream(Box::pin(Counted::new(copy.unwrap_or_default().ready(), told.clone()))))
                })
            }
            None => Self(Inner::Stream(Box::pin(Counted::new(self, told)))),
        }
    }

    /// The bytes, if they are at hand.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match &self.0 {
            Inner::Empty => Some(b""),
            Inner::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The same, shared.
    pub(crate) fn bytes(&self) -> Option<Bytes> {
        match &self.0 {
            Inner::Empty => Some(Bytes::new()),
            Inner::Bytes(bytes) => Some(bytes.clone()),
            _ => None,
        }
    }

    /// The same body once more, if that can be had.
    pub fn try_clone(&self) -> Option<Self> {
        match &self.0 {
            Inner::Empty => Some(Self::empty()),
            Inner::Bytes(bytes) => Some(Self(Inner::Bytes(bytes.clone()))),
            Inner::Stream(_) | Inner::Spent => None,
            Inner::Made(make, _) => Some(Self(Inner::Made(Arc::clone(make), None))),
        }
    }

    /// Whether it can be sent again.
    pub fn is_replayable(&self) -> bool {
        !matches!(self.0, Inner::Stream(_) | Inner::Spent)
    }

    /// Takes a body that can be sent once, and leaves a mark.
    pub(crate) fn spend(&mut self) -> Self {
        std::mem::replace(self, Self(Inner::Spent))
    }

    /// Whether it was sent, and can't be had again.
    pub(crate) fn is_spent(&self) -> bool {
        matches!(self.0, Inner::Spent)
    }

    /// Makes what is made late, so that its length is known.
    pub(crate) fn ready(mut self) -> Self {
        loop {
            match self.0 {
                Inner::Made(make, None) => self = make(),
                inner => return Self(inner),
            }
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(if bytes.is_empty() { Inner::Empty } else { Inner::Bytes(bytes) })
    }
}

macro_rules! from_bytes {
    ($($type:ty),*) => {$(
        impl From<$type> for Body {
            fn from(value: $type) -> Self {
                Bytes::from(value).into()
            }
        }
    )*};
}
from_bytes!(Vec<u8>, String, &'static [u8], &'static str, Box<[u8]>);

impl From<FormBody> for Body {
    /// In memory it can be sent again; streamed parts go once.
    fn from(form: FormBody) -> Self {
        match form.to_bytes() {
            Some(bytes) => bytes.into(),
            None => Self(Inner::Stream(Box::pin(Converted(Box::pin(form))))),
        }
    }
}

impl From<()> for Body {
    fn from((): ()) -> Self {
        Self::empty()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        match &mut this.0 {
            Inner::Empty => Poll::Ready(None),
            Inner::Spent => Poll::Ready(Some(Err("a body that was sent already".into()))),
            Inner::Bytes(bytes) => {
                let bytes = std::mem::take(bytes);
                this.0 = Inner::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Inner::Stream(body) => body.as_mut().poll_frame(cx),
            Inner::Made(make, made) => {
                let body = made.get_or_insert_with(|| {
                    let body: BoxBody = Box::pin(make());
                    body
                });
                body.as_mut().poll_frame(cx)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Empty => true,
            Inner::Bytes(_) | Inner::Spent => false,
            Inner::Stream(body) => body.is_end_stream(),
            Inner::Made(_, made) => made.as_ref().is_some_and(|body| body.is_end_stream()),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Spent => SizeHint::default(),
            Inner::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Stream(body) => body.size_hint(),
            Inner::Made(_, made) => made.as_ref().map(|body| body.size_hint()).unwrap_or_default(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inner::Empty => f.write_str("Body(empty)"),
            Inner::Bytes(bytes) => write!(f, "Body({} bytes)", bytes.len()),
            Inner::Stream(_) => f.write_str("Body(stream)"),
            Inner::Made(..) => f.write_str("Body(made anew)"),
            Inner::Spent => f.write_str("Body(spent)"),
        }
    }
}

type Told = Arc<dyn Fn(u64, Option<u64>) + Send + Sync>;

/// A body that tells how far it is.
struct Counted {
    body: Body,
    told: Told,
    sent: u64,
    total: Option<u64>,
}

impl Counted {
    fn new(body: Body, told: Told) -> Self {
        let total = http_body::Body::size_hint(&body).exact();
        Self { body, told, sent: 0, total }
    }
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref) {
            self.sent += data.len() as u64;
            (self.told)(self.sent, self.total);
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

/// A body whose length was said.
struct Measured {
    body: Body,
    left: u64,
}

impl http_body::Body for Measured {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let came = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len) as u64,
            Some(Err(_)) => return Poll::Ready(frame),
            None if self.left > 0 => {
                let left = self.left;
                return Poll::Ready(Some(Err(
                    format!("the body ended {left} bytes before the length that was said").into()
                )));
            }
            None => return Poll::Ready(None),
        };
        let Some(left) = self.left.checked_sub(came) else {
            return Poll::Ready(Some(Err("the body is longer than was said".into())));
        };
        self.left = left;
        Poll::Ready(frame)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// A stream of pieces as a body.
struct Streamed<S>(Pin<Box<S>>);

impl<S, B, E> http_body::Body for Streamed<S>
where
    S: Stream<Item = Result<B, E>>,
    B: Into<Bytes>,
    E: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let item = ready!(self.0.as_mut().poll_next(cx));
        Poll::Ready(item.map(|item| item.map(|data| Frame::data(data.into())).map_err(Into::into)))
    }
}

/// Another body, with this crate's kinds of data and error.
struct Converted<B>(Pin<Box<B>>);

impl<B> http_body::Body for Converted<B>
where
    B: http_body::Body,
    B::Data: Into<Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(self.0.as_mut().poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(Into::into)).map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
