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
/// The shortest.
const SHORTEST: u8 = 5;
/// What is looked at together.
const WINDOW: u8 = 12;

/// Code and length in bits of each byte.
pub(super) static CODES: [(u32, u8); 256] = codes();

/// What text that begins with these bits begins with.
static PAIRS: [Pair; 1 << WINDOW] = pairs();

/// The codes of each length.
pub(super) static BY_LENGTH: [Codes; (LONGEST - SHORTEST + 1) as usize] = by_length();

/// All bytes in the order of their codes.
pub(super) static IN_ORDER: [u8; 256] = in_order();

/// One byte or two: they, how many they are, and how many bits their codes have; all zero where the first is longer than the window.
#[derive(Clone, Copy)]
pub(super) struct Pair(u32);

impl Pair {
    const fn new(first: usize, second: usize, count: u8, length: u8) -> Self {
        Self(first as u32 | (second as u32) << 8 | (count as u32) << 16 | (length as u32) << 24)
    }

    /// Those that `held` begins with.
    #[inline]
    pub(super) fn first(held: u64) -> Self {
        PAIRS[(held >> (64 - WINDOW)) as usize]
    }

    #[inline]
    pub(super) const fn bytes(self) -> [u8; 2] {
        (self.0 as u16).to_le_bytes()
    }

    #[inline]
    pub(super) const fn count(self) -> usize {
        (self.0 >> 16 & 0xff) as usize
    }

    #[inline]
    pub(super) const fn length(self) -> u32 {
        self.0 >> 24
    }
}

/// The codes of one length.
#[derive(Clone, Copy)]
pub(super) struct Codes {
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

const fn pairs() -> [Pair; 1 << WINDOW] {
    let (codes, in_order) = (codes(), in_order());
    let mut out = [Pair(0); 1 << WINDOW];
    let mut place = 0;
    while place < 256 {
        let first = in_order[place] as usize;
        let (code, length) = codes[first];
        if length > WINDOW {
            break;
        }
        let left = WINDOW - length;
        fill(&mut out, code << left, left, Pair::new(first, 0, 1, length));
        let mut next = 0;
        while next < 256 {
            let second = in_order[next] as usize;
            let (more, longer) = codes[second];
            if longer > left {
                break;
            }
            let free = left - longer;
            fill(&mut out, code << left | more << free, free, Pair::new(first, second, 2, length + longer));
            next += 1;
        }
        place += 1;
    }
    out
}

/// Sets all that begin as `from` does, but for the last `free` bits.
const fn fill(out: &mut [Pair; 1 << WINDOW], from: u32, free: u8, pair: Pair) {
    let mut rest = 0;
    while rest < 1 << free {
        out[from as usize | rest] = pair;
        rest += 1;
    }
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

const fn by_length() -> [Codes; (LONGEST - SHORTEST + 1) as usize] {
    let (codes, in_order) = (codes(), in_order());
    let mut out = [Codes { length: LONGEST, last: 0, first: 0, place: 0 }; (LONGEST - SHORTEST + 1) as usize];
    let mut seen = 0;
    let mut place = 0;
    while place < 256 {
        let (code, length) = codes[in_order[place] as usize];
        let of = &mut out[(length - SHORTEST) as usize];
        if length != seen {
            *of = Codes { length, last: 0, first: code, place: place as u8 };
            seen = length;
        }
        let free = 32 - length as u32;
        of.last = code << free | ((1 << free) - 1);
        place += 1;
    }
    out
}
