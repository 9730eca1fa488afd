//! What can be said of a client and of a request holds by every version of HTTP, directly and through a proxy.

#![allow(
    clippy::disallowed_methods,
    clippy::large_futures,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and drives the client by hand"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version as Spoken};
use http_body_util::BodyExt;
use portolan_core::{Delivery, Error, Hop, Kind, Phase};
use portolan_http::cache::{Cache, FromCache};
use portolan_http::decode::DecodeOptions;
use portolan_http::multipart::{Form, Part};
use portolan_http::{Body, Client, Middleware, Next, Redirect, Request, Response, Version};
use portolan_pool::{Budget, Retry};
use portolan_testbed::Certs;
use support::everywhere::{Answer, Everywhere, Log, Place, Say, Way, places, say};

fn spoken(place: Place) -> Spoken {
    match place.0 {
        Version::Http1Only => Spoken::HTTP_11,
        Version::Http2Only => Spoken::HTTP_2,
        _ => Spoken::HTTP_3,
    }
}

/// Says back what it heard.
fn echo() -> Say {
    say(|parts, body| {
        let field = |name: &str| {
            let all: Vec<_> = parts.headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("?")).collect();
            all.join("|")
        };
        let path = parts.uri.path_and_query().unwrap();
        let body = String::from_utf8_lossy(body);
        let known = ["authorization", "content-type", "x-a", "cookie", "referer", "last-event-id"].map(field).join(";");
        Answer::new(200, format!("{} {path} {known} {body}", parts.method))
    })
}

async fn text(response: Response) -> String {
    response.text().await.unwrap()
}

#[tokio::test]
async fn what_is_said_of_a_request_arrives() {
    let certs = Certs::new();
    let site = Everywhere::start(&certs, echo()).await;
    for place in places() {
        let client = site.builder(place).default_header("x-a", "default").unwrap().build().unwrap();
        let url = site.url("/p");
        let sent = async |request: portolan_http::RequestBuilder| {
            let response = request.send().await.unwrap();
            assert_eq!((response.status(), response.version()), (StatusCode::OK, spoken(place)), "{place:?}");
            text(response).await
        };
        assert_eq!(sent(client.get(&url).query([("q", "a b&")])).await, "GET /p?q=a+b%26 ;;default;;; ");
        assert_eq!(sent(client.get(&url).header("x-a", "1").header("x-a", "2")).await, "GET /p ;;1|2;;; ");
        let set: HeaderMap = [(HeaderName::from_static("x-a"), HeaderValue::from_static("3"))].into_iter().collect();
        assert_eq!(sent(client.get(&url).header("x-a", "1").headers(set)).await, "GET /p ;;3;;; ");
        assert_eq!(
            sent(client.post(&url).json(&serde_json::json!({"a": 1}))).await,
            "POST /p ;application/json;default;;; {\"a\":1}"
        );
        let form = "application/x-www-form-urlencoded";
        assert_eq!(sent(client.put(&url).form([("a", "ö")])).await, format!("PUT /p ;{form};default;;; a=%C3%B6"));
        assert_eq!(sent(client.delete(&url).basic_auth("joe", "pw")).await, "DELETE /p Basic am9lOnB3;;default;;; ");
        assert_eq!(sent(client.patch(&url).bearer_auth("t")).await, "PATCH /p Bearer t;;default;;; ");
        assert_eq!(sent(client.options(&url).last_event_id("7")).await, "OPTIONS /p ;;default;;;7 ");
        assert_eq!(sent(client.request(Method::from_bytes(b"REPORT").unwrap(), &url)).await, "REPORT /p ;;default;;; ");
        let stream = || futures_util::stream::iter(["one ", "two"].map(Ok::<_, std::io::Error>));
        assert!(sent(client.post(&url).body(Body::from_stream(stream()))).await.ends_with(" one two"));
        let told: Log<(u64, Option<u64>)> = Log::default();
        let log = told.clone();
        let part = Part::body(Body::from_stream(stream())).with_file_name("f.txt");
        let form = Form::new().text("k", "v").part("file", part);
        let sent = sent(client.post(&url).multipart(form)).await;
        assert!(
            sent.contains("name=\"file\"; filename=\"f.txt\"\r\n") && sent.contains("\r\n\r\none two\r\n"),
            "{sent}"
        );
        let body =
            Body::from(vec![b'x'; 100_000]).with_progress(move |sent, all| log.lock().unwrap().push((sent, all)));
        let response = client.post(&url).body(body).send().await.unwrap();
        assert!(text(response).await.len() > 100_000);
        assert_eq!(told.lock().unwrap().last(), Some(&(100_000, Some(100_000))), "{place:?}");
        let head = client.head(&url).send().await.unwrap();
        assert_eq!((head.status(), head.bytes().await.unwrap().len()), (StatusCode::OK, 0));
    }
}

#[tokio::test]
async fn a_response_tells_how_it_came() {
    let certs = Certs::new();
    let site = Everywhere::start(&certs, echo()).await;
    for place in places() {
        let client = site.builder(place).build().unwrap();
        for turn in 0..3 {
            let response = client.get(site.url("/")).send().await.unwrap();
            let info = response.connection_info();
            assert_eq!((response.is_reused(), info.reused), (turn > 0, turn > 0), "{place:?}");
            let alpn = info.tls.as_ref().unwrap().alpn.clone().unwrap();
            let names = [("HTTP/1.1", &b"http/1.1"[..]), ("HTTP/2.0", b"h2"), ("HTTP/3.0", b"h3")];
            assert!(names.contains(&(format!("{:?}", response.version()).as_str(), &*alpn)), "{place:?}");
            assert_eq!(info.hops.len(), usize::from(place.1 == Way::Proxy), "{place:?}");
            assert!(response.remote_addr().is_some_and(|addr| addr.ip().is_loopback()), "{place:?}: {info:?}");
            let (made, call) = (info.timings, response.timings());
            // QUIC's handshake is that of TLS; its proxy is connected to by TCP.
            assert_eq!(made.connect.is_some(), place != (Version::Http3Only, Way::Direct), "{place:?}: {made:?}");
            assert_eq!(made.hops.is_some(), place.1 == Way::Proxy, "{place:?}: {made:?}");
            assert!(made.tls.is_some() && made.tls <= Some(made.total), "{place:?}: {made:?}");
            assert!(call.total >= call.first_byte && call.total >= call.connection, "{place:?}: {call:?}");
            if turn > 0 {
                assert!(call.connection < made.total, "{place:?}: {call:?} {made:?}");
            }
            assert!(text(response).await.starts_with("GET"));
        }
        let metrics = client.metrics();
        assert_eq!((metrics.opened, metrics.leases, metrics.busy), (1, 3, 0), "{place:?}");
    }
}

#[tokio::test]
async fn a_body_is_read_in_every_form_and_with_its_trailers() {
    let certs = Certs::new();
    let site = Everywhere::start(
        &certs,
        say(|parts, _| match parts.uri.path() {
            "/json" => Answer::new(200, "{\"a\": [1, 2]}"),
            "/latin" => Answer::new(200, &b"gr\xfcn"[..]).with("content-type", "text/plain; charset=iso-8859-1"),
            "/none" => Answer::new(204, ""),
            _ => {
                let mut answer = Answer::new(200, "").with("trailer", "x-sum").pieces(["one ", "two ", "three"]);
                answer.trailers =
                    Some([("x-sum".parse().unwrap(), HeaderValue::from_static("7"))].into_iter().collect());
                answer
            }
        }),
    )
    .await;
    for place in places() {
        let client = site.builder(place).build().unwrap();
        let get = async |path: &str| client.get(site.url(path)).header("te", "trailers").send().await.unwrap();
        assert_eq!(get("/json").await.json::<serde_json::Value>().await.unwrap()["a"][1], 2);
        assert_eq!(text(get("/latin").await).await, "grün");
        assert_eq!(get("/none").await.bytes().await.unwrap(), "");
        let (body, trailers) = get("/").await.collect().await.unwrap();
        assert_eq!(
            (body, trailers.unwrap()["x-sum"].as_bytes()),
            (Bytes::from("one two three"), &b"7"[..]),
            "{place:?}"
        );
        let mut pieces = get("/").await;
        let mut read = Vec::new();
        while let Some(piece) = pieces.chunk().await.unwrap() {
            read.extend_from_slice(&piece);
        }
        assert_eq!((read.as_slice(), pieces.trailers().unwrap().len()), (&b"one two three"[..], 1), "{place:?}");
        let mut read = String::new();
        let mut reader = get("/").await.into_reader();
        tokio::io::AsyncReadExt::read_to_string(&mut reader, &mut read).await.unwrap();
        assert_eq!(read, "one two three");
        let stream: Vec<_> = futures_util::StreamExt::collect(get("/").await.bytes_stream()).await;
        assert_eq!(stream.into_iter().map(Result::unwrap).collect::<Vec<_>>().concat(), b"one two three");
        let body = get("/").await.into_http().into_body().collect().await.unwrap();
        assert_eq!((body.trailers().unwrap().len(), body.to_bytes()), (1, Bytes::from("one two three")));
    }
}

#[tokio::test]
async fn each_bound_ends_the_call_that_it_is_for() {
    let certs = Certs::new();
    let handler: Say = Arc::new(|parts, _| {
        Box::pin(async move {
            if parts.uri.path() == "/silent" {
                std::future::pending::<()>().await;
            }
            Answer::new(200, "half").stuck()
        })
    });
    let site = Everywhere::start(&certs, handler).await;
    let short = Duration::from_millis(60);
    for place in places() {
        let client = site.builder(place).retry(Retry::never()).build().unwrap();
        let named = |error: Error, phase: Phase| {
            assert_eq!((error.kind(), error.phase()), (Kind::Timeout, Some(phase)), "{place:?}: {error}");
            assert!(error.to_string().contains(&format!("localhost:{}", site.web.addr.port())), "{error}");
        };
        // Connected before, so that what follows is about answers alone.
        drop(client.get(site.url("/stuck")).send().await.unwrap());
        let silent = || client.get(site.url("/silent"));
        named(silent().first_byte_timeout(short).send().await.unwrap_err(), Phase::FirstByte);
        named(silent().timeout(short).send().await.unwrap_err(), Phase::Total);
        let idle = portolan_core::Timeouts::default().idle(short);
        let stuck = client.get(site.url("/stuck")).timeouts(idle).send().await.unwrap();
        named(stuck.bytes().await.unwrap_err(), Phase::Idle);
        // It ends in the body, or before where the machine is slow.
        let stuck = async { client.get(site.url("/stuck")).timeout(short).send().await?.bytes().await };
        named(stuck.await.unwrap_err(), Phase::Total);
        assert_eq!(client.metrics().busy, 0, "{place:?}");
    }
}

#[tokio::test]
async fn redirects_keep_their_rules() {
    let certs = Certs::new();
    let away: Arc<std::sync::OnceLock<String>> = Arc::default();
    let there = away.clone();
    let site = Everywhere::start(
        &certs,
        say(move |parts, body| {
            let path = parts.uri.path();
            let field = |name: &str| parts.headers.get(name).map_or("-", |value| value.to_str().unwrap()).to_owned();
            match path.split('/').collect::<Vec<_>>()[1..] {
                ["to", status] => Answer::new(status.parse().unwrap(), "").with("location", "../end?x"),
                ["away"] => Answer::new(307, "").with("location", there.get().unwrap()),
                ["loop"] => Answer::new(302, "").with("location", "/loop"),
                ["count", n] => {
                    Answer::new(302, "").with("location", &format!("/count/{}", n.parse::<u32>().unwrap() + 1))
                }
                ["plain"] => Answer::new(302, "").with("location", "http://localhost:1/"),
                _ => {
                    let known = ["authorization", "cookie", "referer"].map(field).join(" ");
                    Answer::new(200, format!("{} {path} {known} {}", parts.method, body.len()))
                }
            }
        }),
    )
    .await;
    away.set(site.url("/end").replace("localhost", "127.0.0.1")).unwrap();
    for place in places() {
        let client = site.builder(place).referer(true).build().unwrap();
        let base = site.url("");
        let post = |path: &str| client.post(site.url(path)).bearer_auth("t").header("cookie", "a=b").body("12345");
        for (path, end) in [
            ("/to/301", format!("GET /end Bearer t a=b {base}/to/301 0")),
            ("/to/303", format!("GET /end Bearer t a=b {base}/to/303 0")),
            ("/to/307", format!("POST /end Bearer t a=b {base}/to/307 5")),
            // Another origin: credentials stay, and where we come from is said without its path.
            ("/away", format!("POST /end - - {base}/ 5")),
        ] {
            let response = post(path).send().await.unwrap();
            assert_eq!(response.redirects(), [site.url(path).parse::<http::Uri>().unwrap()], "{place:?}");
            assert!(response.uri().path() == "/end" && response.version() == spoken(place));
            assert_eq!(text(response).await, end, "{place:?}");
        }
        let kind = async |path: &str, rule: Redirect| {
            client
                .get(site.url(path))
                .redirect(rule)
                .send()
                .await
                .map(|response| response.status())
                .map_err(|e| e.kind())
        };
        assert_eq!(kind("/loop", Redirect::limited(50)).await, Err(Kind::Limit), "{place:?}");
        assert_eq!(kind("/to/302", Redirect::limited(1)).await, Ok(StatusCode::OK), "{place:?}");
        assert_eq!(kind("/to/302", Redirect::limited(0)).await, Err(Kind::Limit), "{place:?}");
        assert_eq!(kind("/count/0", Redirect::limited(7)).await, Err(Kind::Limit), "{place:?}");
        assert_eq!(kind("/plain", Redirect::default()).await, Err(Kind::Blocked), "{place:?}");
        assert_eq!(kind("/to/302", Redirect::none()).await, Ok(StatusCode::FOUND), "{place:?}");
        let rule = Redirect::limited(50).when(|hop| hop.to.path() != "/count/3");
        let stopped = client.get(site.url("/count/0")).redirect(rule).send().await.unwrap();
        assert_eq!((stopped.status(), stopped.uri().path()), (StatusCode::FOUND, "/count/2"), "{place:?}");
    }
}

#[tokio::test]
async fn failures_are_tried_again_as_was_said() {
    let certs = Certs::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let site = Everywhere::start(
        &certs,
        say(move |parts, _| {
            let n = count.fetch_add(1, Ordering::SeqCst);
            match parts.uri.path() {
                "/twice" if n < 2 => Answer::new(503, "later").with("retry-after", "0"),
                "/always" => Answer::new(429, "no").with("retry-after", "0"),
                "/long" => Answer::new(503, "no").with("retry-after", "11"),
                "/plain" => Answer::new(503, "no"),
                _ => Answer::new(200, "ok"),
            }
        }),
    )
    .await;
    for place in places() {
        let client = site.builder(place).build().unwrap();
        for (path, retry, status, attempts) in [
            ("/twice", None, 200, 3),
            ("/twice", Some(Retry::new().attempts(2)), 503, 2),
            ("/twice", Some(Retry::never()), 503, 1),
            ("/always", None, 429, 3),
            ("/always", Some(Retry::new().attempts(9).budget(Budget::new(4))), 429, 5),
            // Longer than we are ready to wait, and nothing said at all: the answer is the answer.
            ("/long", None, 503, 1),
            ("/plain", None, 503, 1),
        ] {
            asked.store(0, Ordering::SeqCst);
            let request = client.post(site.url(path)).body("x");
            let request = retry.into_iter().fold(request, portolan_http::RequestBuilder::retry);
            let response = request.send().await.unwrap();
            assert_eq!((response.status().as_u16(), response.attempts()), (status, attempts), "{place:?} {path}");
            assert_eq!(asked.load(Ordering::SeqCst), attempts as usize, "{place:?} {path}");
            if status != 200 {
                let error = response.error_for_status().unwrap_err();
                assert_eq!((error.kind(), error.code()), (Kind::Server, Some(i64::from(status))));
                assert_eq!(error.delivery(), Delivery::Answered);
            }
        }
    }
}

#[tokio::test]
async fn cookies_are_kept_and_said_again() {
    let certs = Certs::new();
    let site = Everywhere::start(
        &certs,
        say(|parts, _| {
            let said = parts.headers.get_all("cookie").iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>();
            match parts.uri.path() {
                "/set" => Answer::new(302, "")
                    .with("location", "/show")
                    .with("set-cookie", "__Host-a=1; Secure; Path=/")
                    .with("set-cookie", "b=2; Path=/other"),
                _ => Answer::new(200, said.join("|")),
            }
        }),
    )
    .await;
    for place in places() {
        let jar = Arc::new(portolan_http::cookie::Jar::new());
        let client = site.builder(place).cookie_jar(jar.clone()).build().unwrap();
        let get = async |path: &str| text(client.get(site.url(path)).send().await.unwrap()).await;
        assert_eq!(get("/show").await, "");
        assert_eq!(get("/set").await, "__Host-a=1", "{place:?}");
        assert_eq!(get("/other/x").await, "b=2; __Host-a=1", "{place:?}");
        assert_eq!(jar.len(), 2);
    }
}

#[tokio::test]
async fn compressed_bodies_are_undone_up_to_the_limit() {
    use std::io::Write;
    let certs = Certs::new();
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let (exact, one_more) = (gzip(&[b'z'; 100_000]), gzip(&[b'z'; 100_001]));
    let site = Everywhere::start(
        &certs,
        say(move |parts, _| match parts.headers.get("accept-encoding") {
            None => Answer::new(200, "as it is"),
            Some(_) => {
                let body = if parts.uri.path() == "/exact" { &exact } else { &one_more };
                Answer::new(200, body.clone()).with("content-encoding", "gzip")
            }
        }),
    )
    .await;
    for place in places() {
        let options = DecodeOptions::new().with_max_ratio(None).with_max_output(100_000);
        let client = site.builder(place).decompression(options).build().unwrap();
        let get = async |path: &str| client.get(site.url(path)).send().await.unwrap();
        let response = get("/exact").await;
        assert!(!response.headers().contains_key("content-encoding") && response.content_length().is_none());
        assert_eq!(response.bytes().await.unwrap().len(), 100_000, "{place:?}");
        let error = get("/one-more").await.bytes().await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (Kind::Limit, Delivery::Answered), "{place:?}: {error}");
        let mut raw = client.get(site.url("/exact")).build().unwrap();
        raw.set_decompression(false);
        assert_eq!(text(client.execute(raw).await.unwrap()).await, "as it is");
        let plain = site.builder(place).decompression(None).build().unwrap();
        assert_eq!(text(plain.get(site.url("/exact")).send().await.unwrap()).await, "as it is");
    }
}

#[tokio::test]
async fn a_gathered_body_has_the_limit_that_was_said() {
    let certs = Certs::new();
    let site = Everywhere::start(
        &certs,
        say(|parts, _| match parts.uri.path() {
            "/whole" => Answer::new(200, vec![b'x'; 5000]),
            _ => Answer::new(200, "").pieces(["0123456789"; 500]),
        }),
    )
    .await;
    for place in places() {
        for (max, fits) in [(5000, true), (4999, false)] {
            let client = site.builder(place).max_body(max).build().unwrap();
            for path in ["/whole", "/pieces"] {
                match client.get(site.url(path)).send().await.unwrap().bytes().await {
                    Ok(body) => assert!(fits && body.len() == 5000, "{place:?} {path} {max}"),
                    Err(error) => assert!(!fits && error.kind() == Kind::Limit, "{place:?} {path} {max}: {error}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn the_pool_has_the_limits_that_were_said() {
    let certs = Certs::new();
    let site = Everywhere::start(&certs, echo()).await;
    for place in places() {
        let get = async |client: &Client| text(client.get(site.url("/")).send().await.unwrap()).await;
        // One connection, however many ask; by HTTP/2 and 3 it has room for two at a time here.
        let client = site.builder(place).max_connections_per_host(1).max_streams_per_connection(2).build().unwrap();
        let before = site.accepted();
        futures_util::future::join_all((0..20).map(|_| get(&client))).await;
        assert_eq!((site.accepted() - before, client.metrics().opened), (1, 1), "{place:?}");
        // So many requests on one, and no more.
        let client = site.builder(place).max_requests_per_connection(2).build().unwrap();
        for _ in 0..5 {
            get(&client).await;
        }
        assert_eq!(client.metrics().opened, 3, "{place:?}");
        let client = site.builder(place).max_connection_age(Duration::ZERO).build().unwrap();
        for _ in 0..2 {
            get(&client).await;
        }
        assert_eq!(client.metrics().opened, 2, "{place:?}");
        let client = site.builder(place).idle_timeout(Duration::from_millis(20)).build().unwrap();
        get(&client).await;
        let over = async {
            while client.metrics().idle > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), over).await.expect("idle connections end");
        get(&client).await;
        assert_eq!(client.metrics().opened, 2, "{place:?}");
        // Who finds no room within the wait is told so.
        let pool = portolan_pool::PoolOptions::default().per_key(1).wait(Duration::from_millis(30)).queue(1);
        let client = site.builder(place).pool(pool).max_streams_per_connection(2).build().unwrap();
        let held = futures_util::future::join_all((0..2).map(|_| client.get(site.url("/")).send())).await;
        let held: Vec<_> = held.into_iter().filter_map(Result::ok).collect();
        if place.0 == Version::Http1Only {
            let error = client.get(site.url("/")).send().await.unwrap_err();
            assert_eq!((error.phase(), error.delivery()), (Some(Phase::Pool), Delivery::NotSent), "{place:?}: {error}");
        }
        drop(held);
        client.close();
        let error = client.get(site.url("/")).send().await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (Kind::Closed, Delivery::NotSent), "{place:?}: {error}");
    }
}

#[tokio::test]
async fn a_cache_and_a_middleware_serve_every_version() {
    struct Stamp(Log<Spoken>);
    impl Middleware for Stamp {
        async fn handle(&self, mut request: Request, next: Next<'_>) -> portolan_core::Result<Response> {
            request.headers_mut().insert("x-a", HeaderValue::from_static("stamped"));
            let response = next.run(request).await?;
            self.0.lock().unwrap().push(response.version());
            Ok(response)
        }
    }
    let certs = Certs::new();
    let site = Everywhere::start(
        &certs,
        say(|parts, _| match parts.headers.get("if-none-match") {
            Some(_) => Answer::new(304, "").with("etag", "\"v\""),
            None => {
                let control = if parts.uri.path() == "/fresh" { "max-age=60" } else { "no-cache" };
                let stamp = parts.headers["x-a"].to_str().unwrap();
                Answer::new(200, stamp.to_owned()).with("etag", "\"v\"").with("cache-control", control)
            }
        }),
    )
    .await;
    for place in places() {
        let log: Log<Spoken> = Log::default();
        let client = site.builder(place).cache(Cache::new()).middleware(Stamp(log.clone())).build().unwrap();
        for (path, how) in [("/fresh", FromCache::Fresh), ("/tagged", FromCache::Validated)] {
            for turn in 0..2 {
                let response = client.get(site.url(path)).send().await.unwrap();
                let from = response.extensions().get::<FromCache>().copied();
                assert_eq!((from, response.status()), ((turn > 0).then_some(how), StatusCode::OK), "{place:?}");
                assert_eq!(text(response).await, "stamped");
            }
        }
        assert_eq!(*log.lock().unwrap(), [spoken(place); 3], "{place:?}");
    }
}

#[tokio::test]
async fn a_slow_answer_is_hedged() {
    let certs = Certs::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let handler: Say = Arc::new(move |_, _| {
        let slow = count.fetch_add(1, Ordering::SeqCst) == 0;
        Box::pin(async move {
            if slow {
                std::future::pending::<()>().await;
            }
            Answer::new(200, "quick")
        })
    });
    let site = Everywhere::start(&certs, handler).await;
    for place in places() {
        asked.store(0, Ordering::SeqCst);
        let client = site.builder(place).build().unwrap();
        let response = client.get(site.url("/")).hedge(Duration::from_millis(100)).send().await.unwrap();
        assert_eq!(text(response).await, "quick");
        assert_eq!((asked.load(Ordering::SeqCst), client.metrics().busy), (2, 0), "{place:?}");
    }
}

#[tokio::test]
async fn one_request_may_go_its_own_way() {
    let certs = Certs::new();
    let site = Everywhere::start(&certs, echo()).await;
    let client = Client::builder().connector(site.net(Way::Direct).build().unwrap()).build().unwrap();
    for place in places() {
        let net = site.net(place.1).build().unwrap();
        let response = client.get(site.url("/")).version(place.0).connector(net).send().await.unwrap();
        assert_eq!(response.version(), spoken(place));
        assert_eq!(response.connection_info().hops.len(), usize::from(place.1 == Way::Proxy));
        assert!(!response.is_reused(), "{place:?}");
        assert!(text(response).await.starts_with("GET"));
    }
    // A proxy that is said for a request alone, and one that is not there.
    let nobody = Hop::parse(&format!("socks5://127.0.0.1:{}", portolan_testbed::free_port())).unwrap();
    for version in [Version::Http1Only, Version::Http2Only, Version::Http3Only] {
        let request = client.get(site.url("/")).version(version).proxy(nobody.clone());
        let error = request.send().await.unwrap_err();
        assert_eq!((error.kind(), error.hop(), error.delivery()), (Kind::Hop, Some(0), Delivery::NotSent), "{error}");
    }
}

#[tokio::test]
async fn digest_is_answered_and_bodies_wait_where_that_was_said() {
    let certs = Certs::new();
    let site = Everywhere::start(
        &certs,
        say(|parts, body| match parts.headers.get("authorization") {
            Some(answer) => {
                let answer = answer.to_str().unwrap();
                let method = parts.method.as_str();
                Answer::new(200, format!("{method} {} {}", answer.contains("username=\"joe\""), body.len()))
            }
            None => Answer::new(401, "who")
                .with("www-authenticate", "Digest realm=\"r\", nonce=\"abc\", qop=\"auth\", algorithm=SHA-256"),
        }),
    )
    .await;
    for place in places() {
        let client = site.builder(place).build().unwrap();
        let request = client.post(site.url("/x")).digest_auth("joe", "pw").expect_continue().body(vec![b'x'; 70_000]);
        assert_eq!(text(request.send().await.unwrap()).await, "POST true 70000", "{place:?}");
    }
}
