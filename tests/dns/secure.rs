//! DNS over TLS, HTTPS and QUIC: what real servers of each say.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use portolan_core::{Connector, Endpoint, Hop, Kind, Phase, Resolver};
use portolan_dns::dns::{self, Client, Method, Name, Options, Question, Rcode, RecordType, Transport};
use portolan_grpc::{Channel, ChannelOptions, Client as GrpcClient, Method as Called, Raw};
use portolan_testbed::rogue::{Rogue, Script};
use portolan_testbed::{Certs, Leaf, free_port, record};

use crate::servers::{self, Peer, Secure, trusting};

macro_rules! peer {
    ($server:expr) => {
        match $server {
            Some(server) => server,
            None => return,
        }
    };
}

fn net(certs: &Certs) -> Connector {
    Connector::builder().tls(trusting(certs)).build().unwrap()
}

/// All that speak TLS.
fn all(certs: &Certs, bind: &Peer) -> Vec<Secure> {
    let servers = [
        servers::secure_bind(certs),
        servers::secure_unbound(certs, bind),
        servers::dnsdist(certs, bind),
        servers::kresd(certs, bind),
    ];
    servers.into_iter().flatten().collect()
}

async fn client(net: &Connector, url: &str) -> Client {
    Client::connect(net, Options::from_url(url).unwrap()).await.unwrap()
}

fn numbered(count: usize) -> Vec<Question> {
    let name = |n| format!("h{n}.portolan.test").parse::<Name>().unwrap();
    (0..count).map(|n| Question::new(name(n), RecordType::A)).collect()
}

/// What every server has to be able to do, however it is asked. How many questions it was asked.
async fn converses(names: &Client, transport: Transport) -> u64 {
    let mx = names.query("portolan.test", RecordType::Mx).await.unwrap();
    assert_eq!((mx.mx().count(), mx.info.transport, mx.info.fallback), (2, transport, None));
    let connection = &mx.info.connection;
    assert!(!connection.reused && connection.timings.total > Duration::ZERO && connection.tls.is_some());
    let missing = names.query("nobody.portolan.test", RecordType::A).await.unwrap();
    assert!(missing.is_nxdomain() && missing.info.connection.reused);
    // What would not fit a datagram.
    let big = names.query("big.portolan.test", RecordType::Txt).await.unwrap();
    assert!(big.txt().count() == 40 && !big.flags.truncated && big.info.size > 8000);
    // Many at once, each with its own answer, on one connection.
    let questions = numbered(200);
    let mut locals = HashSet::new();
    for (n, answer) in names.query_all(&questions).await.unwrap().into_iter().enumerate() {
        let answer = answer.unwrap();
        assert_eq!(answer.a().next().unwrap().octets()[3], u8::try_from(n % 250).unwrap());
        locals.insert(answer.info.connection.local);
    }
    assert!(locals.len() <= 2, "{} connections for 200 questions", locals.len());
    203
}

/// A client that trusts others, or means another name, is told so before anything is asked.
async fn checks_names(certs: &Certs, make: impl Fn(&str) -> String) {
    let strangers = net(&Certs::new());
    for (net, host) in [(&net(certs), "other.test@127.0.0.1"), (&strangers, "localhost@127.0.0.1")] {
        let error = client(net, &make(host)).await.query("portolan.test", RecordType::A).await.unwrap_err();
        assert_eq!((error.kind(), error.phase()), (Kind::Tls, Some(Phase::Tls)), "{error:?}");
    }
}

#[tokio::test]
async fn four_servers_answer_over_tls() {
    let bind = peer!(servers::bind());
    let certs = Certs::new();
    for server in all(&certs, &bind) {
        let url = format!("tls://localhost@127.0.0.1:{}", server.tls);
        let names = client(&net(&certs), &url).await;
        let asked = converses(&names, Transport::Tls).await;
        names.close().await.unwrap();
        // An address needs a certificate too.
        let url = format!("tls://127.0.0.1:{}?case=random", server.tls);
        assert_eq!(client(&net(&certs), &url).await.lookup_ip("portolan.test").await.unwrap().len(), 2);
        checks_names(&certs, |host| format!("tls://{host}:{}", server.tls)).await;
        record("dot", "exchange", server.name, "strict, padded, pipelined", asked);
    }
}

#[tokio::test]
async fn three_servers_answer_over_https_by_post_and_by_get() {
    let bind = peer!(servers::bind());
    let certs = Certs::new();
    for server in all(&certs, &bind) {
        let Some(port) = server.https else { continue };
        for template in ["", "{?dns}"] {
            let names = client(&net(&certs), &format!("https://localhost@127.0.0.1:{port}/dns-query{template}")).await;
            let asked = converses(&names, Transport::Https).await;
            let answer = names.query("portolan.test", RecordType::A).await.unwrap();
            assert_eq!(answer.info.connection.tls.unwrap().alpn.as_deref(), Some(&b"h2"[..]));
            let method = if template.is_empty() { "POST" } else { "GET" };
            record("doh", "exchange", server.name, &format!("HTTP/2, {method}"), asked);
        }
        checks_names(&certs, |host| format!("https://{host}:{port}/dns-query")).await;
        let wrong = client(&net(&certs), &format!("https://localhost@127.0.0.1:{port}/nothing")).await;
        let error = wrong.query("portolan.test", RecordType::A).await.unwrap_err();
        assert!(error.kind() == Kind::Server && error.code().is_some_and(|code| code >= 400), "{error:?}");
    }
}

#[tokio::test]
async fn https_is_spoken_by_every_version_of_http() {
    let bind = peer!(servers::bind());
    let certs = Certs::new();
    for (alpn, scheme, transport) in
        [("http/1.1", "https", Transport::Https), ("h2", "https", Transport::Https), ("h3", "h3", Transport::Http3)]
    {
        let server = peer!(servers::hypercorn(&certs, &bind, alpn));
        for method in [Method::Post, Method::Get] {
            let url = format!("{scheme}://localhost@127.0.0.1:{}", server.addr.port());
            let options = Options::from_url(&url).unwrap().method(method);
            let names = Client::connect(&net(&certs), options).await.unwrap();
            let answer = names.query("portolan.test", RecordType::Mx).await.unwrap();
            assert_eq!((answer.mx().count(), answer.info.transport), (2, transport));
            assert_eq!(answer.info.connection.tls.as_ref().unwrap().alpn.as_deref(), Some(alpn.as_bytes()));
            // An hour, of which a cache leaves 100 seconds.
            assert_eq!(answer.ttl(), Some(Duration::from_secs(100)));
            let all = names.query_all(&numbered(50)).await.unwrap();
            assert!(all.iter().all(|answer| answer.as_ref().is_ok_and(|answer| answer.a().count() == 1)));
            record("doh", "exchange", "Hypercorn", &format!("{alpn}, {method:?}"), 51);
        }
    }
}

#[tokio::test]
async fn queries_go_over_quic_each_on_its_own_stream() {
    let bind = peer!(servers::bind());
    let certs = Certs::new();
    let server = peer!(servers::doq(&certs, &bind));
    let url = |host: &str| format!("quic://{host}:{}", server.addr.port());
    let names = client(&net(&certs), &url("localhost@127.0.0.1")).await;
    let asked = converses(&names, Transport::Quic).await;
    let answer = names.query("portolan.test", RecordType::A).await.unwrap();
    assert_eq!(answer.info.connection.tls.unwrap().alpn.as_deref(), Some(&b"doq"[..]));
    // Every query was padded.
    let sizes: HashSet<_> = server
        .log()
        .lines()
        .filter_map(|line| line.strip_prefix("asked ")?.split(' ').nth(1).map(str::to_owned))
        .collect();
    assert_eq!(sizes, HashSet::from(["128".to_owned()]));
    checks_names(&certs, |host| url(host)).await;
    names.close().await.unwrap();
    record("doq", "exchange", "aioquic", "a stream for each query, padded", asked + 1);
}

#[tokio::test]
async fn a_zone_is_transferred_over_tls_and_over_nothing_else_that_is_encrypted() {
    let certs = Certs::new();
    let bind = peer!(servers::secure_bind(&certs));
    let names = client(&net(&certs), &format!("tls://localhost@127.0.0.1:{}", bind.tls)).await;
    let mut zone = names.transfer("portolan.test").await.unwrap();
    let mut count = 0;
    while zone.next().await.unwrap().is_some() {
        count += 1;
    }
    assert!(count > 340, "{count}");
    let refused = names.transfer("closed.test").await.unwrap().next().await.unwrap_err();
    assert!(matches!(refused.server(), Some(Rcode::Refused | Rcode::NotAuth)), "{refused:?}");
    let names = client(&net(&certs), "https://localhost@127.0.0.1:1").await;
    assert_eq!(names.transfer("portolan.test").await.unwrap_err().kind(), Kind::Unsupported);
    record("dot", "exchange", "BIND 9.18", "zone transfer", 1);
}

#[tokio::test]
async fn the_opportunistic_profile_takes_any_certificate_but_never_plain_dns() {
    let (certs, plain) = (Certs::new(), peer!(servers::bind()));
    let bind = peer!(servers::secure_bind(&certs));
    let opportunistic = |port| format!("tls://other.test@127.0.0.1:{port}?dangerous=opportunistic");
    let names = client(&Connector::default(), &opportunistic(bind.tls)).await;
    assert_eq!(names.query("portolan.test", RecordType::Mx).await.unwrap().mx().count(), 2);
    // A server that speaks plain DNS is not asked.
    let names = client(&Connector::default(), &opportunistic(plain.addr.port())).await;
    names.query("portolan.test", RecordType::Mx).await.unwrap_err();
    record("dot", "exchange", "BIND 9.18", "opportunistic", 1);
}

#[tokio::test]
async fn encrypted_queries_go_through_proxies_to_the_address_that_was_said() {
    // A name that no proxy can place.
    let mut certs = Certs::new();
    let named = certs.sign(&Leaf::server(["ns.nowhere.test", "localhost"]));
    (certs.server, certs.server_key) = (named.cert, named.key);
    let bind = peer!(servers::bind());
    let (secure, quic) = (peer!(servers::secure_bind(&certs)), peer!(servers::doq(&certs, &bind)));
    let (danted, tiny) = (peer!(servers::danted()), peer!(servers::tinyproxy()));
    let masque = peer!(servers::masque(&certs));
    let dot = format!("tls://ns.nowhere.test@127.0.0.1:{}", secure.tls);
    let doh = format!("https://ns.nowhere.test@127.0.0.1:{}", secure.https.unwrap());
    let doq = format!("quic://ns.nowhere.test@127.0.0.1:{}", quic.addr.port());
    let socks = Hop::parse(&format!("socks5h://{}", danted.addr)).unwrap();
    let connect = Hop::parse(&format!("http://{}", tiny.addr)).unwrap();
    let h3 = portolan_http3::hop::connect(&format!("https://localhost:{}", masque.addr.port())).unwrap();
    for (hop, peer, kind, queries) in [
        (socks, "danted 1.4", "socks5", vec![("dot", &dot), ("doh", &doh), ("doq", &doq)]),
        (connect, "tinyproxy", "http-connect", vec![("dot", &dot), ("doh", &doh)]),
        (h3, "aioquic", "connect-udp", vec![("doq", &doq)]),
    ] {
        let net = Connector::builder().tls(trusting(&certs)).hop_tls(trusting(&certs)).via(hop).build().unwrap();
        for (row, url) in queries {
            let names = client(&net, url).await;
            let answer = names.query("portolan.test", RecordType::Mx).await.unwrap();
            assert_eq!((answer.mx().count(), answer.info.connection.hops.len()), (2, 1), "{url} by {kind}");
            assert_eq!(names.query("big.portolan.test", RecordType::Txt).await.unwrap().txt().count(), 40);
            record(row, "hop", peer, kind, 2);
        }
    }
}

#[tokio::test]
async fn a_connector_resolves_all_its_names_over_encryption_and_fails_over() {
    let certs = Certs::new();
    let bind = peer!(servers::bind());
    let (secure, quic) = (peer!(servers::secure_bind(&certs)), peer!(servers::doq(&certs, &bind)));
    let nobody = format!("tls://localhost@127.0.0.1:{}", free_port());
    let tls = format!("tls://localhost@127.0.0.1:{}", secure.tls);
    let https = format!("https://localhost@127.0.0.1:{}", secure.https.unwrap());
    let quic = format!("quic://localhost@127.0.0.1:{}", quic.addr.port());
    let to = Endpoint::new("www.portolan.test", 80).unwrap();
    for servers in [vec![&tls], vec![&https], vec![&quic], vec![&nobody, &tls], vec![&nobody, &nobody, &quic]] {
        let resolver = dns::resolver(&net(&certs), &servers).unwrap();
        let net = Connector::builder().resolver(resolver).build().unwrap();
        let mut addrs: Vec<_> = net.resolve(&to).await.unwrap().iter().map(ToString::to_string).collect();
        addrs.sort();
        assert_eq!(addrs, ["192.0.2.10:80", "[2001:db8::10]:80"], "{servers:?}");
        let services = net.resolver().services("portolan.test").await;
        assert_eq!((services.len(), services[0].port), (1, Some(8443)));
        assert_eq!(net.resolver().texts("portolan.test").await.unwrap().records, [b"v=spf1 -allsecond string"]);
        assert!(net.resolver().texts("nobody.portolan.test").await.unwrap().records.is_empty());
        let error = net.resolve(&Endpoint::new("nobody.portolan.test", 80).unwrap()).await.unwrap_err();
        assert!(error.kind() == Kind::Resolve && error.message().contains("no such name"), "{error:?}");
    }
    // Strict: nobody else is asked, and the reason is told.
    let resolver = dns::resolver(&net(&certs), [&nobody]).unwrap();
    let error = Connector::builder().resolver(resolver).build().unwrap().resolve(&to).await.unwrap_err();
    assert!(error.kind() == Kind::Resolve && error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_servers_own_name_is_asked_of_others() {
    let certs = Certs::new();
    let plain = peer!(servers::bind());
    let secure = peer!(servers::secure_bind(&certs));
    // The server's name is known to another server, and to nobody else.
    let bootstrap = plain.client(|options| options).await;
    let net = Connector::builder().tls(trusting(&certs)).resolver(Resolver::new(bootstrap)).build().unwrap();
    let names = client(&net, &format!("tls://loopback.portolan.test:{}?dangerous=opportunistic", secure.tls)).await;
    assert_eq!(names.lookup_ip("portolan.test").await.unwrap().len(), 2);
    // One that cannot be found is not found by itself.
    let names = client(&net, &format!("tls://nobody.portolan.test:{}", secure.tls)).await;
    assert_eq!(names.lookup_ip("portolan.test").await.unwrap_err().kind(), Kind::Resolve);
}

#[tokio::test]
async fn a_channel_of_grpc_reads_its_service_config_out_of_dns() {
    let certs = Certs::new();
    let (plain, secure) = (peer!(servers::bind()), peer!(servers::secure_bind(&certs)));
    // Nobody answers there: what the config forbids is not even sent.
    let rogue = Rogue::tcp(Script::new().stall()).await;
    let url = format!("http://loopback.portolan.test:{}", rogue.addr().port());
    let method = Called::new("/shop.Stock/Count", Raw::protobuf()).unwrap();
    for server in [format!("udp://{}", plain.addr), format!("tls://localhost@127.0.0.1:{}", secure.tls)] {
        let resolver = dns::resolver(&net(&certs), [server]).unwrap();
        let net = Connector::builder().resolver(resolver).build().unwrap();
        for asks in [false, true] {
            let options = ChannelOptions::new();
            let options = if asks { options.service_config_from_dns("build-7") } else { options };
            let grpc = GrpcClient::from_channel(Channel::lazy(&net, &url, options).unwrap()).unwrap();
            let call = grpc.unary(&method, &Bytes::from_static(&[7; 100])).timeout(Duration::from_secs(1));
            let error = call.await.unwrap_err();
            assert_eq!(error.kind(), if asks { Kind::Usage } else { Kind::Timeout }, "{error:?}");
        }
    }
    record("grpc", "exchange", "BIND 9.18", "service config in TXT", 2);
}

#[tokio::test]
async fn a_file_says_who_resolves() {
    let certs = Certs::new();
    let (plain, secure) = (peer!(servers::bind()), peer!(servers::secure_bind(&certs)));
    let dir = portolan_testbed::folder("resolver");
    std::fs::write(dir.join("ca.pem"), &certs.ca).unwrap();
    let (ca, tls, https) = (dir.join("ca.pem").display().to_string(), secure.tls, secure.https.unwrap());
    let trust = format!("roots = 'custom'\nca = [{{ file = '{ca}' }}]");
    let to = Endpoint::new("www.portolan.test", 80).unwrap();
    for (text, outcome) in [
        (
            format!(
                "resolver = ['https://localhost@127.0.0.1:{https}', 'tls://localhost@127.0.0.1:{tls}']\n[tls]\n{trust}"
            ),
            None,
        ),
        (
            format!("resolver = 'tls://localhost@127.0.0.1:{tls}'\npolicy = 'public-only'\n[tls]\n{trust}"),
            Some(Kind::Blocked),
        ),
        (
            format!(
                "[resolver]\nservers = ['tls://localhost.portolan.test:{tls}?dangerous=opportunistic']\n\
                 bootstrap = ['udp://{}']\n[hosts]\n'localhost.portolan.test' = ['127.0.0.1']",
                plain.addr
            ),
            None,
        ),
        (format!("[resolver]\nservers = ['tls://localhost@127.0.0.1:{tls}']\n[resolver.tls]\n{trust}"), None),
        (format!("resolver = 'tls://localhost@127.0.0.1:{tls}'"), Some(Kind::Resolve)),
    ] {
        let net = portolan::connector_from_toml(&text).unwrap();
        let found = net.resolve(&to).await;
        assert_eq!(found.as_ref().map_or(2, Vec::len), 2, "{text}: {found:?}");
        // A server may be where targets may not; what it says may not.
        assert_eq!(found.err().map(|error| error.kind()), outcome, "{text}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}
