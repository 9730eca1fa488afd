//! The interop cases of the gRPC project against its own servers.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, and say what they did"
)]
#![allow(clippy::large_futures, reason = "a test's future may be as large as it likes")]

mod cases;
mod extras;
#[path = "../support/peers.rs"]
mod peers;
#[path = "../support/proto.rs"]
mod proto;
mod service;
#[path = "../support/mod.rs"]
mod support;

use peers::Peer;
use portolan_core::{Connector, Tls};
use portolan_grpc::{Channel, Client, Code, Connect, Encoding, Json, Method, Status, Transport, Web};
use proto::grpc::testing::{BoolValue, SimpleRequest, StreamingInputCallRequest, TestServiceClient};
use serde_json::{Value, json};

/// What a peer can't be asked to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lacks {
    Nothing,
    /// Neither to compress this message and not that one, nor what only our Python script does: rich errors, health, reflection.
    Extras,
}

async fn connect(peer: &Peer) -> Channel {
    let mut builder = Connector::builder();
    if let Some(certs) = &peer.certs {
        builder = builder.tls(Tls::builder().root_pem(certs.ca.as_bytes()).build().unwrap());
    }
    Channel::connect(&builder.build().unwrap(), &peer.url).await.unwrap()
}

async fn cases<T: Transport>(peer: &Peer, client: &Client<T>, lacks: Lacks, protocol: &str) {
    let mut passed = 0;
    for (name, case) in cases::all::<T>() {
        if lacks == Lacks::Extras && name.starts_with("server_compressed") {
            println!("left out: {name}: {} does not choose by message", peer.name);
            continue;
        }
        println!("{name}: {protocol} with {} at {}", peer.name, peer.url);
        case(TestServiceClient::new(client.clone())).await;
        passed += 1;
    }
    let way = if peer.certs.is_some() { "TLS" } else { "cleartext" };
    portolan_testbed::record("grpc", "exchange", &peer.name, &format!("interop cases, {protocol}, {way}"), passed);
}

async fn over_http2(peer: Option<Peer>, lacks: Lacks) {
    let Some(peer) = peer else { return };
    let client = Client::from_channel(connect(&peer).await).unwrap();
    cases(&peer, &client, lacks, "HTTP/2").await;
    if lacks == Lacks::Nothing {
        cases::rich_errors(TestServiceClient::new(client.clone())).await;
        cases::deadline_reaches_the_server(TestServiceClient::new(client.clone())).await;
        extras::health(&client).await;
        extras::reflection_and_dynamic_calls(&client).await;
    }
    assert_eq!(client.transport().connections(), 1, "every case used the same connection");
}

#[tokio::test]
async fn every_interop_case_passes_against_grpcio_in_cleartext() {
    over_http2(peers::python(false), Lacks::Nothing).await;
}

#[tokio::test]
async fn every_interop_case_passes_against_grpcio_over_tls() {
    over_http2(peers::python(true), Lacks::Nothing).await;
}

#[tokio::test]
async fn every_interop_case_passes_against_grpc_js_in_cleartext() {
    over_http2(peers::grpc_js(false), Lacks::Extras).await;
}

#[tokio::test]
async fn every_interop_case_passes_against_grpc_js_over_tls() {
    over_http2(peers::grpc_js(true), Lacks::Extras).await;
}

#[tokio::test]
async fn every_interop_case_passes_against_connect_node_by_grpc_web_and_by_connect() {
    for tls in [false, true] {
        let Some(peer) = peers::connect_node(tls) else { return };
        let channel = connect(&peer).await;
        cases(&peer, &Client::from_channel(channel.clone()).unwrap(), Lacks::Extras, "HTTP/2").await;
        let web = Client::new(Web::new(channel.clone()), &peer.url).unwrap();
        cases(&peer, &web, Lacks::Extras, "gRPC-Web").await;
        let connect = Client::new(Connect::new(channel), &peer.url).unwrap();
        cases(&peer, &connect, Lacks::Extras, "Connect").await;
        connect_with_json(&connect).await;
    }
}

/// What servers of other kinds can't see: whether a request came compressed as it was said to.
async fn compression_probes<T: Transport>(client: &Client<T>) {
    let service = TestServiceClient::new(client.clone());
    for value in [true, false] {
        let expect_compressed = Some(BoolValue { value: !value });
        let request = SimpleRequest { expect_compressed, ..SimpleRequest::default() };
        let call = service.unary_call(&request);
        let call = if value { call.compress(Encoding::Gzip) } else { call };
        assert_eq!(Status::of(&call.await.unwrap_err()).code(), Code::InvalidArgument);
    }
    let probe = StreamingInputCallRequest { expect_compressed: Some(BoolValue { value: true }), payload: None };
    let error = service.streaming_input_call(futures_util::stream::iter([probe])).await.unwrap_err();
    assert_eq!(Status::of(&error).code(), Code::InvalidArgument);
}

#[tokio::test]
async fn every_interop_case_and_the_compression_probes_pass_over_http2_on_the_h2_crate() {
    let client = support::h2_half::client(service::service());
    for (name, case) in cases::all() {
        println!("{name}");
        case(TestServiceClient::new(client.clone())).await;
    }
    compression_probes(&client).await;
}

#[tokio::test]
async fn every_interop_case_and_the_compression_probes_pass_over_http3_on_the_h3_crate() {
    let client = support::h3_half::client(service::service()).await;
    for (name, case) in cases::all() {
        println!("{name}");
        case(TestServiceClient::new(client.clone())).await;
    }
    compression_probes(&client).await;
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
