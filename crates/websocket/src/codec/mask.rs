//! Masking (RFC 6455 5.3): fast, and with keys that nobody can foresee.

use std::fmt;

use portolan_core::{Error, Kind, Phase, Result};

use super::PROTOCOL;

/// Keys fetched from the system's generator at once: one call for 64 frames.
const KEYS: usize = 64;

/// Fresh random keys, each given once. They come from the system's generator a batch at a time.
pub(crate) struct Keys {
    batch: [[u8; 4]; KEYS],
    at: usize,
}

impl Keys {
    pub(crate) fn new() -> Self {
        Self { batch: [[0; 4]; KEYS], at: KEYS }
    }

    #[inline]
    pub(crate) fn next(&mut self) -> Result<[u8; 4]> {
        if self.at >= KEYS {
            self.fetch()?;
        }
        let Some(place) = self.batch.get_mut(self.at) else {
            return Err(Error::new(Kind::Unsupported, "out of mask keys"));
        };
        self.at += 1;
        // A key that was given is not kept: the batch tells nothing about the past.
        Ok(std::mem::take(place))
    }

    #[cold]
    fn fetch(&mut self) -> Result<()> {
        getrandom::fill(self.batch.as_flattened_mut()).map_err(|_| {
            let error = Error::new(Kind::Unsupported, "no random numbers from the system");
            error.with_protocol(PROTOCOL).with_phase(Phase::Send)
        })?;
        self.at = 0;
        Ok(())
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("left", &(KEYS - self.at)).finish_non_exhaustive()
    }
}

/// Masks or unmasks `data`, which begins at byte `offset` of its payload.
///
/// Written over arrays of 32 bytes, which compilers turn into vector instructions.
#[inline]
pub(crate) fn apply(data: &mut [u8], key: [u8; 4], offset: usize) {
    let by = match offset % 4 {
        0 => 0,
        1 => 8,
        2 => 16,
        _ => 24,
    };
    let turned = u32::from_le_bytes(key).rotate_right(by);
    let word = u64::from(turned) << 32 | u64::from(turned);
    let (blocks, rest) = data.as_chunks_mut::<32>();
    for block in blocks {
        for place in block.as_chunks_mut::<8>().0 {
            *place = (u64::from_le_bytes(*place) ^ word).to_le_bytes();
        }
    }
    let (words, rest) = rest.as_chunks_mut::<8>();
    for place in words {
        *place = (u64::from_le_bytes(*place) ^ word).to_le_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(word.to_le_bytes()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_example_of_the_rfc_unmasks() {
        let mut data = *b"\x7f\x9f\x4d\x51\x58";
        apply(&mut data, [0x37, 0xfa, 0x21, 0x3d], 0);
        assert_eq!(&data, b"Hello");
    }

    #[test]
    fn every_length_offset_and_split_agrees_with_the_definition() {
        let key = [1, 2, 4, 200];
        for len in (0usize..140).chain([1000, 4097]) {
            let plain: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let expected: Vec<u8> = plain.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]).collect();
            for split in [0, 1, 2, 3, len / 2, len.saturating_sub(1)] {
                let mut data = plain.clone();
                let split = split.min(len);
                let (head, tail) = data.split_at_mut(split);
                apply(head, key, 0);
                apply(tail, key, split);
                assert_eq!(data, expected, "{len} split at {split}");
            }
        }
    }

    #[test]
    fn keys_do_not_repeat_across_batches_and_are_not_kept() {
        let mut keys = Keys::new();
        let seen: HashSet<_> = (0..1000).map(|_| keys.next().unwrap()).collect();
        // Of 1000 draws from 2^32 a repetition has odds of 1 in 8600; two would be no accident.
        assert!(seen.len() >= 999, "{} distinct keys of 1000", seen.len());
        let used = keys.at;
        assert!(keys.batch[..used].iter().all(|key| *key == [0; 4]));
    }
}
