//! A peer that says exactly what the test wants it to say.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use portolan_core::{Delivery, Kind, Phase, clock};
use portolan_http1::ext::OnInformational;
use portolan_http1::{Connection, Options, send};
use support::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};

#[tokio::test]
async fn a_request_and_its_response_leave_the_connection_for_the_next() {
    let (mut conn, mut peer) = pair();
    for _ in 0..3 {
        let reply = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
        let (status, body) = answered(&mut conn, &mut peer, reply).await.unwrap();
        assert_eq!((status, &body[..]), (StatusCode::OK, &b"hello"[..]));
        assert!(conn.is_fit());
    }
    assert_eq!(conn.requests(), 3);
}

#[tokio::test]
async fn the_head_is_what_rfc_9112_asks_for() {
    let (mut conn, mut peer) = pair();
    let request = Request::post("http://user:pw@example.org:80/a?b")
        .header("x-one", "1")
        .body(Full::<Bytes>::from("abc"))
        .unwrap();
    let (sent, _) = tokio::join!(
        async {
            let sent = heard(&mut peer, b"abc").await;
            peer.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            sent
        },
        async { send(&mut conn, request).await.unwrap() }
    );
    assert_eq!(sent, "POST /a?b HTTP/1.1\r\nhost: example.org\r\nx-one: 1\r\ncontent-length: 3\r\n\r\nabc");
}

#[tokio::test]
async fn every_split_of_a_response_is_the_same_response() {
    let reply = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\nx-sum: 9\r\n\r\n";
    for cut in 1..reply.len() {
        let (mut conn, mut peer) = pair();
        let server = async {
            heard(&mut peer, b"\r\n\r\n").await;
            peer.write_all(&reply[..cut]).await.unwrap();
            tokio::task::yield_now().await;
            peer.write_all(&reply[cut..]).await.unwrap();
        };
        let client = async {
            let body = send(&mut conn, get()).await.unwrap().into_body().collect().await.unwrap();
            (body.trailers().unwrap()["x-sum"].clone(), body.to_bytes())
        };
        let ((sum, body), ()) = tokio::join!(client, server);
        assert_eq!((sum.as_bytes(), &body[..]), (&b"9"[..], &b"abcde"[..]), "cut at {cut}");
        assert!(conn.is_fit(), "cut at {cut}");
    }
}

#[tokio::test]
async fn a_cut_anywhere_is_an_error_that_knows_what_became_of_the_request() {
    let replies: [&[u8]; 2] = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ];
    for reply in replies {
        for cut in 0..reply.len() {
            let (mut conn, mut peer) = pair();
            let server = async {
                heard(&mut peer, b"\r\n\r\n").await;
                peer.write_all(&reply[..cut]).await.unwrap();
                drop(peer);
            };
            let client = async {
                let response = send(&mut conn, get()).await?;
                response.into_body().collect().await.map(|_| ())
            };
            let error = tokio::join!(client, server).0.unwrap_err();
            let delivery = if cut == 0 { Delivery::Unknown } else { Delivery::Answered };
            assert_eq!((error.kind(), error.delivery()), (Kind::Closed, delivery), "cut at {cut}: {error}");
            assert!(!conn.is_reusable());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stall_anywhere_ends_by_a_deadline_that_names_its_phase() {
    let reply = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
    let head = reply.len() - 5;
    for cut in 0..reply.len() {
        let (mut conn, mut peer) = pair();
        let server = async {
            heard(&mut peer, b"\r\n\r\n").await;
            peer.write_all(&reply[..cut]).await.unwrap();
            std::future::pending::<()>().await
        };
        let client = async {
            let response = send(&mut conn, get()).await?;
            response.into_body().collect().await.map(|_| ())
        };
        let error = tokio::select! { result = client => result.unwrap_err(), () = server => unreachable!() };
        let phase = if cut < head { Phase::FirstByte } else { Phase::Idle };
        assert_eq!((error.kind(), error.phase()), (Kind::Timeout, Some(phase)), "stalled at {cut}");
        assert!(!conn.is_reusable());
    }
}

#[tokio::test]
async fn an_ambiguous_response_is_refused_and_the_connection_never_used_again() {
    for reply in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\rb\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\r\n b\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
    ] {
        let (mut conn, mut peer) = pair();
        let error = answered(&mut conn, &mut peer, reply).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (Kind::Protocol, Delivery::Answered), "{}", reply.escape_ascii());
        assert!(!conn.is_reusable());
        let error = send(&mut conn, get()).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (Kind::Closed, Delivery::NotSent));
    }
}

#[tokio::test]
async fn bytes_that_nobody_asked_for_end_the_connection() {
    let (mut conn, mut peer) = pair();
    let reply = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nxHTTP/1.1 200 OK\r\n";
    answered(&mut conn, &mut peer, reply).await.unwrap();
    assert!(!conn.is_reusable());
    let (mut conn, mut peer) = pair();
    answered(&mut conn, &mut peer, b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    assert!(conn.is_reusable());
    peer.write_all(b"late").await.unwrap();
    assert!(!conn.is_fit());
}

#[tokio::test]
async fn a_close_is_seen_on_an_idle_connection() {
    let (mut conn, mut peer) = pair();
    answered(&mut conn, &mut peer, b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    assert!(conn.is_fit());
    drop(peer);
    assert!(!conn.is_fit());
}

#[tokio::test]
async fn keep_alive_is_what_both_sides_said() {
    for (reply, keeps) in [
        (&b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"[..], true),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: Close\r\n\r\n", false),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: foo, close\r\n\r\n", false),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", false),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n", true),
    ] {
        let (mut conn, mut peer) = pair();
        answered(&mut conn, &mut peer, reply).await.unwrap();
        assert_eq!(conn.is_reusable(), keeps, "{}", reply.escape_ascii());
    }
}

#[tokio::test]
async fn a_body_that_ends_with_the_connection_is_whole() {
    let (mut conn, mut peer) = pair();
    let server = async {
        heard(&mut peer, b"\r\n\r\n").await;
        peer.write_all(b"HTTP/1.1 200 OK\r\n\r\nall there is").await.unwrap();
        drop(peer);
    };
    let client = async { send(&mut conn, get()).await.unwrap().into_body().collect().await.unwrap().to_bytes() };
    assert_eq!(tokio::join!(client, server).0, "all there is");
    assert!(!conn.is_reusable());
}

#[tokio::test]
async fn head_and_connect_have_no_body_whatever_they_say() {
    let (mut conn, mut peer) = pair();
    let server = async {
        heard(&mut peer, b"\r\n\r\n").await;
        peer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await.unwrap();
    };
    let request = Request::head("http://example.org/").body(Empty::<Bytes>::new()).unwrap();
    let (response, ()) = tokio::join!(send(&mut conn, request), server);
    let response = response.unwrap();
    assert_eq!(response.headers()["content-length"], "1000");
    assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
    assert!(conn.is_fit());
}

#[tokio::test]
async fn an_upgrade_gives_the_stream_with_what_was_read_too_far() {
    let (mut conn, mut peer) = pair();
    let server = async {
        heard(&mut peer, b"\r\n\r\n").await;
        peer.write_all(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: echo\r\nconnection: upgrade\r\n\r\nearly")
            .await
            .unwrap();
        let mut text = [0; 4];
        peer.read_exact(&mut text).await.unwrap();
        peer.write_all(&text).await.unwrap();
    };
    let client = async {
        let request = Request::get("http://e/").header("connection", "Upgrade").header("upgrade", "echo");
        let response = send(&mut conn, request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        let mut stream = response.into_body().upgraded().unwrap();
        stream.write_all(b"ping").await.unwrap();
        let mut text = [0; 9];
        stream.read_exact(&mut text).await.unwrap();
        text
    };
    assert_eq!(&tokio::join!(client, server).0, b"earlyping");
    assert!(!conn.is_reusable());
}

#[tokio::test]
async fn a_tunnel_is_asked_for_by_authority_and_granted_by_any_success() {
    let (mut conn, mut peer) = pair();
    let server = async {
        let asked = heard(&mut peer, b"\r\n\r\n").await;
        peer.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
        asked
    };
    let request =
        Request::builder().method(Method::CONNECT).uri("far.example:443").body(Empty::<Bytes>::new()).unwrap();
    let (response, asked) = tokio::join!(send(&mut conn, request), server);
    assert_eq!(asked, "CONNECT far.example:443 HTTP/1.1\r\nhost: far.example:443\r\n\r\n");
    assert!(response.unwrap().into_body().upgraded().is_ok());
}

#[tokio::test]
async fn a_body_of_unknown_length_goes_in_chunks_with_its_trailers() {
    let (mut conn, mut peer) = pair();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "7".parse().unwrap());
    let large = Bytes::from(vec![b'L'; 3000]);
    let body = streamed(vec![
        Ok(http_body::Frame::data(Bytes::from("small"))),
        Ok(http_body::Frame::data(large)),
        Ok(http_body::Frame::trailers(trailers)),
    ]);
    let request = Request::put("http://e/").body(body).unwrap();
    let server = async {
        let sent = heard(&mut peer, b"x-sum: 7\r\n\r\n").await;
        peer.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        sent
    };
    let (response, sent) = tokio::join!(send(&mut conn, request), server);
    assert_eq!(response.unwrap().status(), StatusCode::NO_CONTENT);
    let body = sent.split_once("\r\n\r\n").unwrap().1;
    assert_eq!(body, format!("5\r\nsmall\r\nbb8\r\n{}\r\n0\r\nx-sum: 7\r\n\r\n", "L".repeat(3000)));
    assert!(conn.is_fit());
}

#[tokio::test]
async fn a_body_that_fails_gives_its_own_error_and_ends_the_connection() {
    let (mut conn, _peer) = pair();
    let body =
        streamed(vec![Ok(http_body::Frame::data(Bytes::from("some"))), Err(std::io::Error::other("the disk is gone"))]);
    let error = send(&mut conn, Request::put("http://e/").body(body).unwrap()).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(source.to_string(), "the disk is gone");
    assert!(!conn.is_reusable());
}

#[tokio::test]
async fn trailers_that_frame_or_route_a_message_are_the_callers_mistake() {
    for name in ["content-length", "transfer-encoding", "host", "authorization", "set-cookie", "content-type"] {
        let (mut conn, mut peer) = pair();
        let mut trailers = HeaderMap::new();
        trailers.insert(name, "1".parse().unwrap());
        let body =
            streamed(vec![Ok(http_body::Frame::data(Bytes::from("x"))), Ok(http_body::Frame::trailers(trailers))]);
        let error = send(&mut conn, Request::put("http://e/").body(body).unwrap()).await.unwrap_err();
        let said = (error.kind(), error.phase(), error.delivery());
        // Its head and data have left.
        assert_eq!(said, (Kind::Usage, Some(Phase::Send), Delivery::Unknown), "{name}");
        assert!(!conn.is_reusable());
        drop(conn);
        let mut sent = String::new();
        peer.read_to_string(&mut sent).await.unwrap();
        assert!(!sent.contains("\r\n0\r\n"), "it must not look whole: {sent}");
    }
}

#[tokio::test]
async fn a_body_must_be_what_was_said() {
    for (length, body) in [("3", "four"), ("5", "four")] {
        let (mut conn, _peer) = pair();
        let frames = vec![Ok(http_body::Frame::data(Bytes::from(body)))];
        let request = Request::put("http://e/").header("content-length", length).body(streamed(frames)).unwrap();
        assert_eq!(send(&mut conn, request).await.unwrap_err().kind(), Kind::Usage);
        let (mut conn, _peer) = pair();
        let request =
            Request::put("http://e/").header("content-length", length).body(Full::<Bytes>::from(body)).unwrap();
        assert_eq!(send(&mut conn, request).await.unwrap_err().kind(), Kind::Usage);
        // Found before a byte was sent: the connection is as good as before.
        assert!(conn.is_reusable());
    }
}

#[tokio::test]
async fn what_the_caller_gets_wrong_is_found_before_a_byte_is_sent() {
    let requests = [
        Request::get("/no-host").body(Full::<Bytes>::from("")).unwrap(),
        Request::post("http://e/").header("transfer-encoding", "gzip").body(Full::<Bytes>::from("x")).unwrap(),
        Request::post("http://e/").header("content-length", "+1").body(Full::<Bytes>::from("x")).unwrap(),
        Request::post("http://e/")
            .header("content-length", "1")
            .header("content-length", "1")
            .body(Full::from("x"))
            .unwrap(),
        Request::post("http://e/")
            .header("content-length", "1")
            .header("transfer-encoding", "chunked")
            .body(Full::from("x"))
            .unwrap(),
        Request::get("http://e/").header("host", "a").header("host", "b").body(Full::from("")).unwrap(),
        Request::builder().method("CONNECT").uri("far.example").body(Full::from("")).unwrap(),
        Request::builder().method("CONNECT").uri("user@far.example:443").body(Full::from("")).unwrap(),
        Request::builder().method("CONNECT").uri("far.example:443").body(Full::from("x")).unwrap(),
        Request::builder().method("CONNECT").uri("http://e/").body(Full::<Bytes>::from("")).unwrap(),
    ];
    for request in requests {
        let (mut conn, mut peer) = pair();
        let error = send(&mut conn, request).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (Kind::Usage, Delivery::NotSent));
        assert!(conn.is_fit());
        drop(conn);
        assert_eq!(peer.read(&mut [0; 1]).await.unwrap(), 0, "nothing was sent");
    }
}

#[tokio::test]
async fn a_body_waits_for_the_word_of_the_peer() {
    let (mut conn, mut peer) = pair();
    let request = Request::put("http://e/").header("expect", "100-continue").body(Full::<Bytes>::from("body")).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let saw = seen.clone();
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(OnInformational::new(move |response| saw.lock().unwrap().push(response.status().as_u16())));
    let server = async {
        let head = heard(&mut peer, b"\r\n\r\n").await;
        assert!(head.contains("expect: 100-continue"));
        peer.write_all(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
        heard(&mut peer, b"body").await;
        peer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    };
    let (response, ()) = tokio::join!(send(&mut conn, Request::from_parts(parts, body)), server);
    assert_eq!(response.unwrap().status(), StatusCode::OK);
    assert_eq!(*seen.lock().unwrap(), [102, 100]);
    assert!(conn.is_fit());
}

#[tokio::test]
async fn a_refusal_before_the_body_saves_sending_it() {
    let (mut conn, mut peer) = pair();
    let request = Request::put("http://e/").header("expect", "100-continue").body(Full::<Bytes>::from("body")).unwrap();
    let server = async {
        heard(&mut peer, b"\r\n\r\n").await;
        peer.write_all(b"HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    };
    let (response, ()) = tokio::join!(send(&mut conn, request), server);
    assert_eq!(response.unwrap().status(), StatusCode::EXPECTATION_FAILED);
    assert!(!conn.is_reusable(), "the body that was announced was never sent");
    drop(conn);
    assert_eq!(peer.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_is_sent_the_body_all_the_same() {
    let (mut conn, mut peer) = pair();
    let request = Request::put("http://e/").header("expect", "100-continue").body(Full::<Bytes>::from("body")).unwrap();
    let server = async {
        heard(&mut peer, b"body").await;
        peer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    };
    let started = portolan_core::clock::now();
    let (response, ()) = tokio::join!(send(&mut conn, request), server);
    assert_eq!(response.unwrap().status(), StatusCode::OK);
    assert_eq!(started.elapsed().as_secs(), 1);
}

#[tokio::test]
async fn an_early_refusal_is_heard_by_a_sender_that_is_stuck() {
    let (near, mut peer) = duplex(1024);
    let mut conn = Connection::new(near, Options::new());
    let request = Request::put("http://e/").body(Full::new(Bytes::from(vec![0u8; 1 << 20]))).unwrap();
    let server = async {
        heard(&mut peer, b"\r\n\r\n").await;
        peer.write_all(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nno!").await.unwrap();
    };
    let (response, ()) = tokio::join!(send(&mut conn, request), server);
    let response = response.unwrap();
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "no!");
    assert!(!conn.is_reusable());
}

/// A stream whose end is told to who writes before what came ahead of it can be read, as sockets do.
struct Deaf {
    reads: DuplexStream,
    /// What was not told yet.
    untold: usize,
}

impl AsyncRead for Deaf {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if self.untold > 0 {
            self.untold -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.reads).poll_read(cx, buf)
    }
}

impl AsyncWrite for Deaf {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_peer_said_before_it_stopped_reading_is_heard() {
    for (reply, open) in
        [(&b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nno!"[..], true), (b"", false), (b"", true)]
    {
        for request in [Request::put("http://e/"), Request::get("http://e/")] {
            let (near, mut peer) = duplex(1024);
            let mut conn = Connection::new(Deaf { reads: near, untold: 5 }, Options::new());
            let body = if request.method_ref() == Some(&Method::PUT) { "body" } else { "" };
            let say = async {
                clock::sleep(Duration::from_millis(1)).await;
                peer.write_all(reply).await.unwrap();
                // Without a word, it is open for ever or closed.
                open.then_some(peer)
            };
            let (result, _peer) = tokio::join!(send(&mut conn, request.body(Full::<Bytes>::from(body)).unwrap()), say);
            if reply.is_empty() {
                let error = result.map(|_| ()).unwrap_err();
                let said = (error.kind(), error.phase(), error.delivery());
                assert_eq!(said, (Kind::Closed, Some(Phase::Send), Delivery::NotSent), "{error}");
            } else {
                let response = result.unwrap();
                assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
                assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "no!");
            }
            assert!(!conn.is_reusable());
        }
    }
}

#[tokio::test]
async fn an_early_success_is_read_while_the_request_goes_on() {
    let (near, mut peer) = duplex(1024);
    let mut conn = Connection::new(near, Options::new());
    let request = Request::put("http://e/").body(Full::new(Bytes::from(vec![b'u'; 1 << 20]))).unwrap();
    let server = async {
        heard(&mut peer, b"\r\n\r\n").await;
        peer.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
        let mut total = 0;
        let mut buf = [0; 4096];
        while total < 1 << 20 {
            total += peer.read(&mut buf).await.unwrap();
        }
        peer.write_all(b"3\r\nall\r\n0\r\n\r\n").await.unwrap();
    };
    let client = async { send(&mut conn, request).await.unwrap().into_body().collect().await.unwrap().to_bytes() };
    assert_eq!(tokio::join!(client, server).0, "all");
    assert!(!conn.is_reusable(), "whoever overlaps request and response can't be sure of the next");
}

#[tokio::test]
async fn a_short_body_dropped_unread_is_read_away() {
    let (mut conn, mut peer) = pair();
    let server = async {
        heard(&mut peer, b"\r\n\r\n").await;
        peer.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").await.unwrap();
    };
    let (response, ()) = tokio::join!(send(&mut conn, get()), server);
    drop(response.unwrap());
    assert!(conn.is_fit());
    let server = async {
        heard(&mut peer, b"\r\n\r\n").await;
        peer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\nhello").await.unwrap();
    };
    let (response, ()) = tokio::join!(send(&mut conn, get()), server);
    drop(response.unwrap());
    assert!(!conn.is_reusable());
}

#[tokio::test]
async fn a_request_dropped_in_the_middle_leaves_an_unusable_connection() {
    let (mut conn, mut peer) = pair();
    {
        let call = send(&mut conn, get());
        tokio::pin!(call);
        tokio::select! { _ = &mut call => panic!("nobody answered"), _ = heard(&mut peer, b"\r\n\r\n") => {} }
    }
    assert!(!conn.is_reusable());
    assert_eq!(send(&mut conn, get()).await.unwrap_err().delivery(), Delivery::NotSent);
}

#[tokio::test]
async fn floods_end_at_a_limit() {
    let endless: [(&[u8], &[u8]); 3] = [
        (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n"),
        (b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"x: y\r\n"),
    ];
    for (start, piece) in endless {
        let (mut conn, mut peer) = pair();
        let server = async {
            heard(&mut peer, b"\r\n\r\n").await;
            peer.write_all(start).await.unwrap();
            while peer.write_all(piece).await.is_ok() {}
        };
        let client = async {
            let response = send(&mut conn, get()).await?;
            response.into_body().collect().await.map(|_| ())
        };
        let error = tokio::select! { result = client => result.unwrap_err(), () = server => unreachable!() };
        assert_eq!((error.kind(), error.delivery()), (Kind::Limit, Delivery::Answered));
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stops_reading_ends_by_a_deadline() {
    let (near, _peer) = duplex(64);
    let mut conn = Connection::new(near, Options::new().idle(Duration::from_secs(5)));
    let request = Request::put("http://e/").body(Full::new(Bytes::from(vec![0u8; 10_000]))).unwrap();
    let error = send(&mut conn, request).await.unwrap_err();
    assert_eq!((error.kind(), error.phase(), error.delivery()), (Kind::Timeout, Some(Phase::Send), Delivery::Unknown));
}
