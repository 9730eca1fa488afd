//! A call of which both ends are held.

use std::fmt;

use bytes::Bytes;
use portolan_core::{Delivery, Error, Result};
use tokio::sync::mpsc;

use super::message::Outbound;
use super::streaming::Streaming;
use super::upload::Upload;
use crate::PROTOCOL;
use crate::codec::Codec;
use crate::deadline::Deadline;
use crate::metadata::Metadata;

/// Messages that may wait until the connection takes them; with one more, sending waits.
const QUEUE: usize = 8;

/// Sends the messages of a call. Dropped, it says that no more will come.
pub struct Sender<C> {
    queue: mpsc::Sender<Bytes>,
    outbound: Outbound<C>,
    deadline: Option<Deadline>,
}

impl<C: Codec> Sender<C> {
    pub(crate) fn new(outbound: Outbound<C>, deadline: Option<Deadline>) -> (Self, Upload) {
        let (queue, mut messages) = mpsc::channel(QUEUE);
        let upload =
            Upload::new(futures_util::stream::poll_fn(move |cx| messages.poll_recv(cx).map(|some| some.map(Ok))));
        (Self { queue, outbound, deadline }, upload)
    }

    /// Sends a message, once there is room for it: a server that doesn't read stops the sender. If the call is over, the error
    /// ([`Kind::Closed`](portolan_core::Kind::Closed)) says only that; why is what the response says. The call's deadline holds here
    /// too. A message whose future is dropped is not sent.
    pub async fn send(&mut self, message: &C::Request) -> Result<()> {
        self.push(self.outbound.frame(message)?).await
    }

    /// The same without compression, whatever holds for the call.
    pub async fn send_plain(&mut self, message: &C::Request) -> Result<()> {
        self.push(self.outbound.plain(message)?).await
    }

    async fn push(&mut self, frame: Bytes) -> Result<()> {
        let over = |_| Error::closed("the call is over").with_protocol(PROTOCOL).with_delivery(Delivery::NotSent);
        Deadline::bound(self.deadline, async { self.queue.send(frame).await.map_err(over) }).await
    }

    /// Says that no more messages will come.
    pub fn finish(self) {}
}

impl<C> fmt::Debug for Sender<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("room", &self.queue.capacity()).finish_non_exhaustive()
    }
}

/// Both ends of a call. Dropping the whole, or the receiving end, cancels the call.
pub struct Duplex<C> {
    sender: Option<Sender<C>>,
    receiver: Streaming<C>,
}

impl<C: Codec> Duplex<C> {
    pub(crate) fn new(sender: Sender<C>, receiver: Streaming<C>) -> Self {
        Self { sender: Some(sender), receiver }
    }

    /// Sends a message: see [`Sender::send`].
    pub async fn send(&mut self, message: &C::Request) -> Result<()> {
        self.open()?.send(message).await
    }

    /// Sends a message without compression.
    pub async fn send_plain(&mut self, message: &C::Request) -> Result<()> {
        self.open()?.send_plain(message).await
    }

    fn open(&mut self) -> Result<&mut Sender<C>> {
        let finished = || Error::usage("no message can follow the end").with_protocol(PROTOCOL);
        self.sender.as_mut().ok_or_else(finished)
    }

    /// Says that no more messages will come.
    pub fn finish(&mut self) {
        self.sender = None;
    }

    /// The next message from the server: see [`Streaming::message`].
    pub async fn message(&mut self) -> Result<Option<C::Response>> {
        self.receiver.message().await
    }

    /// The initial metadata, once the server has begun to answer.
    pub async fn metadata(&mut self) -> Result<&Metadata> {
        self.receiver.metadata().await
    }

    /// The trailing metadata, once the messages are over.
    pub fn trailers(&self) -> Option<&Metadata> {
        self.receiver.trailers()
    }

    /// Ends the call: the server is told, and the next read says [`Code::Cancelled`](crate::Code::Cancelled).
    pub fn cancel(&mut self) {
        self.sender = None;
        self.receiver.cancel();
    }

    /// The receiving end, for what else can be done with it.
    pub fn receiver(&mut self) -> &mut Streaming<C> {
        &mut self.receiver
    }

    /// Both ends by themselves, for two tasks. The sending end is `None` if it was finished.
    pub fn split(self) -> (Option<Sender<C>>, Streaming<C>) {
        (self.sender, self.receiver)
    }
}

impl<C> fmt::Debug for Duplex<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Duplex").field("sender", &self.sender).field("receiver", &self.receiver).finish()
    }
}
