//! Channels that rest when nobody calls, and that follow what the name service says of them, on a clock that waits for nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use portolan_core::{Answer, BoxFuture, Connector, Endpoint, Resolve, Resolver, Result, Texts, clock};
use portolan_grpc::{Balancing, Carrier, Channel, ChannelOptions, Client, Connectivity, Method, Raw, ServiceConfig};
use support::{Call, handler};

/// Connections in memory, to servers that say where they are.
#[derive(Debug, Clone, Default)]
struct Memory {
    made: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    /// What is said of the health of `svc` at this address; elsewhere it serves.
    ailing: Arc<Mutex<Option<String>>>,
}

impl Carrier for Memory {
    type Connection = portolan_http2::SendRequest;

    async fn connect(&self, _: &Connector, to: &Endpoint, _: Option<&str>) -> Result<Self::Connection> {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let (open, ailing, at) = (Arc::clone(&self.open), Arc::clone(&self.ailing), to.host_text().into_owned());
        self.made.fetch_add(1, Relaxed);
        open.fetch_add(1, Relaxed);
        let serve = handler(move |call| reply(call, at.clone(), Arc::clone(&ailing)));
        tokio::spawn(async move {
            support::h2_half::serve(theirs, serve).await;
            open.fetch_sub(1, Relaxed);
        });
        let (handle, connection) = portolan_http2::handshake(ours, portolan_http2::Options::new())?;
        tokio::spawn(connection);
        Ok(handle)
    }

    fn is_closed(connection: &Self::Connection) -> bool {
        connection.is_closed()
    }

    fn active(connection: &Self::Connection) -> usize {
        connection.status().active
    }
}

async fn reply(mut call: Call, at: String, ailing: Arc<Mutex<Option<String>>>) {
    call.message().await;
    call.start(&[]).await;
    match call.path() {
        "/grpc.health.v1.Health/Watch" => {
            let bad = ailing.lock().unwrap().as_deref() == Some(&*at);
            call.send([0x08, if bad { 2 } else { 1 }]).await;
            call.gone().await;
        }
        "/t.S/Endless" => {
            call.send("one").await;
            call.gone().await;
        }
        _ => {
            call.send(at).await;
            call.ok().await;
        }
    }
}

/// Three addresses, and what the test says of the service in TXT records.
#[derive(Debug, Clone, Default)]
struct Names {
    asked: Arc<AtomicUsize>,
    said: Arc<Mutex<Option<String>>>,
}

impl Names {
    fn say(&self, config: &str) {
        *self.said.lock().unwrap() = Some(format!("grpc_config=[{{\"serviceConfig\": {config}}}]"));
    }
}

impl Resolve for Names {
    fn resolve<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Answer>> {
        self.asked.fetch_add(1, Relaxed);
        Box::pin(std::future::ready(Ok(Answer::new([1, 2, 3].map(|n| IpAddr::from([127, 0, 0, n])).to_vec(), None))))
    }

    fn texts<'a>(&'a self, _: &'a str) -> Option<BoxFuture<'a, Result<Texts>>> {
        let said = self.said.lock().unwrap().clone();
        Some(Box::pin(std::future::ready(Ok(Texts::new(said.into_iter().map(String::into_bytes).collect(), None)))))
    }
}

struct Bench {
    memory: Memory,
    names: Names,
    client: Client<Channel<Memory>>,
}

impl Bench {
    fn new(options: ChannelOptions) -> Self {
        let (memory, names) = (Memory::default(), Names::default());
        let connector = Connector::builder().resolver(Resolver::new(names.clone())).build().unwrap();
        let channel = Channel::lazy_over(memory.clone(), &connector, "http://svc.test:1", options).unwrap();
        Self { memory, names, client: Client::from_channel(channel).unwrap() }
    }

    async fn who(&self) -> String {
        let reply = self.client.unary(&Method::new("/t.S/Who", Raw::plain()).unwrap(), &Bytes::new()).await.unwrap();
        String::from_utf8(reply.message().to_vec()).unwrap()
    }

    /// How many of a dozen calls went where, once the connections are there.
    async fn tally(&self, connections: usize) -> BTreeMap<String, usize> {
        self.who().await;
        // On this clock time passes when all else waits.
        clock::sleep(Duration::from_millis(1)).await;
        assert_eq!(self.client.transport().connections(), connections);
        let mut seen = BTreeMap::new();
        for _ in 0..12 {
            *seen.entry(self.who().await).or_default() += 1;
        }
        seen
    }

    fn state(&self) -> Connectivity {
        self.client.transport().connectivity()
    }

    /// The connections made, those open, and how often the name was resolved.
    fn counts(&self) -> [usize; 3] {
        [&self.memory.made, &self.memory.open, &self.names.asked].map(|count| count.load(Relaxed))
    }
}

const MINUTE: Duration = Duration::from_secs(60);

async fn minutes(n: u32) {
    clock::sleep(MINUTE * n).await;
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_nobody_calls_rests_and_begins_anew_with_the_next_call() {
    let bench = Bench::new(ChannelOptions::new().balancing(Balancing::RoundRobin).health_service("svc"));
    assert_eq!(bench.state(), Connectivity::Idle);
    bench.tally(3).await;
    assert_eq!((bench.state(), bench.counts()), (Connectivity::Ready, [3, 3, 1]));
    // Half an hour from the last call, though the health is watched all the while.
    minutes(29).await;
    bench.who().await;
    minutes(29).await;
    assert_eq!((bench.state(), bench.counts()), (Connectivity::Ready, [3, 3, 1]));
    minutes(2).await;
    assert_eq!((bench.state(), bench.client.transport().connections()), (Connectivity::Idle, 0));
    // They ended as connections should, and the servers know.
    assert_eq!(bench.counts(), [3, 0, 1]);
    bench.tally(3).await;
    assert_eq!((bench.state(), bench.counts()), (Connectivity::Ready, [6, 3, 2]));
    minutes(31).await;
    assert_eq!((bench.state(), bench.counts()), (Connectivity::Idle, [6, 0, 2]));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_open_keeps_a_channel_from_resting() {
    let bench = Bench::new(ChannelOptions::new().idle_timeout(MINUTE));
    let endless = Method::new("/t.S/Endless", Raw::plain()).unwrap();
    let mut replies = bench.client.server_streaming(&endless, &Bytes::new()).await.unwrap();
    assert_eq!(replies.message().await.unwrap().unwrap(), "one");
    minutes(600).await;
    assert_eq!((bench.state(), bench.counts()), (Connectivity::Ready, [1, 1, 0]));
    drop(replies);
    clock::sleep(MINUTE / 2).await;
    assert_eq!(bench.state(), Connectivity::Ready);
    clock::sleep(MINUTE).await;
    assert_eq!((bench.state(), bench.counts()), (Connectivity::Idle, [1, 0, 0]));
}

#[tokio::test(start_paused = true)]
async fn a_channel_rests_after_no_call_at_all_and_never_where_it_is_told_not_to() {
    let (memory, net) = (Memory::default(), Connector::default());
    let options = || ChannelOptions::new().idle_timeout(MINUTE);
    let channel = Channel::connect_over(memory.clone(), &net, "http://127.0.0.1:1", options()).await.unwrap();
    assert_eq!(channel.connectivity(), Connectivity::Ready);
    minutes(2).await;
    assert_eq!((channel.connectivity(), memory.open.load(Relaxed)), (Connectivity::Idle, 0));
    for off in [options().idle_timeout(None), options().idle_timeout(Duration::MAX)] {
        let bench = Bench::new(off);
        bench.who().await;
        minutes(60 * 24).await;
        assert_eq!((bench.state(), bench.counts()), (Connectivity::Ready, [1, 1, 0]));
    }
}

#[tokio::test(start_paused = true)]
async fn balancing_and_health_follow_what_the_name_service_says_later() {
    let bench = Bench::new(ChannelOptions::new().idle_timeout(MINUTE).service_config_from_dns("x"));
    assert_eq!(bench.tally(1).await.len(), 1);
    bench.names.say(r#"{"loadBalancingConfig": [{"round_robin": {}}]}"#);
    // It is asked again when the service is connected to again, not before.
    assert_eq!(bench.tally(1).await.len(), 1);
    minutes(2).await;
    let each = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), 12 / names.len())).collect();
    assert_eq!(bench.tally(3).await, each(&["127.0.0.1", "127.0.0.2", "127.0.0.3"]));
    bench.names.say(r#"{"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": "svc"}}"#);
    *bench.memory.ailing.lock().unwrap() = Some("127.0.0.2".to_owned());
    minutes(2).await;
    assert_eq!(bench.tally(2).await, each(&["127.0.0.1", "127.0.0.3"]));
    bench.names.say(r#"{"loadBalancingPolicy": "pick_first"}"#);
    minutes(2).await;
    assert_eq!(bench.tally(1).await.len(), 1);
    // What is broken changes nothing; and what was set holds where nothing is said any more.
    bench.names.say("[]");
    minutes(2).await;
    assert_eq!(bench.tally(1).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_channel_asks_the_name_service_for_clients_that_have_a_config_of_their_own_too() {
    let bench = Bench::new(ChannelOptions::new().service_config_from_dns("x"));
    bench.names.say(r#"{"loadBalancingConfig": [{"round_robin": {}}]}"#);
    let bench = Bench { client: bench.client.clone().service_config(ServiceConfig::new()), ..bench };
    assert_eq!(bench.tally(3).await.len(), 3);
}
