//! The client against servers in this process: corners where one rule meets another.

#![allow(
    clippy::disallowed_methods,
    clippy::large_futures,
    clippy::unwrap_used,
    reason = "a test plays the server, and drives the client by hand"
)]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use portolan_core::{Kind, Phase, Pin, Roots, Tls};
use portolan_http::cache::{Cache, FromCache};
use portolan_http::{Body, Client, Middleware, Next, Redirect, Request, Response, Version};
use portolan_testbed::rogue::{Rogue, Script};
use portolan_testbed::{Certs, Leaf, ServerTls};
use support::{Handler, Reply, Web, connector, heads, reply};

fn with(mut reply: Reply, fields: &[(&'static str, &str)]) -> Reply {
    for (name, value) in fields {
        reply.headers_mut().append(*name, HeaderValue::from_str(value).unwrap());
    }
    reply
}

async fn text(response: Response) -> String {
    response.text().await.unwrap()
}

#[tokio::test]
async fn digest_credentials_stay_with_their_origin() {
    let challenge = [("www-authenticate", "Digest realm=\"r\", nonce=\"abc\", qop=\"auth\", algorithm=SHA-256")];
    let thief = Web::plain(heads(move |request| match request.headers().get(AUTHORIZATION) {
        Some(answer) => reply(200, answer.to_str().unwrap().to_owned()),
        None => with(reply(401, "nothing"), &challenge),
    }))
    .await;
    let away = thief.url("/x");
    let web = Web::plain(heads(move |request| match request.uri().path() {
        "/near" => with(reply(302, ""), &[("location", "/end")]),
        "/end" if request.headers().contains_key(AUTHORIZATION) => reply(200, "known"),
        "/end" => with(reply(401, ""), &challenge),
        _ => with(reply(302, ""), &[("location", &away)]),
    }))
    .await;
    let client = Client::new();
    let near = client.get(web.url("/near")).digest_auth("joe", "pw").send().await.unwrap();
    assert_eq!(text(near).await, "known");
    let away = client.get(web.url("/away")).digest_auth("joe", "pw").send().await.unwrap();
    assert_eq!((away.status(), text(away).await.as_str()), (StatusCode::UNAUTHORIZED, "nothing"));
}

#[tokio::test]
async fn a_body_that_is_gone_is_never_sent_empty_to_where_a_redirect_leads() {
    let web = Web::plain(Arc::new(|request| {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            match parts.uri.path() {
                "/end" => reply(200, format!("{} {}", parts.method, body.len())),
                status => with(reply(status[1..].parse().unwrap(), ""), &[("location", "/end")]),
            }
        })
    }))
    .await;
    let client = Client::new();
    let stream = || Body::from_stream(futures_util::stream::iter([Ok::<_, std::io::Error>("once")]));
    for (method, status) in [(Method::PUT, 301), (Method::PUT, 302), (Method::PATCH, 302), (Method::POST, 307)] {
        let url = web.url(&format!("/{status}"));
        let response = client.request(method.clone(), &url).body(stream()).send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{method}");
        let response = client.request(method.clone(), &url).body("once").send().await.unwrap();
        assert_eq!(text(response).await, format!("{method} 4"));
    }
    let kept = client.post(web.url("/302")).redirect(Redirect::default().keep_post(true)).body(stream());
    assert_eq!(kept.send().await.unwrap().status(), StatusCode::FOUND);
    let dropped = client.post(web.url("/302")).body(stream()).send().await.unwrap();
    assert_eq!(text(dropped).await, "GET 0");
}

#[tokio::test]
async fn what_a_redirect_led_to_is_not_kept_for_where_it_began() {
    let moved = Arc::new(AtomicUsize::new(0));
    let count = moved.clone();
    let web = Web::plain(heads(move |request| {
        let conditional = request.headers().contains_key("if-modified-since");
        match request.uri().path() {
            "/turns" if count.fetch_add(1, Ordering::SeqCst) == 0 => with(
                reply(200, "old"),
                &[("cache-control", "no-cache"), ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")],
            ),
            "/old" if conditional => reply(304, ""),
            "/old" => with(reply(200, "another"), &[("last-modified", "Sun, 06 Nov 1993 08:49:37 GMT")]),
            "/turns" => with(reply(302, ""), &[("location", "/old")]),
            "/login" => with(reply(302, ""), &[("location", "/page")]),
            _ => with(reply(200, "page"), &[("cache-control", "max-age=600")]),
        }
    }))
    .await;
    let client = Client::builder().cache(Cache::new()).build().unwrap();
    for turn in 0..2 {
        // The page is kept under its own name; who is sent there may change.
        let response = client.get(web.url("/login")).send().await.unwrap();
        let from = (turn > 0).then_some(FromCache::Fresh);
        assert_eq!((response.redirects().len(), response.extensions().get().copied()), (1, from));
        assert_eq!(text(response).await, "page");
    }
    // The 304 is of what the redirect led to, and says nothing of what is kept.
    assert_eq!(text(client.get(web.url("/turns")).send().await.unwrap()).await, "old");
    assert_eq!(text(client.get(web.url("/turns")).send().await.unwrap()).await, "another");
    // Each answer for itself is kept.
    let client = Client::builder().cache(Cache::new()).redirect(Redirect::none()).build().unwrap();
    client.get(web.url("/page")).send().await.unwrap().bytes().await.unwrap();
    let again = client.get(web.url("/page")).send().await.unwrap();
    assert_eq!(again.extensions().get::<FromCache>(), Some(&FromCache::Fresh));
}

struct Stamp;

impl Middleware for Stamp {
    async fn handle(&self, mut request: Request, next: Next<'_>) -> portolan_core::Result<Response> {
        request.headers_mut().insert("x-stamp", HeaderValue::from_static("1"));
        next.run(request).await
    }
}

#[tokio::test]
async fn one_validation_in_the_background_is_enough_and_takes_the_same_way() {
    let asked: Arc<Mutex<Vec<bool>>> = Arc::default();
    let (gate, log) = (Arc::new(tokio::sync::Semaphore::new(1)), asked.clone());
    let doors = gate.clone();
    let handler: Handler = Arc::new(move |request| {
        log.lock().unwrap().push(request.headers().contains_key("x-stamp"));
        let doors = doors.clone();
        Box::pin(async move {
            doors.acquire().await.unwrap().forget();
            let control = "max-age=0, stale-while-revalidate=600";
            with(reply(200, "body"), &[("cache-control", control), ("etag", "\"v\"")])
        })
    });
    let web = Web::plain(handler).await;
    let client = Client::builder().cache(Cache::new()).middleware(Stamp).build().unwrap();
    let get = async || text(client.get(web.url("/")).send().await.unwrap()).await;
    assert_eq!(get().await, "body");
    for _ in 0..50 {
        assert_eq!(get().await, "body");
    }
    gate.add_permits(1);
    // The next validation may begin once the first is over.
    let two = async {
        while asked.lock().unwrap().len() < 3 {
            assert_eq!(get().await, "body");
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), two).await.expect("a second validation");
    assert_eq!(*asked.lock().unwrap(), [true, true, true]);
}

#[tokio::test]
async fn the_end_of_a_call_comes_though_there_is_always_more_to_read() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n";
    let flood = Rogue::tcp(Script::new().expect_until("\r\n\r\n").send(head).flood("x", 100_000_000)).await;
    let client = Client::builder().timeout(Duration::from_millis(300)).build().unwrap();
    let mut response = client.get(format!("http://{}/", flood.addr())).send().await.unwrap();
    let read = async {
        loop {
            match response.chunk().await {
                Ok(Some(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                Ok(None) => panic!("the whole body"),
                Err(error) => return error,
            }
        }
    };
    let error = tokio::time::timeout(Duration::from_secs(20), read).await.expect("an end");
    assert_eq!((error.is_timeout(), error.phase()), (true, Some(Phase::Total)), "{error}");
}

#[tokio::test]
async fn the_limit_of_what_is_gathered_is_exact_however_a_body_comes() {
    for (framing, body) in [
        ("content-length: 10\r\n\r\n", "0123456789"),
        ("transfer-encoding: chunked\r\n\r\n", "a\r\n0123456789\r\n0\r\n\r\n"),
        ("transfer-encoding: chunked\r\n\r\n", "5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n"),
        ("connection: close\r\n\r\n", "0123456789"),
    ] {
        for (max, fits) in [(10, true), (9, false)] {
            let answer = format!("HTTP/1.1 200 OK\r\n{framing}{body}");
            let server = Rogue::tcp(Script::new().expect_until("\r\n\r\n").send(answer).close()).await;
            let client = Client::builder().max_body(max).build().unwrap();
            let response = client.get(format!("http://{}/", server.addr())).send().await.unwrap();
            match response.bytes().await {
                Ok(bytes) => assert!(fits && bytes.len() == 10, "{framing} {max}"),
                Err(error) => assert!(!fits && error.kind() == Kind::Limit, "{framing} {max}: {error}"),
            }
        }
    }
}

#[tokio::test]
async fn a_url_says_its_port_and_user_so_that_they_can_be_sent_or_not_at_all() {
    let client = Client::new();
    for url in ["http://localhost:99999/", "http://localhost:x/", "http://[::1]:70000/", "http://a%3Ab:c@localhost/"] {
        let error = client.get(url).send().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{url}: {error}");
    }
    let web = Web::plain(heads(|_| with(reply(302, ""), &[("location", "http://localhost:99999/")]))).await;
    assert!(client.get(web.url("/")).send().await.is_err());
}

#[tokio::test]
async fn default_fields_are_sent_with_all_their_values() {
    let web = Web::plain(heads(|request| {
        let all = |name: &str| {
            request.headers().get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>().join(",")
        };
        reply(200, format!("{} {}", all("x-twice"), all("x-own")))
    }))
    .await;
    let mut fields = HeaderMap::new();
    for (name, value) in [("x-twice", "1"), ("x-twice", "2"), ("x-own", "3"), ("x-own", "4")] {
        fields.append(name, HeaderValue::from_static(value));
    }
    let client = Client::builder().default_headers(fields).build().unwrap();
    assert_eq!(text(client.get(web.url("/")).header("x-own", "5").send().await.unwrap()).await, "1,2 5");
}

#[tokio::test]
async fn who_waits_to_ask_again_holds_no_connection_meanwhile() {
    let first = Arc::new(AtomicUsize::new(0));
    let web = Web::plain(heads(move |request| match request.uri().path() {
        "/busy" if first.fetch_add(1, Ordering::SeqCst) == 0 => {
            with(reply(503, vec![b'x'; 500_000]), &[("retry-after", "2")])
        }
        path => reply(200, path.to_owned()),
    }))
    .await;
    let client = Client::builder().max_connections_per_host(1).build().unwrap();
    let order: Mutex<Vec<String>> = Mutex::default();
    let get = async |path: &str| {
        let body = text(client.get(web.url(path)).send().await.unwrap()).await;
        order.lock().unwrap().push(body);
    };
    let others = async {
        while client.metrics().leases == 0 || client.metrics().busy > 0 {
            tokio::task::yield_now().await;
        }
        get("/quick").await;
    };
    tokio::join!(get("/busy"), others);
    assert_eq!(*order.lock().unwrap(), ["/quick", "/busy"]);
}

#[cfg(feature = "cookies")]
#[tokio::test]
async fn cookies_of_ones_own_are_for_the_first_origin_and_the_jar_is_for_the_next() {
    let other = Web::plain(heads(|request| {
        reply(200, request.headers().get(COOKIE).map_or("none", |value| value.to_str().unwrap()).to_owned())
    }))
    .await;
    let away = other.url("/").replace("localhost", "127.0.0.1");
    let web = Web::plain(heads(move |_| with(reply(302, ""), &[("location", &away)]))).await;
    let jar = Arc::new(portolan_http::cookie::Jar::new());
    jar.add(&other.url("/").replace("localhost", "127.0.0.1").parse().unwrap(), "jar=1").unwrap();
    let client = Client::builder().cookie_jar(jar).build().unwrap();
    let response = client.get(web.url("/")).header("cookie", "mine=1").send().await.unwrap();
    assert_eq!(text(response).await, "jar=1");
}

#[tokio::test]
async fn a_redirect_to_http_of_a_host_that_asked_for_tls_stays_in_tls() {
    let certs = Certs::new();
    let web = Web::tls(
        &certs,
        &["http/1.1"],
        heads(|request| {
            let host = request.headers()["host"].to_str().unwrap().to_owned();
            let answer = match request.uri().path() {
                "/start" => with(reply(302, ""), &[("location", &format!("http://{host}/end"))]),
                _ => reply(200, "end"),
            };
            with(answer, &[("strict-transport-security", "max-age=600")])
        }),
    )
    .await;
    let client = Client::builder().connector(connector(&certs, &[]));
    let client = client.hsts(portolan_http::hsts::Hsts::new()).build().unwrap();
    let response = client.get(web.url("/start")).send().await.unwrap();
    assert_eq!((response.uri().scheme_str(), response.status().as_u16()), (Some("https"), 200));
    // Without that memory it is a way out of TLS, and refused.
    let client = Client::builder().connector(connector(&certs, &[])).build().unwrap();
    assert_eq!(client.get(web.url("/start")).send().await.unwrap_err().kind(), Kind::Blocked);
}

#[tokio::test]
async fn an_error_says_whose_answer_it_was_wherever_it_was_met() {
    let client = Client::builder().max_body(20).timeout(Duration::from_millis(500)).build().unwrap();
    for (answer, kind) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\ncut", Kind::Closed),
        ("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n{\"a\"", Kind::Protocol),
        ("HTTP/1.1 200 OK\r\ncontent-length: 21\r\n\r\n123456789012345678901", Kind::Limit),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", Kind::Protocol),
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", Kind::Server),
        ("SSH-2.0-OpenSSH_9.2\r\n", Kind::Protocol),
        ("", Kind::Closed),
    ] {
        let server = Rogue::tcp(Script::new().expect_until("\r\n\r\n").send(answer).close()).await;
        let at = server.addr();
        let json = async {
            let response = client.post(format!("http://{at}/")).send().await?.error_for_status()?;
            response.json::<serde_json::Value>().await
        };
        let error = json.await.unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind(), kind, "{text}");
        assert!(text.contains(&at.to_string()) && text.starts_with("http"), "{text}");
    }
    let silent = Rogue::tcp(Script::new().expect_until("\r\n\r\n").expect_close()).await;
    let error = client.get(format!("http://{}/", silent.addr())).send().await.unwrap_err();
    assert!(error.to_string().contains(&silent.addr().to_string()), "{error}");
    let refused = client.get(format!("http://127.0.0.1:{}/", portolan_testbed::free_port())).send().await.unwrap_err();
    assert_eq!((refused.kind(), refused.delivery()), (Kind::Connect, portolan_core::Delivery::NotSent));
}

#[tokio::test]
async fn connections_follow_their_name_when_it_leads_elsewhere() {
    let web = Web::plain(heads(|_| reply(200, "here"))).await;
    let (old, new) = ([127, 0, 0, 1], [127, 0, 0, 2]);
    // The same server at another address of this machine.
    let other = tokio::net::TcpListener::bind((std::net::Ipv4Addr::from(new), web.addr.port())).await.unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = other.accept().await {
            tokio::spawn(support::serve(stream, heads(|_| reply(200, "there"))));
        }
    });
    for version in [portolan_http::Version::Http1Only, portolan_http::Version::Http2Only] {
        let leads = Arc::new(Mutex::new(old));
        let says = leads.clone();
        let names = portolan_core::Resolver::from_fn(move |_| {
            let addr = std::net::IpAddr::from(*says.lock().unwrap());
            async move { Ok(vec![addr]) }
        });
        let net = portolan_core::Connector::builder().resolver(names).build().unwrap();
        let builder = || Client::builder().connector(net.clone()).version(version);
        let (stays, follows) =
            (builder().build().unwrap(), builder().follow_dns(Duration::from_millis(5)).build().unwrap());
        let url = format!("http://moves.test:{}/", web.addr.port());
        for client in [&stays, &follows] {
            assert_eq!(text(client.get(&url).send().await.unwrap()).await, "here");
        }
        // Looks that find it where it was change nothing.
        tokio::time::sleep(Duration::from_millis(30)).await;
        let again = follows.get(&url).send().await.unwrap();
        assert!(again.connection_info().reused, "{version:?}");
        assert_eq!(text(again).await, "here");
        *leads.lock().unwrap() = new;
        let moved = async {
            while text(follows.get(&url).send().await.unwrap()).await != "there" {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), moved).await.unwrap();
        assert_eq!(text(stays.get(&url).send().await.unwrap()).await, "here", "nobody asked it to look");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_said_in_words() {
    let certs = Certs::new();
    let tls = |leaf| ServerTls::with(certs.sign(&leaf));
    let pin = Pin::new([7; 32]);
    for (server, roots, pin, words) in [
        (ServerTls::new(&certs), &certs.client, None, "its authority is not trusted"),
        (tls(Leaf::server(["other.test"])), &certs.ca, None, "not valid for name \"localhost\""),
        (tls(Leaf::server(["localhost"]).expired()), &certs.ca, None, "certificate expired"),
        (ServerTls::new(&certs), &certs.ca, Some(pin), "no key of its chain is pinned"),
    ] {
        let web = Web::with(server.clone().alpn(["h2", "http/1.1"]), heads(|_| reply(200, ""))).await;
        let (quic, _) = support::quic::serve(server, support::quic::ANY, support::quic::answers);
        let trust = Tls::builder().roots(Roots::Custom).root_pem(roots.as_bytes());
        let trust = pin.into_iter().fold(trust, |trust, pin| trust.pin(pin)).build().unwrap();
        let client = Client::builder().tls(trust).resolve("localhost", [web.addr.ip()]).build().unwrap();
        for (version, port) in [
            (Version::Http1Only, web.addr.port()),
            (Version::Http2Only, web.addr.port()),
            (Version::Http3Only, quic.port()),
        ] {
            let error = client.get(format!("https://localhost:{port}/")).version(version).send().await.unwrap_err();
            assert_eq!((error.kind(), error.delivery()), (Kind::Tls, portolan_core::Delivery::NotSent), "{error}");
            let said = error.to_string();
            assert!(said.contains(words) && said.contains(&format!("localhost:{port}")), "{version:?}: {said}");
        }
    }
}

#[tokio::test]
async fn what_is_https_alone_stays_so_in_redirects_and_says_nothing_of_itself_in_the_clear() {
    let certs = Certs::new();
    let plain = Web::plain(heads(|request| {
        reply(200, request.headers().get("referer").map_or("-", |value| value.to_str().unwrap()).to_owned())
    }))
    .await;
    let to = plain.url("/end");
    let web = Web::tls(&certs, &["http/1.1"], heads(move |_| with(reply(302, ""), &[("location", &to)]))).await;
    let client = |strict| {
        let client = Client::builder().connector(connector(&certs, &[])).https_only(strict).referer(true);
        client.redirect(Redirect::default().allow_downgrade(true)).build().unwrap()
    };
    assert_eq!(text(client(false).get(web.url("/secret?x")).send().await.unwrap()).await, "-");
    let error = client(true).get(web.url("/secret?x")).send().await.unwrap_err();
    assert_eq!((error.kind(), plain.accepted()), (Kind::Usage, 1), "{error}");
}

#[tokio::test]
async fn idle_connections_of_a_host_are_kept_up_to_the_number_that_was_said() {
    let doors = Arc::new(tokio::sync::Barrier::new(4));
    let web = Web::plain(Arc::new(move |_| {
        let doors = doors.clone();
        Box::pin(async move {
            doors.wait().await;
            reply(200, "ok")
        })
    }))
    .await;
    for kept in [1, 3] {
        let client = Client::builder().max_idle_per_host(kept).build().unwrap();
        let all = (0..4).map(|_| async { text(client.get(web.url("/")).send().await.unwrap()).await });
        futures_util::future::join_all(all).await;
        let metrics = client.metrics();
        assert_eq!((metrics.opened, metrics.idle), (4, kept), "{metrics:?}");
    }
}

#[tokio::test]
async fn there_is_a_budget_of_repetitions_though_nobody_asked_for_one() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let web = Web::plain(heads(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        with(reply(503, ""), &[("retry-after", "0")])
    }))
    .await;
    let client = Client::new();
    let all = (0..200).map(|_| async { client.get(web.url("/")).send().await.unwrap().attempts() });
    let attempts = futures_util::future::join_all(all).await;
    // Each would have been sent three times.
    assert_eq!((attempts.iter().sum::<u32>(), asked.load(Ordering::SeqCst)), (300, 300));
    assert_eq!(client.get(web.url("/")).send().await.unwrap().attempts(), 1);
}
