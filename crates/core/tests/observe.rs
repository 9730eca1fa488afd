//! What observers and `tracing` are told, and that it is the truth.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "these are tests, and they are the peer")]

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portolan_core::observe::{Closed, Done, Facts, Observer, Opened, Outcome, Probe, Semantics, Step, Value};
use portolan_core::{Connector, Endpoint, Error, HappyOptions, Hop, Kind, Phase, Resolver, Timeouts};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};

/// Writes down what it is told, a line each.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Notes {
    fn add(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

fn end(outcome: Outcome<'_>) -> String {
    match outcome {
        Outcome::Done => "done".into(),
        Outcome::Failed(error) => format!("{:?}", error.kind()),
        Outcome::Dropped => "dropped".into(),
        _ => "?".into(),
    }
}

impl Observer for Notes {
    fn phase(&self, step: &Step<'_>) {
        let hop = step.hop.map(|hop| format!(" hop {} {}", hop.index, hop.kind)).unwrap_or_default();
        let ip = step.address.map(|address| format!(" {}", address.ip())).unwrap_or_default();
        let who = step.protocol.map(|protocol| format!("{protocol} ")).unwrap_or_default();
        self.add(format!("{who}{}{hop}{ip} {}", step.phase, end(step.outcome)));
    }

    fn opened(&self, opened: &Opened<'_>) {
        assert_eq!(opened.info.map_or(opened.id, |info| info.id), opened.id);
        self.add(format!("opened {} {}", opened.endpoint.host_text(), end(opened.outcome)));
    }

    fn closed(&self, closed: &Closed<'_>) {
        self.add(format!("closed {} sent {} received {}", closed.endpoint.host_text(), closed.sent, closed.received));
    }

    fn operation(&self, done: &Done<'_>) {
        let about = done.about.unwrap_or("-");
        self.add(format!("{} {} {about} {:?} {}", done.protocol, done.operation, done.facts.status, end(done.outcome)));
    }
}

fn observed() -> (Arc<Notes>, portolan_core::ConnectorBuilder) {
    let notes = Arc::new(Notes::default());
    (notes.clone(), Connector::builder().observer(notes))
}

/// Echoes what it reads; with `proxy`, after the handshake of a SOCKS5 proxy that is its own target.
async fn echo(at: &str, proxy: bool) -> SocketAddr {
    let listener = TcpListener::bind(at).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            if proxy {
                let mut room = [0; 64];
                stream.read_exact(&mut room[..3]).await.unwrap();
                stream.write_all(&[5, 0]).await.unwrap();
                stream.read_exact(&mut room[..5]).await.unwrap();
                let rest = usize::from(room[4]) + 2;
                stream.read_exact(&mut room[..rest]).await.unwrap();
                stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
            }
            let (mut reader, mut writer) = stream.split();
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        }
    });
    addr
}

#[tokio::test]
async fn each_phase_is_told_once_and_traffic_when_the_connection_closes() {
    let server = echo("127.0.0.1:0", false).await;
    let (notes, net) = observed();
    // The first address refuses, the second answers.
    let addrs = [IpAddr::from([127, 0, 0, 9]), IpAddr::from([127, 0, 0, 1])];
    let net = net.resolver(Resolver::from_fn(move |_| async move { Ok(addrs.to_vec()) })).build().unwrap();
    let mut stream = net.connect(&Endpoint::new("peer.test", server.port()).unwrap()).await.unwrap();
    assert_eq!(
        notes.take(),
        ["resolve done", "connect 127.0.0.9 Connect", "connect 127.0.0.1 done", "opened peer.test done"]
    );
    stream.write_all(b"hello").await.unwrap();
    stream.read_exact(&mut [0; 3]).await.unwrap();
    drop(stream);
    assert_eq!(notes.take(), ["closed peer.test sent 5 received 3"]);
}

#[tokio::test]
async fn hops_are_told_by_their_place_and_what_they_carry_is_the_protocols_alone() {
    let proxy = echo("127.0.0.1:0", true).await;
    let (notes, net) = observed();
    let net = net.via(Hop::socks5h(Endpoint::from(proxy))).build().unwrap();
    let mut stream = net.connect(&Endpoint::new("peer.test", 7).unwrap()).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    stream.read_exact(&mut [0; 5]).await.unwrap();
    drop(stream);
    let told = ["connect 127.0.0.1 done", "hop hop 0 socks5h done", "opened peer.test done"];
    let told: Vec<_> =
        told.into_iter().map(str::to_owned).chain(["closed peer.test sent 5 received 5".into()]).collect();
    assert_eq!(notes.take(), told);
}

#[tokio::test]
async fn failures_and_calls_given_up_are_told_as_such() {
    let (notes, net) = observed();
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    net.clone().build().unwrap().connect(&Endpoint::from(nobody)).await.unwrap_err();
    assert_eq!(notes.take(), ["connect 127.0.0.1 Connect", "opened 127.0.0.1 Connect"]);

    let never = || Resolver::from_fn(|_| async { std::future::pending().await });
    let net = net.resolver(never()).timeouts(Timeouts::default().resolve(Duration::from_millis(20)));
    let error = net.clone().build().unwrap().connect(&Endpoint::new("peer.test", 1).unwrap()).await.unwrap_err();
    assert_eq!(error.phase(), Some(Phase::Resolve));
    assert_eq!(notes.take().last().unwrap(), "opened peer.test Timeout");
}

#[tokio::test]
async fn addresses_that_lost_the_race_are_told_as_dropped() {
    // A listener whose queue is full does not answer: the address that is tried first hangs.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&SocketAddr::from(([127, 0, 0, 3], 0)).into()).unwrap();
    full.listen(0).unwrap();
    let port = full.local_addr().unwrap().as_socket().unwrap().port();
    let mut fill = Vec::new();
    for _ in 0..4 {
        fill.push(tokio::spawn(tokio::net::TcpStream::connect(SocketAddr::from(([127, 0, 0, 3], port)))));
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let _server = echo(&format!("127.0.0.1:{port}"), false).await;
    let (notes, net) = observed();
    let addrs = [IpAddr::from([127, 0, 0, 3]), IpAddr::from([127, 0, 0, 1])];
    let net = net
        .resolver(Resolver::from_fn(move |_| async move { Ok(addrs.to_vec()) }))
        .happy_eyeballs(HappyOptions::default().attempt_delay(Duration::from_millis(20)))
        .build()
        .unwrap();
    net.connect(&Endpoint::new("peer.test", port).unwrap()).await.unwrap();
    let told = notes.take();
    assert!(told.contains(&"connect 127.0.0.3 dropped".to_owned()), "{told:?}");
    assert!(told.contains(&"connect 127.0.0.1 done".to_owned()), "{told:?}");
}

#[tokio::test]
async fn operations_are_told_with_what_became_of_them() {
    let (notes, net) = observed();
    let net = net.build().unwrap();
    let probe = Probe::new("echo", Semantics::Plain, &Endpoint::new("peer.test", 7).unwrap(), &net);
    let facts = |n: &i64| Facts::default().status(*n);
    probe.operation("GET").about("x").run_with(async { Ok(200) }, facts).await.unwrap();
    let failed: Result<(), _> = probe.operation("PUT").run(async { Err(Error::closed("gone")) }).await;
    assert_eq!(failed.unwrap_err().kind(), Kind::Closed);
    drop(probe.operation("DELETE").run(std::future::pending::<Result<(), Error>>()));
    assert_eq!(notes.take(), ["echo GET x Some(200) done", "echo PUT - None Closed", "echo DELETE - None dropped"]);
    // One that tells nobody runs all the same.
    assert_eq!(Probe::default().operation("GET").run(async { Ok(1) }).await.unwrap(), 1);
}

/// Writes down the measurements that it is told.
#[derive(Default)]
struct Measured(Mutex<Vec<String>>);

impl Observer for Measured {
    fn operation(&self, done: &Done<'_>) {
        let one = done.metric();
        assert!(one.unit == "s" && one.value >= 0.0 && one.attribute("server.port") == Some(&Value::Number(7)));
        let attributes = one.attributes.iter().filter(|(name, _)| !name.starts_with("server."));
        let attributes: Vec<_> = attributes
            .map(|(name, value)| match value {
                Value::Text(text) => format!("{name}={text}"),
                Value::Number(number) => format!("{name}={number}"),
                _ => "?".into(),
            })
            .collect();
        self.0.lock().unwrap().push(format!("{} {}", one.name, attributes.join(" ")));
    }
}

#[tokio::test]
async fn operations_are_measured_under_the_names_of_opentelemetry() {
    let measured = Arc::new(Measured::default());
    let net = Connector::builder().observer(measured.clone()).build().unwrap();
    let to = Endpoint::new("peer.test", 7).unwrap();
    let facts = |n: &i64| Facts::default().status(*n);
    let probe = |protocol, semantics| Probe::new(protocol, semantics, &to, &net);
    let http = probe("http", Semantics::Http);
    for status in [200, 404] {
        http.operation("GET").run_with(async { Ok(status) }, facts).await.unwrap();
    }
    let lost: Result<(), _> = http.operation("PUT").run(async { Err(Error::closed("gone")) }).await;
    lost.unwrap_err();
    probe("redis", Semantics::Db).operation("SET").run(async { Ok(()) }).await.unwrap();
    probe("grpc", Semantics::Rpc).operation("/a.B/C").run_with(async { Ok(0) }, facts).await.unwrap();
    probe("dns", Semantics::Dns).operation("A").about("x.test").run(async { Ok(()) }).await.unwrap();
    drop(probe("smtp", Semantics::Plain).operation("NOOP").run(std::future::pending::<Result<(), Error>>()));
    assert_eq!(
        *measured.0.lock().unwrap(),
        [
            "http.client.request.duration network.protocol.name=http http.request.method=GET http.response.status_code=200",
            "http.client.request.duration network.protocol.name=http http.request.method=GET http.response.status_code=404 \
             error.type=404",
            "http.client.request.duration network.protocol.name=http http.request.method=PUT error.type=Closed",
            "db.client.operation.duration network.protocol.name=redis db.system.name=redis db.operation.name=SET",
            "rpc.client.call.duration network.protocol.name=grpc rpc.system=grpc rpc.method=/a.B/C rpc.grpc.status_code=0",
            "dns.lookup.duration network.protocol.name=dns dns.question.name=x.test",
            "portolan.client.operation.duration network.protocol.name=smtp operation=NOOP error.type=dropped",
        ]
    );
}

/// Keeps spans and events as text, which `tracing` hands to whatever is installed.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push_str(&format!(" {}={value:?}", field.name()));
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut log = self.0.lock().unwrap();
        let mut line = span.metadata().name().to_owned();
        span.record(&mut Fields(&mut line));
        log.push(line);
        Id::from_u64(log.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let at = usize::try_from(span.into_u64()).unwrap() - 1;
        values.record(&mut Fields(&mut self.0.lock().unwrap()[at]));
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = String::from("event");
        event.record(&mut Fields(&mut line));
        self.0.lock().unwrap().push(line);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn spans_bear_our_names_and_those_of_opentelemetry() {
    let log = Log::default();
    let _on = tracing::subscriber::set_default(log.clone());
    let server = echo("127.0.0.1:0", false).await;
    let net = Connector::builder().hop_policy(portolan_core::Policy::any()).build().unwrap();
    let stream = net.connect(&Endpoint::from(server)).await.unwrap();
    let probe = Probe::on("redis", Semantics::Db, &stream);
    probe.operation("GET").run(async { Ok(()) }).await.unwrap();
    let lost = Error::closed("gone").with_phase(Phase::Idle);
    let _: Result<(), _> = probe.operation("SET").run(async { Err(lost) }).await;
    drop(stream);
    let log = log.0.lock().unwrap().join("\n");
    let port = server.port();
    for (line, fields) in [
        ("connect", vec!["otel.kind=\"client\"", "server.address=127.0.0.1", "network.peer.address=127.0.0.1"]),
        ("connect", vec![&*format!("server.port={port}"), "elapsed_us="]),
        ("event", vec!["phase=\"connect\"", "elapsed_us="]),
        ("operation", vec!["protocol=\"redis\"", "network.protocol.name=\"redis\"", "db.operation.name=\"GET\""]),
        ("operation", vec!["operation=\"SET\"", "error.type=Closed", "delivery=Unknown", "phase=\"idle\""]),
        ("operation", vec!["operation=\"SET\"", "otel.status_code=\"ERROR\"", "otel.name=\"SET\""]),
        ("event", vec!["bytes_sent=0", "bytes_received=0"]),
    ] {
        let found = log.lines().any(|l| l.starts_with(line) && fields.iter().all(|field| l.contains(field)));
        assert!(found, "no {line} with {fields:?} in\n{log}");
    }
}
