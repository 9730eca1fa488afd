//! WebSocket over HTTP/2 (RFC 8441), against the h2 crate's server.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]
#![allow(clippy::disallowed_methods, reason = "the test is the server")]

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Response, StatusCode};
use portolan_core::{Connector, Kind, Roots, Tls};
use portolan_http2::{SendRequest, handshake};
use portolan_testbed::{Certs, ServerTls};
use portolan_websocket::handshake::{accept, accept_extended};
use portolan_websocket::{CloseCode, CloseFrame, Deflate, Message, Options, Rejected, Request, Role, WebSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A server's stream as a byte stream: a task on each side of a pipe.
fn bridge(mut body: h2::RecvStream, mut send: h2::SendStream<Bytes>) -> DuplexStream {
    let (near, far) = duplex(16 << 10);
    let (mut read, mut write) = tokio::io::split(far);
    tokio::spawn(async move {
        while let Some(Ok(data)) = body.data().await {
            let _ = body.flow_control().release_capacity(data.len());
            if write.write_all(&data).await.is_err() {
                return;
            }
        }
        let _ = write.shutdown().await;
    });
    tokio::spawn(async move {
        let mut buf = vec![0; 16 << 10];
        loop {
            let n = read.read(&mut buf).await.unwrap_or(0);
            let mut data = Bytes::copy_from_slice(&buf[..n]);
            if n == 0 {
                let _ = send.send_data(Bytes::new(), true);
                return;
            }
            while !data.is_empty() {
                send.reserve_capacity(data.len());
                let Some(Ok(room)) = std::future::poll_fn(|cx| send.poll_capacity(cx)).await else { return };
                let part = data.split_to(room.min(data.len()));
                if send.send_data(part, false).is_err() {
                    return;
                }
            }
        }
    });
    near
}

/// Echoes WebSockets; `/no` is refused, `/chat` demands a subprotocol.
async fn serve(io: DuplexStream, allow: bool) {
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(20_000);
    if allow {
        builder.enable_connect_protocol();
    }
    let mut connection = builder.handshake::<_, Bytes>(io).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let protocol = request.extensions().get::<h2::ext::Protocol>().map(|protocol| protocol.as_str().to_owned());
        assert_eq!((request.method().as_str(), protocol.as_deref()), ("CONNECT", Some("websocket")));
        let (parts, body) = request.into_parts();
        if parts.uri.path() == "/no" {
            let response =
                Response::builder().status(StatusCode::FORBIDDEN).header("x-why", "policy").body(()).unwrap();
            let mut send = respond.send_response(response, false).unwrap();
            send.send_data(Bytes::from_static(b"not you"), true).unwrap();
            continue;
        }
        let options = Options::new().deflate(Deflate::new());
        let request = http::Request::from_parts(parts, ());
        let (response, options) = accept_extended(&request, options, &["chat"]).unwrap();
        let send = respond.send_response(response, false).unwrap();
        tokio::spawn(async move {
            let mut socket = WebSocket::from_stream(bridge(body, send), options.role(Role::Server));
            while let Ok(Some(message)) = socket.recv().await {
                if message.is_data() {
                    socket.send(message).await.unwrap();
                }
            }
        });
    }
}

fn client(allow: bool) -> SendRequest {
    let (ours, theirs) = duplex(64 << 10);
    tokio::spawn(serve(theirs, allow));
    let (client, connection) = handshake(ours, portolan_http2::Options::new()).unwrap();
    tokio::spawn(connection);
    client
}

#[tokio::test]
async fn many_websockets_share_one_connection_and_echo_what_is_larger_than_the_windows() {
    let client = client(true);
    let tasks: Vec<_> = (0..10u8)
        .map(|at| {
            let client = client.clone();
            tokio::spawn(async move {
                let request = Request::new("ws://example.test/echo").unwrap().subprotocol("chat").unwrap();
                let deflate = at % 2 == 0;
                let options = if deflate { Options::new().deflate(Deflate::new()) } else { Options::new() };
                let mut socket = WebSocket::connect_h2(&client, &request, options).await.unwrap();
                assert_eq!((socket.subprotocol(), socket.is_compressed()), (Some("chat"), deflate));
                let body = vec![at; 200_000];
                for _ in 0..3 {
                    socket.send(body.clone()).await.unwrap();
                    assert!(socket.recv().await.unwrap() == Some(body.clone().into()));
                }
                let last = socket.close(CloseCode::NORMAL, "").await.unwrap();
                assert_eq!(last.unwrap().code, CloseCode::NORMAL);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(client.status().active, 0);
}

#[tokio::test]
async fn a_refusal_carries_its_status_headers_and_body() {
    let request = Request::new("ws://example.test/no").unwrap();
    let error = WebSocket::connect_h2(&client(true), &request, Options::new()).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (Kind::Server, Some(403)));
    let rejected = error.server::<Rejected>().unwrap();
    assert_eq!((rejected.headers["x-why"].as_bytes(), &rejected.body[..]), (&b"policy"[..], &b"not you"[..]));
}

#[tokio::test]
async fn a_server_without_extended_connect_is_not_asked() {
    let request = Request::new("ws://example.test/").unwrap();
    let error = WebSocket::connect_h2(&client(false), &request, Options::new()).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Unsupported, portolan_core::Delivery::NotSent));
}

/// A server that speaks HTTP/2 without extended CONNECT, and upgrades on HTTP/1.1.
async fn half_modern(acceptor: TlsAcceptor, listener: TcpListener, seen: Arc<Mutex<Vec<&'static str>>>) {
    while let Ok((tcp, _)) = listener.accept().await {
        let mut tls = acceptor.accept(tcp).await.unwrap();
        if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
            seen.lock().unwrap().push("h2");
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(tls).await.unwrap();
                assert!(connection.accept().await.is_none_or(|call| call.is_err()), "it was asked all the same");
            });
            continue;
        }
        seen.lock().unwrap().push("http/1.1");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tls.read_u8().await.unwrap());
        }
        let mut request = http::Request::get("/");
        for line in String::from_utf8(head).unwrap().lines().skip(1) {
            if let Some((name, value)) = line.split_once(": ") {
                request = request.header(name, value);
            }
        }
        let (response, options) = accept(&request.body(()).unwrap(), Options::new(), &[]).unwrap();
        let mut answer = "HTTP/1.1 101 Switching Protocols\r\n".to_owned();
        for (name, value) in response.headers() {
            answer += &format!("{name}: {}\r\n", value.to_str().unwrap());
        }
        tls.write_all((answer + "\r\n").as_bytes()).await.unwrap();
        let mut socket = WebSocket::from_stream(tls, options);
        let message = socket.recv().await.unwrap().unwrap();
        socket.send(message).await.unwrap();
    }
}

#[tokio::test]
async fn the_http_client_upgrades_on_http_1_where_http_2_does_not_allow_it() {
    use portolan_http::Client;
    let (certs, seen) = (Certs::new(), Arc::new(Mutex::new(Vec::new())));
    let acceptor = ServerTls::new(&certs).alpn(["h2", "http/1.1"]).acceptor();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("wss://localhost:{}/", listener.local_addr().unwrap().port());
    tokio::spawn(half_modern(acceptor, listener, Arc::clone(&seen)));
    let tls = Tls::builder().roots(Roots::Custom).root_pem(certs.ca.as_bytes()).build().unwrap();
    let client = Client::builder().connector(Connector::builder().tls(tls).build().unwrap()).build().unwrap();
    let mut socket = WebSocket::open_with(&client, &Request::new(&url).unwrap(), Options::new()).await.unwrap();
    socket.send("by the old way").await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), Some("by the old way".into()));
    assert_eq!(*seen.lock().unwrap(), ["h2", "http/1.1"]);
}

#[tokio::test]
async fn a_dropped_websocket_frees_its_stream_and_the_connection_lives_on() {
    let client = client(true);
    let request = Request::new("ws://example.test/").unwrap();
    let mut socket = WebSocket::connect_h2(&client, &request, Options::new()).await.unwrap();
    socket.send("x").await.unwrap();
    drop(socket);
    let mut socket = WebSocket::connect_h2(&client, &request, Options::new()).await.unwrap();
    socket.send("y").await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), Some("y".into()));
    assert_eq!(client.status().active, 1);
    socket.send(Message::Close(Some(CloseFrame::new(CloseCode::GOING_AWAY, "")))).await.unwrap();
    assert!(matches!(socket.recv().await, Ok(Some(Message::Close(_)))));
    assert_eq!(socket.recv().await.unwrap(), None);
}
