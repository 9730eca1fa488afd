//! How keys are hashed: those that bring a hash of their own are not hashed again.

use std::hash::{BuildHasher, DefaultHasher, Hasher, RandomState};

/// For keys that come from outside: random, like the standard one. A key whose `Hash` writes a single `u64` is taken to have done
/// that already, as a key looked up several times a call does well to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Once(RandomState);

impl BuildHasher for Once {
    type Hasher = OnceHasher;

    #[inline]
    fn build_hasher(&self) -> OnceHasher {
        OnceHasher { own: None, random: None, state: self.0.clone() }
    }
}

pub(crate) struct OnceHasher {
    /// The only thing written so far.
    own: Option<u64>,
    random: Option<DefaultHasher>,
    state: RandomState,
}

impl OnceHasher {
    /// The standard hasher, with what was written before.
    #[cold]
    fn random(&mut self) -> &mut DefaultHasher {
        let (own, state) = (self.own.take(), &self.state);
        let random = self.random.get_or_insert_with(|| state.build_hasher());
        if let Some(own) = own {
            random.write_u64(own);
        }
        random
    }
}

impl Hasher for OnceHasher {
    #[inline]
    fn finish(&self) -> u64 {
        match (self.own, &self.random) {
            (Some(own), _) => own,
            (None, Some(random)) => random.finish(),
            (None, None) => 0,
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.random().write(bytes);
    }

    #[inline]
    fn write_u64(&mut self, hash: u64) {
        if self.own.is_none() && self.random.is_none() {
            self.own = Some(hash);
        } else {
            self.random().write_u64(hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_of_its_own_is_kept_and_all_else_is_random() {
        let (one, other) = (Once::default(), Once::default());
        assert_eq!(one.hash_one(7u64), 7);
        for key in [("a", 1u16), ("b", 2), ("", 0)] {
            assert_eq!(one.hash_one(key), one.hash_one(key));
            assert_ne!(one.hash_one(key), other.hash_one(key));
        }
        assert_ne!(one.hash_one((7u64, 7u64)), one.hash_one((7u64, 8u64)));
        assert_ne!(one.hash_one((7u64, "a")), one.hash_one((8u64, "a")));
        assert_ne!(one.hash_one(("a", 7u64)), 7);
    }
}
