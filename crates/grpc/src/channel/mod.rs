//! Connections to one service: made when needed, made again when lost, chosen between.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use portolan_core::observe::{Probe, Semantics};
use portolan_core::{Connector, Endpoint, Error, Kind, Result, Url, clock};
use portolan_http2::{RecvBody, SendRequest};

use crate::PROTOCOL;
use crate::body::Body;
use crate::client::Client;
use crate::transport::Transport;

mod balance;
mod subchannel;

use balance::Balancer;
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
}

/// How a [`Channel`] behaves.
#[derive(Debug, Clone)]
#[must_use]
pub struct ChannelOptions {
    http2: portolan_http2::Options,
    balancing: Balancing,
    backoff: (Duration, Duration),
    resolve_interval: Duration,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            http2: portolan_http2::Options::new(),
            balancing: Balancing::PickFirst,
            backoff: (Duration::from_secs(1), Duration::from_secs(120)),
            resolve_interval: Duration::from_secs(30),
        }
    }
}

impl ChannelOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How each connection behaves: windows, keepalive, limits.
    pub fn http2(mut self, options: portolan_http2::Options) -> Self {
        self.http2 = options;
        self
    }

    /// How a call's connection is chosen. Default [`Balancing::PickFirst`].
    pub fn balancing(mut self, balancing: Balancing) -> Self {
        self.balancing = balancing;
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

/// Connections of HTTP/2 to one service, as a [`Transport`]. Clones share them; with the last clone and the last call they end.
///
/// A connection that is lost, or that the server is draining, is replaced when the next call comes.
#[derive(Clone)]
pub struct Channel {
    inner: Arc<Inner>,
}

struct Inner {
    url: Box<str>,
    balancer: Balancer,
    probe: Probe,
}

impl Channel {
    /// Connects to `http://host:port` (HTTP/2 by prior knowledge), `https://host:port` (ALPN must give `h2`) or
    /// `unix:///path`, and fails if that fails.
    pub async fn connect(connector: &Connector, url: &str) -> Result<Self> {
        Self::connect_with(connector, url, ChannelOptions::new()).await
    }

    /// The same with options.
    pub async fn connect_with(connector: &Connector, url: &str, options: ChannelOptions) -> Result<Self> {
        let channel = Self::lazy(connector, url, options)?;
        channel.inner.balancer.pick().await?;
        Ok(channel)
    }

    /// A channel that connects when the first call comes.
    pub fn lazy(connector: &Connector, url: &str, options: ChannelOptions) -> Result<Self> {
        let parsed = Url::parse(url)?;
        let (tls, port) = match parsed.scheme() {
            "http" => (false, 80),
            "https" => (true, 443),
            "unix" => (false, 0),
            _ => return Err(Error::usage("a channel leads to http://, https:// or unix://").with_protocol(PROTOCOL)),
        };
        let endpoint: Endpoint = parsed.endpoint(port)?;
        let way = Way { connector: connector.clone(), tls, http2: options.http2, backoff: options.backoff };
        let probe = Probe::new(PROTOCOL, Semantics::Rpc, &endpoint, connector);
        let balancer = Balancer::new(way, endpoint, options.balancing, options.resolve_interval);
        Ok(Self { inner: Arc::new(Inner { url: url.into(), balancer, probe }) })
    }

    /// A connection that takes calls, made if there is none.
    async fn connected(&self, wait: bool) -> Result<SendRequest> {
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
        // A socket in the file system has no authority; the others of gRPC say this.
        if self.inner.url.starts_with("unix:") { "http://localhost" } else { &self.inner.url }
    }

    /// How many connections take calls now.
    pub fn connections(&self) -> usize {
        self.inner.balancer.connections()
    }
}

impl Transport for Channel {
    type Body = RecvBody;

    async fn send(&self, request: Request<Body>) -> Result<Response<RecvBody>> {
        let Some(probe) = self.inner.probe.told() else { return self.forward(request).await };
        let path = request.uri().path().to_owned();
        probe.operation(&path).run(self.forward(request)).await
    }
}

impl Channel {
    async fn forward(&self, request: Request<Body>) -> Result<Response<RecvBody>> {
        let handle = match self.inner.balancer.ready() {
            Some(handle) => handle,
            // Rare, and large.
            None => Box::pin(self.connected(request.body().wait_for_ready())).await?,
        };
        handle.send(request).await
    }
}

impl Client<Channel> {
    /// A client over a [`Channel`] of its own: see [`Channel::connect`].
    pub async fn connect(connector: &Connector, url: &str) -> Result<Self> {
        Self::from_channel(Channel::connect(connector, url).await?)
    }

    /// A client over a channel, whose URL is the origin.
    pub fn from_channel(channel: Channel) -> Result<Self> {
        let origin = channel.origin().to_owned();
        Self::new(channel, &origin)
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("url", &self.inner.url).finish_non_exhaustive()
    }
}
