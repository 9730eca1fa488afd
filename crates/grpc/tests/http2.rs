//! Calls over HTTP/2, against the h2 crate's server half.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use portolan_core::{Delivery, Kind};
use portolan_grpc::{Code, Deadline, Method, Raw, Status};
use support::h2_half::client;
use support::{Out, handler};

const BYTES: Raw = Raw::protobuf();

fn method(path: &str) -> Method<Raw> {
    Method::new(path, BYTES).unwrap()
}

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

#[tokio::test]
async fn grpc_http2_binary_metadata_round_trips_through_helpers() {
    let client = client(handler(async |mut call| {
        let sent = call.header("x-blob-bin").unwrap().to_owned();
        assert_eq!(sent, "AAEC/w");
        let texts: Vec<_> =
            call.head.headers.get_all("x-text").iter().map(|v| v.to_str().unwrap().to_owned()).collect();
        assert_eq!(texts, ["one", "two"]);
        call.message().await.unwrap();
        let padded = format!("{sent}==,{sent}");
        call.start(&[("x-blob-bin", &padded), ("x-text", "head")]).await;
        call.send("reply").await;
        call.end(&[("grpc-status", "0"), ("x-end-bin", "/w=="), ("x-text", "tail")]).await;
    }));
    let blob = [0, 1, 2, 255];
    let call = client.unary(&method("/t.S/M"), &text("hello"));
    let reply =
        call.metadata_bin("x-blob-bin", blob).metadata("x-text", "one").metadata("x-text", "two").await.unwrap();
    assert_eq!(reply.message(), "reply");
    assert_eq!(reply.metadata().get_all_bin("x-blob-bin").unwrap(), [&blob[..], &blob]);
    assert_eq!(reply.metadata().get("x-text"), Some("head"));
    assert_eq!(reply.trailers().get_bin("x-end-bin").unwrap().unwrap(), &[255][..]);
    assert_eq!(reply.trailers().get("x-text"), Some("tail"));
    assert_eq!(reply.trailers().iter().count(), 2);
}

#[tokio::test]
async fn executes_grpc_client_streaming_protobuf_bytes_request_over_http2() {
    let client = client(handler(async |mut call| {
        assert_eq!(call.header("content-type"), Some("application/grpc+proto"));
        assert_eq!(call.header("te"), Some("trailers"));
        assert!(call.header("user-agent").unwrap().starts_with("grpc-rust-portolan/"));
        let mut all = Vec::new();
        while let Some((flag, message)) = call.message().await {
            assert_eq!(flag, 0);
            all.extend_from_slice(&message);
        }
        call.start(&[]).await;
        call.send(&all).await;
        call.ok().await;
    }));
    let words = ["one ", "", "two ", "three"].map(text);
    let reply = client.client_streaming(&method("/t.S/Join"), stream::iter(words)).await.unwrap();
    assert_eq!(reply.message(), "one two three");
    assert!(reply.trailers().is_empty());
}

#[tokio::test]
async fn grpc_duplex_call_supports_interleaved_send_and_receive_over_http2() {
    let client = client(handler(async |mut call| {
        // Not even the head comes before the first message.
        let mut started = false;
        while let Some((_, message)) = call.message().await {
            if !std::mem::replace(&mut started, true) {
                call.start(&[("x-began", "yes")]).await;
            }
            call.send(&message).await;
            call.send("again").await;
        }
        call.end(&[("grpc-status", "0"), ("x-ended", "yes")]).await;
    }));
    let mut call = client.duplex(&method("/t.S/Chat")).await.unwrap();
    for word in ["one", "two", "three"] {
        call.send(&text(word)).await.unwrap();
        assert_eq!(call.message().await.unwrap().unwrap(), word);
        assert_eq!(call.message().await.unwrap().unwrap(), "again");
    }
    assert_eq!(call.metadata().await.unwrap().get("x-began"), Some("yes"));
    assert!(call.trailers().is_none());
    call.finish();
    assert!(call.message().await.unwrap().is_none());
    assert_eq!(call.trailers().unwrap().get("x-ended"), Some("yes"));
    assert!(call.message().await.unwrap().is_none());
    assert_eq!(call.send(&text("late")).await.unwrap_err().kind(), Kind::Usage);
}

#[tokio::test]
async fn messages_stream_down_with_metadata_before_and_after() {
    let client = client(handler(async |mut call| {
        call.message().await.unwrap();
        call.start(&[("x-a", "1")]).await;
        for n in 0..1000u32 {
            call.send(n.to_string()).await;
        }
        call.end(&[("grpc-status", "0"), ("x-b", "2")]).await;
    }));
    let mut replies = client.server_streaming(&method("/t.S/Count"), &Bytes::new()).await.unwrap();
    assert_eq!(replies.metadata().await.unwrap().get("x-a"), Some("1"));
    for n in 0..1000u32 {
        assert_eq!(replies.message().await.unwrap().unwrap(), n.to_string());
    }
    assert!(replies.message().await.unwrap().is_none());
    assert_eq!(replies.trailers().unwrap().get("x-b"), Some("2"));
}

#[tokio::test]
async fn a_status_that_comes_after_messages_is_the_error_of_the_last_read() {
    let client = client(handler(async |call| {
        call.start(&[]).await;
        call.send("one").await;
        let details = "CAcSBGxhdGU";
        call.end(&[
            ("grpc-status", "7"),
            ("grpc-message", "late%21"),
            ("grpc-status-details-bin", details),
            ("x-t", "1"),
        ])
        .await;
    }));
    let mut replies = client.server_streaming(&method("/t.S/Fail"), &Bytes::new()).await.unwrap();
    assert_eq!(replies.message().await.unwrap().unwrap(), "one");
    let error = replies.message().await.unwrap_err();
    let status = error.server::<Status>().unwrap();
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "late!"));
    assert_eq!(status.metadata().get("x-t"), Some("1"));
    assert_eq!(status.details_bytes(), &b"\x08\x07\x12\x04late"[..]);
    assert_eq!((error.kind(), error.delivery()), (Kind::Server, Delivery::Answered));
    assert!(replies.message().await.unwrap().is_none());
}

/// A server that answers each path in its own wrong way.
fn wrong() -> support::Handler {
    handler(async |call| {
        let path = call.path().to_owned();
        let reset = |code| Out::Reset(code);
        match path.as_str() {
            "/w/trailers-only" => {
                call.only(&[("grpc-status", "5"), ("grpc-message", "no %E2%98%BA"), ("x-t", "1")]).await
            }
            "/w/no-trailers" => {
                call.start(&[]).await;
                call.out(Out::Data(support::frame(0, b"x"), true)).await;
            }
            "/w/no-status" => {
                call.start(&[]).await;
                call.send("x").await;
                call.end(&[("x-t", "1")]).await;
            }
            "/w/strange-status" => call.only(&[("grpc-status", "99")]).await,
            "/w/html" => call.http(200, "text/html").await,
            "/w/web" => call.http(200, "application/grpc-web+proto").await,
            "/w/404" => call.http(404, "text/html").await,
            "/w/503" => call.http(503, "text/plain").await,
            "/w/401" => call.http(401, "text/plain").await,
            "/w/refused" => call.out(reset(7)).await,
            "/w/cancel" => call.out(reset(8)).await,
            "/w/calm" => call.out(reset(11)).await,
            "/w/internal" => call.out(reset(2)).await,
            "/w/empty" => {
                call.start(&[]).await;
                call.ok().await;
            }
            "/w/two" => {
                call.start(&[]).await;
                call.send("x").await;
                call.send("y").await;
                call.ok().await;
            }
            "/w/cut" => {
                call.start(&[]).await;
                call.raw(&b"\0\0\0\0\x09short"[..]).await;
                call.ok().await;
            }
            "/w/large" => {
                call.start(&[]).await;
                call.raw(&b"\0\xff\xff\xff\xff"[..]).await;
                call.gone().await;
            }
            "/w/flag" => {
                call.start(&[]).await;
                call.send_flagged(0x80, "x").await;
                call.gone().await;
            }
            "/w/compressed" => {
                call.start(&[("grpc-encoding", "br")]).await;
                call.send_flagged(1, "x").await;
                call.gone().await;
            }
            "/w/unsaid" => {
                call.start(&[]).await;
                call.send_flagged(1, "x").await;
                call.gone().await;
            }
            other => panic!("{other}"),
        }
    })
}

#[tokio::test]
async fn every_wrong_answer_has_its_status() {
    let client = client(wrong());
    for (name, code, kind) in [
        ("trailers-only", Code::NotFound, Kind::Server),
        ("no-trailers", Code::Internal, Kind::Protocol),
        ("no-status", Code::Unknown, Kind::Protocol),
        ("strange-status", Code::Unknown, Kind::Server),
        ("html", Code::Unknown, Kind::Protocol),
        ("web", Code::Unknown, Kind::Protocol),
        ("404", Code::Unimplemented, Kind::Server),
        ("503", Code::Unavailable, Kind::Server),
        ("401", Code::Unauthenticated, Kind::Server),
        ("refused", Code::Unavailable, Kind::Server),
        ("cancel", Code::Cancelled, Kind::Server),
        ("calm", Code::ResourceExhausted, Kind::Server),
        ("internal", Code::Internal, Kind::Server),
        ("empty", Code::Internal, Kind::Protocol),
        ("two", Code::Internal, Kind::Protocol),
        ("cut", Code::Internal, Kind::Protocol),
        ("large", Code::ResourceExhausted, Kind::Limit),
        ("flag", Code::Internal, Kind::Protocol),
        ("compressed", Code::Internal, Kind::Protocol),
        ("unsaid", Code::Internal, Kind::Protocol),
    ] {
        let error = client.unary(&method(&format!("/w/{name}")), &text("x")).await.unwrap_err();
        let status = error.server::<Status>().unwrap_or_else(|| panic!("{name}: {error:?}"));
        assert_eq!((status.code(), error.kind()), (code, kind), "{name}: {error}");
        let refused = if name == "refused" { Delivery::Refused } else { error.delivery() };
        assert_eq!(error.delivery(), refused, "{name}");
    }
    let error = client.unary(&method("/w/trailers-only"), &text("x")).await.unwrap_err();
    let status = Status::of(&error);
    assert_eq!((status.message(), status.metadata().get("x-t")), ("no \u{263a}", Some("1")));
}

#[tokio::test]
async fn a_refused_call_is_made_once_more_without_a_policy() {
    let client = client(handler(async |call| {
        static SEEN: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        assert_eq!(call.header("grpc-previous-rpc-attempts"), None);
        if SEEN.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 {
            return call.out(Out::Reset(7)).await;
        }
        call.start(&[]).await;
        call.send("second").await;
        call.ok().await;
    }));
    assert_eq!(client.unary(&method("/t.S/M"), &text("x")).await.unwrap().message(), "second");
}

/// A server that says when it was let go.
fn silent(gone: tokio::sync::mpsc::Sender<Option<String>>) -> support::Handler {
    handler(move |call| {
        let gone = gone.clone();
        async move {
            let timeout = call.header("grpc-timeout").map(str::to_owned);
            if call.path().ends_with("Begun") {
                call.start(&[]).await;
                call.send("one").await;
            }
            call.gone().await;
            gone.send(timeout).await.unwrap();
        }
    })
}

#[tokio::test]
async fn a_deadline_is_told_to_the_server_and_kept_here() {
    let (gone, mut was_gone) = tokio::sync::mpsc::channel(4);
    let client = client(silent(gone));
    let call = client.unary(&method("/t.S/Silent"), &text("x")).timeout(Duration::from_millis(50));
    let error = call.await.unwrap_err();
    assert_eq!((Status::of(&error).code(), error.kind()), (Code::DeadlineExceeded, Kind::Timeout));
    let told = was_gone.recv().await.unwrap().unwrap();
    assert!(Deadline::parse(&told).unwrap().left() <= Duration::from_millis(51), "{told}");

    let call = client.server_streaming(&method("/t.S/Begun"), &text("x")).timeout(Duration::from_millis(50));
    let mut replies = call.await.unwrap();
    assert_eq!(replies.message().await.unwrap().unwrap(), "one");
    assert_eq!(Status::of(&replies.message().await.unwrap_err()).code(), Code::DeadlineExceeded);
    assert!(was_gone.recv().await.unwrap().is_some());
}

#[tokio::test]
async fn a_deadline_is_handed_on_to_the_calls_made_under_it() {
    let (gone, mut was_gone) = tokio::sync::mpsc::channel(4);
    let client = client(silent(gone));
    let work = async { client.unary(&method("/t.S/Silent"), &text("x")).timeout(Duration::from_secs(3600)).await };
    let error = Deadline::after(Duration::from_millis(50)).scope(work).await.unwrap_err();
    assert_eq!(Status::of(&error).code(), Code::DeadlineExceeded);
    assert!(was_gone.recv().await.unwrap().is_some());
    let passed = Deadline::after(Duration::ZERO);
    let error = client.unary(&method("/t.S/Silent"), &text("x")).deadline(passed).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Timeout, Delivery::NotSent));
}

#[tokio::test]
async fn what_is_let_go_is_cancelled_at_the_server() {
    let (gone, mut was_gone) = tokio::sync::mpsc::channel(4);
    let client = client(silent(gone));
    let mut replies = client.server_streaming(&method("/t.S/Begun"), &text("x")).await.unwrap();
    assert_eq!(replies.message().await.unwrap().unwrap(), "one");
    drop(replies);
    assert_eq!(was_gone.recv().await.unwrap(), None);

    let mut call = client.duplex(&method("/t.S/Begun")).await.unwrap();
    assert_eq!(call.message().await.unwrap().unwrap(), "one");
    call.cancel();
    assert_eq!(Status::of(&call.message().await.unwrap_err()).code(), Code::Cancelled);
    assert_eq!(was_gone.recv().await.unwrap(), None);

    let mut call = client.duplex(&method("/t.S/Silent")).await.unwrap();
    call.send(&text("x")).await.unwrap();
    drop(call);
    // Whether it reached the server or not, nothing of it is left.
    while client.transport().status().active > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_server_that_reads_nothing_stops_the_sender() {
    let client = client(handler(async |call| call.gone().await));
    let mut call = client.duplex(&method("/t.S/Deaf")).await.unwrap();
    let large = Bytes::from(vec![0; 60_000]);
    let mut sent = 0;
    while tokio::time::timeout(Duration::from_millis(200), call.send(&large)).await.is_ok() {
        sent += 1;
        assert!(sent < 64, "nothing stops the sender");
    }
    assert!(sent >= 1);
}

#[tokio::test]
async fn a_sender_that_is_stopped_is_let_go_by_the_deadline() {
    let client = client(handler(async |call| call.gone().await));
    let mut call = client.duplex(&method("/t.S/Deaf")).timeout(Duration::from_millis(100)).await.unwrap();
    let large = Bytes::from(vec![0; 60_000]);
    let error = loop {
        if let Err(error) = call.send(&large).await {
            break error;
        }
    };
    assert_eq!((Status::of(&error).code(), error.kind()), (Code::DeadlineExceeded, Kind::Timeout));
}

#[tokio::test]
async fn a_status_before_the_request_is_over_ends_the_sender() {
    let client = client(handler(async |call| call.only(&[("grpc-status", "8")]).await));
    let mut call = client.duplex(&method("/t.S/Full")).await.unwrap();
    assert_eq!(Status::of(&call.message().await.unwrap_err()).code(), Code::ResourceExhausted);
    let error = loop {
        if let Err(error) = call.send(&text("more")).await {
            break error;
        }
    };
    assert_eq!((error.kind(), error.delivery()), (Kind::Closed, Delivery::NotSent));
}

#[tokio::test]
async fn mistakes_of_the_caller_are_found_before_anything_is_sent() {
    let client = client(handler(async |_| panic!("nothing is sent")));
    let method = method("/t.S/M");
    let calls = [
        client.unary(&method, &text("x")).metadata("grpc-status", "0"),
        client.unary(&method, &text("x")).metadata("x-bin", "text"),
        client.unary(&method, &text("x")).metadata_bin("x", [1]),
        client.unary(&method, &text("long")).max_send_bytes(3),
    ];
    for call in calls {
        let error = call.await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (Kind::Usage, Delivery::NotSent));
    }
    for path in ["", "/", "/a", "a/b", "/a/b/c", "//b", "/a/", "/a/b?c", "/a/b#c", "/a b/c"] {
        assert!(Method::new(path, BYTES).is_err(), "{path}");
    }
}
