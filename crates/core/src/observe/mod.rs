//! What happens, told as it happens: to [`Observer`]s, and as spans of `tracing`, under one set of names for all protocols.
//!
//! An [`Observer`] is given to the connector ([`ConnectorBuilder::observer`](crate::ConnectorBuilder::observer)) and hears of every
//! phase of every connect, of connections that open, of what they carry, and that close, and of each operation of the protocols on
//! them. Without one, and with `tracing` off, nothing is measured and nothing is allocated.
//!
//! The same facts go to `tracing` at the debug level: a span `connect` for each connect, with an event for each phase that ended, and
//! a span `operation` for each operation. Their fields, wherever they occur:
//!
//! | field | meaning | OpenTelemetry's name, given beside it |
//! |---|---|---|
//! | `protocol` | what is spoken: `http`, `redis`, ... | `network.protocol.name`; `db.system.name`, `rpc.system` where they apply |
//! | `operation` | what was asked for: `GET`, `/pkg.Service/Method`, `EHLO` | `http.request.method`, `db.operation.name`, `rpc.method` |
//! | `about` | whom or what it concerned, without secrets | `url.full`, `dns.question.name` |
//! | `endpoint` | the peer, as host and port | `server.address`, `server.port` |
//! | `address` | the address at the other end of a socket | `network.peer.address`, `network.peer.port` |
//! | `hop` | a proxy, by its place in the chain; 0 is the nearest | |
//! | `phase` | [`Phase`], where it stands or failed | |
//! | `elapsed_us` | how long it took, in microseconds | |
//! | `bytes_sent`, `bytes_received` | what a connection carried | |
//! | `reused` | whether the connection was there already | |
//! | `delivery` | what became of the work that failed ([`Delivery`](crate::Delivery)) | |
//! | `status` | the peer's code | `http.response.status_code`, `rpc.grpc.status_code` |
//! | `error` | what went wrong | `error.type` ([`Kind`](crate::Kind)), `otel.status_code` |
//!
//! [`Done::metric`] gives an operation as a measurement for a histogram, under OpenTelemetry's names too.

mod call;
mod metric;
mod probe;
mod step;
mod timeline;
mod traffic;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Instant;
use crate::endpoint::Endpoint;
use crate::error::{Error, Phase};
use crate::info::{ConnectionInfo, TlsInfo};

pub use metric::{Metric, Value};
pub use probe::{Facts, Flight, Operation, Probe, Probed, Semantics};
pub(crate) use step::Stepping;
pub use timeline::Timeline;
pub(crate) use traffic::Traffic;

/// Told of what happens. Each method does nothing unless it is written; all are called on the path of the call itself, so they
/// should be quick: count, or send to a channel.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use portolan_core::observe::{Done, Observer, Outcome};
///
/// #[derive(Default)]
/// struct Failures(AtomicU64);
///
/// impl Observer for Failures {
///     fn operation(&self, done: &Done<'_>) {
///         if matches!(done.outcome, Outcome::Failed(_)) {
///             self.0.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
///
/// let failures = Arc::new(Failures::default());
/// let net = portolan_core::Connector::builder().observer(failures.clone()).build()?;
/// # Ok::<(), portolan_core::Error>(())
/// ```
pub trait Observer: Send + Sync + 'static {
    /// A phase ended: of a connect, or of the protocol's handshake.
    fn phase(&self, step: &Step<'_>) {
        let _ = step;
    }

    /// A connection is there, or could not be made.
    fn opened(&self, opened: &Opened<'_>) {
        let _ = opened;
    }

    /// A connection that was there turned to TLS in mid-stream. What TLS was agreed on while it was made, [`opened`](Self::opened)
    /// tells.
    fn secured(&self, id: u64, tls: &TlsInfo) {
        let _ = (id, tls);
    }

    /// Bytes went over a connection: one read, one write or one datagram, above TLS and above the proxies. They hold whatever is
    /// said there, secrets too.
    fn carried(&self, carried: &Carried<'_>) {
        let _ = carried;
    }

    /// A connection is gone.
    fn closed(&self, closed: &Closed<'_>) {
        let _ = closed;
    }

    /// An operation of a protocol ended. Where its answer goes on as a stream (the body of an HTTP response, the rows of a query),
    /// it ends when that begins; a call of gRPC when its status has come.
    fn operation(&self, done: &Done<'_>) {
        let _ = done;
    }
}

/// How something ended.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Outcome<'a> {
    /// Well.
    Done,
    /// In an error.
    Failed(&'a Error),
    /// The caller lost interest: a deadline passed, or another address was faster.
    Dropped,
}

impl<'a> Outcome<'a> {
    /// That of a result.
    pub fn of<T>(result: &'a Result<T, Error>) -> Self {
        match result {
            Ok(_) => Self::Done,
            Err(error) => Self::Failed(error),
        }
    }

    /// The error, if it ended in one.
    pub fn error(&self) -> Option<&'a Error> {
        match self {
            Self::Failed(error) => Some(error),
            _ => None,
        }
    }
}

/// A phase that ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Step<'a> {
    /// The connect it belongs to: [`ConnectionInfo::id`] of the connection that came of it.
    pub id: u64,
    /// What is spoken, where that is known: connects are the same for all.
    pub protocol: Option<&'static str>,
    /// The target.
    pub endpoint: &'a Endpoint,
    /// Which phase.
    pub phase: Phase,
    /// The proxy, where one was passed.
    pub hop: Option<StepHop<'a>>,
    /// The address that was tried, where it is about one.
    pub address: Option<SocketAddr>,
    /// When it began.
    pub started: Instant,
    /// How long it took.
    pub elapsed: Duration,
    /// How it ended.
    pub outcome: Outcome<'a>,
}

/// A proxy that was passed, or that said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepHop<'a> {
    /// Its place in the chain; 0 is the nearest.
    pub index: usize,
    /// Its kind: `socks5`, `http`, ...
    pub kind: &'static str,
    /// Its host and port.
    pub authority: &'a str,
}

/// A connection that was made, or that could not be.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Opened<'a> {
    /// The connect; [`ConnectionInfo::id`] of what came of it.
    pub id: u64,
    /// The target.
    pub endpoint: &'a Endpoint,
    /// When it was asked for.
    pub started: Instant,
    /// How long it took.
    pub elapsed: Duration,
    /// Whether it carries datagrams.
    pub datagrams: bool,
    /// The connection, if there is one.
    pub info: Option<&'a ConnectionInfo>,
    /// How it ended.
    pub outcome: Outcome<'a>,
}

/// Bytes on their way.
#[derive(Clone)]
#[non_exhaustive]
pub struct Carried<'a> {
    /// The connect that made the connection.
    pub id: u64,
    /// The target.
    pub endpoint: &'a Endpoint,
    /// By whom.
    pub said: Said<'a>,
}

/// Who said what.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Said<'a> {
    /// We did.
    Sent(&'a [u8]),
    /// The peer did.
    Received(&'a [u8]),
    /// We said that we will say no more.
    Shutdown,
    /// The peer said that it will say no more.
    Ended,
    /// The connection broke while it was read.
    Broken,
}

impl fmt::Debug for Said<'_> {
    /// Without the bytes, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent(bytes) => write!(f, "Sent({} bytes)", bytes.len()),
            Self::Received(bytes) => write!(f, "Received({} bytes)", bytes.len()),
            Self::Shutdown => f.write_str("Shutdown"),
            Self::Ended => f.write_str("Ended"),
            Self::Broken => f.write_str("Broken"),
        }
    }
}

impl fmt::Debug for Carried<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Carried").field("id", &self.id).field("said", &self.said).finish_non_exhaustive()
    }
}

/// A connection that is gone.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Closed<'a> {
    /// The connect that made it.
    pub id: u64,
    /// The target.
    pub endpoint: &'a Endpoint,
    /// How long it lived.
    pub age: Duration,
    /// Bytes written by the protocol: before TLS, after the proxies' handshakes.
    pub sent: u64,
    /// Bytes read by the protocol.
    pub received: u64,
}

/// An operation that ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Done<'a> {
    /// What was spoken.
    pub protocol: &'static str,
    /// The peer.
    pub endpoint: &'a Endpoint,
    /// Which of OpenTelemetry's names it goes by.
    pub semantics: Semantics,
    /// What was asked for: a method, a command.
    pub operation: &'a str,
    /// Whom or what it concerned, where that holds no secret.
    pub about: Option<&'a str>,
    /// When it began.
    pub started: Instant,
    /// How long it took.
    pub elapsed: Duration,
    /// What is known besides.
    pub facts: Facts,
    /// How it ended.
    pub outcome: Outcome<'a>,
}

/// Those who are told.
#[derive(Clone, Default)]
pub struct Observers(Option<Arc<[Arc<dyn Observer>]>>);

impl Observers {
    /// Whether there is nobody to tell.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn push(&mut self, observer: Arc<dyn Observer>) {
        let all = self.0.iter().flat_map(|all| all.iter().cloned());
        self.0 = Some(all.chain([observer]).collect());
    }

    /// Tells each of them.
    pub(crate) fn tell(&self, say: impl Fn(&dyn Observer)) {
        for observer in self.0.iter().flat_map(|all| all.iter()) {
            say(&**observer);
        }
    }

    /// Whether it is worth gathering facts: somebody listens, or `tracing` takes debug spans.
    pub fn are_told(&self) -> bool {
        !self.is_empty() || tracing::enabled!(tracing::Level::DEBUG)
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} observers", self.0.as_ref().map_or(0, |all| all.len()))
    }
}

/// A number for each connect of the process, from 1.
pub(crate) fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A time as spans and events have it.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Writes what an error says of itself into a span that has the fields.
pub(crate) fn record_error(span: &tracing::Span, error: &Error) {
    span.record("otel.status_code", "ERROR");
    span.record("error.type", tracing::field::debug(error.kind()));
    span.record("error", tracing::field::display(error));
    span.record("delivery", tracing::field::debug(error.delivery()));
    if let Some(phase) = error.phase() {
        span.record("phase", phase.as_str());
    }
    if let Some(hop) = error.hop() {
        span.record("hop", hop);
    }
}
