//! Where a response sends us on (RFC 9110 15.4).

use std::fmt;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode, Uri};
use portolan_core::{Delivery, Error, Kind, Result};

use crate::hsts::Hsts;
use crate::request::Request;
use crate::uri;

/// Redirects that are followed unless more are asked for.
const DEFAULT: usize = 10;

type Rule = Arc<dyn Fn(&Hop<'_>) -> bool + Send + Sync>;

/// How redirects are followed.
#[derive(Clone)]
#[must_use]
pub struct Redirect {
    max: usize,
    downgrade: bool,
    strict_post: bool,
    rule: Option<Rule>,
}

/// One redirect, for a rule to judge.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Hop<'a> {
    /// The status that says so.
    pub status: StatusCode,
    /// Where we were.
    pub from: &'a Uri,
    /// Where it sends us.
    pub to: &'a Uri,
    /// How many were followed before.
    pub count: usize,
}

impl Default for Redirect {
    fn default() -> Self {
        Self::limited(DEFAULT)
    }
}

impl Redirect {
    /// Follows at most `max`; one more is an error.
    pub fn limited(max: usize) -> Self {
        Self { max, downgrade: false, strict_post: false, rule: None }
    }

    /// Follows none: the response that would redirect is the response.
    pub fn none() -> Self {
        Self { rule: Some(Arc::new(|_| false)), ..Self::default() }
    }

    /// Follows only what `rule` allows; where it doesn't, the response that would redirect is the response.
    pub fn when(mut self, rule: impl Fn(&Hop<'_>) -> bool + Send + Sync + 'static) -> Self {
        self.rule = Some(Arc::new(rule));
        self
    }

    /// Follows from https to http too. Default off: what was encrypted would then be read on the way.
    pub fn allow_downgrade(mut self, on: bool) -> Self {
        self.downgrade = on;
        self
    }

    /// Keeps POST for 301 and 302 as well, as RFC 9110 would have it and nobody does. Default off: it becomes GET.
    pub fn keep_post(mut self, on: bool) -> Self {
        self.strict_post = on;
        self
    }

    /// The target of `status`, if it is to be followed.
    pub(crate) fn target(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        from: &Uri,
        visited: &[Uri],
        hsts: Option<&Hsts>,
    ) -> Result<Option<Uri>> {
        if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let Some(location) = headers.get(header::LOCATION) else { return Ok(None) };
        let location = uri::text_of(location.as_bytes());
        let broken = |error: Error| {
            Error::new(Kind::Protocol, format!("expected a URL in location, saw {location:?}")).with_source(error)
        };
        let foreign = uri::scheme_of(location.trim())
            .is_some_and(|scheme| !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https"));
        if foreign {
            return Err(answered(Error::new(Kind::Unsupported, "a redirect to what is neither http nor https")));
        }
        let to = uri::resolve(from, &location).map_err(|error| answered(broken(error)))?;
        // What is known to be held to TLS is no way out of it.
        let to = hsts.and_then(|hsts| hsts.upgrade(&to)).unwrap_or(to);
        let hop = Hop { status, from, to: &to, count: visited.len() };
        if self.rule.as_ref().is_some_and(|rule| !rule(&hop)) {
            return Ok(None);
        }
        if from.scheme_str() == Some("https") && to.scheme_str() == Some("http") && !self.downgrade {
            return Err(answered(Error::new(Kind::Blocked, "a redirect from https to http")));
        }
        if visited.len() >= self.max {
            return Err(answered(Error::new(Kind::Limit, format!("more than {} redirects", self.max))));
        }
        // A page may send us to itself once or twice, with a cookie in between.
        if visited.iter().filter(|seen| **seen == to).count() >= 3 {
            return Err(answered(Error::new(Kind::Limit, "redirects in a circle")));
        }
        Ok(Some(to))
    }

    /// Whether the next request is a GET, whatever this one was (RFC 9110 15.4).
    fn becomes_get(&self, status: StatusCode, method: &Method) -> bool {
        match status.as_u16() {
            303 => *method != Method::HEAD,
            301 | 302 => *method == Method::POST && !self.strict_post,
            _ => false,
        }
    }

    /// Whether `request` can be turned: what was sent can be sent again, or need not be.
    pub(crate) fn can_turn(&self, request: &Request, status: StatusCode) -> bool {
        request.body.is_replayable() || self.becomes_get(status, &request.parts.method)
    }

    /// Turns `request` to `to`, as the status asks.
    pub(crate) fn turn(&self, request: &mut Request, status: StatusCode, to: Uri, referer: bool) -> Result<()> {
        let to_get = self.becomes_get(status, &request.parts.method);
        if !uri::same_origin(&request.parts.uri, &to) {
            // Whoever may ask for an answer to a challenge could pass on the challenge of another.
            let more = request.options.more();
            (more.digest, more.unsigned) = (None, true);
        }
        let parts = &mut request.parts;
        if to_get {
            parts.method = Method::GET;
            request.body = crate::Body::empty();
            for name in [
                header::CONTENT_TYPE,
                header::CONTENT_LENGTH,
                header::CONTENT_ENCODING,
                header::CONTENT_LANGUAGE,
                header::CONTENT_LOCATION,
                header::TRANSFER_ENCODING,
                header::EXPECT,
            ] {
                parts.headers.remove(name);
            }
        }
        if !uri::same_origin(&parts.uri, &to) {
            // Meant for the origin that they were given to.
            for name in [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION, header::HOST] {
                parts.headers.remove(name);
            }
        }
        parts.headers.remove(header::REFERER);
        if referer && let Some(value) = referrer(&parts.uri, &to) {
            parts.headers.insert(header::REFERER, value);
        }
        parts.uri = to;
        crate::auth::from_uri(parts).map_err(answered)
    }
}

/// What we may say of where we come from: all of it to the same origin, the origin alone to others, nothing when it was
/// encrypted and the next is not (the "strict-origin-when-cross-origin" of browsers).
fn referrer(from: &Uri, to: &Uri) -> Option<HeaderValue> {
    if from.scheme_str() == Some("https") && to.scheme_str() != Some("https") {
        return None;
    }
    let host = from.authority()?.as_str();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let scheme = from.scheme_str()?;
    let path = if uri::same_origin(from, to) { from.path_and_query().map_or("/", |path| path.as_str()) } else { "/" };
    HeaderValue::from_str(&format!("{scheme}://{host}{path}")).ok()
}

fn answered(error: Error) -> Error {
    error.with_delivery(Delivery::Answered).with_protocol(crate::PROTOCOL)
}

impl fmt::Debug for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redirect").field("max", &self.max).field("downgrade", &self.downgrade).finish_non_exhaustive()
    }
}
