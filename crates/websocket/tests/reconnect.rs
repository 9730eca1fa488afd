//! Coming back after a connection is lost, under paused time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use std::collections::VecDeque;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portolan_core::{Error, Kind, Result, clock};
use portolan_websocket::{Options, ReconnectPolicy, Reconnecting, WebSocket};
use support::{Peer, close, text};
use tokio::io::{DuplexStream, duplex};

type Attempts = Arc<Mutex<Vec<clock::Instant>>>;

/// Gives these connections in turn, and then fails for ever.
fn script(
    connections: Vec<Result<DuplexStream>>,
) -> (impl FnMut() -> Ready<Result<WebSocket<DuplexStream>>> + Send, Attempts) {
    let mut connections: VecDeque<_> = connections.into();
    let attempts = Attempts::default();
    let seen = Arc::clone(&attempts);
    let connect = move || {
        seen.lock().unwrap().push(clock::now());
        let next = connections.pop_front().unwrap_or_else(|| Err(Error::new(Kind::Connect, "nobody there")));
        ready(next.map(|io| WebSocket::from_stream(io, Options::new())))
    };
    (connect, attempts)
}

/// A server's whole conversation, said at once, and then its end.
async fn says(bytes: Vec<u8>) -> Result<DuplexStream> {
    let (near, far) = duplex(4096);
    Peer::new(far).send(bytes).await;
    Ok(near)
}

#[tokio::test(start_paused = true)]
async fn messages_go_on_over_lost_connections_until_a_normal_close() {
    let connections = vec![
        says(text("one")).await,
        Err(Error::new(Kind::Timeout, "scripted")),
        says([text("two"), close(1001, b"restart")].concat()).await,
        says([text("three"), close(1000, b"")].concat()).await,
    ];
    let (connect, attempts) = script(connections);
    let mut socket = Reconnecting::new(connect, ReconnectPolicy::new());
    for expected in ["one", "two", "three"] {
        assert_eq!(socket.recv().await.unwrap(), Some(expected.into()));
    }
    assert_eq!(socket.recv().await.unwrap(), None);
    assert!(socket.last_error().unwrap().message().contains("restart"));
    assert_eq!(attempts.lock().unwrap().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_gone_is_given_up_after_growing_waits() {
    let (connect, attempts) = script(Vec::new());
    let mut socket = Reconnecting::new(connect, ReconnectPolicy::new().max_failures(Some(9)));
    assert_eq!(socket.recv().await.unwrap_err().kind(), Kind::Connect);
    let waits: Vec<_> = attempts.lock().unwrap().windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(waits.len(), 9);
    assert!(waits[0] >= Duration::from_millis(250) && waits[0] <= Duration::from_millis(510), "{waits:?}");
    assert!(waits[8] >= Duration::from_secs(30) && waits[8] <= Duration::from_secs(61), "{waits:?}");
    assert_eq!(socket.recv().await.unwrap(), None);
    assert!(socket.send("x").await.unwrap_err().is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_quiet_connection_that_lasted_is_no_failure() {
    let (near, far): (Vec<_>, Vec<_>) = (0..6).map(|_| duplex(64)).unzip();
    tokio::spawn(async move {
        for quiet in far {
            clock::sleep(Duration::from_secs(16)).await;
            drop(quiet);
        }
    });
    let mut connections: Vec<_> = near.into_iter().map(Ok).collect();
    connections.push(says(text("at last")).await);
    let (connect, attempts) = script(connections);
    let mut socket = Reconnecting::new(connect, ReconnectPolicy::new().max_failures(Some(2)));
    assert_eq!(socket.recv().await.unwrap(), Some("at last".into()));
    let waits: Vec<_> = attempts.lock().unwrap().windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(17)), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn what_another_attempt_would_meet_again_is_given_at_once() {
    for kind in [Kind::Usage, Kind::Blocked, Kind::Auth, Kind::Protocol] {
        let (connect, attempts) = script(vec![Err(Error::new(kind, "scripted"))]);
        let mut socket = Reconnecting::new(connect, ReconnectPolicy::new());
        assert_eq!(socket.recv().await.unwrap_err().kind(), kind);
        assert_eq!(attempts.lock().unwrap().len(), 1);
    }
    let refused = Err(Error::new(Kind::Server, "scripted").with_code(404));
    let busy = Err(Error::new(Kind::Server, "scripted").with_code(503).with_retry_after(Duration::from_secs(40)));
    let (connect, attempts) = script(vec![busy, refused]);
    let mut socket = Reconnecting::new(connect, ReconnectPolicy::new());
    assert_eq!(socket.recv().await.unwrap_err().code(), Some(404));
    let attempts = attempts.lock().unwrap();
    assert_eq!((attempts[1] - attempts[0]).as_secs(), 40);
}

#[tokio::test(start_paused = true)]
async fn a_message_is_sent_on_the_connection_that_there_is() {
    let (near, far) = duplex(4096);
    let mut peer = Peer::new(far);
    let (connect, _) = script(vec![Err(Error::new(Kind::Connect, "scripted")), Ok(near)]);
    let mut socket = Reconnecting::new(connect, ReconnectPolicy::new());
    socket.send("hello").await.unwrap();
    peer.expect("hello").await;
    drop(peer);
    let _ = socket.recv().await.unwrap_err();
}
