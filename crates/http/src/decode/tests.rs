use std::convert::Infallible;
use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use http::{HeaderMap, HeaderValue, Method, Response};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, Full, StreamBody};
use portolan_core::{Delivery, Error, Kind, Result};
use proptest::prelude::*;

use super::*;

/// Made by brotli 1.2.1 (Python) of `hello, hello, hello brotli`.
const BR_HELLO: &[u8] = b"\x8b\x0c\x80\x68\x65\x6c\x6c\x6f\x2c\x20\x68\x65\x6c\x6c\x6f\x2c\x20\x68\x65\x6c\x6c\x6f\x20\x62\x72\x6f\x74\x6c\x69\x03";
/// Made by brotli 1.2.1 (Python) of 10 MiB of zeros.
const BR_BOMB: &[u8] =
    b"\xcb\xff\xff\x3f\xf8\x27\x00\xe2\xb1\x40\x20\xf7\xfe\x2f\xff\xff\x3f\xf0\x4f\x00\xc4\x61\x11\x80\xee\xfd\x07";

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn zlib(data: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn raw(data: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn zstd(data: &[u8]) -> Vec<u8> {
    ::zstd::encode_all(data, 3).unwrap()
}

fn chunks(data: &[u8], size: usize) -> Vec<Frame<Bytes>> {
    data.chunks(size.max(1)).map(|chunk| Frame::data(Bytes::copy_from_slice(chunk))).collect()
}

async fn run(
    coding: &'static str,
    frames: Vec<Frame<Bytes>>,
    options: &DecodeOptions,
) -> Result<(Vec<u8>, Option<HeaderMap>)> {
    let frames: Vec<Result<_, Infallible>> = frames.into_iter().map(Ok).collect();
    let frames = Frames(frames.into_iter());
    let response = Response::builder()
        .header(CONTENT_ENCODING, coding)
        .header(CONTENT_LENGTH, 7)
        .body(StreamBody::new(frames))
        .unwrap();
    let response = decode(&Method::GET, response, options)?;
    assert!(response.headers().get(CONTENT_LENGTH).is_none() && response.headers().get(CONTENT_ENCODING).is_none());
    let mut body = response.into_body();
    let (mut plain, mut trailers) = (Vec::new(), None);
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) => {
                assert!(!data.is_empty() && data.len() <= 64 * 1024);
                plain.extend_from_slice(&data);
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    assert!(body.is_end_stream() && body.frame().await.is_none());
    Ok((plain, trailers))
}

/// A stream that is always ready.
struct Frames<E>(std::vec::IntoIter<Result<Frame<Bytes>, E>>);

impl<E> Unpin for Frames<E> {}

impl<E> futures_core::Stream for Frames<E> {
    type Item = Result<Frame<Bytes>, E>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(self.0.next())
    }
}

async fn plain(coding: &'static str, data: &[u8], size: usize) -> Result<Vec<u8>> {
    run(coding, chunks(data, size), &DecodeOptions::new()).await.map(|(plain, _)| plain)
}

fn text() -> Vec<u8> {
    (0..20_000_u32).flat_map(|n| format!("line {} of many\n", n.wrapping_mul(2_654_435_761)).into_bytes()).collect()
}

#[tokio::test]
async fn every_coding_gives_the_text_back_however_it_is_cut() {
    let text = text();
    for size in [1, 2, 3, 17, 1000, 1 << 20] {
        for (coding, data) in [
            ("gzip", gzip(&text)),
            ("X-GZip", gzip(&text)),
            ("deflate", zlib(&text)),
            ("deflate", raw(&text)),
            ("zstd", zstd(&text)),
        ] {
            assert!(plain(coding, &data, size).await.unwrap() == text, "{coding} by {size}");
        }
        assert_eq!(plain("br", BR_HELLO, size).await.unwrap(), b"hello, hello, hello brotli");
    }
}

#[tokio::test]
async fn several_members_and_frames_are_one_text() {
    let members = [gzip(b"one "), gzip(b""), gzip(b"two")].concat();
    let frames = [zstd(b"one "), b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec(), zstd(b"two")].concat();
    for size in [1, 1000] {
        assert_eq!(plain("gzip", &members, size).await.unwrap(), b"one two");
        assert_eq!(plain("gzip", &[members.as_slice(), &[0; 100]].concat(), size).await.unwrap(), b"one two");
        assert_eq!(plain("zstd", &frames, size).await.unwrap(), b"one two");
    }
}

#[tokio::test]
async fn stacked_codings_come_off_in_reverse_order() {
    let text = text();
    let stacked = gzip(&zstd(&zlib(&text)));
    assert!(plain("deflate, zstd,gzip", &stacked, 100).await.unwrap() == text);
    assert!(plain("identity, deflate, , zstd, gzip", &stacked, 1).await.unwrap() == text);
    let error = plain("gzip, gzip, gzip, gzip, gzip, gzip", &gzip(b""), 1).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Limit);
}

#[tokio::test]
async fn a_stream_cut_anywhere_is_an_error_and_never_a_short_text() {
    for (coding, data) in [
        ("gzip", gzip(b"some words, some words")),
        ("deflate", zlib(b"some words, some words")),
        ("deflate", raw(b"some words, some words")),
        ("zstd", zstd(b"some words, some words")),
        ("br", BR_HELLO.to_vec()),
        ("gzip, gzip", gzip(&gzip(b"some words"))),
    ] {
        for cut in 1..data.len() {
            let error = plain(coding, &data[..cut], 4).await.unwrap_err();
            assert_eq!((error.kind(), error.delivery()), (Kind::Protocol, Delivery::Answered), "{coding} at {cut}");
        }
        // An empty body is not a cut one, whatever its label says.
        assert_eq!(plain(coding, b"", 1).await.unwrap(), b"");
    }
}

#[tokio::test]
async fn garbage_before_within_and_after_is_an_error() {
    for (coding, data) in [
        ("gzip", gzip(b"some words")),
        ("deflate", zlib(b"some words")),
        ("deflate", raw(b"some words")),
        ("zstd", zstd(b"some words")),
        ("br", BR_HELLO.to_vec()),
    ] {
        let error = plain(coding, &[data.as_slice(), b"junk"].concat(), 1000).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Protocol, "{coding}");
        assert!(plain(coding, b"<html>not compressed at all</html>", 1000).await.is_err(), "{coding}");
    }
    let mut bad = gzip(b"some words");
    let at = bad.len() - 6;
    bad[at] ^= 1;
    assert!(plain("gzip", &bad, 1000).await.is_err(), "the checksum counts");
    assert!(plain("gzip", &[gzip(b"a"), vec![0], gzip(b"b")].concat(), 1000).await.is_err());
}

#[tokio::test]
async fn bombs_end_at_the_ratio_or_at_the_absolute_limit() {
    let zeros = vec![0; 10 << 20];
    let options = DecodeOptions::new();
    let everything = DecodeOptions::new().with_max_ratio(None);
    for (coding, data) in
        [("gzip", gzip(&zeros)), ("deflate", zlib(&zeros)), ("zstd", zstd(&zeros)), ("br", BR_BOMB.to_vec())]
    {
        let error = run(coding, chunks(&data, 16 * 1024), &options).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Limit, "{coding}");
        assert!(run(coding, chunks(&data, 16 * 1024), &everything).await.unwrap().0.len() == zeros.len(), "{coding}");
        let capped = everything.clone().with_max_output(zeros.len() as u64);
        assert!(run(coding, chunks(&data, 16 * 1024), &capped).await.is_ok(), "{coding}");
        let capped = everything.clone().with_max_output(zeros.len() as u64 - 1);
        assert_eq!(run(coding, chunks(&data, 16 * 1024), &capped).await.unwrap_err().kind(), Kind::Limit, "{coding}");
    }
    // A bomb within: what comes out of the outer coding is long, and what the inner one makes of it is nothing.
    let skipped = [b"\x50\x2a\x4d\x18\0\0\xa0\0".as_slice(), &zeros].concat();
    let error = run("zstd, gzip", chunks(&gzip(&skipped), 1024), &options).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Limit);
}

#[tokio::test]
async fn a_small_body_may_be_as_dense_as_it_likes() {
    let zeros = vec![0; 8 << 20];
    assert!(plain("zstd", &zstd(&zeros), 1000).await.unwrap() == zeros);
}

#[tokio::test]
async fn trailers_come_after_the_last_piece() {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("1"));
    let mut frames = chunks(&gzip(b"words"), 3);
    frames.push(Frame::trailers(trailers.clone()));
    let (text, seen) = run("gzip", frames, &DecodeOptions::new()).await.unwrap();
    assert_eq!((text.as_slice(), seen), (b"words".as_slice(), Some(trailers)));
}

#[tokio::test]
async fn what_is_not_to_be_undone_stays_as_it_came() {
    for (method, status, coding) in [
        (Method::HEAD, 200, "gzip"),
        (Method::GET, 204, "gzip"),
        (Method::GET, 304, "gzip"),
        (Method::GET, 206, "gzip"),
        (Method::GET, 200, "compress"),
        (Method::GET, 200, "gzip, aes128gcm"),
        (Method::GET, 200, "identity"),
    ] {
        let body = Full::new(Bytes::from_static(b"as it is"));
        let response = Response::builder().status(status).header(CONTENT_ENCODING, coding).body(body).unwrap();
        let response = decode(&method, response, &DecodeOptions::new()).unwrap();
        assert_eq!(response.headers()[CONTENT_ENCODING], coding);
        assert!(!response.body().is_coded());
        assert_eq!(response.body().size_hint().exact(), Some(8));
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "as it is");
    }
}

#[tokio::test]
async fn an_error_of_the_body_inside_is_passed_on_as_it_was() {
    let frames: Vec<Result<Frame<Bytes>>> = vec![Err(Error::timeout(Phase::Idle, std::time::Duration::from_secs(1)))];
    let body = StreamBody::new(Frames(frames.into_iter()));
    let response = Response::builder().header(CONTENT_ENCODING, "gzip").body(body).unwrap();
    let mut body = decode(&Method::GET, response, &DecodeOptions::new()).unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap_err().kind(), Kind::Timeout);
    assert!(body.frame().await.is_none());
}

#[test]
fn we_ask_for_what_we_can_undo() {
    assert_eq!(accept_encoding().unwrap(), "gzip, deflate, br, zstd");
}

proptest! {
    #[test]
    fn no_bytes_make_a_coding_panic_or_spin(
        data in prop::collection::vec(any::<u8>(), 0..300),
        head in prop::sample::select(vec![&b""[..], b"\x1f\x8b\x08\0\0\0\0\0\0\0", b"\x78\x9c", b"\x28\xb5\x2f\xfd"]),
        size in 1_usize..20,
    ) {
        let data = [head, &data].concat();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for coding in ["gzip", "deflate", "br", "zstd", "br, gzip"] {
            let _ = runtime.block_on(plain(coding, &data, size));
        }
    }
}
