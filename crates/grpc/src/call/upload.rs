//! The messages of a stream on their way out, and what lets a stream that nobody has touched be sent again.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use http_body::{Body, Frame};
use portolan_core::{BoxError, Result};
use tokio::sync::oneshot;

use crate::meter;

/// Small messages that are ready together travel together, up to this many bytes.
const TOGETHER: usize = 16 << 10;

type Messages = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// Where messages come from, until the call is over.
struct Source {
    messages: Messages,
    over: oneshot::Receiver<()>,
}

/// Held while the call goes on; dropped, it ends the upload, whatever else would have been sent.
pub(crate) type Goes = oneshot::Sender<()>;

/// Framed messages, to be made into a request's body.
pub(crate) struct Upload {
    slot: Arc<Mutex<Option<Source>>>,
    goes: Option<Goes>,
    sent: Arc<AtomicU64>,
}

impl Upload {
    pub(crate) fn new(messages: impl Stream<Item = Result<Bytes>> + Send + 'static) -> Self {
        let (goes, over) = oneshot::channel();
        let source = Source { messages: Box::pin(messages), over };
        Self { slot: Arc::new(Mutex::new(Some(source))), goes: Some(goes), sent: Arc::default() }
    }

    /// How much was taken of it: messages without their frames.
    pub(crate) fn sent(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.sent)
    }

    /// To be held while the call goes on.
    pub(crate) fn take_goes(&mut self) -> Option<Goes> {
        self.goes.take()
    }

    /// A body of these messages; `None` once they have been touched.
    pub(crate) fn body(&self) -> Option<UploadBody> {
        let source = self.slot.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(UploadBody { slot: Arc::clone(&self.slot), source: Some(source), touched: false, sent: self.sent() })
    }
}

/// A request's body. Dropped before it was asked for anything, it gives its messages back to be sent again.
pub(crate) struct UploadBody {
    slot: Arc<Mutex<Option<Source>>>,
    /// None once there is nothing more.
    source: Option<Source>,
    touched: bool,
    sent: Arc<AtomicU64>,
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
        let Some(source) = &mut self.source else { return Poll::Ready(None) };
        let next = match Pin::new(&mut source.over).poll(cx) {
            Poll::Ready(_) => None,
            Poll::Pending => ready!(source.messages.as_mut().poll_next(cx)),
        };
        match &next {
            Some(Ok(message)) => drop(self.sent.fetch_add(meter::size(message.len()), Ordering::Relaxed)),
            _ => self.source = None,
        }
        Poll::Ready(next)
    }
}

impl Body for UploadBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.touched = true;
        let first = match ready!(self.poll_more(cx)) {
            Some(Ok(message)) => message,
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => return Poll::Ready(None),
        };
        let mut together: Option<BytesMut> = None;
        while together.as_ref().map_or(first.len(), BytesMut::len) < TOGETHER {
            match self.poll_more(cx) {
                Poll::Ready(Some(Ok(message))) => {
                    together.get_or_insert_with(|| BytesMut::from(&*first)).extend_from_slice(&message);
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        Poll::Ready(Some(Ok(Frame::data(together.map_or(first, BytesMut::freeze)))))
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn what_nobody_touched_can_be_sent_again() {
        let mut upload = Upload::new(stream::iter(["a", "b"]).map_ok());
        let _goes = upload.take_goes();
        drop(upload.body().unwrap());
        let all = upload.body().unwrap().collect().await.unwrap().to_bytes();
        assert_eq!(all, "ab");
        assert!(upload.body().is_none());
    }

    #[tokio::test]
    async fn a_call_that_is_over_ends_its_upload() {
        let mut upload = Upload::new(stream::pending::<&'static str>().map_ok());
        let goes = upload.take_goes().unwrap();
        let mut body = upload.body().unwrap();
        let first = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut body).poll_frame(cx).is_pending())).await;
        assert!(first);
        drop(goes);
        assert!(body.frame().await.is_none());
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
        let mut upload = Upload::new(stream::iter(["a", "b", "c", large]).map_ok());
        let (_goes, mut body) = (upload.take_goes(), upload.body().unwrap());
        let mut sizes = Vec::new();
        while let Some(frame) = body.frame().await {
            sizes.push(frame.unwrap().into_data().unwrap().len());
        }
        assert_eq!(sizes, [3 + TOGETHER]);
        let mut upload = Upload::new(stream::iter([large, "a"]).map_ok());
        let (_goes, mut body) = (upload.take_goes(), upload.body().unwrap());
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), TOGETHER);
    }
}
