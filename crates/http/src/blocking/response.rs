//! Responses whose bodies are waited for.

use std::io::{self, Read, Write};
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use portolan_core::blocking::{Io, Iter, Runtime};
use portolan_core::{Error, Result};

use crate::incoming::Incoming;
use crate::upgrade::Upgraded;

/// A response whose head has come; its body is read as it is asked for, by `Read` or by one of the methods.
///
/// All that a [`crate::Response`] tells of its head and its way can be asked of this one too. Read to its end, it knows its
/// [`trailers`](crate::Response::trailers).
#[derive(Debug)]
pub struct Response {
    response: crate::Response,
    runtime: Runtime,
    /// What was taken of the body, and not yet read.
    rest: Bytes,
}

impl Response {
    pub(super) fn new(response: crate::Response, runtime: Runtime) -> Self {
        Self { response, runtime, rest: Bytes::new() }
    }

    /// An error for a status of 400 and above: see [`crate::Response::error_for_status`].
    pub fn error_for_status(self) -> Result<Self> {
        let Self { response, runtime, rest } = self;
        Ok(Self { response: response.error_for_status()?, runtime, rest })
    }

    /// The next piece of the body; `None` at its end.
    pub fn chunk(&mut self) -> Result<Option<Bytes>> {
        if !self.rest.is_empty() {
            return Ok(Some(std::mem::take(&mut self.rest)));
        }
        self.runtime.wait(self.response.chunk())
    }

    /// What there is still of the body, within the client's limit ([`ClientBuilder::max_body`](crate::ClientBuilder::max_body)).
    pub fn bytes(self) -> Result<Bytes> {
        let runtime = self.runtime.clone();
        runtime.wait(self.into_inner().bytes())
    }

    /// The same and the trailers.
    pub fn collect(self) -> Result<(Bytes, Option<HeaderMap>)> {
        let runtime = self.runtime.clone();
        runtime.wait(self.into_inner().collect())
    }

    /// The whole body as text, by the charset of its content type; UTF-8 where none is said.
    pub fn text(self) -> Result<String> {
        let runtime = self.runtime.clone();
        runtime.wait(self.into_inner().text())
    }

    /// The whole body, which is JSON.
    #[cfg(feature = "json")]
    pub fn json<T: serde::de::DeserializeOwned>(self) -> Result<T> {
        let runtime = self.runtime.clone();
        runtime.wait(self.into_inner().json())
    }

    /// The body's data, piece by piece.
    pub fn bytes_iter(self) -> impl Iterator<Item = Result<Bytes>> + Send {
        let runtime = self.runtime.clone();
        Iter::new(self.into_inner().bytes_stream()).on(runtime)
    }

    /// Writes the body to a file, a buffer, whatever `std` writes to, and gives its length. No limit holds but the server's and
    /// your own; bounds of time do. An error of the server has an [`Error`] inside.
    pub fn copy_to(&mut self, writer: &mut (impl Write + ?Sized)) -> io::Result<u64> {
        self.copy_with(writer, |_, _| {})
    }

    /// The same, telling `told` how much has come so far, and how much there is if that is known.
    pub fn copy_with<W: Write + ?Sized>(
        &mut self,
        writer: &mut W,
        mut told: impl FnMut(u64, Option<u64>),
    ) -> io::Result<u64> {
        let mut copied = 0;
        let total = self.content_length().map(|left| left.saturating_add(self.rest.len() as u64));
        while let Some(chunk) = self.chunk()? {
            writer.write_all(&chunk)?;
            copied += chunk.len() as u64;
            told(copied, total);
        }
        Ok(copied)
    }

    /// The connection beneath, if the server agreed to another protocol: see [`crate::Response::upgrade`].
    pub fn upgrade(self) -> Result<Io<Upgraded>> {
        let runtime = self.runtime.clone();
        Ok(Io::new(self.into_inner().upgrade()?).on(runtime))
    }

    /// The response for code that awaits. It lives on the runtime that it came by.
    pub fn into_inner(self) -> crate::Response {
        let Self { response, rest, .. } = self;
        if rest.is_empty() {
            return response;
        }
        response.map_body(|body| Incoming::from_body(Begun { rest: Some(rest), body }))
    }
}

impl Deref for Response {
    type Target = crate::Response;

    fn deref(&self) -> &Self::Target {
        &self.response
    }
}

impl DerefMut for Response {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.response
    }
}

impl Read for Response {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() && !buf.is_empty() {
            self.rest = self.chunk()?.unwrap_or_default();
        }
        let n = self.rest.len().min(buf.len());
        self.rest.copy_to_slice(buf.get_mut(..n).unwrap_or_default());
        Ok(n)
    }
}

/// A body of which something was read, and put back.
struct Begun {
    rest: Option<Bytes>,
    body: Incoming,
}

impl Body for Begun {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        match self.rest.take() {
            Some(rest) => Poll::Ready(Some(Ok(Frame::data(rest)))),
            None => Pin::new(&mut self.body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.as_ref().map_or(0, Bytes::len) as u64);
        if let Some(exact) = hint.exact() {
            hint.set_exact(exact.saturating_add(rest));
        }
        hint
    }
}
