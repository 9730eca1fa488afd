//! The cache: what a request finds, and what a response leaves.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{
    CONTENT_LOCATION, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LOCATION,
    RANGE,
};
use http::{HeaderMap, Method, Response, StatusCode, Uri, request, response};
use portolan_core::clock;

use super::body::Recorded;
use super::control::CacheControl;
use super::entry::{CacheKey, Entry, HeadAlone, is_storable};
use super::memory::{CacheStore, MemoryStore};
use super::search::{Rule, Rules};
use crate::civil;

/// Larger bodies pass by.
const MAX_BODY: usize = 4 << 20;

/// What a request finds.
#[derive(Debug)]
#[non_exhaustive]
pub enum Lookup {
    /// A response that is good now.
    Hit(Response<Bytes>),
    /// A response that must be validated first.
    Stale(Stale),
    /// Nothing: send the request.
    Miss,
    /// Nothing, and the request said `only-if-cached`: answer 504 without sending (RFC 9111 5.2.1.7).
    Unsatisfiable,
}

/// How the cache behaves.
#[derive(Debug, Clone)]
pub struct CacheOptions {
    max_body: usize,
    stale_if_error: Option<Duration>,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self { max_body: MAX_BODY, stale_if_error: None }
    }
}

impl CacheOptions {
    /// Bodies up to 4 MiB; stale responses are used only as servers allow.
    pub fn new() -> Self {
        Self::default()
    }

    /// The largest body that is kept, in bytes. Default 4 MiB. So much is gathered for each response that is being read.
    #[must_use]
    pub fn with_max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// How stale a response may be and still stand in when the server fails, where neither side said. Default `None`: not at all.
    #[must_use]
    pub fn with_stale_if_error(mut self, staleness: impl Into<Option<Duration>>) -> Self {
        self.stale_if_error = staleness.into();
        self
    }
}

/// A private cache. Clones share it.
#[derive(Debug, Clone)]
pub struct Cache {
    store: Arc<dyn CacheStore>,
    options: CacheOptions,
    validating: Arc<Mutex<HashSet<CacheKey>>>,
    rules: Arc<Mutex<Rules>>,
}

/// The one validation of a response that is under way in the background.
#[derive(Debug)]
pub(super) struct Validation {
    key: CacheKey,
    all: Arc<Mutex<HashSet<CacheKey>>>,
}

impl Drop for Validation {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// A stored response that must be validated, and what may be done with it meanwhile.
#[derive(Debug)]
pub struct Stale {
    key: CacheKey,
    uri: Uri,
    method: Method,
    entry: Arc<Entry>,
    while_revalidating: bool,
    /// How stale it may be if the server fails; `None` is not at all.
    if_error: Option<i64>,
}

impl Stale {
    /// Adds `If-None-Match` and `If-Modified-Since` to the request. Without a validator it adds nothing, and the answer is a new one.
    pub fn make_conditional(&self, headers: &mut HeaderMap) {
        self.entry.make_conditional(headers);
    }

    /// The response, if it may be given at once while it is validated in the background (RFC 5861 3).
    pub fn while_revalidating(&self) -> Option<Response<Bytes>> {
        self.while_revalidating.then(|| self.entry.response(&self.method, now()))
    }

    /// The response, if it may stand in for a server that can't be reached or that answered 500, 502, 503 or 504 (RFC 5861 4).
    pub fn if_error(&self) -> Option<Response<Bytes>> {
        self.if_error_at(now())
    }

    pub(super) fn if_error_at(&self, now: i64) -> Option<Response<Bytes>> {
        let staleness = self.entry.age(now).saturating_sub(self.entry.lifetime());
        (staleness <= self.if_error?).then(|| self.entry.response(&self.method, now))
    }

    /// Whether this status is such a failure.
    pub fn is_error(status: StatusCode) -> bool {
        matches!(status.as_u16(), 500 | 502 | 503 | 504)
    }
}

impl Cache {
    /// A cache in memory with the default limits.
    pub fn new() -> Self {
        Self::with_store(MemoryStore::new(), CacheOptions::default())
    }

    /// A cache over a store of your own.
    pub fn with_store(store: impl CacheStore + 'static, options: CacheOptions) -> Self {
        Self { store: Arc::new(store), options, validating: Arc::default(), rules: Arc::default() }
    }

    /// What there is for this request. Requests other than GET and HEAD, with a range or with conditions of their own find nothing.
    pub fn lookup(&self, request: &request::Parts) -> Lookup {
        match self.find(request) {
            Lookup::Hit(hit) if hit.extensions().get::<HeadAlone>().is_some() => nothing(request),
            found => found,
        }
    }

    /// The same, redirects among it of which there is the head alone.
    pub(super) fn find(&self, request: &request::Parts) -> Lookup {
        self.lookup_at(request, now())
    }

    /// Keeps what a redirect said that was followed.
    pub(super) fn store_redirect(&self, request: &request::Parts, sent: SystemTime, response: &response::Parts) {
        if let Some(entry) = Entry::of_redirect(request, civil::unix(sent), response, now()) {
            self.put(&request.uri, entry);
        }
    }

    /// Keeps a response, if it may be kept; `sent` is when the request was. Says whether it was kept.
    pub fn store(&self, request: &request::Parts, sent: SystemTime, response: &response::Parts, body: Bytes) -> bool {
        self.store_at(request, civil::unix(sent), response, body, now())
    }

    /// Whether a response like this may be kept, so that its body is worth gathering.
    pub fn is_storable(&self, request: &request::Parts, response: &response::Parts) -> bool {
        is_storable(request, response)
    }

    /// Takes a response as it comes from the server: keeps its body as it is read, if it may be kept, and forgets what an unsafe
    /// method made wrong. `request` is as it was at [`lookup`](Self::lookup), without the conditions of a [`Stale`].
    pub fn record<B>(&self, request: &request::Parts, sent: SystemTime, response: Response<B>) -> Response<Recorded<B>>
    where
        B: http_body::Body,
    {
        let (parts, body) = response.into_parts();
        self.invalidate(request, &parts);
        let expected = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        let keep = is_storable(request, &parts) && expected <= self.options.max_body;
        let recorded = Recorded::new(
            body,
            keep.then(|| super::body::Recorder {
                cache: self.clone(),
                request: request.clone(),
                sent,
                response: parts.clone(),
                bytes: bytes::BytesMut::new(),
            }),
        );
        Response::from_parts(parts, recorded)
    }

    /// Takes a 304 for a stale response: gives the response, good again. `None` where the 304 speaks of another one; that is forgotten
    /// then, and the request must be sent again without conditions.
    pub fn refresh(&self, stale: &Stale, sent: SystemTime, not_modified: &response::Parts) -> Option<Response<Bytes>> {
        self.refresh_at(stale, civil::unix(sent), not_modified, now())
    }

    /// Forgets what a response to an unsafe method made wrong (RFC 9111 4.4). [`record`](Self::record) does it too.
    pub fn invalidate(&self, request: &request::Parts, response: &response::Parts) {
        let changed = response.status.is_success() || response.status.is_redirection();
        if request.method.is_safe() || !changed {
            return;
        }
        let named = [LOCATION, CONTENT_LOCATION].into_iter().filter_map(|name| {
            let reference = response.headers.get(name)?.to_str().ok()?;
            // Nobody can make us forget what is another's.
            crate::uri::resolve(&request.uri, reference).ok().filter(|uri| crate::uri::same_origin(&request.uri, uri))
        });
        std::iter::once(request.uri.clone()).chain(named).for_each(|uri| self.remove(&uri));
    }

    /// Forgets what there is for a URL.
    pub fn remove(&self, uri: &Uri) {
        self.keys(uri).iter().for_each(|key| self.store.remove(key));
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.store.clear();
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Where a response to `uri` may be: under its own key, and under those that it shares by what servers told.
    fn keys(&self, uri: &Uri) -> Vec<CacheKey> {
        let shared = self.rules.lock().unwrap_or_else(PoisonError::into_inner).keys(uri);
        CacheKey::new(uri).into_iter().chain(shared).collect()
    }

    /// The right to validate `stale` in the background, unless somebody has it already.
    pub(super) fn begin_validation(&self, stale: &Stale) -> Option<Validation> {
        let key = stale.key.clone();
        let fresh = self.validating.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
        fresh.then(|| Validation { key, all: self.validating.clone() })
    }

    /// The largest body that is kept.
    pub(super) fn max_body(&self) -> usize {
        self.options.max_body
    }

    pub(super) fn lookup_at(&self, request: &request::Parts, now: i64) -> Lookup {
        const OWN: [HeaderName; 6] = [RANGE, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_MATCH, IF_UNMODIFIED_SINCE, IF_RANGE];
        let asked = CacheControl::of(&request.headers);
        let nothing = nothing(request);
        let readable = matches!(request.method, Method::GET | Method::HEAD);
        if !readable || OWN.iter().any(|name| request.headers.contains_key(name)) {
            return nothing;
        }
        // The newest of each is last.
        let newest =
            |key: &CacheKey| self.store.load(key).into_iter().rev().find(|entry| entry.answers(&request.headers));
        let found = self.keys(&request.uri).into_iter().filter_map(|key| newest(&key).map(|entry| (key, entry)));
        let Some((key, entry)) = found.max_by_key(|(_, entry)| entry.received_at()) else { return nothing };
        if is_good(&entry, &asked, now) {
            return Lookup::Hit(entry.response(&request.method, now));
        }
        // A validation of HEAD would tell nothing of the body that we have, and one of a redirect nothing of where it leads.
        if asked.only_if_cached || request.method == Method::HEAD || !entry.is_whole() {
            return nothing;
        }
        Lookup::Stale(self.stale(key, request, entry, &asked, now))
    }

    fn stale(
        &self,
        key: CacheKey,
        request: &request::Parts,
        entry: Arc<Entry>,
        asked: &CacheControl,
        now: i64,
    ) -> Stale {
        let said = &entry.control;
        let strict = said.must_revalidate || said.no_cache;
        let staleness = entry.age(now).saturating_sub(entry.lifetime());
        let reload = asked.no_cache || asked.max_age.is_some() || asked.min_fresh.is_some();
        let own = self.options.stale_if_error.map(|own| i64::try_from(own.as_secs()).unwrap_or(i64::MAX));
        let if_error = asked.stale_if_error.or(said.stale_if_error).or(own).filter(|_| !strict);
        let while_revalidating =
            !strict && !reload && said.stale_while_revalidate.is_some_and(|most| staleness <= most);
        let (uri, method) = (request.uri.clone(), request.method.clone());
        Stale { key, uri, method, entry, while_revalidating, if_error }
    }

    pub(super) fn store_at(
        &self,
        request: &request::Parts,
        sent: i64,
        response: &response::Parts,
        body: Bytes,
        now: i64,
    ) -> bool {
        if body.len() > self.options.max_body {
            return false;
        }
        Entry::new(request, sent, response, body, now).is_some_and(|entry| self.put(&request.uri, entry))
    }

    pub(super) fn refresh_at(
        &self,
        stale: &Stale,
        sent: i64,
        not_modified: &response::Parts,
        now: i64,
    ) -> Option<Response<Bytes>> {
        let Some(entry) = stale.entry.refreshed(sent, &not_modified.headers, now) else {
            self.store.remove(&stale.key);
            return None;
        };
        let response = entry.response(&stale.method, now);
        if entry.control.no_store {
            self.store.remove(&stale.key);
        } else {
            self.put(&stale.uri, entry);
        }
        Some(response)
    }

    /// Keeps it for `uri`, and for whatever is the same by its own rule.
    fn put(&self, uri: &Uri, entry: Entry) -> bool {
        let rule = Rule::of(entry.headers());
        let shared = rule.as_ref().and_then(|rule| rule.key(uri));
        if let (Some(rule), Some(_)) = (&rule, &shared) {
            self.rules.lock().unwrap_or_else(PoisonError::into_inner).learn(uri, rule);
        }
        let Some(key) = shared.or_else(|| CacheKey::new(uri)) else { return false };
        let mut entries = self.store.load(&key);
        entries.retain(|old| !old.is_same_variant(&entry));
        entries.push(Arc::new(entry));
        self.store.replace(&key, entries);
        true
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self::new()
    }
}

/// For a request that nothing is found for.
pub(super) fn nothing(request: &request::Parts) -> Lookup {
    if CacheControl::of(&request.headers).only_if_cached { Lookup::Unsatisfiable } else { Lookup::Miss }
}

/// Whether it may be given without asking (RFC 9111 4.2 and 5.2.1).
fn is_good(entry: &Entry, asked: &CacheControl, now: i64) -> bool {
    let said = &entry.control;
    if said.no_cache || asked.no_cache {
        return false;
    }
    let (age, lifetime) = (entry.age(now), entry.lifetime());
    let fresh = lifetime > age;
    // A reload need not ask for what was said never to change (RFC 8246); a forced one says no-cache.
    if asked.max_age.is_some_and(|most| age > most) && !(fresh && said.immutable) {
        return false;
    }
    if asked.min_fresh.is_some_and(|least| lifetime.saturating_sub(age) < least) {
        return false;
    }
    fresh || (!said.must_revalidate && asked.max_stale.is_some_and(|most| age.saturating_sub(lifetime) <= most))
}

fn now() -> i64 {
    civil::unix(clock::wall())
}
