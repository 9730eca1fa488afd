//! HTTPS through proxies, with HTTP/1.1 and HTTP/2 inside; plain HTTP in absolute form.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::{Arc, Mutex};

use http::Version as Spoken;
use portolan_core::{Connector, Hop, Kind, Policy};
use portolan_http::{Client, Version};
use portolan_testbed::Certs;
use support::{Web, connect_proxy, connector, heads, reply, socks5_proxy};

const GRANTED: &str = "HTTP/1.1 200 Connection established";

async fn site(certs: &Certs) -> Web {
    Web::tls(certs, &["h2", "http/1.1"], heads(|request| reply(200, format!("{:?}", request.version())))).await
}

/// Fetches through `hop` and says what the server saw; twice, over one connection.
async fn fetch(certs: &Certs, web: &Web, hop: String, version: Version) -> (Spoken, String) {
    let client = Client::builder().connector(connector(certs, &[hop])).version(version).build().unwrap();
    let mut last = None;
    for turn in 0..2 {
        let response = client.get(web.url("/")).send().await.unwrap();
        assert_eq!(response.is_reused(), turn > 0);
        assert_eq!(response.connection_info().hops.len(), 1);
        assert!(response.connection_info().tls.is_some());
        last = Some((response.version(), response.text().await.unwrap()));
    }
    assert_eq!(web.accepted(), 1);
    last.unwrap()
}

#[tokio::test]
async fn http_connect_proxy_tunnels_https_without_auth() {
    let certs = Certs::new();
    let web = site(&certs).await;
    let (proxy, heard) = connect_proxy(None, GRANTED).await;
    let (version, body) = fetch(&certs, &web, format!("http://{proxy}"), Version::Http1Only).await;
    assert_eq!((version, body.as_str()), (Spoken::HTTP_11, "HTTP/1.1"));
    let heard = heard.lock().unwrap().join("");
    let port = web.addr.port();
    assert!(heard.starts_with(&format!("CONNECT localhost:{port} HTTP/1.1\r\n")), "{heard}");
    assert_eq!(heard.matches("\r\n\r\n").count(), 1);
}

#[tokio::test]
async fn http_connect_proxy_tunnels_https_with_auth() {
    let certs = Certs::new();
    let web = site(&certs).await;
    let (proxy, _) = connect_proxy(Some(("joe", "secret")), "HTTP/2 200").await;
    let (version, _) = fetch(&certs, &web, format!("http://joe:secret@{proxy}"), Version::Http1Only).await;
    assert_eq!(version, Spoken::HTTP_11);
    let client = Client::builder().connector(connector(&certs, &[format!("http://joe:wrong@{proxy}")]));
    let error = client.build().unwrap().get(web.url("/")).send().await.unwrap_err();
    assert_eq!((error.kind(), error.hop()), (Kind::Auth, Some(0)));
    assert!(!format!("{error:?}").contains("wrong"));
}

#[tokio::test]
async fn http_connect_proxy_tunnels_https_over_http2() {
    let certs = Certs::new();
    for user in [None, Some(("joe", "secret"))] {
        let web = site(&certs).await;
        let (proxy, _) = connect_proxy(user, GRANTED).await;
        let login = if user.is_some() { "joe:secret@" } else { "" };
        let (version, body) = fetch(&certs, &web, format!("http://{login}{proxy}"), Version::Auto).await;
        assert_eq!((version, body.as_str()), (Spoken::HTTP_2, "HTTP/2.0"));
    }
}

#[tokio::test]
async fn socks5_proxy_tunnels_https_without_auth() {
    let certs = Certs::new();
    let web = site(&certs).await;
    let proxy = socks5_proxy(None).await;
    let (version, _) = fetch(&certs, &web, format!("socks5h://{proxy}"), Version::Http1Only).await;
    assert_eq!(version, Spoken::HTTP_11);
}

#[tokio::test]
async fn socks5_proxy_tunnels_https_with_auth() {
    let certs = Certs::new();
    let web = site(&certs).await;
    let proxy = socks5_proxy(Some(("joe", "secret"))).await;
    let (version, _) = fetch(&certs, &web, format!("socks5://joe:secret@{proxy}"), Version::Http1Only).await;
    assert_eq!(version, Spoken::HTTP_11);
    let client = Client::builder().connector(connector(&certs, &[format!("socks5://joe:wrong@{proxy}")]));
    let error = client.build().unwrap().get(web.url("/")).send().await.unwrap_err();
    assert_eq!((error.kind(), error.hop()), (Kind::Auth, Some(0)));
}

#[tokio::test]
async fn socks5_proxy_tunnels_https_over_http2() {
    let certs = Certs::new();
    for (user, login) in [(None, ""), (Some(("joe", "secret")), "joe:secret@")] {
        let web = site(&certs).await;
        let proxy = socks5_proxy(user).await;
        let (version, _) = fetch(&certs, &web, format!("socks5h://{login}{proxy}"), Version::Http2Only).await;
        assert_eq!(version, Spoken::HTTP_2);
    }
}

#[tokio::test]
async fn one_request_can_take_a_proxy_of_its_own() {
    let certs = Certs::new();
    let web = site(&certs).await;
    let (proxy, heard) = connect_proxy(None, GRANTED).await;
    let client = Client::builder().connector(connector(&certs, &[])).build().unwrap();
    client.get(web.url("/")).send().await.unwrap();
    assert!(heard.lock().unwrap().is_empty());
    let hop = portolan_core::Hop::parse(&format!("http://{proxy}")).unwrap();
    let response = client.get(web.url("/")).proxy(hop).send().await.unwrap();
    assert_eq!(response.connection_info().hops.len(), 1);
    assert_eq!(heard.lock().unwrap().len(), 1);
}

/// A proxy that forwards: it says what it was asked for, and refuses whoever is not joe, if joe it must be.
async fn forwarder(joe: bool) -> (Web, Arc<Mutex<Vec<String>>>) {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = heard.clone();
    let web = Web::plain(heads(move |request| {
        let field = |name: &str| request.headers().get(name).map_or("-", |value| value.to_str().unwrap()).to_owned();
        let login = field("proxy-authorization");
        log.lock().unwrap().push(format!("{} {} {login} {}", request.method(), request.uri(), field("x-hop")));
        if request.method() == http::Method::CONNECT {
            return reply(403, "no tunnels here");
        }
        if joe && login != "Basic am9lOnNlY3JldA==" {
            let mut refusal = reply(407, "who?");
            refusal.headers_mut().insert("proxy-authenticate", "Basic realm=x".parse().unwrap());
            return refusal;
        }
        reply(200, field("host"))
    }))
    .await;
    (web, heard)
}

fn through(hop: Hop) -> Client {
    Client::builder().connector(Connector::builder().via(hop).build().unwrap()).build().unwrap()
}

#[tokio::test]
async fn plain_http_goes_to_a_proxy_in_absolute_form_and_origins_share_its_connection() {
    let (proxy, heard) = forwarder(true).await;
    let hop = Hop::parse(&format!("http://joe:secret@{}", proxy.addr)).unwrap().header("x-hop", "1").unwrap();
    let client = through(hop);
    for (turn, host) in ["a.test", "b.test:8080", "a.test"].into_iter().enumerate() {
        let response = client.get(format!("http://ann:pw@{host}/path?q=1")).send().await.unwrap();
        assert_eq!(response.is_reused(), turn > 0);
        assert_eq!(response.connection_info().hops[0].authority, proxy.addr.to_string());
        assert_eq!(response.text().await.unwrap(), host);
    }
    let login = "Basic am9lOnNlY3JldA== 1";
    let asked = ["a.test", "b.test:8080", "a.test"].map(|host| format!("GET http://{host}/path?q=1 {login}"));
    assert_eq!(*heard.lock().unwrap(), asked);
    assert_eq!(proxy.accepted(), 1);
}

#[tokio::test]
async fn a_route_may_be_for_one_scheme_alone() {
    let (proxy, heard) = forwarder(false).await;
    let web = Web::plain(heads(|_| reply(200, "direct"))).await;
    let hop = Hop::http(proxy.addr.into());
    let route = portolan_core::Route::all().scheme("https").via([hop.clone()]);
    let net = Connector::builder().route(route).build().unwrap();
    let client = Client::builder().connector(net).build().unwrap();
    assert_eq!(client.get(web.url("/")).send().await.unwrap().text().await.unwrap(), "direct");
    let net = Connector::builder().route(portolan_core::Route::all().scheme("http").via([hop])).build().unwrap();
    let client = Client::builder().connector(net).build().unwrap();
    assert_eq!(client.get("http://a.test/").send().await.unwrap().text().await.unwrap(), "a.test");
    assert_eq!(heard.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_forwarding_proxy_that_wants_credentials_is_the_same_error_as_one_that_tunnels() {
    let (proxy, heard) = forwarder(true).await;
    for (login, says) in [("", "wants credentials"), ("joe:wrong@", "refused the credentials")] {
        let client = through(Hop::parse(&format!("http://{login}{}", proxy.addr)).unwrap());
        let error = client.get("http://a.test/").send().await.unwrap_err();
        assert_eq!((error.kind(), error.hop(), error.code()), (Kind::Auth, Some(0), Some(407)));
        assert!(error.message().contains(says) && error.message().ends_with("Basic"), "{error}");
        assert_eq!(error.endpoint().unwrap().authority(), "a.test:80");
    }
    assert_eq!(heard.lock().unwrap().len(), 2);
    // Who brings credentials for the request gets the answer itself.
    let client = through(Hop::http(proxy.addr.into()));
    let request = client.get("http://a.test/").header("proxy-authorization", "Basic am9lOnNlY3JldA==");
    assert_eq!(request.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn plain_http_asks_for_a_tunnel_where_it_must() {
    let (proxy, heard) = forwarder(false).await;
    let hop = Hop::http(proxy.addr.into());
    let fails = async |client: Client, change: fn(portolan_http::RequestBuilder) -> portolan_http::RequestBuilder| {
        let error = change(client.get("http://127.0.0.1:9/")).send().await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (Kind::Hop, Some(403)), "{error}");
    };
    fails(through(hop.clone().always_tunnel(true)), |request| request).await;
    fails(through(hop.clone()), |request| request.header("connection", "upgrade").header("upgrade", "x")).await;
    fails(through(hop.clone()), |request| request.version(Version::Http2Only)).await;
    assert!(heard.lock().unwrap().iter().all(|line| line.starts_with("CONNECT")));
    heard.lock().unwrap().clear();
    // Under a policy the address is checked here, and asked for: a forwarding proxy would look the name up once more.
    let policy = Policy::any().deny("10.0.0.0/8").unwrap();
    let net = Connector::builder().policy(policy.clone()).resolve("a.test", ["127.0.0.9".parse().unwrap()]);
    let client = Client::builder().connector(net.via(hop.clone()).build().unwrap()).build().unwrap();
    client.get("http://a.test/").send().await.unwrap_err();
    assert!(heard.lock().unwrap()[0].starts_with("CONNECT 127.0.0.9:80 "));
    heard.lock().unwrap().clear();
    let net = Connector::builder().policy(policy).trust_hop_resolution(true).via(hop).build().unwrap();
    let client = Client::builder().connector(net).build().unwrap();
    assert_eq!(client.get("http://10.1.2.3/").send().await.unwrap_err().kind(), Kind::Blocked);
    assert!(heard.lock().unwrap().is_empty());
    assert_eq!(client.get("http://a.test/").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_chain_that_fails_leaves_plain_http_to_the_next_proxy() {
    let (proxy, _) = forwarder(false).await;
    let closed = std::net::SocketAddr::from(([127, 0, 0, 1], portolan_testbed::free_port()));
    let net = Connector::builder().via(Hop::http(closed.into())).or_via([Hop::http(proxy.addr.into())]).build();
    let client = Client::builder().connector(net.unwrap()).build().unwrap();
    let response = client.get("http://a.test/").send().await.unwrap();
    assert_eq!(response.connection_info().hops[0].authority, proxy.addr.to_string());
}

#[tokio::test]
async fn a_forwarding_proxy_that_wants_more_than_basic_is_asked_for_a_tunnel() {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = asked.clone();
    let proxy = Web::plain(heads(move |request| {
        let login = request.headers().get("proxy-authorization").map_or("-", |value| value.to_str().unwrap());
        let scheme = login.split(' ').next().unwrap().to_owned();
        log.lock().unwrap().push(format!("{} {scheme}", request.method()));
        let mut refusal = reply(if scheme == "Digest" { 502 } else { 407 }, "");
        let challenge = "Digest realm=\"x\", nonce=\"1\", qop=\"auth\", algorithm=SHA-256";
        refusal.headers_mut().insert("proxy-authenticate", challenge.parse().unwrap());
        refusal
    }))
    .await;
    let client = through(Hop::parse(&format!("http://joe:secret@{}", proxy.addr)).unwrap());
    let error = client.get("http://a.test/").send().await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (Kind::Hop, Some(502)), "{error}");
    let asked = asked.lock().unwrap();
    assert_eq!(asked[0], "GET Basic");
    assert!(asked[1..].iter().all(|line| line.starts_with("CONNECT")));
    assert_eq!(asked.last().unwrap(), "CONNECT Digest");
}
