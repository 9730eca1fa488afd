//! One stored response: what it is kept under, how old it is, how long it is good.

use std::fmt;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{
    AGE, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, PROXY_AUTHENTICATE, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, Version, request, response};
use sha2::{Digest, Sha256};

use super::control::{CacheControl, Times};
use crate::civil;

/// No response is thought fresh for longer than this without having said so.
const MAX_HEURISTIC: i64 = 7 * 86_400;
/// A response that varies by more is not worth keeping.
const MAX_VARY: usize = 32;

/// What a response is kept under: its URL, without what does not name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey(Box<str>);

impl CacheKey {
    /// The key of a URL with scheme and host.
    pub fn new(uri: &Uri) -> Option<Self> {
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let host = uri.host()?.to_ascii_lowercase();
        let port = crate::uri::port(uri);
        let path = if uri.path().is_empty() { "/" } else { uri.path() };
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        Some(Self(format!("{scheme}://{host}:{port}{path}{query}").into()))
    }

    /// A key of several URLs.
    pub(super) fn from_text(text: String) -> Self {
        Self(text.into())
    }

    /// The URL that it stands for, with its port; where a response is good for several (`No-Vary-Search`), a text that no URL has.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A field's name, and what the request said in it.
type Said = (HeaderName, Option<Box<[u8]>>);

/// A stored response.
#[derive(Clone)]
pub struct Entry {
    status: StatusCode,
    version: Version,
    headers: HeaderMap,
    body: Bytes,
    /// What the request said in the fields that the response varies by.
    vary: Vec<Said>,
    /// Of the request's credentials, which are not kept themselves.
    authorization: Option<[u8; 32]>,
    pub(super) control: CacheControl,
    sent: i64,
    received: i64,
    /// Of a redirect that was followed there is the head alone.
    is_whole: bool,
}

/// In the extensions of a response: it has no body because nobody read it.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadAlone;

impl Entry {
    /// Makes an entry, or `None` where the response may not or need not be kept.
    pub(super) fn new(
        request: &request::Parts,
        sent: i64,
        response: &response::Parts,
        body: Bytes,
        now: i64,
    ) -> Option<Self> {
        if !is_storable(request, response) {
            return None;
        }
        let mut headers = response.headers.clone();
        remove_connection_fields(&mut headers);
        headers.remove(SET_COOKIE);
        let entry = Self {
            status: response.status,
            version: response.version,
            vary: vary(&headers, &request.headers)?,
            authorization: authorization(&request.headers),
            control: CacheControl::of(&headers),
            headers,
            body,
            sent,
            received: now,
            is_whole: true,
        };
        // What is stale at once and can't be validated is of no use.
        let useful = entry.lifetime() > entry.age(now) || entry.has_validator();
        useful.then_some(entry)
    }

    /// The same of a redirect that is followed: what its body was is not known, and of no account.
    pub(super) fn of_redirect(
        request: &request::Parts,
        sent: i64,
        response: &response::Parts,
        now: i64,
    ) -> Option<Self> {
        let mut entry = Self::new(request, sent, response, Bytes::new(), now)?;
        for name in [CONTENT_LENGTH, CONTENT_TYPE, CONTENT_ENCODING] {
            entry.headers.remove(name);
        }
        entry.is_whole = false;
        Some(entry)
    }

    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The fields, as they were received or as a validation left them.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The body.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// When it was received, or last validated.
    pub fn received(&self) -> SystemTime {
        civil::system_time(self.received)
    }

    /// About how much memory it takes.
    pub fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64).sum();
        let vary: usize = self.vary.iter().map(|(_, value)| value.as_ref().map_or(0, |value| value.len()) + 64).sum();
        self.body.len() + headers + vary + size_of::<Self>()
    }

    /// Whether it answers a request with these fields (RFC 9111 4.1).
    pub(super) fn answers(&self, headers: &HeaderMap) -> bool {
        self.authorization == authorization(headers)
            && self.vary.iter().all(|(name, value)| said(headers, name) == *value)
    }

    /// When it was received, or last validated, in seconds.
    pub(super) fn received_at(&self) -> i64 {
        self.received
    }

    /// Whether both were selected by the same fields of requests, so that one takes the other's place.
    pub(super) fn is_same_variant(&self, other: &Self) -> bool {
        self.vary == other.vary && self.authorization == other.authorization
    }

    /// How old it is (RFC 9111 4.2.3), in seconds.
    pub(super) fn age(&self, now: i64) -> i64 {
        let times = Times::of(&self.headers);
        let apparent = self.received.saturating_sub(times.date.unwrap_or(self.received)).max(0);
        let delay = self.received.saturating_sub(self.sent).max(0);
        let resident = now.saturating_sub(self.received).max(0);
        apparent.max(times.age.saturating_add(delay)).saturating_add(resident)
    }

    /// How old it may become and be fresh (RFC 9111 4.2.1), in seconds. A private cache does not look at `s-maxage`.
    pub(super) fn lifetime(&self) -> i64 {
        if let Some(age) = self.control.max_age {
            return age;
        }
        let times = Times::of(&self.headers);
        let date = times.date.unwrap_or(self.received);
        if let Some(expires) = times.expires {
            return expires.saturating_sub(date).max(0);
        }
        match times.last_modified {
            Some(modified) if is_heuristic(self.status) || self.control.public => {
                (date.saturating_sub(modified).max(0) / 10).min(MAX_HEURISTIC)
            }
            _ => 0,
        }
    }

    pub(super) fn has_validator(&self) -> bool {
        self.headers.contains_key(ETAG) || self.headers.contains_key(LAST_MODIFIED)
    }

    /// Adds the conditions that ask whether it is still good (RFC 9111 4.3.1).
    pub(super) fn make_conditional(&self, headers: &mut HeaderMap) {
        if let Some(tag) = self.headers.get(ETAG) {
            headers.insert(IF_NONE_MATCH, tag.clone());
        }
        if let Some(date) = self.headers.get(LAST_MODIFIED) {
            headers.insert(IF_MODIFIED_SINCE, date.clone());
        }
    }

    /// With the fields of a 304 (RFC 9111 3.2 and 4.3.4); `None` if that speaks of another response.
    pub(super) fn refreshed(&self, sent: i64, not_modified: &HeaderMap, now: i64) -> Option<Self> {
        if let (Some(old), Some(new)) = (self.headers.get(ETAG), not_modified.get(ETAG))
            && opaque(old) != opaque(new)
        {
            return None;
        }
        let mut update = not_modified.clone();
        remove_connection_fields(&mut update);
        for name in [SET_COOKIE, CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_TYPE, CONTENT_RANGE] {
            update.remove(name);
        }
        let mut fresh = self.clone();
        // The stored one is older than this answer, whatever it said of its age.
        fresh.headers.remove(AGE);
        for name in update.keys() {
            fresh.headers.remove(name);
        }
        for (name, value) in &update {
            fresh.headers.append(name, value.clone());
        }
        fresh.control = CacheControl::of(&fresh.headers);
        (fresh.sent, fresh.received) = (sent, now);
        Some(fresh)
    }

    /// The response, with its age (RFC 9111 4).
    pub(super) fn response(&self, method: &Method, now: i64) -> Response<Bytes> {
        let body = if method == Method::HEAD { Bytes::new() } else { self.body.clone() };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.version_mut() = self.version;
        *response.headers_mut() = self.headers.clone();
        response.headers_mut().insert(AGE, HeaderValue::from(self.age(now)));
        if !self.is_whole {
            response.extensions_mut().insert(HeadAlone);
        }
        response
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("status", &self.status)
            .field("body", &self.body.len())
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

/// RFC 9111 3, for a private cache.
pub(super) fn is_storable(request: &request::Parts, response: &response::Parts) -> bool {
    use http::header::RANGE;
    let (asked, said) = (CacheControl::of(&request.headers), CacheControl::of(&response.headers));
    let understood = is_understood(response.status);
    let forbidden = asked.no_store || (said.no_store && !(said.must_understand && understood));
    let marked = said.public
        || said.private
        || said.max_age.is_some()
        || response.headers.contains_key(http::header::EXPIRES)
        || is_heuristic(response.status);
    request.method == Method::GET && !request.headers.contains_key(RANGE) && understood && !forbidden && marked
}

/// The statuses that we know how to keep: final, whole.
fn is_understood(status: StatusCode) -> bool {
    (status.is_success() || status.is_redirection() || status.is_client_error() || status.is_server_error())
        && status != StatusCode::PARTIAL_CONTENT
        && status != StatusCode::NOT_MODIFIED
}

/// RFC 9110 15.1, but for 206.
fn is_heuristic(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// The fields that were for the connection (RFC 9111 3.1).
fn remove_connection_fields(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let ours = [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, PROXY_AUTHENTICATE];
    let others = ["keep-alive", "proxy-connection", "proxy-authentication-info"].map(HeaderName::from_static);
    for name in named.into_iter().chain(ours).chain(others) {
        headers.remove(name);
    }
}

/// What the request said in the fields that Vary names; `None` if it names all or too many.
fn vary(response: &HeaderMap, request: &HeaderMap) -> Option<Vec<Said>> {
    let mut names: Vec<HeaderName> = Vec::new();
    for field in response.get_all(VARY) {
        for word in field.to_str().ok()?.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            names.push(word.parse().ok().filter(|_| word != "*" && names.len() < MAX_VARY)?);
        }
    }
    names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    Some(names.into_iter().map(|name| (name.clone(), said(request, &name))).collect())
}

/// A field's lines as one, so that how they were cut does not matter.
fn said(headers: &HeaderMap, name: &HeaderName) -> Option<Box<[u8]>> {
    let mut lines = headers.get_all(name).iter().map(|value| value.as_bytes().trim_ascii()).peekable();
    lines.peek()?;
    Some(lines.collect::<Vec<_>>().join(&b", "[..]).into())
}

fn authorization(headers: &HeaderMap) -> Option<[u8; 32]> {
    said(headers, &AUTHORIZATION).map(|value| Sha256::digest(value).into())
}

/// Weak comparison (RFC 9110 8.8.3.2).
fn opaque(tag: &HeaderValue) -> &[u8] {
    let tag = tag.as_bytes();
    tag.strip_prefix(b"W/").unwrap_or(tag)
}
