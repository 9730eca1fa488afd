//! The HPACK encoder.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use bytes::BytesMut;
use http::{HeaderName, HeaderValue};

use crate::field::Pseudo;
use crate::policy::{self, Policy};
use crate::table::Table;
use crate::tables::{HPACK, hash, mix};
use crate::{DEFAULT_TABLE_SIZE, int, literal};

/// The first index of the dynamic table (RFC 7541 2.3.3).
const FIRST_DYNAMIC: u64 = 62;

/// The HPACK encoder of one connection: what it sent once, it names by number the next time.
///
/// The table is never larger than the peer's SETTINGS_HEADER_TABLE_SIZE nor than the cap it was made with; when the limit
/// moves, the next block says so first (RFC 7541 4.2). An entry larger than the table is sent as a literal and never indexed,
/// so that it doesn't empty the table.
///
/// What is indexed: everything but values that change with each message (`:path`, `content-length`, `date`, conditional
/// requests, trace ids), which are plain literals, and secrets, which are never-indexed literals: `authorization`,
/// `proxy-authorization`, keys and tokens by their usual names, cookies under 20 bytes, and every
/// [`HeaderValue`] marked sensitive. Strings are Huffman-coded when that is shorter.
#[derive(Debug)]
pub struct Encoder {
    table: Table,
    cap: usize,
    /// The lowest limit since the last block, and whether any was set.
    lowest: Option<usize>,
}

impl Encoder {
    /// An encoder whose table takes at most `cap` bytes, whatever the peer allows. The peer's limit is
    /// [`DEFAULT_TABLE_SIZE`] until it says otherwise.
    pub fn new(cap: usize) -> Self {
        let first = cap.min(DEFAULT_TABLE_SIZE);
        // A cap under the default is a change of size too: the peer's table must shrink with ours.
        let lowest = (first < DEFAULT_TABLE_SIZE).then_some(first);
        Self { table: Table::new(first), cap, lowest }
    }

    /// The peer's SETTINGS_HEADER_TABLE_SIZE. The next block begins with a size update if the table's size changes.
    pub fn set_peer_table_size(&mut self, size: u32) {
        let size = usize::try_from(size).unwrap_or(usize::MAX).min(self.cap);
        if size != self.table.max_size() {
            self.lowest = Some(self.lowest.map_or(size, |lowest| lowest.min(size)));
            self.table.set_max_size(size);
        }
    }

    /// Begins a block: writes the size updates that are due. Must precede the fields of each block.
    pub fn start_block(&mut self, out: &mut BytesMut) {
        let Some(lowest) = self.lowest.take() else { return };
        // If it went down and up again, the peer must hear of the low, for entries were evicted then (RFC 7541 4.2).
        if lowest < self.table.max_size() {
            int::put(lowest as u64, 5, 0x20, out);
        }
        int::put(self.table.max_size() as u64, 5, 0x20, out);
    }

    /// Writes a pseudo-header.
    pub fn pseudo(&mut self, name: Pseudo, value: &[u8], out: &mut BytesMut) {
        self.put(name.as_str().as_bytes(), value, false, out);
    }

    /// Writes a field. One marked sensitive is never indexed.
    pub fn field(&mut self, name: &HeaderName, value: &HeaderValue, out: &mut BytesMut) {
        self.put(name.as_str().as_bytes(), value.as_bytes(), value.is_sensitive(), out);
    }

    fn put(&mut self, name: &[u8], value: &[u8], sensitive: bool, out: &mut BytesMut) {
        let name_hash = hash(name);
        let static_name = HPACK.name(name_hash, name);
        if !sensitive && let Some(index) = static_name.and_then(|first| HPACK.value(first, value)) {
            return int::put(one_based(index), 7, 0x80, out);
        }
        let policy = if sensitive { Policy::Never } else { policy::of(name, value) };
        let field_hash = if policy == Policy::Index { mix(name_hash, hash(value)) } else { 0 };
        if policy == Policy::Index
            && let Some(number) = self.table.find(field_hash, name, value)
        {
            return int::put(self.index_of(number), 7, 0x80, out);
        }
        let name_index = match static_name {
            Some(first) => Some(one_based(first)),
            None => self.table.find_name(name_hash, name).map(|number| self.index_of(number)),
        };
        let (prefix, pattern) = match policy {
            Policy::Index if self.table.fits(name, value) => (6, 0x40),
            Policy::Index | Policy::Literal => (4, 0x00),
            Policy::Never => (4, 0x10),
        };
        int::put(name_index.unwrap_or(0), prefix, pattern, out);
        if name_index.is_none() {
            literal::put(name, 7, 0, out);
        }
        literal::put(value, 7, 0, out);
        if pattern == 0x40 {
            self.table.insert(field_hash, name_hash, name, value);
        }
    }

    fn index_of(&self, number: u64) -> u64 {
        self.table.inserted().saturating_sub(number).saturating_sub(1).saturating_add(FIRST_DYNAMIC)
    }
}

fn one_based(index: usize) -> u64 {
    (index as u64).saturating_add(1)
}
