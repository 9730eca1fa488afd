//! The code of RFC 7541 appendix B, and the tables made from it while compiling.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "all of this runs in the compiler, where a value out of range is a build error"
)]

/// How many bits the code of each byte has. The code is canonical, so that the lengths say it all: codes are given out in
/// the order of (length, byte), each one more than the last.
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, //
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, //
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, //
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, //
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22,
    23, 23, 24, //
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23,
    22, 22, 23, //
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, //
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26, //
];

/// The longest code: that of the end mark, thirty ones, is the last of them.
const LONGEST: u8 = 30;
/// The longest code of the bytes that text is made of.
pub(super) const SHORT: u8 = 8;

/// Code and length in bits of each byte.
pub(super) static CODES: [(u32, u8); 256] = codes();

/// What text that begins with these bits begins with: the length of a code in the low byte, which is zero where it is longer, and
/// what it stands for above.
pub(super) static SHORTS: [u16; 1 << SHORT] = shorts();

/// The codes longer than that, by length.
pub(super) static LONGS: [Long; (LONGEST - SHORT) as usize] = longs();

/// All bytes in the order of their codes.
pub(super) static IN_ORDER: [u8; 256] = in_order();

/// The codes of one length.
#[derive(Clone, Copy)]
pub(super) struct Long {
    pub(super) length: u8,
    /// The last of them and what may follow it, as the first 32 bits of a text.
    pub(super) last: u32,
    /// The first of them.
    pub(super) first: u32,
    /// Where its byte is, in the order.
    pub(super) place: u8,
}

const fn codes() -> [(u32, u8); 256] {
    let mut out = [(0, 0); 256];
    let mut code = 0u32;
    let mut length = 1;
    while length <= LONGEST {
        code <<= 1;
        let mut byte = 0;
        while byte < 256 {
            if LENGTHS[byte] == length {
                out[byte] = (code, length);
                code += 1;
            }
            byte += 1;
        }
        length += 1;
    }
    out
}

const fn shorts() -> [u16; 1 << SHORT] {
    let codes = codes();
    let mut out = [0; 1 << SHORT];
    let mut byte = 0;
    while byte < 256 {
        let (code, length) = codes[byte];
        if length <= SHORT {
            let free = SHORT - length;
            let mut rest = 0;
            while rest < 1 << free {
                out[(code << free) as usize | rest] = (byte as u16) << 8 | length as u16;
                rest += 1;
            }
        }
        byte += 1;
    }
    out
}

const fn in_order() -> [u8; 256] {
    let mut out = [0; 256];
    let mut place = 0;
    let mut length = 1;
    while length <= LONGEST {
        let mut byte = 0;
        while byte < 256 {
            if LENGTHS[byte] == length {
                out[place] = byte as u8;
                place += 1;
            }
            byte += 1;
        }
        length += 1;
    }
    out
}

const fn longs() -> [Long; (LONGEST - SHORT) as usize] {
    let (codes, in_order) = (codes(), in_order());
    let mut out = [Long { length: LONGEST, last: 0, first: 0, place: 0 }; (LONGEST - SHORT) as usize];
    let mut place = 0;
    while place < 256 {
        let (code, length) = codes[in_order[place] as usize];
        if length > SHORT {
            let long = &mut out[(length - SHORT - 1) as usize];
            if long.last == 0 {
                *long = Long { length, last: 0, first: code, place: place as u8 };
            }
            let free = 32 - length as u32;
            long.last = code << free | ((1 << free) - 1);
        }
        place += 1;
    }
    out
}
