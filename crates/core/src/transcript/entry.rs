//! What was recorded, and its text.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::info::TlsInfo;

/// The only version of the format so far.
const VERSION: u32 = 1;

/// What was recorded. Its text ([`Display`](fmt::Display), [`FromStr`]) is described in [`transcript`](super).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Transcript {
    entries: Vec<Entry>,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Entry {
    /// When, since the recorder was made.
    #[serde(with = "seconds")]
    pub at: Duration,
    /// On which connection, from 1.
    pub connection: u64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum What {
    /// A connection is there.
    Opened(Opening),
    /// We said something.
    Sent(#[serde(with = "pieces")] Vec<Piece>),
    /// The peer said something.
    Received(#[serde(with = "pieces")] Vec<Piece>),
    /// TLS began in mid-stream.
    Secured(TlsFacts),
    /// We said that we will say no more.
    Shutdown,
    /// The peer said that it will say no more.
    Ended,
    /// Reading failed: the connection was reset, or its TLS was cut off.
    Broken,
    /// Nothing more of this connection is written, and why.
    LeftOut(String),
    /// The connection is gone.
    Closed,
}

/// A connection that was made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Opening {
    /// Its target: host and port, or the path of a Unix socket.
    pub to: String,
    /// Whether it carries datagrams.
    #[serde(rename = "over", with = "over")]
    pub datagrams: bool,
    /// The address at the other end of our socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<SocketAddr>,
    /// The proxies, the nearest first, as kind and authority.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hops: Vec<String>,
    /// TLS, if it was begun before anything was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsFacts>,
}

/// What TLS agreed on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TlsFacts {
    /// `TLSv1.3`, `TLSv1.2`.
    pub version: String,
    /// The cipher suite.
    pub cipher: String,
    /// The application protocol, if one was agreed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpn: Option<String>,
}

/// A run of bytes, or the place of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Piece {
    /// Bytes as they were.
    Bytes(Vec<u8>),
    /// A secret of so many bytes; 0 where the length is not told.
    Hidden(usize),
}

/// Two runs as one.
pub(super) fn append(before: &mut Vec<Piece>, piece: Piece) {
    match (before.last_mut(), piece) {
        (Some(Piece::Bytes(bytes)), Piece::Bytes(more)) => bytes.extend(more),
        (Some(Piece::Hidden(length)), Piece::Hidden(more)) => *length = length.saturating_add(more),
        (_, piece) => before.push(piece),
    }
}

/// A piece in the file.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Coded { base64: Coded },
    Hidden { hidden: usize },
}

#[derive(Clone)]
struct Coded(Vec<u8>);

impl Serialize for Coded {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        STANDARD.encode(&self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Coded {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Coded).map_err(serde::de::Error::custom)
    }
}

impl From<Written> for Piece {
    fn from(written: Written) -> Self {
        match written {
            Written::Text(text) => Self::Bytes(text.into_bytes()),
            Written::Coded { base64 } => Self::Bytes(base64.0),
            Written::Hidden { hidden } => Self::Hidden(hidden),
        }
    }
}

impl From<&TlsInfo> for TlsFacts {
    fn from(info: &TlsInfo) -> Self {
        let alpn = info.alpn.as_ref().map(|alpn| String::from_utf8_lossy(alpn).into_owned());
        Self { version: info.version.to_owned(), cipher: info.cipher.clone(), alpn }
    }
}

impl From<&TlsFacts> for TlsInfo {
    fn from(facts: &TlsFacts) -> Self {
        let version = ["TLSv1.3", "TLSv1.2"].into_iter().find(|known| *known == facts.version).unwrap_or_default();
        let alpn = facts.alpn.as_ref().map(|alpn| alpn.clone().into_bytes());
        Self { version, cipher: facts.cipher.clone(), alpn, ..Self::default() }
    }
}

#[derive(Serialize, Deserialize)]
struct Head {
    portolan: String,
    version: u32,
}

impl Transcript {
    pub(super) fn new(entries: Vec<Entry>) -> Self {
        Self { entries }
    }

    /// Everything in its order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.entries.iter().filter(|entry| matches!(entry.what, What::Opened(_))).count()
    }

    /// Writes it to a file.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let failed = |error| Error::usage(format!("{} can't be written", path.display())).with_source(error);
        std::fs::write(path, self.to_string()).map_err(failed)
    }

    /// Reads what [`save`](Self::save) wrote.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let failed = |error| Error::usage(format!("{} can't be read", path.display())).with_source(error);
        let text = std::fs::read_to_string(path).map_err(failed)?;
        text.parse().map_err(|error: Error| Error::usage(format!("{}: {}", path.display(), error.message())))
    }
}

impl FromStr for Transcript {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let head = lines.next().and_then(|(_, line)| serde_json::from_str::<Head>(line).ok());
        match head {
            Some(Head { portolan, version: VERSION }) if portolan == "transcript" => {}
            Some(Head { portolan, version }) if portolan == "transcript" => {
                return Err(Error::usage(format!("a transcript of version {version}: this reads version {VERSION}")));
            }
            _ => return Err(Error::usage("no transcript: its first line doesn't say so")),
        }
        let entry = |(n, line): (usize, &str)| {
            serde_json::from_str(line).map_err(|error| Error::usage(format!("line {}: {error}", n + 1)))
        };
        Ok(Self { entries: lines.map(entry).collect::<Result<_>>()? })
    }
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = |_| fmt::Error;
        let head = Head { portolan: "transcript".into(), version: VERSION };
        writeln!(f, "{}", serde_json::to_string(&head).map_err(json)?)?;
        self.entries.iter().try_for_each(|entry| writeln!(f, "{}", serde_json::to_string(entry).map_err(json)?))
    }
}

/// Pieces with text and what is none told apart, so that text can be read wherever it stands.
mod pieces {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{Coded, Piece, Written, append};

    /// Text within other bytes that is shorter stays with them.
    const SHORTEST: usize = 4;

    pub(super) fn serialize<S: Serializer>(pieces: &[Piece], serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Hidden(hidden) => out.push(Written::Hidden { hidden: *hidden }),
                Piece::Bytes(bytes) => split(bytes, &mut out),
            }
        }
        serializer.collect_seq(out)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Piece>, D::Error> {
        let mut out = Vec::new();
        Vec::<Written>::deserialize(deserializer)?.into_iter().for_each(|piece| append(&mut out, piece.into()));
        Ok(out)
    }

    fn split(bytes: &[u8], out: &mut Vec<Written>) {
        let mut coded = Vec::new();
        let flush = |coded: &mut Vec<u8>, out: &mut Vec<Written>| {
            if !coded.is_empty() {
                out.push(Written::Coded { base64: Coded(std::mem::take(coded)) });
            }
        };
        for chunk in bytes.utf8_chunks() {
            let mut rest = chunk.valid();
            while !rest.is_empty() {
                let readable = |c: char| !c.is_control() || matches!(c, '\r' | '\n' | '\t');
                let end = rest.find(|c| !readable(c)).unwrap_or(rest.len());
                let (text, more) = rest.split_at(end);
                if text.len() >= SHORTEST || text.len() == bytes.len() {
                    flush(&mut coded, out);
                    out.push(Written::Text(text.to_owned()));
                } else {
                    coded.extend_from_slice(text.as_bytes());
                }
                let next = more.find(readable).unwrap_or(more.len());
                let (other, more) = more.split_at(next);
                coded.extend_from_slice(other.as_bytes());
                rest = more;
            }
            coded.extend_from_slice(chunk.invalid());
        }
        flush(&mut coded, out);
    }
}

/// Times as seconds, to the microsecond.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64((time.as_secs_f64() * 1e6).round() / 1e6)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// What a connection carries, as a word.
mod over {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(datagrams: &bool, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if *datagrams { "datagrams" } else { "stream" })
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "datagrams" => Ok(true),
            "stream" => Ok(false),
            other => Err(serde::de::Error::custom(format!("{other:?} is neither stream nor datagrams"))),
        }
    }
}
