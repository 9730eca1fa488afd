//! A connection that is made again when it is lost.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use portolan_core::clock::{self, Instant};
use portolan_core::{Error, Kind, Result};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::codec::{CloseCode, Message};
use crate::socket::{Wakers, WebSocket};

/// A connection that lasted so long was a good one, whether or not there was anything to tell: proxies end those that are quiet.
const STEADY: Duration = Duration::from_secs(10);

/// When to come back, and when to leave it.
#[derive(Debug, Clone)]
#[must_use]
pub struct ReconnectPolicy {
    first: Duration,
    most: Duration,
    max_failures: Option<u32>,
    after_normal: bool,
}

impl Default for ReconnectPolicy {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(500),
            most: Duration::from_secs(60),
            max_failures: Some(20),
            after_normal: false,
        }
    }
}

impl ReconnectPolicy {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The wait before the first attempt to come back, doubled with each failure in a row. Default 500 ms; half of it is jitter.
    pub fn first_wait(mut self, wait: Duration) -> Self {
        self.first = wait.max(Duration::from_millis(1));
        self
    }

    /// No wait is longer. Default 60 s.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.most = wait;
        self
    }

    /// Attempts in a row that come to neither a message nor a connection of ten seconds before the last error is given.
    /// Default 20; `None` never gives up.
    pub fn max_failures(mut self, count: Option<u32>) -> Self {
        self.max_failures = count;
        self
    }

    /// Whether a Close with 1000 is a reason to come back. Default false: it is the end.
    pub fn after_normal_close(mut self, on: bool) -> Self {
        self.after_normal = on;
        self
    }

    fn wait(&self, failures: u32) -> Duration {
        let doubled = self.first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.most.max(self.first));
        let mut bytes = [0; 4];
        // Without random numbers there is no jitter, which is no reason to fail.
        let random =
            getrandom::fill(&mut bytes).map_or(1.0, |()| f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX));
        doubled.mul_f64(0.5 + random / 2.0)
    }
}

type Connecting<T> = Pin<Box<dyn Future<Output = Result<WebSocket<T>>> + Send>>;

enum Stage<T> {
    Idle,
    Waiting(Pin<Box<dyn Future<Output = ()> + Send>>),
    Connecting(Connecting<T>),
    Open(Box<WebSocket<T>>, Instant),
    Over,
}

/// A WebSocket that comes back after its connection is lost, with growing waits and jitter.
///
/// What it connects by also says again what the server must hear each time: the subscriptions.
///
/// ```no_run
/// # use portolan_core::Connector;
/// # use portolan_websocket::{Options, ReconnectPolicy, Reconnecting, WebSocket};
/// # async fn example(net: Connector) -> portolan_core::Result<()> {
/// let connect = move || {
///     let net = net.clone();
///     async move {
///         let mut socket = WebSocket::connect(&net, "wss://example.org/feed", Options::new()).await?;
///         socket.send("subscribe news").await?;
///         Ok(socket)
///     }
/// };
/// let mut feed = Reconnecting::new(connect, ReconnectPolicy::new());
/// while let Some(message) = feed.recv().await? {
///     println!("{message:?}");
/// }
/// # Ok(())
/// # }
/// ```
///
/// A message that was on its way when the connection broke is not sent again: whether it arrived is not known.
pub struct Reconnecting<F, T> {
    connect: F,
    policy: ReconnectPolicy,
    stage: Stage<T>,
    failures: u32,
    last_error: Option<Error>,
}

impl<F, R, T> Reconnecting<F, T>
where
    F: FnMut() -> R,
    R: Future<Output = Result<WebSocket<T>>> + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin,
{
    /// Nothing is opened until the first message is asked for, or sent.
    pub fn new(connect: F, policy: ReconnectPolicy) -> Self {
        Self { connect, policy, stage: Stage::Idle, failures: 0, last_error: None }
    }

    /// The next text or binary message, of this connection or a later one. `None` after a Close with 1000. Dropping the future
    /// loses nothing.
    pub async fn recv(&mut self) -> Result<Option<Message>> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// Sends a message, on a connection that is made first if there is none. A failure is given and not repeated; what comes
    /// next uses a new connection.
    pub async fn send(&mut self, message: impl Into<Message>) -> Result<()> {
        poll_fn(|cx| self.poll_open(cx)).await?;
        let Stage::Open(socket, _) = &mut self.stage else { return Err(over()) };
        let result = socket.send(message).await;
        if result.as_ref().is_err_and(|error| error.kind() == Kind::Closed) {
            // The reading side would learn of it only when it is asked.
            self.stage = Stage::Idle;
        }
        result
    }

    /// Closes the connection, if there is one, and makes no other.
    pub async fn close(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Open(mut socket, _) => socket.close(CloseCode::NORMAL, "").await.map(|_| ()),
            _ => Ok(()),
        }
    }

    /// The connection at hand.
    pub fn socket(&self) -> Option<&WebSocket<T>> {
        match &self.stage {
            Stage::Open(socket, _) => Some(socket),
            _ => None,
        }
    }

    /// Why the last connection or attempt was lost.
    pub fn last_error(&self) -> Option<&Error> {
        self.last_error.as_ref()
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>>> {
        loop {
            if matches!(self.stage, Stage::Over) {
                return Poll::Ready(Ok(None));
            }
            ready!(self.poll_open(cx))?;
            let Stage::Open(socket, _) = &mut self.stage else { return Poll::Ready(Ok(None)) };
            match ready!(socket.poll_recv(Wakers::same(cx))) {
                Some(Ok(message)) if message.is_data() => {
                    self.failures = 0;
                    return Poll::Ready(Ok(Some(message)));
                }
                Some(Ok(Message::Close(frame))) => {
                    let normal = frame.as_ref().is_some_and(|frame| frame.code == CloseCode::NORMAL);
                    if normal && !self.policy.after_normal {
                        self.stage = Stage::Over;
                        return Poll::Ready(Ok(None));
                    }
                    let why = frame.map_or_else(|| "closed".to_owned(), |frame| format!("closed: {frame}"));
                    self.lost(Error::closed(why))?;
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => self.lost(error)?,
                None => self.lost(Error::closed("closed"))?,
            }
        }
    }

    /// Until there is a connection.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            match &mut self.stage {
                Stage::Open(..) => return Poll::Ready(Ok(())),
                Stage::Over => return Poll::Ready(Err(over())),
                Stage::Idle => self.stage = Stage::Connecting(Box::pin((self.connect)())),
                Stage::Waiting(wait) => {
                    ready!(wait.as_mut().poll(cx));
                    self.stage = Stage::Idle;
                }
                Stage::Connecting(connecting) => match ready!(connecting.as_mut().poll(cx)) {
                    Ok(socket) => self.stage = Stage::Open(Box::new(socket), clock::now()),
                    Err(error) => self.lost(error)?,
                },
            }
        }
    }

    /// Waits before the next attempt; an error that another attempt would meet again is given.
    fn lost(&mut self, error: Error) -> Result<()> {
        if matches!(self.stage, Stage::Open(_, since) if clock::now().saturating_duration_since(since) >= STEADY) {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        if is_futile(&error) || self.policy.max_failures.is_some_and(|most| self.failures > most) {
            self.stage = Stage::Over;
            return Err(error);
        }
        let wait = self.policy.wait(self.failures).max(error.retry_after().unwrap_or_default().min(self.policy.most));
        self.last_error = Some(error);
        self.stage = Stage::Waiting(Box::pin(clock::sleep(wait)));
        Ok(())
    }
}

/// Whether another attempt would fail the same way.
fn is_futile(error: &Error) -> bool {
    match error.kind() {
        Kind::Usage | Kind::Unsupported | Kind::Blocked | Kind::Auth | Kind::Limit | Kind::Protocol => true,
        Kind::Server => !matches!(error.code(), Some(408 | 425 | 429 | 500..=599)),
        _ => false,
    }
}

fn over() -> Error {
    Error::closed("the connection was closed for good").with_delivery(portolan_core::Delivery::NotSent)
}

impl<F, T> fmt::Debug for Reconnecting<F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconnecting")
            .field("policy", &self.policy)
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}
