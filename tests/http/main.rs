//! The HTTP client against the servers that people run: nginx, apache2, caddy, h2o, nghttpd, node, haproxy.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cognitive_complexity,
    clippy::large_futures,
    clippy::print_stdout,
    reason = "tests fail by panicking, start processes and drive clients by hand"
)]

mod coalescing;
mod events;
mod examples;
mod har;
mod proxies;
mod records;
mod servers;
mod signatures;
mod signing;
mod storms;

use http::{StatusCode, Version as Spoken};
use portolan_core::Kind;
use portolan_http::{Client, Redirect, Version};
use portolan_testbed::{Certs, record};
use servers::{BIG, Site, big, connector};

/// What each server must do in each version that it speaks.
async fn everything(client: &Client, base: &str, spoken: Spoken, site: &Site) -> u64 {
    let url = |path: &str| format!("{base}{path}");
    let small = client.get(url("/small.txt")).send().await.unwrap();
    assert_eq!((small.status(), small.version()), (StatusCode::OK, spoken), "{}", site.name);
    assert_eq!(small.text().await.unwrap(), "sixteen bytes ok");
    let head = client.head(url("/small.txt")).send().await.unwrap();
    assert!(head.is_reused(), "{}", site.name);
    assert!(head.bytes().await.unwrap().is_empty());
    let missing = client.get(url("/nowhere")).send().await.unwrap();
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);
    assert_eq!(missing.error_for_status().unwrap_err().kind(), Kind::Server);
    let body = client.get(url("/big.bin")).send().await.unwrap().bytes().await.unwrap();
    assert!(body == big(), "{}: {} bytes", site.name, body.len());
    let part = client.get(url("/big.bin")).header("range", "bytes=10-19").send().await.unwrap();
    if part.status() == StatusCode::PARTIAL_CONTENT {
        assert_eq!(part.bytes().await.unwrap(), &big()[10..20]);
    }
    let long = client.get(url("/long.txt")).send().await.unwrap();
    let text = long.text().await.unwrap();
    assert_eq!(text.len(), 60_000, "{}", site.name);
    if site.name != "nghttpd" {
        let moved = client.get(url("/moved")).redirect(Redirect::none()).send().await.unwrap();
        assert_eq!(moved.status(), StatusCode::MOVED_PERMANENTLY);
        let moved = client.get(url("/moved")).send().await.unwrap();
        assert_eq!((moved.redirects().len(), moved.text().await.unwrap().as_str()), (1, "sixteen bytes ok"));
    }
    // Taken or not wanted: the answer comes either way, and the client goes on.
    let posted = client.post(url("/small.txt")).body(vec![b'x'; 100_000]).expect_continue().send().await.unwrap();
    assert!(matches!(posted.status().as_u16(), 200 | 404 | 405), "{}: {}", site.name, posted.status());
    posted.bytes().await.unwrap();
    // Dropped in the middle of a body: the client goes on.
    let mut dropped = client.get(url("/big.bin")).send().await.unwrap();
    assert!(dropped.chunk().await.unwrap().is_some());
    drop(dropped);
    let many = (0..100).map(|_| async { client.get(url("/small.txt")).send().await.unwrap().bytes().await.unwrap() });
    let many = futures_util::future::join_all(many).await;
    assert!(many.iter().all(|body| body == "sixteen bytes ok"));
    112
}

async fn check(site: &Site, certs: &Certs) {
    let connector = connector(certs);
    let client =
        |version| Client::builder().connector(connector.clone()).version(version).alt_svc(None).build().unwrap();
    if let Some(port) = site.plain {
        let client = client(Version::Http1Only);
        let count = everything(&client, &format!("http://localhost:{port}"), Spoken::HTTP_11, site).await;
        record("http1", "peer", &site.version, "cleartext", count);
        if site.gzip {
            let plain = client.get(format!("http://localhost:{port}/long.txt")).header("accept-encoding", "gzip");
            assert_eq!(plain.send().await.unwrap().headers()["content-encoding"], "gzip", "{}", site.name);
        }
    }
    if let Some(port) = site.plain {
        let client = client(Version::PreferHttp2);
        let spoken = if site.h2c == site.plain { Spoken::HTTP_2 } else { Spoken::HTTP_11 };
        for turn in 0..2 {
            let response = client.post(format!("http://localhost:{port}/small.txt")).body("x").send().await.unwrap();
            // haproxy and Caddy know HTTP/2 when they see it.
            let knows = matches!(site.name, "haproxy" | "caddy") && response.version() == Spoken::HTTP_2;
            assert!(knows || response.version() == spoken, "{}: {:?}", site.name, response.version());
            assert_eq!(response.is_reused(), turn > 0, "{}", site.name);
            response.bytes().await.unwrap();
        }
    }
    if let Some(port) = site.h2c {
        let count =
            everything(&client(Version::Http2Only), &format!("http://localhost:{port}"), Spoken::HTTP_2, site).await;
        record("http2", "peer", &site.version, "cleartext, prior knowledge", count);
    }
    if let Some(port) = site.tls {
        let base = format!("https://localhost:{port}");
        let count = everything(&client(Version::Auto), &base, Spoken::HTTP_2, site).await;
        record("http2", "peer", &site.version, "TLS", count);
        if site.name != "nghttpd" {
            let count = everything(&client(Version::Http1Only), &base, Spoken::HTTP_11, site).await;
            record("http1", "peer", &site.version, "TLS", count);
        }
        if site.quic.is_some() {
            let count = everything(&client(Version::Http3Only), &base, Spoken::HTTP_3, site).await;
            record("http3", "peer", &site.version, "QUIC", count);
        }
        if site.quic.is_some() {
            let client = Client::builder().connector(connector.clone()).build().unwrap();
            let mut seen = Vec::new();
            for _ in 0..3 {
                let response = client.get(format!("{base}/small.txt")).send().await.unwrap();
                seen.push(response.version());
                assert_eq!(response.text().await.unwrap(), "sixteen bytes ok");
            }
            assert_eq!(seen, [Spoken::HTTP_2, Spoken::HTTP_3, Spoken::HTTP_3], "{}", site.name);
        }
        let stranger = Client::new();
        let error = stranger.get(&base).send().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Tls, "{}: {error}", site.name);
    }
}

macro_rules! servers {
    ($($name:ident)*) => {$(
        #[tokio::test]
        async fn $name() {
            let certs = Certs::new();
            let Some(site) = servers::$name(&certs) else { return };
            check(&site, &certs).await;
        }
    )*};
}
servers!(nginx apache caddy h2o nghttpd node);

#[tokio::test]
async fn haproxy() {
    let certs = Certs::new();
    let Some(nginx) = servers::nginx(&certs) else { return };
    let Some(site) = servers::haproxy(&certs, &nginx) else { return };
    check(&site, &certs).await;
}

#[tokio::test]
async fn nginx_asks_for_a_password_takes_an_upload_and_closes() {
    let certs = Certs::new();
    let Some(site) = servers::nginx(&certs) else { return };
    let client = Client::builder().connector(connector(&certs)).build().unwrap();
    for base in
        [format!("http://localhost:{}", site.plain.unwrap()), format!("https://localhost:{}", site.tls.unwrap())]
    {
        let basic = format!("{base}/basic");
        assert_eq!(client.get(&basic).send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
        let known = client.get(&basic).basic_auth("joe", "secret").send().await.unwrap();
        assert_eq!(known.text().await.unwrap(), "sixteen bytes ok");
        let error = client.get(format!("{base}/broken")).send().await.unwrap().error_for_status().unwrap_err();
        assert_eq!(error.code(), Some(500));
        for _ in 0..3 {
            let once = client.get(format!("{base}/once")).send().await.unwrap();
            assert_eq!(once.bytes().await.unwrap(), "sixteen bytes ok");
        }
        // A stream of unknown length, with and without the server's leave.
        for expect in [false, true] {
            let chunks = (0..48).map(|n| Ok::<_, std::io::Error>(vec![n as u8; 65_536]));
            let body = portolan_http::Body::from_stream(futures_util::stream::iter(chunks));
            let mut request = client.put(format!("{base}/upload")).body(body);
            if expect {
                request = request.expect_continue();
            }
            let stored = request.send().await.unwrap();
            // This nginx may come without its DAV module: it then refuses the method, having read the body.
            assert!(matches!(stored.status().as_u16(), 201 | 204 | 405), "{}", stored.status());
        }
    }
    assert_eq!(BIG, big().len());
}

#[tokio::test]
async fn a_redirect_of_nginx_that_is_kept_is_followed_without_it() {
    let certs = Certs::new();
    let Some(site) = servers::nginx(&certs) else { return };
    let cache = portolan_http::cache::Cache::new();
    let client = Client::builder().connector(connector(&certs)).cache(cache).build().unwrap();
    let bases =
        [format!("http://localhost:{}", site.plain.unwrap()), format!("https://localhost:{}", site.tls.unwrap())];
    let get = async |base: &str| {
        let response = client.get(format!("{base}/kept")).send().await.unwrap();
        assert_eq!((response.uri().path(), response.redirects().len()), ("/fresh", 1));
        assert_eq!(response.text().await.unwrap(), "sixteen bytes ok");
    };
    for base in &bases {
        get(base).await;
    }
    drop(site);
    for base in &bases {
        get(base).await;
    }
    assert!(client.get(format!("{}/small.txt", bases[0])).send().await.is_err(), "nobody is there");
}
