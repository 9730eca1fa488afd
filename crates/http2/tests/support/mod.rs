//! A peer that speaks frames by script, right or wrong.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    unreachable_pub,
    reason = "helpers of tests fail by panicking, and not every binary uses all"
)]

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Request};
use http_body_util::{Empty, Full};
use portolan_hpack::{Decoder, Encoder, Limits, Name, Pseudo};
use portolan_http2::{Options, SendRequest, handshake};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub id: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn u32(&self) -> u32 {
        u32::from_be_bytes(self.payload[..4].try_into().unwrap())
    }

    /// The error code of a GOAWAY.
    pub fn goaway_code(&self) -> u32 {
        u32::from_be_bytes(self.payload[4..8].try_into().unwrap())
    }
}

pub struct Peer {
    io: DuplexStream,
    pub encoder: Encoder,
    pub decoder: Decoder,
}

/// A client on one end of a pipe, its driver running, and the script's end.
pub fn pair(options: Options) -> (SendRequest, JoinHandle<portolan_core::Result<()>>, Peer) {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let (client, connection) = handshake(ours, options).unwrap();
    let driver = tokio::spawn(connection);
    (client, driver, Peer::new(theirs))
}

/// The same, with preface and SETTINGS exchanged.
pub async fn ready(
    options: Options,
    settings: &[(u16, u32)],
) -> (SendRequest, JoinHandle<portolan_core::Result<()>>, Peer) {
    let (client, driver, mut peer) = pair(options);
    peer.greet(settings).await;
    (client, driver, peer)
}

pub fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("http://example.test{path}")).body(Empty::new()).unwrap()
}

pub fn post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(format!("http://example.test{path}")).body(Full::new(body.into())).unwrap()
}

impl Peer {
    pub fn new(io: DuplexStream) -> Self {
        Self { io, encoder: Encoder::new(4096), decoder: Decoder::new(Limits::default()) }
    }

    /// Reads the preface and the client's SETTINGS, says its own, and sees them acknowledged.
    pub async fn greet(&mut self, settings: &[(u16, u32)]) {
        self.preface().await;
        self.settings(settings).await;
        self.send(SETTINGS, ACK, 0, &[]).await;
        let acknowledged = self.next().await;
        assert_eq!((acknowledged.kind, acknowledged.flags), (SETTINGS, ACK), "{acknowledged:?}");
    }

    /// The preface, and the SETTINGS that follow it.
    pub async fn opening(&mut self) -> Frame {
        let mut preface = [0; 24];
        self.io.read_exact(&mut preface).await.unwrap();
        assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let settings = self.next().await;
        assert_eq!((settings.kind, settings.flags, settings.id), (SETTINGS, 0, 0));
        settings
    }

    pub async fn preface(&mut self) {
        self.opening().await;
        assert_eq!(self.next().await.kind, WINDOW_UPDATE);
    }

    pub async fn settings(&mut self, settings: &[(u16, u32)]) {
        let payload: Vec<u8> =
            settings.iter().flat_map(|(key, value)| [&key.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        self.send(SETTINGS, 0, 0, &payload).await;
    }

    /// The next frame; the test fails when none comes.
    pub async fn next(&mut self) -> Frame {
        self.maybe_next().await.expect("the client closed")
    }

    /// The next frame, or `None` when the client closed.
    pub async fn maybe_next(&mut self) -> Option<Frame> {
        tokio::time::timeout(Duration::from_secs(10), self.maybe_next_ever())
            .await
            .expect("no frame within ten seconds")
    }

    /// The same, however long it takes.
    pub async fn maybe_next_ever(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.io.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.io.read_exact(&mut payload).await.ok()?;
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], id, payload })
    }

    /// The next frame of this kind; others are skipped.
    pub async fn until(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.next().await;
            if frame.kind == kind {
                return frame;
            }
        }
    }

    pub async fn send(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) {
        self.io.write_all(&raw(kind, flags, id, payload)).await.unwrap();
    }

    /// Many bytes; a client that hangs up in their midst is no failure.
    pub async fn flood(&mut self, bytes: &[u8]) {
        let _ = self.io.write_all(bytes).await;
    }

    pub fn block(&mut self, fields: &[(&str, &str)]) -> Vec<u8> {
        let mut out = BytesMut::new();
        self.encoder.start_block(&mut out);
        for (name, value) in fields {
            if *name == ":status" {
                self.encoder.pseudo(Pseudo::Status, value.as_bytes(), &mut out);
            } else {
                self.encoder.field(
                    &HeaderName::from_bytes(name.as_bytes()).unwrap(),
                    &HeaderValue::from_str(value).unwrap(),
                    &mut out,
                );
            }
        }
        out.to_vec()
    }

    pub async fn headers(&mut self, id: u32, flags: u8, fields: &[(&str, &str)]) {
        let block = self.block(fields);
        self.send(HEADERS, flags | END_HEADERS, id, &block).await;
    }

    /// A whole response with a body.
    pub async fn respond(&mut self, id: u32, body: &[u8]) {
        self.headers(id, 0, &[(":status", "200")]).await;
        self.send(DATA, END_STREAM, id, body).await;
    }

    /// The next request: its stream, whether it ends there, its fields.
    pub async fn request(&mut self) -> (u32, bool, Vec<(String, String)>) {
        let frame = self.until(HEADERS).await;
        assert_ne!(frame.flags & END_HEADERS, 0);
        (frame.id, frame.flags & END_STREAM != 0, self.fields(&frame.payload))
    }

    pub fn fields(&mut self, block: &[u8]) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        let summary = self.decoder.decode(block, &mut |field| {
            let name = match &field.name {
                Name::Pseudo(pseudo) => pseudo.as_str().to_owned(),
                Name::Field(name) => name.as_str().to_owned(),
                _ => panic!("malformed"),
            };
            fields.push((name, String::from_utf8(field.value.as_bytes().to_vec()).unwrap()));
        });
        assert!(!summary.unwrap().cut);
        fields
    }

    /// Closes in both directions.
    pub fn hang_up(self) {}
}

pub fn raw(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&len[1..], &[kind, flags], &id.to_be_bytes(), payload].concat()
}
