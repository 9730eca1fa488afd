//! Bodies whose trailers travel as a last frame: those of gRPC-Web and of Connect.

#![cfg_attr(
    not(any(feature = "connect", feature = "web")),
    allow(dead_code, reason = "JSON transcoding has no last frame")
)]

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};
use portolan_core::{BoxError, Delivery, Error, Kind, Result};

use crate::PROTOCOL;
use crate::body::BoxBody;
use crate::frame::PREFIX;

/// The longest last frame: as much as a header list may have.
const MAX_TAIL: usize = 64 << 10;

/// Makes trailers of the last frame, whose flags are given too.
pub(crate) type Parse = fn(u8, Bytes) -> Result<HeaderMap>;

/// The body of a response that was translated into gRPC.
pub struct TranslatedBody {
    inner: BoxBody,
}

impl TranslatedBody {
    pub(crate) fn new(inner: BoxBody) -> Self {
        Self { inner }
    }

    /// Hands messages on as they come; the frame whose flags hold `flag` becomes trailers.
    pub(crate) fn tail(inner: BoxBody, flag: u8, parse: Parse) -> Self {
        let tail = Tail { inner, flag, parse, buffer: BytesMut::new(), pass: 0, over: false };
        Self::new(Box::pin(tail))
    }
}

impl Body for TranslatedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.inner.as_mut().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
}

impl fmt::Debug for TranslatedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TranslatedBody")
    }
}

struct Tail {
    inner: BoxBody,
    flag: u8,
    parse: Parse,
    buffer: BytesMut,
    /// Bytes that belong to the frame that has begun.
    pass: usize,
    over: bool,
}

impl Tail {
    /// What the bytes at hand give; `None` needs more of them.
    fn step(&mut self) -> Result<Option<Frame<Bytes>>> {
        if self.pass == 0 {
            let Some((flags, mut length)) = self.buffer.split_at_checked(1).and_then(|(flags, rest)| {
                let length = rest.get(..PREFIX - 1)?;
                Some((flags.first().copied()?, length))
            }) else {
                return Ok(None);
            };
            let length = usize::try_from(length.get_u32()).unwrap_or(usize::MAX);
            if flags & self.flag != 0 {
                return self.end(flags, length);
            }
            self.pass = length.saturating_add(PREFIX);
        }
        let ready = self.pass.min(self.buffer.len());
        if ready == 0 {
            return Ok(None);
        }
        self.pass -= ready;
        Ok(Some(Frame::data(self.buffer.split_to(ready).freeze())))
    }

    fn end(&mut self, flags: u8, length: usize) -> Result<Option<Frame<Bytes>>> {
        if length > MAX_TAIL {
            let error = Error::new(Kind::Limit, "trailers beyond the limit").with_delivery(Delivery::Answered);
            return Err(error.with_protocol(PROTOCOL));
        }
        if self.buffer.len() < length + PREFIX {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        self.over = true;
        (self.parse)(flags, self.buffer.split_to(length).freeze()).map(|trailers| Some(Frame::trailers(trailers)))
    }
}

impl Body for Tail {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            if self.over {
                return Poll::Ready(None);
            }
            match self.step() {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(None) => {}
                Err(error) => {
                    self.over = true;
                    return Poll::Ready(Some(Err(error.into())));
                }
            }
            match ready!(self.inner.as_mut().poll_frame(cx)) {
                // Trailers of HTTP's own are none of these protocols'.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    self.over = true;
                    let rest = self.buffer.split().freeze();
                    // What is left over is a frame that was cut: the reader of messages will say so.
                    return Poll::Ready(if rest.is_empty() { None } else { Some(Ok(Frame::data(rest))) });
                }
            }
        }
    }
}

/// The error of a peer that breaks the rules of these protocols.
pub(crate) fn broken(what: &'static str) -> Error {
    Error::protocol(PROTOCOL, what).with_delivery(Delivery::Answered)
}
