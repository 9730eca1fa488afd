//! The rules of RFC 6455 as the cases of the Autobahn suite put them to a client: groups 1 to 7, 9 (smaller) and 10.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use portolan_core::Kind;
use portolan_websocket::{Message, Options};
use support::{close, frame, pair, text};

/// The script breaks a rule: the client says `code`, ends, and its caller gets an error of `kind`.
async fn refused(script: &[u8], chop: usize, code: u16, kind: Kind) {
    let (mut peer, client) = pair(Options::new());
    peer.send_chopped(script, chop).await;
    loop {
        match peer.recv().await {
            Some(Message::Close(frame)) => {
                assert_eq!(frame.map(|frame| frame.code.get()), Some(code), "{script:.40?}");
                break;
            }
            Some(Message::Pong(_) | Message::Text(_) | Message::Binary(_)) => {}
            other => panic!("{script:.40?}: expected a close, saw {other:?}"),
        }
    }
    peer.expect_end().await;
    drop(peer);
    let error = client.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.code()), (kind, Some(i64::from(code))), "{script:.40?}");
}

/// The script is answered by these messages, and then the conversation is closed in good order.
async fn answered(script: &[u8], chop: usize, answers: &[Message]) {
    let (mut peer, client) = pair(Options::new());
    peer.send_chopped(script, chop).await;
    for answer in answers {
        peer.expect(answer.clone()).await;
    }
    peer.send(close(1000, b"done")).await;
    peer.expect_close(Some(1000)).await;
    drop(peer);
    let last = client.await.unwrap().unwrap().unwrap().unwrap();
    assert_eq!((last.code.get(), last.reason.as_str()), (1000, "done"));
}

#[tokio::test]
async fn messages_of_every_length_are_echoed() {
    for len in [0, 125, 126, 127, 128, 65_535, 65_536] {
        let body = "*".repeat(len);
        answered(&text(&body), 1 << 20, &[Message::text(body.clone())]).await;
        answered(&text(&body), 997, &[Message::text(body.clone())]).await;
        let body = vec![0xfe; len];
        answered(&frame(0x82, &body), 1 << 20, &[Message::binary(body.clone())]).await;
        answered(&frame(0x82, &body), 997, &[Message::binary(body)]).await;
    }
}

#[tokio::test]
async fn pings_are_answered_with_their_payload_and_pongs_are_ignored() {
    for payload in [&b""[..], b"Hello, world!", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", &[0xfe; 125]] {
        for chop in [1, 1 << 20] {
            answered(&frame(0x89, payload), chop, &[Message::Ping(payload.to_vec().into())].map(pong)).await;
        }
    }
    answered(&[frame(0x8a, b""), frame(0x8a, b"unsolicited"), text("x")].concat(), 1, &["x".into()]).await;
    let ten: Vec<_> = (0..10).map(|at| format!("payload-{at}")).collect();
    let script: Vec<u8> = ten.iter().flat_map(|payload| frame(0x89, payload.as_bytes())).collect();
    let answers: Vec<_> = ten.iter().map(|payload| Message::Pong(payload.clone().into())).collect();
    answered(&script, 1 << 20, &answers).await;
    answered(&script, 1, &answers).await;
    refused(&frame(0x89, &[0xfe; 126]), 1 << 20, 1002, Kind::Protocol).await;
}

fn pong(message: Message) -> Message {
    Message::Pong(message.into_data())
}

#[tokio::test]
async fn reserved_bits_and_opcodes_are_refused_after_what_was_right_is_echoed() {
    for rsv in 1..=7u8 {
        for opcode in [1u8, 2, 8, 9, 10] {
            let script = [text("before"), frame(0x80 | rsv << 4 | opcode, b"x"), frame(0x89, b"")].concat();
            refused(&script, 1 << 20, 1002, Kind::Protocol).await;
        }
    }
    for opcode in [3u8, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        for payload in [&b""[..], b"reserved"] {
            let script = [text("before"), frame(0x80 | opcode, payload), frame(0x89, b"")].concat();
            refused(&script, 1 << 20, 1002, Kind::Protocol).await;
            refused(&script, 1, 1002, Kind::Protocol).await;
        }
    }
}

#[tokio::test]
async fn masked_frames_and_wasteful_lengths_are_refused() {
    refused(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", 1, 1002, Kind::Protocol).await;
    refused(b"\x82\x7e\x00\x05aaaaa", 1 << 20, 1002, Kind::Protocol).await;
    refused(b"\x82\x7f\x00\x00\x00\x00\x00\x00\x00\x05aaaaa", 1 << 20, 1002, Kind::Protocol).await;
    refused(b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff", 1 << 20, 1002, Kind::Protocol).await;
    refused(b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", 1 << 20, 1009, Kind::Limit).await;
}

#[tokio::test]
async fn fragments_are_joined_and_control_frames_come_between_them() {
    let (first, last) = (frame(0x01, b"fragment1"), frame(0x80, b"fragment2"));
    let whole = Message::text("fragment1fragment2");
    let ping = frame(0x89, b"pongme");
    let answer = Message::Pong("pongme".into());
    for chop in [1, 1 << 20] {
        answered(&[&first[..], &last].concat(), chop, std::slice::from_ref(&whole)).await;
        answered(&[&first[..], &ping, &last].concat(), chop, &[answer.clone(), whole.clone()]).await;
        let many = [&first[..], &ping, &frame(0x00, b"-"), &ping, &frame(0x00, b""), &last].concat();
        answered(&many, chop, &[answer.clone(), answer.clone(), Message::text("fragment1-fragment2")]).await;
        // Text in fragments without a byte, and a message after.
        let empty = [frame(0x01, b""), frame(0x00, b""), frame(0x80, b""), text("next")].concat();
        answered(&empty, chop, &["".into(), "next".into()]).await;
        refused(&frame(0x09, b"fragment1"), chop, 1002, Kind::Protocol).await;
        refused(&frame(0x0a, b"fragment1"), chop, 1002, Kind::Protocol).await;
        refused(&[&frame(0x80, b"nothing before")[..], &text("x")].concat(), chop, 1002, Kind::Protocol).await;
        refused(&frame(0x00, b"nothing before"), chop, 1002, Kind::Protocol).await;
        refused(&[&first[..], &text("a message within")].concat(), chop, 1002, Kind::Protocol).await;
        refused(&[&first[..], &last, &last].concat(), chop, 1002, Kind::Protocol).await;
        refused(&[&first[..], &frame(0x02, b"other")].concat(), chop, 1002, Kind::Protocol).await;
    }
}

#[tokio::test]
async fn text_is_checked_across_fragments_and_refused_at_the_first_wrong_byte() {
    let good = "Hello-\u{b5}@\u{df}\u{f6}\u{e4}\u{fc}\u{e0}\u{e1}-UTF-8!!\u{1f600}\u{10ffff}\u{fffe}";
    let script: Vec<u8> = good.as_bytes().iter().flat_map(|byte| frame(0x00, &[*byte])).collect();
    let script = [frame(0x01, b""), script, frame(0x80, b"")].concat();
    answered(&script, 1 << 20, &[good.into()]).await;
    answered(&text(good), 1, &[good.into()]).await;
    let bad: &[&[u8]] = &[
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
        b"\xf4\x90\x80\x80",
        b"\x80",
        b"\xbf\xbf",
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xf8\x80\x80\x80\xaf",
        b"\xfc\x80\x80\x80\x80\xaf",
        b"\xed\xad\xbf",
        b"\xed\xbf\xbf",
        b"\xfe",
        b"\xff",
        b"\xc2",
        b"\xe1\x80",
        b"\xf1\x80\x80",
    ];
    for bad in bad {
        refused(&frame(0x81, bad), 1 << 20, 1007, Kind::Protocol).await;
        refused(&frame(0x81, bad), 1, 1007, Kind::Protocol).await;
        let (head, tail) = bad.split_at(bad.len() / 2);
        refused(&[frame(0x01, head), frame(0x80, tail)].concat(), 1 << 20, 1007, Kind::Protocol).await;
    }
    // The same bytes are nobody's business in a binary message.
    answered(&frame(0x82, b"\xf4\x90\x80\x80"), 1, &[b"\xf4\x90\x80\x80".to_vec().into()]).await;
}

#[tokio::test]
async fn wrong_text_is_refused_before_the_frame_ends() {
    let (mut peer, client) = pair(Options::new());
    // A frame of 100 bytes of which five have come: U+110000 is wrong with its second byte.
    peer.send(b"\x81\x64abc\xf4\x90").await;
    peer.expect_close(Some(1007)).await;
    peer.expect_end().await;
    drop(peer);
    assert_eq!(client.await.unwrap().unwrap_err().code(), Some(1007));
}

#[tokio::test]
async fn after_a_close_nothing_is_answered() {
    for after in [vec![], close(1000, b""), frame(0x89, b"late"), text("late"), frame(0x80, b"late"), vec![0xff; 9]] {
        let (mut peer, client) = pair(Options::new());
        peer.send([text("Hello"), close(1000, b"first"), after].concat()).await;
        peer.expect("Hello").await;
        peer.expect_close(Some(1000)).await;
        drop(peer);
        assert_eq!(client.await.unwrap().unwrap().unwrap().unwrap().reason, "first");
    }
    // A close between fragments ends the message for ever.
    let (mut peer, client) = pair(Options::new());
    peer.send([frame(0x01, b"fragment1"), close(1000, b""), frame(0x80, b"fragment2")].concat()).await;
    peer.expect_close(Some(1000)).await;
    drop(peer);
    assert!(client.await.unwrap().is_ok());
}

#[tokio::test]
async fn close_payloads_are_held_to_the_rules() {
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
        let (mut peer, client) = pair(Options::new());
        peer.send(close(code, &[b'*'; 123])).await;
        peer.expect_close(Some(code)).await;
        drop(peer);
        assert_eq!(client.await.unwrap().unwrap().unwrap().unwrap().code.get(), code);
    }
    let (mut peer, client) = pair(Options::new());
    peer.send(frame(0x88, b"")).await;
    peer.expect_close(None).await;
    drop(peer);
    assert_eq!(client.await.unwrap().unwrap(), Some(None));
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        refused(&close(code, b""), 1 << 20, 1002, Kind::Protocol).await;
    }
    refused(&frame(0x88, b"a"), 1, 1002, Kind::Protocol).await;
    refused(&close(1000, &[b'*'; 124]), 1, 1002, Kind::Protocol).await;
    refused(&close(1000, b"\xce\xba\xed\xa0\x80"), 1, 1007, Kind::Protocol).await;
}

#[tokio::test]
async fn long_messages_pass_in_every_shape() {
    for len in [64 << 10, 256 << 10, 1 << 20] {
        let body = vec![b'*'; len];
        answered(&frame(0x82, &body), 1 << 20, &[body.clone().into()]).await;
        for size in [1300, 4096, 65_536] {
            let mut script = frame(0x02, b"");
            for piece in body.chunks(size) {
                script.extend(frame(0x00, piece));
            }
            script.extend(frame(0x80, b""));
            answered(&script, 64 << 10, &[body.clone().into()]).await;
        }
    }
}
