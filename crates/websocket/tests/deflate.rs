//! permessage-deflate as groups 12 and 13 of the Autobahn suite put it: sizes, windows, takeover, and rogue data.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use flate2::{Compress, Compression, FlushCompress};
use portolan_core::Kind;
use portolan_websocket::codec::DeflateAgreed;
use portolan_websocket::handshake::accept;
use portolan_websocket::{CloseCode, DataKind, Deflate, Message, Options, Request, WebSocket};
use support::{Peer, echo, frame};
use tokio::io::{DuplexStream, duplex};

/// What the handshake of these two comes to, on both ends.
fn agree(client: Deflate, server: Deflate) -> (WebSocket<DuplexStream>, WebSocket<DuplexStream>, DeflateAgreed) {
    let request = Request::new("ws://example.test/").unwrap();
    let options = Options::new().deflate(client);
    let upgrade = request.upgrade(&options).unwrap();
    let (response, theirs) = accept(&upgrade, Options::new().deflate(server), &[]).unwrap();
    let agreed = request.verify(&options, &response).unwrap().deflate.unwrap();
    let (near, far) = duplex(64 << 10);
    let near = WebSocket::from_stream(near, options.agreed(Some(agreed)));
    (near, WebSocket::from_stream(far, theirs), agreed)
}

/// Text that compresses like prose, and bytes that hardly do.
fn bodies(len: usize) -> [Message; 2] {
    let prose: String = "It was the best of times, it was the worst of times, ".chars().cycle().take(len).collect();
    let mut state = 7u32;
    let noise = (0..len).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    });
    [Message::text(prose), Message::binary(noise.collect::<Vec<_>>())]
}

#[tokio::test]
async fn messages_of_every_size_pass_with_every_set_of_parameters() {
    let narrow = || Deflate::new().client_max_window_bits(9).server_max_window_bits(9);
    let sets = [
        (Deflate::new(), Deflate::new()),
        (Deflate::new().client_context_takeover(false), Deflate::new()),
        (Deflate::new().server_context_takeover(false), Deflate::new()),
        (Deflate::new(), Deflate::new().client_context_takeover(false).server_context_takeover(false)),
        (narrow(), Deflate::new()),
        (Deflate::new(), narrow()),
        (narrow().client_context_takeover(false).server_context_takeover(false), narrow()),
        (Deflate::new().level(1).threshold(0), Deflate::new().level(9).threshold(0)),
    ];
    for (client, server) in sets {
        let (mut near, mut far, agreed) = agree(client, server);
        let answering = tokio::spawn(async move {
            while let Ok(Some(message)) = far.recv().await {
                if message.is_data() {
                    far.send(message).await.unwrap();
                }
            }
        });
        for len in [0, 1, 16, 64, 256, 1024, 4096, 16_384, 32_768, 100_000] {
            for body in bodies(len) {
                for _ in 0..2 {
                    near.send(body.clone()).await.unwrap();
                    assert!(near.recv().await.unwrap().as_ref() == Some(&body), "{len} {agreed:?}");
                }
            }
        }
        near.close(CloseCode::NORMAL, "").await.unwrap();
        answering.await.unwrap();
    }
}

#[tokio::test]
async fn fragments_and_pieces_are_compressed_as_one_message() {
    let (mut near, mut far, _) = agree(Deflate::new(), Deflate::new());
    let mut message = near.send_stream(DataKind::Text).unwrap();
    for _ in 0..50 {
        message.write("over and over ").await.unwrap();
    }
    message.finish("").await.unwrap();
    assert_eq!(far.recv().await.unwrap(), Some("over and over ".repeat(50).into()));
    let [prose, _] = bodies(200_000);
    far.send(prose.clone()).await.unwrap();
    let mut message = near.recv_stream().await.unwrap().unwrap();
    let mut whole = Vec::new();
    while let Some(chunk) = message.chunk().await.unwrap() {
        whole.extend_from_slice(&chunk);
    }
    drop(message);
    assert!(Message::text(String::from_utf8(whole).unwrap()) == prose);
}

const AGREED: fn() -> Option<DeflateAgreed> = || {
    let (_, _, agreed) = agree(Deflate::new(), Deflate::new());
    Some(agreed)
};

/// A client that takes compressed messages from a scripted server, and sends its own as they are.
fn scripted(options: Options) -> (Peer, tokio::task::JoinHandle<support::Outcome>) {
    let (near, far) = duplex(256 << 10);
    let options = options.deflate(Deflate::new().threshold(usize::MAX)).agreed(AGREED());
    (Peer::new(far), echo(near, options))
}

/// By zlib itself, not by the code under test.
fn packed(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 1000);
    Compress::new(Compression::best(), false).compress_vec(data, &mut out, FlushCompress::Sync).unwrap();
    out.truncate(out.len() - 4);
    out
}

#[tokio::test]
async fn compressed_messages_are_taken_whole_in_fragments_and_among_plain_ones() {
    let (mut peer, client) = scripted(Options::new());
    let hello = packed(b"Hello");
    let (head, tail) = hello.split_at(3);
    peer.send(frame(0xc1, &hello)).await;
    peer.expect("Hello").await;
    // The reserved bit is on the first frame alone (RFC 7692 6.1), and a ping may come between.
    peer.send([frame(0x41, head), frame(0x89, b"p"), frame(0x00, b""), frame(0x80, tail)].concat()).await;
    peer.expect(Message::Pong("p".into())).await;
    peer.expect("Hello").await;
    peer.send([support::text("plain"), frame(0xc1, b"\x00"), frame(0xc2, &packed(&[0; 1000]))].concat()).await;
    peer.expect("plain").await;
    peer.expect("").await;
    peer.expect(vec![0; 1000]).await;
    drop(peer);
    assert!(client.await.unwrap().is_err());
}

#[tokio::test]
async fn rogue_compressed_data_ends_the_conversation_with_its_own_code() {
    let bomb = packed(&vec![0; 4 << 20]);
    let wrong_text = packed(b"abc\xff");
    let open_text = packed(b"abc\xc3");
    let cases: &[(&str, Vec<u8>, u16, Kind)] = &[
        ("the bit on a continuation", [frame(0x41, b"\xf2"), frame(0xc0, b"\x48")].concat(), 1002, Kind::Protocol),
        ("the bit on a ping", frame(0xc9, b""), 1002, Kind::Protocol),
        ("no deflate at all", frame(0xc1, b"\xff\xff\xff\xff"), 1007, Kind::Protocol),
        ("a distance too far back", frame(0xc1, b"\xf2\x00\x11\x00\x00"), 1007, Kind::Protocol),
        ("text that is not UTF-8", frame(0xc1, &wrong_text), 1007, Kind::Protocol),
        ("text that ends within a character", frame(0xc1, &open_text), 1007, Kind::Protocol),
        ("a bomb", frame(0xc2, &bomb), 1009, Kind::Limit),
    ];
    for (what, script, code, kind) in cases {
        let (mut peer, client) = scripted(Options::new().max_message(1 << 20));
        peer.send(script).await;
        peer.expect_close(Some(*code)).await;
        drop(peer);
        assert_eq!(client.await.unwrap().unwrap_err().kind(), *kind, "{what}");
    }
}

#[tokio::test]
async fn a_window_of_eight_bits_is_met_by_sending_without_compression() {
    let agreed = {
        let request = Request::new("ws://example.test/").unwrap();
        let options = Options::new().deflate(Deflate::new());
        let upgrade = request.upgrade(&options).unwrap();
        let (mut response, _) = accept(&upgrade, options.clone(), &[]).unwrap();
        let value = "permessage-deflate; client_max_window_bits=8; server_max_window_bits=8";
        response.headers_mut().insert("sec-websocket-extensions", value.parse().unwrap());
        request.verify(&options, &response).unwrap().deflate
    };
    assert_eq!(agreed.unwrap().client_bits, 8);
    let (near, far) = duplex(64 << 10);
    let mut peer = Peer::new(far);
    let mut socket = WebSocket::from_stream(near, Options::new().deflate(Deflate::new()).agreed(agreed));
    socket.send("a".repeat(1000)).await.unwrap();
    // The peer's decoder knows of no compression, so it would refuse the reserved bit.
    peer.expect("a".repeat(1000)).await;
}
