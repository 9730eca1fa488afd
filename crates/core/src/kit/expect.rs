//! `expect: 100-continue` for versions whose bodies travel apart from their heads.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock;

/// Holds a request's body back until the peer asks for it, or has said nothing for `limit` (RFC 9110 10.1.1): one end for who
/// waits for the answer, one for who sends the body.
pub fn hold(limit: Duration) -> (Hold, Held) {
    let (go, wait) = oneshot::channel();
    (Hold { go: Some(go), alarm: Box::pin(clock::sleep(limit)) }, Held(wait))
}

/// Where the answer is awaited. Dropped before it was released, it lets the body go nowhere: an answer came that does not want it.
pub struct Hold {
    go: Option<oneshot::Sender<()>>,
    alarm: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Hold {
    /// The body goes: the peer said 100.
    pub fn release(&mut self) {
        if let Some(go) = self.go.take() {
            // Who sends it may be gone, with the connection.
            let _ = go.send(());
        }
    }

    /// Releases it when the time is over.
    pub fn poll(&mut self, cx: &mut Context<'_>) {
        if self.go.is_some() && self.alarm.as_mut().poll(cx).is_ready() {
            self.release();
        }
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").field("held", &self.go.is_some()).finish()
    }
}

/// Where the body is sent.
#[derive(Debug)]
pub struct Held(oneshot::Receiver<()>);

impl Held {
    /// Whether the body goes, once that is known.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        Poll::Ready(ready!(Pin::new(&mut self.0).poll(cx)).is_ok())
    }
}
