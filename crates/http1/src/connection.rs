//! The connection: a stream, what was read too far, and whether it can be used again.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::BytesMut;
use http::HeaderMap;
use portolan_core::{Delivery, Error, Kind, Phase, Result, clock};
use portolan_wire::Alarm;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

use crate::options::Options;

/// Room for the head of a usual response. Kept while the connection is idle, so it is small.
const SMALL: usize = 4 << 10;
/// Room for the first reads of a long body.
const LARGE: usize = 64 << 10;
/// Room for its later ones, while each finds more than fits: as much as a socket usually holds.
const LARGEST: usize = 512 << 10;

/// In which state the conversation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing is under way.
    Idle,
    /// A request or a response is; left so by a future that was dropped, it stays so for good.
    Busy,
    /// It ended in an error, in a close, or in another protocol.
    Over,
}

/// One connection to an HTTP/1.1 server, over any stream.
///
/// Requests are sent by [`send`](crate::send). A conversation that is dropped in the middle leaves the connection unusable,
/// and [`is_reusable`](Self::is_reusable) says so.
pub struct Connection<T> {
    pub(crate) io: T,
    pub(crate) read: BytesMut,
    pub(crate) write: BytesMut,
    pub(crate) state: State,
    /// Whether both sides agree that another request may follow.
    pub(crate) keep_alive: bool,
    pub(crate) options: Options,
    /// The fields for a proxy at the other end.
    pub(crate) proxy: Option<Box<HeaderMap>>,
    pub(crate) alarm: Alarm,
    /// Room for the next read of a long body.
    room: usize,
    requests: u64,
    /// The peer was seen to be silent since the last exchange.
    looked: bool,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Connection<T> {
    /// A connection over a stream that is connected, and on which nothing has been said yet.
    pub fn new(io: T, options: Options) -> Self {
        Self {
            io,
            read: BytesMut::new(),
            write: BytesMut::new(),
            state: State::Idle,
            keep_alive: true,
            options,
            proxy: None,
            alarm: Alarm::default(),
            room: LARGE,
            requests: 0,
            looked: false,
        }
    }

    /// Says that a proxy is at the other end: requests go out in absolute form (RFC 9112 3.2.2), with these fields where they
    /// don't have their own of that name.
    #[must_use]
    pub fn to_proxy(mut self, fields: HeaderMap) -> Self {
        self.proxy = Some(Box::new(fields));
        self
    }

    /// The fields for the proxy at the other end, where [`to_proxy`](Self::to_proxy) said that one is there.
    pub fn proxy_fields(&self) -> Option<&HeaderMap> {
        self.proxy.as_deref()
    }

    /// The stream beneath.
    pub fn io(&self) -> &T {
        &self.io
    }

    /// The stream beneath: reading or writing it breaks the conversation.
    pub fn io_mut(&mut self) -> &mut T {
        &mut self.io
    }

    /// How many requests were sent on it.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// Changes the options for the requests to come.
    pub fn set_options(&mut self, options: Options) {
        self.options = options;
    }

    /// The options.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Whether another request can be sent, as far as is known without looking.
    pub fn is_reusable(&self) -> bool {
        self.state == State::Idle && self.keep_alive && self.read.is_empty()
    }

    /// The same, and a look whether the peer has closed or said something unasked: what a pool does with an idle connection.
    /// Never waits.
    pub fn is_fit(&mut self) -> bool {
        if !self.is_reusable() {
            return false;
        }
        self.looked = self.unasked().is_none();
        if !self.looked {
            self.state = State::Over;
        }
        self.looked
    }

    /// What the peer did before it was asked. What it says then is no answer (RFC 9112 6.3).
    fn unasked(&mut self) -> Option<Error> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut room = [0u8; 40];
        let mut buf = tokio::io::ReadBuf::new(&mut room);
        match Pin::new(&mut self.io).poll_read(&mut cx, &mut buf) {
            Poll::Pending => None,
            Poll::Ready(Err(error)) => Some(Error::io(Phase::Send, error)),
            Poll::Ready(Ok(())) if buf.filled().is_empty() => {
                Some(Error::closed("the peer closed before it was asked"))
            }
            Poll::Ready(Ok(())) => {
                let said = buf.filled().escape_ascii();
                Some(Error::new(Kind::Protocol, format!("expected silence before a request, saw \"{said}\"")))
            }
        }
    }

    /// Ends the connection in good order, within the idle limit. Dropping the future closes it all the same.
    pub async fn close(mut self) -> Result<()> {
        let shut = poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx));
        let shut = async { shut.await.map_err(|error| Error::io(Phase::Close, error)) };
        let shut = clock::within(self.options.idle, Phase::Close, shut).await;
        shut.map_err(|error| error.with_protocol(crate::PROTOCOL))
    }

    /// Takes the stream out, with what was read too far.
    pub fn into_parts(self) -> (T, BytesMut) {
        (self.io, self.read)
    }

    /// Marks the beginning of an exchange.
    pub(crate) fn begin(&mut self) -> Result<()> {
        let hindered = match self.state {
            _ if self.is_reusable() => None,
            State::Busy => Some(Error::closed("an earlier exchange on this connection was not finished")),
            _ => Some(Error::closed("the connection takes no further request")),
        };
        let looked = std::mem::take(&mut self.looked);
        let hindered = hindered.or_else(|| {
            let unasked = if looked { None } else { self.unasked() };
            unasked.inspect(|_| self.state = State::Over)
        });
        if let Some(error) = hindered {
            return Err(error.with_delivery(Delivery::NotSent).with_phase(Phase::Send).with_protocol(crate::PROTOCOL));
        }
        self.state = State::Busy;
        self.requests += 1;
        self.write.clear();
        Ok(())
    }

    /// Marks the end of an exchange that went well.
    pub(crate) fn finish(&mut self) {
        self.alarm.at(None);
        self.room = LARGE;
        // Bytes that nobody asked for: what they would be taken for is anyone's guess.
        self.state = if self.keep_alive && self.read.is_empty() { State::Idle } else { State::Over };
        if self.read.capacity() > SMALL {
            self.read = BytesMut::new();
        }
        if self.write.capacity() > SMALL {
            self.write = BytesMut::new();
        }
    }

    /// Reads what there is; 0 is the end of the stream.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>, large: bool) -> Poll<std::io::Result<usize>> {
        let room = if large { self.room } else { SMALL };
        if self.read.capacity() - self.read.len() < room / 4 {
            self.read.reserve(room);
        }
        let free = self.read.capacity() - self.read.len();
        let read = poll_read_buf(Pin::new(&mut self.io), cx, &mut self.read);
        if large && matches!(read, Poll::Ready(Ok(taken)) if taken == free) {
            self.room = (self.room * 2).min(LARGEST);
        }
        read
    }

    /// The same under the idle limit: an error says whether the peer closed or said nothing for too long.
    pub(crate) fn poll_more(&mut self, cx: &mut Context<'_>, large: bool) -> Poll<Result<usize>> {
        match self.poll_fill(cx, large) {
            Poll::Ready(result) => {
                self.alarm.at(None);
                Poll::Ready(result.map_err(|error| Error::io(Phase::Idle, error)))
            }
            Poll::Pending => {
                if !self.alarm.is_set() {
                    self.alarm.after(self.options.idle);
                }
                ready!(self.alarm.poll(cx));
                let limit = self.options.idle.unwrap_or_default();
                Poll::Ready(Err(Error::timeout(Phase::Idle, limit)))
            }
        }
    }
}

impl<T> fmt::Debug for Connection<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("state", &self.state)
            .field("keep_alive", &self.keep_alive)
            .field("requests", &self.requests)
            .finish_non_exhaustive()
    }
}
