//! R1.8: one resolver for all, its cache and its overrides, and the race between the addresses that it gives.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    reason = "these are tests, they are the peer, and their helpers fail by panicking"
)]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portolan_core::resolve::failed;
use portolan_core::{
    Answer, BoxFuture, CacheOptions, Connector, Delivery, Endpoint, Kind, Phase, Resolve, ResolveFailure, Resolver,
    Timeouts,
};
use tokio::net::TcpListener;

/// What a resolver made of [`Scripted`] does with a name.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    Say(Option<Duration>),
    Fail(ResolveFailure),
    Panic,
    /// Says nothing the first time, and an address ever after.
    HangOnce,
}

/// Counts its questions, and takes 50 ms over each.
#[derive(Debug, Clone)]
struct Scripted(Act, Arc<AtomicUsize>);

impl Scripted {
    fn new(act: Act) -> (Self, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        (Self(act, asked.clone()), asked)
    }
}

impl Resolve for Scripted {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, portolan_core::Result<Answer>> {
        Box::pin(async move {
            let before = self.1.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(50)).await;
            match self.0 {
                Act::Say(ttl) => Ok(Answer::new(vec![IpAddr::from([192, 0, 2, 1])], ttl)),
                Act::Fail(why) => Err(failed(name, why)),
                Act::HangOnce if before == 0 => std::future::pending().await,
                Act::HangOnce => Ok(Answer::new(vec![IpAddr::from([192, 0, 2, 1])], None)),
                Act::Panic => panic!("a resolver with a fault of its own"),
            }
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_in_any_spelling_is_one_entry_of_the_cache() {
    let (beneath, asked) = Scripted::new(Act::Say(None));
    let resolver = Resolver::new(beneath);
    for name in ["db.example", "DB.Example", "db.example."] {
        resolver.lookup(name).await.unwrap();
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    resolver.forget("DB.example.");
    resolver.lookup("db.example").await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 2, "what is forgotten is asked anew");
    resolver.clear();
    resolver.lookup("db.example").await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn the_time_of_an_answer_is_kept_within_bounds() {
    let options = CacheOptions::default().ttl_bounds(Duration::from_secs(2), Duration::from_secs(60));
    for (said, holds) in [(0, 2), (10, 10), (u64::from(u32::MAX), 60)] {
        let (beneath, asked) = Scripted::new(Act::Say(Some(Duration::from_secs(said))));
        let resolver = Resolver::new(beneath).cached(options);
        resolver.lookup("a.example").await.unwrap();
        tokio::time::sleep(Duration::from_secs(holds) - Duration::from_millis(1)).await;
        resolver.lookup("a.example").await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 1, "{said} s must hold for {holds} s");
        tokio::time::sleep(Duration::from_millis(2)).await;
        resolver.lookup("a.example").await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 2, "{said} s must not hold longer than {holds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_certain_refusal_is_remembered_and_the_two_are_told_apart() {
    for (why, times) in [(ResolveFailure::NoSuchName, 1), (ResolveFailure::Unavailable, 3)] {
        let (beneath, asked) = Scripted::new(Act::Fail(why));
        let resolver = Resolver::new(beneath);
        for _ in 0..3 {
            let error = resolver.lookup("gone.example").await.unwrap_err();
            assert_eq!(error.server::<ResolveFailure>(), Some(&why));
            assert_eq!(
                (error.kind(), error.phase(), error.delivery()),
                (Kind::Resolve, Some(Phase::Resolve), Delivery::NotSent)
            );
            assert!(error.message().contains("gone.example"), "{error}");
        }
        assert_eq!(asked.load(Ordering::SeqCst), times, "{why:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_resolver_that_panics_fails_its_callers_and_the_name_can_be_asked_again() {
    let (beneath, asked) = Scripted::new(Act::Panic);
    let resolver = Resolver::new(beneath);
    for times in 1..=2 {
        let error = resolver.lookup("a.example").await.unwrap_err();
        assert_eq!(error.server::<ResolveFailure>(), Some(&ResolveFailure::Unavailable));
        assert_eq!(asked.load(Ordering::SeqCst), times);
    }
}

#[tokio::test(start_paused = true)]
async fn a_look_up_that_hangs_gives_its_name_back() {
    let (beneath, asked) = Scripted::new(Act::HangOnce);
    let resolver = Resolver::new(beneath);
    let error = tokio::time::timeout(Duration::from_secs(60), resolver.lookup("a.example")).await.unwrap().unwrap_err();
    assert_eq!(error.server::<ResolveFailure>(), Some(&ResolveFailure::Unavailable));
    assert!(error.message().contains("a.example"), "{error}");
    resolver.lookup("a.example").await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn to_forget_a_name_leaves_the_look_up_that_is_under_way_behind() {
    let (beneath, asked) = Scripted::new(Act::HangOnce);
    let resolver = Resolver::new(beneath);
    assert!(tokio::time::timeout(Duration::from_secs(1), resolver.lookup("a.example")).await.is_err());
    resolver.forget("a.example");
    tokio::time::timeout(Duration::from_secs(1), resolver.lookup("a.example")).await.unwrap().unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn an_answer_asked_for_before_forgetting_is_not_kept_after_it() {
    let (beneath, asked) = Scripted::new(Act::Say(None));
    let resolver = Resolver::new(beneath);
    let (first, ()) = tokio::join!(resolver.lookup("a.example"), async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        resolver.forget("a.example");
    });
    first.unwrap();
    resolver.lookup("a.example").await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn look_ups_that_nobody_waits_for_any_more_are_bounded() {
    #[derive(Debug)]
    struct Silent;
    impl Resolve for Silent {
        fn resolve<'a>(&'a self, _: &'a str) -> BoxFuture<'a, portolan_core::Result<Answer>> {
            Box::pin(std::future::pending())
        }
    }
    let resolver = Resolver::new(Silent);
    let mut turned_away = 0;
    for n in 0..2000 {
        let name = format!("n{n}.example");
        let lookup = tokio::time::timeout(Duration::from_micros(1), resolver.lookup(&name)).await;
        turned_away += usize::from(lookup.is_ok_and(|answer| answer.is_err()));
    }
    assert_eq!(turned_away, 2000 - 1024);
}

#[tokio::test(start_paused = true)]
async fn without_a_cache_each_call_asks() {
    let (beneath, asked) = Scripted::new(Act::Say(None));
    let resolver = Resolver::new(beneath).uncached();
    for _ in 0..3 {
        resolver.lookup("a.example").await.unwrap();
    }
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn addresses_overrides_localhost_and_onion_are_answered_in_the_house() {
    let (beneath, asked) = Scripted::new(Act::Fail(ResolveFailure::Unavailable));
    let here: Vec<IpAddr> = vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
    let pinned: IpAddr = "192.0.2.77".parse().unwrap();
    let resolver = Resolver::new(beneath).with_override("DB.example.", [pinned]);
    assert_eq!(resolver.lookup("db.EXAMPLE").await.unwrap().addrs, [pinned]);
    assert_eq!(resolver.lookup("192.0.2.9").await.unwrap().addrs, ["192.0.2.9".parse::<IpAddr>().unwrap()]);
    for name in ["localhost", "LocalHost.", "a.b.localhost"] {
        assert_eq!(resolver.lookup(name).await.unwrap().addrs, here, "{name}");
    }
    let onion = resolver.lookup("abcdef.onion").await.unwrap_err();
    assert_eq!(onion.server::<ResolveFailure>(), Some(&ResolveFailure::NoSuchName));
    assert_eq!(asked.load(Ordering::SeqCst), 0, "nobody beneath may hear of any of these");
}

/// A connection to `port` of whatever `addrs` holds, in that order.
async fn connect(addrs: &[&str], port: u16) -> portolan_core::Result<portolan_core::Stream> {
    let addrs: Vec<IpAddr> = addrs.iter().map(|addr| addr.parse().unwrap()).collect();
    let resolver = Resolver::from_fn(move |_| {
        let addrs = addrs.clone();
        async move { Ok(addrs) }
    });
    let timeouts = Timeouts::default().connect(Duration::from_secs(5));
    let net = Connector::builder().resolver(resolver).timeouts(timeouts).build().unwrap();
    net.connect(&Endpoint::new("peer.test", port).unwrap()).await
}

#[tokio::test]
async fn a_refused_address_gives_place_to_the_next_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let stream = connect(&["127.0.0.2", "127.0.0.3", "127.0.0.1"], at.port()).await.unwrap();
    assert_eq!(stream.info().attempts, 3);
    assert_eq!(stream.info().peer, Some(at));
    // One attempt delay is 250 ms: a refusal waits for none.
    assert!(stream.info().timings.total < Duration::from_millis(250), "{:?}", stream.info().timings);
}

#[tokio::test]
async fn when_every_address_refuses_each_is_named() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let error = connect(&["127.0.0.2", "127.0.0.3"], free).await.unwrap_err();
    assert!(error.is_refused() && error.delivery() == Delivery::NotSent, "{error:?}");
    for addr in ["127.0.0.2", "127.0.0.3"] {
        let addr = SocketAddr::new(addr.parse().unwrap(), free).to_string();
        assert!(error.message().contains(&addr), "{error}");
    }
}

#[tokio::test]
async fn a_name_without_an_address_is_not_resolved() {
    let error = connect(&[], 80).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.phase(), error.delivery()),
        (Kind::Resolve, Some(Phase::Resolve), Delivery::NotSent)
    );
    assert!(error.message().contains("peer.test"), "{error}");
}

#[cfg(feature = "dns-hickory")]
mod hickory {
    use super::*;
    use hickory_resolver::TokioResolver;
    use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
    use hickory_resolver::net::runtime::TokioRuntimeProvider;
    use portolan_core::resolve::Hickory;
    use tokio::net::UdpSocket;

    const A: u16 = 1;
    const AAAA: u16 = 28;
    const NO_ERROR: u8 = 0;
    const SERVER_FAILURE: u8 = 2;
    const NO_SUCH_NAME: u8 = 3;
    const REFUSED: u8 = 5;

    /// What the name server says: a response code, and an address where there is one.
    fn said(name: &str, kind: u16) -> (u8, Option<Vec<u8>>) {
        match (name, kind) {
            ("both" | "four", A) => (NO_ERROR, Some(vec![192, 0, 2, 1])),
            ("both", AAAA) => (NO_ERROR, Some(vec![0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])),
            ("four" | "empty", _) | ("half", AAAA) => (NO_ERROR, None),
            ("refused", _) => (REFUSED, None),
            ("broken", _) | ("half", A) => (SERVER_FAILURE, None),
            _ => (NO_SUCH_NAME, None),
        }
    }

    /// The reply to one question without compression (RFC 1035 4.1), with a life time of 120 s.
    fn reply(query: &[u8]) -> Vec<u8> {
        let label = usize::from(query[12]);
        let name = String::from_utf8_lossy(&query[13..13 + label]).to_ascii_lowercase();
        let mut end = 12;
        while query[end] != 0 {
            end += usize::from(query[end]) + 1;
        }
        let question = &query[12..end + 5];
        let kind = u16::from_be_bytes([query[end + 1], query[end + 2]]);
        let (code, addr) = said(&name, kind);
        let mut out = query[..2].to_vec();
        out.extend([0x81, 0x80 | code, 0, 1, 0, u8::from(addr.is_some()), 0, 0, 0, 0]);
        out.extend(question);
        if let Some(addr) = addr {
            out.extend([0xc0, 12]);
            out.extend(kind.to_be_bytes());
            out.extend([0, 1, 0, 0, 0, 120, 0, u8::try_from(addr.len()).unwrap()]);
            out.extend(addr);
        }
        out
    }

    /// A resolver that asks a name server on loopback, and how often that was asked.
    async fn resolver() -> (Resolver, Arc<AtomicUsize>) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = socket.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        tokio::spawn(async move {
            let mut query = [0; 512];
            while let Ok((len, from)) = socket.recv_from(&mut query).await {
                count.fetch_add(1, Ordering::SeqCst);
                socket.send_to(&reply(&query[..len]), from).await.unwrap();
            }
        });
        let mut connection = ConnectionConfig::udp();
        connection.port = at.port();
        let server = NameServerConfig::new(at.ip(), true, vec![connection]);
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        builder.options_mut().timeout = Duration::from_secs(1);
        builder.options_mut().attempts = 1;
        (Resolver::new(Hickory::new(builder.build().unwrap())), asked)
    }

    #[tokio::test]
    async fn both_families_and_the_time_to_live_come_from_the_wire() {
        let (resolver, asked) = resolver().await;
        let answer = resolver.lookup("both.test").await.unwrap();
        let mut addrs = answer.addrs;
        addrs.sort();
        assert_eq!(addrs, ["192.0.2.1".parse::<IpAddr>().unwrap(), "2001:db8::1".parse().unwrap()]);
        let ttl = answer.ttl.unwrap();
        assert!(ttl > Duration::from_secs(110) && ttl <= Duration::from_secs(120), "{ttl:?}");
        let questions = asked.load(Ordering::SeqCst);
        resolver.lookup("BOTH.test.").await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), questions, "the cache answers the second time");
        let four = resolver.lookup("four.test").await.unwrap();
        assert_eq!(four.addrs, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
    }

    #[tokio::test]
    async fn no_such_name_is_certain_and_a_failing_server_is_not() {
        let (resolver, _) = resolver().await;
        for (name, why) in [
            ("none.test", ResolveFailure::NoSuchName),
            ("empty.test", ResolveFailure::NoSuchName),
            ("broken.test", ResolveFailure::Unavailable),
            ("half.test", ResolveFailure::Unavailable),
            ("refused.test", ResolveFailure::Unavailable),
        ] {
            let error = resolver.lookup(name).await.unwrap_err();
            assert_eq!(error.server::<ResolveFailure>(), Some(&why), "{name}: {error:?}");
            assert_eq!((error.kind(), error.delivery()), (Kind::Resolve, Delivery::NotSent), "{name}");
        }
    }

    #[tokio::test]
    async fn each_family_is_asked_for_and_refused_by_itself() {
        use portolan_core::Family;
        let (resolver, _) = resolver().await;
        let v4 = resolver.lookup_family("both.test", Family::V4).await.unwrap();
        assert_eq!(v4.addrs, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert!(v4.ttl.unwrap() > Duration::from_secs(110));
        let v6 = resolver.lookup_family("both.test", Family::V6).await.unwrap();
        assert_eq!(v6.addrs, ["2001:db8::1".parse::<IpAddr>().unwrap()]);
        for (name, family, why) in [
            ("four.test", Family::V6, ResolveFailure::NoSuchName),
            ("none.test", Family::V6, ResolveFailure::NoSuchName),
            ("half.test", Family::V6, ResolveFailure::NoSuchName),
            ("half.test", Family::V4, ResolveFailure::Unavailable),
            ("broken.test", Family::V6, ResolveFailure::Unavailable),
        ] {
            let error = resolver.lookup_family(name, family).await.unwrap_err();
            assert_eq!(error.server::<ResolveFailure>(), Some(&why), "{name} {family:?}: {error:?}");
        }
    }
}
