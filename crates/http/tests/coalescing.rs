//! Several origins on one connection: where they may share one, where not, and what a server can say to it.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test fails by panicking")]

mod support;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::Version as Spoken;
use portolan_core::resolve::failed;
use portolan_core::{Connector, ConnectorBuilder, Kind, Policy, ResolveFailure, Resolver, Roots, Tls};
use portolan_http::{Body, Client, ClientBuilder, Version};
use portolan_testbed::{Certs, Leaf, ServerTls};
use support::quic::{ANY, answers, serve};
use support::{Web, heads, reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// All of `*.test` is here, but `away.test`.
fn connector(certs: &Certs) -> ConnectorBuilder {
    let tls = Tls::builder().roots(Roots::Custom).root_pem(certs.ca.as_bytes()).build().unwrap();
    let resolver = Resolver::from_fn(|name| async move {
        match name.as_str() {
            "away.test" => Ok(vec![IpAddr::from([127, 0, 0, 77])]),
            name if name.ends_with(".test") => Ok(vec![IpAddr::from([127, 0, 0, 1])]),
            name => Err(failed(name, ResolveFailure::NoSuchName)),
        }
    });
    Connector::builder().tls(tls).resolver(resolver)
}

fn builder(certs: &Certs) -> ClientBuilder {
    Client::builder().connector(connector(certs).build().unwrap())
}

fn pem(certs: &Certs) -> ServerTls {
    ServerTls::with(certs.sign(&Leaf::server(["a.test", "b.test", "away.test", "*.wild.test"])))
}

/// Says which host it was asked for.
async fn web(certs: &Certs, alpn: &[&str]) -> Web {
    let handler = heads(|request| reply(200, request.uri().host().unwrap_or("?").to_owned()));
    Web::with(pem(certs).alpn(alpn), handler).await
}

/// Fetches from `host` at the port of `web`, and says whether the connection was there.
async fn get(client: &Client, host: &str, port: u16) -> (String, bool) {
    let response = client.get(format!("https://{host}:{port}/")).send().await.unwrap();
    assert_eq!(response.is_reused(), response.connection_info().reused);
    let reused = response.is_reused();
    (response.text().await.unwrap(), reused)
}

#[tokio::test]
async fn origins_of_one_certificate_at_one_address_share_a_connection() {
    let certs = Certs::new();
    let web = web(&certs, &["h2", "http/1.1"]).await;
    let port = web.addr.port();
    for version in [Version::Auto, Version::Http2Only] {
        let before = web.accepted();
        let client = builder(&certs).version(version).build().unwrap();
        for (turn, host) in ["a.test", "b.test", "x.wild.test", "b.test", "a.test"].into_iter().enumerate() {
            assert_eq!(get(&client, host, port).await, (host.to_owned(), turn > 0));
        }
        assert_eq!(web.accepted(), before + 1);
        // It ends for all of them at once, and they meet again on the next.
        web.cut();
        for host in ["b.test", "a.test", "x.wild.test"] {
            assert_eq!(get(&client, host, port).await.0, host);
        }
        assert_eq!(web.accepted(), before + 2);
    }
}

#[tokio::test]
async fn origins_that_differ_in_anything_have_connections_of_their_own() {
    let certs = Certs::new();
    let web = web(&certs, &["h2", "http/1.1"]).await;
    let port = web.addr.port();
    let client = builder(&certs).build().unwrap();
    get(&client, "a.test", port).await;
    let fails = async |client: &Client, host: &str| {
        client.get(format!("https://{host}:{port}/")).send().await.unwrap_err().kind()
    };
    // Not in the certificate; at another address, where nobody is.
    assert_eq!(fails(&client, "c.test").await, Kind::Tls);
    assert_eq!(fails(&client, "deep.x.wild.test").await, Kind::Tls);
    assert_eq!(fails(&client, "away.test").await, Kind::Connect);
    let accepted = web.accepted();
    // By a way of its own, and by HTTP/1.1.
    let other = connector(&certs).build().unwrap();
    let request = client.get(format!("https://b.test:{port}/")).connector(other);
    assert!(!request.send().await.unwrap().is_reused());
    let request = client.get(format!("https://b.test:{port}/")).version(Version::Http1Only);
    assert!(!request.send().await.unwrap().is_reused());
    assert_eq!(web.accepted(), accepted + 2);
    let off = builder(&certs).connection_coalescing(false).build().unwrap();
    assert!(!get(&off, "a.test", port).await.1);
    assert!(!get(&off, "b.test", port).await.1);
    assert_eq!(web.accepted(), accepted + 4);
    // The policy is asked for each name.
    let net = connector(&certs).policy(Policy::any().deny_host("b.test")).build().unwrap();
    let client = Client::builder().connector(net).build().unwrap();
    get(&client, "a.test", port).await;
    assert_eq!(fails(&client, "b.test").await, Kind::Blocked);
}

#[tokio::test]
async fn a_misdirected_request_is_sent_again_on_a_connection_of_its_own() {
    let certs = Certs::new();
    let refusals: Arc<AtomicUsize> = Arc::new(AtomicUsize::new(1));
    let left = refusals.clone();
    let handler = heads(move |request| {
        let host = request.uri().host().unwrap_or("?").to_owned();
        let refused = host != "a.test" && left.swap(0, Ordering::SeqCst) > 0;
        reply(if refused { 421 } else { 200 }, host)
    });
    let web = Web::with(pem(&certs).alpn(["h2"]), handler).await;
    let port = web.addr.port();
    let client = builder(&certs).build().unwrap();
    get(&client, "a.test", port).await;
    // What can't be sent twice is told.
    let stream = Body::from_stream(futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"x"))]));
    let response = client.post(format!("https://b.test:{port}/")).body(stream).send().await.unwrap();
    assert_eq!((response.status().as_u16(), web.accepted()), (421, 1));
    drop(response);
    // The rest is sent again, by whatever method: it was not looked at.
    refusals.store(1, Ordering::SeqCst);
    let client = builder(&certs).build().unwrap();
    get(&client, "a.test", port).await;
    let response = client.post(format!("https://b.test:{port}/")).body("twice").send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.attempts(), response.is_reused()), (200, 1, false));
    response.bytes().await.unwrap();
    // Remembered, and the shared one is as good as before.
    assert!(get(&client, "b.test", port).await.1);
    assert!(get(&client, "a.test", port).await.1);
    assert_eq!(web.accepted(), 3);
    // What a server says of its own origin is its answer.
    refusals.store(1, Ordering::SeqCst);
    let response = client.get(format!("https://b.test:{port}/")).send().await.unwrap();
    assert_eq!((response.status().as_u16(), web.accepted()), (421, 3));
}

/// A server that names `origins` once it has been asked for something, or at once.
async fn naming(certs: &Certs, origins: &[&str]) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut payload = Vec::new();
    for origin in origins {
        let origin = origin.replace("PORT", &addr.port().to_string());
        payload.extend(u16::try_from(origin.len()).unwrap().to_be_bytes());
        payload.extend(origin.as_bytes());
    }
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([0xc, 0, 0, 0, 0, 0]);
    frame.extend(payload);
    let acceptor = pem(certs).alpn(["h2"]).acceptor();
    let count: Arc<AtomicUsize> = Arc::default();
    let counter = count.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            let (acceptor, frame) = (acceptor.clone(), frame.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let (near, far) = tokio::io::duplex(1 << 16);
                tokio::spawn(support::serve(far, heads(|_| reply(200, "ok"))));
                let (mut from_client, mut to_client) = tokio::io::split(stream);
                let (mut from_server, mut to_server) = tokio::io::split(near);
                tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                // Its settings come first, in one piece.
                let mut settings = vec![0; 1 << 14];
                let length = from_server.read(&mut settings).await.unwrap();
                to_client.write_all(&settings[..length]).await.unwrap();
                to_client.write_all(&frame).await.unwrap();
                let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
            });
        }
    });
    (addr, count)
}

#[tokio::test]
async fn what_a_server_says_that_it_serves_goes_before_addresses() {
    let certs = Certs::new();
    let (addr, count) = naming(&certs, &["https://AWAY.test:PORT", "https://c.test:PORT"]).await;
    let client = builder(&certs).build().unwrap();
    assert!(!get(&client, "a.test", addr.port()).await.1);
    // Elsewhere by its address, here by the server's word; and in the certificate.
    assert!(get(&client, "away.test", addr.port()).await.1);
    // Here by its address, and not by the server's word.
    assert!(!get(&client, "b.test", addr.port()).await.1);
    assert_eq!(count.load(Ordering::SeqCst), 2);
    // Its word alone is not enough.
    let url = format!("https://c.test:{}/", addr.port());
    assert_eq!(client.get(url).send().await.unwrap_err().kind(), Kind::Tls);
}

#[tokio::test]
async fn origins_share_a_connection_of_http3_too() {
    let certs = Certs::new();
    let (addr, count) = serve(pem(&certs), ANY, answers);
    let client = builder(&certs).version(Version::Http3Only).build().unwrap();
    for (turn, host) in ["a.test", "b.test", "x.wild.test", "a.test"].into_iter().enumerate() {
        let response = client.get(format!("https://{host}:{}/", addr.port())).send().await.unwrap();
        assert_eq!((response.version(), response.is_reused()), (Spoken::HTTP_3, turn > 0));
        assert_eq!(response.bytes().await.unwrap(), "ok");
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
    let url = format!("https://c.test:{}/", addr.port());
    assert_eq!(client.get(url).send().await.unwrap_err().kind(), Kind::Tls);
}

/// The same over HTTP/3, without an engine: it reads each request to its end, and answers 200.
fn naming_by_quic(
    certs: &Certs,
    frames: impl Fn(u16) -> Vec<u8> + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(pem(certs).alpn(["h3"]).config()).unwrap();
    let endpoint = quinn::Endpoint::server(quinn::ServerConfig::with_crypto(Arc::new(crypto)), ANY).unwrap();
    let addr = endpoint.local_addr().unwrap();
    let count: Arc<AtomicUsize> = Arc::default();
    let (counter, frames) = (count.clone(), frames(addr.port()));
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            let frames = frames.clone();
            tokio::spawn(async move {
                let Ok(quic) = incoming.await else { return };
                let mut control = quic.open_uni().await.unwrap();
                // The type of the stream, empty SETTINGS, and what is to be said.
                control.write_all(&[&[0, 4, 0][..], &frames].concat()).await.unwrap();
                while let Ok((mut send, mut recv)) = quic.accept_bi().await {
                    let _ = recv.read_to_end(1 << 16).await;
                    // HEADERS with nothing but the static `:status: 200`.
                    let _ = send.write_all(&[1, 3, 0, 0, 0xd9]).await;
                    let _ = send.finish();
                }
            });
        }
    });
    (addr, count)
}

fn origin_frame(origins: &[String]) -> Vec<u8> {
    let mut payload = Vec::new();
    for origin in origins {
        payload.extend(u16::try_from(origin.len()).unwrap().to_be_bytes());
        payload.extend(origin.as_bytes());
    }
    // A length of two bytes, as QUIC writes integers.
    let length = (u16::try_from(payload.len()).unwrap() | 0x4000).to_be_bytes();
    [&[0xc][..], &length, &payload].concat()
}

#[tokio::test]
async fn what_a_server_says_over_http3_goes_before_addresses_too() {
    let certs = Certs::new();
    let (addr, count) = naming_by_quic(&certs, |port| {
        origin_frame(&[format!("https://AWAY.test:{port}"), format!("https://c.test:{port}")])
    });
    let client = builder(&certs).version(Version::Http3Only).build().unwrap();
    let get = async |host: &str| {
        let response = client.get(format!("https://{host}:{}/", addr.port())).send().await.unwrap();
        assert_eq!(response.version(), Spoken::HTTP_3);
        let reused = response.is_reused();
        response.bytes().await.unwrap();
        reused
    };
    assert!(!get("a.test").await);
    // Elsewhere by its address, here by the server's word; and in the certificate.
    assert!(get("away.test").await);
    // Here by its address, and not by the server's word.
    assert!(!get("b.test").await);
    assert_eq!(count.load(Ordering::SeqCst), 2);
    let url = format!("https://c.test:{}/", addr.port());
    assert_eq!(client.get(url).send().await.unwrap_err().kind(), Kind::Tls);
}

#[tokio::test]
async fn origins_that_are_broken_or_too_long_say_nothing() {
    let certs = Certs::new();
    let broken = [&[0xc, 4, 0, 9][..], b"ab"].concat();
    let long = [&[0xc, 0x80, 0, 0x40, 1][..], &vec![0; 0x4001]].concat();
    for frames in [broken, long, vec![0xc, 1, 0]] {
        let (addr, count) = naming_by_quic(&certs, move |_| frames.clone());
        let client = builder(&certs).version(Version::Http3Only).build().unwrap();
        for host in ["a.test", "b.test"] {
            let url = format!("https://{host}:{}/", addr.port());
            client.get(url).send().await.unwrap().bytes().await.unwrap();
        }
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }
}
