//! The client without `async`, against servers in this process.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests fail by panicking")]

mod support;

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version as Spoken};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use portolan_core::blocking::{Io, Runtime, Wait};
use portolan_core::{Error, Kind, Phase};
use portolan_http::blocking::{self, Client};
use portolan_http::multipart::{Form, Part};
use portolan_http::{Body, Version};
use portolan_testbed::{Certs, folder};
use support::{Handler, Reply, Web, connector, reply};

/// Where the servers live: not where the client does.
fn servers() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Says what it was sent: the length that was told, and the bytes.
fn echo() -> Handler {
    Arc::new(|request| {
        Box::pin(async move {
            let told = request.headers().get("content-length").cloned();
            let Ok(body) = request.into_body().collect().await else { return reply(400, "") };
            let mut reply = reply(200, body.to_bytes());
            if let Some(told) = told {
                reply.headers_mut().insert("x-told", told);
            }
            reply
        })
    })
}

/// A body in pieces, and trailers.
fn pieces() -> Reply {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("6"));
    let frames = ["one ", "two ", "three"].map(|text| Frame::data(Bytes::from_static(text.as_bytes())));
    let frames = frames.into_iter().chain([Frame::trailers(trailers)]).map(Ok::<_, io::Error>);
    // hyper sends trailers if both sides said that there are some.
    let response = Response::builder().header("trailer", "x-sum");
    response.body(BodyExt::boxed(StreamBody::new(stream::iter(frames)))).unwrap()
}

#[test]
fn every_version_serves_many_threads_that_wait() {
    let (servers, certs) = (servers(), Certs::new());
    let web = servers.block_on(Web::tls(&certs, &["h2", "http/1.1"], echo()));
    for (version, spoken) in [(Version::Http1Only, Spoken::HTTP_11), (Version::Auto, Spoken::HTTP_2)] {
        let client = Client::builder().connector(connector(&certs, &[])).version(version).build_blocking().unwrap();
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (client, url) = (client.clone(), web.url("/"));
                scope.spawn(move || {
                    for m in 0..20 {
                        let response = client.post(&url).body(format!("{n} {m}")).send().unwrap();
                        assert_eq!((response.status(), response.version()), (StatusCode::OK, spoken));
                        assert_eq!(response.text().unwrap(), format!("{n} {m}"));
                    }
                });
            }
        });
    }
}

#[test]
fn a_body_is_read_copied_iterated_and_gathered_from_wherever_it_stands() {
    let servers = servers();
    let web = servers.block_on(Web::plain(support::heads(|_| pieces())));
    let client = Client::new();
    let get = || client.get(web.url("/")).header("te", "trailers").send().unwrap();
    let mut response = get();
    let mut text = String::new();
    response.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), response.trailers().unwrap()["x-sum"].as_bytes()), ("one two three", &b"6"[..]));
    let mut begun = get();
    begun.read_exact(&mut [0; 2]).unwrap();
    assert_eq!(begun.text().unwrap(), "e two three");
    let (bytes, trailers) = get().collect().unwrap();
    assert_eq!((bytes.len(), trailers.unwrap().len()), (13, 1));
    let told = AtomicU64::new(0);
    let (mut copy, mut response) = (Vec::new(), get());
    response.read_exact(&mut [0; 1]).unwrap();
    let copied = response.copy_with(&mut copy, |so_far, all| {
        assert_eq!(all, None);
        assert!(so_far > told.swap(so_far, Ordering::Relaxed));
    });
    assert_eq!((copied.unwrap(), copy.as_slice(), told.into_inner()), (12, &b"ne two three"[..], 12));
    let parts: Vec<Bytes> = get().bytes_iter().collect::<Result<_, _>>().unwrap();
    assert_eq!(parts.concat(), b"one two three");
    assert_eq!(blocking::get(web.url("/")).unwrap().text().unwrap(), "one two three");
    let head = client.head(web.url("/")).send().unwrap();
    assert!(head.error_for_status().unwrap().bytes().unwrap().is_empty());
}

#[test]
fn what_std_reads_is_uploaded_with_its_length_and_files_again_after_a_redirect() {
    let servers = servers();
    let handler: Handler = Arc::new(|request| {
        let inner = echo();
        Box::pin(async move {
            if request.uri().path() != "/moved" {
                return inner(request).await;
            }
            request.into_body().collect().await.unwrap();
            let mut moved = reply(307, "");
            moved.headers_mut().insert("location", HeaderValue::from_static("/"));
            moved
        })
    });
    let web = servers.block_on(Web::plain(handler));
    let client = Client::new();
    let sent: Vec<u8> = (0..=250).cycle().take(200_000).collect();
    let dir = folder("blocking");
    let path = dir.join("ships.bin");
    std::fs::write(&path, &sent).unwrap();

    let streamed = client.put(web.url("/")).body(Body::from_read(io::Cursor::new(sent.clone()))).send().unwrap();
    assert!(!streamed.headers().contains_key("x-told"));
    assert_eq!(streamed.bytes().unwrap(), sent);
    let known = Body::from_read_with_length(std::fs::File::open(&path).unwrap(), 200_000);
    let known = client.put(web.url("/")).body(known).send().unwrap();
    assert_eq!(known.headers()["x-told"], "200000");
    assert_eq!(known.bytes().unwrap(), sent);
    let moved = client.put(web.url("/moved")).body(Body::from_path(&path).unwrap()).send().unwrap();
    assert_eq!((moved.redirects().len(), &moved.headers()["x-told"]), (1, &HeaderValue::from_static("200000")));
    assert_eq!(moved.bytes().unwrap(), sent);
    for wrong in [199_999, 200_001] {
        let body = Body::from_read_with_length(io::Cursor::new(sent.clone()), wrong);
        client.put(web.url("/")).body(body).send().unwrap_err();
    }
    let form = Form::new().part("ship", Part::from_path(&path).unwrap());
    let form = client.post(web.url("/")).multipart(form).send().unwrap().bytes().unwrap();
    assert!(form.windows(13).any(|part| part == b"\"ships.bin\"\r\n") && form.len() > sent.len());
    assert_eq!(Body::from_path(dir.join("none")).unwrap_err().kind(), Kind::Usage);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn bounds_hold_for_the_head_and_for_each_piece_of_the_body() {
    let servers = servers();
    let handler: Handler = Arc::new(|request| {
        Box::pin(async move {
            if request.uri().path() == "/silent" {
                std::future::pending::<()>().await;
            }
            let begun = stream::iter([Ok::<_, io::Error>(Frame::data(Bytes::from_static(b"begun")))]);
            Response::new(BodyExt::boxed(StreamBody::new(futures_util::StreamExt::chain(begun, stream::pending()))))
        })
    });
    let web = servers.block_on(Web::plain(handler));
    let (client, short) = (Client::new(), Duration::from_millis(50));
    let late = client.get(web.url("/silent")).first_byte_timeout(short).send().unwrap_err();
    assert_eq!((late.kind(), late.phase()), (Kind::Timeout, Some(Phase::FirstByte)));
    let timeouts = portolan_core::Timeouts::default().idle(short);
    let mut stalled = client.get(web.url("/")).timeouts(timeouts).send().unwrap();
    let mut begun = [0; 5];
    stalled.read_exact(&mut begun).unwrap();
    let late = stalled.read(&mut begun).unwrap_err();
    assert_eq!(late.kind(), io::ErrorKind::TimedOut);
    assert!(late.get_ref().unwrap().downcast_ref::<Error>().is_some_and(|error| error.phase() == Some(Phase::Idle)));
    let late = client.get(web.url("/")).timeout(short).send().unwrap().text().unwrap_err();
    assert_eq!(late.phase(), Some(Phase::Total));
}

#[test]
fn waiting_for_a_response_within_async_code_is_refused_and_nothing_was_sent() {
    let servers = servers();
    let web = servers.block_on(Web::plain(echo()));
    let client = Client::new();
    servers.block_on(async {
        let refused = client.get(web.url("/")).send().unwrap_err();
        assert_eq!(refused.kind(), Kind::Usage);
        assert_eq!(web.accepted(), 0);
        let (client, url) = (client.clone(), web.url("/"));
        let sent = tokio::task::spawn_blocking(move || client.get(url).send().unwrap().text().unwrap()).await;
        assert_eq!(sent.unwrap(), "");
    });
    // Dropped within async code, with its connection.
    servers.block_on(async { drop(client) });
}

#[test]
fn a_client_may_be_static_or_live_on_a_runtime_of_its_own() {
    static CLIENT: LazyLock<Client> = LazyLock::new(Client::new);
    let servers = servers();
    let web = servers.block_on(Web::plain(echo()));
    for _ in 0..3 {
        CLIENT.get(web.url("/")).send().unwrap().bytes().unwrap();
    }
    assert_eq!(web.accepted(), 1);
    let client = Client::builder().build_blocking().unwrap().on(Runtime::new().unwrap());
    let mut kept = client.post(web.url("/")).body("ahoy").send().unwrap();
    drop(client);
    let mut text = String::new();
    kept.read_to_string(&mut text).unwrap();
    assert_eq!(text, "ahoy");
}

#[test]
fn a_connection_that_turned_to_another_protocol_reads_and_writes() {
    let servers = servers();
    let handler: Handler = Arc::new(|request| {
        Box::pin(async move {
            tokio::spawn(async move {
                let upgraded = hyper::upgrade::on(request).await.unwrap();
                let (mut from, mut to) = tokio::io::split(hyper_util::rt::TokioIo::new(upgraded));
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
            let mut switching = reply(101, "");
            switching.headers_mut().insert("connection", HeaderValue::from_static("upgrade"));
            switching.headers_mut().insert("upgrade", HeaderValue::from_static("echo"));
            switching
        })
    });
    let web = servers.block_on(Web::plain(handler));
    let asked = Client::new().get(web.url("/")).version(Version::Http1Only);
    let asked = asked.header("connection", "upgrade").header("upgrade", "echo");
    let mut stream: Io<_> = asked.send().unwrap().upgrade().unwrap();
    stream.write_all(b"ahoy").unwrap();
    let mut back = [0; 4];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"ahoy");
}

#[test]
fn the_client_beneath_can_be_awaited_too() {
    let servers = servers();
    let web = servers.block_on(Web::plain(echo()));
    let client = Client::new();
    let text = async { client.get_ref().post(web.url("/")).body("ahoy").send().await?.text().await };
    assert_eq!(text.wait().unwrap(), "ahoy");
}
