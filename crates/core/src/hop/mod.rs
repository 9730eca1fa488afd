//! Proxies: each a [`Dial`] that wraps the one beneath it.

pub(crate) mod desktop;
pub(crate) mod env;
mod header;
mod http;
mod reply;
mod route;
mod scheme;
mod socks4;
mod socks5;
mod udp;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use crate::clock;
use crate::dial::{Dial, DialContext, Place};
use crate::endpoint::Endpoint;
use crate::error::{Error, Kind, Phase, Result};
use crate::kit::auth::{ProxyAuth, Remembered};
use crate::observe::Stepping;
use crate::secret::Credentials;
use crate::stream::Stream;
use crate::url::Url;

use header::Headed;
pub use header::ProxyHeader;
pub use reply::SocksReply;
pub use route::Route;
pub(crate) use route::Routes;
#[cfg(feature = "serde")]
pub(crate) use scheme::header;
pub use scheme::{HopSchemes, HopSpec};
pub use socks5::Isolation;

/// Makes the layer of a hop that lives in another crate.
pub type HopFactory = Arc<dyn Fn(Place, Arc<dyn Dial>) -> Arc<dyn Dial> + Send + Sync>;

/// One proxy on the way.
///
/// ```
/// use portolan_core::Hop;
///
/// let hop = Hop::parse("socks5h://joe:secret@proxy.example:1080")?;
/// assert_eq!(format!("{hop:?}"), "socks5h://joe:***@proxy.example:1080");
/// # Ok::<(), portolan_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Hop(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: HopKind,
    proxy: Endpoint,
    credentials: Option<Credentials>,
    auth: Option<ProxyAuth>,
    headers: Vec<(String, String)>,
    isolation: Option<Isolation>,
    proxy_header: Option<ProxyHeader>,
    tunnel: bool,
}

#[derive(Clone)]
enum HopKind {
    Http { tls: bool },
    Socks4 { remote: bool },
    Socks5 { remote: bool },
    Custom { name: &'static str, factory: HopFactory },
}

impl Hop {
    /// `scheme://[user:password@]host[:port]`: `http` (8080 is *not* assumed: port 80), `https` (443), `socks4`, `socks4a`, `socks5`,
    /// `socks5h` (1080). With an `a` or `h` the proxy resolves names; `socks` is `socks5h`.
    pub fn parse(url: &str) -> Result<Self> {
        let url = Url::parse(url)?;
        let Some((kind, port)) = HopKind::of(url.scheme()) else {
            return Err(Error::usage(format!(
                "no proxy speaks {:?}: http, https, socks4, socks4a, socks5, socks5h do",
                url.scheme()
            )));
        };
        let hop = Self::new(kind, url.endpoint(port)?);
        if !matches!(url.path(), "" | "/") || url.query().is_some() {
            return Err(Error::usage("a proxy url has neither path nor query"));
        }
        Ok(match url.credentials() {
            Some(credentials) => hop.credentials(credentials),
            None => hop,
        })
    }

    fn new(kind: HopKind, proxy: Endpoint) -> Self {
        Self(Arc::new(Inner {
            kind,
            proxy,
            credentials: None,
            auth: None,
            headers: Vec::new(),
            isolation: None,
            proxy_header: None,
            tunnel: false,
        }))
    }

    /// An HTTP proxy: CONNECT, and requests in absolute form for plain HTTP.
    pub fn http(proxy: Endpoint) -> Self {
        Self::new(HopKind::Http { tls: false }, proxy)
    }

    /// The same inside TLS with the proxy.
    pub fn https(proxy: Endpoint) -> Self {
        Self::new(HopKind::Http { tls: true }, proxy)
    }

    /// SOCKS4: IPv4 alone.
    pub fn socks4(proxy: Endpoint) -> Self {
        Self::new(HopKind::Socks4 { remote: false }, proxy)
    }

    /// SOCKS4a: the proxy resolves.
    pub fn socks4a(proxy: Endpoint) -> Self {
        Self::new(HopKind::Socks4 { remote: true }, proxy)
    }

    /// SOCKS5 with names resolved here.
    pub fn socks5(proxy: Endpoint) -> Self {
        Self::new(HopKind::Socks5 { remote: false }, proxy)
    }

    /// SOCKS5 with names resolved by the proxy: the way to Tor, which alone resolves `.onion`. Tor keeps the circuits of different
    /// credentials apart (IsolateSOCKSAuth, on by default), whatever they are: give each identity its own.
    pub fn socks5h(proxy: Endpoint) -> Self {
        Self::new(HopKind::Socks5 { remote: true }, proxy)
    }

    /// A hop that speaks a protocol of another crate: SSH, HTTP/2, a tunnel.
    pub fn custom(name: &'static str, proxy: Endpoint, factory: HopFactory) -> Self {
        Self::new(HopKind::Custom { name, factory }, proxy)
    }

    /// User and password: those of SOCKS5, the user of SOCKS4; for HTTP proxies [`ProxyAuth::any`]. A hop of another crate has
    /// its own.
    #[must_use]
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        Arc::make_mut(&mut self.0).credentials = Some(credentials);
        self
    }

    /// How one proves to an HTTP proxy who one is, where user and password are not all there is to say.
    #[must_use]
    pub fn auth(mut self, auth: ProxyAuth) -> Self {
        Arc::make_mut(&mut self.0).auth = Some(auth);
        self
    }

    /// Made-up credentials for SOCKS5, by which Tor keeps circuits apart. Credentials of your own exclude it.
    #[must_use]
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        Arc::make_mut(&mut self.0).isolation = Some(isolation);
        self
    }

    /// What the proxy is told of the client ahead of all else, TLS too: for haproxy and others that expect the PROXY protocol.
    #[must_use]
    pub fn proxy_header(mut self, header: ProxyHeader) -> Self {
        Arc::make_mut(&mut self.0).proxy_header = Some(header);
        self
    }

    /// Asks an HTTP proxy for a tunnel in any case, also for plain HTTP, which is else left to it in absolute form (RFC 9112
    /// 3.2.2). Many proxies allow tunnels to port 443 alone. Default off.
    #[must_use]
    pub fn always_tunnel(mut self, on: bool) -> Self {
        Arc::make_mut(&mut self.0).tunnel = on;
        self
    }

    /// Whether it takes requests of plain HTTP in absolute form. A login in several steps is one for tunnels.
    pub(crate) fn forwards(&self) -> bool {
        let told_at_once = self.0.auth.as_ref().is_none_or(|auth| auth.at_once().is_some());
        matches!(self.0.kind, HopKind::Http { .. }) && !self.0.tunnel && told_at_once
    }

    /// A header of the CONNECT request, and of requests in absolute form. Line ends in it are refused.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self> {
        let name_ok =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
        if !name_ok || value.bytes().any(|b| b < b' ' && b != b'\t' || b == 0x7f) {
            return Err(Error::usage("not a header name, or a control character in its value"));
        }
        Arc::make_mut(&mut self.0).headers.push((name.to_owned(), value.to_owned()));
        Ok(self)
    }

    /// Its kind, as its scheme.
    pub fn kind(&self) -> &'static str {
        match &self.0.kind {
            HopKind::Http { tls: false } => "http",
            HopKind::Http { tls: true } => "https",
            HopKind::Socks4 { remote: false } => "socks4",
            HopKind::Socks4 { remote: true } => "socks4a",
            HopKind::Socks5 { remote: false } => "socks5",
            HopKind::Socks5 { remote: true } => "socks5h",
            HopKind::Custom { name, .. } => name,
        }
    }

    /// The proxy.
    pub fn endpoint(&self) -> &Endpoint {
        &self.0.proxy
    }

    /// Whether what was said of it fits together and is known to its kind.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(header) = &self.0.proxy_header {
            header.check()?;
        }
        let http = matches!(self.0.kind, HopKind::Http { .. });
        if !http && self.0.auth.is_some() {
            return Err(Error::usage(format!(
                "a hop of the kind {} has no such proof: give it credentials",
                self.kind()
            )));
        }
        if !http && !self.0.headers.is_empty() {
            return Err(Error::usage(format!("a hop of the kind {} has no headers here", self.kind())));
        }
        if !matches!(self.0.kind, HopKind::Socks5 { .. }) && self.0.isolation.is_some() {
            return Err(Error::usage(format!("a hop of the kind {} isolates nothing: SOCKS5 does", self.kind())));
        }
        Ok(())
    }

    /// The layer of this hop at `place`, over `beneath`.
    pub(crate) fn layer(&self, place: Place, beneath: Arc<dyn Dial>) -> Arc<dyn Dial> {
        let beneath = headed(self.0.proxy_header.as_ref(), beneath);
        let way = Way {
            place,
            kind: self.kind(),
            proxy: self.0.proxy.clone(),
            credentials: self.0.credentials.clone(),
            beneath,
        };
        match &self.0.kind {
            HopKind::Http { tls } => Arc::new(http::Http {
                auth: self.0.auth.clone().or_else(|| way.credentials.clone().map(ProxyAuth::any)),
                way,
                tls: *tls,
                headers: self.0.headers.clone(),
                remembered: Remembered::default(),
                forwards: self.forwards(),
            }),
            HopKind::Socks4 { remote } => Arc::new(socks4::Socks4 { way, remote: *remote }),
            HopKind::Socks5 { remote } => Arc::new(socks5::Socks5 {
                way,
                remote: *remote,
                isolation: self.0.isolation,
                salt: std::sync::OnceLock::new(),
            }),
            HopKind::Custom { factory, .. } => factory(place, way.beneath),
        }
    }
}

/// What lies beneath, with a header on each of its streams.
pub(crate) fn headed(header: Option<&ProxyHeader>, beneath: Arc<dyn Dial>) -> Arc<dyn Dial> {
    match header {
        Some(header) => Arc::new(Headed { header: header.clone(), beneath }),
        None => beneath,
    }
}

impl fmt::Debug for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.kind())?;
        let auth = self.0.auth.as_ref().map(|auth| auth.user().unwrap_or_default());
        if let Some(user) = auth.or(self.0.credentials.as_ref().map(|login| login.user.as_str())) {
            write!(f, "{}:***@", crate::percent_encode(user))?;
        }
        f.write_str(&self.0.proxy.authority())
    }
}

/// What all hops share: who the proxy is, and what lies beneath.
#[derive(Debug)]
pub struct Way {
    place: Place,
    kind: &'static str,
    proxy: Endpoint,
    credentials: Option<Credentials>,
    beneath: Arc<dyn Dial>,
}

impl Way {
    /// The way of a hop of another crate: what [`Hop::custom`] was given, and what its factory is given.
    pub fn new(kind: &'static str, proxy: Endpoint, place: Place, beneath: Arc<dyn Dial>) -> Self {
        Self { place, kind, proxy, credentials: None, beneath }
    }

    /// Where the hop stands.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The proxy.
    pub fn proxy(&self) -> &Endpoint {
        &self.proxy
    }

    /// Runs the handshake for one tunnel, as [`DialContext::hop`] does.
    pub async fn pass<T>(&self, cx: &DialContext, work: impl Future<Output = Result<T>>) -> Result<T> {
        cx.hop(self.place, self.kind, &self.proxy.authority(), work).await
    }

    /// Datagrams to the proxy itself.
    pub async fn datagrams_to_proxy(&self, cx: &DialContext) -> Result<crate::Datagram> {
        self.beneath.datagram(&self.proxy, cx).await.map_err(|error| self.unreachable(error))
    }

    /// A stream to the proxy itself. What goes wrong here is this hop's failure.
    pub async fn to_proxy(&self, cx: &DialContext) -> Result<Stream> {
        self.beneath.dial(&self.proxy, cx).await.map_err(|error| self.unreachable(error))
    }

    /// Runs the handshake that protects the connection to the proxy, such as that of QUIC. Its time is the hop's.
    pub async fn secured<T>(&self, cx: &DialContext, work: impl Future<Output = Result<T>>) -> Result<T> {
        let (authority, started) = (self.proxy.authority(), clock::now());
        let step = Stepping::begin(cx, Phase::Tls).hop(self.place.index, self.kind, &authority);
        let result = work.await.map_err(|error| self.unreachable(error));
        step.end(&result);
        cx.hop_secured(clock::now() - started);
        result
    }

    /// TLS with the proxy, as the connector speaks it with proxies. What it agreed on is in the stream's facts.
    pub async fn start_tls(&self, stream: Stream, alpn: &[&[u8]], cx: &DialContext) -> Result<Stream> {
        let name = self.proxy.host_text();
        let limit = cx.timeouts().tls_limit();
        let mut stream = self.secured(cx, stream.start_tls_with(&name, cx.hop_tls(), Some(alpn), limit)).await?;
        stream.info_mut().timings.tls = None;
        Ok(stream)
    }

    /// Keeps kind and phase of what went wrong, and says which hop it was on the way to; an error of an earlier hop keeps its own.
    pub fn unreachable(&self, error: Error) -> Error {
        if error.hop().is_some() {
            return error;
        }
        let error = if error.kind() == Kind::Connect { error.with_kind(Kind::Hop) } else { error };
        error.with_hop(self.place.index)
    }

    /// The end of a list of targets of which none could be reached.
    pub fn none_left(&self, last: Option<Error>) -> Error {
        last.unwrap_or_else(|| Error::new(Kind::Hop, "no address to ask the proxy for").with_hop(self.place.index))
    }
}

/// Whether the proxy itself said that it cannot reach the target: only then is the name's next address tried.
pub fn cannot_reach(error: &Error) -> bool {
    error.kind() == Kind::Hop && error.code().is_some()
}

/// The proxy broke its protocol, or said no.
fn refused(message: impl Into<Box<str>>) -> Error {
    Error::new(Kind::Hop, message).with_phase(Phase::Hop)
}

/// Reads exactly `N` bytes of a handshake.
async fn read<const N: usize>(stream: &mut Stream) -> Result<[u8; N]> {
    use tokio::io::AsyncReadExt;
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await.map_err(|error| lost(error, "while it answered"))?;
    Ok(bytes)
}

async fn write(stream: &mut Stream, bytes: &[u8]) -> Result<()> {
    use tokio::io::AsyncWriteExt;
    stream.write_all(bytes).await.map_err(|error| lost(error, "before it was asked"))
}

fn lost(error: std::io::Error, when: &str) -> Error {
    refused(format!("the proxy closed {when}")).with_source(error)
}
