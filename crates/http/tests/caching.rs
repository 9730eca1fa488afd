//! The cache and redirects: each answer is kept for itself.

#![allow(
    clippy::large_futures,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and drives the client by hand"
)]

mod support;

use std::sync::Arc;

use http::StatusCode;
use portolan_core::Kind;
use portolan_http::cache::{Cache, FromCache};
use portolan_http::{Client, Middleware, Next, Redirect, Request, Response};
use portolan_testbed::Certs;
use support::everywhere::{Answer, Everywhere, Log, places, say};

const FRESH: &str = "max-age=600";

/// A site whose pages move, and what it was asked for.
async fn site(certs: &Certs) -> (Everywhere, Log<String>) {
    let asked: Log<String> = Log::default();
    let log = asked.clone();
    let site = Everywhere::start(
        certs,
        say(move |parts, _| {
            let path = parts.uri.path();
            log.lock().unwrap().push(format!("{} {path}", parts.method));
            let moved = |status, to: &str| Answer::new(status, "moved").with("location", to);
            match path {
                "/a" => moved(301, "/b").with("cache-control", FRESH).with("content-type", "text/x"),
                "/b" => moved(308, "/end").with("cache-control", FRESH),
                "/once" => moved(302, "/end"),
                "/never" => moved(301, "/end").with("cache-control", "no-store"),
                "/uncached" => moved(301, "/live").with("cache-control", FRESH),
                "/live" => Answer::new(200, "live").with("cache-control", "no-store"),
                "/loop" => moved(301, "/loop").with("cache-control", FRESH),
                "/post" => moved(303, "/end").with("cache-control", FRESH),
                "/varies" => moved(301, &format!("/{}", parts.headers["x-to"].to_str().unwrap()))
                    .with("cache-control", FRESH)
                    .with("vary", "x-to"),
                "/old" => moved(301, "/cookie").with("cache-control", FRESH).with("set-cookie", "n=old; Path=/"),
                "/new" => Answer::new(200, "").with("cache-control", "no-store").with("set-cookie", "n=new; Path=/"),
                "/cookie" => {
                    let said = parts.headers.get("cookie").map_or("-", |value| value.to_str().unwrap());
                    Answer::new(200, said.to_owned()).with("cache-control", "no-store")
                }
                _ => Answer::new(200, format!("at {path}")).with("cache-control", FRESH),
            }
        }),
    )
    .await;
    (site, asked)
}

fn taken(log: &Log<String>) -> Vec<String> {
    std::mem::take(&mut log.lock().unwrap())
}

fn from(response: &Response) -> Option<FromCache> {
    response.extensions().get::<FromCache>().copied()
}

#[tokio::test]
async fn redirects_that_are_kept_are_followed_without_asking() {
    let certs = Certs::new();
    let (site, asked) = site(&certs).await;
    for place in places() {
        let client = site.builder(place).cache(Cache::new()).build().unwrap();
        let get = async |path: &str| client.get(site.url(path)).send().await.unwrap();
        for turn in 0..3 {
            let response = get("/a").await;
            assert_eq!((response.status(), response.uri().path()), (StatusCode::OK, "/end"), "{place:?}");
            let through: Vec<_> = response.redirects().iter().map(|uri| uri.path().to_owned()).collect();
            assert_eq!(
                (through, from(&response)),
                (vec!["/a".into(), "/b".into()], (turn > 0).then_some(FromCache::Fresh))
            );
            assert_eq!(response.text().await.unwrap(), "at /end");
        }
        assert_eq!(taken(&asked), ["GET /a", "GET /b", "GET /end"], "{place:?}");
        // Each of them is kept under its own name.
        for path in ["/b", "/end"] {
            assert_eq!(from(&get(path).await), Some(FromCache::Fresh));
        }
        assert!(taken(&asked).is_empty());
        // What leads there for now is asked each time, and the rest is known.
        for path in ["/once", "/never"] {
            for _ in 0..2 {
                assert_eq!(from(&get(path).await), Some(FromCache::Fresh), "{path}");
                assert_eq!(taken(&asked), [format!("GET {path}")]);
            }
        }
        for turn in 0..2 {
            assert_eq!(from(&get("/uncached").await), None);
            assert_eq!(taken(&asked)[usize::from(turn == 0)..], ["GET /live"], "{place:?}");
        }
    }
}

#[tokio::test]
async fn rules_of_redirects_hold_for_what_is_kept() {
    let certs = Certs::new();
    let (site, asked) = site(&certs).await;
    let client = site.builder(places().next().unwrap()).cache(Cache::new()).build().unwrap();
    let ask = |path: &str| client.get(site.url(path));
    ask("/a").send().await.unwrap().bytes().await.unwrap();
    taken(&asked);
    // Who follows none is shown the redirect, and not what was left of it.
    let shown = ask("/a").redirect(Redirect::none()).send().await.unwrap();
    assert_eq!((shown.status().as_u16(), from(&shown)), (301, None));
    assert_eq!(shown.text().await.unwrap(), "moved");
    assert_eq!(taken(&asked), ["GET /a"]);
    let shown = ask("/a").redirect(Redirect::none()).send().await.unwrap();
    assert_eq!((shown.status().as_u16(), from(&shown)), (301, Some(FromCache::Fresh)));
    assert_eq!(shown.text().await.unwrap(), "moved");
    let stopped = ask("/a").redirect(Redirect::default().when(|hop| hop.to.path() != "/end")).send().await.unwrap();
    assert_eq!((stopped.status().as_u16(), stopped.uri().path()), (308, "/b"));
    let error = ask("/a").redirect(Redirect::limited(1)).send().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Limit);
    assert_eq!(ask("/loop").send().await.unwrap_err().kind(), Kind::Limit);
    assert_eq!(ask("/loop").send().await.unwrap_err().kind(), Kind::Limit);
    taken(&asked);
    // Nothing is sent where that was said; what is not kept is missing.
    let kept = |path: &str| ask(path).header("cache-control", "only-if-cached").send();
    assert_eq!(kept("/a").await.unwrap().text().await.unwrap(), "at /end");
    ask("/uncached").send().await.unwrap().bytes().await.unwrap();
    taken(&asked);
    assert_eq!(kept("/uncached").await.unwrap().status(), StatusCode::GATEWAY_TIMEOUT);
    assert!(taken(&asked).is_empty());
    // A reload asks for all of it.
    let reload = ask("/a").header("cache-control", "no-cache").send().await.unwrap();
    assert_eq!((from(&reload), reload.text().await.unwrap().as_str()), (None, "at /end"));
    assert_eq!(taken(&asked), ["GET /a", "GET /b", "GET /end"]);
    // Redirects vary as other answers do.
    for (to, path) in [("x", "/x"), ("y", "/y"), ("x", "/x")] {
        let varied = ask("/varies").header("x-to", to).send().await.unwrap();
        assert_eq!(varied.text().await.unwrap(), format!("at {path}"));
    }
    assert_eq!(taken(&asked), ["GET /varies", "GET /x", "GET /varies", "GET /y"]);
    // What was posted is posted again, and the page that it leads to is known.
    for turn in 0..2 {
        let posted = client.post(site.url("/post")).body("x").send().await.unwrap();
        assert_eq!(posted.text().await.unwrap(), "at /end", "{turn}");
        assert_eq!(taken(&asked)[0], "POST /post");
    }
}

#[tokio::test]
async fn a_redirect_that_is_kept_sets_its_cookies_once() {
    let certs = Certs::new();
    let (site, asked) = site(&certs).await;
    let jar = Arc::new(portolan_http::cookie::Jar::new());
    let client = site.builder(places().next().unwrap()).cache(Cache::new()).cookie_jar(jar).build().unwrap();
    let get = async |path: &str| client.get(site.url(path)).send().await.unwrap().text().await.unwrap();
    assert_eq!(get("/old").await, "n=old");
    get("/new").await;
    assert_eq!(get("/old").await, "n=new");
    assert_eq!(taken(&asked), ["GET /old", "GET /cookie", "GET /new", "GET /cookie"]);
}

/// Adds a mark to what comes by.
struct Mark;

impl Middleware for Mark {
    async fn handle(&self, request: Request, next: Next<'_>) -> portolan_core::Result<Response> {
        let response = next.run(request).await?;
        let (uri, head) = (response.uri().clone(), http::Response::new(()));
        let body = portolan_http::Body::from(format!("{}!", response.text().await?));
        let mut marked = head.map(|()| portolan_http::Incoming::from_body(body));
        marked.headers_mut().insert("cache-control", http::HeaderValue::from_static(FRESH));
        Ok(Response::from_http(marked, uri))
    }
}

#[tokio::test]
async fn what_stands_below_the_cache_sees_an_answer_once() {
    let certs = Certs::new();
    let (site, asked) = site(&certs).await;
    let client = site.builder(places().next().unwrap()).cache(Cache::new()).middleware(Mark).build().unwrap();
    for path in ["/end", "/end", "/b", "/b"] {
        let response = client.get(site.url(path)).send().await.unwrap();
        assert_eq!(response.text().await.unwrap(), "at /end!", "{path}");
    }
    taken(&asked);
}

/// Asks twice, and takes the second answer.
struct Twice;

impl Middleware for Twice {
    async fn handle(&self, request: Request, next: Next<'_>) -> portolan_core::Result<Response> {
        next.run(request.try_clone().unwrap()).await?;
        next.run(request).await
    }
}

#[tokio::test]
async fn what_was_never_read_is_not_kept_though_it_was_asked_for_twice() {
    let certs = Certs::new();
    let (site, asked) = site(&certs).await;
    let client = site.builder(places().next().unwrap()).cache(Cache::new()).middleware(Twice).build().unwrap();
    drop(client.get(site.url("/b")).send().await.unwrap());
    assert_eq!(taken(&asked), ["GET /b", "GET /end", "GET /b", "GET /end"]);
    let response = client.get(site.url("/b")).send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "at /end");
}

/// Puts a token on what it sees.
struct Token;

impl Middleware for Token {
    async fn handle(&self, mut request: Request, next: Next<'_>) -> portolan_core::Result<Response> {
        request.headers_mut().insert("authorization", http::HeaderValue::from_static("Bearer t"));
        next.run(request).await
    }
}

#[tokio::test]
async fn what_stands_below_the_cache_sees_a_request_once_and_its_token_stays_with_the_origin() {
    let certs = Certs::new();
    let away: Arc<std::sync::OnceLock<String>> = Arc::default();
    let to = away.clone();
    let site = Everywhere::start(
        &certs,
        say(move |parts, _| {
            let known = parts.headers.contains_key("authorization");
            match parts.uri.path() {
                "/a" => Answer::new(301, "").with("location", to.get().unwrap()).with("cache-control", FRESH),
                _ => Answer::new(200, known.to_string()).with("cache-control", "no-store"),
            }
        }),
    )
    .await;
    away.set(site.url("/end").replace("localhost", "127.0.0.1")).unwrap();
    let client = site.builder(places().next().unwrap()).cache(Cache::new()).middleware(Token).build().unwrap();
    for _ in 0..2 {
        let response = client.get(site.url("/a")).send().await.unwrap();
        assert_eq!(response.text().await.unwrap(), "false");
    }
}

#[tokio::test]
async fn a_validated_answer_tells_who_validated_it() {
    let certs = Certs::new();
    let site = Everywhere::start(
        &certs,
        say(|parts, _| match parts.headers.get("if-none-match") {
            Some(_) => Answer::new(304, ""),
            None => Answer::new(200, "body").with("etag", "\"v\"").with("cache-control", "no-cache"),
        }),
    )
    .await;
    let client: Client = site.builder(places().next().unwrap()).cache(Cache::new()).build().unwrap();
    for turn in 0..2 {
        let response = client.get(site.url("/")).send().await.unwrap();
        assert_eq!(from(&response), (turn > 0).then_some(FromCache::Validated));
        assert_eq!((response.attempts(), response.is_reused(), response.uri().path()), (1, turn > 0, "/"));
        assert!(response.remote_addr().is_some() && response.timings().total > std::time::Duration::ZERO);
        assert_eq!((response.status(), response.text().await.unwrap().as_str()), (StatusCode::OK, "body"));
    }
}
