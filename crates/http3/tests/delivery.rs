//! What became of a request when its connection or its stream ended, against a scripted peer.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use std::io;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use portolan_core::{Delivery, Error, Kind, Result};
use portolan_http3::{Code, Event, Options, RecvBody, SendRequest, State};
use portolan_pool::{Decision, Request as Call, Retry};
use support::raw::*;
use support::*;
use tokio::task::JoinHandle;

type Answer = JoinHandle<Result<Response<RecvBody>>>;

fn call(client: &SendRequest, path: &str) -> Answer {
    let (client, request) = (client.clone(), get(path));
    tokio::spawn(async move { client.send(request).await })
}

/// A fresh connection would do: the pool's rule says that a safe request is sent again.
fn assert_stale(error: &Error, delivery: Delivery) {
    assert_eq!(error.delivery(), delivery, "{error:?}");
    let decision = Retry::new().decide(error, Call::new().idempotent(true), 1);
    assert!(matches!(decision, Decision::Again(_)), "{error:?}: {decision:?}");
    let unsafe_too = Retry::new().decide(error, Call::new(), 1);
    assert_eq!(matches!(unsafe_too, Decision::Again(_)), delivery != Delivery::Unknown, "{error:?}");
}

async fn drained(client: &SendRequest) {
    while client.status().state == State::Open {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn goaway_rejects_stream_ids_at_or_above_identifier() {
    let (client, _driver, mut peer) = pair(Options::new(), &[]).await;
    let mut calls = Vec::new();
    let mut streams = Vec::new();
    for n in 0..4 {
        calls.push(call(&client, &format!("/{n}")));
        streams.push(peer.request().await);
    }
    let ids: Vec<_> = streams.iter().map(Stream::id).collect();
    assert_eq!(ids, [0, 4, 8, 12]);
    // First what a server says that wants no more, then what it did not take.
    peer.goaway((1 << 62) - 4).await;
    drained(&client).await;
    assert!(calls.iter().all(|call| !call.is_finished()));
    peer.goaway(8).await;
    for refused in calls.split_off(2) {
        let error = refused.await.unwrap().unwrap_err();
        assert_eq!((error.delivery(), error.kind()), (Delivery::Refused, Kind::Closed), "{error:?}");
    }
    assert_eq!(client.goaway().unwrap().id, 8);
    for (stream, call) in streams.iter_mut().zip(calls) {
        stream.answer(b"done").await;
        let body = call.await.unwrap().unwrap().into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), "done");
    }
    assert_eq!(streams[2].stopped().await, Some(Code::REQUEST_CANCELLED));
}

#[tokio::test]
async fn a_goaway_that_rises_is_a_violation() {
    let (_client, driver, mut peer) = pair(Options::new(), &[]).await;
    peer.goaway(8).await;
    peer.goaway(12).await;
    assert_eq!(peer.closed().await, Code::ID_ERROR);
    let error = driver.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.code()), (Kind::Protocol, Some(0x108)));
}

#[tokio::test]
async fn goaway_unsent_request_errors_are_stale() {
    let (events, mut seen) = tokio::sync::mpsc::channel(4);
    let options = Options::new().on_event(move |event| events.try_send(event).unwrap());
    let (client, _driver, mut peer) = pair(options, &[]).await;
    assert!(matches!(seen.recv().await, Some(Event::Settings(_))));
    assert!(client.is_ready() && !client.is_closed());
    peer.goaway(0).await;
    assert!(matches!(seen.recv().await, Some(Event::GoAway(goaway)) if goaway.id == 0));
    assert!(!client.is_ready() && client.is_closed());
    assert_stale(&client.send(get("/late")).await.unwrap_err(), Delivery::NotSent);
}

#[tokio::test]
async fn goaway_rejected_stream_errors_are_stale() {
    let (client, _driver, mut peer) = pair(Options::new(), &[]).await;
    let beyond = call(&client, "/beyond");
    let _stream = peer.request().await;
    peer.goaway(0).await;
    assert_stale(&beyond.await.unwrap().unwrap_err(), Delivery::Refused);

    let (client, _driver, mut peer) = pair(Options::new(), &[]).await;
    let rejected = call(&client, "/rejected");
    peer.request().await.reset(Code::REQUEST_REJECTED);
    let error = rejected.await.unwrap().unwrap_err();
    assert_stale(&error, Delivery::Refused);
    assert_eq!(error.code(), Some(0x10b));
    let next = call(&client, "/next");
    peer.request().await.answer(b"").await;
    assert_eq!(next.await.unwrap().unwrap().status(), 200, "the connection lives on");
}

#[tokio::test]
async fn peer_close_unsent_request_errors_are_stale() {
    let (client, driver, peer) = pair(Options::new(), &[]).await;
    peer.close(Code::NO_ERROR);
    driver.await.unwrap().unwrap();
    assert_eq!(client.status().state, State::Closed);
    assert_stale(&client.send(get("/late")).await.unwrap_err(), Delivery::NotSent);
}

#[tokio::test]
async fn a_request_that_waits_for_a_stream_is_unsent_when_the_peer_closes() {
    let (client, driver, mut peer) = pair(Options::new().max_streams(1), &[]).await;
    let first = call(&client, "/first");
    let _stream = peer.request().await;
    let waits = call(&client, "/waits");
    while client.status().waiting == 0 {
        tokio::task::yield_now().await;
    }
    peer.close(Code::NO_ERROR);
    assert_stale(&waits.await.unwrap().unwrap_err(), Delivery::NotSent);
    assert_stale(&first.await.unwrap().unwrap_err(), Delivery::Unknown);
    assert!(driver.await.unwrap().is_err(), "something was in flight");
}

#[tokio::test]
async fn peer_close_before_response_errors_are_stale() {
    for code in [Code::NO_ERROR, Code::INTERNAL_ERROR] {
        let (client, _driver, mut peer) = pair(Options::new(), &[]).await;
        let lost = call(&client, "/lost");
        let mut stream = peer.request().await;
        // An informational response is no response yet.
        stream.write(&headers(&[(":status", "103")])).await;
        peer.close(code);
        let error = lost.await.unwrap().unwrap_err();
        assert_stale(&error, Delivery::Unknown);
        assert_eq!(error.code(), Some(i64::try_from(code.value()).unwrap()));
    }
}

#[tokio::test]
async fn peer_close_after_response_headers_is_answered_and_never_sent_again() {
    let (client, _driver, mut peer) = pair(Options::new(), &[]).await;
    let begun = call(&client, "/begun");
    let mut stream = peer.request().await;
    stream.write(&headers(&[(":status", "200"), ("content-length", "10")])).await;
    stream.write(&frame(DATA, b"half!")).await;
    let mut body = begun.await.unwrap().unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half!");
    peer.close(Code::NO_ERROR);
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!((error.delivery(), error.kind()), (Delivery::Answered, Kind::Closed));
    let decision = Retry::new().decide(&error, Call::new().idempotent(true), 1);
    assert!(matches!(decision, Decision::GiveUp(_)));
}

#[tokio::test]
async fn an_answer_that_came_before_a_close_is_read_after_it() {
    // Nothing of it was looked at when the connection ended; the head was; all but the last of the body was.
    for looked in 0..3 {
        let (client, driver, mut peer) = pair(Options::new(), &[]).await;
        let mut send = Box::pin(client.send(get("/")));
        assert!(futures_util::poll!(send.as_mut()).is_pending());
        let mut stream = peer.request().await;
        let body = Bytes::from(vec![b'x'; 50_000]);
        stream.write(&headers(&[(":status", "200"), ("content-length", "50001")])).await;
        let mut response = if looked > 0 { Some(send.as_mut().await.unwrap()) } else { None };
        stream.write(&frame(DATA, &body)).await;
        if looked > 1 {
            let mut read = 0;
            while read < body.len() {
                let frame = response.as_mut().unwrap().body_mut().frame().await.unwrap().unwrap();
                read += frame.into_data().unwrap().len();
            }
        }
        stream.write(&frame(DATA, b"!")).await;
        stream.send.finish().unwrap();
        // All of it has arrived.
        assert_eq!(stream.stopped().await, None);
        peer.close(Code::NO_ERROR);
        let _ = driver.await.unwrap();
        assert!(client.is_closed());
        let response = match response {
            Some(response) => response,
            None => send.await.unwrap(),
        };
        assert_eq!(response.status(), 200);
        let rest = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(rest.len(), if looked > 1 { 1 } else { 50_001 }, "{looked}");
    }
    // What broke off before is lost, whatever had come of it.
    let (client, driver, mut peer) = pair(Options::new(), &[]).await;
    let mut send = Box::pin(client.send(get("/")));
    assert!(futures_util::poll!(send.as_mut()).is_pending());
    let mut stream = peer.request().await;
    // A head that waits for entries of the header table, which never come.
    stream.write(&frame(HEADERS, &[0x02, 0x00, 0xd9, 0x80])).await;
    stream.send.finish().unwrap();
    assert_eq!(stream.stopped().await, None);
    peer.close(Code::NO_ERROR);
    let _ = driver.await.unwrap();
    let error = send.await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Closed, Delivery::Unknown), "{error:?}");
}

#[tokio::test]
async fn request_body_stream_error_fails_only_the_failed_http3_stream() {
    let (client, _driver, mut peer) = pair(Options::new(), &[]).await;
    let other = call(&client, "/other");
    let mut other_stream = peer.request().await;
    let (fail, failing) = tokio::sync::oneshot::channel::<()>();
    let body = futures_util::stream::unfold((0, Some(failing)), async |(n, failing)| match n {
        0 => Some((Ok(Frame::data(Bytes::from_static(b"part"))), (1, failing))),
        _ => {
            failing?.await.unwrap();
            Some((Err(io::Error::other("the disk is on fire")), (2, None)))
        }
    });
    let request = Request::post("https://localhost/upload").body(StreamBody::new(body)).unwrap();
    let upload = tokio::spawn({
        let client = client.clone();
        async move { client.send(request).await }
    });
    let mut stream = peer.request().await;
    assert_eq!(stream.frame().await.unwrap(), (DATA, Bytes::from_static(b"part")));
    fail.send(()).unwrap();
    assert_eq!(stream.ending().await, Ending::Reset(Code::REQUEST_CANCELLED));
    let error = upload.await.unwrap().unwrap_err();
    let source = std::error::Error::source(&error).unwrap().downcast_ref::<io::Error>().unwrap();
    assert_eq!(source.to_string(), "the disk is on fire");
    other_stream.answer(b"fine").await;
    let body = other.await.unwrap().unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "fine");
    let next = call(&client, "/next");
    peer.request().await.answer(b"too").await;
    assert_eq!(next.await.unwrap().unwrap().into_body().collect().await.unwrap().to_bytes(), "too");
}

#[tokio::test]
async fn an_upload_that_is_dropped_is_reset_and_never_looks_whole() {
    let (client, _driver, mut peer) = pair(Options::new(), &[]).await;
    let first = futures_util::stream::iter([Ok::<_, io::Error>(Frame::data(Bytes::from_static(b"part")))]);
    let body = futures_util::StreamExt::chain(first, futures_util::stream::pending());
    let request = Request::post("https://localhost/upload").body(StreamBody::new(body)).unwrap();
    let upload = tokio::spawn({
        let client = client.clone();
        async move { client.send(request).await }
    });
    let mut stream = peer.request().await;
    assert_eq!(stream.frame().await.unwrap(), (DATA, Bytes::from_static(b"part")));
    upload.abort();
    assert_eq!(stream.ending().await, Ending::Reset(Code::REQUEST_CANCELLED));
    assert_eq!(stream.stopped().await, Some(Code::REQUEST_CANCELLED));
}

#[tokio::test]
async fn a_head_that_is_given_up_half_way_is_reset_too() {
    // The peer takes 20,000 bytes in all, which an upload that it doesn't read uses up.
    let mut transport = quinn::TransportConfig::default();
    transport.receive_window(20_000u32.into());
    let (client, _driver, mut peer) = pair_within(transport, Options::new(), &[0, 4, 0]).await;
    let endless = futures_util::stream::repeat_with(|| Ok::<_, io::Error>(Frame::data(Bytes::from(vec![0; 16 << 10]))));
    let request = Request::post("https://localhost/upload").body(StreamBody::new(endless)).unwrap();
    let upload = tokio::spawn({
        let client = client.clone();
        async move { client.send(request).await }
    });
    let _stream = peer.request().await;
    // Each time with less room, until a head doesn't fit.
    let mut ends = Vec::new();
    for _ in 0..20 {
        let mut request = get("/");
        request.headers_mut().insert("x-long", "y".repeat(3000).parse().unwrap());
        let mut send = Box::pin(client.send(request));
        assert!(futures_util::poll!(send.as_mut()).is_pending());
        drop(send);
        let (_send, mut recv) = peer.quic.accept_bi().await.unwrap();
        ends.push(loop {
            match recv.read_chunk(usize::MAX, true).await {
                Ok(Some(_)) => {}
                Ok(None) => break None,
                Err(quinn::ReadError::Reset(code)) => break Some(Code::new(code.into_inner())),
                Err(other) => panic!("{other}"),
            }
        });
    }
    assert_eq!(ends.last(), Some(&Some(Code::REQUEST_CANCELLED)), "{ends:?}");
    upload.abort();
}

#[tokio::test]
async fn a_stream_that_fails_fails_alone() {
    type Script = fn(&mut Stream) -> futures_util::future::BoxFuture<'_, ()>;
    let scripts: [(Script, Option<i64>, Kind); 6] = [
        (|s| Box::pin(async { s.send.finish().unwrap() }), Some(0x10e), Kind::Protocol),
        (|s| Box::pin(async { s.reset(Code::INTERNAL_ERROR) }), Some(0x102), Kind::Closed),
        (|s| Box::pin(async { s.write(&headers(&[("x", "y")])).await }), Some(0x10e), Kind::Protocol),
        (
            |s| Box::pin(async { s.write(&headers(&[(":status", "200"), ("X-Up", "y")])).await }),
            Some(0x10e),
            Kind::Protocol,
        ),
        (
            |s| Box::pin(async { s.write(&headers(&[(":status", "200"), ("connection", "close")])).await }),
            Some(0x10e),
            Kind::Protocol,
        ),
        (
            |s| Box::pin(async { s.write(&headers(&[(":status", "200"), ("x", &"y".repeat(70_000))])).await }),
            Some(0x107),
            Kind::Limit,
        ),
    ];
    let (client, _driver, mut peer) = pair(Options::new(), &[]).await;
    let survivor = call(&client, "/survivor");
    let mut surviving = peer.request().await;
    for (script, code, kind) in scripts {
        let failing = call(&client, "/failing");
        let mut stream = peer.request().await;
        script(&mut stream).await;
        let error = failing.await.unwrap().unwrap_err();
        assert_eq!((error.code(), error.kind()), (code, kind), "{error:?}");
        assert!(kind != Kind::Limit || error.delivery() == Delivery::Answered, "{error:?}");
    }
    surviving.answer(b"alive").await;
    let body = survivor.await.unwrap().unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "alive");
}

#[tokio::test]
async fn an_answer_before_the_end_of_an_upload_that_is_not_wanted_is_read() {
    let (client, _driver, mut peer) = pair(Options::new(), &[]).await;
    let endless = futures_util::stream::repeat_with(|| Ok::<_, io::Error>(Frame::data(Bytes::from(vec![0; 16 << 10]))));
    let request = Request::post("https://localhost/upload").body(StreamBody::new(endless)).unwrap();
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.send(request).await.unwrap().into_body().collect().await.unwrap().to_bytes() }
    });
    let mut stream = peer.request().await;
    stream.recv.stop(0x100u32.into()).unwrap();
    stream.answer(b"enough").await;
    assert_eq!(call.await.unwrap(), "enough");
    while client.status().active > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_peer_that_does_not_read_holds_back_the_upload() {
    let (client, _driver, mut peer) = pair(Options::new().send_window(256 << 10), &[]).await;
    let pulled = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&pulled);
    let endless = futures_util::stream::repeat_with(move || {
        counted.fetch_add(16, std::sync::atomic::Ordering::Relaxed);
        Ok::<_, io::Error>(Frame::data(Bytes::from(vec![0; 16 << 10])))
    });
    let request = Request::post("https://localhost/upload").body(StreamBody::new(endless)).unwrap();
    let upload = tokio::spawn({
        let client = client.clone();
        async move { client.send(request).await }
    });
    let _stream = peer.request().await;
    // The peer grants 1.25 MB and reads nothing; what could go on would go on while others come and go.
    for _ in 0..50 {
        let other = call(&client, "/other");
        peer.request().await.answer(b"").await;
        drop(other.await.unwrap().unwrap());
    }
    let asked = pulled.load(std::sync::atomic::Ordering::Relaxed);
    assert!((64..2048).contains(&asked), "{asked} KiB were asked for");
    upload.abort();
    let next = call(&client, "/next");
    peer.request().await.answer(b"fine").await;
    assert_eq!(next.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_request_given_up_in_the_queue_leaves_no_trace() {
    let (client, _driver, mut peer) = pair(Options::new().max_streams(1).max_waiting(1), &[]).await;
    let first = call(&client, "/first");
    let mut stream = peer.request().await;
    let waits = call(&client, "/waits");
    while client.status().waiting == 0 {
        tokio::task::yield_now().await;
    }
    assert!(!client.is_ready());
    let error = client.send(get("/too-many")).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Limit, Delivery::NotSent));
    waits.abort();
    assert!(waits.await.unwrap_err().is_cancelled());
    assert_eq!((client.status().waiting, client.status().active), (0, 1));
    stream.answer(b"").await;
    drop(first.await.unwrap().unwrap());
    let next = call(&client, "/next");
    let mut stream = peer.request().await;
    assert!(stream.fields.contains(&(":path".to_owned(), "/next".to_owned())));
    stream.answer(b"").await;
    assert_eq!(next.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn uploads_that_nobody_wants_do_not_fill_the_connection() {
    let (client, _driver, mut peer) = pair(Options::new().send_window(64 << 10), &[]).await;
    let endless =
        || futures_util::stream::repeat_with(|| Ok::<_, io::Error>(Frame::data(Bytes::from(vec![0; 16 << 10]))));
    let mut streams = Vec::new();
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let request = Request::post("https://localhost/upload").body(StreamBody::new(endless())).unwrap();
            let client = client.clone();
            tokio::spawn(async move { client.send(request).await.unwrap().into_body().collect().await.unwrap() })
        })
        .collect();
    // The first fills the connection's window of 1.25 MB, and nobody reads.
    for _ in 0..3 {
        streams.push(peer.request().await);
    }
    for stream in &mut streams {
        stream.recv.stop(0x100u32.into()).unwrap();
        stream.answer(b"enough").await;
    }
    for call in calls {
        assert_eq!(call.await.unwrap().to_bytes(), "enough");
    }
    while client.status().active > 0 {
        tokio::task::yield_now().await;
    }
}
