//! The connector: how a peer is reached, said once.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{self, Instant};
use crate::datagram::Datagram;
use crate::dial::{Dial, DialContext, Direct, Place, Settings};
use crate::endpoint::{Endpoint, Host};
use crate::error::{Error, Kind, Phase, Result};
use crate::happy::HappyOptions;
use crate::hop::{Hop, HopSchemes, ProxyHeader, Route, Routes, headed};
use crate::info::ConnectionInfo;
use crate::listener::Listener;
use crate::observe::{Observer, Observers};
use crate::policy::Policy;
use crate::raw::{IpProtocol, IpVersion, RawSocket};
use crate::resolve::{ResolveFailure, Resolver, failed};
use crate::sockopt::{Bind, TcpOptions};
use crate::stream::Stream;
use crate::timeouts::Timeouts;
use crate::tls::Tls;

/// How long a chain whose proxies could not be reached is tried after the others of its list.
const REST: Duration = Duration::from_secs(30);

/// Reaches peers: cheap to clone, and `Connector::default()` just works.
///
/// ```no_run
/// # async fn run() -> portolan_core::Result<()> {
/// use portolan_core::{Connector, Endpoint, Hop, Policy};
///
/// let net = Connector::builder()
///     .policy(Policy::public_only())
///     .via(Hop::parse("socks5h://user:pw@proxy.example:1080")?)
///     .build()?;
/// let stream = net.connect_tls(&Endpoint::new("example.org", 443)?, &[b"http/1.1"]).await?;
/// println!("{:?}", stream.info().timings);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Connector(Arc<Inner>);

struct Inner {
    settings: Arc<Settings>,
    routes: Routes,
    chains: Vec<(Route, Vec<Chain>)>,
    fallback: Vec<Chain>,
}

/// One way out: its hops, and the layers made of them.
struct Chain {
    dial: Arc<dyn Dial>,
    hops: usize,
    /// Whether its last hop takes plain HTTP in absolute form.
    forwards: bool,
    /// When a proxy of it could not be reached.
    failed: Mutex<Option<Instant>>,
}

impl Chain {
    fn failed(&self) -> MutexGuard<'_, Option<Instant>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rests(&self) -> bool {
        self.failed().is_some_and(|at| clock::now().saturating_duration_since(at) < REST)
    }

    /// Keeps whether its proxies are there, so far as a result says it: a refusal comes from a proxy that is.
    fn learn<T>(&self, result: &Result<T>) {
        let lost = |error: &Error| {
            error.hop().is_some() && matches!(error.phase(), Some(Phase::Resolve | Phase::Connect | Phase::Tls))
        };
        *self.failed() = result.as_ref().err().filter(|error| lost(error)).map(|_| clock::now());
    }
}

impl Connector {
    /// A connector that goes the way of a text: `socks5h://user:password@host:1080 -> http://proxy:3128`, the nearest proxy
    /// first; see [`HopSchemes::ways`].
    ///
    /// ```
    /// use portolan_core::Connector;
    ///
    /// let net = Connector::parse("socks5h://joe:sesame@near.example -> http://far.example:3128 | direct")?;
    /// assert!(!format!("{net:?}").contains("sesame"));
    /// # Ok::<(), portolan_core::Error>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self> {
        Self::builder().via_text(text, &HopSchemes::default())?.build()
    }

    /// A connector to be said piece by piece.
    pub fn builder() -> ConnectorBuilder {
        ConnectorBuilder::default()
    }

    /// The same settings, to be changed: what a single call with its own proxy or deadline starts from.
    pub fn to_builder(&self) -> ConnectorBuilder {
        ConnectorBuilder { settings: (*self.0.settings).clone(), routes: self.0.routes.clone() }
    }

    /// A plain stream to `to`, through whatever hops its route has. Dropping the future closes what was opened.
    pub async fn connect(&self, to: &Endpoint) -> Result<Stream> {
        let cx = self.context(to);
        cx.told(self.bounded(Box::pin(self.stream(to, &cx)))).await
    }

    /// A stream for requests of plain HTTP to `to`: to the target itself, or to the HTTP proxy that ends its route, which wants
    /// them in absolute form and says so by [`Stream::forwards`].
    pub async fn connect_http(&self, to: &Endpoint) -> Result<Stream> {
        let cx = self.context(to);
        let cx = if self.forwards(to)?.is_some() { cx.of_plain_http() } else { cx };
        cx.told(self.bounded(Box::pin(self.stream(to, &cx)))).await
    }

    /// Which route's proxies forward plain HTTP to `to`, if they do: whatever goes by the same route may share a connection of
    /// [`connect_http`](Self::connect_http).
    ///
    /// They do if every chain of the route ends in an HTTP proxy. A policy must see the address connected to, which a proxy that
    /// forwards keeps to itself: then a tunnel to a checked address is asked for, unless hops are trusted to resolve.
    pub fn forwards(&self, to: &Endpoint) -> Result<Option<usize>> {
        let settings = &self.0.settings;
        let route = self.0.chains.iter().position(|(route, _)| route.matches(to));
        if self.chains(to).iter().any(|chain| !chain.forwards) {
            return Ok(None);
        }
        match to.host() {
            Host::Unix(_) => return Ok(None),
            Host::Name(_) if !settings.policy.is_any() && !settings.trust_hops => return Ok(None),
            Host::Name(name) => settings.policy.check_name(name, to.port())?,
            Host::Ip(..) => to.socket_addr().map_or(Ok(()), |addr| settings.policy.check(addr))?,
        }
        Ok(Some(route.unwrap_or(self.0.chains.len())))
    }

    /// Whether `to` is reached without any hop, and its name resolved here.
    pub fn is_direct(&self, to: &Endpoint) -> bool {
        self.chains(to).iter().all(|chain| chain.hops == 0)
    }

    /// A TLS stream to `to`, whose certificate must be for that host. An empty `alpn` offers the list of the [`Tls`].
    pub async fn connect_tls(&self, to: &Endpoint, alpn: &[&[u8]]) -> Result<Stream> {
        self.connect_tls_as(to, &to.host_text(), alpn).await
    }

    /// A TLS stream to `to`, whose certificate must be for `name`: where the address and the name differ.
    pub async fn connect_tls_as(&self, to: &Endpoint, name: &str, alpn: &[&[u8]]) -> Result<Stream> {
        let cx = self.context(to);
        let settings = &self.0.settings;
        let work = async {
            let stream = self.stream(to, &cx).await?;
            let alpn = (!alpn.is_empty()).then_some(alpn);
            stream.start_tls_with(name, &settings.tls, alpn, settings.timeouts.tls_limit()).await
        };
        cx.told(self.bounded(Box::pin(work))).await
    }

    /// A whole call, within its deadline. Nothing of the protocol's was sent in it. The work comes boxed: it is large, and every
    /// caller's future would carry it.
    async fn bounded<T>(&self, work: Pin<Box<impl Future<Output = Result<T>>>>) -> Result<T> {
        let result = clock::within(self.0.settings.timeouts.total_limit(), Phase::Total, work).await;
        result.map_err(|error| match error.phase() {
            Some(Phase::Total) if error.is_timeout() => error.with_delivery(crate::Delivery::NotSent),
            _ => error,
        })
    }

    /// A plain stream to a service of a domain, `_service._proto.domain`: its SRV records are asked for, and its servers tried in
    /// their order (RFC 2782), each under the policy and through its route. The error is that of the last one tried.
    ///
    /// For TLS, or to do more than connecting before the next is tried, ask [`Resolver::servers`] and connect to each.
    pub async fn connect_service(&self, name: &str) -> Result<Stream> {
        let mut last = None;
        for to in self.resolver().servers(name).await? {
            match self.connect(&to).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| failed(name, ResolveFailure::NoSuchName)))
    }

    async fn stream(&self, to: &Endpoint, cx: &DialContext) -> Result<Stream> {
        let settings = &self.0.settings;
        let mut last = None;
        for chain in self.in_turn(to) {
            cx.restart();
            let made = chain.dial.dial(to, cx).await;
            chain.learn(&made);
            match made {
                Ok(mut stream) => {
                    cx.finish(stream.info_mut());
                    let stream = stream.counted(cx.traffic().map(Box::new));
                    return Ok(stream.with_tls(settings.tls.clone(), settings.timeouts.tls_limit()));
                }
                Err(error) if chain.hops > 0 && moves_on(&error) => {
                    tracing::debug!(%error, "chain failed");
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::usage("a route without a chain")))
    }

    /// Datagrams to `to` alone: UDP, or UDP through the hops of its route.
    pub async fn datagram(&self, to: &Endpoint) -> Result<Datagram> {
        let cx = self.context(to);
        let work = async {
            let mut last = None;
            for chain in self.in_turn(to) {
                cx.restart();
                let made = chain.dial.datagram(to, &cx).await;
                chain.learn(&made);
                match made {
                    Ok(mut datagram) => {
                        cx.finish(datagram.info_mut());
                        return Ok(datagram.counted(cx.traffic().map(Arc::new)));
                    }
                    Err(error) if chain.hops > 0 && moves_on(&error) => last = Some(error),
                    Err(error) => return Err(error),
                }
            }
            Err(last.unwrap_or_else(|| Error::usage("a route without a chain")))
        };
        cx.told(self.bounded(Box::pin(work))).await
    }

    /// Datagrams over which `handshake` gets through to `to`, with what is known about the way. Without a hop the addresses of a
    /// name are raced as [`connect`](Self::connect) does (RFC 8305): a handshake over one has a little time to itself, then the next
    /// begins as well, and the first to succeed wins. Otherwise it is one handshake over [`datagram`](Self::datagram).
    ///
    /// Dropping the future drops all that is under way, as a win drops the others.
    pub async fn datagram_raced<T, F, Fut>(&self, to: &Endpoint, handshake: F) -> Result<(T, ConnectionInfo)>
    where
        F: Fn(Datagram) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let settings = &self.0.settings;
        let own = settings.dial.is_none() && settings.proxy_header.is_none() && self.is_direct(to);
        let Some(name) = to.name().filter(|_| own) else {
            let datagram = self.datagram(to).await?;
            let info = datagram.info().clone();
            return Ok((handshake(datagram).await?, info));
        };
        let cx = self.context(to);
        let traffic = cx.traffic().map(|traffic| Arc::new(traffic.contended()));
        let work = Box::pin(async {
            let raced = Direct::new(true).datagrams(name, to.port(), &cx, traffic.as_ref(), handshake);
            let (value, mut info) = raced.await?;
            cx.finish(&mut info);
            Ok((value, info))
        });
        let made = cx.told(self.bounded(work)).await?;
        if let Some(traffic) = traffic {
            traffic.won();
        }
        Ok(made)
    }

    /// A UDP socket of this machine that sends to anyone and hears everyone: for multicast, broadcast and discovery.
    /// Hops do not apply; the addresses sent to are not checked by the policy, so check them with [`policy`](Self::policy).
    pub fn datagram_bound(&self, local: SocketAddr, reuse: bool) -> Result<Datagram> {
        Datagram::unconnected(local, &self.0.settings.bind, reuse).map_err(|error| Error::io(Phase::Setup, error))
    }

    /// Listens, for protocols in which the server calls back.
    pub async fn listen(&self, local: SocketAddr) -> Result<Listener> {
        Listener::bind(local, &self.0.settings.bind, &self.0.settings.tcp).await
    }

    /// A raw IP socket, or an unprivileged ICMP one where the kernel has those.
    pub fn raw(&self, protocol: IpProtocol, version: IpVersion) -> Result<RawSocket> {
        RawSocket::open(protocol, version, &self.0.settings.bind)
    }

    /// The addresses of `to` that the policy allows, by the connector's own resolver: for protocols that look at addresses.
    pub async fn resolve(&self, to: &Endpoint) -> Result<Vec<SocketAddr>> {
        let cx = self.context(to);
        cx.resolve(to, true).await.map_err(|error| cx.fail(error))
    }

    /// The bounds of every phase.
    pub fn timeouts(&self) -> &Timeouts {
        &self.0.settings.timeouts
    }

    /// How TLS is spoken.
    pub fn tls(&self) -> &Tls {
        &self.0.settings.tls
    }

    /// Which addresses are allowed.
    pub fn policy(&self) -> &Policy {
        &self.0.settings.policy
    }

    /// The resolver, with its cache.
    pub fn resolver(&self) -> &Resolver {
        &self.0.settings.resolver
    }

    /// Whether both are the same connector: connections made by one may serve the other.
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Who is told what happens: for the protocols that have something to tell.
    pub fn observers(&self) -> &Observers {
        &self.0.settings.observers
    }

    fn context(&self, to: &Endpoint) -> DialContext {
        DialContext::new(self.0.settings.clone(), to.clone())
    }

    /// The chains to `to` as they are to be tried: those that could not be reached of late come last.
    fn in_turn(&self, to: &Endpoint) -> impl Iterator<Item = &Chain> {
        let (rested, ready): (Vec<_>, Vec<_>) = self.chains(to).iter().partition(|chain| chain.rests());
        ready.into_iter().chain(rested)
    }

    fn chains(&self, to: &Endpoint) -> &[Chain] {
        let routed = self.0.chains.iter().find(|(route, _)| route.matches(to));
        routed.map_or(&self.0.fallback, |(_, chains)| chains)
    }
}

/// Whether the next chain of a failover list may do better: the way failed, not the target or the caller.
fn moves_on(error: &Error) -> bool {
    matches!(error.kind(), Kind::Hop | Kind::Connect | Kind::Resolve | Kind::Timeout | Kind::Tls)
        || (error.kind() == Kind::Auth && error.phase() == Some(Phase::Hop))
}

impl Default for Connector {
    fn default() -> Self {
        let settings = Arc::new(Settings::default());
        let fallback = vec![chain(&[], None)];
        Self(Arc::new(Inner { settings, routes: Routes::default(), chains: Vec::new(), fallback }))
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = &self.0.settings;
        f.debug_struct("Connector")
            .field("routes", &self.0.routes)
            .field("policy", &settings.policy)
            .field("timeouts", &settings.timeouts)
            .field("bind", &settings.bind)
            .finish_non_exhaustive()
    }
}

fn chain(hops: &[Hop], header: Option<&ProxyHeader>) -> Chain {
    let mut dial: Arc<dyn Dial> = Arc::new(Direct::new(hops.is_empty()));
    for (index, hop) in hops.iter().enumerate() {
        dial = hop.layer(Place::new(index, index + 1 == hops.len()), dial);
    }
    // Whoever leaves requests to the last proxy has no connection of its own to say who it is on.
    let forwards = header.is_none() && hops.last().is_some_and(Hop::forwards);
    Chain { dial: headed(header, dial), hops: hops.len(), forwards, failed: Mutex::default() }
}

/// Builds a [`Connector`].
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct ConnectorBuilder {
    settings: Settings,
    routes: Routes,
}

impl ConnectorBuilder {
    /// Which addresses of targets are allowed. Default any.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.settings.policy = policy;
        self
    }

    /// Which addresses of proxies are allowed. Default any: proxies are named by the operator, targets often by a user.
    pub fn hop_policy(mut self, policy: Policy) -> Self {
        self.settings.hop_policy = policy;
        self
    }

    /// Lets proxies that can resolve names do so even under a policy. The policy then sees names only: whether a name leads
    /// to a forbidden address is left to the proxy. Default off: names are resolved and checked here, and sent as addresses.
    pub fn trust_hop_resolution(mut self, on: bool) -> Self {
        self.settings.trust_hops = on;
        self
    }

    /// Goes through this proxy; repeat for a chain, the nearest first.
    pub fn via(mut self, hop: Hop) -> Self {
        self.routes.push_hop(hop);
        self
    }

    /// Forgets all hops and routes said so far: what a copy of another connector's settings starts from.
    pub fn without_hops(mut self) -> Self {
        self.routes = Routes::default();
        self
    }

    /// A chain to try when the ones before it fail. One whose proxies could not be reached is tried after the others for half a minute.
    pub fn or_via(mut self, hops: impl IntoIterator<Item = Hop>) -> Self {
        self.routes.push_chain(hops.into_iter().collect());
        self
    }

    /// A way of its own for some destinations. The first route that matches is taken; the others go by [`via`](Self::via).
    pub fn route(mut self, route: Route) -> Self {
        self.routes.push_route(route);
        self
    }

    /// Goes the way of a text: chains as [`HopSchemes::ways`] reads them, each tried when those said before it fail.
    pub fn via_text(mut self, text: &str, schemes: &HopSchemes) -> Result<Self> {
        schemes.ways(text)?.into_iter().for_each(|chain| self.routes.push_chain(chain));
        Ok(self)
    }

    /// Takes the proxies of the environment: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and that of any other scheme
    /// (`REDIS_PROXY`), `NO_PROXY`, in either case. Each is a way as [`HopSchemes::ways`] reads it; without a scheme, an HTTP proxy.
    pub fn proxy_from_env(self) -> Result<Self> {
        self.proxy_from_env_with(&HopSchemes::default())
    }

    /// The same with hops of other crates.
    pub fn proxy_from_env_with(mut self, schemes: &HopSchemes) -> Result<Self> {
        for route in crate::hop::env::routes(schemes)? {
            self.routes.push_route(route);
        }
        Ok(self)
    }

    /// Takes the proxies of the environment where it names any, and otherwise those of the desktop's settings: GNOME's (by `gsettings`),
    /// KDE's, those of macOS (by `scutil`) and of Windows (by `reg`), as they are now. Reading them may take a program, so this blocks for
    /// as long, 5 s at most.
    ///
    /// What is set and can't be followed (a PAC script), and settings that can't be read because there is no desktop, are errors of
    /// [`Kind::Unsupported`](crate::Kind::Unsupported): whether to go directly then is the caller's to say.
    pub fn proxy_from_system(self) -> Result<Self> {
        self.proxy_from_system_with(&HopSchemes::default())
    }

    /// The same with hops of other crates.
    pub fn proxy_from_system_with(mut self, schemes: &HopSchemes) -> Result<Self> {
        for route in crate::hop::desktop::routes(schemes)? {
            self.routes.push_route(route);
        }
        Ok(self)
    }

    /// What targets are told of the client ahead of all else, TLS too: for servers that expect the PROXY protocol. A server that
    /// doesn't takes it for garbage.
    pub fn proxy_header(mut self, header: ProxyHeader) -> Self {
        self.settings.proxy_header = Some(header);
        self
    }

    /// How TLS is spoken with targets.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.settings.tls = tls;
        self
    }

    /// How TLS is spoken with proxies. Default: the platform's roots and no client certificate.
    pub fn hop_tls(mut self, tls: Tls) -> Self {
        self.settings.hop_tls = tls;
        self
    }

    /// Who resolves names.
    pub fn resolver(mut self, resolver: Resolver) -> Self {
        self.settings.resolver = resolver;
        self
    }

    /// Takes these addresses for `name`, whatever the resolver says; the policy sees them all the same. A proxy that would resolve
    /// the name is sent an address instead, unless [hops are trusted to resolve](Self::trust_hop_resolution).
    pub fn resolve(mut self, name: &str, addrs: impl IntoIterator<Item = std::net::IpAddr>) -> Self {
        self.settings.resolver = self.settings.resolver.with_override(name, addrs);
        self
    }

    /// Where sockets come from: an address, an interface, a source port.
    pub fn bind(mut self, bind: impl Into<Bind>) -> Self {
        self.settings.bind = bind.into();
        // Which family wins may differ from there.
        self.settings.winners = Arc::default();
        self
    }

    /// The bounds of every phase.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.settings.timeouts = timeouts;
        self
    }

    /// How TCP sockets behave.
    pub fn tcp(mut self, options: TcpOptions) -> Self {
        self.settings.tcp = options;
        self
    }

    /// How addresses are raced (RFC 8305).
    pub fn happy_eyeballs(mut self, options: HappyOptions) -> Self {
        self.settings.happy = options;
        self
    }

    /// Opens everything by this, in place of sockets of this machine: a pipe within the process, a recorded conversation. Hops and
    /// routes don't apply; it resolves and checks addresses by itself ([`DialContext::resolve`]), if it has any.
    pub fn dial(mut self, dial: impl Dial) -> Self {
        self.settings.dial = Some(Arc::new(dial));
        self
    }

    /// Tells this observer what happens on the connections made; repeat for further ones.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.settings.observers.push(observer);
        self
    }

    /// Checks it all.
    pub fn build(self) -> Result<Connector> {
        let Self { settings, routes } = self;
        let header = settings.proxy_header.as_ref();
        header.map_or(Ok(()), ProxyHeader::check)?;
        routes.hops().try_for_each(Hop::check)?;
        let own = settings.dial.clone();
        let chains = |chains: &[Vec<Hop>]| -> Vec<Chain> {
            if let Some(dial) = &own {
                vec![Chain { dial: dial.clone(), hops: 0, forwards: false, failed: Mutex::default() }]
            } else if chains.is_empty() {
                vec![chain(&[], header)]
            } else {
                chains.iter().map(|hops| chain(hops, header)).collect()
            }
        };
        let routed = routes.routes().iter().map(|route| (route.clone(), chains(route.chains()))).collect();
        let fallback = chains(routes.fallback());
        Ok(Connector(Arc::new(Inner { settings: Arc::new(settings), chains: routed, fallback, routes })))
    }
}
