//! Finds what must not be written down.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use memchr::memmem;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// Fields whose values are secret, whoever says them.
const HEADERS: &[&str] = &[
    "authorization:",
    "proxy-authorization:",
    "cookie:",
    "set-cookie:",
    "x-api-key:",
    "x-auth-token:",
    "authentication-info:",
];

/// Parameters of queries and forms, and members of JSON, whose values are secret, whoever says them.
const PARAMETERS: &[&str] = &[
    "password",
    "passwd",
    "secret",
    "client_secret",
    "access_token",
    "refresh_token",
    "id_token",
    "api_key",
    "apikey",
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

/// Who spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Side {
    /// Who connected.
    Client,
    /// Who was connected to.
    Server,
}

type Rule = Arc<dyn Fn(Side, &[u8]) -> Vec<Range<usize>> + Send + Sync>;

/// What a recording leaves out.
///
/// By itself it knows the usual places: the fields `Authorization`, `Proxy-Authorization`, `Cookie`, `Set-Cookie`, `X-Api-Key` and their like;
/// parameters and JSON members such as `password` and `access_token`; `AUTH`, `PASS`, `LOGIN` and the answers of a SASL login, as mail protocols
/// have them; Redis's `AUTH`; XMPP's `<auth>`. It looks at each side's bytes as one run, so a secret that is split over several writes is found
/// too. The rest you must say.
#[derive(Clone)]
pub struct Redact {
    literals: Vec<Zeroizing<Vec<u8>>>,
    rules: Vec<Rule>,
    patterns: bool,
}

impl Default for Redact {
    fn default() -> Self {
        Self { literals: Vec::new(), rules: Vec::new(), patterns: true }
    }
}

impl fmt::Debug for Redact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redact")
            .field("literals", &self.literals.len())
            .field("rules", &self.rules.len())
            .field("patterns", &self.patterns)
            .finish()
    }
}

impl Redact {
    /// What stands in the usual places.
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves this out wherever it stands, as it is, percent-encoded and inside Base64. Less than three bytes are not looked for.
    #[must_use]
    pub fn secret(self, secret: &Secret) -> Self {
        self.literal(secret.expose().as_bytes())
    }

    /// The same for bytes.
    #[must_use]
    pub fn literal(mut self, secret: impl AsRef<[u8]>) -> Self {
        let secret = secret.as_ref();
        if secret.len() >= SHORTEST {
            if let Ok(text) = std::str::from_utf8(secret) {
                self.literals.push(Zeroizing::new(crate::url::percent_encode(text).into_bytes()));
            }
            self.literals.extend((0..3).filter_map(|lead| in_base64(secret, lead)).map(Zeroizing::new));
            self.literals.push(Zeroizing::new(secret.to_vec()));
        }
        self
    }

    /// Leaves out what this says: it is given all that one side said on one connection, and gives the ranges to hide.
    #[must_use]
    pub fn rule(mut self, rule: impl Fn(Side, &[u8]) -> Vec<Range<usize>> + Send + Sync + 'static) -> Self {
        self.rules.push(Arc::new(rule));
        self
    }

    /// What gives secrets away.
    #[must_use]
    pub fn dangerous(self) -> DangerousRedact {
        DangerousRedact(self)
    }

    /// What is to be hidden of one connection's bytes, given in their order: ranges of all that the client said, and of all that the
    /// server said, sorted and apart.
    pub fn hidden<'a>(&self, said: impl IntoIterator<Item = (Side, &'a [u8])>) -> [Vec<Range<usize>>; 2] {
        let (mut client, mut server) = (Run::default(), Run::default());
        for (turn, (side, bytes)) in said.into_iter().enumerate() {
            let run = if side == Side::Client { &mut client } else { &mut server };
            run.bytes.extend_from_slice(bytes);
            run.ends.push((turn, run.bytes.len()));
        }
        let mut ranges = [Vec::new(), Vec::new()];
        for ((side, run), ranges) in [(Side::Client, &client), (Side::Server, &server)].into_iter().zip(&mut ranges) {
            for literal in &self.literals {
                ranges.extend(memmem::find_iter(&run.bytes, &***literal).map(|at| at..at + literal.len()));
            }
            for rule in &self.rules {
                // A rule that points outside hides as much as there is.
                let within = |range: Range<usize>| range.start..range.end.min(run.bytes.len());
                ranges.extend(rule(side, &run.bytes).into_iter().map(within));
            }
            if self.patterns {
                headers(run, ranges);
                parameters(&run.bytes, ranges);
                tags(&run.bytes, ranges);
            }
        }
        if self.patterns {
            let [hidden, _] = &mut ranges;
            commands(&client, hidden);
            resp(&client.bytes, hidden);
            sasl(&client, &server, hidden);
        }
        ranges.map(merged)
    }
}

/// What gives secrets away.
#[derive(Debug)]
pub struct DangerousRedact(Redact);

impl DangerousRedact {
    /// Looks at no usual place: what is hidden is what was named. Whoever reads the transcript can act as you.
    #[must_use]
    pub fn with_secrets(mut self) -> Redact {
        self.0.patterns = false;
        self.0
    }
}

/// All that one side said, and where each turn ends in it.
#[derive(Default)]
struct Run {
    bytes: Vec<u8>,
    /// The turn's number among those of both sides, and its end.
    ends: Vec<(usize, usize)>,
}

impl Run {
    fn of(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
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

    /// The turn in which the byte at `at` was said.
    fn turn(&self, at: usize) -> usize {
        let next = self.ends.partition_point(|(_, end)| *end <= at);
        self.ends.get(next).map_or(usize::MAX, |(turn, _)| *turn)
    }

    /// The first words of a line, with where they stand.
    fn words(&self, line: &Range<usize>) -> Vec<Range<usize>> {
        let mut from = line.start;
        let words = self.of(line).split(|byte| *byte == b' ').map(|word| {
            let start = from;
            from += word.len() + 1;
            start..start + word.len()
        });
        words.filter(|word| !word.is_empty()).take(4).collect()
    }

    fn is(&self, word: Option<&Range<usize>>, names: &[&str]) -> bool {
        word.is_some_and(|word| names.iter().any(|name| self.of(word).eq_ignore_ascii_case(name.as_bytes())))
    }
}

fn headers(run: &Run, out: &mut Vec<Range<usize>>) {
    for line in run.lines() {
        let text = run.of(&line);
        let starts = |header: &&&str| {
            text.get(..header.len()).is_some_and(|start| start.eq_ignore_ascii_case(header.as_bytes()))
        };
        if let Some(header) = HEADERS.iter().find(starts) {
            let value = text.get(header.len()..).unwrap_or_default();
            let blank = value.iter().take_while(|byte| **byte == b' ').count();
            out.push(line.start + header.len() + blank..line.end);
        }
    }
}

/// Passwords in commands: `PASS x`, `AUTH [MECHANISM] x`, IMAP's `tag LOGIN user x`.
fn commands(run: &Run, out: &mut Vec<Range<usize>>) {
    for line in run.lines() {
        let words = run.words(&line);
        // An IMAP command has its tag in front.
        for first in 0..2 {
            let from = if run.is(words.get(first), &["PASS"]) || first == 1 && run.is(words.get(1), &["LOGIN"]) {
                words.get(first + 1)
            } else if run.is(words.get(first), &["AUTH", "AUTHENTICATE"]) {
                let named = run.is(words.get(first + 1), MECHANISMS);
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
            let text = server.of(&line);
            (server.turn(line.end - 1), text.starts_with(b"334") || text.starts_with(b"+ ") || text == b"+")
        })
        .collect();
    let mut since = None;
    for line in client.lines().filter(|line| !line.is_empty()) {
        let now = client.turn(line.start);
        if let Some(from) = since {
            let last = replies.iter().rfind(|(turn, _)| (from..now).contains(turn));
            if last.is_some_and(|(_, challenge)| *challenge) {
                out.push(line.clone());
                since = Some(now);
                continue;
            }
            since = None;
        }
        let words = client.words(&line);
        if (0..2).any(|first| client.is(words.get(first), &["AUTH", "AUTHENTICATE"])) {
            since = Some(now);
        }
    }
}

/// What follows `AUTH` in an array of RESP (`AUTH x`, `HELLO 3 AUTH user x`), with its length.
fn resp(bytes: &[u8], out: &mut Vec<Range<usize>>) {
    let number = |at: usize, mark: u8| -> Option<(usize, usize)> {
        let rest = bytes.get(at..)?.strip_prefix(&[mark])?;
        let end = rest.windows(2).take(12).position(|two| two == b"\r\n")?;
        let number = std::str::from_utf8(rest.get(..end)?).ok()?.parse().ok()?;
        Some((number, at + 1 + end + 2))
    };
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'*', bytes.get(at..).unwrap_or_default()) {
        at += found;
        let Some((count, mut next)) = number(at, b'*') else {
            at += 1;
            continue;
        };
        let mut secret = false;
        for _ in 0..count {
            let Some((len, start)) = number(next, b'$') else { break };
            let Some(word) = start.checked_add(len).and_then(|end| bytes.get(start..end)) else { break };
            if secret {
                out.push(next + 1..start - 2);
                out.push(start..start + len);
            }
            secret |= word.eq_ignore_ascii_case(b"AUTH");
            next = start + len + 2;
        }
        at = next.max(at + 1);
    }
}

/// `name=value` in queries and forms, `"name": "value"` in JSON.
fn parameters(bytes: &[u8], out: &mut Vec<Range<usize>>) {
    for name in PARAMETERS {
        for at in memmem::find_iter(bytes, name) {
            let after = at + name.len();
            let before = at.checked_sub(1).and_then(|at| bytes.get(at)).copied();
            let rest = bytes.get(after..).unwrap_or_default();
            let (start, end) = if let Some(value) = rest.strip_prefix(b"=") {
                if before.is_some_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
                    continue;
                }
                let ends =
                    |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'&' | b';' | b'#' | b'"' | b'\'' | b'<');
                (after + 1, value.iter().position(ends).unwrap_or(value.len()))
            } else if let Some(rest) = rest.strip_prefix(b"\"").filter(|_| before == Some(b'"')) {
                let blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == b':';
                let skipped = rest.iter().take_while(|byte| blank(byte)).count();
                let Some(value) = rest.get(skipped..).and_then(|rest| rest.strip_prefix(b"\"")) else { continue };
                let mut escaped = false;
                let end = value.iter().position(|byte| {
                    let closes = *byte == b'"' && !escaped;
                    escaped = *byte == b'\\' && !escaped;
                    closes
                });
                (after + 1 + skipped + 1, end.unwrap_or(value.len()))
            } else {
                continue;
            };
            out.push(start..start + end);
        }
    }
}

/// XMPP's `<auth>x</auth>` and `<response>x</response>`.
fn tags(bytes: &[u8], out: &mut Vec<Range<usize>>) {
    for tag in [&b"<auth"[..], b"<response"] {
        for open in memmem::find_iter(bytes, tag) {
            let rest = bytes.get(open..).unwrap_or_default();
            let Some(close) = memchr::memchr(b'>', rest) else { break };
            let value = rest.get(close + 1..).unwrap_or_default();
            let end = memchr::memchr(b'<', value).unwrap_or(value.len());
            let is_empty = close.checked_sub(1).and_then(|at| rest.get(at)) == Some(&b'/');
            if end > 0 && !is_empty {
                out.push(open + close + 1..open + close + 1 + end);
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

/// What of this secret is always the same in Base64 when `lead` bytes (modulo 3) stand before it.
fn in_base64(secret: &[u8], lead: usize) -> Option<Vec<u8>> {
    let led = Zeroizing::new([vec![0; lead].as_slice(), secret].concat());
    let whole = Zeroizing::new(STANDARD_NO_PAD.encode(&*led));
    // A character stands for six bits: those of the bytes before, and what is left at the end, may be others.
    let text = whole.as_bytes().get((lead * 8).div_ceil(6)..led.len() * 8 / 6)?.to_vec();
    (text.len() >= SHORTEST).then_some(text)
}
