//! A source of events that reconnects (WHATWG HTML 9.2.2 and 9.2.3).

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use futures_core::Stream;
use http::{Response, StatusCode};
use http_body::Body;
use portolan_core::clock::{self, Instant};
use portolan_core::{Error, Kind, Phase, Result};
use portolan_wire::{Alarm, Codec};

use crate::PROTOCOL;
use crate::backoff::Backoff;
use crate::event::Event;
use crate::fetch::{Fetch, is_event_stream};
use crate::parser::{Decoder, Limits};
use crate::refusal::Refusal;

/// A connection that lasted so long was a good one, whether or not there was anything to tell: proxies end those that are quiet.
const STEADY: Duration = Duration::from_secs(10);

/// How a source is to behave.
#[derive(Debug, Clone)]
#[must_use]
pub struct Options {
    limits: Limits,
    reconnect: bool,
    retry: Duration,
    floor: Duration,
    ceiling: Duration,
    max_failures: Option<u32>,
    idle: Option<Duration>,
    retry_statuses: bool,
    last_event_id: Arc<str>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            reconnect: true,
            retry: Duration::from_secs(3),
            floor: Duration::from_millis(500),
            ceiling: Duration::from_secs(60),
            max_failures: Some(50),
            idle: None,
            retry_statuses: false,
            last_event_id: Arc::default(),
        }
    }
}

impl Options {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// What a line and an event may hold. A larger one is an error, and the end.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Whether to come back after the stream ends or breaks. Default true; false makes its end the end.
    pub fn reconnect(mut self, on: bool) -> Self {
        self.reconnect = on;
        self
    }

    /// The wait before coming back, until the server says its own by `retry`. Default 3 s.
    pub fn retry(mut self, wait: Duration) -> Self {
        self.retry = wait;
        self
    }

    /// No wait is shorter, whatever the server says. Default 500 ms: with `retry: 0` a client would spin.
    pub fn min_wait(mut self, wait: Duration) -> Self {
        self.floor = wait.max(Duration::from_millis(1));
        self
    }

    /// No wait is longer, whatever the server says or however often it failed. Default 60 s.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.ceiling = wait;
        self
    }

    /// Attempts in a row that came to neither an event nor a connection of ten seconds before the source gives up with the last
    /// error. Default 50; `None` never does.
    pub fn max_failures(mut self, count: Option<u32>) -> Self {
        self.max_failures = count;
        self
    }

    /// Without a byte for this long (a comment counts) the connection is taken for dead. Default off; set it a little above
    /// the period of the server's keepalive comments.
    pub fn idle_timeout(mut self, limit: Duration) -> Self {
        self.idle = Some(limit);
        self
    }

    /// Whether 429, 500, 502, 503 and 504 are reasons to come back, after their `Retry-After`. Default false, as the standard
    /// has it: any status but 200 is the end.
    pub fn retry_server_errors(mut self, on: bool) -> Self {
        self.retry_statuses = on;
        self
    }

    /// Where to begin: the id of the last event that an earlier source gave.
    pub fn last_event_id(mut self, id: impl Into<Arc<str>>) -> Self {
        self.last_event_id = id.into();
        self
    }
}

/// Where a source stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// A request is on its way.
    Connecting,
    /// Events are coming.
    Open,
    /// The connection was lost; the source waits before it comes back.
    Waiting,
    /// It is over.
    Closed,
}

type Fetching<B> = Pin<Box<dyn Future<Output = Result<Response<B>>> + Send>>;

enum Stage<B> {
    Idle,
    Connecting(Fetching<B>),
    Open(Box<Open<B>>),
    /// The answer was no stream of events, and its body is coming.
    Refused(Box<Refusal<B>>),
    Waiting(Pin<Box<dyn Future<Output = ()> + Send>>),
    Closed,
}

struct Open<B> {
    body: B,
    decoder: Decoder,
    buf: BytesMut,
    alarm: Alarm,
    since: Instant,
}

/// Events as a stream that comes back when its connection is lost, where it left off.
///
/// It ends (`None`) when the server answers 204, or its stream ends and reconnecting is off. An error is the end too: a status
/// or content type that is none of an event stream (with a [`Rejected`](crate::Rejected)), an event beyond the limits, too many failures in a row. Connections lost
/// in between are no errors: [`last_error`](Self::last_error) tells of them. Dropping it closes the connection.
pub struct EventSource<F: Fetch> {
    fetch: F,
    options: Options,
    stage: Stage<F::Body>,
    backoff: Backoff,
    last_id: Arc<str>,
    last_error: Option<Error>,
}

impl<F: Fetch> EventSource<F> {
    /// A source that opens its first connection when it is first polled.
    pub fn new(fetch: F, options: Options) -> Self {
        let backoff = Backoff { base: options.retry, floor: options.floor, ceiling: options.ceiling, failures: 0 };
        let last_id = Arc::clone(&options.last_event_id);
        Self { fetch, options, stage: Stage::Idle, backoff, last_id, last_error: None }
    }

    /// The next event; see the type for when it ends. Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Result<Option<Event>> {
        poll_fn(|cx| self.poll_event(cx)).await.transpose()
    }

    /// The id that the next request will carry; empty if none.
    pub fn last_event_id(&self) -> &str {
        &self.last_id
    }

    /// Why the last connection or attempt was lost.
    pub fn last_error(&self) -> Option<&Error> {
        self.last_error.as_ref()
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        match self.stage {
            Stage::Idle | Stage::Connecting(_) | Stage::Refused(_) => State::Connecting,
            Stage::Open(_) => State::Open,
            Stage::Waiting(_) => State::Waiting,
            Stage::Closed => State::Closed,
        }
    }

    /// Closes the connection; nothing more comes.
    pub fn close(&mut self) {
        self.stage = Stage::Closed;
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Event>>> {
        loop {
            match &mut self.stage {
                Stage::Closed => return Poll::Ready(None),
                Stage::Idle => {
                    let id = (!self.last_id.is_empty()).then(|| Arc::clone(&self.last_id));
                    self.stage = Stage::Connecting(Box::pin(self.fetch.fetch(id)));
                }
                Stage::Waiting(wait) => {
                    ready!(wait.as_mut().poll(cx));
                    self.stage = Stage::Idle;
                }
                Stage::Connecting(fetching) => match ready!(fetching.as_mut().poll(cx)) {
                    Ok(response) => self.opened(response),
                    Err(error) if is_futile(&error) => return self.end(error),
                    Err(error) => {
                        if let Some(end) = self.lost(error, None) {
                            return Poll::Ready(end);
                        }
                    }
                },
                Stage::Refused(refusal) => {
                    let passing = refusal.is_passing();
                    let error = ready!(refusal.poll(cx));
                    if !passing || !self.options.retry_statuses {
                        return self.end(error);
                    }
                    let after = error.retry_after();
                    if let Some(end) = self.lost(error, after) {
                        return Poll::Ready(end);
                    }
                }
                Stage::Open(open) => {
                    let polled = ready!(open.poll_event(cx, self.options.idle));
                    self.last_id = Arc::clone(open.decoder.last_event_id());
                    self.backoff.base = open.decoder.retry().unwrap_or(self.backoff.base);
                    match polled {
                        Step::Event(event) => {
                            self.backoff.failures = 0;
                            return Poll::Ready(Some(Ok(event)));
                        }
                        Step::Refused(error) => return self.end(error),
                        Step::Lost(error) => {
                            if clock::now().saturating_duration_since(open.since) >= STEADY {
                                self.backoff.failures = 0;
                            }
                            if let Some(end) = self.lost(error, None) {
                                return Poll::Ready(end);
                            }
                        }
                    }
                }
            }
        }
    }

    fn end(&mut self, error: Error) -> Poll<Option<Result<Event>>> {
        self.stage = Stage::Closed;
        Poll::Ready(Some(Err(error)))
    }

    /// The head of the response is here. 204 is the server's wish that the client stays away.
    fn opened(&mut self, response: Response<F::Body>) {
        let (parts, body) = response.into_parts();
        if parts.status == StatusCode::NO_CONTENT {
            self.stage = Stage::Closed;
            return;
        }
        if parts.status != StatusCode::OK || !is_event_stream(&parts.headers) {
            self.stage = Stage::Refused(Box::new(Refusal::new(parts, body)));
            return;
        }
        let decoder = Decoder::new(self.options.limits, Arc::clone(&self.last_id));
        let mut alarm = Alarm::default();
        alarm.after(self.options.idle);
        self.stage = Stage::Open(Box::new(Open { body, decoder, buf: BytesMut::new(), alarm, since: clock::now() }));
    }

    /// Waits before the next attempt, or ends: `Some` is what the caller gets.
    fn lost(&mut self, error: Error, after: Option<Duration>) -> Option<Option<Result<Event>>> {
        if !self.options.reconnect {
            self.stage = Stage::Closed;
            // An end of the stream is not an error when it is to be the end.
            let ended = error.is_closed() && error.phase() == Some(Phase::Close);
            return Some((!ended).then_some(Err(error)));
        }
        self.backoff.failures = self.backoff.failures.saturating_add(1);
        if self.options.max_failures.is_some_and(|most| self.backoff.failures > most) {
            self.stage = Stage::Closed;
            return Some(Some(Err(error)));
        }
        let wait = self.backoff.next(after);
        self.last_error = Some(error);
        self.stage = Stage::Waiting(Box::pin(clock::sleep(wait)));
        None
    }
}

/// What a poll of an open connection came to.
enum Step {
    Event(Event),
    /// What the server sends is not acceptable.
    Refused(Error),
    Lost(Error),
}

impl<B> Open<B>
where
    B: Body<Data = bytes::Bytes> + Unpin,
    B::Error: Into<portolan_core::BoxError>,
{
    fn poll_event(&mut self, cx: &mut Context<'_>, idle: Option<Duration>) -> Poll<Step> {
        loop {
            match self.decoder.decode(&mut self.buf) {
                Ok(Some(event)) => return Poll::Ready(Step::Event(event)),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Step::Refused(error.into_error(PROTOCOL))),
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.buf.extend_from_slice(&data);
                        self.alarm.after(idle);
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    let error = Error::closed("the stream broke").with_source(error);
                    return Poll::Ready(Step::Lost(error.with_protocol(PROTOCOL).with_phase(Phase::Idle)));
                }
                Poll::Ready(None) => {
                    let error = Error::closed("the stream ended").with_protocol(PROTOCOL);
                    return Poll::Ready(Step::Lost(error.with_phase(Phase::Close)));
                }
                Poll::Pending => {
                    ready!(self.alarm.poll(cx));
                    let error = Error::timeout(Phase::Idle, idle.unwrap_or_default()).with_protocol(PROTOCOL);
                    return Poll::Ready(Step::Lost(error));
                }
            }
        }
    }
}

/// Whether another attempt would fail the same way.
fn is_futile(error: &Error) -> bool {
    matches!(error.kind(), Kind::Usage | Kind::Unsupported | Kind::Blocked | Kind::Auth)
}

impl<F: Fetch + Unpin> Stream for EventSource<F> {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Event>>> {
        self.poll_event(cx)
    }
}

impl<F: Fetch> fmt::Debug for EventSource<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("EventSource");
        out.field("state", &self.state()).field("last_event_id", &self.last_id).finish_non_exhaustive()
    }
}
