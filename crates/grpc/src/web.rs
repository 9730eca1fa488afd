//! gRPC-Web (PROTOCOL-WEB.md of the gRPC project): gRPC for ways that lose trailers, such as proxies and HTTP/1.1.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE};
use http::{Request, Response};
use http_body::Frame;
use portolan_core::{BoxError, Result};

use crate::body::{Body, BoxBody, boxed_body};
use crate::tail::{TranslatedBody, broken};
use crate::transport::Transport;

/// The flag of the frame that holds the trailers.
const TRAILERS: u8 = 0x80;
/// What is not trailing metadata: a block of more lines than this is refused.
const MAX_LINES: usize = 512;

/// A transport that speaks gRPC-Web over another one.
///
/// Over ways that answer only once the request is whole (HTTP/1.1, most proxies) calls of one message to the server work, and
/// others do not.
///
/// ```no_run
/// # async fn example(channel: portolan_grpc::Channel) -> portolan_core::Result<()> {
/// use portolan_grpc::{Client, Web};
///
/// let client = Client::new(Web::new(channel), "https://api.example")?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Web<T> {
    inner: T,
    text: bool,
}

impl<T: Transport> Web<T> {
    /// Binary: `application/grpc-web`.
    pub fn new(inner: T) -> Self {
        Self { inner, text: false }
    }

    /// In base64, for what takes text alone: `application/grpc-web-text`.
    pub fn text(inner: T) -> Self {
        Self { inner, text: true }
    }

    fn translate(&self, request: Request<Body>) -> Result<Request<Body>> {
        let (mut parts, body) = request.into_parts();
        let name = if self.text { "application/grpc-web-text" } else { "application/grpc-web" };
        let suffix = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(|value| {
            let suffix = value.strip_prefix("application/grpc").unwrap_or_default();
            // Servers of gRPC-Web want to be told.
            if suffix.is_empty() { "+proto" } else { suffix }
        });
        let value = HeaderValue::try_from(format!("{name}{}", suffix.unwrap_or_default()));
        let value = value.map_err(|_| portolan_core::Error::usage("a suffix that is no part of a content type"))?;
        parts.headers.insert(CONTENT_TYPE, value.clone());
        parts.headers.insert(ACCEPT, value);
        parts.headers.insert(HeaderName::from_static("x-grpc-web"), HeaderValue::from_static("1"));
        parts.headers.remove(TE);
        let (shape, wait, safe) = (body.shape(), body.wait_for_ready(), body.is_safe());
        let body = match (self.text, body.into_full()) {
            (false, Ok(bytes)) => Body::full(bytes),
            (false, Err(body)) => Body::stream(body),
            (true, Ok(bytes)) => Body::full(STANDARD.encode(bytes).into()),
            (true, Err(body)) => Body::stream(Encoded(body)),
        };
        Ok(Request::from_parts(parts, body.for_call(shape, wait, safe)))
    }
}

impl<T: Transport> Transport for Web<T> {
    type Body = TranslatedBody;

    async fn send(&self, request: Request<Body>) -> Result<Response<TranslatedBody>> {
        let request = self.translate(request)?;
        let (mut parts, body) = self.inner.send(request).await?.into_parts();
        let body = boxed_body(body);
        let Some((text, suffix)) = kind(&parts.headers) else {
            // Not ours: the client says what it is instead.
            return Ok(Response::from_parts(parts, TranslatedBody::new(body)));
        };
        let value = HeaderValue::try_from(format!("application/grpc{suffix}"));
        parts.headers.insert(CONTENT_TYPE, value.map_err(|_| broken("a content type that is none"))?);
        let body: BoxBody = if text { Box::pin(Decoded { body, buffer: BytesMut::new(), over: false }) } else { body };
        Ok(Response::from_parts(parts, TranslatedBody::tail(body, TRAILERS, trailers)))
    }
}

/// Whether a response is gRPC-Web: whether it is text, and what of.
fn kind(headers: &HeaderMap) -> Option<(bool, String)> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?.to_ascii_lowercase();
    let rest = value.strip_prefix("application/grpc-web")?;
    let (text, rest) = rest.strip_prefix("-text").map_or((false, rest), |rest| (true, rest));
    let whole = rest.is_empty() || rest.starts_with(['+', ';']);
    whole.then(|| (text, rest.to_owned()))
}

/// The last frame: fields as HTTP/1.1 writes them.
fn trailers(_: u8, block: Bytes) -> Result<HeaderMap> {
    let mut map = HeaderMap::new();
    let lines = block.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    for (count, line) in lines.filter(|line| !line.is_empty()).enumerate() {
        let at = line.iter().position(|byte| *byte == b':').ok_or_else(|| broken("a trailer without a colon"))?;
        let (name, value) = line.split_at(at);
        let value = value.strip_prefix(b":").unwrap_or_default().trim_ascii();
        let name = HeaderName::from_bytes(name.trim_ascii()).map_err(|_| broken("a trailer without a name"))?;
        let value = HeaderValue::from_bytes(value).map_err(|_| broken("a trailer of control characters"))?;
        if count >= MAX_LINES {
            return Err(broken("too many trailers"));
        }
        map.append(name, value);
    }
    Ok(map)
}

/// A request's body in base64, piece by piece.
struct Encoded(BoxBody);

impl http_body::Body for Encoded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(self.0.as_mut().poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(|data| STANDARD.encode(data).into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}

/// A response's body out of base64: groups of four, each of which may be padded.
struct Decoded {
    body: BoxBody,
    buffer: BytesMut,
    over: bool,
}

impl Decoded {
    /// The groups at hand, up to and with the first that is padded.
    fn step(&mut self) -> Result<Option<Bytes>> {
        let whole = self.buffer.len() - self.buffer.len() % 4;
        let end = self.buffer.iter().position(|byte| *byte == b'=').map_or(whole, |at| (at / 4 + 1) * 4).min(whole);
        if end == 0 {
            return if self.over && !self.buffer.is_empty() { Err(broken("base64 that is cut")) } else { Ok(None) };
        }
        let text = self.buffer.split_to(end);
        let bytes = STANDARD.decode(text).map_err(|error| broken("text that is no base64").with_source(error))?;
        Ok(Some(bytes.into()))
    }
}

impl http_body::Body for Decoded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            match self.step() {
                Ok(Some(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Ok(None) if self.over => return Poll::Ready(None),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
            match ready!(self.body.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.over = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_are_read_as_http_writes_them() {
        let map = trailers(TRAILERS, Bytes::from_static(b"grpc-status:0\r\nX-A: b \r\nx-a:c:d\n")).unwrap();
        assert_eq!(map.get("grpc-status").unwrap(), "0");
        assert_eq!(map.get_all("x-a").iter().collect::<Vec<_>>(), ["b", "c:d"]);
        for bad in ["x", ": y", "a b: c", "a: \x01"] {
            assert!(trailers(TRAILERS, Bytes::from_static(bad.as_bytes())).is_err(), "{bad:?}");
        }
        assert!(trailers(TRAILERS, "a: b\n".repeat(513).into()).is_err());
    }

    #[test]
    fn groups_are_decoded_however_they_are_padded_and_cut() {
        let mut decoded = Decoded { body: boxed_body(Body::default()), buffer: BytesMut::new(), over: false };
        let mut out = Vec::new();
        for piece in ["YQ", "==YWI=", "Y", "WJjYWJj"] {
            decoded.buffer.extend_from_slice(piece.as_bytes());
            while let Some(bytes) = decoded.step().unwrap() {
                out.extend_from_slice(&bytes);
            }
        }
        assert_eq!(out, b"aababcabc");
        decoded.buffer.extend_from_slice(b"YQ");
        decoded.over = true;
        assert!(decoded.step().is_err());
        let mut bad = Decoded { body: boxed_body(Body::default()), buffer: BytesMut::from("*abc"), over: false };
        assert!(bad.step().is_err());
    }

    #[test]
    fn only_grpc_web_is_taken_for_it() {
        let kind = |value: &'static str| kind(&HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))]));
        assert_eq!(kind("application/grpc-web+proto"), Some((false, "+proto".to_owned())));
        assert_eq!(kind("application/grpc-web-text"), Some((true, String::new())));
        assert_eq!(kind("application/grpc-webx"), None);
        assert_eq!(kind("application/grpc"), None);
    }
}
