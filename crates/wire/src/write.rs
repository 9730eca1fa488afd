//! The writing cursor.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use bytes::{BufMut, BytesMut};
use portolan_core::{Error, Result};

/// A cursor that appends to a buffer. What does not fit its field is the caller's mistake and a usage error, so a length
/// never wraps.
///
/// ```
/// use bytes::BytesMut;
/// use portolan_wire::Writer;
///
/// let mut out = BytesMut::new();
/// let mut writer = Writer::new(&mut out);
/// writer.u8(1);
/// writer.scope_u16_be("body", |body| {
///     body.bytes(b"abc");
///     Ok(())
/// })?;
/// assert_eq!(&out[..], b"\x01\0\x03abc");
/// # Ok::<(), portolan_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut BytesMut,
}

macro_rules! integers {
    ($($ty:ident, $be:ident, $le:ident, $doc:literal;)*) => {$(
        #[doc = concat!("Writes ", $doc, ", most significant byte first.")]
        pub fn $be(&mut self, value: $ty) {
            self.out.put_slice(&value.to_be_bytes());
        }

        #[doc = concat!("Writes ", $doc, ", least significant byte first.")]
        pub fn $le(&mut self, value: $ty) {
            self.out.put_slice(&value.to_le_bytes());
        }
    )*};
}

macro_rules! prefixed {
    ($($scope:ident, $bytes:ident, $width:literal, $order:ident, $doc:literal;)*) => {$(
        #[doc = concat!("Writes a length of ", $doc, " and what `write` appends; too much is a usage error.")]
        pub fn $scope(&mut self, what: &str, write: impl FnOnce(&mut Writer<'_>) -> Result<()>) -> Result<()> {
            self.scope::<$width>(Order::$order, what, write)
        }

        #[doc = concat!("Writes a length of ", $doc, " and the bytes; too many are a usage error.")]
        pub fn $bytes(&mut self, what: &str, bytes: &[u8]) -> Result<()> {
            self.length::<$width>(Order::$order, what, bytes.len())?;
            self.bytes(bytes);
            Ok(())
        }
    )*};
}

#[derive(Clone, Copy)]
enum Order {
    Big,
    Little,
}

impl<'a> Writer<'a> {
    /// A cursor at the end of `out`.
    pub fn new(out: &'a mut BytesMut) -> Self {
        Self { out }
    }

    /// How many bytes the buffer holds, those from before included.
    pub fn position(&self) -> usize {
        self.out.len()
    }

    /// Writes the bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Writes `n` zero bytes.
    pub fn zeros(&mut self, n: usize) {
        self.out.put_bytes(0, n);
    }

    /// Writes one byte.
    pub fn u8(&mut self, value: u8) {
        self.out.put_u8(value);
    }

    /// Writes one signed byte.
    pub fn i8(&mut self, value: i8) {
        self.out.put_i8(value);
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

    /// Writes an unsigned 24-bit integer, most significant byte first; a larger value is a usage error.
    pub fn u24_be(&mut self, what: &str, value: u32) -> Result<()> {
        self.narrow::<3>(Order::Big, what, u64::from(value))
    }

    /// Writes an unsigned 24-bit integer, least significant byte first; a larger value is a usage error.
    pub fn u24_le(&mut self, what: &str, value: u32) -> Result<()> {
        self.narrow::<3>(Order::Little, what, u64::from(value))
    }

    /// Writes an unsigned 48-bit integer, most significant byte first; a larger value is a usage error.
    pub fn u48_be(&mut self, what: &str, value: u64) -> Result<()> {
        self.narrow::<6>(Order::Big, what, value)
    }

    /// Writes an unsigned 48-bit integer, least significant byte first; a larger value is a usage error.
    pub fn u48_le(&mut self, what: &str, value: u64) -> Result<()> {
        self.narrow::<6>(Order::Little, what, value)
    }

    prefixed! {
        scope_u8, bytes_u8, 1, Big, "one byte";
        scope_u16_be, bytes_u16_be, 2, Big, "two bytes, most significant first";
        scope_u16_le, bytes_u16_le, 2, Little, "two bytes, least significant first";
        scope_u24_be, bytes_u24_be, 3, Big, "three bytes, most significant first";
        scope_u24_le, bytes_u24_le, 3, Little, "three bytes, least significant first";
        scope_u32_be, bytes_u32_be, 4, Big, "four bytes, most significant first";
        scope_u32_le, bytes_u32_le, 4, Little, "four bytes, least significant first";
    }

    /// Writes a count of elements in 16 bits, most significant byte first; too many are a usage error.
    pub fn count_u16_be(&mut self, what: &str, count: usize) -> Result<()> {
        self.length::<2>(Order::Big, what, count)
    }

    /// Writes a count of elements in 32 bits, most significant byte first; too many are a usage error.
    pub fn count_u32_be(&mut self, what: &str, count: usize) -> Result<()> {
        self.length::<4>(Order::Big, what, count)
    }

    /// Writes an integer in seven bits a byte, least significant group first (LEB128).
    pub fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            let [low, ..] = value.to_le_bytes();
            self.out.put_u8(low | 0x80);
            value >>= 7;
        }
        let [low, ..] = value.to_le_bytes();
        self.out.put_u8(low);
    }

    /// Writes a signed integer as a zigzag [`varint`](Self::varint); 32-bit values come out as the 32-bit form would.
    pub fn zigzag(&mut self, value: i64) {
        self.varint((value.wrapping_shl(1) ^ (value >> 63)).cast_unsigned());
    }

    /// Writes bytes and the NUL that ends them; one within is a usage error.
    pub fn cstr(&mut self, what: &str, bytes: &[u8]) -> Result<()> {
        if memchr::memchr(0, bytes).is_some() {
            return Err(Error::usage(format!("{what} holds a NUL")));
        }
        self.bytes(bytes);
        self.u8(0);
        Ok(())
    }

    /// Writes text as Latin-1; a character past U+00FF is a usage error.
    pub fn latin1(&mut self, what: &str, text: &str) -> Result<()> {
        let start = self.out.len();
        for c in text.chars() {
            let Ok(byte) = u8::try_from(u32::from(c)) else {
                self.out.truncate(start);
                return Err(Error::usage(format!("{what} holds a character that is not Latin-1")));
            };
            self.out.put_u8(byte);
        }
        Ok(())
    }

    /// Writes bytes into a field of exactly `width`, filled up with `pad`; too many are a usage error.
    pub fn fixed(&mut self, what: &str, bytes: &[u8], width: usize, pad: u8) -> Result<()> {
        let fill = width.checked_sub(bytes.len()).ok_or_else(|| {
            Error::usage(format!("{what} of {} bytes does not fit its field of {width}", bytes.len()))
        })?;
        self.bytes(bytes);
        self.out.put_bytes(pad, fill);
        Ok(())
    }

    fn narrow<const WIDTH: usize>(&mut self, order: Order, what: &str, value: u64) -> Result<()> {
        match encode::<WIDTH>(order, value) {
            Some(bytes) => {
                self.bytes(&bytes);
                Ok(())
            }
            None => Err(Error::usage(format!("{what} of {value} does not fit {} bits", WIDTH.saturating_mul(8)))),
        }
    }

    fn length<const WIDTH: usize>(&mut self, order: Order, what: &str, len: usize) -> Result<()> {
        self.narrow::<WIDTH>(order, what, u64::try_from(len).unwrap_or(u64::MAX))
    }

    fn scope<const WIDTH: usize>(
        &mut self,
        order: Order,
        what: &str,
        write: impl FnOnce(&mut Writer<'_>) -> Result<()>,
    ) -> Result<()> {
        let start = self.out.len();
        self.zeros(WIDTH);
        let inner = self.out.len();
        let written = write(&mut Writer { out: self.out }).and_then(|()| {
            let len = self.out.len().saturating_sub(inner);
            encode::<WIDTH>(order, u64::try_from(len).unwrap_or(u64::MAX)).ok_or_else(|| {
                Error::usage(format!("{what} of {len} bytes does not fit a length of {} bits", WIDTH.saturating_mul(8)))
            })
        });
        match written {
            Ok(prefix) => {
                if let Some(place) = self.out.get_mut(start..inner) {
                    place.copy_from_slice(&prefix);
                }
                Ok(())
            }
            Err(error) => {
                self.out.truncate(start);
                Err(error)
            }
        }
    }
}

/// `value` in `WIDTH` bytes, if it fits.
fn encode<const WIDTH: usize>(order: Order, value: u64) -> Option<[u8; WIDTH]> {
    let wide = value.to_be_bytes();
    let (head, tail) = wide.split_last_chunk::<WIDTH>()?;
    if head.iter().any(|&byte| byte != 0) {
        return None;
    }
    let mut bytes = *tail;
    if let Order::Little = order {
        bytes.reverse();
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::Reader;

    fn write(f: impl FnOnce(&mut Writer<'_>) -> Result<()>) -> Result<Vec<u8>> {
        let mut out = BytesMut::new();
        f(&mut Writer::new(&mut out))?;
        Ok(out.to_vec())
    }

    #[test]
    fn scopes_nest_and_patch_their_lengths() {
        let bytes = write(|w| {
            w.scope_u32_le("outer", |w| {
                w.scope_u8("inner", |w| w.cstr("s", b"hi"))?;
                w.scope_u24_be("empty", |_| Ok(()))
            })
        });
        assert_eq!(bytes.unwrap(), b"\x07\0\0\0\x03hi\0\0\0\0");
    }

    #[test]
    fn a_length_at_its_width_fits_and_one_more_is_refused_with_nothing_left_behind() {
        assert_eq!(write(|w| w.bytes_u8("name", &[7; 255])).unwrap().len(), 256);
        let mut out = BytesMut::from(&b"before"[..]);
        let mut w = Writer::new(&mut out);
        assert!(w.bytes_u8("name", &[7; 256]).is_err());
        let overflow = w.scope_u16_be("body", |w| {
            w.zeros(65_536);
            Ok(())
        });
        assert_eq!(overflow.unwrap_err().kind(), portolan_core::Kind::Usage);
        assert!(w.u24_be("n", 1 << 24).is_err());
        assert!(w.latin1("s", "a\u{20ac}").is_err());
        assert!(w.cstr("s", b"a\0b").is_err());
        assert!(w.fixed("s", b"abc", 2, 0).is_err());
        assert_eq!(&out[..], b"before");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let bytes = write(|w| {
            w.i16_le(-2);
            w.u24_le("a", 0x01_0203)?;
            w.u48_be("b", 0x0102_0304_0506)?;
            w.varint(u64::MAX);
            w.zigzag(i64::MIN);
            w.zigzag(i64::from(i32::MIN));
            w.f64_be(1.5);
            w.latin1("c", "\u{e9}")?;
            w.fixed("d", b"x", 3, b' ')
        })
        .unwrap();
        let mut r = Reader::new(&bytes);
        assert_eq!(r.i16_le("x"), Ok(-2));
        assert_eq!(r.u24_le("a"), Ok(0x01_0203));
        assert_eq!(r.u48_be("b"), Ok(0x0102_0304_0506));
        assert_eq!(r.varint_u64("x"), Ok(u64::MAX));
        assert_eq!(r.zigzag_i64("x"), Ok(i64::MIN));
        assert_eq!(r.zigzag_i32("x"), Ok(i32::MIN));
        assert_eq!(r.f64_be("x"), Ok(1.5));
        assert_eq!(r.latin1(1, "x").unwrap(), "\u{e9}");
        assert_eq!(r.rest(), b"x  ");
    }
}
