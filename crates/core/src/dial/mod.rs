//! The one seam: everything that can make a way to a peer is a [`Dial`].
//!
//! [`Direct`] opens sockets. A hop wraps the `Dial` beneath it: it dials its proxy there, says where to go, and hands the
//! stream up. A chain is nesting. Nothing else in the workspace opens a socket or resolves a name.

mod direct;

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{self, Instant};
use crate::datagram::Datagram;
use crate::endpoint::{Endpoint, Host};
use crate::error::{Error, Kind, Phase, Result};
use crate::happy::{HappyOptions, Winners, Won};
use crate::hop::ProxyHeader;
use crate::info::{Attempt, ConnectionInfo, HopInfo, Timings, Tried, TriedOutcome};
use crate::observe::{self, Observers, Stepping};
use crate::policy::Policy;
use crate::resolve::{Answer, Family, Resolver, canonical};
use crate::sockopt::{Bind, TcpOptions};
use crate::stream::Stream;
use crate::timeouts::Timeouts;
use crate::tls::Tls;

pub use direct::Direct;

/// Addresses tried in one call that are remembered one by one.
const MAX_TRIED: usize = 32;

/// A boxed future, as object-safe traits return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How many addresses of one name are tried through a hop: each costs a connection to the proxy.
const MAX_HOP_TARGETS: usize = 4;

/// Whatever can make a way to an endpoint.
pub trait Dial: Send + Sync + fmt::Debug + 'static {
    /// A stream to `to`. Dropping the future closes whatever was opened.
    fn dial<'a>(&'a self, to: &'a Endpoint, cx: &'a DialContext) -> BoxFuture<'a, Result<Stream>>;

    /// Datagrams to `to`.
    fn datagram<'a>(&'a self, to: &'a Endpoint, cx: &'a DialContext) -> BoxFuture<'a, Result<Datagram>>;
}

/// Where a layer stands in its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// The hop's number, counted from zero at our end.
    pub index: usize,
    /// Whether what it dials is the target itself, and not a further proxy.
    pub last: bool,
}

impl Place {
    /// A place in a chain.
    pub fn new(index: usize, last: bool) -> Self {
        Self { index, last }
    }
}

/// What holds for one call: the connector's settings, and a record of how far the call came.
#[derive(Debug)]
pub struct DialContext {
    settings: Arc<Settings>,
    /// The number of the call, and what it is to reach: what observers know it by.
    id: u64,
    target: Endpoint,
    started: Instant,
    /// Whether the caller speaks plain HTTP, which a last hop that is an HTTP proxy takes without a tunnel.
    plain_http: bool,
    progress: Mutex<Progress>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    pub(crate) resolver: Resolver,
    pub(crate) policy: Policy,
    pub(crate) hop_policy: Policy,
    pub(crate) trust_hops: bool,
    pub(crate) timeouts: Timeouts,
    pub(crate) bind: Bind,
    pub(crate) tcp: TcpOptions,
    pub(crate) happy: HappyOptions,
    pub(crate) winners: Arc<Winners>,
    pub(crate) tls: Tls,
    pub(crate) hop_tls: Tls,
    pub(crate) proxy_header: Option<ProxyHeader>,
    pub(crate) observers: Observers,
    /// What opens everything, in place of sockets and hops.
    pub(crate) dial: Option<Arc<dyn Dial>>,
}

impl Settings {
    /// Which family won at `name`, where that tells something.
    fn remember<T>(&self, name: &str, won: &Won<T>) {
        let (name, family) = (canonical(name), Family::of(won.addr.ip()));
        if family == won.expected {
            self.winners.forget(&name);
        } else if won.contested {
            self.winners.won(&name, family, self.happy.memory_time());
        }
    }
}

#[derive(Debug, Default)]
struct Progress {
    address: Option<SocketAddr>,
    hop: Option<usize>,
    hops: Vec<HopInfo>,
    timings: Timings,
    attempts: u32,
    tried: Vec<Try>,
    /// What TLS with the proxy took that is passed next.
    secured: Duration,
}

/// One address being tried, or that was.
#[derive(Debug)]
struct Try {
    address: SocketAddr,
    started: Instant,
    ended: Option<(Instant, TriedOutcome)>,
}

impl Progress {
    fn tried(&self, now: Instant) -> Vec<Tried> {
        let facts = |one: &Try| {
            let (ended, outcome) = one.ended.clone().unwrap_or((now, TriedOutcome::Dropped));
            Tried { address: one.address, elapsed: ended - one.started, outcome }
        };
        self.tried.iter().map(facts).collect()
    }
}

impl DialContext {
    pub(crate) fn new(settings: Arc<Settings>, target: Endpoint) -> Self {
        let (id, started) = (observe::next_id(), clock::now());
        Self { settings, id, target, started, plain_http: false, progress: Mutex::default() }
    }

    /// The same for a caller that speaks plain HTTP.
    pub(crate) fn of_plain_http(mut self) -> Self {
        self.plain_http = true;
        self
    }

    pub(crate) fn is_plain_http(&self) -> bool {
        self.plain_http
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn target(&self) -> &Endpoint {
        &self.target
    }

    pub(crate) fn observers(&self) -> &Observers {
        &self.settings.observers
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// The bounds of every phase.
    pub fn timeouts(&self) -> &Timeouts {
        &self.settings.timeouts
    }

    /// How TLS is spoken with proxies.
    pub fn hop_tls(&self) -> &Tls {
        &self.settings.hop_tls
    }

    /// How TLS is spoken with the target.
    pub fn tls(&self) -> &Tls {
        &self.settings.tls
    }

    /// The policy for what the layer at `last` dials.
    fn policy(&self, last: bool) -> &Policy {
        if last { &self.settings.policy } else { &self.settings.hop_policy }
    }

    /// Resolves a name to addresses that the policy allows. The very addresses returned are the ones to connect to.
    pub async fn resolve(&self, to: &Endpoint, last: bool) -> Result<Vec<SocketAddr>> {
        let policy = self.policy(last);
        let name = match to.host() {
            Host::Ip(..) => {
                let addr = to.socket_addr().ok_or_else(|| Error::usage("not an address"))?;
                return policy.check(addr).map(|()| vec![addr]);
            }
            Host::Unix(_) => return Err(Error::usage("a Unix socket is not resolved")),
            Host::Name(name) => name,
        };
        policy.check_name(name, to.port())?;
        check_onion(name)?;
        let started = clock::now();
        let limit = self.settings.timeouts.resolve_limit();
        let step = Stepping::begin(self, Phase::Resolve);
        let answer = clock::within(limit, Phase::Resolve, self.settings.resolver.lookup(name)).await;
        step.end(&answer);
        let answer = answer?;
        self.note(|p| *p.timings.resolve.get_or_insert_default() += clock::now() - started);
        allowed(name, to.port(), answer, policy)
    }

    /// What a hop at `place` asks its proxy for: `to` itself, or the addresses it stands for.
    ///
    /// A name goes to the proxy as it is only if the proxy resolves (`remote`) and the policy allows anything, or the caller
    /// said that it trusts its hops to resolve: a policy that was never shown the address could not hold. Nor could an address
    /// that was set for the name by hand.
    pub async fn targets(&self, to: &Endpoint, place: Place, remote: bool) -> Result<Vec<Endpoint>> {
        if matches!(to.host(), Host::Unix(_)) {
            return Err(Error::usage("a Unix socket cannot be reached through a proxy"));
        }
        let policy = self.policy(place.last);
        if let Some(name) = to.name() {
            policy.check_name(name, to.port())?;
            let free = policy.is_any() && !self.settings.resolver.sets(name);
            if remote && (free || self.settings.trust_hops) {
                return Ok(vec![to.clone()]);
            }
        }
        let addrs = self.resolve(to, place.last).await?;
        Ok(taking_turns(addrs).take(MAX_HOP_TARGETS).map(Endpoint::from).collect())
    }

    /// Runs a hop's handshake under its own deadline. An error names the hop and keeps what it says of itself.
    pub async fn hop<T>(
        &self,
        place: Place,
        kind: &'static str,
        authority: &str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.note(|p| p.hop = Some(place.index));
        let started = clock::now();
        let step = Stepping::begin(self, Phase::Hop).hop(place.index, kind, authority);
        let result = clock::within(self.settings.timeouts.hop_limit(), Phase::Hop, work).await;
        step.end(&result);
        match result {
            Ok(value) => {
                let elapsed = clock::now() - started;
                self.note(|p| {
                    let elapsed = elapsed + std::mem::take(&mut p.secured);
                    p.hop = None;
                    // A second try of the same hop takes the place of the first.
                    p.hops.truncate(place.index);
                    p.hops.push(HopInfo::new(kind, authority.to_owned(), elapsed));
                    *p.timings.hops.get_or_insert_default() += elapsed;
                });
                Ok(value)
            }
            Err(error) => {
                self.note(|p| p.secured = Duration::ZERO);
                Err(hop_error(error, place.index))
            }
        }
    }

    /// Says how long the connection took to protect to the proxy that is passed next.
    pub(crate) fn hop_secured(&self, took: Duration) {
        self.note(|p| p.secured = took);
    }

    /// The hops passed so far: what a connection that is to be shared by later calls keeps of how it was made.
    pub fn hops(&self) -> Vec<HopInfo> {
        let mut hops = Vec::new();
        self.note(|p| hops.clone_from(&p.hops));
        hops
    }

    /// Says that the way up to here was made by an earlier call, and what that call passed ([`hops`](Self::hops)).
    pub fn reuse(&self, hops: &[HopInfo]) {
        let passed = |hop: &HopInfo| HopInfo { elapsed: Duration::ZERO, reused: true, ..hop.clone() };
        self.note(|p| p.hops = hops.iter().map(passed).collect());
    }

    /// Says that the connection to the proxy passed last was there already.
    pub fn hop_reused(&self) {
        self.note(|p| {
            if let Some(hop) = p.hops.last_mut() {
                hop.reused = true;
            }
        });
    }

    /// Says how long the handshake took by which a connection to the proxy passed last was made: a hop of many tunnels passes
    /// its proxy twice.
    pub fn hop_took(&self, handshake: Duration) {
        self.note(|p| {
            if let Some(hop) = p.hops.last_mut() {
                hop.elapsed += handshake;
            }
        });
    }

    /// Says which address the proxy passed last connects from, where it tells.
    pub fn hop_bound(&self, bound: String) {
        self.note(|p| {
            if let Some(hop) = p.hops.last_mut() {
                hop.bound = Some(bound);
            }
        });
    }

    /// Tries an address, and keeps what becomes of it.
    async fn tried<T>(&self, address: SocketAddr, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut place = None;
        self.note(|p| {
            p.address = Some(address);
            p.attempts += 1;
            if p.tried.len() < MAX_TRIED {
                place = Some(p.tried.len());
                p.tried.push(Try { address, started: clock::now(), ended: None });
            }
        });
        let step = Stepping::begin(self, Phase::Connect).address(address);
        let result = work.await;
        step.end(&result);
        let outcome = match &result {
            Ok(_) => TriedOutcome::Connected,
            Err(error) => TriedOutcome::Failed(error.message().into()),
        };
        self.note(|p| {
            if let Some(one) = place.and_then(|place| p.tried.get_mut(place)) {
                one.ended = Some((clock::now(), outcome));
            }
        });
        result
    }

    fn note(&self, f: impl FnOnce(&mut Progress)) {
        f(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Forgets the hops passed so far: the next chain of a failover list begins.
    pub(crate) fn restart(&self) {
        self.note(|p| {
            p.hops.clear();
            p.hop = None;
        });
    }

    /// How long the call has taken.
    pub fn elapsed(&self) -> Duration {
        clock::now() - self.started
    }

    /// Completes what is known about a connection that was made.
    pub(crate) fn finish(&self, info: &mut ConnectionInfo) {
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        info.id = self.id;
        info.hops.clone_from(&progress.hops);
        info.attempts = progress.attempts;
        info.tried = progress.tried(clock::now());
        let tls = info.timings.tls;
        info.timings = Timings { tls, total: clock::now() - self.started, ..progress.timings };
    }

    /// Puts the facts of the attempt on an error.
    pub(crate) fn fail(&self, error: Error) -> Error {
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = clock::now() - self.started;
        let attempt = Attempt {
            address: progress.address,
            hop: error.hop().or(progress.hop),
            elapsed,
            timings: Timings { total: elapsed, ..progress.timings },
            attempts: progress.attempts,
            tried: progress.tried(clock::now()),
        };
        error.with_endpoint(self.target.clone()).with_attempt(attempt)
    }
}

/// Both families in turn, whichever the resolver lists first: the first few of many addresses hold some of each.
fn taking_turns(addrs: Vec<SocketAddr>) -> impl Iterator<Item = SocketAddr> {
    let first = addrs.first().is_some_and(SocketAddr::is_ipv6);
    let (lead, rest): (Vec<_>, Vec<_>) = addrs.into_iter().partition(|addr| addr.is_ipv6() == first);
    let (mut next, mut other) = (rest.into_iter(), lead.into_iter());
    std::iter::from_fn(move || {
        std::mem::swap(&mut next, &mut other);
        next.next().or_else(|| other.next())
    })
}

/// RFC 7686 2: a name of Tor's is never asked of DNS, which would tell the world who is looked for. A hop that resolves by itself
/// (`socks5h`, `socks4a`, CONNECT) is given it as it is.
fn check_onion(name: &str) -> Result<()> {
    let name = name.trim_end_matches('.');
    if name.len() >= 6 && name.as_bytes()[name.len() - 6..].eq_ignore_ascii_case(b".onion") {
        let message = "only Tor resolves .onion: a hop that resolves by itself is needed (socks5h), and under a policy the word \
                       that it may (trust_hop_resolution)";
        return Err(Error::new(Kind::Resolve, message)
            .with_phase(Phase::Resolve)
            .with_delivery(crate::Delivery::NotSent));
    }
    Ok(())
}

/// The addresses of an answer that the policy allows.
fn allowed(name: &str, port: u16, answer: Answer, policy: &Policy) -> Result<Vec<SocketAddr>> {
    let mut blocked = None;
    let mut allowed = Vec::with_capacity(answer.addrs.len());
    for ip in answer.addrs {
        let addr = SocketAddr::new(ip, port);
        match policy.check(addr) {
            Ok(()) => allowed.push(addr),
            Err(error) => blocked = Some(error),
        }
    }
    match blocked {
        Some(error) if allowed.is_empty() => Err(error),
        _ if allowed.is_empty() => {
            Err(Error::new(Kind::Resolve, format!("{name} has no address")).with_phase(Phase::Resolve))
        }
        _ => Ok(allowed),
    }
}

/// Whatever went wrong while passing a proxy is a [`Kind::Hop`] error, but the caller's own mistakes, deadlines, refused
/// credentials and the policy's word keep their kind.
fn hop_error(error: Error, index: usize) -> Error {
    let kept = matches!(
        error.kind(),
        Kind::Timeout | Kind::Auth | Kind::Usage | Kind::Blocked | Kind::Resolve | Kind::Unsupported
    );
    let error = if kept { error } else { error.with_kind(Kind::Hop) };
    let error = if error.hop().is_some() { error } else { error.with_hop(index) };
    error.with_phase(Phase::Hop).with_delivery(crate::Delivery::NotSent)
}
