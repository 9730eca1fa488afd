//! What the servers said.

use std::time::Duration;

use portolan_core::{Connector, Endpoint, Hop, Kind, Resolver};
use portolan_dns::dns::{Class, Data, Fallback, Name, Question, Rcode, RecordType, Transport};

use portolan_testbed::record;

use crate::servers::{self, Peer};

macro_rules! peer {
    ($server:expr) => {
        match $server {
            Some(server) => server,
            None => return,
        }
    };
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

#[tokio::test]
async fn bind_gives_every_common_record_typed() {
    let bind = peer!(servers::bind());
    let names = bind.client(|o| o).await;
    let ask = async |name: &str, t| names.query(name, t).await.unwrap();

    let a = ask("portolan.test", RecordType::A).await;
    assert_eq!(a.a().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.10"]);
    assert!(a.flags.authoritative && !a.flags.recursion_available);
    assert_eq!((a.info.transport, a.info.fallback, a.info.attempts), (Transport::Udp, None, 1));
    assert_eq!(a.edns.unwrap().version, 0);
    assert_eq!(a.info.connection.peer, Some(bind.addr));

    let aaaa = ask("portolan.test", RecordType::Aaaa).await;
    assert_eq!(aaaa.aaaa().next().unwrap().to_string(), "2001:db8::10");
    let ns = ask("portolan.test", RecordType::Ns).await;
    assert_eq!(ns.ns().count(), 2);
    assert!(ns.additionals.iter().any(|record| matches!(record.data, Data::A(_))));
    let mx = ask("portolan.test", RecordType::Mx).await;
    let mut mx: Vec<_> = mx.mx().map(|mx| (mx.preference, mx.exchange.to_string())).collect();
    mx.sort();
    assert_eq!(mx, [(10, "mail.portolan.test".to_owned()), (20, "backup.example".to_owned())]);
    let txt = ask("portolan.test", RecordType::Txt).await;
    assert_eq!(txt.txt().next().unwrap(), &[b"v=spf1 -all".to_vec(), b"second string".to_vec()]);
    let soa = ask("portolan.test", RecordType::Soa).await;
    let soa = soa.soa().next().unwrap();
    assert_eq!(
        (soa.serial, soa.refresh, soa.retry, soa.expire, soa.minimum),
        (2_026_112_001, 7200, 900, 1_209_600, 300)
    );
    assert_eq!(
        (soa.primary.to_string(), soa.mailbox.to_string()),
        ("ns.portolan.test".into(), "hostmaster.portolan.test".into())
    );
    let srv = ask("_sip._tcp.portolan.test", RecordType::Srv).await;
    let srv = srv.srv().next().unwrap();
    assert_eq!((srv.priority, srv.weight, srv.port, &srv.target), (10, 60, 5060, &name("sip.portolan.test")));
    let caa = ask("portolan.test", RecordType::Caa).await;
    let critical: Vec<_> = caa.caa().filter(|caa| caa.critical).collect();
    assert_eq!(
        (critical.len(), critical[0].tag.as_str(), critical[0].value.as_slice()),
        (1, "iodef", b"mailto:security@portolan.test".as_slice())
    );
    let ptr = ask("10.portolan.test", RecordType::Ptr).await;
    assert_eq!(ptr.ptr().next().unwrap(), &name("portolan.test"));
    let odd = ask("odd.portolan.test", RecordType::Other(65280)).await;
    assert_eq!(odd.answers[0].data, Data::Other(vec![10, 0, 0, 1]));
    let dotted = names
        .ask(&Question::new(Name::from_labels(["sub.dot", "portolan", "test"]).unwrap(), RecordType::A))
        .await
        .unwrap();
    assert_eq!(dotted.a().next().unwrap().to_string(), "192.0.2.99");
    record("dns", "exchange", "BIND 9.18", "authoritative, UDP", 12);
}

#[tokio::test]
async fn bind_gives_the_newer_records_typed() {
    let bind = peer!(servers::bind());
    let names = bind.client(|o| o).await;
    let ask = async |name: &str, t| names.query(name, t).await.unwrap();

    let https = ask("portolan.test", RecordType::Https).await;
    let https = https.https().next().unwrap();
    assert_eq!((https.priority, https.target.is_root(), https.port), (1, true, Some(8443)));
    assert_eq!((https.alpn.join(","), https.ipv4_hint.len(), https.ipv6_hint.len()), ("h3,h2".into(), 2, 1));
    let svcb = ask("_svc.portolan.test", RecordType::Svcb).await;
    let svcb = svcb.svcb().next().unwrap();
    assert_eq!(
        (svcb.target.to_string(), svcb.other.as_slice()),
        ("mail.portolan.test".into(), [(65000, b"hello".to_vec())].as_slice())
    );
    let tlsa = ask("_443._tcp.portolan.test", RecordType::Tlsa).await;
    let tlsa = tlsa.tlsa().next().unwrap();
    assert_eq!((tlsa.usage, tlsa.selector, tlsa.matching, tlsa.data.len()), (3, 1, 1, 32));
    let naptr = ask("num.portolan.test", RecordType::Naptr).await;
    let naptr = naptr.naptr().next().unwrap();
    assert_eq!(
        (naptr.order, naptr.preference, naptr.flags.as_slice(), naptr.services.as_slice()),
        (100, 50, b"u".as_slice(), b"E2U+sip".as_slice())
    );
    assert_eq!(naptr.regexp, b"!^.*$!sip:info@portolan.test!");
    let ds = ask("child.portolan.test", RecordType::Ds).await;
    let ds = ds.ds().next().unwrap();
    assert_eq!((ds.key_tag, ds.algorithm, ds.digest_type, ds.digest.len()), (60485, 5, 1, 20));
    let key = ask("keyed.portolan.test", RecordType::Dnskey).await;
    // RFC 4034 2.3 gives this key; dnssec-dsfromkey names it 2642 in the signatures of its section 3.3.
    assert_eq!(key.dnskey().next().unwrap().key_tag(), 2642);
    let any = bind.client(|o| o.transport(Transport::Tcp)).await.query("portolan.test", RecordType::Any).await.unwrap();
    let mut kinds: Vec<_> = any.answers.iter().map(|record| u16::from(record.record_type)).collect();
    kinds.dedup();
    assert!(kinds.len() >= 7, "{kinds:?}");
}

#[tokio::test]
async fn an_answer_too_long_for_a_datagram_comes_over_tcp() {
    let bind = peer!(servers::bind());
    let names = bind.client(|o| o).await;
    let big = names.query("big.portolan.test", RecordType::Txt).await.unwrap();
    assert_eq!(big.txt().count(), 40);
    assert_eq!((big.info.transport, big.info.fallback), (Transport::Tcp, Some(Fallback::Truncated)));
    assert!(big.info.size > 8000 && big.info.attempts == 2 && !big.flags.truncated);
    // Where TCP is forbidden the answer comes cut, and says so.
    let cut =
        bind.client(|o| o.transport(Transport::Udp)).await.query("big.portolan.test", RecordType::Txt).await.unwrap();
    assert!(cut.flags.truncated && cut.txt().count() < 40);
    // Where EDNS allows it, it fits after all.
    let wide = bind.client(|o| o.udp_payload(16_000)).await.query("big.portolan.test", RecordType::Txt).await.unwrap();
    assert!(wide.txt().count() == 40 || wide.info.fallback == Some(Fallback::Truncated));
}

#[tokio::test]
async fn missing_names_are_answers_and_refusals_are_errors() {
    let bind = peer!(servers::bind());
    let names = bind.client(|o| o).await;
    let missing = names.query("nobody.portolan.test", RecordType::A).await.unwrap();
    assert!(missing.is_nxdomain() && !missing.is_nodata());
    assert_eq!(missing.negative_ttl(), Some(Duration::from_secs(300)));
    let nodata = names.query("mail.portolan.test", RecordType::Mx).await.unwrap();
    assert!(nodata.is_nodata() && !nodata.is_nxdomain());
    let refused = names.query("example.org", RecordType::A).await.unwrap_err();
    assert_eq!((refused.kind(), refused.server(), refused.code()), (Kind::Server, Some(&Rcode::Refused), Some(5)));
    let without_edns = bind.client(|o| o.udp_payload(None)).await.query("portolan.test", RecordType::A).await.unwrap();
    assert!(without_edns.edns.is_none());
}

#[tokio::test]
async fn bind_tells_its_version_in_class_ch() {
    let bind = peer!(servers::bind());
    let names = bind.client(|o| o).await;
    assert_eq!(names.version().await.unwrap().as_deref(), Some("portolan's peer"));
    let question = Question::new(name("hostname.bind"), RecordType::Txt).with_class(Class::Ch);
    let answer = names.ask(&question).await.unwrap();
    assert_eq!(answer.answers[0].class, Class::Ch);
}

#[tokio::test]
async fn names_are_looked_up_over_their_aliases() {
    let bind = peer!(servers::bind());
    let names = bind.client(|o| o).await;
    let mut found: Vec<_> =
        names.lookup_ip("www.portolan.test").await.unwrap().iter().map(ToString::to_string).collect();
    found.sort();
    assert_eq!(found, ["192.0.2.10", "2001:db8::10"]);
    let www = names.query("WWW.portolan.test", RecordType::A).await.unwrap();
    assert_eq!(www.canonical_name().unwrap(), Some(&name("portolan.test")));
    for (missing, kind) in [
        ("nobody.portolan.test", Kind::Resolve),
        ("loop.portolan.test", Kind::Server),
        ("far.portolan.test", Kind::Server),
    ] {
        let error = names.lookup_ip(missing).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{missing}: {error:?}");
    }
}

#[tokio::test]
async fn many_questions_share_one_tcp_connection() {
    let bind = peer!(servers::bind());
    let names = bind.client(|o| o.transport(Transport::Tcp)).await;
    let questions: Vec<_> =
        (0..300).map(|n| Question::new(name(&format!("h{n}.portolan.test")), RecordType::A)).collect();
    let answers = names.query_all(&questions).await.unwrap();
    let mut ports = std::collections::HashSet::new();
    for (n, answer) in answers.into_iter().enumerate() {
        let answer = answer.unwrap();
        assert_eq!(answer.a().next().unwrap().octets()[3], u8::try_from(n % 250).unwrap());
        ports.insert(answer.info.connection.local);
    }
    let after = names.query("portolan.test", RecordType::A).await.unwrap();
    ports.insert(after.info.connection.local);
    assert_eq!(ports.len(), 1, "one connection served 301 queries");
    names.close().await.unwrap();
    record("dns", "exchange", "BIND 9.18", "authoritative, TCP pipelined", 301);
}

#[tokio::test]
async fn a_zone_is_transferred_record_by_record() {
    let bind = peer!(servers::bind());
    let names = bind.client(|o| o).await;
    let mut zone = names.transfer("portolan.test").await.unwrap();
    let mut records = Vec::new();
    while let Some(record) = zone.next().await.unwrap() {
        records.push(record);
    }
    assert!(records.len() > 340, "{}", records.len());
    assert_eq!(records.first(), records.last(), "the SOA at both ends");
    assert!(records.iter().all(|record| record.name.is_within(&name("portolan.test"))));
    assert!(zone.next().await.unwrap().is_none());
    let refused = names.transfer("closed.test").await.unwrap().next().await.unwrap_err();
    assert_eq!(refused.server(), Some(&Rcode::Refused));
    record("dns", "exchange", "BIND 9.18", "zone transfer", 2);
}

#[tokio::test]
async fn unbound_answers_for_itself_and_for_bind() {
    let bind = peer!(servers::bind());
    let unbound = peer!(servers::unbound(&bind));
    let names = unbound.client(|o| o.random_case(true)).await;
    let own = names.query("host.local.test", RecordType::A).await.unwrap();
    assert_eq!(own.a().next().unwrap().to_string(), "192.0.2.77");
    let forwarded = names.query("www.portolan.test", RecordType::A).await.unwrap();
    assert_eq!(forwarded.addresses().unwrap(), ["192.0.2.10".parse::<std::net::IpAddr>().unwrap()]);
    assert!(forwarded.flags.recursion_available && !forwarded.flags.authoritative);
    let big = names.query("big.portolan.test", RecordType::Txt).await.unwrap();
    assert_eq!((big.txt().count(), big.info.fallback), (40, Some(Fallback::Truncated)));
    let refused = names.query("x.refused.test", RecordType::A).await.unwrap_err();
    assert_eq!(refused.server(), Some(&Rcode::Refused));
    let many: Vec<_> = (0..50).map(|n| Question::new(name(&format!("h{n}.portolan.test")), RecordType::A)).collect();
    let answers = names.query_all(&many).await.unwrap();
    assert!(answers.iter().all(Result::is_ok), "unbound answers over TCP as it finds them");
    record("dns", "exchange", "Unbound 1.17", "resolver, UDP and TCP", 54);
}

#[tokio::test]
async fn a_server_that_drops_queries_meets_the_deadline() {
    let bind = peer!(servers::bind());
    let unbound = peer!(servers::unbound(&bind));
    let names = unbound.client(|o| o.retransmit(Duration::from_millis(50)).timeout(Duration::from_millis(400))).await;
    let error = names.query("x.dropped.test", RecordType::A).await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert!(error.to_string().contains("3 queries"), "{error}");
}

fn through(proxy: &Peer) -> Connector {
    let hop = Hop::parse(&format!("socks5://{}", proxy.addr)).unwrap();
    Connector::builder().via(hop).build().unwrap()
}

#[tokio::test]
async fn datagrams_go_through_a_socks5_proxy() {
    let bind = peer!(servers::bind());
    let danted = peer!(servers::danted());
    let net = through(&danted);
    let names = bind.client_via(&net, |o| o).await;
    let answer = names.query("portolan.test", RecordType::Mx).await.unwrap();
    assert_eq!((answer.mx().count(), answer.info.transport, answer.info.fallback), (2, Transport::Udp, None));
    assert_eq!(answer.info.connection.hops.len(), 1);
    let big = names.query("big.portolan.test", RecordType::Txt).await.unwrap();
    assert_eq!((big.txt().count(), big.info.transport, big.info.connection.hops.len()), (40, Transport::Tcp, 1));
    record("dns", "exchange", "BIND 9.18", "through Dante, SOCKS5 UDP ASSOCIATE", 2);
    record("socks5-udp", "exchange", "danted 1.4", "no login, DNS inside", 1);
    record("dns", "hop", "danted 1.4", "socks5", 2);
}

#[tokio::test]
async fn a_proxy_without_datagrams_is_passed_over_tcp() {
    let bind = peer!(servers::bind());
    let microsocks = peer!(servers::microsocks());
    let names = bind.client_via(&through(&microsocks), |o| o).await;
    let answer = names.query("portolan.test", RecordType::Mx).await.unwrap();
    assert_eq!(
        (answer.mx().count(), answer.info.transport, answer.info.fallback),
        (2, Transport::Tcp, Some(Fallback::NoDatagrams))
    );
    assert_eq!(answer.info.connection.hops.len(), 1);
}

#[tokio::test]
async fn a_connector_resolves_its_names_by_this_client() {
    let bind = peer!(servers::bind());
    let unbound = peer!(servers::unbound(&bind));
    let resolver = Resolver::new(unbound.client(|o| o).await);
    let net = Connector::builder().resolver(resolver).build().unwrap();
    let to = Endpoint::new("host.local.test", 80).unwrap();
    let mut addrs: Vec<_> = net.resolve(&to).await.unwrap().iter().map(ToString::to_string).collect();
    addrs.sort();
    assert_eq!(addrs, ["192.0.2.77:80", "[2001:db8::77]:80"]);
    let error = net.resolve(&Endpoint::new("nobody.local.test", 80).unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Resolve);
}
