//! Where entries live.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::entry::{CacheKey, Entry};

/// How much a [`MemoryStore`] holds by default.
const MAX_BYTES: usize = 32 << 20;
/// How many responses to one URL are kept, where they vary.
const MAX_VARIANTS: usize = 16;

/// Where entries are kept. The cache judges them; a store keeps and finds. All calls are short and must not block for long.
pub trait CacheStore: fmt::Debug + Send + Sync {
    /// All responses that are kept for `key`, the newest last.
    fn load(&self, key: &CacheKey) -> Vec<Arc<Entry>>;

    /// Puts these in place of all that are kept for `key`. It may keep fewer, or none.
    fn replace(&self, key: &CacheKey, entries: Vec<Arc<Entry>>);

    /// Forgets all that is kept for `key`.
    fn remove(&self, key: &CacheKey);

    /// Forgets all.
    fn clear(&self);
}

/// Entries in memory, bounded by bytes; the least recently used go first.
pub struct MemoryStore {
    max_bytes: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    slots: HashMap<CacheKey, Slot>,
    /// The keys by the time of their last use.
    order: BTreeMap<u64, CacheKey>,
    bytes: usize,
    tick: u64,
}

struct Slot {
    entries: Vec<Arc<Entry>>,
    bytes: usize,
    used: u64,
}

impl MemoryStore {
    /// Holds 32 MiB.
    pub fn new() -> Self {
        Self::with_max_bytes(MAX_BYTES)
    }

    /// Holds about so many bytes, fields counted in. What is larger alone is not kept.
    pub fn with_max_bytes(max_bytes: usize) -> Self {
        Self { max_bytes, state: Mutex::default() }
    }

    /// About how many bytes are held.
    pub fn bytes(&self) -> usize {
        self.state().bytes
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CacheStore for MemoryStore {
    fn load(&self, key: &CacheKey) -> Vec<Arc<Entry>> {
        let mut state = self.state();
        let state = &mut *state;
        let Some(slot) = state.slots.get_mut(key) else { return Vec::new() };
        state.tick += 1;
        state.order.remove(&slot.used);
        slot.used = state.tick;
        state.order.insert(slot.used, key.clone());
        slot.entries.clone()
    }

    fn replace(&self, key: &CacheKey, mut entries: Vec<Arc<Entry>>) {
        let mut state = self.state();
        state.remove(key);
        entries.drain(..entries.len().saturating_sub(MAX_VARIANTS));
        let size = |entries: &[Arc<Entry>]| {
            entries.iter().map(|entry| entry.size()).sum::<usize>() + 2 * key.as_str().len() + size_of::<Slot>()
        };
        while !entries.is_empty() && size(&entries) > self.max_bytes {
            entries.remove(0);
        }
        if entries.is_empty() {
            return;
        }
        let bytes = size(&entries);
        while state.bytes + bytes > self.max_bytes
            && let Some((_, oldest)) = state.order.pop_first()
        {
            state.remove(&oldest);
        }
        state.tick += 1;
        let used = state.tick;
        state.bytes += bytes;
        state.order.insert(used, key.clone());
        state.slots.insert(key.clone(), Slot { entries, bytes, used });
    }

    fn remove(&self, key: &CacheKey) {
        self.state().remove(key);
    }

    fn clear(&self) {
        *self.state() = State::default();
    }
}

impl State {
    fn remove(&mut self, key: &CacheKey) {
        if let Some(slot) = self.slots.remove(key) {
            self.order.remove(&slot.used);
            self.bytes -= slot.bytes;
        }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("MemoryStore").field("keys", &state.slots.len()).field("bytes", &state.bytes).finish()
    }
}
