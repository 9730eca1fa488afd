//! A stream to the server, as JSON: messages on lines of their own, or the items of one array.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use portolan_core::{BoxError, Error, Kind, Result};
use prost_reflect::MessageDescriptor;

use super::bind::whole;
use super::read;
use super::rule::{Binding, RequestBody, Rpc, is_http_body};
use crate::PROTOCOL;
use crate::body::BoxBody;
use crate::compress::Encoding;
use crate::frame::{Deframer, Frames};

impl Rpc {
    /// The way of a call whose messages are not known when it begins: all of each must have its place in the body.
    pub(super) fn bind_stream(&self, chosen: Option<usize>) -> Result<(&Binding, String)> {
        let mut fits = self.bindings.iter().enumerate().filter_map(|(at, binding)| {
            let fits = matches!(binding.body, RequestBody::Rest) && chosen.is_none_or(|chosen| chosen == at);
            Some((binding, binding.path.expand(|_| None).filter(|_| fits)?))
        });
        let fitting = fits.next().filter(|_| !is_http_body(&self.input));
        fitting.ok_or_else(|| {
            let what = "a stream to the server needs a rule whose body is \"*\" and whose path has no fields";
            Error::new(Kind::Unsupported, what).with_protocol(PROTOCOL)
        })
    }
}

/// How the messages of a stream to the server stand one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Layout {
    /// Each on a line of its own.
    #[default]
    Lines,
    /// Items of one array.
    Array,
}

impl Layout {
    /// Before the first message, before each other one, after each, and at the end.
    fn marks(self) -> [&'static [u8]; 4] {
        match self {
            Self::Lines => [b"", b"", b"\n", b""],
            Self::Array => [b"[", b",", b"", b"]"],
        }
    }
}

/// How the messages come, and as what they go.
#[derive(Debug)]
pub(super) struct Form {
    pub(super) input: MessageDescriptor,
    /// Whether they come as JSON already.
    pub(super) json: bool,
    pub(super) encoding: Encoding,
    pub(super) layout: Layout,
}

/// Messages of gRPC, made into JSON as they come.
pub(super) struct Messages {
    inner: BoxBody,
    form: Form,
    deframer: Deframer,
    begun: bool,
    over: bool,
}

impl Messages {
    pub(super) fn new(inner: BoxBody, form: Form) -> Self {
        // What is sent has the client's own bound.
        let frames = Frames::new(usize::try_from(u32::MAX).unwrap_or(usize::MAX));
        Self { inner, form, deframer: Deframer::new(frames), begun: false, over: false }
    }

    /// All messages that are there, if there are any.
    fn ready(&mut self) -> Result<Option<Bytes>> {
        let [first, other, after, _] = self.form.layout.marks();
        let mut out = BytesMut::new();
        while let Some(frame) = self.deframer.next().map_err(|error| error.into_error(PROTOCOL))? {
            let compressed = frame.is_compressed();
            let data = if compressed { self.form.encoding.inflate(&frame.data, usize::MAX)? } else { frame.data };
            let (_, json) = whole(&read(&self.form.input, self.form.json, data)?)?;
            out.extend_from_slice(if std::mem::replace(&mut self.begun, true) { other } else { first });
            out.extend_from_slice(&json);
            out.extend_from_slice(after);
        }
        Ok(Some(out.freeze()).filter(|out| !out.is_empty()))
    }

    fn end(&mut self) -> Option<Bytes> {
        self.over = true;
        let [first, _, _, last] = self.form.layout.marks();
        let end = if self.begun { last.to_vec() } else { [first, last].concat() };
        Some(Bytes::from(end)).filter(|end| !end.is_empty())
    }
}

impl Body for Messages {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            if self.over {
                return Poll::Ready(None);
            }
            match self.ready() {
                Ok(Some(out)) => return Poll::Ready(Some(Ok(Frame::data(out)))),
                Ok(None) => {}
                Err(error) => {
                    self.over = true;
                    return Poll::Ready(Some(Err(error.into())));
                }
            }
            match ready!(self.inner.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => frame.into_data().into_iter().for_each(|data| self.deframer.push(data)),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(self.end().map(|end| Ok(Frame::data(end)))),
            }
        }
    }
}
