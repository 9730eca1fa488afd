//! The connection: closing in every order, deadlines, backpressure, halves, pieces, byte streams.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use portolan_core::{Delivery, Kind, Phase, clock};
use portolan_websocket::{CloseCode, DataKind, Message, Options, Role, WebSocket};
use support::{Peer, close, frame, pair, text};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

fn raw(options: Options) -> (WebSocket<DuplexStream>, Peer) {
    let (ours, theirs) = duplex(64 << 10);
    (WebSocket::from_stream(ours, options), Peer::new(theirs))
}

/// Both ends of this crate.
fn ends(pipe: usize) -> (WebSocket<DuplexStream>, WebSocket<DuplexStream>) {
    let (ours, theirs) = duplex(pipe);
    let server = Options::new().role(Role::Server);
    (WebSocket::from_stream(ours, Options::new()), WebSocket::from_stream(theirs, server))
}

#[tokio::test]
async fn a_close_of_ours_is_confirmed_and_what_came_before_it_is_passed_over() {
    let (mut socket, mut peer) = raw(Options::new());
    let client = tokio::spawn(async move {
        let last = socket.close(CloseCode::NORMAL, "bye").await;
        (last, socket)
    });
    peer.expect(Message::Close(Some(portolan_websocket::CloseFrame::new(CloseCode::NORMAL, "bye")))).await;
    peer.send([text("late"), frame(0x89, b"late"), close(1000, b"you too")].concat()).await;
    drop(peer);
    let (last, mut socket) = client.await.unwrap();
    assert_eq!(last.unwrap().unwrap().reason, "you too");
    assert_eq!(socket.recv().await.unwrap(), None);
    let error = socket.send("after").await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Closed, Delivery::NotSent));
}

#[tokio::test]
async fn closes_that_cross_answer_each_other() {
    let (mut socket, mut peer) = raw(Options::new());
    peer.send(close(1001, b"")).await;
    let client = tokio::spawn(async move { socket.close(CloseCode::NORMAL, "").await });
    peer.expect_close(Some(1000)).await;
    drop(peer);
    assert_eq!(client.await.unwrap().unwrap().unwrap().code, CloseCode::GOING_AWAY);
}

#[tokio::test]
async fn the_peers_close_is_given_confirmed_and_then_the_end() {
    let (mut socket, mut peer) = raw(Options::new());
    peer.send(close(4000, b"why")).await;
    assert!(matches!(socket.recv().await, Ok(Some(Message::Close(Some(frame)))) if frame.reason == "why"));
    peer.expect_close(Some(4000)).await;
    assert!(socket.send("x").await.is_err());
    drop(peer);
    assert_eq!(socket.recv().await.unwrap(), None);
    assert_eq!(socket.recv().await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_confirms_is_left_at_the_deadline() {
    let (mut socket, _peer) = raw(Options::new().close_timeout(Duration::from_secs(3)));
    let started = clock::now();
    let error = socket.close(CloseCode::NORMAL, "").await.unwrap_err();
    assert_eq!((error.kind(), error.phase()), (Kind::Timeout, Some(Phase::Close)));
    assert_eq!(clock::now() - started, Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_confirms_and_then_stays_is_left_after_a_second_without_an_error() {
    let (mut socket, mut peer) = raw(Options::new());
    peer.send(close(1000, b"")).await;
    let started = clock::now();
    assert!(socket.close(CloseCode::NORMAL, "").await.is_ok());
    assert_eq!(clock::now() - started, Duration::from_secs(1));
    peer.expect_close(Some(1000)).await;
    peer.expect_end().await;
}

#[tokio::test]
async fn an_end_without_a_close_is_an_error_of_its_own() {
    for (script, words) in [(vec![], "without a Close"), (b"\x81\x05He".to_vec(), "mid-message")] {
        let (mut socket, mut peer) = raw(Options::new());
        peer.send(script).await;
        drop(peer);
        let error = socket.recv().await.unwrap_err();
        assert!(error.is_closed() && error.message().contains(words), "{error}");
        assert!(socket.flush().await.unwrap_err().is_closed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_pinged_and_then_given_up() {
    let options = Options::new().keepalive(Duration::from_secs(20), Duration::from_secs(7));
    let (mut socket, mut peer) = raw(options);
    let started = clock::now();
    let client = tokio::spawn(async move { (socket.recv().await, clock::now()) });
    for _ in 0..3 {
        assert!(matches!(peer.recv().await, Some(Message::Ping(_))));
        peer.send(frame(0x8a, b"")).await;
    }
    assert_eq!(clock::now() - started, Duration::from_secs(60));
    assert!(matches!(peer.recv().await, Some(Message::Ping(_))));
    let (result, at) = client.await.unwrap();
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.phase()), (Kind::Timeout, Some(Phase::Idle)));
    assert_eq!(at - started, Duration::from_secs(87));
}

#[tokio::test]
async fn pings_are_answered_while_a_long_message_is_on_its_way() {
    let (ours, theirs) = duplex(16 << 10);
    let (socket, mut peer) = (WebSocket::from_stream(ours, Options::new()), Peer::new(theirs));
    let (mut reader, mut writer) = socket.split();
    let sending = tokio::spawn(async move { writer.send(vec![1u8; 3 << 20]).await });
    let reading = tokio::spawn(async move { reader.recv().await });
    for at in 0..50u8 {
        peer.send(frame(0x89, &[at])).await;
    }
    peer.send(text("done")).await;
    assert_eq!(reading.await.unwrap().unwrap(), Some("done".into()));
    assert_eq!(peer.recv().await.unwrap().into_data().len(), 3 << 20);
    // RFC 6455 5.5.3: of those that piled up the last alone is answered.
    let mut last = None;
    while last != Some(49) {
        match peer.recv().await {
            Some(Message::Pong(data)) => last = Some(data[0]),
            other => panic!("expected a pong, saw {other:?}"),
        }
    }
    sending.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_writer_that_flushes_carries_the_pong_when_the_reader_could_not() {
    let (ours, theirs) = duplex(64);
    let mut socket = WebSocket::from_stream(ours, Options::new().control_messages(true));
    let mut peer = Peer::new(theirs);
    peer.send(frame(0x89, b"first")).await;
    socket.feed(vec![0u8; 200]).await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), Some(Message::Ping("first".into())));
    let sending = tokio::spawn(async move {
        socket.flush().await.unwrap();
        socket
    });
    assert_eq!(peer.recv().await.unwrap().into_data().len(), 200);
    peer.expect(Message::Pong("first".into())).await;
    sending.await.unwrap();
}

#[tokio::test]
async fn the_write_buffer_is_bounded_in_bytes_and_a_dropped_send_loses_nothing_it_took() {
    let (ours, theirs) = duplex(1 << 10);
    let mut socket = WebSocket::from_stream(ours, Options::new().write_buffer(10_000));
    let mut peer = Peer::new(theirs);
    let mut taken = 0;
    while futures_util::FutureExt::now_or_never(socket.feed(vec![b'x'; 1000])).is_some() {
        taken += 1;
        assert!(socket.write_backlog() <= 11_100, "{}", socket.write_backlog());
    }
    assert!((9..=12).contains(&taken), "{taken}");
    let reading = tokio::spawn(async move {
        for _ in 0..taken {
            assert_eq!(peer.recv().await.unwrap().into_data().len(), 1000);
        }
        peer.expect("end").await;
    });
    socket.send("end").await.unwrap();
    reading.await.unwrap();
}

#[tokio::test]
async fn halves_work_from_two_tasks_and_come_together_again() {
    let (client, server) = ends(4 << 10);
    let (mut reader, mut writer) = client.split();
    let echo = tokio::spawn(async move {
        let (mut stream, mut sink) = server.split();
        while let Some(message) = stream.next().await {
            let message = message.unwrap();
            if message.is_data() {
                SinkExt::send(&mut sink, message).await.unwrap();
            }
        }
    });
    let sending = tokio::spawn(async move {
        for at in 0..200u32 {
            writer.send(vec![u8::try_from(at).unwrap(); 100 * at as usize]).await.unwrap();
        }
        writer
    });
    for at in 0..200u32 {
        let data = reader.recv().await.unwrap().unwrap().into_data();
        assert_eq!((data.len(), data.iter().all(|byte| u32::from(*byte) == at)), (100 * at as usize, true));
    }
    let mut socket = reader.reunite(sending.await.unwrap()).unwrap();
    assert_eq!(socket.close(CloseCode::NORMAL, "").await.unwrap().unwrap().code, CloseCode::NORMAL);
    echo.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_close_by_the_writing_half_gives_the_waiting_reader_its_deadline() {
    let (socket, _peer) = raw(Options::new());
    let (mut reader, mut writer) = socket.split();
    let reading = tokio::spawn(async move { reader.recv().await });
    tokio::task::yield_now().await;
    writer.close(CloseCode::NORMAL, "").await.unwrap();
    assert_eq!(reading.await.unwrap().unwrap_err().phase(), Some(Phase::Close));
}

#[tokio::test]
async fn the_writing_half_hears_of_the_end_while_it_waits_for_room() {
    let (ours, theirs) = duplex(1 << 10);
    let (mut reader, mut writer) = WebSocket::from_stream(ours, Options::new()).split();
    let sending = tokio::spawn(async move { writer.send(vec![0u8; 1 << 20]).await });
    let reading = tokio::spawn(async move { reader.recv().await });
    tokio::task::yield_now().await;
    drop(theirs);
    assert!(sending.await.unwrap().unwrap_err().is_closed());
    assert!(reading.await.unwrap().unwrap_err().is_closed());
}

#[tokio::test]
async fn long_messages_are_read_in_pieces_and_the_rest_of_one_is_passed_over() {
    let (mut client, mut server) = ends(8 << 10);
    let sending = tokio::spawn(async move {
        server.send(vec![7u8; 1 << 20]).await.unwrap();
        server.send(vec![8u8; 1 << 20]).await.unwrap();
        server.send("next").await.unwrap();
        server
    });
    let mut message = client.recv_stream().await.unwrap().unwrap();
    let (mut total, mut most) = (0, 0);
    while let Some(chunk) = message.chunk().await.unwrap() {
        total += chunk.len();
        most = most.max(chunk.len());
    }
    drop(message);
    assert_eq!(total, 1 << 20);
    assert!(most <= 64 << 10, "{most}");
    let mut message = client.recv_stream().await.unwrap().unwrap();
    assert_eq!(message.kind(), DataKind::Binary);
    assert!(!message.chunk().await.unwrap().unwrap().is_empty());
    drop(message);
    assert_eq!(client.recv().await.unwrap(), Some("next".into()));
    sending.await.unwrap();
}

#[tokio::test]
async fn messages_are_sent_in_fragments_and_an_unfinished_one_ends_the_sending() {
    let (mut socket, mut peer) = raw(Options::new());
    let mut message = socket.send_stream(DataKind::Text).unwrap();
    let [first, second] = [b"h\xc3", b"\xa9\x6c"];
    message.write(Bytes::from_static(first)).await.unwrap();
    message.write(Bytes::from_static(second)).await.unwrap();
    message.finish("lo").await.unwrap();
    peer.expect("h\u{e9}llo").await;
    let refused = socket.send_stream(DataKind::Text).unwrap().write(Bytes::from_static(b"\xff")).await;
    assert_eq!(refused.unwrap_err().kind(), Kind::Usage);
    // Nothing of it was sent, so nothing is broken.
    socket.send("still good").await.unwrap();
    peer.expect("still good").await;
    socket.send_stream(DataKind::Binary).unwrap().write("half").await.unwrap();
    assert_eq!(socket.send("more").await.unwrap_err().kind(), Kind::Usage);
    socket.send(Message::Ping(Bytes::new())).await.unwrap();
    peer.expect(Message::Ping(Bytes::new())).await;
}

#[tokio::test]
async fn limits_end_the_conversation_with_1009() {
    let (mut peer, client) = pair(Options::new().max_frame(1000).max_message(1500));
    peer.send(frame(0x82, &[0; 1000])).await;
    peer.expect(vec![0; 1000]).await;
    peer.send(b"\x82\x7e\x03\xe9").await;
    peer.expect_close(Some(1009)).await;
    drop(peer);
    assert_eq!(client.await.unwrap().unwrap_err().kind(), Kind::Limit);
    let (mut peer, client) = pair(Options::new().max_frame(1000).max_message(1500));
    peer.send([frame(0x02, &[0; 1000]), frame(0x80, &[0; 501])].concat()).await;
    peer.expect_close(Some(1009)).await;
    drop(peer);
    assert_eq!(client.await.unwrap().unwrap_err().kind(), Kind::Limit);
}

#[tokio::test]
async fn binary_messages_are_a_byte_stream_and_text_is_refused_there() {
    let (client, server) = ends(4 << 10);
    let (mut near, mut far) = (client.into_io(), server.into_io());
    let data: Vec<u8> = (0..300_000u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let copy = data.clone();
    let writing = tokio::spawn(async move {
        near.write_all(&copy).await.unwrap();
        near.shutdown().await.unwrap();
        let mut rest = Vec::new();
        near.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"");
    });
    let mut seen = Vec::new();
    far.read_to_end(&mut seen).await.unwrap();
    assert_eq!(seen, data);
    writing.await.unwrap();
    let (socket, mut peer) = raw(Options::new());
    peer.send([frame(0x82, b"ab"), text("c")].concat()).await;
    let mut io = socket.into_io();
    let mut two = [0; 2];
    io.read_exact(&mut two).await.unwrap();
    assert_eq!(io.read(&mut two).await.unwrap_err().kind(), std::io::ErrorKind::InvalidData);
    peer.expect_close(Some(1003)).await;
}

#[tokio::test]
async fn a_dropped_receive_loses_nothing() {
    let (mut socket, mut peer) = raw(Options::new());
    let whole = [text("one"), frame(0x01, b"t"), frame(0x80, b"wo")].concat();
    for byte in &whole {
        peer.send([*byte]).await;
        if let Some(message) = futures_util::FutureExt::now_or_never(socket.recv()) {
            assert!(matches!(message.unwrap().unwrap().as_text(), Some("one" | "two")));
        }
    }
    peer.send(text("three")).await;
    assert_eq!(socket.recv().await.unwrap(), Some("three".into()));
}
