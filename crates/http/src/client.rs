//! The client itself.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use http::header::HeaderMap;
use http::uri::Authority;
use http::{Method, Uri};
use portolan_core::{Connector, Error, Phase, Result, Timeouts, clock};
use portolan_pool::{Metrics, Pool, Retry};

use crate::builder::ClientBuilder;
use crate::connection::Manager;
use crate::key::{Keepalive, Key, Kind};
use crate::middleware::{Layer, Next};
use crate::redirect::Redirect;
use crate::request::{self, Request, RequestBuilder};
use crate::response::Response;
use crate::uri::IntoUri;
use crate::version::Version;

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
    keys: Mutex<HashMap<(bool, Kind, Authority), Key>>,
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
    pub(crate) https_only: bool,
    pub(crate) referer: bool,
    pub(crate) max_body: usize,
}

macro_rules! verbs {
    ($($(#[$doc:meta])* $name:ident, $method:ident;)*) => {$(
        $(#[$doc])*
        pub fn $name(&self, uri: impl IntoUri) -> RequestBuilder {
            request::start(self, Method::$method, uri)
        }
    )*};
}

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
        Self(Arc::new(Inner { pool, settings, layers, keys: Mutex::default() }))
    }

    verbs! {
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

    /// A request by any method.
    pub fn request(&self, method: Method, uri: impl IntoUri) -> RequestBuilder {
        request::start(self, method, uri)
    }

    /// Sends a request, and waits for the head of its response. Dropping the future cancels the call.
    ///
    /// A status that says no is no error here: see [`Response::error_for_status`].
    pub async fn execute(&self, request: Request) -> Result<Response> {
        if self.0.layers.is_empty() {
            return self.follow(request).await;
        }
        Next { client: self, layers: &self.0.layers }.run(request).await
    }

    /// The way to servers.
    pub fn connector(&self) -> &Connector {
        &self.pool().manager().connector
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

    pub(crate) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// The key of `uri`'s connections: made once for each origin.
    pub(crate) fn key(&self, uri: &Uri, kind: Kind, connector: Option<&Connector>) -> Result<Key> {
        if let Some(connector) = connector {
            return Key::new(uri, kind, Some(connector.clone()));
        }
        let Some(authority) = uri.authority() else { return Key::new(uri, kind, None) };
        let place = (uri.scheme_str() == Some("https"), kind, authority.clone());
        let mut keys = self.0.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = keys.get(&place) {
            return Ok(key.clone());
        }
        let key = Key::new(uri, kind, None)?;
        if keys.len() >= MAX_KEYS {
            keys.clear();
        }
        keys.insert(place, key.clone());
        Ok(key)
    }

    /// The call below all middleware: redirects around repetitions around attempts, all within the total bound.
    pub(crate) async fn follow(&self, mut request: Request) -> Result<Response> {
        let started = clock::now();
        let timeouts = request.options.timeouts.over(&self.0.settings.timeouts);
        let total = timeouts.total_limit();
        let response = match total {
            None => self.redirects(&mut request, &timeouts, started).await?,
            Some(_) => {
                let work = Box::pin(self.redirects(&mut request, &timeouts, started));
                clock::within(total, Phase::Total, work).await.map_err(|error| error.with_protocol(crate::PROTOCOL))?
            }
        };
        Ok(match total.and_then(|limit| Some((started.checked_add(limit)?, limit))) {
            Some((at, limit)) => response.map_body(|body| body.with_deadline(at, limit)),
            None => response,
        })
    }

    async fn redirects(&self, request: &mut Request, timeouts: &Timeouts, started: clock::Instant) -> Result<Response> {
        let settings = &self.0.settings;
        for (name, value) in &settings.headers {
            if !request.parts.headers.contains_key(name) {
                request.parts.headers.append(name, value.clone());
            }
        }
        let mut visited = Vec::new();
        loop {
            if settings.https_only && request.parts.uri.scheme_str() == Some("http") {
                return Err(Error::usage("an http URL, and https alone is allowed").with_protocol(crate::PROTOCOL));
            }
            let mut response = self.attempts(request, timeouts).await?;
            let redirect = request.options.more.as_ref().and_then(|more| more.redirect.as_ref());
            let redirect = redirect.unwrap_or(&settings.redirect);
            let target = redirect.target(response.status(), response.headers(), &request.parts.uri, &visited)?;
            let target = target.filter(|_| keeps_going(response.status(), request));
            let Some(to) = target else {
                response.meta.redirects = visited;
                response.meta.timings.total = clock::now().saturating_duration_since(started);
                return Ok(response);
            };
            tracing::debug!(status = response.status().as_u16(), to = %crate::uri::Redacted(&to), "redirected");
            visited.push(request.parts.uri.clone());
            let redirect = redirect.clone();
            redirect.turn(request, response.status(), to, settings.referer);
        }
    }
}

/// Whether what was sent can be sent again, where the status asks for it (RFC 9110 15.4.8).
fn keeps_going(status: http::StatusCode, request: &Request) -> bool {
    !matches!(status.as_u16(), 307 | 308) || request.body.is_replayable()
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
