//! The client against the h2 crate's server: an independent decoder of what we encode, and encoder of what we decode.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use portolan_core::{Delivery, Kind, Phase, clock};
use portolan_http2::{Options, SendRequest, handshake};
use tokio::io::DuplexStream;

/// A server that gives back what it gets: headers that begin with `x-`, the body, the trailers.
async fn echo(io: DuplexStream, builder: h2::server::Builder) {
    let mut connection = builder.handshake::<_, Bytes>(io).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::spawn(async move {
            let (parts, mut body) = request.into_parts();
            if parts.uri.path() == "/refused" {
                return respond.send_reset(h2::Reason::REFUSED_STREAM);
            }
            let mut response = Response::new(());
            for (name, value) in parts.headers.iter().filter(|(name, _)| name.as_str().starts_with("x-")) {
                response.headers_mut().append(name, value.clone());
            }
            let mut send = respond.send_response(response, false).unwrap();
            if parts.uri.path() == "/long" {
                send_all(&mut send, pattern(LONG)).await;
            }
            while let Some(data) = body.data().await {
                let Ok(data) = data else { return };
                let _ = body.flow_control().release_capacity(data.len());
                send_all(&mut send, data).await;
            }
            match body.trailers().await.unwrap() {
                Some(trailers) => send.send_trailers(trailers).unwrap(),
                None => send.send_data(Bytes::new(), true).unwrap(),
            }
        });
    }
}

async fn send_all(send: &mut h2::SendStream<Bytes>, mut data: Bytes) {
    while !data.is_empty() {
        send.reserve_capacity(data.len());
        let Some(Ok(room)) = std::future::poll_fn(|cx| send.poll_capacity(cx)).await else { return };
        let part = data.split_to(room.min(data.len()));
        if send.send_data(part, false).is_err() {
            return;
        }
    }
}

fn client(builder: h2::server::Builder, options: Options) -> SendRequest {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    tokio::spawn(echo(theirs, builder));
    let (client, connection) = handshake(ours, options).unwrap();
    tokio::spawn(connection);
    client
}

/// What `/long` answers with.
const LONG: usize = 600_000;

fn pattern(len: usize) -> Bytes {
    (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect::<Vec<_>>().into()
}

#[tokio::test]
async fn bodies_of_every_size_come_back() {
    let client = client(h2::server::Builder::new(), Options::new());
    for len in [0, 1, 1023, 1024, 16_384, 16_385, 65_535, 65_536, 3_000_000] {
        let request = Request::post("http://example.test/echo").body(Full::new(pattern(len))).unwrap();
        let response = client.send(request).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), pattern(len), "{len}");
    }
}

#[tokio::test]
async fn uploads_and_downloads_share_the_connection_fairly() {
    let client = client(h2::server::Builder::new(), Options::new());
    let calls: Vec<_> = (0..16usize)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move {
                let body = pattern(200_000 + number);
                let request = Request::post("http://example.test/echo").body(Full::new(body.clone())).unwrap();
                let echoed = client.send(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
                assert_eq!(echoed, body);
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(client.status().active, 0);
}

#[tokio::test]
async fn responses_that_nobody_reads_do_not_stop_their_neighbours() {
    beside_unread(20, 100_000, Options::new()).await;
    // They hold three quarters of the window, and the echo is longer than what they leave of it.
    beside_unread(3, 2_000_000, Options::new().connection_window(1 << 20)).await;
}

/// An echo of so many bytes on a connection with responses that are read after it.
async fn beside_unread(count: usize, len: usize, options: Options) {
    let client = client(h2::server::Builder::new(), options);
    let get = |path: &str| Request::get(format!("http://example.test{path}")).body(Empty::<Bytes>::new()).unwrap();
    let mut unread = Vec::new();
    for _ in 0..count {
        unread.push(client.send(get("/long")).await.unwrap());
    }
    // Until each holds as much as it may.
    for _ in 0..10_000 {
        tokio::task::yield_now().await;
    }
    let body = Request::post("http://example.test/echo").body(Full::new(pattern(len))).unwrap();
    let other = async { Ok(client.send(body).await.unwrap().into_body().collect().await.unwrap().to_bytes()) };
    assert_eq!(clock::within(Some(Duration::from_secs(20)), Phase::Total, other).await.unwrap(), pattern(len));
    for response in unread {
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), pattern(LONG));
    }
}

#[tokio::test]
async fn a_duplex_call_interleaves_both_directions() {
    let client = client(h2::server::Builder::new(), Options::new());
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|data| (Ok::<_, std::io::Error>(Frame::data(data)), receiver))
    });
    let request = Request::post("http://example.test/duplex").body(StreamBody::new(frames)).unwrap();
    let mut body = client.send(request).await.unwrap().into_body();
    for word in ["one", "two", "three"] {
        sender.send(Bytes::from(word)).await.unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), word);
    }
    drop(sender);
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn trailers_travel_both_ways() {
    let client = client(h2::server::Builder::new(), Options::new());
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Ok::<_, std::io::Error>(Frame::data(Bytes::from("x"))), Ok(Frame::trailers(trailers.clone()))];
    let request =
        Request::post("http://example.test/").body(StreamBody::new(futures_util::stream::iter(frames))).unwrap();
    let body = client.send(request).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.trailers(), Some(&trailers));
}

#[tokio::test]
async fn a_refused_stream_says_so() {
    let client = client(h2::server::Builder::new(), Options::new());
    let request = Request::get("http://example.test/refused").body(Empty::<Bytes>::new()).unwrap();
    let error = client.send(request).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Server, Delivery::Refused));
}

/// The h2 crate's HPACK against ours, both ways, over many blocks and table sizes: what it decodes of ours and encodes
/// again is what we sent.
#[tokio::test]
async fn headers_survive_the_h2_crates_codec() {
    for table_size in [0, 64, 256, 4096, 65_536] {
        let mut builder = h2::server::Builder::new();
        builder.header_table_size(table_size);
        let client = client(builder, Options::new().encoder_table_size(16 << 10));
        let mut seed = u64::from(table_size) + 1;
        for _ in 0..200 {
            let mut request = Request::get("http://example.test/").body(Empty::<Bytes>::new()).unwrap();
            for _ in 0..random(&mut seed) % 8 {
                let name = HeaderName::try_from(format!("x-{}", random(&mut seed) % 20)).unwrap();
                let len = usize::try_from(random(&mut seed) % 60).unwrap();
                let value: String =
                    (0..len).map(|_| char::from(33 + u8::try_from(random(&mut seed) % 90).unwrap())).collect();
                let value = if random(&mut seed).is_multiple_of(2) { "again".to_owned() } else { value };
                request.headers_mut().append(name, HeaderValue::try_from(value).unwrap());
            }
            let sent = request.headers().clone();
            let mut response = client.send(request).await.unwrap();
            response.headers_mut().remove("date");
            assert_eq!(response.headers(), &sent);
        }
    }
}

fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}
