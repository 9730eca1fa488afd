//! The code of RFC 7541 appendix B, and the automaton made from it while compiling.

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

/// The longest code, and that of the end mark, which is the last of all: thirty ones.
const LONGEST: u8 = 30;
const END: (u32, u8) = (0x3fff_ffff, LONGEST);

/// Code and length in bits of each byte.
pub(super) static CODES: [(u32, u8); 256] = codes();

/// One step of the automaton for each state and each half byte.
pub(super) static STEPS: [u32; 256 * 16] = steps();

/// Of a step: the next state in the low byte, the byte that came out above it, and these marks.
pub(super) const EMITS: u32 = 1 << 16;
/// The text may end here: what is left over is at most seven ones (RFC 7541 5.2).
pub(super) const MAY_END: u32 = 1 << 17;
/// No code begins so, or the end mark came.
pub(super) const FAILS: u32 = 1 << 18;

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

/// A child in the code's tree: nothing yet, another node, a byte, or the end mark.
const NONE: u16 = 0;
const LEAF: u16 = 0x100;
const END_LEAF: u16 = 0x200;

const fn tree() -> [[u16; 2]; 256] {
    let codes = codes();
    let mut nodes = [[NONE; 2]; 256];
    let mut used: u16 = 1;
    let mut symbol = 0;
    while symbol <= 256 {
        let ((code, length), leaf) = if symbol < 256 { (codes[symbol], LEAF | symbol as u16) } else { (END, END_LEAF) };
        let mut node = 0;
        let mut bit = length;
        while bit > 1 {
            bit -= 1;
            let side = ((code >> bit) & 1) as usize;
            if nodes[node][side] == NONE {
                nodes[node][side] = used;
                used += 1;
            }
            node = nodes[node][side] as usize;
        }
        nodes[node][(code & 1) as usize] = leaf;
        symbol += 1;
    }
    nodes
}

const fn steps() -> [u32; 256 * 16] {
    let nodes = tree();
    let ends = may_end(&nodes);
    let mut out = [FAILS; 256 * 16];
    let mut state = 0;
    while state < 256 {
        let mut nibble = 0;
        while nibble < 16 {
            out[state * 16 + nibble] = step(&nodes, &ends, state, nibble);
            nibble += 1;
        }
        state += 1;
    }
    out
}

/// Four bits from `state`. No code is shorter than five bits, so at most one byte comes out.
const fn step(nodes: &[[u16; 2]; 256], ends: &[bool; 256], state: usize, nibble: usize) -> u32 {
    let mut node = state;
    let mut emitted = 0;
    let mut bit = 4;
    while bit > 0 {
        bit -= 1;
        let child = nodes[node][(nibble >> bit) & 1];
        if child == NONE || child == END_LEAF {
            return FAILS;
        }
        if child & LEAF != 0 {
            emitted = EMITS | ((child & 0xff) as u32) << 8;
            node = 0;
        } else {
            node = child as usize;
        }
    }
    node as u32 | emitted | if ends[node] { MAY_END } else { 0 }
}

/// The states in which a text may end: the root, and those that fewer than eight ones lead to.
const fn may_end(nodes: &[[u16; 2]; 256]) -> [bool; 256] {
    let mut out = [false; 256];
    let mut node = 0;
    let mut depth = 0;
    while depth <= 7 {
        out[node] = true;
        node = nodes[node][1] as usize;
        depth += 1;
    }
    out
}
