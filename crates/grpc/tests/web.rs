//! gRPC-Web and Connect against servers that say exactly what is wanted, right and wrong.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes};
use http::Response;
use portolan_core::Kind;
use portolan_grpc::{Client, Code, Connect, Encoding, Method, Raw, Status, Web};
use portolan_http2::SendRequest;
use support::{Call, Handler, Out, frame, handler};

fn method(name: &str) -> Method<Raw> {
    Method::new(&format!("/t.S/{name}"), Raw::protobuf()).unwrap()
}

fn transport(handler: Handler) -> SendRequest {
    support::h2_half::client(handler).transport().clone()
}

/// The whole body of a request.
async fn body(call: &mut Call) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(data) = call.body.recv().await {
        all.extend_from_slice(&data);
    }
    all
}

/// A body in base64, in pieces that split groups.
async fn send_text(call: &Call, bytes: &[u8]) {
    let (one, two) = bytes.split_at(bytes.len() / 2);
    let text = STANDARD.encode(one) + &STANDARD.encode(two);
    for piece in text.as_bytes().chunks(7) {
        call.raw(Bytes::copy_from_slice(piece)).await;
    }
}

#[tokio::test]
async fn grpc_web_text_goes_both_ways_in_base64() {
    let transport = transport(handler(async |mut call| {
        assert_eq!(call.header("content-type"), Some("application/grpc-web-text+proto"));
        assert_eq!((call.header("x-grpc-web"), call.header("te")), (Some("1"), None));
        let sent = STANDARD.decode(body(&mut call).await).unwrap();
        assert_eq!(sent, frame(0, b"hello"));
        call.start(&[("content-type", "application/grpc-web-text+proto"), ("x-a", "1")]).await;
        let trailers = if call.path().ends_with("Bad") { "grpc-status: 5\r\n" } else { "grpc-status:0\r\nx-b: 2\r\n" };
        let all = [frame(0, b"one"), frame(0x80, trailers.as_bytes())].concat();
        send_text(&call, &all).await;
        call.out(Out::Data(Bytes::new(), true)).await;
    }));
    let client = Client::new(Web::text(transport), "http://web.test").unwrap();
    let reply = client.unary(&method("Good"), &Bytes::from("hello")).await.unwrap();
    assert_eq!((&reply.message()[..], reply.metadata().get("x-a")), (&b"one"[..], Some("1")));
    assert_eq!(reply.trailers().get("x-b"), Some("2"));
    let error = client.unary(&method("Bad"), &Bytes::from("hello")).await.unwrap_err();
    assert_eq!(Status::of(&error).code(), Code::NotFound);
}

#[tokio::test]
async fn a_grpc_web_response_without_its_trailers_is_no_success() {
    let transport = transport(handler(async |call| {
        let plain = [(
            "content-type",
            if call.path().ends_with("Plain") { "application/grpc" } else { "application/grpc-web" },
        )];
        call.start(&plain).await;
        call.send("one").await;
        let end: &[u8] = match call.path() {
            "/t.S/Cut" => &frame(0x80, b"grpc-status: 0\r\n")[..12],
            "/t.S/Large" => &[0x80, 0xff, 0, 0, 0],
            "/t.S/Garbage" => &frame(0x80, b"no colon"),
            _ => b"",
        };
        call.raw(Bytes::copy_from_slice(end)).await;
        call.out(Out::Data(Bytes::new(), true)).await;
    }));
    let client = Client::new(Web::new(transport), "http://web.test").unwrap();
    for (name, kind) in [
        ("None", Kind::Protocol),
        ("Cut", Kind::Protocol),
        ("Large", Kind::Limit),
        ("Garbage", Kind::Protocol),
        ("Plain", Kind::Protocol),
    ] {
        let error = client.unary(&method(name), &Bytes::new()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{name}: {error}");
    }
}

async fn http(call: &Call, status: u16, fields: &[(&str, &str)], body: impl Into<Bytes>) {
    let mut response = Response::new(());
    *response.status_mut() = status.try_into().unwrap();
    *response.headers_mut() = support::fields_of(fields);
    call.out(Out::Head(response, false)).await;
    call.out(Out::Data(body.into(), true)).await;
}

#[tokio::test]
async fn a_connect_call_of_one_message_is_plain_http() {
    let transport = transport(handler(async |mut call| {
        assert_eq!(call.header("content-type"), Some("application/proto"));
        assert_eq!(call.header("connect-protocol-version"), Some("1"));
        assert!(call.header("connect-timeout-ms").unwrap().parse::<u32>().unwrap() <= 2000);
        assert!(call.head.headers.keys().all(|name| !name.as_str().starts_with("grpc-")));
        assert_eq!(call.header("accept-encoding"), Some("gzip,deflate,zstd"));
        assert_eq!((call.header("content-encoding"), call.header("x-q")), (Some("gzip"), Some("1")));
        let mut plain = String::new();
        std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(body(&mut call).await.reader()), &mut plain)
            .unwrap();
        assert_eq!(plain, "hello");
        let fields = [("content-type", "application/proto"), ("x-a", "1"), ("trailer-x-b", "2")];
        http(&call, 200, &fields, "reply").await;
    }));
    let client = Client::new(Connect::new(transport), "http://connect.test").unwrap();
    let call = client.unary(&method("M"), &Bytes::from("hello")).compress(Encoding::Gzip).metadata("x-q", "1");
    let reply = call.timeout(Duration::from_secs(2)).await.unwrap();
    assert_eq!((&reply.message()[..], reply.metadata().get("x-a")), (&b"reply"[..], Some("1")));
    assert_eq!((reply.trailers().get("x-b"), reply.metadata().get("trailer-x-b")), (Some("2"), None));
}

#[tokio::test]
async fn errors_of_connect_have_the_status_they_say_or_that_of_http() {
    let transport = transport(handler(async |call| {
        let json = [("content-type", "application/json"), ("trailer-x-t", "1")];
        match call.path() {
            "/t.S/Said" => http(&call, 412, &json, r#"{"code": "failed_precondition", "message": "not now"}"#).await,
            "/t.S/Html" => http(&call, 503, &[("content-type", "text/html")], "<h1>").await,
            "/t.S/Empty" => http(&call, 404, &json, "{}").await,
            "/t.S/Large" => http(&call, 200, &[("content-type", "application/proto")], vec![0; 2000]).await,
            _ => http(&call, 200, &[("content-type", "text/html")], "<h1>").await,
        }
    }));
    let client = Client::new(Connect::new(transport).max_response_bytes(1000), "http://connect.test").unwrap();
    for (name, code, kind) in [
        ("Said", Code::FailedPrecondition, Kind::Server),
        ("Html", Code::Unavailable, Kind::Server),
        ("Empty", Code::Unimplemented, Kind::Server),
        ("Large", Code::ResourceExhausted, Kind::Limit),
        ("Other", Code::Unknown, Kind::Protocol),
    ] {
        let error = client.unary(&method(name), &Bytes::new()).await.unwrap_err();
        assert_eq!((Status::of(&error).code(), error.kind()), (code, kind), "{name}: {error}");
        if name == "Said" {
            let status = Status::of(&error);
            assert_eq!((status.message(), status.metadata().get("x-t")), ("not now", Some("1")));
        }
    }
}

#[tokio::test]
async fn connect_sends_what_has_no_side_effects_as_a_get_and_nothing_else() {
    let transport = transport(handler(async |mut call| {
        let (get, query) = (call.head.method == http::Method::GET, call.head.uri.query().map(str::to_owned));
        match call.path() {
            "/t.S/Safe" => {
                assert!(get && body(&mut call).await.is_empty());
                // Bytes that base64 and URLs have other letters for.
                assert_eq!(query.as_deref(), Some("base64=1&connect=v1&encoding=proto&message=-_8"));
                for absent in ["content-type", "connect-protocol-version", "content-encoding", "grpc-timeout"] {
                    assert_eq!(call.header(absent), None, "{absent}");
                }
                assert!(call.header("connect-timeout-ms").is_some() && call.header("x-tenant") == Some("a"));
            }
            _ => {
                assert!(!get && query.is_none() && call.header("connect-protocol-version") == Some("1"));
                assert_eq!(body(&mut call).await, [0xfb, 0xff]);
            }
        }
        call.start(&[("content-type", "application/proto")]).await;
        call.out(Out::Data(Bytes::from("good"), true)).await;
    }));
    let message = Bytes::from_static(&[0xfb, 0xff]);
    let client = Client::new(Connect::new(transport.clone()).get(100), "http://web.test").unwrap();
    let call = client.unary(&method("Safe").no_side_effects(), &message);
    let reply = call.metadata("x-tenant", "a").timeout(Duration::from_secs(5)).await.unwrap();
    assert_eq!(reply.message(), "good");
    assert_eq!(client.unary(&method("Unsafe"), &message).await.unwrap().message(), "good");
    let never = Client::new(Connect::new(transport.clone()), "http://web.test").unwrap();
    assert_eq!(never.unary(&method("Unasked").no_side_effects(), &message).await.unwrap().message(), "good");
    let short = Client::new(Connect::new(transport).get(20), "http://web.test").unwrap();
    assert_eq!(short.unary(&method("TooLong").no_side_effects(), &message).await.unwrap().message(), "good");
}
