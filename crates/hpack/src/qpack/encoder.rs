//! The QPACK encoder.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};
use http::{HeaderName, HeaderValue};

use super::{Fault, max_entries};
use crate::error::{DecodeError, Why};
use crate::field::Pseudo;
use crate::int::{self, Input};
use crate::literal;
use crate::policy::{self, Policy};
use crate::table::{Table, entry_size};
use crate::tables::{QPACK, hash, mix};

/// Sections whose acknowledgement is awaited; more are sent without naming entries, so that a peer that never acknowledges
/// costs us no memory.
const MAX_OUTSTANDING: usize = 256;

/// The QPACK encoder of one connection.
///
/// It names only entries that the peer is known to have, so that no stream of ours is ever blocked; an entry is put in when a
/// field is first sent, and named once it is acknowledged. What is put in at all is decided as for HPACK.
#[derive(Debug)]
pub struct Encoder {
    table: Table,
    cap: usize,
    /// The peer's setting, which the Required Insert Count is written by.
    peer_capacity: u64,
    /// Entries below this number have arrived.
    known: u64,
    outstanding: VecDeque<Outstanding>,
    lines: BytesMut,
    /// Of the section under way: one more than the largest entry named, and the smallest.
    required: u64,
    smallest: u64,
    /// Entries below this were known when it began; its lines count back from here.
    base: u64,
}

#[derive(Debug)]
struct Outstanding {
    stream: u64,
    required: u64,
    smallest: u64,
}

impl Encoder {
    /// An encoder whose table takes at most `cap` bytes, whatever the peer allows. It has none until the peer's settings come.
    pub fn new(cap: usize) -> Self {
        Self {
            table: Table::new(0),
            cap,
            peer_capacity: 0,
            known: 0,
            outstanding: VecDeque::new(),
            lines: BytesMut::new(),
            required: 0,
            smallest: u64::MAX,
            base: 0,
        }
    }

    /// The peer's SETTINGS_QPACK_MAX_TABLE_CAPACITY, once per connection; what goes to the encoder stream is appended.
    pub fn set_peer_capacity(&mut self, capacity: u64, encoder_stream: &mut BytesMut) {
        self.peer_capacity = capacity;
        let size = usize::try_from(capacity).unwrap_or(usize::MAX).min(self.cap);
        if size != self.table.max_size() {
            self.table.set_max_size(size);
            int::put(size as u64, 5, 0x20, encoder_stream);
        }
    }

    /// Begins a section.
    pub fn start_section(&mut self) {
        self.lines.clear();
        self.required = 0;
        self.smallest = u64::MAX;
        self.base = self.known;
    }

    /// Adds a pseudo-header.
    pub fn pseudo(&mut self, name: Pseudo, value: &[u8], encoder_stream: &mut BytesMut) {
        self.put(name.as_str().as_bytes(), value, false, encoder_stream);
    }

    /// Adds a field. One marked sensitive is never indexed.
    pub fn field(&mut self, name: &HeaderName, value: &HeaderValue, encoder_stream: &mut BytesMut) {
        self.put(name.as_str().as_bytes(), value.as_bytes(), value.is_sensitive(), encoder_stream);
    }

    /// Ends the section and appends it. What was appended to the encoder stream meanwhile may be sent before or after it.
    pub fn end_section(&mut self, stream: u64, out: &mut BytesMut) {
        if self.required == 0 {
            out.extend_from_slice(&[0, 0]);
        } else {
            // RFC 9204 4.5.1.1; the base is the count known at the start, by which the lines were written.
            let range = max_entries(self.peer_capacity).saturating_mul(2).max(1);
            let coded = self.required.checked_rem(range).unwrap_or(0).saturating_add(1);
            int::put(coded, 8, 0, out);
            int::put(self.base.saturating_sub(self.required), 7, 0, out);
            let (required, smallest) = (self.required, self.smallest);
            self.outstanding.push_back(Outstanding { stream, required, smallest });
        }
        out.extend_from_slice(&self.lines);
    }

    /// Takes what arrived on the peer's decoder stream, and leaves an instruction that is not whole yet.
    pub fn on_decoder_stream(&mut self, bytes: &mut BytesMut) -> Result<(), Fault> {
        while !bytes.is_empty() {
            let mut input = Input::new(bytes);
            match self.instruction(&mut input) {
                Ok(()) => {}
                Err(error) if error.why == Why::Truncated => return Ok(()),
                Err(error) => return Err(Fault::DecoderStream(error)),
            }
            let read = input.offset();
            bytes.advance(read);
        }
        Ok(())
    }

    /// The stream was reset or given up before its sections were acknowledged: the peer's decoder says the same by itself.
    fn cancel(&mut self, stream: u64) {
        self.outstanding.retain(|section| section.stream != stream);
    }

    fn instruction(&mut self, input: &mut Input<'_>) -> Result<(), DecodeError> {
        let first = input.peek().unwrap_or(0);
        if first & 0x80 != 0 {
            let stream = input.int(7, int::MAX, "section acknowledgement")?;
            let at = self.outstanding.iter().position(|section| section.stream == stream);
            let section = at.and_then(|at| self.outstanding.remove(at));
            let section = section.ok_or_else(|| input.fail("acknowledgement of nothing", Why::Invalid))?;
            self.known = self.known.max(section.required);
        } else if first & 0x40 != 0 {
            let stream = input.int(6, int::MAX, "stream cancellation")?;
            self.cancel(stream);
        } else {
            let more = input.int(6, int::MAX, "insert count increment")?;
            let known = self.known.saturating_add(more);
            if more == 0 || known > self.table.inserted() {
                return Err(input.fail("insert count increment", Why::Invalid));
            }
            self.known = known;
        }
        Ok(())
    }

    fn put(&mut self, name: &[u8], value: &[u8], sensitive: bool, encoder_stream: &mut BytesMut) {
        let name_hash = hash(name);
        let static_name = QPACK.name(name_hash, name);
        if !sensitive && let Some(index) = static_name.and_then(|first| QPACK.value(first, value)) {
            return int::put(index as u64, 6, 0xc0, &mut self.lines);
        }
        let policy = if sensitive { Policy::Never } else { policy::of(name, value) };
        if policy == Policy::Index {
            let field_hash = mix(name_hash, hash(value));
            match self.table.find(field_hash, name, value) {
                Some(number) if self.may_name(number) => {
                    self.name(number);
                    let relative = self.base.saturating_sub(number).saturating_sub(1);
                    return int::put(relative, 6, 0x80, &mut self.lines);
                }
                // On its way already.
                Some(_) => {}
                None => self.insert(field_hash, name_hash, static_name, name, value, encoder_stream),
            }
        }
        let never = if policy == Policy::Never { 0x20 } else { 0 };
        let dynamic_name = self.table.find_name(name_hash, name).filter(|number| self.may_name(*number));
        match (static_name, dynamic_name) {
            (Some(index), _) => int::put(index as u64, 4, 0x50 | never, &mut self.lines),
            (None, Some(number)) => {
                self.name(number);
                let relative = self.base.saturating_sub(number).saturating_sub(1);
                int::put(relative, 4, 0x40 | never, &mut self.lines);
            }
            (None, None) => literal::put(name, 3, 0x20 | never >> 1, &mut self.lines),
        }
        literal::put(value, 7, 0, &mut self.lines);
    }

    fn may_name(&self, number: u64) -> bool {
        number < self.base && self.outstanding.len() < MAX_OUTSTANDING
    }

    fn name(&mut self, number: u64) {
        self.required = self.required.max(number.saturating_add(1));
        self.smallest = self.smallest.min(number);
    }

    /// Puts an entry in, if it fits without pushing out one that is unacknowledged or still named (RFC 9204 2.1.1).
    fn insert(
        &mut self,
        field_hash: u64,
        name_hash: u64,
        static_name: Option<usize>,
        name: &[u8],
        value: &[u8],
        encoder_stream: &mut BytesMut,
    ) {
        if !self.table.fits(name, value) {
            return;
        }
        let named = self.outstanding.iter().map(|section| section.smallest).min().unwrap_or(u64::MAX);
        let free = named.min(self.smallest).min(self.known);
        let evicted_below = self.table.oldest().saturating_add(self.table.eviction_for(entry_size(name, value)));
        if evicted_below > self.table.oldest() && evicted_below > free {
            return;
        }
        match static_name {
            Some(index) => int::put(index as u64, 6, 0xc0, encoder_stream),
            None => literal::put(name, 5, 0x40, encoder_stream),
        }
        literal::put(value, 7, 0, encoder_stream);
        self.table.insert(field_hash, name_hash, name, value);
    }
}
