use std::pin::pin;
use std::task::Waker;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::line::{LineRule, Lines};

fn talk(size: usize) -> (Exchange<Lines, DuplexStream>, DuplexStream) {
    let (near, far) = duplex(size);
    (Exchange::new(near, Lines::new("test", LineRule::Strict, 100)), far)
}

/// Polls `n` times and drops.
fn poll_and_drop(future: impl Future, n: usize) {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..n {
        assert!(future.as_mut().poll(&mut cx).is_pending());
    }
}

async fn heard(far: &mut DuplexStream, n: usize) -> String {
    let mut bytes = vec![0; n];
    far.read_exact(&mut bytes).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_batch_goes_out_in_one_write_and_its_replies_are_kept_apart() {
    let (mut exchange, mut far) = talk(1024);
    exchange.send_all([b"a".as_slice(), b"b", b"c"]).await.unwrap();
    assert_eq!(heard(&mut far, 9).await, "a\r\nb\r\nc\r\n");
    far.write_all(b"1\r\n2\r\n3\r\n").await.unwrap();
    for (reply, owed) in [("1", 2), ("2", 1), ("3", 0)] {
        assert!(!exchange.is_reusable());
        assert_eq!(exchange.recv().await.unwrap(), reply);
        assert_eq!(exchange.owed(), owed);
    }
    assert!(exchange.is_reusable() && exchange.is_idle_clean());
}

#[tokio::test]
async fn a_request_that_does_not_encode_sends_nothing() {
    let (mut exchange, mut far) = talk(64);
    let error = exchange.send_all([b"fine".as_slice(), b"in\njected"]).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Usage, Delivery::NotSent));
    assert!(exchange.is_reusable());
    drop(exchange);
    let mut rest = Vec::new();
    far.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
}

#[tokio::test]
async fn dropping_a_call_in_any_state_poisons_it() {
    // Blocked in the write.
    let (mut exchange, _far) = talk(2);
    poll_and_drop(exchange.call(b"long request".as_slice()), 3);
    let error = exchange.call(b"x".as_slice()).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Closed, Delivery::NotSent));
    assert!(error.message().contains("being sent"), "{error}");
    // Waiting for the reply.
    let (mut exchange, mut far) = talk(64);
    poll_and_drop(exchange.call(b"x".as_slice()), 2);
    far.write_all(b"late reply\r\n").await.unwrap();
    assert!(!exchange.is_reusable() && !exchange.is_idle_clean());
    assert!(exchange.recv().await.unwrap_err().message().contains("before its reply was read"));
    assert!(exchange.into_parts().is_err());
}

#[tokio::test]
async fn waiting_for_an_event_may_be_dropped_and_loses_nothing() {
    let (mut exchange, mut far) = talk(64);
    far.write_all(b"* ev").await.unwrap();
    poll_and_drop(exchange.recv(), 2);
    far.write_all(b"ent\r\n").await.unwrap();
    poll_and_drop(poll_fn(|_| Poll::<()>::Pending), 1);
    assert_eq!(exchange.recv().await.unwrap(), "* event");
    assert!(exchange.is_reusable());
}

#[tokio::test(start_paused = true)]
async fn each_stall_names_its_phase_and_what_became_of_the_request() {
    let times = Timeouts::default().first_byte(Duration::from_secs(5)).idle(Duration::from_secs(2));
    let at = |exchange: Exchange<Lines, DuplexStream>| exchange.with_timeouts(times);
    // The peer reads nothing.
    let (exchange, _far) = talk(1);
    let error = at(exchange).call(b"request".as_slice()).await.unwrap_err();
    assert_eq!((error.phase(), error.delivery()), (Some(Phase::Send), Delivery::Unknown));
    // It reads and says nothing.
    let (exchange, _far) = talk(64);
    let before = clock::now();
    let error = at(exchange).call(b"request".as_slice()).await.unwrap_err();
    assert!(error.is_timeout());
    assert_eq!((error.phase(), error.delivery()), (Some(Phase::FirstByte), Delivery::Unknown));
    assert_eq!(clock::now() - before, Duration::from_secs(5));
    // It stops in mid-reply.
    let (exchange, mut far) = talk(64);
    far.write_all(b"half").await.unwrap();
    let error = at(exchange).call(b"request".as_slice()).await.unwrap_err();
    assert_eq!((error.phase(), error.delivery()), (Some(Phase::Idle), Delivery::Answered));
    // The whole is bounded too.
    let (exchange, _far) = talk(64);
    let mut exchange = exchange.with_timeouts(Timeouts::default().total(Duration::from_secs(1)));
    let error = exchange.call(b"request".as_slice()).await.unwrap_err();
    assert_eq!((error.phase(), error.delivery()), (Some(Phase::Total), Delivery::Unknown));
    assert!(!exchange.is_reusable());
}

#[tokio::test(start_paused = true)]
async fn a_slow_reply_that_keeps_moving_passes() {
    let (exchange, mut far) = talk(64);
    let mut exchange = exchange.with_timeouts(Timeouts::default().idle(Duration::from_secs(1)));
    let peer = async {
        for byte in b"slowly\r\n" {
            clock::sleep(Duration::from_millis(900)).await;
            far.write_all(&[*byte]).await.unwrap();
        }
    };
    let (reply, ()) = tokio::join!(exchange.call(b"x".as_slice()), peer);
    assert_eq!(reply.unwrap(), "slowly");
}

#[tokio::test]
async fn a_close_is_an_error_wherever_it_comes_and_says_what_became_of_the_request() {
    let (mut exchange, far) = talk(64);
    drop(far);
    let error = exchange.call(b"x".as_slice()).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery(), error.phase()), (Kind::Closed, Delivery::NotSent, Some(Phase::Send)));
    let (mut exchange, mut far) = talk(64);
    exchange.send(b"x".as_slice()).await.unwrap();
    far.shutdown().await.unwrap();
    let error = exchange.recv().await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Closed, Delivery::Unknown));
    let (mut exchange, mut far) = talk(64);
    far.write_all(b"25").await.unwrap();
    far.shutdown().await.unwrap();
    let error = exchange.call(b"x".as_slice()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.delivery(), error.protocol_name()),
        (Kind::Closed, Delivery::Answered, Some("test"))
    );
}

#[tokio::test(start_paused = true)]
async fn each_reply_of_a_batch_is_waited_for_anew() {
    let (mut exchange, mut far) = talk(64);
    exchange.send_all([b"a".as_slice(), b"b"]).await.unwrap();
    far.write_all(b"1\r\n").await.unwrap();
    exchange.recv().await.unwrap();
    let error = exchange.recv().await.unwrap_err();
    assert_eq!((error.phase(), error.delivery()), (Some(Phase::FirstByte), Delivery::Unknown));
}

#[tokio::test]
async fn a_broken_reply_is_a_protocol_error_and_a_flood_a_limit() {
    let (mut exchange, mut far) = talk(64);
    far.write_all(b"bare\nLF").await.unwrap();
    let error = exchange.call(b"x".as_slice()).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Protocol, Delivery::Answered));
    assert!(!exchange.is_reusable());
    let later = exchange.call(b"y".as_slice()).await.unwrap_err();
    assert_eq!((later.kind(), later.delivery()), (Kind::Closed, Delivery::NotSent));
    assert!(later.message().contains("bare LF"), "{later}");
    let (exchange, mut far) = talk(64);
    far.write_all(&[b'x'; 50]).await.unwrap();
    let error = exchange.with_max_buffer(40).call(b"x".as_slice()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Limit);
}

#[tokio::test]
async fn an_idle_connection_that_closed_or_spoke_is_not_taken() {
    let (mut exchange, far) = talk(64);
    assert!(exchange.is_idle_clean());
    drop(far);
    assert!(!exchange.is_idle_clean() && !exchange.is_reusable());
    let (mut exchange, mut far) = talk(64);
    far.write_all(b"421 bye\r\n").await.unwrap();
    assert!(!exchange.is_idle_clean());
    assert!(exchange.call(b"x".as_slice()).await.unwrap_err().message().contains("idle connection"));
}

#[tokio::test]
async fn plaintext_after_the_agreement_to_upgrade_is_refused_as_injection() {
    let (mut exchange, mut far) = talk(64);
    far.write_all(b"220 go\r\n250 evil\r\n").await.unwrap();
    assert_eq!(exchange.call(b"STARTTLS".as_slice()).await.unwrap(), "220 go");
    let error = exchange.upgrade(async |io| Ok(io)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Protocol);
    assert!(error.message().contains("injection"));
    let (mut exchange, mut far) = talk(64);
    far.write_all(b"220 go\r\n").await.unwrap();
    exchange.call(b"STARTTLS".as_slice()).await.unwrap();
    let mut exchange = exchange.upgrade(async |io| Ok(io)).await.unwrap();
    far.write_all(b"250 fine\r\n").await.unwrap();
    assert_eq!(exchange.call(b"EHLO".as_slice()).await.unwrap(), "250 fine");
}

#[tokio::test]
async fn bodies_that_no_codec_frames_stream_through() {
    let (mut exchange, mut far) = talk(1024);
    far.write_all(b"5 bytes\r\nhello+OK\r\n").await.unwrap();
    assert_eq!(exchange.call(b"GET".as_slice()).await.unwrap(), "5 bytes");
    assert_eq!(exchange.read_raw(5).await.unwrap(), "hello");
    assert_eq!(exchange.recv().await.unwrap(), "+OK");
    exchange.write_buf().extend_from_slice(b"head ");
    exchange.write_raw(b"and body").await.unwrap();
    assert_eq!(heard(&mut far, 5 + 13).await, "GET\r\nhead and body");
    far.write_all(b"tail").await.unwrap();
    drop(far);
    assert_eq!(exchange.read_chunk(3).await.unwrap().unwrap(), "tai");
    assert_eq!(exchange.read_chunk(3).await.unwrap().unwrap(), "l");
    assert_eq!(exchange.read_chunk(3).await.unwrap(), None);
}
