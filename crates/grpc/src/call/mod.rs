//! One call: said piece by piece, then awaited.

use std::fmt;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use futures_util::StreamExt;
use portolan_core::{BoxFuture, Error, Result, Secret};

use crate::body::Shape;
use crate::client::{Client, Method};
use crate::codec::Codec;
use crate::compress::Encoding;
use crate::deadline::Deadline;
use crate::metadata::Metadata;
use crate::transport::Transport;

mod attempt;
mod duplex;
mod message;
mod plan;
mod reader;
mod repeat;
mod response;
mod streaming;
mod upload;

pub use duplex::{Duplex, Sender};
pub use response::Response;
pub use streaming::Streaming;

use message::Outbound;
use plan::Plan;
use streaming::Inbound;
use upload::Upload;

/// A call of one message each way.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Unary;
/// A call of one message to the server and many back.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ServerStreaming;
/// A call of many messages to the server and one back.
#[derive(Debug, Clone, Copy)]
pub struct ClientStreaming<S>(pub(crate) S);
/// A call of many messages each way, sent one by one.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct DuplexCall;
/// A call of many messages each way, sent from a stream.
#[derive(Debug, Clone, Copy)]
pub struct DuplexWith<S>(pub(crate) S);

/// A call that is being prepared; it is made when awaited.
///
/// A mistake in what was said (a reserved name, text where bytes belong) is the error of the call, and nothing is sent.
#[must_use = "a call is made when it is awaited"]
pub struct Call<T, C, K> {
    plan: Plan<T>,
    codec: C,
    kind: K,
    message: BytesMut,
    refused: Option<Error>,
}

impl<T: Transport, C: Codec, K> Call<T, C, K> {
    pub(crate) fn new(client: &Client<T>, method: &Method<C>, shape: Shape, kind: K) -> Self {
        let mut plan = Plan::new(Arc::clone(&client.shared), method.path.clone(), method.codec.content_suffix(), shape);
        plan.safe = method.safe;
        Self { plan, codec: method.codec.clone(), kind, message: BytesMut::new(), refused: None }
    }

    pub(crate) fn encoded(mut self, request: &C::Request) -> Self {
        match message::encode(&self.codec, request) {
            Ok(message) => self.message = message,
            Err(error) => self.refused = Some(error),
        }
        self
    }

    fn change(mut self, change: impl FnOnce(&mut Metadata) -> Result<()>) -> Self {
        if let Err(error) = change(&mut self.plan.metadata) {
            self.refused.get_or_insert(error);
        }
        self
    }

    /// Adds text to what the server gets: see [`Metadata::append`].
    pub fn metadata(self, name: &str, value: &str) -> Self {
        self.change(|metadata| metadata.append(name, value))
    }

    /// Adds bytes, under a name that ends in `-bin`.
    pub fn metadata_bin(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.change(|metadata| metadata.append_bin(name, value))
    }

    /// Adds text that no log shows.
    pub fn metadata_secret(self, name: &str, value: &Secret) -> Self {
        self.change(|metadata| metadata.append_secret(name, value))
    }

    /// Adds `authorization: Bearer TOKEN`.
    pub fn bearer(self, token: &Secret) -> Self {
        let value = Secret::new(format!("Bearer {}", token.expose()));
        self.metadata_secret("authorization", &value)
    }

    /// Adds all of these.
    pub fn metadata_all(self, all: Metadata) -> Self {
        self.change(|metadata| {
            metadata.extend(all);
            Ok(())
        })
    }

    /// How long the call may take in all, told to the server too. The earliest of this, the client's, the service config's and
    /// that of the [`Deadline`] it is made under holds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.plan.timeout = Some(timeout);
        self
    }

    /// By when the call must be over.
    pub fn deadline(mut self, deadline: Deadline) -> Self {
        self.plan.deadline = Some(deadline);
        self
    }

    /// Compresses what is sent.
    pub fn compress(mut self, encoding: Encoding) -> Self {
        self.plan.encoding = encoding;
        self
    }

    /// Says which encoding messages may have, and sends those at hand without it: a stream's messages are compressed one by one
    /// with [`Sender::send`], or not with [`Sender::send_plain`].
    pub fn declare_encoding(mut self, encoding: Encoding) -> Self {
        (self.plan.encoding, self.plan.plain) = (encoding, true);
        self
    }

    /// Whether the call waits for a connection (until its deadline) where one can't be made, rather than fail.
    pub fn wait_for_ready(mut self, on: bool) -> Self {
        self.plan.wait_for_ready = Some(on);
        self
    }

    /// The longest message taken, in bytes.
    pub fn max_receive_bytes(mut self, bytes: usize) -> Self {
        self.plan.max_receive = bytes;
        self
    }

    /// The longest message sent, in bytes.
    pub fn max_send_bytes(mut self, bytes: usize) -> Self {
        self.plan.max_send = bytes;
        self
    }

    /// Settles all that is not said, if nothing that was said is wrong. In place: a call is large, and moved as little as can be.
    async fn ready(&mut self) -> Result<()> {
        match self.refused.take() {
            Some(error) => Err(error),
            None => self.plan.prepare().await,
        }
    }

    /// The one message, framed.
    fn take_message(&mut self) -> Result<Bytes> {
        message::finish(std::mem::take(&mut self.message), self.plan.message_encoding(), self.plan.max_send)
    }

    /// What the messages of a stream go through on their way.
    fn outbound(&self) -> Outbound<C> {
        Outbound { codec: self.codec.clone(), encoding: self.plan.message_encoding(), max: self.plan.max_send }
    }
}

impl<T: Transport, C: Codec> IntoFuture for Call<T, C, Unary> {
    type Output = Result<Response<C::Response>>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let mut call = self;
        Box::pin(async move {
            call.ready().await?;
            let message = call.take_message()?;
            call.plan.once(message.into()).await?.decode(&call.codec)
        })
    }
}

impl<T: Transport, C: Codec> IntoFuture for Call<T, C, ServerStreaming> {
    type Output = Result<Streaming<C>>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let mut call = self;
        Box::pin(async move {
            call.ready().await?;
            let message = call.take_message()?;
            let inbound = Inbound::open(&call.plan, message.into()).await?;
            Ok(Streaming::new(inbound, call.codec))
        })
    }
}

impl<T, C, S> IntoFuture for Call<T, C, ClientStreaming<S>>
where
    T: Transport,
    C: Codec,
    S: Stream<Item = C::Request> + Send + 'static,
{
    type Output = Result<Response<C::Response>>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let mut call = self;
        Box::pin(async move {
            call.ready().await?;
            let outbound = call.outbound();
            let upload = Upload::new(call.kind.0.map(move |message| outbound.frame(&message)));
            call.plan.once(upload.into()).await?.decode(&call.codec)
        })
    }
}

impl<T, C, S> IntoFuture for Call<T, C, DuplexWith<S>>
where
    T: Transport,
    C: Codec,
    S: Stream<Item = C::Request> + Send + 'static,
{
    type Output = Result<Streaming<C>>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let mut call = self;
        Box::pin(async move {
            call.ready().await?;
            let outbound = call.outbound();
            let upload = Upload::new(call.kind.0.map(move |message| outbound.frame(&message)));
            Ok(Streaming::new(Inbound::begin(call.plan, upload.into()), call.codec))
        })
    }
}

impl<T: Transport, C: Codec> IntoFuture for Call<T, C, DuplexCall> {
    type Output = Result<Duplex<C>>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let mut call = self;
        Box::pin(async move {
            call.ready().await?;
            let (sender, upload) = Sender::new(call.outbound(), call.plan.deadline);
            let inbound = Inbound::begin(call.plan, upload.into());
            Ok(Duplex::new(sender, Streaming::new(inbound, call.codec)))
        })
    }
}

impl<T, C, K> fmt::Debug for Call<T, C, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("path", &self.plan.path).finish_non_exhaustive()
    }
}
