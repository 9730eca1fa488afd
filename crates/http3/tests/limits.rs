//! Each option, at its limit and one beyond, and each rule of a message against a scripted peer.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Collected, Empty, Full, StreamBody};
use portolan_core::{Delivery, Error, Kind, Phase, Result};
use portolan_hpack::qpack::Encoder;
use portolan_http3::{Code, Datagrams, Options, SendRequest, State};
use support::raw::*;
use support::*;
use tokio::task::JoinHandle;

type Fields<'a> = Vec<(&'a str, &'a str)>;
type Whole = JoinHandle<Result<(StatusCode, Collected<Bytes>)>>;

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
async fn lives(client: &SendRequest, peer: &mut Raw) {
    let next = call(client, get("/next"));
    peer.request().await.answer(b"next").await;
    assert_eq!(next.await.unwrap().unwrap().1.to_bytes(), "next");
}

/// The beginning of our stream of this type.
async fn ours(peer: &Raw, kind: u8) -> quinn::RecvStream {
    for _ in 0..3 {
        let mut stream = peer.quic.accept_uni().await.unwrap();
        let mut first = [0];
        stream.read_exact(&mut first).await.unwrap();
        if first == [kind] {
            return stream;
        }
    }
    panic!("no stream of type {kind}");
}

fn ints_of(mut bytes: &[u8]) -> Vec<u64> {
    let mut values = Vec::new();
    while let Some(first) = bytes.first() {
        let len = 1 << (first >> 6);
        let (head, rest) = bytes.split_at(len);
        values.push(head[1..].iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte)));
        bytes = rest;
    }
    values
}

#[tokio::test]
async fn the_settings_say_what_the_options_say() {
    let all = Options::new().header_table_size(1).max_field_section_size(2).max_blocked_streams(3).datagrams(true);
    for (options, expected) in
        [(Options::new(), vec![(1, 4096), (6, 64 << 10), (7, 16)]), (all, vec![(1, 1), (6, 2), (7, 3), (0x33, 1)])]
    {
        let (_client, _driver, peer) = pair(options, &[]).await;
        let mut control = ours(&peer, 0).await;
        let mut head = [0; 2];
        control.read_exact(&mut head).await.unwrap();
        assert_eq!(head[0], 4);
        let mut payload = vec![0; usize::from(head[1])];
        control.read_exact(&mut payload).await.unwrap();
        let said = ints_of(&payload);
        let mut said: Vec<_> = said.chunks(2).map(|pair| (pair[0], pair[1])).collect();
        // The last one means nothing, so that peers learn to ignore what they don't know.
        let (grease, _) = said.pop().unwrap();
        assert_eq!(grease % 0x1f, 0x21 % 0x1f);
        assert_eq!(said, expected);
    }
}

#[test]
fn options_that_cannot_be_are_the_callers_mistake() {
    for (options, right) in [
        (Options::new(), true),
        (Options::new().stream_window(0), false),
        (Options::new().connection_window(0), false),
        (Options::new().send_window(0), false),
        (Options::new().stream_window(1).connection_window(1).send_window(1), true),
        (Options::new().max_streams(0), false),
        (Options::new().max_streams(1), true),
        (Options::new().idle_timeout(None), true),
        (Options::new().idle_timeout(Some(Duration::from_millis((1 << 62) - 1))), true),
        (Options::new().idle_timeout(Some(Duration::from_millis(1 << 62))), false),
    ] {
        let said = options.to_transport().map(|_| ()).map_err(|error| error.kind());
        assert_eq!(said, if right { Ok(()) } else { Err(Kind::Usage) }, "{options:?}");
    }
}

/// How an answer like this ends with these options.
async fn ended(options: Options, frames: &[u8]) -> Result<Bytes, (Kind, Delivery, Option<Phase>, Option<i64>)> {
    let (client, _driver, mut peer) = pair(options, &[]).await;
    let answer = call(&client, get("/"));
    let mut stream = peer.request().await;
    stream.write(frames).await;
    stream.send.finish().unwrap();
    let told = answer.await.unwrap().map(|(_, body)| body.to_bytes());
    assert_eq!((client.status().state, client.status().active), (State::Open, 0));
    told.map_err(|error| (error.kind(), error.delivery(), error.phase(), error.code()))
}

#[tokio::test]
async fn a_header_list_may_be_as_long_and_have_as_many_fields_as_was_said() {
    // ":status" and "200" are 42 bytes of a list, "x" and "y" are 34.
    let fields = |count| [vec![(":status", "200")], vec![("x", "y"); count]].concat();
    let beyond = Err((Kind::Limit, Delivery::Answered, Some(Phase::FirstByte), Some(0x107)));
    for count in [0, 10] {
        let most = u32::try_from(42 + 34 * count).unwrap();
        let answer = headers(&fields(count));
        assert!(ended(Options::new().max_field_section_size(most), &answer).await.is_ok());
        assert_eq!(ended(Options::new().max_field_section_size(most - 1), &answer).await, beyond);
        assert!(ended(Options::new().max_header_fields(count + 1), &answer).await.is_ok());
        assert_eq!(ended(Options::new().max_header_fields(count), &answer).await, beyond);
    }
    // A section that must be longer is not even gathered.
    let long = [&[1, 0x80, 0, 0, 201][..], &[0; 201]].concat();
    assert_eq!(ended(Options::new().max_field_section_size(100), &long).await, beyond);
    // Trailers have the same bounds.
    let trailed = |count| [headers(&fields(0)), headers(&vec![("x", "y"); count])].concat();
    assert!(ended(Options::new().max_field_section_size(68), &trailed(2)).await.is_ok());
    let beyond = Err((Kind::Limit, Delivery::Answered, Some(Phase::Idle), Some(0x107)));
    assert_eq!(ended(Options::new().max_field_section_size(67), &trailed(2)).await, beyond);
}

#[tokio::test]
async fn informational_responses_end_at_a_limit() {
    let hints = |count| headers(&[(":status", "103"), ("link", "</a>")]).repeat(count);
    let whole = |count| [&hints(count)[..], &headers(&[(":status", "200")])].concat();
    assert!(ended(Options::new(), &whole(32)).await.is_ok());
    let beyond = (Kind::Limit, Delivery::Answered, Some(Phase::FirstByte), Some(0x107));
    assert_eq!(ended(Options::new(), &whole(33)).await, Err(beyond));
    // One that ends its stream is no answer, and none switches protocols.
    let malformed = (Kind::Protocol, Some(0x10e));
    for frames in [hints(1), headers(&[(":status", "101")]).to_vec()] {
        let (kind, _, _, code) = ended(Options::new(), &frames).await.unwrap_err();
        assert_eq!((kind, code), malformed);
    }
}

#[tokio::test]
async fn malformed_heads_fail_their_stream_alone_whichever_rule_they_break() {
    let (client, _driver, mut peer) = pair(Options::new(), &[]).await;
    let ok = (":status", "200");
    let cases: Vec<(Fields<'_>, Fields<'_>)> = vec![
        (vec![("x", "y")], vec![]),
        (vec![ok, ("X-Upper", "y")], vec![]),
        (vec![ok, ("x y", "z")], vec![]),
        (vec![ok, ("", "z")], vec![]),
        (vec![ok, ("x", "a\r\nb")], vec![]),
        (vec![ok, ("x", "a\0b")], vec![]),
        (vec![ok, (":unknown", "y")], vec![]),
        (vec![ok, (":path", "/")], vec![]),
        (vec![("x", "y"), ok], vec![]),
        (vec![ok, ok], vec![]),
        (vec![(":status", "2x0")], vec![]),
        (vec![(":status", "99")], vec![]),
        (vec![(":status", "2000")], vec![]),
        (vec![ok, ("connection", "x")], vec![]),
        (vec![ok, ("keep-alive", "timeout=5")], vec![]),
        (vec![ok, ("proxy-connection", "keep-alive")], vec![]),
        (vec![ok, ("transfer-encoding", "chunked")], vec![]),
        (vec![ok, ("upgrade", "h2c")], vec![]),
        (vec![ok, ("content-length", "+1")], vec![]),
        (vec![ok, ("content-length", "1"), ("content-length", "2")], vec![]),
        (vec![ok], vec![ok]),
        (vec![ok], vec![("X-Upper", "y")]),
        (vec![ok], vec![("connection", "close")]),
    ];
    for (head, trailers) in cases {
        let answer = call(&client, get("/"));
        let mut stream = peer.request().await;
        stream.write(&headers(&head)).await;
        if !trailers.is_empty() {
            stream.write(&headers(&trailers)).await;
        }
        stream.send.finish().unwrap();
        let error = answer.await.unwrap().unwrap_err();
        let said = (error.kind(), error.delivery(), error.code());
        assert_eq!(said, (Kind::Protocol, Delivery::Answered, Some(0x10e)), "{head:?} {trailers:?}");
    }
    lives(&client, &mut peer).await;
}

#[tokio::test]
async fn a_body_is_as_long_as_its_head_allows() {
    let (client, _driver, mut peer) = pair(Options::new(), &[]).await;
    let ok = |length| vec![(":status", "200"), ("content-length", length)];
    let cases: [(Method, Fields<'_>, &str, bool); 11] = [
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
    ];
    for (method, head, body, passes) in cases {
        let mut request = get("/");
        *request.method_mut() = method.clone();
        let answer = call(&client, request);
        let mut stream = peer.request().await;
        let frames = if body.is_empty() { Bytes::new() } else { frame(DATA, body.as_bytes()) };
        stream.write(&[headers(&head), frames].concat()).await;
        stream.send.finish().unwrap();
        match answer.await.unwrap() {
            Ok((_, seen)) => assert!(passes && seen.to_bytes() == body, "{method} {head:?}"),
            Err(error) => {
                let said = (passes, error.kind(), error.delivery());
                assert_eq!(said, (false, Kind::Protocol, Delivery::Answered), "{method} {head:?}");
            }
        }
    }
    // A tunnel has no length, whatever its answer says.
    for status in ["200", "204"] {
        let request = Request::builder().method(Method::CONNECT).uri("far.example:443").body(Empty::<Bytes>::new());
        let answer = call(&client, request.unwrap());
        let mut stream = peer.request().await;
        stream.write(&headers(&[(":status", status), ("content-length", "2")])).await;
        stream.write(&frame(DATA, b"as much as there is")).await;
        stream.send.finish().unwrap();
        assert_eq!(answer.await.unwrap().unwrap().1.to_bytes(), "as much as there is");
    }
    lives(&client, &mut peer).await;
}

#[tokio::test]
async fn a_reset_means_what_its_code_and_its_moment_say() {
    let (client, _driver, mut peer) = pair(Options::new(), &[]).await;
    for code in (0x100..=0x110).chain([0x200, 0, 0x1234]).map(Code::new) {
        let answer = call(&client, get("/"));
        let mut stream = peer.request().await;
        stream.write(&headers(&[(":status", "103")])).await;
        stream.reset(code);
        let error = answer.await.unwrap().unwrap_err();
        let number = i64::try_from(code.value()).ok();
        assert_eq!((error.kind(), error.code()), (Kind::Closed, number), "{error:?}");
        let expected = match code {
            Code::REQUEST_REJECTED => Delivery::Refused,
            // The peer judged it: it would do so again.
            Code::GENERAL_PROTOCOL_ERROR | Code::FRAME_UNEXPECTED | Code::FRAME_ERROR => Delivery::Answered,
            Code::ID_ERROR | Code::MESSAGE_ERROR | Code::QPACK_DECOMPRESSION_FAILED => Delivery::Answered,
            _ => Delivery::Unknown,
        };
        assert_eq!(error.delivery(), expected, "{code}");
        // Once it has begun, it was answered.
        let (asks, request) = (client.clone(), get("/"));
        let answer = tokio::spawn(async move { asks.send(request).await });
        let mut stream = peer.request().await;
        stream.write(&headers(&[(":status", "200"), ("content-length", "9")])).await;
        let body = answer.await.unwrap().unwrap().into_body();
        stream.reset(code);
        let error = body.collect().await.unwrap_err();
        assert_eq!((error.kind(), error.delivery(), error.code()), (Kind::Closed, Delivery::Answered, number));
    }
    lives(&client, &mut peer).await;
}

#[tokio::test]
async fn the_peers_header_list_limit_is_kept_to_the_byte() {
    let size = 42 + 44 + 51 + 38;
    for (value, passes) in [(0, true), (1, false)] {
        let (client, _driver, mut peer) = pair(Options::new(), &[6, size + 35]).await;
        let mut request = Request::get("https://localhost/").body(Empty::<Bytes>::new()).unwrap();
        request.headers_mut().insert("x-a", HeaderValue::from_str(&"v".repeat(value)).unwrap());
        let answer = call(&client, request);
        if passes {
            peer.request().await.answer(b"").await;
            assert!(answer.await.unwrap().is_ok());
        } else {
            let error = answer.await.unwrap().unwrap_err();
            let said = (error.kind(), error.delivery(), error.phase());
            assert_eq!(said, (Kind::Limit, Delivery::NotSent, Some(Phase::Send)), "{error}");
        }
    }
    for (value, passes) in [(200 - 5 - 32, true), (201 - 5 - 32, false)] {
        let (client, _driver, mut peer) = pair(Options::new(), &[6, 200]).await;
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_str(&"7".repeat(value)).unwrap());
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let body = futures_util::stream::once(async move {
            wait.await.unwrap();
            Ok::<_, io::Error>(Frame::trailers(trailers))
        });
        let answer = call(&client, Request::post("https://localhost/").body(StreamBody::new(body)).unwrap());
        let mut stream = peer.request().await;
        go.send(()).unwrap();
        if passes {
            assert_eq!(stream.ending().await, Ending::Finished);
            stream.answer(b"").await;
            assert!(answer.await.unwrap().is_ok());
            continue;
        }
        assert_eq!(stream.ending().await, Ending::Reset(Code::REQUEST_CANCELLED));
        let error = answer.await.unwrap().unwrap_err();
        let source = std::error::Error::source(&error).unwrap().downcast_ref::<Error>().unwrap();
        assert_eq!((source.kind(), source.phase()), (Kind::Limit, Some(Phase::Send)));
        assert_eq!(client.status().state, State::Open);
    }
}

#[tokio::test]
async fn what_the_caller_gets_wrong_about_a_body_is_found_before_a_byte_is_sent() {
    let (client, _driver, mut peer) = pair(Options::new(), &[]).await;
    for length in ["3", "5", "+4", "four", ""] {
        let request = Request::post("https://localhost/").header("content-length", length);
        let error = client.send(request.body(Full::<Bytes>::from("four")).unwrap()).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (Kind::Usage, Delivery::NotSent), "{length}");
    }
    let request = Request::post("https://localhost/").header("content-length", "4");
    let answer = call(&client, request.body(Full::<Bytes>::from("four")).unwrap());
    let mut stream = peer.request().await;
    assert_eq!(stream.id(), 0);
    stream.answer(b"").await;
    assert!(answer.await.unwrap().is_ok());
}

/// What a client closes its connection with when such a stream comes.
async fn closes_on_stream(options: Options, bytes: &[u8]) -> Code {
    let (_client, driver, peer) = pair(options, &[]).await;
    let _stream = peer.uni(bytes).await;
    let code = peer.closed().await;
    assert_eq!(driver.await.unwrap().unwrap_err().kind(), Kind::Protocol);
    code
}

#[tokio::test]
async fn the_header_table_is_as_large_as_was_said() {
    // Capacities beyond the grant, an insertion beyond the capacity, a duplicate of nothing, a name that is not there.
    let granting = |size| Options::new().header_table_size(size);
    for (size, bytes) in [
        (0, &[0x02, 0x21][..]),
        (30, &[0x02, 0x3f, 0x00]),
        (4096, &[0x02, 0x3f, 0xe2, 0x1f]),
        (4096, &[0x02, 0x41, b'x', 0x01, b'y']),
        (33, &[0x02, 0x3f, 0x02, 0x41, b'x', 0x01, b'y']),
        (4096, &[0x02, 0x3f, 0xe1, 0x1f, 0x00]),
        (4096, &[0x02, 0x3f, 0xe1, 0x1f, 0x80, 0x00]),
    ] {
        let code = closes_on_stream(granting(size), bytes).await;
        assert_eq!(code, Code::QPACK_ENCODER_STREAM_ERROR, "{size} {bytes:02x?}");
    }
    for bytes in [&[0x03, 0x80][..], &[0x03, 0x01], &[0x03, 0x00]] {
        assert_eq!(closes_on_stream(Options::new(), bytes).await, Code::QPACK_DECODER_STREAM_ERROR, "{bytes:02x?}");
    }
    // An entry of 34 bytes fits 34, and may be said twice, which pushes out the first.
    let (client, _driver, mut peer) = pair(granting(34), &[]).await;
    let _stream = peer.uni(&[0x02, 0x3f, 0x03, 0x41, b'x', 0x01, b'y', 0x00]).await;
    let answer = call(&client, get("/"));
    let mut stream = peer.request().await;
    // Required insert count 2 of a table of one entry: 2 modulo 2, plus one.
    stream.write(&frame(HEADERS, &[0x01, 0x00, 0xd9, 0x80])).await;
    stream.send.finish().unwrap();
    assert!(answer.await.unwrap().is_ok());
}

#[tokio::test]
async fn answers_that_wait_for_the_header_table_are_as_many_as_was_said() {
    let waits = frame(HEADERS, &[0x02, 0x00, 0xd9, 0x80]);
    for most in [0u32, 1, 3] {
        let (client, _driver, mut peer) = pair(Options::new().max_blocked_streams(most), &[]).await;
        let mut streams = Vec::new();
        let mut calls = Vec::new();
        for _ in 0..most {
            calls.push(call(&client, get("/")));
            let mut stream = peer.request().await;
            stream.write(&waits).await;
            stream.send.finish().unwrap();
            streams.push(stream);
        }
        lives(&client, &mut peer).await;
        if most == 3 {
            let mut encoder = Encoder::new(4096);
            let mut begin = BytesMut::new();
            encoder.set_peer_capacity(4096, &mut begin);
            let (_, entry) = encoded(&mut encoder, 0, &[("x-kind", "late")]);
            let _instructions = peer.uni(&[&[0x02][..], &begin, &entry].concat()).await;
            for call in calls {
                assert!(call.await.unwrap().is_ok());
            }
            continue;
        }
        let _one_more = call(&client, get("/"));
        let mut stream = peer.request().await;
        stream.write(&waits).await;
        assert_eq!(peer.closed().await, Code::QPACK_DECOMPRESSION_FAILED, "{most}");
    }
}

#[tokio::test]
async fn the_table_that_requests_are_encoded_by_is_as_large_as_was_said() {
    for (cap, granted, expected) in [(4096, 0, None), (0, 4096, None), (100, 4096, Some(100u64)), (4096, 50, Some(50))]
    {
        let (client, _driver, mut peer) = pair(Options::new().encoder_table_size(cap), &[1, granted]).await;
        let answer = call(&client, get("/"));
        peer.request().await.answer(b"").await;
        assert!(answer.await.unwrap().is_ok());
        let mut encoder = ours(&peer, 2).await;
        let Some(expected) = expected else {
            client.close();
            peer.quic.closed().await;
            assert!(encoder.read_chunk(100, true).await.ok().flatten().is_none(), "nothing is put in: {cap} {granted}");
            continue;
        };
        let said = encoder.read_chunk(100, true).await.unwrap().unwrap().bytes;
        let mut capacity = BytesMut::new();
        portolan_hpack::int::put(expected, 5, 0x20, &mut capacity);
        assert!(said.starts_with(&capacity), "{said:02x?}");
    }
}

#[tokio::test]
async fn streams_are_as_many_as_was_said_and_the_rest_waits() {
    let (client, _driver, mut peer) = pair(Options::new().max_streams(2).max_waiting(2), &[]).await;
    let calls: Vec<_> = (0..4).map(|_| call(&client, get("/"))).collect();
    let mut streams = vec![peer.request().await, peer.request().await];
    while client.status().waiting < 2 {
        tokio::task::yield_now().await;
    }
    let status = client.status();
    assert_eq!((status.active, status.limit, status.state, client.is_ready()), (2, 2, State::Open, false));
    let error = client.send(get("/")).await.unwrap_err();
    let said = (error.kind(), error.delivery(), error.phase());
    assert_eq!(said, (Kind::Limit, Delivery::NotSent, Some(Phase::Pool)), "{error}");
    for _ in 0..2 {
        streams.remove(0).answer(b"").await;
        streams.push(peer.request().await);
    }
    for mut stream in streams {
        stream.answer(b"").await;
    }
    for call in calls {
        assert!(call.await.unwrap().is_ok());
    }
    assert_eq!((client.status().active, client.status().waiting), (0, 0));
}

/// A CONNECT stream with datagrams.
async fn tunnel(client: &SendRequest, peer: &mut Raw) -> (Datagrams, Stream, http::Response<portolan_http3::RecvBody>) {
    let request =
        Request::builder().method(Method::CONNECT).uri("far.example:443").body(Empty::<Bytes>::new()).unwrap();
    let client = client.clone();
    let answer = tokio::spawn(async move { client.send(request).await });
    let mut stream = peer.request().await;
    stream.write(&headers(&[(":status", "200")])).await;
    let response = answer.await.unwrap().unwrap();
    let datagrams = response.extensions().get::<Datagrams>().unwrap().clone();
    (datagrams, stream, response)
}

#[tokio::test]
async fn datagrams_wait_up_to_a_number_and_go_to_their_stream_alone() {
    let options = Options::new().datagrams(true).datagram_queue(3);
    let (client, _driver, mut peer) = pair(options, &[0x33, 1]).await;
    let (first, _first_stream, _first_response) = tunnel(&client, &mut peer).await;
    let (second, second_stream, second_response) = tunnel(&client, &mut peer).await;
    // To a stream that never was, to one that has none, to the first beyond its queue, to the second.
    for (quarter, payload) in [(77, "nobody"), (0, "1"), (0, "2"), (0, "3"), (0, "4"), (1, "second")] {
        peer.quic.send_datagram([&ints(&[quarter])[..], payload.as_bytes()].concat().into()).unwrap();
    }
    assert_eq!(second.recv().await.unwrap(), "second");
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(first.recv().await.unwrap());
    }
    assert_eq!(seen, ["1", "2", "3"]);
    // The fourth was lost, and there is room again.
    peer.quic.send_datagram([&ints(&[0])[..], b"5"].concat().into()).unwrap();
    assert_eq!(first.recv().await.unwrap(), "5");
    drop((second_response, second_stream));
    assert!(second.recv().await.is_none(), "its stream is over");
    assert_eq!(second.send(b"late").unwrap_err().kind(), Kind::Closed);
    let most = first.max_size().unwrap();
    assert_eq!(first.send(&vec![0; most + 1]).unwrap_err().kind(), Kind::Limit);
    first.send(&vec![7; most]).unwrap();
    assert_eq!(peer.quic.read_datagram().await.unwrap().len(), most + 1);
}

#[tokio::test]
async fn datagrams_that_belong_to_nothing_end_the_connection() {
    // Without an id, with half of one, and with one that no stream can have.
    let beyond = ints(&[(1 << 62) - 1]).to_vec();
    for payload in [vec![], vec![0xc0, 0, 0], beyond] {
        let (_client, driver, peer) = pair(Options::new().datagrams(true), &[0x33, 1]).await;
        peer.quic.send_datagram(payload.into()).unwrap();
        assert_eq!(peer.closed().await, Code::DATAGRAM_ERROR);
        assert_eq!(driver.await.unwrap().unwrap_err().kind(), Kind::Protocol);
    }
    // A peer that doesn't speak of them is sent none.
    let (client, _driver, mut peer) = pair(Options::new().datagrams(true), &[]).await;
    let (datagrams, _stream, _response) = tunnel(&client, &mut peer).await;
    let error = datagrams.send(b"x").unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Unsupported, Delivery::NotSent));
}

#[tokio::test]
async fn a_dropped_response_cancels_its_upload_and_lets_go_of_its_body() {
    let (client, _driver, mut peer) = pair(Options::new(), &[]).await;
    let (told, mut dropped) = tokio::sync::mpsc::channel::<()>(1);
    let endless = futures_util::stream::unfold(told, async |told| {
        std::future::pending::<()>().await;
        Some((Ok::<_, io::Error>(Frame::data(Bytes::new())), told))
    });
    let request = Request::post("https://localhost/").body(StreamBody::new(endless)).unwrap();
    let response = tokio::spawn({
        let client = client.clone();
        async move { client.send(request).await }
    });
    let mut stream = peer.request().await;
    stream.write(&headers(&[(":status", "200")])).await;
    drop(response.await.unwrap().unwrap());
    assert_eq!(stream.ending().await, Ending::Reset(Code::REQUEST_CANCELLED));
    assert_eq!(stream.stopped().await, Some(Code::REQUEST_CANCELLED));
    assert!(dropped.recv().await.is_none());
    lives(&client, &mut peer).await;
}

#[tokio::test]
async fn streams_without_use_are_not_taken_without_end() {
    let (_client, driver, peer) = pair(Options::new(), &[]).await;
    let flood = async {
        for _ in 0..5000 {
            let Ok(mut stream) = peer.quic.open_uni().await else { return };
            let _ = stream.write_all(&ints(&[0x21])).await;
        }
    };
    let (error, ()) = tokio::join!(driver, flood);
    let error = error.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.code()), (Kind::Limit, Some(0x107)));
    assert_eq!(peer.closed().await, Code::EXCESSIVE_LOAD);
}
