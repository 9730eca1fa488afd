//! HTTP/3 proxies as hops (MASQUE): many tunnels on one QUIC connection, for streams and for datagrams.
//!
//! - **Port and TLS**: UDP port 443; TLS 1.3 is part of QUIC. QUIC runs over the datagrams of what lies beneath: UDP, a SOCKS5
//!   relay, another such proxy.
//! - **What works**: CONNECT (RFC 9114 4.4) for streams; CONNECT-UDP (RFC 9298) for datagrams, by HTTP datagrams, or by capsules
//!   where the proxy takes none; basic, digest and bearer credentials. One connection to the proxy serves all tunnels of a connector;
//!   a further one is opened when our limit of streams is reached, and a new one when it is closed or draining. DNS over UDP
//!   and HTTP/3 itself pass.
//! - **What is not done**: NTLM and Negotiate, which belong to a connection; discovery of the path's MTU: QUIC packets of 1400 bytes
//!   are tried, and 1200 where they are lost, in which QUIC itself does not fit any more.
//! - **Tested against**: a proxy on aioquic: refusals, credentials, many tunnels, DNS and HTTP/3 inside.
//! - **Security**: the proxy's certificate is checked by the connector's [`hop_tls`](portolan_core::ConnectorBuilder::hop_tls).
//!   A refused tunnel is an error that names the hop; nothing ever goes around the proxy.
//!
//! ```
//! use portolan_core::Connector;
//!
//! let hop = portolan_http3::hop::connect("https://ann:sesame@proxy.example")?;
//! assert_eq!(format!("{hop:?}"), "h3://ann:***@proxy.example:443");
//! let net = Connector::builder().via(hop).build()?;
//! # Ok::<(), portolan_core::Error>(())
//! ```

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::{Stream as Items, StreamExt};
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body::{Body, Frame};
use portolan_core::kit::auth::{Login, Remembered, challenges};
use portolan_core::kit::{
    CapsuleDatagrams, Duplex, Kept, MASQUE, PipeReader, QUOTE_WAIT, Shareable, Way, check_masque, masque_path, pipe,
    refusal,
};
use portolan_core::{
    BoxError, BoxFuture, ConnectionInfo, Credentials, Datagram, DatagramIo, Dial, DialContext, Endpoint, Error, Hop,
    HopInfo, HopSchemes, HopSpec, Kind, Phase, Place, ProxyAuth, Result, Secret, Stream, Url, clock,
};
use quinn::{ClientConfig, EndpointConfig, TokioRuntime};
use tokio::io::ReadBuf;
use tokio_util::sync::ReusableBoxFuture;

use crate::body::RecvBody;
use crate::connect::{ALPN, NOBODY, handshaken, refused, tls_config};
use crate::connection::begin;
use crate::datagrams::Datagrams;
use crate::ext::Protocol;
use crate::handle::SendRequest;
use crate::options::Options;
use crate::proto::varint;
use crate::socket::Socket;

/// How often the proxy is asked whether it is still there: a tunnel may be silent for longer than QUIC would wait.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// What QUIC sends to the proxy at a time: less than what Ethernet holds, and enough for QUIC's 1200 bytes inside of it.
const MTU: usize = 1400;
/// QUIC's smallest datagram (RFC 9000 14): what lies beneath must carry it.
const SMALLEST_MTU: usize = 1200;

/// The context of UDP payloads (RFC 9298 4).
const UDP_PAYLOAD: u64 = 0;

/// A hop through the HTTP/3 proxy at `https://[user:password@]host[:port]`.
pub fn connect(url: &str) -> Result<Hop> {
    Ok(Proxy::parse(url)?.hop())
}

/// Adds `h3` and `masque`, which is the same, to the schemes that configuration knows: `h3://[user:password@]host[:port]`, with
/// `auth=` as HTTP proxies have it, and headers.
pub fn schemes(schemes: HopSchemes) -> HopSchemes {
    schemes.with("h3", from_spec).with("masque", from_spec)
}

fn from_spec(spec: &HopSpec) -> Result<Hop> {
    if !matches!(spec.url().path(), "" | "/") {
        return Err(Error::usage("a proxy url has no path"));
    }
    let mut proxy = Proxy::new(spec.url().endpoint(443)?);
    if let Some(auth) = spec.auth()?.or_else(|| spec.credentials().map(ProxyAuth::any)) {
        proxy = proxy.auth(auth);
    }
    for (name, value) in spec.headers() {
        proxy = proxy.header(name, value)?;
    }
    Ok(proxy.hop())
}

/// An HTTP/3 proxy, said piece by piece.
#[derive(Debug, Clone)]
#[must_use]
pub struct Proxy {
    endpoint: Endpoint,
    auth: Option<ProxyAuth>,
    headers: HeaderMap,
    template: String,
    options: Options,
}

impl Proxy {
    /// The proxy at an endpoint.
    pub fn new(endpoint: Endpoint) -> Self {
        let options = Options::new().keepalive(KEEPALIVE);
        Self { endpoint, auth: None, headers: HeaderMap::new(), template: MASQUE.to_owned(), options }
    }

    /// `https://[user:password@]host[:port]`.
    pub fn parse(url: &str) -> Result<Self> {
        let url = Url::parse(url)?;
        if !matches!(url.path(), "" | "/") || url.query().is_some() {
            return Err(Error::usage("a proxy url has neither path nor query"));
        }
        if !matches!(url.scheme(), "https" | "h3") {
            return Err(Error::usage(format!("no HTTP/3 proxy has {:?}: https does", url.scheme())));
        }
        let proxy = Self::new(url.endpoint(443)?);
        Ok(match url.credentials() {
            Some(credentials) => proxy.credentials(credentials),
            None => proxy,
        })
    }

    /// User and password: [`ProxyAuth::any`].
    pub fn credentials(self, credentials: Credentials) -> Self {
        self.auth(ProxyAuth::any(credentials))
    }

    /// How to prove to the proxy who one is. Schemes that belong to a connection (NTLM, Negotiate) do not work here: many
    /// tunnels share it.
    pub fn auth(mut self, auth: ProxyAuth) -> Self {
        self.auth = Some(auth);
        self
    }

    /// A token (RFC 6750).
    pub fn bearer(self, token: impl Into<Secret>) -> Self {
        self.auth(ProxyAuth::bearer(token))
    }

    /// A header of each CONNECT request.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self> {
        let wrong = |_| Error::usage("not a header name, or a control character in its value");
        let name = HeaderName::try_from(name).map_err(|error| wrong(error.into()))?;
        let mut value = HeaderValue::try_from(value).map_err(|error| wrong(http::Error::from(error)))?;
        // What a proxy wants to hear may be a key.
        value.set_sensitive(true);
        self.headers.append(name, value);
        Ok(self)
    }

    /// The path by which the proxy is asked for datagrams. Default `/.well-known/masque/udp/{target_host}/{target_port}/`.
    pub fn udp_template(mut self, template: &str) -> Result<Self> {
        check_masque(template)?;
        template.clone_into(&mut self.template);
        Ok(self)
    }

    /// How the connection to the proxy behaves. Default: a sign of life every 10 seconds. Datagrams are always on.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// The hop.
    pub fn hop(mut self) -> Hop {
        self.options = self.options.datagrams(true).early_data(false);
        let user = self.auth.as_ref().and_then(ProxyAuth::user).map(|user| Credentials::new(user, ""));
        let endpoint = self.endpoint.clone();
        let factory = move |place: Place, beneath: Arc<dyn Dial>| -> Arc<dyn Dial> {
            let way = Way::new("h3", self.endpoint.clone(), place, beneath);
            Arc::new(Layer { way, proxy: self.clone(), kept: Kept::default(), remembered: Remembered::default() })
        };
        let hop = Hop::custom("h3", endpoint, Arc::new(factory));
        // What the layer uses is its own; this is for the hop's Debug.
        match user {
            Some(user) => hop.credentials(user),
            None => hop,
        }
    }

    fn request(&self, uri: String) -> Result<Request<()>> {
        let uri = Uri::try_from(uri);
        let uri = uri.map_err(|error| Error::usage("a target that no URI can hold").with_source(error))?;
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = uri;
        *request.headers_mut() = self.headers.clone();
        Ok(request)
    }
}

/// One connection to the proxy.
#[derive(Debug, Clone)]
struct Shared {
    client: SendRequest,
    /// What was passed on the way to the proxy, and how our socket stands.
    hops: Arc<[HopInfo]>,
    peer: Option<SocketAddr>,
    local: Option<SocketAddr>,
}

impl Shareable for Shared {
    fn is_ready(&self) -> bool {
        self.client.is_ready()
    }

    fn is_over(&self) -> bool {
        self.client.is_closed()
    }

    fn hops(&self) -> &[HopInfo] {
        &self.hops
    }
}

#[derive(Debug)]
struct Layer {
    way: Way,
    proxy: Proxy,
    kept: Kept<Shared>,
    remembered: Remembered,
}

impl Layer {
    async fn open(&self, cx: &DialContext) -> Result<Shared> {
        let datagram = self.way.datagrams_to_proxy(cx).await?;
        self.way.secured(cx, self.quic(datagram, cx)).await
    }

    async fn quic(&self, datagram: Datagram, cx: &DialContext) -> Result<Shared> {
        let options = self.proxy.options.clone();
        let room = datagram.max_size().min(MTU);
        if room < SMALLEST_MTU {
            let message = format!("datagrams of {room} bytes are too small for QUIC, which needs {SMALLEST_MTU}");
            return Err(Error::new(Kind::Unsupported, message).with_phase(Phase::Hop));
        }
        let mut transport = options.to_transport()?;
        transport.initial_mtu(u16::try_from(room).unwrap_or(u16::MAX));
        let mut config = ClientConfig::new(Arc::new(tls_config(cx.hop_tls(), ALPN, false)?));
        config.transport_config(Arc::new(transport));
        let proxy = self.way.proxy();
        let (peer, local) = (datagram.info().peer, datagram.local_addr().ok());
        let remote = datagram.peer().and_then(Endpoint::socket_addr);
        let remote = remote.unwrap_or_else(|| SocketAddr::new(NOBODY.into(), proxy.port()));
        let socket = Socket::new(datagram, remote).map_err(|error| Error::io(Phase::Setup, error))?;
        let endpoint = quinn::Endpoint::new_with_abstract_socket(
            EndpointConfig::default(),
            None,
            Arc::clone(&socket) as Arc<dyn quinn::AsyncUdpSocket>,
            Arc::new(TokioRuntime),
        )
        .map_err(|error| Error::io(Phase::Setup, error))?;
        let connecting = endpoint.connect_with(config, remote, &proxy.host_text()).map_err(refused)?;
        let handshake = handshaken(connecting, &socket);
        let quic = clock::within(cx.timeouts().attempt_limit(), Phase::Connect, handshake).await?;
        socket.established();
        let (client, connection) = begin(quic, Some(endpoint), options, ConnectionInfo::default(), None)?;
        // It ends with the last tunnel, once the connector is gone; why it failed is told to each tunnel.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Shared { client, hops: cx.hops().into(), peer, local })
    }

    async fn stream(&self, to: &Endpoint, cx: &DialContext) -> Result<Stream> {
        let open = || -> BoxFuture<'_, _> { Box::pin(self.open(cx)) };
        let ask = |shared: Shared, target: Endpoint| -> BoxFuture<'_, _> {
            Box::pin(async move {
                let authority = target.authority();
                let request = self.proxy.request(authority.clone())?;
                Ok(Stream::from_io(self.ask(&shared, request, &authority).await?.0))
            })
        };
        let (mut stream, _, shared) = self.kept.tunnel(&self.way, to, cx, open, ask).await?;
        stream.info_mut().peer = shared.peer;
        stream.info_mut().local = shared.local;
        Ok(stream)
    }

    async fn datagrams(&self, to: &Endpoint, cx: &DialContext) -> Result<Datagram> {
        let open = || -> BoxFuture<'_, _> { Box::pin(self.open(cx)) };
        let ask = |shared: Shared, target: Endpoint| -> BoxFuture<'_, _> {
            Box::pin(async move {
                let path = masque_path(&self.proxy.template, &target);
                let mut request = self.proxy.request(format!("https://{}{path}", self.way.proxy().authority()))?;
                request.extensions_mut().insert(Protocol::new("connect-udp"));
                request.headers_mut().insert("capsule-protocol", HeaderValue::from_static("?1"));
                let (stream, datagrams) = self.ask(&shared, request, &path).await?;
                let capsules = CapsuleDatagrams::new(Stream::from_io(stream), target.clone());
                let granted = shared.client.peer_settings().is_some_and(|settings| settings.h3_datagram);
                let datagrams = datagrams.filter(|datagrams| granted && datagrams.max_size().is_some());
                Ok(Datagram::from_io(Tunnel::new(datagrams, capsules, shared.local), Some(target)))
            })
        };
        let (mut datagram, _, shared) = self.kept.tunnel(&self.way, to, cx, open, ask).await?;
        datagram.info_mut().peer = shared.peer;
        datagram.info_mut().local = shared.local;
        Ok(datagram)
    }

    /// Asks until the proxy lets us through or says no; each turn is a stream of the same connection. `said` is the target
    /// as the request has it.
    async fn ask(&self, shared: &Shared, request: Request<()>, said: &str) -> Result<(Duplex<In>, Option<Datagrams>)> {
        let mut login = Login::new(self.proxy.auth.as_ref(), &self.remembered, self.way.proxy(), false);
        let mut proof = login.first("CONNECT", said).await?;
        loop {
            let mut request = request.clone();
            if let Some(proof) = &proof {
                request.headers_mut().insert(header::PROXY_AUTHORIZATION, sensitive(proof)?);
            }
            let (writer, reader) = pipe();
            let response = shared.client.send(request.map(|()| Out(reader))).await?;
            let (mut head, body) = response.into_parts();
            if head.status.is_success() {
                login.passed(texts(&head.headers, "proxy-authentication-info"));
                return Ok((Duplex::new(In(body), writer), head.extensions.remove::<Datagrams>()));
            }
            let asked = login.has_spoken();
            if head.status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
                let offered = challenges(texts(&head.headers, "proxy-authenticate"));
                proof = login.again(&offered, "CONNECT", said).await?;
                if proof.is_some() {
                    continue;
                }
            }
            return Err(turned_down(&head, In(body), asked).await);
        }
    }
}

fn sensitive(value: &Secret) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_bytes(value.expose().as_bytes())
        .map_err(|_| Error::usage("credentials that no header can hold"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn texts<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).into_iter().filter_map(|value| std::str::from_utf8(value.as_bytes()).ok())
}

async fn turned_down(head: &Parts, mut body: In, asked: bool) -> Error {
    let code = head.status.as_u16();
    let mut quote = Bytes::new();
    if code != 407 {
        let said = clock::within(Some(QUOTE_WAIT), Phase::Hop, async { Ok(body.next().await) }).await;
        if let Ok(Some(Ok(data))) = said {
            quote = data;
        }
    }
    let offered = texts(&head.headers, "proxy-authenticate");
    refusal(code, head.status.canonical_reason().unwrap_or(""), offered, asked, &quote)
}

impl Dial for Layer {
    fn dial<'a>(&'a self, to: &'a Endpoint, cx: &'a DialContext) -> BoxFuture<'a, Result<Stream>> {
        Box::pin(self.stream(to, cx))
    }

    fn datagram<'a>(&'a self, to: &'a Endpoint, cx: &'a DialContext) -> BoxFuture<'a, Result<Datagram>> {
        Box::pin(self.datagrams(to, cx))
    }
}

type Next = ReusableBoxFuture<'static, Option<Bytes>>;

/// The datagrams of one CONNECT-UDP stream: by HTTP datagrams where both sides have them, and by capsules. Either side may use
/// either at any time, so both are listened to.
struct Tunnel {
    datagrams: Option<(Datagrams, Mutex<Option<Next>>)>,
    capsules: CapsuleDatagrams,
    local: Option<SocketAddr>,
}

async fn next(datagrams: Datagrams) -> Option<Bytes> {
    datagrams.recv().await
}

impl Tunnel {
    fn new(datagrams: Option<Datagrams>, capsules: CapsuleDatagrams, local: Option<SocketAddr>) -> Self {
        let datagrams = datagrams.map(|datagrams| {
            let first = ReusableBoxFuture::new(next(datagrams.clone()));
            (datagrams, Mutex::new(Some(first)))
        });
        Self { datagrams, capsules, local }
    }

    /// The next UDP payload that came as an HTTP datagram; pending also when none will come any more, which the stream tells.
    fn poll_datagram(&self, cx: &mut Context<'_>) -> Poll<Bytes> {
        let Some((datagrams, future)) = &self.datagrams else { return Poll::Pending };
        let mut slot = future.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let Some(future) = slot.as_mut() else { return Poll::Pending };
            let Some(mut datagram) = ready!(future.poll(cx)) else {
                *slot = None;
                return Poll::Pending;
            };
            future.set(next(datagrams.clone()));
            if let Some((UDP_PAYLOAD, length)) = varint::read(&datagram) {
                datagram.advance(length);
                return Poll::Ready(datagram);
            }
        }
    }
}

impl DatagramIo for Tunnel {
    fn poll_send_to(&self, cx: &mut Context<'_>, datagram: &[u8], to: &Endpoint) -> Poll<io::Result<()>> {
        let Some((datagrams, _)) = &self.datagrams else {
            return self.capsules.poll_send_to(cx, datagram, to);
        };
        if to != self.capsules.target() {
            let message = format!("the tunnel leads to {} alone", self.capsules.target().authority());
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidInput, message)));
        }
        let mut payload = Vec::with_capacity(datagram.len() + 1);
        // A context of 0 is one byte of 0 (RFC 9000 16).
        payload.push(0);
        payload.extend_from_slice(datagram);
        // RFC 9298 6.1: what is too large is not to go by capsules, or path MTU discovery inside would learn nothing.
        Poll::Ready(datagrams.send(&payload).map_err(io::Error::from))
    }

    fn poll_recv_from(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<SocketAddr>> {
        if let Poll::Ready(payload) = self.poll_datagram(cx) {
            let n = payload.len().min(buf.remaining());
            buf.put_slice(payload.get(..n).unwrap_or_default());
            let unknown = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
            return Poll::Ready(Ok(self.capsules.target().socket_addr().unwrap_or(unknown)));
        }
        self.capsules.poll_recv_from(cx, buf)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local.unwrap_or_else(|| (Ipv4Addr::UNSPECIFIED, 0).into()))
    }

    fn max_size(&self) -> usize {
        match &self.datagrams {
            Some((datagrams, _)) => datagrams.max_size().unwrap_or_default().saturating_sub(1),
            None => self.capsules.max_size(),
        }
    }
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel").field("target", self.capsules.target()).finish_non_exhaustive()
    }
}

/// What is written to the tunnel, as a request's body.
struct Out(PipeReader);

impl Body for Out {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.0).poll_next(cx).map(|data| data.map(|data| data.map(Frame::data)))
    }
}

/// What is read from the tunnel: a response's body.
struct In(RecvBody);

impl Items for In {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            return Poll::Ready(match ready!(Pin::new(&mut self.0).poll_frame(cx)) {
                None => None,
                Some(Err(error)) => Some(Err(error)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Some(Ok(data)),
                    Err(_) => continue,
                },
            });
        }
    }
}
