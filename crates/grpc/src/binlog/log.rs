//! Entries in order, and the files that they are written to.

use std::collections::VecDeque;
use std::path::Path;

use bytes::Buf;
use portolan_core::{Error, Result};
use portolan_wire::DecodeError;
use prost::Message;

use super::entry::Entry;
use crate::PROTOCOL;

/// A recording that goes on for ever keeps the newest.
const MAX_ENTRIES: usize = 10_000;
/// And no more of them than this many bytes hold.
const MAX_BYTES: usize = 256 << 20;

/// What was recorded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Log {
    entries: VecDeque<Entry>,
    /// What they take as a file.
    bytes: usize,
}

impl Log {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an entry. The oldest go when there are 10,000, or 256 MiB of them.
    pub fn push(&mut self, entry: Entry) {
        self.bytes = self.bytes.saturating_add(entry.encoded_len());
        self.entries.push_back(entry);
        while self.entries.len() > MAX_ENTRIES || (self.bytes > MAX_BYTES && self.entries.len() > 1) {
            let Some(oldest) = self.entries.pop_front() else { return };
            self.bytes = self.bytes.saturating_sub(oldest.encoded_len());
        }
    }

    /// The entries, in the order in which they were written.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> + ExactSizeIterator + Clone {
        self.entries.iter()
    }

    /// What a file holds. One that was cut within its last entry, as by a crash, is read up to there.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Self::decode(bytes).map_err(|error| error.into_error(PROTOCOL))
    }

    /// The same, with the place of what can't be read.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (mut log, mut rest) = (Self::new(), bytes);
        while let Ok(length) = rest.try_get_u32() {
            let offset = bytes.len().saturating_sub(rest.len());
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let Some((entry, tail)) = rest.split_at_checked(length) else { break };
            let entry = Entry::decode(entry).map_err(|_| DecodeError::invalid("log entry", offset))?;
            log.bytes = log.bytes.saturating_add(entry.encoded_len());
            log.entries.push_back(entry);
            rest = tail;
        }
        Ok(log)
    }

    /// As a file holds it.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.entries.iter().flat_map(Entry::framed).collect()
    }

    /// Reads a file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let failed = |error| Error::usage(format!("{} can't be read", path.display())).with_source(error);
        Self::from_bytes(&std::fs::read(path).map_err(failed)?)
    }

    /// Writes a file.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let failed = |error| Error::usage(format!("{} can't be written", path.display())).with_source(error);
        std::fs::write(path, self.to_bytes()).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binlog::{ClientHeader, Payload, Replay, Trailer};
    use portolan_wire::laws;

    #[test]
    fn the_decoder_keeps_the_laws_and_what_it_reads_can_be_played() {
        let header = ClientHeader { method_name: "/t.S/M".to_owned(), ..ClientHeader::default() };
        let begun = Entry { call_id: 1, payload: Some(Payload::ClientHeader(header)), ..Entry::default() };
        let seeds =
            [begun.framed(), [begun.framed(), Entry { call_id: 1, r#type: 7, ..Entry::default() }.framed()].concat()];
        let decode = |bytes: &[u8]| Log::decode(bytes).inspect(|log| drop(Replay::new(log)));
        laws::check_datagram(decode, &[&seeds[0], &seeds[1]]);
    }

    #[test]
    fn a_file_is_read_as_it_was_written_and_up_to_where_it_was_cut() {
        let mut log = Log::new();
        let trailer = Trailer { status_code: 5, ..Trailer::default() };
        log.push(Entry { call_id: 1, payload: Some(Payload::Trailer(trailer)), ..Entry::default() });
        log.push(Entry { call_id: 2, ..Entry::default() });
        let bytes = log.to_bytes();
        assert_eq!(Log::from_bytes(&bytes).unwrap(), log);
        for cut in 0..bytes.len() {
            assert!(Log::from_bytes(&bytes[..cut]).unwrap().entries().len() <= 1, "{cut}");
        }
        assert!(Log::from_bytes(b"\0\0\0\x02\xff\xff").is_err());
        // A length that nobody could hold is a file that was cut.
        assert_eq!(Log::from_bytes(b"\xff\xff\xff\xff\0").unwrap(), Log::new());
    }

    #[test]
    fn the_newest_are_kept() {
        let mut log = Log::new();
        (0..=MAX_ENTRIES as u64).for_each(|call_id| log.push(Entry { call_id, ..Entry::default() }));
        assert_eq!((log.entries().len(), log.entries().next().unwrap().call_id), (MAX_ENTRIES, 1));
        // A longer file is read whole, and cut when something is added.
        let mut long = Log::from_bytes(&log.to_bytes().repeat(2)).unwrap();
        assert_eq!(long.entries().len(), 2 * MAX_ENTRIES);
        long.push(Entry::default());
        assert_eq!(long.entries().len(), MAX_ENTRIES);
        // Of large ones fewer are.
        let data = vec![0; MAX_BYTES / 4];
        let message = crate::binlog::Message { length: 0, data };
        let large = Entry { payload: Some(Payload::Message(message)), ..Entry::default() };
        (0..6).for_each(|_| log.push(large.clone()));
        assert_eq!(log.entries().len(), 3);
    }
}
