//! The client against the server of the h3 crate.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use std::net::SocketAddr;

use bytes::{Buf, Bytes};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use portolan_http3::Options;
use portolan_testbed::Certs;
use support::*;

type Resolver = h3::server::RequestResolver<h3_quinn::Connection, Bytes>;

/// Serves on one endpoint until the test ends.
fn serve(certs: &Certs) -> SocketAddr {
    let endpoint = endpoint(server_config(certs, b"h3"));
    let addr = endpoint.local_addr().unwrap();
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(async move {
                let Ok(quic) = incoming.await else { return };
                let Ok(mut server) = h3::server::Connection::new(h3_quinn::Connection::new(quic)).await else { return };
                while let Ok(Some(resolver)) = server.accept().await {
                    tokio::spawn(answer(resolver));
                }
            });
        }
    });
    addr
}

async fn answer(resolver: Resolver) {
    let Ok((request, mut stream)) = resolver.resolve_request().await else { return };
    match request.uri().path() {
        "/echo" => {
            stream.send_response(Response::builder().header("x-kind", "echo").body(()).unwrap()).await.unwrap();
            while let Some(mut data) = stream.recv_data().await.unwrap() {
                stream.send_data(data.copy_to_bytes(data.remaining())).await.unwrap();
            }
            if let Some(trailers) = stream.recv_trailers().await.unwrap() {
                stream.send_trailers(trailers).await.unwrap();
            }
        }
        "/large" => {
            stream
                .send_response(Response::builder().header("content-length", 5_000_000).body(()).unwrap())
                .await
                .unwrap();
            for _ in 0..50 {
                if stream.send_data(Bytes::from(vec![b'y'; 100_000])).await.is_err() {
                    return;
                }
            }
        }
        path => {
            let said = format!("{} {path} {:?}", request.method(), request.headers().get("user-agent"));
            let response = Response::builder().header("content-length", said.len()).body(()).unwrap();
            stream.send_response(response).await.unwrap();
            if request.method() != Method::HEAD {
                stream.send_data(Bytes::from(said)).await.unwrap();
            }
        }
    }
    let _ = stream.finish().await;
}

async fn setup(options: Options) -> portolan_http3::SendRequest {
    let certs = Certs::new();
    let addr = serve(&certs);
    client(&certs, addr, options).await
}

#[tokio::test]
async fn a_request_is_answered() {
    let client = setup(Options::new()).await;
    let response = client.send(get("/path?q=1")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.version(), http::Version::HTTP_3);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "GET /path Some(\"portolan\")");
    let info = client.info();
    let tls = info.tls.as_ref().unwrap();
    assert_eq!((tls.version, tls.alpn.as_deref()), ("TLSv1.3", Some(&b"h3"[..])));
    assert!(!tls.chain.is_empty() && info.peer.is_some() && info.timings.tls.is_some());
}

#[tokio::test]
async fn a_hundred_requests_share_one_connection() {
    let client = setup(Options::new()).await;
    let calls: Vec<_> = (0..100)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move {
                let body = client.send(get(&format!("/{number}"))).await.unwrap().into_body();
                assert_eq!(body.collect().await.unwrap().to_bytes(), format!("GET /{number} Some(\"portolan\")"));
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(client.status().active, 0);
}

#[tokio::test]
async fn a_body_and_its_trailers_go_both_ways() {
    let client = setup(Options::new()).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "42".parse().unwrap());
    let frames = (0..64).map(|n| Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![n; 80 << 10]))));
    let frames = frames.chain([Ok(Frame::trailers(trailers))]);
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let request = Request::post("https://localhost/echo").body(body).unwrap();
    let response = client.send(request).await.unwrap();
    assert_eq!(response.headers()["x-kind"], "echo");
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["x-sum"], "42");
    let bytes = body.to_bytes();
    assert_eq!(bytes.len(), 5 << 20);
    assert!(bytes.chunks(80 << 10).zip(0u8..).all(|(chunk, n)| chunk.iter().all(|byte| *byte == n)));
}

#[tokio::test]
async fn a_head_response_has_a_length_and_no_body() {
    let client = setup(Options::new()).await;
    let request = Request::head("https://localhost/x").body(Full::<Bytes>::default()).unwrap();
    let response = client.send(request).await.unwrap();
    assert_eq!(response.headers()["content-length"], "12");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "");
}

#[tokio::test]
async fn a_body_dropped_early_leaves_the_connection_usable() {
    let client = setup(Options::new().stream_window(64 << 10)).await;
    for _ in 0..10 {
        let mut response = client.send(get("/large")).await.unwrap();
        assert_eq!(http_body::Body::size_hint(response.body()).exact(), Some(5_000_000));
        let first = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(!first.is_empty());
    }
    let body = client.send(get("/large")).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body.len(), 5_000_000);
}

#[tokio::test]
async fn the_driver_ends_well_when_the_last_handle_goes() {
    let certs = Certs::new();
    let addr = serve(&certs);
    let (client, connection) = portolan_http3::connect(&connector(&certs), &addr.into(), Options::new()).await.unwrap();
    let driver = tokio::spawn(connection);
    let response = client.send(get("/x")).await.unwrap();
    drop(client);
    assert!(!response.into_body().collect().await.unwrap().to_bytes().is_empty());
    driver.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_from_many_threads_finished_or_given_up_leave_nothing_open() {
    let client = setup(Options::new().max_streams(32)).await;
    storm(&client, |_| "/small").await;
    let body = client.send(get("/small")).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "GET /small Some(\"portolan\")");
}
