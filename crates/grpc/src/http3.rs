//! A connection of HTTP/3 as a transport.

use std::future::Future;

use http::{Request, Response};
use portolan_core::Result;

use crate::body::Body;
use crate::transport::Transport;

impl Transport for portolan_http3::SendRequest {
    type Body = portolan_http3::RecvBody;

    fn send(&self, request: Request<Body>) -> impl Future<Output = Result<Response<Self::Body>>> + Send {
        Self::send(self, request)
    }
}
