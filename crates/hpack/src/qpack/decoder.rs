//! The QPACK decoder.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use std::collections::BTreeSet;

use bytes::{Buf, Bytes, BytesMut};

use super::{Fault, max_entries};
use crate::ENTRY_OVERHEAD;
use crate::decoder::{Limits, Summary};
use crate::error::{DecodeError, Why};
use crate::field::{Field, Name};
use crate::int::{self, Input};
use crate::literal;
use crate::received::{Entry, Received};
use crate::tables::QPACK;

/// What became of a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Section {
    /// It was decoded.
    Decoded(Summary),
    /// It names entries that have not arrived: try the whole section again when the encoder stream has brought more.
    Blocked,
}

/// The QPACK decoder of one connection.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    table: Received,
    max_blocked: usize,
    blocked: BTreeSet<u64>,
    /// How many insertions the peer has been told that we have.
    told: u64,
    room: BytesMut,
}

/// The prefix of a section (RFC 9204 4.5.1).
struct Prefix {
    required: u64,
    base: u64,
}

impl Decoder {
    /// A decoder that grants `limits.table_size` as SETTINGS_QPACK_MAX_TABLE_CAPACITY and `max_blocked` as
    /// SETTINGS_QPACK_BLOCKED_STREAMS.
    pub fn new(limits: Limits, max_blocked: usize) -> Self {
        let table = Received::new(0);
        Self { limits, table, max_blocked, blocked: BTreeSet::new(), told: 0, room: BytesMut::new() }
    }

    /// Takes what arrived on the peer's encoder stream, leaves an instruction that is not whole yet, and appends what goes to
    /// our decoder stream. Says whether entries came, so that blocked sections are worth another try.
    pub fn on_encoder_stream(&mut self, bytes: &mut BytesMut, decoder_stream: &mut BytesMut) -> Result<bool, Fault> {
        let before = self.table.inserted();
        while !bytes.is_empty() {
            let mut input = Input::new(bytes);
            match self.instruction(&mut input) {
                Ok(()) => {}
                Err(error)
                    if error.why == Why::Truncated
                        && bytes.len() <= self.limits.string.saturating_mul(2).saturating_add(64) =>
                {
                    break;
                }
                Err(error) => return Err(Fault::EncoderStream(error)),
            }
            let read = input.offset();
            bytes.advance(read);
        }
        let came = self.table.inserted() > before;
        if came {
            self.tell(decoder_stream);
        }
        Ok(came)
    }

    fn tell(&mut self, decoder_stream: &mut BytesMut) {
        let more = self.table.inserted().saturating_sub(self.told);
        if more > 0 {
            int::put(more, 6, 0, decoder_stream);
            self.told = self.table.inserted();
        }
    }

    /// Decodes one whole section. What goes to our decoder stream is appended.
    pub fn decode(
        &mut self,
        stream: u64,
        section: &[u8],
        decoder_stream: &mut BytesMut,
        sink: &mut impl FnMut(Field),
    ) -> Result<Section, Fault> {
        let mut input = Input::new(section);
        let prefix = self.prefix(&mut input).map_err(Fault::Decompression)?;
        if prefix.required > self.table.inserted() {
            self.blocked.insert(stream);
            if self.blocked.len() > self.max_blocked {
                return Err(Fault::Decompression(input.fail("more blocked streams than granted", Why::TooLong)));
            }
            return Ok(Section::Blocked);
        }
        self.blocked.remove(&stream);
        let mut summary = Summary::default();
        literal::make_room(input.rest().len(), &self.limits, &mut self.room);
        while let Some(first) = input.peek() {
            let (field, size) = self.line(first, &prefix, &mut input).map_err(Fault::Decompression)?;
            summary.fields = summary.fields.saturating_add(1);
            summary.list_size = summary.list_size.saturating_add(size);
            if summary.fields > self.limits.fields || summary.list_size > self.limits.list_size {
                summary.cut = true;
            } else {
                sink(field);
            }
        }
        if prefix.required > 0 {
            int::put(stream, 7, 0x80, decoder_stream);
            // It tells the peer the count as well (RFC 9204 4.4.1).
            self.told = self.told.max(prefix.required);
        }
        Ok(Section::Decoded(summary))
    }

    /// The stream was reset or is no longer read: its sections will not be acknowledged (RFC 9204 4.4.2).
    pub fn cancel(&mut self, stream: u64, decoder_stream: &mut BytesMut) {
        self.blocked.remove(&stream);
        if self.limits.table_size > 0 {
            int::put(stream, 6, 0x40, decoder_stream);
        }
    }

    fn prefix(&self, input: &mut Input<'_>) -> Result<Prefix, DecodeError> {
        const WHAT: &str = "required insert count";
        let coded = input.int(8, int::MAX, WHAT)?;
        let required = self.required(coded).ok_or_else(|| input.fail(WHAT, Why::Invalid))?;
        let behind = input.peek().is_some_and(|first| first & 0x80 != 0);
        let delta = input.int(7, int::MAX, "base")?;
        let base = if behind {
            required.checked_sub(delta).and_then(|base| base.checked_sub(1))
        } else {
            required.checked_add(delta)
        };
        let base = base.ok_or_else(|| input.fail("base", Why::Invalid))?;
        Ok(Prefix { required, base })
    }

    /// RFC 9204 4.5.1.1: the count is sent modulo twice the most entries, and found again around what has arrived.
    fn required(&self, coded: u64) -> Option<u64> {
        if coded == 0 {
            return Some(0);
        }
        let entries = max_entries(self.limits.table_size as u64);
        let range = entries.saturating_mul(2);
        if coded > range {
            return None;
        }
        let most = self.table.inserted().saturating_add(entries);
        let wrapped = most.checked_div(range)?.saturating_mul(range);
        let required = wrapped.saturating_add(coded).saturating_sub(1);
        let required = if required > most { required.checked_sub(range)? } else { required };
        (required > 0).then_some(required)
    }

    fn line(&mut self, first: u8, prefix: &Prefix, input: &mut Input<'_>) -> Result<(Field, usize), DecodeError> {
        if first & 0x80 != 0 {
            let index = input.int(6, int::MAX, "index")?;
            return self.indexed(first & 0x40 != 0, index, prefix).ok_or_else(|| input.fail("index", Why::Invalid));
        }
        if first & 0xf0 == 0x10 {
            let index = input.int(4, int::MAX, "post-base index")?;
            let found = prefix.base.checked_add(index).and_then(|number| self.dynamic(number, prefix));
            let found = found.map(|entry| (entry.field.clone(), entry.size));
            return found.ok_or_else(|| input.fail("post-base index", Why::Invalid));
        }
        let (name, name_len, never) = if first & 0xc0 == 0x40 {
            let index = input.int(4, int::MAX, "name index")?;
            let named = self.named(first & 0x10 != 0, index, prefix);
            let (name, len) = named.ok_or_else(|| input.fail("name index", Why::Invalid))?;
            (name, len, first & 0x20 != 0)
        } else if first & 0xe0 == 0x20 {
            let (name, len) = self.literal_name(3, input)?;
            (name, len, first & 0x10 != 0)
        } else {
            let index = input.int(3, int::MAX, "post-base name index")?;
            let found = prefix.base.checked_add(index).and_then(|number| self.dynamic(number, prefix));
            let found = found.map(|entry| (entry.field.name.clone(), entry.name_len));
            let (name, len) = found.ok_or_else(|| input.fail("post-base name index", Why::Invalid))?;
            (name, len, first & 0x08 != 0)
        };
        literal::read(input, 7, &self.limits, &mut self.room, "value")?;
        let size = name_len.saturating_add(self.room.len()).saturating_add(ENTRY_OVERHEAD);
        let malformed = name == Name::Malformed;
        let mut field = Field::from_wire(name, self.room.split().freeze(), malformed);
        field.value.set_sensitive(never);
        Ok((field, size))
    }

    fn literal_name(&mut self, prefix: u32, input: &mut Input<'_>) -> Result<(Name, usize), DecodeError> {
        // An instruction that was not whole may have left its name here.
        self.room.clear();
        literal::read(input, prefix, &self.limits, &mut self.room, "name")?;
        let named = (Name::from_wire(&self.room), self.room.len());
        self.room.clear();
        Ok(named)
    }

    /// An entry that a section may name: below its Required Insert Count.
    fn dynamic(&self, number: u64, prefix: &Prefix) -> Option<&Entry> {
        if number < prefix.required { self.table.absolute(number) } else { None }
    }

    fn relative(&self, index: u64, prefix: &Prefix) -> Option<&Entry> {
        self.dynamic(prefix.base.checked_sub(index)?.checked_sub(1)?, prefix)
    }

    fn indexed(&self, is_static: bool, index: u64, prefix: &Prefix) -> Option<(Field, usize)> {
        if is_static {
            let field = QPACK.field(usize::try_from(index).ok()?)?;
            let size = name_len(&field.name).saturating_add(field.value.len()).saturating_add(ENTRY_OVERHEAD);
            return Some((field.clone(), size));
        }
        self.relative(index, prefix).map(|entry| (entry.field.clone(), entry.size))
    }

    fn named(&self, is_static: bool, index: u64, prefix: &Prefix) -> Option<(Name, usize)> {
        if is_static {
            let field = QPACK.field(usize::try_from(index).ok()?)?;
            return Some((field.name.clone(), name_len(&field.name)));
        }
        self.relative(index, prefix).map(|entry| (entry.field.name.clone(), entry.name_len))
    }

    /// One instruction of the peer's encoder (RFC 9204 4.3).
    fn instruction(&mut self, input: &mut Input<'_>) -> Result<(), DecodeError> {
        let first = input.peek().unwrap_or(0);
        if first & 0xe0 == 0x20 {
            let size = input.int(5, self.limits.table_size as u64, "table capacity")?;
            self.table.set_max_size(usize::try_from(size).unwrap_or(usize::MAX));
            return Ok(());
        }
        let entry = if first & 0xe0 == 0 {
            let index = input.int(5, int::MAX, "duplicate")?;
            let found = usize::try_from(index).ok().and_then(|behind| self.table.newest(behind));
            let found = found.ok_or_else(|| input.fail("duplicate", Why::Invalid))?;
            Entry { field: found.field.clone(), name_len: found.name_len, size: found.size }
        } else {
            self.inserted(first, input)?
        };
        // One that does not fit is an error here, unlike in HPACK (RFC 9204 3.2.2).
        if self.table.insert(entry) { Ok(()) } else { Err(input.fail("insertion beyond the capacity", Why::TooLong)) }
    }

    fn inserted(&mut self, first: u8, input: &mut Input<'_>) -> Result<Entry, DecodeError> {
        let (name, name_len) = if first & 0x80 != 0 {
            let index = input.int(6, int::MAX, "name index")?;
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            let named = if first & 0x40 != 0 {
                QPACK.field(index).map(|field| (field.name.clone(), name_len(&field.name)))
            } else {
                self.table.newest(index).map(|entry| (entry.field.name.clone(), entry.name_len))
            };
            named.ok_or_else(|| input.fail("name index", Why::Invalid))?
        } else {
            self.literal_name(5, input)?
        };
        self.room.clear();
        literal::read(input, 7, &self.limits, &mut self.room, "value")?;
        let size = name_len.saturating_add(self.room.len()).saturating_add(ENTRY_OVERHEAD);
        // A copy of its own, so that an entry never holds a larger buffer.
        let value = Bytes::copy_from_slice(&self.room);
        self.room.clear();
        let malformed = name == Name::Malformed;
        Ok(Entry { field: Field::from_wire(name, value, malformed), name_len, size })
    }
}

fn name_len(name: &Name) -> usize {
    match name {
        Name::Pseudo(pseudo) => pseudo.as_str().len(),
        Name::Field(name) => name.as_str().len(),
        Name::Malformed => 0,
    }
}
