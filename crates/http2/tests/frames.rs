//! Frames as peers may send them: in any size, place and order, right and wrong.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body::Frame as BodyFrame;
use http_body_util::{BodyExt, Collected, Empty, StreamBody};
use portolan_core::{Delivery, Error, Kind, Phase, clock};
use portolan_http2::ext::{OnInformational, Protocol};
use portolan_http2::{Code, Event, Options, SendRequest, State};
use support::*;
use tokio::task::JoinHandle;

type Whole = JoinHandle<portolan_core::Result<(StatusCode, Collected<Bytes>)>>;

type Fields<'a> = Vec<(&'a str, &'a str)>;

/// A request and its whole answer.
fn call<B>(client: &SendRequest, request: Request<B>) -> Whole
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<portolan_core::BoxError>,
{
    let client = client.clone();
    tokio::spawn(async move {
        let response = client.send(request).await?;
        Ok((response.status(), response.into_body().collect().await?))
    })
}

/// The connection works: one more request is answered on it.
async fn lives(client: &SendRequest, peer: &mut Peer) {
    let next = call(client, get("/next"));
    let (id, ..) = peer.request().await;
    peer.respond(id, b"next").await;
    assert_eq!(next.await.unwrap().unwrap().1.to_bytes(), "next");
}

fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    // Literals without indexing and without Huffman codes: any name can be said.
    let string = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], string(name), string(value)].concat()).collect()
}

#[tokio::test]
async fn padding_of_every_size_is_taken_off_and_given_back() {
    let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
    for pad in 0..=255u8 {
        let answer = call(&client, get("/"));
        let (id, ..) = peer.request().await;
        let padded = |data: &[u8]| [&[pad], data, &vec![0; usize::from(pad)]].concat();
        let head = block(&[(":status", "200"), ("x-pad", &pad.to_string())]);
        // With the fields of a priority that means nothing.
        let head = [&[0x80, 0, 0, 1, 7][..], &head].concat();
        peer.send(HEADERS, PADDED | END_HEADERS | 0x20, id, &padded(&head)).await;
        peer.send(DATA, PADDED, id, &padded(b"")).await;
        peer.send(DATA, PADDED, id, &padded(b"data")).await;
        peer.send(DATA, PADDED | END_STREAM, id, &padded(b"!")).await;
        assert_eq!(answer.await.unwrap().unwrap().1.to_bytes(), "data!", "{pad}");
    }
    // 256 times up to 768 bytes of padding are more than the windows of this one: they were given back.
    let narrow = Options::new().stream_window(1000).connection_window(70_000).max_window(0);
    let (client, _driver, mut peer) = ready(narrow, &[]).await;
    let answer = call(&client, get("/"));
    let (id, ..) = peer.request().await;
    peer.headers(id, 0, &[(":status", "200")]).await;
    let (mut stream, mut connection) = (1000, 70_000);
    for _ in 0..500 {
        while stream < 257 || connection < 257 {
            let update = peer.until(WINDOW_UPDATE).await;
            *(if update.id == 0 { &mut connection } else { &mut stream }) += update.u32();
        }
        peer.send(DATA, PADDED, id, &[&[255][..], b"x", &[0; 255]].concat()).await;
        (stream, connection) = (stream - 257, connection - 257);
    }
    peer.send(DATA, END_STREAM, id, b"").await;
    assert_eq!(answer.await.unwrap().unwrap().1.to_bytes().len(), 500);
}

#[tokio::test]
async fn more_padding_than_payload_ends_the_connection() {
    for (kind, payload) in [(DATA, &[][..]), (DATA, &[1]), (HEADERS, &[]), (HEADERS, &[2, 0x88]), (HEADERS, &[255])] {
        let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
        let answer = call(&client, get("/"));
        peer.request().await;
        peer.send(kind, PADDED | END_HEADERS, 1, payload).await;
        assert_eq!(Code::new(peer.until(GOAWAY).await.goaway_code()), Code::PROTOCOL_ERROR, "{kind} {payload:?}");
        assert_eq!(answer.await.unwrap().unwrap_err().kind(), Kind::Protocol);
    }
}

#[tokio::test]
async fn a_header_block_may_be_cut_at_any_byte() {
    let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
    let fields = [(":status", "200"), ("x-one", "first"), ("x-two", "second"), ("x-none", "")];
    let trailers = [("x-sum", "42"), ("x-more", "y")];
    for cut in 0..64 {
        let answer = call(&client, get("/"));
        let (id, ..) = peer.request().await;
        for (fields, end) in [(&fields[..], 0), (&trailers[..], END_STREAM)] {
            let block = peer.block(fields);
            let (first, rest) = block.split_at(cut.min(block.len()));
            peer.send(HEADERS, end, id, first).await;
            // And the rest byte by byte, with empty ones between.
            for byte in rest.chunks(8) {
                peer.send(CONTINUATION, 0, id, byte).await;
            }
            peer.send(CONTINUATION, END_HEADERS, id, b"").await;
            if end == 0 {
                peer.send(DATA, 0, id, b"body").await;
            }
        }
        let (status, body) = answer.await.unwrap().unwrap();
        assert_eq!((status, &body.trailers().unwrap()["x-sum"]), (StatusCode::OK, &HeaderValue::from_static("42")));
        assert_eq!(body.to_bytes(), "body", "cut at {cut}");
    }
}

#[tokio::test]
async fn frames_without_meaning_may_come_anywhere_but_in_a_header_block() {
    let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
    let answer = call(&client, get("/"));
    peer.request().await;
    let odd = [
        raw(0xee, 0xff, 0, b"unknown"),
        raw(0xee, 0xff, 1, b""),
        raw(0xbb, 0, 99, b"on an idle stream"),
        raw(2, 0, 1, &[0, 0, 0, 0, 15]),
        raw(2, 0, 98, &[0x80, 0, 0, 1, 255]),
        raw(0x10, 0, 0, b"priority update"),
        raw(PING, ACK, 0, &[9; 8]),
        // The reserved bit of a stream's id, and flags that mean nothing here.
        raw(WINDOW_UPDATE, 0xff, 0x8000_0001, &1u32.to_be_bytes()),
    ]
    .concat();
    peer.flood(&odd).await;
    peer.headers(1, 0, &[(":status", "200")]).await;
    peer.flood(&odd).await;
    peer.send(DATA, 0xf0, 1, b"body").await;
    peer.flood(&odd).await;
    peer.headers(1, END_STREAM, &[("x-sum", "1")]).await;
    peer.flood(&odd).await;
    let body = answer.await.unwrap().unwrap().1;
    assert_eq!((&body.trailers().unwrap()["x-sum"], client.is_closed()), (&HeaderValue::from_static("1"), false));
    assert_eq!(body.to_bytes(), "body");
    lives(&client, &mut peer).await;
}

/// What a client with one request in flight ends its connection with.
async fn ends_with(frames: Vec<u8>) -> Code {
    let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
    let answer = call(&client, get("/"));
    peer.request().await;
    peer.flood(&frames).await;
    let code = Code::new(peer.until(GOAWAY).await.goaway_code());
    let error = answer.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.code()), (Kind::Protocol, Some(i64::from(code.value()))), "{error:?}");
    code
}

#[tokio::test]
async fn frames_of_the_wrong_size_or_on_the_wrong_stream_end_the_connection() {
    let cases = [
        (Code::PROTOCOL_ERROR, raw(DATA, 0, 0, b"x")),
        (Code::PROTOCOL_ERROR, raw(DATA, 0, 2, b"x")),
        (Code::PROTOCOL_ERROR, raw(HEADERS, END_HEADERS, 0, &[0x88])),
        (Code::FRAME_SIZE_ERROR, raw(HEADERS, END_HEADERS | 0x20, 1, &[0; 4])),
        (Code::PROTOCOL_ERROR, raw(2, 0, 0, &[0; 5])),
        (Code::FRAME_SIZE_ERROR, raw(2, 0, 1, &[0; 4])),
        (Code::PROTOCOL_ERROR, raw(RST_STREAM, 0, 0, &[0; 4])),
        (Code::PROTOCOL_ERROR, raw(RST_STREAM, 0, 4, &[0; 4])),
        (Code::FRAME_SIZE_ERROR, raw(RST_STREAM, 0, 1, &[0; 3])),
        (Code::FRAME_SIZE_ERROR, raw(RST_STREAM, 0, 1, &[0; 5])),
        (Code::FRAME_SIZE_ERROR, raw(SETTINGS, ACK, 0, &[0; 6])),
        (Code::FRAME_SIZE_ERROR, raw(SETTINGS, 0, 0, &[0; 7])),
        (Code::PROTOCOL_ERROR, raw(SETTINGS, 0, 0, &[0, 5, 0, 0, 0x3f, 0xff])),
        (Code::PROTOCOL_ERROR, raw(SETTINGS, 0, 0, &[0, 5, 1, 0, 0, 0])),
        (Code::PROTOCOL_ERROR, raw(SETTINGS, 0, 0, &[0, 8, 0, 0, 0, 2])),
        (Code::PROTOCOL_ERROR, raw(SETTINGS, 0, 0, &[0, 8, 0, 0, 0, 1, 0, 8, 0, 0, 0, 0])),
        (Code::FRAME_SIZE_ERROR, raw(PING, 0, 0, &[0; 9])),
        (Code::FRAME_SIZE_ERROR, raw(PING, ACK, 0, &[0; 7])),
        (Code::PROTOCOL_ERROR, raw(GOAWAY, 0, 1, &[0; 8])),
        (Code::FRAME_SIZE_ERROR, raw(WINDOW_UPDATE, 0, 0, &[0; 3])),
        (Code::FRAME_SIZE_ERROR, raw(WINDOW_UPDATE, 0, 1, &[0; 5])),
        (Code::PROTOCOL_ERROR, raw(WINDOW_UPDATE, 0, 4, &[0, 0, 0, 1])),
        (Code::PROTOCOL_ERROR, raw(WINDOW_UPDATE, 0, 9, &[0, 0, 0, 1])),
        (Code::PROTOCOL_ERROR, raw(CONTINUATION, END_HEADERS, 1, &[])),
        (Code::PROTOCOL_ERROR, [raw(HEADERS, 0, 1, &[0x88]), raw(0xee, 0, 1, &[])].concat()),
        (Code::PROTOCOL_ERROR, [raw(HEADERS, 0, 1, &[0x88]), raw(HEADERS, 4, 1, &[])].concat()),
        (Code::PROTOCOL_ERROR, raw(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x88])),
        (Code::PROTOCOL_ERROR, raw(PUSH_PROMISE, END_HEADERS, 0, &[0, 0, 0, 2, 0x88])),
    ];
    for (code, frames) in cases {
        assert_eq!(ends_with(frames.clone()).await, code, "{frames:02x?}");
    }
}

#[tokio::test]
async fn a_window_that_overflows_ends_its_stream_or_its_connection() {
    for increment in [0, 0x7fff_ffffu32] {
        let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
        let (broken, whole) = (call(&client, get("/broken")), call(&client, get("/whole")));
        peer.request().await;
        peer.request().await;
        peer.send(WINDOW_UPDATE, 0, 1, &increment.to_be_bytes()).await;
        let reset = peer.until(RST_STREAM).await;
        assert_eq!((reset.id, Code::new(reset.u32())), (1, Code::FLOW_CONTROL_ERROR));
        assert_eq!(broken.await.unwrap().unwrap_err().kind(), Kind::Protocol);
        peer.respond(3, b"whole").await;
        assert_eq!(whole.await.unwrap().unwrap().1.to_bytes(), "whole");
        assert_eq!(ends_with(raw(WINDOW_UPDATE, 0, 0, &increment.to_be_bytes())).await, Code::FLOW_CONTROL_ERROR);
    }
    // Up to 2^31-1 it may go, by settings too.
    let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
    let upload = call(&client, Request::post("http://example.test/").body(Endless).unwrap());
    peer.request().await;
    peer.send(WINDOW_UPDATE, 0, 0, &(0x7fff_ffff - 65_535u32).to_be_bytes()).await;
    peer.settings(&[(4, 0x7fff_ffff)]).await;
    assert!(peer.next().await.kind != GOAWAY && !client.is_closed());
    upload.abort();
    // With what a stream was granted besides, a setting may go too far.
    let grown = [raw(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]), raw(SETTINGS, 0, 0, &[0, 4, 0x7f, 255, 255, 255])].concat();
    assert_eq!(ends_with(grown).await, Code::FLOW_CONTROL_ERROR);
}

/// A body without beginning or end.
struct Endless;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<BodyFrame<Bytes>, Self::Error>>> {
        std::task::Poll::Pending
    }
}

#[tokio::test]
async fn frames_for_streams_that_are_over_are_answered_once_each() {
    let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
    for path in ["/a", "/b"] {
        let answer = call(&client, get(path));
        let (id, ..) = peer.request().await;
        peer.respond(id, b"x").await;
        assert!(answer.await.unwrap().is_ok());
    }
    // Windows and resets may cross an end; more of an answer may not.
    peer.send(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 9]).await;
    peer.send(RST_STREAM, 0, 1, &[0, 0, 0, 0]).await;
    peer.send(DATA, 0, 1, b"late").await;
    let reset = peer.until(RST_STREAM).await;
    assert_eq!((reset.id, Code::new(reset.u32())), (1, Code::STREAM_CLOSED));
    peer.send(DATA, 0, 1, b"later").await;
    peer.headers(3, 0, &[("x-table", "kept")]).await;
    let reset = peer.until(RST_STREAM).await;
    assert_eq!((reset.id, Code::new(reset.u32())), (3, Code::STREAM_CLOSED), "and none for the first again");
    // The block was decoded: the tables are in step.
    let answer = call(&client, get("/c"));
    let (id, ..) = peer.request().await;
    peer.headers(id, END_STREAM, &[(":status", "200"), ("x-table", "kept")]).await;
    assert_eq!(answer.await.unwrap().unwrap().0, StatusCode::OK);
}

#[tokio::test]
async fn an_answer_that_goes_on_after_its_end_stops_the_upload_and_stands() {
    for after in [raw(DATA, 0, 1, b"more"), raw(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[("x-late", "y")]))] {
        let (client, _driver, mut peer) = ready(Options::new(), &[(4, 0)]).await;
        let answer = call(&client, post("/", vec![0; 10]));
        peer.request().await;
        peer.respond(1, b"answer").await;
        peer.flood(&after).await;
        let reset = peer.until(RST_STREAM).await;
        assert_eq!((reset.id, Code::new(reset.u32())), (1, Code::STREAM_CLOSED));
        let body = answer.await.unwrap().unwrap().1;
        assert!(body.trailers().is_none());
        assert_eq!(body.to_bytes(), "answer");
        lives(&client, &mut peer).await;
    }
}

#[tokio::test]
async fn only_the_last_resets_are_remembered() {
    let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
    for _ in 0..65 {
        let answer = call(&client, get("/"));
        peer.request().await;
        answer.abort();
        assert_eq!(Code::new(peer.until(RST_STREAM).await.u32()), Code::CANCEL);
    }
    // 64 are: what comes late for them is ignored; the first is like any that is over.
    peer.send(DATA, 0, 3, b"late").await;
    peer.send(DATA, 0, 129, b"late").await;
    peer.send(DATA, 0, 1, b"late").await;
    let reset = peer.until(RST_STREAM).await;
    assert_eq!((reset.id, Code::new(reset.u32())), (1, Code::STREAM_CLOSED));
    lives(&client, &mut peer).await;
}

#[tokio::test]
async fn malformed_heads_fail_their_stream_alone_whichever_rule_they_break() {
    let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
    let ok = (":status", "200");
    let cases: Vec<(Fields<'_>, Fields<'_>)> = vec![
        (vec![], vec![]),
        (vec![ok, ("X-Upper", "y")], vec![]),
        (vec![ok, ("x y", "z")], vec![]),
        (vec![ok, ("", "z")], vec![]),
        (vec![ok, ("x", "a\r\nb")], vec![]),
        (vec![ok, ("x", "a\0b")], vec![]),
        (vec![ok, (":unknown", "y")], vec![]),
        (vec![ok, (":path", "/")], vec![]),
        (vec![ok, (":method", "GET")], vec![]),
        (vec![("x", "y"), ok], vec![]),
        (vec![ok, ok], vec![]),
        (vec![(":status", "")], vec![]),
        (vec![(":status", "99")], vec![]),
        (vec![(":status", "2000")], vec![]),
        (vec![(":status", "+20")], vec![]),
        (vec![ok, ("connection", "x")], vec![]),
        (vec![ok, ("keep-alive", "timeout=5")], vec![]),
        (vec![ok, ("proxy-connection", "keep-alive")], vec![]),
        (vec![ok, ("transfer-encoding", "chunked")], vec![]),
        (vec![ok, ("upgrade", "h2c")], vec![]),
        (vec![ok, ("content-length", "")], vec![]),
        (vec![ok, ("content-length", "1 2")], vec![]),
        (vec![ok, ("content-length", "99999999999999999999")], vec![]),
        (vec![ok], vec![ok]),
        (vec![ok], vec![("x", "y"), (":status", "200")]),
        (vec![ok], vec![("X-Upper", "y")]),
        (vec![ok], vec![("connection", "close")]),
    ];
    for (head, trailers) in cases {
        let answer = call(&client, get("/"));
        let (id, ..) = peer.request().await;
        peer.send(HEADERS, END_HEADERS, id, &block(&head)).await;
        if !trailers.is_empty() {
            peer.send(HEADERS, END_HEADERS | END_STREAM, id, &block(&trailers)).await;
        }
        let reset = peer.until(RST_STREAM).await;
        assert_eq!((reset.id, Code::new(reset.u32())), (id, Code::PROTOCOL_ERROR), "{head:?} {trailers:?}");
        let error = answer.await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (Kind::Protocol, Delivery::Answered), "{head:?} {trailers:?}");
    }
    lives(&client, &mut peer).await;
}

#[tokio::test]
async fn a_body_is_as_long_as_its_head_allows() {
    let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
    let ok = |length| vec![(":status", "200"), ("content-length", length)];
    let cases: [(Method, Fields<'_>, &str, bool); 12] = [
        (Method::GET, ok("4"), "four", true),
        (Method::GET, ok("3"), "four", false),
        (Method::GET, ok("5"), "four", false),
        (Method::GET, vec![(":status", "200"), ("content-length", "4"), ("content-length", "4")], "four", true),
        (Method::HEAD, ok("4"), "", true),
        (Method::HEAD, ok("4"), "four", false),
        (Method::GET, vec![(":status", "204")], "", true),
        (Method::GET, vec![(":status", "204")], "four", false),
        (Method::GET, vec![(":status", "304"), ("content-length", "4")], "", true),
        (Method::GET, vec![(":status", "304"), ("content-length", "4")], "four", false),
        (Method::GET, vec![(":status", "205")], "four", true),
        (Method::GET, ok("0"), "", true),
    ];
    for (method, head, body, passes) in cases {
        let mut request = get("/");
        *request.method_mut() = method.clone();
        let answer = call(&client, request);
        let (id, ..) = peer.request().await;
        peer.headers(id, 0, &head).await;
        peer.send(DATA, END_STREAM, id, body.as_bytes()).await;
        match answer.await.unwrap() {
            Ok((_, seen)) => assert!(passes && seen.to_bytes() == body, "{method} {head:?}"),
            Err(error) => {
                assert_eq!((passes, error.kind(), error.delivery()), (false, Kind::Protocol, Delivery::Answered));
            }
        }
    }
    lives(&client, &mut peer).await;
}

#[tokio::test]
async fn a_tunnel_has_no_length_whatever_its_answer_says() {
    let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
    for status in ["200", "204"] {
        let request = Request::builder().method(Method::CONNECT).uri("far.example:443").body(Empty::<Bytes>::new());
        let answer = call(&client, request.unwrap());
        let (id, _, fields) = peer.request().await;
        assert_eq!(fields, [(":method".into(), "CONNECT".into()), (":authority".into(), "far.example:443".into())]);
        peer.headers(id, 0, &[(":status", status), ("content-length", "2")]).await;
        peer.send(DATA, END_STREAM, id, b"as much as there is").await;
        assert_eq!(answer.await.unwrap().unwrap().1.to_bytes(), "as much as there is");
    }
}

#[tokio::test]
async fn an_extended_connect_that_is_refused_is_answered_like_any_request() {
    let (client, _driver, mut peer) = ready(Options::new(), &[(8, 1)]).await;
    let request = Request::builder().method(Method::CONNECT).uri("http://example.test/chat");
    let mut request = request.body(Empty::<Bytes>::new()).unwrap();
    request.extensions_mut().insert(Protocol::new("websocket"));
    let answer = call(&client, request);
    let (id, ..) = peer.request().await;
    peer.headers(id, 0, &[(":status", "501"), ("content-length", "2")]).await;
    peer.send(DATA, END_STREAM, id, b"no").await;
    let (status, body) = answer.await.unwrap().unwrap();
    assert_eq!((status, body.to_bytes()), (StatusCode::NOT_IMPLEMENTED, Bytes::from("no")));
}

#[tokio::test]
async fn a_reset_means_what_its_code_and_its_moment_say() {
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Moment {
        Asked,
        Hinted,
        Begun,
        Ended,
    }
    let (client, _driver, mut peer) = ready(Options::new(), &[(4, 0)]).await;
    for code in (0..=0xd).chain([0xff, u32::MAX]) {
        for moment in [Moment::Asked, Moment::Hinted, Moment::Begun, Moment::Ended] {
            let answer = call(&client, post("/", vec![0; 10]));
            let (id, ..) = peer.request().await;
            if moment == Moment::Hinted {
                peer.headers(id, 0, &[(":status", "103")]).await;
            }
            if matches!(moment, Moment::Begun | Moment::Ended) {
                peer.headers(id, 0, &[(":status", "200")]).await;
                peer.send(DATA, if moment == Moment::Ended { END_STREAM } else { 0 }, id, b"body").await;
            }
            peer.send(RST_STREAM, 0, id, &code.to_be_bytes()).await;
            let delivery = match answer.await.unwrap() {
                Ok((_, body)) => {
                    assert_eq!((moment, body.to_bytes()), (Moment::Ended, Bytes::from("body")), "{code}");
                    continue;
                }
                Err(error) => {
                    assert_eq!((error.kind(), error.code()), (Kind::Server, Some(i64::from(code))));
                    error.delivery()
                }
            };
            let expected = match (moment, Code::new(code)) {
                (Moment::Begun, _) => Delivery::Answered,
                (_, Code::REFUSED_STREAM) => Delivery::Refused,
                // The peer judged it: it would do so again.
                (_, Code::PROTOCOL_ERROR | Code::FLOW_CONTROL_ERROR | Code::STREAM_CLOSED) => Delivery::Answered,
                (_, Code::FRAME_SIZE_ERROR | Code::COMPRESSION_ERROR) => Delivery::Answered,
                _ => Delivery::Unknown,
            };
            assert_eq!(delivery, expected, "{moment:?} {}", Code::new(code));
        }
    }
    assert_eq!((client.status().active, client.status().state), (0, State::Open));
}

#[tokio::test]
async fn goaway_may_first_say_all_and_then_what_was_taken_and_why() {
    for code in [Code::NO_ERROR, Code::INTERNAL_ERROR, Code::ENHANCE_YOUR_CALM, Code::new(0x77)] {
        let (client, driver, mut peer) = ready(Options::new(), &[]).await;
        let (taken, refused) = (call(&client, get("/taken")), call(&client, get("/refused")));
        peer.request().await;
        peer.request().await;
        peer.send(GOAWAY, 0, 0, &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]).await;
        while client.status().state == State::Open {
            tokio::task::yield_now().await;
        }
        assert_eq!((client.status().active, client.goaway().unwrap().last_id), (2, 0x7fff_ffff));
        let late = client.send(get("/late")).await.unwrap_err();
        assert_eq!((late.kind(), late.delivery()), (Kind::Closed, Delivery::NotSent));
        peer.send(GOAWAY, 0, 0, &[&[0, 0, 0, 1][..], &code.value().to_be_bytes()].concat()).await;
        let error = refused.await.unwrap().unwrap_err();
        let said = (error.kind(), error.delivery(), error.code());
        assert_eq!(said, (Kind::Closed, Delivery::Refused, Some(i64::from(code.value()))));
        // What was taken and not answered before the end is lost, and nobody knows what became of it.
        peer.hang_up();
        let error = taken.await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (Kind::Closed, Delivery::Unknown), "{error:?}");
        assert_eq!(error.code(), Some(i64::from(code.value())));
        assert!(driver.await.unwrap().is_err());
    }
}

#[tokio::test]
async fn settings_in_mid_flight_hold_from_then_on() {
    let (client, _driver, mut peer) = ready(Options::new(), &[(4, 1 << 20)]).await;
    peer.send(WINDOW_UPDATE, 0, 0, &(1u32 << 20).to_be_bytes()).await;
    let frames = async |peer: &mut Peer| {
        let mut sizes = Vec::new();
        loop {
            let data = peer.until(DATA).await;
            sizes.push(data.payload.len());
            if data.flags & END_STREAM != 0 {
                return sizes;
            }
        }
    };
    let mut answers = Vec::new();
    for (size, longest) in [(16_384, 16_384), (65_536, 60_000), (16_777_215, 65_536), (16_384, 16_384)] {
        peer.settings(&[(5, size)]).await;
        peer.until(SETTINGS).await;
        let answer = call(&client, post("/", vec![7; 60_000]));
        let (id, ..) = peer.request().await;
        let sizes = frames(&mut peer).await;
        assert_eq!(sizes.iter().sum::<usize>(), 60_000);
        assert!(*sizes.iter().max().unwrap() <= longest, "{size}: {sizes:?}");
        assert_eq!(sizes.len() == 1, size > 16_384, "{size}: {sizes:?}");
        peer.respond(id, b"").await;
        answers.push(answer);
    }
    for answer in answers {
        assert!(answer.await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn the_header_table_follows_each_of_the_peers_sizes() {
    let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
    let mut id = 1;
    // Each block begins with what the peer must hear, and decodes by a table of just that size.
    for (sizes, updates) in [
        (vec![], &[][..]),
        (vec![vec![0]], &[0x20][..]),
        (vec![vec![4096]], &[0x3f, 0xe1, 0x1f]),
        (vec![vec![0], vec![4096]], &[0x20, 0x3f, 0xe1, 0x1f]),
        // Twice in one frame, of which the last is what it was before.
        (vec![vec![0, 4096]], &[0x20, 0x3f, 0xe1, 0x1f]),
        (vec![vec![100, 0, 200]], &[0x20, 0x3f, 0xa9, 0x01]),
        (vec![vec![u32::MAX]], &[0x3f, 0xe1, 0x1f]),
        (vec![vec![1 << 20]], &[]),
    ] {
        for frame in &sizes {
            peer.settings(&frame.iter().map(|size| (1, *size)).collect::<Vec<_>>()).await;
            peer.until(SETTINGS).await;
        }
        for round in 0..2 {
            let mut request = get("/");
            request.headers_mut().insert("x-kept", HeaderValue::from_static("in the table"));
            let answer = call(&client, request);
            let head = peer.until(HEADERS).await;
            let expected = if round == 0 { updates } else { &[] };
            assert!(head.payload.starts_with(expected), "{sizes:?}: {:02x?}", head.payload);
            assert_eq!(head.payload[expected.len()], 0x82, "GET comes next: {sizes:?}");
            assert_eq!(peer.fields(&head.payload).last().unwrap().1, "in the table");
            peer.respond(id, b"").await;
            assert!(answer.await.unwrap().is_ok());
            id += 2;
        }
    }
}

#[tokio::test]
async fn informational_responses_end_at_a_limit() {
    for (count, passes) in [(32, true), (33, false)] {
        let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
        let seen = Arc::new(Mutex::new(0));
        let mut request = get("/");
        let count_seen = Arc::clone(&seen);
        request.extensions_mut().insert(OnInformational::new(move |_| *count_seen.lock().unwrap() += 1));
        let answer = call(&client, request);
        peer.request().await;
        for _ in 0..count {
            peer.headers(1, 0, &[(":status", "103"), ("link", "</a>")]).await;
        }
        if passes {
            peer.respond(1, b"").await;
            assert_eq!((answer.await.unwrap().unwrap().0, *seen.lock().unwrap()), (StatusCode::OK, count));
        } else {
            let error = answer.await.unwrap().unwrap_err();
            assert_eq!((error.kind(), error.delivery()), (Kind::Limit, Delivery::Answered), "{error:?}");
            assert_eq!(Code::new(peer.until(RST_STREAM).await.u32()), Code::ENHANCE_YOUR_CALM);
            lives(&client, &mut peer).await;
        }
    }
    // One that ends its stream is no answer.
    let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
    let answer = call(&client, get("/"));
    peer.request().await;
    peer.headers(1, END_STREAM, &[(":status", "103")]).await;
    assert_eq!(answer.await.unwrap().unwrap_err().kind(), Kind::Protocol);
}

#[tokio::test]
async fn alternatives_and_origins_that_are_broken_say_nothing() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&events);
    let options = Options::new().on_event(move |event| sink.lock().unwrap().push(event));
    let (client, _driver, mut peer) = ready(options, &[]).await;
    let origin = |text: &str| [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat();
    for (kind, flags, id, payload) in [
        (0xa, 0, 0, vec![]),
        (0xa, 0, 0, vec![0]),
        // No origin on stream 0, one on another stream, one longer than the frame.
        (0xa, 0, 0, [origin(""), b"h3=\":1\"".to_vec()].concat()),
        (0xa, 0, 1, [origin("https://a"), b"h3=\":1\"".to_vec()].concat()),
        (0xa, 0, 0, [&[0, 99][..], b"https://a"].concat()),
        (0xc, 0, 1, origin("https://a")),
        (0xc, 1, 0, origin("https://a")),
        (0xc, 0, 0, [origin("https://a"), vec![0, 9, b'x']].concat()),
    ] {
        peer.send(kind, flags, id, &payload).await;
    }
    peer.send(0xa, 0, 1, &[origin(""), b"clear".to_vec()].concat()).await;
    peer.send(0xc, 0, 0, &[]).await;
    peer.send(0xc, 0, 0, &origin("https://o").repeat(200)).await;
    lives(&client, &mut peer).await;
    let seen: Vec<_> = events.lock().unwrap().drain(..).collect();
    assert!(matches!(seen[0], Event::Settings(_)), "{seen:?}");
    assert_eq!(seen[1], Event::AltSvc { stream: 1, origin: "".into(), value: "clear".into() });
    assert_eq!(seen[2], Event::Origin(vec![]));
    assert_eq!(seen[3], Event::Origin(vec!["https://o".into(); 128]));
    assert_eq!(seen.len(), 4);
}

#[tokio::test]
async fn an_upload_that_is_no_longer_wanted_ends_and_its_answer_is_read() {
    // The answer is whole, then NO_ERROR (RFC 9113 8.1); or the answer alone, and the upload goes on.
    for reset in [true, false] {
        let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let body = futures_util::stream::once(async move {
            wait.await.unwrap();
            Ok::<_, std::io::Error>(BodyFrame::data(Bytes::from("the rest")))
        });
        let answer = call(&client, Request::post("http://example.test/").body(StreamBody::new(body)).unwrap());
        peer.request().await;
        peer.headers(1, 0, &[(":status", "413")]).await;
        peer.send(DATA, END_STREAM, 1, b"too large").await;
        if reset {
            peer.send(RST_STREAM, 0, 1, &[0; 4]).await;
        }
        let (status, body) = answer.await.unwrap().unwrap();
        assert_eq!((status, body.to_bytes()), (StatusCode::PAYLOAD_TOO_LARGE, Bytes::from("too large")));
        lives(&client, &mut peer).await;
        assert_eq!((client.status().active, go.is_closed()), (usize::from(!reset), reset));
        if !reset {
            go.send(()).unwrap();
            assert_eq!(peer.until(DATA).await.payload, b"the rest");
            assert_eq!(peer.until(DATA).await.flags, END_STREAM);
            assert_eq!(client.status().active, 0);
        }
    }
}

#[tokio::test]
async fn a_dropped_response_cancels_its_upload() {
    let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
    let (told, dropped) = tokio::sync::oneshot::channel::<()>();
    struct Told(Option<tokio::sync::oneshot::Sender<()>>);
    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.0.take().unwrap().send(());
        }
    }
    let told = Told(Some(told));
    let endless = futures_util::stream::unfold(told, async |told| {
        std::future::pending::<()>().await;
        Some((Ok::<_, std::io::Error>(BodyFrame::data(Bytes::new())), told))
    });
    let request = Request::post("http://example.test/").body(StreamBody::new(endless)).unwrap();
    let response = tokio::spawn({
        let client = client.clone();
        async move { client.send(request).await }
    });
    peer.request().await;
    peer.headers(1, 0, &[(":status", "200")]).await;
    drop(response.await.unwrap().unwrap());
    let reset = peer.until(RST_STREAM).await;
    assert_eq!((reset.id, Code::new(reset.u32())), (1, Code::CANCEL));
    dropped.await.unwrap();
    lives(&client, &mut peer).await;
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_the_peer_holds_back_for_hours_goes_on() {
    let (client, _driver, mut peer) = ready(Options::new(), &[(4, 10)]).await;
    let answer = call(&client, post("/", vec![7; 30]));
    peer.request().await;
    for _ in 0..3 {
        assert_eq!(peer.next().await.payload.len(), 10);
        clock::sleep(Duration::from_secs(3600)).await;
        peer.send(WINDOW_UPDATE, 0, 1, &10u32.to_be_bytes()).await;
    }
    peer.respond(1, b"at last").await;
    assert_eq!(answer.await.unwrap().unwrap().1.to_bytes(), "at last");
}

#[tokio::test(start_paused = true)]
async fn answers_that_a_peer_does_not_read_end_its_connection() {
    let (ours, mut theirs) = tokio::io::duplex(16 << 10);
    let (client, connection) = portolan_http2::handshake(ours, Options::new()).unwrap();
    let driver = tokio::spawn(connection);
    let answer = call(&client, get("/"));
    let pings = async {
        use tokio::io::AsyncWriteExt;
        theirs.write_all(&raw(SETTINGS, 0, 0, &[])).await.unwrap();
        // Slow enough for any budget, and never an answer taken.
        for _ in 0..100_000 {
            if theirs.write_all(&raw(PING, 0, 0, &[1; 8])).await.is_err() {
                return;
            }
            clock::sleep(Duration::from_millis(10)).await;
        }
        panic!("they may go on for ever");
    };
    let (error, ()) = tokio::join!(driver, pings);
    let error = error.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.code()), (Kind::Limit, Some(i64::from(Code::ENHANCE_YOUR_CALM.value()))));
    assert_eq!(answer.await.unwrap().unwrap_err().kind(), Kind::Limit);
}

#[tokio::test]
async fn trailers_that_the_peer_does_not_take_are_not_sent() {
    for (value, passes) in [(100 - 5 - 32, true), (101 - 5 - 32, false)] {
        let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_str(&"7".repeat(value)).unwrap());
        let body = futures_util::stream::once(async move {
            wait.await.unwrap();
            Ok::<_, std::io::Error>(BodyFrame::trailers(trailers))
        });
        let answer = call(&client, Request::post("http://example.test/").body(StreamBody::new(body)).unwrap());
        peer.request().await;
        peer.settings(&[(6, 100)]).await;
        peer.until(SETTINGS).await;
        go.send(()).unwrap();
        if passes {
            let (_, end, fields) = peer.request().await;
            assert!(end && fields.len() == 1);
            peer.respond(1, b"").await;
            assert!(answer.await.unwrap().is_ok());
            continue;
        }
        let reset = peer.until(RST_STREAM).await;
        assert_eq!((reset.id, Code::new(reset.u32())), (1, Code::CANCEL));
        let error = answer.await.unwrap().unwrap_err();
        let source = std::error::Error::source(&error).unwrap().downcast_ref::<Error>().unwrap();
        assert_eq!((source.kind(), source.phase()), (Kind::Limit, Some(Phase::Send)));
    }
}
