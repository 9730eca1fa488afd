//! Calls by the HTTP client: one pool for all, over HTTP/2 and HTTP/3.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]
#![allow(clippy::disallowed_methods, reason = "the server of the test listens on loopback itself")]

mod support;

use bytes::Bytes;
use portolan_grpc::{Client, Code, Method, Raw, Status};
use portolan_http::Version;
use support::handler;

#[tokio::test]
async fn calls_share_the_pool_of_the_http_client() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((io, _)) = listener.accept().await {
            let echo = handler(async |mut call| {
                assert!(call.header("accept-encoding").is_none());
                call.start(&[]).await;
                while let Some((_, message)) = call.message().await {
                    call.send(message).await;
                }
                if call.header("x-fail").is_some() {
                    return call.end(&[("grpc-status", "5"), ("grpc-message", "nothing here")]).await;
                }
                call.ok().await;
            });
            tokio::spawn(support::h2_half::serve(io, echo));
        }
    });
    let http = portolan_http::Client::builder().version(Version::Http2Only).build().unwrap();
    let client = Client::new(http.clone(), &format!("http://{address}")).unwrap();
    let method = Method::new("/t.S/Echo", Raw::plain()).unwrap();
    for _ in 0..3 {
        let reply = client.unary(&method, &Bytes::from("hello")).await.unwrap();
        assert_eq!(&reply.message()[..], b"hello");
    }
    let error = client.unary(&method, &Bytes::from("x")).metadata("x-fail", "1").await.unwrap_err();
    assert_eq!(Status::of(&error).code(), Code::NotFound);
    let mut call = client.duplex(&method).await.unwrap();
    for word in ["one", "two", "three"] {
        call.send(&Bytes::from(word)).await.unwrap();
        assert_eq!(call.message().await.unwrap().unwrap(), word);
    }
    call.finish();
    assert!(call.message().await.unwrap().is_none());
    assert_eq!(http.metrics().opened, 1);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let http = portolan_http::Client::builder().version(Version::Http2Only).build().unwrap();
    let client = Client::new(http, "http://127.0.0.1:1").unwrap();
    let method = Method::new("/t.S/Echo", Raw::plain()).unwrap();
    let error = client.unary(&method, &Bytes::from("hello")).await.unwrap_err();
    assert_eq!(Status::of(&error).code(), Code::Unavailable);
}
