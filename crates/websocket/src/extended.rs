//! WebSocket over one stream of HTTP/2 (RFC 8441) or HTTP/3 (RFC 9220).

use std::future::{Future, poll_fn};
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use http::Response;
use http_body::Body;
use portolan_core::{Error, Phase, Result, clock};
use portolan_http::OnMessage;
use portolan_http2::{RecvBody, SendRequest, ext};

use crate::connect::{BODY_TIME, MAX_BODY};
use crate::duplex::{Duplex, PipeBody, Received, pipe};
use crate::handshake::{Rejected, Request};
use crate::options::Options;
use crate::socket::WebSocket;

/// What `:protocol` says.
const NAME: &str = "websocket";

impl WebSocket<Duplex<RecvBody>> {
    /// Opens a WebSocket on a stream of an HTTP/2 connection, which other requests share (RFC 8441).
    ///
    /// A peer that doesn't allow extended CONNECT is an error of [`Kind::Unsupported`](portolan_core::Kind::Unsupported), not
    /// sent. There is no deadline here but the connection's own. Dropping the future cancels the stream.
    pub async fn connect_h2(connection: &SendRequest, request: &Request, options: Options) -> Result<Self> {
        let send = async |mut request: http::Request<PipeBody>| {
            request.extensions_mut().insert(ext::Protocol::new(NAME));
            connection.send(request).await
        };
        // Boxed: a request on its way is large, and every caller's future would carry it.
        Box::pin(WebSocket::connect_over(request, options, send)).await
    }
}

impl<B> WebSocket<Duplex<B>>
where
    B: Body<Data = Bytes, Error = Error> + Unpin,
{
    /// Opens a WebSocket by an extended CONNECT that `send` sends: any HTTP/2 or HTTP/3 client that can say `:protocol`.
    ///
    /// `send` gets the request as [`Request::extended`] makes it, and adds what its client needs to send `:protocol:
    /// websocket`. The answer is checked here; one that opens nothing is an error with a [`Rejected`].
    pub async fn connect_over<S, F>(request: &Request, mut options: Options, send: S) -> Result<Self>
    where
        S: FnOnce(http::Request<PipeBody>) -> F,
        F: Future<Output = Result<Response<B>>>,
    {
        let (out, body) = pipe();
        let response = send(request.extended(&options)?.map(|()| body)).await?;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        let (parts, body) = response.into_parts();
        let heard_by = parts.extensions.get::<OnMessage>().cloned();
        let agreed = request.verify_extended(&options, &Response::from_parts(parts, ()))?;
        options = options.agreed(agreed.deflate);
        options.ends_first = true;
        options.heard_by.extend(heard_by);
        Ok(Self::from_stream(Duplex::new(Received(body), out), options).with_subprotocol(agreed.subprotocol))
    }
}

/// What a response that opens nothing says, with as much of its body as comes in time.
pub(crate) async fn refusal<B>(response: Response<B>) -> Error
where
    B: Body<Data = Bytes, Error = Error> + Unpin,
{
    let (parts, mut body) = response.into_parts();
    let reading = async { Ok(start_of(&mut body).await) };
    let body = clock::within(Some(BODY_TIME), Phase::Idle, reading).await.unwrap_or_default();
    Rejected::into_error(parts.status, parts.headers, body)
}

/// The start of a refusal's body. What is wrong with it matters to no one.
async fn start_of<B>(body: &mut B) -> Bytes
where
    B: Body<Data = Bytes, Error = Error> + Unpin,
{
    let mut start = BytesMut::new();
    while start.len() < MAX_BODY {
        match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
            Some(Ok(frame)) => start.extend_from_slice(&frame.into_data().unwrap_or_default()),
            _ => break,
        }
    }
    start.truncate(MAX_BODY);
    start.freeze()
}
