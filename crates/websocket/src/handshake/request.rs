//! What the client asks.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderName};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Uri, Version};
use portolan_core::{Credentials, Error, Kind, Result, Url};

use crate::codec::extension::is_token;
use crate::codec::{Deflate, PROTOCOL};
use crate::options::Options;

/// Headers that the handshake itself writes (RFC 6455 4.1): the caller's own would contradict them.
const OWN: [HeaderName; 10] = [
    header::HOST,
    header::UPGRADE,
    header::CONNECTION,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_EXTENSIONS,
    header::SEC_WEBSOCKET_PROTOCOL,
    header::SEC_WEBSOCKET_ACCEPT,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
];

/// A request to open a WebSocket: where, and with which headers.
///
/// A request is for one handshake: its key is random. [`renewed`](Self::renewed) gives it a new one.
///
/// ```
/// use portolan_websocket::Request;
///
/// let request = Request::new("wss://example.org/chat")?.subprotocol("mqtt")?.header("cookie", "a=b")?;
/// # Ok::<(), portolan_core::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Request {
    url: Url,
    pub(super) subprotocols: Vec<String>,
    pub(super) headers: HeaderMap,
    /// For a server that asks for them.
    pub(super) digest: Option<Credentials>,
    key: Key,
}

/// The nonce; it is no secret, but nothing for a log either.
#[derive(Clone)]
struct Key([u8; 24]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    fn new() -> Result<Self> {
        let (mut nonce, mut key) = ([0; 16], [0; 24]);
        getrandom::fill(&mut nonce).map_err(|_| Error::new(Kind::Unsupported, "no random numbers from the system"))?;
        // Sixteen bytes are 24 characters, always.
        STANDARD.encode_slice(nonce, &mut key).map_err(|_| usage("a nonce that does not fit"))?;
        Ok(Self(key))
    }
}

impl Request {
    /// A request for `ws://` or `wss://` (`http` and `https` mean the same). A user and password in the URL become Basic
    /// authentication; a fragment is refused (RFC 6455 3).
    pub fn new(url: &str) -> Result<Self> {
        let url = Url::parse(url)?;
        if !matches!(url.scheme(), "ws" | "wss" | "http" | "https") {
            return Err(usage("the scheme is neither ws nor wss"));
        }
        if url.fragment().is_some() {
            return Err(usage("a WebSocket URL has no fragment"));
        }
        url.endpoint(80)?;
        let credentials = url.credentials();
        let request = Self { url, subprotocols: Vec::new(), headers: HeaderMap::new(), digest: None, key: Key::new()? };
        match credentials {
            Some(credentials) => request.basic_auth(&credentials),
            None => Ok(request),
        }
    }

    /// The same with a new key, for another attempt.
    pub fn renewed(&self) -> Result<Self> {
        Ok(Self { key: Key::new()?, ..self.clone() })
    }

    /// The same at another URL, with a new key. What authenticates there is the URL's own, and else what was said before.
    pub fn with_url(&self, url: &str) -> Result<Self> {
        let fresh = Self::new(url)?;
        let mut headers = self.headers.clone();
        for (name, value) in &fresh.headers {
            headers.insert(name, value.clone());
        }
        Ok(Self { subprotocols: self.subprotocols.clone(), headers, digest: self.digest.clone(), ..fresh })
    }

    /// A header more: a cookie, an authorization. Those that the handshake itself writes are refused.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self> {
        let name = HeaderName::try_from(name).map_err(|_| usage("a header name that is none"))?;
        let mut value = HeaderValue::try_from(value).map_err(|_| usage("a header value that is none"))?;
        value.set_sensitive([header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE].contains(&name));
        if OWN.contains(&name) {
            return Err(usage("a header that the handshake writes itself"));
        }
        self.headers.append(name, value);
        Ok(self)
    }

    /// Where the caller's code comes from (RFC 6454): servers for browsers check it.
    pub fn origin(self, origin: &str) -> Result<Self> {
        self.header("origin", origin)
    }

    /// Offers a subprotocol; the first offered is the one preferred.
    pub fn subprotocol(mut self, name: &str) -> Result<Self> {
        if !is_token(name) || self.subprotocols.iter().any(|known| known == name) {
            return Err(usage("a subprotocol that is no token, or offered twice"));
        }
        self.subprotocols.push(name.to_owned());
        Ok(self)
    }

    /// Basic authentication.
    pub fn basic_auth(mut self, credentials: &Credentials) -> Result<Self> {
        let pair = format!("{}:{}", credentials.user, credentials.password.expose());
        self.set_authorization(&format!("Basic {}", STANDARD.encode(pair)))?;
        Ok(self)
    }

    /// A bearer token.
    pub fn bearer_auth(mut self, token: &portolan_core::Secret) -> Result<Self> {
        self.set_authorization(&format!("Bearer {}", token.expose()))?;
        Ok(self)
    }

    fn set_authorization(&mut self, value: &str) -> Result<()> {
        let mut value = HeaderValue::try_from(value).map_err(|_| usage("credentials that no header can carry"))?;
        value.set_sensitive(true);
        self.headers.insert(header::AUTHORIZATION, value);
        Ok(())
    }

    /// Where to.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Whether TLS is asked for.
    pub fn is_secure(&self) -> bool {
        matches!(self.url.scheme(), "wss" | "https")
    }

    pub(crate) fn default_port(&self) -> u16 {
        if self.is_secure() { 443 } else { 80 }
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.key.0
    }

    pub(super) fn target(&self) -> String {
        let path = if self.url.path().is_empty() { "/" } else { self.url.path() };
        match self.url.query() {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        }
    }

    /// What `Host` says: the authority, without the scheme's own port.
    fn host(&self) -> Result<String> {
        let endpoint = self.url.endpoint(self.default_port())?;
        let authority = endpoint.authority();
        let port = format!(":{}", self.default_port());
        Ok(authority.strip_suffix(&port).map_or(authority.clone(), str::to_owned))
    }

    /// The headers that all versions of HTTP share.
    fn common(&self, deflate: Option<&Deflate>) -> Result<HeaderMap> {
        let mut headers = self.headers.clone();
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        if !self.subprotocols.is_empty() {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value(&self.subprotocols.join(", "))?);
        }
        if let Some(deflate) = deflate {
            headers.insert(header::SEC_WEBSOCKET_EXTENSIONS, value(&deflate.offer())?);
        }
        Ok(headers)
    }

    /// The upgrade of HTTP/1.1 (RFC 6455 4.1), for an HTTP client that sends it.
    pub fn upgrade(&self, options: &Options) -> Result<http::Request<()>> {
        let mut headers = self.common(options.deflate.as_ref())?;
        headers.insert(header::HOST, value(&self.host()?)?);
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        let key = HeaderValue::from_bytes(self.key()).map_err(|_| usage("a key that no header can carry"))?;
        headers.insert(header::SEC_WEBSOCKET_KEY, key);
        let mut request = http::Request::new(());
        *request.uri_mut() = self.target().parse().map_err(|_| usage("a path that HTTP does not take"))?;
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// The upgrade as it goes onto the wire.
    pub(crate) fn upgrade_bytes(&self, options: &Options) -> Result<Vec<u8>> {
        let request = self.upgrade(options)?;
        let mut head = String::with_capacity(512);
        let _ = write!(head, "GET {} HTTP/1.1\r\n", request.uri());
        let mut head = head.into_bytes();
        for (name, value) in request.headers() {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                head.extend_from_slice(part);
            }
        }
        head.extend_from_slice(b"\r\n");
        Ok(head)
    }

    /// The extended CONNECT of HTTP/2 (RFC 8441 5) and HTTP/3 (RFC 9220): no key, no upgrade. `:protocol` is `websocket`,
    /// which travels in the extension type of the HTTP client.
    pub fn extended(&self, options: &Options) -> Result<http::Request<()>> {
        let mut request = http::Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.version_mut() = Version::HTTP_2;
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(if self.is_secure() { Scheme::HTTPS } else { Scheme::HTTP });
        let bad = |_| usage("an authority or path that HTTP does not take");
        uri.authority = Some(Authority::try_from(self.host()?).map_err(bad)?);
        uri.path_and_query = Some(PathAndQuery::try_from(self.target()).map_err(bad)?);
        *request.uri_mut() = Uri::from_parts(uri).map_err(|_| usage("a URL that HTTP does not take"))?;
        *request.headers_mut() = self.common(options.deflate.as_ref())?;
        Ok(request)
    }
}

fn value(text: &str) -> Result<HeaderValue> {
    HeaderValue::try_from(text).map_err(|_| usage("a value that no header can carry"))
}

fn usage(message: &'static str) -> Error {
    Error::usage(message).with_protocol(PROTOCOL)
}
