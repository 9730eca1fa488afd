//! Redis Sentinel against `redis-server --sentinel`: the primary is found, and found again after a failover.

use std::time::Duration;

use portolan_core::{Connector, Delivery, Endpoint, Kind, Policy};
use portolan_db::redis::{Client, Command, Options};
use portolan_testbed::{Server, Service, free_port, record};

fn server(port: u16, more: &[&str]) -> Option<Server> {
    Service::new("redis-server", "redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir", "$D"])
        .args(more.iter().copied())
        .accepts(([127, 0, 0, 1], port).into())
        .start()
}

/// A primary, a replica of it and a sentinel that watches them.
struct Watched {
    ports: [u16; 3],
    _servers: Vec<Server>,
}

fn start() -> Option<Watched> {
    let ports = [free_port(), free_port(), free_port()];
    let [primary, replica, sentinel] = ports;
    let mut servers = vec![
        server(primary, &["--requirepass", "sesame", "--masterauth", "sesame", "--repl-diskless-sync-delay", "0"])?,
        server(
            replica,
            &["--requirepass", "sesame", "--masterauth", "sesame", "--replicaof", "127.0.0.1", &primary.to_string()],
        )?,
    ];
    let text = format!(
        "port {sentinel}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {primary} 1\nsentinel auth-pass main sesame\n\
         sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 5000\n"
    );
    let watcher = Service::new("redis-server", "redis-server")
        .file("sentinel.conf", text)
        .args(["$D/sentinel.conf", "--sentinel"])
        .accepts(([127, 0, 0, 1], sentinel).into());
    servers.push(watcher.start()?);
    Some(Watched { ports, _servers: servers })
}

#[tokio::test]
async fn the_primary_is_found_and_found_again_after_a_failover() {
    let Some(watched) = start() else { return };
    let [primary, replica, sentinel] = watched.ports;
    // The first sentinel of the list is down.
    let url = format!("redis+sentinel://:sesame@127.0.0.1:{},127.0.0.1:{sentinel}/main/2", free_port());
    let client = Client::open(&url).await.unwrap();
    assert_eq!(client.info().unwrap().peer.unwrap().port(), primary);
    client.set("key", 1).await.unwrap();
    let watcher = Options::new(Endpoint::new("127.0.0.1", sentinel).unwrap());
    let watcher = Client::connect(&Connector::default(), watcher).await.unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    // The sentinel refuses while it has not yet seen the replica in step.
    while watcher.run::<()>(&Command::new("SENTINEL FAILOVER").arg("main")).await.is_err() {
        assert!(std::time::Instant::now() < deadline, "no failover within 30 s");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The old primary closes its clients when it is demoted; the next command goes to the new one.
    while client.info().unwrap().peer.unwrap().port() != replica || client.set("key", 2).await.is_err() {
        assert!(std::time::Instant::now() < deadline, "not with the new primary within 30 s");
        let _ = client.get::<Option<i64>>("key").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(client.get::<i64>("key").await.unwrap(), 2);
    let subscriber = client.subscriber().await;
    assert!(subscriber.is_ok());
    let version = client.info_text(Some("server")).await.unwrap();
    let version = version.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap().to_owned();
    record("redis", "peer", &format!("redis-server {version}"), "sentinel", 6);
}

#[tokio::test]
async fn services_that_nobody_knows_and_primaries_that_are_forbidden_are_told_apart() {
    let Some(watched) = start() else { return };
    let [_, _, sentinel] = watched.ports;
    let at = Endpoint::new("127.0.0.1", sentinel).unwrap();
    let unknown = Options::sentinel("other", [at.clone()], None).unwrap();
    let error = Client::connect(&Connector::default(), unknown).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Resolve, Delivery::NotSent));
    assert!(error.message().contains("other"), "{error}");
    // The sentinel may be reached, and what it names may not.
    let policy = Policy::any().allow_ports(sentinel..=sentinel);
    let net = Connector::builder().policy(policy).build().unwrap();
    let error = Client::connect(&net, Options::sentinel("main", [at], None).unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Blocked);
    for url in ["redis+sentinel://a", "redis+sentinel:///main", "redis+sentinel://a/main/x"] {
        assert_eq!(Options::from_url(url).unwrap_err().kind(), Kind::Usage, "{url}");
    }
}
