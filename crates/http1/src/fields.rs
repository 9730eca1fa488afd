//! The lines of a head as they come: the status line and the fields (RFC 9112 4 and 5). Fields become slices of what was read.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};

/// A status line, and where the fields begin.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StatusLine<'a> {
    pub(crate) is_1_0: bool,
    pub(crate) status: StatusCode,
    /// Empty too where the words are no ASCII.
    pub(crate) reason: &'a str,
    pub(crate) end: usize,
}

/// Why fields are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// The empty line is missing.
    Open,
    /// A line without a colon, a name that is none, a line that goes on with the one before it.
    Name,
    Value,
    TooMany,
}

/// Reads the status line at the beginning of `block`.
pub(crate) fn status_line(block: &[u8]) -> Option<StatusLine<'_>> {
    let (line, end) = line(block)?;
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let (&[minor @ (b'0' | b'1'), b' ', ref code @ ..], rest) = rest.split_first_chunk::<5>()? else { return None };
    let status = StatusCode::from_bytes(code).ok()?;
    // RFC 9112 4: the space is there even where the words are not; servers forget it.
    let reason = match rest.split_first() {
        None => rest,
        Some((b' ', reason)) => reason,
        Some(_) => return None,
    };
    if !reason.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f)) {
        return None;
    }
    let reason = str::from_utf8(reason).ok().filter(|text| text.is_ascii()).unwrap_or_default();
    Some(StatusLine { is_1_0: minor == b'0', status, reason, end })
}

/// Reads the fields that begin at `at`, up to the empty line: at most `max` of them.
pub(crate) fn fields(
    block: &Bytes,
    mut at: usize,
    max: usize,
    mut each: impl FnMut(HeaderName, HeaderValue),
) -> Result<(), Flaw> {
    let mut left = max;
    loop {
        let (line, len) = line(block.get(at..).unwrap_or_default()).ok_or(Flaw::Open)?;
        if line.is_empty() {
            return Ok(());
        }
        left = left.checked_sub(1).ok_or(Flaw::TooMany)?;
        let colon = line.iter().position(|&byte| byte == b':').ok_or(Flaw::Name)?;
        let (name, value) = line.split_at_checked(colon).ok_or(Flaw::Name)?;
        let name = match usual(name) {
            Some(name) => name,
            None => HeaderName::from_bytes(name).map_err(|_| Flaw::Name)?,
        };
        let value = block.slice_ref(trimmed(value.get(1..).unwrap_or_default()));
        each(name, HeaderValue::from_maybe_shared(value).map_err(|_| Flaw::Value)?);
        at = at.saturating_add(len);
    }
}

/// The first line of `rest` without its end, and how long it is with it. A bare LF ends it too (RFC 9112 2.2).
fn line(rest: &[u8]) -> Option<(&[u8], usize)> {
    let end = memchr::memchr(b'\n', rest)?;
    let line = rest.get(..end)?;
    Some((line.strip_suffix(b"\r").unwrap_or(line), end.saturating_add(1)))
}

/// Without the blanks around it.
fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The names that most responses have, as most servers spell them: known at a glance, where any other is lowered and looked up.
fn usual(name: &[u8]) -> Option<HeaderName> {
    Some(match name {
        b"Accept-Ranges" | b"accept-ranges" => header::ACCEPT_RANGES,
        b"Age" | b"age" => header::AGE,
        b"Cache-Control" | b"cache-control" => header::CACHE_CONTROL,
        b"Connection" | b"connection" => header::CONNECTION,
        b"Content-Encoding" | b"content-encoding" => header::CONTENT_ENCODING,
        b"Content-Length" | b"content-length" => header::CONTENT_LENGTH,
        b"Content-Type" | b"content-type" => header::CONTENT_TYPE,
        b"Date" | b"date" => header::DATE,
        b"ETag" | b"etag" => header::ETAG,
        b"Expires" | b"expires" => header::EXPIRES,
        b"Last-Modified" | b"last-modified" => header::LAST_MODIFIED,
        b"Location" | b"location" => header::LOCATION,
        b"Server" | b"server" => header::SERVER,
        b"Set-Cookie" | b"set-cookie" => header::SET_COOKIE,
        b"Transfer-Encoding" | b"transfer-encoding" => header::TRANSFER_ENCODING,
        b"Vary" | b"vary" => header::VARY,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pairs = Vec<(HeaderName, Vec<u8>)>;

    fn ours(text: &[u8]) -> Option<(bool, u16, String, Pairs)> {
        let block = Bytes::copy_from_slice(text);
        let line = status_line(&block)?;
        let mut pairs = Vec::new();
        fields(&block, line.end, 64, |name, value| pairs.push((name, value.as_bytes().to_vec()))).ok()?;
        Some((line.is_1_0, line.status.as_u16(), line.reason.to_owned(), pairs))
    }

    fn theirs(text: &[u8]) -> Option<(bool, u16, String, Pairs)> {
        // Empty lines before it are forgiven elsewhere.
        if matches!(text, [b'\r' | b'\n', ..]) {
            return None;
        }
        let mut slots = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Response::new(&mut slots);
        if !parsed.parse(text).ok()?.is_complete() {
            return None;
        }
        let status = StatusCode::from_u16(parsed.code?).ok()?.as_u16();
        let pair = |field: &httparse::Header<'_>| {
            Some((HeaderName::from_bytes(field.name.as_bytes()).ok()?, field.value.to_vec()))
        };
        let pairs = parsed.headers.iter().map(pair).collect::<Option<_>>()?;
        Some((parsed.version? == 0, status, parsed.reason?.to_owned(), pairs))
    }

    #[test]
    fn a_head_is_read_as_httparse_reads_it_whatever_bytes_are_in_it() {
        let heads: [&[u8]; 4] = [
            b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Length: 100\r\nx-y:\t a \tb \r\n\r\n",
            b"HTTP/1.0 404 Not Found\nDATE: now\nX!#$%&'*+-.^_`|~: \x80\xff\nempty:\n\n",
            b"HTTP/1.1 599\r\nvary: a\r\nvary: b\r\n\r\n",
            b"HTTP/1.1 200 \r\netag: \"x\"\r\nx: :\r\n\r\n",
        ];
        let (mut read, mut refused) = (0, 0);
        for head in heads {
            assert_eq!(ours(head), theirs(head), "{}", head.escape_ascii());
            for at in 0..head.len() {
                for byte in 0..=255u8 {
                    let (before, after) = head.split_at(at);
                    let rest = after.get(1..).unwrap_or_default();
                    let changed = [before, &[byte], rest].concat();
                    let inserted = [before, &[byte], after].concat();
                    let removed = [before, rest].concat();
                    for text in [changed, inserted, removed] {
                        let ours = ours(&text);
                        *(if ours.is_some() { &mut read } else { &mut refused }) += 1;
                        assert_eq!(ours, theirs(&text), "{}", text.escape_ascii());
                    }
                }
            }
        }
        assert!(read > 10_000 && refused > 10_000, "{read} {refused}");
    }

    #[test]
    fn the_usual_names_are_those_that_are_looked_up() {
        for name in ["Accept-Ranges", "age", "Content-Encoding", "ETag", "Set-Cookie", "transfer-encoding", "Vary"] {
            assert_eq!(usual(name.as_bytes()), HeaderName::from_bytes(name.as_bytes()).ok(), "{name}");
        }
        assert_eq!(usual(b"DATE"), None);
    }
}
