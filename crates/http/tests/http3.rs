//! HTTP/3 through the client: reuse, GOAWAY, closes, fallback. The server is the h3 crate's.

#![allow(clippy::disallowed_methods, clippy::large_futures, clippy::unwrap_used, reason = "a test plays the server")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{Response, Version as Spoken};
use portolan_core::{Delivery, Error, Kind};
use portolan_http::alt_svc::AltSvcCache;
use portolan_http::{Body, Client, ClientBuilder, Version};
use portolan_testbed::{Certs, ServerTls};
use support::quic::{ANY, answer, answers, next, serve};
use support::{Web, connector, heads, reply};

fn builder(certs: &Certs) -> ClientBuilder {
    Client::builder().connector(connector(certs, &[])).version(Version::Http3Only)
}

async fn get(client: &Client, url: &str) -> portolan_core::Result<(bool, u32)> {
    let response = client.get(url).send().await?;
    assert_eq!(response.version(), Spoken::HTTP_3);
    let facts = (response.is_reused(), response.attempts());
    assert_eq!(response.bytes().await?, "ok");
    Ok(facts)
}

/// Waits until the pool holds no idle connection.
async fn emptied(client: &Client) {
    let wait = async {
        while client.metrics().idle > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("the pool lets go of it");
}

#[tokio::test]
async fn one_http3_connection_serves_many() {
    let certs = Certs::new();
    let (addr, connections) = serve(ServerTls::new(&certs), ANY, answers);
    let client = builder(&certs).build().unwrap();
    let url = format!("https://localhost:{}/", addr.port());
    for turn in 0..3 {
        assert_eq!(get(&client, &url).await.unwrap(), (turn > 0, 1));
    }
    let response = client.get(&url).send().await.unwrap();
    let tls = response.connection_info().tls.clone().unwrap();
    assert_eq!(tls.alpn.as_deref(), Some(&b"h3"[..]));
    drop(response);
    let many = futures_util::future::join_all((0..50).map(|_| get(&client, &url))).await;
    assert!(many.into_iter().all(|facts| facts.is_ok()));
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn retries_http3_request_after_goaway_on_reused_connection() {
    let certs = Certs::new();
    let (addr, connections) = serve(ServerTls::new(&certs), ANY, |number, quic, mut server| async move {
        if number > 0 {
            return answers(number, quic, server).await;
        }
        let Some(stream) = next(&mut server).await else { return };
        answer(stream).await;
        // The second request arrives, and is told that it was not processed.
        let Ok(Some(refused)) = server.accept().await else { return };
        let _ = server.shutdown(0).await;
        drop(refused);
        let _ = server.accept().await;
        quic.closed().await;
    });
    let client = builder(&certs).build().unwrap();
    let url = format!("https://localhost:{}/", addr.port());
    assert_eq!(get(&client, &url).await.unwrap(), (false, 1));
    assert_eq!(get(&client, &url).await.unwrap(), (false, 2));
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn retries_http3_request_after_peer_closes_reused_connection_before_response() {
    let certs = Certs::new();
    let (addr, connections) = serve(ServerTls::new(&certs), ANY, |number, quic, mut server| async move {
        if number > 0 {
            return answers(number, quic, server).await;
        }
        let Some(stream) = next(&mut server).await else { return };
        answer(stream).await;
        let _second = next(&mut server).await;
        quic.close(0x100u32.into(), b"gone");
    });
    let client = builder(&certs).build().unwrap();
    let url = format!("https://localhost:{}/", addr.port());
    assert_eq!(get(&client, &url).await.unwrap(), (false, 1));
    assert_eq!(get(&client, &url).await.unwrap(), (false, 2));
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn opens_new_http3_connection_after_idle_peer_close() {
    let certs = Certs::new();
    let (addr, connections) = serve(ServerTls::new(&certs), ANY, |_, quic, mut server| async move {
        let Some(stream) = next(&mut server).await else { return };
        answer(stream).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        quic.close(0x100u32.into(), b"idle");
    });
    let client = builder(&certs).build().unwrap();
    let url = format!("https://localhost:{}/", addr.port());
    for _ in 0..3 {
        assert_eq!(get(&client, &url).await.unwrap(), (false, 1));
        emptied(&client).await;
    }
    assert_eq!(connections.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn does_not_retry_http3_request_after_response_headers_have_started() {
    let certs = Certs::new();
    let (addr, connections) = serve(ServerTls::new(&certs), ANY, |_, quic, mut server| async move {
        let Some(mut stream) = next(&mut server).await else { return };
        let _ = stream.send_response(Response::new(())).await;
        let _ = stream.send_data(Bytes::from_static(b"half")).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        quic.close(0x102u32.into(), b"broken");
    });
    let client = builder(&certs).build().unwrap();
    let url = format!("https://localhost:{}/", addr.port());
    let error = client.get(&url).send().await.unwrap().bytes().await.unwrap_err();
    assert_eq!(error.delivery(), Delivery::Answered);
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn evicts_idle_http3_goaway_connection_before_reusing_pool_slot() {
    let certs = Certs::new();
    let (addr, connections) = serve(ServerTls::new(&certs), ANY, |_, quic, mut server| async move {
        let Some(stream) = next(&mut server).await else { return };
        answer(stream).await;
        let _ = server.shutdown(1).await;
        // It stays open: only the GOAWAY says that it is of no more use.
        quic.closed().await;
    });
    let client = builder(&certs).max_connections_per_host(1).max_idle_per_host(1).build().unwrap();
    let url = format!("https://localhost:{}/", addr.port());
    for turn in 1..=3 {
        assert_eq!(get(&client, &url).await.unwrap(), (false, 1));
        assert_eq!(connections.load(Ordering::SeqCst), turn);
        emptied(&client).await;
    }
}

#[tokio::test]
async fn request_body_stream_error_fails_only_the_failed_http3_stream() {
    let certs = Certs::new();
    let (addr, connections) = serve(ServerTls::new(&certs), ANY, |_, _, mut server| async move {
        while let Some(mut stream) = next(&mut server).await {
            tokio::spawn(async move {
                while let Ok(Some(data)) = stream.recv_data().await {
                    assert!(data.has_remaining());
                }
                answer(stream).await;
            });
        }
    });
    let client = builder(&certs).build().unwrap();
    let url = format!("https://localhost:{}/", addr.port());
    assert_eq!(get(&client, &url).await.unwrap(), (false, 1));
    let pieces = [Ok(Bytes::from_static(b"some")), Err(std::io::Error::other("the disk is gone"))];
    let body = Body::from_stream(futures_util::stream::iter(pieces));
    let error = client.post(&url).body(body).send().await.unwrap_err();
    let mut source = std::error::Error::source(&error);
    while let Some(inner) = source.and_then(std::error::Error::source) {
        source = Some(inner);
    }
    assert_eq!(source.map(ToString::to_string).as_deref(), Some("the disk is gone"), "{error:?}");
    assert_eq!(get(&client, &url).await.unwrap(), (true, 1));
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

/// HTTP/1.1 and 2 over TCP and HTTP/3 over UDP at one port, and what TCP says of UDP.
async fn both(certs: &Certs) -> (Web, Arc<AtomicUsize>) {
    let says = Arc::new(std::sync::OnceLock::<String>::new());
    let heard = says.clone();
    let web = Web::tls(
        certs,
        &["h2", "http/1.1"],
        heads(move |_| {
            let mut response = reply(200, "ok");
            if let Some(says) = heard.get() {
                response.headers_mut().insert("alt-svc", says.parse().unwrap());
            }
            response
        }),
    )
    .await;
    let (quic, connections) = serve(ServerTls::new(certs), ANY, answers);
    says.set(format!("h3=\":{}\"; ma=600", quic.port())).unwrap();
    (web, connections)
}

#[tokio::test]
async fn an_alternative_that_a_server_names_is_taken_up() {
    let certs = Certs::new();
    let (web, quic) = both(&certs).await;
    let memory = AltSvcCache::new();
    let client = builder(&certs).version(Version::Auto).alt_svc(memory.clone()).build().unwrap();
    let first = client.get(web.url("/")).send().await.unwrap();
    assert_eq!(first.version(), Spoken::HTTP_2);
    first.bytes().await.unwrap();
    for _ in 0..3 {
        let next = client.get(web.url("/")).send().await.unwrap();
        assert_eq!(next.version(), Spoken::HTTP_3);
        assert_eq!(next.bytes().await.unwrap(), "ok");
    }
    assert_eq!(quic.load(Ordering::SeqCst), 1);
    let deaf = builder(&certs).version(Version::Auto).alt_svc(None).build().unwrap();
    for _ in 0..2 {
        assert_eq!(deaf.get(web.url("/")).send().await.unwrap().version(), Spoken::HTTP_2);
    }
}

/// However little head start it is given: it is there already.
#[tokio::test]
async fn an_http3_connection_that_was_idle_is_used_before_any_other_is_asked() {
    let certs = Certs::new();
    let (addr, _) = serve(ServerTls::new(&certs), ANY, answers);
    let web = Web::tls(&certs, &["h2"], heads(|_| reply(200, "ok"))).await;
    let memory = AltSvcCache::new();
    let client = builder(&certs).version(Version::Auto).alt_svc(memory.clone()).http3_head_start(Duration::ZERO);
    let client = client.build().unwrap();
    client.get(web.url("/")).send().await.unwrap().bytes().await.unwrap();
    memory.record_text(&web.url("/").parse().unwrap(), &format!("h3=\":{}\"", addr.port()));
    // HTTP/2 is there; HTTP/3 comes too late for this one, and is kept.
    client.get(web.url("/")).send().await.unwrap().bytes().await.unwrap();
    let both = async {
        while client.metrics().idle < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), both).await.expect("both are kept");
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let response = client.get(web.url("/")).send().await.unwrap();
        assert_eq!((response.version(), response.is_reused()), (Spoken::HTTP_3, true));
        response.bytes().await.unwrap();
    }
}

#[tokio::test]
async fn an_alternative_that_is_broken_is_left_alone() {
    let certs = Certs::new();
    let web = Web::tls(
        &certs,
        &["h2"],
        heads(|_| {
            let mut response = reply(200, "ok");
            // Nobody is there (RFC 863's port, on the loopback).
            response.headers_mut().insert("alt-svc", "h3=\":9\"; ma=600".parse().unwrap());
            response
        }),
    )
    .await;
    let client = builder(&certs).version(Version::Auto).http3_head_start(Duration::from_millis(20)).build().unwrap();
    for _ in 0..4 {
        let response = client.get(web.url("/")).send().await.unwrap();
        assert_eq!((response.version(), response.attempts()), (Spoken::HTTP_2, 1));
        response.bytes().await.unwrap();
    }
    assert_eq!(web.accepted(), 1);
}

#[tokio::test]
async fn preferring_http3_falls_back_where_the_way_fails_and_only_there() {
    let certs = Certs::new();
    let web = Web::tls(&certs, &["h2"], heads(|_| reply(200, "ok"))).await;
    let prefer = || builder(&certs).version(Version::PreferHttp3).http3_head_start(Duration::from_millis(20));
    let client = prefer().build().unwrap();
    for _ in 0..3 {
        assert_eq!(client.get(web.url("/")).send().await.unwrap().version(), Spoken::HTTP_2);
    }
    // The same port by UDP: now it is there.
    let (_, quic) = serve(ServerTls::new(&certs), SocketAddr::new(ANY.ip(), web.addr.port()), answers);
    let client = prefer().http3_head_start(Duration::from_secs(5)).build().unwrap();
    let response = client.get(web.url("/")).send().await.unwrap();
    assert_eq!(response.version(), Spoken::HTTP_3);
    assert_eq!(quic.load(Ordering::SeqCst), 1);
    let only = builder(&certs).build().unwrap();
    let silent = Web::tls(&certs, &["h2"], heads(|_| reply(200, "ok"))).await;
    let timeouts = portolan_core::Timeouts::default();
    let error: Error =
        only.get(silent.url("/")).timeouts(timeouts).timeout(Duration::from_millis(500)).send().await.unwrap_err();
    assert!(matches!(error.kind(), Kind::Timeout | Kind::Connect), "{error}");
}

#[tokio::test]
async fn an_alternative_that_is_not_the_origins_is_forgotten() {
    let certs = Certs::new();
    let (web, _) = both(&certs).await;
    let (wrong, quic) = serve(ServerTls::new(&certs), ANY, |_, _, mut server| async move {
        while let Some(mut stream) = next(&mut server).await {
            let _ = stream.send_response(Response::builder().status(421).body(()).unwrap()).await;
            let _ = stream.finish().await;
        }
    });
    let memory = AltSvcCache::new();
    memory.record_text(&web.url("/").parse().unwrap(), &format!("h3=\":{}\"", wrong.port()));
    let client = builder(&certs).version(Version::Auto).alt_svc(memory.clone()).build().unwrap();
    let response = client.post(web.url("/")).body("x").send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.version(), response.attempts()), (200, Spoken::HTTP_2, 1));
    assert_eq!(quic.load(Ordering::SeqCst), 1);
    let known = memory.lookup(&web.url("/").parse().unwrap(), "h3");
    assert!(known.is_none_or(|service| service.port != wrong.port()));
}

#[tokio::test]
async fn who_is_not_the_one_for_an_origin_cannot_name_another_either() {
    let certs = Certs::new();
    let (quic, connections) = serve(ServerTls::new(&certs), ANY, answers);
    let web = Web::tls(
        &certs,
        &["h2"],
        heads(move |request| {
            let status = if request.uri().path() == "/wrong" { 421 } else { 404 };
            let mut response = reply(status, "");
            response.headers_mut().insert("alt-svc", format!("h3=\":{}\"", quic.port()).parse().unwrap());
            response
        }),
    )
    .await;
    let memory = AltSvcCache::new();
    let client = builder(&certs).version(Version::Auto).alt_svc(memory.clone()).build().unwrap();
    for _ in 0..2 {
        let response = client.get(web.url("/wrong")).send().await.unwrap();
        assert_eq!((response.status().as_u16(), response.version()), (421, Spoken::HTTP_2));
    }
    assert_eq!((memory.to_text().as_str(), connections.load(Ordering::SeqCst)), ("", 0));
    // Any other answer may.
    client.get(web.url("/missing")).send().await.unwrap();
    assert_eq!(client.get(web.url("/missing")).send().await.unwrap().version(), Spoken::HTTP_3);
}

#[tokio::test]
async fn a_body_that_was_begun_to_be_sent_is_never_sent_empty_by_another_version() {
    let certs = Certs::new();
    let (quic, _) = serve(ServerTls::new(&certs), ANY, |_, _, mut server| async move {
        while let Some(mut stream) = next(&mut server).await {
            // Something of it has come, and nothing was done with it.
            let _ = stream.recv_data().await;
            stream.stop_sending(h3::error::Code::H3_REQUEST_REJECTED);
            stream.stop_stream(h3::error::Code::H3_REQUEST_REJECTED);
        }
    });
    let bodies = Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = bodies.clone();
    let web = Web::tls(
        &certs,
        &["h2"],
        Arc::new(move |request| {
            let heard = heard.clone();
            Box::pin(async move {
                let body = http_body_util::BodyExt::collect(request.into_body()).await.unwrap().to_bytes();
                heard.lock().unwrap().push(body.len());
                reply(200, "ok")
            })
        }),
    )
    .await;
    let memory = AltSvcCache::new();
    let client = builder(&certs).version(Version::Auto).alt_svc(memory.clone()).build().unwrap();
    let post = |body: Body| {
        memory.record_text(&web.url("/").parse().unwrap(), &format!("h3=\":{}\"", quic.port()));
        client.post(web.url("/")).body(body).send()
    };
    let pieces = futures_util::stream::iter((0..20).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 50_000])));
    let error = post(Body::from_stream(pieces)).await.unwrap_err();
    assert_eq!((error.delivery(), bodies.lock().unwrap().len()), (Delivery::Refused, 0), "{error}");
    // One that can be had again is sent whole.
    assert_eq!(post(Body::from(vec![b'x'; 1_000_000])).await.unwrap().version(), Spoken::HTTP_2);
    assert_eq!(*bodies.lock().unwrap(), [1_000_000]);
}

#[tokio::test]
async fn a_way_that_was_broken_is_not_tried_again_for_a_while() {
    let certs = Certs::new();
    let silent = tokio::net::UdpSocket::bind(ANY).await.unwrap();
    let web = Web::tls(&certs, &["h2"], heads(|_| reply(200, "ok"))).await;
    let timeouts = portolan_core::Timeouts::default().connect(Duration::from_millis(200));
    let net = connector(&certs, &[]).to_builder().timeouts(timeouts).build().unwrap();
    let memory = AltSvcCache::new();
    let uri = web.url("/").parse().unwrap();
    memory.record_text(&uri, &format!("h3=\":{}\"; ma=600", silent.local_addr().unwrap().port()));
    let client = Client::builder().connector(net).alt_svc(memory.clone());
    let client = client.http3_head_start(Duration::from_millis(20)).build().unwrap();
    let get = async || {
        let response = client.get(web.url("/")).send().await.unwrap();
        assert_eq!((response.version(), response.attempts()), (Spoken::HTTP_2, 1));
        response.bytes().await.unwrap();
    };
    get().await;
    // It was tried, and goes on being so beside what was answered: then it is known to be broken.
    let broken = async {
        while memory.lookup(&uri, "h3").is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), broken).await.expect("the attempt ends");
    let mut packet = [0; 2048];
    let mut heard = 0;
    while silent.try_recv(&mut packet).is_ok() {
        heard += 1;
    }
    assert!(heard > 0);
    for _ in 0..5 {
        get().await;
    }
    assert!(silent.try_recv(&mut packet).is_err(), "it was tried again");
    // What is kept tells of it still, for when its time is over.
    assert!(memory.to_text().contains(" h3 "));
}

#[tokio::test]
async fn informational_responses_are_told() {
    let certs = Certs::new();
    let (addr, _) = serve(ServerTls::new(&certs), ANY, |_, _, mut server| async move {
        while let Some(mut stream) = next(&mut server).await {
            for link in ["</a.css>", "</b.css>"] {
                let hint = Response::builder().status(103).header("link", link).body(()).unwrap();
                let _ = stream.send_response(hint).await;
            }
            answer(stream).await;
        }
    });
    let hints: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
    let told = hints.clone();
    let client = builder(&certs).build().unwrap();
    let request = client.get(format!("https://localhost:{}/", addr.port())).on_informational(move |hint| {
        told.lock().unwrap().push(format!("{} {}", hint.status().as_u16(), hint.headers()["link"].to_str().unwrap()));
    });
    assert_eq!(request.send().await.unwrap().bytes().await.unwrap(), "ok");
    assert_eq!(*hints.lock().unwrap(), ["103 </a.css>", "103 </b.css>"]);
}
