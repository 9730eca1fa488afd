//! R1.8, R1.9: families resolved apart, raced, judged by the policy one by one, and remembered (RFC 8305).

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "these are tests, and they are the peer")]

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portolan_core::resolve::failed;
use portolan_core::{
    Answer, Bind, BoxFuture, Connector, Endpoint, Family, HappyOptions, Kind, Policy, Resolve, ResolveFailure,
    Resolver, Result, Timeouts, TriedOutcome,
};
use tokio::net::TcpListener;

/// What one family says, and after how long.
#[derive(Debug, Clone)]
enum Says {
    Addrs(u64, &'static [&'static str]),
    Fails(ResolveFailure),
    Hangs,
}

#[derive(Debug, Default)]
struct Asked {
    v4: AtomicUsize,
    v6: AtomicUsize,
}

impl Asked {
    fn both(&self) -> (usize, usize) {
        (self.v4.load(Ordering::SeqCst), self.v6.load(Ordering::SeqCst))
    }
}

/// A resolver that can ask for each family by itself, and is asked for nothing else.
#[derive(Debug)]
struct Apart {
    v4: Says,
    v6: Says,
    asked: Arc<Asked>,
}

fn apart(v4: Says, v6: Says) -> (Resolver, Arc<Asked>) {
    let asked = Arc::new(Asked::default());
    (Resolver::new(Apart { v4, v6, asked: asked.clone() }), asked)
}

impl Resolve for Apart {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Answer>> {
        Box::pin(async move { Err(failed(name, ResolveFailure::Unavailable)) })
    }

    fn resolve_family<'a>(&'a self, name: &'a str, family: Family) -> Option<BoxFuture<'a, Result<Answer>>> {
        Some(Box::pin(async move {
            let (says, asked) =
                if family == Family::V4 { (&self.v4, &self.asked.v4) } else { (&self.v6, &self.asked.v6) };
            asked.fetch_add(1, Ordering::SeqCst);
            match says {
                Says::Hangs => std::future::pending().await,
                Says::Fails(why) => Err(failed(name, *why)),
                Says::Addrs(after, addrs) => {
                    tokio::time::sleep(Duration::from_millis(*after)).await;
                    Ok(Answer::new(addrs.iter().map(|ip| ip.parse().unwrap()).collect(), None))
                }
            }
        }))
    }
}

/// One port on which both families may listen.
async fn listeners() -> (TcpListener, TcpListener, u16) {
    loop {
        let v4 = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = v4.local_addr().unwrap().port();
        if let Ok(v6) = TcpListener::bind(("::1", port)).await {
            return (v4, v6, port);
        }
    }
}

async fn is_untouched(trap: &TcpListener) -> bool {
    tokio::time::timeout(Duration::from_millis(100), trap.accept()).await.is_err()
}

fn peer(port: u16) -> Endpoint {
    Endpoint::new("peer.test", port).unwrap()
}

#[tokio::test]
async fn the_policy_judges_every_address_of_each_family_before_it_is_tried() {
    let (_v4, v6, port) = listeners().await;
    let policy = Policy::any().deny("::1").unwrap();
    for v6_after in [0, 30, 150] {
        let (resolver, _) = apart(Says::Addrs(10, &["127.0.0.1"]), Says::Addrs(v6_after, &["::1", "::ffff:127.0.0.1"]));
        let net = Connector::builder().policy(policy.clone()).resolver(resolver).build().unwrap();
        let stream = net.connect(&peer(port)).await.unwrap();
        assert!(stream.info().tried.iter().all(|tried| tried.address.ip() != "::1".parse::<IpAddr>().unwrap()));
    }
    // A late answer with nothing but forbidden addresses is no way out when the others have failed.
    let (resolver, _) = apart(Says::Addrs(0, &["127.0.0.2"]), Says::Addrs(120, &["::1"]));
    let net = Connector::builder().policy(policy.clone()).resolver(resolver).build().unwrap();
    assert!(net.connect(&peer(port)).await.unwrap_err().is_refused());
    // Where nothing is allowed, or the other family cannot say, the error is the policy's.
    for v4 in [Says::Addrs(0, &["127.0.0.1"]), Says::Fails(ResolveFailure::Unavailable)] {
        let policy = policy.clone().deny("127.0.0.0/8").unwrap();
        let (resolver, _) = apart(v4, Says::Addrs(20, &["::1"]));
        let net = Connector::builder().policy(policy).resolver(resolver).build().unwrap();
        let error = net.connect(&peer(port)).await.unwrap_err();
        assert_eq!((error.kind(), error.attempt().unwrap().attempts), (Kind::Blocked, 0));
    }
    assert!(is_untouched(&v6).await);
}

#[tokio::test]
async fn one_broken_family_is_no_error_while_the_other_answers() {
    let (_v4, _v6, port) = listeners().await;
    let broken = [
        Says::Fails(ResolveFailure::Unavailable),
        Says::Fails(ResolveFailure::NoSuchName),
        Says::Addrs(0, &[]),
        Says::Hangs,
    ];
    for says in broken {
        for (v4, v6) in [(Says::Addrs(5, &["127.0.0.1"]), says.clone()), (says, Says::Addrs(5, &["::1"]))] {
            let (resolver, asked) = apart(v4, v6);
            let net = Connector::builder().resolver(resolver).build().unwrap();
            net.connect(&peer(port)).await.unwrap();
            assert_eq!(asked.both(), (1, 1));
        }
    }
}

#[tokio::test]
async fn every_address_tried_is_told_with_its_outcome() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (resolver, _) = apart(Says::Addrs(0, &["127.0.0.1"]), Says::Addrs(0, &["::1"]));
    let net = Connector::builder().resolver(resolver.uncached()).build().unwrap();
    let stream = net.connect(&peer(port)).await.unwrap();
    let tried = &stream.info().tried;
    assert_eq!((tried.len(), stream.info().attempts), (2, 2));
    assert!(tried[0].address.is_ipv6() && matches!(&tried[0].outcome, TriedOutcome::Failed(why) if !why.is_empty()));
    assert!(tried[1].address.is_ipv4() && tried[1].outcome == TriedOutcome::Connected);
    assert!(tried[1].elapsed <= stream.info().timings.total);
    drop(listener);
    let error = net.connect(&peer(port)).await.unwrap_err();
    let tried = &error.attempt().unwrap().tried;
    assert!(tried.len() == 2 && tried.iter().all(|tried| matches!(tried.outcome, TriedOutcome::Failed(_))));
}

#[tokio::test]
async fn the_family_that_won_leads_the_next_time_until_it_fails() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for (options, second) in [(HappyOptions::default(), 1), (HappyOptions::default().memory(Duration::ZERO), 2)] {
        let (resolver, _) = apart(Says::Addrs(0, &["127.0.0.1"]), Says::Addrs(0, &["::1"]));
        let net = Connector::builder().resolver(resolver).happy_eyeballs(options).build().unwrap();
        assert_eq!(net.connect(&peer(port)).await.unwrap().info().attempts, 2);
        assert_eq!(net.connect(&peer(port)).await.unwrap().info().attempts, second);
        // Settings that are derived from these share what was learnt, unless they leave from elsewhere.
        let same = net.to_builder().build().unwrap();
        assert_eq!(same.connect(&peer(port)).await.unwrap().info().attempts, second);
        let other = net.to_builder().bind(Bind::any()).build().unwrap();
        assert_eq!(other.connect(&peer(port)).await.unwrap().info().attempts, 2);
        // A failure forgets it.
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        net.connect(&peer(free)).await.unwrap_err();
        assert_eq!(net.connect(&peer(port)).await.unwrap().info().attempts, 2);
    }
}

#[tokio::test]
async fn only_the_family_of_the_local_address_is_asked_for() {
    let (_v4, _v6, port) = listeners().await;
    let (resolver, asked) = apart(Says::Addrs(0, &["127.0.0.1"]), Says::Hangs);
    let bind = Bind::any().addr("127.0.0.1".parse().unwrap());
    let net = Connector::builder().resolver(resolver).bind(bind).build().unwrap();
    net.connect(&peer(port)).await.unwrap();
    assert_eq!(asked.both(), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn each_family_has_its_own_entry_and_its_own_refusal_in_the_cache() {
    let (resolver, asked) = apart(Says::Addrs(10, &["192.0.2.1"]), Says::Fails(ResolveFailure::NoSuchName));
    for _ in 0..3 {
        let (a, b) =
            tokio::join!(resolver.lookup_family("A.test", Family::V4), resolver.lookup_family("a.test.", Family::V4));
        assert_eq!(a.unwrap(), b.unwrap());
        let error = resolver.lookup_family("a.test", Family::V6).await.unwrap_err();
        assert_eq!(error.server::<ResolveFailure>(), Some(&ResolveFailure::NoSuchName));
    }
    assert_eq!(asked.both(), (1, 1), "one look-up for each family, whoever asks");
    tokio::time::sleep(Duration::from_secs(6)).await;
    resolver.lookup_family("a.test", Family::V6).await.unwrap_err();
    resolver.lookup_family("a.test", Family::V4).await.unwrap();
    assert_eq!(asked.both(), (1, 2), "the refusal is believed for less time than the answer");
    resolver.forget("A.test");
    resolver.lookup_family("a.test", Family::V4).await.unwrap();
    assert_eq!(asked.both(), (2, 2));
    let (unsure, asked) = apart(Says::Fails(ResolveFailure::Unavailable), Says::Hangs);
    for _ in 0..2 {
        unsure.lookup_family("a.test", Family::V4).await.unwrap_err();
    }
    assert_eq!(asked.both(), (2, 0), "what is not certain is not believed at all");
}

#[tokio::test]
async fn a_resolver_that_knows_both_at_once_gives_either() {
    let resolver = Resolver::from_fn(|_| async { Ok(vec!["::1".parse().unwrap(), "127.0.0.1".parse().unwrap()]) });
    let v6 = resolver.lookup_family("a.test", Family::V6).await.unwrap();
    assert_eq!(v6.addrs, ["::1".parse::<IpAddr>().unwrap()]);
    let v4 = resolver.lookup_family("localhost", Family::V4).await.unwrap();
    assert_eq!(v4.addrs, ["127.0.0.1".parse::<IpAddr>().unwrap()]);
    let error = resolver.lookup_family("192.0.2.1", Family::V6).await.unwrap_err();
    assert_eq!(error.server::<ResolveFailure>(), Some(&ResolveFailure::NoSuchName));
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_gives_up_leaves_the_look_ups_to_the_others() {
    let (resolver, asked) = apart(Says::Addrs(50, &["192.0.2.1"]), Says::Hangs);
    let timeouts = Timeouts::default().resolve(Duration::from_millis(20));
    let net = Connector::builder().resolver(resolver.clone()).timeouts(timeouts).build().unwrap();
    let to = peer(80);
    let (given_up, answer) = tokio::join!(net.connect(&to), resolver.lookup_family("peer.test", Family::V4));
    assert_eq!(given_up.unwrap_err().kind(), Kind::Timeout);
    assert_eq!(answer.unwrap().addrs.len(), 1);
    assert_eq!(asked.both(), (1, 1));
}

#[test]
fn a_look_up_that_ends_with_the_runtime_of_another_caller_is_taken_over() {
    let (resolver, asked) = apart(Says::Addrs(200, &["192.0.2.1"]), Says::Hangs);
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (owner, other) = (runtime(), runtime());
    let begun = resolver.clone();
    owner.spawn(async move { begun.lookup_family("a.test", Family::V4).await });
    while asked.both().0 == 0 {
        std::thread::yield_now();
    }
    let waiter = other.spawn(async move { resolver.lookup_family("a.test", Family::V4).await });
    owner.shutdown_background();
    let answer = other.block_on(async { tokio::time::timeout(Duration::from_secs(10), waiter).await });
    assert_eq!(answer.unwrap().unwrap().unwrap().addrs.len(), 1);
    assert_eq!(asked.both().0, 2);
}
