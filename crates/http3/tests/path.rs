//! The path: what it carries is found out, and a path that carries less from now on is lived with.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]
#![allow(clippy::disallowed_methods, reason = "the tests play servers and routers")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use portolan_core::Endpoint;
use portolan_http3::{Options, SendRequest, connect_as};
use portolan_testbed::{Certs, netns};
use support::*;
use tokio::net::UdpSocket;

/// QUIC's smallest datagram, and the largest that `quinn` probes for.
const MTU: (u16, u16) = (1200, 1452);

/// Bytes up and down again.
async fn echo(client: &SendRequest, len: usize) {
    let sent = Bytes::from(vec![b'u'; len]);
    let request = Request::post("https://localhost/").body(Full::new(sent)).unwrap();
    let back = client.send(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(back.len(), len + 1);
}

/// Sends until the path is known to carry so much.
async fn until_it_carries(client: &SendRequest, carried: impl Fn(u16) -> bool) {
    for _ in 0..1000 {
        if carried(client.mtu()) {
            return;
        }
        echo(client, 20_000).await;
    }
    panic!("{}", client.mtu());
}

/// A router between one client and `to`, that drops what is larger than it says; beside it the largest that passed.
async fn router(to: SocketAddr, carries: u16) -> (SocketAddr, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    let (limit, largest) = (Arc::new(AtomicUsize::new(carries.into())), Arc::new(AtomicUsize::new(0)));
    let (carries, passed) = (Arc::clone(&limit), Arc::clone(&largest));
    tokio::spawn(async move {
        let (mut client, mut room) = (to, [0; 4096]);
        loop {
            let (len, from) = socket.recv_from(&mut room).await.unwrap();
            if from != to {
                client = from;
            }
            if len <= carries.load(Ordering::Relaxed) {
                passed.fetch_max(len, Ordering::Relaxed);
                socket.send_to(&room[..len], if from == to { client } else { to }).await.unwrap();
            }
        }
    });
    (addr, limit, largest)
}

#[tokio::test]
async fn what_the_path_carries_is_found_and_no_more_is_sent() {
    let certs = Certs::new();
    let server = serve(endpoint(server_config(&certs, b"h3")));
    let (addr, _, largest) = router(server, 1300).await;
    let client = client(&certs, addr, Options::new()).await;
    assert_eq!(client.mtu(), MTU.0);
    until_it_carries(&client, |mtu| mtu > 1250).await;
    echo(&client, 1_000_000).await;
    assert!((1251..=1300).contains(&client.mtu()), "{}", client.mtu());
    assert!((1251..=1300).contains(&largest.load(Ordering::Relaxed)));
}

#[tokio::test]
async fn a_path_that_carries_less_from_now_on_loses_nothing() {
    let certs = Certs::new();
    let server = serve(endpoint(server_config(&certs, b"h3")));
    let (addr, limit, _) = router(server, 1500).await;
    let client = client(&certs, addr, Options::new()).await;
    until_it_carries(&client, |mtu| mtu == MTU.1).await;
    limit.store(1220, Ordering::Relaxed);
    echo(&client, 300_000).await;
    assert_eq!(client.mtu(), MTU.0);
}

/// The same with cables of the kernel's: what is too large for them is refused on this side, or lost on the other.
#[test]
fn cables_that_carry_less_from_now_on_lose_nothing() {
    netns::run(|cable| async move {
        cable.link("near0", &["192.0.2.1/24"], "far0", &["192.0.2.2/24"]);
        // Cut here, as by a device without offload: as a whole they would pass any cable.
        cable.ip(&["link", "set", "near0", "gso_max_segs", "1"]);
        cable.far_ip(&["link", "set", "far0", "gso_max_segs", "1"]);
        let certs = Certs::new();
        let config = server_config(&certs, b"h3");
        let (told, port) = std::sync::mpsc::sync_channel(1);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let far = cable.far(move || async move {
            let server = serve(quinn::Endpoint::server(config, "192.0.2.2:0".parse().unwrap()).unwrap());
            told.send(server.port()).unwrap();
            stopped.await.unwrap();
        });
        let to = Endpoint::new("192.0.2.2", port.recv().unwrap()).unwrap();
        let (client, connection) = connect_as(&connector(&certs), &to, "localhost", Options::new()).await.unwrap();
        tokio::spawn(connection);
        until_it_carries(&client, |mtu| mtu == MTU.1).await;
        echo(&client, 500_000).await;
        // Lost on the way: the far end takes no more than this.
        cable.far_ip(&["link", "set", "far0", "mtu", "1280"]);
        echo(&client, 300_000).await;
        assert_eq!(client.mtu(), MTU.0);
        // Refused on this side.
        cable.far_ip(&["link", "set", "far0", "mtu", "1500"]);
        let (client, connection) = connect_as(&connector(&certs), &to, "localhost", Options::new()).await.unwrap();
        tokio::spawn(connection);
        until_it_carries(&client, |mtu| mtu == MTU.1).await;
        cable.ip(&["link", "set", "near0", "mtu", "1280"]);
        cable.far_ip(&["link", "set", "far0", "mtu", "1280"]);
        echo(&client, 300_000).await;
        assert_eq!(client.mtu(), MTU.0);
        stop.send(()).unwrap();
        far.join();
    });
}
