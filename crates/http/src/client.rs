//! The client itself.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode};
use portolan_core::observe::{Facts, Probe, Semantics};
use portolan_core::{Connector, Credentials, Error, Phase, Result, Timeouts, clock};
use portolan_pool::{Metrics, Pool, Retry};

use crate::alt_svc::AltSvcCache;
use crate::body::Body;
use crate::builder::ClientBuilder;
use crate::connection::Manager;
use crate::cookie::CookieStore;
use crate::decode::DecodeOptions;
use crate::digest::{self, Digest};
use crate::hsts::Hsts;
use crate::key::{Keepalive, Key, Kind};
use crate::middleware::{Layer, Next};
use crate::redirect::Redirect;
use crate::request::{self, Request, RequestBuilder};
use crate::response::Response;
use crate::sign::By;
use crate::trail::Turn;
use crate::uri::IntoUri;
use crate::version::Version;
use crate::ways::Broken;

/// Origins whose keys are kept at hand; the pool keeps its own.
const MAX_KEYS: usize = 1024;

/// An HTTP client: cheap to clone, and its clones share their connections.
///
/// Requests are driven by the caller's own task: over HTTP/1.1 nothing runs beneath, an HTTP/2 connection has one task that
/// ends with it. Dropping the future of a call cancels it.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    pool: Pool<Manager>,
    settings: Settings,
    layers: Vec<Arc<dyn Layer>>,
    keys: Mutex<Keys>,
    broken: Broken,
}

/// Keys at hand, by the URL's own text: two cases of one name lead to equal keys. Most programs talk to few origins, and a name
/// from outside can make no tree slow.
type Keys = BTreeMap<Box<str>, Vec<(Place, Key)>>;

/// Which of the keys of an authority.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    tls: bool,
    kind: Kind,
    /// Whether a proxy may forward it.
    plain: bool,
}

/// What holds for every request that doesn't say otherwise.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) version: Version,
    pub(crate) timeouts: Timeouts,
    pub(crate) redirect: Redirect,
    pub(crate) retry: Retry,
    pub(crate) keepalive: Keepalive,
    pub(crate) headers: HeaderMap,
    pub(crate) cookies: Option<Arc<dyn CookieStore>>,
    pub(crate) hsts: Option<Hsts>,
    pub(crate) alt_svc: Option<AltSvcCache>,
    pub(crate) https_records: bool,
    /// What HTTP/3 has before the others.
    pub(crate) head_start: Duration,
    /// What is asked for, and undone, unless a request asks for something by itself.
    pub(crate) decode: Option<(HeaderValue, DecodeOptions)>,
    pub(crate) https_only: bool,
    pub(crate) referer: bool,
    pub(crate) max_body: usize,
    pub(crate) signer: Option<By>,
}

/// The verbs of a client that has `request`.
macro_rules! verbs {
    ($builder:ty) => {
        verbs! { $builder;
            /// Asks for what is there.
            get, GET;
            /// Asks for its head alone.
            head, HEAD;
            /// Hands something in.
            post, POST;
            /// Puts something there.
            put, PUT;
            /// Changes what is there.
            patch, PATCH;
            /// Takes it away.
            delete, DELETE;
            /// Asks what can be done.
            options, OPTIONS;
        }
    };
    ($builder:ty; $($(#[$doc:meta])* $name:ident, $method:ident;)*) => {$(
        $(#[$doc])*
        pub fn $name(&self, uri: impl IntoUri) -> $builder {
            self.request(Method::$method, uri)
        }
    )*};
}
#[cfg_attr(not(feature = "blocking"), allow(unused_imports, reason = "the other client has the same verbs"))]
pub(crate) use verbs;

impl Client {
    /// A client with defaults that are right for most.
    pub fn new() -> Self {
        Self::default()
    }

    /// A client to be said piece by piece.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    pub(crate) fn assemble(pool: Pool<Manager>, settings: Settings, layers: Vec<Arc<dyn Layer>>) -> Self {
        Self(Arc::new(Inner { pool, settings, layers, keys: Mutex::default(), broken: Broken::default() }))
    }

    verbs!(RequestBuilder);

    /// A request by any method.
    pub fn request(&self, method: Method, uri: impl IntoUri) -> RequestBuilder {
        request::start(self, method, uri, ())
    }

    /// Sends a request, and waits for the head of its response. Dropping the future cancels the call.
    ///
    /// A status that says no is no error here: see [`Response::error_for_status`].
    pub async fn execute(&self, request: Request) -> Result<Response> {
        self.run(Box::new(request)).await
    }

    pub(crate) async fn run(&self, request: Box<Request>) -> Result<Response> {
        if !self.connector().observers().are_told() {
            return self.through(request).await;
        }
        Box::pin(self.watched(request)).await
    }

    /// The same, told to those who asked.
    async fn watched(&self, request: Box<Request>) -> Result<Response> {
        let Ok((endpoint, _)) = Key::target(request.uri()) else { return self.through(request).await };
        let probe = Probe::new(crate::PROTOCOL, Semantics::Http, &endpoint, self.connector());
        let (method, url) = (request.method().clone(), crate::uri::Redacted(request.uri()).to_string());
        let facts =
            |response: &Response| Facts::default().status(response.status().as_u16()).reused(response.is_reused());
        probe.operation(method.as_str()).about(&url).run_with(self.through(request), facts).await
    }

    async fn through(&self, mut request: Box<Request>) -> Result<Response> {
        if self.0.layers.is_empty() {
            return self.follow(&mut request).await;
        }
        Box::pin(Next { client: self, layers: &self.0.layers }.run(*request)).await
    }

    /// The way to servers.
    pub fn connector(&self) -> &Connector {
        &self.pool().manager().connector
    }

    /// Which version is used, unless a request says otherwise.
    pub fn version(&self) -> Version {
        self.0.settings.version
    }

    /// What the pool has done and holds.
    pub fn metrics(&self) -> Metrics {
        self.0.pool.metrics()
    }

    /// Closes: idle connections end now, those in use with their responses; further requests fail.
    pub fn close(&self) {
        self.0.pool.close();
    }

    pub(crate) fn pool(&self) -> &Pool<Manager> {
        &self.0.pool
    }

    /// The last `count` of the layers.
    pub(crate) fn last_layers(&self, count: usize) -> &[Arc<dyn Layer>] {
        let layers = &self.0.layers;
        &layers[layers.len().saturating_sub(count)..]
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Ways that failed.
    pub(crate) fn broken(&self) -> &Broken {
        &self.0.broken
    }

    /// The key of the connections for a request: made once for each origin.
    pub(crate) fn key(&self, parts: &Parts, kind: Kind, connector: Option<&Connector>) -> Result<Key> {
        let uri = &parts.uri;
        let tls = uri.scheme_str() == Some("https");
        // What turns to another protocol needs a tunnel, as another version does.
        let plain = !tls
            && matches!(kind, Kind::Auto | Kind::H1)
            && parts.method != Method::CONNECT
            && !parts.headers.contains_key(header::UPGRADE);
        let make = |own: Option<&Connector>| {
            let key = Key::new(uri, kind, own.cloned())?;
            let connector = own.unwrap_or_else(|| self.connector());
            let route = if plain { connector.forwards(&key.endpoint)? } else { None };
            Ok(key.forwarded(route))
        };
        let (None, Some(authority)) = (connector, uri.authority()) else { return make(connector) };
        let place = Place { tls, kind, plain };
        let mut keys = self.0.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let known = keys.get(authority.as_str()).and_then(|known| known.iter().find(|(at, _)| *at == place));
        if let Some((_, key)) = known {
            return Ok(key.clone());
        }
        let key = make(None)?;
        if keys.len() >= MAX_KEYS {
            keys.clear();
        }
        keys.entry(authority.as_str().into()).or_default().push((place, key.clone()));
        Ok(key)
    }

    /// The call below all middleware: redirects around repetitions around attempts, all within the total bound.
    pub(crate) async fn follow(&self, request: &mut Request) -> Result<Response> {
        let started = clock::now();
        let timeouts = match &request.options.more {
            Some(more) => more.timeouts.over(&self.0.settings.timeouts),
            None => self.0.settings.timeouts,
        };
        let total = timeouts.total_limit();
        let response = match total {
            None => self.redirects(request, &timeouts, started).await?,
            Some(_) => {
                let work = Box::pin(self.redirects(request, &timeouts, started));
                clock::within(total, Phase::Total, work).await.map_err(|error| named(error, &request.parts.uri))?
            }
        };
        Ok(match total.and_then(|limit| Some((started.checked_add(limit)?, limit))) {
            Some((at, limit)) => response.map_body(|body| body.with_deadline(at, limit)),
            None => response,
        })
    }

    async fn redirects(&self, request: &mut Request, timeouts: &Timeouts, started: clock::Instant) -> Result<Response> {
        let settings = &self.0.settings;
        self.complete(request);
        let decode = self.asks_for_codings(request);
        let cookies = settings.cookies.as_ref();
        let mut own_cookies = cookies.is_some() && request.parts.headers.contains_key(header::COOKIE);
        let mut visited = Vec::new();
        loop {
            let mut turn = Turn::of(request);
            if let Some(uri) = settings.hsts.as_ref().and_then(|hsts| hsts.upgrade(&request.parts.uri)) {
                request.parts.uri = uri;
            }
            let own = request.options.more.as_ref().and_then(|more| more.connector.as_ref());
            if let Some(uri) = self.secured(&request.parts.uri, own).await {
                request.parts.uri = uri;
            }
            if settings.https_only && request.parts.uri.scheme_str() == Some("http") {
                return Err(Error::usage("an http URL, and https alone is allowed").with_protocol(crate::PROTOCOL));
            }
            if let Some(cookies) = cookies.filter(|_| !own_cookies) {
                request.parts.headers.remove(header::COOKIE);
                if let Some(value) = cookies.cookies_for(&request.parts.uri) {
                    request.parts.headers.insert(header::COOKIE, value);
                }
            }
            if let Some(turn) = &mut turn {
                turn.sent(request);
            }
            let (mut response, known) = match self.known(request, &visited) {
                Some(response) => (response, true),
                None => (self.authorized(request, timeouts).await?, false),
            };
            if let Some(turn) = turn {
                turn.answered(&response);
            }
            if let Some(cookies) = cookies {
                cookies.set(&request.parts.uri, response.headers());
            }
            if let Some(hsts) = settings.hsts.as_ref().filter(|_| !known) {
                hsts.record(&request.parts.uri, response.headers());
            }
            // RFC 7838 6: who is not the one for an origin can't say who else is.
            if let Some(alt_svc) = settings.alt_svc.as_ref().filter(|_| !known && response.status().as_u16() != 421) {
                alt_svc.record(&request.parts.uri, response.headers());
            }
            let redirect = request.options.more.as_ref().and_then(|more| more.redirect.as_ref());
            let redirect = redirect.unwrap_or(&settings.redirect);
            let (status, uri, hsts) = (response.status(), &request.parts.uri, settings.hsts.as_ref());
            let target = redirect.target(status, response.headers(), uri, &visited, hsts);
            let target = target.map_err(|error| named(error, uri))?.filter(|_| redirect.can_turn(request, status));
            let Some(to) = target else {
                let meta = response.meta_mut();
                meta.uri = std::mem::take(&mut request.parts.uri);
                meta.redirects = visited;
                meta.timings.total = meta.came.saturating_duration_since(started);
                return match decode {
                    Some(options) => response.decoded(&request.parts.method, options),
                    None => Ok(response),
                };
            };
            tracing::debug!(status = response.status().as_u16(), to = %crate::uri::Redacted(&to), "redirected");
            visited.push(request.parts.uri.clone());
            let redirect = redirect.clone();
            redirect.turn(request, status, to, settings.referer)?;
            // Those that the caller gave were for the first origin; another's are in the jar.
            own_cookies &= request.parts.headers.contains_key(header::COOKIE);
        }
    }

    /// The answer to one of the requests that redirects led to, or the first redirect itself, where a cache has it.
    fn known(&self, request: &Request, visited: &[http::Uri]) -> Option<Response> {
        let known = request.options.more.as_ref()?.known.as_ref()?;
        let response = known.find(&request.parts)?;
        // Of a redirect there may be the head alone: who does not follow it asks the server.
        let followed = !response.status().is_redirection()
            || self.follows(request, response.status(), response.headers(), visited);
        followed.then_some(response)
    }

    /// Whether a response like this redirects, and is to be followed.
    pub(crate) fn follows(
        &self,
        request: &Request,
        status: StatusCode,
        headers: &HeaderMap,
        visited: &[http::Uri],
    ) -> bool {
        let more = request.options.more.as_ref();
        let redirect = more.and_then(|more| more.redirect.as_ref()).unwrap_or(&self.0.settings.redirect);
        let hsts = self.0.settings.hsts.as_ref();
        let target = redirect.target(status, headers, &request.parts.uri, visited, hsts);
        target.is_ok_and(|to| to.is_some()) && redirect.can_turn(request, status)
    }

    /// The head as it will go out: what a cache must look at, since responses vary by it.
    pub(crate) fn dressed(&self, parts: &Parts) -> Parts {
        let mut request = Request { parts: parts.clone(), body: Body::empty(), options: request::Options::default() };
        self.complete(&mut request);
        self.asks_for_codings(&mut request);
        let headers = &mut request.parts.headers;
        if let (Some(cookies), false) = (&self.0.settings.cookies, headers.contains_key(header::COOKIE))
            && let Some(value) = cookies.cookies_for(&parts.uri)
        {
            headers.insert(header::COOKIE, value);
        }
        request.parts
    }

    /// Adds the fields of every request.
    fn complete(&self, request: &mut Request) {
        let defaults = &self.0.settings.headers;
        for name in defaults.keys() {
            if !request.parts.headers.contains_key(name) {
                for value in defaults.get_all(name) {
                    request.parts.headers.append(name, value.clone());
                }
            }
        }
    }

    /// Asks for compressed bodies, unless the caller asks for something by itself; a range is one of plain bytes.
    fn asks_for_codings(&self, request: &mut Request) -> Option<&DecodeOptions> {
        let (value, options) = self.0.settings.decode.as_ref()?;
        if request.options.more.as_ref().is_some_and(|more| more.raw) {
            return None;
        }
        let headers = &mut request.parts.headers;
        if headers.contains_key(header::ACCEPT_ENCODING) || headers.contains_key(header::RANGE) {
            return None;
        }
        headers.insert(header::ACCEPT_ENCODING, value.clone());
        Some(options)
    }

    /// One request, and once more with the answer to a challenge where the caller gave credentials for one.
    async fn authorized(&self, request: &mut Request, timeouts: &Timeouts) -> Result<Response> {
        let credentials = request.options.more.as_ref().and_then(|more| more.digest.clone());
        match credentials.filter(|_| !request.parts.headers.contains_key(header::AUTHORIZATION)) {
            None => self.expecting(request, timeouts).await,
            Some(credentials) => Box::pin(self.challenged(request, timeouts, &credentials)).await,
        }
    }

    async fn challenged(
        &self,
        request: &mut Request,
        timeouts: &Timeouts,
        credentials: &Credentials,
    ) -> Result<Response> {
        let body = request.body.try_clone();
        let mut response = self.expecting(request, timeouts).await?;
        for turn in 0..2 {
            let Some(body) = body.as_ref().and_then(Body::try_clone) else { break };
            let challenges = digest::challenges(response.headers().get_all(header::WWW_AUTHENTICATE));
            let Some(mut digest) = Digest::strongest(&challenges) else { break };
            // A second refusal is one of the credentials, unless the server says that its nonce was too old.
            if response.status() != StatusCode::UNAUTHORIZED || (turn > 0 && !digest.is_stale()) {
                break;
            }
            let target = request.parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
            let answer = digest.authorize(credentials, &request.parts.method, &target, body.as_bytes())?;
            request.parts.headers.insert(header::AUTHORIZATION, answer.value().clone());
            request.body = body;
            response = self.expecting(request, timeouts).await?;
        }
        request.parts.headers.remove(header::AUTHORIZATION);
        Ok(response)
    }

    /// One request, and once more without `expect` where the server can't do what that asks for (RFC 9110 10.1.1).
    async fn expecting(&self, request: &mut Request, timeouts: &Timeouts) -> Result<Response> {
        let response = self.attempts(request, timeouts).await?;
        let failed = response.status() == StatusCode::EXPECTATION_FAILED && request.body.is_replayable();
        if !failed || request.parts.headers.remove(header::EXPECT).is_none() {
            return Ok(response);
        }
        drop(response);
        Box::pin(self.attempts(request, timeouts)).await
    }
}

/// An error that was born above connections, with whom it was about.
pub(crate) fn named(error: Error, uri: &http::Uri) -> Error {
    let error = if error.protocol_name().is_none() { error.with_protocol(crate::PROTOCOL) } else { error };
    match Key::target(uri) {
        Ok((endpoint, _)) if error.endpoint().is_none() => error.with_endpoint(endpoint),
        _ => error,
    }
}

impl Default for Client {
    fn default() -> Self {
        // The defaults are all valid, so there is always a client.
        let builder = ClientBuilder::default();
        builder.assemble()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("pool", &self.0.pool).finish_non_exhaustive()
    }
}
