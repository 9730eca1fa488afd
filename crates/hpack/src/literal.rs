//! String literals (RFC 7541 5.2, RFC 9204 4.1.2): a bit for Huffman, a length with a prefix, the text.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use bytes::{BufMut, BytesMut};

use crate::decoder::Limits;
use crate::error::{DecodeError, Why};
use crate::huffman;
use crate::int::{self, Input};

/// A string as it is on the wire.
pub(crate) struct Literal<'a> {
    pub(crate) huffman: bool,
    pub(crate) coded: &'a [u8],
}

impl<'a> Literal<'a> {
    /// The next one. The Huffman bit is the one above the prefix.
    #[inline]
    pub(crate) fn take(
        input: &mut Input<'a>,
        prefix: u32,
        limits: &Limits,
        what: &'static str,
    ) -> Result<Self, DecodeError> {
        let huffman = input.peek().is_some_and(|first| first & 1u8.wrapping_shl(prefix) != 0);
        let length = input.int(prefix, limits.string as u64, what)?;
        Ok(Self { huffman, coded: input.take(usize::try_from(length).unwrap_or(usize::MAX), what)? })
    }

    /// Appends its text to `room`.
    pub(crate) fn read(&self, room: &mut BytesMut) -> Result<(), huffman::Invalid> {
        if self.huffman {
            return huffman::decode(self.coded, room);
        }
        room.extend_from_slice(self.coded);
        Ok(())
    }
}

/// Appends the next string to `room`.
pub(crate) fn read(
    input: &mut Input<'_>,
    prefix: u32,
    limits: &Limits,
    room: &mut BytesMut,
    what: &'static str,
) -> Result<(), DecodeError> {
    let literal = Literal::take(input, prefix, limits, what)?;
    literal.read(room).map_err(|_| input.fail(what, Why::Invalid))
}

/// Makes room for all strings of a block of `len` bytes at once: a code of five bits is the shortest.
pub(crate) fn make_room(len: usize, limits: &Limits, room: &mut BytesMut) {
    let most = len.saturating_mul(8).div_ceil(5).saturating_add(1);
    if room.capacity() < most {
        room.reserve(most.min(limits.list_size));
    }
}

/// Writes a string by whichever form is shorter, after the pattern bits above its Huffman bit.
pub(crate) fn put(text: &[u8], prefix: u32, pattern: u8, out: &mut BytesMut) {
    let coded = huffman::encoded_len(text);
    if coded < text.len() {
        int::put(coded as u64, prefix, pattern | 1u8.wrapping_shl(prefix), out);
        huffman::encode(text, out);
    } else {
        int::put(text.len() as u64, prefix, pattern, out);
        out.put_slice(text);
    }
}
