//! `known_hosts` files as OpenSSH writes them (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use portolan_wire::DecodeError;
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// What a file may measure: that of a large fleet has some megabytes.
const MAX_FILE: usize = 64 << 20;

/// The default port, which a file does not name.
pub(super) const PORT: u16 = 22;

/// The lines of one `known_hosts` file. A line that is none is passed over, as OpenSSH does.
///
/// ```
/// use portolan_remote_access::ssh::KnownHosts;
///
/// let known = KnownHosts::decode(b"# mine\n*.example,!b.example ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJfkNV4OS33ImTXvorZr72q4v5XhVEQKfvqsxOEJ/XaR\n")?;
/// assert_eq!((known.len(), known.knows("a.example", 22), known.knows("b.example", 22)), (1, true, false));
/// # Ok::<(), portolan_wire::DecodeError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct KnownHosts {
    lines: Vec<Line>,
}

#[derive(Debug, Clone)]
struct Line {
    number: usize,
    marker: Marker,
    hosts: Vec<Pattern>,
    kind: Box<str>,
    key: Box<[u8]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    None,
    Authority,
    Revoked,
}

#[derive(Clone)]
enum Pattern {
    Glob { text: Box<str>, negated: bool },
    Hashed { salt: Box<[u8]>, hash: Box<[u8]> },
}

/// What a file says of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Known,
    Revoked {
        line: usize,
    },
    /// The host has another key of this type.
    Changed {
        line: usize,
        fingerprint: String,
    },
    /// The host is known by keys of other types alone.
    OtherType {
        line: usize,
        fingerprint: String,
    },
    Unknown,
}

impl KnownHosts {
    /// Reads a file. It fails only where there is more of it than anybody has.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_FILE {
            return Err(DecodeError::too_long("known_hosts", MAX_FILE));
        }
        let lines = bytes.split(|b| *b == b'\n').enumerate();
        let lines = lines.filter_map(|(at, line)| Line::decode(at + 1, std::str::from_utf8(line).ok()?));
        Ok(Self { lines: lines.collect() })
    }

    /// How many keys it holds.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether there is a key of this host's.
    pub fn knows(&self, host: &str, port: u16) -> bool {
        self.of(&name(host, port), Marker::None).next().is_some()
    }

    /// The types of this host's keys, such as `ssh-ed25519`.
    pub fn key_types(&self, host: &str, port: u16) -> impl Iterator<Item = &str> {
        let name = name(host, port);
        self.lines.iter().filter(move |line| line.marker == Marker::None && line.matches(&name)).map(|line| &*line.kind)
    }

    fn of<'a>(&'a self, name: &'a str, marker: Marker) -> impl Iterator<Item = &'a Line> {
        self.lines.iter().filter(move |line| line.marker == marker && line.matches(name))
    }

    /// What the file says of the key `blob`, as it is on the wire.
    pub(super) fn check(&self, host: &str, port: u16, blob: &[u8]) -> Verdict {
        let own = name(host, port);
        if let Some(line) = self.revoked(host, port, blob) {
            return Verdict::Revoked { line };
        }
        if self.of(&own, Marker::None).any(|line| *line.key == *blob) {
            return Verdict::Known;
        }
        let kind = key_type(blob).unwrap_or_default();
        if let Some(line) = self.of(&own, Marker::None).find(|line| *line.kind == *kind) {
            return Verdict::Changed { line: line.number, fingerprint: fingerprint(&line.key) };
        }
        if let Some(line) = self.of(&own, Marker::None).next() {
            return Verdict::OtherType { line: line.number, fingerprint: fingerprint(&line.key) };
        }
        // As OpenSSH does: the host's key at its usual port says who it is at this one too.
        if port != PORT && self.of(&name(host, PORT), Marker::None).any(|line| *line.key == *blob) {
            return Verdict::Known;
        }
        Verdict::Unknown
    }

    /// The line by which a key is revoked for this host.
    pub(super) fn revoked(&self, host: &str, port: u16, blob: &[u8]) -> Option<usize> {
        let own = name(host, port);
        self.of(&own, Marker::Revoked).find(|line| *line.key == *blob).map(|line| line.number)
    }

    /// Whether certificates of this host's may be signed by the key `blob`, or with none by any at all.
    pub(super) fn authority(&self, host: &str, port: u16, blob: Option<&[u8]>) -> bool {
        let own = name(host, port);
        self.of(&own, Marker::Authority).any(|line| blob.is_none_or(|blob| *line.key == *blob))
    }
}

impl Line {
    fn decode(number: usize, text: &str) -> Option<Self> {
        let mut fields = text.split_ascii_whitespace();
        let mut first = fields.next()?;
        if first.starts_with('#') {
            return None;
        }
        let marker = match first {
            "@cert-authority" => Marker::Authority,
            "@revoked" => Marker::Revoked,
            // A mark that nobody knows may take trust away.
            other if other.starts_with('@') => return None,
            _ => Marker::None,
        };
        if marker != Marker::None {
            first = fields.next()?;
        }
        let (kind, key) = (fields.next()?, decode64(fields.next()?)?);
        if key_type(&key)? != kind {
            return None;
        }
        let hosts: Vec<_> = first.split(',').filter_map(Pattern::decode).collect();
        Some(Self { number, marker, hosts, kind: kind.into(), key: key.into() })
    }

    fn matches(&self, name: &str) -> bool {
        let mut found = false;
        for pattern in &self.hosts {
            match pattern {
                Pattern::Glob { text, negated } if glob(text, name) => {
                    if *negated {
                        return false;
                    }
                    found = true;
                }
                Pattern::Hashed { salt, hash } if hashed(salt, hash, name) => found = true,
                _ => {}
            }
        }
        found
    }
}

impl Pattern {
    fn decode(text: &str) -> Option<Self> {
        if let Some(hashed) = text.strip_prefix("|1|") {
            let (salt, hash) = hashed.split_once('|')?;
            return Some(Self::Hashed { salt: decode64(salt)?.into(), hash: decode64(hash)?.into() });
        }
        let (negated, text) = text.strip_prefix('!').map_or((false, text), |text| (true, text));
        (!text.is_empty()).then(|| Self::Glob { text: text.to_ascii_lowercase().into(), negated })
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Glob { text, negated } => write!(f, "{}{text}", if *negated { "!" } else { "" }),
            Self::Hashed { .. } => f.write_str("|1|.."),
        }
    }
}

/// How a host stands in a file.
pub(super) fn name(host: &str, port: u16) -> String {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    if port == PORT { host } else { format!("[{host}]:{port}") }
}

/// The type that a key on the wire begins with (RFC 4253 6.6).
pub(super) fn key_type(blob: &[u8]) -> Option<&str> {
    let (length, rest) = blob.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    std::str::from_utf8(rest.get(..length)?).ok()
}

/// `SHA256:..`, as OpenSSH shows it.
pub(super) fn fingerprint(blob: &[u8]) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(blob)))
}

/// The line by which a file knows a host.
pub(super) fn line(host: &str, port: u16, blob: &[u8]) -> String {
    format!("{} {} {}\n", name(host, port), key_type(blob).unwrap_or_default(), STANDARD.encode(blob))
}

fn decode64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

fn hashed(salt: &[u8], hash: &[u8], name: &str) -> bool {
    Hmac::<Sha1>::new_from_slice(salt).is_ok_and(|mac| mac.chain_update(name).verify_slice(hash).is_ok())
}

/// `*` is any text and `?` any one byte. Takes time by the product of both lengths at most.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where the last star stands, and what it has taken so far.
    let mut star = None;
    loop {
        match (pattern.get(p), text.get(t)) {
            (None, None) => return true,
            (Some(b'*'), _) => {
                star = Some((p + 1, t));
                p += 1;
            }
            (Some(b'?'), Some(_)) => (p, t) = (p + 1, t + 1),
            (Some(a), Some(b)) if a == b => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((after, taken)) if taken < text.len() => {
                    star = Some((after, taken + 1));
                    (p, t) = (after, taken + 1);
                }
                _ => return false,
            },
        }
    }
}
