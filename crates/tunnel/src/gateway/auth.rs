//! Who may open a tunnel, and to where.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use http::{HeaderMap, HeaderValue, header};
use portolan_core::{BoxFuture, Credentials, Endpoint, Secret};

/// A client that asks for a tunnel, as the authentication hook sees it.
#[derive(Clone)]
pub struct Attempt {
    pub(super) headers: HeaderMap,
    pub(super) path: String,
    pub(super) peer: SocketAddr,
    pub(super) target: Endpoint,
}

impl Attempt {
    /// The headers of the upgrade.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The path of the upgrade, without its query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whom the connection is from: a proxy before the gateway, where there is one.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Where it wants to go. The address policy is asked later, and by itself.
    pub fn target(&self) -> &Endpoint {
        &self.target
    }

    /// The user and password of Basic authentication (RFC 7617), if those were sent.
    pub fn basic(&self) -> Option<Credentials> {
        let text = self.authorization("basic")?;
        let pair = base64::engine::general_purpose::STANDARD.decode(text.expose()).ok()?;
        let pair = Secret::new(String::from_utf8(pair).ok()?);
        let (user, password) = pair.expose().split_once(':')?;
        Some(Credentials::new(user, password))
    }

    /// The token of Bearer authentication (RFC 6750), if one was sent.
    pub fn bearer(&self) -> Option<Secret> {
        self.authorization("bearer")
    }

    fn authorization(&self, scheme: &str) -> Option<Secret> {
        let (said, rest) = self.headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        said.eq_ignore_ascii_case(scheme).then(|| Secret::new(rest.trim()))
    }
}

impl fmt::Debug for Attempt {
    /// Without the headers, which hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Attempt");
        out.field("peer", &self.peer).field("path", &self.path).field("target", &self.target).finish_non_exhaustive()
    }
}

/// What the authentication hook says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// The client may have a tunnel. The identity stands in logs, and is what the limit per client counts.
    Allow(Option<String>),
    /// 401: it is to say who it is, by this challenge (`Basic realm="..."`).
    Unauthorized(String),
    /// 403: it may not, whoever it is.
    Forbidden,
}

impl Access {
    /// Allowed, under this identity.
    pub fn allow(identity: impl Into<String>) -> Self {
        Self::Allow(Some(identity.into()))
    }

    /// 401 with a challenge for Basic authentication.
    pub fn ask_basic() -> Self {
        Self::Unauthorized("Basic realm=\"tunnel\", charset=\"UTF-8\"".to_owned())
    }

    /// The challenge as a header; one that no header can hold is left out.
    pub(super) fn challenge(text: &str) -> Option<HeaderValue> {
        HeaderValue::try_from(text).ok()
    }
}

/// The hook as it is kept.
pub(super) type Hook = Arc<dyn Fn(Attempt) -> BoxFuture<'static, Access> + Send + Sync>;
