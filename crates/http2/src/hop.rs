//! HTTP/2 proxies as hops: many tunnels on one connection.
//!
//! - **Port and TLS**: 443 with TLS, whose ALPN is `h2` alone; or cleartext by prior knowledge (80), inside another tunnel or on
//!   a network of one's own: credentials are readable there.
//! - **What works**: CONNECT (RFC 9113 8.5) for streams, CONNECT-UDP by capsules (RFC 9298, RFC 9297) for datagrams; basic,
//!   digest and bearer credentials. One connection to the proxy serves all tunnels of a connector; a further one is opened when the proxy's
//!   limit of streams is reached, and a new one when it is closed or draining. A tunnel that is dropped resets its stream alone.
//! - **What is not done**: NTLM and Negotiate, which belong to a connection.
//! - **Tested against**: a scripted proxy on the h2 crate, nghttpx.
//! - **Security**: the proxy's certificate is checked by the connector's [`hop_tls`](portolan_core::ConnectorBuilder::hop_tls).
//!   A refused tunnel is an error that names the hop; nothing ever goes around the proxy.
//!
//! ```
//! use portolan_core::{Connector, Hop};
//!
//! let hop = portolan_http2::hop::connect("https://ann:sesame@proxy.example")?;
//! assert_eq!(format!("{hop:?}"), "h2://ann:***@proxy.example:443");
//! let net = Connector::builder().via(Hop::parse("socks5h://inner.example:1080")?).via(hop).build()?;
//! # Ok::<(), portolan_core::Error>(())
//! ```

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
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
    BoxError, BoxFuture, Credentials, Datagram, Dial, DialContext, Endpoint, Error, Hop, HopInfo, HopSchemes, HopSpec,
    Kind, Phase, Place, ProxyAuth, Result, Secret, Stream, Url, clock,
};

use crate::body::RecvBody;
use crate::connection::handshake;
use crate::ext::Protocol;
use crate::handle::SendRequest;
use crate::options::Options;
use crate::proto::code::Code;

/// A proxy that has said nothing for this long is asked whether it is still there, and given up after that.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// A hop through the HTTP/2 proxy at `https://[user:password@]host[:port]`, or `http://` for cleartext.
pub fn connect(url: &str) -> Result<Hop> {
    Ok(Proxy::parse(url)?.hop())
}

/// Adds `h2` and `h2c` (cleartext) to the schemes that configuration knows: `h2://[user:password@]host[:port]`, with `auth=` as HTTP
/// proxies have it, and headers.
pub fn schemes(schemes: HopSchemes) -> HopSchemes {
    schemes.with("h2", from_spec).with("h2c", from_spec)
}

fn from_spec(spec: &HopSpec) -> Result<Hop> {
    if !matches!(spec.url().path(), "" | "/") {
        return Err(Error::usage("a proxy url has no path"));
    }
    let mut proxy = match spec.url().scheme() {
        "h2c" => Proxy::cleartext(spec.url().endpoint(80)?),
        _ => Proxy::new(spec.url().endpoint(443)?),
    };
    if let Some(auth) = spec.auth()?.or_else(|| spec.credentials().map(ProxyAuth::any)) {
        proxy = proxy.auth(auth);
    }
    for (name, value) in spec.headers() {
        proxy = proxy.header(name, value)?;
    }
    Ok(proxy.hop())
}

/// An HTTP/2 proxy, said piece by piece.
#[derive(Debug, Clone)]
#[must_use]
pub struct Proxy {
    endpoint: Endpoint,
    tls: bool,
    auth: Option<ProxyAuth>,
    headers: HeaderMap,
    template: String,
    options: Options,
}

impl Proxy {
    /// A proxy inside TLS.
    pub fn new(endpoint: Endpoint) -> Self {
        let options = Options::new().keepalive(KEEPALIVE.0, KEEPALIVE.1);
        Self { endpoint, tls: true, auth: None, headers: HeaderMap::new(), template: MASQUE.to_owned(), options }
    }

    /// A proxy in cleartext, by prior knowledge.
    pub fn cleartext(endpoint: Endpoint) -> Self {
        Self { tls: false, ..Self::new(endpoint) }
    }

    /// `https://[user:password@]host[:port]`, or `http://` for cleartext.
    pub fn parse(url: &str) -> Result<Self> {
        let url = Url::parse(url)?;
        if !matches!(url.path(), "" | "/") || url.query().is_some() {
            return Err(Error::usage("a proxy url has neither path nor query"));
        }
        let proxy = match url.scheme() {
            "https" | "h2" => Self::new(url.endpoint(443)?),
            "http" | "h2c" => Self::cleartext(url.endpoint(80)?),
            other => return Err(Error::usage(format!("no HTTP/2 proxy has {other:?}: https and http do"))),
        };
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

    /// How the connection to the proxy behaves. Default: a PING after 30 seconds of silence, given up after 10 more.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// The hop.
    pub fn hop(self) -> Hop {
        let kind = if self.tls { "h2" } else { "h2c" };
        let user = self.auth.as_ref().and_then(ProxyAuth::user).map(|user| Credentials::new(user, ""));
        let endpoint = self.endpoint.clone();
        let factory = move |place: Place, beneath: Arc<dyn Dial>| -> Arc<dyn Dial> {
            let way = Way::new(kind, self.endpoint.clone(), place, beneath);
            Arc::new(Layer { way, proxy: self.clone(), kept: Kept::default(), remembered: Remembered::default() })
        };
        let hop = Hop::custom(kind, endpoint, Arc::new(factory));
        // What the layer uses is its own; this is for the hop's Debug.
        match user {
            Some(user) => hop.credentials(user),
            None => hop,
        }
    }

    fn request(&self, uri: Uri) -> Result<Request<()>> {
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = uri;
        *request.headers_mut() = self.headers.clone();
        Ok(request)
    }
}

fn uri(text: String) -> Result<Uri> {
    Uri::try_from(text).map_err(|error| Error::usage("a target that no URI can hold").with_source(error))
}

/// Who answers in another version is no such proxy; datagrams that it carries none of are another matter.
fn of_the_proxy(error: Error) -> Error {
    let other = error.code() == Some(i64::from(Code::HTTP_1_1_REQUIRED.value()));
    if other { Error::new(Kind::Hop, error.message().to_owned()).with_source(error) } else { error }
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

/// What is asked of the proxy.
#[derive(Debug, Clone, Copy)]
enum Ask {
    Stream,
    Datagrams,
}

impl Layer {
    async fn tunnel(&self, ask: Ask, to: &Endpoint, cx: &DialContext) -> Result<(Stream, Endpoint)> {
        let open = || -> BoxFuture<'_, _> { Box::pin(self.open(cx)) };
        let ask = |shared, target| -> BoxFuture<'_, _> { Box::pin(self.ask(shared, ask, target)) };
        let (mut stream, target, shared) = self.kept.tunnel(&self.way, to, cx, open, ask).await?;
        stream.info_mut().peer = shared.peer;
        stream.info_mut().local = shared.local;
        Ok((stream, target))
    }

    async fn open(&self, cx: &DialContext) -> Result<Shared> {
        let mut stream = self.way.to_proxy(cx).await?;
        if self.proxy.tls {
            stream = self.way.start_tls(stream, &[b"h2"], cx).await?;
            if stream.alpn() != Some(b"h2") {
                let error = Error::new(Kind::Hop, "the proxy did not choose HTTP/2 (ALPN h2)").with_phase(Phase::Hop);
                return Err(self.way.unreachable(error));
            }
        }
        let (peer, local) = (stream.info().peer, stream.info().local);
        let (client, connection) = handshake(stream, self.proxy.options.clone())?;
        // It ends with the last tunnel, once the connector is gone; why it failed is told to each tunnel.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Shared { client, hops: cx.hops().into(), peer, local })
    }

    /// Asks until the proxy lets us through or says no; each turn is a stream of the same connection.
    async fn ask(&self, shared: Shared, ask: Ask, target: Endpoint) -> Result<Stream> {
        let mut login = Login::new(self.proxy.auth.as_ref(), &self.remembered, self.way.proxy(), false);
        let (request, said) = self.request(ask, &target)?;
        let mut proof = login.first("CONNECT", &said).await?;
        loop {
            let mut request = request.clone();
            if let Some(proof) = &proof {
                request.headers_mut().insert(header::PROXY_AUTHORIZATION, sensitive(proof)?);
            }
            let (writer, reader) = pipe();
            let response = shared.client.send(request.map(|()| Out(reader))).await.map_err(of_the_proxy)?;
            let (head, body) = response.into_parts();
            if head.status.is_success() {
                login.passed(texts(&head.headers, "proxy-authentication-info"));
                return Ok(Stream::from_io(Duplex::new(In(body), writer)));
            }
            let asked = login.has_spoken();
            if head.status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
                let offered = challenges(texts(&head.headers, "proxy-authenticate"));
                proof = login.again(&offered, "CONNECT", &said).await?;
                if proof.is_some() {
                    continue;
                }
            }
            return Err(refused(&head, In(body), asked).await);
        }
    }

    /// The request without its proof, and its target as it is written there.
    fn request(&self, ask: Ask, target: &Endpoint) -> Result<(Request<()>, String)> {
        let authority = target.authority();
        Ok(match ask {
            Ask::Stream => (self.proxy.request(uri(authority.clone())?)?, authority),
            Ask::Datagrams => {
                let scheme = if self.proxy.tls { "https" } else { "http" };
                let path = masque_path(&self.proxy.template, target);
                let mut request =
                    self.proxy.request(uri(format!("{scheme}://{}{path}", self.way.proxy().authority()))?)?;
                request.extensions_mut().insert(Protocol::new("connect-udp"));
                request.headers_mut().insert("capsule-protocol", HeaderValue::from_static("?1"));
                (request, path)
            }
        })
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

async fn refused(head: &Parts, mut body: In, asked: bool) -> Error {
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
        Box::pin(async move { Ok(self.tunnel(Ask::Stream, to, cx).await?.0) })
    }

    fn datagram<'a>(&'a self, to: &'a Endpoint, cx: &'a DialContext) -> BoxFuture<'a, Result<Datagram>> {
        Box::pin(async move {
            let (stream, target) = self.tunnel(Ask::Datagrams, to, cx).await?;
            let (peer, local) = (stream.info().peer, stream.info().local);
            let mut datagram = Datagram::from_io(CapsuleDatagrams::new(stream, target.clone()), Some(target));
            datagram.info_mut().peer = peer;
            datagram.info_mut().local = local;
            Ok(datagram)
        })
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
