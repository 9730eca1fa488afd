//! Addresses that turn up on the way are judged like the first one: each test has a trap that would hear what went round the
//! policy, and shows that it does hear where the policy allows it. (Redirects, MOVED, ASK, topologies and WHOIS referrals have theirs
//! beside their protocols.) And TLS within TLS: each layer checks its own name.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portolan_core::{Connector, Endpoint, Hop, Kind, Policy, Resolver, Roots, Tls};
use portolan_db::redis;
use portolan_testbed::{Certs, ServerTls, free_port, record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::h2::trusting;
use super::{ann, squid};

/// Where nobody may go.
const TRAP: &str = "127.0.0.66";

fn fenced() -> Policy {
    Policy::any().deny(TRAP).unwrap()
}

/// Listens where nobody may go, on TCP and UDP.
async fn trap() -> (u16, Arc<AtomicUsize>) {
    let (tcp, udp) = loop {
        let tcp = TcpListener::bind((TRAP, 0)).await.unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
            break (tcp, udp);
        }
    };
    let port = tcp.local_addr().unwrap().port();
    let heard = Arc::new(AtomicUsize::new(0));
    let count = heard.clone();
    tokio::spawn(async move {
        let mut buf = [0; 2048];
        loop {
            tokio::select! {
                Ok(_) = tcp.accept() => {}
                Ok(_) = udp.recv_from(&mut buf) => {}
                else => return,
            }
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    (port, heard)
}

/// HTTP/1.1 inside TLS, always with this field.
async fn web(certs: &Certs, field: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tls = ServerTls::new(certs).alpn(["http/1.1"]).acceptor();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (tls, field) = (tls.clone(), field.clone());
            tokio::spawn(async move {
                let mut stream = tls.accept(tcp).await?;
                let mut buf = [0; 4096];
                while stream.read(&mut buf).await? > 0 {
                    let answer = format!("HTTP/1.1 200 ok\r\n{field}\r\nContent-Length: 2\r\n\r\nok");
                    stream.write_all(answer.as_bytes()).await?;
                }
                Ok::<_, std::io::Error>(())
            });
        }
    });
    port
}

#[tokio::test]
async fn an_alternative_service_is_judged_like_any_target() {
    let certs = Certs::new();
    let (port, heard) = trap().await;
    let site = web(&certs, format!("Alt-Svc: h3=\"{TRAP}:{port}\"; ma=60")).await;
    let url = format!("https://localhost:{site}/");
    for (policy, reached) in [(fenced(), false), (Policy::any(), true)] {
        let net = Connector::builder().tls(trusting(&certs)).policy(policy).build().unwrap();
        let client = portolan_http::Client::builder().connector(net).build().unwrap();
        for _ in 0..3 {
            let response = client.get(url.as_str()).send().await.unwrap();
            assert_eq!(response.bytes().await.unwrap(), "ok");
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(heard.load(Ordering::SeqCst) > 0, reached, "the trap heard {heard:?}");
    }
    // Nor does an offer that a proxy cannot carry harm the requests.
    let before = heard.load(Ordering::SeqCst);
    let Some(tiny) = super::tinyproxy(free_port(), false) else { return };
    let net = Connector::builder().tls(trusting(&certs)).via(Hop::http(tiny.endpoint())).build().unwrap();
    let client = portolan_http::Client::builder().connector(net).build().unwrap();
    for _ in 0..3 {
        assert_eq!(client.get(url.as_str()).send().await.unwrap().bytes().await.unwrap(), "ok");
    }
    assert_eq!(heard.load(Ordering::SeqCst), before, "the alternative was reached around the proxy");
}

#[tokio::test]
async fn a_primary_that_a_sentinel_names_is_judged_like_any_target() {
    let (port, heard) = trap().await;
    let sentinel = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = sentinel.local_addr().unwrap();
    let primary = format!("*2\r\n${}\r\n{TRAP}\r\n${}\r\n{port}\r\n", TRAP.len(), port.to_string().len());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = sentinel.accept().await {
            let primary = primary.clone();
            tokio::spawn(async move {
                let mut buf = [0; 4096];
                loop {
                    let n = stream.read(&mut buf).await?;
                    let asked = String::from_utf8_lossy(&buf[..n]).to_ascii_uppercase();
                    let answer = match &asked {
                        asked if asked.contains("GET-MASTER-ADDR-BY-NAME") => primary.as_str(),
                        _ if n == 0 => return Ok::<_, std::io::Error>(()),
                        _ => "-ERR unknown command\r\n",
                    };
                    stream.write_all(answer.as_bytes()).await?;
                }
            });
        }
    });
    for (policy, reached) in [(fenced(), false), (Policy::any(), true)] {
        let timeouts = portolan_core::Timeouts::default()
            .handshake(Duration::from_millis(300))
            .first_byte(Duration::from_millis(300));
        let net = Connector::builder().policy(policy).timeouts(timeouts).build().unwrap();
        let options = redis::Options::from_url(&format!("redis+sentinel://{at}/service")).unwrap();
        let error = redis::Client::connect(&net, options).await.unwrap_err();
        assert_eq!(error.kind() == Kind::Blocked, !reached, "{error:?}");
        assert_eq!(heard.load(Ordering::SeqCst) > 0, reached, "the trap heard {heard:?}");
    }
}

#[tokio::test]
async fn proxies_and_targets_have_policies_of_their_own() {
    let certs = Certs::new();
    let Some(squid) = squid(&certs, free_port(), free_port()) else { return };
    let target = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let to: Endpoint = target.local_addr().unwrap().into();
    let (port, heard) = trap().await;
    let forbidden = Endpoint::new(TRAP, port).unwrap();
    let via = |policy: &str, hops: &str| {
        let policy = Policy::any().deny(policy).unwrap();
        let hops = Policy::any().deny(hops).unwrap();
        let resolver = Resolver::system().with_override("trap.test", [TRAP.parse().unwrap()]);
        let resolver = resolver.with_override("near.test", ["127.0.0.2".parse().unwrap()]);
        let hop = Hop::http(squid.addr.into()).credentials(ann());
        Connector::builder().policy(policy).hop_policy(hops).via(hop).resolver(resolver)
    };
    // The proxy may be where targets may not, and the other way round.
    via("127.0.0.1", "10.0.0.0/8").build().unwrap().connect(&to).await.unwrap();
    let error = via("10.0.0.0/8", "127.0.0.1").build().unwrap().connect(&to).await.unwrap_err();
    assert_eq!((error.kind(), error.hop()), (Kind::Blocked, Some(0)), "{error:?}");
    // What a proxy would resolve is resolved here first, unless it is trusted by word.
    for to in [forbidden, Endpoint::new("trap.test", port).unwrap()] {
        let error = via(TRAP, "10.0.0.0/8").build().unwrap().connect(&to).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Blocked, "{error:?}");
    }
    assert_eq!(heard.load(Ordering::SeqCst), 0);
    let named = Endpoint::new("near.test", to.port()).unwrap();
    let net = via("127.0.0.0/8", "10.0.0.0/8");
    assert_eq!(net.build().unwrap().connect(&named).await.unwrap_err().kind(), Kind::Blocked);
}

#[tokio::test]
async fn tls_runs_inside_tls_and_each_checks_its_own_name() {
    let (outer, inner) = (Certs::new(), Certs::new());
    let tls_port = free_port();
    let Some(squid) = squid(&outer, free_port(), tls_port) else { return };
    let site = Endpoint::new("localhost", web(&inner, "X: y".to_owned()).await).unwrap();
    let proxy = || Hop::https(Endpoint::new("localhost", tls_port).unwrap()).credentials(ann());
    let net = |hops: usize, proxies: Tls, targets: Tls| {
        let net = Connector::builder().hop_tls(proxies).tls(targets);
        (0..hops).fold(net, |net, _| net.via(proxy())).build().unwrap()
    };
    for hops in [1, 2, 3] {
        let net = net(hops, trusting(&outer), trusting(&inner));
        let mut stream = net.connect_tls(&site, &[b"http/1.1"]).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut head = [0; 15];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 ok");
        assert_eq!((stream.info().hops.len(), stream.alpn()), (hops, Some(&b"http/1.1"[..])));
        record("https-proxy", "peer", &squid.version, &format!("TLS inside {hops} times TLS"), 1);
    }
    let nobody = || Tls::builder().roots(Roots::Custom).root_pem(Certs::new().ca.as_bytes()).build().unwrap();
    for (proxies, targets, hop) in [
        (nobody(), trusting(&inner), Some(0)),
        (trusting(&outer), nobody(), None),
        (trusting(&outer), trusting(&outer), None),
    ] {
        let error = net(1, proxies, targets).connect_tls(&site, &[]).await.unwrap_err();
        assert_eq!((error.kind(), error.hop()), (Kind::Tls, hop), "{error:?}");
    }
}
