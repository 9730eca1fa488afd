//! What comes piece by piece.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use futures_util::Stream;

use super::Runtime;
use crate::error::Error;

/// An iterator over what an asynchronous stream gives: events, messages, rows, pieces of a body.
///
/// It waits for each; a refusal to wait (see [`blocking`](super)) and a passed deadline come as errors among the others, and
/// the stream can be asked again.
#[derive(Debug)]
pub struct Iter<S> {
    stream: S,
    runtime: Runtime,
    limit: Option<Duration>,
}

impl<S> Iter<S> {
    /// Over a stream of the shared runtime, or over `&mut` to one that is needed afterwards.
    pub fn new(stream: S) -> Self {
        Self { stream, runtime: Runtime::shared(), limit: None }
    }

    /// The runtime that the stream lives on, where it is not the shared one.
    #[must_use]
    pub fn on(mut self, runtime: Runtime) -> Self {
        self.runtime = runtime;
        self
    }

    /// How long each piece may take. Default for ever. One that is late is not lost: it comes the next time.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// The stream itself.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// The stream itself, to be changed.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The stream by itself.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

impl<S, T, E> Iterator for Iter<S>
where
    S: Stream<Item = Result<T, E>> + Unpin,
    E: From<Error>,
{
    type Item = Result<T, E>;

    fn next(&mut self) -> Option<Self::Item> {
        let stream = &mut self.stream;
        let next = async { poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await.transpose() };
        match self.limit {
            None => self.runtime.wait(next),
            Some(limit) => self.runtime.wait_within(limit, next),
        }
        .transpose()
    }
}
