//! A connection that is read though its caller is busy.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use bytes::Bytes;
use portolan_core::Kind;
use portolan_websocket::{Attended, CloseCode, Message, Options, WebSocket};
use support::{Peer, close, frame, text};
use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinHandle;

fn attended(room: usize) -> (Attended<DuplexStream>, Peer, JoinHandle<()>) {
    let (ours, theirs) = duplex(4 << 10);
    let (socket, attendant) = WebSocket::from_stream(ours, Options::new()).attended(room);
    (socket, Peer::new(theirs), tokio::spawn(attendant))
}

#[tokio::test]
async fn pings_are_answered_while_the_caller_does_something_else() {
    let (mut socket, mut peer, _attendant) = attended(1 << 20);
    for at in 0..200u8 {
        peer.send([text(&format!("message {at}")), frame(0x89, &[at])].concat()).await;
        peer.expect(Message::Pong(Bytes::copy_from_slice(&[at]))).await;
    }
    for at in 0..200u8 {
        assert_eq!(socket.recv().await.unwrap(), Some(format!("message {at}").into()));
    }
    socket.send("and the other way").await.unwrap();
    peer.expect("and the other way").await;
}

#[tokio::test]
async fn a_close_is_confirmed_while_the_caller_does_something_else() {
    let (mut socket, mut peer, attendant) = attended(1 << 20);
    peer.send([text("last"), close(1001, b"bye")].concat()).await;
    peer.expect_close(Some(1001)).await;
    drop(peer);
    attendant.await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), Some("last".into()));
    assert!(matches!(socket.recv().await.unwrap(), Some(Message::Close(Some(frame))) if frame.reason == "bye"));
    assert_eq!(socket.recv().await.unwrap(), None);
    assert_eq!(socket.recv().await.unwrap(), None);
    assert!(socket.send("late").await.unwrap_err().is_closed());
}

#[tokio::test]
async fn a_close_of_ours_waits_for_the_peers() {
    let (mut socket, mut peer, _attendant) = attended(1);
    let closing = tokio::spawn(async move { socket.close(CloseCode::NORMAL, "").await });
    peer.send(text("passed over").repeat(20)).await;
    peer.expect_close(Some(1000)).await;
    peer.send(close(1000, b"so long")).await;
    drop(peer);
    assert_eq!(closing.await.unwrap().unwrap().unwrap().reason, "so long");
}

#[tokio::test(start_paused = true)]
async fn what_is_read_ahead_is_bounded_and_the_peer_waits() {
    for body in [0, 100, 10_000] {
        let (mut socket, mut peer, _attendant) = attended(50_000);
        let message = frame(0x82, &vec![7; body]);
        let mut sent = 0;
        // The pipe and the read buffers hold some more.
        while sent * (body + 64) < 250_000 {
            let sending = peer.send(&message);
            if tokio::time::timeout(std::time::Duration::from_millis(200), sending).await.is_err() {
                break;
            }
            sent += 1;
        }
        if body > 0 {
            assert!(sent * (body + 64) < 200_000, "{sent} of {body} bytes");
        }
        for _ in 0..sent {
            assert_eq!(socket.recv().await.unwrap().unwrap().into_data().len(), body);
        }
    }
}

#[tokio::test]
async fn either_side_that_is_dropped_ends_the_other() {
    let (socket, mut peer, attendant) = attended(1 << 20);
    drop(socket);
    attendant.await.unwrap();
    peer.expect_end().await;
    let (mut socket, peer, attendant) = attended(1 << 20);
    attendant.abort();
    let error = socket.recv().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Closed, "{error}");
    drop(peer);
    let (mut socket, mut peer, _attendant) = attended(1 << 20);
    peer.send([text("before"), frame(0x83, b"")].concat()).await;
    assert_eq!(socket.recv().await.unwrap(), Some("before".into()));
    assert_eq!(socket.recv().await.unwrap_err().kind(), Kind::Protocol);
    assert_eq!(socket.recv().await.unwrap(), None);
}
