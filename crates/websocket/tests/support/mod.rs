//! A scripted server over an in-memory pipe, and a client that echoes.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "helpers of tests fail by panicking")]
#![allow(clippy::disallowed_methods, reason = "servers of tests are reached on loopback, and live in the environment")]

use bytes::BytesMut;
use portolan_core::{Error, Result};
use portolan_websocket::codec::{Decoder, Limits};
use portolan_websocket::{CloseFrame, Message, Options, Role, WebSocket};
use portolan_wire::Codec;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;

/// A frame of a server, right or wrong: the first byte says all.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        len @ ..126 => out.push(u8::try_from(len).unwrap()),
        len @ ..65536 => {
            out.push(126);
            out.extend(u16::try_from(len).unwrap().to_be_bytes());
        }
        len => {
            out.push(127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(payload);
    out
}

pub(crate) fn text(payload: &str) -> Vec<u8> {
    frame(0x81, payload.as_bytes())
}

pub(crate) fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(0x88, &[&code.to_be_bytes(), reason].concat())
}

/// The server's end: raw bytes out, decoded messages in.
pub(crate) struct Peer {
    pub(crate) io: DuplexStream,
    pub(crate) decoder: Decoder,
    pub(crate) input: BytesMut,
}

impl Peer {
    pub(crate) fn new(io: DuplexStream) -> Self {
        let limits = Limits::default();
        Self { io, decoder: Decoder::new(Role::Server, limits, None), input: BytesMut::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.io.write_all(bytes.as_ref()).await.unwrap();
    }

    /// What was sent but may no longer be taken.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.io.write_all(bytes.as_ref()).await;
    }

    /// In pieces of `size`, each of which the client may see alone.
    pub(crate) async fn send_chopped(&mut self, bytes: &[u8], size: usize) {
        for piece in bytes.chunks(size) {
            if self.io.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// The client's next message; `None` at the end of the connection.
    pub(crate) async fn recv(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.decoder.decode(&mut self.input).unwrap() {
                return Some(message);
            }
            if self.io.read_buf(&mut self.input).await.unwrap_or(0) == 0 {
                assert!(self.input.is_empty(), "the client ended in mid-frame");
                return None;
            }
        }
    }

    pub(crate) async fn expect(&mut self, message: impl Into<Message>) {
        let message = message.into();
        let seen = self.recv().await;
        assert!(seen.as_ref() == Some(&message), "expected {message:.80?}, saw {seen:.80?}");
    }

    /// The client says Close with this code, and ends the connection.
    pub(crate) async fn expect_close(&mut self, code: Option<u16>) {
        match self.recv().await {
            Some(Message::Close(frame)) => assert_eq!(frame.map(|frame| frame.code.get()), code),
            other => panic!("expected a close, saw {other:.80?}"),
        }
    }

    pub(crate) async fn expect_end(&mut self) {
        assert_eq!(self.recv().await, None);
    }
}

/// What the echoing client came to: the peer's last word, or the error.
pub(crate) type Outcome = Result<Option<Option<CloseFrame>>, Error>;

/// A client that gives back every message until the end.
pub(crate) fn echo(io: DuplexStream, options: Options) -> JoinHandle<Outcome> {
    tokio::spawn(async move {
        let mut socket = WebSocket::from_stream(io, options);
        let mut last = None;
        while let Some(message) = socket.recv().await? {
            match message {
                Message::Close(frame) => last = Some(frame),
                message => socket.send(message).await?,
            }
        }
        Ok(last)
    })
}

pub(crate) fn pair(options: Options) -> (Peer, JoinHandle<Outcome>) {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    (Peer::new(theirs), echo(ours, options))
}

/// Skips the test and says why; fails instead where servers are demanded.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("PORTOLAN_REQUIRE_SERVERS").is_none(), "a server is missing: {why}");
    eprintln!("SKIPPED: {why}");
}
