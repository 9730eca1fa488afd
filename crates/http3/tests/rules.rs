//! Every rule broken by a scripted peer, and what the client answers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request};
use http_body_util::{BodyExt, Empty};
use portolan_core::{Delivery, Kind};
use portolan_hpack::qpack::Encoder;
use portolan_http3::ext::{OnInformational, Protocol};
use portolan_http3::{Code, Options, State};
use support::raw::*;
use support::*;

const SETTINGS_FRAME: &[u8] = &[0x04, 0x00];

fn control(rest: &[u8]) -> Vec<u8> {
    [&[0x00], SETTINGS_FRAME, rest].concat()
}

/// The code that a client closes with when the control stream says this.
async fn closes_on_control(bytes: &[u8]) -> Code {
    let (_client, driver, peer) = pair_with(Options::new(), bytes).await;
    let code = peer.closed().await;
    let error = driver.await.unwrap().unwrap_err();
    assert_eq!(error.code(), Some(i64::try_from(code.value()).unwrap()));
    code
}

#[tokio::test]
async fn a_control_stream_that_breaks_the_rules_ends_the_connection() {
    let with_settings = |entries: &[u64]| [&[0x00][..], &frame(SETTINGS, &ints(entries))].concat();
    let cases: Vec<(Vec<u8>, Code)> = vec![
        (vec![0x00, 0x07, 0x01, 0x00], Code::MISSING_SETTINGS),
        (vec![0x00, 0x21, 0x00], Code::MISSING_SETTINGS),
        (control(SETTINGS_FRAME), Code::FRAME_UNEXPECTED),
        (control(&frame(DATA, b"x")), Code::FRAME_UNEXPECTED),
        (control(&headers(&[])), Code::FRAME_UNEXPECTED),
        (control(&frame(0x0d, &[0])), Code::FRAME_UNEXPECTED),
        (control(&frame(0x02, b"")), Code::FRAME_UNEXPECTED),
        (control(&frame(0x09, b"")), Code::FRAME_UNEXPECTED),
        (control(&frame(0x03, &[0])), Code::ID_ERROR),
        (control(&frame(GOAWAY, &[1])), Code::ID_ERROR),
        (control(&frame(GOAWAY, &[])), Code::FRAME_ERROR),
        (control(&frame(GOAWAY, &[0, 0])), Code::FRAME_ERROR),
        (with_settings(&[0x02, 0]), Code::SETTINGS_ERROR),
        (with_settings(&[0x06, 1, 0x06, 1]), Code::SETTINGS_ERROR),
        (with_settings(&[0x08, 2]), Code::SETTINGS_ERROR),
        (with_settings(&[0x33, 2]), Code::SETTINGS_ERROR),
        (with_settings(&[0x06]), Code::FRAME_ERROR),
        ([&[0x00][..], &[0x04, 0x80, 0x01, 0x00, 0x00]].concat(), Code::EXCESSIVE_LOAD),
    ];
    for (bytes, code) in cases {
        assert_eq!(closes_on_control(&bytes).await, code, "{bytes:?}");
    }
}

#[tokio::test]
async fn critical_streams_must_come_once_and_stay() {
    for kind in [0x00, 0x02, 0x03] {
        let (_client, _driver, peer) = pair(Options::new(), &[]).await;
        let bytes = if kind == 0 { control(b"") } else { vec![kind] };
        let _first = peer.uni(&bytes).await;
        let _second = peer.uni(&bytes).await;
        assert_eq!(peer.closed().await, Code::STREAM_CREATION_ERROR);
        let (_client, _driver, peer) = pair_with(Options::new(), &[]).await;
        let mut stream = peer.uni(&bytes).await;
        stream.finish().unwrap();
        assert_eq!(peer.closed().await, Code::CLOSED_CRITICAL_STREAM);
        let (_client, _driver, peer) = pair(Options::new(), &[]).await;
        let mut ours = peer.quic.accept_uni().await.unwrap();
        ours.stop(0u32.into()).unwrap();
        assert_eq!(peer.closed().await, Code::CLOSED_CRITICAL_STREAM);
    }
}

#[tokio::test]
async fn pushes_are_refused() {
    let (_client, _driver, peer) = pair(Options::new(), &[]).await;
    let _push = peer.uni(&[0x01, 0x00]).await;
    assert_eq!(peer.closed().await, Code::ID_ERROR);
}

#[tokio::test]
async fn unknown_streams_frames_and_settings_are_ignored() {
    let (client, _driver, mut peer) = pair(Options::new(), &[0x21, 7, 0x40 * 0x1f + 0x21, 1]).await;
    let grease = peer.uni(&ints(&[0x1f * 5 + 0x21, 1, 2, 3])).await;
    let stopped = grease.stopped().await.unwrap();
    assert_eq!(stopped.map(|code| code.into_inner()), Some(Code::STREAM_CREATION_ERROR.value()));
    drop(grease);
    peer.control.write_all(&frame(0x21, b"grease")).await.unwrap();
    let (sent, answer) = (get("/"), async {
        let mut stream = peer.request().await;
        let grease = frame(0x1f * 9 + 0x21, &[7; 5000]);
        stream.write(&grease).await;
        stream.write(&headers(&[(":status", "200")])).await;
        for byte in frame(DATA, b"slow").iter().chain(&grease[..]) {
            stream.write(&[*byte]).await;
        }
        stream.write(&frame(DATA, b"")).await;
        stream.write(&headers(&[("x-sum", "1")])).await;
        stream.write(&grease).await;
        stream.send.finish().unwrap();
        stream
    });
    let (response, _stream) = tokio::join!(client.send(sent), answer);
    let body = response.unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["x-sum"], "1");
    assert_eq!(body.to_bytes(), "slow");
}

#[tokio::test]
async fn frames_without_end_or_use_fail_their_stream_alone() {
    let (client, _driver, mut peer) = pair(Options::new(), &[]).await;
    let (error, _stream) = tokio::join!(async { client.send(get("/")).await.unwrap_err() }, async {
        let mut stream = peer.request().await;
        stream.write(&frame(0x21, b"").repeat(5000)).await;
        stream
    });
    assert_eq!((error.kind(), error.code()), (Kind::Limit, Some(0x107)));
    assert_eq!(client.status().state, State::Open);
}

/// The code that a client closes the connection with when a response says this.
async fn closes_on_response(bytes: &[u8], finish: bool) -> Code {
    let (client, _driver, mut peer) = pair(Options::new(), &[]).await;
    let call = tokio::spawn(async move {
        match client.send(get("/")).await {
            Ok(response) => response.into_body().collect().await.map(|_| ()),
            Err(error) => Err(error),
        }
    });
    let mut stream = peer.request().await;
    stream.write(bytes).await;
    if finish {
        stream.send.finish().unwrap();
    }
    let code = peer.closed().await;
    let error = call.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.code()), (Kind::Protocol, i64::try_from(code.value()).ok()), "{error:?}");
    code
}

#[tokio::test]
async fn frames_out_of_order_end_the_connection() {
    let head = headers(&[(":status", "200")]);
    let trailers = headers(&[("x", "y")]);
    let all = |parts: &[&[u8]]| parts.concat();
    assert_eq!(closes_on_response(&frame(DATA, b"early"), false).await, Code::FRAME_UNEXPECTED);
    assert_eq!(closes_on_response(&all(&[&head, &trailers, &frame(DATA, b"x")]), false).await, Code::FRAME_UNEXPECTED);
    assert_eq!(closes_on_response(&all(&[&head, &trailers, &trailers]), false).await, Code::FRAME_UNEXPECTED);
    for kind in [0x2, 0x3, 0x4, 0x6, 0x7, 0x8, 0x9, 0xd] {
        assert_eq!(closes_on_response(&frame(kind, &[0]), false).await, Code::FRAME_UNEXPECTED, "{kind}");
    }
    assert_eq!(closes_on_response(&frame(0x5, &[0, 0, 0]), false).await, Code::ID_ERROR);
    assert_eq!(closes_on_response(&all(&[&head, &[0x00, 0x05, b'c']]), true).await, Code::FRAME_ERROR);
    assert_eq!(closes_on_response(&frame(HEADERS, &[0xff, 0xff, 0xff]), false).await, Code::QPACK_DECOMPRESSION_FAILED);
}

#[tokio::test]
async fn a_body_that_is_not_as_long_as_promised_fails_alone() {
    let (client, _driver, mut peer) = pair(Options::new(), &[]).await;
    for body in ["four", "sixsix"] {
        let (response, _stream) = tokio::join!(client.send(get("/")), async {
            let mut stream = peer.request().await;
            stream.write(&headers(&[(":status", "200"), ("content-length", "5")])).await;
            stream.write(&frame(DATA, body.as_bytes())).await;
            stream.send.finish().unwrap();
            stream
        });
        let error = response.unwrap().into_body().collect().await.unwrap_err();
        assert_eq!((error.code(), error.delivery()), (Some(0x10e), Delivery::Answered), "{error:?}");
    }
    assert_eq!(client.status().state, State::Open);
}

#[tokio::test]
async fn a_request_stream_from_the_server_is_never_granted() {
    let (_client, _driver, peer) = pair(Options::new(), &[]).await;
    let opened = tokio::time::timeout(std::time::Duration::from_millis(100), peer.quic.open_bi()).await;
    assert!(opened.is_err());
}

#[tokio::test]
async fn a_header_list_that_the_peer_does_not_take_is_not_sent() {
    let (client, _driver, _peer) = pair(Options::new(), &[0x06, 200]).await;
    assert_eq!(client.peer_settings().unwrap().max_field_section_size, Some(200));
    let mut request = get("/");
    request.headers_mut().insert("x-long", "y".repeat(100).parse().unwrap());
    let error = client.send(request).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Limit, Delivery::NotSent));
}

#[tokio::test]
async fn requests_that_http3_forbids_are_refused_before_they_are_sent() {
    let (client, _driver, _peer) = pair(Options::new(), &[]).await;
    for (name, value) in [("connection", "close"), ("transfer-encoding", "chunked"), ("te", "gzip")] {
        let mut request = get("/");
        request.headers_mut().insert(name, value.parse().unwrap());
        assert_eq!(client.send(request).await.unwrap_err().kind(), Kind::Usage);
    }
}

#[tokio::test]
async fn extended_connect_waits_for_the_settings_and_obeys_them() {
    let request = || {
        let mut request = Request::builder()
            .method(Method::CONNECT)
            .uri("https://localhost/chat")
            .body(Empty::<Bytes>::new())
            .unwrap();
        request.extensions_mut().insert(Protocol::new("websocket"));
        request
    };
    let (client, _driver, _peer) = pair(Options::new(), &[]).await;
    assert_eq!(client.send(request()).await.unwrap_err().kind(), Kind::Unsupported);

    let (client, _driver, mut peer) = pair_with(Options::new(), &[]).await;
    let call = tokio::spawn(async move { client.send(request()).await });
    tokio::task::yield_now().await;
    peer.control.write_all(&[&[0x00][..], &frame(SETTINGS, &ints(&[0x08, 1]))].concat()).await.unwrap();
    let mut stream = peer.request().await;
    let expected = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", "/chat"),
    ];
    assert_eq!(stream.fields, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    stream.write(&headers(&[(":status", "200")])).await;
    stream.write(&frame(DATA, b"hello")).await;
    let mut body = call.await.unwrap().unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "hello");
    stream.write(&headers(&[("x", "y")])).await;
    assert_eq!(body.frame().await.unwrap().unwrap_err().kind(), Kind::Protocol);
    assert_eq!(peer.closed().await, Code::FRAME_UNEXPECTED);
}

#[tokio::test]
async fn informational_responses_are_told_and_bounded() {
    let (client, _driver, mut peer) = pair(Options::new(), &[]).await;
    let (told, mut heard) = tokio::sync::mpsc::channel(64);
    let mut request = get("/");
    let callback = OnInformational::new(move |response| told.try_send(response.headers()["link"].clone()).unwrap());
    request.extensions_mut().insert(callback);
    let (response, _stream) = tokio::join!(client.send(request), async {
        let mut stream = peer.request().await;
        stream.write(&headers(&[(":status", "103"), ("link", "</style>")])).await;
        stream.answer(b"").await;
        stream
    });
    assert_eq!(response.unwrap().status(), 200);
    assert_eq!(heard.recv().await.unwrap(), "</style>");
    let (error, _stream) = tokio::join!(async { client.send(get("/")).await.unwrap_err() }, async {
        let mut stream = peer.request().await;
        for _ in 0..33 {
            stream.write(&headers(&[(":status", "103")])).await;
        }
        stream
    });
    assert_eq!(error.kind(), Kind::Limit);
}

#[tokio::test]
async fn a_body_waits_until_the_peer_asks_for_it_and_stays_where_it_is_not_wanted() {
    let (client, _driver, mut peer) = pair(Options::new().expect(Duration::from_secs(600)), &[]).await;
    let ask = |client: &portolan_http3::SendRequest| {
        let request = http::Request::post("https://localhost/").header("expect", "100-continue");
        let request = request.body(http_body_util::Full::<Bytes>::from("precious")).unwrap();
        let client = client.clone();
        tokio::spawn(async move { client.send(request).await })
    };
    let silent = async |stream: &mut Stream| {
        let frame = tokio::time::timeout(Duration::from_millis(100), stream.frame()).await;
        assert!(frame.is_err(), "{frame:?}");
    };
    let call = ask(&client);
    let mut stream = peer.request().await;
    silent(&mut stream).await;
    stream.write(&headers(&[(":status", "100")])).await;
    assert_eq!(stream.frame().await.unwrap(), (DATA, Bytes::from("precious")));
    stream.answer(b"thanks").await;
    assert_eq!(call.await.unwrap().unwrap().into_body().collect().await.unwrap().to_bytes(), "thanks");
    // Not wanted: our half is reset, and the answer is read.
    let call = ask(&client);
    let mut stream = peer.request().await;
    stream.write(&headers(&[(":status", "413")])).await;
    let response = call.await.unwrap().unwrap();
    let reset = stream.recv.received_reset().await.unwrap();
    assert_eq!(reset.unwrap().into_inner(), 0x10c);
    stream.write(&frame(DATA, b"too large")).await;
    stream.send.finish().unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "too large");
    assert_eq!(client.status().active, 0);
}

#[tokio::test]
async fn a_body_goes_unasked_when_the_peer_says_nothing() {
    let (client, _driver, mut peer) = pair(Options::new().expect(Duration::from_millis(200)), &[]).await;
    let request = http::Request::post("https://localhost/").header("expect", "100-continue");
    let request = request.body(http_body_util::Full::<Bytes>::from("precious")).unwrap();
    let call = tokio::spawn(async move { client.send(request).await });
    let mut stream = peer.request().await;
    assert_eq!(stream.frame().await.unwrap().0, DATA);
    stream.answer(b"").await;
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_response_waits_for_the_header_table_and_acknowledges_it() {
    let (client, _driver, mut peer) = pair(Options::new(), &[]).await;
    let mut encoder = Encoder::new(4096);
    let mut begin = BytesMut::new();
    encoder.set_peer_capacity(4096, &mut begin);
    // By hand: a section that names the first entry before it has come.
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.send(get("/")).await }
    });
    let mut stream = peer.request().await;
    // Required Insert Count 1, base 1: static :status 200, then the dynamic entry behind the base.
    stream.write(&frame(HEADERS, &[0x02, 0x00, 0xd9, 0x80])).await;
    stream.send.finish().unwrap();
    // A second one is cancelled while it waits.
    let cancelled = tokio::spawn({
        let client = client.clone();
        async move { client.send(get("/cancelled")).await }
    });
    let mut other = peer.request().await;
    other.write(&frame(HEADERS, &[0x02, 0x00, 0xd9, 0x80])).await;
    while client.status().active < 2 {
        tokio::task::yield_now().await;
    }
    assert!(!call.is_finished());
    cancelled.abort();
    assert_eq!(other.stopped().await, Some(Code::REQUEST_CANCELLED));
    let (_, entry) = encoded(&mut encoder, 0, &[("x-kind", "late")]);
    let _instructions = peer.uni(&[&[0x02][..], &begin, &entry].concat()).await;
    let response = call.await.unwrap().unwrap();
    assert_eq!(response.headers()["x-kind"], "late");
    drop(response);
    // Control, encoder and decoder streams come in any order.
    let mut acknowledged = Vec::new();
    for _ in 0..3 {
        let mut ours = peer.quic.accept_uni().await.unwrap();
        let mut kind = [0];
        ours.read_exact(&mut kind).await.unwrap();
        if kind == [0x03] {
            while !acknowledged.contains(&0x80) {
                acknowledged.extend_from_slice(&ours.read_chunk(64, true).await.unwrap().unwrap().bytes);
            }
        }
    }
    assert_eq!(acknowledged, [0x44, 0x01, 0x80], "the cancellation, the insertion, the section");
}

#[tokio::test]
async fn more_blocked_streams_than_granted_end_the_connection() {
    let (client, _driver, mut peer) = pair(Options::new().max_blocked_streams(1), &[]).await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        let client = client.clone();
        tokio::spawn(async move { client.send(get("/")).await });
        let mut stream = peer.request().await;
        stream.write(&frame(HEADERS, &[0x02, 0x00, 0xd9, 0x80])).await;
        streams.push(stream);
    }
    assert_eq!(peer.closed().await, Code::QPACK_DECOMPRESSION_FAILED);
}

#[tokio::test]
async fn a_graceful_close_says_goaway_and_finishes_what_is_in_flight() {
    let (client, driver, mut peer) = pair(Options::new(), &[]).await;
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.send(get("/")).await }
    });
    let mut stream = peer.request().await;
    client.close();
    assert_eq!(client.status().state, State::Draining);
    assert_eq!(client.send(get("/late")).await.unwrap_err().delivery(), Delivery::NotSent);
    stream.answer(b"done").await;
    let body = call.await.unwrap().unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "done");
    driver.await.unwrap().unwrap();
    assert_eq!(peer.closed().await, Code::NO_ERROR);
}
