//! `expect: 100-continue`: the body waits for the peer's word.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Full};
use portolan_core::Result;
use portolan_http2::{Options, RecvBody, SendRequest};
use support::*;
use tokio::task::JoinHandle;

fn ask(client: &SendRequest) -> JoinHandle<Result<http::Response<RecvBody>>> {
    let request = Request::post("http://example.test/").header("expect", "100-continue");
    let request = request.body(Full::<bytes::Bytes>::from("precious")).unwrap();
    let client = client.clone();
    tokio::spawn(async move { client.send(request).await })
}

/// The peer sees nothing of the body: the answer to its PING comes first.
async fn quiet(peer: &mut Peer) {
    peer.send(PING, 0, 0, b"anything").await;
    let frame = peer.next().await;
    assert_eq!((frame.kind, frame.flags), (PING, ACK), "{frame:?}");
}

#[tokio::test]
async fn a_body_waits_until_the_peer_asks_for_it() {
    let (client, _driver, mut peer) = ready(Options::new().expect(Duration::from_secs(600)), &[]).await;
    let call = ask(&client);
    let (id, end, _) = peer.request().await;
    assert!(!end);
    quiet(&mut peer).await;
    peer.headers(id, 0, &[(":status", "103")]).await;
    quiet(&mut peer).await;
    peer.headers(id, 0, &[(":status", "100")]).await;
    let data = peer.until(DATA).await;
    assert_eq!((data.payload.as_slice(), data.flags), (&b"precious"[..], END_STREAM));
    peer.respond(id, b"thanks").await;
    let response = call.await.unwrap().unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "thanks");
    assert_eq!(client.status().active, 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_goes_unasked_when_the_peer_says_nothing() {
    let (client, _driver, mut peer) = ready(Options::new(), &[]).await;
    let call = ask(&client);
    let (id, ..) = peer.request().await;
    quiet(&mut peer).await;
    let began = portolan_core::clock::now();
    assert_eq!(peer.until(DATA).await.payload, b"precious");
    assert_eq!(began.elapsed().as_secs(), 1);
    peer.respond(id, b"").await;
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_body_that_is_not_wanted_stays_and_the_answer_is_read() {
    let (client, _driver, mut peer) = ready(Options::new().expect(Duration::from_secs(600)), &[]).await;
    let call = ask(&client);
    let (id, ..) = peer.request().await;
    peer.headers(id, 0, &[(":status", "413")]).await;
    let response = call.await.unwrap().unwrap();
    quiet(&mut peer).await;
    peer.send(DATA, END_STREAM, id, b"too large").await;
    // We end our side with the peer's.
    let reset = peer.until(RST_STREAM).await;
    assert_eq!((reset.id, reset.u32()), (id, 8));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "too large");
    assert_eq!(client.status().active, 0);
    // The connection is as good as before; so is one whose peer ends the stream by itself, or whose caller gives up.
    let call = ask(&client);
    let (id, ..) = peer.request().await;
    peer.headers(id, END_STREAM, &[(":status", "417")]).await;
    assert_eq!(call.await.unwrap().unwrap().status(), 417);
    assert_eq!(peer.until(RST_STREAM).await.id, id);
    let call = ask(&client);
    let (id, ..) = peer.request().await;
    call.abort();
    assert_eq!(peer.until(RST_STREAM).await.id, id);
    assert_eq!(client.status().active, 0);
}
