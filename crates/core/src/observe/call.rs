//! A whole call to the connector.

use std::future::Future;

use tracing::Instrument;
use tracing::field::{Empty, display};

use super::{Opened, Outcome, Traffic, micros, record_error};
use crate::datagram::Datagram;
use crate::dial::DialContext;
use crate::error::Result;
use crate::info::ConnectionInfo;
use crate::stream::Stream;

/// What a call to the connector ends in.
pub(crate) trait Made {
    /// Whether it carries datagrams.
    const DATAGRAMS: bool;

    fn info(&self) -> &ConnectionInfo;
}

impl Made for Stream {
    const DATAGRAMS: bool = false;

    fn info(&self) -> &ConnectionInfo {
        self.info()
    }
}

impl Made for Datagram {
    const DATAGRAMS: bool = true;

    fn info(&self) -> &ConnectionInfo {
        self.info()
    }
}

/// What was made over datagrams.
impl<T> Made for (T, ConnectionInfo) {
    const DATAGRAMS: bool = true;

    fn info(&self) -> &ConnectionInfo {
        &self.1
    }
}

impl DialContext {
    /// The counters of the connection that is made, if anybody asked.
    pub(crate) fn traffic(&self) -> Option<Traffic> {
        let observers = self.observers();
        observers.are_told().then(|| Traffic::new(self.id(), self.target().clone(), observers.clone()))
    }

    /// Runs the whole of a call: its error gets the facts of the attempt, and observers hear of the outcome.
    pub(crate) async fn told<T: Made>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        if !self.observers().are_told() {
            return work.await.map_err(|error| self.fail(error));
        }
        let span = tracing::debug_span!(
            "connect",
            otel.kind = "client",
            otel.status_code = Empty,
            endpoint = %self.target(),
            server.address = %self.target().host_text(),
            server.port = self.target().port(),
            network.peer.address = Empty,
            network.peer.port = Empty,
            tls.protocol.version = Empty,
            address = Empty,
            elapsed_us = Empty,
            phase = Empty,
            hop = Empty,
            delivery = Empty,
            error = Empty,
            error.type = Empty,
        );
        let result = work.instrument(span.clone()).await.map_err(|error| self.fail(error));
        let elapsed = self.elapsed();
        span.record("elapsed_us", micros(elapsed));
        match &result {
            Ok(made) => {
                if let Some(peer) = made.info().peer {
                    span.record("address", display(peer)).record("network.peer.address", display(peer.ip()));
                    span.record("network.peer.port", peer.port());
                }
                if let Some(tls) = &made.info().tls {
                    span.record("tls.protocol.version", tls.version);
                }
            }
            Err(error) => record_error(&span, error),
        }
        let opened = Opened {
            id: self.id(),
            endpoint: self.target(),
            started: self.started(),
            elapsed,
            datagrams: T::DATAGRAMS,
            info: result.as_ref().ok().map(Made::info),
            outcome: Outcome::of(&result),
        };
        self.observers().tell(|observer| observer.opened(&opened));
        result
    }
}
