//! Tower services as transports, and a channel as a tower service: what stubs of tonic run on.

use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::uri::Uri;
use http::{Request, Response};
use portolan_core::{BoxError, BoxFuture, Error, Phase, Result};
use tower_service::Service;

use crate::PROTOCOL;
use crate::body::Body;
use crate::channel::{Carrier, Channel};
use crate::transport::Transport;

/// Any tower service of HTTP requests, as a [`Transport`].
///
/// What became of a request is known only if the service's errors are, or hold, those of this workspace; of all others it is
/// unknown, and such a call is made again by policy alone.
pub struct Tower<S> {
    service: Arc<Mutex<S>>,
}

impl<S> Tower<S> {
    /// Calls are made by clones of `service`.
    pub fn new(service: S) -> Self {
        Self { service: Arc::new(Mutex::new(service)) }
    }
}

impl<S> Clone for Tower<S> {
    fn clone(&self) -> Self {
        Self { service: Arc::clone(&self.service) }
    }
}

impl<S> fmt::Debug for Tower<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tower")
    }
}

impl<S, B> Transport for Tower<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send> + Clone + Send + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Body = B;

    async fn send(&self, request: Request<Body>) -> Result<Response<B>> {
        let mut service = self.service.lock().unwrap_or_else(PoisonError::into_inner).clone();
        poll_fn(|cx| service.poll_ready(cx)).await.map_err(|error| failed(error.into()))?;
        service.call(request).await.map_err(|error| failed(error.into()))
    }
}

fn failed(error: BoxError) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => *error,
        Err(error) => {
            Error::closed("the service failed").with_phase(Phase::Send).with_protocol(PROTOCOL).with_source(error)
        }
    }
}

impl<K, B> Service<Request<B>> for Channel<K>
where
    K: Carrier,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<<Self as Transport>::Body>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        // Whether there is a connection is found out by the call, which waits in a bounded queue.
        Poll::Ready(Ok(()))
    }

    /// A URI that names no host, as stubs make it, is completed by the channel's own.
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let channel = self.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            parts.uri = channel.complete(parts.uri)?;
            Transport::send(&channel, Request::from_parts(parts, Body::wrap(body))).await
        })
    }
}

impl<K: Carrier> Channel<K> {
    fn complete(&self, uri: Uri) -> Result<Uri> {
        if uri.authority().is_some() {
            return Ok(uri);
        }
        let origin: Uri = self.origin().parse().map_err(|error| {
            Error::usage("the channel's URL is no origin").with_protocol(PROTOCOL).with_source(BoxError::from(error))
        })?;
        let (mut parts, origin) = (uri.into_parts(), origin.into_parts());
        (parts.scheme, parts.authority) = (origin.scheme, origin.authority);
        Uri::from_parts(parts)
            .map_err(|error| Error::usage("a URI that can't be completed").with_protocol(PROTOCOL).with_source(error))
    }
}
