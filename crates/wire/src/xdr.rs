//! XDR (RFC 4506): what NFS, mount, portmap, libvirt and their kin put on the wire.
//!
//! **Why an own cursor and no crate**: everything is a multiple of four bytes and a dozen rules say it all; the crates
//! there are (`xdr-codec`, `serde_xdr`) are unmaintained or go through serde, which has no limit on a length before it
//! allocates. Every variable length here is bounded by the caller, and padding is checked to be zero as RFC 4506 3 (and 4.9) has it.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use bytes::{BufMut, BytesMut};
use portolan_core::{Error, Result};

use crate::error::DecodeError;
use crate::read::Reader;

/// A cursor that reads XDR.
///
/// ```
/// use portolan_wire::xdr::XdrReader;
///
/// let mut xdr = XdrReader::new(b"\0\0\0\x05hello\0\0\0\0\0\0\x01");
/// assert_eq!(xdr.opaque(255, "name")?, b"hello");
/// assert!(xdr.boolean("follows")?);
/// xdr.expect_end("reply")?;
/// # Ok::<(), portolan_wire::DecodeError>(())
/// ```
#[derive(Debug, Clone)]
pub struct XdrReader<'a> {
    reader: Reader<'a>,
}

impl<'a> XdrReader<'a> {
    /// A cursor at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { reader: Reader::new(bytes) }
    }

    /// A cursor at the place of a [`Reader`], for the part of a record that is XDR.
    pub fn from_reader(reader: Reader<'a>) -> Self {
        Self { reader }
    }

    /// How far it has come.
    pub fn offset(&self) -> usize {
        self.reader.offset()
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.reader.remaining()
    }

    /// All that is left: the body that a header was read off.
    pub fn rest(&mut self) -> &'a [u8] {
        self.reader.rest()
    }

    /// Succeeds if all is read.
    pub fn expect_end(&self, what: &'static str) -> Result<(), DecodeError> {
        self.reader.expect_end(what)
    }

    /// An error at this place: the bytes break a rule.
    pub fn invalid(&self, what: &'static str) -> DecodeError {
        self.reader.invalid(what)
    }

    /// Reads an unsigned int.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        self.reader.u32_be(what)
    }

    /// Reads an int, or an enum.
    pub fn i32(&mut self, what: &'static str) -> Result<i32, DecodeError> {
        self.reader.i32_be(what)
    }

    /// Reads an unsigned hyper.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        self.reader.u64_be(what)
    }

    /// Reads a hyper.
    pub fn i64(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        self.reader.i64_be(what)
    }

    /// Reads a float.
    pub fn f32(&mut self, what: &'static str) -> Result<f32, DecodeError> {
        self.reader.f32_be(what)
    }

    /// Reads a double.
    pub fn f64(&mut self, what: &'static str) -> Result<f64, DecodeError> {
        self.reader.f64_be(what)
    }

    /// Reads a bool: 0 or 1, and nothing else (RFC 4506 4.4).
    pub fn boolean(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        let at = self.offset();
        match self.u32(what)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::invalid(what, at)),
        }
    }

    /// Reads `n` bytes and their padding.
    pub fn opaque_fixed(&mut self, n: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let bytes = self.reader.bytes(n, what)?;
        let at = self.offset();
        if self.reader.bytes(padding(n), what)?.iter().any(|byte| *byte != 0) {
            return Err(DecodeError::invalid("padding", at));
        }
        Ok(bytes)
    }

    /// Reads a length of at most `max`, that many bytes, and their padding.
    pub fn opaque(&mut self, max: u32, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let n = self.count(max, what)?;
        self.opaque_fixed(n, what)
    }

    /// Reads a string of at most `max` bytes as UTF-8, which ASCII is.
    pub fn string(&mut self, max: u32, what: &'static str) -> Result<&'a str, DecodeError> {
        let at = self.offset().saturating_add(4);
        std::str::from_utf8(self.opaque(max, what)?)
            .map_err(|error| DecodeError::invalid(what, at.saturating_add(error.valid_up_to())))
    }

    /// Reads an array of at most `max` elements. One whose count the bytes left cannot hold (an element takes four at
    /// least) fails before the first is read.
    pub fn array<T>(
        &mut self,
        max: u32,
        what: &'static str,
        read: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let n = self.count(max, what)?;
        if n > self.remaining() / 4 {
            // Said by the cursor, which knows whether more may come.
            self.reader.bytes(n.saturating_mul(4), what)?;
        }
        self.array_fixed(n, read)
    }

    /// Reads just `n` elements.
    pub fn array_fixed<T>(
        &mut self,
        n: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        // Grown as elements are read: the count is the peer's word.
        let mut list = Vec::new();
        for _ in 0..n {
            list.push(read(self)?);
        }
        Ok(list)
    }

    /// Reads optional-data: whether it follows, and it.
    pub fn optional<T>(
        &mut self,
        what: &'static str,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.boolean(what)? { read(self).map(Some) } else { Ok(None) }
    }

    /// Reads a linked list, each element behind a "one follows" (RFC 4506 4.19), of at most `max` elements.
    pub fn chain<T>(
        &mut self,
        max: usize,
        what: &'static str,
        mut read: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let mut list = Vec::new();
        while self.boolean(what)? {
            if list.len() >= max {
                return Err(self.reader.too_long(what));
            }
            list.push(read(self)?);
        }
        Ok(list)
    }

    fn count(&mut self, max: u32, what: &'static str) -> Result<usize, DecodeError> {
        let at = self.offset();
        let n = self.u32(what)?;
        usize::try_from(n).ok().filter(|_| n <= max).ok_or(DecodeError::too_long(what, at))
    }
}

/// A cursor that writes XDR. What does not fit a length is a usage error.
#[derive(Debug)]
pub struct XdrWriter<'a> {
    out: &'a mut BytesMut,
}

impl<'a> XdrWriter<'a> {
    /// A cursor at the end of `out`.
    pub fn new(out: &'a mut BytesMut) -> Self {
        Self { out }
    }

    /// Writes an unsigned int.
    pub fn u32(&mut self, value: u32) {
        self.out.put_u32(value);
    }

    /// Writes an int, or an enum.
    pub fn i32(&mut self, value: i32) {
        self.out.put_i32(value);
    }

    /// Writes an unsigned hyper.
    pub fn u64(&mut self, value: u64) {
        self.out.put_u64(value);
    }

    /// Writes a hyper.
    pub fn i64(&mut self, value: i64) {
        self.out.put_i64(value);
    }

    /// Writes a float.
    pub fn f32(&mut self, value: f32) {
        self.out.put_f32(value);
    }

    /// Writes a double.
    pub fn f64(&mut self, value: f64) {
        self.out.put_f64(value);
    }

    /// Writes a bool.
    pub fn boolean(&mut self, value: bool) {
        self.u32(u32::from(value));
    }

    /// Writes bytes and their padding: as many as the type says, which the caller sees to.
    pub fn opaque_fixed(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        self.out.put_bytes(0, padding(bytes.len()));
    }

    /// Writes the length, the bytes and their padding; more than `max` are a usage error.
    pub fn opaque(&mut self, max: u32, what: &str, bytes: &[u8]) -> Result<()> {
        self.count(max, what, bytes.len())?;
        self.opaque_fixed(bytes);
        Ok(())
    }

    /// Writes a string; more than `max` bytes are a usage error.
    pub fn string(&mut self, max: u32, what: &str, text: &str) -> Result<()> {
        self.opaque(max, what, text.as_bytes())
    }

    /// Writes the count and each element; more than `max` are a usage error.
    pub fn array<T>(
        &mut self,
        max: u32,
        what: &str,
        items: &[T],
        mut write: impl FnMut(&mut Self, &T) -> Result<()>,
    ) -> Result<()> {
        self.count(max, what, items.len())?;
        items.iter().try_for_each(|item| write(self, item))
    }

    /// Writes optional-data.
    pub fn optional<T>(&mut self, item: Option<T>, write: impl FnOnce(&mut Self, T) -> Result<()>) -> Result<()> {
        self.boolean(item.is_some());
        item.map_or(Ok(()), |item| write(self, item))
    }

    fn count(&mut self, max: u32, what: &str, n: usize) -> Result<()> {
        match u32::try_from(n) {
            Ok(n) if n <= max => {
                self.u32(n);
                Ok(())
            }
            _ => Err(Error::usage(format!("{what} of {n} is more than {max}"))),
        }
    }
}

/// The zero bytes after `n` bytes, up to a multiple of four.
fn padding(n: usize) -> usize {
    n.wrapping_neg() & 3
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn every_length_modulo_four_is_padded_with_checked_zeros() {
        for n in 0..9_usize {
            let mut out = BytesMut::new();
            let body = vec![0xaa; n];
            XdrWriter::new(&mut out).opaque(100, "body", &body).unwrap();
            assert_eq!(out.len(), 4 + n.div_ceil(4) * 4);
            let mut xdr = XdrReader::new(&out);
            assert_eq!(xdr.opaque(100, "body"), Ok(body.as_slice()));
            xdr.expect_end("body").unwrap();
            for at in 4 + n..out.len() {
                let mut dirty = out.clone();
                dirty[at] = 1;
                assert_eq!(XdrReader::new(&dirty).opaque(100, "body"), Err(DecodeError::invalid("padding", 4 + n)));
            }
            if n % 4 != 0 {
                let cut = &out[..out.len() - 1];
                assert!(XdrReader::new(cut).opaque(100, "body").unwrap_err().is_truncated());
            }
        }
    }

    #[test]
    fn the_example_of_rfc_4506_section_7_is_written_and_read() {
        // A file "sillyprog", an executable that "lisp" interprets, owner "john", contents "(quit)".
        let bytes = b"\0\0\0\x09sillyprog\0\0\0\0\0\0\x02\0\0\0\x04lisp\0\0\0\x04john\0\0\0\x06(quit)\0\0";
        let mut out = BytesMut::new();
        let mut w = XdrWriter::new(&mut out);
        w.string(255, "name", "sillyprog").unwrap();
        w.i32(2);
        w.string(255, "interpreter", "lisp").unwrap();
        w.string(32, "owner", "john").unwrap();
        w.opaque(65_535, "data", b"(quit)").unwrap();
        assert_eq!(&out[..], bytes);
        let mut r = XdrReader::new(bytes);
        assert_eq!(r.string(255, "name"), Ok("sillyprog"));
        assert_eq!(r.i32("kind"), Ok(2));
        assert_eq!(r.string(255, "interpreter"), Ok("lisp"));
        assert_eq!(r.string(32, "owner"), Ok("john"));
        assert_eq!(r.opaque(65_535, "data"), Ok(b"(quit)".as_slice()));
    }

    #[test]
    fn numbers_keep_all_their_bits() {
        let mut out = BytesMut::new();
        let mut w = XdrWriter::new(&mut out);
        w.u64((1 << 33) + 1);
        w.i64(-2);
        w.i32(i32::MIN);
        w.f64(-0.5);
        w.f32(1.25);
        w.boolean(true);
        let put = |w: &mut XdrWriter<'_>, n: u32| {
            w.u32(n);
            Ok(())
        };
        w.optional(Some(7), put).unwrap();
        w.optional(None, put).unwrap();
        w.array(3, "list", &[1, 2, 3], |w, n| put(w, *n)).unwrap();
        let mut r = XdrReader::new(&out);
        assert_eq!(r.u64("a"), Ok((1 << 33) + 1));
        assert_eq!(r.i64("b"), Ok(-2));
        assert_eq!(r.i32("c"), Ok(i32::MIN));
        assert_eq!(r.f64("d"), Ok(-0.5));
        assert_eq!(r.f32("e"), Ok(1.25));
        assert_eq!(r.boolean("f"), Ok(true));
        assert_eq!(r.optional("g", |r| r.u32("g")), Ok(Some(7)));
        assert_eq!(r.optional("h", |r| r.u32("h")), Ok(None));
        assert_eq!(r.array(3, "list", |r| r.u32("n")), Ok(vec![1, 2, 3]));
        assert_eq!(XdrReader::new(&[0, 0, 0, 2]).boolean("b"), Err(DecodeError::invalid("b", 0)));
    }

    #[test]
    fn lengths_and_counts_are_bounded_both_ways() {
        assert_eq!(XdrReader::new(&[0xff; 8]).opaque(8, "s"), Err(DecodeError::too_long("s", 0)));
        assert_eq!(XdrReader::new(&[0, 0, 0, 9]).array(8, "l", |r| r.u32("n")), Err(DecodeError::too_long("l", 0)));
        let mut calls = 0;
        let result = XdrReader::new(&[0x7f, 0xff, 0xff, 0xff, 1]).array(u32::MAX, "l", |r| {
            calls += 1;
            r.u32("n")
        });
        assert_eq!((result, calls), (Err(DecodeError::truncated("l", 4)), 0));
        let chain = [0, 0, 0, 1].repeat(100);
        assert_eq!(XdrReader::new(&chain).chain(10, "c", |_| Ok(())).unwrap_err().why, crate::Why::TooLong);
        let mut out = BytesMut::new();
        assert!(XdrWriter::new(&mut out).opaque(3, "s", b"four").is_err());
        assert!(out.is_empty());
    }

    #[cfg(feature = "laws")]
    #[test]
    fn reading_keeps_the_laws() {
        fn decode(bytes: &[u8]) -> Result<(Vec<Vec<u8>>, Option<String>), DecodeError> {
            let mut r = XdrReader::new(bytes);
            let list = r.array(u32::MAX, "list", |r| r.opaque(u32::MAX, "item").map(<[u8]>::to_vec))?;
            let name = r.optional("name", |r| r.string(255, "name").map(str::to_string))?;
            r.expect_end("end")?;
            Ok((list, name))
        }
        let seed = b"\0\0\0\x02\0\0\0\x03abc\0\0\0\0\0\0\0\0\x01\0\0\0\x02hi\0\0";
        crate::laws::Laws::default().truncation_fails(true).check_datagram(decode, &[seed]);
    }
}
