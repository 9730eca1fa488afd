//! What holds for whatever a peer sends: no panic, bounded memory, and the same answers however the bytes are cut.

use std::task::{Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::Request;
use portolan_core::{Delivery, Kind, clock};
use proptest::prelude::*;

use super::answer::{Answer, Piece};
use super::request;
use super::send::Opened;
use super::stream::Key;
use super::{Engine, frame};
use crate::Options;

/// An engine with two requests in flight, and their keys.
fn engine() -> (Engine, Vec<Key>) {
    let (config, _) = Options::new().stream_window(1000).connection_window(70_000).checked().unwrap();
    let mut engine = Engine::new(config, clock::now());
    let (parts, ()) = Request::get("http://example.test/").body(()).unwrap().into_parts();
    let keys = (0..2).map(|_| {
        let head = request::head(&parts, None).unwrap();
        match engine.open(&head, false, None, None, Waker::noop()).unwrap() {
            Opened::Stream(key) => key,
            Opened::Wait(_) => panic!("there is room"),
        }
    });
    let keys = keys.collect();
    (engine, keys)
}

/// All that the two callers see.
fn seen(engine: &mut Engine, keys: &[Key]) -> Vec<String> {
    let mut out = Vec::new();
    for key in keys {
        while let Poll::Ready(answer) = engine.poll_answer(*key, Waker::noop()) {
            let done = !matches!(answer, Answer::Informational(_));
            out.push(match answer {
                Answer::Failed(error) => error.to_string(),
                other => format!("{other:?}"),
            });
            if done {
                break;
            }
        }
        let mut body = BytesMut::new();
        while let Poll::Ready(piece) = engine.poll_body(*key, Waker::noop()) {
            match piece {
                Piece::Data(data) => body.extend_from_slice(&data),
                Piece::Trailers(trailers) => out.push(format!("{trailers:?}")),
                Piece::End | Piece::Failed(_) => break,
            }
        }
        out.push(format!("{body:?}"));
    }
    out.push(format!("{:?}", engine.failure.as_ref().map(|failure| failure.message.clone())));
    out
}

/// Frames that are mostly well formed, so that the ways behind the first check are walked too.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let block = prop_oneof![
        Just(vec![0x88]),
        Just(vec![0x88, 0x0f, 0x0d, 1, b'5']),
        Just(vec![0x08, 3, b'1', b'0', b'3']),
        Just(vec![0x40, 1, b'a', 1, b'b']),
        Just(vec![0xbe]),
        proptest::collection::vec(any::<u8>(), 0..20),
    ];
    let payload = prop_oneof![
        block,
        proptest::collection::vec(any::<u8>(), 0..12),
        Just(vec![0, 0, 0, 1]),
        Just(vec![0; 8]),
        Just(vec![0, 4, 0, 0, 1, 0]),
        Just(vec![b'd'; 400]),
    ];
    let kind = prop_oneof![4 => Just(1u8), 4 => Just(0u8), 4 => 0u8..13];
    let flags = prop_oneof![Just(0u8), Just(1), Just(4), Just(5), any::<u8>()];
    let id = prop_oneof![Just(0u32), Just(1), Just(1), Just(3), 0u32..7];
    proptest::collection::vec((kind, flags, id, payload), 0..24).prop_map(|frames| {
        let mut out = frame::head_bytes(0, frame::SETTINGS, 0, 0).to_vec();
        for (kind, flags, id, payload) in frames {
            out.extend_from_slice(&frame::head_bytes(payload.len(), kind, flags, id));
            out.extend_from_slice(&payload);
        }
        out
    })
}

proptest! {
    #[test]
    fn the_same_bytes_give_the_same_answers_however_they_are_cut(bytes in frames(), cuts in proptest::collection::vec(1usize..40, 1..60)) {
        let now = clock::now();
        let (mut whole, keys) = engine();
        whole.recv(&mut BytesMut::from(&bytes[..]), now);
        let (mut parts, _) = engine();
        let mut rest = Bytes::from(bytes);
        let mut input = BytesMut::new();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            input.extend_from_slice(&rest.split_to((*cut).min(rest.len())));
            parts.recv(&mut input, now);
        }
        prop_assert_eq!(seen(&mut whole, &keys), seen(&mut parts, &keys));
        prop_assert_eq!(whole.out.tail(), parts.out.tail());
    }

    #[test]
    fn any_bytes_at_all_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..600), settings in any::<bool>()) {
        let (mut engine, keys) = engine();
        let mut input = BytesMut::new();
        if settings {
            input.extend_from_slice(&frame::head_bytes(0, frame::SETTINGS, 0, 0));
        }
        input.extend_from_slice(&bytes);
        engine.recv(&mut input, clock::now());
        let _ = seen(&mut engine, &keys);
        for key in keys {
            engine.detach(key);
        }
        prop_assert_eq!(engine.streams.open(), 0);
    }
}

#[test]
fn uploads_that_are_woken_again_and_again_while_the_connection_is_full_are_not_piled_up() {
    let (mut engine, keys) = engine();
    engine.send_window.take(65_535);
    for _ in 0..1000 {
        for key in &keys {
            assert!(engine.poll_capacity(*key, Waker::noop()).is_pending());
        }
        assert!(engine.blocked.len() <= 2 * keys.len() + 1, "{}", engine.blocked.len());
        engine.wakes.clear();
    }
}

#[test]
fn a_connection_whose_stream_ids_are_used_up_takes_no_more() {
    let (mut engine, _) = engine();
    engine.next_id = frame::MAX_31;
    let (parts, ()) = Request::get("http://example.test/").body(()).unwrap().into_parts();
    let head = super::request::head(&parts, None).unwrap();
    assert!(matches!(engine.open(&head, true, None, None, Waker::noop()), Ok(Opened::Stream(_))));
    assert!(!engine.is_open());
    let error = engine.open(&head, true, None, None, Waker::noop()).unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Closed, Delivery::NotSent));
}
