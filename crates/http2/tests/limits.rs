//! Each option, at its limit and one beyond.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body_util::{BodyExt, Full};
use portolan_core::{Delivery, Error, Kind, Phase, clock};
use portolan_http2::{Code, Options, SendRequest, State};
use support::*;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::task::JoinHandle;

fn call(client: &SendRequest, request: Request<Full<Bytes>>) -> JoinHandle<portolan_core::Result<Bytes>> {
    let client = client.clone();
    tokio::spawn(async move { Ok(client.send(request).await?.into_body().collect().await?.to_bytes()) })
}

fn get() -> Request<Full<Bytes>> {
    Request::get("http://example.test/").body(Full::default()).unwrap()
}

/// What the client's SETTINGS say.
async fn said(peer: &mut Peer) -> Vec<(u16, u32)> {
    let settings = peer.opening().await;
    let entry =
        |entry: &[u8]| (u16::from_be_bytes([entry[0], entry[1]]), u32::from_be_bytes(entry[2..6].try_into().unwrap()));
    settings.payload.chunks(6).map(entry).collect()
}

#[tokio::test]
async fn the_settings_say_what_the_options_say() {
    let (_client, _driver, mut peer) = pair(Options::new());
    assert_eq!(said(&mut peer).await, [(1, 4096), (2, 0), (4, 256 << 10), (5, 16 << 10), (6, 64 << 10)]);
    let options = Options::new().header_table_size(1).stream_window(2).max_frame_size(20_000).max_header_list_size(3);
    let (_client, _driver, mut peer) = pair(options.connection_window(100_000));
    assert_eq!(said(&mut peer).await, [(1, 1), (2, 0), (4, 2), (5, 20_000), (6, 3)]);
    let update = peer.next().await;
    assert_eq!((update.kind, update.id, update.u32()), (WINDOW_UPDATE, 0, 100_000 - 65_535));
}

#[tokio::test]
async fn options_that_cannot_be_are_the_callers_mistake() {
    for (options, right) in [
        (Options::new().max_frame_size((16 << 10) - 1), false),
        (Options::new().max_frame_size(16 << 10), true),
        (Options::new().max_frame_size((1 << 24) - 1), true),
        (Options::new().max_frame_size(1 << 24), false),
        (Options::new().stream_window(0), false),
        (Options::new().stream_window(1), true),
        (Options::new().stream_window(0x7fff_ffff), true),
        (Options::new().stream_window(0x8000_0000), false),
        (Options::new().connection_window(0x7fff_ffff), true),
        (Options::new().connection_window(0x8000_0000), false),
        (Options::new().max_window(0x8000_0000), false),
    ] {
        let made = portolan_http2::handshake(tokio::io::duplex(1).0, options.clone());
        let said = made.map(|_| ()).map_err(|error| (error.kind(), error.delivery()));
        assert_eq!(said, if right { Ok(()) } else { Err((Kind::Usage, Delivery::NotSent)) }, "{options:?}");
    }
}

/// How a client with these options ends when its peer's answer goes on like this.
async fn ended(options: Options, frames: &[u8]) -> Result<Bytes, (Kind, Delivery, Option<Phase>, Code)> {
    let (client, _driver, mut peer) = ready(options, &[]).await;
    let answer = call(&client, get());
    peer.request().await;
    peer.flood(frames).await;
    answer.await.unwrap().map_err(|error| {
        let code = Code::new(u32::try_from(error.code().unwrap()).unwrap());
        (error.kind(), error.delivery(), error.phase(), code)
    })
}

#[tokio::test]
async fn a_frame_may_be_as_long_as_was_said() {
    for size in [16 << 10, 40_000] {
        let options = || Options::new().max_frame_size(size).stream_window(1 << 20);
        let answer = |len: u32| {
            let data = vec![b'x'; len as usize];
            [raw(HEADERS, END_HEADERS, 1, &[0x88]), raw(DATA, END_STREAM, 1, &data)].concat()
        };
        assert_eq!(ended(options(), &answer(size)).await.unwrap().len(), size as usize);
        let (kind, delivery, _, code) = ended(options(), &answer(size + 1)).await.unwrap_err();
        assert_eq!((kind, delivery, code), (Kind::Protocol, Delivery::Answered, Code::FRAME_SIZE_ERROR));
    }
}

#[tokio::test]
async fn windows_are_as_large_as_was_said() {
    let frames = |total: usize| {
        let mut frames = raw(HEADERS, END_HEADERS, 1, &[0x88]);
        for at in (0..total).step_by(10_000) {
            frames.extend(raw(DATA, 0, 1, &vec![b'x'; 10_000.min(total - at)]));
        }
        frames
    };
    for (stream, connection, fits) in [(30_000, 70_000, 30_000), (100_000, 70_000, 70_000)] {
        for (total, passes) in [(fits, true), (fits + 1, false)] {
            let options = Options::new().stream_window(stream).connection_window(connection).max_window(0);
            let (client, driver, mut peer) = ready(options, &[]).await;
            let (parts, body) = get().into_parts();
            let sender = client.clone();
            let head = tokio::spawn(async move { sender.send_parts(&parts, body).await });
            peer.request().await;
            // Nobody reads: nothing is given back.
            peer.flood(&frames(total)).await;
            let unread = head.await.unwrap();
            if passes {
                peer.send(PING, 0, 0, &[1; 8]).await;
                assert_eq!(peer.until(PING).await.payload, [1; 8]);
                let mut body = unread.unwrap().into_body();
                let mut read = 0;
                while read < total {
                    read += body.frame().await.unwrap().unwrap().into_data().unwrap().len();
                }
            } else {
                assert_eq!(Code::new(peer.until(GOAWAY).await.goaway_code()), Code::FLOW_CONTROL_ERROR);
                assert_eq!(driver.await.unwrap().unwrap_err().kind(), Kind::Protocol);
            }
        }
    }
}

#[tokio::test]
async fn windows_grow_with_what_a_round_trip_carries_up_to_their_bound() {
    for (bound, grows) in [(64 << 10, false), (150 << 10, true)] {
        let options = Options::new().stream_window(64 << 10).connection_window(1 << 20).max_window(bound);
        let (client, _driver, mut peer) = ready(options, &[]).await;
        let answer = call(&client, get());
        peer.request().await;
        peer.headers(1, 0, &[(":status", "200")]).await;
        let (mut window, mut most) = (64 << 10, 0);
        for _ in 0..200 {
            // As much as the window takes, while a PING of the estimate's is on its way.
            let len = window.min(16 << 10);
            peer.send(DATA, 0, 1, &vec![0; len]).await;
            window -= len;
            let mut ping = None;
            while window == 0 || ping.is_some() {
                match peer.next().await {
                    frame if frame.kind == PING => ping = Some(frame.payload),
                    frame if frame.kind == WINDOW_UPDATE && frame.id == 1 => window += frame.u32() as usize,
                    _ => {}
                }
                if window > 0
                    && let Some(ping) = ping.take()
                {
                    peer.send(PING, ACK, 0, &ping).await;
                }
            }
            most = most.max(window);
        }
        peer.send(DATA, END_STREAM, 1, b"").await;
        answer.await.unwrap().unwrap();
        assert_eq!(most > 64 << 10, grows, "{most}");
        assert!(most <= bound as usize, "{most}");
    }
}

#[tokio::test]
async fn a_header_list_may_be_as_long_and_have_as_many_fields_as_was_said() {
    // ":status" and "200" are 42 bytes of a list, "x: y" are 34.
    let answer = |fields: usize| {
        let block = [&[0x88][..], &[&[0, 1][..], b"x", &[1], b"y"].concat().repeat(fields)].concat();
        raw(HEADERS, END_HEADERS | END_STREAM, 1, &block)
    };
    let beyond = (Kind::Limit, Delivery::Answered, Some(Phase::FirstByte), Code::CANCEL);
    for count in [0, 1, 10] {
        let most = u32::try_from(42 + 34 * count).unwrap();
        assert!(ended(Options::new().max_header_list_size(most), &answer(count)).await.is_ok());
        assert_eq!(ended(Options::new().max_header_list_size(most - 1), &answer(count)).await, Err(beyond));
        assert!(ended(Options::new().max_header_fields(count + 1), &answer(count)).await.is_ok());
        assert_eq!(ended(Options::new().max_header_fields(count), &answer(count)).await, Err(beyond));
    }
    // Trailers have the same bounds.
    let trailed = |fields: usize| {
        let head = raw(HEADERS, END_HEADERS, 1, &[0x88]);
        let block = [&[0, 1][..], b"x", &[1], b"y"].concat().repeat(fields);
        [head, raw(HEADERS, END_HEADERS | END_STREAM, 1, &block)].concat()
    };
    assert!(ended(Options::new().max_header_list_size(68), &trailed(2)).await.is_ok());
    let beyond = (Kind::Limit, Delivery::Answered, Some(Phase::Idle), Code::CANCEL);
    assert_eq!(ended(Options::new().max_header_list_size(67), &trailed(2)).await, Err(beyond));
}

#[tokio::test]
async fn the_table_that_answers_are_decoded_by_is_as_large_as_was_said() {
    // An entry of 34 bytes is put in, and named by the next answer.
    let keep = [0x88, 0x40, 1, b'x', 1, b'y'];
    let name = [0x88, 0xbe];
    for (size, kept) in [(34, true), (33, false), (0, false), (100_000, true)] {
        let (client, _driver, mut peer) = ready(Options::new().header_table_size(size), &[]).await;
        // RFC 9113 4.3.1: the peer says what it makes of the size.
        let update = if size < 4096 { u8::try_from(size).unwrap() } else { 0 };
        let mut first = Vec::new();
        if size < 4096 {
            let mut out = bytes::BytesMut::new();
            portolan_hpack::int::put(u64::from(update), 5, 0x20, &mut out);
            first.extend_from_slice(&out);
        }
        first.extend_from_slice(&keep);
        let answer = call(&client, get());
        peer.request().await;
        peer.send(HEADERS, END_HEADERS | END_STREAM, 1, &first).await;
        assert!(answer.await.unwrap().is_ok(), "{size}");
        let answer = call(&client, get());
        peer.request().await;
        peer.send(HEADERS, END_HEADERS | END_STREAM, 3, &name).await;
        let answer = answer.await.unwrap().map_err(|error| error.code());
        let lost = Err(Some(i64::from(Code::COMPRESSION_ERROR.value())));
        assert_eq!(answer.map(|_| ()), if kept { Ok(()) } else { lost }, "{size}");
    }
    // One byte more than was granted is no size.
    let (client, _driver, mut peer) = ready(Options::new().header_table_size(100), &[]).await;
    let answer = call(&client, get());
    peer.request().await;
    peer.send(HEADERS, END_HEADERS | END_STREAM, 1, &[0x3f, 101 - 31, 0x88]).await;
    assert_eq!(Code::new(peer.until(GOAWAY).await.goaway_code()), Code::COMPRESSION_ERROR);
    assert_eq!(answer.await.unwrap().unwrap_err().kind(), Kind::Protocol);
}

#[tokio::test]
async fn the_table_that_requests_are_encoded_by_is_as_large_as_was_said() {
    for (cap, updates, kept) in [
        (4096, &[][..], true),
        (100_000, &[], true),
        (0, &[0x20][..], false),
        // Room for ":authority" with its value, and for "x-kept".
        (117, &[0x3f, 86], true),
    ] {
        let (client, _driver, mut peer) = ready(Options::new().encoder_table_size(cap), &[]).await;
        for round in 0..2 {
            let mut request = get();
            request.headers_mut().insert("x-kept", HeaderValue::from_static("there"));
            let answer = call(&client, request);
            let head = peer.until(HEADERS).await;
            let updates = if round == 0 { updates } else { &[] };
            assert!(head.payload.starts_with(updates), "{cap}: {:02x?}", head.payload);
            let named = head.payload.last() == Some(&0xbe);
            assert_eq!(named, kept && round == 1, "{cap}: {:02x?}", head.payload);
            peer.fields(&head.payload);
            peer.respond(head.id, b"").await;
            assert!(answer.await.unwrap().is_ok());
        }
    }
}

#[tokio::test]
async fn the_peers_header_list_limit_is_kept_to_the_byte() {
    // The four pseudo-headers of these take 42, 43, 54 and 38 bytes; the host is said by one of them alone.
    let size = 42 + 43 + 54 + 38;
    for (value, passes) in [(0, true), (1, false)] {
        let (client, _driver, mut peer) = ready(Options::new(), &[(6, size + 32 + 3)]).await;
        let mut request = get();
        request.headers_mut().insert("x-a", HeaderValue::from_str(&"v".repeat(value)).unwrap());
        request.headers_mut().insert("host", HeaderValue::from_static("example.test"));
        let answer = call(&client, request);
        if passes {
            let (id, _, fields) = peer.request().await;
            assert_eq!(fields.len(), 5);
            peer.respond(id, b"").await;
            assert!(answer.await.unwrap().is_ok());
        } else {
            let error = answer.await.unwrap().unwrap_err();
            let said = (error.kind(), error.delivery(), error.phase());
            assert_eq!(said, (Kind::Limit, Delivery::NotSent, Some(Phase::Send)), "{error}");
        }
    }
}

async fn waiting(client: &SendRequest, count: usize) {
    while client.status().waiting != count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn streams_are_as_many_as_was_said_and_the_rest_waits() {
    // Ours holds where the peer allows more, and until it has said what it allows.
    for (options, settings, at_once) in [
        (Options::new().max_streams(2), Some(vec![(3, 100)]), 2),
        (Options::new().max_streams(2), Some(vec![]), 2),
        (Options::new().max_streams(100), Some(vec![(3, 3)]), 3),
        (Options::new().initial_max_streams(2), None, 2),
        (Options::new().initial_max_streams(0), None, 0),
    ] {
        let (client, _driver, mut peer) = pair(options.max_waiting(2));
        peer.preface().await;
        if let Some(settings) = &settings {
            peer.settings(settings).await;
            peer.until(SETTINGS).await;
        }
        let calls: Vec<_> = (0..at_once + 2).map(|_| call(&client, get())).collect();
        waiting(&client, 2).await;
        let status = client.status();
        assert_eq!((status.active, status.limit, status.state), (at_once, at_once, State::Open));
        assert!(!client.is_ready());
        let error = client.send(get()).await.unwrap_err();
        let said = (error.kind(), error.delivery(), error.phase());
        assert_eq!(said, (Kind::Limit, Delivery::NotSent, Some(Phase::Pool)), "{error}");
        if settings.is_none() {
            peer.settings(&[]).await;
        }
        for _ in &calls {
            let (id, ..) = peer.request().await;
            peer.respond(id, b"").await;
        }
        for call in calls {
            assert!(call.await.unwrap().is_ok());
        }
    }
    let (client, _driver, mut peer) = ready(Options::new().max_waiting(0), &[(3, 0)]).await;
    assert_eq!(client.send(get()).await.unwrap_err().kind(), Kind::Limit, "nobody may wait");
    peer.settings(&[(3, 1)]).await;
    peer.until(SETTINGS).await;
    assert!(client.is_ready());
}

#[tokio::test(start_paused = true)]
async fn keepalive_asks_when_it_was_told_to() {
    let (idle, timeout) = (Duration::from_secs(10), Duration::from_secs(5));
    let silent = async |peer: &mut Peer, seconds| {
        let next = tokio::time::timeout(Duration::from_secs(seconds), peer.maybe_next_ever()).await;
        assert!(next.is_err(), "{next:?}");
    };
    // While streams are open, and not before or after.
    let (client, _driver, mut peer) = ready(Options::new().keepalive(idle, timeout), &[]).await;
    silent(&mut peer, 100).await;
    let answer = call(&client, get());
    peer.request().await;
    let since = clock::now();
    for _ in 0..3 {
        let ping = peer.maybe_next_ever().await.unwrap();
        assert_eq!((ping.kind, ping.flags), (PING, 0));
        // Late, and in time.
        clock::sleep(Duration::from_secs(4)).await;
        peer.send(PING, ACK, 0, &ping.payload).await;
    }
    // The first at once: nothing was heard for long when the request came.
    assert_eq!(since.elapsed().as_secs(), 4 + 2 * 14);
    // Whatever is heard shows that the peer lives.
    peer.headers(1, 0, &[(":status", "200")]).await;
    for _ in 0..10 {
        clock::sleep(Duration::from_secs(9)).await;
        peer.send(DATA, 0, 1, b"x").await;
    }
    peer.send(DATA, END_STREAM, 1, b"").await;
    assert_eq!(answer.await.unwrap().unwrap().len(), 10);
    silent(&mut peer, 100).await;
    // Switched off it never asks, and waits for ever.
    let (client, _driver, mut peer) = ready(Options::new().keepalive(idle, timeout).disable_keepalive(), &[]).await;
    let answer = call(&client, get());
    peer.request().await;
    silent(&mut peer, 100_000).await;
    answer.abort();
    // Without streams too, where that was said; and who doesn't answer in time is given up.
    let (client, driver, mut peer) = ready(Options::new().keepalive_while_idle(idle, timeout), &[]).await;
    let since = clock::now();
    assert_eq!(peer.maybe_next_ever().await.unwrap().kind, PING);
    let error = driver.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), since.elapsed().as_secs(), client.is_closed()), (Kind::Timeout, 15, true));
    assert!(error.to_string().contains("keepalive"), "{error}");
}

#[tokio::test]
async fn pings_are_timed_bounded_and_forgotten() {
    let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
    let ping = || {
        let client = client.clone();
        tokio::spawn(async move { client.ping().await })
    };
    let mut pings: Vec<_> = (0..16).map(|_| ping()).collect();
    let mut payloads = Vec::new();
    for _ in 0..16 {
        payloads.push(peer.until(PING).await.payload);
    }
    let error = client.ping().await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Limit, Delivery::NotSent));
    // Answered in any order, once each; answers to nothing are ignored.
    peer.send(PING, ACK, 0, &[0xee; 8]).await;
    for payload in payloads.drain(8..).rev() {
        peer.send(PING, ACK, 0, &payload).await;
        peer.send(PING, ACK, 0, &payload).await;
    }
    for ping in pings.drain(8..) {
        assert!(ping.await.unwrap().unwrap() < Duration::from_secs(60));
    }
    for ping in pings.drain(..4) {
        ping.abort();
        assert!(ping.await.unwrap_err().is_cancelled());
    }
    let more: Vec<_> = (0..12).map(|_| ping()).collect();
    for _ in 0..12 {
        peer.until(PING).await;
    }
    peer.hang_up();
    for ping in pings.into_iter().chain(more) {
        let error = ping.await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (Kind::Closed, Delivery::Unknown));
    }
}

/// A stream that counts what is written to it at once.
struct Counted {
    io: DuplexStream,
    writes: Arc<Mutex<Vec<usize>>>,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        self.poll_write_vectored(cx, &[std::io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let whole: Vec<u8> = bufs.iter().flat_map(|buf| buf.to_vec()).collect();
        let written = std::task::ready!(Pin::new(&mut self.io).poll_write(cx, &whole))?;
        self.writes.lock().unwrap().push(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn many_frames_leave_in_one_write() {
    let (ours, theirs) = tokio::io::duplex(4 << 20);
    let writes: Arc<Mutex<Vec<usize>>> = Arc::default();
    let counted = Counted { io: ours, writes: Arc::clone(&writes) };
    let (client, connection) = portolan_http2::handshake(counted, Options::new()).unwrap();
    tokio::spawn(connection);
    let mut peer = Peer::new(theirs);
    peer.greet(&[(4, 1 << 30)]).await;
    peer.send(WINDOW_UPDATE, 0, 0, &(1u32 << 30).to_be_bytes()).await;
    peer.send(PING, 0, 0, &[0; 8]).await;
    peer.until(PING).await;
    writes.lock().unwrap().clear();
    let answer = call(&client, post("/", vec![7; 1 << 20]));
    peer.request().await;
    let mut frames = 0;
    while peer.until(DATA).await.flags & END_STREAM == 0 {
        frames += 1;
    }
    let writes = writes.lock().unwrap().clone();
    assert!(frames >= 63 && writes.len() <= 20, "{frames} frames in {writes:?}");
    peer.respond(1, b"").await;
    assert!(answer.await.unwrap().is_ok());
}

#[tokio::test]
async fn what_the_caller_gets_wrong_about_a_body_is_found_before_a_byte_is_sent() {
    let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
    for length in ["3", "5", "+4", "four", ""] {
        let mut request = post("/", "four");
        request.headers_mut().insert("content-length", HeaderValue::from_static(length));
        let error: Error = client.send(request).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (Kind::Usage, Delivery::NotSent), "{length}");
    }
    let mut request = post("/", "four");
    request.headers_mut().append("content-length", HeaderValue::from_static("4"));
    request.headers_mut().append("content-length", HeaderValue::from_static("4"));
    assert_eq!(client.send(request).await.unwrap_err().kind(), Kind::Usage);
    let mut request = post("/", "four");
    request.headers_mut().insert("content-length", HeaderValue::from_static("4"));
    let answer = call(&client, request);
    assert_eq!(peer.request().await.0, 1);
    peer.respond(1, b"").await;
    assert!(answer.await.unwrap().is_ok());
}
