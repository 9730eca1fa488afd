//! R1.7 to R1.10: every wait bounded, the policy on the address really connected to, and the facts on every error.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "these are tests, and they are the peer")]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portolan_core::{
    Bind, BoxFuture, Connector, Datagram, Delivery, Dial, DialContext, Endpoint, Error, Hop, Kind, Phase, Policy,
    Resolver, Route, SourcePort, Stream, Timeouts,
};
use tokio::net::TcpListener;

/// Says an allowed address first and a forbidden one ever after; both are this machine's.
fn rebinding(asked: Arc<AtomicUsize>) -> Resolver {
    Resolver::from_fn(move |_| {
        let first = asked.fetch_add(1, Ordering::SeqCst) == 0;
        async move { Ok(vec![IpAddr::from([127, 0, 0, if first { 1 } else { 2 }])]) }
    })
}

/// A listener that must not be reached.
async fn trap() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

async fn is_untouched(trap: &TcpListener) -> bool {
    tokio::time::timeout(Duration::from_millis(50), trap.accept()).await.is_err()
}

#[tokio::test]
async fn a_resolver_that_changes_its_answer_between_check_and_use_gains_nothing() {
    let (allowed, port) = trap().await;
    let forbidden = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let policy = Policy::any().deny("127.0.0.2").unwrap();
    let net = Connector::builder().policy(policy).resolver(rebinding(asked.clone())).build().unwrap();
    let to = Endpoint::new("rebind.test", port).unwrap();
    // The first answer passes the policy, and is the very address that is connected to: nobody is asked a second time.
    let (first, _) = tokio::join!(net.connect(&to), allowed.accept());
    assert_eq!(first.unwrap().info().peer, Some(([127, 0, 0, 1], port).into()));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    for _ in 0..3 {
        let error = net.connect(&to).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (Kind::Blocked, Delivery::NotSent));
    }
    assert!(is_untouched(&forbidden).await);
}

#[tokio::test]
async fn every_spelling_of_this_machine_is_blocked_before_a_packet_is_sent() {
    let (trap, port) = trap().await;
    let net = Connector::builder().policy(Policy::public_only()).build().unwrap();
    for host in [
        "127.0.0.1",
        "127.1",
        "0x7f.1",
        "2130706433",
        "localhost",
        "a.localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "0.0.0.0",
    ] {
        let error = net.connect(&Endpoint::new(host, port).unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Blocked, "{host}");
        let error = net.datagram(&Endpoint::new(host, port).unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Blocked, "{host}");
    }
    assert_eq!(net.connect(&Endpoint::unix("/tmp/x")).await.unwrap_err().kind(), Kind::Blocked);
    assert!(is_untouched(&trap).await);
}

#[tokio::test]
async fn under_a_policy_names_are_resolved_here_unless_the_hop_is_trusted() {
    let (trap, port) = trap().await;
    let hop = Hop::parse(&format!("socks5h://127.0.0.1:{port}")).unwrap();
    let resolver = Resolver::system().with_override("inside.test", ["10.0.0.1".parse().unwrap()]);
    let base = Connector::builder().policy(Policy::public_only()).resolver(resolver).via(hop);
    let to = Endpoint::new("inside.test", 80).unwrap();
    assert_eq!(base.clone().build().unwrap().connect(&to).await.unwrap_err().kind(), Kind::Blocked);
    assert!(is_untouched(&trap).await);
    let short = Timeouts::default().hop(Duration::from_millis(50));
    let trusting = base.trust_hop_resolution(true).timeouts(short).build().unwrap();
    let error = trusting.connect(&to).await.unwrap_err();
    assert_eq!((error.kind(), error.phase(), error.hop()), (Kind::Timeout, Some(Phase::Hop), Some(0)));
    // And a policy for the hops themselves.
    let hop = Hop::parse(&format!("http://127.0.0.1:{port}")).unwrap();
    let guarded = Connector::builder().hop_policy(Policy::public_only()).via(hop).build().unwrap();
    assert_eq!(guarded.connect(&to).await.unwrap_err().kind(), Kind::Blocked);
}

#[tokio::test]
async fn names_of_tor_are_never_asked_of_dns() {
    let resolver = Resolver::from_fn(|_| async { panic!("asked") });
    let to = Endpoint::new("Hidden.ONION", 80).unwrap();
    let (trap, port) = trap().await;
    let socks = |scheme: &str| Hop::parse(&format!("{scheme}://127.0.0.1:{port}")).unwrap();
    let base = Connector::builder().resolver(resolver).timeouts(Timeouts::default().hop(Duration::from_millis(60)));
    let guarded = base.clone().policy(Policy::public_only()).via(socks("socks5h"));
    for net in [base.clone(), base.clone().via(socks("socks5")), base.clone().via(socks("socks4")), guarded] {
        let net = net.build().unwrap();
        for error in [net.connect(&to).await.unwrap_err(), net.resolve(&to).await.unwrap_err()] {
            assert_eq!((error.kind(), error.delivery()), (Kind::Resolve, Delivery::NotSent), "{error:?}");
            assert!(error.message().contains("socks5h"), "{error:?}");
        }
        assert_eq!(net.datagram(&to).await.unwrap_err().delivery(), Delivery::NotSent);
    }
    assert!(is_untouched(&trap).await);
    // The hop that resolves by itself is asked.
    let error = base.via(socks("socks5h")).build().unwrap().connect(&to).await.unwrap_err();
    assert_eq!((error.kind(), error.phase(), error.hop()), (Kind::Timeout, Some(Phase::Hop), Some(0)));
}

#[tokio::test]
async fn each_wait_is_bounded_and_named_by_its_phase() {
    let (_trap, port) = trap().await;
    let short = Duration::from_millis(60);
    let stuck = Resolver::from_fn(|_| std::future::pending());
    let net = Connector::builder().resolver(stuck).timeouts(Timeouts::default().resolve(short)).build().unwrap();
    let resolve = net.connect(&Endpoint::new("stuck.test", 1).unwrap()).await.unwrap_err();
    assert_eq!(
        (resolve.kind(), resolve.phase(), resolve.delivery()),
        (Kind::Timeout, Some(Phase::Resolve), Delivery::NotSent)
    );
    let silent = Hop::parse(&format!("http://127.0.0.1:{port}")).unwrap();
    let net = Connector::builder().via(silent.clone()).timeouts(Timeouts::default().hop(short)).build().unwrap();
    let hop = net.connect(&Endpoint::new("192.0.2.1", 1).unwrap()).await.unwrap_err();
    assert_eq!((hop.kind(), hop.phase(), hop.hop()), (Kind::Timeout, Some(Phase::Hop), Some(0)));
    let facts = hop.attempt().unwrap();
    assert!(facts.elapsed >= short && facts.timings.connect.is_some() && facts.address.unwrap().port() == port);
    let net = Connector::builder().via(silent).timeouts(Timeouts::default().total(short)).build().unwrap();
    let total = net.connect(&Endpoint::new("192.0.2.1", 1).unwrap()).await.unwrap_err();
    assert_eq!((total.kind(), total.phase(), total.delivery()), (Kind::Timeout, Some(Phase::Total), Delivery::NotSent));
}

#[tokio::test]
async fn the_deadline_of_the_whole_call_holds_in_tls_and_for_datagrams_too() {
    let (_trap, port) = trap().await;
    let silent = Endpoint::new("127.0.0.1", port).unwrap();
    let timeouts = Timeouts::default().total(Duration::from_millis(60));
    let net = Connector::builder().timeouts(timeouts).build().unwrap();
    let proxied = net.to_builder().via(Hop::socks5(silent.clone())).build().unwrap();
    for error in [net.connect_tls(&silent, &[]).await.unwrap_err(), proxied.datagram(&silent).await.unwrap_err()] {
        let seen = (error.kind(), error.phase(), error.delivery());
        assert_eq!(seen, (Kind::Timeout, Some(Phase::Total), Delivery::NotSent), "{error:?}");
    }
}

#[tokio::test]
async fn a_refusal_says_where_and_when() {
    let (trap, port) = trap().await;
    drop(trap);
    let to = Endpoint::new("127.0.0.1", port).unwrap();
    let error = Connector::default().connect(&to).await.unwrap_err();
    assert!(error.is_refused() && error.kind() == Kind::Connect && error.endpoint() == Some(&to));
    let facts = error.attempt().unwrap();
    assert_eq!((facts.address, facts.attempts), (to.socket_addr(), 1));
    let missing = Resolver::from_fn(|name| async move {
        Err(portolan_core::resolve::failed(&name, portolan_core::ResolveFailure::NoSuchName))
    });
    let net = Connector::builder().resolver(missing).build().unwrap();
    let error = net.connect(&Endpoint::new("no.test", 1).unwrap()).await.unwrap_err();
    assert_eq!((error.kind(), error.phase()), (Kind::Resolve, Some(Phase::Resolve)));
}

#[tokio::test]
async fn every_connection_knows_how_it_came_to_be() {
    let (listener, port) = trap().await;
    let resolver = Resolver::from_fn(|_| async { Ok(vec!["::1".parse().unwrap(), "127.0.0.1".parse().unwrap()]) });
    let net = Connector::builder().resolver(resolver).bind(Bind::any()).build().unwrap();
    let to = Endpoint::new("both.test", port).unwrap();
    let (stream, _) = tokio::join!(net.connect(&to), listener.accept());
    let stream = stream.unwrap();
    let info = stream.info();
    // Nobody listens on the IPv6 address: the second one is taken at once.
    assert_eq!((info.peer.unwrap().port(), info.attempts, info.hops.len()), (port, 2, 0));
    assert!(
        info.timings.resolve.is_some()
            && info.timings.connect.is_some()
            && info.timings.total >= info.timings.connect.unwrap()
    );
}

#[tokio::test]
async fn unix_sockets_are_endpoints_like_others() {
    let path = std::env::temp_dir().join(format!("portolan-core-{}.sock", std::process::id()));
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let (stream, _) =
        tokio::join!(async { Connector::default().connect(&Endpoint::unix(&path)).await }, listener.accept());
    stream.unwrap();
    std::fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn routes_choose_the_way_and_a_failing_chain_gives_place_to_the_next() {
    let (listener, port) = trap().await;
    let (dead, dead_port) = trap().await;
    drop(dead);
    let broken = Hop::parse(&format!("socks5://127.0.0.1:{dead_port}")).unwrap();
    let here = Endpoint::new("127.0.0.1", port).unwrap();
    let net =
        Connector::builder().route(Route::to("127.0.0.0/8").unwrap().direct()).via(broken.clone()).build().unwrap();
    let (direct, _) = tokio::join!(net.connect(&here), listener.accept());
    assert!(direct.unwrap().info().hops.is_empty());
    let elsewhere = net.connect(&Endpoint::new("192.0.2.1", 1).unwrap()).await.unwrap_err();
    assert_eq!((elsewhere.kind(), elsewhere.hop()), (Kind::Hop, Some(0)));
    assert!(elsewhere.is_refused());
    let net = Connector::builder().via(broken).or_via([]).build().unwrap();
    let (second, _) = tokio::join!(net.connect(&here), listener.accept());
    second.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_could_not_be_reached_is_tried_last_for_a_while() {
    let (dead, port) = trap().await;
    drop(dead);
    let (_listener, here) = trap().await;
    let here = Endpoint::new("127.0.0.1", here).unwrap();
    let broken = Hop::parse(&format!("socks5://127.0.0.1:{port}")).unwrap();
    let net = Connector::builder().via(broken.clone()).or_via([]).build().unwrap();
    let tries = async || net.connect(&here).await.unwrap().info().attempts;
    assert_eq!((tries().await, tries().await), (2, 1));
    tokio::time::advance(Duration::from_secs(31)).await;
    assert_eq!((tries().await, tries().await), (2, 1));
    // Alone it is tried each time.
    let alone = Connector::builder().via(broken).build().unwrap();
    for _ in 0..2 {
        assert!(alone.connect(&here).await.unwrap_err().is_refused());
    }
}

#[tokio::test]
async fn a_chain_whose_proxy_says_no_keeps_its_turn() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (proxy, port) = trap().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = proxy.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            stream.read_exact(&mut [0; 16]).await?;
            stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").await?;
        }
        Ok::<_, std::io::Error>(())
    });
    let (_listener, here) = trap().await;
    let hop = Hop::parse(&format!("http://127.0.0.1:{port}")).unwrap();
    let net = Connector::builder().via(hop).or_via([]).build().unwrap();
    for turn in 1..=3 {
        net.connect(&Endpoint::new("127.0.0.1", here).unwrap()).await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), turn);
    }
}

#[tokio::test]
async fn a_socket_that_meets_itself_is_a_refusal() {
    // Nobody listens, and the source port is the target's: the kernel connects the socket to itself.
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let net = Connector::builder().bind(Bind::from(SourcePort::Fixed(port))).build().unwrap();
    let error = net.connect(&Endpoint::from(SocketAddr::from(([127, 0, 0, 1], port)))).await.unwrap_err();
    assert!(error.is_refused(), "{error}");
}

/// A way of one's own that carries nothing.
#[derive(Debug)]
struct Nowhere;

impl Dial for Nowhere {
    fn dial<'a>(&'a self, _: &'a Endpoint, _: &'a DialContext) -> BoxFuture<'a, Result<Stream, Error>> {
        Box::pin(async { Err(Error::new(Kind::Unsupported, "nowhere")) })
    }

    fn datagram<'a>(&'a self, _: &'a Endpoint, _: &'a DialContext) -> BoxFuture<'a, Result<Datagram, Error>> {
        Box::pin(async { Err(Error::new(Kind::Unsupported, "nowhere")) })
    }
}

#[tokio::test]
async fn raced_datagrams_keep_to_the_policy_and_to_a_way_of_ones_own() {
    let to = Endpoint::new("two.test", 9).unwrap();
    let addresses: [IpAddr; 2] = ["127.0.0.1".parse().unwrap(), "127.0.0.2".parse().unwrap()];
    let resolver = Resolver::system().with_override("two.test", addresses);
    // The handshake is over only where the address is the second.
    let handshake = async |datagram: Datagram| match datagram.info().peer.unwrap().ip() {
        ip if ip == addresses[1] => Ok(ip),
        ip => Err(Error::new(Kind::Connect, format!("not {ip}")).with_phase(Phase::Connect)),
    };
    let net = Connector::builder().resolver(resolver.clone()).build().unwrap();
    let (ip, info) = net.datagram_raced(&to, handshake).await.unwrap();
    assert_eq!((ip, info.attempts, info.peer.unwrap().ip()), (addresses[1], 2, addresses[1]));
    let net = Connector::builder().resolver(resolver.clone()).policy(Policy::public_only()).build().unwrap();
    let error = net.datagram_raced(&to, handshake).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Blocked, "{error:?}");
    let net = Connector::builder().resolver(resolver).dial(Nowhere).build().unwrap();
    let error = net.datagram_raced(&to, handshake).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (Kind::Unsupported, "nowhere"));
}
