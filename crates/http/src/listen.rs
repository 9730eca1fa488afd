//! Who hears what is said on a WebSocket that the client opened.

use std::fmt;
use std::sync::Arc;

/// Hears the messages of a WebSocket. Middleware leaves it among the extensions of the response that opened one, as the HAR
/// recorder does, and `portolan-websocket` tells it each message, in order.
///
/// It is called by the tasks that send and receive, and must not block.
#[derive(Clone)]
pub struct OnMessage(Arc<dyn Fn(SocketMessage<'_>) + Send + Sync>);

impl OnMessage {
    /// Sets what is called.
    pub fn new(callback: impl Fn(SocketMessage<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(callback))
    }

    /// Tells both, this one first: for middleware that finds somebody listening already.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::new(move |message| {
            self.call(message);
            other.call(message);
        })
    }

    /// Tells it a message.
    pub fn call(&self, message: SocketMessage<'_>) {
        (self.0)(message);
    }
}

impl fmt::Debug for OnMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnMessage")
    }
}

/// A message of text or bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SocketMessage<'a> {
    /// Sent by us, or received.
    pub sent: bool,
    /// Text, or bytes.
    pub text: bool,
    /// What it says: the first mebibyte of what came or went in fragments.
    pub data: &'a [u8],
    /// Whether that is all.
    pub whole: bool,
}

impl<'a> SocketMessage<'a> {
    /// A whole one.
    pub fn new(sent: bool, text: bool, data: &'a [u8]) -> Self {
        Self { sent, text, data, whole: true }
    }

    /// The same, of which this is only the beginning.
    #[must_use]
    pub fn cut(mut self) -> Self {
        self.whole = false;
        self
    }
}

impl fmt::Debug for SocketMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What it says may be a secret.
        f.debug_struct("SocketMessage")
            .field("sent", &self.sent)
            .field("bytes", &self.data.len())
            .finish_non_exhaustive()
    }
}
