//! The chunked transfer coding (RFC 9112 7.1), as it is received.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use portolan_wire::DecodeError;

use crate::message;

/// The longest chunk-size line, extensions included: nobody who means well comes near it.
const MAX_SIZE_LINE: usize = 4096;
/// Bytes of chunk extensions in a whole body: more is a peer that makes us work for nothing.
const MAX_EXTENSIONS: usize = 64 << 10;
/// The most trailer fields.
const MAX_TRAILERS: usize = 128;

/// Where the decoder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    Done,
}

/// One piece of a chunked body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    Data(Bytes),
    /// The end, with the trailers that came.
    End(Option<HeaderMap>),
}

/// Takes a chunked body off a growing buffer.
#[derive(Debug, Clone)]
pub(crate) struct Chunked {
    state: State,
    extensions: usize,
    max_trailers: usize,
    offset: usize,
    /// How far a line that is not there yet was looked through.
    seen: usize,
}

impl Chunked {
    pub(crate) fn new(max_trailers: usize) -> Self {
        Self { state: State::Size, extensions: 0, max_trailers, offset: 0, seen: 0 }
    }

    /// Takes the next piece off the front of `src`; `None` needs more bytes.
    pub(crate) fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Piece>, DecodeError> {
        loop {
            match self.state {
                State::Size => {
                    let Some(line) = self.line(src)? else { return Ok(None) };
                    let (size, extensions) = chunk_size(&line).map_err(|error| error.shifted(self.offset))?;
                    self.extensions = self.extensions.saturating_add(extensions);
                    if self.extensions > MAX_EXTENSIONS {
                        return Err(DecodeError::too_long("chunk extensions", self.offset));
                    }
                    self.state = if size == 0 { State::Trailers } else { State::Data(size) };
                }
                State::Data(left) => {
                    if src.is_empty() {
                        return Ok(None);
                    }
                    let take = usize::try_from(left).unwrap_or(usize::MAX).min(src.len());
                    let left = left.saturating_sub(take as u64);
                    self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                    self.offset = self.offset.saturating_add(take);
                    return Ok(Some(Piece::Data(src.split_to(take).freeze())));
                }
                State::DataEnd => {
                    if src.first().is_some_and(|&byte| byte != b'\r') || src.get(1).is_some_and(|&byte| byte != b'\n') {
                        return Err(DecodeError::invalid("end of a chunk", self.offset));
                    }
                    if src.len() < 2 {
                        return Ok(None);
                    }
                    src.advance(2);
                    self.offset = self.offset.saturating_add(2);
                    self.state = State::Size;
                }
                State::Trailers => {
                    let Some(trailers) = self.trailers(src)? else { return Ok(None) };
                    self.state = State::Done;
                    return Ok(Some(Piece::End(trailers)));
                }
                State::Done => return Ok(None),
            }
        }
    }

    /// The size line without its CRLF. A bare LF or CR is refused: parsers that disagree on it are what smuggling lives on.
    fn line(&mut self, src: &mut BytesMut) -> Result<Option<Bytes>, DecodeError> {
        let fresh = src.get(self.seen..).unwrap_or_default();
        let Some(end) = memchr::memchr(b'\n', fresh).and_then(|at| at.checked_add(self.seen)) else {
            self.seen = src.len();
            if src.len() > MAX_SIZE_LINE {
                return Err(DecodeError::too_long("chunk size line", self.offset));
            }
            return Ok(None);
        };
        self.seen = 0;
        if end > MAX_SIZE_LINE {
            return Err(DecodeError::too_long("chunk size line", self.offset));
        }
        let line = src.split_to(end.saturating_add(1)).freeze();
        let start = self.offset;
        self.offset = self.offset.saturating_add(line.len());
        match line.strip_suffix(b"\r\n") {
            Some(text) if !text.contains(&b'\r') => Ok(Some(line.slice(..text.len()))),
            _ => Err(DecodeError::invalid("line end of a chunk size", start)),
        }
    }

    fn trailers(&mut self, src: &mut BytesMut) -> Result<Option<Option<HeaderMap>>, DecodeError> {
        if src.starts_with(b"\r\n") {
            src.advance(2);
            return Ok(Some(None));
        }
        // A line without its CR ends no section here: what follows it would be swallowed as if it were trailers.
        if src.starts_with(b"\n") {
            return Err(DecodeError::invalid("end of the trailers", self.offset));
        }
        let Some(end) = message::section_end(src, self.seen) else {
            self.seen = src.len().saturating_sub(3);
            if src.len() > self.max_trailers {
                return Err(DecodeError::too_long("trailers", self.offset));
            }
            return Ok(None);
        };
        self.seen = 0;
        if end > self.max_trailers {
            return Err(DecodeError::too_long("trailers", self.offset));
        }
        let block = src.split_to(end).freeze();
        let trailers = message::trailers(&block, MAX_TRAILERS).map_err(|error| error.shifted(self.offset))?;
        self.offset = self.offset.saturating_add(end);
        Ok(Some(Some(trailers)))
    }
}

/// The size, and how many bytes of extensions follow it, which mean nothing to us (RFC 9112 7.1.1).
fn chunk_size(line: &[u8]) -> Result<(u64, usize), DecodeError> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    if digits == 0 {
        return Err(DecodeError::invalid("chunk size", 0));
    }
    if digits > 16 {
        return Err(DecodeError::invalid("chunk size", 0));
    }
    let (number, rest) = line.split_at_checked(digits).unwrap_or((line, &[]));
    let size = number.iter().fold(0u64, |size, byte| {
        let digit = (*byte as char).to_digit(16).unwrap_or_default();
        (size << 4) | u64::from(digit)
    });
    // Spaces before an extension are bad manners (RFC 9112 7.1.1), and seen in the wild after the size alone.
    match rest.trim_ascii_start().first() {
        None | Some(b';') => Ok((size, rest.len())),
        Some(_) => Err(DecodeError::invalid("chunk size", digits)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
    use super::*;
    use portolan_core::Result;
    use portolan_wire::{Codec, laws};

    /// A whole body as one frame, so that the laws can compare it however it was split.
    struct Whole(Option<Chunked>, Vec<u8>);

    impl Codec for Whole {
        type Frame = (Vec<u8>, Option<HeaderMap>);
        type Out = [u8];

        fn protocol(&self) -> &'static str {
            "chunked"
        }

        fn decode(&mut self, src: &mut BytesMut) -> std::result::Result<Option<Self::Frame>, DecodeError> {
            let chunked = self.0.get_or_insert_with(|| Chunked::new(1024));
            loop {
                match chunked.decode(src)? {
                    None => return Ok(None),
                    Some(Piece::Data(data)) => self.1.extend_from_slice(&data),
                    Some(Piece::End(trailers)) => {
                        self.0 = None;
                        return Ok(Some((std::mem::take(&mut self.1), trailers)));
                    }
                }
            }
        }

        fn encode(&mut self, item: &[u8], dst: &mut BytesMut) -> Result<()> {
            dst.extend_from_slice(format!("{:x}\r\n", item.len()).as_bytes());
            dst.extend_from_slice(item);
            dst.extend_from_slice(b"\r\n0\r\n\r\n");
            Ok(())
        }
    }

    fn decode(text: &[u8]) -> std::result::Result<Option<<Whole as Codec>::Frame>, DecodeError> {
        Whole(None, Vec::new()).decode(&mut BytesMut::from(text))
    }

    #[test]
    fn the_chunked_decoder_keeps_the_laws() {
        let seeds: &[&[u8]] = &[
            b"4\r\nWiki\r\n5\r\npedia\r\n0\r\n\r\n",
            b"1;a=b\r\nx\r\n0\r\nx-sum: 1\r\nx-more: 2\r\n\r\n",
            b"ffffffffffffffff\r\n",
            b"A \r\n0123456789\r\n00\r\n\r\n",
        ];
        laws::check(|| Whole(None, Vec::new()), seeds);
        laws::round_trip(|| Whole(None, Vec::new()), &[&b"abc"[..], &[b'x'; 300]], |sent, (got, _)| sent == got);
    }

    #[test]
    fn a_body_and_its_trailers_are_taken_apart() {
        let (body, trailers) = decode(b"3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n").unwrap().unwrap();
        assert_eq!(body, b"abc");
        assert_eq!(trailers.unwrap()["x-sum"], "1");
    }

    #[test]
    fn what_parsers_could_disagree_on_is_refused() {
        for bad in [
            &b"3\nabc\r\n"[..],
            b"3\r\nabcd\r\n",
            b"3\r\nabc\n0\r\n\r\n",
            b"+3\r\nabc\r\n",
            b"0x3\r\nabc\r\n",
            b"-1\r\n",
            b"\r\n",
            b"3 4\r\nabc\r\n",
            b"3;a\rb\r\nabc\r\n",
            b"11111111111111111\r\n",
            b"0\r\nbad name: 1\r\n\r\n",
            b"0\r\n\nHTTP/1.1 200 OK\r\nx: 1\r\n\r\n",
            b"0\r\nx: 1\r\n folded\r\n\r\n",
        ] {
            assert!(decode(bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn extensions_are_ignored_within_a_limit() {
        let mut body = Vec::new();
        for _ in 0..40 {
            body.extend_from_slice(b"1;");
            body.extend_from_slice(&[b'e'; 2000]);
            body.extend_from_slice(b"\r\nx\r\n");
        }
        assert_eq!(
            decode(&body).unwrap_err(),
            DecodeError::too_long("chunk extensions", decode(&body).unwrap_err().offset)
        );
        assert_eq!(decode(b"1;a=\"b\"\r\nx\r\n0\r\n\r\n").unwrap().unwrap().0, b"x");
    }
}
