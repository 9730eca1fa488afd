//! The cache between the caller and the wire.

use bytes::Bytes;
use http::request::Parts;
use http::{Response as HttpResponse, StatusCode, Uri};
use http_body_util::Full;
use portolan_core::{Result, clock};

use super::{Cache, Lookup, Stale};
use crate::incoming::Incoming;
use crate::middleware::{Middleware, Next};
use crate::request::Request;
use crate::response::Response;

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
        let stale = match self.lookup(&asked) {
            Lookup::Hit(hit) => return Ok(given(hit, &request.parts.uri, FromCache::Fresh)),
            Lookup::Unsatisfiable => {
                let mut response = HttpResponse::new(Bytes::new());
                *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
                return Ok(Response::from_http(response.map(whole), request.parts.uri));
            }
            Lookup::Miss => {
                let sent = clock::wall();
                let response = next.run(request).await?;
                return Ok(self.taken(&asked, sent, response));
            }
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
        let sent = clock::wall();
        stale.make_conditional(&mut request.parts.headers);
        let response = match next.run(request).await {
            Err(error) => {
                let old = stale.if_error().ok_or(error)?;
                return Ok(given(old, &asked.uri, FromCache::Stale));
            }
            Ok(response) => response,
        };
        if Stale::is_error(response.status())
            && let Some(old) = stale.if_error()
        {
            return Ok(given(old, &asked.uri, FromCache::Stale));
        }
        if response.status() != StatusCode::NOT_MODIFIED {
            return Ok(self.taken(&asked, sent, response));
        }
        // After a redirect it is about what that led to, and not about ours.
        let ours = response.redirects().is_empty();
        let good = if ours { self.refresh(&stale, sent, response.parts()) } else { None };
        match (good, again) {
            (Some(good), _) => Ok(given(good, &asked.uri, FromCache::Validated)),
            // The 304 is about another response than ours: ask for all of it.
            (None, Some(again)) => {
                let sent = clock::wall();
                let response = next.run(again).await?;
                Ok(self.taken(&asked, sent, response))
            }
            (None, None) => Ok(response),
        }
    }
}

impl Cache {
    /// What came at the end of redirects is another's answer: nothing is kept of it.
    fn taken(&self, asked: &Parts, sent: std::time::SystemTime, response: Response) -> Response {
        if !response.redirects().is_empty() {
            self.invalidate(asked, response.parts());
            return response;
        }
        response.map_http(|response| self.record(asked, sent, response).map(Incoming::from_body))
    }

    async fn validate(&self, next: Next<'_>, mut request: Request, asked: &Parts, stale: &Stale) -> Result<()> {
        let sent = clock::wall();
        stale.make_conditional(&mut request.parts.headers);
        let response = next.run(request).await?;
        if response.status() == StatusCode::NOT_MODIFIED {
            if response.redirects().is_empty() {
                self.refresh(stale, sent, response.parts());
            }
        } else {
            self.taken(asked, sent, response).bytes().await?;
        }
        Ok(())
    }
}

fn whole(body: Bytes) -> Incoming {
    Incoming::from_body(Full::new(body))
}

fn given(response: HttpResponse<Bytes>, uri: &Uri, how: FromCache) -> Response {
    let mut response = Response::from_http(response.map(whole), uri.clone());
    response.extensions_mut().insert(how);
    response
}
