//! Real proxies whose words are cut short: after each byte of a stream, after each datagram. Every one is an error of that hop,
//! and nothing of ours ever reaches the target by another way.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use portolan_core::{Bind, Connector, Delivery, Endpoint, Error, Hop, Kind, Roots, Stream, Timeouts, Tls};
use portolan_testbed::{Certs, free_port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::h2::nghttpx;
use super::h3::masque;
use super::{ann, danted, microsocks, squid, tinyproxy};

/// Without resumption, by which the second handshake would be shorter than the first.
fn trusting(certs: &Certs) -> Tls {
    Tls::builder().roots(Roots::Custom).root_pem(certs.ca.as_bytes()).resumption(0).build().unwrap()
}

/// Where our own sockets come from: what the target sees from here has gone around the proxy.
const OURS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));

/// Signatures and tickets make TLS longer or shorter by some bytes from one time to the next.
const SLACK: usize = 16;

/// A target that remembers who came.
async fn target() -> (Endpoint, Arc<Mutex<Vec<IpAddr>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap().into();
    let came = Arc::new(Mutex::new(Vec::new()));
    let seen = came.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, from)) = listener.accept().await {
            seen.lock().unwrap().push(from.ip());
            tokio::spawn(async move { while stream.read(&mut [0; 64]).await.is_ok_and(|n| n > 0) {} });
        }
    });
    (to, came)
}

/// Passes on what `proxy` says up to `limit` bytes, and closes then. Counts what it has passed on.
async fn cut_stream(proxy: SocketAddr, limit: usize) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let passed = Arc::new(AtomicUsize::new(0));
    let count = passed.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let count = count.clone();
            tokio::spawn(async move {
                let proxy = TcpStream::connect(proxy).await?;
                let ((mut from_client, mut to_client), (mut from_proxy, mut to_proxy)) =
                    (client.into_split(), proxy.into_split());
                let up = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_proxy).await });
                let mut left = limit;
                let mut buf = [0; 4096];
                while left > 0 {
                    let n = from_proxy.read(&mut buf).await?.min(left);
                    if n == 0 {
                        break;
                    }
                    count.fetch_add(n, Ordering::SeqCst);
                    to_client.write_all(&buf[..n]).await?;
                    left -= n;
                }
                up.abort();
                Ok::<_, std::io::Error>(())
            });
        }
    });
    (port, passed)
}

/// The same with datagrams.
async fn cut_datagrams(proxy: SocketAddr, limit: usize) -> (u16, Arc<AtomicUsize>) {
    let near = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    far.connect(proxy).await.unwrap();
    let port = near.local_addr().unwrap().port();
    let passed = Arc::new(AtomicUsize::new(0));
    let count = passed.clone();
    tokio::spawn(async move {
        let (mut up, mut down) = ([0; 2048], [0; 2048]);
        let mut client = None;
        loop {
            tokio::select! {
                Ok((n, from)) = near.recv_from(&mut up) => {
                    client = Some(from);
                    let _ = far.send(&up[..n]).await;
                }
                Ok(n) = far.recv(&mut down) => {
                    if let Some(client) = client.filter(|_| count.load(Ordering::SeqCst) < limit) {
                        count.fetch_add(1, Ordering::SeqCst);
                        let _ = near.send_to(&down[..n], client).await;
                    }
                }
                else => return,
            }
        }
    });
    (port, passed)
}

async fn connect(hop: Hop, to: &Endpoint, tls: &Tls) -> Result<Stream, Error> {
    let timeouts = Timeouts::default().attempt(Duration::from_millis(700)).hop(Duration::from_millis(1500));
    let net = Connector::builder().via(hop).hop_tls(tls.clone()).bind(Bind::any().addr(OURS)).timeouts(timeouts);
    net.build()?.connect(to).await
}

type Make = Box<dyn Fn(Endpoint) -> Hop + Sync>;

fn at(port: u16) -> Endpoint {
    Endpoint::new("localhost", port).unwrap()
}

/// The error of a hop that broke, whoever noticed it.
fn broke(what: &str, at: usize, error: &Error) {
    let kind = matches!(error.kind(), Kind::Hop | Kind::Tls | Kind::Timeout);
    assert!(kind && error.hop() == Some(0), "{what}, cut at {at}: {error:?}");
    assert_eq!(error.delivery(), Delivery::NotSent, "{what}, cut at {at}: {error:?}");
    assert!(!format!("{error:?} {error}").contains("sesame"), "{what}, cut at {at}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_cut_off_at_any_byte_is_an_error_of_its_hop() {
    let certs = Certs::new();
    let tls = trusting(&certs);
    let tls_port = free_port();
    let (Some(squid), Some(tiny), Some(dante), Some(micro)) = (
        squid(&certs, free_port(), tls_port),
        tinyproxy(free_port(), false),
        danted(free_port()),
        microsocks(free_port(), true),
    ) else {
        return;
    };
    let (Some(clear), Some(secure)) = (nghttpx(None, squid.addr.port()), nghttpx(Some(&certs), squid.addr.port()))
    else {
        return;
    };
    let squid_tls = SocketAddr::from(([127, 0, 0, 1], tls_port));
    let h2 = |proxy: portolan_http2::hop::Proxy| proxy.credentials(ann()).hop();
    let gateway = super::matrix::gateway().await;
    let tunnel = |at: Endpoint| portolan_tunnel::hop(&format!("ws+tunnel://{}/", at.authority())).unwrap();
    let ways: [(&str, SocketAddr, Make); 9] = [
        ("CONNECT h1", squid.addr, Box::new(|at| Hop::http(at).credentials(ann()))),
        ("CONNECT h1, no login", tiny.addr, Box::new(Hop::http)),
        ("CONNECT h1 in TLS", squid_tls, Box::new(|at| Hop::https(at).credentials(ann()))),
        ("SOCKS4", dante.addr, Box::new(Hop::socks4)),
        ("SOCKS5", dante.addr, Box::new(Hop::socks5)),
        ("SOCKS5h, login", micro.addr, Box::new(|at| Hop::socks5h(at).credentials(ann()))),
        ("WebSocket tunnel", gateway, Box::new(tunnel)),
        ("CONNECT h2", clear.addr, Box::new(move |at| h2(portolan_http2::hop::Proxy::cleartext(at)))),
        ("CONNECT h2 in TLS", secure.addr, Box::new(move |at| h2(portolan_http2::hop::Proxy::new(at)))),
    ];
    for (name, proxy, make) in &ways {
        let slack = match *name {
            // Settings and windows may be said after the answer, and nobody waits for them.
            h2 if h2.contains("h2") => 40,
            tls if tls.contains("TLS") => SLACK,
            _ => 0,
        };
        let (to, came) = target().await;
        let (port, passed) = cut_stream(*proxy, usize::MAX).await;
        let stream = connect(make(at(port)), &to, &tls).await;
        let whole = passed.load(Ordering::SeqCst);
        drop(stream.unwrap_or_else(|error| panic!("{name}: {error:?}")));
        let cuts = (0..whole).map(|cut| {
            let (to, tls) = (&to, &tls);
            async move {
                let (port, _) = cut_stream(*proxy, cut).await;
                (cut, connect(make(at(port)), to, tls).await)
            }
        });
        let mut cuts = futures_util::stream::iter(cuts).buffer_unordered(16);
        while let Some((cut, result)) = cuts.next().await {
            match result {
                Err(error) => broke(name, cut, &error),
                Ok(_) => assert!(cut + slack >= whole, "{name}: connected with {cut} of {whole} bytes"),
            }
        }
        let came = came.lock().unwrap();
        assert!(!came.contains(&OURS), "{name}: the target was reached around the proxy");
        println!("{name}: {whole} bytes, {} of its connections reached the target", came.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_of_datagrams_cut_off_at_any_byte_is_an_error_of_its_hop() {
    let certs = Certs::new();
    let tls = trusting(&certs);
    let (Some(dante), Some(envoy)) = (danted(free_port()), super::envoy::envoy(&certs)) else { return };
    let target = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = target.local_addr().unwrap().into();
    let ways: [(&str, SocketAddr, usize, Make); 2] = [
        ("UDP ASSOCIATE", dante.addr, 0, Box::new(Hop::socks5)),
        // Settings and windows may be said after the answer, and nobody waits for them.
        ("CONNECT-UDP h2", envoy.addr, 40, Box::new(|at| portolan_http2::hop::Proxy::new(at).hop())),
    ];
    for (name, proxy, slack, make) in &ways {
        let opened = |port| {
            let timeouts = Timeouts::default().attempt(Duration::from_millis(700)).hop(Duration::from_millis(1500));
            let net = Connector::builder().via(make(at(port))).hop_tls(tls.clone()).timeouts(timeouts).build().unwrap();
            let to = &to;
            async move { net.datagram(to).await.map(drop) }
        };
        let (port, passed) = cut_stream(*proxy, usize::MAX).await;
        opened(port).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let whole = passed.load(Ordering::SeqCst);
        let opened = &opened;
        let cuts = (0..whole).map(|cut| async move { (cut, opened(cut_stream(*proxy, cut).await.0).await) });
        let mut cuts = futures_util::stream::iter(cuts).buffer_unordered(16);
        while let Some((cut, result)) = cuts.next().await {
            match result {
                Err(error) => broke(name, cut, &error),
                Ok(()) => assert!(cut + slack >= whole, "{name}: opened with {cut} of {whole} bytes"),
            }
        }
        assert!(target.try_recv_from(&mut [0; 16]).is_err(), "{name}: the target was reached around the proxy");
        println!("{name}: {whole} bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_masque_proxy_cut_off_at_any_datagram_is_an_error_of_its_hop() {
    let certs = Certs::new();
    let tls = trusting(&certs);
    let Some(proxy) = masque(&certs, true) else { return };
    let (to, came) = target().await;
    let hop = |port| portolan_http3::hop::Proxy::new(at(port)).credentials(ann()).hop();
    let (port, passed) = cut_datagrams(proxy.addr, usize::MAX).await;
    let stream = connect(hop(port), &to, &tls).await.unwrap();
    let whole = passed.load(Ordering::SeqCst);
    drop(stream);
    let cuts = (0..whole).map(|cut| {
        let (to, tls) = (&to, &tls);
        async move {
            let (port, _) = cut_datagrams(proxy.addr, cut).await;
            (cut, connect(hop(port), to, tls).await)
        }
    });
    let mut failed = 0;
    for (cut, result) in futures_util::future::join_all(cuts).await {
        // The last ones may be acknowledgements, which nobody waits for.
        match result {
            Err(error) => {
                broke("MASQUE", cut, &error);
                failed += 1;
            }
            Ok(_) => assert!(cut + 2 >= whole, "cut at {cut} of {whole}"),
        }
    }
    assert!(failed >= 2, "{failed} of {whole}");
    assert!(!came.lock().unwrap().contains(&OURS));
    println!("MASQUE: {whole} datagrams, {failed} cuts failed");
}
