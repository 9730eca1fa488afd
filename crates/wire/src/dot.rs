//! Dot-stuffing (RFC 5321 4.5.2, RFC 3977 3.1.1, RFC 1939 3): a body of lines, ended by a lone dot.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use bytes::{Buf, BytesMut};

use crate::error::DecodeError;

/// Stuffs a body that comes in chunks. Where the chunks are cut makes no difference.
///
/// Line ends are made CRLF: a CRLF stays, a bare LF or a bare CR becomes one. So no bare CR or LF is ever sent, which is
/// what smuggling lives on (RFC 5321 2.3.8 forbids them). A body that must survive byte for byte goes by another way
/// (BDAT, a literal).
///
/// ```
/// use bytes::BytesMut;
/// use portolan_wire::dot::Stuffer;
///
/// let mut out = BytesMut::new();
/// let mut stuffer = Stuffer::new();
/// stuffer.push(b".first\nsecond", &mut out);
/// stuffer.finish(&mut out);
/// assert_eq!(&out[..], b"..first\r\nsecond\r\n.\r\n");
/// ```
#[derive(Debug, Clone)]
pub struct Stuffer {
    line_start: bool,
    after_cr: bool,
}

impl Default for Stuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl Stuffer {
    /// At the start of a body.
    pub fn new() -> Self {
        Self { line_start: true, after_cr: false }
    }

    /// Appends the next chunk of the body, stuffed.
    pub fn push(&mut self, mut chunk: &[u8], out: &mut BytesMut) {
        // The LF of a CRLF that was already written for its CR.
        if std::mem::take(&mut self.after_cr)
            && let Some(rest) = chunk.strip_prefix(b"\n")
        {
            chunk = rest;
        }
        out.reserve(chunk.len());
        while !chunk.is_empty() {
            if std::mem::take(&mut self.line_start) && chunk.first() == Some(&b'.') {
                out.extend_from_slice(b".");
            }
            let Some((text, end)) = memchr::memchr2(b'\r', b'\n', chunk).and_then(|at| chunk.split_at_checked(at))
            else {
                out.extend_from_slice(chunk);
                return;
            };
            out.extend_from_slice(text);
            out.extend_from_slice(b"\r\n");
            self.line_start = true;
            chunk = match end {
                [b'\r', b'\n', rest @ ..] => rest,
                [b'\r'] => {
                    self.after_cr = true;
                    &[]
                }
                [_, rest @ ..] => rest,
                [] => &[],
            };
        }
    }

    /// Ends the body: completes its last line if need be, and appends the lone dot.
    pub fn finish(&mut self, out: &mut BytesMut) {
        if !self.line_start {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
        *self = Self::new();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    LineStart,
    Dot,
    DotCr,
    Text,
    Cr,
    End,
}

/// Takes a dot-stuffed body off a growing buffer.
///
/// CRLF alone ends a line, so the body ends at CRLF.CRLF (or at .CRLF when it is empty) and nowhere else: LF.LF and
/// LF.CRLF are data, as are bare CRs and LFs. Whatever follows the end stays in the buffer.
///
/// ```
/// use bytes::BytesMut;
/// use portolan_wire::dot::Unstuffer;
///
/// let mut unstuffer = Unstuffer::new(1024);
/// let mut src = BytesMut::from("..first\r\n\n.\nsecond\r\n.\r\n+OK next");
/// let mut body = BytesMut::new();
/// assert!(unstuffer.decode(&mut src, &mut body)?);
/// assert_eq!(&body[..], b".first\r\n\n.\nsecond\r\n");
/// assert_eq!(&src[..], b"+OK next");
/// # Ok::<(), portolan_wire::DecodeError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Unstuffer {
    at: At,
    left: u64,
    seen: usize,
}

impl Unstuffer {
    /// At the start of a body of at most `max` bytes, unstuffed.
    pub fn new(max: u64) -> Self {
        Self { at: At::LineStart, left: max, seen: 0 }
    }

    /// Whether the end of the body was seen.
    pub fn is_done(&self) -> bool {
        self.at == At::End
    }

    /// Moves what has arrived from `src` to `out`, unstuffed; true when the end of the body was reached.
    ///
    /// All of `src` is consumed until the end, so a body of any size streams through two small buffers.
    pub fn decode(&mut self, src: &mut BytesMut, out: &mut BytesMut) -> Result<bool, DecodeError> {
        while self.at != At::End && !src.is_empty() {
            let used = if matches!(self.at, At::Text) { self.text(src, out)? } else { self.step(src, out)? };
            src.advance(used);
            self.seen = self.seen.saturating_add(used);
        }
        Ok(self.is_done())
    }

    fn text(&mut self, src: &[u8], out: &mut BytesMut) -> Result<usize, DecodeError> {
        let len = memchr::memchr(b'\r', src).unwrap_or(src.len());
        let (text, rest) = src.split_at_checked(len).unwrap_or((src, &[]));
        self.put(text, out)?;
        if rest.is_empty() {
            return Ok(len);
        }
        self.at = At::Cr;
        Ok(len.saturating_add(1))
    }

    /// One byte, or none where the byte belongs to the next state.
    fn step(&mut self, src: &[u8], out: &mut BytesMut) -> Result<usize, DecodeError> {
        let byte = src.first().copied();
        self.at = match (self.at, byte) {
            (At::LineStart, Some(b'.')) => At::Dot,
            (At::LineStart | At::Cr, Some(b'\r')) => {
                if self.at == At::Cr {
                    self.put(b"\r", out)?;
                }
                At::Cr
            }
            (At::Dot, Some(b'\r')) => At::DotCr,
            (At::DotCr, Some(b'\n')) => At::End,
            (At::Cr, Some(b'\n')) => {
                self.put(b"\r\n", out)?;
                At::LineStart
            }
            // The dot was stuffed and is dropped; a CR that no LF followed is data.
            (At::LineStart | At::Dot, _) => {
                self.at = At::Text;
                return Ok(0);
            }
            (At::DotCr, _) => {
                self.at = At::Cr;
                return Ok(0);
            }
            (At::Cr, _) => {
                self.put(b"\r", out)?;
                self.at = At::Text;
                return Ok(0);
            }
            (at @ (At::Text | At::End), _) => at,
        };
        Ok(1)
    }

    fn put(&mut self, bytes: &[u8], out: &mut BytesMut) -> Result<(), DecodeError> {
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.left = self.left.checked_sub(len).ok_or(DecodeError::too_long("body", self.seen))?;
        out.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;

    const BODIES: &[&[u8]] = &[
        b"",
        b".",
        b"..",
        b".\n.",
        b"\n.\r\n",
        b"\r\n.\r\n.\r\n",
        b"a\rb",
        b"a\r",
        b"\r\r\n\n",
        b"x\n.\ny",
        b"x\r.\ry",
        b"no end",
        b".\r.\n.\r\n.",
        b"\n\n..\n...\n",
    ];

    /// What the documented rule makes of a body, said in another way than the stuffer says it.
    fn normal(body: &[u8]) -> Vec<u8> {
        let text = String::from_utf8(body.to_vec()).unwrap().replace("\r\n", "\n").replace('\r', "\n");
        let mut text = text.replace('\n', "\r\n");
        if !text.is_empty() && !text.ends_with("\r\n") {
            text.push_str("\r\n");
        }
        text.into_bytes()
    }

    fn stuff(chunks: &[&[u8]]) -> BytesMut {
        let mut out = BytesMut::new();
        let mut stuffer = Stuffer::new();
        for chunk in chunks {
            stuffer.push(chunk, &mut out);
        }
        stuffer.finish(&mut out);
        out
    }

    #[test]
    fn every_split_stuffs_alike_and_comes_back_normalised() {
        for body in BODIES {
            let whole = stuff(&[body]);
            for at in 0..=body.len() {
                assert_eq!(stuff(&[&body[..at], &body[at..]]), whole, "{body:?} at {at}");
            }
            assert_eq!(stuff(&body.chunks(1).collect::<Vec<_>>()), whole, "{body:?}");
            for at in 0..=whole.len() {
                let mut out = BytesMut::new();
                let mut unstuffer = Unstuffer::new(100);
                let mut src = BytesMut::from(&whole[..at]);
                assert_eq!(unstuffer.decode(&mut src, &mut out), Ok(at == whole.len()), "{body:?} at {at}");
                src.extend_from_slice(&whole[at..]);
                assert_eq!(unstuffer.decode(&mut src, &mut out), Ok(true), "{body:?} at {at}");
                assert_eq!(out, normal(body), "{body:?} at {at}");
                assert!(src.is_empty());
            }
        }
    }

    #[test]
    fn a_bare_lf_or_cr_around_a_dot_never_ends_the_body() {
        for smuggled in ["x\n.\n", "x\n.\r\n", "x\r\n.\n", "x\r.\r\r", "\n.\n", "x\r\n.\r\r"] {
            let mut unstuffer = Unstuffer::new(100);
            let mut out = BytesMut::new();
            assert_eq!(unstuffer.decode(&mut BytesMut::from(smuggled), &mut out), Ok(false), "{smuggled:?}");
            assert_eq!(unstuffer.decode(&mut BytesMut::from("\r\n.\r\n"), &mut out), Ok(true), "{smuggled:?}");
        }
    }

    #[test]
    fn what_is_sent_holds_no_bare_cr_or_lf_and_ends_once() {
        for body in BODIES {
            let out = stuff(&[body]);
            let text = String::from_utf8(out.to_vec()).unwrap();
            assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "{body:?}");
            assert_eq!(format!("\r\n{text}").matches("\r\n.\r\n").count(), 1, "{body:?}");
        }
    }

    #[test]
    fn the_limit_counts_unstuffed_bytes() {
        let mut out = BytesMut::new();
        assert_eq!(Unstuffer::new(3).decode(&mut BytesMut::from("..\r\n.\r\n"), &mut out), Ok(true));
        assert_eq!(
            Unstuffer::new(2).decode(&mut BytesMut::from("..\r\n.\r\n"), &mut out).unwrap_err().why,
            crate::Why::TooLong
        );
    }
}
