//! What lies beneath: handshakes that fail, relays, another way in mid-flight, early data that is refused.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]
#![allow(clippy::disallowed_methods, reason = "the tests play servers and relays on loopback")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty, Full};
use portolan_core::observe::{Closed, Observer, Opened};
use portolan_core::{
    Connector, Delivery, Endpoint, HappyOptions, Hop, Kind, Limit, Phase, Resolver, Roots, Timeouts, Tls, TriedOutcome,
};
use portolan_http3::{Event, Options, connect, connect_as};
use portolan_testbed::Certs;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

#[tokio::test]
async fn nobody_there_is_told_at_once() {
    let free = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = connect(&connector(&Certs::new()), &free.into(), Options::new()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.phase(), error.delivery()),
        (Kind::Connect, Some(Phase::Connect), Delivery::NotSent)
    );
    assert!(error.is_refused(), "{error:?}");
    assert!(portolan_pool::may_fall_back(&error));
}

#[tokio::test]
async fn another_address_of_the_name_is_tried_when_one_gives_no_answer() {
    let certs = Certs::new();
    let addr = serve(endpoint(server_config(&certs, b"h3")));
    let tls = Tls::builder().roots(Roots::Custom).root_pem(certs.ca.as_bytes()).build().unwrap();
    let addresses: [std::net::IpAddr; 2] = ["127.0.0.77".parse().unwrap(), addr.ip()];
    let resolver = Resolver::system().with_override("two.test", addresses);
    let net = Connector::builder().tls(tls).resolver(resolver).build().unwrap();
    let to = Endpoint::new("two.test", addr.port()).unwrap();
    let (client, connection) = connect_as(&net, &to, "localhost", Options::new()).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(body(&client, "/x").await, "/x");
    assert_eq!((client.info().attempts, client.info().peer), (2, Some(addr)));
}

/// How often each was told.
#[derive(Default)]
struct Told {
    opened: AtomicUsize,
    closed: AtomicUsize,
    sent: AtomicUsize,
}

impl Observer for Told {
    fn opened(&self, opened: &Opened<'_>) {
        assert_eq!(opened.info.map(|info| info.attempts), Some(2));
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    fn closed(&self, closed: &Closed<'_>) {
        self.sent.store(usize::try_from(closed.sent).unwrap(), Ordering::Relaxed);
        self.closed.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn addresses_are_raced_and_only_the_winner_is_told_of() {
    let certs = Certs::new();
    let addr = serve(endpoint(server_config(&certs, b"h3")));
    let silent = UdpSocket::bind(("127.0.0.77", addr.port())).await.unwrap();
    let tls = Tls::builder().roots(Roots::Custom).root_pem(certs.ca.as_bytes()).build().unwrap();
    let resolver = Resolver::system().with_override("two.test", [silent.local_addr().unwrap().ip(), addr.ip()]);
    let told = Arc::new(Told::default());
    // The silent one alone would take the time of the test runner.
    let net = Connector::builder().tls(tls).resolver(resolver).observer(Arc::clone(&told) as Arc<dyn Observer>);
    let net = net.timeouts(Timeouts::default().attempt(Duration::from_secs(600)).connect(Limit::Off)).build().unwrap();
    let to = Endpoint::new("two.test", addr.port()).unwrap();
    let (client, connection) = connect_as(&net, &to, "localhost", Options::new()).await.unwrap();
    let driver = tokio::spawn(connection);
    assert_eq!(body(&client, "/x").await, "/x");
    let info = client.info();
    assert_eq!((info.attempts, info.peer), (2, Some(addr)));
    let outcomes: Vec<_> = info.tried.iter().map(|one| (one.address.ip(), one.outcome.clone())).collect();
    let silent = silent.local_addr().unwrap().ip();
    assert_eq!(outcomes, [(silent, TriedOutcome::Dropped), (addr.ip(), TriedOutcome::Connected)]);
    assert_eq!((told.opened.load(Ordering::Relaxed), told.closed.load(Ordering::Relaxed)), (1, 0));
    drop(client);
    driver.await.unwrap().unwrap();
    while told.closed.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(told.closed.load(Ordering::Relaxed), 1);
    assert!(told.sent.load(Ordering::Relaxed) > 2400, "both first datagrams");
}

#[tokio::test]
async fn what_a_peer_says_for_certain_ends_the_race() {
    let (wrong, right) = (Certs::new(), Certs::new());
    let addr = serve(endpoint(server_config(&wrong, b"h3")));
    let second = UdpSocket::bind(("127.0.0.77", addr.port())).await.unwrap();
    let tls = Tls::builder().roots(Roots::Custom).root_pem(right.ca.as_bytes()).build().unwrap();
    let resolver = Resolver::system().with_override("two.test", [addr.ip(), second.local_addr().unwrap().ip()]);
    let net = Connector::builder().tls(tls).resolver(resolver);
    let net = net.happy_eyeballs(HappyOptions::default().attempt_delay(Duration::from_secs(60))).build().unwrap();
    let to = Endpoint::new("two.test", addr.port()).unwrap();
    let error = connect_as(&net, &to, "localhost", Options::new()).await.unwrap_err();
    assert_eq!((error.kind(), error.phase()), (Kind::Tls, Some(Phase::Tls)), "{error:?}");
    assert!(second.try_recv(&mut [0; 8]).is_err(), "the second was not asked");
}

#[tokio::test]
async fn silence_is_a_timeout() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let tls = Tls::builder().roots(Roots::Custom).root_pem(Certs::new().ca.as_bytes()).build().unwrap();
    let timeouts = Timeouts::default().attempt(Duration::from_millis(50));
    let net = Connector::builder().tls(tls).timeouts(timeouts).build().unwrap();
    let error = connect(&net, &silent.local_addr().unwrap().into(), Options::new()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.phase(), error.delivery()),
        (Kind::Timeout, Some(Phase::Connect), Delivery::NotSent)
    );
    assert!(portolan_pool::may_fall_back(&error));
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused() {
    let addr = serve(endpoint(server_config(&Certs::new(), b"h3")));
    let error = connect(&connector(&Certs::new()), &addr.into(), Options::new()).await.unwrap_err();
    assert_eq!((error.kind(), error.phase(), error.delivery()), (Kind::Tls, Some(Phase::Tls), Delivery::NotSent));
    assert!(error.message().contains("certificate refused"), "{error:?}");
}

#[tokio::test]
async fn a_server_without_h3_is_refused() {
    let certs = Certs::new();
    let addr = serve(endpoint(server_config(&certs, b"hq-interop")));
    let error = connect(&connector(&certs), &addr.into(), Options::new()).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (Kind::Tls, Some(120)), "no_application_protocol: {error:?}");
}

#[tokio::test]
async fn an_idle_connection_is_given_up_and_says_so() {
    let certs = Certs::new();
    let addr = serve(endpoint(server_config(&certs, b"h3")));
    let options = Options::new().idle_timeout(Some(Duration::from_millis(500)));
    let (client, connection) = connect(&connector(&certs), &addr.into(), options.clone()).await.unwrap();
    let driver = tokio::spawn(connection);
    body(&client, "/x").await;
    assert_eq!(driver.await.unwrap().unwrap_err().kind(), Kind::Timeout);
    assert!(client.is_closed());
    assert_eq!(client.send(get("/y")).await.unwrap_err().delivery(), Delivery::NotSent);
    let options = options.keepalive(Duration::from_millis(50));
    let (client, connection) = connect(&connector(&certs), &addr.into(), options).await.unwrap();
    let driver = tokio::spawn(connection);
    // Twice the idle timeout, and the keepalive has kept it.
    assert!(tokio::time::timeout(Duration::from_secs(1), driver).await.is_err());
    body(&client, "/y").await;
}

/// A SOCKS5 relay for datagrams (RFC 1928 7) that counts them.
async fn relay() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let relayed = Arc::clone(&count);
    tokio::spawn(async move {
        let (mut control, _) = listener.accept().await.unwrap();
        let mut greeting = [0; 2];
        control.read_exact(&mut greeting).await.unwrap();
        let mut methods = vec![0; usize::from(greeting[1])];
        control.read_exact(&mut methods).await.unwrap();
        control.write_all(&[5, 0]).await.unwrap();
        let mut request = [0; 10];
        control.read_exact(&mut request).await.unwrap();
        assert_eq!(request[..4], [5, 3, 0, 1], "UDP ASSOCIATE from an IPv4 address");
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port().to_be_bytes();
        control.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, port[0], port[1]]).await.unwrap();
        let (mut client, mut room) = (None, [0; 4096]);
        loop {
            let (len, from) = socket.recv_from(&mut room).await.unwrap();
            relayed.fetch_add(1, Ordering::Relaxed);
            if *client.get_or_insert(from) == from {
                assert!(len <= 1200 + 262, "{len} bytes");
                let (header, payload) = room[..len].split_at(10);
                assert_eq!(header[..4], [0, 0, 0, 1]);
                let to = SocketAddr::from((
                    [header[4], header[5], header[6], header[7]],
                    u16::from_be_bytes([header[8], header[9]]),
                ));
                socket.send_to(payload, to).await.unwrap();
            } else {
                let port = from.port().to_be_bytes();
                let mut wrapped = vec![0, 0, 0, 1, 127, 0, 0, 1, port[0], port[1]];
                wrapped.extend_from_slice(&room[..len]);
                socket.send_to(&wrapped, client.unwrap()).await.unwrap();
            }
        }
    });
    (addr, count)
}

#[tokio::test]
async fn quic_goes_through_a_socks5_relay() {
    let certs = Certs::new();
    let addr = serve(endpoint(server_config(&certs, b"h3")));
    let (proxy, relayed) = relay().await;
    let tls = Tls::builder().roots(Roots::Custom).root_pem(certs.ca.as_bytes()).build().unwrap();
    let hop = Hop::parse(&format!("socks5://{proxy}")).unwrap();
    let net = Connector::builder().tls(tls).via(hop).build().unwrap();
    let (client, connection) = connect(&net, &addr.into(), Options::new()).await.unwrap();
    tokio::spawn(connection);
    let sent = vec![b'u'; 300_000];
    let request = Request::post("https://localhost/through").body(Full::new(Bytes::from(sent))).unwrap();
    let back = client.send(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(back.len(), 300_000 + 8);
    assert!(relayed.load(Ordering::Relaxed) > 400);
    assert_eq!(client.info().hops.len(), 1);
}

/// Passes datagrams on between one client and `to`, while the way is open.
async fn forward(to: SocketAddr) -> (SocketAddr, Arc<AtomicBool>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    let open = Arc::new(AtomicBool::new(true));
    let passes = Arc::clone(&open);
    tokio::spawn(async move {
        let (mut client, mut room) = (None, [0; 4096]);
        while let Ok((len, from)) = socket.recv_from(&mut room).await {
            let next = if from == to { client.unwrap_or(to) } else { to };
            client = if from == to { client } else { Some(from) };
            if passes.load(Ordering::Relaxed) {
                socket.send_to(&room[..len], next).await.unwrap();
            }
        }
    });
    (addr, open)
}

#[tokio::test]
async fn a_peer_that_acknowledges_nothing_is_given_up_before_the_idle_timeout() {
    let certs = Certs::new();
    let (addr, open) = forward(serve(endpoint(server_config(&certs, b"h3")))).await;
    let net = connector(&certs);
    let limit = Duration::from_millis(400);
    let (client, connection) = connect(&net, &to(addr), Options::new().answer_timeout(Some(limit))).await.unwrap();
    let driver = tokio::spawn(connection);
    assert_eq!(body(&client, "/before").await, "/before");
    // An idle connection is left alone.
    tokio::time::sleep(limit * 3).await;
    assert_eq!(body(&client, "/between").await, "/between");
    open.store(false, Ordering::Relaxed);
    let began = std::time::Instant::now();
    let error = client.send(get("/lost")).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Timeout, Delivery::Unknown), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(client.is_closed());
    assert_eq!(driver.await.unwrap().unwrap_err().kind(), Kind::Timeout);
}

#[tokio::test]
async fn a_server_that_thinks_for_long_is_not_given_up() {
    let certs = Certs::new();
    let endpoint = endpoint(server_config(&certs, b"h3"));
    let addr = endpoint.local_addr().unwrap();
    tokio::spawn(async move {
        let quic = endpoint.accept().await.unwrap().accept().unwrap().await.unwrap();
        let mut server = h3::server::Connection::new(h3_quinn::Connection::new(quic)).await.unwrap();
        while let Ok(Some(resolver)) = server.accept().await {
            tokio::time::sleep(Duration::from_secs(2)).await;
            tokio::spawn(answer(resolver));
        }
    });
    let options = Options::new().answer_timeout(Some(Duration::from_millis(200)));
    let (client, connection) = connect(&connector(&certs), &to(addr), options).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(body(&client, "/slow").await, "/slow");
}

#[tokio::test]
async fn a_connection_goes_on_over_another_socket() {
    let certs = Certs::new();
    let addr = serve(endpoint(server_config(&certs, b"h3")));
    let net = connector(&certs);
    let (client, connection) = connect(&net, &addr.into(), Options::new()).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(body(&client, "/before").await, "/before");
    let (send, receive) = tokio::sync::mpsc::channel::<Bytes>(1);
    let frames = futures_util::stream::unfold(receive, async |mut receive| {
        let data = receive.recv().await?;
        Some((Ok::<_, std::io::Error>(http_body::Frame::data(data)), receive))
    });
    let request = Request::post("https://localhost/moved").body(http_body_util::StreamBody::new(frames)).unwrap();
    let upload = tokio::spawn({
        let client = client.clone();
        async move { client.send(request).await.unwrap().into_body().collect().await.unwrap().to_bytes() }
    });
    send.send(Bytes::from_static(b"half ")).await.unwrap();
    client.rebind(net.datagram(&Endpoint::from(addr)).await.unwrap()).unwrap();
    send.send(Bytes::from_static(b"whole ")).await.unwrap();
    drop(send);
    assert_eq!(upload.await.unwrap(), "half whole /moved");
    assert_eq!(body(&client, "/after").await, "/after");
}

#[tokio::test]
async fn early_data_that_is_refused_is_sent_again() {
    let certs = Certs::new();
    let (first, second) =
        (serve(endpoint(server_config(&certs, b"h3"))), serve(endpoint(server_config(&certs, b"h3"))));
    let net = connector(&certs);
    let (tell, mut told) = tokio::sync::mpsc::channel(8);
    // The second server has the same name, and doesn't know the first one's sessions.
    for addr in [first, first, second] {
        let tell = tell.clone();
        let options = Options::new().early_data(true).on_event(move |event| {
            if let Event::EarlyData { accepted } = event {
                tell.try_send(accepted).unwrap();
            }
        });
        let (client, connection) = connect(&net, &to(addr), options).await.unwrap();
        let driver = tokio::spawn(connection);
        let calls: Vec<_> = (0..5)
            .map(|n| {
                let client = client.clone();
                tokio::spawn(async move { assert_eq!(body(&client, &format!("/{n}")).await, format!("/{n}")) })
            })
            .collect();
        let post = Request::post("https://localhost/post").body(Empty::<Bytes>::new()).unwrap();
        assert_eq!(client.send(post).await.unwrap().status(), 200);
        for call in calls {
            call.await.unwrap();
        }
        assert!(client.info().tls.is_some());
        drop(client);
        driver.await.unwrap().unwrap();
    }
    assert_eq!((told.recv().await, told.recv().await), (Some(true), Some(false)));
}
