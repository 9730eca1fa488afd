//! The cache between the caller and the wire.

use bytes::Bytes;
use http::request::Parts;
use http::{Response as HttpResponse, StatusCode, Uri};
use http_body_util::Full;
use portolan_core::{Result, clock};

use super::engine::nothing;
use super::entry::HeadAlone;
use super::{Cache, Lookup, Stale};
use crate::incoming::Incoming;
use crate::middleware::{Middleware, Next};
use crate::request::Request;
use crate::response::Response;
use crate::trail::{Step, Trail};

/// In a response's extensions: it came out of the cache, whole or validated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FromCache {
    /// Nobody was asked.
    Fresh,
    /// The server said that it is still good.
    Validated,
    /// It is stale: it is being validated in the background, or the server failed.
    Stale,
}

impl Middleware for Cache {
    async fn handle(&self, mut request: Request, next: Next<'_>) -> Result<Response> {
        let asked = next.client.dressed(&request.parts);
        let stale = match self.find_for(&next, &request, &asked) {
            Lookup::Hit(hit) => return Ok(given(hit, &request.parts.uri, FromCache::Fresh)),
            Lookup::Unsatisfiable => return Ok(unsatisfiable(request.parts.uri)),
            Lookup::Miss => return self.ask(next, request, &asked).await,
            Lookup::Stale(stale) => stale,
        };
        if let Some(old) = stale.while_revalidating() {
            let uri = request.parts.uri.clone();
            // One is enough, however many ask meanwhile.
            if let Some(turn) = self.begin_validation(&stale) {
                let (cache, client, below) = (self.clone(), next.client.clone(), next.layers.len());
                // Ends with its one request, which is bounded as all are.
                tokio::spawn(async move {
                    let next = Next { client: &client, layers: client.last_layers(below) };
                    if let Err(error) = cache.validate(next, request, &asked, &stale).await {
                        tracing::debug!(%error, "validation in the background failed");
                    }
                    drop(turn);
                });
            }
            return Ok(given(old, &uri, FromCache::Stale));
        }
        let again = request.try_clone();
        stale.make_conditional(&mut request.parts.headers);
        let sent = clock::wall();
        let exchange = match self.exchange(next, request).await {
            Err(error) => {
                let old = stale.if_error().ok_or(error)?;
                return Ok(given(old, &asked.uri, FromCache::Stale));
            }
            Ok(exchange) => exchange,
        };
        let response = &exchange.response;
        if Stale::is_error(response.status())
            && let Some(old) = stale.if_error()
        {
            return Ok(given(old, &asked.uri, FromCache::Stale));
        }
        if response.status() != StatusCode::NOT_MODIFIED {
            return Ok(self.taken(&asked, sent, exchange));
        }
        // After a redirect it is about what that led to, and not about ours.
        let ours = response.redirects().is_empty();
        let good = if ours { self.refresh(&stale, sent, response.parts()) } else { None };
        match (good, again) {
            // It may be a redirect that is followed now.
            (Some(good), Some(again)) if next.client.follows(&again, good.status(), good.headers(), &[]) => {
                self.ask(next, again, &asked).await
            }
            (Some(good), _) => {
                let mut response = exchange.response.map_http(|_| good.map(whole));
                response.extensions_mut().insert(FromCache::Validated);
                Ok(response)
            }
            // The 304 is about another response than ours: ask for all of it.
            (None, Some(again)) => self.ask(next, again, &asked).await,
            (None, None) => Ok(exchange.response),
        }
    }
}

/// A response, and how it was come by.
struct Exchange {
    response: Response,
    steps: Vec<Step>,
}

impl Cache {
    /// What there is for this request: a redirect that is followed is looked up once more when it is its turn.
    fn find_for(&self, next: &Next<'_>, request: &Request, asked: &Parts) -> Lookup {
        match self.find(asked) {
            Lookup::Hit(hit) if next.client.follows(request, hit.status(), hit.headers(), &[]) => Lookup::Miss,
            Lookup::Hit(hit) if hit.extensions().get::<HeadAlone>().is_some() => nothing(asked),
            found => found,
        }
    }

    /// Sends it, with what is known of where it may be led to, and keeps what may be kept.
    async fn ask(&self, next: Next<'_>, request: Request, asked: &Parts) -> Result<Response> {
        let sent = clock::wall();
        let exchange = self.exchange(next, request).await?;
        Ok(self.taken(asked, sent, exchange))
    }

    async fn exchange(&self, next: Next<'_>, mut request: Request) -> Result<Exchange> {
        let trail = Trail::join(&mut request);
        let before = trail.len();
        request.options.more().known = Some(Known { cache: self.clone(), last: next.layers.is_empty() });
        let response = next.run(request).await?;
        Ok(Exchange { response, steps: trail.since(before) })
    }

    /// Keeps each answer for itself: of redirects what they said, and the last one as its body is read.
    fn taken(&self, asked: &Parts, sent: std::time::SystemTime, exchange: Exchange) -> Response {
        let Exchange { response, mut steps } = exchange;
        if response.redirects().is_empty() {
            return response.map_http(|response| self.record(asked, sent, response).map(Incoming::from_body));
        }
        let last = steps.pop();
        for step in &steps {
            let Some(answer) = &step.answer else { continue };
            self.invalidate(&step.request, &answer.parts);
            // What stands between may have asked more than once: then there are ends among them, whose bodies nobody kept.
            if answer.parts.status.is_redirection() && answer.parts.extensions.get::<FromCache>().is_none() {
                self.store_redirect(&step.request, step.started, &answer.parts);
            }
        }
        match last.filter(|_| response.extensions().get::<FromCache>().is_none()) {
            // What stood between may have answered by itself.
            Some(last) if last.request.uri == *response.uri() => response
                .map_http(|response| self.record(&last.request, last.started, response).map(Incoming::from_body)),
            _ => response,
        }
    }

    async fn validate(&self, next: Next<'_>, mut request: Request, asked: &Parts, stale: &Stale) -> Result<()> {
        let sent = clock::wall();
        stale.make_conditional(&mut request.parts.headers);
        let exchange = self.exchange(next, request).await?;
        if exchange.response.status() == StatusCode::NOT_MODIFIED {
            if exchange.response.redirects().is_empty() {
                self.refresh(stale, sent, exchange.response.parts());
            }
        } else {
            self.taken(asked, sent, exchange).bytes().await?;
        }
        Ok(())
    }
}

/// What is kept, for the requests that redirects lead to.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    cache: Cache,
    /// Nothing stands below the cache.
    last: bool,
}

impl Known {
    /// A response that is good without asking anybody.
    pub(crate) fn find(&self, request: &Parts) -> Option<Response> {
        let found = match self.cache.find(request) {
            // What is kept has passed all that stands below the cache, and would pass it again.
            Lookup::Hit(hit) if !self.last && !hit.status().is_redirection() => nothing(request),
            found => found,
        };
        match found {
            Lookup::Hit(hit) => Some(given(hit, &request.uri, FromCache::Fresh)),
            Lookup::Unsatisfiable => Some(unsatisfiable(request.uri.clone())),
            Lookup::Stale(_) | Lookup::Miss => None,
        }
    }
}

fn unsatisfiable(uri: Uri) -> Response {
    let mut response = HttpResponse::new(Bytes::new());
    *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
    Response::from_http(response.map(whole), uri)
}

fn whole(body: Bytes) -> Incoming {
    Incoming::from_body(Full::new(body))
}

fn given(response: HttpResponse<Bytes>, uri: &Uri, how: FromCache) -> Response {
    let mut response = Response::from_http(response.map(whole), uri.clone());
    response.extensions_mut().insert(how);
    response
}
