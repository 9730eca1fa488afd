//! The body that comes out plain.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use portolan_core::{BoxError, Error, Kind, Result};

use super::answered;
use super::stage::Stage;

/// A body with its codings undone, or as it came where there were none. Cancel safe; dropping it drops the body inside.
#[derive(Debug)]
pub struct Decoded<B> {
    body: B,
    /// In the order of their work; empty passes all through.
    stages: Vec<Stage>,
    trailers: Option<HeaderMap>,
    /// The body inside has ended.
    drained: bool,
    done: bool,
}

impl<B> Decoded<B> {
    pub(super) fn new(body: B, stages: Vec<Stage>) -> Self {
        Self { body, stages, trailers: None, drained: false, done: false }
    }

    /// A body that is passed through as it is.
    pub fn plain(body: B) -> Self {
        Self::new(body, Vec::new())
    }

    /// Whether anything is undone.
    pub fn is_coded(&self) -> bool {
        !self.stages.is_empty()
    }

    /// The body inside; what was read ahead of a coding is lost.
    pub fn into_inner(self) -> B {
        self.body
    }

    /// The body inside, as it comes from the wire.
    pub fn get_ref(&self) -> &B {
        &self.body
    }
}

impl<B> Decoded<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    /// The next piece that comes out of stage `at` (counted from one; zero is the body itself), or `None` at its end.
    fn pull(&mut self, at: usize, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        let Some(below) = at.checked_sub(1) else { return self.pull_body(cx) };
        loop {
            let Some(stage) = self.stages.get_mut(below) else { return Poll::Ready(Ok(None)) };
            if let Some(piece) = stage.next()? {
                return Poll::Ready(Ok(Some(piece)));
            }
            let input = ready!(self.pull(below, cx))?;
            let Some(stage) = self.stages.get_mut(below) else { return Poll::Ready(Ok(None)) };
            match input {
                Some(input) => stage.feed(input),
                None => return Poll::Ready(stage.finish().map(|()| None)),
            }
        }
    }

    fn pull_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        while !self.drained {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => self.drained = true,
                Some(frame) => match frame.map_err(own)?.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Poll::Ready(Ok(Some(data))),
                    Err(frame) => {
                        self.trailers = frame.into_trailers().ok();
                        self.drained = true;
                    }
                },
            }
        }
        Poll::Ready(Ok(None))
    }
}

impl<B> Body for Decoded<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        if self.stages.is_empty() {
            return Pin::new(&mut self.body).poll_frame(cx).map_err(own);
        }
        if self.done {
            return Poll::Ready(None);
        }
        let last = self.stages.len();
        let frame = match ready!(self.pull(last, cx)) {
            Ok(Some(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
            Ok(None) => self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))),
            Err(error) => Some(Err(error)),
        };
        self.done = true;
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let nothing = || self.stages.iter().all(Stage::is_untouched) && self.body.is_end_stream();
        if self.stages.is_empty() { self.body.is_end_stream() } else { self.done || nothing() }
    }

    fn size_hint(&self) -> SizeHint {
        if self.stages.is_empty() { self.body.size_hint() } else { SizeHint::default() }
    }
}

/// Our own error is passed on as it is.
fn own(error: impl Into<BoxError>) -> Error {
    match error.into().downcast::<Error>() {
        Ok(own) => *own,
        Err(other) => answered(Error::new(Kind::Closed, "body failed")).with_source(other),
    }
}
