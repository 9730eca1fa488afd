//! What calls measure of themselves, under the names of gRFC A66 (OpenTelemetry metrics of gRPC).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use portolan_core::clock::{self, Instant};

use crate::deadline::Deadline;
use crate::frame::PREFIX;
use crate::status::Code;

/// How a measurement is to be added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Instrument {
    /// A counter: the value is added.
    Counter,
    /// A histogram: the value is one of many.
    Histogram,
}

/// One measurement. [`name`](Self::name), [`unit`](Self::unit) and [`attributes`](Self::attributes) are those of gRFC A66:
///
/// | name | unit | told |
/// |---|---|---|
/// | `grpc.client.attempt.started` | `{attempt}` | when an attempt begins |
/// | `grpc.client.attempt.duration` | `s` | when it is over |
/// | `grpc.client.attempt.sent_total_compressed_message_size` | `By` | when it is over |
/// | `grpc.client.attempt.rcvd_total_compressed_message_size` | `By` | when it is over |
/// | `grpc.client.call.duration` | `s` | when the call is over, with all its attempts |
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Measurement<'a> {
    /// The name of the instrument.
    pub name: &'static str,
    /// What the value counts.
    pub unit: &'static str,
    /// How values are added up.
    pub instrument: Instrument,
    /// The value.
    pub value: f64,
    /// `grpc.method`: `package.Service/Method`.
    pub method: &'a str,
    /// `grpc.target`: the client's origin.
    pub target: &'a str,
    /// `grpc.status`; none where nothing is over yet.
    pub status: Option<Code>,
}

impl<'a> Measurement<'a> {
    /// The attributes by their names.
    pub fn attributes(&self) -> impl Iterator<Item = (&'static str, &'a str)> {
        let status = self.status.map(|status| ("grpc.status", status.name()));
        [("grpc.method", self.method), ("grpc.target", self.target)].into_iter().chain(status)
    }
}

/// Takes the measurements of a client's calls: a few lines lead from here into the metrics library of one's choice.
///
/// ```
/// use portolan_grpc::{Measurement, Meter};
///
/// struct Lines;
///
/// impl Meter for Lines {
///     fn record(&self, one: &Measurement<'_>) {
///         println!("{} {} {} {:?}", one.name, one.value, one.unit, one.attributes().collect::<Vec<_>>());
///     }
/// }
/// ```
pub trait Meter: Send + Sync + 'static {
    /// Called in the midst of the call: it should be quick.
    fn record(&self, measurement: &Measurement<'_>);
}

/// A meter, and what all measurements of a client have in common.
#[derive(Clone)]
pub(crate) struct Metered {
    meter: Arc<dyn Meter>,
    target: Arc<str>,
}

impl Metered {
    pub(crate) fn new(meter: impl Meter, target: String) -> Self {
        Self { meter: Arc::new(meter), target: target.into() }
    }

    fn record(&self, path: &str, at: (&'static str, &'static str, Instrument), value: f64, status: Option<Code>) {
        let (name, unit, instrument) = at;
        let method = path.strip_prefix('/').unwrap_or(path);
        self.meter.record(&Measurement { name, unit, instrument, value, method, target: &self.target, status });
    }

    pub(crate) fn call(&self, path: &str, elapsed: Duration, status: Code) {
        let at = ("grpc.client.call.duration", "s", Instrument::Histogram);
        self.record(path, at, elapsed.as_secs_f64(), Some(status));
    }

    /// An attempt begins.
    pub(crate) fn attempt(&self, path: &str, sent: Sent, deadline: Option<Deadline>) -> Attempt {
        self.record(path, ("grpc.client.attempt.started", "{attempt}", Instrument::Counter), 1.0, None);
        Attempt {
            metered: self.clone(),
            path: path.into(),
            sent,
            deadline,
            received: 0,
            started: clock::now(),
            over: false,
        }
    }
}

impl fmt::Debug for Metered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metered").field("target", &self.target).finish_non_exhaustive()
    }
}

/// How many bytes of messages, compressed, an attempt has sent: of a stream it grows.
#[derive(Debug, Clone)]
pub(crate) enum Sent {
    Whole(u64),
    Stream(Arc<AtomicU64>),
}

/// The bytes of a framed message without its frame.
pub(crate) fn size(framed: usize) -> u64 {
    framed.saturating_sub(PREFIX) as u64
}

/// An attempt that is going on. Dropped, it was given up.
#[derive(Debug)]
pub(crate) struct Attempt {
    metered: Metered,
    path: Box<str>,
    sent: Sent,
    deadline: Option<Deadline>,
    received: u64,
    started: Instant,
    over: bool,
}

impl Attempt {
    pub(crate) fn received(&mut self, bytes: usize) {
        self.received = self.received.saturating_add(bytes as u64);
    }

    pub(crate) fn end(&mut self, status: Code) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        let elapsed = clock::now().saturating_duration_since(self.started).as_secs_f64();
        let sent = match &self.sent {
            Sent::Whole(bytes) => *bytes,
            Sent::Stream(bytes) => bytes.load(Ordering::Relaxed),
        };
        for (name, unit, value) in [
            ("grpc.client.attempt.duration", "s", elapsed),
            ("grpc.client.attempt.sent_total_compressed_message_size", "By", sent as f64),
            ("grpc.client.attempt.rcvd_total_compressed_message_size", "By", self.received as f64),
        ] {
            self.metered.record(&self.path, (name, unit, Instrument::Histogram), value, Some(status));
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let late = self.deadline.is_some_and(|deadline| deadline.left().is_zero());
        self.end(if late { Code::DeadlineExceeded } else { Code::Cancelled });
    }
}
