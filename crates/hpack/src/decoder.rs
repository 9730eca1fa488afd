//! The HPACK decoder.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use std::fmt;

use bytes::{Bytes, BytesMut};

use crate::again::Again;
use crate::error::{DecodeError, Why};
use crate::field::{Field, Name};
use crate::int::Input;
use crate::literal::{self, Literal};
use crate::received::{Entry, Received};
use crate::tables::HPACK;
use crate::{DEFAULT_TABLE_SIZE, ENTRY_OVERHEAD};

/// A block up to this is small: usual responses are. At most as many such blocks are held as the table has entries, 128 of them
/// in the default size, and one more for each name of the static table.
const SMALL_BLOCK: usize = 512;
/// What its strings may take when decoded, and so what each of its values may hold in memory.
const SMALL_ROOM: usize = SMALL_BLOCK * 2;

/// What a decoder grants its peer.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of the dynamic table: what SETTINGS_HEADER_TABLE_SIZE says. Default 4096, the protocol's own.
    pub table_size: usize,
    /// Bytes of a header list, 32 per field included. Default 64 KiB: four times what common servers accept themselves. A
    /// longer list is read to its end, so that the tables stay in step, but cut off: see [`Summary::cut`].
    pub list_size: usize,
    /// Fields in a list. Default 512. More are cut off likewise.
    pub fields: usize,
    /// Bytes of one string as coded. Default 64 KiB. A longer one is an error.
    pub string: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { table_size: DEFAULT_TABLE_SIZE, list_size: 64 << 10, fields: 512, string: 64 << 10 }
    }
}

/// What a block held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Fields in it, those cut off included.
    pub fields: usize,
    /// The size of the list as RFC 9113 6.5.2 counts it.
    pub list_size: usize,
    /// Whether fields beyond the limits were left out: the message must not be used, the connection may.
    pub cut: bool,
}

/// The HPACK decoder of one connection.
///
/// Values share one allocation per block, with the table too where the block is small. Those that the table keeps of a larger
/// one have one of their own, so that a kept value never holds much more than itself in memory. An indexed field costs no
/// allocation at all, and nor does a short one that is written out as it was the last time.
pub struct Decoder {
    limits: Limits,
    table: Received,
    again: Again,
    /// The most that a size update may ask for: our setting as far as the peer has acknowledged it.
    granted: usize,
    /// The peer owes a size update, for the setting it acknowledged is lower than the table (RFC 7541 4.2).
    owes_update: bool,
    room: BytesMut,
    /// Whether what the table keeps may hold the room of this block.
    small: bool,
}

/// What an index stands for.
struct Found<'a> {
    field: &'a Field,
    name_len: usize,
    size: usize,
}

/// What becomes of a literal (RFC 7541 6.2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It goes into the table.
    Kept,
    /// It is this block's alone.
    Passing,
    /// It must never be in a table, anywhere.
    Secret,
}

impl Decoder {
    /// A decoder that starts with the protocol's table of 4096 bytes; `limits.table_size` holds once
    /// [`acknowledged`](Self::acknowledged).
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            table: Received::new(DEFAULT_TABLE_SIZE),
            again: Again::new(),
            granted: DEFAULT_TABLE_SIZE.max(limits.table_size),
            owes_update: false,
            room: BytesMut::new(),
            small: false,
        }
    }

    /// The peer has acknowledged our settings: from the next block on, the table is as they say.
    pub fn acknowledged(&mut self) {
        self.granted = self.limits.table_size;
        self.owes_update = self.table.max_size() > self.granted;
    }

    /// Decodes one whole block. After an error the decoder's state is lost: the connection must end with COMPRESSION_ERROR.
    pub fn decode(&mut self, block: &[u8], sink: &mut impl FnMut(Field)) -> Result<Summary, DecodeError> {
        let mut input = Input::new(block);
        self.size_updates(&mut input)?;
        self.small = block.len() <= SMALL_BLOCK;
        if self.small && self.room.capacity() > SMALL_ROOM {
            // What is left of a large block's room would be held with it.
            self.room = BytesMut::new();
        }
        literal::make_room(block.len(), &self.limits, &mut self.room);
        let mut summary = Summary::default();
        while let Some(first) = input.peek() {
            let (field, size) = self.field(first, &mut input)?;
            summary.fields = summary.fields.saturating_add(1);
            summary.list_size = summary.list_size.saturating_add(size);
            if summary.fields > self.limits.fields || summary.list_size > self.limits.list_size {
                summary.cut = true;
            } else {
                sink(field);
            }
        }
        Ok(summary)
    }

    fn size_updates(&mut self, input: &mut Input<'_>) -> Result<(), DecodeError> {
        const WHAT: &str = "table size update";
        while input.peek().is_some_and(|first| first & 0xe0 == 0x20) {
            let size = input.int(5, self.granted as u64, WHAT)?;
            self.table.set_max_size(usize::try_from(size).unwrap_or(usize::MAX));
            self.owes_update = false;
        }
        if self.owes_update {
            return Err(input.fail("table size update that our settings asked for", Why::Invalid));
        }
        Ok(())
    }

    #[inline]
    fn field(&mut self, first: u8, input: &mut Input<'_>) -> Result<(Field, usize), DecodeError> {
        if first & 0x80 != 0 {
            let index = input.int(7, u64::from(u32::MAX), "index")?;
            let found = self.indexed(index).ok_or_else(|| input.fail("index", Why::Invalid))?;
            return Ok((found.field.clone(), found.size));
        }
        if first & 0xe0 == 0x20 {
            // RFC 7541 4.2: only at the beginning of a block.
            return Err(input.fail("table size update in mid-block", Why::Invalid));
        }
        if first & 0x40 != 0 {
            return self.literal(6, Fate::Kept, input);
        }
        if first & 0x10 == 0 {
            return self.literal(4, Fate::Passing, input);
        }
        let (mut field, size) = self.literal(4, Fate::Secret, input)?;
        field.value.set_sensitive(true);
        Ok((field, size))
    }

    #[inline]
    fn indexed(&self, index: u64) -> Option<Found<'_>> {
        let index = usize::try_from(index).ok()?.checked_sub(1)?;
        if let Some(field) = HPACK.field(index) {
            let name_len = match &field.name {
                Name::Pseudo(pseudo) => pseudo.as_str().len(),
                Name::Field(name) => name.as_str().len(),
                Name::Malformed => 0,
            };
            let size = name_len.saturating_add(field.value.len()).saturating_add(ENTRY_OVERHEAD);
            return Some(Found { field, name_len, size });
        }
        let entry = self.table.newest(index.checked_sub(HPACK.len())?)?;
        Some(Found { field: &entry.field, name_len: entry.name_len, size: entry.size })
    }

    #[inline]
    fn literal(&mut self, prefix: u32, fate: Fate, input: &mut Input<'_>) -> Result<(Field, usize), DecodeError> {
        let index = input.int(prefix, u64::from(u32::MAX), "name index")?;
        let name = if index == 0 { Some(Literal::take(input, 7, &self.limits, "name")?) } else { None };
        let value = Literal::take(input, 7, &self.limits, "value")?;
        // What may be said again: under a name of the static table, in a block whose room may be held, and no secret.
        let place = usize::try_from(index).ok().and_then(|index| index.checked_sub(1));
        let place = place.filter(|_| self.small && fate != Fate::Secret);
        if let Some(entry) = place.and_then(|place| self.again.find(place, &value)) {
            return Ok(self.read(entry, fate));
        }
        let (name, name_len) = match name {
            Some(name) => {
                name.read(&mut self.room).map_err(|_| input.fail("name", Why::Invalid))?;
                let named = (Name::from_wire(&self.room), self.room.len());
                self.room.clear();
                named
            }
            None => {
                let found = self.indexed(index).ok_or_else(|| input.fail("name index", Why::Invalid))?;
                (found.field.name.clone(), found.name_len)
            }
        };
        value.read(&mut self.room).map_err(|_| input.fail("value", Why::Invalid))?;
        let size = name_len.saturating_add(self.room.len()).saturating_add(ENTRY_OVERHEAD);
        let text = if fate == Fate::Kept && !self.small {
            let text = Bytes::copy_from_slice(&self.room);
            self.room.clear();
            text
        } else {
            self.room.split().freeze()
        };
        let malformed = name == Name::Malformed;
        let entry = Entry { field: Field::from_wire(name, text, malformed), name_len, size };
        if let Some(place) = place {
            self.again.keep(place, &value, &entry);
        }
        Ok(self.read(entry, fate))
    }

    /// Puts it into the table, if it is to go there.
    #[inline]
    fn read(&mut self, entry: Entry, fate: Fate) -> (Field, usize) {
        if fate == Fate::Kept {
            self.table.insert(entry.clone());
        }
        (entry.field, entry.size)
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be cookies: counts only.
        f.debug_struct("Decoder").field("limits", &self.limits).field("table", &self.table).finish_non_exhaustive()
    }
}
