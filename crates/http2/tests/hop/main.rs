//! HTTP/2 proxies as hops, against a scripted proxy on the h2 crate.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::large_futures,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "these are tests"
)]

mod proxy;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portolan_core::{Connector, Credentials, Endpoint, Error, Hop, Kind, Phase, ProxyAuth, Roots, Timeouts, Tls};
use portolan_http2::hop::{Proxy as Made, connect};
use portolan_testbed::Certs;
use proxy::{How, Proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

/// A target that gives back what it gets, and counts who came.
async fn echo() -> (Endpoint, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = Endpoint::from(listener.local_addr().unwrap());
    let came = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&came);
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let (mut from, mut to) = tcp.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
        }
    });
    (to, came)
}

fn net(hop: Hop) -> Connector {
    let timeouts = Timeouts::default().hop(Duration::from_millis(1500));
    Connector::builder().via(hop).timeouts(timeouts).build().unwrap()
}

fn clear(proxy: &Proxy) -> Hop {
    connect(&format!("http://{}", proxy.addr)).unwrap()
}

async fn through(net: &Connector, to: &Endpoint, word: &str) -> Result<portolan_core::Stream, Error> {
    let mut stream = net.connect(to).await?;
    stream.write_all(word.as_bytes()).await.unwrap();
    let mut back = vec![0; word.len()];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(back, word.as_bytes());
    Ok(stream)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("{what}");
}

#[tokio::test]
async fn fifty_tunnels_share_one_connection_and_one_dropped_leaves_the_others() {
    let (to, _) = echo().await;
    let proxy = Proxy::new(How::Tunnel).await;
    let net = net(clear(&proxy));
    let dials = (0..50).map(|n| {
        let (net, to) = (net.clone(), to.clone());
        tokio::spawn(async move { through(&net, &to, &format!("word {n}")).await.unwrap() })
    });
    let mut tunnels = Vec::new();
    for dial in dials.collect::<Vec<_>>() {
        tunnels.push(dial.await.unwrap());
    }
    assert_eq!(proxy.connections(), 1);
    let info = tunnels[49].info();
    assert_eq!((info.hops.len(), info.hops[0].kind), (1, "h2c"));
    assert_eq!((info.hops[0].authority.clone(), info.peer), (proxy.addr.to_string(), Some(proxy.addr)));
    assert!(info.timings.hops.is_some() && info.tls.is_none());
    assert_eq!(tunnels.iter().filter(|tunnel| !tunnel.info().hops[0].reused).count(), 1);
    drop(tunnels.pop());
    until("the dropped one is reset", || proxy.resets.load(Ordering::SeqCst) == 1).await;
    for tunnel in &mut tunnels {
        tunnel.write_all(b"again").await.unwrap();
        let mut back = [0; 5];
        tunnel.read_exact(&mut back).await.unwrap();
        // An end of ours alone still lets the answer come.
        tunnel.write_all(b"last").await.unwrap();
        tunnel.shutdown().await.unwrap();
        let mut rest = Vec::new();
        tunnel.read_to_end(&mut rest).await.unwrap();
        assert_eq!((&back, &rest[..]), (b"again", &b"last"[..]));
    }
    assert_eq!((proxy.connections(), proxy.resets.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test]
async fn a_large_exchange_passes_both_ways_at_once() {
    let (to, _) = echo().await;
    let proxy = Proxy::new(How::Tunnel).await;
    let stream = net(clear(&proxy)).connect(&to).await.unwrap();
    let (mut from, mut into) = tokio::io::split(stream);
    let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let copy = sent.clone();
    let write = tokio::spawn(async move {
        into.write_all(&copy).await.unwrap();
        into.shutdown().await.unwrap();
    });
    let mut back = Vec::new();
    from.read_to_end(&mut back).await.unwrap();
    write.await.unwrap();
    assert!(back == sent);
}

#[tokio::test]
async fn a_full_connection_is_joined_by_another_and_a_draining_one_is_replaced() {
    let (to, _) = echo().await;
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(2);
    let proxy = Proxy::with(How::Tunnel, builder, None).await;
    let full = net(clear(&proxy));
    let mut tunnels = Vec::new();
    for n in 0..5 {
        tunnels.push(through(&full, &to, &format!("word {n}")).await.unwrap());
    }
    assert_eq!(proxy.connections(), 3);
    drop(tunnels);
    let proxy = Proxy::new(How::GoAway).await;
    let draining = net(clear(&proxy));
    let mut first = through(&draining, &to, "one").await.unwrap();
    let second = through(&draining, &to, "two").await.unwrap();
    assert_eq!(proxy.connections(), 2);
    assert!(!second.info().hops[0].reused);
    first.write_all(b"still").await.unwrap();
    let mut back = [0; 5];
    first.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"still");
}

#[tokio::test]
async fn a_connection_that_died_unseen_is_replaced_at_once() {
    let (to, _) = echo().await;
    let proxy = Proxy::new(How::Tunnel).await;
    // Between us and the proxy, to be cut.
    let middle = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, real) = (middle.local_addr().unwrap(), proxy.addr);
    let cut = Arc::new(tokio::sync::Notify::new());
    let when = Arc::clone(&cut);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = middle.accept().await {
            let when = Arc::clone(&when);
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(real).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    () = when.notified() => near.set_zero_linger().unwrap(),
                }
            });
        }
    });
    let net = net(connect(&format!("http://{addr}")).unwrap());
    let mut first = through(&net, &to, "one").await.unwrap();
    cut.notify_one();
    let second = through(&net, &to, "two").await.unwrap();
    assert!(!second.info().hops[0].reused);
    let error = first.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(proxy.connections(), 2);
}

#[tokio::test]
async fn credentials_go_with_each_request_and_are_never_shown() {
    let (to, _) = echo().await;
    let proxy = Proxy::new(How::Tunnel).await;
    let hop = connect(&format!("http://ann:sesame@{}", proxy.addr)).unwrap();
    assert_eq!(format!("{hop:?}"), format!("h2c://ann:***@{}", proxy.addr));
    through(&net(hop), &to, "basic").await.unwrap();
    let bearer = Made::cleartext(proxy.addr.into()).bearer("t0ken").header("x-tenant", "7").unwrap();
    assert!(!format!("{bearer:?}").contains("t0ken"));
    through(&net(bearer.hop()), &to, "bearer").await.unwrap();
    let asked = proxy.asked.lock().unwrap().clone();
    assert_eq!(asked[0], (to.authority(), Some("Basic YW5uOnNlc2FtZQ==".to_owned())));
    assert_eq!(asked[1], (to.authority(), Some("Bearer t0ken".to_owned())));
    let split = Made::cleartext(proxy.addr.into()).header("x", "a\r\nb").unwrap_err();
    assert_eq!(split.kind(), Kind::Usage);
}

#[tokio::test]
async fn digest_is_learnt_once_and_answered_on_the_same_connection() {
    let (to, _) = echo().await;
    let challenge = "Basic realm=\"r\", Digest realm=\"r\", nonce=\"n\", qop=\"auth\", algorithm=SHA-256";
    let proxy = Proxy::new(How::Digest(challenge)).await;
    let ann = || Credentials::new("ann", "sesame");
    let net = net(Made::cleartext(proxy.addr.into()).auth(ProxyAuth::strongest(ann())).hop());
    for _ in 0..3 {
        through(&net, &to, "digest").await.unwrap();
    }
    let proofs: Vec<_> =
        proxy.asked.lock().unwrap().iter().map(|(_, proof)| proof.clone().unwrap_or_default()).collect();
    assert_eq!((proofs.len(), proofs[0].as_str(), proxy.connections()), (4, "", 1), "{proofs:?}");
    for (proof, count) in proofs[1..].iter().zip(1..) {
        assert!(
            proof.contains(&format!("uri=\"{}\"", to.authority())) && proof.contains(&format!("nc=0000000{count}"))
        );
    }
    // What belongs to a connection is not for one that many share.
    let token = ProxyAuth::negotiate(|_| async { Ok(b"ticket".to_vec()) });
    let error = self::net(Made::cleartext(proxy.addr.into()).auth(token).hop()).connect(&to).await.unwrap_err();
    assert_eq!((error.kind(), error.hop()), (Kind::Unsupported, Some(0)), "{error:?}");
}

#[tokio::test]
async fn every_failure_is_told_with_its_place_and_nothing_goes_around() {
    let (trap, came) = echo().await;
    let basic: &[_] = &[("proxy-authenticate", "Negotiate"), ("proxy-authenticate", "Digest realm=\"x\"")];
    let busy = "all circuits\r\nare busy";
    for (how, kind, code, said) in [
        (How::Refuse(407, basic, "", true), Kind::Auth, Some(407), "it takes Negotiate, Digest"),
        (How::Refuse(403, &[], "", true), Kind::Hop, Some(403), "403 Forbidden"),
        (How::Refuse(502, &[], busy, true), Kind::Hop, Some(502), "502 Bad Gateway: all circuits  are busy"),
        (How::Refuse(503, &[], "", false), Kind::Hop, Some(503), "503 Service Unavailable"),
        (How::Refuse(302, &[("location", "http://evil/")], "", true), Kind::Hop, Some(302), "302 Found"),
        (How::Reset(h2::Reason::REFUSED_STREAM), Kind::Hop, None, ""),
        (How::Reset(h2::Reason::CONNECT_ERROR), Kind::Hop, None, ""),
        (How::Cut, Kind::Hop, None, ""),
        (How::Silent, Kind::Timeout, None, ""),
    ] {
        let proxy = Proxy::new(how.clone()).await;
        let net = net(connect(&format!("http://ann:sesame@{}", proxy.addr)).unwrap());
        // Twice: the second may find the connection of the first.
        for _ in 0..2 {
            let error = net.connect(&trap).await.unwrap_err();
            assert_eq!(
                (error.kind(), error.hop(), error.phase()),
                (kind, Some(0), Some(Phase::Hop)),
                "{how:?} {error:?}"
            );
            assert!(code.is_none() || error.code() == code, "{how:?} {error:?}");
            assert!(error.message().contains(said) && !format!("{error:?}").contains("sesame"), "{how:?} {error:?}");
        }
    }
    assert_eq!(came.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_peer_that_is_no_http2_proxy_is_told() {
    let (trap, came) = echo().await;
    // Speaks, but HTTP/1.1; accepts and closes; nobody there.
    let old = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closes = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addrs = [&old, &closes, &nobody].map(|one| one.local_addr().unwrap());
    drop(nobody);
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = old.accept().await {
            tcp.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            let _ = tcp.read(&mut [0; 1000]).await;
        }
    });
    tokio::spawn(async move { while closes.accept().await.is_ok() {} });
    for addr in addrs {
        let error = net(connect(&format!("http://{addr}")).unwrap()).connect(&trap).await.unwrap_err();
        assert_eq!((error.kind(), error.hop()), (Kind::Hop, Some(0)), "{error:?}");
    }
    assert_eq!(came.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn the_targets_first_word_may_come_with_the_answer() {
    let (to, _) = echo().await;
    let proxy = Proxy::new(How::Early("220 hello\r\n")).await;
    let mut stream = net(clear(&proxy)).connect(&to).await.unwrap();
    let mut word = [0; 11];
    stream.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"220 hello\r\n");
}

#[tokio::test]
async fn inside_tls_the_proxy_must_be_the_one_named_and_choose_h2() {
    let (to, _) = echo().await;
    let certs = Certs::new();
    let tls = Tls::builder().roots(Roots::Custom).root_pem(certs.ca.as_bytes()).build().unwrap();
    for (alpn, trusted, kind) in [("h2", true, None), ("h2", false, Some(Kind::Tls)), ("h3", true, Some(Kind::Tls))] {
        let proxy = Proxy::with(How::Tunnel, h2::server::Builder::new(), Some((&certs, alpn))).await;
        let hop = connect(&format!("https://localhost:{}", proxy.addr.port())).unwrap();
        let net = Connector::builder().via(hop);
        let net = if trusted { net.hop_tls(tls.clone()) } else { net }.build().unwrap();
        match (through(&net, &to, "secret").await, kind) {
            (Ok(stream), None) => assert_eq!(stream.info().hops[0].kind, "h2"),
            (Err(error), Some(kind)) => assert_eq!((error.kind(), error.hop()), (kind, Some(0)), "{error:?}"),
            (other, _) => panic!("{alpn} {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_chain_of_two_tells_both_hops_also_when_reused() {
    let (to, _) = echo().await;
    let (outer, inner) = (Proxy::new(How::Tunnel).await, Proxy::new(How::Tunnel).await);
    let net = Connector::builder().via(clear(&outer)).via(clear(&inner)).build().unwrap();
    for reused in [false, true] {
        let stream = through(&net, &to, "deep").await.unwrap();
        let hops: Vec<_> = stream.info().hops.iter().map(|hop| (hop.authority.clone(), hop.reused)).collect();
        assert_eq!(hops, [(outer.addr.to_string(), reused), (inner.addr.to_string(), reused)]);
    }
    // One tunnel of the outer proxy carries all of the inner one's.
    assert_eq!((outer.connections(), inner.connections(), outer.asked.lock().unwrap().len()), (1, 1, 1));
    // The hop that fails is named by its place.
    let wrong = Proxy::new(How::Refuse(407, &[], "", true)).await;
    let net = Connector::builder().via(clear(&outer)).via(clear(&wrong)).build().unwrap();
    let error = net.connect(&to).await.unwrap_err();
    assert_eq!((error.kind(), error.hop()), (Kind::Auth, Some(1)), "{error:?}");
}

#[tokio::test]
async fn datagrams_travel_as_capsules() {
    let target = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = Endpoint::from(target.local_addr().unwrap());
    let proxy = Proxy::new(How::Tunnel).await;
    let net = net(clear(&proxy));
    let datagram = net.datagram(&to).await.unwrap();
    assert_eq!(datagram.info().hops[0].kind, "h2c");
    for n in 0..20 {
        let word = format!("query {n}");
        datagram.send(word.as_bytes()).await.unwrap();
        let mut room = [0; 100];
        let (len, from) = target.recv_from(&mut room).await.unwrap();
        assert_eq!(&room[..len], word.as_bytes());
        target.send_to(&room[..len], from).await.unwrap();
        let len = datagram.recv(&mut room).await.unwrap();
        assert_eq!(&room[..len], word.as_bytes());
    }
    let (path, _) = proxy.asked.lock().unwrap()[0].clone();
    assert!(path.ends_with(&format!("/.well-known/masque/udp/127.0.0.1/{}/", to.port())), "{path}");
    // The same connection carries tunnels of both kinds.
    let (echo, _) = echo().await;
    through(&net, &echo, "both").await.unwrap();
    assert_eq!(proxy.connections(), 1);
    let refusing = Proxy::new(How::Refuse(403, &[], "", true)).await;
    let error = Connector::builder().via(clear(&refusing)).build().unwrap().datagram(&to).await.unwrap_err();
    assert_eq!((error.kind(), error.code(), error.hop()), (Kind::Hop, Some(403), Some(0)), "{error:?}");
}
