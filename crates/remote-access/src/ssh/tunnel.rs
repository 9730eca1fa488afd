//! One tunnel: a channel of the session as a stream of bytes.
//!
//! What arrives is taken from the session's callbacks into an [`Inbox`]; what is written waits in a bounded pipe until the peer's
//! window takes it. russh opens our own window as data arrives, whether it is read or not, so a tunnel that nobody reads can
//! hold up its neighbours: see [`Inbox::take`].

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream as Items, StreamExt};
use portolan_core::kit::{Duplex, PipeReader, pipe};
use portolan_core::{Error, Kind, Phase, Stream, clock};
use russh::ChannelWriteHalf;
use russh::client::Msg;
use tokio::sync::Notify;

use super::NAME;
use super::link::State;

/// How long what was written before a tunnel was dropped may wait for the peer's window.
const LINGER: Duration = Duration::from_secs(30);

/// How often a stalled tunnel looks whether it holds up others.
const LOOK: Duration = Duration::from_millis(250);

/// What has arrived and was not read yet.
#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<Inner>,
    /// There is room again, or nobody reads any more.
    room: Notify,
    /// The channel is closed, or its connection has ended.
    over: Notify,
    /// Whoever read is gone.
    left: Notify,
    /// The peer has closed: it needs not be told.
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct Inner {
    data: VecDeque<Bytes>,
    bytes: usize,
    reader: Option<Waker>,
    /// Nothing comes any more: in good order, or what went wrong.
    end: Option<Option<Box<str>>>,
    over: bool,
    left: bool,
}

impl Inbox {
    pub(super) fn new() -> Arc<Self> {
        let (room, over, left) = (Notify::new(), Notify::new(), Notify::new());
        Arc::new(Self { state: Mutex::default(), room, over, left, closed: AtomicBool::new(false) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what has arrived. While there is no room it waits, and with it the whole connection, which is what holds the peer
    /// back. Where other tunnels wait too that ends at the connection's limit, with this tunnel.
    pub(super) async fn take(&self, data: &[u8], link: &State) {
        let mut waited = Duration::ZERO;
        let mut stalled = None;
        loop {
            let room = self.room.notified();
            {
                let mut inner = self.lock();
                if inner.left || inner.end.is_some() {
                    return;
                }
                if inner.bytes < link.room {
                    inner.bytes += data.len();
                    inner.data.push_back(Bytes::copy_from_slice(data));
                    wake(inner);
                    return;
                }
            }
            stalled.get_or_insert_with(|| link.stalled());
            tokio::select! {
                () = room => {}
                () = clock::sleep(LOOK) => {
                    waited = if link.tunnels() > 1 { waited + LOOK } else { Duration::ZERO };
                    if link.stall.is_some_and(|limit| waited >= limit) {
                        self.finish(Some("the tunnel was not read while others on its connection waited"));
                        self.shut();
                        return;
                    }
                }
            }
        }
    }

    /// The peer sends no more.
    pub(super) fn eof(&self) {
        self.finish(None);
    }

    /// The peer has closed the channel.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.finish(None);
        self.shut();
    }

    /// The connection has ended.
    pub(super) fn fail(&self, why: &str) {
        self.closed.store(true, Ordering::Release);
        self.finish(Some(why));
        self.shut();
    }

    fn finish(&self, why: Option<&str>) {
        let mut inner = self.lock();
        inner.end.get_or_insert(why.map(Into::into));
        wake(inner);
    }

    fn shut(&self) {
        self.lock().over = true;
        self.over.notify_waiters();
    }

    async fn is_over(&self) {
        loop {
            let over = self.over.notified();
            if self.lock().over {
                return;
            }
            over.await;
        }
    }

    async fn is_left(&self) {
        loop {
            let left = self.left.notified();
            if self.lock().left {
                return;
            }
            left.await;
        }
    }
}

fn wake(mut inner: MutexGuard<'_, Inner>) {
    let reader = inner.reader.take();
    drop(inner);
    if let Some(reader) = reader {
        reader.wake();
    }
}

/// The reading end.
struct Outbox {
    inbox: Arc<Inbox>,
    room: usize,
}

impl Items for Outbox {
    type Item = Result<Bytes, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut inner = self.inbox.lock();
        if let Some(data) = inner.data.pop_front() {
            let full = inner.bytes >= self.room;
            inner.bytes = inner.bytes.saturating_sub(data.len());
            let free = full && inner.bytes < self.room;
            drop(inner);
            if free {
                self.inbox.room.notify_waiters();
            }
            return Poll::Ready(Some(Ok(data)));
        }
        match &inner.end {
            Some(None) => Poll::Ready(None),
            Some(Some(why)) => Poll::Ready(Some(Err(Error::closed(why.clone()).with_protocol(NAME)))),
            None => {
                inner.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        {
            let mut inner = self.inbox.lock();
            inner.left = true;
            inner.data.clear();
        }
        self.inbox.room.notify_waiters();
        self.inbox.left.notify_waiters();
    }
}

/// A channel as a stream. Shut down it ends our way alone; dropped it closes the channel, after what was written.
pub(super) fn stream(write: ChannelWriteHalf<Msg>, inbox: Arc<Inbox>, link: Arc<State>) -> Stream {
    let (writer, reader) = pipe();
    let outbox = Outbox { inbox: inbox.clone(), room: link.room };
    tokio::spawn(carry(write, reader, inbox, link));
    Stream::from_io(Duplex::new(outbox, writer))
}

/// Carries what is written to the channel, and closes it in the end. Ends with the stream, or with the connection.
async fn carry(write: ChannelWriteHalf<Msg>, mut out: PipeReader, inbox: Arc<Inbox>, link: Arc<State>) {
    let forward = async {
        while let Some(Ok(data)) = out.next().await {
            if write.data_bytes(data).await.is_err() {
                return;
            }
        }
        // A stream that was dropped ends as one that was shut down does: both ways are over then.
        if write.eof().await.is_ok() {
            inbox.is_left().await;
        }
    };
    let given_up = async {
        inbox.is_left().await;
        clock::sleep(LINGER).await;
    };
    tokio::select! {
        () = forward => {}
        () = inbox.is_over() => {}
        () = given_up => {}
    }
    drop(out);
    if !inbox.closed.load(Ordering::Acquire) {
        // An error says that the connection is gone, and the channel with it.
        let _ = write.close().await;
    }
    link.forget(write.id());
}

/// The error for a channel that was not opened (RFC 4254 5.1).
pub(super) fn refused(reason: &russh::ChannelOpenFailure, description: Option<String>) -> Error {
    use russh::ChannelOpenFailure as F;
    let (code, why) = match reason {
        F::AdministrativelyProhibited => (1, "the server does not allow it"),
        F::ConnectFailed => (2, "the server cannot reach the target"),
        F::UnknownChannelType => (3, "the server knows no direct-tcpip"),
        F::ResourceShortage => (4, "the server is short of resources"),
        F::Other { code, .. } => (i64::from(*code), "for a reason of the server's own"),
    };
    let said: String = description.unwrap_or_default().chars().filter(|c| !c.is_control()).take(200).collect();
    let message =
        if said.is_empty() { format!("tunnel refused: {why}") } else { format!("tunnel refused: {why}: {said}") };
    Error::new(Kind::Hop, message).with_phase(Phase::Hop).with_code(code).with_protocol(NAME)
}
