//! The connections of the pool: how they are made, looked at and shared.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use portolan_core::{ConnectionInfo, Connector, Error, Kind as ErrorKind, Phase, Result, Secret, Stream};
use portolan_http1 as h1;
use portolan_http2 as h2;
use portolan_http3 as h3;
use portolan_pool::{Lease, Liveness, Manage};

use crate::coalesce::{Coalescing, Group};
use crate::follow::follow;
use crate::key::{Key, Kind};

/// A connection, or a handle of one that many share.
#[derive(Debug)]
pub(crate) enum Conn {
    H1(Box<Alone>),
    H2(Arc<Shared<h2::SendRequest>>),
    H3(Arc<Shared<h3::SendRequest>>),
}

impl Conn {
    pub(crate) fn facts(&self) -> &Arc<Facts> {
        match self {
            Self::H1(conn) => &conn.facts,
            Self::H2(shared) => &shared.facts,
            Self::H3(shared) => &shared.facts,
        }
    }

    fn group(&self) -> Option<&Arc<Group>> {
        match self {
            Self::H1(..) => None,
            Self::H2(shared) => Some(&shared.group),
            Self::H3(shared) => Some(&shared.group),
        }
    }

    /// The pool's mark of a connection that was made for another origin.
    pub(crate) fn joined(&self) -> Option<Arc<Liveness>> {
        match self {
            Self::H2(shared) => shared.facts.is_joined.then(|| shared.live.clone()),
            Self::H3(shared) => shared.facts.is_joined.then(|| shared.live.clone()),
            Self::H1(..) => None,
        }
    }
}

/// What is known about a connection, as its first user is told, and as all later ones are.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    fresh: Arc<ConnectionInfo>,
    /// Whether the connection was made for another origin.
    is_joined: bool,
    reused: OnceLock<Arc<ConnectionInfo>>,
    /// Whether the name that it was made for leads elsewhere now.
    has_left: AtomicBool,
}

impl Facts {
    pub(crate) fn new(info: &ConnectionInfo) -> Arc<Self> {
        Arc::new(Self { fresh: Arc::new(info.clone()), ..Self::default() })
    }

    /// The same for an origin that joins the connection: for that one it is none of its own.
    pub(crate) fn joined(&self) -> Arc<Self> {
        Arc::new(Self { fresh: self.info(true), is_joined: true, ..Self::default() })
    }

    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.fresh.peer
    }

    /// The name leads elsewhere.
    pub(crate) fn leave(&self) {
        self.has_left.store(true, Ordering::Relaxed);
    }

    fn has_left(&self) -> bool {
        self.has_left.load(Ordering::Relaxed)
    }

    pub(crate) fn info(&self, reused: bool) -> Arc<ConnectionInfo> {
        if !reused {
            return Arc::clone(&self.fresh);
        }
        let again = self.reused.get_or_init(|| {
            let mut info = ConnectionInfo::clone(&self.fresh);
            info.reused = true;
            Arc::new(info)
        });
        Arc::clone(again)
    }
}

/// A connection that one uses at a time.
#[derive(Debug)]
pub(crate) struct Alone {
    pub(crate) h1: h1::Connection<Stream>,
    facts: Arc<Facts>,
}

/// A handle of a connection that many use.
#[derive(Debug)]
pub(crate) struct Shared<S> {
    pub(crate) send: Arc<S>,
    pub(crate) facts: Arc<Facts>,
    /// The pool's mark of it, for one origin.
    pub(crate) live: Arc<Liveness>,
    pub(crate) group: Arc<Group>,
}

/// How connections are to behave.
#[derive(Debug, Clone)]
pub(crate) struct Manager {
    pub(crate) connector: Connector,
    pub(crate) h1: h1::Options,
    pub(crate) h2: h2::Options,
    pub(crate) h3: h3::Options,
    /// Requests in flight on one shared connection before another is made.
    pub(crate) streams: usize,
    /// Connections that other origins may join, unless that is off.
    pub(crate) coalescing: Option<Coalescing>,
    /// How often it is looked whether a name still leads to its connections.
    pub(crate) following: Option<Duration>,
}

impl Manager {
    fn connector<'a>(&'a self, key: &'a Key) -> &'a Connector {
        key.connector.as_ref().unwrap_or(&self.connector)
    }

    async fn stream(&self, key: &Key) -> Result<Stream> {
        let connector = self.connector(key);
        if !key.tls {
            return match key.forwards {
                Some(_) => connector.connect_http(&key.endpoint).await,
                None => connector.connect(&key.endpoint).await,
            };
        }
        let alpn: &[&[u8]] = match key.kind {
            Kind::Auto => &[b"h2", b"http/1.1"],
            Kind::H1 => &[b"http/1.1"],
            Kind::H2 | Kind::H3 => &[b"h2"],
        };
        connector.connect_tls_as(&key.endpoint, &key.name, alpn).await
    }

    fn http2(&self, key: &Key, stream: Stream) -> Result<Conn> {
        let facts = Facts::new(stream.info());
        let group = Arc::new(Group::default());
        let live = group.join(None);
        let mut options = self.h2.clone();
        if let Some((idle, timeout)) = key.keepalive.as_deref().copied() {
            options = options.keepalive_while_idle(idle, timeout);
        }
        let told = group.clone();
        let options = options.on_event(move |event| match event {
            h2::Event::GoAway(_) => told.drain(),
            h2::Event::Origin(origins) => told.add_origins(&origins),
            _ => {}
        });
        let (send, connection) = h2::handshake(stream, options)?;
        let over = group.clone();
        // It ends with its last handle: the pool's and those of requests in flight.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "http2 connection ended");
            }
            over.close();
        });
        Ok(Conn::H2(Arc::new(Shared { send: Arc::new(send), facts, live, group })))
    }
}

impl Manager {
    async fn http3(&self, key: &Key) -> Result<Conn> {
        if !key.tls {
            return Err(Error::usage("HTTP/3 for an http URL"));
        }
        let group = Arc::new(Group::default());
        let live = group.join(None);
        let mut options = self.h3.clone();
        if let Some((interval, _)) = key.keepalive.as_deref().copied() {
            options = options.keepalive(interval);
        }
        let told = group.clone();
        let options = options.on_event(move |event| match event {
            h3::Event::GoAway(_) => told.drain(),
            h3::Event::Origin(origins) => told.add_origins(&origins),
            _ => {}
        });
        let connector = self.connector(key);
        let (send, connection) = h3::connect_as(connector, &key.endpoint, &key.name, options).await?;
        let facts = Facts::new(&send.info());
        let over = group.clone();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "http3 connection ended");
            }
            over.close();
        });
        Ok(Conn::H3(Arc::new(Shared { send: Arc::new(send), facts, live, group })))
    }
}

impl Manager {
    async fn join_or_make(&self, key: &Key) -> Result<Conn> {
        let connector = self.connector(key);
        // Through hops nobody knows where a name leads to; and an alternative is for one origin.
        let coalescing = self.coalescing.as_ref().filter(|_| key.tls && key.kind != Kind::H1);
        let coalescing = coalescing.filter(|_| key.is_own() && connector.is_direct(&key.endpoint));
        let Some(coalescing) = coalescing else { return self.make(key).await };
        if let Some(conn) = coalescing.find(key, connector).await {
            key.learn(true);
            return Ok(conn);
        }
        let conn = self.make(key).await?;
        coalescing.add(key, &conn);
        Ok(conn)
    }

    async fn make(&self, key: &Key) -> Result<Conn> {
        if key.kind == Kind::H3 {
            return self.http3(key).await;
        }
        let stream = self.stream(key).await?;
        let h2 = match stream.alpn() {
            Some(alpn) => alpn == b"h2",
            // RFC 9113 3.2: TLS without ALPN is not HTTP/2; cleartext is by prior knowledge.
            None => key.kind == Kind::H2 && !key.tls,
        };
        if key.kind == Kind::H2 && !h2 {
            let error = Error::new(ErrorKind::Unsupported, "the server does not speak h2").with_phase(Phase::Tls);
            return Err(error.with_endpoint(key.endpoint.clone()));
        }
        key.learn(h2);
        if h2 {
            return self.http2(key, stream);
        }
        let facts = Facts::new(stream.info());
        let fields = stream.forwards().map(proxy_fields).transpose()?;
        let conn = h1::Connection::new(stream, self.h1);
        let conn = fields.into_iter().fold(conn, h1::Connection::to_proxy);
        Ok(Conn::H1(Box::new(Alone { h1: conn, facts })))
    }
}

impl Manage for Manager {
    type Key = Key;
    type Conn = Conn;

    async fn connect(&self, key: &Key) -> Result<Conn> {
        // Boxed: every caller's future has room for this, and few come here.
        let conn = Box::pin(self.join_or_make(key)).await?;
        if let Some(every) = self.following {
            follow(every, self.connector(key), key, conn.facts(), conn.group());
        }
        Ok(conn)
    }

    fn is_fit(&self, conn: &mut Conn) -> bool {
        match conn {
            Conn::H1(conn) => !conn.facts.has_left() && conn.h1.is_fit(),
            Conn::H2(conn) => !conn.send.is_closed(),
            Conn::H3(conn) => !conn.send.is_closed(),
        }
    }

    fn is_done(&self, conn: &mut Conn) -> bool {
        match conn {
            Conn::H1(conn) => !conn.facts.has_left() && conn.h1.is_reusable(),
            Conn::H2(conn) => !conn.send.is_closed(),
            Conn::H3(conn) => !conn.send.is_closed(),
        }
    }

    fn liveness(&self, conn: &Conn) -> Option<Liveness> {
        match conn {
            Conn::H1(..) => None,
            Conn::H2(conn) => Some((*conn.live).clone()),
            Conn::H3(conn) => Some((*conn.live).clone()),
        }
    }

    fn share(&self, conn: &Conn) -> Option<Conn> {
        match conn {
            Conn::H1(..) => None,
            // Closed or draining: marked before anyone who waits is woken.
            Conn::H2(conn) => (!conn.send.is_closed()).then(|| Conn::H2(conn.clone())),
            Conn::H3(conn) => (!conn.send.is_closed()).then(|| Conn::H3(conn.clone())),
        }
    }

    fn capacity(&self, conn: &Conn) -> usize {
        match conn {
            Conn::H1(..) => 1,
            Conn::H2(_) | Conn::H3(_) => self.streams,
        }
    }

    fn is_shared(&self, key: &Key) -> bool {
        key.is_shared()
    }
}

/// What a proxy wants to see on each request.
fn proxy_fields(fields: &[(String, Secret)]) -> Result<HeaderMap> {
    let mut map = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields {
        let broken = || Error::usage("a field for a proxy that is none");
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| broken())?;
        let mut value = HeaderValue::from_str(value.expose()).map_err(|_| broken())?;
        value.set_sensitive(true);
        map.append(name, value);
    }
    Ok(map)
}

/// A lease of an HTTP/1.1 connection, as its own crate wants to hold it.
#[derive(Debug)]
pub(crate) struct Held(Lease<Manager>);

impl Held {
    /// The connection in `lease`, which is one of HTTP/1.1.
    pub(crate) fn new(lease: Lease<Manager>) -> Self {
        debug_assert!(matches!(*lease, Conn::H1(..)));
        Self(lease)
    }
}

impl Deref for Held {
    type Target = h1::Connection<Stream>;

    fn deref(&self) -> &Self::Target {
        match &*self.0 {
            Conn::H1(conn) => &conn.h1,
            Conn::H2(_) | Conn::H3(_) => unreachable!("looked at when it was made"),
        }
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut Self::Target {
        match &mut *self.0 {
            Conn::H1(conn) => &mut conn.h1,
            Conn::H2(_) | Conn::H3(_) => unreachable!("looked at when it was made"),
        }
    }
}
