//! SOCKS proxies to the letter: what they say of where they are bound, what they refuse in Tor's words, whom they keep apart,
//! and their UDP relays.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "these are tests, and they are the peer")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use portolan_core::{
    Connector, ConnectorBuilder, Credentials, Endpoint, Error, Hop, Isolation, Kind, Phase, Policy, SocksReply,
    Timeouts,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc::{Receiver, channel};

/// What one caller said: user and password, and the request from its command on.
type Said = (Option<(String, String)>, Vec<u8>);

/// A SOCKS5 proxy that takes `method` and answers each request with `reply`, a byte each `pace`.
async fn proxy(method: u8, reply: Vec<u8>, pace: Duration) -> (u16, Receiver<Said>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = channel(64);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (tell, reply) = (tell.clone(), reply.clone());
            tokio::spawn(async move {
                let (said, stream) = serve(stream, method, &reply, pace).await?;
                let _ = tell.send(said).await;
                hold(stream).await
            });
        }
    });
    (port, told)
}

async fn hold(mut stream: TcpStream) -> std::io::Result<()> {
    while stream.read(&mut [0; 64]).await? > 0 {}
    Ok(())
}

async fn serve(mut stream: TcpStream, method: u8, reply: &[u8], pace: Duration) -> std::io::Result<(Said, TcpStream)> {
    let count = [stream.read_u8().await?, stream.read_u8().await?][1];
    let mut methods = vec![0; usize::from(count)];
    stream.read_exact(&mut methods).await?;
    let taken = if methods.contains(&method) { method } else { 0xff };
    stream.write_all(&[5, taken]).await?;
    let mut login = None;
    if taken == 2 {
        stream.read_u8().await?;
        let mut field = async || {
            let mut text = vec![0; usize::from(stream.read_u8().await?)];
            stream.read_exact(&mut text).await?;
            Ok::<_, std::io::Error>(String::from_utf8(text).unwrap())
        };
        login = Some((field().await?, field().await?));
        stream.write_all(&[1, 0]).await?;
    }
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let more = match head[3] {
        1 => 6,
        4 => 18,
        _ => usize::from(stream.read_u8().await?) + 2,
    };
    let mut request = head[1..].to_vec();
    request.resize(3 + more, 0);
    stream.read_exact(&mut request[3..]).await?;
    for byte in reply {
        tokio::time::sleep(pace).await;
        stream.write_all(&[*byte]).await?;
    }
    Ok(((login, request), stream))
}

fn via(hop: Hop) -> ConnectorBuilder {
    Connector::builder().via(hop).timeouts(Timeouts::default().hop(Duration::from_millis(400)))
}

fn socks(scheme: &str, port: u16) -> Hop {
    Hop::parse(&format!("{scheme}://127.0.0.1:{port}")).unwrap()
}

fn to(text: &str) -> Endpoint {
    text.parse().unwrap()
}

fn reply(code: u8, bound: &[u8]) -> Vec<u8> {
    [&[5, code, 0], bound].concat()
}

const NOWHERE: &[u8] = &[1, 0, 0, 0, 0, 0, 0];

#[tokio::test]
async fn wherever_a_proxy_says_it_is_bound_the_tunnel_stands() {
    let v6 = [&[4][..], &[0; 15], &[1, 0, 9]].concat();
    let longest = [&[3, 255][..], &[b'x'; 255], &[0, 9]].concat();
    for (bound, shown) in [
        (NOWHERE, "0.0.0.0:0"),
        (&[1, 10, 0, 0, 1, 0, 9], "10.0.0.1:9"),
        (&v6, "[::1]:9"),
        (&[3, 0, 0, 9], ":9"),
        (&[3, 3, b'b', 0xff, b'x', 0, 9], "b\u{fffd}x:9"),
        (&longest, &format!("{}:9", "x".repeat(255))),
    ] {
        let (port, _told) = proxy(0, reply(0, bound), Duration::ZERO).await;
        let stream = via(socks("socks5", port)).build().unwrap().connect(&to("192.0.2.1:9")).await.unwrap();
        assert_eq!(stream.info().hops[0].bound.as_deref(), Some(shown));
    }
    for (wrong, words) in [
        (&[5, 0, 0, 2, 0, 0, 0, 0, 0, 0][..], "address type"),
        (&[5, 0, 0, 0, 0, 0, 0, 0, 0, 0], "address type"),
        (&[4, 0, 0, 1, 0, 0, 0, 0, 0, 0], "version 5, saw 4"),
    ] {
        let (port, _told) = proxy(0, wrong.to_vec(), Duration::ZERO).await;
        let error = via(socks("socks5", port)).build().unwrap().connect(&to("192.0.2.1:9")).await.unwrap_err();
        assert_eq!((error.kind(), error.hop()), (Kind::Hop, Some(0)), "{error:?}");
        assert!(error.message().contains(words), "{error}");
    }
}

#[tokio::test]
async fn a_trickle_is_ended_by_the_deadline_of_the_hop() {
    let (port, _told) = proxy(0, reply(0, NOWHERE), Duration::from_millis(120)).await;
    let error = via(socks("socks5", port)).build().unwrap().connect(&to("192.0.2.1:9")).await.unwrap_err();
    assert_eq!((error.kind(), error.phase(), error.hop()), (Kind::Timeout, Some(Phase::Hop), Some(0)));
}

#[tokio::test]
async fn each_refusal_has_a_type_tors_own_too() {
    use SocksReply::*;
    for (code, said) in [
        (1, GeneralFailure),
        (2, NotAllowed),
        (3, NetworkUnreachable),
        (4, HostUnreachable),
        (5, ConnectionRefused),
        (6, TtlExpired),
        (7, CommandNotSupported),
        (8, AddressTypeNotSupported),
        (9, Other(9)),
        (0xef, Other(0xef)),
        (0xf0, OnionNotFound),
        (0xf1, OnionDescriptorInvalid),
        (0xf2, OnionIntroFailed),
        (0xf3, OnionRendezvousFailed),
        (0xf4, OnionAuthMissing),
        (0xf5, OnionAuthWrong),
        (0xf6, OnionAddressInvalid),
        (0xf7, OnionIntroTimedOut),
        (0xf8, Other(0xf8)),
    ] {
        let (port, _told) = proxy(0, reply(code, NOWHERE), Duration::ZERO).await;
        let error = via(socks("socks5h", port)).build().unwrap().connect(&to("hidden.onion:80")).await.unwrap_err();
        assert_eq!((error.kind(), error.code(), error.hop()), (Kind::Hop, Some(i64::from(code)), Some(0)));
        assert_eq!(error.server(), Some(&said), "{error:?}");
        assert!(error.message().contains(&said.to_string()));
    }
}

#[tokio::test]
async fn targets_go_as_what_they_are() {
    let name = format!("{}.{}.test", "x".repeat(48), vec!["x".repeat(49); 4].join("."));
    let (port, mut told) = proxy(0, reply(0, NOWHERE), Duration::ZERO).await;
    let net = via(socks("socks5h", port)).build().unwrap();
    for (target, expected) in [
        (to("[2001:db8::1]:9"), [&[1, 0, 4, 0x20, 1, 0xd, 0xb8][..], &[0; 11], &[1, 0, 9]].concat()),
        (to("192.0.2.1:258"), vec![1, 0, 1, 192, 0, 2, 1, 1, 2]),
        // The proxy below does not keep the length of a name.
        (Endpoint::new(&name, 9).unwrap(), [&[1, 0, 3][..], name.as_bytes(), &[0, 9]].concat()),
    ] {
        net.connect(&target).await.unwrap();
        assert_eq!(told.recv().await.unwrap().1, expected, "{target}");
    }
    assert!(Endpoint::new("x.".repeat(127) + "test", 9).is_err(), "more than DNS and SOCKS can carry");
    for old in ["socks4", "socks4a"] {
        let error = via(socks(old, port)).build().unwrap().connect(&to("[2001:db8::1]:9")).await.unwrap_err();
        assert_eq!((error.kind(), error.hop()), (Kind::Unsupported, Some(0)), "{error:?}");
    }
    assert!(told.try_recv().is_err());
}

#[tokio::test]
async fn of_many_addresses_both_families_are_asked_for() {
    let addrs: Vec<IpAddr> = (1..=6).map(|n| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n).into()).collect();
    let addrs: Vec<_> = addrs.into_iter().chain([Ipv4Addr::new(192, 0, 2, 1).into()]).collect();
    let many = Endpoint::new("many.test", 9).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let old = socks("socks4", listener.local_addr().unwrap().port());
    let net = via(old).resolve("many.test", addrs.clone()).build().unwrap();
    let answered = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 9];
        stream.read_exact(&mut request).await.unwrap();
        stream.write_all(&[0, 90, 0, 0, 0, 0, 0, 0]).await.unwrap();
        request
    };
    let (made, request) = tokio::join!(net.connect(&many), answered);
    made.unwrap();
    assert_eq!(request, [4, 1, 0, 9, 192, 0, 2, 1, 0]);
    // A proxy that reaches nothing is asked for some of each, and not for all.
    let (port, mut told) = proxy(0, reply(4, NOWHERE), Duration::ZERO).await;
    let error = via(socks("socks5", port)).resolve("many.test", addrs).build().unwrap().connect(&many).await;
    assert_eq!(error.unwrap_err().code(), Some(4));
    let mut kinds = Vec::new();
    while let Ok((_, request)) = told.try_recv() {
        kinds.push(request[2]);
    }
    assert_eq!(kinds, [4, 1, 4, 4]);
}

#[tokio::test]
async fn isolation_makes_credentials_up_and_refuses_who_does_not_ask_for_them() {
    let (port, mut told) = proxy(2, reply(0, NOWHERE), Duration::ZERO).await;
    let (a, b) = (to("a.test:80"), to("b.test:80"));
    let mut login = async |net: &Connector, to: &Endpoint| {
        net.connect(to).await.unwrap();
        told.recv().await.unwrap().0.unwrap()
    };
    let each = via(socks("socks5h", port).isolation(Isolation::Stream)).build().unwrap();
    let first = login(&each, &a).await;
    assert!(first.0.len() >= 20 && first.0 != first.1);
    assert_ne!(first, login(&each, &a).await);
    let target = || via(socks("socks5h", port).isolation(Isolation::Target)).build().unwrap();
    let net = target();
    let (once, again, other) = (login(&net, &a).await, login(&net, &a).await, login(&net, &b).await);
    assert!(once == again && once != other);
    assert_ne!(once, login(&target(), &a).await, "another connector is somebody else");
    // One that lets anybody in keeps nobody apart.
    let (open, _told) = proxy(0, reply(0, NOWHERE), Duration::ZERO).await;
    let error =
        via(socks("socks5h", open).isolation(Isolation::Stream)).build().unwrap().connect(&a).await.unwrap_err();
    assert_eq!((error.kind(), error.phase(), error.hop()), (Kind::Auth, Some(Phase::Hop), Some(0)), "{error:?}");
    let both = socks("socks5h", port).isolation(Isolation::Stream).credentials(Credentials::new("a", "b"));
    assert_eq!(via(both).build().unwrap().connect(&a).await.unwrap_err().kind(), Kind::Usage);
    assert_eq!(via(Hop::http(a.clone()).isolation(Isolation::Stream)).build().unwrap_err().kind(), Kind::Usage);
}

/// A relay that sends back what it is sent, header and all, after what `before` says.
async fn relay(before: Vec<Vec<u8>>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buf = [0; 2048];
        while let Ok((n, from)) = socket.recv_from(&mut buf).await {
            for junk in &before {
                let _ = socket.send_to(junk, from).await;
            }
            let _ = socket.send_to(&buf[..n], from).await;
        }
    });
    addr
}

async fn associate(port: u16, net: impl FnOnce(ConnectorBuilder) -> ConnectorBuilder) -> Result<Vec<u8>, Error> {
    let net = net(via(socks("socks5", port))).build().unwrap();
    let datagram = net.datagram(&to("192.0.2.7:53")).await?;
    datagram.send(b"query").await?;
    let mut buf = [0; 64];
    let n = datagram.recv(&mut buf).await?;
    Ok(buf[..n].to_vec())
}

#[tokio::test]
async fn a_relay_is_where_the_proxy_says_or_where_the_proxy_is() {
    let at = relay(Vec::new()).await;
    let port = at.port().to_be_bytes();
    for bound in [
        [&[1, 127, 0, 0, 1][..], &port].concat(),
        [&[1, 0, 0, 0, 0][..], &port].concat(),
        [&[4][..], &[0; 16], &port].concat(),
        [&[3, 9][..], b"127.0.0.1", &port].concat(),
    ] {
        let (proxy, mut told) = proxy(0, reply(0, &bound), Duration::ZERO).await;
        assert_eq!(associate(proxy, |net| net).await.unwrap(), b"query", "{bound:?}");
        assert_eq!(told.recv().await.unwrap().1, [3, 0, 1, 0, 0, 0, 0, 0, 0]);
    }
    // Of a proxy with several addresses it is the one that answered.
    let (two, _told) = proxy(0, reply(0, &[&[1, 0, 0, 0, 0][..], &port].concat()), Duration::ZERO).await;
    let hop = Hop::socks5(Endpoint::new("two.test", two).unwrap());
    let both: [IpAddr; 2] = [Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()];
    let net = Connector::builder().via(hop).resolve("two.test", both).build().unwrap();
    let datagram = net.datagram(&to("192.0.2.7:53")).await.unwrap();
    datagram.send(b"query").await.unwrap();
    assert_eq!(datagram.recv(&mut [0; 64]).await.unwrap(), 5);
    // A relay is a proxy: the policy for hops judges where it is.
    let bound = [&[1, 127, 0, 0, 1][..], &port].concat();
    let (proxy_port, _told) = proxy(0, reply(0, &bound), Duration::ZERO).await;
    let narrow = Policy::any().allow_ports(proxy_port..=proxy_port);
    let error = associate(proxy_port, |net| net.hop_policy(narrow)).await.unwrap_err();
    assert_eq!((error.kind(), error.hop()), (Kind::Blocked, Some(0)), "{error:?}");
    let (named, _told) = proxy(0, reply(0, &[3, 3, b'a', b' ', b'b', 0, 9]), Duration::ZERO).await;
    assert_eq!(associate(named, |net| net).await.unwrap_err().kind(), Kind::Hop);
}

#[tokio::test]
async fn what_a_relay_garbles_is_dropped_and_its_end_is_told() {
    let good = [&[0, 0, 0, 1, 192, 0, 2, 7, 0, 53][..], b"forged fragment"].concat();
    let mut junk: Vec<Vec<u8>> = (0..10).map(|length| good[..length].to_vec()).collect();
    let fragment = [&[0, 0, 1][..], &good[3..]].concat();
    let stranger = [&[0, 0, 0, 1, 192, 0, 2, 8, 0, 53][..], b"from another"].concat();
    junk.extend([fragment, stranger, vec![0, 0, 0, 9, 1, 2, 3], [&[0, 0, 0, 3, 200][..], b"short"].concat()]);
    let at = relay(junk).await;
    let bound = [&[1, 127, 0, 0, 1][..], &at.port().to_be_bytes()].concat();
    let (port, _told) = proxy(0, reply(0, &bound), Duration::ZERO).await;
    assert_eq!(associate(port, |net| net).await.unwrap(), b"query");
    // The association ends with its stream.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let gone = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        serve(stream, 0, &reply(0, &bound), Duration::ZERO).await.unwrap();
    });
    let datagram = via(socks("socks5", port)).build().unwrap().datagram(&to("192.0.2.7:53")).await.unwrap();
    gone.await.unwrap();
    let error = datagram.recv(&mut [0; 64]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Closed, "{error:?}");
    let whole = datagram.max_size();
    let error = datagram.send(&vec![0; whole + 1]).await.unwrap_err();
    assert!(error.kind() == Kind::Usage && error.message().contains(&whole.to_string()), "{error}");
}

#[tokio::test]
async fn a_refused_or_broken_association_is_an_error_of_its_hop() {
    for (said, kind) in [
        (reply(7, NOWHERE), Kind::Hop),
        (reply(2, NOWHERE), Kind::Hop),
        (vec![4, 0, 0, 1, 0, 0, 0, 0, 0, 0], Kind::Hop),
        (vec![5, 0, 0, 9], Kind::Hop),
    ] {
        let (port, _told) = proxy(0, said, Duration::ZERO).await;
        let error = associate(port, |net| net).await.unwrap_err();
        assert_eq!((error.kind(), error.phase(), error.hop()), (kind, Some(Phase::Hop), Some(0)), "{error:?}");
    }
    let whole = reply(0, &[1, 127, 0, 0, 1, 0, 9]);
    for cut in 0..whole.len() {
        let (port, _told) = proxy(0, whole[..cut].to_vec(), Duration::ZERO).await;
        let error = associate(port, |net| net).await.unwrap_err();
        assert_eq!((error.kind(), error.hop()), (Kind::Timeout, Some(0)), "stalled at {cut}: {error:?}");
    }
    let (asks, _told) = proxy(2, Vec::new(), Duration::ZERO).await;
    assert_eq!(associate(asks, |net| net).await.unwrap_err().kind(), Kind::Auth);
    for (hop, ip) in [("socks4", IpAddr::V4(Ipv4Addr::LOCALHOST)), ("http", IpAddr::V4(Ipv4Addr::LOCALHOST))] {
        let net = via(socks(hop, 9)).build().unwrap();
        let error = net.datagram(&SocketAddr::new(ip, 53).into()).await.unwrap_err();
        assert_eq!((error.kind(), error.phase(), error.hop()), (Kind::Unsupported, Some(Phase::Hop), Some(0)));
    }
}
