//! Whether what is said is what was said.

use memchr::memmem;

use super::entry::Piece;

/// How far the end of a secret is looked for.
const LONGEST_SECRET: usize = 64 << 10;

/// What a comparison gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Match {
    /// It is, and so many bytes belong to it; what follows is compared with what was said next.
    Whole(usize),
    /// So far it is: more must come.
    Begun,
    /// It is not, from this byte on.
    Differs(usize),
}

/// Compares to the byte; where a secret was hidden, anything does.
pub(super) fn compare(recorded: &[Piece], said: &[u8]) -> Match {
    let (mut at, mut pieces) = (0, recorded.iter().peekable());
    while let Some(piece) = pieces.next() {
        let rest = said.get(at..).unwrap_or_default();
        match (piece, pieces.peek()) {
            (Piece::Bytes(bytes), _) => {
                let same = bytes.iter().zip(rest).take_while(|(one, other)| one == other).count();
                if same == bytes.len() {
                    at += same;
                } else if same == rest.len() {
                    return Match::Begun;
                } else {
                    return Match::Differs(at + same);
                }
            }
            (Piece::Hidden(_), Some(Piece::Bytes(after))) => {
                // The first line behind it is its end.
                let end = memchr::memchr(b'\n', after).map_or(after.len(), |at| at + 1);
                match memmem::find(rest, after.get(..end).unwrap_or_default()) {
                    Some(length) => at += length,
                    None if rest.len() > LONGEST_SECRET => return Match::Differs(at),
                    None => return Match::Begun,
                }
            }
            (Piece::Hidden(_), Some(Piece::Hidden(_))) => {}
            (Piece::Hidden(_), None) if rest.is_empty() => return Match::Begun,
            (Piece::Hidden(_), None) => at = said.len(),
        }
    }
    Match::Whole(at)
}

/// What was recorded, for the eye: `***` for each secret.
pub(super) fn shown(recorded: &[Piece]) -> Vec<u8> {
    let piece = |piece: &Piece| match piece {
        Piece::Bytes(bytes) => bytes.clone(),
        Piece::Hidden(_) => b"***".to_vec(),
    };
    recorded.iter().flat_map(piece).collect()
}
