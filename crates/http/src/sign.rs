//! What signs requests as they go out.

use std::fmt;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use portolan_core::{Error, Result};

use crate::body::Body;
use crate::middleware::BoxFuture;
use crate::response::Response;

/// Signs requests. It sees each attempt as it goes out, with its cookies and every other field in place: a request that is tried
/// again or that its own origin redirects is signed anew. A request that was redirected to another origin is not signed, nor is it
/// when it is sent back from there.
///
/// ```
/// use http::HeaderValue;
/// use http::request::Parts;
/// use portolan_core::{Result, Secret};
/// use portolan_http::{Body, Client, Sign};
///
/// struct Stamped(Secret);
///
/// impl Sign for Stamped {
///     async fn sign(&self, request: &mut Parts, body: Body) -> Result<Body> {
///         let stamp = format!("{}:{}", request.method, self.0.expose().len());
///         request.headers.insert("x-stamp", HeaderValue::try_from(stamp).expect("it is visible ASCII"));
///         Ok(body)
///     }
/// }
///
/// let client = Client::builder().sign(Stamped("sesame".into())).build()?;
/// # Ok::<(), portolan_core::Error>(())
/// ```
pub trait Sign: Send + Sync + 'static {
    /// Signs one attempt: changes its fields, and gives the body that goes with them. What it changes is for this attempt alone. A
    /// body that can be had once only is signed once, for all attempts.
    fn sign(&self, request: &mut Parts, body: Body) -> impl Future<Output = Result<Body>> + Send;

    /// Sees the response to what was signed as it came, before anything is undone or kept of it; may refuse it, or change it.
    fn answered(&self, request: &Parts, response: Response) -> Result<Response> {
        let _ = request;
        Ok(response)
    }

    /// Told of a response that refuses (401 or 403), once for each request whose body can be had again: whether it is worth signing
    /// and sending it once more. Default: it is not.
    fn refused(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let _ = (status, headers);
        false
    }
}

/// The same behind a pointer.
pub(crate) trait Signer: Send + Sync {
    fn sign<'a>(&'a self, request: &'a mut Parts, body: Body) -> BoxFuture<'a, Result<Body>>;
    fn answered(&self, request: &Parts, response: Response) -> Result<Response>;
    fn refused(&self, status: StatusCode, headers: &HeaderMap) -> bool;
}

impl<S: Sign> Signer for S {
    fn sign<'a>(&'a self, request: &'a mut Parts, body: Body) -> BoxFuture<'a, Result<Body>> {
        Box::pin(Sign::sign(self, request, body))
    }

    fn answered(&self, request: &Parts, response: Response) -> Result<Response> {
        Sign::answered(self, request, response)
    }

    fn refused(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        Sign::refused(self, status, headers)
    }
}

/// Who signs.
#[derive(Clone)]
pub(crate) struct By(Arc<dyn Signer>);

impl By {
    pub(crate) fn new(signer: impl Sign) -> Self {
        Self(Arc::new(signer))
    }

    pub(crate) fn answered(&self, request: &Parts, response: Response) -> Result<Response> {
        self.0.answered(request, response)
    }

    pub(crate) fn refused(&self, response: &Response) -> bool {
        self.0.refused(response.status(), response.headers())
    }
}

impl fmt::Debug for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer")
    }
}

/// One attempt as it was signed.
pub(crate) struct Signed {
    pub(crate) parts: Parts,
    pub(crate) body: Body,
    /// The body can't be had again, so that this one is kept.
    lasting: bool,
}

/// Signs the next attempt; one of a body that can't be had again stays as it was.
pub(crate) async fn renew<'a>(
    by: &By,
    signed: &'a mut Option<Box<Signed>>,
    parts: &Parts,
    body: &mut Body,
) -> Result<&'a mut Signed> {
    let next = match signed.take().filter(|signed| signed.lasting) {
        Some(signed) => signed,
        None => {
            let (body, lasting) = match body.try_clone() {
                Some(body) => (body, false),
                None => (body.spend(), true),
            };
            let mut parts = parts.clone();
            plain_authority(&mut parts)?;
            let body = by.0.sign(&mut parts, body).await.map_err(|error| error.with_protocol(crate::PROTOCOL))?;
            Box::new(Signed { parts, body, lasting })
        }
    };
    Ok(signed.insert(next))
}

/// The authority as all versions of HTTP send it alike: in lower case, without the default port.
pub(crate) fn plain_authority(parts: &mut Parts) -> Result<()> {
    let Some(authority) = parts.uri.authority().filter(|_| parts.method != http::Method::CONNECT) else {
        return Ok(());
    };
    let default = if parts.uri.scheme_str() == Some("https") { ":443" } else { ":80" };
    let plain = authority.as_str().to_ascii_lowercase();
    let plain = plain.strip_suffix(default).unwrap_or(&plain);
    if plain == authority.as_str() {
        return Ok(());
    }
    let mut uri = parts.uri.clone().into_parts();
    uri.authority = plain.parse().ok();
    parts.uri = http::Uri::from_parts(uri).map_err(|_| Error::usage("a URL without a host"))?;
    Ok(())
}

/// Whom the request is for, as the server will read it: `host` where the caller says it, the URL's authority otherwise.
#[cfg_attr(
    not(any(feature = "sigv4", feature = "signatures")),
    expect(dead_code, reason = "for signers of this crate")
)]
pub(crate) fn authority(parts: &Parts) -> Result<String> {
    if let Some(host) = parts.headers.get(header::HOST) {
        return host.to_str().map(str::to_owned).map_err(|_| Error::usage("a host that is no text"));
    }
    let authority = parts.uri.authority().ok_or_else(|| Error::usage("a request without a host"))?.as_str();
    Ok(authority.rsplit_once('@').map_or(authority, |(_, host)| host).to_owned())
}
