//! QUIC's variable-length integers (RFC 9000 16).

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use bytes::{BufMut, BytesMut};

/// The greatest value.
pub(crate) const MAX: u64 = (1 << 62) - 1;

/// Reads one integer: its value and its length; `None` needs more bytes.
#[inline]
pub(crate) fn read(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let len = 1usize << (first >> 6);
    let mut value = u64::from(first & 0x3f);
    for byte in bytes.get(1..len)? {
        value = (value << 8) | u64::from(*byte);
    }
    Some((value, len))
}

/// Writes `value` in as few bytes as it takes; beyond [`MAX`] it is cut to it.
#[inline]
pub(crate) fn put(value: u64, out: &mut BytesMut) {
    let value = value.min(MAX);
    match value {
        0..0x40 => out.put_uint(value, 1),
        0x40..0x4000 => out.put_uint(value | 0x4000, 2),
        0x4000..0x4000_0000 => out.put_uint(value | 0x8000_0000, 4),
        _ => out.put_uint(value | 0xc000_0000_0000_0000, 8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9000 A.1.
    #[test]
    fn integers_of_the_specification_are_written_and_read() {
        let vectors: [(&[u8], u64); 5] = [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0xff; 8], MAX),
        ];
        for (wire, value) in vectors {
            assert_eq!(read(wire), Some((value, wire.len())));
            assert_eq!(wire.split_last().and_then(|(_, short)| read(short)), None);
            let mut out = BytesMut::new();
            put(value, &mut out);
            assert_eq!(&out[..], wire);
        }
        assert_eq!(read(&[0x40, 0x25]), Some((37, 2)), "longer than it must be, and legal");
    }
}
