//! What signs requests: each attempt anew, for the origin that was asked alone.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests fail by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::header::HeaderValue;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use portolan_core::{Delivery, Error, Kind, Resolver, Result};
use portolan_http::{Body, Client, Sign};
use support::{Web, heads, reply};

/// Numbers its signatures, and puts a mark before the body.
#[derive(Clone, Default)]
struct Numbered {
    count: Arc<AtomicU64>,
    again: bool,
}

impl Sign for Numbered {
    async fn sign(&self, request: &mut Parts, body: Body) -> Result<Body> {
        let number = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        request.headers.append("x-signature", HeaderValue::from(number));
        let authority = request.uri.authority().map_or("", |authority| authority.as_str());
        request.headers.append("x-authority", HeaderValue::from_str(authority).unwrap());
        Ok(body)
    }

    fn refused(&self, status: StatusCode, _: &HeaderMap) -> bool {
        self.again && status == StatusCode::UNAUTHORIZED
    }
}

fn signatures(request: &http::Request<hyper::body::Incoming>) -> String {
    let all = request.headers().get_all("x-signature").iter();
    all.map(|value| value.to_str().unwrap()).collect::<Vec<_>>().join(",")
}

fn location(status: u16, to: &str) -> support::Reply {
    let mut reply = reply(status, "");
    reply.headers_mut().insert("location", to.parse().unwrap());
    reply
}

async fn text(response: Result<portolan_http::Response>) -> String {
    response.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn each_attempt_and_each_redirect_is_signed_anew() {
    let calls = Arc::new(AtomicUsize::new(0));
    let web = Web::plain(heads(move |request| match request.uri().path() {
        "/busy" if calls.fetch_add(1, Ordering::SeqCst) < 2 => {
            let mut reply = reply(503, "");
            reply.headers_mut().insert("retry-after", "0".parse().unwrap());
            reply
        }
        "/moved" => location(307, "/end"),
        _ => reply(200, signatures(request)),
    }))
    .await;
    let client = Client::builder().sign(Numbered::default()).build().unwrap();
    assert_eq!(text(client.put(web.url("/busy")).body("x").send().await).await, "3");
    assert_eq!(text(client.put(web.url("/moved")).body("x").send().await).await, "5");
    assert_eq!(text(client.get(web.url("/end")).unsigned().send().await).await, "");
    let own = Numbered::default();
    assert_eq!(text(client.get(web.url("/end")).sign(own).send().await).await, "1");
}

#[tokio::test]
async fn what_was_led_to_another_origin_is_signed_no_more() {
    let back = Arc::new(std::sync::Mutex::new(String::new()));
    let to = back.clone();
    let other = Web::plain(heads(move |request| match request.uri().path() {
        "/back" => location(302, &to.lock().unwrap()),
        _ => reply(200, format!("[{}]", signatures(request))),
    }))
    .await;
    let (away, there) = (other.url("/away"), other.url("/back"));
    let web = Web::plain(heads(move |request| match request.uri().path() {
        "/away" => location(302, &away),
        "/round" => location(302, &there),
        _ => reply(200, format!("[{}]", signatures(request))),
    }))
    .await;
    *back.lock().unwrap() = web.url("/end");
    let client = Client::builder().sign(Numbered::default()).build().unwrap();
    for path in ["/away", "/round"] {
        assert_eq!(text(client.get(web.url(path)).send().await).await, "[]", "{path}");
    }
    assert_eq!(text(client.get(web.url("/end")).send().await).await, "[3]");
}

/// Signs in the query, as presigned URLs are.
struct InQuery;

impl Sign for InQuery {
    async fn sign(&self, request: &mut Parts, body: Body) -> Result<Body> {
        let separator = if request.uri.query().is_some() { '&' } else { '?' };
        request.uri = format!("{}{separator}signature=secret", request.uri).parse().unwrap();
        Ok(body)
    }
}

#[tokio::test]
async fn a_signature_in_the_query_is_sent_and_told_nowhere() {
    let web = Web::plain(heads(|request| match request.uri().path() {
        "/moved" => location(302, "end?a=b"),
        // To where it came from, with all that it had.
        "/echoed" => location(302, &format!("/end?{}", request.uri().query().unwrap())),
        _ => reply(200, request.uri().to_string()),
    }))
    .await;
    let client = Client::builder().sign(InQuery).referer(true).build().unwrap();
    for (path, end, sent) in [
        ("/direct", "/direct", "/direct?signature=secret"),
        ("/moved?x", "/end?a=b", "/end?a=b&signature=secret"),
        // What the server says is the server's: it is followed as it stands.
        ("/echoed", "/end?signature=secret", "/end?signature=secret&signature=secret"),
    ] {
        let response = client.get(web.url(path)).send().await.unwrap();
        assert_eq!(response.uri().to_string(), web.url(end));
        assert!(response.redirects().iter().all(|seen| !seen.to_string().contains("secret")), "{path}");
        assert_eq!(text(Ok(response)).await, sent);
    }
}

#[tokio::test]
async fn digest_credentials_stay_with_their_origin_too() {
    let other = Web::plain(heads(|request| {
        let mut reply = reply(401, format!("{}", request.headers().contains_key("authorization")));
        reply
            .headers_mut()
            .insert("www-authenticate", "Digest realm=\"r\", nonce=\"n\", qop=\"auth\"".parse().unwrap());
        reply
    }))
    .await;
    let away = other.url("/away");
    let web = Web::plain(heads(move |_| location(302, &away))).await;
    let response = Client::new().get(web.url("/")).digest_auth("joe", "sesame").send().await;
    assert_eq!(text(response).await, "false");
}

#[tokio::test]
async fn a_body_that_can_be_had_once_is_signed_once_and_sent_whole() {
    use http_body_util::BodyExt;
    let calls = Arc::new(AtomicUsize::new(0));
    let web = Web::plain(Arc::new(move |request| {
        let number = signatures(&request);
        let calls = calls.clone();
        Box::pin(async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            calls.fetch_add(1, Ordering::SeqCst);
            reply(200, format!("{number} {}", String::from_utf8_lossy(&body)))
        })
    }))
    .await;
    // Nobody is there at first, so that the first attempt fails unsent.
    let asked = Arc::new(AtomicU64::new(0));
    let count = asked.clone();
    let resolver = Resolver::from_fn(move |_| {
        let last = if count.fetch_add(1, Ordering::SeqCst) == 0 { 77 } else { 1 };
        async move { Ok(vec![std::net::IpAddr::from([127, 0, 0, last])]) }
    });
    let signer = Numbered::default();
    let client = Client::builder().resolver(resolver).sign(signer.clone()).build().unwrap();
    let url = format!("http://moving.test:{}/", web.addr.port());
    let stream = || Body::from_stream(futures_util::stream::iter([Ok::<_, std::io::Error>("on"), Ok("ce")]));
    let response = client.post(&url).body(stream()).send().await.unwrap();
    assert_eq!((response.attempts(), asked.load(Ordering::SeqCst)), (2, 2));
    assert_eq!(response.text().await.unwrap(), "1 once");
    asked.store(0, Ordering::SeqCst);
    let client = Client::builder().resolver(client.connector().resolver().clone()).sign(signer).build().unwrap();
    let response = client.post(&url).body(Body::from_fn(stream)).send().await.unwrap();
    assert_eq!((response.attempts(), response.text().await.unwrap().as_str()), (2, "3 once"));
}

#[tokio::test]
async fn a_refusal_that_signing_anew_cures_is_tried_once_more() {
    let web = Web::plain(heads(|request| {
        let number = signatures(request);
        let good = request.uri().path() == "/second" && number == "2";
        reply(if good { 200 } else { 401 }, number)
    }))
    .await;
    let client = |again| Client::builder().sign(Numbered { again, ..Numbered::default() }).build().unwrap();
    let response = client(true).get(web.url("/second")).send().await.unwrap();
    assert_eq!((response.status(), text(Ok(response)).await.as_str()), (StatusCode::OK, "2"));
    let response = client(true).get(web.url("/never")).send().await.unwrap();
    assert_eq!((response.status(), text(Ok(response)).await.as_str()), (StatusCode::UNAUTHORIZED, "2"));
    assert_eq!(text(client(false).get(web.url("/second")).send().await).await, "1");
}

#[tokio::test]
async fn the_signer_sees_the_authority_as_it_is_sent() {
    let web = Web::plain(heads(|request| {
        let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        reply(200, format!("{} {}", header("x-authority").unwrap(), header("host").unwrap()))
    }))
    .await;
    let port = web.addr.port();
    let client = Client::builder().sign(Numbered::default()).build().unwrap();
    let seen = text(client.get(format!("http://LOCALHOST:{port}/")).send().await).await;
    assert_eq!(seen, format!("localhost:{port} localhost:{port}"));
}

struct Fails;

impl Sign for Fails {
    async fn sign(&self, _: &mut Parts, _: Body) -> Result<Body> {
        Err(Error::new(Kind::Auth, "no key today"))
    }
}

#[tokio::test]
async fn a_signer_that_fails_sends_nothing() {
    let web = Web::plain(heads(|_| reply(200, ""))).await;
    let client = Client::builder().sign(Fails).timeout(Duration::from_secs(20)).build().unwrap();
    let error = client.get(web.url("/")).send().await.unwrap_err();
    assert_eq!((error.kind(), error.delivery(), web.accepted()), (Kind::Auth, Delivery::NotSent, 0));
}

/// A server whose clock is an hour ahead, as AWS refuses what is too old.
#[cfg(feature = "sigv4")]
#[tokio::test]
async fn a_wrong_clock_is_corrected_by_the_servers() {
    use portolan_http::sigv4::{AccessKey, SigV4};
    use std::time::UNIX_EPOCH;

    let web = Web::plain(heads(|request| {
        let late = request.headers()["x-amz-date"] == "20150830T123600Z";
        let mut reply = reply(if late { 403 } else { 200 }, request.headers()["x-amz-date"].as_bytes().to_vec());
        reply.headers_mut().insert("date", "Sun, 30 Aug 2015 13:36:00 GMT".parse().unwrap());
        reply
    }))
    .await;
    let signer = || {
        let key = AccessKey::new("AKIDEXAMPLE", "secret");
        SigV4::new(key, "us-east-1", "s3").clock(|| UNIX_EPOCH + Duration::from_secs(1_440_938_160))
    };
    let client = Client::builder().sign(signer()).build().unwrap();
    assert_eq!(text(client.put(web.url("/")).body("x").send().await).await, "20150830T133600Z");
    let before = web.accepted();
    assert_eq!(text(client.get(web.url("/")).send().await).await, "20150830T133600Z");
    assert_eq!(web.accepted(), before);
    let stubborn = client.get(web.url("/")).sign(signer().correct_skew(false)).send().await.unwrap();
    assert_eq!(stubborn.status(), StatusCode::FORBIDDEN);
}
