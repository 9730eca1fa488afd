//! The gateway, met by a client that speaks WebSocket by hand: refusals, limits, ends in every order, shutdown.

#![allow(
    clippy::disallowed_methods,
    clippy::large_futures,
    clippy::panic,
    clippy::unwrap_used,
    reason = "these are tests"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use portolan_core::{
    BoxFuture, Connector, Datagram, Dial, DialContext, Endpoint, Error, Hop, Place, Policy, Result, Stream,
};
use portolan_testbed::rogue::{Rogue, Script};
use portolan_tunnel::gateway::{Access, Gateway, HIGH_WATER, Limits, Outcome};
use portolan_tunnel::{FIN, OPEN, SUBPROTOCOL, TARGET};
use portolan_websocket::{CloseCode, Message, Options, Rejected, Request, WebSocket};
use support::{Running, close_code, echo, handshake, open, soon, target, word};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The status of a refusal.
fn status(error: &Error) -> u16 {
    error.server::<Rejected>().unwrap_or_else(|| panic!("{error:?}")).status.as_u16()
}

async fn ask(gateway: &Running, change: impl FnOnce(Request) -> Request) -> Result<WebSocket<Stream>> {
    let request = Request::new("ws://gateway/tcp").unwrap().header(TARGET, &echo().await.to_string()).unwrap();
    let tcp = Stream::from_tcp(TcpStream::connect(gateway.addr).await.unwrap());
    WebSocket::handshake(tcp, &change(request.subprotocol(SUBPROTOCOL).unwrap()), Options::new()).await
}

#[tokio::test]
async fn origin_and_authentication_are_asked_and_the_hook_decides() {
    let hook = |attempt: portolan_tunnel::gateway::Attempt| async move {
        assert!(!format!("{attempt:?}").contains("sesame"));
        match attempt.bearer() {
            Some(token) if token.expose() == "sesame" => Access::allow("ann"),
            Some(_) => Access::Forbidden,
            None => Access::Unauthorized("Bearer".to_owned()),
        }
    };
    let gateway = Running::start(
        Gateway::builder().policy(Policy::any()).authenticate(hook).origins(["https://app.example"]).path("/tcp"),
    )
    .await;
    let bearer = |request: Request, token: &str| request.bearer_auth(&token.into()).unwrap();
    let mut socket = ask(&gateway, |request| bearer(request, "sesame")).await.unwrap();
    assert_eq!(word(&mut socket).await, OPEN);
    drop(socket);
    let error = ask(&gateway, |request| request).await.unwrap_err();
    assert_eq!(status(&error), 401);
    assert_eq!(error.server::<Rejected>().unwrap().headers["www-authenticate"], "Bearer");
    assert_eq!(status(&ask(&gateway, |request| bearer(request, "wrong")).await.unwrap_err()), 403);
    let from = |origin: &'static str| move |request: Request| bearer(request, "sesame").origin(origin).unwrap();
    ask(&gateway, from("https://APP.example")).await.unwrap();
    for origin in ["https://evil.example", "null", "https://app.example.evil.example"] {
        assert_eq!(status(&ask(&gateway, from(origin)).await.unwrap_err()), 403, "{origin}");
    }
    let metrics = gateway.empty().await;
    assert_eq!((metrics.unauthorized, metrics.foreign_origin, metrics.opened), (2, 3, 2), "{metrics:?}");
}

#[tokio::test]
async fn a_gateway_that_asks_nobody_is_a_decision() {
    assert!(Gateway::builder().build().is_err());
}

#[tokio::test]
async fn what_is_no_upgrade_is_answered_and_let_go() {
    let gateway = Running::start(open().path("/tcp")).await;
    let upgrade = "Host: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let ours = format!("Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n");
    let long = format!("GET /tcp HTTP/1.1\r\nx: {}", "x".repeat(20_000));
    for (head, expected) in [
        ("GET /tcp HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "426"),
        (format!("POST /tcp HTTP/1.1\r\n{upgrade}{ours}\r\n"), "426"),
        (format!("GET /other HTTP/1.1\r\n{upgrade}{ours}\r\n"), "404"),
        (format!("GET /tcp HTTP/1.1\r\n{upgrade}tunnel-target: a:1\r\n\r\n"), "400"),
        (format!("GET /tcp HTTP/1.1\r\n{upgrade}{ours}\r\n"), "400"),
        (format!("GET /tcp HTTP/1.1\r\n{upgrade}{ours}tunnel-target: unix:/run/x\r\n\r\n"), "400"),
        ("GET /tcp HTTP/1.0\r\n\r\n".to_owned(), "400"),
        ("\x16\x03\x01\x02\x00\x01\x00\r\n\r\n".to_owned(), "400"),
        (long, "400"),
    ] {
        let mut tcp = TcpStream::connect(gateway.addr).await.unwrap();
        tcp.write_all(head.as_bytes()).await.unwrap();
        let mut said = String::new();
        soon("an answer", tcp.read_to_string(&mut said)).await.unwrap();
        assert!(said.starts_with(&format!("HTTP/1.1 {expected} ")), "{head:.60} gave {said:.60}");
    }
    let metrics = gateway.until("all are refused", |metrics| metrics.refused == 9).await;
    assert_eq!((metrics.active, metrics.opened), (0, 0));
}

/// A way that never leads anywhere.
#[derive(Debug)]
struct Nowhere;

impl Dial for Nowhere {
    fn dial<'a>(&'a self, _: &'a Endpoint, _: &'a DialContext) -> BoxFuture<'a, Result<Stream>> {
        Box::pin(std::future::pending())
    }

    fn datagram<'a>(&'a self, _: &'a Endpoint, _: &'a DialContext) -> BoxFuture<'a, Result<Datagram>> {
        Box::pin(std::future::pending())
    }
}

fn nowhere() -> Connector {
    let factory = |_: Place, _: Arc<dyn Dial>| -> Arc<dyn Dial> { Arc::new(Nowhere) };
    let hop = Hop::custom("nowhere", Endpoint::new("192.0.2.1", 1).unwrap(), Arc::new(factory));
    Connector::builder().via(hop).build().unwrap()
}

/// A gateway on an in-memory pipe: time may be held still.
async fn piped(gateway: &Gateway, target: &str) -> WebSocket<Stream> {
    let (near, far) = tokio::io::duplex(64 << 10);
    let gateway = gateway.clone();
    tokio::spawn(async move { gateway.handle(Stream::from_io(far), "192.0.2.9:9".parse().unwrap()).await });
    handshake(Stream::from_io(near), target).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn opening_takes_ten_seconds_at_most_and_does_not_hold_up_the_upgrade() {
    let gateway = open().connector(nowhere()).build().unwrap();
    let started = tokio::time::Instant::now();
    let mut socket = piped(&gateway, "192.0.2.2:2").await;
    assert_eq!(started.elapsed(), Duration::ZERO, "101 came before the target");
    socket.send(Bytes::from_static(b"early")).await.unwrap();
    assert_eq!(close_code(&mut socket).await, 4504);
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(10) && took < Duration::from_secs(11), "{took:?}");
    drop(socket);
    gateway.shutdown(Duration::ZERO).await;
    let metrics = gateway.metrics();
    assert_eq!((metrics.ended(Outcome::NotOpened), metrics.opened, metrics.active), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn bytes_sent_before_the_target_is_there_are_held_below_the_mark() {
    let gateway = open().connector(nowhere()).build().unwrap();
    let mut socket = piped(&gateway, "192.0.2.2:2").await;
    let mut sent = 0;
    while sent < 8 << 20 {
        let send = socket.send(Bytes::from(vec![1; 64 << 10]));
        if tokio::time::timeout(Duration::from_secs(1), send).await.is_err() {
            break;
        }
        sent += 64 << 10;
    }
    assert!(sent < HIGH_WATER, "{sent} bytes were taken though nobody reads");
    assert!(gateway.metrics().held_most <= HIGH_WATER, "{:?}", gateway.metrics());
    // The client goes while the target is being opened: everything is let go at once.
    drop(socket);
    gateway.shutdown(Duration::from_secs(1)).await;
    assert_eq!(gateway.metrics().active, 0);
}

#[tokio::test(start_paused = true)]
async fn idle_and_old_tunnels_are_closed_and_say_why() {
    let peer = || async {
        let factory = |_: Place, _: Arc<dyn Dial>| -> Arc<dyn Dial> { Arc::new(Silent) };
        let hop = Hop::custom("silent", Endpoint::new("192.0.2.1", 1).unwrap(), Arc::new(factory));
        open().connector(Connector::builder().via(hop).build().unwrap())
    };
    let idle = peer().await.limits(Limits::new().idle(Duration::from_secs(30))).build().unwrap();
    let started = tokio::time::Instant::now();
    let mut socket = piped(&idle, "192.0.2.2:2").await;
    assert_eq!(word(&mut socket).await, OPEN);
    tokio::time::sleep(Duration::from_secs(20)).await;
    socket.send(Bytes::from_static(b"not idle")).await.unwrap();
    assert_eq!(close_code(&mut socket).await, 4408);
    assert_eq!(started.elapsed().as_secs(), 50);
    let old = peer().await.limits(Limits::new().idle(None).lifetime(Duration::from_secs(90))).build().unwrap();
    let started = tokio::time::Instant::now();
    let mut socket = piped(&old, "192.0.2.2:2").await;
    assert_eq!(word(&mut socket).await, OPEN);
    assert_eq!(close_code(&mut socket).await, 4410);
    assert_eq!(started.elapsed().as_secs(), 90);
}

/// A way to a target that takes all and says nothing.
#[derive(Debug)]
struct Silent;

impl Dial for Silent {
    fn dial<'a>(&'a self, _: &'a Endpoint, _: &'a DialContext) -> BoxFuture<'a, Result<Stream>> {
        let (near, mut far) = tokio::io::duplex(1 << 10);
        tokio::spawn(async move {
            let _ = tokio::io::copy(&mut far, &mut tokio::io::sink()).await;
            std::future::pending::<()>().await;
        });
        Box::pin(std::future::ready(Ok(Stream::from_io(near))))
    }

    fn datagram<'a>(&'a self, _: &'a Endpoint, _: &'a DialContext) -> BoxFuture<'a, Result<Datagram>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn limits_of_bytes_tunnels_and_clients_hold() {
    let peer = echo().await.to_string();
    let bytes = Running::start(open().limits(Limits::new().bytes(10_000))).await;
    let mut socket = bytes.socket(&peer).await.unwrap();
    assert_eq!(word(&mut socket).await, OPEN);
    socket.send(Bytes::from(vec![1; 10_001])).await.unwrap();
    assert_eq!(close_code(&mut socket).await, 4413);
    let few = Running::start(open().limits(Limits::new().max_tunnels(2))).await;
    let (first, _second) = (few.socket(&peer).await.unwrap(), few.socket(&peer).await.unwrap());
    assert_eq!(status(&few.socket(&peer).await.unwrap_err()), 503);
    drop(first);
    few.until("a place is free", |metrics| metrics.active == 1).await;
    few.socket(&peer).await.unwrap();
    let fair = Running::start(open().limits(Limits::new().max_per_client(1))).await;
    let only = fair.socket(&peer).await.unwrap();
    assert_eq!(status(&fair.socket(&peer).await.unwrap_err()), 429);
    drop(only);
    fair.empty().await;
    fair.socket(&peer).await.unwrap();
    assert_eq!((few.gateway.metrics().over_limit, fair.gateway.metrics().over_limit), (1, 1));
}

#[tokio::test]
async fn a_close_delivers_what_was_sent_before_it_even_before_the_target_is_there() {
    let gateway = Running::start(open()).await;
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let peer = target(move |mut tcp| {
        let tell = tell.clone();
        async move {
            let mut all = Vec::new();
            tcp.read_to_end(&mut all).await.unwrap();
            tell.send(all.len()).await.unwrap();
        }
    })
    .await
    .to_string();
    for wait in [false, true] {
        let mut socket = gateway.socket(&peer).await.unwrap();
        if wait {
            assert_eq!(word(&mut socket).await, OPEN);
        }
        socket.send(Bytes::from(vec![1; 3 << 20])).await.unwrap();
        soon("the goodbye", socket.close(CloseCode::NORMAL, "")).await.unwrap();
        assert_eq!(soon("all of it", told.recv()).await, Some(3 << 20));
    }
    assert_eq!(gateway.empty().await.ended(Outcome::Done), 2);
}

#[tokio::test]
async fn ends_in_every_order_leave_nothing() {
    let gateway = Running::start(open()).await;
    let peer = echo().await.to_string();
    let opened = || async {
        let mut socket = gateway.socket(&peer).await.unwrap();
        assert_eq!(word(&mut socket).await, OPEN);
        socket
    };
    // FIN, then the target's FIN, then 1000.
    let mut socket = opened().await;
    socket.send(FIN).await.unwrap();
    assert_eq!(word(&mut socket).await, FIN);
    assert_eq!(close_code(&mut socket).await, 1000);
    // FIN and Close at once.
    let mut socket = opened().await;
    socket.feed(Bytes::from_static(b"x")).await.unwrap();
    socket.feed(FIN).await.unwrap();
    soon("a goodbye", socket.close(CloseCode::NORMAL, "")).await.unwrap();
    // A Close without a FIN, without a code, and from one who goes away.
    for frame in [None, Some(CloseCode::GOING_AWAY)] {
        let mut socket = opened().await;
        let frame = frame.map(|code| portolan_websocket::CloseFrame::new(code, ""));
        socket.send(Message::Close(frame)).await.unwrap();
        while soon("the end", socket.recv()).await.unwrap().is_some() {}
    }
    let metrics = gateway.empty().await;
    assert_eq!(metrics.ended(Outcome::Done), 4, "{metrics:?}");
    // No Close at all, before and after the target is there.
    drop(opened().await);
    drop(gateway.socket(&peer).await.unwrap());
    let metrics = gateway.until("both are missed", |metrics| metrics.ended(Outcome::ClientLost) == 2).await;
    assert_eq!(metrics.active, 0);
    // Rules broken: bytes after the end, a second end, an unknown word.
    for (messages, code) in [
        (vec![Message::from(FIN), Message::from(Bytes::from_static(b"x"))], 1002),
        (vec![Message::from(FIN), Message::from(FIN)], 1002),
        (vec![Message::from("hello")], 1003),
        (vec![Message::from("x".repeat(100_000))], 1003),
    ] {
        let silent = target(|tcp| async move { drop((tokio::time::sleep(support::SOON).await, tcp)) }).await;
        let mut socket = gateway.socket(&silent.to_string()).await.unwrap();
        assert_eq!(word(&mut socket).await, OPEN);
        for message in messages {
            socket.send(message).await.unwrap();
        }
        assert_eq!(close_code(&mut socket).await, code);
    }
    assert_eq!(gateway.empty().await.ended(Outcome::Violation), 4);
}

#[tokio::test]
async fn rogue_clients_at_every_stage_leave_nothing() {
    let gateway = Running::start(open().limits(Limits::new().handshake(Duration::from_millis(300)))).await;
    let head = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n{TARGET}: {}\r\n\r\n",
        echo().await
    );
    let run = |script: Script| async move {
        let tcp = TcpStream::connect(gateway.addr).await.unwrap();
        soon("the script", script.run(tcp)).await
    };
    let run = &run;
    // In the head: cut, reset, or silent until the gateway has had enough.
    for at in [0, 1, 30, head.len() - 1] {
        run(Script::new().send(&head[..at]).close()).await;
        run(Script::new().send(&head[..at]).reset()).await;
        run(Script::new().send(&head[..at]).expect_close()).await.assert_done();
    }
    // In the conversation: half a frame, a frame without a mask, a reserved opcode, an endless frame that is announced
    // and cut.
    let opened = || Script::new().send(&head).expect_until("\x04open");
    run(opened().send([0x82]).close()).await;
    run(opened().send([0x82, 0x85, 1, 2]).reset()).await;
    for wrong in [&[0x82, 0x01, b'x'][..], &[0x83, 0x80, 0, 0, 0, 0], &[0xf2, 0x80, 0, 0, 0, 0]] {
        let heard = run(opened().send(wrong).expect_until([0x03, 0xea]).skip()).await;
        heard.assert_done();
    }
    run(opened()
        .send([0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, b'x'])
        .expect_some()
        .close())
    .await
    .assert_done();
    run(Script::new().send(&head).reset()).await;
    let metrics = gateway.empty().await;
    assert!(metrics.ended(Outcome::Violation) == 3 && metrics.held_most <= HIGH_WATER, "{metrics:?}");
}

#[tokio::test]
async fn rogue_gateways_are_typed_errors_in_time() {
    use portolan_core::{Kind, Timeouts};
    let accept = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
    let upgraded = |extra: &'static str, then: &'static [u8]| {
        Script::new().expect_until("\r\n\r\n").answer(move |head| {
            let head = String::from_utf8_lossy(head);
            let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap().trim().to_owned();
            let request = http::Request::get("/").header("upgrade", "websocket").header("connection", "Upgrade");
            let request =
                request.header("sec-websocket-key", key).header("sec-websocket-version", "13").body(()).unwrap();
            let (answer, _) = portolan_websocket::handshake::accept(&request, Options::new(), &[]).unwrap();
            let accepted = answer.headers()["sec-websocket-accept"].to_str().unwrap();
            [format!("{accept}Sec-WebSocket-Accept: {accepted}\r\n{extra}\r\n").as_bytes(), then].concat()
        })
    };
    let ours = "Sec-WebSocket-Protocol: tcp-tunnel.v1\r\n";
    for (name, script, kind, code) in [
        ("closes at once", Script::new().close(), Kind::Hop, None),
        ("is silent", Script::new().stall(), Kind::Timeout, None),
        (
            "says 200",
            Script::new().expect_until("\r\n\r\n").send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").close(),
            Kind::Hop,
            Some(200),
        ),
        (
            "says 407",
            Script::new().expect_until("\r\n\r\n").send("HTTP/1.1 407 No\r\ncontent-length: 0\r\n\r\n").close(),
            Kind::Auth,
            Some(407),
        ),
        ("is no gateway", upgraded("", b"\x81\x04open").stall(), Kind::Hop, None),
        ("never opens", upgraded(ours, b"").stall(), Kind::Timeout, None),
        ("sends bytes too early", upgraded(ours, b"\x82\x01x").stall(), Kind::Hop, None),
        ("says another word", upgraded(ours, b"\x81\x04okay").stall(), Kind::Hop, None),
        ("says endless words", upgraded(ours, b"\x81\x7e\x7f\xffopenopenopenopenopen").stall(), Kind::Hop, None),
        ("closes without a reason", upgraded(ours, b"\x88\x00").close(), Kind::Hop, None),
        ("is cut in a frame", upgraded(ours, b"\x81\x04op").close(), Kind::Hop, None),
        ("masks", upgraded(ours, b"\x81\x84\0\0\0\0open").close(), Kind::Hop, None),
    ] {
        let rogue = Rogue::tcp(script).await;
        let net = Connector::builder()
            .via(portolan_tunnel::hop(&format!("ws+tunnel://ann:sesame@{}/", rogue.addr())).unwrap())
            .timeouts(Timeouts::default().hop(Duration::from_millis(700)))
            .build()
            .unwrap();
        let to = Endpoint::new("target.example", 1).unwrap();
        let error = soon(name, net.connect(&to)).await.unwrap_err();
        assert_eq!((error.kind(), error.hop()), (kind, Some(0)), "{name}: {error:?}");
        assert!(code.is_none() || error.code() == code, "{name}: {error:?}");
        assert!(!format!("{error:?}").contains("sesame"), "{name}");
    }
}

#[tokio::test]
async fn shutdown_accepts_nothing_more_waits_for_the_busy_and_closes_the_rest_with_1001() {
    let gateway = Running::start(open()).await;
    let peer = echo().await.to_string();
    let (mut done, mut stays) = (gateway.socket(&peer).await.unwrap(), gateway.socket(&peer).await.unwrap());
    assert_eq!((word(&mut done).await.as_str(), word(&mut stays).await.as_str()), (OPEN, OPEN));
    let closing = gateway.gateway.clone();
    let shutdown = tokio::spawn(async move { closing.shutdown(Duration::from_secs(1)).await });
    // While it drains, tunnels work on.
    done.send(Bytes::from_static(b"still here")).await.unwrap();
    assert_eq!(soon("an echo", done.recv()).await.unwrap(), Some(Message::from(Bytes::from_static(b"still here"))));
    done.send(FIN).await.unwrap();
    assert_eq!(close_code(&mut done).await, 1000);
    assert_eq!(close_code(&mut stays).await, 1001);
    while let Ok(Some(_)) = stays.recv().await {}
    soon("the shutdown", shutdown).await.unwrap();
    let metrics = gateway.gateway.metrics();
    assert_eq!((metrics.active, metrics.ended(Outcome::GoingAway), metrics.ended(Outcome::Done)), (0, 1, 1));
    assert!(TcpStream::connect(gateway.addr).await.is_err(), "the listener is gone");
}

#[tokio::test]
async fn shutdown_takes_no_longer_for_a_client_that_does_not_answer() {
    let limits = Limits::new().close(Duration::from_millis(200));
    let gateway = Running::start(open().limits(limits)).await;
    let mut mute = gateway.socket(&echo().await.to_string()).await.unwrap();
    assert_eq!(word(&mut mute).await, OPEN);
    let started = std::time::Instant::now();
    soon("the shutdown", gateway.gateway.shutdown(Duration::ZERO)).await;
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(gateway.gateway.metrics().active, 0);
    assert_eq!(close_code(&mut mute).await, 1001);
}
