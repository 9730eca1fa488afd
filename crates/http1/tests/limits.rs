//! Each option, at its limit and one beyond.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use portolan_core::{Delivery, Kind, Phase, clock};
use portolan_http1::ext::OnInformational;
use portolan_http1::{Connection, Options, send};
use support::*;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};

type Told = (Kind, Delivery, Option<Phase>);

/// What `reply` gives with these options: its body, or how it failed.
async fn told(options: Options, reply: &[u8]) -> Result<Bytes, Told> {
    let (mut conn, mut peer) = pair_with(options);
    let result = answered(&mut conn, &mut peer, reply).await;
    assert_eq!(conn.is_reusable(), result.is_ok());
    result.map(|(_, body)| body).map_err(|error| (error.kind(), error.delivery(), error.phase()))
}

const IN_HEAD: Told = (Kind::Limit, Delivery::Answered, Some(Phase::FirstByte));
const IN_BODY: Told = (Kind::Limit, Delivery::Answered, Some(Phase::Idle));

#[tokio::test]
async fn a_head_may_be_as_long_as_was_said() {
    let reply = b"HTTP/1.1 204 No Content\r\nx: y\r\n\r\n";
    assert!(told(Options::new().max_head(reply.len()), reply).await.is_ok());
    assert_eq!(told(Options::new().max_head(reply.len() - 1), reply).await, Err(IN_HEAD));
    // One without end is not waited for.
    assert_eq!(told(Options::new().max_head(100), &[&reply[..30], &[b'z'; 71]].concat()).await, Err(IN_HEAD));
}

#[tokio::test]
async fn a_head_may_have_as_many_fields_as_was_said() {
    let reply = |count| format!("HTTP/1.1 204 No Content\r\n{}\r\n", "a: b\r\n".repeat(count));
    for max in [0, 1, 128] {
        assert!(told(Options::new().max_headers(max), reply(max).as_bytes()).await.is_ok());
        assert_eq!(told(Options::new().max_headers(max), reply(max + 1).as_bytes()).await, Err(IN_HEAD));
    }
    assert!(told(Options::new().max_headers(5000), reply(1024).as_bytes()).await.is_ok());
    assert_eq!(told(Options::new().max_headers(5000), reply(1025).as_bytes()).await, Err(IN_HEAD));
}

#[tokio::test]
async fn as_many_informational_responses_are_passed_on_as_was_said() {
    for (max, count) in [(0, 1), (3, 4), (16, 17)] {
        let reply =
            |count| format!("{}HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(count));
        assert!(told(Options::new().max_informational(max), reply(count - 1).as_bytes()).await.is_ok());
        assert_eq!(told(Options::new().max_informational(max), reply(count).as_bytes()).await, Err(IN_HEAD));
    }
}

#[tokio::test]
async fn trailers_may_be_as_long_and_as_many_as_was_said() {
    let start = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n";
    let trailers = "x-sum: 12345\r\n\r\n";
    let reply = format!("{start}{trailers}");
    assert!(told(Options::new().max_trailers(trailers.len()), reply.as_bytes()).await.is_ok());
    assert_eq!(told(Options::new().max_trailers(trailers.len() - 1), reply.as_bytes()).await, Err(IN_BODY));
    // Without trailers there is nothing to be too long.
    assert!(told(Options::new().max_trailers(0), format!("{start}\r\n").as_bytes()).await.is_ok());
    let many = |count| format!("{start}{}\r\n", "x: y\r\n".repeat(count));
    assert!(told(Options::new(), many(128).as_bytes()).await.is_ok());
    assert_eq!(told(Options::new(), many(129).as_bytes()).await, Err(IN_BODY));
}

#[tokio::test]
async fn chunk_extensions_are_bounded_by_line_and_in_all() {
    let start = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let line = |extension: usize| [&b"1;"[..], &vec![b'e'; extension - 1], b"\r\nx\r\n"].concat();
    let whole = |lines: &[usize]| {
        let lines: Vec<_> = lines.iter().flat_map(|extension| line(*extension)).collect();
        [&start[..], &lines, b"0\r\n\r\n"].concat()
    };
    // 4 KiB of a line, its end included.
    assert!(told(Options::new(), &whole(&[4094])).await.is_ok());
    assert_eq!(told(Options::new(), &whole(&[4095])).await, Err(IN_BODY));
    // 64 KiB of a body.
    let most = [4094; 16].into_iter().chain([32]).collect::<Vec<_>>();
    assert!(told(Options::new(), &whole(&most)).await.is_ok());
    let more = [4094; 16].into_iter().chain([33]).collect::<Vec<_>>();
    assert_eq!(told(Options::new(), &whole(&more)).await, Err(IN_BODY));
}

#[tokio::test]
async fn an_unread_body_is_read_away_up_to_the_limit_and_only_if_it_has_come() {
    for (drain, framed, rest, reusable) in [
        (5, "content-length: 5\r\n\r\nhello", "", true),
        (4, "content-length: 5\r\n\r\nhello", "", false),
        (5, "content-length: 6\r\n\r\nhello", "!", false),
        (5, "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "", true),
        (4, "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "", false),
        (5, "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", "0\r\n\r\n", false),
        (5, "x: y\r\n\r\nhello", "", false),
    ] {
        let (mut conn, mut peer) = pair_with(Options::new().drain(drain));
        // The body comes after its head: what comes with it is no longer unread.
        let reply = format!("HTTP/1.1 200 OK\r\n{framed}");
        let (head, body) = reply.split_at(reply.find("\r\n\r\n").unwrap() + 4);
        let server = async {
            heard(&mut peer, b"\r\n\r\n").await;
            peer.write_all(head.as_bytes()).await.unwrap();
        };
        let (response, ()) = tokio::join!(send(&mut conn, get()), server);
        peer.write_all(body.as_bytes()).await.unwrap();
        drop(response.unwrap());
        assert_eq!(conn.is_reusable(), reusable, "{drain} {framed}");
        peer.write_all(rest.as_bytes()).await.unwrap();
        assert_eq!(conn.is_fit(), reusable, "{drain} {framed}");
    }
}

#[test]
fn a_body_may_be_dropped_where_no_runtime_runs() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (conn, mut peer) = pair();
    let mut conn = Box::new(conn);
    let response = runtime.block_on(async {
        let server = async {
            heard(&mut peer, b"\r\n\r\n").await;
            peer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nonly a part").await.unwrap();
        };
        tokio::join!(send(&mut *conn, get()), server).0.unwrap()
    });
    drop(runtime);
    drop(response);
    assert!(!conn.is_reusable());
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_a_response_is_as_long_as_was_said() {
    let limit = Duration::from_secs(5);
    for slack in [Duration::ZERO, Duration::from_secs(2)] {
        let (mut conn, mut peer) = pair_with(Options::new().first_byte(limit).idle(None));
        let server = async {
            heard(&mut peer, b"\r\n\r\n").await;
            // Informational ones are no response: they don't begin the wait anew.
            clock::sleep(Duration::from_secs(4)).await;
            peer.write_all(b"HTTP/1.1 102 Processing\r\n\r\n").await.unwrap();
            clock::sleep(slack).await;
            peer.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        };
        let started = clock::now();
        let (result, ()) = tokio::join!(send(&mut conn, get()), server);
        if slack.is_zero() {
            assert_eq!(result.unwrap().status(), StatusCode::NO_CONTENT);
            continue;
        }
        let error = result.map(|_| ()).unwrap_err();
        let said = (error.kind(), error.delivery(), error.phase());
        assert_eq!(said, (Kind::Timeout, Delivery::Answered, Some(Phase::FirstByte)));
        assert_eq!(started.elapsed().as_secs(), 6);
    }
    let (mut conn, _peer) = pair_with(Options::new().first_byte(limit));
    let started = clock::now();
    let error = send(&mut conn, get()).await.unwrap_err();
    let said = (error.kind(), error.delivery(), error.phase());
    assert_eq!(said, (Kind::Timeout, Delivery::Unknown, Some(Phase::FirstByte)));
    assert_eq!(started.elapsed(), limit);
    // Without a limit an hour is waited, too.
    let (mut conn, mut peer) = pair_with(Options::new().first_byte(None));
    let server = async {
        heard(&mut peer, b"\r\n\r\n").await;
        clock::sleep(Duration::from_secs(3600)).await;
        peer.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    };
    assert!(tokio::join!(send(&mut conn, get()), server).0.is_ok());
}

#[tokio::test(start_paused = true)]
async fn each_pause_may_be_as_long_as_was_said_and_all_together_longer() {
    let limit = Duration::from_secs(5);
    for (pause, passes) in [(4, true), (6, false)] {
        let (mut conn, mut peer) = pair_with(Options::new().idle(limit));
        let server = async {
            heard(&mut peer, b"\r\n\r\n").await;
            peer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n").await.unwrap();
            for byte in b"hello" {
                clock::sleep(Duration::from_secs(pause)).await;
                peer.write_all(&[*byte]).await.unwrap();
            }
        };
        let client = async { send(&mut conn, get()).await.unwrap().into_body().collect().await };
        let (result, ()) = tokio::join!(client, server);
        match result {
            Ok(body) => assert!(passes && body.to_bytes() == "hello"),
            Err(error) => {
                let said = (error.kind(), error.delivery(), error.phase());
                assert_eq!((passes, said), (false, (Kind::Timeout, Delivery::Answered, Some(Phase::Idle))));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_who_takes_his_time_is_no_pause_of_the_peers() {
    let (mut conn, mut peer) = pair_with(Options::new().idle(Duration::from_secs(1)));
    let server = async {
        heard(&mut peer, b"\r\n\r\n").await;
        peer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await.unwrap();
        peer.write_all(&[b'x'; 100_000]).await.unwrap();
    };
    let client = async {
        let mut body = send(&mut conn, get()).await.unwrap().into_body();
        let mut total = 0;
        while let Some(frame) = body.frame().await {
            total += frame.unwrap().into_data().unwrap().len();
            clock::sleep(Duration::from_secs(60)).await;
        }
        total
    };
    assert_eq!(tokio::join!(client, server).0, 100_000);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_comes_slowly_from_the_caller_is_no_pause_of_the_peers() {
    let (mut conn, mut peer) =
        pair_with(Options::new().idle(Duration::from_secs(1)).first_byte(Duration::from_secs(1)));
    let (told, hears) = tokio::sync::mpsc::channel::<Bytes>(1);
    let body = http_body_util::StreamBody::new(Channel(hears));
    let server = async {
        heard(&mut peer, b"0\r\n\r\n").await;
        peer.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    };
    let caller = async {
        for _ in 0..3 {
            clock::sleep(Duration::from_secs(100)).await;
            told.send(Bytes::from("piece")).await.unwrap();
        }
        drop(told);
    };
    let request = Request::put("http://e/").body(body).unwrap();
    assert!(tokio::join!(send(&mut conn, request), server, caller).0.is_ok());
    assert!(conn.is_fit());
}

struct Channel(tokio::sync::mpsc::Receiver<Bytes>);

impl futures_core::Stream for Channel {
    type Item = Result<http_body::Frame<Bytes>, std::io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|data| Ok(http_body::Frame::data(data))))
    }
}

#[tokio::test(start_paused = true)]
async fn the_word_of_the_peer_is_awaited_as_long_as_was_said() {
    for (limit, answered_after, asked) in [(5, 4, true), (3, 4, false)] {
        let (mut conn, mut peer) = pair_with(Options::new().expect(Duration::from_secs(limit)));
        let request =
            Request::put("http://e/").header("expect", "100-continue").body(Full::<Bytes>::from("body")).unwrap();
        let started = clock::now();
        let server = async {
            heard(&mut peer, b"\r\n\r\n").await;
            clock::sleep(Duration::from_secs(answered_after)).await;
            peer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
            heard(&mut peer, b"body").await;
            peer.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        };
        let told = Arc::new(Mutex::new(0));
        let (mut parts, body) = request.into_parts();
        let count = told.clone();
        parts.extensions.insert(OnInformational::new(move |_| *count.lock().unwrap() += 1));
        let (response, ()) = tokio::join!(send(&mut conn, Request::from_parts(parts, body)), server);
        assert_eq!(response.unwrap().status(), StatusCode::NO_CONTENT);
        assert_eq!((*told.lock().unwrap(), started.elapsed().as_secs()), (1, 4), "asked in time: {asked}");
        assert!(conn.is_fit());
    }
}

#[tokio::test]
async fn names_may_be_written_with_capitals() {
    let (mut conn, mut peer) = pair_with(Options::new().title_case(true));
    let mut trailers = HeaderMap::new();
    trailers.insert("x-check-sum", "7".parse().unwrap());
    let body = streamed(vec![Ok(http_body::Frame::data(Bytes::from("a"))), Ok(http_body::Frame::trailers(trailers))]);
    let request = Request::put("http://example.org/").header("x-a-b", "c-d").body(body).unwrap();
    let server = async {
        let sent = heard(&mut peer, b"7\r\n\r\n").await;
        peer.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        sent
    };
    let (response, sent) = tokio::join!(send(&mut conn, request), server);
    assert!(response.is_ok());
    let expected = "PUT / HTTP/1.1\r\nHost: example.org\r\nX-A-B: c-d\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Check-Sum: 7\r\n\r\n";
    assert_eq!(sent, expected);
}

/// A stream whose end never comes.
struct Stuck;

impl AsyncRead for Stuck {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Stuck {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Pending
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Pending
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_that_the_peer_does_not_take_ends_by_a_deadline() {
    let error = Connection::new(Stuck, Options::new()).close().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.phase(), error.protocol_name()),
        (Kind::Timeout, Some(Phase::Close), Some("http1"))
    );
    // Nothing of a request leaves either.
    let mut conn = Connection::new(Stuck, Options::new());
    let error = send(&mut conn, get()).await.unwrap_err();
    assert_eq!((error.kind(), error.phase(), error.delivery()), (Kind::Timeout, Some(Phase::Send), Delivery::NotSent));
}

/// A stream that counts what is asked of it.
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
async fn head_and_first_piece_leave_in_one_write_and_no_task_is_made() {
    for (size, length) in [(3, true), (30_000, true), (3, false), (30_000, false)] {
        let (near, mut peer) = duplex(64 << 10);
        let writes = Arc::default();
        let mut conn = Connection::new(Counted { io: near, writes: Arc::clone(&writes) }, Options::new());
        let data = Bytes::from(vec![b'd'; size]);
        let body = if length {
            http_body_util::combinators::BoxBody::new(Full::new(data).map_err(|never| match never {}))
        } else {
            streamed(vec![Ok(http_body::Frame::data(data))])
        };
        let server = async {
            heard(&mut peer, &b"d".repeat(size)).await;
            assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
            peer.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        };
        let (response, ()) = tokio::join!(send(&mut conn, Request::put("http://e/").body(body).unwrap()), server);
        assert!(response.is_ok());
        let writes = writes.lock().unwrap();
        assert!(writes.len() <= if length { 1 } else { 2 } && writes[0] > size, "{writes:?}");
    }
}

#[tokio::test]
async fn fields_and_body_are_slices_of_what_was_read() {
    let (mut conn, mut peer) = pair();
    let reply = b"HTTP/1.1 200 OK\r\nx-a: first\r\nx-b: second\r\ncontent-length: 9\r\n\r\nthe body!";
    let server = async {
        heard(&mut peer, b"\r\n\r\n").await;
        peer.write_all(reply).await.unwrap();
    };
    let (response, ()) = tokio::join!(send(&mut conn, get()), server);
    let (parts, mut body) = response.unwrap().into_parts();
    let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
    let place = |bytes: &[u8]| bytes.as_ptr() as usize;
    let text = std::str::from_utf8(reply).unwrap();
    let (a, b) = (place(parts.headers["x-a"].as_bytes()), place(parts.headers["x-b"].as_bytes()));
    assert_eq!(b - a, text.find("second").unwrap() - text.find("first").unwrap());
    assert_eq!(place(&data) - a, text.find("the body").unwrap() - text.find("first").unwrap());
}
