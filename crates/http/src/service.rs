//! The client as a tower service.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use portolan_core::{BoxError, Error, Result};
use tower_service::Service;

use crate::body::Body;
use crate::client::Client;
use crate::incoming::Incoming;
use crate::request::Request;

impl<B> Service<http::Request<B>> for Client
where
    B: http_body::Body + Send + 'static,
    B::Data: Into<Bytes>,
    B::Error: Into<BoxError>,
{
    type Response = http::Response<Incoming>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Incoming>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        // Who waits for a connection waits in the pool, in order.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let client = self.clone();
        let request = Request::from(request.map(Body::from_body));
        Box::pin(async move { Ok(client.execute(request).await?.into_http()) })
    }
}

impl Service<Request> for Client {
    type Response = crate::Response;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<crate::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let client = self.clone();
        Box::pin(async move { client.execute(request).await })
    }
}
