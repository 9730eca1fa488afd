//! The upgrade as it comes off the wire, and the answer as it goes onto it.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use portolan_core::{Error, Kind, Phase, Result, Stream, clock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::protocol::PROTOCOL;

/// The longest head of a request: upgrades need a few hundred bytes, cookies and tokens some thousand.
const MAX_HEAD: usize = 16 << 10;
/// The most headers.
const MAX_HEADERS: usize = 64;
/// How long a refused client may take to read why: closing at once would reset the connection, and it would not hear.
const LINGER: Duration = Duration::from_secs(1);
/// How much of what it still sends is passed over in that time.
const MAX_LINGER: usize = 64 << 10;

/// Reads a request's head; what was read beyond it belongs to the conversation.
pub(super) async fn read(stream: &mut Stream) -> Result<(Request<()>, Bytes)> {
    let mut buf = BytesMut::with_capacity(1 << 10);
    loop {
        if let Some((request, len)) = parse(&buf)? {
            buf.advance(len);
            return Ok((request, buf.freeze()));
        }
        if buf.len() >= MAX_HEAD {
            return Err(Error::new(Kind::Limit, "the head of the request is too long").with_protocol(PROTOCOL));
        }
        let n = stream.read_buf(&mut buf).await.map_err(|error| Error::io(Phase::Handshake, error))?;
        if n == 0 {
            return Err(Error::closed("ended before the upgrade was whole").with_protocol(PROTOCOL));
        }
    }
}

fn parse(src: &[u8]) -> Result<Option<(Request<()>, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut fields);
    let len = match parsed.parse(src) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(broken("no HTTP/1.1 request").with_source(error)),
    };
    if parsed.version != Some(1) {
        return Err(broken("another version than HTTP/1.1"));
    }
    let mut request = Request::new(());
    *request.method_mut() = parsed.method.and_then(|m| m.parse::<Method>().ok()).ok_or_else(|| broken("no method"))?;
    let uri = parsed.path.and_then(|path| path.parse::<Uri>().ok()).filter(|uri| uri.path().starts_with('/'));
    *request.uri_mut() = uri.ok_or_else(|| broken("a path that is none"))?;
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| broken("a header name that is none"))?;
        let mut value = HeaderValue::from_bytes(field.value).map_err(|_| broken("a header value that is none"))?;
        value.set_sensitive(matches!(name, header::AUTHORIZATION | header::COOKIE | header::PROXY_AUTHORIZATION));
        headers.append(name, value);
    }
    *request.headers_mut() = headers;
    Ok(Some((request, len)))
}

fn broken(what: &'static str) -> Error {
    Error::protocol(PROTOCOL, what).with_phase(Phase::Handshake)
}

/// Writes the answer that opens the conversation.
pub(super) async fn write(stream: &mut Stream, response: &Response<()>) -> Result<()> {
    let mut head = format!("HTTP/1.1 {}\r\n", response.status()).into_bytes();
    for (name, value) in response.headers() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    let sent = async {
        stream.write_all(&head).await?;
        stream.flush().await
    };
    sent.await.map_err(|error| Error::io(Phase::Handshake, error))
}

/// Why there is no tunnel.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) words: &'static str,
    pub(super) header: Option<(HeaderName, HeaderValue)>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, words: &'static str) -> Self {
        Self { status, words, header: None }
    }

    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some((name, value));
        self
    }

    /// Tells the client, and gives it a moment to hear it. What goes wrong here matters to nobody.
    pub(super) async fn send(&self, stream: &mut Stream) {
        let mut text = format!("HTTP/1.1 {}\r\nconnection: close\r\ncontent-type: text/plain\r\n", self.status);
        if let Some((name, value)) = &self.header {
            let _ = write!(text, "{name}: {}\r\n", value.to_str().unwrap_or_default());
        }
        let _ = write!(text, "content-length: {}\r\n\r\n{}\n", self.words.len() + 1, self.words);
        let work = async {
            stream.write_all(text.as_bytes()).await?;
            stream.shutdown().await?;
            let (mut left, mut room) = (MAX_LINGER, [0; 1 << 10]);
            while left > 0 {
                match stream.read(&mut room).await? {
                    0 => break,
                    n => left = left.saturating_sub(n),
                }
            }
            std::io::Result::Ok(())
        };
        let _ = clock::within(Some(LINGER), Phase::Close, async { Ok(work.await) }).await;
    }
}
