//! HTTP/3 proxies that refuse, lie, stall and break off: each a typed error of its hop, and nothing goes around.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]
#![allow(clippy::disallowed_methods, reason = "these are tests, and they are the peer")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use portolan_core::{Connector, Endpoint, Error, Kind, Phase, Roots, Timeouts, Tls};
use portolan_http3::hop::connect;
use portolan_testbed::Certs;
use quinn::VarInt;
use support::raw::{DATA, SETTINGS, frame, headers, ints};
use support::{endpoint, server_config};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, UdpSocket};

/// What becomes of a request's stream after what was said on it.
#[derive(Clone, Copy, Debug)]
enum Then {
    Finish,
    Reset,
    /// It stays open, and nothing comes.
    Stall,
    /// The whole connection is closed.
    Close,
    /// A byte now and then, for ever.
    Trickle,
}

/// What ENABLE_CONNECT_PROTOCOL and H3_DATAGRAM are called.
const BOTH: &[u64] = &[0x08, 1, 0x33, 1];

/// A proxy that says these bytes to each request.
fn proxy(certs: &Certs, settings: &[u64], said: Bytes, then: Then) -> SocketAddr {
    let endpoint = endpoint(server_config(certs, b"h3"));
    let addr = endpoint.local_addr().unwrap();
    let mut control = BytesMut::from(&[0u8][..]);
    control.extend_from_slice(&frame(SETTINGS, &ints(settings)));
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let (said, control) = (said.clone(), control.clone());
            tokio::spawn(async move {
                let quic = incoming.await?;
                let mut stream = quic.open_uni().await?;
                let _ = stream.write_all(&control).await;
                while let Ok((mut send, recv)) = quic.accept_bi().await {
                    let (quic, said) = (quic.clone(), said.clone());
                    tokio::spawn(async move {
                        let _request = recv;
                        let _ = send.write_all(&said).await;
                        match then {
                            Then::Finish => drop(send.finish()),
                            Then::Reset => drop(send.reset(VarInt::from_u32(0x10c))),
                            Then::Close => quic.close(VarInt::from_u32(0x100), b"enough"),
                            Then::Stall => tokio::time::sleep(Duration::from_secs(60)).await,
                            Then::Trickle => loop {
                                tokio::time::sleep(Duration::from_millis(50)).await;
                                if send.write_all(&[0x40]).await.is_err() {
                                    return;
                                }
                            },
                        }
                        tokio::time::sleep(Duration::from_secs(60)).await;
                    });
                }
                Ok::<_, quinn::ConnectionError>(())
            });
        }
    });
    addr
}

fn net(certs: &Certs, addr: SocketAddr) -> Connector {
    let tls = Tls::builder().roots(Roots::Custom).root_pem(certs.ca.as_bytes()).build().unwrap();
    let timeouts = Timeouts::default().hop(Duration::from_millis(1500)).attempt(Duration::from_millis(700));
    let hop = connect(&format!("https://ann:sesame@localhost:{}", addr.port())).unwrap();
    Connector::builder().via(hop).hop_tls(tls).timeouts(timeouts).build().unwrap()
}

/// A target of both kinds that must hear nothing.
async fn trap() -> (TcpListener, UdpSocket, Endpoint) {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = tcp.local_addr().unwrap();
        if let Ok(udp) = UdpSocket::bind(addr).await {
            return (tcp, udp, addr.into());
        }
    }
}

/// Asks for a stream and for datagrams, each twice: the second may find the connection of the first.
async fn errors(net: &Connector) -> Vec<(&'static str, Error)> {
    let (tcp, udp, to) = trap().await;
    let mut errors = Vec::new();
    for _ in 0..2 {
        errors.push(("stream", net.connect(&to).await.unwrap_err()));
        errors.push(("datagrams", net.datagram(&to).await.unwrap_err()));
    }
    let mut one = [0; 1];
    let around = async {
        tokio::select! { _ = tcp.accept() => (), _ = udp.recv(&mut one) => () }
    };
    assert!(tokio::time::timeout(Duration::from_millis(20), around).await.is_err(), "reached around the proxy");
    for (what, error) in &errors {
        assert_eq!((error.hop(), error.phase()), (Some(0), Some(Phase::Hop)), "{what}: {error:?}");
        assert!(!format!("{error:?} {error}").contains("sesame"));
    }
    errors
}

#[tokio::test]
async fn every_refusal_is_told_with_its_place() {
    let certs = Certs::new();
    let status = |status, fields: &[(&str, &str)]| headers(&[&[(":status", status)], fields].concat());
    let asks = status("407", &[("proxy-authenticate", "Negotiate"), ("proxy-authenticate", "Basic realm=\"x\"")]);
    let told = [status("502", &[]), frame(DATA, b"no\r\nroute")].concat();
    let cases = [
        (asks.clone(), Then::Finish, Kind::Auth, Some(407), "it takes Negotiate, Basic"),
        (asks, Then::Stall, Kind::Auth, Some(407), "it takes Negotiate, Basic"),
        (status("403", &[]), Then::Finish, Kind::Hop, Some(403), "403 Forbidden"),
        (told.into(), Then::Finish, Kind::Hop, Some(502), "502 Bad Gateway: no  route"),
        (status("503", &[]), Then::Stall, Kind::Hop, Some(503), "503 Service Unavailable"),
        (status("302", &[("location", "https://evil/")]), Then::Finish, Kind::Hop, Some(302), "302 Found"),
        (Bytes::new(), Then::Finish, Kind::Hop, None, ""),
        (Bytes::new(), Then::Reset, Kind::Hop, None, ""),
        (Bytes::new(), Then::Close, Kind::Hop, None, ""),
        (Bytes::new(), Then::Stall, Kind::Timeout, None, ""),
        (Bytes::new(), Then::Trickle, Kind::Timeout, None, ""),
        (frame(DATA, b"before any head"), Then::Stall, Kind::Hop, None, ""),
        (headers(&[("x", "no status")]), Then::Stall, Kind::Hop, None, ""),
        (headers(&[(":status", "abc")]), Then::Stall, Kind::Hop, None, ""),
    ];
    let cases = cases.into_iter().map(async |(said, then, kind, code, words)| {
        let net = net(&certs, proxy(&certs, BOTH, said.clone(), then));
        for (what, error) in errors(&net).await {
            // A trickle of broken frames may be noticed before the deadline.
            let fits = error.kind() == kind || matches!(then, Then::Trickle) && error.kind() == Kind::Hop;
            assert!(fits && (code.is_none() || error.code() == code), "{what} {said:?} {then:?}: {error:?}");
            assert!(error.message().contains(words), "{what}: {error:?}");
        }
    });
    futures_util::future::join_all(cases).await;
}

#[tokio::test]
async fn an_answer_cut_at_any_byte_is_an_error_of_the_hop() {
    let certs = Certs::new();
    let whole = headers(&[(":status", "200"), ("server", "x")]);
    for cut in 0..whole.len() {
        for then in [Then::Finish, Then::Reset, Then::Close] {
            let net = net(&certs, proxy(&certs, BOTH, whole.slice(..cut), then));
            let (_tcp, _udp, to) = trap().await;
            for error in [net.connect(&to).await.unwrap_err(), net.datagram(&to).await.unwrap_err()] {
                assert_eq!((error.kind(), error.hop()), (Kind::Hop, Some(0)), "{cut} {then:?}: {error:?}");
            }
        }
    }
    let stalls = (0..whole.len()).map(|cut| {
        let net = net(&certs, proxy(&certs, BOTH, whole.slice(..cut), Then::Stall));
        async move { (cut, net.connect(&"192.0.2.1:9".parse().unwrap()).await.unwrap_err()) }
    });
    for (cut, error) in futures_util::future::join_all(stalls).await {
        assert_eq!((error.kind(), error.hop()), (Kind::Timeout, Some(0)), "{cut}: {error:?}");
    }
}

#[tokio::test]
async fn what_comes_with_the_answer_belongs_to_the_target() {
    let certs = Certs::new();
    let said = [headers(&[(":status", "200")]), frame(DATA, b"220 hello\r\n")].concat();
    let net = net(&certs, proxy(&certs, BOTH, said.into(), Then::Stall));
    let mut stream = net.connect(&"192.0.2.1:25".parse().unwrap()).await.unwrap();
    let mut greeting = [0; 11];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"220 hello\r\n");
}

#[tokio::test]
async fn a_peer_that_is_no_http3_proxy_is_told() {
    let certs = Certs::new();
    let (_tcp, _udp, to) = trap().await;
    // It never said that it knows extended CONNECT: datagrams are not asked for.
    let plain = net(&certs, proxy(&certs, &[], headers(&[(":status", "200")]), Then::Stall));
    let error = plain.datagram(&to).await.unwrap_err();
    assert_eq!(error.hop(), Some(0), "{error:?}");
    assert!(matches!(error.kind(), Kind::Unsupported | Kind::Hop), "{error:?}");
    plain.connect(&to).await.unwrap();
    // Another protocol, nobody, one who throws words, one with a stranger's certificate.
    let other = endpoint(server_config(&certs, b"other"));
    let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let babbles = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let babbler = babbles.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buf = [0; 2000];
        while let Ok((n, from)) = babbles.recv_from(&mut buf).await {
            for part in [&buf[..n.min(1)], &b"HTTP/1.1 400 no\r\n\r\n"[..], &[0xc0; 1200]] {
                let _ = babbles.send_to(part, from).await;
            }
        }
    });
    for addr in [other.local_addr().unwrap(), nobody, babbler] {
        let error = net(&certs, addr).connect(&to).await.unwrap_err();
        assert!(matches!(error.kind(), Kind::Tls | Kind::Hop | Kind::Timeout), "{error:?}");
        assert_eq!(error.hop(), Some(0), "{error:?}");
    }
    let stranger = proxy(&Certs::new(), BOTH, Bytes::new(), Then::Stall);
    let error = net(&certs, stranger).connect(&to).await.unwrap_err();
    assert_eq!((error.kind(), error.hop()), (Kind::Tls, Some(0)), "{error:?}");
}
