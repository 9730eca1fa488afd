//! Calls over HTTP/3, against the h3 crate's server half.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use portolan_core::{Connector, Delivery, Kind};
use portolan_grpc::{Channel, ChannelOptions, Client, Code, Encoding, Http3, Json, Method, Raw, Status};
use portolan_testbed::Certs;
use serde_json::{Value, json};
use support::h3_half::{ANYWHERE, client, connector, listen};
use support::{Call, Out, handler};

fn method(path: &str) -> Method<Raw> {
    Method::new(path, Raw::protobuf()).unwrap()
}

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

#[tokio::test]
async fn grpc_http3_binary_metadata_round_trips_through_helpers() {
    let client = client(handler(async |mut call| {
        let sent = call.header("x-blob-bin").unwrap().to_owned();
        assert_eq!(sent, "AAEC/w");
        call.message().await.unwrap();
        let padded = format!("{sent}==,{sent}");
        call.start(&[("x-blob-bin", &padded), ("x-text", "head")]).await;
        call.send("reply").await;
        call.end(&[("grpc-status", "0"), ("x-end-bin", "/w=="), ("x-text", "tail")]).await;
    }))
    .await;
    let blob = [0, 1, 2, 255];
    let reply = client.unary(&method("/t.S/M"), &text("hello")).metadata_bin("x-blob-bin", blob).await.unwrap();
    assert_eq!(reply.message(), "reply");
    assert_eq!(reply.metadata().get_all_bin("x-blob-bin").unwrap(), [&blob[..], &blob]);
    assert_eq!(reply.metadata().get("x-text"), Some("head"));
    assert_eq!(reply.trailers().get_bin("x-end-bin").unwrap().unwrap(), &[255][..]);
    assert_eq!(reply.trailers().get("x-text"), Some("tail"));
}

#[tokio::test]
async fn streaming_grpc_http3_response_surfaces_trailing_error_status() {
    let client = client(handler(async |mut call| {
        call.message().await;
        call.start(&[]).await;
        call.send("one").await;
        call.end(&[("grpc-status", "15"), ("grpc-message", "gone%20for%20good"), ("x-t", "1")]).await;
    }))
    .await;
    let mut replies = client.server_streaming(&method("/t.S/M"), &Bytes::new()).await.unwrap();
    assert_eq!(replies.message().await.unwrap().unwrap(), "one");
    let error = replies.message().await.unwrap_err();
    let status = error.server::<Status>().unwrap();
    assert_eq!((status.code(), status.message()), (Code::DataLoss, "gone for good"));
    assert_eq!(status.metadata().get("x-t"), Some("1"));
    assert!(replies.message().await.unwrap().is_none());
}

#[tokio::test]
async fn exposes_grpc_error_status_from_trailers_only_response_over_http3() {
    let client = client(handler(async |call| {
        call.only(&[("grpc-status", "16"), ("grpc-message", "who are you?"), ("x-t", "1")]).await;
    }))
    .await;
    let error = client.unary(&method("/t.S/M"), &Bytes::new()).await.unwrap_err();
    let status = error.server::<Status>().unwrap();
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "who are you?"));
    assert_eq!(status.metadata().get("x-t"), Some("1"));
    assert_eq!((error.kind(), error.delivery()), (Kind::Server, Delivery::Answered));
}

#[tokio::test]
async fn executes_grpc_client_streaming_json_request_over_http3() {
    let client = client(handler(async |mut call| {
        assert_eq!(call.header("content-type"), Some("application/grpc+json"));
        let mut sum = 0;
        while let Some((_, message)) = call.message().await {
            sum += serde_json::from_slice::<Value>(&message).unwrap()["n"].as_i64().unwrap();
        }
        call.start(&[("content-type", "application/grpc+json")]).await;
        call.send(json!({ "sum": sum }).to_string()).await;
        call.ok().await;
    }))
    .await;
    let method = Method::new("/t.S/Sum", Json::<Value, Value>::new()).unwrap();
    let requests = stream::iter((1..=4).map(|n| json!({ "n": n })));
    let reply = client.client_streaming(&method, requests).await.unwrap();
    assert_eq!(*reply.message(), json!({"sum": 10}));
}

#[tokio::test]
async fn executes_grpc_client_streaming_protobuf_bytes_request_over_http3() {
    let client = client(handler(async |mut call| {
        assert_eq!(call.header("content-type"), Some("application/grpc+proto"));
        let mut all = Vec::new();
        while let Some((_, message)) = call.message().await {
            all.extend_from_slice(&message);
        }
        call.start(&[]).await;
        call.send(&all).await;
        call.ok().await;
    }))
    .await;
    let words = ["one ", "", "two ", "three"].map(text);
    let reply = client.client_streaming(&method("/t.S/Join"), stream::iter(words)).await.unwrap();
    assert_eq!(reply.message(), "one two three");
}

#[tokio::test]
async fn executes_grpc_protobuf_bytes_request_over_http3() {
    let client = client(handler(async |mut call| {
        assert_eq!(call.header("te"), Some("trailers"));
        let (flag, message) = call.message().await.unwrap();
        assert_eq!(call.message().await, None);
        call.start(&[("x-flag", &flag.to_string())]).await;
        call.send(message).await;
        call.ok().await;
    }))
    .await;
    let message = Bytes::from(vec![7; 300_000]);
    let reply = client.unary(&method("/t.S/Echo"), &message).await.unwrap();
    assert_eq!((reply.message(), reply.metadata().get("x-flag")), (&message, Some("0")));
    let reply = client.unary(&method("/t.S/Echo"), &message).compress(Encoding::Gzip).await.unwrap();
    assert_eq!(reply.metadata().get("x-flag"), Some("1"));
}

#[tokio::test]
async fn reads_grpc_server_streaming_messages_over_http3() {
    let client = client(handler(async |mut call| {
        call.message().await.unwrap();
        call.start(&[("x-a", "1")]).await;
        for n in 0..1000u32 {
            call.send(n.to_string()).await;
        }
        call.end(&[("grpc-status", "0"), ("x-b", "2")]).await;
    }))
    .await;
    let mut replies = client.server_streaming(&method("/t.S/Count"), &Bytes::new()).await.unwrap();
    assert_eq!(replies.metadata().await.unwrap().get("x-a"), Some("1"));
    for n in 0..1000u32 {
        assert_eq!(replies.message().await.unwrap().unwrap(), n.to_string());
    }
    assert!(replies.message().await.unwrap().is_none());
    assert_eq!(replies.trailers().unwrap().get("x-b"), Some("2"));
}

#[tokio::test]
async fn grpc_duplex_call_supports_interleaved_send_and_receive_over_http3() {
    let client = client(handler(async |mut call| {
        let mut started = false;
        while let Some((_, message)) = call.message().await {
            if !std::mem::replace(&mut started, true) {
                call.start(&[("x-began", "yes")]).await;
            }
            call.send(&message).await;
            call.send("again").await;
        }
        call.end(&[("grpc-status", "0"), ("x-ended", "yes")]).await;
    }))
    .await;
    let mut call = client.duplex(&method("/t.S/Chat")).await.unwrap();
    for word in ["one", "two", "three"] {
        call.send(&text(word)).await.unwrap();
        assert_eq!(call.message().await.unwrap().unwrap(), word);
        assert_eq!(call.message().await.unwrap().unwrap(), "again");
    }
    assert_eq!(call.metadata().await.unwrap().get("x-began"), Some("yes"));
    call.finish();
    assert!(call.message().await.unwrap().is_none());
    assert_eq!(call.trailers().unwrap().get("x-ended"), Some("yes"));
}

#[tokio::test]
async fn resets_and_deadlines_over_http3_have_their_status() {
    let client = client(handler(async |mut call| {
        call.message().await;
        let code = match call.path() {
            "/t.S/Rejected" => 0x10b,
            "/t.S/Cancelled" => 0x10c,
            "/t.S/Load" => 0x107,
            "/t.S/Ended" => 0x100,
            "/t.S/Broken" => 0x102,
            "/t.S/Message" => 0x10e,
            "/t.S/Own" => 0x4242,
            _ => return std::future::pending().await,
        };
        call.out(Out::Reset(code)).await;
    }))
    .await;
    for (name, code, delivery) in [
        ("Rejected", Code::Unavailable, Delivery::Refused),
        ("Cancelled", Code::Cancelled, Delivery::Unknown),
        ("Load", Code::ResourceExhausted, Delivery::Unknown),
        ("Ended", Code::Internal, Delivery::Unknown),
        ("Broken", Code::Internal, Delivery::Unknown),
        ("Message", Code::Internal, Delivery::Answered),
        ("Own", Code::Internal, Delivery::Unknown),
    ] {
        let error = client.unary(&method(&format!("/t.S/{name}")), &text("x")).await.unwrap_err();
        assert_eq!((Status::of(&error).code(), error.delivery()), (code, delivery), "{name}: {error:?}");
    }
    let call = client.unary(&method("/t.S/Silent"), &text("x")).timeout(Duration::from_millis(50));
    assert_eq!(Status::of(&call.await.unwrap_err()).code(), Code::DeadlineExceeded);
    while client.transport().status().active > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_channel_of_http3_replaces_the_connection_that_was_lost() {
    let (certs, name) = (Certs::new(), |name: &'static str| {
        handler(move |mut call: Call| async move {
            call.message().await;
            call.start(&[]).await;
            call.send(name).await;
            call.ok().await;
        })
    });
    let first = listen(&certs, ANYWHERE, name("first"));
    let address = first.local_addr().unwrap();
    let (connector, url) = (connector(&certs), format!("https://{address}"));
    let options = ChannelOptions::new().backoff(Duration::from_millis(5), Duration::from_millis(20));
    let channel = Channel::connect_over(Http3::default(), &connector, &url, options.clone()).await.unwrap();
    let client = Client::from_channel(channel).unwrap();
    for _ in 0..3 {
        assert_eq!(client.unary(&method("/t.S/M"), &Bytes::new()).await.unwrap().message(), "first");
    }
    assert_eq!(first.open_connections(), 1, "three calls, one connection");

    first.close(0u32.into(), b"");
    first.wait_idle().await;
    drop(first);
    while client.transport().connections() > 0 {
        portolan_core::clock::sleep(Duration::from_millis(1)).await;
    }
    let error = client.unary(&method("/t.S/M"), &Bytes::new()).timeout(Duration::from_millis(200)).await.unwrap_err();
    assert!(matches!(Status::of(&error).code(), Code::Unavailable | Code::DeadlineExceeded), "{error:?}");
    assert_eq!(error.delivery(), Delivery::NotSent);
    let _second = listen(&certs, address, name("second"));
    let call = client.unary(&method("/t.S/M"), &Bytes::new()).wait_for_ready(true).timeout(Duration::from_secs(20));
    assert_eq!(call.await.unwrap().message(), "second");
    assert_eq!(client.transport().connections(), 1);
}

#[tokio::test]
async fn a_channel_of_http3_is_never_in_cleartext() {
    let options = ChannelOptions::new();
    let channel = Channel::connect_over(Http3::default(), &Connector::default(), "http://127.0.0.1:1", options).await;
    assert_eq!(channel.unwrap_err().kind(), Kind::Usage);
}

#[tokio::test]
async fn what_http3_rejects_is_sent_again_and_what_is_lost_on_the_way_is_not() {
    let calls = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&calls);
    let (certs, reject) = (
        Certs::new(),
        handler(move |mut call: Call| {
            let before = seen.fetch_add(1, Ordering::SeqCst);
            async move {
                call.message().await;
                if call.path() == "/t.S/Hang" {
                    return std::future::pending().await;
                }
                if before == 0 {
                    return call.out(Out::Reset(0x10b)).await;
                }
                call.start(&[]).await;
                call.send("second").await;
                call.ok().await;
            }
        }),
    );
    let server = listen(&certs, ANYWHERE, reject);
    let url = format!("https://{}", server.local_addr().unwrap());
    let options = ChannelOptions::new();
    let channel = Channel::connect_over(Http3::default(), &connector(&certs), &url, options).await.unwrap();
    let client = Client::from_channel(channel).unwrap();
    assert_eq!(client.unary(&method("/t.S/M"), &Bytes::new()).await.unwrap().message(), "second");
    assert_eq!(calls.load(Ordering::SeqCst), 2);

    let hanging = tokio::spawn(async move { client.unary(&method("/t.S/Hang"), &Bytes::new()).await });
    while calls.load(Ordering::SeqCst) < 3 {
        portolan_core::clock::sleep(Duration::from_millis(1)).await;
    }
    // The same code for a connection is no word about this call.
    server.close(0x10b_u32.into(), b"");
    let error = hanging.await.unwrap().unwrap_err();
    assert_eq!((Status::of(&error).code(), error.delivery()), (Code::Unavailable, Delivery::Unknown), "{error:?}");
    assert_eq!(calls.load(Ordering::SeqCst), 3);
}
