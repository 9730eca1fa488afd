//! What carries calls: anything that takes an HTTP request and gives a response with trailers.

use std::future::Future;

use bytes::Bytes;
use http::{Request, Response};
use portolan_core::{BoxError, Result};

use crate::body::Body;

/// What carries calls. A connection of HTTP/2 is one, a [`Channel`](crate::Channel) of many is one.
///
/// The error's [`delivery`](portolan_core::Error::delivery) must say what became of the request: calls are made again by it.
pub trait Transport: Clone + Send + Sync + 'static {
    /// What responses are read from.
    type Body: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static;

    /// Sends a request and waits for the head of its response. Dropping the future, or the body it gave, cancels the call.
    fn send(&self, request: Request<Body>) -> impl Future<Output = Result<Response<Self::Body>>> + Send;
}

impl Transport for portolan_http2::SendRequest {
    type Body = portolan_http2::RecvBody;

    fn send(&self, request: Request<Body>) -> impl Future<Output = Result<Response<Self::Body>>> + Send {
        Self::send(self, request)
    }
}
