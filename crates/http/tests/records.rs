//! HTTPS records: HTTP/3 at once, other hosts and ports, priorities, aliases, hints. The name service is scripted.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test fails by panicking")]

mod support;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Version as Spoken;
use portolan_core::resolve::failed;
use portolan_core::{
    Answer, BoxFuture, Connector, Hop, Kind, Policy, Resolve, ResolveFailure, Resolver, Result, Roots, ServiceRecord,
    Services, Tls, clock,
};
use portolan_http::{Client, ClientBuilder, Version};
use portolan_testbed::{Certs, Leaf, ServerTls};
use support::quic::{answers, serve};
use support::{Web, heads, reply};

/// A name service that says what it was told.
#[derive(Debug, Clone, Default)]
struct Zone {
    addrs: HashMap<&'static str, IpAddr>,
    services: HashMap<String, Vec<ServiceRecord>>,
    delay: Duration,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Zone {
    fn addr(mut self, name: &'static str, ip: &str) -> Self {
        self.addrs.insert(name, ip.parse().unwrap());
        self
    }

    fn service(mut self, name: impl Into<String>, record: ServiceRecord) -> Self {
        self.services.entry(name.into()).or_default().push(record);
        self
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn client(&self, certs: &Certs) -> ClientBuilder {
        Client::builder().connector(self.connector(certs).build().unwrap()).http3_head_start(Duration::from_secs(5))
    }

    fn connector(&self, certs: &Certs) -> portolan_core::ConnectorBuilder {
        let tls = Tls::builder().roots(Roots::Custom).root_pem(certs.ca.as_bytes()).build().unwrap();
        Connector::builder().tls(tls).resolver(Resolver::new(self.clone()))
    }
}

impl Resolve for Zone {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Answer>> {
        let found = self.addrs.get(name).map(|ip| Answer::new(vec![*ip], None));
        Box::pin(async move { found.ok_or_else(|| failed(name, ResolveFailure::NoSuchName)) })
    }

    fn finds_services(&self) -> bool {
        true
    }

    fn services<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Services>> {
        Box::pin(async move {
            self.asked.lock().unwrap().push(name.to_owned());
            clock::sleep(self.delay).await;
            let records = self.services.get(name).cloned().unwrap_or_default();
            Ok(Services::new(records, Some(Duration::from_secs(60))))
        })
    }
}

fn record(priority: u16, target: &str, alpn: &[&str], port: u16) -> ServiceRecord {
    let mut record = ServiceRecord::new(priority, target);
    record.alpn = alpn.iter().map(|name| (*name).to_owned()).collect();
    record.port = (port != 0).then_some(port);
    record
}

/// A server of `site.test`, which says its port.
async fn site(certs: &Certs) -> Web {
    let pem = certs.sign(&Leaf::server(["site.test"]));
    let tls = ServerTls::with(pem).alpn(["h2", "http/1.1"]);
    Web::with(tls, heads(|request| reply(200, request.uri().path().to_owned()))).await
}

async fn version(client: &Client, url: &str) -> Spoken {
    let response = client.get(url).send().await.unwrap();
    let version = response.version();
    response.bytes().await.unwrap();
    version
}

/// A port on which nobody listens.
fn dead() -> u16 {
    portolan_testbed::free_port()
}

#[tokio::test]
async fn a_first_request_goes_by_http3_where_a_record_says_so() {
    let certs = Certs::new();
    let web = site(&certs).await;
    let port = web.addr.port();
    let tls = ServerTls::with(certs.sign(&Leaf::server(["site.test"])));
    let (_, quic) = serve(tls, web.addr, answers);
    let name = format!("_{port}._https.site.test");
    let zone = Zone::default().addr("site.test", "127.0.0.1");
    let zone = zone.service(&name, record(1, "site.test", &["h3", "h2"], 0));
    let url = format!("https://site.test:{port}/");
    let client = zone.client(&certs).build().unwrap();
    for _ in 0..3 {
        assert_eq!(version(&client, &url).await, Spoken::HTTP_3);
    }
    assert_eq!((quic.load(Ordering::SeqCst), web.accepted()), (1, 0));
    // Kept as long as it holds.
    assert_eq!(zone.asked(), [name]);
    let off = zone.client(&certs).https_records(false).build().unwrap();
    assert_eq!(version(&off, &url).await, Spoken::HTTP_2);
    let old = zone.client(&certs).version(Version::Http1Only).build().unwrap();
    assert_eq!(version(&old, &url).await, Spoken::HTTP_11);
}

#[tokio::test]
async fn records_name_other_hosts_and_ports_and_the_certificate_stays_the_origins() {
    let certs = Certs::new();
    let web = site(&certs).await;
    let zone = || Zone::default().addr("svc.test", "127.0.0.1");
    // The usual port: the name itself is asked for. The origin has no address at all.
    let found = zone().service("site.test", record(1, "svc.test", &["h2"], web.addr.port()));
    let client = found.client(&certs).build().unwrap();
    let response = client.get("https://site.test/here").send().await.unwrap();
    assert_eq!(response.uri(), "https://site.test/here");
    assert_eq!(response.text().await.unwrap(), "/here");
    let other = zone().service("other.test", record(1, "svc.test", &["h2"], web.addr.port()));
    let client = other.addr("other.test", "127.0.0.1").client(&certs).build().unwrap();
    let error = client.get(format!("https://other.test:{}/", web.addr.port())).send().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Tls);
}

#[tokio::test]
async fn priorities_aliases_and_mandatory_keys_are_obeyed() {
    let certs = Certs::new();
    let web = site(&certs).await;
    let port = web.addr.port();
    let mut strange = record(1, "svc.test", &["h2"], dead());
    strange.mandatory = vec![65000];
    let mut senseless = record(2, "svc.test", &[], dead());
    senseless.no_default_alpn = true;
    let mut foreign = record(3, "svc.test", &["smtp"], dead());
    foreign.no_default_alpn = true;
    let zone = Zone::default()
        .addr("svc.test", "127.0.0.1")
        .service("site.test", record(0, "alias.test", &[], 0))
        // Of no account beside an alias.
        .service("site.test", record(1, "svc.test", &["h2"], dead()))
        .service("alias.test", record(0, "more.test", &[], 0))
        .service("more.test", record(9, "svc.test", &["h2"], port))
        .service("more.test", strange)
        .service("more.test", senseless)
        .service("more.test", foreign)
        // Tried before the one that serves, and not again.
        .service("more.test", record(4, "svc.test", &[], dead()));
    let client = zone.client(&certs).build().unwrap();
    for _ in 0..2 {
        assert_eq!(version(&client, "https://site.test/").await, Spoken::HTTP_2);
    }
    assert_eq!(web.accepted(), 1);
    // An alias whose name has no records is where the host is.
    let zone = Zone::default().addr("end.test", "127.0.0.1");
    let zone = zone.service(format!("_{port}._https.site.test"), record(0, "end.test", &[], 0));
    let client = zone.client(&certs).build().unwrap();
    assert_eq!(version(&client, &format!("https://site.test:{port}/")).await, Spoken::HTTP_2);
    // A circle of aliases, and one that says that there is nothing, leave it to the origin.
    let zone = Zone::default()
        .addr("site.test", "127.0.0.1")
        .service(format!("_{port}._https.site.test"), record(0, "round.test", &[], 0))
        .service("round.test", record(0, "round.test", &[], 0));
    let client = zone.client(&certs).build().unwrap();
    assert_eq!(version(&client, &format!("https://site.test:{port}/")).await, Spoken::HTTP_2);
    let zone = Zone::default().addr("site.test", "127.0.0.1");
    let zone = zone.service(format!("_{port}._https.site.test"), record(0, "", &[], 0));
    let client = zone.client(&certs).build().unwrap();
    assert_eq!(version(&client, &format!("https://site.test:{port}/")).await, Spoken::HTTP_2);
}

#[tokio::test]
async fn what_records_name_in_vain_leaves_it_to_the_origin() {
    let certs = Certs::new();
    let web = site(&certs).await;
    let port = web.addr.port();
    let mut only = record(1, "site.test", &["h3"], dead());
    only.no_default_alpn = true;
    let zone = Zone::default().addr("site.test", "127.0.0.1").service(format!("_{port}._https.site.test"), only);
    let client = zone.client(&certs).http3_head_start(Duration::from_millis(20)).build().unwrap();
    for _ in 0..3 {
        let response = client.get(format!("https://site.test:{port}/")).send().await.unwrap();
        assert_eq!((response.version(), response.attempts()), (Spoken::HTTP_2, 1));
    }
    let closed = Client::builder().version(Version::Http3Only);
    let closed = closed.connector(zone.connector(&certs).build().unwrap()).build().unwrap();
    let request = closed.get(format!("https://site.test:{port}/")).timeout(Duration::from_millis(500));
    assert!(matches!(request.send().await.unwrap_err().kind(), Kind::Timeout | Kind::Connect));
}

#[tokio::test]
async fn hints_serve_where_the_name_has_no_address_and_the_policy_sees_them() {
    let certs = Certs::new();
    let web = site(&certs).await;
    let mut hinted = record(1, "nowhere.test", &["h2"], web.addr.port());
    hinted.hints = vec!["127.0.0.1".parse().unwrap()];
    let zone = Zone::default().service("site.test", hinted);
    assert_eq!(version(&zone.client(&certs).build().unwrap(), "https://site.test/").await, Spoken::HTTP_2);
    let accepted = web.accepted();
    for policy in [Policy::public_only(), Policy::any().deny("127.0.0.0/8").unwrap()] {
        let net = zone.connector(&certs).policy(policy.clone()).build().unwrap();
        let client = Client::builder().connector(net).build().unwrap();
        assert_eq!(client.get("https://site.test/").send().await.unwrap_err().kind(), Kind::Blocked);
        let named = Zone::default().addr("svc.test", "127.0.0.1");
        let named = named.service("site.test", record(1, "svc.test", &["h2", "h3"], web.addr.port()));
        let net = named.connector(&certs).policy(policy).build().unwrap();
        let client = Client::builder().connector(net).build().unwrap();
        assert_eq!(client.get("https://site.test/").send().await.unwrap_err().kind(), Kind::Blocked);
    }
    assert_eq!(web.accepted(), accepted);
}

#[tokio::test]
async fn an_http_url_is_taken_to_https_where_the_host_has_records() {
    let certs = Certs::new();
    let web = site(&certs).await;
    let plain = Web::plain(heads(|_| reply(200, "plain"))).await;
    let zone = Zone::default()
        .addr("svc.test", "127.0.0.1")
        .addr("plain.test", "127.0.0.1")
        .service("site.test", record(1, "svc.test", &["h2"], web.addr.port()));
    let client = zone.client(&certs).build().unwrap();
    for url in ["http://site.test/a", "http://site.test:80/a"] {
        let response = client.get(url).send().await.unwrap();
        assert_eq!((response.uri().to_string().as_str(), response.version()), ("https://site.test/a", Spoken::HTTP_2));
    }
    let response = client.get(format!("http://plain.test:{}/", plain.addr.port())).send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "plain");
}

#[tokio::test]
async fn slow_records_hold_nobody_up_and_serve_the_next() {
    let certs = Certs::new();
    let web = site(&certs).await;
    let port = web.addr.port();
    let tls = ServerTls::with(certs.sign(&Leaf::server(["site.test"])));
    serve(tls, web.addr, answers);
    let mut zone = Zone::default().addr("site.test", "127.0.0.1");
    zone.delay = Duration::from_millis(800);
    let zone = zone.service(format!("_{port}._https.site.test"), record(1, "site.test", &["h3", "h2"], 0));
    let client = zone.client(&certs).build().unwrap();
    let url = format!("https://site.test:{port}/");
    assert_eq!(version(&client, &url).await, Spoken::HTTP_2);
    while version(&client, &url).await != Spoken::HTTP_3 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(zone.asked().len(), 1);
}

#[tokio::test]
async fn records_are_not_asked_for_where_a_hop_resolves() {
    let certs = Certs::new();
    let web = site(&certs).await;
    let (proxy, _) = support::connect_proxy(None, "HTTP/1.1 200 OK").await;
    let zone = Zone::default();
    let net = zone.connector(&certs).via(Hop::http(proxy.into())).build().unwrap();
    let client = Client::builder().connector(net).build().unwrap();
    // The name leads nowhere, and the proxy says so; what counts is who was asked.
    let _ = client.get(format!("https://site.test:{}/", web.addr.port())).send().await;
    let _ = client.get("https://127.0.0.1:9/").send().await;
    assert!(zone.asked().is_empty());
}
