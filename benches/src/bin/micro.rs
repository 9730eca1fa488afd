//! The hot decoders and encoders, one at a time and as often as asked: `cargo xtask bench micro` counts their instructions.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a bench feeds what it knows to be right, and prints"
)]

use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, HeaderName, HeaderValue, USER_AGENT};
use portolan_hpack::{Decoder, Encoder, Limits, Pseudo};
use portolan_wire::Codec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Does something so many times.
type Work = fn(u64);

/// What is measured.
const WORK: &[(&str, Work)] = &[
    ("hpack encode, 4 pseudo and 4 fields", hpack_encode),
    ("hpack decode, 8 fields by table", hpack_decode_indexed),
    ("hpack decode, 8 fields by Huffman", hpack_decode_literal),
    ("redis decode, array of 5 strings", redis_array),
    ("redis decode, +OK", redis_ok),
    ("dns decode, answer of 4 addresses", dns_answer),
    ("smtp decode, reply of 8 lines", smtp_reply),
    ("websocket decode, 64 bytes", websocket_small),
    ("websocket decode, 64 KiB", websocket_large),
    ("sse decode, event of 2 lines", sse_event),
    ("http1 GET of 100 bytes, connection alone", http1_get),
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["list"] => WORK.iter().for_each(|(name, _)| println!("{name}")),
        [name, count] => {
            let work = WORK.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("no such work: {name}"));
            (work.1)(count.parse().unwrap());
        }
        _ => panic!("usage: micro list | NAME COUNT"),
    }
}

fn fields() -> Vec<(HeaderName, HeaderValue)> {
    let pairs = [
        ("server", "nginx/1.22.1"),
        ("date", "Sat, 21 Nov 2026 12:00:00 GMT"),
        ("content-type", "application/octet-stream"),
        ("content-length", "100"),
        ("last-modified", "Sat, 21 Nov 2026 11:00:00 GMT"),
        ("etag", "\"656a0b10-64\""),
        ("accept-ranges", "bytes"),
        ("x-request", "0123456789abcdef"),
    ];
    pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

fn hpack_encode(count: u64) {
    let mut encoder = Encoder::new(4096);
    let mut out = BytesMut::with_capacity(1024);
    let (agent, accept) = (HeaderValue::from_static("portolan"), HeaderValue::from_static("*/*"));
    let custom = [HeaderName::from_static("x-one"), HeaderName::from_static("x-two")];
    for _ in 0..count {
        out.clear();
        encoder.start_block(&mut out);
        encoder.pseudo(Pseudo::Method, b"GET", &mut out);
        encoder.pseudo(Pseudo::Scheme, b"http", &mut out);
        encoder.pseudo(Pseudo::Authority, b"localhost:8080", &mut out);
        encoder.pseudo(Pseudo::Path, b"/some/path?query=1", &mut out);
        encoder.field(&USER_AGENT, &agent, &mut out);
        encoder.field(&ACCEPT, &accept, &mut out);
        encoder.field(&custom[0], &agent, &mut out);
        encoder.field(&custom[1], &accept, &mut out);
        black_box(&out);
    }
}

fn hpack_decode(count: u64, encoder_table: usize) {
    let mut encoder = Encoder::new(encoder_table);
    let mut blocks = Vec::new();
    for _ in 0..2 {
        let mut block = BytesMut::new();
        encoder.start_block(&mut block);
        for (name, value) in fields() {
            encoder.field(&name, &value, &mut block);
        }
        blocks.push(block);
    }
    let mut decoder = Decoder::new(Limits::default());
    decoder.decode(&blocks[0], &mut |field| drop(black_box(field))).unwrap();
    for _ in 0..count {
        decoder.decode(&blocks[1], &mut |field| drop(black_box(field))).unwrap();
    }
}

fn hpack_decode_indexed(count: u64) {
    hpack_decode(count, 4096);
}

fn hpack_decode_literal(count: u64) {
    hpack_decode(count, 0);
}

/// Decodes the same frame again and again, out of one buffer.
fn decode<C: Codec>(mut codec: C, frame: &[u8], count: u64) {
    let mut buffer = BytesMut::with_capacity(frame.len() * 2);
    for _ in 0..count {
        buffer.extend_from_slice(frame);
        while let Some(frame) = codec.decode(&mut buffer).unwrap() {
            black_box(&frame);
        }
    }
}

fn redis_array(count: u64) {
    let frame = b"*5\r\n$3\r\none\r\n$3\r\ntwo\r\n$5\r\nthree\r\n$4\r\nfour\r\n$4\r\nfive\r\n";
    decode(portolan_db::redis::RespCodec::default(), frame, count);
}

fn redis_ok(count: u64) {
    decode(portolan_db::redis::RespCodec::default(), b"+OK\r\n", count);
}

fn dns_answer(count: u64) {
    // example.test A, and four addresses (RFC 1035 4.1), names compressed.
    let mut message = vec![0x12, 0x34, 0x81, 0x80, 0, 1, 0, 4, 0, 0, 0, 0];
    message.extend_from_slice(b"\x07example\x04test\x00\x00\x01\x00\x01");
    for last in 1..=4 {
        message.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 0x2c, 0, 4, 192, 0, 2, last]);
    }
    for _ in 0..count {
        black_box(portolan_dns::dns::decode(&message).unwrap());
    }
}

fn smtp_reply(count: u64) {
    let reply = b"250-mx.example.test at your service\r\n250-SIZE 35882577\r\n250-8BITMIME\r\n250-STARTTLS\r\n\
        250-ENHANCEDSTATUSCODES\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 SMTPUTF8\r\n";
    decode(portolan_mail::smtp::SmtpCodec::default(), reply, count);
}

fn websocket(count: u64, length: usize) {
    let mut frame = vec![0x82];
    match length {
        0..126 => frame.push(length as u8),
        _ => {
            frame.push(127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.resize(frame.len() + length, b'x');
    decode(portolan_websocket::codec::Decoder::default(), &frame, count);
}

fn websocket_small(count: u64) {
    websocket(count, 64);
}

fn websocket_large(count: u64) {
    websocket(count, 64 << 10);
}

fn sse_event(count: u64) {
    decode(portolan_sse::Decoder::default(), b"id: 17\nevent: note\ndata: hello\ndata: world\n\n", count);
}

/// A server that is all memory: each write is a request, and has its answer at once.
struct Canned {
    reply: &'static [u8],
    ready: bool,
}

impl AsyncRead for Canned {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if !std::mem::take(&mut self.ready) {
            return Poll::Pending;
        }
        buf.put_slice(self.reply);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Canned {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        self.ready = true;
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn http1_get(count: u64) {
    use http_body_util::{BodyExt, Empty};
    const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sat, 21 Nov 2026 12:00:00 GMT\r\n\
        Content-Type: application/octet-stream\r\nContent-Length: 100\r\nConnection: keep-alive\r\nETag: \"656a0b10-64\"\r\n\
        Accept-Ranges: bytes\r\n\r\n\
        xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut connection =
            portolan_http1::Connection::new(Canned { reply: REPLY, ready: false }, portolan_http1::Options::new());
        for _ in 0..count {
            let request = http::Request::get("http://localhost:8080/hundred").body(Empty::<Bytes>::new()).unwrap();
            let response = portolan_http1::send(&mut connection, request).await.unwrap();
            black_box(response.into_body().collect().await.unwrap().to_bytes());
        }
    });
}
