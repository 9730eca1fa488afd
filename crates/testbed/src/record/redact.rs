//! Finds what must not be written down.

use std::fmt;
use std::ops::Range;

use super::transcript::{Entry, Piece, Side, What};
use super::{Raw, RawWhat};

/// Lines whose rest is secret, whoever says them.
const HEADERS: &[&str] = &[
    "authorization:",
    "proxy-authorization:",
    "cookie:",
    "set-cookie:",
    "x-api-key:",
    "x-auth-token:",
    "authentication-info:",
];

/// Mechanisms of SASL: names, and no passwords.
const MECHANISMS: &[&str] = &[
    "PLAIN",
    "LOGIN",
    "EXTERNAL",
    "ANONYMOUS",
    "CRAM-MD5",
    "DIGEST-MD5",
    "SCRAM-SHA-1",
    "SCRAM-SHA-256",
    "SCRAM-SHA-512",
    "SCRAM-SHA-1-PLUS",
    "SCRAM-SHA-256-PLUS",
    "OAUTHBEARER",
    "XOAUTH2",
    "GSSAPI",
    "GSS-SPNEGO",
    "NTLM",
    "TLS",
    "SSL",
];

/// Literal secrets shorter than this are not looked for: they would be found everywhere.
const SHORTEST: usize = 3;

/// What a recording leaves out.
#[derive(Clone)]
pub struct Redact {
    literals: Vec<Vec<u8>>,
    patterns: bool,
}

impl Default for Redact {
    /// What stands in the usual places of passwords.
    fn default() -> Self {
        Self { literals: Vec::new(), patterns: true }
    }
}

impl fmt::Debug for Redact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redact").field("literals", &self.literals.len()).field("patterns", &self.patterns).finish()
    }
}

impl Redact {
    /// Leaves nothing out: for conversations that have no secrets, or that must be replayed to the byte.
    pub fn nothing() -> Self {
        Self { literals: Vec::new(), patterns: false }
    }

    /// Leaves this out too (at least three bytes), as it is and inside Base64.
    #[must_use]
    pub fn secret(mut self, secret: impl AsRef<[u8]>) -> Self {
        let secret = secret.as_ref();
        assert!(secret.len() >= SHORTEST, "a secret that short would be found everywhere");
        self.literals.push(secret.to_vec());
        self.literals.extend((0..3).filter_map(|lead| in_base64(secret, lead)));
        self
    }

    /// What remains to be written down.
    pub(crate) fn apply(&self, raw: &[Raw]) -> Vec<Entry> {
        let connections = raw.iter().map(|raw| raw.connection + 1).max().unwrap_or(0);
        let mut hidden = Vec::new();
        for connection in 0..connections {
            let [client, server] = [Side::Client, Side::Server].map(|side| Run::new(raw, connection, side));
            let mut ranges = [Vec::new(), Vec::new()];
            for (run, ranges) in [&client, &server].into_iter().zip(&mut ranges) {
                self.literals.iter().for_each(|literal| find(&run.bytes, literal, ranges));
                if self.patterns {
                    lines(run, ranges);
                    resp(&run.bytes, ranges);
                    tags(&run.bytes, ranges);
                }
            }
            if self.patterns {
                sasl(&client, &server, &mut ranges[0]);
            }
            hidden.push(ranges.map(merged));
        }
        write_down(raw, &hidden)
    }
}

/// All that one side said, and from where to where each entry goes.
struct Run {
    bytes: Vec<u8>,
    /// The entry's place in the recording, and its end in `bytes`.
    ends: Vec<(usize, usize)>,
}

impl Run {
    fn new(raw: &[Raw], connection: usize, side: Side) -> Self {
        let mut run = Self { bytes: Vec::new(), ends: Vec::new() };
        for (place, entry) in raw.iter().enumerate() {
            if let RawWhat::Said(bytes) = &entry.what
                && (entry.connection, entry.side) == (connection, side)
            {
                run.bytes.extend_from_slice(bytes);
                run.ends.push((place, run.bytes.len()));
            }
        }
        run
    }

    /// Lines without their ends.
    fn lines(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let mut from = 0;
        self.bytes.split_inclusive(|byte| *byte == b'\n').map(move |line| {
            let start = from;
            from += line.len();
            let end = line.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(start, |at| start + at + 1);
            start..end
        })
    }

    /// When the byte at `at` was said: its entry's place in the recording.
    fn place(&self, at: usize) -> usize {
        self.ends.iter().find(|(_, end)| at < *end).map_or(usize::MAX, |(place, _)| *place)
    }
}

fn find(bytes: &[u8], needle: &[u8], out: &mut Vec<Range<usize>>) {
    let mut from = 0;
    while let Some(at) = bytes[from..].windows(needle.len()).position(|window| window == needle) {
        out.push(from + at..from + at + needle.len());
        from += at + needle.len();
    }
}

/// The words of a line, with where they stand.
fn words(bytes: &[u8], line: &Range<usize>) -> Vec<Range<usize>> {
    let mut out: Vec<Range<usize>> = Vec::new();
    for at in line.clone() {
        match (bytes[at] == b' ', out.last_mut()) {
            (true, _) => {}
            (false, Some(word)) if word.end == at => word.end += 1,
            (false, _) => out.push(at..at + 1),
        }
    }
    out
}

fn is(bytes: &[u8], word: Option<&Range<usize>>, names: &[&str]) -> bool {
    word.is_some_and(|word| names.iter().any(|name| bytes[word.clone()].eq_ignore_ascii_case(name.as_bytes())))
}

/// Passwords in lines: headers, `PASS x`, `AUTH [MECHANISM] x`, IMAP's `tag LOGIN user x`.
fn lines(run: &Run, out: &mut Vec<Range<usize>>) {
    for line in run.lines() {
        let text = &run.bytes[line.clone()];
        if let Some(header) = HEADERS
            .iter()
            .find(|header| text.get(..header.len()).is_some_and(|start| start.eq_ignore_ascii_case(header.as_bytes())))
        {
            let blank = text[header.len()..].iter().take_while(|byte| **byte == b' ').count();
            out.push(line.start + header.len() + blank..line.end);
            continue;
        }
        let words = words(&run.bytes, &line);
        // An IMAP command has its tag in front.
        for first in 0..2 {
            let from = if is(&run.bytes, words.get(first), &["PASS"])
                || first == 1 && is(&run.bytes, words.get(1), &["LOGIN"])
            {
                words.get(first + 1)
            } else if is(&run.bytes, words.get(first), &["AUTH", "AUTHENTICATE"]) {
                let named = is(&run.bytes, words.get(first + 1), MECHANISMS);
                words.get(if named { first + 2 } else { first + 1 })
            } else {
                None
            };
            if let Some(from) = from {
                out.push(from.start..line.end);
                break;
            }
        }
    }
}

/// The client's lines that answer a challenge after `AUTH`: `334` in SMTP, `+` elsewhere.
fn sasl(client: &Run, server: &Run, out: &mut Vec<Range<usize>>) {
    let replies: Vec<(usize, bool)> = server
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| {
            let text = &server.bytes[line.clone()];
            (server.place(line.end - 1), text.starts_with(b"334") || text.starts_with(b"+ ") || text == b"+")
        })
        .collect();
    let mut since = None;
    for line in client.lines().filter(|line| !line.is_empty()) {
        let now = client.place(line.start);
        let words = words(&client.bytes, &line);
        if let Some(from) = since {
            let last = replies.iter().rfind(|(place, _)| (from..now).contains(place));
            if last.is_some_and(|(_, challenge)| *challenge) {
                out.push(line.clone());
                since = Some(now);
                continue;
            }
            since = None;
        }
        if (0..2).any(|first| is(&client.bytes, words.get(first), &["AUTH", "AUTHENTICATE"])) {
            since = Some(now);
        }
    }
}

/// What follows `AUTH` in an array of RESP (`AUTH x`, `HELLO 3 AUTH user x`).
fn resp(bytes: &[u8], out: &mut Vec<Range<usize>>) {
    let number = |at: usize, mark: u8| -> Option<(usize, usize)> {
        let rest = bytes.get(at..)?.strip_prefix(&[mark])?;
        let end = rest.windows(2).take(12).position(|two| two == b"\r\n")?;
        let number = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
        Some((number, at + 1 + end + 2))
    };
    let mut at = 0;
    while at < bytes.len() {
        let Some((count, mut next)) = number(at, b'*') else {
            at += 1;
            continue;
        };
        let mut secret = false;
        for _ in 0..count {
            let Some((len, start)) = number(next, b'$') else { break };
            let Some(end) = start.checked_add(len).filter(|end| *end <= bytes.len()) else { break };
            if secret && len > 0 {
                out.push(start..end);
            }
            secret |= bytes[start..end].eq_ignore_ascii_case(b"AUTH");
            next = end + 2;
        }
        at = next.max(at + 1);
    }
}

/// XMPP's `<auth>x</auth>` and `<response>x</response>`.
fn tags(bytes: &[u8], out: &mut Vec<Range<usize>>) {
    for tag in [&b"<auth"[..], b"<response"] {
        let mut opened = Vec::new();
        find(bytes, tag, &mut opened);
        for open in opened {
            let Some(start) = bytes[open.end..].iter().position(|byte| *byte == b'>') else { continue };
            let start = open.end + start + 1;
            let end = bytes[start..].iter().position(|byte| *byte == b'<').map_or(bytes.len(), |at| start + at);
            if end > start && bytes[start - 2] != b'/' {
                out.push(start..end);
            }
        }
    }
}

fn merged(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_by_key(|range| range.start);
    let mut out: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match out.last_mut() {
            Some(before) if range.start <= before.end => before.end = before.end.max(range.end),
            _ => out.push(range),
        }
    }
    out
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

/// What of this secret is always the same in Base64 when `lead` bytes (modulo 3) stand before it.
fn in_base64(secret: &[u8], lead: usize) -> Option<Vec<u8>> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits = |at: usize| -> Option<u8> {
        let byte = secret.get((at / 8).checked_sub(lead)?)?;
        Some(byte >> (7 - at % 8) & 1)
    };
    let sixes = (0..(lead + secret.len()) * 8 / 6).filter_map(|six| {
        let value = (0..6).try_fold(0u8, |value, bit| Some(value << 1 | bits(six * 6 + bit)?))?;
        Some(ALPHABET[usize::from(value)])
    });
    let text: Vec<u8> = sixes.collect();
    (text.len() >= SHORTEST).then_some(text)
}
