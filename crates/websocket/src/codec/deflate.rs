//! The compressed form of messages (RFC 7692 7.2).

use std::fmt;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// What a sender cuts off each message, and a receiver puts back: an empty block that ends on a byte.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// The least room made for output at once.
const ROOM: usize = 1024;
/// The smallest window that the compressor knows; 8 would be legal too (RFC 7692 7.1.2).
pub(crate) const MIN_WINDOW: u8 = 9;

/// Why data did not inflate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    Corrupt,
    TooBig,
}

/// Inflates what arrives.
pub(crate) struct Inflater {
    engine: Decompress,
    takeover: bool,
}

impl Inflater {
    /// `window_bits` is what the peer compresses with; `takeover`: its messages refer to earlier ones.
    pub(crate) fn new(window_bits: u8, takeover: bool) -> Self {
        let bits = window_bits.clamp(MIN_WINDOW, 15);
        Self { engine: Decompress::new_with_window_bits(false, bits), takeover }
    }

    /// Appends to `out`, which may not grow beyond `limit`: what a few bytes may become is bounded before they become it.
    pub(crate) fn inflate(&mut self, mut input: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<(), Failure> {
        loop {
            if out.len() == out.capacity() {
                // One byte beyond the limit tells "full" from "too big".
                let left = limit.saturating_sub(out.len()).saturating_add(1);
                out.reserve_exact(out.len().max(ROOM).min(left));
            }
            let before = (self.engine.total_in(), out.len());
            let status = self.engine.decompress_vec(input, out, FlushDecompress::Sync).map_err(|_| Failure::Corrupt)?;
            if out.len() > limit {
                return Err(Failure::TooBig);
            }
            let used = usize::try_from(self.engine.total_in().saturating_sub(before.0)).unwrap_or(usize::MAX);
            input = input.get(used..).unwrap_or_default();
            if status == Status::StreamEnd {
                // A final block may end a message or a part of it (RFC 7692 7.2.3.4); what follows begins anew.
                self.engine.reset(false);
            }
            if input.is_empty() && out.len() < out.capacity() {
                return Ok(());
            }
            if used == 0 && out.len() == before.1 && status != Status::StreamEnd && out.len() < out.capacity() {
                return Err(Failure::Corrupt);
            }
        }
    }

    /// Ends a message.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>, limit: usize) -> Result<(), Failure> {
        self.inflate(&TAIL, out, limit)?;
        if !self.takeover {
            self.engine.reset(false);
        }
        Ok(())
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").field("takeover", &self.takeover).finish_non_exhaustive()
    }
}

/// Deflates what is sent.
pub(crate) struct Deflater {
    engine: Compress,
    takeover: bool,
}

impl Deflater {
    pub(crate) fn new(level: u32, window_bits: u8, takeover: bool) -> Self {
        let level = Compression::new(level.min(9));
        Self { engine: Compress::new_with_window_bits(level, false, window_bits.clamp(MIN_WINDOW, 15)), takeover }
    }

    /// One fragment; after the last of a message its tail is cut off.
    pub(crate) fn deflate(&mut self, mut input: &[u8], last: bool) -> Result<Vec<u8>, Failure> {
        let mut out = Vec::new();
        if input.is_empty() {
            // An empty block, to which the receiver's tail fits (RFC 7692 7.2.3.6).
            out.extend_from_slice(if last { &[0] } else { &[0, 0, 0, 0xff, 0xff] });
        }
        while !input.is_empty() || out.len() == out.capacity() {
            if out.len() == out.capacity() {
                out.reserve((input.len() / 2).max(128));
            }
            let before = self.engine.total_in();
            self.engine.compress_vec(input, &mut out, FlushCompress::Sync).map_err(|_| Failure::Corrupt)?;
            let used = usize::try_from(self.engine.total_in().saturating_sub(before)).unwrap_or(usize::MAX);
            input = input.get(used..).unwrap_or_default();
        }
        if last && out.len() > 1 {
            if !out.ends_with(&TAIL) {
                return Err(Failure::Corrupt);
            }
            out.truncate(out.len().saturating_sub(TAIL.len()));
        }
        if last && !self.takeover {
            self.engine.reset();
        }
        Ok(out)
    }
}

impl fmt::Debug for Deflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deflater").field("takeover", &self.takeover).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inflate(inflater: &mut Inflater, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        inflater.inflate(data, &mut out, 1 << 24).unwrap();
        inflater.finish(&mut out, 1 << 24).unwrap();
        out
    }

    /// RFC 7692 7.2.3: one block, a shared window, no compression, a final block, two blocks.
    #[test]
    fn the_examples_of_the_rfc_inflate() {
        let mut inflater = Inflater::new(15, true);
        assert_eq!(inflate(&mut inflater, b"\xf2\x48\xcd\xc9\xc9\x07\x00"), b"Hello");
        assert_eq!(inflate(&mut inflater, b"\xf2\x00\x11\x00\x00"), b"Hello");
        let mut inflater = Inflater::new(15, true);
        assert_eq!(inflate(&mut inflater, b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00"), b"Hello");
        assert_eq!(inflate(&mut inflater, b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00"), b"Hello");
        assert_eq!(inflate(&mut inflater, b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"), b"Hello");
        assert_eq!(inflate(&mut inflater, b"\x00"), b"");
    }

    #[test]
    fn messages_of_every_size_window_and_takeover_come_back() {
        for bits in 9..=15 {
            for takeover in [true, false] {
                let (mut deflater, mut inflater) = (Deflater::new(6, bits, takeover), Inflater::new(bits, takeover));
                for len in [0usize, 1, 5, 100, 0, 0, 1023, 1024, 5000, 65_536, 300_000] {
                    let data: Vec<u8> = (0..len).map(|at| u8::try_from((at * at / 7 + at) % 256).unwrap()).collect();
                    let packed = deflater.deflate(&data, true).unwrap();
                    assert_eq!(inflate(&mut inflater, &packed), data, "{bits} {takeover} {len}");
                }
            }
        }
    }

    #[test]
    fn fragments_deflate_one_by_one_and_inflate_as_one() {
        let (mut deflater, mut inflater) = (Deflater::new(6, 15, true), Inflater::new(15, true));
        for parts in [&["abc", "", "abcabc"][..], &["", "", ""], &["x", ""], &["", "x"]] {
            let mut packed = Vec::new();
            for (at, part) in parts.iter().enumerate() {
                packed.extend(deflater.deflate(part.as_bytes(), at + 1 == parts.len()).unwrap());
            }
            assert_eq!(inflate(&mut inflater, &packed), parts.concat().as_bytes());
        }
    }

    #[test]
    fn takeover_makes_the_second_message_smaller_and_its_absence_does_not() {
        let data: Vec<u8> = (0..200).collect();
        let mut with = Deflater::new(6, 15, true);
        let (first, second) = (with.deflate(&data, true).unwrap(), with.deflate(&data, true).unwrap());
        assert!(second.len() * 4 < first.len(), "{} {}", first.len(), second.len());
        let mut without = Deflater::new(6, 15, false);
        assert_eq!(without.deflate(&data, true).unwrap(), without.deflate(&data, true).unwrap());
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit_and_rubbish_is_corrupt() {
        let bomb = Deflater::new(9, 15, true).deflate(&vec![0; 8 << 20], true).unwrap();
        assert!(bomb.len() < 10_000);
        let mut out = Vec::new();
        assert_eq!(Inflater::new(15, true).inflate(&bomb, &mut out, 100_000), Err(Failure::TooBig));
        assert!(out.capacity() <= 200_002, "{}", out.capacity());
        let mut out = Vec::new();
        assert_eq!(Inflater::new(15, true).inflate(b"\xff\xff\xff\xff", &mut out, 100), Err(Failure::Corrupt));
        // Exactly the limit is no bomb.
        let exact = Deflater::new(6, 15, true).deflate(&[7; 5000], true).unwrap();
        let (mut out, mut inflater) = (Vec::new(), Inflater::new(15, true));
        inflater.inflate(&exact, &mut out, 5000).unwrap();
        inflater.finish(&mut out, 5000).unwrap();
        assert_eq!(out.len(), 5000);
    }
}
