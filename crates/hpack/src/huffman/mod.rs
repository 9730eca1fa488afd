//! Huffman coding of strings (RFC 7541 5.2 and appendix B), shared by HPACK and QPACK.
//!
//! Decoding looks up twelve bits at a time, which is two letters as a rule, and searches longer codes by their length: its work
//! and its output are bounded by the input's length.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

mod table;

use bytes::{BufMut, BytesMut};
use table::Pair;

/// The shortest code has five bits, so that `n` bytes hold at most `8n/5` characters.
const SHORTEST_CODE: usize = 5;

/// A string that is no Huffman code: the end mark within it, or padding that is too long or not all ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Invalid;

/// How many bytes `text` takes when coded.
#[inline]
pub fn encoded_len(text: &[u8]) -> usize {
    let bits: u64 = text.iter().map(|byte| u64::from(code(*byte).1)).fold(0, u64::wrapping_add);
    usize::try_from(bits.div_ceil(8)).unwrap_or(usize::MAX)
}

/// Appends the code of `text`.
pub fn encode(text: &[u8], out: &mut BytesMut) {
    let mut held: u64 = 0;
    let mut bits: u32 = 0;
    for byte in text {
        let (code, length) = code(*byte);
        // Fewer than 32 bits are held here and a code has at most 30: 62 fit.
        held = held.wrapping_shl(u32::from(length)) | u64::from(code);
        bits = bits.wrapping_add(u32::from(length));
        if bits >= 32 {
            bits = bits.wrapping_sub(32);
            out.put_u32(low_u32(held.wrapping_shr(bits)));
        }
    }
    // The rest is padded by the first bits of the end mark, which are ones.
    let pad = 8u32.wrapping_sub(bits % 8) % 8;
    held = held.wrapping_shl(pad) | ((1u64 << pad).wrapping_sub(1));
    bits = bits.wrapping_add(pad);
    while bits > 0 {
        bits = bits.wrapping_sub(8);
        out.put_u8(low_u8(held.wrapping_shr(bits)));
    }
}

/// Appends what `coded` stands for.
pub fn decode(coded: &[u8], out: &mut BytesMut) -> Result<(), Invalid> {
    let start = out.len();
    let most = coded.len().saturating_mul(8).checked_div(SHORTEST_CODE).unwrap_or_default();
    // Bytes are written in pairs, of which the second may be none.
    out.resize(start.saturating_add(most).saturating_add(2), 0);
    let written = unfold(coded, out.get_mut(start..).unwrap_or_default());
    out.truncate(start.saturating_add(*written.as_ref().unwrap_or(&0)));
    written.map(|_| ())
}

#[inline]
fn unfold(mut coded: &[u8], room: &mut [u8]) -> Result<usize, Invalid> {
    // Bits at the upper end of `held`, of which there are `bits`; those beneath are zeros.
    let (mut held, mut bits) = (0u64, 0u32);
    let mut written = 0usize;
    while let Some(slots) = room.get_mut(written..written.wrapping_add(2)) {
        let pair = Pair::first(held);
        let mut length = pair.length();
        // A length of zero wraps around.
        if length.wrapping_sub(1) < bits {
            slots.copy_from_slice(&pair.bytes());
            written = written.wrapping_add(pair.count());
        } else if bits < 32 && !coded.is_empty() {
            bits = refill(&mut coded, &mut held, bits);
            continue;
        } else if bits < 8 && held.leading_ones() >= bits {
            // The end, filled up by fewer than eight ones (RFC 7541 5.2).
            return Ok(written);
        } else {
            let (byte, own) = one(held, bits)?;
            slots.copy_from_slice(&[byte, 0]);
            written = written.wrapping_add(1);
            length = own;
        }
        bits = bits.wrapping_sub(length);
        held = held.wrapping_shl(length);
    }
    Err(Invalid)
}

/// Adds as many bits as there are and there is room for, where fewer than 32 are held; gives how many are then.
#[inline]
fn refill(coded: &mut &[u8], held: &mut u64, bits: u32) -> u32 {
    if let Some((four, rest)) = coded.split_first_chunk::<4>() {
        *coded = rest;
        *held |= u64::from(u32::from_be_bytes(*four)).wrapping_shl(32u32.wrapping_sub(bits));
        return bits.wrapping_add(32);
    }
    let mut bits = bits;
    for byte in std::mem::take(coded) {
        *held |= u64::from(*byte).wrapping_shl(56u32.wrapping_sub(bits));
        bits = bits.wrapping_add(8);
    }
    bits
}

/// One byte, where two are not at hand: at the end, and where its code is long. The end mark is none.
#[inline(never)]
fn one(held: u64, bits: u32) -> Result<(u8, u32), Invalid> {
    let start = low_u32(held >> 32);
    let codes = table::BY_LENGTH.iter().find(|codes| start <= codes.last).ok_or(Invalid)?;
    let length = u32::from(codes.length);
    let behind = start.wrapping_shr(32u32.wrapping_sub(length)).wrapping_sub(codes.first);
    let place = usize::from(codes.place).wrapping_add(behind as usize);
    let byte = table::IN_ORDER.get(place).filter(|_| length <= bits).ok_or(Invalid)?;
    Ok((*byte, length))
}

#[inline]
fn code(byte: u8) -> (u32, u8) {
    table::CODES.get(usize::from(byte)).copied().unwrap_or_default()
}

#[expect(clippy::cast_possible_truncation, reason = "the low bits are what is wanted")]
fn low_u32(value: u64) -> u32 {
    value as u32
}

#[expect(clippy::cast_possible_truncation, reason = "the low bits are what is wanted")]
fn low_u8(value: u64) -> u8 {
    value as u8
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    fn decoded(coded: &[u8]) -> Result<Vec<u8>, Invalid> {
        let mut out = BytesMut::new();
        decode(coded, &mut out).map(|()| out.to_vec())
    }

    #[test]
    fn every_byte_survives_alone_and_in_company() {
        let all: Vec<u8> = (0..=255).collect();
        for text in all.chunks(1).chain([&all[..], b"", b"www.example.com"]) {
            let mut out = BytesMut::new();
            encode(text, &mut out);
            assert_eq!(out.len(), encoded_len(text));
            assert_eq!(decoded(&out).as_deref(), Ok(text));
        }
    }

    /// RFC 7541 C.4.1 and C.6.1.
    #[test]
    fn strings_of_the_specification_decode() {
        assert_eq!(
            decoded(&[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff]).unwrap(),
            b"www.example.com"
        );
        assert_eq!(decoded(&[0xae, 0xc3, 0x77, 0x1a, 0x4b]).unwrap(), b"private");
    }

    #[test]
    fn bad_padding_and_the_end_mark_are_refused() {
        // "0" is 00000: padded by zeros, by eleven ones, and by ones alone that spell the end mark.
        assert_eq!(decoded(&[0b0000_0000]), Err(Invalid));
        assert_eq!(decoded(&[0b0000_0111, 0xff]), Err(Invalid));
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xff]), Err(Invalid));
        assert_eq!(decoded(&[0xff]), Err(Invalid));
        assert_eq!(decoded(&[0b0000_0111]).unwrap(), b"0");
    }

    /// Bit by bit, as the specification tells it.
    fn slowly(coded: &[u8]) -> Result<Vec<u8>, Invalid> {
        let (mut out, mut held, mut length) = (Vec::new(), 0u32, 0u8);
        for bit in coded.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)) {
            held = held << 1 | u32::from(bit);
            length += 1;
            if let Some(byte) = (0..=255).find(|byte| code(*byte) == (held, length)) {
                out.push(byte);
                (held, length) = (0, 0);
            } else if length == 30 {
                return Err(Invalid);
            }
        }
        if length < 8 && held + 1 == 1 << length { Ok(out) } else { Err(Invalid) }
    }

    #[test]
    fn what_is_decoded_fast_is_what_is_decoded_slowly() {
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let mut good = 0;
        for round in 0..4_000 {
            // Long codes begin with ones, and good ends have some.
            let ones = [0, 0x80, 0xe0, 0xfe][round % 4];
            let coded: Vec<u8> = (0..random() % 9).map(|_| random() | ones).collect();
            let decoded = decoded(&coded);
            good += usize::from(decoded.is_ok());
            assert_eq!(decoded, slowly(&coded), "{coded:x?}");
        }
        assert!((100..3_900).contains(&good), "{good}");
    }
}
