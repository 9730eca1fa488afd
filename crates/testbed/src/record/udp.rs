//! The recorder of datagrams.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::UdpSocket;
use tokio::task::{JoinHandle, JoinSet};

use super::Log;
use super::transcript::Side;

/// The longest datagram there is.
const LONGEST: usize = 65_535;

/// Clients of one recorder: a test has a handful.
const CLIENTS: usize = 64;

pub(super) async fn start(target: SocketAddr, log: Arc<Log>) -> (SocketAddr, JoinHandle<()>) {
    let near = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("loopback has a free port"));
    let addr = near.local_addr().expect("it is bound");
    (addr, tokio::spawn(run(near, target, log)))
}

async fn run(near: Arc<UdpSocket>, target: SocketAddr, log: Arc<Log>) {
    let mut clients: HashMap<SocketAddr, (usize, Arc<UdpSocket>)> = HashMap::new();
    let mut answers = JoinSet::new();
    let mut room = vec![0; LONGEST];
    loop {
        // An error here is the echo of an answer that nobody took.
        let Ok((n, client)) = near.recv_from(&mut room).await else { continue };
        if !clients.contains_key(&client) {
            assert!(clients.len() < CLIENTS, "more than {CLIENTS} clients of one recorder");
            let local = if target.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
            let far = Arc::new(UdpSocket::bind(local).await.expect("loopback has a free port"));
            far.connect(target).await.expect("the loopback leads to the loopback");
            let connection = log.open();
            answers.spawn(back(far.clone(), near.clone(), client, log.clone(), connection));
            clients.insert(client, (connection, far));
        }
        if let Some((connection, far)) = clients.get(&client) {
            log.said(*connection, Side::Client, &room[..n]);
            // A server that isn't there loses it, as datagrams are lost.
            let _ = far.send(&room[..n]).await;
        }
    }
}

async fn back(far: Arc<UdpSocket>, near: Arc<UdpSocket>, client: SocketAddr, log: Arc<Log>, connection: usize) {
    let mut room = vec![0; LONGEST];
    loop {
        let Ok(n) = far.recv(&mut room).await else { continue };
        log.said(connection, Side::Server, &room[..n]);
        let _ = near.send_to(&room[..n], client).await;
    }
}
