//! Leaves out what must not be written down, as the library's own recorder does.

use std::ops::Range;

use portolan_core::transcript::{self, Side as Who};

use super::transcript::{Entry, Piece, Side, What};
use super::{Raw, RawWhat};

/// What a recording leaves out.
#[derive(Debug, Clone, Default)]
pub struct Redact(transcript::Redact);

impl Redact {
    /// Leaves nothing out: for conversations that have no secrets, or that must be replayed to the byte.
    pub fn nothing() -> Self {
        Self(transcript::Redact::new().dangerous().with_secrets())
    }

    /// Leaves this out too (at least three bytes), as it is and inside Base64.
    #[must_use]
    pub fn secret(self, secret: impl AsRef<[u8]>) -> Self {
        assert!(secret.as_ref().len() >= 3, "a secret that short would be found everywhere");
        Self(self.0.literal(secret))
    }

    /// What remains to be written down.
    pub(crate) fn apply(&self, raw: &[Raw]) -> Vec<Entry> {
        let connections = raw.iter().map(|raw| raw.connection + 1).max().unwrap_or(0);
        let hidden: Vec<_> = (0..connections)
            .map(|connection| {
                let said = raw.iter().filter(|raw| raw.connection == connection).filter_map(|raw| match &raw.what {
                    RawWhat::Said(bytes) if raw.side == Side::Client => Some((Who::Client, bytes.as_slice())),
                    RawWhat::Said(bytes) => Some((Who::Server, bytes.as_slice())),
                    _ => None,
                });
                self.0.hidden(said)
            })
            .collect();
        write_down(raw, &hidden)
    }
}

/// The entries without what is hidden; a secret that goes over several of them leaves its mark in the first.
fn write_down(raw: &[Raw], hidden: &[[Vec<Range<usize>>; 2]]) -> Vec<Entry> {
    let mut said = vec![[0usize; 2]; hidden.len()];
    let mut out = Vec::new();
    for Raw { at, connection, side, what } in raw {
        let what = match what {
            RawWhat::Closed => What::Closed,
            RawWhat::Reset => What::Reset,
            RawWhat::Said(bytes) => {
                let index = usize::from(*side == Side::Server);
                let from = said[*connection][index];
                said[*connection][index] += bytes.len();
                let pieces = shown(bytes, from, &hidden[*connection][index]);
                if pieces.is_empty() {
                    continue;
                }
                What::Said(pieces)
            }
        };
        out.push(Entry { at: *at, connection: *connection, side: *side, what });
    }
    out
}

fn shown(bytes: &[u8], from: usize, hidden: &[Range<usize>]) -> Vec<Piece> {
    let (mut pieces, mut at, end) = (Vec::new(), from, from + bytes.len());
    for range in hidden.iter().filter(|range| range.start < end && range.end > from) {
        if range.start > at {
            pieces.push(Piece::Bytes(bytes[at - from..range.start - from].to_vec()));
        }
        if range.start >= from {
            pieces.push(Piece::Hidden);
        }
        at = range.end.min(end);
    }
    if at < end {
        pieces.push(Piece::Bytes(bytes[at - from..].to_vec()));
    }
    pieces
}
