//! Operations under observation: what protocols wrap their calls in.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tracing::field::{Empty, display};
use tracing::{Instrument, Span};

use super::step::{Of, Stepping};
use super::{Done, Observers, Outcome, Traffic, micros, record_error};
use crate::clock::{self, Instant};
use crate::connector::Connector;
use crate::datagram::Datagram;
use crate::endpoint::{Endpoint, Host};
use crate::error::{Error, Phase, Result};
use crate::stream::Stream;

/// Which of OpenTelemetry's names the operations of a protocol go by, beside the common ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Semantics {
    /// The common ones alone.
    #[default]
    Plain,
    /// `http.request.method`, `http.response.status_code`, `url.full`.
    Http,
    /// `db.system.name`, `db.operation.name`.
    Db,
    /// `rpc.system`, `rpc.method`, `rpc.grpc.status_code`.
    Rpc,
    /// `dns.question.name`.
    Dns,
}

/// What is known of an operation beside its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Facts {
    /// Whether its connection was there already.
    pub reused: Option<bool>,
    /// The peer's code: an HTTP status, a reply code of SMTP.
    pub status: Option<i64>,
}

impl Facts {
    /// Whether the connection was there already.
    #[must_use]
    pub fn reused(mut self, reused: bool) -> Self {
        self.reused = Some(reused);
        self
    }

    /// The peer's code.
    #[must_use]
    pub fn status(mut self, status: impl Into<i64>) -> Self {
        self.status = Some(status.into());
        self
    }
}

/// A client's own view of its observers: who is told, and what is said of each of its operations. The default one tells nobody.
#[derive(Debug, Clone, Default)]
pub struct Probe(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    /// The connect that made the connection, where there is one.
    id: u64,
    protocol: &'static str,
    semantics: Semantics,
    endpoint: Endpoint,
    observers: Observers,
}

impl Probe {
    /// Watches what is spoken with `endpoint`, for the observers of the connector.
    pub fn new(protocol: &'static str, semantics: Semantics, endpoint: &Endpoint, connector: &Connector) -> Self {
        Self::made(0, protocol, semantics, endpoint, connector.observers())
    }

    /// Watches what is spoken on `stream`, for the observers of the connector that made it. What begins to listen later hears of
    /// the streams made later.
    pub fn on(protocol: &'static str, semantics: Semantics, stream: &Stream) -> Self {
        Self::of(stream.traffic(), protocol, semantics)
    }

    /// The same for datagrams.
    pub fn on_datagram(protocol: &'static str, semantics: Semantics, datagram: &Datagram) -> Self {
        Self::of(datagram.traffic(), protocol, semantics)
    }

    fn of(traffic: Option<&Traffic>, protocol: &'static str, semantics: Semantics) -> Self {
        let of =
            |traffic: &Traffic| Self::made(traffic.id(), protocol, semantics, traffic.endpoint(), traffic.observers());
        traffic.map(of).unwrap_or_default()
    }

    fn made(id: u64, protocol: &'static str, semantics: Semantics, endpoint: &Endpoint, observers: &Observers) -> Self {
        let (endpoint, observers) = (endpoint.clone(), observers.clone());
        Self(Some(Arc::new(Inner { id, protocol, semantics, endpoint, observers })))
    }

    /// Itself, if it is worth saying more than is at hand: somebody listens.
    pub fn told(&self) -> Option<&Self> {
        self.0.as_ref().filter(|probe| probe.observers.are_told()).map(|_| self)
    }

    /// An operation, such as `GET`.
    pub fn operation<'a>(&'a self, name: &'a str) -> Operation<'a> {
        Operation { probe: self, name, about: None }
    }

    /// Runs a phase that is the protocol's own, such as its login.
    pub async fn phase<T>(&self, phase: Phase, work: impl Future<Output = Result<T>>) -> Result<T> {
        let Some(inner) = &self.0 else { return work.await };
        let of = Of { id: inner.id, endpoint: &inner.endpoint, observers: &inner.observers };
        let step = Stepping::new(Some(of), phase).protocol(inner.protocol);
        let result = work.await;
        step.end(&result);
        result
    }
}

impl Inner {
    fn span(&self, name: &str, about: Option<&str>) -> Span {
        let address = match self.endpoint.host() {
            Host::Unix(path) => path.display().to_string(),
            _ => self.endpoint.host_text().into_owned(),
        };
        let span = tracing::debug_span!(
            "operation",
            otel.name = name,
            otel.kind = "client",
            otel.status_code = Empty,
            protocol = self.protocol,
            network.protocol.name = self.protocol,
            operation = name,
            about,
            endpoint = %self.endpoint,
            server.address = address,
            server.port = self.endpoint.port(),
            reused = Empty,
            status = Empty,
            elapsed_us = Empty,
            delivery = Empty,
            phase = Empty,
            hop = Empty,
            error = Empty,
            error.type = Empty,
            http.request.method = Empty,
            http.response.status_code = Empty,
            url.full = Empty,
            db.system.name = Empty,
            db.operation.name = Empty,
            rpc.system = Empty,
            rpc.method = Empty,
            rpc.grpc.status_code = Empty,
            dns.question.name = Empty,
        );
        let about = about.unwrap_or_default();
        match self.semantics {
            Semantics::Plain => &span,
            Semantics::Http => span.record("http.request.method", name).record("url.full", about),
            Semantics::Db => span.record("db.system.name", self.protocol).record("db.operation.name", name),
            Semantics::Rpc => span.record("rpc.system", self.protocol).record("rpc.method", name),
            Semantics::Dns => span.record("dns.question.name", about),
        };
        span
    }
}

/// An operation that is about to begin.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Operation<'a> {
    probe: &'a Probe,
    name: &'a str,
    about: Option<&'a str>,
}

impl<'a> Operation<'a> {
    /// Whom or what it concerns: a URL without its secrets, a name that is asked for.
    pub fn about(mut self, about: &'a str) -> Self {
        self.about = Some(about);
        self
    }

    /// Runs it.
    pub fn run<T, F: Future<Output = Result<T>>>(self, work: F) -> Probed<F, T> {
        self.run_with(work, |_| Facts::default())
    }

    /// Runs it; `facts` says what a good result tells of itself.
    pub fn run_with<T, F: Future<Output = Result<T>>>(self, work: F, facts: fn(&T) -> Facts) -> Probed<F, T> {
        Probed { work, facts, running: self.flight() }
    }

    /// Runs the beginning of it. Where that is good, the operation goes on, and is over when its [`Flight`] is told so: a response
    /// that says at its end how it was.
    pub async fn begin<T>(self, work: impl Future<Output = Result<T>>) -> Result<(T, Flight)> {
        let mut flight = self.flight();
        let span = flight.0.as_ref().map_or_else(Span::none, |running| running.span.clone());
        let result = work.instrument(span).await;
        if result.is_err() {
            flight.end(Facts::default(), Outcome::of(&result));
        }
        result.map(|begun| (begun, flight))
    }

    fn flight(self) -> Flight {
        let probe = self.probe.0.as_ref().filter(|probe| probe.observers.are_told());
        let running = probe.map(|probe| {
            Box::new(Running {
                probe: probe.clone(),
                name: self.name.to_owned(),
                about: self.about.map(str::to_owned),
                started: clock::now(),
                span: probe.span(self.name, self.about),
            })
        });
        Flight(running)
    }
}

#[derive(Debug)]
struct Running {
    probe: Arc<Inner>,
    name: String,
    about: Option<String>,
    started: Instant,
    span: Span,
}

impl Running {
    fn end(self, facts: Facts, outcome: Outcome<'_>) {
        let elapsed = clock::now() - self.started;
        let span = &self.span;
        span.record("elapsed_us", micros(elapsed));
        if let Some(reused) = facts.reused {
            span.record("reused", reused);
        }
        if let Some(status) = facts.status.or_else(|| outcome.error().and_then(Error::code)) {
            span.record("status", status);
            match self.probe.semantics {
                Semantics::Http => span.record("http.response.status_code", status),
                Semantics::Rpc => span.record("rpc.grpc.status_code", status),
                _ => span,
            };
        }
        match outcome {
            Outcome::Done => {}
            Outcome::Failed(error) => record_error(span, error),
            Outcome::Dropped => {
                span.record("error", display("dropped by the caller"));
            }
        }
        let done = Done {
            protocol: self.probe.protocol,
            endpoint: &self.probe.endpoint,
            semantics: self.probe.semantics,
            operation: &self.name,
            about: self.about.as_deref(),
            started: self.started,
            elapsed,
            facts,
            outcome,
        };
        self.probe.observers.tell(|observer| observer.operation(&done));
    }
}

/// An operation under way. Dropped before its end, it is told as one that its caller let go.
#[derive(Debug)]
pub struct Flight(Option<Box<Running>>);

impl Flight {
    /// Tells the end, once.
    pub fn end(&mut self, facts: Facts, outcome: Outcome<'_>) {
        if let Some(running) = self.0.take() {
            running.end(facts, outcome);
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if let Some(running) = self.0.take() {
            running.end(Facts::default(), Outcome::Dropped);
        }
    }
}

pin_project! {
    /// A future that is watched: it costs a comparison where nobody is told.
    #[must_use = "futures do nothing unless they are awaited"]
    #[derive(Debug)]
    pub struct Probed<F, T> {
        #[pin]
        work: F,
        facts: fn(&T) -> Facts,
        running: Flight,
    }
}

impl<T, F: Future<Output = Result<T>>> Future for Probed<F, T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let this = self.project();
        let Some(running) = &this.running.0 else { return this.work.poll(cx) };
        let result = {
            let _inside = running.span.enter();
            std::task::ready!(this.work.poll(cx))
        };
        if let Some(running) = this.running.0.take() {
            let facts = result.as_ref().map(this.facts).unwrap_or_default();
            running.end(facts, Outcome::of(&result));
        }
        Poll::Ready(result)
    }
}
