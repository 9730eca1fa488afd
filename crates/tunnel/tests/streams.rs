//! Streams through the tunnel: what goes in comes out, in order, and the ends are told.

#![allow(
    clippy::disallowed_methods,
    clippy::large_futures,
    clippy::panic,
    clippy::unwrap_used,
    reason = "these are tests"
)]

mod support;

use std::time::Duration;

use portolan_core::{Connector, Credentials, Endpoint, Hop, Kind, Phase, Policy, Roots, Tls};
use portolan_db::redis::{Client, Options};
use portolan_testbed::rogue::{Rogue, Script};
use portolan_testbed::{Certs, ServerTls, Service, find, free_port, record};
use portolan_tunnel::gateway::{Access, Gateway, HIGH_WATER, Limits, Outcome};
use support::{Pattern, Running, echo, open, soon, target};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const LONG: usize = 64 << 20;
const BLOCK: usize = 256 << 10;

async fn send(mut to: impl AsyncWrite + Unpin, seed: u64, len: usize) {
    let (mut pattern, mut block) = (Pattern::new(seed), vec![0; BLOCK]);
    for _ in 0..len / BLOCK {
        pattern.fill(&mut block);
        to.write_all(&block).await.unwrap();
    }
    to.shutdown().await.unwrap();
}

async fn receive(mut from: impl AsyncRead + Unpin, seed: u64, len: usize) {
    let (mut pattern, mut expected, mut block) = (Pattern::new(seed), vec![0; BLOCK], vec![0; BLOCK]);
    for at in 0..len / BLOCK {
        from.read_exact(&mut block).await.unwrap();
        pattern.fill(&mut expected);
        assert!(block == expected, "block {at} differs");
    }
    assert_eq!(from.read(&mut block).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_mebibytes_go_both_ways_at_once() {
    let gateway = Running::start(open()).await;
    let peer = target(|tcp| async move {
        let (reader, writer) = tcp.into_split();
        tokio::join!(receive(reader, 1, LONG), send(writer, 2, LONG));
    })
    .await;
    let stream = gateway.stream(peer).await.unwrap();
    let (reader, writer) = tokio::io::split(stream);
    let (up, down) = (tokio::spawn(send(writer, 1, LONG)), tokio::spawn(receive(reader, 2, LONG)));
    tokio::time::timeout(Duration::from_secs(120), async { (up.await.unwrap(), down.await.unwrap()) }).await.unwrap();
    let metrics = gateway.empty().await;
    assert_eq!((metrics.bytes_up, metrics.bytes_down), (LONG as u64, LONG as u64));
    assert_eq!((metrics.ended(Outcome::Done), metrics.opened), (1, 1), "{metrics:?}");
    assert!(metrics.held_most <= HIGH_WATER, "{metrics:?}");
}

#[tokio::test]
async fn many_small_writes_keep_their_order() {
    let gateway = Running::start(open()).await;
    let mut stream = gateway.stream(echo().await).await.unwrap();
    let mut back = vec![0; 7];
    for at in 0..2000u32 {
        let said = format!("{at:07}");
        stream.write_all(said.as_bytes()).await.unwrap();
        soon("an echo", stream.read_exact(&mut back)).await.unwrap();
        assert_eq!(back, said.as_bytes());
    }
    stream.shutdown().await.unwrap();
    assert_eq!(soon("the end", stream.read(&mut back)).await.unwrap(), 0);
    assert_eq!(gateway.empty().await.ended(Outcome::Done), 1);
}

/// Writes until a write waits for half a second; says how much was taken.
async fn stuff(stream: &mut (impl AsyncWrite + Unpin), pattern: &mut Pattern) -> usize {
    let mut taken = 0;
    let mut block = vec![0; 64 << 10];
    loop {
        pattern.fill(&mut block);
        let mut left = &block[..];
        while !left.is_empty() {
            match tokio::time::timeout(Duration::from_millis(500), stream.write(left)).await {
                Ok(n) => {
                    let n = n.unwrap();
                    taken += n;
                    left = &left[n..];
                }
                Err(_) => return taken,
            }
        }
        assert!(taken < 256 << 20, "nobody reads, and it is taken all the same");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_stops_reading_holds_the_writer_and_the_gateway_stays_below_the_mark() {
    let gateway = Running::start(open()).await;
    let (go, going) = tokio::sync::watch::channel(false);
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let peer = target(move |mut tcp| {
        let (mut going, tell) = (going.clone(), tell.clone());
        async move {
            going.wait_for(|go| *go).await.unwrap();
            let mut all = Vec::new();
            tcp.read_to_end(&mut all).await.unwrap();
            tell.send(all).await.unwrap();
        }
    })
    .await;
    let mut stream = gateway.stream(peer).await.unwrap();
    let taken = stuff(&mut stream, &mut Pattern::new(9)).await;
    let metrics = gateway.gateway.metrics();
    assert!(metrics.held_most <= HIGH_WATER && metrics.held_most >= 64 << 10, "{metrics:?}");
    assert!(metrics.bytes_up < taken as u64, "the rest waits in sockets and at the client");
    go.send(true).unwrap();
    stream.shutdown().await.unwrap();
    let all = soon("all of it", told.recv()).await.unwrap();
    let mut expected = vec![0; taken.next_multiple_of(64 << 10)];
    let mut pattern = Pattern::new(9);
    expected.chunks_mut(64 << 10).for_each(|block| pattern.fill(block));
    assert!(all == expected[..taken], "{} of {taken} bytes", all.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stops_reading_holds_the_target() {
    let gateway = Running::start(open()).await;
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let peer = target(move |mut tcp| {
        let tell = tell.clone();
        async move {
            let taken = stuff(&mut tcp, &mut Pattern::new(5)).await;
            tell.send(taken).await.unwrap();
            tcp.shutdown().await.unwrap();
            let _ = tcp.read(&mut [0]).await;
        }
    })
    .await;
    let mut stream = gateway.stream(peer).await.unwrap();
    let taken = soon("the target waits", told.recv()).await.unwrap();
    assert!(gateway.gateway.metrics().held_most <= HIGH_WATER);
    let mut all = Vec::new();
    soon("all of it", stream.read_to_end(&mut all)).await.unwrap();
    let mut expected = vec![0; taken.next_multiple_of(64 << 10)];
    let mut pattern = Pattern::new(5);
    expected.chunks_mut(64 << 10).for_each(|block| pattern.fill(block));
    assert!(all == expected[..taken]);
}

#[tokio::test]
async fn either_side_may_end_first_and_hear_the_other_out() {
    let gateway = Running::start(open()).await;
    // The client ends, the target answers after that.
    let late = target(|mut tcp| async move {
        let mut all = Vec::new();
        tcp.read_to_end(&mut all).await.unwrap();
        tcp.write_all(format!("{} bytes", all.len()).as_bytes()).await.unwrap();
    })
    .await;
    let mut stream = gateway.stream(late).await.unwrap();
    stream.write_all(b"question").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut said = String::new();
    soon("an answer", stream.read_to_string(&mut said)).await.unwrap();
    assert_eq!(said, "8 bytes");
    assert_eq!(stream.write(b"x").await.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    // The target ends, the client speaks after that.
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let early = target(move |mut tcp| {
        let tell = tell.clone();
        async move {
            tcp.write_all(b"bye").await.unwrap();
            tcp.shutdown().await.unwrap();
            let mut all = String::new();
            tcp.read_to_string(&mut all).await.unwrap();
            tell.send(all).await.unwrap();
        }
    })
    .await;
    let mut stream = gateway.stream(early).await.unwrap();
    let mut said = String::new();
    soon("a goodbye", stream.read_to_string(&mut said)).await.unwrap();
    assert_eq!(said, "bye");
    stream.write_all(b"one more thing").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(soon("it", told.recv()).await.unwrap(), "one more thing");
    assert_eq!(gateway.empty().await.ended(Outcome::Done), 2);
}

#[tokio::test]
async fn a_reset_target_is_an_error_and_no_end() {
    let gateway = Running::start(open()).await;
    let peer = Rogue::tcp(Script::new().expect("hello").reset()).await;
    let mut stream = gateway.stream(peer.addr()).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let error = soon("an error", stream.read(&mut [0; 8])).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    assert!(error.to_string().contains("4503"), "{error}");
    assert_eq!(gateway.empty().await.ended(Outcome::TargetReset), 1);
}

fn redis() -> Option<(portolan_testbed::Server, Endpoint)> {
    let port = free_port();
    let number = port.to_string();
    let server = Service::new("redis-server", "redis-server")
        .args(["--port", &number, "--bind", "127.0.0.1", "--save", "", "--dir", "$D"])
        .accepts(([127, 0, 0, 1], port).into())
        .start()?;
    Some((server, Endpoint::new("localhost", port).unwrap()))
}

async fn pass(net: &Connector, to: &Endpoint, kinds: &[&str]) {
    let client = Client::connect(net, Options::new(to.clone())).await.unwrap();
    client.set("k", "through").await.unwrap();
    assert_eq!(client.get::<String>("k").await.unwrap(), "through");
    let info = client.info().unwrap();
    assert_eq!(info.hops.iter().map(|hop| hop.kind).collect::<Vec<_>>(), kinds);
    assert!(info.timings.hops.is_some() && info.tls.is_none());
    client.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_through_tls_with_a_login_and_in_chains_with_socks() {
    let Some((_redis, to)) = redis() else { return };
    let certs = Certs::new();
    let secure = Running::start(
        open().tls(ServerTls::new(&certs).alpn(["http/1.1"]).config().into()).path("/tcp").authenticate(
            |attempt| async move {
                let known = attempt.is_basic(&Credentials::new("ann", "sesame"));
                if known { Access::allow("ann") } else { Access::ask_basic() }
            },
        ),
    )
    .await;
    let tls = Tls::builder().roots(Roots::Custom).root_pem(certs.ca.as_bytes()).build().unwrap();
    let url = |login: &str| format!("wss+tunnel://{login}localhost:{}/tcp", secure.addr.port());
    let hop = portolan_tunnel::hop(&url("ann:sesame@")).unwrap();
    assert_eq!(format!("{hop:?}"), format!("wss+tunnel://ann:***@localhost:{}", secure.addr.port()));
    let via = |hops: &[Hop]| {
        let net = hops.iter().fold(Connector::builder(), |net, hop| net.via(hop.clone()));
        net.hop_tls(tls.clone()).build().unwrap()
    };
    pass(&via(std::slice::from_ref(&hop)), &to, &["wss+tunnel"]).await;
    record("ws-tunnel", "hop", "portolan gateway", "TLS, basic login, redis inside", 4);
    for login in ["", "ann:wrong@"] {
        let net = via(&[portolan_tunnel::hop(&url(login)).unwrap()]);
        let error = net.connect(&to).await.unwrap_err();
        assert_eq!((error.kind(), error.code(), error.hop()), (Kind::Auth, Some(401), Some(0)), "{error:?}");
        assert_eq!(error.phase(), Some(Phase::Hop));
        assert!(!format!("{error:?}").contains("wrong"));
    }
    let port = free_port();
    if find("microsocks", "microsocks").is_none() {
        return;
    }
    let number = port.to_string();
    let Some(_socks) = Service::new("microsocks", "microsocks")
        .args(["-i", "127.0.0.1", "-p", &number])
        .accepts(([127, 0, 0, 1], port).into())
        .start()
    else {
        return;
    };
    let socks = Hop::socks5h(Endpoint::new("127.0.0.1", port).unwrap());
    pass(&via(&[socks.clone(), hop.clone()]), &to, &["socks5h", "wss+tunnel"]).await;
    pass(&via(&[hop.clone(), socks.clone()]), &to, &["wss+tunnel", "socks5h"]).await;
    let plain = Running::start(open()).await;
    pass(&via(&[hop, socks, plain.hop()]), &to, &["wss+tunnel", "socks5h", "ws+tunnel"]).await;
    assert_eq!(secure.gateway.metrics().unauthorized, 2);
}

#[tokio::test]
async fn what_the_gateway_says_no_to_is_a_typed_error_that_names_the_hop() {
    let peer = echo().await;
    let closed = Endpoint::new("127.0.0.1", free_port()).unwrap();
    let strict = Running::start(Gateway::builder().anyone()).await;
    let error = strict.stream(peer).await.unwrap_err();
    assert_eq!((error.kind(), error.code(), error.hop()), (Kind::Blocked, Some(4403), Some(0)), "{error:?}");
    // A name that leads to a forbidden address is seen through.
    let net = strict.net();
    let error = net.connect(&Endpoint::new("localhost", peer.port()).unwrap()).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (Kind::Blocked, Some(4403)), "{error:?}");
    let loose = Running::start(open()).await;
    let error = loose.net().connect(&closed).await.unwrap_err();
    assert_eq!((error.kind(), error.code(), error.hop()), (Kind::Hop, Some(4502), Some(0)), "{error:?}");
    let error = loose.net().connect(&Endpoint::new("no-such-name.invalid", 1).unwrap()).await.unwrap_err();
    assert_eq!((error.kind(), error.code(), error.hop()), (Kind::Resolve, Some(4404), Some(0)), "{error:?}");
    let full = Running::start(open().limits(Limits::new().max_tunnels(0))).await;
    let error = full.stream(peer).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (Kind::Hop, Some(503)), "{error:?}");
    assert_eq!(error.retry_after(), Some(Duration::from_secs(5)));
    // The caller's own policy keeps its word: the name is resolved here.
    let own = Connector::builder().via(loose.hop()).policy(Policy::public_only()).hop_policy(Policy::any());
    let error = own.build().unwrap().connect(&Endpoint::from(peer)).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (Kind::Blocked, None), "{error:?}");
}
