//! What QUIC itself may do to a connection: other versions, retries, new keys, resets, other addresses.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "helpers of tests fail by panicking, and are the other side of the socket"
)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use portolan_core::{Connector, Delivery, Error, Kind, Phase, Roots, Timeouts, Tls};
use portolan_http3::{Options, SendRequest, connect};
use portolan_testbed::Certs;
use quinn::{Endpoint, EndpointConfig};
use support::*;
use tokio::net::UdpSocket;

async fn echo(client: &SendRequest, len: usize) -> portolan_core::Result<()> {
    let sent = Bytes::from(vec![b'e'; len]);
    let request = Request::post("https://localhost/echo").body(Full::new(sent.clone())).unwrap();
    let back = client.send(request).await?.into_body().collect().await?.to_bytes();
    assert!(back.len() == len + 5 && back.starts_with(&sent));
    Ok(())
}

#[tokio::test]
async fn a_server_that_asks_for_the_address_first_is_served() {
    let certs = Certs::new();
    let endpoint = endpoint(server_config(&certs, b"h3"));
    let addr = endpoint.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let first = endpoint.accept().await.unwrap();
        assert!(!first.remote_address_validated());
        first.retry().unwrap();
        let second = endpoint.accept().await.unwrap();
        assert!(second.remote_address_validated());
        let quic = second.accept().unwrap().await.unwrap();
        let mut server = h3::server::Connection::new(h3_quinn::Connection::new(quic)).await.unwrap();
        while let Ok(Some(resolver)) = server.accept().await {
            tokio::spawn(answer(resolver));
        }
    });
    let client = client(&certs, addr, Options::new()).await;
    assert_eq!(body(&client, "/retried").await, "/retried");
    drop(client);
    server.await.unwrap();
}

/// A peer that answers each first packet by `reply`.
async fn packets(reply: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut room = [0; 2048];
        while let Ok((len, from)) = socket.recv_from(&mut room).await {
            socket.send_to(&reply(&room[..len]), from).await.unwrap();
        }
    });
    addr
}

async fn refused(addr: SocketAddr) -> Error {
    let tls = Tls::builder().roots(Roots::Custom).root_pem(Certs::new().ca.as_bytes()).build().unwrap();
    let timeouts = Timeouts::default().attempt(Duration::from_millis(500));
    let net = Connector::builder().tls(tls).timeouts(timeouts).build().unwrap();
    connect(&net, &addr.into(), Options::new()).await.unwrap_err()
}

#[tokio::test]
async fn a_server_of_other_versions_is_told_at_once() {
    // RFC 8999 6: a long header, version 0, both ids crossed, and what is spoken.
    let addr = packets(|initial| {
        let to_len = usize::from(initial[5]);
        let (to, rest) = initial[5..].split_at(to_len + 1);
        let from = &rest[..=usize::from(rest[0])];
        [&[0x80, 0, 0, 0, 0], from, to, &0x0a1a_2a3au32.to_be_bytes(), &0x6b33_43cfu32.to_be_bytes()].concat()
    })
    .await;
    let error = refused(addr).await;
    assert_eq!((error.phase(), error.delivery()), (Some(Phase::Connect), Delivery::NotSent), "{error:?}");
    assert_ne!(error.kind(), Kind::Timeout, "{error:?}");
    assert!(portolan_pool::may_fall_back(&error), "{error:?}");
}

#[tokio::test]
async fn garbage_instead_of_a_handshake_is_a_timeout() {
    for reply in
        [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &[0; 64], &[0x40; 1200], &[0xff; 1200], &[0xc0, 0, 0, 0, 1, 255]]
    {
        let addr = packets(|_| reply.to_vec()).await;
        let error = refused(addr).await;
        let said = (error.kind(), error.phase(), error.delivery());
        assert_eq!(said, (Kind::Timeout, Some(Phase::Connect), Delivery::NotSent), "{error:?}");
    }
}

#[tokio::test]
async fn keys_are_made_anew_in_mid_stream() {
    let certs = Certs::new();
    let endpoint = endpoint(server_config(&certs, b"h3"));
    let addr = endpoint.local_addr().unwrap();
    tokio::spawn(async move {
        let quic = endpoint.accept().await.unwrap().accept().unwrap().await.unwrap();
        let mut server = h3::server::Connection::new(h3_quinn::Connection::new(quic.clone())).await.unwrap();
        while let Ok(Some(resolver)) = server.accept().await {
            let updates = quic.clone();
            tokio::spawn(async move {
                for _ in 0..20 {
                    updates.force_key_update();
                    tokio::task::yield_now().await;
                }
            });
            tokio::spawn(answer(resolver));
        }
    });
    let client = client(&certs, addr, Options::new()).await;
    for _ in 0..5 {
        echo(&client, 300_000).await.unwrap();
    }
}

/// The secret that a server keeps over a restart: what its stateless resets are made of.
struct Kept;

impl quinn::crypto::HmacKey for Kept {
    fn sign(&self, data: &[u8], signature: &mut [u8]) {
        for (at, byte) in (0u8..).zip(signature) {
            *byte = data.iter().fold(at, |sum, byte| sum.wrapping_mul(31).wrapping_add(*byte));
        }
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, _: &[u8], _: &[u8]) -> Result<(), quinn::crypto::CryptoError> {
        Ok(())
    }
}

/// Ids that any server of this secret takes for its own.
struct Ids(u64);

impl quinn::ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> quinn::ConnectionId {
        self.0 += 1;
        quinn::ConnectionId::new(&self.0.to_be_bytes())
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

fn keeping(certs: &Certs, first_id: u64) -> Endpoint {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut config = EndpointConfig::new(Arc::new(Kept));
    config.cid_generator(move || Box::new(Ids(first_id)));
    Endpoint::new(config, Some(server_config(certs, b"h3")), socket, Arc::new(quinn::TokioRuntime)).unwrap()
}

/// Passes datagrams on between one client and the address that is said last.
async fn switch(to: SocketAddr) -> (SocketAddr, tokio::sync::watch::Sender<SocketAddr>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    let (tell, told) = tokio::sync::watch::channel(to);
    tokio::spawn(async move {
        let (mut client, mut room) = (None, [0; 4096]);
        while let Ok((len, from)) = socket.recv_from(&mut room).await {
            let to = *told.borrow();
            match client {
                Some(client) if from == to => socket.send_to(&room[..len], client).await.unwrap(),
                Some(client) if from != client => 0,
                _ => {
                    client = Some(from);
                    socket.send_to(&room[..len], to).await.unwrap()
                }
            };
        }
    });
    (addr, tell)
}

#[tokio::test]
async fn a_server_that_forgot_the_connection_ends_it_at_once() {
    let certs = Certs::new();
    let (before, after) = (serve(keeping(&certs, 1 << 32)), serve(keeping(&certs, 2 << 32)));
    let (addr, tell) = switch(before).await;
    let (client, connection) = connect(&connector(&certs), &to(addr), Options::new()).await.unwrap();
    let driver = tokio::spawn(connection);
    assert_eq!(body(&client, "/before").await, "/before");
    tell.send(after).unwrap();
    let error = client.send(get("/lost")).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Closed, Delivery::Unknown), "{error:?}");
    assert!(error.to_string().contains("forgotten"), "{error}");
    assert!(client.is_closed());
    assert_eq!(driver.await.unwrap().unwrap_err().kind(), Kind::Closed);
}

#[tokio::test]
async fn a_client_whose_address_changes_on_the_way_goes_on() {
    let certs = Certs::new();
    let server = serve(endpoint(server_config(&certs, b"h3")));
    // Two ways to the server: to it, the client has moved when the second is taken.
    let (first, _first) = switch(server).await;
    let (second, _second) = switch(server).await;
    let (addr, tell) = switch(first).await;
    let (client, connection) = connect(&connector(&certs), &to(addr), Options::new()).await.unwrap();
    tokio::spawn(connection);
    echo(&client, 300_000).await.unwrap();
    let (going, moving) = tokio::join!(echo(&client, 3_000_000), async {
        tokio::task::yield_now().await;
        tell.send(second)
    });
    going.unwrap();
    moving.unwrap();
    echo(&client, 300_000).await.unwrap();
}
