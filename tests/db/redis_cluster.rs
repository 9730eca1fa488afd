//! Redis Cluster against redis-server: three primaries and a replica, a slot on its way, a failover, a node that dies.

use std::time::Duration;

use portolan_core::{Connector, Delivery, Endpoint, Kind, Policy};
use portolan_db::redis::{
    Client, ClusterClient, ClusterOptions, Command, Event, Options, Pipeline, Script, ServerError, Value, key_slot,
};
use portolan_testbed::{Server, Service, free_port, record};

/// The first slot behind each primary's last.
const ENDS: [u16; 3] = [5461, 10923, 16384];

struct Cluster {
    servers: Vec<Server>,
    ports: Vec<u16>,
}

/// The bus has a port of its own: by default it would be 10000 above, which need not exist.
fn service(port: u16, bus: u16) -> Service {
    let (port_text, bus) = (port.to_string(), bus.to_string());
    Service::new("redis-server", "redis-server")
        .args(["--port", &port_text, "--cluster-port", &bus, "--bind", "127.0.0.1", "--save", "", "--dir", "$D"])
        .args(["--appendonly", "no", "--cluster-enabled", "yes", "--cluster-node-timeout", "1000"])
        .args(["--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"])
        .accepts(([127, 0, 0, 1], port).into())
}

async fn direct(port: u16) -> Client {
    let options = Options::new(Endpoint::new("127.0.0.1", port).unwrap());
    Client::connect(&Connector::default(), options).await.unwrap()
}

/// Asks until the answer will do: nodes tell each other in their own time.
async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while std::time::Instant::now() < deadline {
        if let Some(answer) = ask().await {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what}: not within 30 s");
}

async fn info(client: &Client, key: &str) -> String {
    let text: String = client.run(&Command::new("CLUSTER INFO")).await.unwrap();
    let prefix = format!("{key}:");
    text.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap().to_owned()
}

async fn id(client: &Client) -> String {
    client.run(&Command::new("CLUSTER MYID")).await.unwrap()
}

/// Three primaries with a third of the slots each; with `replica`, the first has a replica.
async fn start(replica: bool) -> Option<Cluster> {
    let ports: Vec<u16> = (0..3 + usize::from(replica)).map(|_| free_port()).collect();
    let buses: Vec<u16> = ports.iter().map(|_| free_port()).collect();
    let mut servers = Vec::new();
    for (port, bus) in ports.iter().zip(&buses) {
        servers.push(service(*port, *bus).start()?);
    }
    let mut first = 0;
    for (port, end) in ports.iter().zip(ENDS) {
        let command = Command::new("CLUSTER ADDSLOTSRANGE").arg(u32::from(first)).arg(u32::from(end - 1));
        direct(*port).await.run::<()>(&command).await.unwrap();
        first = end;
    }
    let seed = direct(ports[0]).await;
    for (port, bus) in ports.iter().zip(&buses).skip(1) {
        seed.run::<()>(&Command::new("CLUSTER MEET").arg("127.0.0.1").arg(*port).arg(*bus)).await.unwrap();
    }
    for port in &ports {
        let client = direct(*port).await;
        until("every node knows all", || async {
            (info(&client, "cluster_known_nodes").await == ports.len().to_string()).then_some(())
        })
        .await;
    }
    if replica {
        let copy = direct(ports[3]).await;
        let command = Command::new("CLUSTER REPLICATE").arg(id(&seed).await);
        until("the replica follows", || async { copy.run::<()>(&command).await.ok() }).await;
        until("the replica is in step", || async {
            let text = copy.info_text(Some("replication")).await.unwrap();
            text.contains("master_link_status:up").then_some(())
        })
        .await;
    }
    for port in &ports {
        let client = direct(*port).await;
        until("the cluster is up", || async { (info(&client, "cluster_state").await == "ok").then_some(()) }).await;
    }
    Some(Cluster { servers, ports })
}

impl Cluster {
    fn options(&self) -> ClusterOptions {
        ClusterOptions::new(Options::new(Endpoint::new("127.0.0.1", self.ports[0]).unwrap()))
    }

    async fn client(&self) -> ClusterClient {
        ClusterClient::connect(&Connector::default(), self.options()).await.unwrap()
    }
}

/// A key of each primary, and the place of that primary.
fn keys() -> [String; 3] {
    let mut found = [None, None, None];
    for n in 0..1000 {
        let key = format!("{{k{n}}}");
        let place = ENDS.iter().position(|end| key_slot(&key) < *end).unwrap();
        found[place].get_or_insert(key);
    }
    found.map(Option::unwrap)
}

#[tokio::test]
async fn commands_pipelines_scripts_and_messages_reach_their_nodes() {
    let Some(cluster) = start(false).await else { return };
    let client = cluster.client().await;
    assert_eq!(client.primaries().len(), 3);
    for n in 0..100 {
        client.set(format!("key{n}"), n).await.unwrap();
    }
    for n in 0..100 {
        assert_eq!(client.get::<i64>(format!("key{n}")).await.unwrap(), n);
    }
    let sizes = client.run_on_all::<i64>(&Command::new("DBSIZE")).await.unwrap();
    let sizes: Vec<i64> = sizes.into_iter().map(|(_, size)| size.unwrap()).collect();
    assert!(sizes.iter().all(|size| *size > 10) && sizes.iter().sum::<i64>() == 100, "{sizes:?}");
    client.mset(&[("{t}a", 1), ("{t}b", 2)]).await.unwrap();
    assert_eq!(client.mget::<_, i64>(&["{t}a", "{t}b"]).await.unwrap(), [Some(1), Some(2)]);
    assert_eq!(client.mset(&[("a", 1), ("b", 2)]).await.unwrap_err().kind(), Kind::Usage);

    let pipeline = (0..100).fold(Pipeline::new(), |all, n| all.with(Command::new("INCR").arg(format!("key{n}"))));
    let mut replies = client.pipeline(&pipeline).await.unwrap();
    for n in 1..=100 {
        assert_eq!(replies.read::<i64>().unwrap(), n);
    }
    let atomic = Pipeline::new().with(Command::new("INCR").arg("{t}a")).with(Command::new("INCR").arg("{t}b")).atomic();
    let mut replies = client.pipeline(&atomic).await.unwrap();
    assert_eq!((replies.read::<i64>().unwrap(), replies.read::<i64>().unwrap()), (2, 3));
    let script = Script::new("return redis.call('GET', KEYS[1]) .. ARGV[1]");
    for key in ["{t}a", "key7"] {
        assert!(client.eval::<String>(&script, &[key], &["!"]).await.unwrap().ends_with('!'));
    }

    let mut subscriber = client.subscriber().await.unwrap();
    subscriber.subscribe(&["news"]).await.unwrap();
    client.publish("news", "hello").await.unwrap();
    let Event::Message(message) = subscriber.next().await.unwrap() else { panic!("expected a message") };
    assert_eq!(message.payload, "hello");
    let version = direct(cluster.ports[0]).await.info_text(Some("server")).await.unwrap();
    let version = version.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap().to_owned();
    record("redis", "peer", &format!("redis-server {version}"), "cluster of three", 320);
    client.close().await.unwrap();
    assert_eq!(client.get::<Value>("a").await.unwrap_err().delivery(), Delivery::NotSent);
}

#[tokio::test]
async fn a_slot_on_its_way_is_asked_for_and_then_followed() {
    let Some(cluster) = start(false).await else { return };
    let client = cluster.client().await;
    let [key, ..] = keys();
    let slot = u32::from(key_slot(&key));
    let here = format!("{key}here");
    client.set(&here, "stays").await.unwrap();
    let (from, to) = (direct(cluster.ports[0]).await, direct(cluster.ports[1]).await);
    let (from_id, to_id) = (id(&from).await, id(&to).await);
    let set_slot = |how: &'static str, id: &str| Command::new("CLUSTER SETSLOT").arg(slot).arg(how).arg(id);
    to.run::<()>(&set_slot("IMPORTING", &from_id)).await.unwrap();
    from.run::<()>(&set_slot("MIGRATING", &to_id)).await.unwrap();
    // What is still here is answered here; what is not, there: and the slot is not thereby learnt.
    assert_eq!(client.get::<String>(&here).await.unwrap(), "stays");
    client.set(format!("{key}new"), "there").await.unwrap();
    assert_eq!(client.node_of(&key).unwrap().port(), cluster.ports[0]);
    let pipeline = [&here, &format!("{key}new"), &here]
        .iter()
        .fold(Pipeline::new(), |all, key| all.with(Command::new("GET").arg(key)));
    let mut replies = client.pipeline(&pipeline).await.unwrap();
    for expected in ["stays", "there", "stays"] {
        assert_eq!(replies.read::<String>().unwrap(), expected);
    }
    // One key on either side: the cluster says to try again, and that it does until the slot has moved.
    let both = [here.clone(), format!("{key}new")];
    let few = ClusterClient::connect(&Connector::default(), cluster.options().retries(1)).await.unwrap();
    let error = few.mget::<_, String>(&both).await.unwrap_err();
    assert_eq!(
        (error.server::<ServerError>().unwrap().code.as_str(), error.delivery()),
        ("TRYAGAIN", Delivery::Refused)
    );
    let waiting = tokio::spawn({
        let (client, both) = (client.clone(), both.clone());
        async move { client.mget::<_, String>(&both).await }
    });
    let migrate = Command::new("MIGRATE").arg("127.0.0.1").arg(cluster.ports[1]).arg(&here).arg(0).arg(5000);
    from.run::<()>(&migrate).await.unwrap();
    for client in [&to, &from] {
        client.run::<()>(&set_slot("NODE", &to_id)).await.unwrap();
    }
    let values = waiting.await.unwrap().unwrap();
    assert_eq!(values, [Some("stays".to_owned()), Some("there".to_owned())]);
    assert_eq!(client.get::<String>(&here).await.unwrap(), "stays");
    assert_eq!(client.node_of(&key).unwrap().port(), cluster.ports[1]);
}

#[tokio::test]
async fn a_failover_is_survived_and_replicas_answer_reads() {
    let Some(mut cluster) = start(true).await else { return };
    let client = cluster.client().await;
    let [key, other, _] = keys();
    client.set(&key, 1).await.unwrap();
    let copy = direct(cluster.ports[3]).await;
    until("the replica has it", || async {
        (copy.run::<i64>(&Command::new("DBSIZE")).await.unwrap() == 1).then_some(())
    })
    .await;

    let reader =
        ClusterClient::connect(&Connector::default(), cluster.options().read_from_replicas(true)).await.unwrap();
    until("the nodes tell of the replica", || async {
        reader.refresh().await.unwrap();
        (reader.nodes().len() == 4).then_some(())
    })
    .await;
    let served = || async {
        let stats = copy.info_text(Some("commandstats")).await.unwrap();
        stats.lines().find_map(|line| line.strip_prefix("cmdstat_get:calls=")?.split(',').next()?.parse::<u32>().ok())
    };
    assert_eq!(reader.get::<i64>(&key).await.unwrap(), 1);
    assert_eq!(served().await, Some(1));
    reader.incr(&key, 1).await.unwrap();

    // The primary hands over: MOVED from it, and the replica is now the one.
    copy.run::<()>(&Command::new("CLUSTER FAILOVER")).await.unwrap();
    until("the replica leads", || async {
        copy.info_text(Some("replication")).await.unwrap().contains("role:master").then_some(())
    })
    .await;
    assert_eq!(client.incr(&key, 1).await.unwrap(), 3);
    assert_eq!(client.node_of(&key).unwrap().port(), cluster.ports[3]);
    until("it is in step", || async {
        direct(cluster.ports[0])
            .await
            .info_text(Some("replication"))
            .await
            .unwrap()
            .contains("master_link_status:up")
            .then_some(())
    })
    .await;

    // It dies, and the other takes over by itself: commands wait for that, and those of other slots do not notice.
    drop(cluster.servers.pop());
    let patient = ClusterClient::connect(&Connector::default(), cluster.options().retries(12)).await.unwrap();
    assert_eq!(client.set(&other, 1).await.map_err(|error| error.kind()), Ok(()));
    let value: i64 = patient.get(&key).await.unwrap();
    assert_eq!(value, 3);
    assert_eq!(patient.node_of(&key).unwrap().port(), cluster.ports[0]);
}

#[tokio::test]
async fn the_policy_holds_for_every_node() {
    let Some(cluster) = start(false).await else { return };
    // The seed is allowed, the nodes that it names are not.
    let policy = Policy::any().allow_ports(cluster.ports[0]..=cluster.ports[0]);
    let net = Connector::builder().policy(policy).build().unwrap();
    let client = ClusterClient::connect(&net, cluster.options()).await.unwrap();
    let [mine, theirs, _] = keys();
    client.set(&mine, 1).await.unwrap();
    let error = client.set(&theirs, 1).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Blocked, Delivery::NotSent));
}
