//! Gateways of another make: websockify, and wstunnel of node. Each is skipped, and said so, where it is not installed.

#![allow(
    clippy::disallowed_methods,
    clippy::large_futures,
    clippy::panic,
    clippy::unwrap_used,
    reason = "these are tests"
)]

mod support;

use std::net::SocketAddr;

use portolan_core::{Connector, Endpoint, Kind, Phase, Roots, Stream, Tls};
use portolan_db::redis::{Client, Options};
use portolan_testbed::{Certs, Server, Service, find, free_port, record};
use portolan_tunnel::Tunnel;
use portolan_websocket::{Options as WebSocketOptions, WebSocket};
use support::{Pattern, echo, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bytes sent through and back: more than any buffer on the way.
const LONG: usize = 4 << 20;
const BLOCK: usize = 64 << 10;
const NODE: &str = "/opt/portolan-testbed/npm";

struct Gateway {
    _server: Server,
    port: u16,
}

/// Debian's websockify, in front of one target.
fn websockify(to: SocketAddr, certs: Option<&Certs>) -> Option<Gateway> {
    let port = free_port();
    let service = Service::new("websockify", "websockify");
    let service = match certs {
        Some(certs) => service.args(["--cert=$D/server.pem", "--key=$D/server.key", "--ssl-only"]).tls(certs),
        None => service,
    };
    let service = service.args([format!("127.0.0.1:{port}"), to.to_string()]);
    let _server = service.accepts(([127, 0, 0, 1], port).into()).start()?;
    Some(Gateway { _server, port })
}

/// wstunnel of node, which is told the target by the query.
fn wstunnel() -> Option<Gateway> {
    let script = find("npm:wstunnel", &format!("{NODE}/node_modules/wstunnel/bin/wstt.js"))?;
    let port = free_port();
    let service = Service::new("nodejs", "node").args([
        script.display().to_string(),
        "-s".to_owned(),
        format!("127.0.0.1:{port}"),
    ]);
    let _server = service.accepts(([127, 0, 0, 1], port).into()).start()?;
    Some(Gateway { _server, port })
}

fn redis() -> Option<(Server, SocketAddr)> {
    let port = free_port();
    let number = port.to_string();
    let server = Service::new("redis-server", "redis-server")
        .args(["--port", &number, "--bind", "127.0.0.1", "--save", "", "--dir", "$D"])
        .accepts(([127, 0, 0, 1], port).into())
        .start()?;
    Some((server, ([127, 0, 0, 1], port).into()))
}

async fn speak_redis(net: &Connector, to: SocketAddr, kind: &str) {
    let client = Client::connect(net, Options::new(Endpoint::from(to))).await.unwrap();
    let long = "x".repeat(300_000);
    for at in 0..50 {
        client.set(format!("key {at}"), &*long).await.unwrap();
    }
    for at in 0..50 {
        assert!(client.get::<String>(format!("key {at}")).await.unwrap() == long);
    }
    assert_eq!(client.info().unwrap().hops.iter().map(|hop| hop.kind).collect::<Vec<_>>(), [kind]);
    client.close().await.unwrap();
}

/// What is sent comes back, both ways at once, and the end is told.
async fn there_and_back(stream: Stream) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let up = async {
        let (mut pattern, mut block) = (Pattern::new(7), vec![0; BLOCK]);
        for _ in 0..LONG / BLOCK {
            pattern.fill(&mut block);
            writer.write_all(&block).await.unwrap();
        }
        writer.flush().await.unwrap();
        writer
    };
    let down = async {
        let (mut pattern, mut expected, mut block) = (Pattern::new(7), vec![0; BLOCK], vec![0; BLOCK]);
        for at in 0..LONG / BLOCK {
            reader.read_exact(&mut block).await.unwrap();
            pattern.fill(&mut expected);
            assert!(block == expected, "block {at} differs");
        }
    };
    let (mut writer, ()) = soon("all bytes", async { tokio::join!(up, down) }).await;
    writer.shutdown().await.unwrap();
    let left = soon("the end", reader.read(&mut [0; 8])).await;
    assert!(matches!(left, Ok(0)), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_through_websockify_plain_and_over_tls() {
    let Some((_redis, to)) = redis() else { return };
    for tls in [false, true] {
        let certs = tls.then(Certs::new);
        let Some(gateway) = websockify(to, certs.as_ref()) else { return };
        let scheme = if tls { "wss" } else { "ws" };
        let tunnel = Tunnel::raw(&format!("{scheme}://localhost:{}/websockify", gateway.port)).unwrap();
        let hop = tunnel.leads_to(Endpoint::from(to)).unwrap().hop();
        let mut net = Connector::builder().via(hop);
        if let Some(certs) = &certs {
            let tls = Tls::builder().roots(Roots::Custom).root_pem(certs.ca.as_bytes()).build().unwrap();
            net = net.hop_tls(tls);
        }
        let net = net.build().unwrap();
        speak_redis(&net, to, scheme).await;
        record("ws-tunnel", "peer", "websockify 0.10", if tls { "TLS, redis inside" } else { "redis inside" }, 100);
        // It leads there alone, and nobody else is told what was meant for another.
        let other = net.connect(&Endpoint::new("127.0.0.1", free_port()).unwrap()).await.unwrap_err();
        assert_eq!((other.kind(), other.phase(), other.hop()), (Kind::Usage, Some(Phase::Hop), Some(0)), "{other:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_go_both_ways_through_websockify_and_its_end_is_ours() {
    let to = echo().await;
    let Some(gateway) = websockify(to, None) else { return };
    let tunnel = Tunnel::raw(&format!("ws://127.0.0.1:{}/", gateway.port)).unwrap();
    let net = Connector::builder().via(tunnel.leads_to(Endpoint::from(to)).unwrap().hop()).build().unwrap();
    there_and_back(net.connect(&Endpoint::from(to)).await.unwrap()).await;
    record("ws-tunnel", "peer", "websockify 0.10", "4 MiB both ways at once", 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wstunnel_of_node_leads_to_whatever_target_is_named() {
    let Some(gateway) = wstunnel() else { return };
    let template = format!("ws://127.0.0.1:{}/?dst={{host}}:{{port}}", gateway.port);
    let tunnel = Tunnel::raw(&template).unwrap().subprotocol("tunnel-protocol").unwrap();
    let net = Connector::builder().via(tunnel.hop()).build().unwrap();
    let Some((_redis, to)) = redis() else { return };
    speak_redis(&net, to, "ws").await;
    let peer = echo().await;
    there_and_back(net.connect(&Endpoint::from(peer)).await.unwrap()).await;
    record("ws-tunnel", "peer", "wstunnel of node", "redis inside; 4 MiB both ways at once", 101);
    // It dials before it answers, so a target that is not there is its answer.
    let nobody = Endpoint::new("127.0.0.1", free_port()).unwrap();
    let error = net.connect(&nobody).await.unwrap_err();
    assert_eq!((error.kind(), error.code(), error.hop()), (Kind::Hop, Some(500), Some(0)), "{error:?}");
}

#[tokio::test]
async fn a_websocket_is_a_byte_stream_for_redis_behind_websockify() {
    let Some((_redis, to)) = redis() else { return };
    let Some(gateway) = websockify(to, None) else { return };
    let url = format!("ws://127.0.0.1:{}/", gateway.port);
    let socket = WebSocket::connect(&Connector::default(), &url, WebSocketOptions::new()).await.unwrap();
    let stream = Stream::from_io(socket.into_io());
    let client = Client::from_stream(stream, Options::new(Endpoint::from(to))).await.unwrap();
    client.set("k", "through").await.unwrap();
    assert_eq!(client.get::<String>("k").await.unwrap(), "through");
    client.close().await.unwrap();
    record("websocket", "peer", "websockify 0.10", "a byte stream, redis inside", 2);
}
