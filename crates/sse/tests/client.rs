//! Event streams by the HTTP client, over each version.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::large_futures,
    reason = "a test plays the server and fails by panicking"
)]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use portolan_core::{Connector, Roots, Tls};
use portolan_http::{Client, Version};
use portolan_sse::{EventSource, Options, State};
use portolan_testbed::{Certs, ServerTls};
use tokio::net::TcpListener;

type Ids = Arc<Mutex<Vec<Option<String>>>>;

/// Three parts of a stream, then no more; what each request said is kept.
fn answer(asked: &Ids, headers: &http::HeaderMap) -> Response<Bytes> {
    let id = headers.get("last-event-id").map(|id| id.to_str().unwrap().to_owned());
    assert_eq!(headers["accept"], "text/event-stream");
    let turn = {
        let mut asked = asked.lock().unwrap();
        asked.push(id);
        asked.len()
    };
    let body = match turn {
        1 => "retry: 10\nid: 1\ndata: one\n\nid: 2\ndata: two\n\n",
        2 => "data: three\n\n",
        3 => "id: 4\nevent: last\ndata: four\n\n",
        _ => return Response::builder().status(204).body(Bytes::new()).unwrap(),
    };
    Response::builder().header("content-type", "text/event-stream").body(Bytes::from_static(body.as_bytes())).unwrap()
}

async fn tcp(asked: Ids) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let asked = asked.clone();
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let response = answer(&asked, request.headers()).map(Full::new);
                async { Ok::<_, std::convert::Infallible>(response) }
            });
            tokio::spawn(async move {
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    addr
}

fn quic(certs: &Certs, asked: Ids) -> SocketAddr {
    let crypto =
        quinn::crypto::rustls::QuicServerConfig::try_from(ServerTls::new(certs).alpn(["h3"]).config()).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let endpoint = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = endpoint.local_addr().unwrap();
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let asked = asked.clone();
            tokio::spawn(async move {
                let Ok(quic) = incoming.await else { return };
                let quic = h3_quinn::Connection::new(quic);
                let Ok(mut server) = h3::server::Connection::<_, Bytes>::new(quic).await else { return };
                while let Ok(Some(resolver)) = server.accept().await {
                    let Ok((request, mut stream)) = resolver.resolve_request().await else { return };
                    let (parts, body) = answer(&asked, request.headers()).into_parts();
                    let _ = stream.send_response(Response::from_parts(parts, ())).await;
                    let _ = stream.send_data(body).await;
                    let _ = stream.finish().await;
                }
            });
        }
    });
    addr
}

/// Reads all there is, from a request that says where to begin.
async fn follow(client: Client, url: String, asked: &Ids) {
    let request = client.get(&url).last_event_id("0").build().unwrap();
    let options = Options::new().min_wait(Duration::from_millis(1));
    let mut source = EventSource::open_with(&client, request, options).unwrap();
    let mut seen = Vec::new();
    while let Some(event) = source.recv().await.unwrap() {
        seen.push(format!("{} {} {}", event.name, event.data, event.id));
    }
    assert_eq!(seen, ["message one 1", "message two 2", "message three 2", "last four 4"]);
    assert_eq!(source.state(), State::Closed);
    let said: Vec<_> = asked.lock().unwrap().iter().map(|id| id.clone().unwrap_or_default()).collect();
    assert_eq!(said, ["0", "2", "2", "4"]);
}

#[tokio::test]
async fn sse_last_event_id_flows_end_to_end_over_http2() {
    let asked = Ids::default();
    let addr = tcp(asked.clone()).await;
    let client = Client::builder().version(Version::Http2Only).build().unwrap();
    follow(client.clone(), format!("http://{addr}/events"), &asked).await;
    assert_eq!(client.metrics().opened, 1, "streams of one connection");
}

#[tokio::test]
async fn events_flow_over_http1_too() {
    let asked = Ids::default();
    let addr = tcp(asked.clone()).await;
    follow(Client::new(), format!("http://{addr}/events"), &asked).await;
}

#[tokio::test]
async fn events_flow_over_http3_too() {
    let (certs, asked) = (Certs::new(), Ids::default());
    let addr = quic(&certs, asked.clone());
    let tls = Tls::builder().roots(Roots::Custom).root_pem(certs.ca.as_bytes()).build().unwrap();
    let connector = Connector::builder().tls(tls).build().unwrap();
    let client = Client::builder().connector(connector).version(Version::Http3Only).build().unwrap();
    follow(client, format!("https://localhost:{}/events", addr.port()), &asked).await;
}

#[tokio::test]
async fn a_user_in_the_url_is_said_each_time_and_a_post_is_sent_again_with_its_body() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let mut asked = Vec::new();
        for turn in 0..4 {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(tcp.read_u8().await.unwrap());
            }
            if head.starts_with(b"POST") {
                let mut body = [0; 12];
                tcp.read_exact(&mut body).await.unwrap();
                head.extend(body);
            }
            asked.push(String::from_utf8(head).unwrap().to_lowercase());
            let said = if turn % 2 == 0 { "200 OK" } else { "204 No Content" };
            let head = format!("HTTP/1.1 {said}\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n");
            tcp.write_all(format!("{head}id: 7\ndata: x\n\n").as_bytes()).await.unwrap();
        }
        asked
    });
    let options = || Options::new().retry(Duration::from_millis(1)).min_wait(Duration::from_millis(1));
    let client = Client::new();
    let mut source = EventSource::get(&client, format!("http://ann:sesame@{addr}/"), options()).unwrap();
    assert!(source.recv().await.unwrap().is_some() && source.recv().await.unwrap().is_none());
    let question = client.post(format!("http://{addr}/")).body("the question").build().unwrap();
    let mut source = EventSource::open_with(&client, question, options()).unwrap();
    assert!(source.recv().await.unwrap().is_some() && source.recv().await.unwrap().is_none());
    let asked = server.await.unwrap();
    for asked in &asked[..2] {
        assert!(asked.contains("authorization: basic yw5uonnlc2ftzq==") && !asked.contains("ann:"), "{asked}");
    }
    for asked in &asked[2..] {
        assert!(asked.starts_with("post ") && asked.ends_with("the question"), "{asked}");
    }
    assert!(!asked[2].contains("last-event-id") && asked[3].contains("last-event-id: 7"));
}

#[tokio::test]
async fn events_of_a_compressed_stream_are_given_before_it_ends() {
    use std::io::Write;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (go, mut going) = tokio::sync::mpsc::channel::<()>(1);
    let server = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tcp.read_u8().await.unwrap());
        }
        assert!(String::from_utf8(head).unwrap().to_lowercase().contains("accept-encoding: gzip"));
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\n\r\n";
        tcp.write_all(head.as_bytes()).await.unwrap();
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        for number in 0..3 {
            write!(packed, "id: {number}\ndata: event {number}\n\n").unwrap();
            packed.flush().unwrap();
            tcp.write_all(&std::mem::take(packed.get_mut())).await.unwrap();
            // The next only when this one was given.
            going.recv().await.unwrap();
        }
    });
    let options = Options::new().reconnect(false).idle_timeout(Duration::from_secs(60));
    let mut source = EventSource::get(&Client::new(), format!("http://{addr}/"), options).unwrap();
    for number in 0..3 {
        assert_eq!(source.recv().await.unwrap().unwrap().data, format!("event {number}"));
        go.send(()).await.unwrap();
    }
    server.await.unwrap();
}

#[tokio::test]
async fn a_body_that_can_be_sent_once_is_refused() {
    let client = Client::new();
    let body = portolan_http::Body::from_reader(&b"once"[..]);
    let request = client.post("http://localhost/").body(body).build().unwrap();
    assert!(EventSource::open_with(&client, request, Options::new()).is_err());
}
