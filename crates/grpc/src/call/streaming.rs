//! A response of many messages.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;
use portolan_core::{BoxError, BoxFuture, Error, Kind, Result, clock};
use tokio::task::JoinHandle;

use super::attempt::Content;
use super::plan::Plan;
use super::reader::{Opened, Payload, Reader, broken};
use super::response::decode;
use super::upload::Goes;
use crate::body::{BoxBody, boxed_body};
use crate::codec::Codec;
use crate::deadline::{Deadline, exceeded, late};
use crate::intercept::Observers;
use crate::metadata::Metadata;
use crate::status::{Code, Status};
use crate::transport::Transport;

/// The messages of a response, read one by one: what is not read stops the server. Dropped before its end it cancels the call.
///
/// An error, or the end, comes once; after it there is nothing more.
pub struct Streaming<C> {
    inbound: Inbound,
    codec: C,
}

impl<C: Codec> Streaming<C> {
    pub(crate) fn new(inbound: Inbound, codec: C) -> Self {
        Self { inbound, codec }
    }

    /// The next message; `None` once the server has ended with a good status. Any other status is the error. Cancel safe.
    pub async fn message(&mut self) -> Result<Option<C::Response>> {
        poll_fn(|cx| self.poll_message(cx)).await
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<C::Response>>> {
        let Some((bytes, _)) = ready!(self.inbound.poll_message(cx))? else { return Poll::Ready(Ok(None)) };
        let message = decode(&self.codec, bytes);
        if let Err(error) = &message {
            self.inbound.end(&Status::of(error));
        }
        Poll::Ready(message.map(Some))
    }

    /// The initial metadata, once the server has begun to answer. Cancel safe.
    pub async fn metadata(&mut self) -> Result<&Metadata> {
        poll_fn(|cx| self.inbound.poll_head(cx)).await?;
        Ok(&self.inbound.metadata)
    }

    /// The trailing metadata, once the messages are over; those of a bad status are in the [`Status`].
    pub fn trailers(&self) -> Option<&Metadata> {
        self.inbound.trailers.as_ref()
    }

    /// Whether the last message came compressed.
    pub fn is_compressed(&self) -> bool {
        self.inbound.compressed
    }

    /// Ends the call: the server is told, and the next read says [`Code::Cancelled`].
    pub fn cancel(&mut self) {
        self.inbound.cancel();
    }
}

impl<C: Codec> Stream for Streaming<C>
where
    C: Unpin,
{
    type Item = Result<C::Response>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_message(cx).map(Result::transpose)
    }
}

impl<C> fmt::Debug for Streaming<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streaming").field("metadata", &self.inbound.metadata).finish_non_exhaustive()
    }
}

/// The response side of a call, whatever its messages are.
pub(crate) struct Inbound {
    source: Source,
    metadata: Metadata,
    trailers: Option<Metadata>,
    compressed: bool,
    timer: Option<BoxFuture<'static, ()>>,
    deadline: Option<Deadline>,
    observers: Option<Observers>,
    /// The upload goes on while this is held.
    goes: Option<Goes>,
}

enum Source {
    /// The server has not begun to answer.
    Opening(Task),
    Open(Box<Reader<BoxBody>>),
    Cancelled,
    Over,
}

/// A task that ends with its owner.
struct Task(JoinHandle<Result<Opened<BoxBody>>>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn boxed<B>(opened: Opened<B>) -> Opened<BoxBody>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    opened.map(|body| boxed_body(body))
}

impl Inbound {
    /// Makes the call and waits until it is answered.
    pub(crate) async fn open<T: Transport>(plan: &Plan<T>, content: Content) -> Result<Self> {
        let mut inbound = Self::new(plan, Source::Over, None);
        match Deadline::bound(plan.deadline, plan.open(content)).await {
            Ok(opened) => inbound.accept(boxed(opened)),
            Err(error) => {
                inbound.end(&Status::of(&error));
                return Err(error);
            }
        }
        Ok(inbound)
    }

    /// Makes the call, and lets the caller send before it is answered: a task of its own brings it so far.
    pub(crate) fn begin<T: Transport>(plan: Plan<T>, mut content: Content) -> Self {
        let mut inbound = Self::new(&plan, Source::Over, content.take_goes());
        let task = tokio::spawn(async move { plan.open(content).await.map(boxed) });
        inbound.source = Source::Opening(Task(task));
        inbound
    }

    fn new<T>(plan: &Plan<T>, source: Source, goes: Option<Goes>) -> Self {
        let timer =
            plan.deadline.map(|deadline| Box::pin(clock::sleep_until(deadline.instant())) as BoxFuture<'static, ()>);
        Self {
            source,
            metadata: Metadata::new(),
            trailers: None,
            compressed: false,
            timer,
            deadline: plan.deadline,
            observers: plan.observers(),
            goes,
        }
    }

    fn accept(&mut self, opened: Opened<BoxBody>) {
        self.metadata = opened.metadata;
        self.source = Source::Open(Box::new(opened.reader));
        if let Some(observers) = &self.observers {
            observers.response(&self.metadata);
        }
    }

    /// Lets go of the call and tells who wants to know.
    fn end(&mut self, status: &Status) {
        self.source = Source::Over;
        (self.timer, self.goes) = (None, None);
        if let Some(observers) = self.observers.take() {
            observers.finished(status);
        }
    }

    fn fail(&mut self, error: Error) -> Error {
        let error = match self.deadline {
            Some(deadline) => late(deadline.instant(), error),
            None => error,
        };
        self.end(&Status::of(&error));
        error
    }

    fn cancel(&mut self) {
        if !matches!(self.source, Source::Over) {
            self.end(&Status::new(Code::Cancelled, "cancelled by the caller"));
            self.source = Source::Cancelled;
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let Source::Opening(Task(task)) = &mut self.source else { return Poll::Ready(Ok(())) };
        let result = match Pin::new(task).poll(cx) {
            Poll::Ready(result) => result,
            Poll::Pending => return self.poll_deadline(cx),
        };
        let opened =
            result.unwrap_or_else(|_| Err(broken(Code::Internal, "the runtime went away").with_kind(Kind::Closed)));
        Poll::Ready(match opened {
            Ok(opened) => {
                self.accept(opened);
                Ok(())
            }
            Err(error) => Err(self.fail(error)),
        })
    }

    /// Ready when the deadline has passed.
    fn poll_deadline<O>(&mut self, cx: &mut Context<'_>) -> Poll<Result<O>> {
        let Some(timer) = &mut self.timer else { return Poll::Pending };
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(self.fail(exceeded())))
    }

    pub(crate) fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Payload>>> {
        // A server that never pauses is held to the deadline too.
        if let Poll::Ready(late) = self.poll_deadline(cx) {
            return Poll::Ready(late);
        }
        ready!(self.poll_head(cx))?;
        let reader = match &mut self.source {
            Source::Open(reader) => reader,
            Source::Cancelled => {
                self.source = Source::Over;
                return Poll::Ready(Err(Status::local(Kind::Closed, Code::Cancelled, "cancelled by the caller")));
            }
            _ => return Poll::Ready(Ok(None)),
        };
        Poll::Ready(match ready!(reader.poll_message(cx)) {
            Ok(Some(payload)) => {
                self.compressed = payload.1;
                Ok(Some(payload))
            }
            Ok(None) => {
                self.trailers = Some(reader.take_trailers());
                self.end(&Status::new(Code::Ok, ""));
                Ok(None)
            }
            Err(error) => Err(self.fail(error)),
        })
    }
}
