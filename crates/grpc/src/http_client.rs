//! The HTTP client as a transport.

use http::{Request, Response};
use portolan_core::{Limit, Result, Timeouts};
use portolan_http::{Client, Incoming, Redirect};
use portolan_pool::Retry;

use crate::body::Body;
use crate::transport::Transport;

/// Calls share the client's pool with everything else, over HTTP/2 or HTTP/3 as the client chooses. A client that speaks
/// HTTP/1.1 to the server can carry gRPC-Web and Connect, not gRPC.
///
/// What gRPC decides by itself is not decided twice: retries, redirects, compression and deadlines are the call's.
impl Transport for Client {
    type Body = Incoming;

    async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>> {
        let mut request = portolan_http::Request::from(request.map(portolan_http::Body::from_body));
        request.set_timeouts(Timeouts::default().first_byte(Limit::Off).idle(Limit::Off).total(Limit::Off));
        request.set_retry(Retry::never());
        request.set_redirect(Redirect::none());
        request.set_decompression(false);
        Ok(self.execute(request).await?.into_http())
    }
}
