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

use peers::Peer;
use portolan_core::{Connector, Tls};
use portolan_grpc::{Channel, Client};
use proto::grpc::testing::TestServiceClient;

/// What a peer can't be asked to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lacks {
    Nothing,
    /// Rich errors, deadlines told back: what only our Python script does. And grpc-js never compresses a response.
    Extras,
}

async fn connect(peer: &Peer) -> Client<Channel> {
    let mut builder = Connector::builder();
    if let Some(certs) = &peer.certs {
        builder = builder.tls(Tls::builder().root_pem(certs.ca.as_bytes()).build().unwrap());
    }
    Client::connect(&builder.build().unwrap(), &peer.url).await.unwrap()
}

async fn all(peer: Option<Peer>, lacks: Lacks) {
    let Some(peer) = peer else { return };
    let client = connect(&peer).await;
    let mut passed = 0;
    for (name, case) in cases::ALL {
        if lacks == Lacks::Extras && name.starts_with("server_compressed") {
            println!("SKIPPED: {name}: {} does not compress", peer.name);
            continue;
        }
        println!("{name}: {} {}", peer.name, peer.url);
        case(TestServiceClient::new(client.clone())).await;
        passed += 1;
    }
    if lacks == Lacks::Nothing {
        cases::rich_errors(TestServiceClient::new(client.clone())).await;
        cases::deadline_reaches_the_server(TestServiceClient::new(client.clone())).await;
        extras::health(&client).await;
        extras::reflection_and_dynamic_calls(&client).await;
        passed += 4;
    }
    assert_eq!(client.transport().connections(), 1, "every case used the same connection");
    let config = if peer.certs.is_some() { "TLS, interop cases" } else { "cleartext, interop cases" };
    portolan_testbed::record("grpc", "exchange", &peer.name, config, passed);
}

#[tokio::test]
async fn every_interop_case_passes_against_grpcio_in_cleartext() {
    all(peers::python(false), Lacks::Nothing).await;
}

#[tokio::test]
async fn every_interop_case_passes_against_grpcio_over_tls() {
    all(peers::python(true), Lacks::Nothing).await;
}

#[tokio::test]
async fn every_interop_case_passes_against_grpc_js_in_cleartext() {
    all(peers::node(false), Lacks::Extras).await;
}

#[tokio::test]
async fn every_interop_case_passes_against_grpc_js_over_tls() {
    all(peers::node(true), Lacks::Extras).await;
}
