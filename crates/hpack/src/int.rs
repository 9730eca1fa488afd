//! Integers with a prefix (RFC 7541 5.1), shared by HPACK and QPACK.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use bytes::{BufMut, BytesMut};

use crate::error::{DecodeError, Why};

/// The greatest value accepted: QUIC's integers end here (RFC 9204 4.1.1), and nothing in HPACK needs as much.
pub const MAX: u64 = (1 << 62) - 1;

/// Bytes being read, which know how far in they are.
#[derive(Debug, Clone)]
pub struct Input<'a> {
    rest: &'a [u8],
    len: usize,
}

impl<'a> Input<'a> {
    /// Reads `bytes` from their beginning.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, len: bytes.len() }
    }

    /// How many bytes have been read.
    pub fn offset(&self) -> usize {
        self.len.saturating_sub(self.rest.len())
    }

    /// What is left.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next byte, left where it is.
    pub fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    #[inline]
    pub(crate) fn byte(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        let (&first, rest) = self.rest.split_first().ok_or_else(|| self.fail(what, Why::Truncated))?;
        self.rest = rest;
        Ok(first)
    }

    #[inline]
    pub(crate) fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or_else(|| self.fail(what, Why::Truncated))?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn fail(&self, what: &'static str, why: Why) -> DecodeError {
        DecodeError::new(what, why, self.offset())
    }

    /// An integer whose first byte keeps `prefix` bits (1 to 8) for it; at most `limit`.
    #[inline]
    pub fn int(&mut self, prefix: u32, limit: u64, what: &'static str) -> Result<u64, DecodeError> {
        let mask = mask(prefix);
        let first = u64::from(self.byte(what)?) & mask;
        let value = if first < mask { first } else { self.int_tail(first, what)? };
        if value > limit { Err(self.fail(what, Why::TooLong)) } else { Ok(value) }
    }

    #[cold]
    fn int_tail(&mut self, first: u64, what: &'static str) -> Result<u64, DecodeError> {
        let mut value = first;
        // Nine bytes of seven bits reach past 2^62; a longer run is a zero-padded integer, or an attack.
        for shift in (0..63u32).step_by(7) {
            let byte = self.byte(what)?;
            let part = u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(u64::MAX);
            value = value.saturating_add(part);
            if value > MAX {
                return Err(self.fail(what, Why::TooLong));
            }
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.fail(what, Why::TooLong))
    }
}

/// Writes `value` after the pattern bits of `first`, whose low `prefix` bits (1 to 8) are clear.
#[inline]
pub fn put(value: u64, prefix: u32, first: u8, out: &mut BytesMut) {
    let mask = mask(prefix);
    if value < mask {
        out.put_u8(first | low(value));
        return;
    }
    out.put_u8(first | low(mask));
    let mut rest = value.saturating_sub(mask);
    while rest >= 0x80 {
        out.put_u8(low(rest) | 0x80);
        rest >>= 7;
    }
    out.put_u8(low(rest));
}

fn mask(prefix: u32) -> u64 {
    0xff >> 8u32.saturating_sub(prefix).min(7)
}

#[expect(clippy::cast_possible_truncation, reason = "the low byte is what is wanted")]
fn low(value: u64) -> u8 {
    value as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7541 C.1.
    #[test]
    fn integers_of_the_specification_are_written_and_read() {
        for (value, prefix, wire) in [(10, 5, &[0x0a][..]), (1337, 5, &[0x1f, 0x9a, 0x0a]), (42, 8, &[0x2a])] {
            let mut out = BytesMut::new();
            put(value, prefix, 0, &mut out);
            assert_eq!(&out[..], wire);
            let mut input = Input::new(wire);
            assert_eq!(input.int(prefix, MAX, "integer"), Ok(value));
            assert!(input.is_empty());
        }
    }

    #[test]
    fn every_prefix_carries_every_size() {
        for prefix in 1..=8 {
            for value in (0..62).flat_map(|bit| [1u64 << bit, (1 << bit) - 1, (1 << bit) + 1]).filter(|v| *v <= MAX) {
                let mut out = BytesMut::new();
                put(value, prefix, 0, &mut out);
                assert_eq!(Input::new(&out).int(prefix, MAX, "integer"), Ok(value));
            }
        }
    }

    #[test]
    fn overlong_and_overflowing_integers_are_refused() {
        let padded = [0x1f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00];
        assert_eq!(Input::new(&padded).int(5, MAX, "integer").map_err(|e| e.why), Err(Why::TooLong));
        let huge = [0xff; 12];
        assert_eq!(Input::new(&huge).int(8, MAX, "integer").map_err(|e| e.why), Err(Why::TooLong));
        assert_eq!(Input::new(&[0x1f, 0x9a]).int(5, MAX, "integer").map_err(|e| e.why), Err(Why::Truncated));
        assert_eq!(Input::new(&[0x1f, 0x9a, 0x0a]).int(5, 1336, "integer").map_err(|e| e.why), Err(Why::TooLong));
    }
}
