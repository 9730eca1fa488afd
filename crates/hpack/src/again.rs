//! Values said again: servers that never refer to the table (nginx among them) write the same fields out with each response.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use crate::literal::Literal;
use crate::received::Entry;

/// A longer one is seldom said twice.
const LONGEST: usize = 64;
/// The names of the static table, which are all that are looked at.
const NAMES: usize = 61;

/// What came last as a literal under each name of the static table. A value that comes again as the same bytes is not decoded
/// again. No part of HPACK: the peer knows nothing of it.
pub(crate) struct Again([Option<Box<Seen>>; NAMES]);

struct Seen {
    huffman: bool,
    coded: Vec<u8>,
    entry: Entry,
}

impl Again {
    pub(crate) fn new() -> Self {
        Self([const { None }; NAMES])
    }

    /// What these bytes stood for. Indexes are from zero.
    #[inline]
    pub(crate) fn find(&self, index: usize, value: &Literal<'_>) -> Option<Entry> {
        let seen = self.0.get(index)?.as_deref()?;
        (seen.huffman == value.huffman && seen.coded == value.coded).then(|| seen.entry.clone())
    }

    /// Keeps one for the next time.
    pub(crate) fn keep(&mut self, index: usize, value: &Literal<'_>, entry: &Entry) {
        let fits = value.coded.len() <= LONGEST && !entry.field.malformed;
        let Some(place) = self.0.get_mut(index).filter(|_| fits) else { return };
        let seen =
            place.get_or_insert_with(|| Box::new(Seen { huffman: false, coded: Vec::new(), entry: entry.clone() }));
        seen.huffman = value.huffman;
        seen.coded.clear();
        seen.coded.extend_from_slice(value.coded);
        seen.entry.clone_from(entry);
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test may fail by panicking")]
mod tests {
    use bytes::BytesMut;

    use super::LONGEST;
    use crate::field::Field;
    use crate::{Decoder, Limits, int, literal};

    /// Literals without indexing (RFC 7541 6.2.2, 6.2.3) under names of the static table.
    fn block(fields: &[(u64, &str, bool)]) -> BytesMut {
        let mut out = BytesMut::new();
        for (index, value, secret) in fields {
            int::put(*index, 4, if *secret { 0x10 } else { 0 }, &mut out);
            literal::put(value.as_bytes(), 7, 0, &mut out);
        }
        out
    }

    fn decode(decoder: &mut Decoder, block: &[u8]) -> Vec<Field> {
        let mut fields = Vec::new();
        decoder.decode(block, &mut |field| fields.push(field)).unwrap();
        fields
    }

    /// One that has seen everything before tells what one tells that has seen nothing.
    #[test]
    fn what_is_said_again_is_what_it_was_and_what_changed_is_not() {
        let (long, longer) = ("0".repeat(LONGEST), "&".repeat(LONGEST + 1));
        let blocks = [
            block(&[(54, "nginx", false), (33, "Sat, 21 Nov 2026 20:38:25 GMT", false), (28, "100", false)]),
            block(&[(54, "nginx", false), (33, "Sat, 21 Nov 2026 20:38:26 GMT", false), (28, "100", false)]),
            block(&[(54, "nginx", true), (33, "nginx", false), (28, "100", true)]),
            block(&[(54, "", false), (33, "", false), (61, &long, false), (61, &longer, false)]),
            block(&[(54, "nginx", false), (61, &long, false), (61, &long, true), (28, "\n", false)]),
            block(&[(54, "nginx", false), (54, "nginx", false), (54, "other", false), (28, "\n", false)]),
        ];
        let mut known = Decoder::new(Limits::default());
        for block in blocks.iter().chain(blocks.iter().rev()).chain(&blocks) {
            let fields = decode(&mut known, block);
            let fresh = decode(&mut Decoder::new(Limits::default()), block);
            assert_eq!(fields, fresh);
            // Equality of values says nothing of secrets.
            let secrets = |fields: &[Field]| fields.iter().map(|field| field.value.is_sensitive()).collect::<Vec<_>>();
            assert_eq!(secrets(&fields), secrets(&fresh));
        }
    }

    /// nginx has each of its literals kept, and never asks for one of them.
    #[test]
    fn what_is_said_again_goes_into_the_table_again() {
        let kept = |index: u64, value: &str| {
            let mut out = BytesMut::new();
            int::put(index, 6, 0x40, &mut out);
            literal::put(value.as_bytes(), 7, 0, &mut out);
            out
        };
        let mut decoder = Decoder::new(Limits::default());
        // Room for two of "server" and "nginx", which are 43 bytes of a table.
        let mut resized = BytesMut::new();
        int::put(2 * 43, 5, 0x20, &mut resized);
        assert!(decode(&mut decoder, &resized).is_empty());
        for (index, value) in [(54, "nginx"), (54, "nginx"), (54, "other"), (54, "nginx")] {
            assert_eq!(decode(&mut decoder, &kept(index, value))[0].value, value);
        }
        let values: Vec<_> =
            decode(&mut decoder, &[0x80 | 62, 0x80 | 63]).into_iter().map(|field| field.value).collect();
        assert_eq!(values, ["nginx", "other"]);
        assert!(decoder.decode(&[0x80 | 64], &mut |_| {}).is_err());
        // Without indexing it stays out.
        assert_eq!(decode(&mut decoder, &block(&[(54, "nginx", false)]))[0].value, "nginx");
        assert_eq!(decode(&mut decoder, &[0x80 | 63])[0].value, "other");
    }

    #[test]
    fn the_same_bytes_in_plain_and_in_huffman_are_told_apart() {
        let mut decoder = Decoder::new(Limits::default());
        // 0x1f in five-bit codes is "a" and padding; in plain it is a control character.
        let (coded, plain) = ([0x0f, 54 - 15, 0x81, 0x1f], [0x0f, 54 - 15, 0x01, 0x1f]);
        for _ in 0..2 {
            assert_eq!(decode(&mut decoder, &coded)[0].value, "a");
            assert!(decode(&mut decoder, &plain)[0].malformed);
        }
    }
}
