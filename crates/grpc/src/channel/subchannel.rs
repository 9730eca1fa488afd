//! One address: a connection to it, or the reason why there is none.

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portolan_core::clock::{self, Instant};
use portolan_core::{Connector, Delivery, Endpoint, Error, Kind, Phase, Result};
use portolan_http2::SendRequest;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::PROTOCOL;
use crate::policy::jitter;

/// By how much each wait is longer than the one before ("Connection Backoff Protocol" of the gRPC project).
const GROWTH: f64 = 1.6;

/// How connections are made.
#[derive(Debug, Clone)]
pub(super) struct Way {
    pub(super) connector: Connector,
    pub(super) tls: bool,
    pub(super) http2: portolan_http2::Options,
    pub(super) backoff: (Duration, Duration),
}

impl Way {
    async fn connect(&self, to: &Endpoint, name: &str) -> Result<SendRequest> {
        let stream = if self.tls {
            let stream = self.connector.connect_tls_as(to, name, &[b"h2"]).await?;
            if stream.alpn() != Some(b"h2") {
                let error = Error::new(Kind::Tls, "the server did not agree to h2").with_phase(Phase::Tls);
                return Err(error.with_protocol(PROTOCOL).with_endpoint(to.clone()));
            }
            stream
        } else {
            self.connector.connect(to).await?
        };
        let (handle, connection) = portolan_http2::handshake(stream, self.http2.clone())?;
        // The driver ends by itself when the last handle is gone and the last call over.
        tokio::spawn(connection);
        Ok(handle)
    }
}

/// One address.
pub(super) struct Subchannel {
    pub(super) to: Endpoint,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    handle: Option<SendRequest>,
    connecting: Option<JoinHandle<()>>,
    failures: i32,
    failed: Option<(Arc<Error>, Instant)>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn ready(&self) -> Option<&SendRequest> {
        self.handle.as_ref().filter(|handle| !handle.is_closed())
    }

    /// The failure that still keeps us away.
    fn waiting(&self) -> Option<&(Arc<Error>, Instant)> {
        self.failed.as_ref().filter(|(_, until)| *until > clock::now())
    }
}

impl Drop for Subchannel {
    fn drop(&mut self) {
        if let Some(task) = self.shared.lock().connecting.take() {
            task.abort();
        }
    }
}

impl Subchannel {
    pub(super) fn new(to: Endpoint) -> Self {
        Self { to, shared: Arc::new(Shared { state: Mutex::default(), changed: Notify::new() }) }
    }

    /// The connection, if there is one that takes calls.
    pub(super) fn ready(&self) -> Option<SendRequest> {
        self.shared.lock().ready().cloned()
    }

    /// Whether there was a connection and it was lost, or one couldn't be made.
    pub(super) fn troubled(&self) -> bool {
        let state = self.shared.lock();
        state.failed.is_some() || state.handle.as_ref().is_some_and(SendRequest::is_closed)
    }

    /// When it may be tried again.
    pub(super) fn next_try(&self) -> Option<Instant> {
        self.shared.lock().waiting().map(|(_, until)| *until)
    }

    /// Begins to connect, if there is neither a connection nor a reason against it. The work goes on without the call that
    /// began it: a call with a short deadline must not undo what the next one needs.
    pub(super) fn start(&self, way: &Arc<Way>, name: &str) {
        let mut state = self.shared.lock();
        if state.ready().is_some() || state.connecting.is_some() || state.waiting().is_some() {
            return;
        }
        let (way, to, name, shared) = (Arc::clone(way), self.to.clone(), name.to_owned(), Arc::clone(&self.shared));
        state.connecting = Some(tokio::spawn(async move {
            let result = Box::pin(way.connect(&to, &name)).await;
            shared.lock().connected(result, way.backoff);
            shared.changed.notify_waiters();
        }));
    }

    /// The connection, made if need be.
    pub(super) async fn get(&self, way: &Arc<Way>, name: &str) -> Result<SendRequest> {
        loop {
            // Asked to be told before looking, so that nothing is missed between.
            let mut changed = pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            self.start(way, name);
            {
                let state = self.shared.lock();
                if let Some(handle) = state.ready() {
                    return Ok(handle.clone());
                }
                if let Some((error, _)) = state.waiting() {
                    return Err(again(error));
                }
            }
            changed.await;
        }
    }
}

impl State {
    fn connected(&mut self, result: Result<SendRequest>, (first, most): (Duration, Duration)) {
        self.connecting = None;
        match result {
            Ok(handle) => {
                (self.failures, self.failed) = (0, None);
                self.handle = Some(handle);
            }
            Err(error) => {
                let wait = first.as_secs_f64() * GROWTH.powi(self.failures);
                let wait = Duration::from_secs_f64(wait.min(most.as_secs_f64()) * jitter());
                self.failures = self.failures.saturating_add(1);
                (self.handle, self.failed) = (None, Some((Arc::new(error), clock::now() + wait)));
            }
        }
    }
}

/// The same failure, for each call that it keeps from being made.
fn again(error: &Arc<Error>) -> Error {
    let mut copy = Error::new(error.kind(), error.message())
        .with_delivery(Delivery::NotSent)
        .with_phase(error.phase().unwrap_or(Phase::Connect))
        .with_protocol(PROTOCOL);
    if let Some(endpoint) = error.endpoint() {
        copy = copy.with_endpoint(endpoint.clone());
    }
    copy.with_source(Arc::clone(error))
}

impl fmt::Debug for Subchannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subchannel").field("to", &self.to).finish_non_exhaustive()
    }
}
