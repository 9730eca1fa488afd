//! The encoded form as a body.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use http_body::{Body, Frame, SizeHint};
use portolan_core::{BoxError, Error, Result};
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

/// How much is read from a reader at once.
const READ_SIZE: usize = 32 * 1024;

/// Bytes, or something that gives them bit by bit.
pub(super) enum Piece {
    Bytes(Bytes),
    Stream { chunks: Chunks, left: Option<u64> },
}

type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

impl Piece {
    pub(super) fn bytes(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }

    pub(super) fn body<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let left = body.size_hint().exact();
        Self::Stream { chunks: Box::pin(BodyChunks(Box::pin(body))), left }
    }

    pub(super) fn reader(reader: impl AsyncRead + Send + 'static, length: Option<u64>) -> Self {
        let chunks = ReaderChunks(Box::pin(ReaderStream::with_capacity(reader, READ_SIZE)));
        Self::Stream { chunks: Box::pin(chunks), left: length }
    }

    pub(super) fn length(&self) -> Option<u64> {
        match self {
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::Stream { left, .. } => *left,
        }
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Piece").field("length", &self.length()).finish_non_exhaustive()
    }
}

struct BodyChunks<B>(Pin<Box<B>>);

impl<B> Stream for BodyChunks<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        loop {
            match ready!(self.0.as_mut().poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(failed(error)))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
            }
        }
    }
}

struct ReaderChunks<R: AsyncRead>(Pin<Box<ReaderStream<R>>>);

impl<R: AsyncRead> Stream for ReaderChunks<R> {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        self.0.as_mut().poll_next(cx).map(|chunk| chunk.map(|chunk| chunk.map_err(failed)))
    }
}

/// The caller's own source failed: not the peer's fault, nor the connection's.
fn failed(error: impl Into<BoxError>) -> Error {
    match error.into().downcast::<Error>() {
        Ok(own) => *own,
        Err(other) => Error::usage("a part of the form cannot be read").with_source(other),
    }
}

/// An encoded form. Made by [`Form::encode`](super::Form::encode).
#[derive(Debug)]
pub struct FormBody {
    pieces: VecDeque<Piece>,
}

impl FormBody {
    pub(super) fn new(pieces: VecDeque<Piece>) -> Self {
        Self { pieces }
    }

    /// The same form again, under the same boundary: only where all parts are bytes, and best before any was sent.
    pub fn try_clone(&self) -> Option<Self> {
        let same = |piece: &Piece| match piece {
            Piece::Bytes(bytes) => Some(Piece::Bytes(bytes.clone())),
            Piece::Stream { .. } => None,
        };
        Some(Self { pieces: self.pieces.iter().map(same).collect::<Option<_>>()? })
    }

    /// The whole form in one piece, where all parts are bytes.
    pub fn to_bytes(&self) -> Option<Bytes> {
        let mut whole = BytesMut::new();
        for piece in &self.pieces {
            match piece {
                Piece::Bytes(bytes) => whole.extend_from_slice(bytes),
                Piece::Stream { .. } => return None,
            }
        }
        Some(whole.freeze())
    }
}

impl Body for FormBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        loop {
            let result = match self.pieces.front_mut() {
                None => return Poll::Ready(None),
                Some(Piece::Bytes(bytes)) => {
                    let bytes = std::mem::take(bytes);
                    self.pieces.pop_front();
                    Ok(bytes)
                }
                Some(Piece::Stream { chunks, left }) => match ready!(chunks.as_mut().poll_next(cx)) {
                    Some(chunk) => chunk.and_then(|chunk| count(chunk, left)),
                    None => {
                        let missing = left.unwrap_or(0);
                        self.pieces.pop_front();
                        match missing {
                            0 => continue,
                            _ => Err(Error::usage(format!("a part of the form is {missing} bytes too short"))),
                        }
                    }
                },
            };
            match result {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Err(error) => {
                    // Nothing after an error could be made sense of.
                    self.pieces.clear();
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let known: u64 = self.pieces.iter().filter_map(Piece::length).fold(0, u64::saturating_add);
        let mut hint = SizeHint::new();
        hint.set_lower(known);
        if self.pieces.iter().all(|piece| piece.length().is_some()) {
            hint.set_exact(known);
        }
        hint
    }
}

/// Holds a part to its length: more would run into the next boundary and past the Content-Length.
fn count(chunk: Bytes, left: &mut Option<u64>) -> Result<Bytes> {
    if let Some(left) = left {
        let rest = left.checked_sub(chunk.len() as u64);
        *left = rest.ok_or_else(|| Error::usage("a part of the form is longer than it was said to be"))?;
    }
    Ok(chunk)
}
