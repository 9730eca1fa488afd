//! A stream of HTTP/2 or HTTP/3 as a byte stream: core's pair of a request body that is written and a response body that is
//! read, in the types of HTTP.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;
use http_body::{Body, Frame};
use portolan_core::{BoxError, Error, kit};

/// A stream of HTTP/2 or HTTP/3, read from its response body `B` and written to its request body.
pub type Duplex<B> = kit::Duplex<Received<B>>;

/// Both ends of the way out. What the writer puts in, the body gives; it is bounded by bytes.
pub(crate) fn pipe() -> (kit::PipeWriter, PipeBody) {
    let (writer, reader) = kit::pipe();
    (writer, PipeBody(reader))
}

/// The request body of an extended CONNECT: what the WebSocket sends.
///
/// It asks for no more than the connection takes, so the peer's window holds the writer back.
pub struct PipeBody(kit::PipeReader);

impl Body for PipeBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let data = ready!(Pin::new(&mut self.0).poll_next(cx));
        // The one way in which it fails.
        Poll::Ready(data.map(|data| data.map(Frame::data).map_err(|_| "the WebSocket was dropped".into())))
    }
}

impl fmt::Debug for PipeBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeBody").finish_non_exhaustive()
    }
}

/// The data of a response body.
#[derive(Debug)]
pub struct Received<B>(pub(crate) B);

impl<B> Stream for Received<B>
where
    B: Body<Data = Bytes, Error = Error> + Unpin,
{
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let frame = ready!(Pin::new(&mut self.0).poll_frame(cx));
        // Trailers are no data: what is empty is passed over by who reads.
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.into_data().unwrap_or_default())))
    }
}
