//! A peer that takes nothing more, and what it said before.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use portolan_core::{Delivery, Kind, Result, clock};
use portolan_http2::{Options, SendRequest, State, handshake};
use support::*;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::task::JoinHandle;

#[derive(Default)]
struct Way {
    cut: AtomicBool,
    /// How often there is nothing to read yet after the first write that failed.
    untold: AtomicUsize,
}

/// A stream whose end is told to who writes before what came ahead of it can be read, as sockets do.
struct Cut(DuplexStream, Arc<Way>);

impl AsyncRead for Cut {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if self.1.cut.load(Ordering::SeqCst) {
            match self.1.untold.load(Ordering::SeqCst) {
                0 => return Poll::Pending,
                1 => {}
                more => {
                    self.1.untold.store(more - 1, Ordering::SeqCst);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Cut {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        if self.1.cut.load(Ordering::SeqCst) {
            self.1.untold.store(5, Ordering::SeqCst);
            cx.waker().wake_by_ref();
            return Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Err(std::io::ErrorKind::NotConnected.into()))
    }
}

async fn pair() -> (SendRequest, JoinHandle<Result<()>>, Peer, Arc<Way>) {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let way = Arc::new(Way::default());
    let (client, connection) = handshake(Cut(ours, Arc::clone(&way)), Options::new()).unwrap();
    let driver = tokio::spawn(connection);
    let mut peer = Peer::new(theirs);
    peer.greet(&[]).await;
    (client, driver, peer, way)
}

fn call(client: &SendRequest) -> JoinHandle<Result<Bytes>> {
    let client = client.clone();
    tokio::spawn(async move { Ok(client.send(get("/")).await?.into_body().collect().await?.to_bytes()) })
}

#[tokio::test(start_paused = true)]
async fn what_a_peer_said_before_it_stopped_reading_is_heard() {
    let (client, driver, mut peer, way) = pair().await;
    let (answered, refused) = (call(&client), call(&client));
    assert_eq!((peer.request().await.0, peer.request().await.0), (1, 3));
    way.cut.store(true, Ordering::SeqCst);
    peer.send(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]).await;
    peer.respond(1, b"answer").await;
    drop(peer);
    let late = call(&client).await.unwrap().unwrap_err();
    assert_eq!((late.kind(), late.delivery()), (Kind::Closed, Delivery::NotSent), "{late:?}");
    assert_eq!(answered.await.unwrap().unwrap(), "answer");
    let refused = refused.await.unwrap().unwrap_err();
    assert_eq!((refused.kind(), refused.delivery()), (Kind::Closed, Delivery::Refused), "{refused:?}");
    assert!(driver.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stops_reading_without_a_word_is_not_waited_for_long() {
    let (client, driver, mut peer, way) = pair().await;
    let lost = call(&client);
    peer.request().await;
    way.cut.store(true, Ordering::SeqCst);
    let began = clock::now();
    // No request is taken from the moment on that one could not be written.
    let late = call(&client).await.unwrap().unwrap_err();
    assert_eq!((late.delivery(), began.elapsed().as_millis(), client.is_closed()), (Delivery::NotSent, 0, true));
    let late = client.send(get("/later")).await.unwrap_err();
    assert_eq!((late.kind(), late.delivery()), (Kind::Closed, Delivery::NotSent));
    let lost = lost.await.unwrap().unwrap_err();
    assert_eq!((lost.kind(), lost.delivery(), began.elapsed().as_secs()), (Kind::Closed, Delivery::Unknown, 1));
    assert_eq!(client.status().state, State::Closed);
    assert_eq!(driver.await.unwrap().unwrap_err().kind(), Kind::Closed);
    drop(peer);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_that_cannot_be_written_to_is_over() {
    let (client, driver, peer, way) = pair().await;
    way.cut.store(true, Ordering::SeqCst);
    let late = client.send(get("/")).await.unwrap_err();
    assert_eq!((late.kind(), late.delivery()), (Kind::Closed, Delivery::NotSent));
    let began = clock::now();
    assert_eq!(driver.await.unwrap().unwrap_err().kind(), Kind::Closed);
    assert_eq!((client.status().state, began.elapsed().as_millis()), (State::Closed, 0));
    drop(peer);
}
