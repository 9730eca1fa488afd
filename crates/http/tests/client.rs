//! The client against servers in this process: what it does around the wire.

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

use bytes::Bytes;
use http::header::{AUTHORIZATION, COOKIE, LOCATION, SET_COOKIE};
use http::{HeaderValue, Method, Request as HttpRequest, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use portolan_core::resolve::failed;
use portolan_core::{Connector, Delivery, Kind, Phase, Policy, ResolveFailure, Resolver, Roots, Tls};
use portolan_http::{Body, Client, Failed, Middleware, Next, Redirect, Request, Response, Version};
use portolan_testbed::Certs;
use portolan_testbed::rogue::{Rogue, Script};
use support::{Handler, Web, connector, heads, reply};

/// Says back what it heard: method, path, some fields, body.
fn echo() -> Handler {
    Arc::new(|request: HttpRequest<Incoming>| {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let field = |name: &str| {
                parts.headers.get(name).map(|value| value.to_str().unwrap_or("?").to_owned()).unwrap_or_default()
            };
            let text = format!(
                "{} {} auth={} cookie={} type={} ",
                parts.method,
                parts.uri.path_and_query().map_or("", |path| path.as_str()),
                field("authorization"),
                field("cookie"),
                field("content-type"),
            );
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            reply(200, [text.as_bytes(), &body].concat())
        })
    })
}

fn redirect_to(status: u16, location: &str) -> support::Reply {
    let mut response = reply(status, "moved");
    response.headers_mut().insert(LOCATION, HeaderValue::from_str(location).unwrap());
    response
}

async fn text(response: Response) -> String {
    response.text().await.unwrap()
}

#[tokio::test]
async fn the_verbs_send_what_they_say() {
    let web = Web::plain(echo()).await;
    let client = Client::new();
    assert_eq!(text(client.get(web.url("/a?b=c")).send().await.unwrap()).await, "GET /a?b=c auth= cookie= type= ");
    let sent = client.post(web.url("/")).query([("q", "a b")]).form([("k", "v&"), ("ö", "")]).send().await.unwrap();
    assert_eq!(text(sent).await, "POST /?q=a+b auth= cookie= type=application/x-www-form-urlencoded k=v%26&%C3%B6=");
    let sent = client.put(web.url("/")).json(&serde_json::json!({"a": [1]})).send().await.unwrap();
    assert_eq!(text(sent).await, r#"PUT / auth= cookie= type=application/json {"a":[1]}"#);
    let sent = client.delete(web.url("/")).basic_auth("joe", "pw").send().await.unwrap();
    assert_eq!(text(sent).await, "DELETE / auth=Basic am9lOnB3 cookie= type= ");
    let url = web.url("/").replace("localhost", "joe:p%40w@localhost");
    assert_eq!(text(client.get(&url).send().await.unwrap()).await, "GET / auth=Basic am9lOnBAdw== cookie= type= ");
    let form = portolan_http::multipart::Form::new().text("a", "1");
    let sent = text(client.post(web.url("/")).multipart(form).send().await.unwrap()).await;
    assert!(sent.contains("multipart/form-data; boundary=") && sent.contains("name=\"a\"\r\n\r\n1\r\n"), "{sent}");
    let stream = futures_util::stream::iter([Ok::<_, std::io::Error>("one "), Ok("two")]);
    let sent = client.post(web.url("/")).body(Body::from_stream(stream)).send().await.unwrap();
    assert!(text(sent).await.ends_with("one two"));
    let body = Body::from_reader(&b"from a reader"[..]);
    assert!(text(client.post(web.url("/")).body(body).send().await.unwrap()).await.ends_with("from a reader"));
    assert_eq!(web.accepted(), 1);
}

#[tokio::test]
async fn what_is_wrong_with_a_request_comes_out_when_it_is_sent() {
    let client = Client::new();
    for request in [
        client.get("no url"),
        client.get("ftp://localhost/"),
        client.get("/path"),
        client.get("http://localhost/").header("bad name", "x"),
        client.get("http://localhost/").header("x", "a\r\nb: c"),
        client.get("http://localhost/").bearer_auth("a\nb"),
    ] {
        let error = request.send().await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (Kind::Usage, Delivery::NotSent), "{error}");
    }
    // What is forgotten most often is said by name.
    for url in ["localhost:8080/x", "example.org/a b", ""] {
        let error = client.get(url).send().await.unwrap_err();
        assert!(error.message().contains("no scheme, such as https://"), "{url}: {error}");
    }
    let strict = Client::builder().https_only(true).build().unwrap();
    assert_eq!(strict.get("http://localhost/").send().await.unwrap_err().kind(), Kind::Usage);
}

#[tokio::test]
async fn redirects_change_the_method_as_rfc_9110_says() {
    let target = echo();
    let handler: Handler = Arc::new(move |request| {
        let status = request.uri().path().trim_start_matches('/').parse::<u16>();
        match status {
            Ok(status) => Box::pin(async move { redirect_to(status, "/end") }),
            Err(_) => target(request),
        }
    });
    let web = Web::plain(handler).await;
    let client = Client::new();
    for (status, method, end) in [
        (301, Method::POST, "GET /end auth= cookie= type= "),
        (302, Method::POST, "GET /end auth= cookie= type= "),
        (303, Method::PUT, "GET /end auth= cookie= type= "),
        (301, Method::PUT, "PUT /end auth= cookie= type=text/x body"),
        (307, Method::POST, "POST /end auth= cookie= type=text/x body"),
        (308, Method::DELETE, "DELETE /end auth= cookie= type=text/x body"),
    ] {
        let request = client.request(method, web.url(&format!("/{status}"))).header("content-type", "text/x");
        let response = request.body("body").send().await.unwrap();
        assert_eq!(response.redirects().len(), 1);
        assert_eq!(response.uri().path(), "/end");
        assert_eq!(text(response).await, end, "{status}");
    }
    // A body that is gone can't be sent again: the redirect itself is the answer.
    let stream = Body::from_stream(futures_util::stream::iter([Ok::<_, std::io::Error>("once")]));
    let response = client.post(web.url("/307")).body(stream).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
}

#[tokio::test]
async fn credentials_and_cookies_stay_with_their_origin() {
    let other = Web::plain(echo()).await;
    let away = other.url("/away");
    let web = Web::plain(heads(move |request| match request.uri().path() {
        "/away" => redirect_to(302, &away),
        "/here" => redirect_to(302, "/end"),
        _ => {
            let headers = request.headers();
            reply(200, format!("{} {}", headers.contains_key(AUTHORIZATION), headers.contains_key(COOKIE)))
        }
    }))
    .await;
    let client = Client::new();
    let send = |path: &str| client.get(web.url(path)).bearer_auth("token").header("cookie", "a=b").send();
    assert_eq!(text(send("/here").await.unwrap()).await, "true true");
    assert_eq!(text(send("/away").await.unwrap()).await, "GET /away auth= cookie= type= ");
}

#[tokio::test]
async fn redirects_are_bounded_and_ruled() {
    let web = Web::plain(heads(|request| {
        let n: u32 = request.uri().path().trim_start_matches('/').parse().unwrap_or(0);
        match request.uri().query() {
            Some("circle") => redirect_to(302, "/0?circle"),
            Some("file") => redirect_to(302, "file:///etc/passwd"),
            Some("bad") => redirect_to(302, "http://[bad/"),
            _ => redirect_to(302, &format!("/{}", n + 1)),
        }
    }))
    .await;
    let client = Client::new();
    let kind = async |path: &str| client.get(web.url(path)).send().await.unwrap_err().kind();
    assert_eq!(kind("/0").await, Kind::Limit);
    assert_eq!(kind("/0?circle").await, Kind::Limit);
    assert_eq!(kind("/0?file").await, Kind::Unsupported);
    assert_eq!(kind("/0?bad").await, Kind::Protocol);
    let none = client.get(web.url("/7")).redirect(Redirect::none()).send().await.unwrap();
    assert_eq!((none.status().as_u16(), none.redirects().len()), (302, 0));
    let rule = Redirect::limited(100).when(|hop| hop.to.path() != "/12");
    let ruled = client.get(web.url("/7")).redirect(rule).send().await.unwrap();
    assert_eq!((ruled.status().as_u16(), ruled.uri().path()), (302, "/11"));
}

#[tokio::test]
async fn https_is_not_left_for_http_unless_that_is_allowed() {
    let certs = Certs::new();
    let plain = Web::plain(echo()).await;
    let to = plain.url("/");
    let web = Web::tls(&certs, &["h2"], heads(move |_| redirect_to(302, &to))).await;
    let client = Client::builder().connector(connector(&certs, &[])).build().unwrap();
    assert_eq!(client.get(web.url("/")).send().await.unwrap_err().kind(), Kind::Blocked);
    let allowed = client.get(web.url("/")).redirect(Redirect::limited(3).allow_downgrade(true));
    assert_eq!(allowed.send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn the_policy_sees_each_redirect() {
    let web = Web::plain(heads(|_| redirect_to(302, "http://169.254.169.254/latest/meta-data"))).await;
    let policy = Policy::public_only().allow("127.0.0.1/32").unwrap().allow("::1/128").unwrap();
    let connector = Connector::builder().policy(policy).build().unwrap();
    let client = Client::builder().connector(connector).build().unwrap();
    let error = client.get(web.url("/")).send().await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Blocked, Delivery::NotSent));
}

#[cfg(feature = "cookies")]
#[tokio::test]
async fn a_cookie_jar_is_applied_exactly_once_for_each_request() {
    let jar = Arc::new(portolan_http::cookie::Jar::new());
    let handler = heads(|request| {
        let all: Vec<_> = request.headers().get_all(COOKIE).iter().map(|v| v.to_str().unwrap().to_owned()).collect();
        let mut response = match request.uri().path() {
            "/set" => redirect_to(302, "/show"),
            _ => reply(200, all.join("|")),
        };
        response.headers_mut().append(SET_COOKIE, HeaderValue::from_static("a=1; Path=/"));
        response.headers_mut().append(SET_COOKIE, HeaderValue::from_static("b=2; Path=/"));
        response
    });
    let web = Web::plain(handler).await;
    for client in [
        Client::builder().cookie_jar(jar.clone()).build().unwrap(),
        Client::builder().cookie_store(jar.clone()).build().unwrap(),
    ] {
        jar.clear();
        assert_eq!(text(client.get(web.url("/show")).send().await.unwrap()).await, "");
        assert_eq!(text(client.get(web.url("/show")).send().await.unwrap()).await, "a=1; b=2");
        jar.clear();
        assert_eq!(text(client.get(web.url("/set")).send().await.unwrap()).await, "a=1; b=2");
        let own = client.get(web.url("/show")).header("cookie", "mine=1").send().await.unwrap();
        assert_eq!(text(own).await, "mine=1");
    }
}

#[cfg(feature = "gzip")]
#[tokio::test]
async fn a_compressed_body_comes_out_plain() {
    use std::io::Write;
    let web = Web::plain(heads(|request| {
        assert!(request.headers()["accept-encoding"].to_str().unwrap().contains("gzip"));
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&[b'z'; 100_000]).unwrap();
        let mut response = reply(200, encoder.finish().unwrap());
        response.headers_mut().insert("content-encoding", HeaderValue::from_static("gzip"));
        response
    }))
    .await;
    let client = Client::new();
    let response = client.get(web.url("/")).send().await.unwrap();
    assert!(!response.headers().contains_key("content-encoding"));
    assert_eq!(response.bytes().await.unwrap(), Bytes::from(vec![b'z'; 100_000]));
    let asked = client.get(web.url("/")).header("accept-encoding", "gzip").send().await.unwrap();
    assert_eq!(asked.headers()["content-encoding"], "gzip");
    asked.bytes().await.unwrap();
    assert_eq!(web.accepted(), 1);
}

#[tokio::test]
async fn an_idle_connection_that_was_closed_is_replaced_unseen() {
    let web = Web::plain(echo()).await;
    let client = Client::new();
    for turn in 1..=3 {
        // A POST too: nothing of it was sent on the dead connection.
        let response = client.post(web.url("/")).body("x").send().await.unwrap();
        assert!(!response.is_reused());
        text(response).await;
        assert_eq!(web.accepted(), turn);
        web.cut();
        let closed = async {
            while client.metrics().idle == 0 {
                tokio::task::yield_now().await;
            }
        };
        closed.await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A program that waits in code of its own, not in the runtime: nothing hears of the wire meanwhile.
#[test]
fn an_idle_connection_that_was_closed_while_nothing_ran_is_replaced_unseen() {
    let certs = Certs::new();
    let servers = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (version, tls) in [Version::Http1Only, Version::Http2Only].into_iter().flat_map(|v| [(v, false), (v, true)]) {
        let web = servers.block_on(async {
            if tls { Web::tls(&certs, &["h2", "http/1.1"], echo()).await } else { Web::plain(echo()).await }
        });
        let client = Client::builder().connector(connector(&certs, &[])).version(version).build().unwrap();
        let post = async || {
            let response = client.post(web.url("/")).body("x").send().await;
            text(response.unwrap_or_else(|error| panic!("{version:?}, TLS {tls}: {error}"))).await
        };
        let close = || {
            servers.block_on(web.cut_off());
            std::thread::sleep(Duration::from_millis(15));
        };
        // Between two waits for the runtime, and within one.
        for _ in 0..3 {
            runtime.block_on(post());
            close();
        }
        runtime.block_on(async {
            for _ in 0..3 {
                post().await;
                std::thread::scope(|scope| scope.spawn(close).join().unwrap());
            }
        });
        assert_eq!(web.accepted(), 6, "{version:?}, TLS {tls}");
    }
}

#[tokio::test]
async fn a_close_before_the_response_is_tried_again_only_where_that_is_safe() {
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let scripts =
        || vec![Script::new().expect_until("\r\n\r\n").close(), Script::new().expect_until("\r\n\r\n").send(ok)];
    let rogue = Rogue::tcp(scripts()).await;
    let url = format!("http://{}/", rogue.addr());
    let response = Client::new().get(&url).send().await.unwrap();
    assert_eq!((response.attempts(), text(response).await.as_str()), (2, "ok"));
    for (key, attempts) in [(None, 1), (Some("k1"), 2)] {
        let rogue = Rogue::tcp(scripts()).await;
        let url = format!("http://{}/", rogue.addr());
        let mut request = Client::new().post(&url).body("");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        match request.send().await {
            Ok(response) => assert_eq!(response.attempts(), attempts),
            Err(error) => {
                assert_eq!((error.kind(), error.delivery()), (Kind::Closed, Delivery::Unknown));
                assert_eq!(attempts, 1);
            }
        }
        assert_eq!(rogue.connections(), attempts as usize);
    }
}

#[tokio::test]
async fn nothing_is_tried_again_once_a_response_has_begun() {
    let rogue = Rogue::tcp(Script::new().expect_until("\r\n\r\n").send("HTTP/1.1 200 OK\r\ncontent-le").close()).await;
    let error = Client::new().get(format!("http://{}/", rogue.addr())).send().await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Closed, Delivery::Answered));
    assert_eq!(rogue.connections(), 1);
}

#[tokio::test]
async fn a_server_that_is_overloaded_is_asked_again_when_it_says() {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let web = Web::plain(heads(move |request| {
        let n = counter.fetch_add(1, Ordering::SeqCst);
        let after = if request.uri().path() == "/long" { "3600" } else { "0" };
        if n == 0 || after != "0" {
            let mut response = reply(503, "later");
            response.headers_mut().insert("retry-after", HeaderValue::from_str(after).unwrap());
            return response;
        }
        reply(200, "now")
    }))
    .await;
    let client = Client::new();
    let response = client.post(web.url("/")).body("x").send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.attempts()), (200, 2));
    let response = client.get(web.url("/long")).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.attempts()), (503, 1));
    let error = response.error_for_status().unwrap_err();
    assert_eq!(
        (error.kind(), error.code(), error.retry_after()),
        (Kind::Server, Some(503), Some(Duration::from_secs(3600)))
    );
    assert_eq!(error.server::<Failed>().unwrap().headers["retry-after"], "3600");
}

#[tokio::test]
async fn each_bound_names_its_phase() {
    let silent = Rogue::tcp(Script::new().expect_until("\r\n\r\n").expect_close()).await;
    let url = format!("http://{}/", silent.addr());
    let client = Client::builder().retry(portolan_pool::Retry::never()).build().unwrap();
    let short = Duration::from_millis(50);
    let error = client.get(&url).first_byte_timeout(short).send().await.unwrap_err();
    assert_eq!((error.kind(), error.phase()), (Kind::Timeout, Some(Phase::FirstByte)));
    let error = client.get(&url).timeout(short).send().await.unwrap_err();
    assert_eq!((error.kind(), error.phase()), (Kind::Timeout, Some(Phase::Total)));
    let slow = Script::new()
        .expect_until("\r\n\r\n")
        .send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345")
        .expect_close();
    let slow = Rogue::tcp(slow).await;
    let url = format!("http://{}/", slow.addr());
    let timeouts = portolan_core::Timeouts::default().idle(short);
    let response = client.get(&url).timeouts(timeouts).send().await.unwrap();
    let error = response.bytes().await.unwrap_err();
    assert_eq!((error.kind(), error.phase()), (Kind::Timeout, Some(Phase::Idle)));
    let response = client.get(&url).timeout(short).send().await.unwrap();
    let error = response.bytes().await.unwrap_err();
    assert_eq!((error.kind(), error.phase()), (Kind::Timeout, Some(Phase::Total)));
}

#[tokio::test]
async fn connections_to_one_host_are_bounded_and_shared_out_in_order() {
    let now = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (n, m) = (now.clone(), most.clone());
    let web = Web::plain(Arc::new(move |_| {
        let (n, m) = (n.clone(), m.clone());
        Box::pin(async move {
            m.fetch_max(n.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(2)).await;
            n.fetch_sub(1, Ordering::SeqCst);
            reply(200, "ok")
        })
    }))
    .await;
    let client = Client::builder().max_connections_per_host(4).build().unwrap();
    let all = (0..60).map(|_| async { text(client.get(web.url("/")).send().await.unwrap()).await });
    futures_util::future::join_all(all).await;
    assert_eq!((most.load(Ordering::SeqCst), web.accepted()), (4, 4));
    let metrics = client.metrics();
    assert_eq!((metrics.opened, metrics.leases, metrics.busy), (4, 60, 0));
}

#[tokio::test]
async fn a_body_too_long_to_be_gathered_is_a_limit() {
    let web = Web::plain(heads(|_| reply(200, vec![b'x'; 5000]))).await;
    let client = Client::builder().max_body(4999).build().unwrap();
    let error = client.get(web.url("/")).send().await.unwrap().bytes().await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Limit, Delivery::Answered));
    let mut response = client.get(web.url("/")).send().await.unwrap();
    let mut total = 0;
    while let Some(data) = response.chunk().await.unwrap() {
        total += data.len();
    }
    assert_eq!(total, 5000);
}

#[tokio::test]
async fn a_cache_answers_validates_and_forgets() {
    use portolan_http::cache::{Cache, FromCache};
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let web = Web::plain(heads(move |request| {
        count.fetch_add(1, Ordering::SeqCst);
        if request.headers().get("if-none-match").is_some_and(|tag| tag == "\"v1\"") {
            return reply(304, "");
        }
        let mut response = reply(200, format!("{} body", request.method()));
        let control = if request.uri().path() == "/fresh" { "max-age=600" } else { "no-cache" };
        response.headers_mut().insert("cache-control", HeaderValue::from_static(control));
        response.headers_mut().insert("etag", HeaderValue::from_static("\"v1\""));
        response
    }))
    .await;
    let client = Client::builder().cache(Cache::new()).build().unwrap();
    let from = |response: &Response| response.extensions().get::<FromCache>().copied();
    for turn in 0..3 {
        let response = client.get(web.url("/fresh")).send().await.unwrap();
        assert_eq!(from(&response), (turn > 0).then_some(FromCache::Fresh));
        assert_eq!(text(response).await, "GET body");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    for turn in 0..3 {
        let response = client.get(web.url("/tagged")).send().await.unwrap();
        assert_eq!(from(&response), (turn > 0).then_some(FromCache::Validated));
        assert_eq!((response.status().as_u16(), text(response).await.as_str()), (200, "GET body"));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 4);
    client.post(web.url("/fresh")).body("x").send().await.unwrap();
    let response = client.get(web.url("/fresh")).send().await.unwrap();
    assert_eq!(from(&response), None);
    let only = client.get(web.url("/never")).header("cache-control", "only-if-cached").send().await.unwrap();
    assert_eq!(only.status().as_u16(), 504);
}

#[tokio::test]
async fn a_host_that_asked_for_tls_is_never_reached_without() {
    let certs = Certs::new();
    let web = Web::tls(
        &certs,
        &["http/1.1"],
        heads(|_| {
            let mut response = reply(200, "safe");
            response.headers_mut().insert("strict-transport-security", HeaderValue::from_static("max-age=600"));
            response
        }),
    )
    .await;
    let client = Client::builder().connector(connector(&certs, &[])).hsts(portolan_http::hsts::Hsts::new());
    let client = client.build().unwrap();
    let insecure = web.url("/").replace("https:", "http:");
    assert!(client.get(&insecure).send().await.is_err());
    client.get(web.url("/")).send().await.unwrap().bytes().await.unwrap();
    let response = client.get(&insecure).send().await.unwrap();
    assert_eq!(response.uri().scheme_str(), Some("https"));
}

struct Tag(&'static str, Arc<Mutex<Vec<String>>>);

impl Middleware for Tag {
    async fn handle(&self, mut request: Request, next: Next<'_>) -> portolan_core::Result<Response> {
        self.1.lock().unwrap().push(format!("{} out", self.0));
        request.headers_mut().append("x-tag", HeaderValue::from_static(self.0));
        let response = next.run(request).await;
        self.1.lock().unwrap().push(format!("{} back", self.0));
        response
    }
}

#[tokio::test]
async fn middleware_stands_in_order_between_caller_and_wire() {
    let web = Web::plain(heads(|request| {
        let tags: Vec<_> = request.headers().get_all("x-tag").iter().map(|v| v.to_str().unwrap()).collect();
        reply(200, tags.join(","))
    }))
    .await;
    let log = Arc::new(Mutex::new(Vec::new()));
    let client =
        Client::builder().middleware(Tag("one", log.clone())).middleware(Tag("two", log.clone())).build().unwrap();
    assert_eq!(text(client.get(web.url("/")).send().await.unwrap()).await, "one,two");
    assert_eq!(*log.lock().unwrap(), ["one out", "two out", "two back", "one back"]);
}

#[tokio::test]
async fn the_client_is_a_tower_service() {
    use tower_service::Service;
    let web = Web::plain(echo()).await;
    let mut client = Client::new();
    let request = HttpRequest::post(web.url("/t")).body(http_body_util::Full::new(Bytes::from("x"))).unwrap();
    let response = client.call(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "POST /t auth= cookie= type= x");
}

#[tokio::test]
async fn hints_and_trailers_are_seen() {
    let wire = "HTTP/1.1 103 Early Hints\r\nlink: </s.css>\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n";
    let rogue = Rogue::tcp(Script::new().expect_until("\r\n\r\n").send(wire).expect_close()).await;
    let hints = Arc::new(Mutex::new(Vec::new()));
    let seen = hints.clone();
    let request = Client::new().get(format!("http://{}/", rogue.addr()));
    let request = request.on_informational(move |hint| seen.lock().unwrap().push(hint.headers()["link"].clone()));
    let (body, trailers) = request.send().await.unwrap().collect().await.unwrap();
    assert_eq!((body, trailers.unwrap()["x-sum"].clone()), (Bytes::from("ok"), HeaderValue::from_static("7")));
    assert_eq!(*hints.lock().unwrap(), ["</s.css>"]);
}

#[tokio::test]
async fn digest_credentials_answer_a_challenge() {
    let web = Web::plain(heads(|request| {
        let Some(auth) = request.headers().get(AUTHORIZATION) else {
            let mut response = reply(401, "who");
            let challenge = "Digest realm=\"r\", nonce=\"abc\", qop=\"auth\", algorithm=SHA-256";
            response.headers_mut().insert("www-authenticate", HeaderValue::from_static(challenge));
            return response;
        };
        reply(200, auth.to_str().unwrap().to_owned())
    }))
    .await;
    let response = Client::new().get(web.url("/x?y")).digest_auth("joe", "pw").send().await.unwrap();
    let auth = text(response).await;
    assert!(
        auth.contains("username=\"joe\"") && auth.contains("uri=\"/x?y\"") && auth.contains("nc=00000001"),
        "{auth}"
    );
}

#[tokio::test]
async fn dropping_a_call_leaves_nothing_behind() {
    let silent = Rogue::tcp(Script::new().expect_until("\r\n\r\n").expect_close()).await;
    let client = Client::builder().max_connections_per_host(1).build().unwrap();
    let url = format!("http://{}/", silent.addr());
    for _ in 0..3 {
        let call = client.get(&url).send();
        assert!(tokio::time::timeout(Duration::from_millis(30), call).await.is_err());
        assert_eq!(client.metrics().busy, 0);
    }
}

#[tokio::test]
async fn a_late_answer_is_overtaken_by_a_second_request() {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let web = Web::plain(Arc::new(move |_| {
        let slow = counter.fetch_add(1, Ordering::SeqCst) == 0;
        Box::pin(async move {
            if slow {
                std::future::pending::<()>().await;
            }
            reply(200, "quick")
        })
    }))
    .await;
    let client = Client::new();
    let response = client.get(web.url("/")).hedge(Duration::from_millis(20)).send().await.unwrap();
    assert_eq!(text(response).await, "quick");
    assert_eq!(count.load(Ordering::SeqCst), 2);
    // What must not be done twice is not hedged.
    count.store(0, Ordering::SeqCst);
    let post = client.post(web.url("/")).body("x").hedge(Duration::from_millis(20)).send();
    assert!(tokio::time::timeout(Duration::from_millis(200), post).await.is_err());
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn progress_is_told_and_names_can_be_given_addresses() {
    let web = Web::plain(echo()).await;
    let client = Client::builder().resolve("nowhere.test", [web.addr.ip()]).build().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let body = Body::from("0123456789").with_progress(move |sent, total| log.lock().unwrap().push((sent, total)));
    let url = format!("http://nowhere.test:{}/", web.addr.port());
    assert!(text(client.post(url).body(body).send().await.unwrap()).await.ends_with("0123456789"));
    assert_eq!(*seen.lock().unwrap(), [(10, Some(10))]);
}

#[tokio::test]
async fn a_server_that_cannot_expect_is_asked_once_more_without() {
    let web = Web::plain(Arc::new(|request| {
        Box::pin(async move {
            if request.headers().contains_key("expect") {
                return reply(417, "cannot");
            }
            let body = http_body_util::BodyExt::collect(request.into_body()).await.unwrap();
            reply(200, body.to_bytes())
        })
    }))
    .await;
    for version in [Version::Http1Only, Version::Http2Only] {
        let client = Client::builder().version(version).build().unwrap();
        let response = client.post(web.url("/")).body("precious").expect_continue().send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.text().await.unwrap(), "precious");
    }
}

#[tokio::test]
async fn what_concerns_the_way_can_be_said_on_the_client() {
    let certs = Certs::new();
    let web =
        Web::tls(&certs, &["http/1.1"], heads(|request| reply(200, request.headers()["x-a"].as_bytes().to_vec())))
            .await;
    let tls = || Tls::builder().roots(Roots::Custom).root_pem(certs.ca.as_bytes()).build().unwrap();
    let headers = [("x-a".parse().unwrap(), HeaderValue::from_static("one"))].into_iter().collect();
    let client = Client::builder().tls(tls()).default_headers(headers).max_requests_per_connection(1);
    let client = client.connect_timeout(Duration::from_secs(3)).build().unwrap();
    assert_eq!(client.connector().timeouts().connect_limit(), Some(Duration::from_secs(3)));
    for own in [None, Some("two")] {
        let request = client.get(web.url("/"));
        let request = own.into_iter().fold(request, |request, value| request.header("x-a", value));
        assert_eq!(request.send().await.unwrap().text().await.unwrap(), own.unwrap_or("one"));
    }
    assert_eq!(web.accepted(), 2);
    let aged = Client::builder().tls(tls()).max_connection_age(Duration::ZERO).build().unwrap();
    for _ in 0..2 {
        aged.get(web.url("/")).header("x-a", "b").send().await.unwrap().bytes().await.unwrap();
    }
    assert_eq!(web.accepted(), 4);
    let guarded = Client::builder().tls(tls()).policy(Policy::public_only()).build().unwrap();
    assert_eq!(guarded.get(web.url("/")).send().await.unwrap_err().kind(), Kind::Blocked);
    let nowhere = Resolver::from_fn(|name| async move { Err(failed(&name, ResolveFailure::NoSuchName)) });
    let lost = Client::builder().resolver(nowhere).build().unwrap();
    assert_eq!(lost.get("http://somewhere.test/").send().await.unwrap_err().kind(), Kind::Resolve);
    // One in all: the idle one of another host makes room.
    let other = Web::plain(heads(|_| reply(200, "ok"))).await;
    let single = Client::builder().tls(tls()).max_connections(1).build().unwrap();
    for url in [web.url("/"), other.url("/"), web.url("/")] {
        single.get(url).header("x-a", "b").send().await.unwrap().bytes().await.unwrap();
        assert_eq!(single.metrics().idle + single.metrics().busy, 1);
    }
    assert_eq!((single.metrics().opened, single.metrics().retired), (3, 2));
}
