//! What can be said about a connection.

use std::sync::Arc;

use portolan_core::{Credentials, Endpoint, Error, Limit, Result, Timeouts, Url, percent_decode};

use super::PORT;
use super::codec::Limits;
use super::sentinel::Sentinel;

/// How to reach a server and how to talk to it.
///
/// ```
/// let options = portolan_db::redis::Options::from_url("rediss://joe:secret@db.example/3")?;
/// assert_eq!((options.endpoint().to_string().as_str(), options.is_tls()), ("rediss://db.example:6379", true));
/// # Ok::<(), portolan_core::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Options {
    endpoint: Endpoint,
    tls: bool,
    tls_name: Option<String>,
    credentials: Option<Credentials>,
    database: u32,
    client_name: Option<String>,
    resp2: bool,
    limits: Limits,
    timeouts: Timeouts,
    in_flight: usize,
    reconnect: bool,
    read_only: bool,
    sentinel: Option<Arc<Sentinel>>,
}

impl Options {
    /// A server, in the clear, as the default user.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            tls: false,
            tls_name: None,
            credentials: None,
            database: 0,
            client_name: None,
            resp2: false,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            in_flight: 4096,
            reconnect: true,
            read_only: false,
            sentinel: None,
        }
    }

    /// `redis://` or `rediss://` (TLS): `[user[:password]@]host[:port][/database][?protocol=2&name=x]`. With one word before
    /// the `@` and a colon in front, it is the password of the default user. `redis:///path` is a Unix socket.
    ///
    /// `redis+sentinel://` or `rediss+sentinel://`: `[user[:password]@]host[:port][,host[:port]...]/service[/database]` is the
    /// primary of a service that these sentinels watch; the login is the server's.
    pub fn from_url(url: &str) -> Result<Self> {
        let url = Url::parse(url)?;
        let tls = match url.scheme() {
            "redis" => false,
            "rediss" => true,
            "redis+sentinel" => return Self::from_sentinel_url(&url, false),
            "rediss+sentinel" => return Self::from_sentinel_url(&url, true),
            other => return Err(Error::usage(format!("the scheme of a redis url is redis or rediss, not {other}"))),
        };
        let path = url.path().trim_start_matches('/');
        Self::from_parts(&url, url.endpoint(PORT)?, path, tls)
    }

    fn from_sentinel_url(url: &Url, tls: bool) -> Result<Self> {
        let path = url.path().trim_start_matches('/');
        let (service, database) = path.split_once('/').unwrap_or((path, ""));
        let sentinel = Sentinel::parse(url.authority(), &percent_decode(service)?)?;
        let first = sentinel.first().cloned().ok_or_else(|| Error::usage("url without a host"))?;
        Ok(Self::from_parts(url, first, database, tls)?.watched_by(Arc::new(sentinel)))
    }

    /// All of a URL but its scheme and its host. `path` is the database, if that is said there.
    pub(crate) fn from_parts(url: &Url, endpoint: Endpoint, path: &str, tls: bool) -> Result<Self> {
        let unix = url.authority().is_empty();
        let mut options = Self::new(endpoint).tls(tls);
        options.credentials = url.credentials();
        let database = if unix { url.query_value("db").unwrap_or_default() } else { path.to_owned() };
        if !database.is_empty() {
            options.database =
                database.parse().map_err(|_| Error::usage("the path of a redis url is a database number"))?;
        }
        for (key, value) in url.query_pairs() {
            options = match (key.as_str(), value.as_str()) {
                ("protocol", "2") => options.resp2(),
                ("protocol", "3") | ("db", _) => options,
                ("name", name) => options.client_name(name),
                _ => return Err(Error::usage(format!("unknown option {key:?} in a redis url"))),
            };
        }
        Ok(options)
    }

    /// Speak TLS from the first byte. Default off.
    pub fn tls(mut self, on: bool) -> Self {
        self.tls = on;
        self
    }

    /// The name that the certificate must be for, where it is not the host's.
    pub fn tls_name(mut self, name: impl Into<String>) -> Self {
        self.tls_name = Some(name.into());
        self
    }

    /// Log in: an empty user is the default one. Over a connection without TLS the password can be read on the way.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// The database to select. Default 0, the only one of a cluster.
    pub fn database(mut self, number: u32) -> Self {
        self.database = number;
        self
    }

    /// The name under which `CLIENT LIST` shows the connection.
    pub fn client_name(mut self, name: impl Into<String>) -> Self {
        self.client_name = Some(name.into());
        self
    }

    /// Speak RESP2 even to servers that know RESP3: no maps, no pushes.
    pub fn resp2(mut self) -> Self {
        self.resp2 = true;
        self
    }

    /// What one reply may hold.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Bounds of the protocol's own waits: `handshake` for the login, `first_byte` for each reply. Those of the way there are
    /// the connector's.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// How long to wait for a reply. Default 60 s.
    pub fn reply_timeout(mut self, limit: impl Into<Limit>) -> Self {
        self.timeouts = self.timeouts.first_byte(limit);
        self
    }

    /// How many commands may wait for their replies at once; more wait their turn. Default 4096.
    pub fn in_flight(mut self, count: usize) -> Self {
        self.in_flight = count.max(1);
        self
    }

    /// Whether a lost connection is made anew at the next command. Default on.
    pub fn reconnect(mut self, on: bool) -> Self {
        self.reconnect = on;
        self
    }

    /// The same for another server.
    pub(crate) fn at(mut self, endpoint: Endpoint) -> Self {
        self.endpoint = endpoint;
        self
    }

    /// Says at login that stale data of a replica will do.
    pub(crate) fn read_only(mut self, on: bool) -> Self {
        self.read_only = on;
        self
    }

    pub(crate) fn watched_by(mut self, sentinel: Arc<Sentinel>) -> Self {
        self.sentinel = Some(sentinel);
        self
    }

    pub(crate) fn watcher(&self) -> Option<&Sentinel> {
        self.sentinel.as_deref()
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Whom to connect to; the first sentinel, where sentinels are asked for that.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether TLS is spoken.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    pub(crate) fn certificate_name(&self) -> String {
        self.tls_name.clone().unwrap_or_else(|| self.endpoint.host_text().into_owned())
    }

    pub(crate) fn login(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }

    pub(crate) fn db(&self) -> u32 {
        self.database
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.client_name.as_deref()
    }

    pub(crate) fn wants_resp3(&self) -> bool {
        !self.resp2
    }

    pub(crate) fn codec_limits(&self) -> Limits {
        self.limits
    }

    pub(crate) fn bounds(&self) -> &Timeouts {
        &self.timeouts
    }

    pub(crate) fn window(&self) -> usize {
        self.in_flight
    }

    pub(crate) fn reconnects(&self) -> bool {
        self.reconnect
    }
}
