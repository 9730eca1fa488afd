//! Servers made of other crates' halves, whose handlers are the same over every version of HTTP.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

pub(crate) mod h2_half;
pub(crate) mod h3_half;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use tokio::sync::mpsc;

/// What a handler wants sent.
#[derive(Debug)]
pub(crate) enum Out {
    Head(Response<()>, bool),
    Data(Bytes, bool),
    Trailers(HeaderMap),
    Reset(u32),
}

/// A call at the server.
pub(crate) struct Call {
    pub(crate) head: http::request::Parts,
    pub(crate) body: mpsc::Receiver<Bytes>,
    pub(crate) out: mpsc::Sender<Out>,
    buffer: BytesMut,
}

pub(crate) type Handler = Arc<dyn Fn(Call) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

pub(crate) fn handler<F, Fut>(handle: F) -> Handler
where
    F: Fn(Call) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    Arc::new(move |call| Box::pin(handle(call)))
}

impl Call {
    pub(crate) fn new(head: http::request::Parts, body: mpsc::Receiver<Bytes>, out: mpsc::Sender<Out>) -> Self {
        Self { head, body, out, buffer: BytesMut::new() }
    }

    pub(crate) fn path(&self) -> &str {
        self.head.uri.path()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The next message and its flag.
    pub(crate) async fn message(&mut self) -> Option<(u8, Bytes)> {
        loop {
            if self.buffer.len() >= 5 {
                let length = u32::from_be_bytes(self.buffer[1..5].try_into().unwrap()) as usize;
                if self.buffer.len() >= 5 + length {
                    let flag = self.buffer.get_u8();
                    self.buffer.advance(4);
                    return Some((flag, self.buffer.split_to(length).freeze()));
                }
            }
            match self.body.recv().await {
                Some(data) => self.buffer.extend_from_slice(&data),
                None => {
                    assert!(self.buffer.is_empty(), "the request ended within a message");
                    return None;
                }
            }
        }
    }

    pub(crate) async fn out(&self, out: Out) {
        let _ = self.out.send(out).await;
    }

    /// The head of a good response, with these fields.
    pub(crate) async fn start(&self, fields: &[(&str, &str)]) {
        self.out(Out::Head(response(fields), false)).await;
    }

    /// A response that is only a status.
    pub(crate) async fn only(&self, fields: &[(&str, &str)]) {
        self.out(Out::Head(response(fields), true)).await;
    }

    pub(crate) async fn http(&self, status: u16, content_type: &str) {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response.headers_mut().insert("content-type", HeaderValue::from_str(content_type).unwrap());
        self.out(Out::Head(response, true)).await;
    }

    pub(crate) async fn send(&self, message: impl AsRef<[u8]>) {
        self.out(Out::Data(frame(0, message.as_ref()), false)).await;
    }

    pub(crate) async fn send_flagged(&self, flag: u8, message: impl AsRef<[u8]>) {
        self.out(Out::Data(frame(flag, message.as_ref()), false)).await;
    }

    pub(crate) async fn raw(&self, data: impl Into<Bytes>) {
        self.out(Out::Data(data.into(), false)).await;
    }

    pub(crate) async fn end(&self, fields: &[(&str, &str)]) {
        self.out(Out::Trailers(fields_of(fields))).await;
    }

    pub(crate) async fn ok(&self) {
        self.end(&[("grpc-status", "0")]).await;
    }

    /// Waits until the client has let the call go.
    pub(crate) async fn gone(&self) {
        self.out.closed().await;
    }
}

pub(crate) fn frame(flag: u8, message: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(flag);
    frame.put_u32(u32::try_from(message.len()).unwrap());
    frame.put_slice(message);
    frame.freeze()
}

pub(crate) fn fields_of(fields: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    map
}

fn response(fields: &[(&str, &str)]) -> Response<()> {
    let mut response = Response::new(());
    *response.headers_mut() = fields_of(fields);
    if !response.headers().contains_key("content-type") {
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    }
    response
}
