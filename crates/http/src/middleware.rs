//! What stands between the caller and the wire.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use portolan_core::Result;

use crate::client::Client;
use crate::request::Request;
use crate::response::Response;

/// A future that a middleware gives.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Sees each request on its way out and each response on its way back; may change either, answer by itself, or call
/// [`Next::run`] more than once.
///
/// ```
/// use portolan_core::Result;
/// use portolan_http::{Middleware, Next, Request, Response};
///
/// struct Stamp;
///
/// impl Middleware for Stamp {
///     async fn handle(&self, mut request: Request, next: Next<'_>) -> Result<Response> {
///         request.headers_mut().insert("x-stamp", http::HeaderValue::from_static("1"));
///         next.run(request).await
///     }
/// }
/// ```
pub trait Middleware: Send + Sync + 'static {
    /// Handles one request.
    fn handle(&self, request: Request, next: Next<'_>) -> impl Future<Output = Result<Response>> + Send;
}

/// The same behind a pointer.
pub(crate) trait Layer: Send + Sync {
    fn call<'a>(&'a self, request: Request, next: Next<'a>) -> BoxFuture<'a, Result<Response>>;
}

impl<M: Middleware> Layer for M {
    fn call<'a>(&'a self, request: Request, next: Next<'a>) -> BoxFuture<'a, Result<Response>> {
        Box::pin(self.handle(request, next))
    }
}

/// What comes after a middleware: the next one, or the wire.
#[derive(Clone, Copy)]
pub struct Next<'a> {
    pub(crate) client: &'a Client,
    pub(crate) layers: &'a [Arc<dyn Layer>],
}

impl Next<'_> {
    /// Sends the request on.
    pub async fn run(self, mut request: Request) -> Result<Response> {
        match self.layers.split_first() {
            Some((layer, layers)) => layer.call(request, Next { client: self.client, layers }).await,
            None => self.client.follow(&mut request).await,
        }
    }
}

impl std::fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Next").field("layers", &self.layers.len()).finish_non_exhaustive()
    }
}
