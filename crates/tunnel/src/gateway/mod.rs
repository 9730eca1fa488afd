//! The gateway's half: a server that carries WebSockets to TCP.
//!
//! ```no_run
//! use portolan_core::{Connector, Policy};
//! use portolan_tunnel::gateway::{Access, Gateway, Limits};
//!
//! # async fn example() -> portolan_core::Result<()> {
//! let net = Connector::default();
//! let gateway = Gateway::builder()
//!     .policy(Policy::public_only())
//!     .authenticate(|attempt| async move {
//!         if attempt.is_bearer(&"sesame".into()) { Access::allow("ann") } else { Access::Forbidden }
//!     })
//!     .limits(Limits::new().max_tunnels(1000))
//!     .build()?;
//! let listener = net.listen("127.0.0.1:8080".parse().expect("an address")).await?;
//! gateway.serve(listener).await
//! # }
//! ```

mod accept;
mod admit;
mod auth;
mod head;
mod limits;
mod metrics;
mod pump;
mod queue;

use std::fmt;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portolan_core::{BoxFuture, Connector, Endpoint, Error, Phase, Policy, Result, Stream, clock};
use portolan_websocket::CloseCode;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use accept::Accept;
use admit::{Admitted, Clients};
use auth::Hook;
pub use auth::{Access, Attempt};
pub use limits::{HIGH_WATER, Limits};
use metrics::{Counters, add};
pub use metrics::{Metrics, Outcome};
use pump::Pump;

/// How long accepting rests after it failed, as it does when the process has no descriptors left.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// A gateway. It is cheap to clone; all clones are one gateway.
#[derive(Clone)]
pub struct Gateway(Arc<Shared>);

struct Shared {
    connector: Connector,
    tls: Option<TlsAcceptor>,
    hook: Option<Hook>,
    origins: Vec<String>,
    path: Option<String>,
    limits: Arc<Limits>,
    counters: Arc<Counters>,
    tunnels: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    clients: Clients,
    /// Nothing is accepted any more.
    stop: CancellationToken,
    /// Tunnels are closed.
    halt: CancellationToken,
    tasks: TaskTracker,
}

/// Builds a [`Gateway`].
#[must_use]
pub struct GatewayBuilder {
    connector: Connector,
    policy: Policy,
    tls: Option<Arc<rustls::ServerConfig>>,
    hook: Option<Hook>,
    anyone: bool,
    origins: Vec<String>,
    path: Option<String>,
    limits: Limits,
}

impl GatewayBuilder {
    /// By what targets are reached: resolver, hops, deadlines. Its policy is replaced by [`policy`](Self::policy).
    pub fn connector(mut self, connector: Connector) -> Self {
        self.connector = connector;
        self
    }

    /// Which targets are allowed. Default [`Policy::public_only`]. It judges the very addresses that are then connected
    /// to, so a name that changes its address between check and use gains nothing.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// TLS with clients. Default none: a proxy before the gateway does it.
    pub fn tls(mut self, config: Arc<rustls::ServerConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// Who may open a tunnel: asked once for each, within the handshake's deadline.
    pub fn authenticate<F, A>(mut self, hook: F) -> Self
    where
        F: Fn(Attempt) -> A + Send + Sync + 'static,
        A: Future<Output = Access> + Send + 'static,
    {
        self.hook = Some(Arc::new(move |attempt| -> BoxFuture<'static, Access> { Box::pin(hook(attempt)) }));
        self
    }

    /// Anyone may open a tunnel. Without this and without a hook there is no gateway: an open relay is to be a
    /// decision.
    pub fn anyone(mut self) -> Self {
        self.anyone = true;
        self
    }

    /// The origins whose pages may open tunnels, such as `https://app.example`; `*` for all. Default none: clients that
    /// are no browsers name none, and are let in.
    pub fn origins<T: Into<String>>(mut self, origins: impl IntoIterator<Item = T>) -> Self {
        self.origins = origins.into_iter().map(Into::into).collect();
        self
    }

    /// The one path of the gateway; others are answered with 404. Default any.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// What is granted.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The gateway.
    pub fn build(self) -> Result<Gateway> {
        if self.hook.is_none() && !self.anyone {
            return Err(Error::usage("a gateway needs authenticate(..), or anyone() to be an open relay"));
        }
        Ok(Gateway(Arc::new(Shared {
            connector: self.connector.to_builder().policy(self.policy).build()?,
            tls: self.tls.map(TlsAcceptor::from),
            hook: self.hook,
            origins: self.origins,
            path: self.path,
            tunnels: Arc::new(Semaphore::new(self.limits.tunnels.min(Semaphore::MAX_PERMITS))),
            handshakes: Arc::new(Semaphore::new(self.limits.handshakes.min(Semaphore::MAX_PERMITS))),
            limits: Arc::new(self.limits),
            counters: Arc::default(),
            clients: Clients::default(),
            stop: CancellationToken::new(),
            halt: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })))
    }

    /// Builds the gateway and serves.
    pub async fn serve(self, listener: impl Accept) -> Result<()> {
        self.build()?.serve(listener).await
    }
}

impl Gateway {
    /// A gateway to be said piece by piece.
    pub fn builder() -> GatewayBuilder {
        GatewayBuilder {
            connector: Connector::default(),
            policy: Policy::public_only(),
            tls: None,
            hook: None,
            anyone: false,
            origins: Vec::new(),
            path: None,
            limits: Limits::default(),
        }
    }

    /// Accepts clients until [`shutdown`](Self::shutdown); tunnels go on after it has returned. Dropping the future
    /// stops accepting here, and ends no tunnel.
    pub async fn serve(&self, mut listener: impl Accept) -> Result<()> {
        let shared = &self.0;
        loop {
            let work = async {
                let place = Arc::clone(&shared.handshakes).acquire_owned().await;
                (place, listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                biased;
                () = shared.stop.cancelled() => return Ok(()),
                got = work => got,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let gateway = self.clone();
                    shared.tasks.spawn(async move {
                        let admitted = gateway.admit(stream, peer).await;
                        drop(place);
                        gateway.run(admitted, peer).await;
                    });
                    add(&shared.counters.accepted, 1);
                }
                Err(error) => {
                    tracing::warn!(%error, "not accepted");
                    clock::sleep(ACCEPT_REST).await;
                }
            }
        }
    }

    /// Serves one connection that was accepted elsewhere, to its end. Dropping the future ends it without a word.
    pub async fn handle(&self, stream: Stream, peer: SocketAddr) {
        add(&self.0.counters.accepted, 1);
        let work = async { self.run(self.admit(stream, peer).await, peer).await };
        self.0.tasks.track_future(work).await;
    }

    /// The handshake, in a box of its own: it is large, and gone when the tunnel begins.
    async fn admit(&self, stream: Stream, peer: SocketAddr) -> Option<Admitted> {
        let work = Box::pin(self.0.admit(stream, peer));
        tokio::select! {
            biased;
            () = self.0.halt.cancelled() => None,
            admitted = work => admitted,
        }
    }

    async fn run(&self, admitted: Option<Admitted>, peer: SocketAddr) {
        let Some(Admitted { socket, target, identity, slot }) = admitted else { return };
        let shared = &self.0;
        let opening = open(shared.connector.clone(), target.clone(), shared.limits.open);
        let mut pump = Pump::new(socket, opening, Arc::clone(&shared.limits), Arc::clone(&shared.counters));
        let mut going = false;
        let outcome = loop {
            tokio::select! {
                biased;
                outcome = poll_fn(|cx| pump.poll(cx)) => break outcome,
                () = shared.halt.cancelled(), if !going => {
                    going = true;
                    pump.close(CloseCode::GOING_AWAY, "the gateway shuts down", Outcome::GoingAway);
                }
            }
        };
        shared.counters.ended(outcome);
        let (up, down) = pump.bytes();
        drop(pump);
        drop(slot);
        tracing::debug!(%peer, identity, %target, ?outcome, up, down, "tunnel ended");
    }

    /// Shuts down: accepts nothing more, gives the tunnels `drain` to end by themselves, then closes those that are
    /// left with 1001.
    ///
    /// It returns when all are gone, which takes no longer than `drain` and the closing limit together. Dropping the
    /// future leaves the gateway closed for new clients; calling again goes on with it.
    pub async fn shutdown(&self, drain: Duration) {
        let shared = &self.0;
        shared.stop.cancel();
        shared.tasks.close();
        let ended = async {
            shared.tasks.wait().await;
            Ok(())
        };
        if clock::within(Some(drain), Phase::Close, ended).await.is_err() {
            shared.halt.cancel();
            shared.tasks.wait().await;
        }
    }

    /// The figures so far.
    pub fn metrics(&self) -> Metrics {
        self.0.counters.read()
    }
}

/// Connects to the target, in a box of its own: it is gone when the target is there.
fn open(connector: Connector, target: Endpoint, limit: Duration) -> BoxFuture<'static, Result<Stream>> {
    Box::pin(async move { clock::within(Some(limit), Phase::Connect, connector.connect(&target)).await })
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("limits", &self.0.limits).finish_non_exhaustive()
    }
}

impl fmt::Debug for GatewayBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayBuilder").field("limits", &self.limits).finish_non_exhaustive()
    }
}
