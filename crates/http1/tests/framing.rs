//! Where an answer ends, and what is never taken for one (RFC 9112 6.3, 11).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use portolan_core::{Delivery, Kind, Phase};
use portolan_http1::{Connection, Options, send};
use support::*;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

#[tokio::test]
async fn every_broken_framing_is_a_typed_error_and_the_last_word_on_its_connection() {
    let in_head: &[&[u8]] = &[
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0x5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551616\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\r\n b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\r\n\tb\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n x: a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\rb\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx : a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx\r\n\r\n",
        b"HTTP/1.1 200 OK\rx: a\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 +20 OK\r\n\r\n",
        b"HTTP/3.1 200 OK\r\n\r\n",
        b"\rHTTP/1.1 200 OK\r\n\r\n",
        b"\r\n\r\n\r\n\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\ncontent-length: 5\r\n\r\nhelloHTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\ntransfer-encoding: chunked\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        b"220 mail.example ESMTP\r\n",
    ];
    let in_body: &[&[u8]] = &[
        b"fffffffffffffffff\r\n",
        b"-1\r\n\r\n",
        b"+3\r\nabc\r\n",
        b"0x3\r\nabc\r\n",
        b" 3\r\nabc\r\n",
        b"3\nabc\r\n0\r\n\r\n",
        b"3\rabc\r\n0\r\n\r\n",
        b"3\r\nabcX\r\n0\r\n\r\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"3;a\rb\r\nabc\r\n0\r\n\r\n",
        b"0\r\n\n",
        b"0\r\nx : 1\r\n\r\n",
        b"0\r\nx: 1\r\n 2\r\n\r\n",
        b"0\r\nx: a\0\r\n\r\n",
    ];
    let chunked = |body: &&[u8]| [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", *body].concat();
    let heads = in_head.iter().map(|reply| (reply.to_vec(), Phase::FirstByte));
    for (reply, phase) in heads.chain(in_body.iter().map(|body| (chunked(body), Phase::Idle))) {
        let (mut conn, mut peer) = pair();
        let error = answered(&mut conn, &mut peer, &reply).await.unwrap_err();
        let said = (error.kind(), error.delivery(), error.phase());
        assert_eq!(said, (Kind::Protocol, Delivery::Answered, Some(phase)), "{}: {error}", reply.escape_ascii());
        assert_eq!(error.protocol_name(), Some("http1"));
        assert!(!conn.is_reusable());
        let error = send(&mut conn, get()).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (Kind::Closed, Delivery::NotSent));
    }
}

#[tokio::test]
async fn codings_that_are_not_known_are_unsupported() {
    for coding in ["gzip", "gzip, chunked", "chunked, chunked", "chunked\r\ntransfer-encoding: chunked", "xchunked"] {
        let (mut conn, mut peer) = pair();
        let reply = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: {coding}\r\n\r\n0\r\n\r\n");
        let error = answered(&mut conn, &mut peer, reply.as_bytes()).await.unwrap_err();
        let said = (error.kind(), error.delivery(), error.phase());
        assert_eq!(said, (Kind::Unsupported, Delivery::Answered, Some(Phase::FirstByte)), "{coding}");
        assert!(!conn.is_reusable());
    }
}

#[tokio::test]
async fn statuses_without_a_body_have_none_whatever_they_say() {
    for (head, body, reusable) in [
        ("204 No Content\r\n", "", true),
        ("204 No Content\r\ncontent-length: 0\r\n", "", true),
        // Whether five bytes follow is anyone's guess: they must not be taken for the next answer.
        ("204 No Content\r\ncontent-length: 5\r\n", "", false),
        ("204 No Content\r\ntransfer-encoding: chunked\r\n", "", false),
        // The length that a 200 would have had.
        ("304 Not Modified\r\ncontent-length: 5\r\n", "", true),
        ("304 Not Modified\r\ntransfer-encoding: chunked\r\n", "", true),
        // Framed like any other.
        ("205 Reset Content\r\ncontent-length: 5\r\n\r\nhello", "hello", true),
        ("205 Reset Content\r\ncontent-length: 0\r\n", "", true),
    ] {
        let (mut conn, mut peer) = pair();
        let end = if body.is_empty() { "\r\n" } else { "" };
        let (status, seen) = answered(&mut conn, &mut peer, format!("HTTP/1.1 {head}{end}").as_bytes()).await.unwrap();
        assert_eq!((status.as_str(), &seen[..]), (&head[..3], body.as_bytes()), "{head}");
        assert_eq!(conn.is_fit(), reusable, "{head}");
    }
}

#[tokio::test]
async fn an_answer_to_head_has_no_body_however_it_is_framed() {
    for length in ["content-length: 1000", "transfer-encoding: chunked", "x-none: 1"] {
        let (mut conn, mut peer) = pair();
        let server = async {
            heard(&mut peer, b"\r\n\r\n").await;
            peer.write_all(format!("HTTP/1.1 200 OK\r\n{length}\r\n\r\n").as_bytes()).await.unwrap();
        };
        let request = Request::head("http://example.org/").body(Empty::<Bytes>::new()).unwrap();
        let (response, ()) = tokio::join!(send(&mut conn, request), server);
        assert!(response.unwrap().into_body().collect().await.unwrap().to_bytes().is_empty());
        assert!(conn.is_fit(), "{length}");
    }
}

#[tokio::test]
async fn what_follows_an_answer_is_never_the_next_one() {
    let stray = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstray";
    let own = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nown";
    for ending in [
        &b"HTTP/1.1 204 No Content\r\n\r\n"[..],
        own,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nown\r\n0\r\n\r\n",
    ] {
        // In the same segment.
        let (mut conn, mut peer) = pair();
        answered(&mut conn, &mut peer, &[ending, stray].concat()).await.unwrap();
        assert!(!conn.is_fit());
        assert_eq!(send(&mut conn, get()).await.unwrap_err().delivery(), Delivery::NotSent);
        // Later, seen by whoever looks.
        let (mut conn, mut peer) = pair();
        answered(&mut conn, &mut peer, ending).await.unwrap();
        peer.write_all(stray).await.unwrap();
        assert!(!conn.is_fit());
        // Later, and nobody looks before the next request.
        let (mut conn, mut peer) = pair();
        answered(&mut conn, &mut peer, ending).await.unwrap();
        peer.write_all(stray).await.unwrap();
        let error = send(&mut conn, get()).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (Kind::Protocol, Delivery::NotSent));
        assert!(!conn.is_reusable());
        drop(conn);
        assert_eq!(peer.read(&mut [0; 1]).await.unwrap(), 0, "the second request was not sent");
    }
}

#[tokio::test]
async fn a_peer_that_speaks_or_closes_first_is_sent_nothing() {
    let (mut conn, mut peer) = pair();
    peer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly").await.unwrap();
    let error = send(&mut conn, get()).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery(), error.phase()), (Kind::Protocol, Delivery::NotSent, Some(Phase::Send)));
    assert!(error.to_string().contains("HTTP/1.1 200 OK"), "{error}");
    drop(conn);
    assert_eq!(peer.read(&mut [0; 1]).await.unwrap(), 0);
    let (mut conn, peer) = pair();
    drop(peer);
    let error = send(&mut conn, get()).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery(), error.phase()), (Kind::Closed, Delivery::NotSent, Some(Phase::Send)));
}

#[tokio::test]
async fn empty_lines_before_a_head_are_forgiven_and_lines_may_end_without_cr() {
    for reply in [
        &b"\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"[..],
        b"\n\r\nHTTP/1.1 200 OK\ncontent-length: 2\n\nok",
        b"HTTP/1.1 200\r\ncontent-length:2\r\n\r\nok",
    ] {
        for cut in 1..reply.len() {
            let (mut conn, mut peer) = pair();
            let server = async {
                heard(&mut peer, b"\r\n\r\n").await;
                peer.write_all(&reply[..cut]).await.unwrap();
                tokio::task::yield_now().await;
                peer.write_all(&reply[cut..]).await.unwrap();
            };
            let client = async { send(&mut conn, get()).await?.into_body().collect().await };
            assert_eq!(tokio::join!(client, server).0.unwrap().to_bytes(), "ok", "{} at {cut}", reply.escape_ascii());
            assert!(conn.is_fit());
        }
    }
}

#[tokio::test]
async fn a_tunnel_is_granted_whatever_length_its_answer_says() {
    for length in ["content-length: 4\r\n", "transfer-encoding: chunked\r\n", ""] {
        let (mut conn, mut peer) = pair();
        let server = async {
            heard(&mut peer, b"\r\n\r\n").await;
            peer.write_all(format!("HTTP/1.1 200 OK\r\n{length}\r\nbytes").as_bytes()).await.unwrap();
        };
        let request = Request::builder().method(Method::CONNECT).uri("far.example:443");
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let (response, ()) = tokio::join!(send(&mut conn, request), server);
        let body = response.unwrap().into_body();
        assert!(body.is_upgraded());
        let mut read = [0; 5];
        body.upgraded().unwrap().read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"bytes", "{length}");
        assert!(!conn.is_reusable());
    }
}

#[tokio::test]
async fn an_upgrade_is_granted_whatever_length_its_answer_says() {
    for length in ["content-length: 4\r\n", "transfer-encoding: chunked\r\n"] {
        let (mut conn, mut peer) = pair();
        let server = async {
            heard(&mut peer, b"\r\n\r\n").await;
            let reply = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n";
            peer.write_all(format!("{reply}{length}\r\nbytes").as_bytes()).await.unwrap();
        };
        let request = Request::get("http://e/").header("connection", "upgrade").header("upgrade", "echo");
        let (response, ()) = tokio::join!(send(&mut conn, request.body(Empty::<Bytes>::new()).unwrap()), server);
        let mut read = [0; 5];
        response.unwrap().into_body().upgraded().unwrap().read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"bytes", "{length}");
    }
}

#[tokio::test]
async fn a_refused_tunnel_has_an_ordinary_body() {
    let (mut conn, mut peer) = pair();
    let server = async {
        heard(&mut peer, b"\r\n\r\n").await;
        let reply = "HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 3\r\n\r\nwho";
        peer.write_all(reply.as_bytes()).await.unwrap();
    };
    let request = Request::builder().method(Method::CONNECT).uri("far.example:443");
    let (response, ()) = tokio::join!(send(&mut conn, request.body(Empty::<Bytes>::new()).unwrap()), server);
    let response = response.unwrap();
    assert_eq!(response.status(), StatusCode::PROXY_AUTHENTICATION_REQUIRED);
    assert!(!response.body().is_upgraded());
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "who");
    assert!(conn.is_fit());
}

#[tokio::test]
async fn fields_that_must_not_come_late_are_left_out_of_trailers() {
    let (mut conn, mut peer) = pair();
    let server = async {
        heard(&mut peer, b"\r\n\r\n").await;
        peer.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n").await.unwrap();
        peer.write_all(b"x-sum: 1\r\ncontent-length: 9\r\nset-cookie: a=b\r\nx-sum: 2\r\n\r\n").await.unwrap();
    };
    let client = async { send(&mut conn, get()).await.unwrap().into_body().collect().await.unwrap() };
    let trailers = tokio::join!(client, server).0.trailers().unwrap().clone();
    let fields: Vec<_> = trailers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    assert_eq!(fields, [("x-sum", &b"1"[..]), ("x-sum", b"2")]);
    assert!(conn.is_fit());
}

#[tokio::test]
async fn a_connection_that_was_cut_short_of_its_end_is_not_whole() {
    // The end of a body without length is the end of the connection, in good order: TLS tells a cut from that.
    struct Cut(tokio::io::DuplexStream);
    impl tokio::io::AsyncRead for Cut {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
            buf: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            let before = buf.filled().len();
            std::task::ready!(std::pin::Pin::new(&mut self.0).poll_read(cx, buf))?;
            let end = buf.filled().len() == before;
            std::task::Poll::Ready(if end { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) })
        }
    }
    impl AsyncWrite for Cut {
        fn poll_write(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
            buf: &[u8],
        ) -> std::task::Poll<std::io::Result<usize>> {
            std::pin::Pin::new(&mut self.0).poll_write(cx, buf)
        }
        fn poll_flush(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::pin::Pin::new(&mut self.0).poll_flush(cx)
        }
        fn poll_shutdown(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::pin::Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }
    let (near, mut peer) = tokio::io::duplex(1024);
    let mut conn = Connection::new(Cut(near), Options::new());
    let server = async {
        heard(&mut peer, b"\r\n\r\n").await;
        peer.write_all(b"HTTP/1.1 200 OK\r\n\r\nnot all").await.unwrap();
        drop(peer);
    };
    let client = async { send(&mut conn, get()).await.unwrap().into_body().collect().await.unwrap_err() };
    let error = tokio::join!(client, server).0;
    assert_eq!((error.kind(), error.delivery()), (Kind::Closed, Delivery::Answered), "{error:?}");
}
