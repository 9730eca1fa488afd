//! The handshake over HTTP/1.1, on a stream of the connector's making.

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Response, StatusCode};
use portolan_core::observe::{Probe, Semantics};
use portolan_core::{Connector, Error, Phase, Result, Stream, clock};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::codec::PROTOCOL;
use crate::handshake::head::{broken, parse};
use crate::handshake::{Rejected, Request};
use crate::options::Options;
use crate::socket::WebSocket;

/// How much of a refusal's body is kept.
pub(crate) const MAX_BODY: usize = 16 << 10;
/// How long a refusal's body may take: it is a courtesy, and the refusal is known already.
pub(crate) const BODY_TIME: std::time::Duration = std::time::Duration::from_secs(5);
/// Informational responses before the final one.
const MAX_INFORMATIONAL: usize = 16;

impl WebSocket<Stream> {
    /// Connects to a `ws://` or `wss://` URL by way of the connector: its resolver, its hops, its TLS, its deadlines.
    ///
    /// An answer that opens no WebSocket is an error of [`Kind::Server`](portolan_core::Kind::Server) with a [`Rejected`].
    /// Dropping the future closes what was opened.
    pub async fn connect(net: &Connector, url: &str, options: Options) -> Result<Self> {
        Self::open(net, &Request::new(url)?, options).await
    }

    /// Connects with headers, subprotocols and credentials of the caller's. A server that asks for Digest is answered on a second
    /// connection.
    pub async fn open(net: &Connector, request: &Request, options: Options) -> Result<Self> {
        let endpoint = request.url().endpoint(request.default_port())?;
        let (endpoint, options) = (&endpoint, &options);
        let once = |request: Request| async move {
            let stream = if request.is_secure() {
                net.connect_tls(endpoint, &[b"http/1.1"]).await?
            } else {
                net.connect(endpoint).await?
            };
            let probe = Probe::on(PROTOCOL, Semantics::Plain, &stream);
            let limit = net.timeouts().handshake_limit();
            let work = clock::within(limit, Phase::Handshake, Self::handshake(stream, &request, options.clone()));
            probe.phase(Phase::Handshake, work).await.map_err(|error| error.with_endpoint(endpoint.clone()))
        };
        let probe = Probe::new(PROTOCOL, Semantics::Plain, endpoint, net);
        probe.operation("open").run(request.twice(Method::GET, once)).await
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> WebSocket<T> {
    /// Makes the handshake of HTTP/1.1 on a stream that is connected to the server. It has no deadline of its own.
    pub async fn handshake(mut io: T, request: &Request, mut options: Options) -> Result<Self> {
        let failed = |error| Error::io(Phase::Handshake, error).with_protocol(PROTOCOL);
        io.write_all(&request.upgrade_bytes(&options)?).await.map_err(failed)?;
        io.flush().await.map_err(failed)?;
        let mut buf = BytesMut::with_capacity(1 << 10);
        let response = head(&mut io, &mut buf).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let (parts, ()) = response.into_parts();
            let reading = body(&mut io, &parts.headers, buf);
            // The part that came in time is not worth a longer wait.
            let body = clock::within(Some(BODY_TIME), Phase::Idle, reading).await.unwrap_or_default();
            return Err(Rejected::into_error(parts.status, parts.headers, body));
        }
        let agreed = request.verify(&options, &response)?;
        options = options.agreed(agreed.deflate).early(buf.freeze());
        Ok(Self::from_stream(io, options).with_subprotocol(agreed.subprotocol))
    }
}

/// Reads the head of the final response, or of a 101, and takes it off the front of `buf`.
async fn head<T: AsyncRead + Unpin>(io: &mut T, buf: &mut BytesMut) -> Result<Response<()>> {
    let mut informational = 0;
    loop {
        if let Some((response, len)) = parse(buf)? {
            buf.advance(len);
            if !response.status().is_informational() || response.status() == StatusCode::SWITCHING_PROTOCOLS {
                return Ok(response);
            }
            informational += 1;
            if informational > MAX_INFORMATIONAL {
                return Err(broken("too many informational responses"));
            }
            continue;
        }
        let read =
            io.read_buf(buf).await.map_err(|error| Error::io(Phase::Handshake, error).with_protocol(PROTOCOL))?;
        if read == 0 {
            let error = Error::closed("ended before an answer to the handshake");
            return Err(error.with_protocol(PROTOCOL).with_phase(Phase::Handshake));
        }
    }
}

/// The start of a refusal's body. What is wrong with it matters to no one.
async fn body<T: AsyncRead + Unpin>(io: &mut T, headers: &HeaderMap, mut buf: BytesMut) -> Result<Bytes> {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let chunked = headers.contains_key(TRANSFER_ENCODING);
    let wanted = if chunked { MAX_BODY } else { length.unwrap_or(MAX_BODY).min(MAX_BODY) };
    while buf.len() < wanted && !(chunked && buf.ends_with(b"0\r\n\r\n")) {
        if !matches!(io.read_buf(&mut buf).await, Ok(1..)) {
            break;
        }
    }
    buf.truncate(wanted);
    Ok(if chunked { unchunk(&buf).freeze() } else { buf.freeze() })
}

/// What the chunks hold, as far as they are whole.
fn unchunk(mut src: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    while let Ok(httparse::Status::Complete((at, len @ 1..))) = httparse::parse_chunk_size(src) {
        let rest = src.get(at..).unwrap_or_default();
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(rest.len());
        let (data, rest) = rest.split_at(len);
        out.extend_from_slice(data);
        src = rest.strip_prefix(b"\r\n").unwrap_or_default();
    }
    out
}
