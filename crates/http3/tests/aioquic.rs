//! The client against aioquic: another QUIC, another TLS, another QPACK. Skipped, and said so, where it is not installed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, and say what they skip"
)]

mod support;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use portolan_http3::ext::{OnInformational, Protocol};
use portolan_http3::{Datagrams, Event, Options, SendRequest, connect};
use portolan_testbed::{Certs, Server, Service, free_port, python, record};
use support::*;

const SCRIPT: &str = include_str!("aioquic_server.py");

struct Peer {
    _server: Server,
    certs: Certs,
    port: u16,
}

fn start() -> Option<Peer> {
    let (certs, port) = (Certs::new(), free_port());
    let server = Service::new("pip:aioquic", python("aioquic", "aioquic")?)
        .file("server.py", SCRIPT)
        .tls(&certs)
        .args(["$D/server.py", &port.to_string(), "$D/server.pem", "$D/server.key"])
        .says("ready")
        .start()?;
    Some(Peer { _server: server, certs, port })
}

impl Peer {
    async fn client(&self, options: Options) -> SendRequest {
        client(&self.certs, ([127, 0, 0, 1], self.port).into(), options).await
    }
}

async fn text(client: &SendRequest, path: &str) -> String {
    let mut request = get(path);
    request.headers_mut().insert("x-request", "named each time".parse().unwrap());
    let body = client.send(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test]
async fn requests_are_answered_one_by_one_and_a_hundred_at_once() {
    let Some(peer) = start() else { return };
    let client = peer.client(Options::new()).await;
    assert_eq!(text(&client, "/one").await, "GET /one named each time");
    let calls: Vec<_> = (0..100)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move { assert_eq!(text(&client, &format!("/{number}")).await.find("GET"), Some(0)) })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    record("http3", "peer", "aioquic", "loopback", 101);
}

#[tokio::test]
async fn an_upload_of_five_mebibytes_comes_back() {
    let Some(peer) = start() else { return };
    let client = peer.client(Options::new()).await;
    let sent: Vec<u8> = (0..5u32 << 20).map(|n| (n.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
    let request = Request::post("https://localhost/echo").body(Full::new(Bytes::from(sent.clone()))).unwrap();
    let response = client.send(request).await.unwrap();
    assert_eq!(response.headers()["x-kind"], "echo");
    assert!(response.into_body().collect().await.unwrap().to_bytes() == sent, "what came back differs");
    record("http3", "peer", "aioquic", "upload", 1);
}

#[tokio::test]
async fn trailers_go_both_ways() {
    let Some(peer) = start() else { return };
    let client = peer.client(Options::new()).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "42".parse().unwrap());
    let frames = [Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"data"))), Ok(Frame::trailers(trailers))];
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let request = Request::post("https://localhost/sum").body(body).unwrap();
    let body = client.send(request).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(
        (&body.trailers().unwrap()["x-trailers"], &body.trailers().unwrap()["x-sum"]),
        (&"1".parse().unwrap(), &"42".parse().unwrap())
    );
    assert_eq!(body.to_bytes(), "summed");
}

#[tokio::test]
async fn the_header_table_is_used_both_ways() {
    let Some(peer) = start() else { return };
    let client = peer.client(Options::new()).await;
    for _ in 0..10 {
        assert_eq!(text(&client, "/one").await, "GET /one named each time");
    }
    let table = text(&client, "/table").await;
    let (sent, received) = table.split_once(' ').unwrap();
    let (sent, received): (u64, u64) = (sent.parse().unwrap(), received.parse().unwrap());
    assert!(sent > 20, "the server put entries in our table: {sent} bytes");
    assert!((20..400).contains(&received), "we put entries in its table, each once: {received} bytes");
    let without = peer.client(Options::new().header_table_size(0).max_blocked_streams(0).encoder_table_size(0)).await;
    for _ in 0..3 {
        assert_eq!(text(&without, "/one").await, "GET /one named each time");
    }
}

#[tokio::test]
async fn informational_responses_are_told() {
    let Some(peer) = start() else { return };
    let client = peer.client(Options::new()).await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let mut request = get("/hints");
    request.extensions_mut().insert(OnInformational::new({
        let told = Arc::clone(&told);
        move |response| told.lock().unwrap().push((response.status(), response.headers()["link"].clone()))
    }));
    assert_eq!(client.send(request).await.unwrap().status(), 200);
    assert_eq!(told.lock().unwrap().len(), 1);
}

fn connect_request<B>(body: B) -> Request<B> {
    let request = Request::builder().method(Method::CONNECT).uri("https://localhost/tunnel");
    request.extension(Protocol::new("websocket")).body(body).unwrap()
}

#[tokio::test]
async fn extended_connect_is_a_stream_both_ways() {
    let Some(peer) = start() else { return };
    let client = peer.client(Options::new()).await;
    let (send, receive) = tokio::sync::mpsc::channel::<Bytes>(1);
    let frames = futures_util::stream::unfold(receive, async |mut receive| {
        let data = receive.recv().await?;
        Some((Ok::<_, std::io::Error>(Frame::data(data)), receive))
    });
    let response = client.send(connect_request(StreamBody::new(frames))).await.unwrap();
    assert_eq!(response.headers()["x-protocol"], "websocket");
    let mut body = response.into_body();
    for word in ["one", "two", "three"] {
        send.send(Bytes::from(word)).await.unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), word);
    }
    drop(send);
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn datagrams_belong_to_their_stream() {
    let Some(peer) = start() else { return };
    let client = peer.client(Options::new().datagrams(true)).await;
    text(&client, "/one").await;
    let pending = || StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, std::io::Error>>());
    let mut tunnels = Vec::new();
    for _ in 0..2 {
        let response = client.send(connect_request(pending())).await.unwrap();
        let datagrams = response.extensions().get::<Datagrams>().unwrap().clone();
        tunnels.push((datagrams, response));
    }
    for (n, (datagrams, _)) in tunnels.iter().enumerate() {
        assert!(datagrams.max_size().unwrap() > 1000);
        datagrams.send(format!("packet {n}").as_bytes()).unwrap();
    }
    for (n, (datagrams, _)) in tunnels.iter().enumerate() {
        assert_eq!(datagrams.recv().await.unwrap(), format!("echo packet {n}"));
    }
    let (datagrams, response) = tunnels.pop().unwrap();
    drop(response);
    assert!(datagrams.recv().await.is_none(), "the stream is over");
    assert!(datagrams.send(b"late").is_err());
}

#[tokio::test]
async fn early_data_is_taken_on_the_second_connection() {
    let Some(peer) = start() else { return };
    let net = connector(&peer.certs);
    let to = portolan_core::Endpoint::new("localhost", peer.port).unwrap();
    let (tell, mut told) = tokio::sync::mpsc::channel(8);
    for round in 0..2 {
        let tell = tell.clone();
        let options = Options::new().early_data(true).on_event(move |event| {
            if let Event::EarlyData { accepted } = event {
                tell.try_send((round, accepted)).unwrap();
            }
        });
        let (client, connection) = connect(&net, &to, options).await.unwrap();
        let driver = tokio::spawn(connection);
        assert_eq!(text(&client, "/early").await, "GET /early named each time");
        let post = Request::post("https://localhost/late").body(Empty::<Bytes>::new()).unwrap();
        assert_eq!(client.send(post).await.unwrap().status(), 200);
        drop(client);
        driver.await.unwrap().unwrap();
    }
    assert_eq!(told.recv().await, Some((1, true)), "the first has no session, the second has");
    assert!(told.try_recv().is_err());
}
