//! Connections to one service: made when needed, made again when lost, chosen between.

use std::fmt;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use portolan_core::observe::{Probe, Semantics};
use portolan_core::{Connector, Error, Result, Url, clock};

use crate::PROTOCOL;
use crate::body::Body;
use crate::client::Client;
use crate::transport::Transport;

mod asked;
mod balance;
mod carrier;
mod health;
mod idle;
mod inner;
mod observed;
mod options;
mod subchannel;

pub use carrier::{Carrier, Http2};
pub use observed::Observed;
pub use options::{Balancing, ChannelOptions};

pub(crate) use asked::Asked;
use idle::Usage;
use inner::Inner;

/// Connections to one service, as a [`Transport`]: of HTTP/2, or of what its [`Carrier`] makes. Clones share them; with the last
/// clone and the last call they end.
///
/// A connection that is lost, or that the server is draining, is replaced when the next call comes. Where no call comes for half an
/// hour ([`ChannelOptions::idle_timeout`]) they end, and the next one connects anew.
pub struct Channel<K: Carrier = Http2> {
    inner: Arc<Inner<K>>,
}

impl<K: Carrier> Clone for Channel<K> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

/// How a channel stands, as gRPC reckons it (`doc/connectivity-semantics-and-api.md` of the gRPC project).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Connectivity {
    /// There is no connection, and none is being made: the next call connects.
    Idle,
    /// A connection is being made, or a name resolved, or it is not known yet whether the service is healthy.
    Connecting,
    /// There is a connection that takes calls.
    Ready,
    /// No connection could be made, and none is tried for a while: calls fail, unless they wait.
    TransientFailure,
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
        let _in_use = channel.inner.begin();
        channel.inner.ask().await;
        channel.inner.connected(false).await?;
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
        let endpoint = parsed.endpoint(port)?;
        let probe = Probe::new(PROTOCOL, Semantics::Rpc, &endpoint, connector);
        let asked = options.in_dns.clone().zip(endpoint.name()).map(|(in_dns, host)| {
            Arc::new(Asked::new(connector.resolver().clone(), host, in_dns, options.resolve_interval))
        });
        // A time that no clock reaches is none.
        let idle = options.idle.filter(|limit| clock::now().checked_add(*limit).is_some());
        let inner = Inner {
            url: url.into(),
            probe,
            asked,
            endpoint,
            connector: connector.clone(),
            carrier: Arc::new(carrier),
            tls,
            options,
            usage: idle.map(|limit| Arc::new(Usage::new(limit))),
            now: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(crate) fn origin(&self) -> &str {
        origin(&self.inner.url)
    }

    /// How the channel stands.
    pub fn connectivity(&self) -> Connectivity {
        self.inner.connectivity()
    }

    /// How many connections take calls now.
    pub fn connections(&self) -> usize {
        self.inner.connections()
    }
}

/// A socket in the file system has no authority; the others of gRPC say this.
fn origin(url: &str) -> &str {
    if url.starts_with("unix:") { "http://localhost" } else { url }
}

impl<K: Carrier> Transport for Channel<K> {
    type Body = Observed<<K::Connection as Transport>::Body>;

    async fn send(&self, request: Request<Body>) -> Result<Response<Self::Body>> {
        let in_use = self.inner.begin();
        let Some(probe) = self.inner.probe.told() else {
            return self.forward(request).await.map(|response| Observed::by_nobody(response, in_use));
        };
        let path = request.uri().path().to_owned();
        let (response, flight) = probe.operation(&path).begin(self.forward(request)).await?;
        Ok(Observed::new(response, flight, in_use))
    }
}

impl<K: Carrier> Channel<K> {
    async fn forward(&self, request: Request<Body>) -> Result<Response<<K::Connection as Transport>::Body>> {
        let handle = match self.inner.balancer().ready() {
            Some(handle) => handle,
            // Rare, and large.
            None => Box::pin(self.connected(request.body().wait_for_ready())).await?,
        };
        handle.send(request).await
    }

    /// Connects anew, and asks anew how that is to be done.
    async fn connected(&self, wait: bool) -> Result<K::Connection> {
        self.inner.ask().await;
        self.inner.connected(wait).await
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
