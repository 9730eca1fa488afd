//! What makes two connections interchangeable.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::Uri;
use portolan_core::{Connector, Endpoint, Error, Result};

/// Names come from outside: what they hash to must not be foreseen.
static RANDOM: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Which versions a connection may be of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// What ALPN gives, HTTP/1.1 in cleartext.
    Auto,
    H1,
    H2,
    H3,
}

/// How a connection of HTTP/2 or 3 is kept alive: idle time, and how long an answer may take.
pub(crate) type Keepalive = Option<Arc<(Duration, Duration)>>;

/// The key of the pool. What is applied when a connection is made, and does not make it another one, is no part of it.
#[derive(Clone)]
pub(crate) struct Key {
    origin: Arc<Origin>,
    /// Applied to a connection that is made for this key.
    pub(crate) keepalive: Keepalive,
}

/// Whom to reach, by which way, speaking what.
pub(crate) struct Origin {
    pub(crate) endpoint: Endpoint,
    pub(crate) tls: bool,
    pub(crate) kind: Kind,
    /// Who must be certified: the host of the URL, also where another endpoint serves it.
    pub(crate) name: Box<str>,
    /// A way of its own, or the client's.
    pub(crate) connector: Option<Connector>,
    /// The route whose proxies forward the requests, whatever the endpoint.
    pub(crate) forwards: Option<usize>,
    /// 0: not known, 1: one user at a time, 2: many.
    shared: AtomicU8,
    /// Of all the above: the pool looks a key up several times for each request.
    hash: u64,
}

impl Key {
    pub(crate) fn new(uri: &Uri, kind: Kind, connector: Option<Connector>) -> Result<Self> {
        let (endpoint, tls) = Self::target(uri)?;
        Ok(Self::to(endpoint, tls, kind, connector))
    }

    /// Whom a URL names, and whether in TLS.
    pub(crate) fn target(uri: &Uri) -> Result<(Endpoint, bool)> {
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) => return Err(Error::usage("a URL whose scheme is neither http nor https")),
            None => return Err(Error::usage("a URL without scheme and host")),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| Error::usage("a URL without a host"))?;
        // A port that is no number is nobody's, least of all the default.
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let said = authority.rsplit_once(':').filter(|(_, port)| !port.is_empty() && !port.contains(']'));
        let port = match (uri.port_u16(), said) {
            (Some(port), _) => port,
            (None, None) => {
                if tls {
                    443
                } else {
                    80
                }
            }
            (None, Some(_)) => return Err(Error::usage("a URL with a port that is none")),
        };
        // Routes of the connector may be for a scheme alone.
        Ok((Endpoint::new(host, port)?.with_scheme(if tls { "https" } else { "http" }), tls))
    }

    /// The same by the proxies of a route, which forward requests for whatever endpoint: if `route` names one.
    pub(crate) fn forwarded(self, route: Option<usize>) -> Self {
        let Origin { endpoint, tls, kind, name, connector, .. } = &*self.origin;
        if route.is_none() {
            return self;
        }
        let (endpoint, name, connector) = (endpoint.clone(), name.clone(), connector.clone());
        let key = Self::of(Origin {
            endpoint,
            tls: *tls,
            kind: *kind,
            name,
            connector,
            forwards: route,
            shared: AtomicU8::new(1),
            hash: 0,
        });
        key.with_keepalive(self.keepalive.clone())
    }

    /// A key for an endpoint whose own host is certified.
    pub(crate) fn to(endpoint: Endpoint, tls: bool, kind: Kind, connector: Option<Connector>) -> Self {
        let name = endpoint.host_text().into();
        let shared = AtomicU8::new(match kind {
            Kind::Auto if tls => 0,
            Kind::Auto | Kind::H1 => 1,
            Kind::H2 | Kind::H3 => 2,
        });
        Self::of(Origin { endpoint, tls, kind, name, connector, forwards: None, shared, hash: 0 })
    }

    fn of(mut origin: Origin) -> Self {
        origin.hash = match origin.forwards {
            None => RANDOM.hash_one((&origin.name, &origin.endpoint, origin.kind)),
            Some(route) => RANDOM.hash_one((route, origin.kind)),
        };
        Self { origin: Arc::new(origin), keepalive: None }
    }

    /// The same origin served by another endpoint (RFC 7838 2.1).
    pub(crate) fn alternative(&self, endpoint: Endpoint, kind: Kind) -> Self {
        let origin = &self.origin;
        if origin.endpoint == endpoint && origin.kind == kind {
            return self.clone();
        }
        let (name, connector) = (origin.name.clone(), origin.connector.clone());
        let shared = AtomicU8::new(if kind == Kind::Auto { 0 } else { 2 });
        let key = Self::of(Origin { endpoint, tls: true, kind, name, connector, forwards: None, shared, hash: 0 });
        key.with_keepalive(self.keepalive.clone())
    }

    /// Whether the endpoint is the origin's own, and no alternative.
    pub(crate) fn is_own(&self) -> bool {
        self.origin.endpoint.host_text() == *self.origin.name
    }

    pub(crate) fn with_keepalive(mut self, keepalive: Keepalive) -> Self {
        self.keepalive = keepalive;
        self
    }

    /// Whether connections are, as far as is known, for many users: then only one is made at a time.
    pub(crate) fn is_shared(&self) -> bool {
        self.origin.shared.load(Ordering::Relaxed) != 1
    }

    /// What ALPN taught.
    pub(crate) fn learn(&self, shared: bool) {
        if self.origin.kind == Kind::Auto {
            self.origin.shared.store(if shared { 2 } else { 1 }, Ordering::Relaxed);
        }
    }
}

impl std::ops::Deref for Key {
    type Target = Origin;

    fn deref(&self) -> &Origin {
        &self.origin
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (&*self.origin, &*other.origin);
        let same_way = || match (&a.connector, &b.connector) {
            (None, None) => true,
            (Some(a), Some(b)) => a.same(b),
            _ => false,
        };
        Arc::ptr_eq(&self.origin, &other.origin)
            || (a.hash == b.hash
                && a.kind == b.kind
                && a.tls == b.tls
                && a.forwards == b.forwards
                && (a.forwards.is_some() || (a.endpoint == b.endpoint && a.name == b.name))
                && same_way())
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.origin.hash);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} by {:?}", self.origin.endpoint, self.origin.kind)
    }
}
