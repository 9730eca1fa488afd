//! What xinetd serves: its own services, and programs behind it.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use portolan_classic::{Transport, activeusers, chargen, daytime, discard, echo, finger, qotd, time};
use portolan_core::{Connector, Delivery, Endpoint, Hop, Kind};
use portolan_testbed::{Service, Tape, find, free_port, record};

use super::xinetd::{Xinetd, both_free};

const PEER: &str = "xinetd 2.3";

macro_rules! peer {
    ($server:expr) => {
        match $server {
            Some(server) => server,
            None => return,
        }
    };
}

#[tokio::test]
async fn echo_comes_back_over_tcp_and_udp() {
    let peer = peer!(Xinetd::start());
    let net = Connector::default();
    let mut tcp = echo::Client::connect(&net, echo::Options::new(peer.at("echo"))).await.unwrap();
    let long: Vec<u8> = (0..200_000u32).flat_map(u32::to_be_bytes).collect();
    for data in [b"hello".as_slice(), b"", &long] {
        tcp.exchange(data).await.unwrap();
    }
    assert_eq!(tcp.info().peer, Some(peer.addr("echo")));
    tcp.close().await.unwrap();
    record("echo", "exchange", PEER, "TCP", 3);
    let options = echo::Options::new(peer.at("echo")).transport(Transport::Udp);
    let mut udp = echo::Client::connect(&net, options).await.unwrap();
    // xinetd loses one now and then.
    for data in [b"one".as_slice(), b"two", &[7; 500]] {
        udp.exchange(data).await.unwrap();
    }
    record("echo", "exchange", PEER, "UDP", 3);
}

#[tokio::test]
async fn echo_cut_stalled_or_garbled_anywhere_is_a_typed_error() {
    let peer = peer!(Xinetd::start());
    let client = async |addr: SocketAddr| {
        let options = echo::Options::new(addr.into()).timeout(Duration::from_millis(200));
        let mut echo = echo::Client::connect(&Connector::default(), options).await?;
        echo.exchange(b"one two three").await.map(drop)
    };
    let tape = Tape::record(peer.addr("echo"), |addr| async move { client(addr).await.unwrap() }).await;
    let outcome = tape.replay(tape.len(), client).await;
    assert_eq!(outcome.fine, 0, "whatever is changed is seen: {outcome:?}");
    record("echo", "faults", PEER, "TCP", u64::try_from(outcome.runs).unwrap());
}

#[tokio::test]
async fn discard_takes_it_all_and_says_nothing() {
    let peer = peer!(Xinetd::start());
    let net = Connector::default();
    let mut tcp = discard::Client::connect(&net, discard::Options::new(peer.at("discard"))).await.unwrap();
    for _ in 0..10 {
        tcp.send(&[0x55; 100_000]).await.unwrap();
    }
    tcp.close().await.unwrap();
    record("discard", "exchange", PEER, "TCP", 10);
    let options = discard::Options::new(peer.at("discard")).transport(Transport::Udp);
    let mut udp = discard::Client::connect(&net, options).await.unwrap();
    udp.send(b"gone").await.unwrap();
    udp.send(b"and still there").await.unwrap();
    udp.close().await.unwrap();
    record("discard", "exchange", PEER, "UDP", 2);
}

#[tokio::test]
async fn chargen_gives_the_usual_pattern_and_stops_when_told() {
    let peer = peer!(Xinetd::start());
    let net = Connector::default();
    let mut tcp = chargen::Client::connect(&net, chargen::Options::new(peer.at("chargen"))).await.unwrap();
    let text = tcp.read(74 * 300).await.unwrap();
    assert!(text.len() == 74 * 300 && chargen::is_usual(&text), "{}", text[..200].escape_ascii());
    tcp.close().await.unwrap();
    record("chargen", "exchange", PEER, "TCP", 1);
    let options = chargen::Options::new(peer.at("chargen")).transport(Transport::Udp);
    let datagram = chargen::Client::connect(&net, options).await.unwrap().read(1000).await.unwrap();
    assert!(!datagram.is_empty());
    record("chargen", "exchange", PEER, "UDP", 1);
}

#[tokio::test]
async fn daytime_and_time_agree_with_our_clock() {
    let peer = peer!(Xinetd::start());
    let net = Connector::default();
    for transport in [Transport::Tcp, Transport::Udp] {
        let options = daytime::Options::new(peer.at("daytime")).transport(transport);
        let text = daytime::Client::connect(&net, options).await.unwrap().read().await.unwrap();
        // xinetd's form: 20 NOV 2026 12:00:00 UTC.
        assert!(text.lossy().split_whitespace().any(|word| word.len() == 4 && word.starts_with("20")), "{text:?}");
        let options = time::Options::new(peer.at("time")).transport(transport);
        let time = time::Client::connect(&net, options).await.unwrap().read().await.unwrap();
        let there = time.to_system_time();
        let here = portolan_core::clock::wall();
        let off = there.duration_since(here).or_else(|_| here.duration_since(there)).unwrap();
        assert!(off < Duration::from_secs(5) && there > SystemTime::UNIX_EPOCH, "{off:?}");
        record("daytime", "exchange", PEER, &format!("{transport:?}"), 1);
        record("time", "exchange", PEER, &format!("{transport:?}"), 1);
    }
}

#[tokio::test]
async fn quotes_and_users_are_read_to_the_end() {
    let peer = peer!(Xinetd::start());
    let net = Connector::default();
    let quote = qotd::Client::connect(&net, qotd::Options::new(peer.at("qotd"))).await.unwrap().read().await.unwrap();
    assert_eq!(quote.lossy(), "an apple a day\n");
    record("qotd", "exchange", "echo under xinetd 2.3", "TCP", 1);
    let options = activeusers::Options::new(peer.at("systat"));
    let users = activeusers::Client::connect(&net, options).await.unwrap().read().await.unwrap();
    assert!(users.lines().count() > 1 && users.lossy().contains("xinetd"), "{users:?}");
    record("activeusers", "exchange", "ps under xinetd 2.3", "TCP", 1);
    let short = activeusers::Options::new(peer.at("systat")).max_bytes(10);
    let error = activeusers::Client::connect(&net, short).await.unwrap().read().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Limit);
}

#[tokio::test]
async fn finger_tells_of_root_in_both_forms_and_refuses_to_forward() {
    let peer = peer!(Xinetd::start());
    if find("finger", "finger").is_none() {
        return;
    }
    let net = Connector::default();
    let ask = async |query: finger::Query| {
        let client = finger::Client::connect(&net, finger::Options::new(peer.at("finger"))).await.unwrap();
        client.query(&query).await.unwrap().printable()
    };
    let root = finger::Query::user("root").unwrap();
    let short = ask(root.clone()).await;
    assert!(short.contains("root"), "{short:?}");
    let long = ask(root.clone().long(true)).await;
    assert!(long.contains("Directory: /root"), "{long:?}");
    let nobody = ask(finger::Query::user("nosuchuser").unwrap()).await;
    assert!(nobody.contains("no such user"), "{nobody:?}");
    let forwarded = ask(root.at("localhost").unwrap()).await;
    assert!(forwarded.to_lowercase().contains("forwarding"), "{forwarded:?}");
    ask(finger::Query::all()).await;
    record("finger", "exchange", "in.fingerd 0.17", "TCP, under xinetd 2.3", 5);
}

#[tokio::test]
async fn a_closed_port_is_refused_over_tcp_and_udp() {
    let to = Endpoint::from(SocketAddr::from(([127, 0, 0, 1], both_free())));
    let net = Connector::default();
    let error = daytime::Client::connect(&net, daytime::Options::new(to.clone())).await.unwrap_err();
    assert!(error.is_refused() && error.delivery() == Delivery::NotSent, "{error:?}");
    let options = daytime::Options::new(to).transport(Transport::Udp);
    let error = daytime::Client::connect(&net, options).await.unwrap().read().await.unwrap_err();
    assert!(error.is_refused() && error.kind() == Kind::Connect, "{error:?}");
}

#[tokio::test]
async fn a_proxy_carries_both_forms() {
    let peer = peer!(Xinetd::start());
    let port = free_port();
    let conf = format!(
        "logoutput: stderr\ninternal: 127.0.0.1 port = {port}\nexternal: lo\nclientmethod: none\nsocksmethod: none\n\
         user.privileged: root\nuser.unprivileged: root\nclient pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}\n\
         socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 command: bind connect udpassociate }}\n\
         socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 command: bindreply udpreply }}\n"
    );
    let danted = Service::new("dante-server", "danted").file("danted.conf", conf);
    let danted = danted.args(["-f", "$D/danted.conf", "-p", "$D/pid"]).accepts(([127, 0, 0, 1], port).into());
    let danted = peer!(danted.start());
    let net = Connector::builder().via(Hop::parse(&format!("socks5://127.0.0.1:{port}")).unwrap()).build().unwrap();
    for transport in [Transport::Tcp, Transport::Udp] {
        let mut echo =
            echo::Client::connect(&net, echo::Options::new(peer.at("echo")).transport(transport)).await.unwrap();
        echo.exchange(b"the long way").await.unwrap();
        assert_eq!(echo.info().hops.len(), 1);
    }
    record("echo", "exchange", PEER, "through Dante, TCP and UDP", 2);
    record("socks5-udp", "exchange", "danted 1.4", "no login, echo inside", 1);
    record("echo", "hop", "danted 1.4", "socks5", 2);
    drop(danted);
}
