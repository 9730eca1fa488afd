//! The reading cursor.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use std::borrow::Cow;

use crate::error::DecodeError;

/// A cursor over bytes that have arrived. Every read is checked and names what it reads, so errors say which field.
///
/// Past the end, a reader made by [`Reader::new`] says [`Why::Truncated`](crate::Why::Truncated) (more may come), one made
/// by a `scope_*` or [`sub`](Reader::sub) says [`Why::Invalid`](crate::Why::Invalid) (its length was given, so it lied).
///
/// ```
/// use portolan_wire::{DecodeError, Reader};
///
/// let mut reader = Reader::new(&[0, 3, b'a', b'b', b'c', 0, 9]);
/// let mut name = reader.scope_u16_be("name")?;
/// assert_eq!(name.rest(), b"abc");
/// assert_eq!(reader.u16_be("port")?, 9);
/// reader.expect_end("record")?;
/// # Ok::<(), DecodeError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    left: &'a [u8],
    offset: usize,
    bounded: bool,
}

macro_rules! integers {
    ($($ty:ident, $be:ident, $le:ident, $doc:literal;)*) => {$(
        #[doc = concat!("Reads ", $doc, ", most significant byte first.")]
        pub fn $be(&mut self, what: &'static str) -> Result<$ty, DecodeError> {
            self.array(what).map($ty::from_be_bytes)
        }

        #[doc = concat!("Reads ", $doc, ", least significant byte first.")]
        pub fn $le(&mut self, what: &'static str) -> Result<$ty, DecodeError> {
            self.array(what).map($ty::from_le_bytes)
        }
    )*};
}

macro_rules! prefixed {
    ($($read:ident, $scope:ident, $bytes:ident, $doc:literal;)*) => {$(
        #[doc = concat!("Reads a length of ", $doc, " and gives a reader over just that many bytes.")]
        pub fn $scope(&mut self, what: &'static str) -> Result<Reader<'a>, DecodeError> {
            let len = u64::from(self.$read(what)?);
            self.sub_wide(len, what)
        }

        #[doc = concat!("Reads a length of ", $doc, " and that many bytes.")]
        pub fn $bytes(&mut self, what: &'static str) -> Result<&'a [u8], DecodeError> {
            self.$scope(what).map(|scope| scope.left)
        }
    )*};
}

impl<'a> Reader<'a> {
    /// A cursor at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { left: bytes, offset: 0, bounded: false }
    }

    /// A cursor over a frame whose length is known: reading past its end is [`Why::Invalid`](crate::Why::Invalid), not
    /// "read more".
    pub fn frame(bytes: &'a [u8]) -> Self {
        Self { left: bytes, offset: 0, bounded: true }
    }

    /// How far it has come, counted from the start of the frame.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.left.len()
    }

    /// Whether all is read.
    pub fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// What is left, unread.
    pub fn peek(&self) -> &'a [u8] {
        self.left
    }

    /// The next byte, unread.
    pub fn peek_u8(&self) -> Option<u8> {
        self.left.first().copied()
    }

    /// An error at this place: the bytes break a rule.
    pub fn invalid(&self, what: &'static str) -> DecodeError {
        DecodeError::invalid(what, self.offset)
    }

    /// An error at this place: a limit is passed.
    pub fn too_long(&self, what: &'static str) -> DecodeError {
        DecodeError::too_long(what, self.offset)
    }

    /// An error at this place: not done here.
    pub fn unsupported(&self, what: &'static str) -> DecodeError {
        DecodeError::unsupported(what, self.offset)
    }

    fn short(&self, what: &'static str) -> DecodeError {
        if self.bounded { self.invalid(what) } else { DecodeError::truncated(what, self.offset) }
    }

    /// Reads exactly `n` bytes.
    pub fn bytes(&mut self, n: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.left.split_at_checked(n).ok_or_else(|| self.short(what))?;
        self.left = tail;
        self.offset = self.offset.saturating_add(n);
        Ok(head)
    }

    /// Reads exactly `N` bytes.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let (head, tail) = self.left.split_first_chunk::<N>().ok_or_else(|| self.short(what))?;
        self.left = tail;
        self.offset = self.offset.saturating_add(N);
        Ok(*head)
    }

    /// Passes over `n` bytes.
    pub fn skip(&mut self, n: usize, what: &'static str) -> Result<(), DecodeError> {
        self.bytes(n, what).map(|_| ())
    }

    /// Reads all that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        let rest = std::mem::take(&mut self.left);
        self.offset = self.offset.saturating_add(rest.len());
        rest
    }

    /// Succeeds if all is read; what is left over is invalid.
    pub fn expect_end(&self, what: &'static str) -> Result<(), DecodeError> {
        if self.left.is_empty() { Ok(()) } else { Err(self.invalid(what)) }
    }

    /// Reads `expected`, or is invalid: magic numbers, fixed tags.
    pub fn expect(&mut self, expected: &[u8], what: &'static str) -> Result<(), DecodeError> {
        let at = self.offset;
        if self.bytes(expected.len(), what)? == expected { Ok(()) } else { Err(DecodeError::invalid(what, at)) }
    }

    /// A reader over the next `n` bytes, which are thereby read here.
    pub fn sub(&mut self, n: usize, what: &'static str) -> Result<Reader<'a>, DecodeError> {
        let offset = self.offset;
        Ok(Reader { left: self.bytes(n, what)?, offset, bounded: true })
    }

    fn sub_wide(&mut self, n: u64, what: &'static str) -> Result<Reader<'a>, DecodeError> {
        // A length that no address space holds is never going to arrive.
        let n = usize::try_from(n).map_err(|_| self.too_long(what))?;
        self.sub(n, what)
    }

    /// Reads one byte.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        self.array(what).map(|[byte]| byte)
    }

    /// Reads one signed byte.
    pub fn i8(&mut self, what: &'static str) -> Result<i8, DecodeError> {
        self.array(what).map(i8::from_be_bytes)
    }

    integers! {
        u16, u16_be, u16_le, "an unsigned 16-bit integer";
        i16, i16_be, i16_le, "a signed 16-bit integer";
        u32, u32_be, u32_le, "an unsigned 32-bit integer";
        i32, i32_be, i32_le, "a signed 32-bit integer";
        u64, u64_be, u64_le, "an unsigned 64-bit integer";
        i64, i64_be, i64_le, "a signed 64-bit integer";
        u128, u128_be, u128_le, "an unsigned 128-bit integer";
        i128, i128_be, i128_le, "a signed 128-bit integer";
        f32, f32_be, f32_le, "a 32-bit float";
        f64, f64_be, f64_le, "a 64-bit float";
    }

    /// Reads an unsigned 24-bit integer, most significant byte first.
    pub fn u24_be(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        self.array(what).map(|[a, b, c]| u32::from_be_bytes([0, a, b, c]))
    }

    /// Reads an unsigned 24-bit integer, least significant byte first.
    pub fn u24_le(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        self.array(what).map(|[a, b, c]| u32::from_le_bytes([a, b, c, 0]))
    }

    /// Reads an unsigned 48-bit integer, most significant byte first.
    pub fn u48_be(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        self.array(what).map(|[a, b, c, d, e, f]| u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
    }

    /// Reads an unsigned 48-bit integer, least significant byte first.
    pub fn u48_le(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        self.array(what).map(|[a, b, c, d, e, f]| u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }

    prefixed! {
        u8, scope_u8, bytes_u8, "one byte";
        u16_be, scope_u16_be, bytes_u16_be, "two bytes, most significant first";
        u16_le, scope_u16_le, bytes_u16_le, "two bytes, least significant first";
        u24_be, scope_u24_be, bytes_u24_be, "three bytes, most significant first";
        u24_le, scope_u24_le, bytes_u24_le, "three bytes, least significant first";
        u32_be, scope_u32_be, bytes_u32_be, "four bytes, most significant first";
        u32_le, scope_u32_le, bytes_u32_le, "four bytes, least significant first";
    }

    /// Reads a variable-length integer of seven bits a byte, least significant group first (LEB128), of at most
    /// `max_bytes` (10 hold 64 bits). Forms longer than need be are taken, values past 64 bits are not.
    pub fn varint(&mut self, max_bytes: u32, what: &'static str) -> Result<u64, DecodeError> {
        let start = self.offset;
        let mut value = 0u64;
        for index in 0..max_bytes.min(10) {
            let byte = self.u8(what)?;
            let bits = u64::from(byte & 0x7f);
            let shift = index.saturating_mul(7);
            let moved = bits.wrapping_shl(shift);
            if moved.wrapping_shr(shift) != bits {
                return Err(DecodeError::invalid(what, start));
            }
            value |= moved;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::invalid(what, start))
    }

    /// Reads a [`varint`](Self::varint) of at most 5 bytes and 32 bits.
    pub fn varint_u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        let start = self.offset;
        u32::try_from(self.varint(5, what)?).map_err(|_| DecodeError::invalid(what, start))
    }

    /// Reads a [`varint`](Self::varint) of at most 10 bytes and 64 bits.
    pub fn varint_u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        self.varint(10, what)
    }

    /// Reads a signed 32-bit integer as a zigzag [`varint`](Self::varint).
    pub fn zigzag_i32(&mut self, what: &'static str) -> Result<i32, DecodeError> {
        let value = self.varint_u32(what)?;
        Ok((value >> 1).cast_signed() ^ (value & 1).cast_signed().wrapping_neg())
    }

    /// Reads a signed 64-bit integer as a zigzag [`varint`](Self::varint).
    pub fn zigzag_i64(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        let value = self.varint_u64(what)?;
        Ok((value >> 1).cast_signed() ^ (value & 1).cast_signed().wrapping_neg())
    }

    /// Reads `n` bytes of UTF-8.
    pub fn utf8(&mut self, n: usize, what: &'static str) -> Result<&'a str, DecodeError> {
        let at = self.offset;
        std::str::from_utf8(self.bytes(n, what)?)
            .map_err(|error| DecodeError::invalid(what, at.saturating_add(error.valid_up_to())))
    }

    /// Reads the rest as UTF-8.
    pub fn rest_utf8(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        self.utf8(self.left.len(), what)
    }

    /// Reads `n` bytes of Latin-1, which never fails for its content.
    pub fn latin1(&mut self, n: usize, what: &'static str) -> Result<Cow<'a, str>, DecodeError> {
        let bytes = self.bytes(n, what)?;
        Ok(match std::str::from_utf8(bytes) {
            Ok(text) if bytes.is_ascii() => Cow::Borrowed(text),
            _ => Cow::Owned(bytes.iter().copied().map(char::from).collect()),
        })
    }

    /// Reads bytes up to `end`, which is passed over and not given; more than `max` bytes before it are too long.
    pub fn until(&mut self, end: u8, max: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let window = self.left.get(..=max).unwrap_or(self.left);
        match memchr::memchr(end, window) {
            Some(at) => {
                let bytes = self.bytes(at, what)?;
                self.skip(1, what)?;
                Ok(bytes)
            }
            None if self.left.len() > max => Err(self.too_long(what)),
            None => Err(self.short(what)),
        }
    }

    /// Reads bytes that a NUL ends; more than `max` before it are too long.
    pub fn cstr(&mut self, max: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        self.until(0, max, what)
    }

    /// Reads UTF-8 that a NUL ends; more than `max` bytes before it are too long.
    pub fn cstr_utf8(&mut self, max: usize, what: &'static str) -> Result<&'a str, DecodeError> {
        let at = self.offset;
        std::str::from_utf8(self.cstr(max, what)?)
            .map_err(|error| DecodeError::invalid(what, at.saturating_add(error.valid_up_to())))
    }

    /// Reads a Pascal string: a length of one byte, then UTF-8.
    pub fn pascal_utf8(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        self.scope_u8(what)?.rest_utf8(what)
    }

    /// Reads `count` elements, each of at least `min_size` bytes (0 counts as 1): a count that the bytes left can't hold
    /// fails before anything is allocated or looped over.
    pub fn list<T>(
        &mut self,
        count: usize,
        min_size: usize,
        what: &'static str,
        mut read: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        if count.checked_mul(min_size.max(1)).is_none_or(|need| need > self.left.len()) {
            return Err(self.short(what));
        }
        // No capacity from the count: it is the peer's word, and an element in memory may be far larger than on the wire.
        let mut list = Vec::new();
        for _ in 0..count {
            list.push(read(self)?);
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_by_their_own_endianness_and_sign() {
        let mut r = Reader::new(&[0x80, 0x01, 0x80, 0x01, 1, 2, 3, 1, 2, 3, 0xff, 1, 2, 3, 4, 5, 6]);
        assert_eq!(r.u16_be("a"), Ok(0x8001));
        assert_eq!(r.i16_le("b"), Ok(0x0180));
        assert_eq!(r.u24_be("c"), Ok(0x01_0203));
        assert_eq!(r.u24_le("d"), Ok(0x03_0201));
        assert_eq!(r.i8("e"), Ok(-1));
        assert_eq!(r.clone().u48_be("f"), Ok(0x0102_0304_0506));
        assert_eq!(r.u48_le("f"), Ok(0x0605_0403_0201));
        assert_eq!(r.u8("g"), Err(DecodeError::truncated("g", 17)));
        assert_eq!(Reader::new(&i64::MIN.to_le_bytes()).i64_le("h"), Ok(i64::MIN));
        assert_eq!(Reader::new(&u128::MAX.to_be_bytes()).u128_be("i"), Ok(u128::MAX));
    }

    #[test]
    fn a_scope_that_lies_is_invalid_and_a_missing_one_is_truncated() {
        let mut r = Reader::new(&[0, 2, 7, 7]);
        let mut scope = r.scope_u16_be("scope").unwrap();
        assert_eq!(scope.u32_be("inner"), Err(DecodeError::invalid("inner", 2)));
        assert_eq!(Reader::new(&[0, 9, 1]).scope_u16_be("scope").unwrap_err(), DecodeError::truncated("scope", 2));
        assert_eq!(Reader::frame(&[0]).u16_be("n"), Err(DecodeError::invalid("n", 0)));
        assert_eq!(Reader::new(&[0xff; 4]).bytes_u32_le("huge"), Err(DecodeError::truncated("huge", 4)));
    }

    #[test]
    fn varints_are_bounded_in_bytes_and_bits() {
        assert_eq!(Reader::new(&[0xac, 0x02]).varint_u32("n"), Ok(300));
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f]).varint_u32("n"), Ok(u32::MAX));
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x1f]).varint_u32("n"), Err(DecodeError::invalid("n", 0)));
        assert_eq!(Reader::new(&[0xff; 11]).varint_u64("n"), Err(DecodeError::invalid("n", 0)));
        let mut max = [0xff; 10];
        max[9] = 1;
        assert_eq!(Reader::new(&max).varint_u64("n"), Ok(u64::MAX));
        max[9] = 2;
        assert_eq!(Reader::new(&max).varint_u64("n"), Err(DecodeError::invalid("n", 0)));
        assert_eq!(Reader::new(&[0xff; 4]).varint(4, "mqtt"), Err(DecodeError::invalid("mqtt", 0)));
        assert_eq!(Reader::new(&[0x80]).varint_u64("n"), Err(DecodeError::truncated("n", 1)));
        assert_eq!(Reader::new(&[1]).zigzag_i32("n"), Ok(-1));
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f]).zigzag_i32("n"), Ok(i32::MIN));
        assert_eq!(Reader::new(&[0xfe, 0xff, 0xff, 0xff, 0x0f]).zigzag_i32("n"), Ok(i32::MAX));
    }

    #[test]
    fn strings_are_checked_where_their_form_has_rules() {
        assert_eq!(Reader::new(b"ab\0c").cstr(2, "s"), Ok(b"ab".as_slice()));
        assert_eq!(Reader::new(b"abc\0").cstr(2, "s"), Err(DecodeError::too_long("s", 0)));
        assert_eq!(Reader::new(b"ab").cstr(2, "s"), Err(DecodeError::truncated("s", 0)));
        assert_eq!(Reader::new(b"\x02a\xff").pascal_utf8("s"), Err(DecodeError::invalid("s", 2)));
        assert_eq!(Reader::new(b"caf\xe9").latin1(4, "s").unwrap(), "caf\u{e9}");
        assert!(matches!(Reader::new(b"cafe").latin1(4, "s"), Ok(Cow::Borrowed("cafe"))));
    }

    #[test]
    fn a_count_that_cannot_fit_fails_before_the_loop() {
        let mut calls = 0;
        let result = Reader::new(&[0; 8]).list(usize::MAX / 2, 4, "items", |r| {
            calls += 1;
            r.u32_be("item")
        });
        assert_eq!((result, calls), (Err(DecodeError::truncated("items", 0)), 0));
        assert_eq!(Reader::new(&[0, 1, 0, 2]).list(2, 2, "items", |r| r.u16_be("item")), Ok(vec![1, 2]));
    }
}
