//! HTTPS through proxies, with HTTP/1.1 and HTTP/2 inside.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use http::Version as Spoken;
use portolan_core::Kind;
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
