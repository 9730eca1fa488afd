//! A response body.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use portolan_core::Error;

use crate::proto::answer::Piece;
use crate::proto::stream::{Key, Received};
use crate::shared::Shared;

/// A response body: data, then trailers if there are any. Reading gives the peer leave to send more; not reading stops it.
///
/// Dropped before its end it cancels the stream (RST_STREAM with CANCEL); the connection lives on.
pub struct RecvBody {
    source: Source,
    left: Option<u64>,
}

enum Source {
    Whole(Received),
    Live(Live),
    Over,
}

struct Live {
    shared: Arc<Shared>,
    key: Key,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.shared.with(|engine| engine.detach(self.key));
    }
}

impl RecvBody {
    pub(crate) fn whole(received: Received) -> Self {
        let left = Some(received.len() as u64);
        Self { source: Source::Whole(received), left }
    }

    pub(crate) fn live(shared: Arc<Shared>, key: Key, left: Option<u64>) -> Self {
        Self { source: Source::Live(Live { shared, key }), left }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Piece> {
        match &mut self.source {
            Source::Whole(received) => Poll::Ready(whole_piece(received)),
            Source::Live(live) => live.shared.with(|engine| engine.poll_body(live.key, cx.waker())),
            Source::Over => Poll::Ready(Piece::End),
        }
    }
}

fn whole_piece(received: &mut Received) -> Piece {
    match received.pop() {
        Some(data) => Piece::Data(data),
        None => received.trailers.take().map_or(Piece::End, |trailers| Piece::Trailers(*trailers)),
    }
}

impl Body for RecvBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let piece = ready!(self.poll_piece(cx));
        Poll::Ready(match piece {
            Piece::Data(data) => {
                self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                Some(Ok(Frame::data(data)))
            }
            Piece::Trailers(trailers) => Some(Ok(Frame::trailers(trailers))),
            Piece::End => {
                self.source = Source::Over;
                None
            }
            Piece::Failed(error) => {
                self.source = Source::Over;
                Some(Err(error))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Whole(received) => !received.has_data() && received.trailers.is_none(),
            Source::Live(_) => false,
            Source::Over => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map(SizeHint::with_exact).unwrap_or_default()
    }
}

impl fmt::Debug for RecvBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvBody").field("left", &self.left).finish_non_exhaustive()
    }
}
