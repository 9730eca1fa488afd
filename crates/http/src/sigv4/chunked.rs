//! A streamed body whose pieces are signed one by one (`aws-chunked`).

use std::fmt::Write;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use portolan_core::{BoxError, Error};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::canonical::{Scope, hex, mac};
use crate::body::Body;

/// Bytes in one piece: S3 wants 8 KiB at least in all but the last.
const CHUNK: usize = 64 << 10;
/// The field that may follow the pieces.
pub(super) const CHECKSUM: &str = "x-amz-checksum-sha256";
const SIGNATURE: usize = 64;
/// A SHA-256 in base64.
const CHECKSUM_TEXT: u64 = 44;

/// What each signature rests on.
pub(super) struct Seed {
    pub(super) scope: Scope,
    pub(super) key: Zeroizing<[u8; 32]>,
    /// The signature before this one: at first the request's.
    pub(super) previous: String,
}

impl Seed {
    /// The signature of the next piece.
    pub(super) fn next(&mut self, data: &[u8]) -> &str {
        let rest = format!("{}\n{}", hex(&Sha256::digest([])), hex(&Sha256::digest(data)));
        self.sign("AWS4-HMAC-SHA256-PAYLOAD", &rest)
    }

    /// The signature of the lines that follow the pieces, each with its line end.
    pub(super) fn trailer(&mut self, lines: &[u8]) -> &str {
        self.sign("AWS4-HMAC-SHA256-TRAILER", &hex(&Sha256::digest(lines)))
    }

    fn sign(&mut self, what: &str, rest: &str) -> &str {
        let Scope { date, scope } = &self.scope;
        let text = format!("{what}\n{date}\n{scope}\n{}\n{rest}", self.previous);
        self.previous = hex(&*mac(&*self.key, text.as_bytes()));
        &self.previous
    }
}

/// How long a body of `length` bytes is in signed pieces.
pub(super) fn encoded_length(length: u64, trailer: bool) -> u64 {
    let chunk = CHUNK as u64;
    let around = |size: u64| format!("{size:x};chunk-signature=\r\n\r\n").len() as u64 + SIGNATURE as u64;
    let rest = length % chunk;
    let pieces = (length / chunk) * (around(chunk) + chunk) + if rest > 0 { around(rest) + rest } else { 0 };
    let fields = if trailer {
        format!("{CHECKSUM}:\r\nx-amz-trailer-signature:\r\n").len() as u64 + CHECKSUM_TEXT + SIGNATURE as u64
    } else {
        0
    };
    pieces + around(0) + fields
}

/// The body in signed pieces.
pub(super) struct Chunked {
    body: Body,
    seed: Seed,
    /// Of the whole body, where a trailer tells it.
    checksum: Option<Sha256>,
    waiting: BytesMut,
    /// Of the body that was promised.
    left: u64,
    encoded_left: u64,
    done: bool,
}

impl Chunked {
    pub(super) fn new(body: Body, length: u64, seed: Seed, trailer: bool) -> Self {
        Self {
            body: body.ready(),
            seed,
            checksum: trailer.then(Sha256::new),
            waiting: BytesMut::new(),
            left: length,
            encoded_left: encoded_length(length, trailer),
            done: false,
        }
    }

    fn piece(&mut self, size: usize) -> Bytes {
        let data = self.waiting.split_to(size);
        let mut head = String::with_capacity(SIGNATURE + 32);
        let _ = write!(head, "{size:x};chunk-signature={}\r\n", self.seed.next(&data));
        let mut out = BytesMut::with_capacity(head.len() + size + 2);
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(&data);
        out.extend_from_slice(b"\r\n");
        out.freeze()
    }

    /// The piece without bytes, and what follows it.
    fn last(&mut self) -> Bytes {
        let mut out = format!("0;chunk-signature={}\r\n", self.seed.next(b""));
        if let Some(checksum) = self.checksum.take() {
            let line = format!("{CHECKSUM}:{}", STANDARD.encode(checksum.finalize()));
            let signature = self.seed.trailer(format!("{line}\n").as_bytes());
            let _ = write!(out, "{line}\r\nx-amz-trailer-signature:{signature}\r\n");
        }
        out.push_str("\r\n");
        out.into()
    }
}

impl http_body::Body for Chunked {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.done {
            return Poll::Ready(None);
        }
        let wrong = || Poll::Ready(Some(Err(Error::usage("a body of another length than was said").into())));
        while this.waiting.len() < CHUNK {
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    // Trailers of the body's own can't be signed.
                    let Ok(data) = frame.into_data() else { continue };
                    let Some(left) = this.left.checked_sub(data.len() as u64) else { return wrong() };
                    this.left = left;
                    if let Some(checksum) = &mut this.checksum {
                        checksum.update(&data);
                    }
                    this.waiting.extend_from_slice(&data);
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None if this.left > 0 => return wrong(),
                None => break,
            }
        }
        let out = match this.waiting.len() {
            0 => {
                this.done = true;
                this.last()
            }
            size => this.piece(size.min(CHUNK)),
        };
        this.encoded_left = this.encoded_left.saturating_sub(out.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(out))))
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.encoded_left)
    }
}
