//! Channels over loopback: connecting, losing, balancing, waiting.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]
#![allow(clippy::disallowed_methods, reason = "the servers of the test listen on loopback themselves")]

mod support;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use portolan_core::{Connector, Delivery, Kind, Phase, Resolver, Timeouts};
use portolan_grpc::{Balancing, Channel, ChannelOptions, Client, Code, Method, Raw, Status};
use support::{Call, handler};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};

/// A server of connections; aborted, it ends them all.
async fn listen(address: &str, name: &'static str) -> (SocketAddr, AbortHandle) {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((io, _)) = listener.accept().await {
            connections.spawn(support::h2_half::serve(io, handler(move |call| reply(call, name))));
        }
    });
    (address, task.abort_handle())
}

async fn reply(mut call: Call, name: &'static str) {
    call.message().await;
    call.start(&[]).await;
    call.send(name).await;
    call.ok().await;
}

fn method() -> Method<Raw> {
    Method::new("/t.S/Who", Raw::plain()).unwrap()
}

async fn who(client: &Client<Channel>) -> Result<Bytes, Status> {
    let reply = client.unary(&method(), &Bytes::new()).await;
    reply.map(portolan_grpc::Response::into_message).map_err(|error| Status::of(&error))
}

fn quick() -> ChannelOptions {
    ChannelOptions::new().backoff(Duration::from_millis(10), Duration::from_millis(50))
}

#[tokio::test]
async fn a_lost_connection_is_replaced_by_the_next_call() {
    let (address, first) = listen("127.0.0.1:0", "first").await;
    let channel = Channel::connect_with(&Connector::default(), &format!("http://{address}"), quick()).await.unwrap();
    let client = Client::from_channel(channel).unwrap();
    assert_eq!(who(&client).await.unwrap(), "first");
    first.abort();
    while client.transport().connections() > 0 {
        tokio::task::yield_now().await;
    }
    let error = client.unary(&method(), &Bytes::new()).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Connect, Delivery::NotSent));
    assert_eq!(Status::of(&error).code(), Code::Unavailable);
    let _second = listen(&address.to_string(), "second").await;
    let waits = client.clone().wait_for_ready(true);
    assert_eq!(who(&waits).await.unwrap(), "second");
    assert_eq!(who(&client).await.unwrap(), "second");
}

#[tokio::test]
async fn a_call_that_waits_for_a_connection_waits_until_its_deadline() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let channel = Channel::lazy(&Connector::default(), &format!("http://{address}"), quick()).unwrap();
    let client = Client::from_channel(channel).unwrap();
    assert_eq!(who(&client).await.unwrap_err().code(), Code::Unavailable);
    let call = client.unary(&method(), &Bytes::new()).wait_for_ready(true).timeout(Duration::from_millis(100));
    assert_eq!(Status::of(&call.await.unwrap_err()).code(), Code::DeadlineExceeded);
}

/// Three servers on three addresses of the loopback and one port, all by one name.
async fn three() -> (Connector, String, Vec<AbortHandle>) {
    let (first, a) = listen("127.0.0.1:0", "a").await;
    let (_, b) = listen(&format!("127.0.0.2:{}", first.port()), "b").await;
    let (_, c) = listen(&format!("127.0.0.3:{}", first.port()), "c").await;
    let addresses = [1, 2, 3].map(|n| IpAddr::from([127, 0, 0, n]));
    let connector = Connector::builder().resolver(Resolver::system().with_override("svc.test", addresses)).build();
    (connector.unwrap(), format!("http://svc.test:{}", first.port()), vec![a, b, c])
}

async fn tally(client: &Client<Channel>, calls: usize) -> HashMap<Bytes, usize> {
    let mut seen = HashMap::new();
    for _ in 0..calls {
        *seen.entry(who(client).await.unwrap()).or_default() += 1;
    }
    seen
}

#[tokio::test]
async fn round_robin_takes_every_address_in_turn_and_leaves_out_the_dead() {
    let (connector, url, servers) = three().await;
    let options = quick().balancing(Balancing::RoundRobin);
    let client = Client::from_channel(Channel::connect_with(&connector, &url, options).await.unwrap()).unwrap();
    while client.transport().connections() < 3 {
        tokio::task::yield_now().await;
    }
    let seen = tally(&client, 30).await;
    assert_eq!((seen.len(), seen.values().all(|count| *count == 10)), (3, true), "{seen:?}");
    servers[1].abort();
    while client.transport().connections() > 2 {
        tokio::task::yield_now().await;
    }
    let seen = tally(&client, 30).await;
    assert!(seen.len() == 2 && !seen.contains_key(&b"b"[..]), "{seen:?}");
}

#[tokio::test]
async fn calls_go_on_while_a_name_whose_address_died_is_resolved_anew() {
    let (first, _) = listen("127.0.0.1:0", "a").await;
    let (_, dying) = listen(&format!("127.0.0.2:{}", first.port()), "b").await;
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let resolver = Resolver::from_fn(move |_| {
        let before = count.fetch_add(1, Relaxed);
        async move {
            if before > 0 {
                // A name server that is gone too.
                std::future::pending::<()>().await;
            }
            Ok([1, 2].map(|n| IpAddr::from([127, 0, 0, n])).to_vec())
        }
    });
    let connector = Connector::builder().resolver(resolver).build().unwrap();
    let options = quick().balancing(Balancing::RoundRobin).resolve_interval(Duration::ZERO);
    let url = format!("http://svc.test:{}", first.port());
    let client = Client::from_channel(Channel::connect_with(&connector, &url, options).await.unwrap()).unwrap();
    while client.transport().connections() < 2 {
        tokio::task::yield_now().await;
    }
    dying.abort();
    while client.transport().connections() > 1 {
        tokio::task::yield_now().await;
    }
    while asked.load(Relaxed) < 2 {
        assert_eq!(who(&client).await.unwrap(), "a");
    }
    assert_eq!(tally(&client, 30).await.len(), 1);
    assert_eq!(asked.load(Relaxed), 2);
}

#[tokio::test]
async fn what_accepts_connections_and_says_nothing_is_no_server() {
    let silent = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let (_, _server) = listen(&format!("127.0.0.1:{port}"), "a").await;
    let addresses = [1, 2].map(|n| IpAddr::from([127, 0, 0, n]));
    let timeouts = Timeouts::default().connect(Duration::from_millis(300));
    let net = Connector::builder().resolver(Resolver::system().with_override("svc.test", addresses));
    let connector = net.timeouts(timeouts).build().unwrap();
    let options = quick().balancing(Balancing::RoundRobin);
    let channel = Channel::connect_with(&connector, &format!("http://svc.test:{port}"), options).await.unwrap();
    let client = Client::from_channel(channel).unwrap();
    // It has been connected to.
    let _held = silent.accept().await.unwrap();
    let seen = tally(&client, 20).await;
    assert_eq!((seen.len(), client.transport().connections()), (1, 1), "{seen:?}");
    let error = Channel::connect(&connector, &format!("http://127.0.0.2:{port}")).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.delivery(), error.phase()),
        (Kind::Timeout, Delivery::NotSent, Some(Phase::Connect))
    );
}

#[tokio::test]
async fn a_server_that_ends_every_connection_at_once_is_left_alone_for_a_while() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let taken = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&taken);
    tokio::spawn(async move {
        while let Ok((mut io, _)) = listener.accept().await {
            count.fetch_add(1, Relaxed);
            // SETTINGS and GOAWAY in one.
            let words = b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0";
            io.write_all(words).await.unwrap();
            // Until the client has gone.
            while io.read(&mut [0; 64]).await.is_ok_and(|n| n > 0) {}
        }
    });
    let error = Channel::connect(&Connector::default(), &url).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Closed, Delivery::NotSent));
    assert_eq!(taken.load(Relaxed), 1);
}

#[tokio::test]
async fn least_requests_uses_every_address() {
    let (connector, url, _servers) = three().await;
    let options = quick().balancing(Balancing::LeastRequests);
    let client = Client::from_channel(Channel::connect_with(&connector, &url, options).await.unwrap()).unwrap();
    while client.transport().connections() < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(tally(&client, 60).await.len(), 3);
}

#[tokio::test]
async fn weights_give_each_address_its_share_and_nothing_to_one_that_weighs_nothing() {
    let (connector, url, _servers) = three().await;
    let options = quick().weights(|address| match address.ip() {
        IpAddr::V4(ip) if ip.octets()[3] == 1 => 3,
        IpAddr::V4(ip) if ip.octets()[3] == 2 => 1,
        _ => 0,
    });
    let client = Client::from_channel(Channel::connect_with(&connector, &url, options).await.unwrap()).unwrap();
    while client.transport().connections() < 3 {
        tokio::task::yield_now().await;
    }
    let seen = tally(&client, 40).await;
    let of = |name: &'static [u8]| seen.get(name).copied().unwrap_or_default();
    assert_eq!((of(b"a"), of(b"b"), of(b"c")), (30, 10, 0));
}

/// A server that says how it is when it is told so, and serves all the same.
async fn ailing(
    address: &str,
    name: &'static str,
) -> (SocketAddr, tokio::sync::watch::Sender<Option<u8>>, AbortHandle) {
    let (say, heard) = tokio::sync::watch::channel(None);
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((io, _)) = listener.accept().await {
            let heard = heard.clone();
            let serve = handler(move |mut call: Call| {
                let mut heard = heard.clone();
                async move {
                    if call.path() != "/grpc.health.v1.Health/Watch" {
                        return reply(call, name).await;
                    }
                    assert_eq!(call.message().await.unwrap().1, &b"\x0a\x03svc"[..]);
                    call.start(&[]).await;
                    while let Ok(said) = heard.wait_for(Option::is_some).await.map(|said| *said) {
                        match said {
                            Some(99) => return call.end(&[("grpc-status", "12")]).await,
                            Some(98) => return call.end(&[("grpc-status", "14")]).await,
                            said => call.send([0x08, said.unwrap()]).await,
                        }
                        if heard.changed().await.is_err() {
                            return;
                        }
                    }
                }
            });
            connections.spawn(support::h2_half::serve(io, serve));
        }
    });
    (address, say, task.abort_handle())
}

async fn until(client: &Client<Channel>, connections: usize) {
    let reached = async {
        while client.transport().connections() != connections {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reached).await.unwrap();
}

#[tokio::test]
async fn calls_go_only_where_the_service_says_that_it_serves() {
    let (first, a, _a) = ailing("127.0.0.1:0", "a").await;
    let (_, b, _b) = ailing(&format!("127.0.0.2:{}", first.port()), "b").await;
    let addresses = [1, 2].map(|n| IpAddr::from([127, 0, 0, n]));
    let resolver = Resolver::system().with_override("svc.test", addresses);
    let connector = Connector::builder().resolver(resolver).build().unwrap();
    let url = format!("http://svc.test:{}", first.port());
    let config = r#"{"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": "svc"}}"#;
    let config = portolan_grpc::ServiceConfig::parse(config).unwrap();
    let channel = Channel::lazy(&connector, &url, quick().service_config(&config)).unwrap();
    let client = Client::from_channel(channel).unwrap();

    // Nobody has said anything: a call waits, and until its deadline.
    let call = client.unary(&method(), &Bytes::new()).timeout(Duration::from_millis(100));
    assert_eq!(Status::of(&call.await.unwrap_err()).code(), Code::DeadlineExceeded);
    a.send(Some(1)).unwrap();
    assert_eq!(tally(&client, 6).await.len(), 1, "b has not said that it serves");
    b.send(Some(1)).unwrap();
    until(&client, 2).await;
    assert_eq!(tally(&client, 6).await.len(), 2);

    a.send(Some(2)).unwrap();
    until(&client, 1).await;
    assert_eq!(tally(&client, 6).await.into_keys().collect::<Vec<_>>(), ["b"]);
    b.send(Some(2)).unwrap();
    until(&client, 0).await;
    let error = client.unary(&method(), &Bytes::new()).await.unwrap_err();
    assert_eq!((Status::of(&error).code(), error.delivery()), (Code::Unavailable, Delivery::NotSent));

    // One that waits is made when it serves again; a watch that breaks off is begun again; one that can't tell serves.
    let waits = client.clone().wait_for_ready(true);
    let waiting = tokio::spawn(async move { who(&waits).await });
    b.send(Some(98)).unwrap();
    a.send(Some(99)).unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), "a");
    b.send(Some(1)).unwrap();
    until(&client, 2).await;
    assert_eq!(tally(&client, 6).await.len(), 2);
}

#[tokio::test]
async fn pick_first_keeps_to_one_connection() {
    let (connector, url, _servers) = three().await;
    let client = Arc::new(Client::connect(&connector, &url).await.unwrap());
    let calls: Vec<_> = (0..50)
        .map(|_| {
            tokio::spawn({
                let client = Arc::clone(&client);
                async move { who(&client).await.unwrap() }
            })
        })
        .collect();
    let mut seen = std::collections::HashSet::new();
    for call in calls {
        seen.insert(call.await.unwrap());
    }
    assert_eq!((seen.len(), client.transport().connections()), (1, 1));
}

#[tokio::test]
async fn a_socket_in_the_file_system_is_a_channel_too() {
    let folder = portolan_testbed::folder("grpc-unix");
    let path = folder.join("socket");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (io, _) = listener.accept().await.unwrap();
        support::h2_half::serve(io, handler(|call| reply(call, "unix"))).await;
    });
    let client = Client::connect(&Connector::default(), &format!("unix://{}", path.display())).await.unwrap();
    assert_eq!(who(&client).await.unwrap(), "unix");
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn urls_that_lead_nowhere_are_refused() {
    for url in ["ftp://x", "x:1", "http://", "https://a b"] {
        let error = Channel::lazy(&Connector::default(), url, ChannelOptions::new()).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{url}");
    }
}
