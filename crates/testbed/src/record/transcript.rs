//! What was recorded, as text, and as a script to say it again.

use std::fmt::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use crate::rogue::{Datagrams, Script};

/// The first line of a saved transcript.
const HEAD: &str = "# portolan transcript 1";

/// What stands for a secret.
const HIDDEN: &str = "***";

/// Who spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Side {
    /// Who connected.
    Client,
    /// Who was connected to.
    Server,
}

/// A run of bytes, or the place of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Piece {
    /// Bytes as they were.
    Bytes(Vec<u8>),
    /// A secret stood here.
    Hidden,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// This side said something: one read or one datagram.
    Said(Vec<Piece>),
    /// This side closed.
    Closed,
    /// This side broke off.
    Reset,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When, from the recorder's start.
    pub at: Duration,
    /// On which connection, from 0.
    pub connection: usize,
    /// By whom.
    pub side: Side,
    /// What.
    pub what: What,
}

/// What was recorded. Its [`Display`](fmt::Display) is a line for each thing that happened: the connection, the time in
/// seconds, `>` for the client and `<` for the server, and the bytes as quoted ASCII, with `***` for each secret.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transcript {
    pub(super) entries: Vec<Entry>,
}

impl Transcript {
    /// Everything in its order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.entries.iter().map(|entry| entry.connection + 1).max().unwrap_or(0)
    }

    /// All that one side said on one connection, `***` for each secret.
    pub fn said(&self, connection: usize, side: Side) -> Vec<u8> {
        let entries = self.entries.iter().filter(|entry| entry.connection == connection && entry.side == side);
        let pieces = entries.filter_map(|entry| if let What::Said(pieces) = &entry.what { Some(pieces) } else { None });
        pieces.flatten().flat_map(|piece| piece.bytes().to_vec()).collect()
    }

    /// Writes it as text.
    pub fn save(&self, path: &Path) -> std::io::Result<()> {
        std::fs::write(path, self.to_string())
    }

    /// Reads what [`save`](Self::save) wrote.
    pub fn load(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Self::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Reads the text form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().enumerate();
        if lines.next().map(|(_, line)| line) != Some(HEAD) {
            return Err(format!("its first line is not {HEAD:?}"));
        }
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let entries = lines.map(|(n, line)| entry(line).ok_or_else(|| format!("line {}: {line}", n + 1)));
        Ok(Self { entries: entries.collect::<Result<_, _>>()? })
    }

    /// The server's side of one connection as a script: it expects what the client said, and says what the server said.
    /// Where the client's secret was hidden, it takes anything; the server's secrets are said as `***`.
    pub fn script(&self, connection: usize) -> Script {
        let mut script = Script::new();
        for (side, pieces) in self.turns(connection) {
            script = match side {
                Side::Server => script.send(pieces.iter().flat_map(|piece| piece.bytes().to_vec()).collect::<Vec<_>>()),
                Side::Client => expectations(script, &pieces),
            };
        }
        let ends = self.entries.iter().filter(|entry| entry.connection == connection);
        match ends.into_iter().find(|entry| !matches!(entry.what, What::Said(_))) {
            Some(Entry { side: Side::Client, .. }) => script.expect_close(),
            Some(Entry { what: What::Reset, .. }) => script.reset(),
            _ => script.close(),
        }
    }

    /// One script for each connection, in their order.
    pub fn scripts(&self) -> Vec<Script> {
        (0..self.connections()).map(|connection| self.script(connection)).collect()
    }

    /// The same for datagrams, each expected and said as a whole; hidden ones are taken as they come.
    pub fn datagrams(&self, connection: usize) -> Datagrams {
        let mut script = Datagrams::new();
        for entry in self.entries.iter().filter(|entry| entry.connection == connection) {
            let What::Said(pieces) = &entry.what else { continue };
            let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.bytes().to_vec()).collect();
            script = match entry.side {
                Side::Server => script.reply(bytes),
                Side::Client if pieces.contains(&Piece::Hidden) => script.take(),
                Side::Client => script.expect(bytes),
            };
        }
        script
    }

    /// What was said in turns: how a side's words were cut into writes is of no meaning.
    fn turns(&self, connection: usize) -> Vec<(Side, Vec<Piece>)> {
        let mut turns: Vec<(Side, Vec<Piece>)> = Vec::new();
        for entry in self.entries.iter().filter(|entry| entry.connection == connection) {
            let What::Said(pieces) = &entry.what else { continue };
            match turns.last_mut() {
                Some((side, before)) if *side == entry.side => before.extend(pieces.iter().cloned()),
                _ => turns.push((entry.side, pieces.clone())),
            }
        }
        turns.into_iter().map(|(side, pieces)| (side, joined(pieces))).collect()
    }
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Hidden => HIDDEN.as_bytes(),
        }
    }
}

fn joined(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut out: Vec<Piece> = Vec::new();
    for piece in pieces {
        match (out.last_mut(), piece) {
            (Some(Piece::Bytes(before)), Piece::Bytes(bytes)) => before.extend(bytes),
            (Some(Piece::Hidden), Piece::Hidden) => {}
            (_, piece) => out.push(piece),
        }
    }
    out
}

/// Expects these; a hidden piece ends where the first line of what follows it ends.
fn expectations(mut script: Script, pieces: &[Piece]) -> Script {
    let mut pieces = pieces.iter().peekable();
    while let Some(piece) = pieces.next() {
        script = match (piece, pieces.peek()) {
            (Piece::Bytes(bytes), _) => script.expect(bytes),
            (Piece::Hidden, Some(Piece::Bytes(after))) => {
                let end = after.iter().position(|byte| *byte == b'\n').map_or(after.len(), |at| at + 1);
                let (end, rest) = after.split_at(end);
                pieces.next();
                let script = script.expect_until(end);
                if rest.is_empty() { script } else { script.expect(rest) }
            }
            (Piece::Hidden, _) => script.expect_some(),
        };
    }
    script
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEAD}")?;
        for entry in &self.entries {
            let side = if entry.side == Side::Client { '>' } else { '<' };
            write!(f, "{} {}.{:06} {side}", entry.connection, entry.at.as_secs(), entry.at.subsec_micros())?;
            match &entry.what {
                What::Closed => f.write_str(" closed")?,
                What::Reset => f.write_str(" reset")?,
                What::Said(pieces) => {
                    for piece in pieces {
                        f.write_char(' ')?;
                        match piece {
                            Piece::Bytes(bytes) => write!(f, "\"{}\"", bytes.escape_ascii())?,
                            Piece::Hidden => f.write_str(HIDDEN)?,
                        }
                    }
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

fn entry(line: &str) -> Option<Entry> {
    let mut words = line.splitn(4, ' ');
    let connection = words.next()?.parse().ok()?;
    let (seconds, micros) = words.next()?.split_once('.')?;
    let at = Duration::new(seconds.parse().ok()?, micros.parse::<u32>().ok()?.checked_mul(1000)?);
    let side = match words.next()? {
        ">" => Side::Client,
        "<" => Side::Server,
        _ => return None,
    };
    let what = match words.next()? {
        "closed" => What::Closed,
        "reset" => What::Reset,
        said => What::Said(parse_pieces(said)?),
    };
    Some(Entry { at, connection, side, what })
}

fn parse_pieces(mut text: &str) -> Option<Vec<Piece>> {
    let mut out = Vec::new();
    while !text.is_empty() {
        text = match text.strip_prefix(HIDDEN) {
            Some(rest) => {
                out.push(Piece::Hidden);
                rest
            }
            None => {
                let (bytes, rest) = quoted(text.strip_prefix('"')?)?;
                out.push(Piece::Bytes(bytes));
                rest
            }
        };
        text = text.strip_prefix(' ').unwrap_or(text);
    }
    Some(out)
}

/// What `escape_ascii` wrote, up to the closing quote, and what comes behind it.
fn quoted(text: &str) -> Option<(Vec<u8>, &str)> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    loop {
        match rest {
            [b'"', ..] => return Some((out, text.get(text.len() - rest.len() + 1..)?)),
            [b'\\', b'x', a, b, after @ ..] => {
                let digit = |c: &u8| (*c as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                out.push(digit(a)? << 4 | digit(b)?);
                rest = after;
            }
            [b'\\', c, after @ ..] => {
                out.push(match c {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'\\' | b'"' | b'\'' => *c,
                    _ => return None,
                });
                rest = after;
            }
            [c, after @ ..] => {
                out.push(*c);
                rest = after;
            }
            [] => return None,
        }
    }
}
