//! A proxy's answer: its head, and the end of a body that stands between us and the next answer.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::AsyncReadExt;

use super::super::{lost, refused};
use crate::clock;
use crate::error::{Error, Phase, Result};
use crate::stream::Stream;

/// The bytes of a proxy's answer up to the empty line: real ones need a few hundred.
const MAX_HEAD: usize = 64 * 1024;

/// The bytes of a refusal's body that are read for the sake of its connection: error pages have a few KiB.
const MAX_BODY: usize = 1024 * 1024;

/// How long such a body is waited for: a new connection is cheaper than a trickle.
const BODY_WAIT: Duration = Duration::from_secs(2);

/// The final head, and what came after it.
pub(super) struct Answer {
    pub(super) head: Head,
    pub(super) rest: BytesMut,
}

/// A status line and fields.
pub(super) struct Head {
    pub(super) code: u16,
    pub(super) reason: String,
    minor: u8,
    fields: Vec<(String, String)>,
}

impl Answer {
    /// Reads heads until one is final; nothing where the proxy closed without a byte.
    pub(super) async fn read(stream: &mut Stream) -> Result<Option<Self>> {
        let mut rest = BytesMut::new();
        let mut begun = false;
        loop {
            let head = loop {
                if let Some(end) = memchr::memmem::find(&rest, b"\r\n\r\n") {
                    break rest.split_to(end + 4);
                }
                if rest.len() > MAX_HEAD {
                    return Err(refused(format!("an answer of more than {MAX_HEAD} bytes without an end")));
                }
                let n = stream.read_buf(&mut rest).await.map_err(|error| lost(error, "while it answered"))?;
                if n == 0 && !begun {
                    return Ok(None);
                }
                if n == 0 {
                    return Err(refused("the proxy closed while it answered"));
                }
                begun = true;
                // Another protocol's greeting may never hold an empty line.
                if !rest.iter().zip(b"HTTP/").all(|(seen, expected)| seen == expected) {
                    return Err(no_status(&rest));
                }
            };
            let head = Head::parse(&head)?;
            if !(100..200).contains(&head.code) {
                return Ok(Some(Self { head, rest }));
            }
        }
    }

    /// Reads the body to its end; whether the connection can carry another request then.
    pub(super) async fn finish(&mut self, stream: &mut Stream) -> bool {
        let Some(body) = self.head.body() else { return false };
        let work = async { Ok(body.skip(stream, &mut self.rest).await) };
        let done = clock::within(Some(BODY_WAIT), Phase::Hop, work).await.unwrap_or(None).is_some();
        // What follows the body was not asked for: nobody knows what it would answer.
        done && self.rest.is_empty()
    }
}

/// Whoever answered speaks something else.
fn no_status(said: &[u8]) -> Error {
    let line = said.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let seen = String::from_utf8_lossy(line.get(..60).unwrap_or(line));
    refused(format!("expected an HTTP status line, saw {seen:?}"))
}

/// How a body ends, where its connection lives on.
enum Body {
    Length(usize),
    Chunked,
}

impl Head {
    fn parse(head: &[u8]) -> Result<Self> {
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let (minor, code, reason) = status(line).ok_or_else(|| no_status(line))?;
        let text = String::from_utf8_lossy(head);
        let fields = text.lines().skip(1).filter_map(|line| line.split_once(':'));
        let fields = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        Ok(Self { code, reason: reason.to_owned(), minor, fields })
    }

    /// The values of a field, whose name is in lower case.
    pub(super) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn has(&self, name: &str, word: &str) -> bool {
        self.values(name).flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case(word))
    }

    /// The body's end; nothing where the connection ends with it, or where nobody can say.
    fn body(&self) -> Option<Body> {
        let says = |word| self.has("connection", word) || self.has("proxy-connection", word);
        if says("close") || (self.minor == 0 && !says("keep-alive")) {
            return None;
        }
        let mut lengths = self.values("content-length");
        let mut codings = self.values("transfer-encoding");
        match (lengths.next(), codings.next()) {
            (None, Some(coding)) if coding.eq_ignore_ascii_case("chunked") && codings.next().is_none() => {
                Some(Body::Chunked)
            }
            (Some(length), None) if lengths.all(|other| other == length) => {
                let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
                length.parse().ok().filter(|length| digits && *length <= MAX_BODY).map(Body::Length)
            }
            _ => None,
        }
    }
}

impl Body {
    /// Skips it, of which `buf` is the beginning; nothing where it ends too early, is broken or too long.
    async fn skip(self, stream: &mut Stream, buf: &mut BytesMut) -> Option<()> {
        let mut room = MAX_BODY;
        match self {
            Self::Length(length) => skip(stream, buf, length, &mut room).await,
            Self::Chunked => {
                loop {
                    let line = line(stream, buf, &mut room).await?;
                    let size = line[..].split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
                    let size = std::str::from_utf8(size).ok().filter(|size| !size.starts_with('+'))?;
                    match usize::from_str_radix(size, 16).ok()? {
                        0 => break,
                        size => skip(stream, buf, size.checked_add(2)?, &mut room).await?,
                    }
                }
                // Trailers.
                while !line(stream, buf, &mut room).await?.is_empty() {}
                Some(())
            }
        }
    }
}

async fn more(stream: &mut Stream, buf: &mut BytesMut) -> Option<()> {
    stream.read_buf(buf).await.ok().filter(|n| *n > 0).map(|_| ())
}

async fn skip(stream: &mut Stream, buf: &mut BytesMut, mut length: usize, room: &mut usize) -> Option<()> {
    *room = room.checked_sub(length)?;
    loop {
        let n = length.min(buf.len());
        buf.advance(n);
        length -= n;
        if length == 0 {
            return Some(());
        }
        more(stream, buf).await?;
    }
}

async fn line(stream: &mut Stream, buf: &mut BytesMut, room: &mut usize) -> Option<BytesMut> {
    loop {
        if let Some(end) = memchr::memmem::find(buf, b"\r\n") {
            *room = room.checked_sub(end + 2)?;
            let mut line = buf.split_to(end + 2);
            line.truncate(end);
            return Some(line);
        }
        if buf.len() > MAX_HEAD {
            return None;
        }
        more(stream, buf).await?;
    }
}

/// Minor version, code and reason of `HTTP/1.1 200 OK`, `HTTP/2 200`.
fn status(line: &[u8]) -> Option<(u8, u16, &str)> {
    let line = std::str::from_utf8(line).ok()?;
    let (version, rest) = line.strip_prefix("HTTP/")?.split_once(' ')?;
    let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
    let valid = code.len() == 3 && code.bytes().all(|b| b.is_ascii_digit());
    let code = code.parse().ok().filter(|code| valid && (100..600).contains(code))?;
    Some((if version == "1.0" { 0 } else { 1 }, code, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn finish(answer: &str) -> (u16, bool) {
        let (ours, mut theirs) = tokio::io::duplex(4 * MAX_BODY);
        tokio::io::AsyncWriteExt::write_all(&mut theirs, answer.as_bytes()).await.unwrap();
        drop(theirs);
        let mut stream = Stream::from_io(ours);
        let mut answer = Answer::read(&mut stream).await.unwrap().unwrap();
        (answer.head.code, answer.finish(&mut stream).await)
    }

    #[tokio::test]
    async fn a_connection_lives_on_only_after_a_body_whose_end_is_sure() {
        let large = "x".repeat(70_000);
        for (fields, body, lives) in [
            ("Content-Length: 0", "", true),
            ("Content-Length: 3", "abc", true),
            ("Content-Length: 70000", large.as_str(), true),
            ("Transfer-Encoding: chunked", "3;x=y\r\nabc\r\n0\r\nT: v\r\n\r\n", true),
            ("Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r\n", true),
            ("Content-Length: 3", "ab", false),
            ("Content-Length: 3", "abcd", false),
            ("Content-Length: 3\r\nContent-Length: 4", "abcd", false),
            ("Content-Length: +3", "abc", false),
            ("Content-Length: 9999999999999999999999", "", false),
            ("Content-Length: 2000000", "", false),
            ("Content-Length: 3\r\nTransfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r\n", false),
            ("Transfer-Encoding: gzip, chunked", "0\r\n\r\n", false),
            ("Transfer-Encoding: chunked", "ffffffffffffffff\r\n", false),
            ("Transfer-Encoding: chunked", "x\r\n", false),
            ("Transfer-Encoding: chunked", "3\r\nabc", false),
            ("X: y", "until it closes", false),
            ("Content-Length: 0\r\nProxy-Connection: Close", "", false),
            ("Content-Length: 0\r\nConnection: x, close", "", false),
        ] {
            let seen = finish(&format!("HTTP/1.1 407 No\r\n{fields}\r\n\r\n{body}")).await;
            assert_eq!(seen, (407, lives), "{fields}");
        }
        assert!(!finish("HTTP/1.0 407 No\r\nContent-Length: 0\r\n\r\n").await.1);
        assert!(finish("HTTP/1.0 407 No\r\nContent-Length: 0\r\nProxy-Connection: Keep-Alive\r\n\r\n").await.1);
    }
}
