//! A connection that is read though its caller is busy: pings are answered and closes confirmed meanwhile.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use portolan_core::{Error, Result};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::codec::{CloseCode, CloseFrame, Event, Message, PROTOCOL};
use crate::pieces::Pull;
use crate::socket::WebSocket;
use crate::split::{Reader, Writer};

/// What a message counts for besides its bytes: empty ones take room too.
const OVERHEAD: usize = 64;

/// Messages that were read and not asked for yet.
#[derive(Default)]
struct Inbox {
    state: Mutex<State>,
    caller: AtomicWaker,
    driver: AtomicWaker,
}

#[derive(Default)]
struct State {
    messages: VecDeque<Message>,
    held: usize,
    /// How it ended, once it has; the error is given once.
    end: Option<Result<()>>,
    /// The caller is no longer there.
    left: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, end: Result<()>) {
        self.lock().end.get_or_insert(end);
        self.caller.wake();
    }
}

fn cost(message: &Message) -> usize {
    let bytes = match message {
        Message::Text(text) => text.len(),
        Message::Binary(data) | Message::Ping(data) | Message::Pong(data) => data.len(),
        Message::Close(_) => 0,
    };
    bytes.saturating_add(OVERHEAD)
}

impl<T: AsyncRead + AsyncWrite + Unpin> WebSocket<T> {
    /// The connection for a caller who may stall, and the future that attends to it meanwhile: spawn it.
    ///
    /// While the caller does something else, messages are read into memory until they hold `room` bytes, pings among them
    /// are answered, keepalive works, and the peer's Close is confirmed. Beyond that nothing is read, and the peer has
    /// to wait. Dropping the [`Attended`] ends the future, and the connection; dropping the future ends the connection too.
    ///
    /// ```no_run
    /// # use portolan_core::{Connector, Result};
    /// # use portolan_websocket::{Options, WebSocket};
    /// # async fn example(net: Connector) -> Result<()> {
    /// let socket = WebSocket::connect(&net, "wss://example.org/feed", Options::new()).await?;
    /// let (mut socket, attendant) = socket.attended(1 << 20);
    /// tokio::spawn(attendant);
    /// tokio::time::sleep(std::time::Duration::from_secs(300)).await;
    /// println!("{:?}", socket.recv().await?);
    /// # Ok(()) }
    /// ```
    pub fn attended(self, room: usize) -> (Attended<T>, Attendant<T>) {
        let subprotocol = self.subprotocol().map(Box::from);
        let (reader, writer) = self.split();
        let inbox = Arc::new(Inbox::default());
        let attendant = Attendant { reader: Some(reader), inbox: Arc::clone(&inbox), room: room.max(1) };
        (Attended { writer, inbox, subprotocol }, attendant)
    }
}

/// A connection that an [`Attendant`] reads.
pub struct Attended<T> {
    writer: Writer<T>,
    inbox: Arc<Inbox>,
    subprotocol: Option<Box<str>>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Attended<T> {
    /// The subprotocol that the server chose.
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    /// The next message, as [`WebSocket::recv`] gives it. Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Result<Option<Message>> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>>> {
        self.inbox.caller.register(cx.waker());
        let mut state = self.inbox.lock();
        if let Some(message) = state.messages.pop_front() {
            state.held = state.held.saturating_sub(cost(&message));
            drop(state);
            self.inbox.driver.wake();
            return Poll::Ready(Ok(Some(message)));
        }
        match &mut state.end {
            Some(end) => Poll::Ready(std::mem::replace(end, Ok(())).map(|()| None)),
            None => Poll::Pending,
        }
    }

    /// Sends a message and flushes it, as [`WebSocket::send`] does.
    pub async fn send(&mut self, message: impl Into<Message>) -> Result<()> {
        self.writer.send(message).await
    }

    /// Takes a message into the write buffer without flushing.
    pub async fn feed(&mut self, message: impl Into<Message>) -> Result<()> {
        self.writer.feed(message).await
    }

    /// Writes all that waits.
    pub async fn flush(&mut self) -> Result<()> {
        self.writer.flush().await
    }

    /// Closes in good order: says why, passes over what still comes, and gives the peer's last word, as
    /// [`WebSocket::close`] does.
    pub async fn close(&mut self, code: CloseCode, reason: &str) -> Result<Option<CloseFrame>> {
        self.writer.close(code, reason).await?;
        let mut last = None;
        while let Some(message) = self.recv().await? {
            if let Message::Close(frame) = message {
                last = frame;
            }
        }
        Ok(last)
    }
}

impl<T> Drop for Attended<T> {
    fn drop(&mut self) {
        self.inbox.lock().left = true;
        self.inbox.driver.wake();
    }
}

/// Reads for an [`Attended`] connection, until that ends.
#[must_use = "nothing is read unless this runs"]
pub struct Attendant<T> {
    reader: Option<Reader<T>>,
    inbox: Arc<Inbox>,
    room: usize,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Future for Attendant<T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.inbox.driver.register(cx.waker());
        while let Some(reader) = &mut this.reader {
            let state = this.inbox.lock();
            if state.left {
                break;
            }
            if state.held >= this.room {
                return Poll::Pending;
            }
            drop(state);
            match std::task::ready!(reader.poll_pull(cx, false)) {
                Ok(Some(event)) => this.keep(event),
                Ok(None) => {
                    this.inbox.end(Ok(()));
                    break;
                }
                Err(error) => {
                    this.inbox.end(Err(error));
                    break;
                }
            }
        }
        this.reader = None;
        Poll::Ready(())
    }
}

impl<T> Attendant<T> {
    fn keep(&self, event: Event) {
        let message = event.into_message();
        let mut state = self.inbox.lock();
        state.held = state.held.saturating_add(cost(&message));
        state.messages.push_back(message);
        drop(state);
        self.inbox.caller.wake();
    }
}

impl<T> Drop for Attendant<T> {
    fn drop(&mut self) {
        // Where it had ended, that is what counts.
        self.inbox.end(Err(Error::closed("nobody reads it any more").with_protocol(PROTOCOL)));
    }
}

impl<T> fmt::Debug for Attended<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attended").field("held", &self.inbox.lock().held).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Attendant<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attendant").field("room", &self.room).finish_non_exhaustive()
    }
}
