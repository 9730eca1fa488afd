//! Connections to one service: made when needed, made again when lost, chosen between.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use portolan_core::observe::{Probe, Semantics};
use portolan_core::{Connector, Endpoint, Error, Kind, Result, Url, clock};

use crate::PROTOCOL;
use crate::body::Body;
use crate::client::Client;
use crate::policy::ServiceConfig;
use crate::transport::Transport;

mod asked;
mod balance;
mod carrier;
mod health;
mod observed;
mod subchannel;

pub use carrier::{Carrier, Http2};
pub use observed::Observed;

pub(crate) use asked::Asked;
use asked::Read;
use balance::{Balancer, Weights};
use health::Watched;
use subchannel::Way;

/// How a call's connection is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Balancing {
    /// One connection, to the first address that answers; addresses are raced (RFC 8305), and proxies may resolve the name.
    #[default]
    PickFirst,
    /// A connection to each address, in turn.
    RoundRobin,
    /// A connection to each address; of two drawn at random the one with fewer calls in flight.
    LeastRequests,
    /// A connection to each address, in turn by [`ChannelOptions::weights`].
    Weighted,
}

/// How a [`Channel`] behaves.
#[derive(Debug, Clone)]
#[must_use]
pub struct ChannelOptions {
    http2: portolan_http2::Options,
    balancing: Balancing,
    weights: Option<Weights>,
    health: Option<Box<str>>,
    backoff: (Duration, Duration),
    resolve_interval: Duration,
    /// Whether a service config is asked for: by a machine of which name, and who reads it.
    pub(crate) in_dns: Option<(Box<str>, Read)>,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            http2: portolan_http2::Options::new(),
            balancing: Balancing::PickFirst,
            weights: None,
            health: None,
            backoff: (Duration::from_secs(1), Duration::from_secs(120)),
            resolve_interval: Duration::from_secs(30),
            in_dns: None,
        }
    }
}

impl ChannelOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How each connection of HTTP/2 behaves: windows, keepalive, limits. Where the carrier is said, it has options of its own.
    pub fn http2(mut self, options: portolan_http2::Options) -> Self {
        self.http2 = options;
        self
    }

    /// How a call's connection is chosen. Default [`Balancing::PickFirst`].
    pub fn balancing(mut self, balancing: Balancing) -> Self {
        self.balancing = balancing;
        self
    }

    /// Balances by weight: of two addresses one that weighs twice as much gets twice as many calls, and one that weighs nothing
    /// gets none while there are others. It is asked for the weights again with each call, so they may change.
    pub fn weights(mut self, weight: impl Fn(SocketAddr) -> u32 + Send + Sync + 'static) -> Self {
        (self.balancing, self.weights) = (Balancing::Weighted, Some(Weights(Arc::new(weight))));
        self
    }

    /// Watches, on each connection, how `service` is (`grpc.health.v1.Health`; the empty name is the server as a whole), and sends
    /// calls only where it serves (gRFC A17). A server that can't tell counts as one that serves. For balancing among addresses.
    /// Default not.
    pub fn health_service(mut self, service: impl Into<Box<str>>) -> Self {
        self.health = Some(service.into());
        self
    }

    /// Balancing and health as a service config says them. Where it says nothing, what was set stays.
    pub fn service_config(mut self, config: &ServiceConfig) -> Self {
        if let Some(balancing) = config.load_balancing().and_then(Balancing::named) {
            self.balancing = balancing;
        }
        if let Some(service) = config.health_service() {
            self.health = Some(service.into());
        }
        self
    }

    /// How long an address is left alone after it couldn't be connected to: first, and at most. Default 1 s and 120 s, growing by
    /// 1.6. Meanwhile calls fail at once, unless they wait for a connection.
    pub fn backoff(mut self, first: Duration, most: Duration) -> Self {
        self.backoff = (first, most.max(first));
        self
    }

    /// How often at most the name is resolved anew, which is done when a connection was lost or not made. Default 30 s. For
    /// balancing among addresses.
    pub fn resolve_interval(mut self, interval: Duration) -> Self {
        self.resolve_interval = interval;
        self
    }
}

impl Balancing {
    /// By the name that service configs have for it.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "pick_first" => Some(Self::PickFirst),
            "round_robin" => Some(Self::RoundRobin),
            "least_request_experimental" => Some(Self::LeastRequests),
            _ => None,
        }
    }
}

/// Connections to one service, as a [`Transport`]: of HTTP/2, or of what its [`Carrier`] makes. Clones share them; with the last
/// clone and the last call they end.
///
/// A connection that is lost, or that the server is draining, is replaced when the next call comes.
pub struct Channel<K: Carrier = Http2> {
    inner: Arc<Inner<K>>,
}

impl<K: Carrier> Clone for Channel<K> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

struct Inner<K: Carrier> {
    url: Box<str>,
    balancer: Balancer<K>,
    probe: Probe,
    asked: Option<Arc<Asked>>,
}

impl Channel {
    /// Connects to `http://host:port` (HTTP/2 by prior knowledge), `https://host:port` (ALPN must give `h2`) or
    /// `unix:///path`, and fails if that fails.
    pub async fn connect(connector: &Connector, url: &str) -> Result<Self> {
        Self::connect_with(connector, url, ChannelOptions::new()).await
    }

    /// The same with options.
    pub async fn connect_with(connector: &Connector, url: &str, options: ChannelOptions) -> Result<Self> {
        let carrier = Http2::new(options.http2.clone());
        Self::connect_over(carrier, connector, url, options).await
    }

    /// A channel that connects when the first call comes.
    pub fn lazy(connector: &Connector, url: &str, options: ChannelOptions) -> Result<Self> {
        let carrier = Http2::new(options.http2.clone());
        Self::lazy_over(carrier, connector, url, options)
    }
}

impl<K: Carrier> Channel<K> {
    /// Connects by what `carrier` makes, and fails if that fails.
    pub async fn connect_over(carrier: K, connector: &Connector, url: &str, options: ChannelOptions) -> Result<Self> {
        let channel = Self::lazy_over(carrier, connector, url, options)?;
        channel.inner.balancer.pick().await?;
        Ok(channel)
    }

    /// A channel that connects by what `carrier` makes, when the first call comes.
    pub fn lazy_over(carrier: K, connector: &Connector, url: &str, options: ChannelOptions) -> Result<Self> {
        let parsed = Url::parse(url)?;
        let (tls, port) = match parsed.scheme() {
            "http" => (false, 80),
            "https" => (true, 443),
            "unix" => (false, 0),
            _ => return Err(Error::usage("a channel leads to http://, https:// or unix://").with_protocol(PROTOCOL)),
        };
        let endpoint: Endpoint = parsed.endpoint(port)?;
        let balanced = options.balancing != Balancing::PickFirst;
        let health = options.health.clone().filter(|_| balanced);
        let probe = Probe::new(PROTOCOL, Semantics::Rpc, &endpoint, connector);
        let way = Way {
            connector: connector.clone(),
            carrier,
            backoff: options.backoff,
            name: tls.then(|| endpoint.host_text().into()),
            health: health.map(|service| Watched::new(origin(url), &service)),
        };
        let asked = options.in_dns.clone().zip(endpoint.name()).map(|(in_dns, host)| {
            Arc::new(Asked::new(connector.resolver().clone(), host, in_dns, options.resolve_interval))
        });
        let balancer = Balancer::new(way, endpoint, &options);
        Ok(Self { inner: Arc::new(Inner { url: url.into(), balancer, probe, asked }) })
    }

    /// A connection that takes calls, made if there is none.
    async fn connected(&self, wait: bool) -> Result<K::Connection> {
        loop {
            let error = match self.inner.balancer.pick().await {
                Ok(handle) => return Ok(handle),
                Err(error) => error,
            };
            let hopeless = matches!(error.kind(), Kind::Usage | Kind::Blocked | Kind::Unsupported | Kind::Auth);
            if !wait || hopeless {
                return Err(error);
            }
            clock::sleep_until(self.inner.balancer.next_try()).await;
        }
    }

    pub(crate) fn origin(&self) -> &str {
        origin(&self.inner.url)
    }

    /// How many connections take calls now.
    pub fn connections(&self) -> usize {
        self.inner.balancer.connections()
    }
}

/// A socket in the file system has no authority; the others of gRPC say this.
fn origin(url: &str) -> &str {
    if url.starts_with("unix:") { "http://localhost" } else { url }
}

impl<K: Carrier> Transport for Channel<K> {
    type Body = Observed<<K::Connection as Transport>::Body>;

    async fn send(&self, request: Request<Body>) -> Result<Response<Self::Body>> {
        let Some(probe) = self.inner.probe.told() else { return self.forward(request).await.map(Observed::by_nobody) };
        let path = request.uri().path().to_owned();
        let (response, flight) = probe.operation(&path).begin(self.forward(request)).await?;
        Ok(Observed::new(response, flight))
    }
}

impl<K: Carrier> Channel<K> {
    async fn forward(&self, request: Request<Body>) -> Result<Response<<K::Connection as Transport>::Body>> {
        let handle = match self.inner.balancer.ready() {
            Some(handle) => handle,
            // Rare, and large.
            None => {
                self.inner.asked.iter().for_each(|asked| asked.expire());
                Box::pin(self.connected(request.body().wait_for_ready())).await?
            }
        };
        handle.send(request).await
    }
}

impl Client<Channel> {
    /// A client over a [`Channel`] of its own: see [`Channel::connect`].
    pub async fn connect(connector: &Connector, url: &str) -> Result<Self> {
        Self::from_channel(Channel::connect(connector, url).await?)
    }
}

impl<K: Carrier> Client<Channel<K>> {
    /// A client over a channel, whose URL is the origin.
    pub fn from_channel(channel: Channel<K>) -> Result<Self> {
        let (origin, asked) = (channel.origin().to_owned(), channel.inner.asked.clone());
        Ok(Self::new(channel, &origin)?.asking(asked))
    }
}

impl<K: Carrier> fmt::Debug for Channel<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("url", &self.inner.url).finish_non_exhaustive()
    }
}
