//! A decoder's dynamic table.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use std::collections::VecDeque;
use std::fmt;

use crate::field::Field;

/// Entries, newest first.
pub(crate) struct Received {
    entries: VecDeque<Entry>,
    size: usize,
    max_size: usize,
    inserted: u64,
}

/// One entry. Lengths are those of the wire: the bytes of a malformed name or value are not kept, but count.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) field: Field,
    pub(crate) name_len: usize,
    pub(crate) size: usize,
}

impl Received {
    pub(crate) fn new(max_size: usize) -> Self {
        Self { entries: VecDeque::new(), size: 0, max_size, inserted: 0 }
    }

    pub(crate) fn max_size(&self) -> usize {
        self.max_size
    }

    /// How many entries ever went in.
    pub(crate) fn inserted(&self) -> u64 {
        self.inserted
    }

    /// The entry with this many newer ones.
    #[inline]
    pub(crate) fn newest(&self, behind: usize) -> Option<&Entry> {
        self.entries.get(behind)
    }

    /// The entry before which this many went in.
    pub(crate) fn absolute(&self, number: u64) -> Option<&Entry> {
        let behind = self.inserted.checked_sub(number)?.checked_sub(1)?;
        self.entries.get(usize::try_from(behind).ok()?)
    }

    /// Puts an entry in and pushes out the oldest for it; `false` for one larger than the table, which empties it (RFC 7541 4.4).
    pub(crate) fn insert(&mut self, entry: Entry) -> bool {
        self.shrink(self.max_size.saturating_sub(entry.size));
        let fits = entry.size <= self.max_size;
        if fits {
            self.inserted = self.inserted.saturating_add(1);
            self.size = self.size.saturating_add(entry.size);
            self.entries.push_front(entry);
        }
        fits
    }

    pub(crate) fn set_max_size(&mut self, max_size: usize) {
        self.max_size = max_size;
        self.shrink(max_size);
    }

    fn shrink(&mut self, target: usize) {
        while self.size > target {
            let Some(entry) = self.entries.pop_back() else { break };
            self.size = self.size.saturating_sub(entry.size);
        }
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be cookies: counts only.
        f.debug_struct("Received")
            .field("entries", &self.entries.len())
            .field("size", &self.size)
            .field("max_size", &self.max_size)
            .finish_non_exhaustive()
    }
}
