//! The messages of a stream on their way out, and what lets a stream that nobody has touched be sent again.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use http_body::{Body, Frame};
use portolan_core::{BoxError, Result};

/// Small messages that are ready together travel together, up to this many bytes.
const TOGETHER: usize = 16 << 10;

type Source = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// Framed messages, to be made into a request's body.
pub(crate) struct Upload {
    slot: Arc<Mutex<Option<Source>>>,
}

impl Upload {
    pub(crate) fn new(source: impl Stream<Item = Result<Bytes>> + Send + 'static) -> Self {
        Self { slot: Arc::new(Mutex::new(Some(Box::pin(source)))) }
    }

    /// A body of these messages; `None` once they have been touched.
    pub(crate) fn body(&self) -> Option<UploadBody> {
        let source = self.slot.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(UploadBody { slot: Arc::clone(&self.slot), source: Some(source), touched: false, over: false })
    }
}

/// A request's body. Dropped before it was asked for anything, it gives its messages back to be sent again.
pub(crate) struct UploadBody {
    slot: Arc<Mutex<Option<Source>>>,
    source: Option<Source>,
    touched: bool,
    over: bool,
}

impl Drop for UploadBody {
    fn drop(&mut self) {
        if !self.touched {
            *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = self.source.take();
        }
    }
}

impl UploadBody {
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        match &mut self.source {
            Some(source) => source.as_mut().poll_next(cx),
            None => Poll::Ready(None),
        }
    }
}

impl Body for UploadBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.touched = true;
        if self.over {
            return Poll::Ready(None);
        }
        let first = match self.poll_more(cx) {
            Poll::Ready(Some(Ok(message))) => message,
            Poll::Ready(Some(Err(error))) => {
                self.over = true;
                return Poll::Ready(Some(Err(error.into())));
            }
            Poll::Ready(None) => {
                self.over = true;
                return Poll::Ready(None);
            }
            Poll::Pending => return Poll::Pending,
        };
        if first.len() >= TOGETHER {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let mut together: Option<BytesMut> = None;
        while together.as_ref().is_none_or(|all| all.len() < TOGETHER) {
            match self.poll_more(cx) {
                Poll::Ready(Some(Ok(message))) => {
                    together.get_or_insert_with(|| BytesMut::from(&*first)).extend_from_slice(&message);
                }
                Poll::Ready(Some(Err(error))) => {
                    self.over = true;
                    return Poll::Ready(Some(Err(error.into())));
                }
                Poll::Ready(None) => {
                    self.over = true;
                    break;
                }
                Poll::Pending => break,
            }
        }
        Poll::Ready(Some(Ok(Frame::data(together.map_or(first, BytesMut::freeze)))))
    }

    fn is_end_stream(&self) -> bool {
        self.over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn what_nobody_touched_can_be_sent_again() {
        let upload = Upload::new(stream::iter(["a", "b"]).map_ok());
        drop(upload.body().unwrap());
        let all = upload.body().unwrap().collect().await.unwrap().to_bytes();
        assert_eq!(all, "ab");
        assert!(upload.body().is_none());
    }

    trait MapOk: Stream<Item = &'static str> + Sized + Send + 'static {
        fn map_ok(self) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
            futures_util::StreamExt::map(self, |text| Ok(Bytes::from(text)))
        }
    }
    impl<S: Stream<Item = &'static str> + Send + 'static> MapOk for S {}

    #[tokio::test]
    async fn small_messages_travel_together_and_large_ones_alone() {
        let large = "x".repeat(TOGETHER);
        let large: &'static str = large.leak();
        let mut body = Upload::new(stream::iter(["a", "b", "c", large]).map_ok()).body().unwrap();
        let mut sizes = Vec::new();
        while let Some(frame) = body.frame().await {
            sizes.push(frame.unwrap().into_data().unwrap().len());
        }
        assert_eq!(sizes, [3 + TOGETHER]);
        let mut body = Upload::new(stream::iter([large, "a"]).map_ok()).body().unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), TOGETHER);
    }
}
