//! What the laws feed to a decoder.

/// What a length field becomes under attack, in binary and in text.
const BLOWN: &[&[u8]] = &[
    b"\xff",
    b"\x7f",
    b"\x00",
    b"\x80",
    b"\xff\xff",
    b"\x00\x00",
    b"\xff\xff\xff",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x00\xff\xff\xff",
    b"\x0f\xff\xff\xff",
    b"\x00\x00\x00\x00",
    b"\x80\x00\x00\x00",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\x00\x00\x00\x00\xff\xff\xff\xff",
    b"9",
    b"-1",
    b"99999999",
    b"2147483647",
    b"18446744073709551615",
    b"\r",
    b"\n",
];

/// The longest seed that is attacked at every offset; longer ones at this many.
const OFFSETS: usize = 256;

/// A small generator (splitmix64): the same inputs every time.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`; 0 for 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % bound).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}

/// Splits at random places.
pub(super) fn chunks<'a>(mut input: &'a [u8], random: &mut Random) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    while !input.is_empty() {
        let (head, tail) = input.split_at(1 + random.below(input.len().min(24)));
        parts.push(head);
        input = tail;
    }
    parts
}

/// Truncations, blown-up lengths, mutations and random bytes, in this order.
pub(super) struct Inputs {
    seeds: Vec<Vec<u8>>,
    fixed: std::vec::IntoIter<Vec<u8>>,
    left: usize,
    random: Random,
}

impl Inputs {
    pub(super) fn new(seeds: &[&[u8]], rounds: usize, seed: u64) -> Self {
        let mut fixed: Vec<Vec<u8>> = vec![Vec::new()];
        for seed in seeds {
            let step = seed.len().div_ceil(OFFSETS).max(1);
            for at in (0..seed.len()).step_by(step) {
                fixed.push(seed[..at].to_vec());
                fixed.extend(BLOWN.iter().map(|blown| overwrite(seed, at, blown)));
            }
        }
        let seeds: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.to_vec()).collect();
        let left = rounds * (seeds.len() + 1);
        Self { seeds, fixed: fixed.into_iter(), left, random: Random::new(seed) }
    }

    fn noise(&mut self) -> Vec<u8> {
        let len = self.random.below(96);
        (0..len).map(|_| self.random.byte()).collect()
    }

    fn mutated(&mut self) -> Vec<u8> {
        let which = self.random.below(self.seeds.len());
        let mut bytes = self.seeds.get(which).cloned().unwrap_or_default();
        for _ in 0..=self.random.below(4) {
            self.mutate(&mut bytes);
        }
        bytes
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let at = self.random.below(bytes.len());
        let to = at + self.random.below(bytes.len() - at);
        match self.random.below(7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << self.random.below(8),
            1 if !bytes.is_empty() => bytes[at] = self.random.byte(),
            2 => bytes.insert(at, self.random.byte()),
            3 => drop(bytes.drain(at..to)),
            4 => {
                let again = bytes[at..to].to_vec();
                bytes.extend(again);
            }
            5 => {
                let blown = BLOWN[self.random.below(BLOWN.len())];
                *bytes = overwrite(bytes, at, blown);
            }
            _ => {
                let which = self.random.below(self.seeds.len());
                bytes.extend(self.seeds.get(which).into_iter().flatten());
            }
        }
    }
}

impl Iterator for Inputs {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if let Some(input) = self.fixed.next() {
            return Some(input);
        }
        self.left = self.left.checked_sub(1)?;
        Some(if self.seeds.is_empty() || self.left.is_multiple_of(8) { self.noise() } else { self.mutated() })
    }
}

fn overwrite(bytes: &[u8], at: usize, with: &[u8]) -> Vec<u8> {
    let mut out = bytes[..at.min(bytes.len())].to_vec();
    out.extend_from_slice(with);
    out.extend(bytes.iter().skip(at + with.len()));
    out
}
