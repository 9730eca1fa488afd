//! The encoder's dynamic table: a queue of entries, found by hash.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use std::collections::VecDeque;
use std::fmt;

use crate::ENTRY_OVERHEAD;

/// Chains per index: at the default size the table holds at most 128 entries, commonly 30.
const BUCKETS: usize = 64;

/// Entries by age. Each is known by how many went in before it, a number that never comes again, so that a chain needs no
/// mending when its older end is evicted: it ends at the first number older than the table.
pub(crate) struct Table {
    entries: VecDeque<Entry>,
    size: usize,
    max_size: usize,
    inserted: u64,
    /// The newest entry of each chain, plus one; zero for none.
    by_field: [u64; BUCKETS],
    by_name: [u64; BUCKETS],
}

struct Entry {
    text: Box<[u8]>,
    name_len: usize,
    older_by_field: u64,
    older_by_name: u64,
}

impl Entry {
    fn name(&self) -> &[u8] {
        self.text.get(..self.name_len).unwrap_or_default()
    }

    fn value(&self) -> &[u8] {
        self.text.get(self.name_len..).unwrap_or_default()
    }

    fn size(&self) -> usize {
        self.text.len().saturating_add(ENTRY_OVERHEAD)
    }
}

/// What an entry of this name and value counts.
pub(crate) fn entry_size(name: &[u8], value: &[u8]) -> usize {
    name.len().saturating_add(value.len()).saturating_add(ENTRY_OVERHEAD)
}

impl Table {
    pub(crate) fn new(max_size: usize) -> Self {
        Self { entries: VecDeque::new(), size: 0, max_size, inserted: 0, by_field: [0; BUCKETS], by_name: [0; BUCKETS] }
    }

    pub(crate) fn max_size(&self) -> usize {
        self.max_size
    }

    pub(crate) fn inserted(&self) -> u64 {
        self.inserted
    }

    /// The number of the oldest entry that is still here.
    pub(crate) fn oldest(&self) -> u64 {
        self.inserted.saturating_sub(self.entries.len() as u64)
    }

    fn entry(&self, number: u64) -> Option<&Entry> {
        let place = number.checked_sub(self.oldest())?;
        self.entries.get(usize::try_from(place).ok()?)
    }

    /// The number of the newest entry with this name and value.
    #[inline]
    pub(crate) fn find(&self, hash: u64, name: &[u8], value: &[u8]) -> Option<u64> {
        let mut number = self.by_field.get(bucket(hash)).copied()?.checked_sub(1)?;
        loop {
            let entry = self.entry(number)?;
            if entry.value() == value && entry.name() == name {
                return Some(number);
            }
            number = entry.older_by_field.checked_sub(1)?;
        }
    }

    /// The number of the newest entry with this name.
    pub(crate) fn find_name(&self, hash: u64, name: &[u8]) -> Option<u64> {
        let mut number = self.by_name.get(bucket(hash)).copied()?.checked_sub(1)?;
        loop {
            let entry = self.entry(number)?;
            if entry.name() == name {
                return Some(number);
            }
            number = entry.older_by_name.checked_sub(1)?;
        }
    }

    /// Whether the entry could be here at all.
    pub(crate) fn fits(&self, name: &[u8], value: &[u8]) -> bool {
        entry_size(name, value) <= self.max_size
    }

    /// How many of the oldest entries must go for one of `need` bytes.
    pub(crate) fn eviction_for(&self, need: usize) -> u64 {
        let mut size = self.size;
        let mut count = 0u64;
        for entry in &self.entries {
            if size.saturating_add(need) <= self.max_size {
                break;
            }
            size = size.saturating_sub(entry.size());
            count = count.saturating_add(1);
        }
        count
    }

    /// Puts in an entry that [`fits`](Self::fits), and pushes out the oldest for it (RFC 7541 4.4).
    pub(crate) fn insert(&mut self, field_hash: u64, name_hash: u64, name: &[u8], value: &[u8]) {
        self.shrink(self.max_size.saturating_sub(entry_size(name, value)));
        self.inserted = self.inserted.saturating_add(1);
        let older_by_field = replace(&mut self.by_field, field_hash, self.inserted);
        let older_by_name = replace(&mut self.by_name, name_hash, self.inserted);
        let entry = Entry { text: [name, value].concat().into(), name_len: name.len(), older_by_field, older_by_name };
        self.size = self.size.saturating_add(entry.size());
        self.entries.push_back(entry);
    }

    pub(crate) fn set_max_size(&mut self, max_size: usize) {
        self.max_size = max_size;
        self.shrink(max_size);
    }

    fn shrink(&mut self, target: usize) {
        while self.size > target {
            let Some(entry) = self.entries.pop_front() else { break };
            self.size = self.size.saturating_sub(entry.size());
        }
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be cookies: counts only.
        f.debug_struct("Table")
            .field("entries", &self.entries.len())
            .field("size", &self.size)
            .field("max_size", &self.max_size)
            .finish_non_exhaustive()
    }
}

fn replace(buckets: &mut [u64; BUCKETS], hash: u64, newest: u64) -> u64 {
    buckets.get_mut(bucket(hash)).map_or(0, |slot| std::mem::replace(slot, newest))
}

/// The top bits: those are the ones that the multiplication stirs.
#[inline]
fn bucket(hash: u64) -> usize {
    (hash >> 58) as usize
}
