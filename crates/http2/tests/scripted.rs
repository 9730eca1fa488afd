//! The client against a scripted peer: the ordinary ways, and every rule broken.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body::Frame as BodyFrame;
use http_body_util::{BodyExt, Empty, StreamBody};
use portolan_core::{Delivery, Kind, Phase, clock};
use portolan_http2::ext::{OnInformational, Protocol};
use portolan_http2::{Code, Event, Options, State};
use support::*;

fn code(error: &portolan_core::Error) -> Option<u32> {
    error.code().map(|code| u32::try_from(code).unwrap())
}

#[tokio::test]
async fn a_request_is_answered_with_body_and_trailers() {
    let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.send(get("/path?q=1")).await }
    });
    let (id, end, fields) = peer.request().await;
    assert_eq!((id, end), (1, true));
    let expected = [(":method", "GET"), (":scheme", "http"), (":authority", "example.test"), (":path", "/path?q=1")];
    assert_eq!(fields, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    peer.headers(1, 0, &[(":status", "200"), ("x-kind", "plain")]).await;
    peer.send(DATA, 0, 1, b"hello ").await;
    peer.send(DATA, 0, 1, b"world").await;
    peer.headers(1, END_STREAM, &[("x-sum", "42")]).await;
    let response = call.await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["x-kind"], "plain");
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["x-sum"], "42");
    assert_eq!(body.to_bytes(), "hello world");
    assert_eq!(client.status().active, 0);
}

#[tokio::test]
async fn reuses_http2_connection_for_many_requests_in_flight() {
    let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
    let calls: Vec<_> = (0..20)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move {
                let body = client.send(get(&format!("/{number}"))).await.unwrap().into_body();
                (number, body.collect().await.unwrap().to_bytes())
            })
        })
        .collect();
    let mut seen = Vec::new();
    for _ in 0..20 {
        let (id, _, fields) = peer.request().await;
        seen.push((id, fields[3].1.clone()));
    }
    for (id, path) in seen.iter().rev() {
        peer.respond(*id, path.as_bytes()).await;
    }
    for call in calls {
        let (number, body) = call.await.unwrap();
        assert_eq!(body, format!("/{number}"));
    }
}

#[tokio::test]
async fn request_trailers_follow_the_body() {
    let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("7"));
    let frames = [Ok::<_, std::io::Error>(BodyFrame::data(Bytes::from("data"))), Ok(BodyFrame::trailers(trailers))];
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let request = Request::post("http://example.test/").body(body).unwrap();
    let call = tokio::spawn(async move { client.send(request).await });
    assert!(!peer.request().await.1);
    let data = peer.next().await;
    assert_eq!((data.kind, data.flags, &data.payload[..]), (DATA, 0, &b"data"[..]));
    let (_, end, fields) = peer.request().await;
    assert!(end);
    assert_eq!(fields, [("x-sum".to_owned(), "7".to_owned())]);
    peer.respond(1, b"").await;
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_small_body_travels_with_its_length_and_ends_the_stream() {
    let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
    let call = tokio::spawn(async move { client.send(post("/", "12345")).await });
    let (_, end, fields) = peer.request().await;
    assert!(!end);
    assert_eq!(fields.last().unwrap(), &("content-length".to_owned(), "5".to_owned()));
    let data = peer.next().await;
    assert_eq!((data.flags, &data.payload[..]), (END_STREAM, &b"12345"[..]));
    peer.respond(1, b"").await;
    assert!(call.await.unwrap().is_ok());
}

#[tokio::test]
async fn an_upload_waits_for_both_windows() {
    let (client, _driver, mut peer) = ready(Options::new(), &[(4, 10)]).await;
    let call = tokio::spawn(async move { client.send(post("/", vec![7; 100_000])).await });
    peer.request().await;
    assert_eq!(peer.next().await.payload.len(), 10, "the stream's window");
    peer.send(WINDOW_UPDATE, 0, 1, &200_000u32.to_be_bytes()).await;
    let mut sent = 10;
    while sent < 65_535 {
        sent += peer.next().await.payload.len();
    }
    assert_eq!(sent, 65_535, "the connection's window");
    // A lowered setting makes the stream's window negative; it must climb out before anything is sent.
    peer.settings(&[(4, 0)]).await;
    assert_eq!(peer.next().await.kind, SETTINGS);
    peer.send(WINDOW_UPDATE, 0, 0, &200_000u32.to_be_bytes()).await;
    let mut last = peer.next().await;
    while last.flags & END_STREAM == 0 {
        sent += last.payload.len();
        last = peer.next().await;
    }
    assert_eq!(sent + last.payload.len(), 100_000);
    peer.respond(1, b"done").await;
    assert!(call.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_failing_body_resets_its_stream_alone() {
    let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
    let frames = [Ok(BodyFrame::data(Bytes::from("part"))), Err(std::io::Error::other("disk gone"))];
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let request = Request::post("http://example.test/").body(body).unwrap();
    let error = client.send(request).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "disk gone");
    peer.request().await;
    let reset = peer.until(RST_STREAM).await;
    assert_eq!((reset.id, reset.u32()), (1, Code::CANCEL.value()));
    let call = tokio::spawn(async move { client.send(get("/next")).await });
    assert_eq!(peer.request().await.0, 3);
    peer.respond(3, b"").await;
    assert!(call.await.unwrap().is_ok());
}

#[tokio::test]
async fn accepts_http2_settings_enable_push_from_server() {
    // 0 is what the client said itself: a no-op (RFC 9113 6.5.2).
    let (client, _driver, mut peer) = ready(Options::new(), &[(2, 0)]).await;
    let call = tokio::spawn(async move { client.send(get("/")).await });
    peer.request().await;
    peer.respond(1, b"").await;
    assert!(call.await.unwrap().is_ok());
}

/// Runs `attack` against a client with one request in flight; gives the code of the GOAWAY and the request's error.
async fn attacked(attack: Vec<u8>) -> (u32, portolan_core::Error) {
    let (client, driver, mut peer) = ready(Options::new(), &[]).await;
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.send(get("/")).await }
    });
    peer.request().await;
    peer.flood(&attack).await;
    let code = peer.until(GOAWAY).await.goaway_code();
    let error = call.await.unwrap().unwrap_err();
    assert!(client.is_closed());
    assert!(driver.await.unwrap().is_err());
    assert_eq!(client.send(get("/")).await.unwrap_err().delivery(), Delivery::NotSent);
    (code, error)
}

#[tokio::test]
async fn broken_rules_end_the_connection_with_their_code() {
    let headers = [0x88];
    let attacks: Vec<(&str, Code, Vec<u8>)> = vec![
        ("ENABLE_PUSH=1", Code::PROTOCOL_ERROR, raw(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 1])),
        ("ENABLE_PUSH=2", Code::PROTOCOL_ERROR, raw(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2])),
        ("PUSH_PROMISE", Code::PROTOCOL_ERROR, raw(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x82])),
        ("window setting", Code::FLOW_CONTROL_ERROR, raw(SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0])),
        ("frame size setting", Code::PROTOCOL_ERROR, raw(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1])),
        ("SETTINGS of 5 bytes", Code::FRAME_SIZE_ERROR, raw(SETTINGS, 0, 0, &[0; 5])),
        ("SETTINGS on a stream", Code::PROTOCOL_ERROR, raw(SETTINGS, 0, 1, &[])),
        ("PING of 7 bytes", Code::FRAME_SIZE_ERROR, raw(PING, 0, 0, &[0; 7])),
        ("PING on a stream", Code::PROTOCOL_ERROR, raw(PING, 0, 1, &[0; 8])),
        ("window update of 0", Code::FLOW_CONTROL_ERROR, raw(WINDOW_UPDATE, 0, 0, &[0; 4])),
        ("window overflow", Code::FLOW_CONTROL_ERROR, raw(WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255])),
        ("even stream", Code::PROTOCOL_ERROR, raw(HEADERS, END_HEADERS, 2, &headers)),
        ("idle stream", Code::PROTOCOL_ERROR, raw(HEADERS, END_HEADERS, 9, &headers)),
        ("data on idle stream", Code::PROTOCOL_ERROR, raw(DATA, 0, 9, b"x")),
        ("reset of idle stream", Code::PROTOCOL_ERROR, raw(RST_STREAM, 0, 9, &[0; 4])),
        ("CONTINUATION alone", Code::PROTOCOL_ERROR, raw(CONTINUATION, END_HEADERS, 1, &headers)),
        ("a frame in a block", Code::PROTOCOL_ERROR, [raw(HEADERS, 0, 1, &headers), raw(PING, 0, 0, &[0; 8])].concat()),
        (
            "block of another",
            Code::PROTOCOL_ERROR,
            [raw(HEADERS, 0, 1, &headers), raw(CONTINUATION, 4, 3, &[])].concat(),
        ),
        ("padding", Code::PROTOCOL_ERROR, raw(DATA, PADDED, 1, &[9, 0])),
        ("bad index", Code::COMPRESSION_ERROR, raw(HEADERS, END_HEADERS, 1, &[0xff, 0xff, 0x7f])),
        // The head alone says it: no payload follows.
        ("frame size", Code::FRAME_SIZE_ERROR, vec![0, 0x40, 1, DATA, 0, 0, 0, 0, 1]),
        ("huge frame of unknown kind", Code::FRAME_SIZE_ERROR, vec![255, 255, 255, 0xee, 0, 0, 0, 0, 1]),
        ("GOAWAY too short", Code::FRAME_SIZE_ERROR, raw(GOAWAY, 0, 0, &[0; 7])),
    ];
    for (name, expected, attack) in attacks {
        let (code, error) = attacked(attack).await;
        assert_eq!(Code::new(code), expected, "{name}");
        assert_eq!((error.kind(), error.delivery()), (Kind::Protocol, Delivery::Unknown), "{name}: {error:?}");
    }
}

#[tokio::test]
async fn floods_end_the_connection_and_not_the_process() {
    let floods: Vec<(&str, Vec<u8>)> = vec![
        ("PING", raw(PING, 0, 0, &[0; 8]).repeat(20_000)),
        ("SETTINGS", raw(SETTINGS, 0, 0, &[]).repeat(20_000)),
        ("RST_STREAM", raw(RST_STREAM, 0, 1, &[0, 0, 0, 8]).repeat(20_000)),
        ("empty DATA", [raw(HEADERS, END_HEADERS, 1, &[0x88]), raw(DATA, 0, 1, &[]).repeat(20_000)].concat()),
        ("unknown frames", raw(0xee, 0, 0, b"x").repeat(20_000)),
        ("PRIORITY", raw(2, 0, 1, &[0; 5]).repeat(20_000)),
        ("CONTINUATION", [raw(HEADERS, 0, 1, &[0x88]), raw(CONTINUATION, 0, 1, &[]).repeat(1000)].concat()),
        (
            "CONTINUATION bytes",
            [raw(HEADERS, 0, 1, &[0x88]), raw(CONTINUATION, 0, 1, &[0x88; 16_000]).repeat(30)].concat(),
        ),
    ];
    for (name, flood) in floods {
        let (client, driver, mut peer) = ready(Options::new(), &[]).await;
        let call = tokio::spawn({
            let client = client.clone();
            async move { client.send(get("/")).await?.into_body().collect().await }
        });
        peer.request().await;
        peer.flood(&flood).await;
        assert_eq!(Code::new(peer.until(GOAWAY).await.goaway_code()), Code::ENHANCE_YOUR_CALM, "{name}");
        assert!(call.await.unwrap().is_err(), "{name}");
        assert_eq!(driver.await.unwrap().unwrap_err().kind(), Kind::Limit, "{name}");
    }
}

#[tokio::test]
async fn tiny_data_frames_do_not_kill_a_slow_reader() {
    let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.send(get("/")).await }
    });
    peer.request().await;
    peer.headers(1, 0, &[(":status", "200")]).await;
    let response = call.await.unwrap().unwrap();
    // Nobody reads: thousands of frames of one byte wait, gathered.
    for _ in 0..5000 {
        peer.send(DATA, 0, 1, b"x").await;
    }
    peer.send(DATA, END_STREAM, 1, b"").await;
    peer.send(PING, 0, 0, &[1; 8]).await;
    assert_eq!(peer.until(PING).await.payload, [1; 8], "all of it was taken in");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), 5000);
}

#[tokio::test]
async fn what_is_read_is_given_back_and_more_than_the_window_is_refused() {
    let options = Options::new().stream_window(1000).connection_window(70_000).max_window(0);
    let (client, _driver, mut peer) = ready(options, &[]).await;
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.send(get("/")).await }
    });
    peer.request().await;
    peer.headers(1, 0, &[(":status", "200")]).await;
    peer.send(DATA, 0, 1, &[0; 600]).await;
    let mut body = call.await.unwrap().unwrap().into_body();
    let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(data.len(), 600);
    let update = peer.next().await;
    assert_eq!((update.kind, update.id, update.u32()), (WINDOW_UPDATE, 1, 600));
    // Padding counts, and is given back at once.
    let padded = [&[200][..], b"y", &[0; 200]].concat();
    peer.send(DATA, PADDED, 1, &padded).await;
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "y");
    peer.send(DATA, 0, 1, &[0; 1000]).await;
    let goaway = peer.until(GOAWAY).await;
    assert_eq!(Code::new(goaway.goaway_code()), Code::FLOW_CONTROL_ERROR, "798 were left");
}

#[tokio::test]
async fn goaway_refuses_what_is_above_its_stream_and_may_shrink() {
    let (client, driver, mut peer) = ready(Options::new(), &[]).await;
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.send(get("/")).await })
        })
        .collect();
    for _ in 0..3 {
        peer.request().await;
    }
    peer.send(GOAWAY, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0, b'b', b'y', b'e']).await;
    let mut calls = calls.into_iter();
    let (first, second, third) = (calls.next().unwrap(), calls.next().unwrap(), calls.next().unwrap());
    let error = third.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Closed, Delivery::Refused));
    assert_eq!(client.status().state, State::Draining);
    let goaway = client.goaway().unwrap();
    assert_eq!((goaway.last_id, goaway.code, &goaway.debug[..]), (3, Code::NO_ERROR, &b"bye"[..]));
    assert_eq!(client.send(get("/")).await.unwrap_err().delivery(), Delivery::NotSent);
    peer.send(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]).await;
    assert_eq!(second.await.unwrap().unwrap_err().delivery(), Delivery::Refused);
    peer.respond(1, b"last").await;
    let body = first.await.unwrap().unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "last");
    assert!(driver.await.unwrap().is_ok(), "quiet, it ends by itself");
    assert_eq!(client.status().state, State::Closed);
}

#[tokio::test]
async fn a_second_goaway_with_a_higher_stream_breaks_the_rules() {
    let (_, error) =
        attacked([raw(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]), raw(GOAWAY, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0])].concat())
            .await;
    assert_eq!(error.kind(), Kind::Protocol);
}

#[tokio::test]
async fn each_way_to_lose_a_stream_says_what_became_of_it() {
    let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
    let send = || {
        let client = client.clone();
        tokio::spawn(async move { client.send(get("/")).await?.into_body().collect().await })
    };
    let (refused, cancelled, answered, complete, judged) = (send(), send(), send(), send(), send());
    for _ in 0..5 {
        peer.request().await;
    }
    peer.send(RST_STREAM, 0, 9, &1u32.to_be_bytes()).await;
    let judged = judged.await.unwrap().unwrap_err();
    assert_eq!((judged.delivery(), code(&judged)), (Delivery::Answered, Some(1)), "it would be judged so again");
    peer.send(RST_STREAM, 0, 1, &7u32.to_be_bytes()).await;
    peer.send(RST_STREAM, 0, 3, &8u32.to_be_bytes()).await;
    peer.headers(5, 0, &[(":status", "200")]).await;
    peer.send(RST_STREAM, 0, 5, &7u32.to_be_bytes()).await;
    peer.respond(7, b"all").await;
    peer.send(RST_STREAM, 0, 7, &0u32.to_be_bytes()).await;
    let refused = refused.await.unwrap().unwrap_err();
    assert_eq!((refused.kind(), refused.delivery(), code(&refused)), (Kind::Server, Delivery::Refused, Some(7)));
    assert_eq!(cancelled.await.unwrap().unwrap_err().delivery(), Delivery::Unknown);
    assert_eq!(answered.await.unwrap().unwrap_err().delivery(), Delivery::Answered, "whatever the code says");
    assert_eq!(complete.await.unwrap().unwrap().to_bytes(), "all", "a reset after the end takes nothing away");
    let lost = send();
    peer.request().await;
    peer.hang_up();
    let lost = lost.await.unwrap().unwrap_err();
    assert_eq!((lost.kind(), lost.delivery()), (Kind::Closed, Delivery::Unknown));
}

#[tokio::test]
async fn what_never_left_is_not_sent() {
    // A pipe of 60 bytes holds the preface and no request.
    let (ours, theirs) = tokio::io::duplex(60);
    let (client, connection) = portolan_http2::handshake(ours, Options::new()).unwrap();
    let driver = tokio::spawn(connection);
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.send(get("/")).await }
    });
    while client.status().active == 0 {
        tokio::task::yield_now().await;
    }
    drop(theirs);
    let error = call.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Closed, Delivery::NotSent), "{error:?}");
    assert!(driver.await.unwrap().is_err());
}

#[tokio::test]
async fn a_failed_write_of_headers_fails_the_streams_in_flight() {
    let (client, driver, mut peer) = ready(Options::new(), &[]).await;
    let first = tokio::spawn({
        let client = client.clone();
        async move { client.send(get("/first")).await }
    });
    peer.request().await;
    peer.hang_up();
    let second = client.send(get("/second")).await.unwrap_err();
    let first = first.await.unwrap().unwrap_err();
    assert_eq!(first.delivery(), Delivery::Unknown);
    assert_eq!(second.delivery(), Delivery::NotSent);
    assert!(client.is_closed());
    assert!(driver.await.unwrap().is_err());
}

#[tokio::test]
async fn the_peers_header_list_limit_is_kept_before_sending() {
    let (client, _driver, mut peer) = ready(Options::new(), &[(6, 200)]).await;
    let mut request = get("/");
    request.headers_mut().insert("x-long", HeaderValue::from_str(&"v".repeat(200)).unwrap());
    let error = client.send(request).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Limit, Delivery::NotSent));
    let call = tokio::spawn(async move { client.send(get("/")).await });
    let (id, _, fields) = peer.request().await;
    assert_eq!((id, fields.len()), (1, 4), "nothing of the long one was sent");
    peer.respond(1, b"").await;
    assert!(call.await.unwrap().is_ok());
}

#[tokio::test]
async fn the_peers_stream_limit_holds_at_zero_and_when_lowered() {
    let (client, _driver, mut peer) = ready(Options::new().max_waiting(2), &[(3, 0)]).await;
    let send = || {
        let client = client.clone();
        tokio::spawn(async move { client.send(get("/")).await?.into_body().collect().await })
    };
    let (first, second) = (send(), send());
    while client.status().waiting < 2 {
        tokio::task::yield_now().await;
    }
    let error = client.send(get("/")).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Limit, Delivery::NotSent), "the queue is full");
    peer.settings(&[(3, 1)]).await;
    assert_eq!(peer.request().await.0, 1);
    assert_eq!((client.status().active, client.status().waiting), (1, 1));
    peer.respond(1, b"").await;
    assert_eq!(peer.request().await.0, 3);
    peer.settings(&[(3, 0)]).await;
    peer.respond(3, b"").await;
    assert!(first.await.unwrap().is_ok() && second.await.unwrap().is_ok());
    let third = send();
    while client.status().waiting < 1 {
        tokio::task::yield_now().await;
    }
    third.abort();
    assert!(third.await.unwrap_err().is_cancelled());
    assert_eq!(client.status().waiting, 0, "one who gives up leaves nothing behind");
}

#[tokio::test]
async fn a_dropped_request_is_cancelled_and_its_late_frames_are_ignored() {
    let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.send(get("/")).await }
    });
    peer.request().await;
    call.abort();
    let reset = peer.until(RST_STREAM).await;
    assert_eq!((reset.id, reset.u32()), (1, Code::CANCEL.value()));
    peer.headers(1, 0, &[(":status", "200"), ("x-late", "indexed")]).await;
    peer.send(DATA, END_STREAM, 1, b"late").await;
    let call = tokio::spawn(async move { client.send(get("/")).await });
    assert_eq!(peer.request().await.0, 3);
    // The table is in step: the field is named by its number.
    peer.headers(3, END_STREAM, &[(":status", "200"), ("x-late", "indexed")]).await;
    assert_eq!(call.await.unwrap().unwrap().headers()["x-late"], "indexed");
}

#[tokio::test]
async fn malformed_responses_fail_their_stream_alone() {
    let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
    let cases: &[&[&[(&str, &str)]]] = &[
        &[&[("x-a", "1")]],
        &[&[(":status", "200"), (":status", "200")]],
        &[&[("x-a", "1"), (":status", "200")]],
        &[&[(":status", "2x0")]],
        &[&[(":status", "101")]],
        &[&[(":status", "200"), ("connection", "close")]],
        &[&[(":status", "200"), ("transfer-encoding", "chunked")]],
        &[&[(":status", "200"), ("content-length", "1"), ("content-length", "2")]],
        &[&[(":status", "200"), ("content-length", "+1")]],
        &[&[(":status", "200")], &[("x-not-the-end", "1")]],
    ];
    for (number, case) in cases.iter().enumerate() {
        let call = tokio::spawn({
            let client = client.clone();
            async move { client.send(get("/")).await?.into_body().collect().await }
        });
        let (id, ..) = peer.request().await;
        for fields in *case {
            peer.headers(id, 0, fields).await;
        }
        let reset = peer.until(RST_STREAM).await;
        assert_eq!((reset.id, Code::new(reset.u32())), (id, Code::PROTOCOL_ERROR), "case {number}");
        let error = call.await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (Kind::Protocol, Delivery::Answered), "case {number}");
    }
    for (promised, body) in [("5", "1234"), ("3", "1234")] {
        let call = tokio::spawn({
            let client = client.clone();
            async move { client.send(get("/")).await?.into_body().collect().await }
        });
        let (id, ..) = peer.request().await;
        peer.headers(id, 0, &[(":status", "200"), ("content-length", promised)]).await;
        peer.send(DATA, END_STREAM, id, body.as_bytes()).await;
        assert_eq!(call.await.unwrap().unwrap_err().kind(), Kind::Protocol, "{promised} promised");
    }
}

#[tokio::test]
async fn a_header_list_beyond_the_limit_fails_its_stream_alone() {
    let (client, _driver, mut peer) = ready(Options::new().max_header_list_size(300), &[]).await;
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.send(get("/")).await }
    });
    peer.request().await;
    peer.headers(1, 0, &[(":status", "200"), ("x-a", &"a".repeat(150)), ("x-b", &"b".repeat(150))]).await;
    let error = call.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Limit, Delivery::Answered));
    let call = tokio::spawn(async move { client.send(get("/")).await });
    assert_eq!(peer.request().await.0, 3);
    peer.respond(3, b"").await;
    assert!(call.await.unwrap().is_ok());
}

#[tokio::test]
async fn informational_responses_are_surfaced_in_order() {
    let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut request = get("/");
    request.extensions_mut().insert(OnInformational::new({
        let seen = Arc::clone(&seen);
        move |response| seen.lock().unwrap().push(response.status().as_u16())
    }));
    let call = tokio::spawn(async move { client.send(request).await });
    peer.request().await;
    peer.headers(1, 0, &[(":status", "100")]).await;
    peer.headers(1, 0, &[(":status", "103"), ("link", "</a.css>")]).await;
    peer.headers(1, END_STREAM, &[(":status", "204")]).await;
    assert_eq!(call.await.unwrap().unwrap().status(), 204);
    assert_eq!(*seen.lock().unwrap(), [100, 103]);
}

#[tokio::test]
async fn extended_connect_waits_for_the_settings_that_allow_it() {
    for (allowed, settings) in [(true, vec![(8, 1)]), (false, vec![])] {
        let (client, _driver, mut peer) = pair(Options::new());
        let mut request = Request::builder()
            .method(Method::CONNECT)
            .uri("http://example.test/chat")
            .body(Empty::<Bytes>::new())
            .unwrap();
        request.extensions_mut().insert(Protocol::new("websocket"));
        let call = tokio::spawn({
            let client = client.clone();
            async move { client.send(request).await }
        });
        peer.preface().await;
        assert_eq!(client.status().active, 0, "nothing is sent before the settings");
        peer.settings(&settings).await;
        if allowed {
            let (_, _, fields) = peer.request().await;
            assert!(fields.contains(&(":protocol".to_owned(), "websocket".to_owned())));
            peer.headers(1, 0, &[(":status", "200")]).await;
            assert!(call.await.unwrap().is_ok());
        } else {
            let error = call.await.unwrap().unwrap_err();
            assert_eq!((error.kind(), error.delivery()), (Kind::Unsupported, Delivery::NotSent));
        }
    }
}

#[tokio::test]
async fn altsvc_and_origin_are_surfaced_and_unknown_frames_ignored() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&events);
    let (client, _driver, mut peer) =
        ready(Options::new().on_event(move |event| sink.lock().unwrap().push(event)), &[]).await;
    peer.send(0xee, 0xff, 77, b"who knows").await;
    peer.send(0xa, 0, 0, &[&[0, 13][..], b"https://a.tld", b"h3=\":443\""].concat()).await;
    peer.send(0xc, 0, 0, &[&[0, 13][..], b"https://b.tld"].concat()).await;
    assert!(client.ping_through(&mut peer).await);
    let events = events.lock().unwrap();
    assert!(matches!(events[0], Event::Settings(_)));
    assert_eq!(events[1], Event::AltSvc { stream: 0, origin: "https://a.tld".into(), value: "h3=\":443\"".into() });
    assert_eq!(events[2], Event::Origin(vec!["https://b.tld".into()]));
}

trait PingThrough {
    async fn ping_through(&self, peer: &mut Peer) -> bool;
}

impl PingThrough for portolan_http2::SendRequest {
    async fn ping_through(&self, peer: &mut Peer) -> bool {
        let client = self.clone();
        let ping = tokio::spawn(async move { client.ping().await });
        let frame = peer.until(PING).await;
        peer.send(PING, ACK, 0, &frame.payload).await;
        ping.await.unwrap().is_ok()
    }
}

#[tokio::test]
async fn keepalive_asks_an_idle_peer_and_gives_up_a_silent_one() {
    let quick = Duration::from_millis(30);
    let (client, driver, mut peer) = ready(Options::new().keepalive_while_idle(quick, quick), &[]).await;
    for _ in 0..3 {
        let ping = peer.until(PING).await;
        assert!(!client.is_closed());
        peer.send(PING, ACK, 0, &ping.payload).await;
    }
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.send(get("/")).await }
    });
    peer.until(PING).await;
    let error = call.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Timeout, Delivery::Unknown));
    assert!(client.is_closed(), "closed before the waiter woke");
    assert!(driver.await.unwrap().unwrap_err().is_timeout());
}

#[tokio::test(start_paused = true)]
async fn a_response_that_does_not_begin_in_time_is_given_up_alone() {
    let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
    let call = |limit| {
        let (client, (parts, body)) = (client.clone(), get("/").into_parts());
        tokio::spawn(async move { client.send_parts_within(&parts, body, Some(Duration::from_secs(limit))).await })
    };
    let (slow, patient) = (call(1), call(5));
    assert_eq!((peer.request().await.0, peer.request().await.0), (1, 3));
    let reset = peer.until(RST_STREAM).await;
    assert_eq!((reset.id, reset.u32()), (1, Code::CANCEL.value()));
    let error = slow.await.unwrap().unwrap_err();
    let said = (error.kind(), error.phase(), error.delivery());
    assert_eq!(said, (Kind::Timeout, Some(Phase::FirstByte), Delivery::Unknown));
    // The bound is one for the beginning: a body may come late.
    peer.headers(3, 0, &[(":status", "200")]).await;
    let body = patient.await.unwrap().unwrap().into_body();
    clock::sleep(Duration::from_secs(10)).await;
    peer.send(DATA, END_STREAM, 3, b"late").await;
    assert_eq!(body.collect().await.unwrap().to_bytes(), "late");
    // Whoever waits for a stream waits no longer either.
    peer.settings(&[(3, 0)]).await;
    peer.until(SETTINGS).await;
    let error = call(1).await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.phase()), (Kind::Timeout, Some(Phase::FirstByte)));
    assert_eq!((client.status().active, client.status().waiting), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_response_may_be_late_as_long_as_the_body_moves() {
    let (client, _driver, mut peer) = ready(Options::new(), &[(4, 10)]).await;
    let started = clock::now();
    let (parts, body) = post("/", vec![7; 100]).into_parts();
    let sender = client.clone();
    let call = tokio::spawn(async move { sender.send_parts_within(&parts, body, Some(Duration::from_secs(1))).await });
    peer.request().await;
    for _ in 0..5 {
        assert_eq!(peer.next().await.payload.len(), 10);
        clock::sleep(Duration::from_millis(600)).await;
        peer.send(WINDOW_UPDATE, 0, 1, &10u32.to_be_bytes()).await;
    }
    peer.until(RST_STREAM).await;
    assert_eq!(call.await.unwrap().unwrap_err().phase(), Some(Phase::FirstByte));
    assert!(started.elapsed() >= Duration::from_secs(4), "{:?}", started.elapsed());
}

#[tokio::test]
async fn closed_is_marked_before_the_waiter_wakes() {
    let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
    let call = tokio::spawn({
        let client = client.clone();
        async move {
            let failed = client.send(get("/")).await.is_err();
            failed && client.is_closed()
        }
    });
    peer.request().await;
    peer.hang_up();
    assert!(call.await.unwrap());
}

#[tokio::test]
async fn mistakes_of_the_caller_are_found_before_a_byte_is_sent() {
    let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
    let with = |name: &'static str, value: &'static str| {
        let mut request = get("/");
        request.headers_mut().insert(name, HeaderValue::from_static(value));
        request
    };
    let bad =
        [with("connection", "close"), with("transfer-encoding", "chunked"), with("upgrade", "x"), with("te", "gzip")];
    let relative = Request::get("/only-a-path").body(Empty::<Bytes>::new()).unwrap();
    for request in bad.into_iter().chain([relative]) {
        let error = client.send(request).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (Kind::Usage, Delivery::NotSent));
    }
    let call = tokio::spawn(async move { client.send(with("te", "trailers")).await });
    assert_eq!(peer.request().await.0, 1);
    peer.respond(1, b"").await;
    assert!(call.await.unwrap().is_ok());
}

#[tokio::test]
async fn the_first_frame_must_be_settings() {
    let (client, driver, mut peer) = pair(Options::new());
    peer.preface().await;
    peer.send(PING, 0, 0, &[0; 8]).await;
    assert_eq!(Code::new(peer.until(GOAWAY).await.goaway_code()), Code::PROTOCOL_ERROR);
    assert_eq!(driver.await.unwrap().unwrap_err().kind(), Kind::Protocol);
    assert!(client.is_closed());
}

#[tokio::test]
async fn an_answer_in_http_1_is_named_as_such() {
    let (client, driver, mut peer) = pair(Options::new());
    let (first, late) = (client.clone(), client);
    let call = tokio::spawn(async move { first.send(get("/")).await });
    peer.preface().await;
    peer.flood(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
    // It can't have done anything of what was asked for, sent or not.
    let driver = driver.await.unwrap().unwrap_err();
    let errors = [(driver, Delivery::Refused), (call.await.unwrap().unwrap_err(), Delivery::Refused)];
    for (error, delivery) in errors.into_iter().chain([(late.send(get("/")).await.unwrap_err(), Delivery::NotSent)]) {
        assert_eq!((error.kind(), error.delivery()), (Kind::Unsupported, delivery));
        assert_eq!(error.code(), Some(i64::from(Code::HTTP_1_1_REQUIRED.value())));
        assert!(error.to_string().contains("the peer answers in HTTP/1"), "{error}");
    }
}

#[tokio::test]
async fn the_last_handle_dropped_ends_the_connection_in_good_order() {
    let (client, driver, mut peer) = ready(Options::new(), &[]).await;
    let call = tokio::spawn(async move { client.send(get("/")).await?.into_body().collect().await });
    peer.request().await;
    peer.respond(1, b"x").await;
    assert!(call.await.unwrap().is_ok());
    assert_eq!(Code::new(peer.until(GOAWAY).await.goaway_code()), Code::NO_ERROR);
    assert!(driver.await.unwrap().is_ok());
    assert!(peer.maybe_next().await.is_none());
}

#[tokio::test]
async fn header_table_size_of_the_peer_drives_the_encoder() {
    let (client, _driver, mut peer) = ready(Options::new(), &[(1, 0)]).await;
    for id in [1, 3] {
        let mut request = get("/");
        request.headers_mut().insert("x-small", HeaderValue::from_static("1"));
        let client = client.clone();
        let call = tokio::spawn(async move { client.send(request).await });
        let frame = peer.until(HEADERS).await;
        assert_eq!(frame.payload[0] == 0x20, id == 1, "the update to 0 is said once");
        assert!(!frame.payload.contains(&0xbe), "nothing is indexed");
        assert_eq!(peer.fields(&frame.payload).last().unwrap().0, "x-small");
        peer.respond(id, b"").await;
        assert!(call.await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn a_long_header_block_is_split_into_continuations() {
    let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
    let mut request = get("/");
    for number in 0..10 {
        let name = http::HeaderName::try_from(format!("x-long-{number}")).unwrap();
        request.headers_mut().insert(name, HeaderValue::from_str(&"~".repeat(4000)).unwrap());
    }
    let call = tokio::spawn(async move { client.send(request).await });
    let first = peer.until(HEADERS).await;
    assert_eq!((first.flags, first.payload.len()), (END_STREAM, 16_384));
    let mut block = first.payload;
    loop {
        let next = peer.next().await;
        assert_eq!((next.kind, next.id), (CONTINUATION, 1));
        block.extend(next.payload);
        if next.flags & END_HEADERS != 0 {
            break;
        }
    }
    assert_eq!(peer.fields(&block).len(), 14);
    peer.respond(1, b"").await;
    assert!(call.await.unwrap().is_ok());
}
