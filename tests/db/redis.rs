//! Redis against redis-server: plain, password, ACL user, TLS, through a restart.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use portolan_core::{Connector, Credentials, Delivery, Endpoint, Kind, Phase, Roots, Timeouts, Tls};
use portolan_db::redis::{
    Client, Command, Event, Options, Pipeline, PoolOptions, Script, ServerError, Sessions, SetOptions, Value,
};
use portolan_testbed::{Certs, Server, Service, Tape, free_port, record};

struct Redis {
    server: Server,
    port: u16,
}

fn service(port: u16) -> Service {
    Service::new("redis-server", "redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", "$D"])
        .accepts(([127, 0, 0, 1], port).into())
}

fn start(more: &[&str]) -> Option<Redis> {
    let port = free_port();
    service(port).args(more.iter().copied()).start().map(|server| Redis { server, port })
}

impl Redis {
    fn options(&self) -> Options {
        Options::new(Endpoint::new("127.0.0.1", self.port).unwrap())
    }

    async fn client(&self) -> Client {
        Client::connect(&Connector::default(), self.options()).await.unwrap()
    }
}

async fn peer(client: &Client) -> String {
    let info = client.info_text(Some("server")).await.unwrap();
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap();
    format!("redis-server {version}")
}

async fn every_type_round_trips(client: &Client) {
    client.set("text", "väl\r\nue").await.unwrap();
    assert_eq!(client.get::<String>("text").await.unwrap(), "väl\r\nue");
    assert_eq!(client.get::<Option<String>>("missing").await.unwrap(), None);
    let blob: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    client.set("blob", &blob).await.unwrap();
    assert_eq!(client.get::<Bytes>("blob").await.unwrap(), blob);
    assert!(client.set_with("once", 1, SetOptions::new().if_absent().expire(Duration::from_secs(60))).await.unwrap());
    assert!(!client.set_with("once", 2, SetOptions::new().if_absent()).await.unwrap());
    assert!(client.ttl("once").await.unwrap().unwrap() > Duration::from_secs(50));
    assert_eq!(client.incr("n", i64::MAX).await.unwrap(), i64::MAX);
    let overflow = client.incr("n", 1).await.unwrap_err();
    assert_eq!((overflow.kind(), overflow.delivery()), (Kind::Server, Delivery::Answered));
    assert_eq!(client.hset("hash", &[("a", 1), ("b", 2)]).await.unwrap(), 2);
    let hash: HashMap<String, i64> = client.hgetall("hash").await.unwrap();
    assert_eq!(hash, HashMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)]));
    client.rpush("list", &["x", "y", "z"]).await.unwrap();
    assert_eq!(client.lrange::<String>("list", 0, -1).await.unwrap(), ["x", "y", "z"]);
    client.sadd("set", &["m"]).await.unwrap();
    assert_eq!(client.smembers::<String>("set").await.unwrap(), ["m"]);
    client.zadd("zset", &[(1.5, "one")]).await.unwrap();
    assert_eq!(client.run::<f64>(&Command::new("ZSCORE").arg("zset").arg("one")).await.unwrap(), 1.5);
    assert_eq!(client.mget::<_, String>(&["text", "missing"]).await.unwrap(), [Some("väl\r\nue".to_owned()), None]);
    let wrong = client.get::<String>("list").await.unwrap_err();
    assert_eq!(wrong.server::<ServerError>().unwrap().code, "WRONGTYPE");
    assert_eq!(client.del(&["text", "missing"]).await.unwrap(), 1);
    let (mut cursor, mut keys) = (0, 0);
    loop {
        let (next, found) = client.scan(cursor, Some("*"), 2).await.unwrap();
        (cursor, keys) = (next, keys + found.len());
        if cursor == 0 {
            break;
        }
    }
    assert!(keys >= 7);
}

#[tokio::test]
async fn types_round_trip_in_resp3_and_resp2() {
    let Some(redis) = start(&[]) else { return };
    let client = redis.client().await;
    every_type_round_trips(&client).await;
    record("redis", "peer", &peer(&client).await, "plain, RESP3", 21);
    client.run::<()>(&Command::new("FLUSHALL")).await.unwrap();
    let old = Client::connect(&Connector::default(), redis.options().resp2()).await.unwrap();
    every_type_round_trips(&old).await;
    record("redis", "peer", &peer(&client).await, "plain, RESP2", 21);
    client.close().await.unwrap();
    assert_eq!(client.ping().await.unwrap_err().delivery(), Delivery::NotSent);
}

#[tokio::test]
async fn pipelines_transactions_and_watches() {
    let Some(redis) = start(&[]) else { return };
    let client = redis.client().await;
    let pipeline = Pipeline::new()
        .with(Command::new("SET").arg("k").arg(1))
        .with(Command::new("LPOP").arg("k"))
        .with(Command::new("GET").arg("k"));
    let mut replies = client.pipeline(&pipeline).await.unwrap();
    replies.read::<()>().unwrap();
    assert_eq!(replies.read::<Value>().unwrap_err().server::<ServerError>().unwrap().code, "WRONGTYPE");
    assert_eq!(replies.read::<i64>().unwrap(), 1);
    let atomic = Pipeline::new().with(Command::new("INCR").arg("k")).with(Command::new("INCR").arg("k")).atomic();
    let mut replies = client.pipeline(&atomic).await.unwrap();
    assert_eq!((replies.read::<i64>().unwrap(), replies.read::<i64>().unwrap()), (2, 3));
    let broken = Pipeline::new().with(Command::new("SET").arg("k").arg(9)).with(Command::new("NOSUCH")).atomic();
    assert_eq!(client.pipeline(&broken).await.unwrap_err().server::<ServerError>().unwrap().code, "ERR");
    assert_eq!(client.get::<i64>("k").await.unwrap(), 3);

    let watch = client.watch(&["k"]).await.unwrap();
    let seen: i64 = watch.client().get("k").await.unwrap();
    client.set("k", 100).await.unwrap();
    let set = |value: i64| Pipeline::new().with(Command::new("SET").arg("k").arg(value));
    assert!(watch.exec(set(seen + 1)).await.unwrap().is_none());
    let watch = client.watch(&["k"]).await.unwrap();
    assert!(watch.exec(set(101)).await.unwrap().is_some());
    assert_eq!(client.get::<i64>("k").await.unwrap(), 101);

    let script = Script::new("return {KEYS[1], ARGV[1], redis.call('GET', KEYS[1])}");
    for _ in 0..2 {
        assert_eq!(client.eval::<Vec<String>>(&script, &["k"], &["a"]).await.unwrap(), ["k", "a", "101"]);
    }
}

#[tokio::test]
async fn a_thousand_callers_get_their_own_replies_and_cancelled_ones_harm_nobody() {
    let Some(redis) = start(&[]) else { return };
    let client = redis.client().await;
    let tasks: Vec<_> = (0..1000_i64)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move {
                if n % 3 == 0 {
                    // Given up at some point of its life.
                    let _ =
                        tokio::time::timeout(Duration::from_micros(n.unsigned_abs()), client.incr("given-up", 1)).await;
                }
                let echo: i64 = client.run(&Command::new("ECHO").arg(n)).await.unwrap();
                assert_eq!(echo, n);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn logins_and_refusals_are_told_apart() {
    let more = ["--requirepass", "sesame", "--user", "joe", "on", ">secret", "~joe:*", "+@all", "-flushall"];
    let Some(redis) = start(&more) else { return };
    let login = |user: &str, password: &str| {
        let options = redis.options().credentials(Credentials::new(user, password));
        async move { Client::connect(&Connector::default(), options).await }
    };
    let client = login("", "sesame").await.unwrap();
    record("redis", "peer", &peer(&client).await, "password", 2);
    let joe = login("joe", "secret").await.unwrap();
    joe.set("joe:1", 1).await.unwrap();
    let denied = joe.set("ann:1", 1).await.unwrap_err();
    assert_eq!((denied.kind(), denied.server::<ServerError>().unwrap().code.as_str()), (Kind::Auth, "NOPERM"));
    record("redis", "peer", &peer(&client).await, "ACL user", 3);
    let wrong = login("joe", "sesam").await.unwrap_err();
    assert_eq!(
        (wrong.kind(), wrong.phase(), wrong.delivery()),
        (Kind::Auth, Some(Phase::Handshake), Delivery::NotSent)
    );
    assert!(!format!("{wrong:?}").contains("sesam"));
    let none = Client::connect(&Connector::default(), redis.options()).await.unwrap_err();
    assert_eq!(none.kind(), Kind::Auth);
    let refused =
        Client::connect(&Connector::default(), Options::new(Endpoint::new("127.0.0.1", free_port()).unwrap())).await;
    let refused = refused.unwrap_err();
    assert!(refused.is_refused() && refused.attempt().unwrap().address.is_some(), "{refused:?}");
}

#[tokio::test]
async fn tls_with_and_without_trust() {
    let certs = Certs::new();
    let (port, tls_port) = (free_port(), free_port());
    let number = tls_port.to_string();
    let tls =
        ["--tls-cert-file", "$D/server.pem", "--tls-key-file", "$D/server.key", "--tls-ca-cert-file", "$D/ca.pem"];
    let Some(server) = service(port).args(["--tls-port", &number]).args(tls).tls(&certs).start() else { return };
    let tls = Tls::builder().roots(Roots::Custom).root_pem(certs.ca.as_bytes());
    let mutual = tls.clone().client_cert_pem(certs.client.as_bytes(), certs.client_key.as_bytes()).build().unwrap();
    let net = Connector::builder().tls(mutual).build().unwrap();
    let options = Options::new(Endpoint::new("localhost", tls_port).unwrap()).tls(true);
    let client = Client::connect(&net, options.clone()).await.unwrap();
    every_type_round_trips(&client).await;
    let info = client.info().unwrap();
    let agreed = info.tls.as_ref().unwrap();
    assert_eq!(agreed.version, "TLSv1.3");
    assert!(info.timings.tls.is_some() && info.timings.connect.is_some() && info.timings.handshake.is_some());
    record("redis", "peer", &peer(&client).await, "TLS with client certificate", 21);
    // Without the client certificate the server ends the conversation, without the root we do.
    let net = Connector::builder().tls(tls.build().unwrap()).build().unwrap();
    Client::connect(&net, options.clone()).await.unwrap_err();
    let distrust = Tls::builder().roots(Roots::Custom).root_pem(Certs::new().ca.as_bytes()).build().unwrap();
    let error = Client::connect(&Connector::builder().tls(distrust).build().unwrap(), options).await.unwrap_err();
    assert_eq!((error.kind(), error.phase(), error.delivery()), (Kind::Tls, Some(Phase::Tls), Delivery::NotSent));
    drop(server);
}

#[tokio::test]
async fn messages_are_heard_and_subscriptions_survive_a_restart() {
    let Some(redis) = start(&[]) else { return };
    let client = redis.client().await;
    for options in [redis.options(), redis.options().resp2()] {
        let mut ear = portolan_db::redis::Subscriber::connect(&Connector::default(), options).await.unwrap();
        ear.subscribe(&["news", "sport"]).await.unwrap();
        ear.psubscribe(&["w*"]).await.unwrap();
        assert_eq!(client.publish("news", "one").await.unwrap(), 1);
        client.publish("weather", "rain").await.unwrap();
        let Event::Message(message) = ear.next().await.unwrap() else { panic!("not a message") };
        assert_eq!((&message.channel[..], &message.payload[..]), (&b"news"[..], &b"one"[..]));
        let Event::Message(message) = ear.next().await.unwrap() else { panic!("not a message") };
        assert_eq!(message.pattern.unwrap(), "w*");
        ear.unsubscribe(&["news"]).await.unwrap();
        assert_eq!(client.publish("news", "two").await.unwrap(), 0);
        ear.close().await.unwrap();
    }
    let mut ear = client.subscriber().await.unwrap();
    ear.subscribe(&["news"]).await.unwrap();
    let port = redis.port;
    let dir = redis.server.stop();
    let server = service(port).folder(dir).start().unwrap();
    assert_eq!(ear.next().await.unwrap(), Event::Reconnected);
    // The client finds its connection gone and makes a new one.
    client.publish("news", "back").await.or(client.publish("news", "back").await).unwrap();
    assert!(matches!(ear.next().await.unwrap(), Event::Message(message) if message.payload == "back"));
    drop(server);
}

#[tokio::test]
async fn a_lost_connection_is_made_anew_but_doubtful_work_is_not_repeated() {
    let Some(redis) = start(&[]) else { return };
    let client = redis.client().await;
    let other = redis.client().await;
    client.set("k", 1).await.unwrap();
    let kill = Command::new("CLIENT KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes");
    assert!(other.run::<i64>(&kill).await.unwrap() >= 1);
    assert_eq!(client.get::<i64>("k").await.unwrap(), 1);
    // A command that blocks is cut in the middle: nobody knows whether it was done.
    let blocked = {
        let client = client.clone();
        tokio::spawn(async move { client.run::<Value>(&Command::new("BLPOP").arg("q").arg(0)).await })
    };
    let waiting = Command::new("CLIENT LIST");
    while !other.run::<String>(&waiting).await.unwrap().contains("cmd=blpop") {
        tokio::task::yield_now().await;
    }
    other.run::<i64>(&kill).await.unwrap();
    let lost = blocked.await.unwrap().unwrap_err();
    assert_eq!((lost.kind(), lost.delivery()), (Kind::Closed, Delivery::Unknown));
    client.ping().await.unwrap();
}

#[tokio::test]
async fn every_fault_of_the_conversation_ends_in_a_typed_error() {
    let Some(redis) = start(&[]) else { return };
    let session = |addr: std::net::SocketAddr| async move {
        let options = Options::new(addr.into()).reconnect(false).client_name("tape");
        let limits = Timeouts::default()
            .handshake(Duration::from_millis(400))
            .first_byte(Duration::from_millis(400))
            .idle(Duration::from_millis(400));
        let client = Client::connect(&Connector::default(), options.timeouts(limits)).await?;
        client.set("k", "value").await?;
        let value: Value = client.get("k").await?;
        let pipeline = Pipeline::new()
            .with(Command::new("SADD").arg("s").arg("m"))
            .with(Command::new("SMEMBERS").arg("s"))
            .atomic();
        client.pipeline(&pipeline).await?.read::<Value>()?;
        let missing: Value = client.get("missing").await?;
        if value.is_null() || !missing.is_null() {
            return Err(portolan_core::Error::protocol("redis", "another value than was stored"));
        }
        client.close().await
    };
    let tape =
        Tape::record(([127, 0, 0, 1], redis.port).into(), |addr| async move { session(addr).await.unwrap() }).await;
    let outcome = tape.replay(tape.len(), session).await;
    assert!(outcome.runs > 500 && outcome.failed > 50, "{outcome:?}");
    record("redis", "faults", "redis-server", "plain", outcome.runs as u64);
}

#[tokio::test]
async fn sessions_are_pooled_only_as_clean_as_they_came() {
    let Some(redis) = start(&[]) else { return };
    let client = redis.client().await;
    let sessions = Sessions::new(&Connector::default(), redis.options(), PoolOptions::default().per_key(2));
    let opened = || sessions.pool().metrics().opened;
    // One is used again, and a transaction leaves nothing behind.
    for round in 0..3_i64 {
        let session = sessions.acquire().await.unwrap();
        session.watch(&["stock"]).await.unwrap();
        let stock: Option<i64> = session.get("stock").await.unwrap();
        assert_eq!(stock.unwrap_or(0), round);
        let take = Pipeline::new().with(Command::new("SET").arg("stock").arg(round + 1));
        assert!(session.exec(take).await.unwrap().is_some());
    }
    assert_eq!(opened(), 1);
    // A watched key that somebody changes ends the transaction, not the session.
    let session = sessions.acquire().await.unwrap();
    session.watch(&["stock"]).await.unwrap();
    client.set("stock", 9).await.unwrap();
    assert!(session.exec(Pipeline::new().with(Command::new("INCR").arg("stock"))).await.unwrap().is_none());
    drop(session);
    assert_eq!((sessions.run::<i64>(&Command::new("GET").arg("stock")).await.unwrap(), opened()), (9, 1));
    // A watch without its end, and a changed database, do not go back.
    for command in [Command::new("WATCH").arg("stock"), Command::new("SELECT").arg(3), Command::new("MULTI")] {
        let before = opened();
        sessions.run::<()>(&command).await.unwrap();
        assert_eq!(sessions.run::<i64>(&Command::new("GET").arg("stock")).await.unwrap(), 9, "{command:?}");
        assert_eq!(opened(), before + 1, "{command:?}");
    }
    // A blocking call that is given up takes no element any more.
    let pop = Command::new("BLPOP").arg("jobs").arg(0);
    assert!(tokio::time::timeout(Duration::from_millis(50), sessions.run::<Value>(&pop)).await.is_err());
    let blocked = || async {
        let text = client.info_text(Some("clients")).await.unwrap();
        text.lines().any(|line| line == "blocked_clients:1")
    };
    while blocked().await {
        tokio::task::yield_now().await;
    }
    client.rpush("jobs", &["one"]).await.unwrap();
    assert_eq!(sessions.run::<(String, String)>(&pop).await.unwrap().1, "one");
    // A session that the server has ended is replaced, and the command run all the same.
    let before = opened();
    client.run::<()>(&Command::new("CLIENT KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes")).await.unwrap();
    assert_eq!(sessions.run::<i64>(&Command::new("GET").arg("stock")).await.unwrap(), 9);
    assert_eq!(opened(), before + 1);
}
