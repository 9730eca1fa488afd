//! How a client is put together.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use portolan_core::{Connector, ConnectorBuilder, Error, Hop, Limit, Policy, Resolver, Result, Timeouts, Tls};
use portolan_http1 as h1;
use portolan_http2 as h2;
use portolan_http3 as h3;
use portolan_pool::{Budget, Pool, PoolOptions, Retry};

use crate::alt_svc::AltSvcCache;
use crate::cache::Cache;
use crate::client::{Client, Settings};
use crate::coalesce::Coalescing;
use crate::connection::Manager;
use crate::cookie::CookieStore;
use crate::decode::{self, DecodeOptions};
use crate::hsts::Hsts;
use crate::middleware::{Layer, Middleware};
use crate::redirect::Redirect;
use crate::sign::{By, Sign};
use crate::version::Version;

/// The longest body that is gathered into memory, unless more is allowed.
pub(crate) const MAX_BODY: usize = 256 << 20;
/// Requests in flight on one HTTP/2 connection: what RFC 9113 6.5.2 asks servers to allow at least.
const STREAMS: usize = 100;
/// What a QUIC handshake takes on all but the worst of ways.
const HEAD_START: Duration = Duration::from_millis(300);
/// Repetitions in a row before a client stops repeating.
const BUDGET: u32 = 100;

/// Builds a [`Client`].
#[must_use]
pub struct ClientBuilder {
    connector: Option<Connector>,
    changes: Vec<Change>,
    connect_timeout: Option<Limit>,
    pool: PoolOptions,
    h1: h1::Options,
    h2: h2::Options,
    h3: h3::Options,
    streams: usize,
    coalescing: bool,
    following: Option<Duration>,
    layers: Vec<Arc<dyn Layer>>,
    settings: Settings,
}

/// What is changed of the connector.
type Change = Box<dyn FnOnce(ConnectorBuilder) -> Result<ConnectorBuilder> + Send>;

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            connector: None,
            changes: Vec::new(),
            connect_timeout: None,
            pool: PoolOptions::default(),
            h1: h1::Options::new(),
            h2: h2::Options::new(),
            h3: h3::Options::new(),
            streams: STREAMS,
            coalescing: true,
            following: None,
            layers: Vec::new(),
            settings: Settings {
                version: Version::Auto,
                timeouts: Timeouts::default(),
                redirect: Redirect::default(),
                retry: Retry::new().retry_after_cap(Duration::from_secs(10)).budget(Budget::new(BUDGET)),
                keepalive: None,
                headers: HeaderMap::new(),
                cookies: None,
                hsts: None,
                alt_svc: Some(AltSvcCache::new()),
                https_records: true,
                head_start: HEAD_START,
                decode: decode::accept_encoding().map(|value| (value, DecodeOptions::default())),
                https_only: false,
                referer: false,
                max_body: MAX_BODY,
                signer: None,
            },
        }
    }
}

impl ClientBuilder {
    /// The way to every server: proxies, TLS, policy, resolver, bounds of connecting.
    pub fn connector(mut self, connector: Connector) -> Self {
        self.connector = Some(connector);
        self
    }

    /// Sends everything through this proxy; repeat for a chain, the nearest first. What the connector says of hops is kept.
    pub fn proxy(self, hop: Hop) -> Self {
        self.change(|net| Ok(net.via(hop)))
    }

    /// Takes the proxies of the environment: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`, in either case. Default: the
    /// environment says nothing.
    pub fn proxy_from_env(self) -> Self {
        self.change(ConnectorBuilder::proxy_from_env)
    }

    /// Takes the proxies of the environment, or those of the desktop's settings: see
    /// [`ConnectorBuilder::proxy_from_system`](portolan_core::ConnectorBuilder::proxy_from_system). Default: neither is asked.
    pub fn proxy_from_system(self) -> Self {
        self.change(ConnectorBuilder::proxy_from_system)
    }

    /// How TLS is spoken with servers: roots, client certificate, pins, versions.
    pub fn tls(self, tls: Tls) -> Self {
        self.change(|net| Ok(net.tls(tls)))
    }

    /// Which addresses may be connected to. Default any; [`Policy::public_only`] is for URLs that a user supplies.
    pub fn policy(self, policy: Policy) -> Self {
        self.change(|net| Ok(net.policy(policy)))
    }

    /// Who resolves names.
    pub fn resolver(self, resolver: Resolver) -> Self {
        self.change(|net| Ok(net.resolver(resolver)))
    }

    fn change(mut self, change: impl FnOnce(ConnectorBuilder) -> Result<ConnectorBuilder> + Send + 'static) -> Self {
        self.changes.push(Box::new(change));
        self
    }

    /// Takes these addresses for `host`, whatever the resolver says.
    pub fn resolve(self, host: &str, addrs: impl IntoIterator<Item = IpAddr>) -> Self {
        let (host, addrs): (String, Vec<IpAddr>) = (host.to_owned(), addrs.into_iter().collect());
        self.change(move |net| Ok(net.resolve(&host, addrs)))
    }

    /// How long connecting by TCP or QUIC may take, all addresses together. The other bounds of connecting are the connector's.
    pub fn connect_timeout(mut self, limit: impl Into<Limit>) -> Self {
        self.connect_timeout = Some(limit.into());
        self
    }

    /// Which version is used, unless a request says otherwise. Default [`Version::Auto`].
    pub fn version(mut self, version: Version) -> Self {
        self.settings.version = version;
        self
    }

    /// A bound for each whole call, the body's last byte included. Default none: every part has a bound of its own.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.settings.timeouts = self.settings.timeouts.total(limit);
        self
    }

    /// Bounds by phase: `first_byte`, `idle` and `total`. Those of connecting are the connector's.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.settings.timeouts = timeouts.over(&self.settings.timeouts);
        self
    }

    /// How long a peer may take for the first byte of a response. Default 60 s. Each attempt has it anew: what bounds a request
    /// that is tried again is [`timeout`](Self::timeout).
    pub fn first_byte_timeout(mut self, limit: impl Into<Limit>) -> Self {
        self.settings.timeouts = self.settings.timeouts.first_byte(limit);
        self
    }

    /// The limits of the pool.
    pub fn pool(mut self, options: PoolOptions) -> Self {
        self.pool = options;
        self
    }

    /// Connections to one host at once; further requests wait in order. Default 64.
    pub fn max_connections_per_host(mut self, count: usize) -> Self {
        self.pool = self.pool.per_key(count);
        self
    }

    /// Connections to all hosts together. Default 1024.
    pub fn max_connections(mut self, count: usize) -> Self {
        self.pool = self.pool.total(count);
        self
    }

    /// How old a connection may become, so that changes of names and of balance are noticed: it serves nothing new beyond that.
    /// Default 30 minutes.
    pub fn max_connection_age(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.pool = self.pool.lifetime(limit);
        self
    }

    /// Looks every so often whether a name still leads to its connections, and lets those drain whose address it has no longer, as
    /// two looks in a row have it. Default never: then [`max_connection_age`](Self::max_connection_age) bounds how long a change
    /// goes unnoticed.
    ///
    /// A look costs no query as long as the resolver's cache holds the answer; one that fails changes nothing. Connections through
    /// hops and to addresses are left alone.
    pub fn follow_dns(mut self, every: impl Into<Option<Duration>>) -> Self {
        self.following = every.into().map(|every| every.max(Duration::from_millis(1)));
        self
    }

    /// Requests that one connection serves at most. Default any number.
    pub fn max_requests_per_connection(mut self, count: impl Into<Option<u64>>) -> Self {
        self.pool = self.pool.uses(count);
        self
    }

    /// Idle connections kept of one host. Default 16.
    pub fn max_idle_per_host(mut self, count: usize) -> Self {
        self.pool = self.pool.idle_per_key(count);
        self
    }

    /// How long an idle connection is kept. Default 90 s.
    pub fn idle_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.pool = self.pool.idle_timeout(limit);
        self
    }

    /// How redirects are followed. Default at most 10, never from https to http.
    pub fn redirect(mut self, redirect: Redirect) -> Self {
        self.settings.redirect = redirect;
        self
    }

    /// How failed requests are tried again. Default three attempts, within a budget that all calls share, and with the
    /// peer's `retry-after` of up to 10 s.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.settings.retry = retry;
        self
    }

    /// HTTP/2 connections are kept alive by PING, in use or not: after `idle` without a byte, with an answer due within
    /// `timeout`. Without an answer a connection is given up, and the next request makes another.
    pub fn h2_keepalive(mut self, idle: Duration, timeout: Duration) -> Self {
        self.settings.keepalive = Some(Arc::new((idle, timeout)));
        self
    }

    /// HTTP/2 connections are not kept alive by PING: the default.
    pub fn disable_h2_keepalive(mut self) -> Self {
        self.settings.keepalive = None;
        self
    }

    /// Requests in flight on one HTTP/2 or HTTP/3 connection before another is made. Default 100; more than the peer allows
    /// wait for their turn on the connection.
    pub fn max_streams_per_connection(mut self, count: usize) -> Self {
        self.streams = count.max(2);
        self
    }

    /// Lets origins share a connection of HTTP/2 or HTTP/3 whose certificate is for all of them, where they are at one address or
    /// the server says that it serves them (RFC 9113 9.1.1, RFC 8336). One that the server refuses there (421) is asked for once
    /// more on a connection of its own. Default on.
    pub fn connection_coalescing(mut self, on: bool) -> Self {
        self.coalescing = on;
        self
    }

    /// How HTTP/1.1 connections behave: limits of heads, of bodies read away, title case.
    pub fn http1_options(mut self, options: h1::Options) -> Self {
        self.h1 = options;
        self
    }

    /// How HTTP/2 connections behave: windows and limits.
    pub fn http2_options(mut self, options: h2::Options) -> Self {
        self.h2 = options;
        self
    }

    /// How HTTP/3 connections behave: windows, limits, 0-RTT.
    pub fn http3_options(mut self, options: h3::Options) -> Self {
        self.h3 = options;
        self
    }

    /// A field of every request that doesn't have it.
    pub fn default_header<K, V>(mut self, name: K, value: V) -> Result<Self>
    where
        K: TryInto<HeaderName>,
        V: TryInto<HeaderValue>,
    {
        let name = name.try_into().map_err(|_| Error::usage("an invalid field name"))?;
        let value = value.try_into().map_err(|_| Error::usage(format!("an invalid value of {name}")))?;
        self.settings.headers.append(name, value);
        Ok(self)
    }

    /// Fields of every request that doesn't have them.
    pub fn default_headers(mut self, headers: HeaderMap) -> Self {
        for (name, value) in &headers {
            self.settings.headers.append(name, value.clone());
        }
        self
    }

    /// Who we are: `user-agent`. Default none.
    pub fn user_agent(self, text: &str) -> Result<Self> {
        self.default_header(http::header::USER_AGENT, text)
    }

    /// Keeps cookies in this jar: what responses set is said again to whom it concerns. The jar can be shared, and saved.
    #[cfg(feature = "cookies")]
    pub fn cookie_jar(self, jar: Arc<crate::cookie::Jar>) -> Self {
        self.cookie_store(jar)
    }

    /// Keeps cookies in a store of your own.
    pub fn cookie_store(mut self, store: impl CookieStore + 'static) -> Self {
        self.settings.cookies = Some(Arc::new(store));
        self
    }

    /// How much a compressed response may grow; `None` asks for no compression and undoes none. Default: what this build can
    /// undo is asked for, and may grow to 400 times its size.
    pub fn decompression(mut self, options: impl Into<Option<DecodeOptions>>) -> Self {
        let options: Option<DecodeOptions> = options.into();
        self.settings.decode = options.and_then(|options| Some((decode::accept_encoding()?, options)));
        self
    }

    /// Refuses http URLs, in redirects too. Default off.
    pub fn https_only(mut self, on: bool) -> Self {
        self.settings.https_only = on;
        self
    }

    /// Says in redirects where we come from: the whole URL to the same origin, the origin to others. Default off.
    pub fn referer(mut self, on: bool) -> Self {
        self.settings.referer = on;
        self
    }

    /// The longest body that is gathered into memory ([`Response::bytes`](crate::Response::bytes) and its like). Default
    /// 256 MiB; streams are not bounded.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.settings.max_body = bytes;
        self
    }

    /// Signs every request as it goes out, unless it says otherwise: for clients of one service, since whoever is asked gets a
    /// signature. See [`Sign`] for redirects and repetitions.
    pub fn sign(mut self, signer: impl Sign) -> Self {
        self.settings.signer = Some(By::new(signer));
        self
    }

    /// Adds a middleware: the first one added sees a request first.
    pub fn middleware(mut self, middleware: impl Middleware) -> Self {
        self.layers.push(Arc::new(middleware));
        self
    }

    /// Keeps responses as RFC 9111 allows a private cache to, and answers from what is kept.
    pub fn cache(self, cache: Cache) -> Self {
        self.middleware(cache)
    }

    /// Keeps to https where a server has asked for that (RFC 6797), as remembered there. Default: nothing is remembered.
    pub fn hsts(mut self, hsts: Hsts) -> Self {
        self.settings.hsts = Some(hsts);
        self
    }

    /// Takes up what servers say of HTTP/3 (RFC 7838), as remembered there. Default: a memory of the client's own; `None`
    /// takes nothing up.
    pub fn alt_svc(mut self, memory: impl Into<Option<AltSvcCache>>) -> Self {
        self.settings.alt_svc = memory.into();
        self
    }

    /// Goes by the HTTPS records of hosts (RFC 9460), where the connector's resolver can ask for them, as hickory and
    /// `portolan-dns` can and the system's cannot: to other hosts and ports, by the versions named, and from http to https.
    /// A first request waits up to 300 ms for them. They come over DNS, so what is not there may be made up, and what they say
    /// is believed no further than the certificate, which is for the host of the URL. Default on.
    pub fn https_records(mut self, on: bool) -> Self {
        self.settings.https_records = on;
        self
    }

    /// How long HTTP/3 may take to connect before HTTP/2 or 1.1 is tried beside it. Default 300 ms; the one that is there
    /// first is used.
    pub fn http3_head_start(mut self, time: Duration) -> Self {
        self.settings.head_start = time;
        self
    }

    /// Puts it together.
    pub fn build(self) -> Result<Client> {
        let mut this = self;
        if !this.changes.is_empty() || this.connect_timeout.is_some() {
            let connector = this.connector.take().unwrap_or_default();
            let mut builder = connector.to_builder();
            if let Some(limit) = this.connect_timeout {
                builder = builder.timeouts(connector.timeouts().connect(limit));
            }
            for change in this.changes.drain(..) {
                builder = change(builder)?;
            }
            this.connector = Some(builder.build()?);
        }
        Ok(this.assemble())
    }

    /// What can't fail, since it changes nothing of the connector.
    pub(crate) fn assemble(self) -> Client {
        let connector = self.connector.unwrap_or_default();
        let coalescing = self.coalescing.then(Coalescing::default);
        let (h1, h2, h3, streams, following) = (self.h1, self.h2, self.h3, self.streams, self.following);
        let manager = Manager { connector, h1, h2, h3, streams, coalescing, following };
        Client::assemble(Pool::new(manager, self.pool), self.settings, self.layers)
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("pool", &self.pool)
            .field("layers", &self.layers.len())
            .finish_non_exhaustive()
    }
}
