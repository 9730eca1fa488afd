//! Tower services as transports, and a channel as one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]
#![allow(clippy::disallowed_methods, reason = "the server of the test listens on loopback itself")]

mod support;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use portolan_core::{Connector, Kind};
use portolan_grpc::{Channel, ChannelOptions, Client, Code, Method, Raw, Status, Tower};
use support::handler;
use tower_service::Service;

async fn channel() -> Channel {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (io, _) = listener.accept().await.unwrap();
        let echo = handler(async |mut call| {
            let authority = call.head.uri.authority().unwrap().to_string();
            let message = call.message().await.unwrap().1;
            call.start(&[("x-authority", &authority)]).await;
            call.send(message).await;
            call.ok().await;
        });
        support::h2_half::serve(io, echo).await;
    });
    Channel::connect(&Connector::default(), &format!("http://{address}")).await.unwrap()
}

#[tokio::test]
async fn a_tower_service_carries_calls() {
    let client = Client::new(Tower::new(channel().await), "http://by.tower").unwrap();
    let method = Method::new("/t.S/Echo", Raw::plain()).unwrap();
    let reply = client.unary(&method, &Bytes::from("hello")).await.unwrap();
    assert_eq!((&reply.message()[..], reply.metadata().get("x-authority")), (&b"hello"[..], Some("by.tower")));
    let nowhere = Channel::lazy(&Connector::default(), "http://127.0.0.1:1", ChannelOptions::new()).unwrap();
    let client = Client::new(Tower::new(nowhere), "http://by.tower").unwrap();
    let error = client.unary(&method, &Bytes::from("hello")).await.unwrap_err();
    assert_eq!((error.kind(), Status::of(&error).code()), (Kind::Connect, Code::Unavailable));
}

#[tokio::test]
async fn a_channel_serves_stubs_that_name_no_host() {
    let mut channel = channel().await;
    let body = Full::new(support::frame(0, b"hello"));
    let request = Request::post("/t.S/Echo").header("content-type", "application/grpc").body(body).unwrap();
    let response = channel.call(request).await.unwrap();
    assert!(response.headers()["x-authority"].to_str().unwrap().starts_with("127.0.0.1:"));
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(body.to_bytes(), support::frame(0, b"hello"));
}
