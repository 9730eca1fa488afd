//! CONNECT and CONNECT-UDP over HTTP/3, through a proxy on aioquic.

use portolan_core::{Connector, Credentials, Endpoint, Kind, ProxyAuth};
use portolan_http3::hop::{Proxy as Made, connect};
use portolan_testbed::{Certs, Service, free_port, python, record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::h2::trusting;
use super::{Proxy, ann, pass, redis, refused_login};

const SCRIPT: &str = include_str!("masque.py");

pub(super) fn masque(certs: &Certs, auth: bool) -> Option<Proxy> {
    masque_of(certs, if auth { "Basic YW5uOnNlc2FtZQ==" } else { "" }, 1400)
}

/// It does not discover what the path carries, so it must be told.
/// `auth` is what is asked for: a whole value of `Proxy-Authorization`, or `Digest user:password`.
pub(super) fn masque_of(certs: &Certs, auth: &str, mtu: u16) -> Option<Proxy> {
    let port = free_port();
    let number = port.to_string();
    let mut args = vec!["$D/masque.py", &number, "$D/server.pem", "$D/server.key"];
    if !auth.is_empty() {
        args.push(auth);
    }
    let service = Service::new("pip:aioquic", python("aioquic", "aioquic")?)
        .file("masque.py", SCRIPT)
        .tls(certs)
        .args(args)
        .env("MTU", mtu.to_string());
    let server = service.says("ready").start()?;
    Some(Proxy { _server: server, addr: ([127, 0, 0, 1], port).into(), version: "aioquic".to_owned() })
}

pub(super) fn h3(proxy: &Proxy) -> Made {
    Made::new(proxy.endpoint())
}

#[tokio::test]
async fn redis_through_masque_with_and_without_login() {
    let Some((_redis, to)) = redis() else { return };
    let certs = Certs::new();
    let tls = trusting(&certs);
    for auth in [false, true] {
        let Some(proxy) = masque(&certs, auth) else { return };
        let url = format!("https://{}localhost:{}", if auth { "ann:sesame@" } else { "" }, proxy.addr.port());
        let hop = connect(&url).unwrap();
        pass(&to, std::slice::from_ref(&hop), Some(&tls)).await.unwrap();
        record("h3-connect", "peer", &proxy.version, if auth { "basic login" } else { "no login" }, 4);
        let error = pass(&to, &[hop], None).await.unwrap_err();
        assert_eq!((error.kind(), error.hop()), (Kind::Tls, Some(0)), "{error:?}");
        if auth {
            for hop in [h3(&proxy).hop(), h3(&proxy).credentials(Credentials::new("ann", "wrong")).hop()] {
                refused_login(&pass(&to, &[hop], Some(&tls)).await.unwrap_err(), Some(407));
            }
        }
        let nobody = Endpoint::new("127.0.0.1", free_port()).unwrap();
        let error = pass(&nobody, &[h3(&proxy).credentials(ann()).hop()], Some(&tls)).await.unwrap_err();
        assert_eq!((error.kind(), error.code(), error.hop()), (Kind::Hop, Some(502), Some(0)), "{error:?}");
        assert!(error.message().contains("502 Bad Gateway: "), "{error:?}");
    }
}

#[tokio::test]
async fn fifty_tunnels_share_one_quic_connection() {
    let Some((_redis, to)) = redis() else { return };
    let certs = Certs::new();
    let Some(proxy) = masque(&certs, false) else { return };
    let net = Connector::builder().via(h3(&proxy).hop()).hop_tls(trusting(&certs)).build().unwrap();
    let dials = (0..50).map(|_| {
        let (net, to) = (net.clone(), to.clone());
        tokio::spawn(async move {
            let mut stream = net.connect(&to).await.unwrap();
            stream.write_all(b"PING\r\n").await.unwrap();
            let mut pong = [0; 7];
            stream.read_exact(&mut pong).await.unwrap();
            assert_eq!(&pong, b"+PONG\r\n");
            stream
        })
    });
    let mut streams = Vec::new();
    for dial in dials.collect::<Vec<_>>() {
        streams.push(dial.await.unwrap());
    }
    assert_eq!(streams.iter().filter(|stream| stream.info().hops[0].reused).count(), 49);
    record("h3-connect", "peer", &proxy.version, "50 tunnels on one connection", 50);
}

#[tokio::test]
async fn datagrams_and_http3_itself_pass_through_masque() {
    let certs = Certs::new();
    let tls = trusting(&certs);
    let Some(proxy) = masque(&certs, true) else { return };
    let net = Connector::builder().via(h3(&proxy).credentials(ann()).hop()).hop_tls(tls.clone()).tls(tls);
    let net = net.build().unwrap();
    let target = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let datagram = net.datagram(&target.local_addr().unwrap().into()).await.unwrap();
    assert!(datagram.max_size() > 1200, "{}", datagram.max_size());
    let mut room = vec![0; 2000];
    for len in [1, 500, 1200] {
        datagram.send(&vec![7; len]).await.unwrap();
        let (n, from) = target.recv_from(&mut room).await.unwrap();
        assert_eq!(n, len);
        target.send_to(&room[..n], from).await.unwrap();
        assert_eq!(datagram.recv(&mut room).await.unwrap(), len);
    }
    // What fits is told, and fits; one byte more is refused with what would, and is not sent.
    let most = datagram.max_size();
    datagram.send(&vec![8; most]).await.unwrap();
    assert_eq!(target.recv_from(&mut room).await.unwrap().0, most);
    // The way may be found to carry more meanwhile.
    let (most, error) = loop {
        let most = datagram.max_size();
        match datagram.send(&vec![0; most + 1]).await {
            Ok(()) => drop(target.recv_from(&mut room).await.unwrap()),
            Err(error) if datagram.max_size() == most => break (most, error),
            Err(_) => {}
        }
    };
    assert_eq!(error.kind(), Kind::Usage);
    assert!(error.message().contains(&most.to_string()), "{error}");
    datagram.send(b"still").await.unwrap();
    assert_eq!(target.recv_from(&mut room).await.unwrap().0, 5);
    record("connect-udp", "peer", &proxy.version, "datagrams up to 1200 bytes", 3);
    // The inner target is a second proxy: HTTP/3 in HTTP/3, and redis inside of that.
    let Some(inner) = masque_of(&certs, "", 1200) else { return };
    let Some((_redis, to)) = redis() else { return };
    let chain = [h3(&proxy).credentials(ann()).hop(), h3(&inner).hop()];
    pass(&to, &chain, Some(&trusting(&certs))).await.unwrap();
    record("connect-udp", "peer", &proxy.version, "HTTP/3 inside, redis inside of that", 4);
}

#[tokio::test]
async fn digest_is_answered_on_streams_and_datagrams_of_one_connection() {
    let certs = Certs::new();
    let tls = trusting(&certs);
    let Some((_redis, to)) = redis() else { return };
    let Some(proxy) = masque_of(&certs, "Digest ann:sesame", 1400) else { return };
    for auth in [ProxyAuth::digest(ann()), ProxyAuth::any(ann()), ProxyAuth::strongest(ann())] {
        let net = Connector::builder().via(h3(&proxy).auth(auth).hop()).hop_tls(tls.clone()).build().unwrap();
        net.connect(&to).await.unwrap();
        let target = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let datagram = net.datagram(&target.local_addr().unwrap().into()).await.unwrap();
        datagram.send(b"word").await.unwrap();
        assert_eq!(target.recv_from(&mut [0; 10]).await.unwrap().0, 4);
        assert!(net.connect(&to).await.unwrap().info().hops[0].reused);
    }
    record("h3-connect", "peer", &proxy.version, "digest login", 6);
    let wrong = h3(&proxy).auth(ProxyAuth::digest(Credentials::new("ann", "wrong"))).hop();
    refused_login(&pass(&to, &[wrong], Some(&tls)).await.unwrap_err(), Some(407));
}
