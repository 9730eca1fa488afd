//! A request body on its way: asked for more only when there is window and room for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::Body;
use portolan_core::BoxError;
use portolan_core::kit::Held;

use crate::proto::request;
use crate::proto::send::Over;
use crate::proto::stream::Key;
use crate::shared::Shared;

/// Ends when the body has been sent, has failed, or is no longer wanted.
pub(crate) struct Sending<B> {
    shared: Arc<Shared>,
    key: Key,
    body: Pin<Box<B>>,
    pending: Bytes,
    last: bool,
    /// Until the peer asks for it.
    held: Option<Held>,
}

impl<B> Sending<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    pub(crate) fn new(shared: Arc<Shared>, key: Key, body: B, held: Option<Held>) -> Self {
        Self { shared, key, body: Box::pin(body), pending: Bytes::new(), last: false, held }
    }

    fn poll_sending(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Over>> {
        if let Some(held) = &mut self.held {
            if !ready!(held.poll(cx)) {
                self.shared.with(|engine| engine.abandon(self.key));
                return Poll::Ready(Err(Over));
            }
            self.held = None;
        }
        loop {
            if self.last || !self.pending.is_empty() {
                let (key, pending, last) = (self.key, &mut self.pending, self.last);
                ready!(self.shared.with(|engine| engine.poll_send(key, pending, last, cx.waker())))?;
            }
            if self.last {
                return Poll::Ready(Ok(()));
            }
            let key = self.key;
            ready!(self.shared.with(|engine| engine.poll_capacity(key, cx.waker())))?;
            let frame = match self.body.as_mut().poll_frame(cx) {
                Poll::Pending => return self.shared.with(|engine| engine.poll_over(key, cx.waker())).map(Err),
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(Some(Err(error))) => return self.fail(error.into()),
                Poll::Ready(None) => {
                    self.last = true;
                    continue;
                }
            };
            match frame.into_data() {
                Ok(mut data) => {
                    self.pending = data.copy_to_bytes(data.remaining());
                    self.last = self.body.is_end_stream();
                }
                Err(frame) => {
                    let Ok(trailers) = frame.into_trailers() else { continue };
                    let hindered = request::check_trailers(&trailers).err();
                    if let Some(error) = hindered.or_else(|| self.shared.lock().hinders(&trailers)) {
                        return self.fail(error.into());
                    }
                    return Poll::Ready(self.shared.with(|engine| engine.send_trailers(key, &trailers)));
                }
            }
        }
    }

    fn fail(&self, error: BoxError) -> Poll<Result<(), Over>> {
        self.shared.with(|engine| engine.body_failed(self.key, error));
        Poll::Ready(Err(Over))
    }
}

impl<B> Future for Sending<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Over: the stream ended first, and who waits for its answer knows why.
        self.poll_sending(cx).map(|_| ())
    }
}
