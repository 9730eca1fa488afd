//! The interop cases of the gRPC project against its own servers.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, and say what they did"
)]
#![allow(clippy::large_futures, reason = "a test's future may be as large as it likes")]

mod cases;
mod channels;
mod extras;
#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "../support/peers.rs"]
mod peers;
#[path = "../support/proto.rs"]
mod proto;
mod recorded;
mod service;
#[path = "../support/mod.rs"]
mod support;
mod table;

use peers::Peer;
use portolan_core::{Connector, Tls};
use portolan_grpc::{
    Channel, ChannelOptions, Client, Code, Connect, Encoding, Http3, Json, Method, Status, Transport, Web,
};
use portolan_testbed::record;
use proto::grpc::testing::{EchoStatus, Payload, SimpleRequest, TestServiceClient};
use serde_json::{Value, json};
use table::Column;

/// Cases, by the beginning of their names, that a peer can't be asked for, and why.
type Lacks = &'static [(&'static str, &'static str)];

const NOTHING: Lacks = &[];
const BY_MESSAGE: (&str, &str) = ("server_compressed", "this server does not choose by message what it compresses");
const PROBES: (&str, &str) = ("compression_probes", "this server can't see whether a request came compressed");
const RICH: (&str, &str) = ("rich_errors", "its service here has none");
const DEADLINE: (&str, &str) = ("deadline", "its service here does not tell");
const HEALTH: (&str, &str) = ("health", "its service here stands alone, without health and reflection");
const REFLECTION: (&str, &str) = ("reflection", HEALTH.1);

const GRPCIO: Lacks = &[PROBES];
const NODE: Lacks = &[BY_MESSAGE, PROBES, RICH, DEADLINE, HEALTH, REFLECTION];
const GO: Lacks = &[BY_MESSAGE];
const ALONE: Lacks = &[HEALTH, REFLECTION];
const UPLOADS: &str = "the HTTP/3 of Caddy 2.6 hands on no body whose length is not said";
const BEHIND_CADDY: Lacks = &[
    ("client_streaming", UPLOADS),
    ("ping_pong", UPLOADS),
    ("cancel_after_first", UPLOADS),
    ("timeout_on", UPLOADS),
    ("custom_metadata", UPLOADS),
    ("status_code", UPLOADS),
    ("special_status", UPLOADS),
    ("client_compressed_streaming", UPLOADS),
    BY_MESSAGE,
    PROBES,
    RICH,
    DEADLINE,
    HEALTH,
    REFLECTION,
];
const IN_PROCESS: Lacks = &[RICH, DEADLINE, HEALTH, REFLECTION];

fn connector(peer: &Peer) -> Connector {
    let mut builder = Connector::builder();
    if let Some(certs) = &peer.certs {
        builder = builder.tls(Tls::builder().root_pem(certs.ca.as_bytes()).build().unwrap());
    }
    builder.build().unwrap()
}

async fn over_http2(peer: &Peer) -> Channel {
    Channel::connect(&connector(peer), &peer.url).await.unwrap()
}

async fn over_http3(peer: &Peer) -> Channel<Http3> {
    Channel::connect_over(Http3::default(), &connector(peer), &peer.url, ChannelOptions::new()).await.unwrap()
}

/// How a column of the table is named.
#[derive(Clone, Copy)]
struct Way {
    protocol: &'static str,
    transport: &'static str,
}

const H2C: &str = "HTTP/2, cleartext";
const H2_TLS: &str = "HTTP/2, TLS";
const H3: &str = "HTTP/3";

fn grpc(tls: bool) -> Way {
    Way { protocol: "gRPC", transport: if tls { H2_TLS } else { H2C } }
}

/// Every case but those that are lacking, and a column of the table.
async fn cases<T: Transport>(server: &str, client: &Client<T>, lacks: Lacks, way: Way) {
    let mut cells = Vec::new();
    for (name, case) in cases::all::<T>() {
        let why = lacks.iter().find(|(lacking, _)| name.starts_with(lacking)).map(|(_, why)| *why);
        match why {
            Some(why) => println!("left out: {name}: {why}"),
            None => {
                println!("{name}: {} over {} with {server}", way.protocol, way.transport);
                case(TestServiceClient::new(client.clone())).await;
            }
        }
        cells.push((name, why));
    }
    let passed = cells.iter().filter(|(_, why)| why.is_none()).count() as u64;
    record("grpc", "exchange", server, &format!("interop cases, {}, {}", way.protocol, way.transport), passed);
    table::add(Column { server: server.to_owned(), protocol: way.protocol, transport: way.transport, cells });
}

async fn by_grpc(peer: Option<Peer>, lacks: Lacks) {
    let Some(peer) = peer else { return };
    let client = Client::from_channel(over_http2(&peer).await).unwrap();
    cases(&peer.name, &client, lacks, grpc(peer.certs.is_some())).await;
    assert_eq!(client.transport().connections(), 1, "every case used the same connection");
}

#[tokio::test]
async fn every_interop_case_passes_against_grpcio_in_cleartext() {
    by_grpc(peers::python(false), GRPCIO).await;
}

#[tokio::test]
async fn every_interop_case_passes_against_grpcio_over_tls() {
    by_grpc(peers::python(true), GRPCIO).await;
}

#[tokio::test]
async fn every_interop_case_passes_against_grpc_js_in_cleartext() {
    by_grpc(peers::grpc_js(false), NODE).await;
}

#[tokio::test]
async fn every_interop_case_passes_against_grpc_js_over_tls() {
    by_grpc(peers::grpc_js(true), NODE).await;
}

#[tokio::test]
async fn every_interop_case_and_the_compression_probes_pass_against_grpc_cpp_in_cleartext() {
    by_grpc(peers::cpp(false), NOTHING).await;
}

#[tokio::test]
async fn every_interop_case_and_the_compression_probes_pass_against_grpc_cpp_over_tls() {
    by_grpc(peers::cpp(true), NOTHING).await;
}

#[tokio::test]
async fn every_interop_case_and_the_compression_probes_pass_against_grpc_go_in_cleartext() {
    by_grpc(peers::go(false), GO).await;
}

#[tokio::test]
async fn every_interop_case_and_the_compression_probes_pass_against_grpc_go_over_tls() {
    by_grpc(peers::go(true), GO).await;
}

#[tokio::test]
async fn every_interop_case_passes_behind_nginx_haproxy_and_nghttpx() {
    for front in [peers::nginx, peers::haproxy, peers::nghttpx] {
        let Some(peer) = peers::python(false) else { return };
        let Some(front) = front(&peer) else { continue };
        by_grpc(Some(front), GRPCIO).await;
    }
}

#[tokio::test]
async fn every_interop_case_and_the_compression_probes_pass_over_http3_against_aioquic() {
    let Some(peer) = peers::aioquic() else { return };
    let client = Client::from_channel(over_http3(&peer).await).unwrap();
    cases(&peer.name, &client, ALONE, Way { protocol: "gRPC", transport: H3 }).await;
    assert_eq!(client.transport().connections(), 1, "every case used the same connection");
}

#[tokio::test]
async fn every_interop_case_passes_against_connect_node_by_grpc_web_and_by_connect() {
    for tls in [false, true] {
        let Some(peer) = peers::connect_node(tls) else { return };
        let (channel, way) = (over_http2(&peer).await, grpc(tls));
        cases(&peer.name, &Client::from_channel(channel.clone()).unwrap(), NODE, way).await;
        let web = Client::new(Web::new(channel.clone()), &peer.url).unwrap();
        cases(&peer.name, &web, NODE, Way { protocol: "gRPC-Web", ..way }).await;
        let connect = Client::new(Connect::new(channel), &peer.url).unwrap();
        cases(&peer.name, &connect, NODE, Way { protocol: "Connect", ..way }).await;
        connect_with_json(&connect).await;
        connect_by_get(&peer, tls).await;
    }
}

/// A method without side effects is a GET where the URL has room for its message, and a POST otherwise.
async fn connect_by_get(peer: &Peer, tls: bool) {
    let transport = Connect::new(over_http2(peer).await).get(600);
    let client = Client::new(transport, &peer.url).unwrap();
    let service = TestServiceClient::new(client.clone());
    let payload = |size| SimpleRequest { payload: Some(Payload { r#type: 0, body: vec![7; size] }), ..request(3) };
    for (sent, encoding, method) in [
        (request(3), Encoding::Identity, "GET"),
        (payload(200), Encoding::Identity, "GET"),
        (payload(500), Encoding::Identity, "POST"),
        (payload(500), Encoding::Gzip, "GET"),
    ] {
        let reply = service.cacheable_unary_call(&sent).compress(encoding).await.unwrap();
        assert_eq!(
            (reply.trailers().get("x-method"), reply.message().payload.as_ref().unwrap().body.len()),
            (Some(method), 3)
        );
    }
    let response_status = Some(EchoStatus { code: 9, message: "not now".to_owned() });
    let failing = SimpleRequest { response_status, ..request(3) };
    let error = service.cacheable_unary_call(&failing).await.unwrap_err();
    assert_eq!((Status::of(&error).code(), Status::of(&error).message()), (Code::FailedPrecondition, "not now"));
    // Described by the descriptor set, with JSON.
    let schema =
        portolan_grpc::dynamic::Schema::from_descriptor_set(include_bytes!("../generated/interop.bin")).unwrap();
    let method = schema.method("grpc.testing.TestService/CacheableUnaryCall").unwrap();
    let reply = client.unary(&method, &json!({"responseSize": 3})).await.unwrap();
    assert_eq!(reply.trailers().get("x-method"), Some("GET"));
    let json = Method::new("/grpc.testing.TestService/CacheableUnaryCall", Json::<Value, Value>::new()).unwrap();
    let reply = client.unary(&json.no_side_effects(), &json!({"responseSize": 3})).await.unwrap();
    assert_eq!(
        (reply.trailers().get("x-method"), reply.message()),
        (Some("GET"), &json!({"payload": {"body": "AAAA"}}))
    );
    record("grpc", "exchange", &peer.name, &format!("Connect by GET, {}", grpc(tls).transport), 7);
}

fn request(response_size: i32) -> SimpleRequest {
    SimpleRequest { response_size, ..SimpleRequest::default() }
}

/// Caddy 2.6 hands no trailers on over HTTP/3, so what carries the status in the body goes through it.
#[tokio::test]
async fn the_cases_without_uploads_pass_over_http3_through_caddy_by_grpc_web_and_by_connect() {
    let Some((_back, front)) = peers::connect_node(false).and_then(peers::behind_caddy) else { return };
    let channel = over_http3(&front).await;
    let web = Client::new(Web::new(channel.clone()), &front.url).unwrap();
    cases(&front.name, &web, BEHIND_CADDY, Way { protocol: "gRPC-Web", transport: H3 }).await;
    let connect = Client::new(Connect::new(channel), &front.url).unwrap();
    cases(&front.name, &connect, BEHIND_CADDY, Way { protocol: "Connect", transport: H3 }).await;
    connect_with_json(&connect).await;
}

#[tokio::test]
async fn every_interop_case_and_the_compression_probes_pass_over_http2_on_the_h2_crate() {
    let client = support::h2_half::client(service::service());
    cases("the h2 crate, in this process", &client, IN_PROCESS, grpc(false)).await;
}

#[tokio::test]
async fn every_interop_case_and_the_compression_probes_pass_over_http3_on_the_h3_crate() {
    let client = support::h3_half::client(service::service()).await;
    cases("the h3 crate, in this process", &client, IN_PROCESS, Way { protocol: "gRPC", transport: H3 }).await;
}

/// JSON by Connect, described by the kept descriptor set alone.
async fn connect_with_json<T: Transport>(client: &Client<T>) {
    let method = Method::new("/grpc.testing.TestService/UnaryCall", Json::<Value, Value>::new()).unwrap();
    let reply = client.unary(&method, &json!({"responseSize": 3})).await.unwrap();
    assert_eq!(*reply.message(), json!({"payload": {"body": "AAAA"}}));
    let request = json!({"responseStatus": {"code": 9, "message": "not now"}});
    let status = Status::of(&client.unary(&method, &request).await.unwrap_err());
    assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "not now"));
    let method = Method::new("/grpc.testing.TestService/StreamingOutputCall", Json::<Value, Value>::new()).unwrap();
    let request = json!({"responseParameters": [{"size": 1}, {"size": 2}]});
    let mut replies = client.server_streaming(&method, &request).await.unwrap();
    assert_eq!(replies.message().await.unwrap().unwrap(), json!({"payload": {"body": "AA=="}}));
    assert_eq!(replies.message().await.unwrap().unwrap(), json!({"payload": {"body": "AAA="}}));
    assert!(replies.message().await.unwrap().is_none());
}
