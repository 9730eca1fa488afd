//! WebSockets by the HTTP client: its pool, its versions, its cookies, its middleware.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Method, Response, StatusCode};
use portolan_core::{BoxFuture, Delivery, Kind, Limit, Result, Timeouts};
use portolan_http::{Body, Client, Incoming, OnMessage, Upgraded, Version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::duplex::{Duplex, PipeBody};
use crate::extended::refusal;
use crate::handshake::Request;
use crate::options::Options;
use crate::socket::WebSocket;

/// What `:protocol` says.
const NAME: &str = "websocket";

/// What carries a WebSocket that the HTTP client opened.
#[derive(Debug)]
pub struct Carried(Inner);

#[derive(Debug)]
enum Inner {
    /// A connection of HTTP/1.1, which is now ours alone.
    Connection(Box<Upgraded>),
    /// A stream of HTTP/2 or HTTP/3, whose connection others share.
    Stream(Box<Duplex<Incoming>>),
}

impl WebSocket<Carried> {
    /// Opens a WebSocket by `client`: on a stream of an HTTP/2 or HTTP/3 connection of its pool where there is one and the server
    /// allows that (RFC 8441, RFC 9220), else by an upgrade of HTTP/1.1.
    ///
    /// The client's cookies, default fields and middleware hold; its bounds of silence and of the whole call don't, since a
    /// WebSocket may be silent for long: see [`Options::keepalive`]. Dropping the future leaves nothing behind.
    pub async fn open_with(client: &Client, request: &Request, options: Options) -> Result<Self> {
        let endpoint = request.url().endpoint(request.default_port())?;
        // Its type ends here: a caller's own futures are nested deep enough.
        let opening: BoxFuture<'_, Result<Self>> = Box::pin(Self::by_client(client, request, options));
        opening.await.map_err(|error| if error.endpoint().is_none() { error.with_endpoint(endpoint) } else { error })
    }

    async fn by_client(client: &Client, request: &Request, options: Options) -> Result<Self> {
        let cleartext = !request.is_secure() && !matches!(client.version(), Version::Http2Only | Version::PreferHttp2);
        if client.version() == Version::Http1Only || cleartext {
            return Self::upgraded(client, request, options).await;
        }
        let once = |request: Request| {
            let options = options.clone();
            // Boxed: a request on its way is large, and every caller's future would carry it.
            Box::pin(
                async move { WebSocket::connect_over(&request, options, |request| connect(client, request)).await },
            )
        };
        match request.twice(Method::CONNECT, once).await {
            Ok(socket) => Ok(socket.map_io(|io| Carried(Inner::Stream(Box::new(io))))),
            Err(error) if error.kind() == Kind::Unsupported && error.delivery() == Delivery::NotSent => {
                Self::upgraded(client, request, options).await
            }
            Err(error) => Err(error),
        }
    }

    async fn upgraded(client: &Client, request: &Request, options: Options) -> Result<Self> {
        request.twice(Method::GET, |request| Box::pin(upgrade(client, request, options.clone()))).await
    }
}

/// A WebSocket may be silent, and last.
fn patient() -> Timeouts {
    Timeouts::default().idle(Limit::Off).total(Limit::Off)
}

async fn connect(client: &Client, request: http::Request<PipeBody>) -> Result<Response<Incoming>> {
    let mut request = portolan_http::Request::from(request.map(Body::from_body));
    request.set_protocol(NAME);
    request.set_timeouts(patient());
    Ok(client.execute(request).await?.into_http())
}

async fn upgrade(client: &Client, request: Request, options: Options) -> Result<WebSocket<Carried>> {
    let mut head = request.upgrade(&options)?;
    // The client wants to know whom to ask; the target on the wire is the path all the same.
    *head.uri_mut() = request.extended(&options)?.uri().clone();
    let mut asked = portolan_http::Request::from(head.map(|()| Body::empty()));
    asked.set_version(Version::Http1Only);
    asked.set_timeouts(patient());
    let response = client.execute(asked).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refusal(response.into_http()).await);
    }
    let mut answer = Response::new(());
    *answer.status_mut() = response.status();
    *answer.headers_mut() = response.headers().clone();
    let agreed = request.verify(&options, &answer)?;
    let mut options = options.agreed(agreed.deflate);
    options.heard_by.extend(response.extensions().get::<OnMessage>().cloned());
    let stream = response.upgrade()?;
    let socket = WebSocket::from_stream(Carried(Inner::Connection(Box::new(stream))), options);
    Ok(socket.with_subprotocol(agreed.subprotocol))
}

macro_rules! each {
    ($self:expr, $io:ident => $call:expr) => {
        match &mut $self.get_mut().0 {
            Inner::Connection($io) => $call,
            Inner::Stream($io) => $call,
        }
    };
}

impl AsyncRead for Carried {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_read(cx, buf))
    }
}

impl AsyncWrite for Carried {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, io => Pin::new(io).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, io => Pin::new(io).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Inner::Connection(io) => io.is_write_vectored(),
            Inner::Stream(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_shutdown(cx))
    }
}
