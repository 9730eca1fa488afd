//! What a caller says of how to prove to a proxy who one is.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use base64::Engine;
use zeroize::Zeroizing;

use crate::dial::BoxFuture;
use crate::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::secret::{Credentials, Secret};

/// Supplies the tokens of a scheme that takes turns and belongs to one connection: Negotiate (RFC 4559) with a GSS library of
/// your own, or NTLM.
///
/// Such schemes work with proxies of HTTP/1.1 alone: on HTTP/2 and 3 many share a connection.
pub trait TokenSource: Send + Sync + fmt::Debug + 'static {
    /// The scheme, as `Proxy-Authenticate` names it.
    fn scheme(&self) -> &'static str;

    /// Begins for one connection to `proxy`: a Kerberos principal is made of its name, `HTTP@proxy.example`.
    fn begin(&self, proxy: &Endpoint) -> Result<Box<dyn TokenExchange>>;
}

/// One proof, in turns.
pub trait TokenExchange: Send {
    /// The token to send: the first one where nothing was `received`, else the answer to the proxy's. An error ends the
    /// attempt; give it [`Kind::Auth`](crate::Kind::Auth).
    fn next<'a>(&'a mut self, received: Option<&'a [u8]>) -> BoxFuture<'a, Result<Vec<u8>>>;
}

/// How one proves to a proxy who one is. `Debug` shows no secret.
///
/// [`Hop::credentials`](crate::Hop::credentials) stands for [`any`](Self::any).
///
/// ```
/// use portolan_core::{Credentials, Hop, ProxyAuth};
///
/// let hop = Hop::parse("http://proxy.example:3128")?.auth(ProxyAuth::digest(Credentials::new("joe", "sesame")));
/// assert_eq!(format!("{hop:?}"), "http://joe:***@proxy.example:3128");
/// # Ok::<(), portolan_core::Error>(())
/// ```
#[derive(Clone)]
pub struct ProxyAuth(pub(super) How);

#[derive(Clone)]
pub(super) enum How {
    Basic(Credentials),
    Any(Credentials),
    Strongest(Credentials),
    Digest(Credentials),
    Bearer(Secret),
    Tokens(Arc<dyn TokenSource>),
}

impl ProxyAuth {
    /// Basic with the first request, which is what nearly all proxies take; to one that takes something else, the strongest of
    /// what it offers: Digest, then NTLM where it is built in. Basic is readable to whoever sees the connection to the proxy.
    pub fn any(credentials: Credentials) -> Self {
        Self(How::Any(credentials))
    }

    /// Nothing before the proxy asks, then the strongest of what it offers: Digest, NTLM where it is built in, Basic. The first
    /// tunnel costs a round trip more; the next ones know. Whoever is between can still ask for Basic: [`digest`](Self::digest)
    /// never gives the password away.
    pub fn strongest(credentials: Credentials) -> Self {
        Self(How::Strongest(credentials))
    }

    /// Basic alone (RFC 7617).
    pub fn basic(credentials: Credentials) -> Self {
        Self(How::Basic(credentials))
    }

    /// Digest alone (RFC 7616): the password never leaves. The first tunnel costs a round trip more, to learn the nonce.
    pub fn digest(credentials: Credentials) -> Self {
        Self(How::Digest(credentials))
    }

    /// A token (RFC 6750): as readable as Basic.
    pub fn bearer(token: impl Into<Secret>) -> Self {
        Self(How::Bearer(token.into()))
    }

    /// Tokens of a scheme that takes turns.
    pub fn tokens(source: impl TokenSource) -> Self {
        Self(How::Tokens(Arc::new(source)))
    }

    /// Negotiate by one token for each connection, as Kerberos needs: `token` is given the proxy, and makes it. The proxy's own
    /// token, if it sends one, is not looked at. For schemes of more turns see [`tokens`](Self::tokens).
    pub fn negotiate<F, Fut>(token: F) -> Self
    where
        F: Fn(Endpoint) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<u8>>> + Send + 'static,
    {
        Self::tokens(Single(Arc::new(move |proxy| Box::pin(token(proxy)))))
    }

    /// NTLM where this build has it.
    pub(crate) fn ntlm_if_built(credentials: Credentials) -> Option<Self> {
        super::ntlm::tokens(&credentials).map(|source| Self(How::Tokens(source)))
    }

    /// The proof that goes with every request, where it needs no question.
    pub(crate) fn at_once(&self) -> Option<Result<Secret>> {
        match &self.0 {
            How::Basic(who) | How::Any(who) => Some(basic(who)),
            How::Bearer(token) => Some(bearer(token)),
            How::Strongest(_) | How::Digest(_) | How::Tokens(_) => None,
        }
    }

    /// Whose proof it is, where that has a name.
    pub fn user(&self) -> Option<&str> {
        match &self.0 {
            How::Basic(who) | How::Any(who) | How::Strongest(who) | How::Digest(who) => Some(&who.user),
            How::Bearer(_) | How::Tokens(_) => None,
        }
    }
}

impl fmt::Debug for ProxyAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match &self.0 {
            How::Basic(_) => "basic",
            How::Any(_) => "any",
            How::Strongest(_) => "strongest",
            How::Digest(_) => "digest",
            How::Bearer(_) => "bearer",
            How::Tokens(source) => source.scheme(),
        };
        write!(f, "{name}({}:***)", self.user().unwrap_or_default())
    }
}

type MakeToken = dyn Fn(Endpoint) -> BoxFuture<'static, Result<Vec<u8>>> + Send + Sync;

/// A source of single tokens.
#[derive(Clone)]
struct Single(Arc<MakeToken>);

impl fmt::Debug for Single {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Single")
    }
}

impl TokenSource for Single {
    fn scheme(&self) -> &'static str {
        "Negotiate"
    }

    fn begin(&self, proxy: &Endpoint) -> Result<Box<dyn TokenExchange>> {
        Ok(Box::new(SingleToken { source: self.clone(), proxy: proxy.clone() }))
    }
}

struct SingleToken {
    source: Single,
    proxy: Endpoint,
}

impl TokenExchange for SingleToken {
    fn next<'a>(&'a mut self, received: Option<&'a [u8]>) -> BoxFuture<'a, Result<Vec<u8>>> {
        match received {
            None => (self.source.0)(self.proxy.clone()),
            Some(_) => Box::pin(async { Err(super::login::refused("the proxy wants more than one token")) }),
        }
    }
}

/// RFC 7617.
pub(super) fn basic(who: &Credentials) -> Result<Secret> {
    if who.user.contains(':') {
        return Err(Error::usage("a user name with a colon cannot be sent to an HTTP proxy (RFC 7617 2)"));
    }
    let pair = Zeroizing::new(format!("{}:{}", who.user, who.password.expose()));
    Ok(Secret::new(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair.as_bytes()))))
}

/// RFC 6750.
pub(super) fn bearer(token: &Secret) -> Result<Secret> {
    let token = token.expose();
    // RFC 6750 2.1: letters, digits and a few signs.
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
    if token.is_empty() || !token.bytes().all(fits) {
        return Err(Error::usage("not a bearer token (RFC 6750 2.1)"));
    }
    Ok(Secret::new(format!("Bearer {token}")))
}
