//! A response body.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use portolan_core::Error;

use crate::reading::{Piece, Reading};

/// A response body: data, then trailers if there are any. Reading gives the peer leave to send more; not reading stops it.
///
/// Dropped before its end it cancels the stream (STOP_SENDING with H3_REQUEST_CANCELLED); the connection lives on.
pub struct RecvBody {
    reading: Option<Box<Reading>>,
}

impl RecvBody {
    pub(crate) fn new(reading: Option<Box<Reading>>) -> Self {
        Self { reading }
    }
}

impl Body for RecvBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            let Some(reading) = &mut self.reading else { return Poll::Ready(None) };
            return Poll::Ready(match ready!(reading.poll_piece(cx)) {
                Ok(Piece::Data(data)) => Some(Ok(Frame::data(data))),
                Ok(Piece::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
                // After the final response there is no other; reading would have said so.
                Ok(Piece::Informational(_) | Piece::Head(..)) => continue,
                Ok(Piece::End) => {
                    self.reading = None;
                    None
                }
                Err(error) => {
                    self.reading = None;
                    Some(Err(error))
                }
            });
        }
    }

    fn is_end_stream(&self) -> bool {
        self.reading.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.reading {
            Some(reading) => reading.left().map(SizeHint::with_exact).unwrap_or_default(),
            None => SizeHint::with_exact(0),
        }
    }
}

impl fmt::Debug for RecvBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvBody").field("over", &self.reading.is_none()).finish_non_exhaustive()
    }
}
