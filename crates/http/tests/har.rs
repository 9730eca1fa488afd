//! HAR: recorded with bodies, and answered from.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "tests fail by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderValue, StatusCode, Version};
use http_body_util::BodyExt;
use portolan_core::{Connector, Kind, Result};
use portolan_http::har::{Entry, Har, HarOptions, MessageData, Missing, NotRecorded, Recorder, Replay};
use portolan_http::{Client, OnMessage, Redirect, SocketMessage};
use serde_json::{Value, json};
use support::{Handler, Web, reply};

/// Counts; redirects `/moved` to `/`; answers with what was sent, and bytes that are no text at `/bytes`.
fn site() -> Handler {
    let count = AtomicUsize::new(0);
    let count = Arc::new(count);
    Arc::new(move |request| {
        let count = count.clone();
        Box::pin(async move {
            let n = count.fetch_add(1, Ordering::SeqCst);
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let mut answer = match path.as_str() {
                "/moved" => reply(302, ""),
                "/bytes" => reply(200, vec![0xff, 0, 1]),
                _ => reply(200, format!("{n} {} ä", String::from_utf8_lossy(&body))),
            };
            answer.headers_mut().insert("location", HeaderValue::from_static("/"));
            answer.headers_mut().insert("content-type", HeaderValue::from_static("text/plain; charset=utf-8"));
            answer.headers_mut().insert("set-cookie", HeaderValue::from_static("sid=sesame"));
            answer
        })
    })
}

/// Nothing can be reached by it.
fn nowhere() -> Connector {
    Connector::builder().policy(portolan_core::Policy::public_only()).build().unwrap()
}

fn client(replay: &Replay) -> Client {
    Client::builder().connector(nowhere()).middleware(replay.clone()).build().unwrap()
}

async fn session(client: &Client, web: &str) -> Result<Vec<(StatusCode, Vec<u8>)>> {
    let mut heard = Vec::new();
    for request in [
        client.get(format!("{web}/")),
        client.get(format!("{web}/")),
        client.get(format!("{web}/bytes#fragment")),
        client.get(format!("{web}/moved")),
        client.post(format!("{web}/")).body("one"),
        client.post(format!("{web}/")).body("two"),
    ] {
        let response = request.send().await?;
        heard.push((response.status(), response.bytes().await?.to_vec()));
    }
    Ok(heard)
}

#[tokio::test]
async fn what_was_recorded_with_bodies_is_answered_without_a_server() {
    let web = Web::plain(site()).await;
    let recorder = Recorder::new(HarOptions::new().with_bodies(1000));
    let first = session(&Client::builder().middleware(recorder.clone()).build().unwrap(), &web.url("")).await.unwrap();
    let har = recorder.take();
    // A redirect is an exchange of its own.
    assert_eq!(har.len(), 7);
    assert!(!har.to_json().unwrap().contains("sesame"));
    let replay = Replay::from_har(&har).unwrap();
    let client = client(&replay);
    assert_eq!(session(&client, &web.url("")).await.unwrap(), first);
    assert_eq!(replay.unused(), 0);
    // The last is given again, and bodies choose.
    let get = async |url: &str| client.get(web.url(url)).send().await.unwrap().text().await.unwrap();
    assert_eq!(get("/").await.as_bytes(), first[3].1);
    let two = client.post(web.url("/")).body("two").send().await.unwrap();
    assert_eq!((two.bytes().await.unwrap().to_vec(), two_is_not(&first)), (first[5].1.clone(), true));
    let error = client.delete(web.url("/")).send().await.unwrap_err();
    let missing = error.server::<NotRecorded>().unwrap();
    assert_eq!((error.kind(), missing.method.as_str(), missing.url.as_str()), (Kind::Usage, "DELETE", &*web.url("/")));
}

fn two_is_not(first: &[(StatusCode, Vec<u8>)]) -> bool {
    first[4].1 != first[5].1
}

#[tokio::test]
async fn what_is_missing_is_sent_or_recorded_and_saved() {
    let web = Web::plain(site()).await;
    let dir = portolan_testbed::folder("har");
    let path = dir.join("site.har");
    Replay::new().save(&path).unwrap();
    let replay = Replay::load(&path).unwrap().missing(Missing::Record);
    let recording = Client::builder().middleware(replay.clone()).build().unwrap();
    let first = session(&recording, &web.url("")).await.unwrap();
    // Equal requests were answered by the server once each, and the rest from what was recorded meanwhile.
    assert!(first[0] == first[1] && web.accepted() == 1);
    replay.save(&path).unwrap();
    let again = Replay::load(&path).unwrap();
    assert_eq!(session(&client(&again), &web.url("")).await.unwrap(), first);
    std::fs::remove_dir_all(dir).unwrap();
    let passing = Replay::new().missing(Missing::PassThrough);
    let passing = Client::builder().middleware(passing.clone()).build().unwrap();
    assert_ne!(session(&passing, &web.url("")).await.unwrap(), first);
}

#[tokio::test]
async fn a_body_that_was_cut_is_not_taken_for_whole() {
    let web = Web::plain(site()).await;
    let recorder = Recorder::new(HarOptions::new().with_bodies(3));
    let recording = Client::builder().middleware(recorder.clone()).build().unwrap();
    recording.get(web.url("/")).send().await.unwrap().bytes().await.unwrap();
    // One that nobody read.
    drop(recording.get(web.url("/bytes")).send().await.unwrap());
    let har = recorder.take();
    let replay = Replay::from_har(&har).unwrap();
    for path in ["/", "/bytes"] {
        let error = client(&replay).get(web.url(path)).send().await.unwrap_err();
        assert!(error.message().contains("part of its body"), "{error}");
    }
    assert_eq!(har.len(), 2);
    // None were recorded, and what had none is whole.
    let recorder = Recorder::new(HarOptions::new());
    let recording = Client::builder().middleware(recorder.clone()).build().unwrap();
    recording.get(web.url("/")).send().await.unwrap();
    recording.head(web.url("/")).send().await.unwrap();
    let replay = Replay::from_har(&recorder.take()).unwrap();
    client(&replay).get(web.url("/")).send().await.unwrap_err();
    client(&replay).head(web.url("/")).send().await.unwrap();
    let bare = r#"{"log":{"entries":[{"request":{"method":"GET","url":"HTTP://Site.Example:80"},
        "response":{"status":200,"content":{"size":10}}}]}}"#;
    let error = client(&Replay::from_json(bare).unwrap()).get("http://site.example/").send().await.unwrap_err();
    assert!(error.message().contains("without its body"), "{error}");
}

/// As browsers write it: content unpacked and in Unicode, several values on lines, pseudo-fields, redirects one by one.
fn of_a_browser() -> String {
    let entry = |method: &str, url: &str, status: u16, headers: Value, content: Value| {
        json!({
            "_initiator": {"type": "other"}, "startedDateTime": "2026-11-21T10:00:00.000Z", "time": 12.5, "cache": {},
            "request": {"method": method, "url": url, "httpVersion": "h2", "headers": [], "queryString": [], "cookies": [], "headersSize": -1, "bodySize": 0},
            "response": {"status": status, "statusText": "", "httpVersion": "h2", "headers": headers, "cookies": [], "content": content,
                "redirectURL": "", "headersSize": -1, "bodySize": -1, "_transferSize": 10},
            "timings": {"blocked": -1, "dns": -1, "connect": -1, "send": 0.1, "wait": 12.0, "receive": 0.4},
        })
    };
    let pair = |name: &str, value: &str| json!({"name": name, "value": value});
    let entries = [
        entry(
            "GET",
            "https://site.example/start",
            301,
            json!([pair("location", "/page?a=1"), pair("set-cookie", "a=1; Path=/\nb=2; Path=/")]),
            json!({"size": 0, "mimeType": "x-unknown"}),
        ),
        entry(
            "GET",
            "https://site.example/page?a=1#top",
            200,
            json!([
                pair(":status", "200"),
                pair("content-encoding", "br"),
                pair("content-length", "7"),
                pair("Content-Type", "text/html; charset=iso-8859-1")
            ]),
            json!({"size": 5, "mimeType": "text/html", "text": "gr\u{fc}n"}),
        ),
        entry(
            "GET",
            "https://site.example/image",
            200,
            json!([pair("content-type", "image/png")]),
            json!({"size": 4, "mimeType": "image/png", "text": "iVBORw==", "encoding": "base64"}),
        ),
        entry("GET", "https://site.example/gone", 0, json!([]), json!({"size": 0, "mimeType": ""})),
    ];
    json!({"log": {"version": "1.2", "creator": {"name": "a browser", "version": "1"}, "pages": [], "entries": entries}}).to_string()
}

#[tokio::test]
async fn a_file_of_a_browser_is_answered_from_with_its_redirects_cookies_and_times() {
    let replay = Replay::from_json(&format!("\u{feff}{}", of_a_browser())).unwrap().repeat_last(false);
    let jar = Arc::new(portolan_http::cookie::Jar::new());
    let client =
        Client::builder().connector(nowhere()).cookie_jar(jar.clone()).middleware(replay.clone()).build().unwrap();
    let unfollowed = client.get("https://site.example/start").redirect(Redirect::none()).send().await.unwrap();
    assert_eq!(unfollowed.status(), StatusCode::MOVED_PERMANENTLY);
    let replay_again = Replay::from_json(&of_a_browser()).unwrap();
    let client =
        Client::builder().connector(nowhere()).cookie_jar(jar.clone()).middleware(replay_again).build().unwrap();
    let page = client.get("https://site.example/start").send().await.unwrap();
    assert_eq!((page.status(), page.version(), page.redirects().len()), (StatusCode::OK, Version::HTTP_2, 1));
    assert_eq!(page.timings().first_byte, Duration::from_millis(12));
    assert!(!page.headers().contains_key("content-encoding"));
    assert_eq!(page.text().await.unwrap(), "gr\u{fc}n");
    let image = client.get("https://site.example/image").send().await.unwrap().bytes().await.unwrap();
    assert_eq!(&image[..], b"\x89PNG");
    let gone = client.get("https://site.example/gone").send().await.unwrap_err();
    assert_eq!(gone.kind(), Kind::Closed);
    let cookies =
        portolan_http::cookie::CookieStore::cookies_for(&*jar, &"https://site.example/".parse().unwrap()).unwrap();
    assert_eq!(cookies, "a=1; b=2");
    // Spent, where nothing is to be repeated.
    let spent = Client::builder().connector(nowhere()).middleware(replay).build().unwrap();
    let error = spent.get("https://site.example/start").send().await.unwrap_err();
    assert!(error.server::<NotRecorded>().is_some());
}

#[test]
fn what_is_no_har_is_refused() {
    for (text, word) in [
        ("", "no HAR"),
        ("{}", "no log.entries"),
        ("{\"log\":{\"entries\":[{}]}}", "entry 0"),
        ("{\"log\":{\"entries\":{}}}", "no log.entries"),
    ] {
        let error = Replay::from_json(text).unwrap_err();
        assert!(error.kind() == Kind::Usage && error.message().contains(word), "{error}");
    }
}

#[test]
fn messages_of_websocket_are_written_as_chrome_has_them() {
    let (request, ()) = http::Request::get("wss://site.example/chat").body(()).unwrap().into_parts();
    let at = UNIX_EPOCH + Duration::from_millis(1500);
    let entry = Entry::new(&HarOptions::new(), at, &request, b"")
        .with_message(true, at, MessageData::Text("ahoy"))
        .with_message(false, at, MessageData::Binary(b"\xff\0"));
    let mut har = Har::new();
    har.push(entry);
    let file: Value = serde_json::from_str(&har.to_json().unwrap()).unwrap();
    let entry = &file["log"]["entries"][0];
    assert_eq!(entry["_resourceType"], "websocket");
    assert_eq!(
        entry["_webSocketMessages"],
        json!([
            {"type": "send", "time": 1.5, "opcode": 1, "data": "ahoy"},
            {"type": "receive", "time": 1.5, "opcode": 2, "data": "/wA="},
        ])
    );
}

#[tokio::test]
async fn every_recorder_hears_what_is_said_on_a_websocket_up_to_a_message_that_is_cut() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tcp.read_u8().await.unwrap());
        }
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
        tcp.write_all(answer).await.unwrap();
        tcp
    });
    let recorders = [(); 2].map(|()| Recorder::new(HarOptions::new().with_bodies(1000)));
    let client = Client::builder().middleware(recorders[0].clone()).middleware(recorders[1].clone()).build().unwrap();
    let request = client.get(url).header("connection", "upgrade").header("upgrade", "websocket");
    let response = request.send().await.unwrap();
    let told = response.extensions().get::<OnMessage>().unwrap().clone();
    told.call(SocketMessage::new(true, true, b"ahoy"));
    told.call(SocketMessage::new(false, false, b"the beginning").cut());
    told.call(SocketMessage::new(true, true, b"more"));
    for recorder in recorders {
        let file: Value = serde_json::from_str(&recorder.take().to_json().unwrap()).unwrap();
        let said = file["log"]["entries"][0]["_webSocketMessages"].as_array().unwrap();
        assert_eq!((said.len(), &said[0]["data"]), (1, &json!("ahoy")));
    }
    drop(server.await.unwrap());
}

/// Compressed where that is asked for, with a cookie, moved once.
fn packed() -> Handler {
    use std::io::Write;
    support::heads(|request| {
        let mut answer = if request.uri().path() == "/moved" {
            reply(307, "elsewhere")
        } else if request.headers().contains_key("accept-encoding") {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            gzip.write_all(b"the same again, ".repeat(100).as_slice()).unwrap();
            let mut answer = reply(200, gzip.finish().unwrap());
            answer.headers_mut().insert("content-encoding", HeaderValue::from_static("gzip"));
            answer
        } else {
            reply(200, "plain")
        };
        answer.headers_mut().insert("location", HeaderValue::from_static("/"));
        answer.headers_mut().insert("set-cookie", HeaderValue::from_static("sid=sesame; Path=/"));
        answer
    })
}

#[tokio::test]
async fn each_exchange_is_written_as_it_went_out() {
    let web = Web::plain(packed()).await;
    let recorder = Recorder::new(HarOptions::new().with_bodies(10_000).dangerous().with_secrets());
    let recording = Client::builder()
        .version(portolan_http::Version::Http2Only)
        .cookie_jar(Arc::new(portolan_http::cookie::Jar::new()))
        .default_header("x-default", "1")
        .unwrap()
        .middleware(recorder.clone())
        .build()
        .unwrap();
    let text = recording.post(web.url("/moved")).body("up").send().await.unwrap().text().await.unwrap();
    let har = recorder.take();
    let file: Value = serde_json::from_str(&har.to_json().unwrap()).unwrap();
    let entries = file["log"]["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    let (moved, last) = (&entries[0], &entries[1]);
    assert_eq!((&moved["response"]["status"], &last["response"]["status"]), (&json!(307), &json!(200)));
    assert_eq!((&moved["request"]["url"], &last["request"]["url"]), (&json!(web.url("/moved")), &json!(web.url("/"))));
    assert_eq!(
        (&moved["request"]["cookies"], &last["request"]["cookies"]),
        (&json!([]), &json!([{"name": "sid", "value": "sesame"}]))
    );
    for entry in entries {
        assert_eq!(
            (&entry["request"]["httpVersion"], &entry["request"]["postData"]["text"]),
            (&json!("HTTP/2"), &json!("up"))
        );
        let names: Vec<&str> =
            entry["request"]["headers"].as_array().unwrap().iter().filter_map(|pair| pair["name"].as_str()).collect();
        assert!(names.contains(&"x-default") && names.contains(&"accept-encoding"), "{names:?}");
    }
    // As it came by the wire, and its content plain.
    assert!(
        last["response"]["headers"].as_array().unwrap().contains(&json!({"name": "content-encoding", "value": "gzip"}))
    );
    assert_eq!(
        (&last["response"]["content"]["text"], &last["response"]["content"]["size"]),
        (&json!(text), &json!(1600))
    );
    let replay = Replay::from_har(&har).unwrap();
    let again = client(&replay).post(web.url("/moved")).body("up").send().await.unwrap();
    assert_eq!((again.redirects().len(), again.text().await.unwrap()), (1, text));
}

#[tokio::test]
async fn a_body_that_was_left_compressed_is_answered_so() {
    let web = Web::plain(packed()).await;
    let recorder = Recorder::new(HarOptions::new().with_bodies(10_000));
    let recording = Client::builder().middleware(recorder.clone()).build().unwrap();
    let ask = async |client: &Client| {
        let response = client.get(web.url("/")).header("accept-encoding", "gzip").send().await.unwrap();
        assert_eq!(response.headers()["content-encoding"], "gzip");
        let body = response.bytes().await.unwrap();
        assert_eq!(body[..2], [0x1f, 0x8b]);
        let head = client.head(web.url("/")).send().await.unwrap();
        assert!(head.headers().contains_key("content-length"));
        assert!(head.bytes().await.unwrap().is_empty());
        body
    };
    let first = ask(&recording).await;
    let replay = Replay::from_har(&recorder.take()).unwrap();
    assert_eq!(ask(&client(&replay)).await, first);
}

#[tokio::test]
async fn what_is_held_to_tls_and_what_failed_behind_it_are_both_written() {
    let hsts = portolan_http::hsts::Hsts::new();
    hsts.add("localhost", Duration::from_secs(1000), false).unwrap();
    let recorder = Recorder::new(HarOptions::new().with_bodies(10));
    let recording = Client::builder().connector(nowhere()).hsts(hsts).middleware(recorder.clone()).build().unwrap();
    let asked = recording.get("http://localhost/a").send().await.unwrap_err();
    let har = recorder.take();
    let file: Value = serde_json::from_str(&har.to_json().unwrap()).unwrap();
    let (turned, failed) = (&file["log"]["entries"][0], &file["log"]["entries"][1]);
    assert_eq!(
        (&turned["response"]["status"], &turned["response"]["redirectURL"]),
        (&json!(307), &json!("https://localhost/a"))
    );
    assert_eq!(
        (&turned["request"]["url"], &failed["request"]["url"]),
        (&json!("http://localhost/a"), &json!("https://localhost/a"))
    );
    assert_eq!((&failed["response"]["status"], &failed["comment"]), (&json!(0), &json!(asked.to_string())));
    let replay = Replay::from_har(&har).unwrap();
    let error = client(&replay).get("http://localhost/a").send().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Closed);
}
