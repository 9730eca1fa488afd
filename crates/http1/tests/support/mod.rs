//! A peer that says exactly what the test wants it to say.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part of this")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use portolan_http1::{Connection, Options, send};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

pub type Peer = DuplexStream;

pub fn pair() -> (Connection<DuplexStream>, Peer) {
    pair_with(Options::new())
}

pub fn pair_with(options: Options) -> (Connection<DuplexStream>, Peer) {
    let (near, far) = duplex(64 << 10);
    (Connection::new(near, options), far)
}

pub fn get() -> Request<Empty<Bytes>> {
    Request::get("http://example.org/path?q=1").body(Empty::new()).unwrap()
}

/// Reads until `end` has come.
pub async fn heard(peer: &mut Peer, end: &[u8]) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end) {
        let byte = peer.read_u8().await.unwrap();
        text.push(byte);
    }
    String::from_utf8(text).unwrap()
}

/// One exchange with a peer that answers `reply` and leaves the connection open.
pub async fn answered(
    conn: &mut Connection<DuplexStream>,
    peer: &mut Peer,
    reply: &[u8],
) -> portolan_core::Result<(StatusCode, Bytes)> {
    let server = async {
        heard(peer, b"\r\n\r\n").await;
        peer.write_all(reply).await.unwrap();
    };
    let client = async {
        let response = send(conn, get()).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    };
    tokio::join!(client, server).0
}

pub fn streamed(pieces: Vec<Result<http_body::Frame<Bytes>, std::io::Error>>) -> BoxBody<Bytes, std::io::Error> {
    BoxBody::new(StreamBody::new(futures_util_lite::iter(pieces)))
}

/// A stream of what is there already.
mod futures_util_lite {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    pub(crate) fn iter<T: Unpin>(items: Vec<T>) -> Iter<T> {
        Iter(items.into())
    }

    pub(crate) struct Iter<T>(std::collections::VecDeque<T>);

    impl<T: Unpin> futures_core::Stream for Iter<T> {
        type Item = T;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<T>> {
            Poll::Ready(self.0.pop_front())
        }
    }
}
