//! Clusters of scripted nodes on loopback: each a function from the words of a command to the bytes of its reply.

#![allow(clippy::disallowed_methods, reason = "the nodes are peers, and listen")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use portolan_core::{Connector, Credentials, Delivery, Endpoint, Kind, Policy};
use portolan_wire::Codec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{ClusterClient, ClusterOptions};
use crate::redis::{Command, Options, Pipeline, RespCodec, ServerError};

type Script = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// A node that is being played, and what it has heard besides the login.
struct Node {
    heard: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn play((listener, _): (TcpListener, u16), script: impl Fn(&str) -> String + Send + Sync + 'static) -> Node {
    let script: Script = Arc::new(script);
    let heard = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = JoinSet::new();
    let log = heard.clone();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let (script, log) = (script.clone(), log.clone());
            connections.spawn(async move {
                let (mut codec, mut buf) = (RespCodec::default(), BytesMut::new());
                loop {
                    while let Ok(Some(command)) = codec.decode(&mut buf) {
                        let words = command.as_items().unwrap_or_default().iter().filter_map(|word| word.as_bytes());
                        let words: Vec<_> = words.map(|word| String::from_utf8_lossy(word).into_owned()).collect();
                        let line = words.join(" ");
                        let reply = if line == "HELLO 3" { "+OK\r\n".to_owned() } else { script(&line) };
                        if line != "HELLO 3" {
                            log.lock().unwrap().push(line);
                        }
                        if reply == "CLOSE" || stream.write_all(reply.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                    if !matches!(stream.read_buf(&mut buf).await, Ok(n) if n > 0) {
                        return;
                    }
                }
            });
        }
    });
    Node { heard, _tasks: tasks }
}

impl Node {
    fn heard(&self) -> Vec<String> {
        let heard = self.heard.lock().unwrap();
        heard.iter().filter(|line| *line != "CLUSTER SLOTS").cloned().collect()
    }
}

/// `CLUSTER SLOTS` of one range per host and port, in equal parts.
fn slots(nodes: &[(&str, u16)]) -> String {
    let part = 16_384 / nodes.len();
    let range = |(n, (host, port)): (usize, &(&str, u16))| {
        let last = if n + 1 == nodes.len() { 16_383 } else { (n + 1) * part - 1 };
        format!("*3\r\n:{}\r\n:{last}\r\n*2\r\n${}\r\n{host}\r\n:{port}\r\n", n * part, host.len())
    };
    format!("*{}\r\n{}", nodes.len(), nodes.iter().enumerate().map(range).collect::<String>())
}

async fn connect(
    port: u16,
    change: impl FnOnce(ClusterOptions) -> ClusterOptions,
) -> portolan_core::Result<ClusterClient> {
    let options = ClusterOptions::new(Options::new(Endpoint::new("127.0.0.1", port).unwrap()));
    ClusterClient::connect(&Connector::default(), change(options)).await
}

fn get(key: &str) -> Command {
    Command::new("GET").arg(key)
}

#[tokio::test]
async fn a_moved_slot_is_followed_and_learnt() {
    let (one, two) = (listen().await, listen().await);
    let (at, to) = (one.1, two.1);
    let told = slots(&[("127.0.0.1", at)]);
    let telling = told.clone();
    let one = play(one, move |line| match line {
        "CLUSTER SLOTS" => telling.clone(),
        "GET foo" => format!("-MOVED 12182 127.0.0.1:{to}\r\n"),
        _ => "+one\r\n".to_owned(),
    });
    let two = play(two, move |line| if line == "CLUSTER SLOTS" { told.clone() } else { "+two\r\n".to_owned() });
    let cluster = connect(at, |options| options).await.unwrap();
    for _ in 0..3 {
        assert_eq!(cluster.run::<String>(&get("foo")).await.unwrap(), "two");
    }
    assert_eq!(cluster.get::<String>("bar").await.unwrap(), "one");
    assert_eq!(
        (one.heard(), two.heard()),
        (vec!["GET foo".to_owned(), "GET bar".to_owned()], vec!["GET foo".to_owned(); 3])
    );
    assert_eq!(cluster.node_of("foo").unwrap().port(), to);
}

#[tokio::test]
async fn an_asked_slot_is_asked_there_once_and_not_learnt() {
    let (one, two) = (listen().await, listen().await);
    let (at, to) = (one.1, two.1);
    let one = play(one, move |line| match line {
        "CLUSTER SLOTS" => slots(&[("127.0.0.1", at)]),
        _ => format!("-ASK 12182 127.0.0.1:{to}\r\n"),
    });
    let two = play(two, move |line| if line == "ASKING" { "+OK\r\n".to_owned() } else { "+two\r\n".to_owned() });
    let cluster = connect(at, |options| options).await.unwrap();
    for _ in 0..2 {
        assert_eq!(cluster.run::<String>(&get("foo")).await.unwrap(), "two");
    }
    assert_eq!(one.heard().len(), 2);
    assert_eq!(two.heard(), ["ASKING", "GET foo", "ASKING", "GET foo"]);
}

#[tokio::test]
async fn a_node_at_a_forbidden_address_is_refused_wherever_its_address_came_from() {
    let policy = Policy::any().deny("169.254.0.0/16").unwrap();
    let net = Connector::builder().policy(policy).build().unwrap();
    let options = |port| ClusterOptions::new(Options::new(Endpoint::new("127.0.0.1", port).unwrap()));
    for reply in ["-MOVED 12182 169.254.169.254:80\r\n", "-ASK 12182 ::ffff:169.254.169.254:80\r\n"] {
        let one = listen().await;
        let at = one.1;
        let node = play(one, move |line| match line {
            "CLUSTER SLOTS" => slots(&[("127.0.0.1", at)]),
            _ => reply.to_owned(),
        });
        let cluster = ClusterClient::connect(&net, options(at)).await.unwrap();
        let error = cluster.run::<String>(&get("foo")).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (Kind::Blocked, Delivery::NotSent), "{reply}");
        assert_eq!(node.heard(), ["GET foo"], "it is not tried again");
    }
    let one = listen().await;
    let at = one.1;
    let _node = play(one, move |_| slots(&[("169.254.169.254", 80)]));
    let cluster = ClusterClient::connect(&net, options(at)).await.unwrap();
    let error = cluster.run::<String>(&get("foo")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Blocked);
    let pipeline = Pipeline::new().with(get("foo")).with(get("bar"));
    assert_eq!(cluster.pipeline(&pipeline).await.unwrap_err().kind(), Kind::Blocked);
    // And so is a node that the caller's own mapping leads to.
    let mapped = options(at).map_nodes(|_| Endpoint::new("169.254.1.1", 80).unwrap());
    let cluster = ClusterClient::connect(&net, mapped).await.unwrap();
    assert_eq!(cluster.run::<String>(&get("foo")).await.unwrap_err().kind(), Kind::Blocked);
}

#[tokio::test]
async fn redirects_without_end_are_cut_off() {
    let (one, two) = (listen().await, listen().await);
    let (a, b) = (one.1, two.1);
    let circle = |to: u16| {
        move |line: &str| match line {
            "CLUSTER SLOTS" => slots(&[("127.0.0.1", a)]),
            _ => format!("-MOVED 12182 127.0.0.1:{to}\r\n"),
        }
    };
    let (one, two) = (play(one, circle(b)), play(two, circle(a)));
    let cluster = connect(a, |options| options.redirects(4)).await.unwrap();
    let error = cluster.run::<String>(&get("foo")).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Server, Delivery::Refused));
    assert_eq!(one.heard().len() + two.heard().len(), 5);
}

#[tokio::test]
async fn a_slot_that_is_down_or_moving_is_tried_again_for_a_while() {
    for (refusal, good) in [("TRYAGAIN Multiple keys request during rehashing of slot", true), ("CLUSTERDOWN", false)] {
        let one = listen().await;
        let at = one.1;
        let times = Mutex::new(0);
        let node = play(one, move |line| {
            if line == "CLUSTER SLOTS" {
                return slots(&[("127.0.0.1", at)]);
            }
            *times.lock().unwrap() += 1;
            if good && *times.lock().unwrap() == 3 { "+good\r\n".to_owned() } else { format!("-{refusal}\r\n") }
        });
        let cluster = connect(at, |options| options.retries(2)).await.unwrap();
        let result = cluster.run::<String>(&get("foo")).await;
        assert_eq!(node.heard().len(), 3);
        match result {
            Ok(word) => assert!(good && word == "good"),
            Err(error) => assert!(!good && error.server::<ServerError>().unwrap().code == "CLUSTERDOWN"),
        }
    }
}

#[tokio::test]
async fn a_lost_node_is_repeated_only_where_that_does_no_harm() {
    let (one, two) = (listen().await, listen().await);
    let (at, to) = (one.1, two.1);
    let lost = Arc::new(Mutex::new(false));
    let seen = lost.clone();
    let one = play(one, move |line| match line {
        "CLUSTER SLOTS" => slots(&[("127.0.0.1", if *seen.lock().unwrap() { to } else { at })]),
        _ => {
            *seen.lock().unwrap() = true;
            "CLOSE".to_owned()
        }
    });
    let two = play(two, |_| "+two\r\n".to_owned());
    let cluster = connect(at, |options| options).await.unwrap();
    let error = cluster.run::<i64>(&Command::new("INCR").arg("foo")).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Closed, Delivery::Unknown));
    *lost.lock().unwrap() = false;
    assert_eq!(cluster.run::<String>(&get("foo")).await.unwrap(), "two");
    assert_eq!(
        (one.heard(), two.heard()),
        (vec!["INCR foo".to_owned(), "GET foo".to_owned()], vec!["GET foo".to_owned()])
    );
}

#[tokio::test]
async fn keys_in_several_slots_are_refused_before_a_byte_is_sent() {
    let one = listen().await;
    let at = one.1;
    let node = play(one, move |line| match line {
        "CLUSTER SLOTS" => slots(&[("127.0.0.1", at)]),
        _ => "+OK\r\n".to_owned(),
    });
    let cluster = connect(at, |options| options).await.unwrap();
    assert_eq!(cluster.mset(&[("foo", 1), ("bar", 2)]).await.unwrap_err().kind(), Kind::Usage);
    let mixed = Pipeline::new().with(get("foo")).with(Command::new("MGET").arg("foo").arg("bar"));
    assert_eq!(cluster.pipeline(&mixed).await.unwrap_err().kind(), Kind::Usage);
    let across = Pipeline::new().with(get("foo")).with(get("bar")).atomic();
    assert_eq!(cluster.pipeline(&across).await.unwrap_err().kind(), Kind::Usage);
    assert!(node.heard().is_empty());
    cluster.mset(&[("{t}foo", 1), ("{t}bar", 2)]).await.unwrap();
    cluster.close().await.unwrap();
    let error = cluster.mset(&[("{t}foo", 1)]).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Closed, Delivery::NotSent));
}

#[tokio::test]
async fn a_pipeline_is_split_by_node_and_put_together_in_its_order() {
    let (one, two) = (listen().await, listen().await);
    let (a, b) = (one.1, two.1);
    let told = slots(&[("127.0.0.1", a), ("127.0.0.1", b)]);
    let script = |name: &'static str| {
        let told = told.clone();
        move |line: &str| match line {
            "CLUSTER SLOTS" => told.clone(),
            // Slot 5061, which the first node has sent away.
            "GET bar" if name == "one" => format!("-MOVED 5061 127.0.0.1:{b}\r\n"),
            _ => format!("+{name} {line}\r\n"),
        }
    };
    let (one, two) = (play(one, script("one")), play(two, script("two")));
    let cluster = connect(a, |options| options).await.unwrap();
    let pipeline = ["foo", "bar", "hello", "foo"].iter().fold(Pipeline::new(), |pipeline, key| pipeline.with(get(key)));
    let mut replies = cluster.pipeline(&pipeline).await.unwrap();
    for expected in ["two GET foo", "two GET bar", "one GET hello", "two GET foo"] {
        assert_eq!(replies.read::<String>().unwrap(), expected);
    }
    assert_eq!((one.heard().len(), two.heard()), (2, ["GET foo", "GET foo", "GET bar"].map(str::to_owned).to_vec()));
}

#[tokio::test]
async fn connections_are_made_when_needed_let_go_with_their_nodes_and_bounded() {
    let (one, two) = (listen().await, listen().await);
    let (a, b) = (one.1, two.1);
    let shrunk = Arc::new(Mutex::new(false));
    let small = shrunk.clone();
    let script = move |line: &str| match line {
        "CLUSTER SLOTS" if *small.lock().unwrap() => slots(&[("127.0.0.1", a)]),
        "CLUSTER SLOTS" => slots(&[("127.0.0.1", a), ("127.0.0.1", b)]),
        _ => "+OK\r\n".to_owned(),
    };
    let (_one, two) = (play(one, script.clone()), play(two, script));
    let cluster = connect(a, |options| options).await.unwrap();
    assert_eq!((cluster.0.nodes_open(), cluster.nodes().len()), (1, 2), "the second node is not needed yet");
    cluster.run::<()>(&get("foo")).await.unwrap();
    assert_eq!((cluster.0.nodes_open(), two.heard().len()), (2, 1));
    *shrunk.lock().unwrap() = true;
    cluster.refresh().await.unwrap();
    assert!(cluster.0.nodes_open() <= 2 && cluster.nodes().len() == 1);
    cluster.refresh().await.unwrap();
    assert_eq!(cluster.0.nodes_open(), 1);
    *shrunk.lock().unwrap() = false;
    let error = connect(a, |options| options.max_nodes(1)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Limit);
}

#[tokio::test]
async fn the_next_seed_is_asked_when_the_first_is_down_and_a_refused_login_is_told() {
    let (down, up) = (listen().await, listen().await);
    let (dead, at) = (down.1, up.1);
    drop(down);
    let _node = play(up, move |line| match line {
        "CLUSTER SLOTS" => slots(&[("127.0.0.1", at)]),
        "AUTH joe wrong" => "-WRONGPASS invalid username-password pair\r\n".to_owned(),
        _ => "+OK\r\n".to_owned(),
    });
    let seed = Endpoint::new("127.0.0.1", at).unwrap();
    connect(dead, |options| options.seed(seed.clone())).await.unwrap();
    let options = Options::new(seed).credentials(Credentials::new("joe", "wrong"));
    let error = ClusterClient::connect(&Connector::default(), ClusterOptions::new(options)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Auth);
    let error = connect(dead, |options| options).await.unwrap_err();
    assert!(error.is_refused(), "{error}");
}

#[tokio::test]
async fn many_callers_of_a_lost_cluster_ask_once_for_all_and_end() {
    let one = listen().await;
    let at = one.1;
    let node = play(one, move |line| match line {
        "CLUSTER SLOTS" => slots(&[("127.0.0.1", at)]),
        _ => "-CLUSTERDOWN The cluster is down\r\n".to_owned(),
    });
    let cluster = connect(at, |options| options.retries(1)).await.unwrap();
    let calls = (0..50).map(|_| {
        let cluster = cluster.clone();
        tokio::spawn(async move { cluster.run::<String>(&get("foo")).await })
    });
    for call in calls.collect::<Vec<_>>() {
        let ended = tokio::time::timeout(Duration::from_secs(10), call).await.unwrap().unwrap();
        assert_eq!(ended.unwrap_err().delivery(), Delivery::Refused);
    }
    let told = node.heard.lock().unwrap().iter().filter(|line| *line == "CLUSTER SLOTS").count();
    assert!(told < 25, "{told} questions");
}

#[test]
fn urls_name_seeds_and_no_database() {
    let options =
        ClusterOptions::from_url("redis+cluster://:pw@a.example:7000,[::1],10.0.0.1:7002/?protocol=2").unwrap();
    let seeds: Vec<_> = options.seeds().iter().map(Endpoint::authority).collect();
    assert_eq!(seeds, ["a.example:7000", "[::1]:6379", "10.0.0.1:7002"]);
    for url in ["redis://a", "redis+cluster://a/3", "redis+cluster://", "redis+cluster://a,,b", "redis+cluster://a?x=y"]
    {
        assert_eq!(ClusterOptions::from_url(url).unwrap_err().kind(), Kind::Usage, "{url}");
    }
}
