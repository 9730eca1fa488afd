//! One address: a connection to it, or the reason why there is none.

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portolan_core::clock::{self, Instant};
use portolan_core::{Connector, Delivery, Endpoint, Error, Kind, Phase, Result};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::Connectivity;
use super::carrier::Carrier;
use super::health::{Watched, watch};
use crate::PROTOCOL;
use crate::policy::jitter;

/// By how much each wait is longer than the one before ("Connection Backoff Protocol" of the gRPC project).
const GROWTH: f64 = 1.6;

/// How connections are made.
#[derive(Debug)]
pub(super) struct Way<K> {
    pub(super) connector: Connector,
    pub(super) carrier: Arc<K>,
    pub(super) backoff: (Duration, Duration),
    /// What the certificate must be for, where there is TLS.
    pub(super) name: Option<Box<str>>,
    /// What is asked after the health of the service, where it is.
    pub(super) health: Option<Watched>,
}

/// One address.
pub(super) struct Subchannel<K: Carrier> {
    pub(super) to: Endpoint,
    shared: Arc<Shared<K>>,
}

pub(super) struct Shared<K: Carrier> {
    state: Mutex<State<K>>,
    changed: Notify,
}

struct State<K: Carrier> {
    handle: Option<K::Connection>,
    /// Makes the connection, and then watches the health of what it leads to.
    task: Option<JoinHandle<()>>,
    connecting: bool,
    health: Health,
    failures: i32,
    failed: Option<(Arc<Error>, Instant)>,
}

/// What is known of the service behind a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// It has been asked.
    Asked,
    /// It serves, or nobody asks.
    Good,
    /// It says that it does not serve, or stopped saying anything.
    Bad,
}

impl<K: Carrier> Shared<K> {
    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn heard(&self, health: Health) {
        self.lock().health = health;
        self.changed.notify_waiters();
    }
}

impl<K: Carrier> State<K> {
    fn alive(&self) -> Option<&K::Connection> {
        self.handle.as_ref().filter(|handle| !K::is_closed(handle))
    }

    fn ready(&self) -> Option<&K::Connection> {
        self.alive().filter(|_| self.health == Health::Good)
    }

    /// The failure that still keeps us away.
    fn waiting(&self) -> Option<&(Arc<Error>, Instant)> {
        self.failed.as_ref().filter(|(_, until)| *until > clock::now())
    }
}

impl<K: Carrier> Drop for Subchannel<K> {
    fn drop(&mut self) {
        if let Some(task) = self.shared.lock().task.take() {
            task.abort();
        }
    }
}

impl<K: Carrier> Subchannel<K> {
    pub(super) fn new(to: Endpoint) -> Self {
        let state =
            State { handle: None, task: None, connecting: false, health: Health::Good, failures: 0, failed: None };
        Self { to, shared: Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() }) }
    }

    /// The connection, if there is one that takes calls.
    pub(super) fn ready(&self) -> Option<K::Connection> {
        self.shared.lock().ready().cloned()
    }

    /// Whether there was a connection and it was lost, or one couldn't be made.
    pub(super) fn troubled(&self) -> bool {
        let state = self.shared.lock();
        state.failed.is_some() || state.handle.as_ref().is_some_and(K::is_closed)
    }

    /// How it is with this address.
    pub(super) fn connectivity(&self) -> Connectivity {
        let state = self.shared.lock();
        match (state.alive(), state.health) {
            (Some(_), Health::Good) => Connectivity::Ready,
            (Some(_), Health::Bad) => Connectivity::TransientFailure,
            (Some(_), Health::Asked) => Connectivity::Connecting,
            (None, _) if state.connecting => Connectivity::Connecting,
            (None, _) if state.waiting().is_some() => Connectivity::TransientFailure,
            (None, _) => Connectivity::Idle,
        }
    }

    /// When it may be tried again.
    pub(super) fn next_try(&self) -> Option<Instant> {
        self.shared.lock().waiting().map(|(_, until)| *until)
    }

    /// Begins to connect, if there is neither a connection nor a reason against it. The work goes on without the call that
    /// began it: a call with a short deadline must not undo what the next one needs.
    pub(super) fn start(&self, way: &Arc<Way<K>>) {
        let mut state = self.shared.lock();
        if state.alive().is_some() || state.connecting || state.waiting().is_some() {
            return;
        }
        let (way, to, shared) = (Arc::clone(way), self.to.clone(), Arc::clone(&self.shared));
        state.connecting = true;
        let task = tokio::spawn(async move {
            let result = Box::pin(way.carrier.connect(&way.connector, &to, way.name.as_deref())).await;
            let watched = result.as_ref().ok().cloned().zip(way.health.as_ref());
            shared.lock().connected(result, &way);
            shared.changed.notify_waiters();
            if let Some((connection, service)) = watched {
                Box::pin(watch(connection, service, way.backoff, &shared)).await;
            }
        });
        if let Some(old) = state.task.replace(task) {
            old.abort();
        }
    }

    /// The connection, made if need be.
    pub(super) async fn get(&self, way: &Arc<Way<K>>) -> Result<K::Connection> {
        loop {
            // Asked to be told before looking, so that nothing is missed between.
            let mut changed = pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            self.start(way);
            {
                let state = self.shared.lock();
                if let Some(handle) = state.ready() {
                    return Ok(handle.clone());
                }
                if let Some((error, _)) = state.waiting() {
                    return Err(again(error));
                }
                if state.alive().is_some() && state.health == Health::Bad {
                    return Err(unhealthy(&self.to));
                }
            }
            changed.await;
        }
    }
}

impl<K: Carrier> State<K> {
    fn connected(&mut self, result: Result<K::Connection>, way: &Way<K>) {
        self.connecting = false;
        // One that is lost already was none: else a server that always does so would be asked without a pause.
        let kept = result.and_then(|handle| if K::is_closed(&handle) { Err(taken_back()) } else { Ok(handle) });
        match kept {
            Ok(handle) => {
                (self.failures, self.failed) = (0, None);
                self.handle = Some(handle);
                self.health = if way.health.is_some() { Health::Asked } else { Health::Good };
            }
            Err(error) => {
                let wait = backoff(way.backoff, self.failures);
                self.failures = self.failures.saturating_add(1);
                (self.handle, self.failed) = (None, Some((Arc::new(error), clock::now() + wait)));
            }
        }
    }
}

/// How long to wait after so many failures.
pub(super) fn backoff((first, most): (Duration, Duration), failures: i32) -> Duration {
    let wait = first.as_secs_f64() * GROWTH.powi(failures);
    Duration::from_secs_f64(wait.min(most.as_secs_f64()) * jitter())
}

fn taken_back() -> Error {
    Error::closed("the server ended the connection at once").with_phase(Phase::Connect).with_protocol(PROTOCOL)
}

fn unhealthy(to: &Endpoint) -> Error {
    Error::new(Kind::Connect, "the service there says that it does not serve")
        .with_delivery(Delivery::NotSent)
        .with_phase(Phase::Connect)
        .with_protocol(PROTOCOL)
        .with_endpoint(to.clone())
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

impl<K: Carrier> fmt::Debug for Subchannel<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subchannel").field("to", &self.to).finish_non_exhaustive()
    }
}
