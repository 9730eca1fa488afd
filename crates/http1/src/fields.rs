//! The lines of heads and trailers, as httparse reads them (RFC 9112 4 and 5). Fields become slices of what was read.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use httparse::{EMPTY_HEADER, Error, Header, ParserConfig, Response, Status};

/// Fields for which there is room at hand: as many as a head may have by default. Room for more is asked for.
const AT_HAND: usize = 128;

/// A status line, and the fields that follow it.
#[derive(Debug)]
pub(crate) struct Lines<'a> {
    pub(crate) is_1_0: bool,
    pub(crate) status: StatusCode,
    /// Empty too where the words are no ASCII.
    pub(crate) reason: &'a str,
    pub(crate) fields: Fields,
}

/// Fields whose values are still where they were read.
#[derive(Debug)]
pub(crate) struct Fields {
    found: Vec<(HeaderName, usize, usize)>,
    /// Up to the end of the empty line.
    pub(crate) len: usize,
}

/// Reads a head of at most `max` fields at the beginning of `src`; `None` needs more bytes.
pub(crate) fn lines(src: &[u8], max: usize) -> Result<Option<Lines<'_>>, Error> {
    let mut at_hand = [const { MaybeUninit::uninit() }; AT_HAND];
    let mut more = Vec::new();
    let slots = match at_hand.get_mut(..max) {
        Some(slots) => slots,
        None => {
            more.reserve_exact(max);
            more.spare_capacity_mut().get_mut(..max).unwrap_or_default()
        }
    };
    let mut head = Response::new(&mut []);
    let config = ParserConfig::default();
    let Status::Complete(len) = config.parse_response_with_uninit_headers(&mut head, src, slots)? else {
        return Ok(None);
    };
    let status = head.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Error::Status)?;
    let fields = Fields::new(src, head.headers, len)?;
    Ok(Some(Lines { is_1_0: head.version == Some(0), status, reason: head.reason.unwrap_or_default(), fields }))
}

/// Reads fields and the empty line after them, at most `max` of them; `None` needs more bytes.
pub(crate) fn fields(src: &[u8], max: usize) -> Result<Option<Fields>, Error> {
    let mut slots = [EMPTY_HEADER; AT_HAND];
    match httparse::parse_headers(src, slots.get_mut(..max).unwrap_or_default())? {
        Status::Complete((len, found)) => Fields::new(src, found, len).map(Some),
        Status::Partial => Ok(None),
    }
}

impl Fields {
    fn new(src: &[u8], found: &[Header<'_>], len: usize) -> Result<Self, Error> {
        let mut places = Vec::with_capacity(found.len());
        for field in found {
            let start = field.value.as_ptr().addr().wrapping_sub(src.as_ptr().addr());
            places.push((name(field.name)?, start, start.saturating_add(field.value.len())));
        }
        Ok(Self { found: places, len })
    }

    pub(crate) fn count(&self) -> usize {
        self.found.len()
    }

    /// Gives them out, from the `block` that they were read in.
    pub(crate) fn take(self, block: &Bytes, mut each: impl FnMut(HeaderName, HeaderValue)) -> Result<(), Error> {
        for (name, start, end) in self.found {
            each(name, HeaderValue::from_maybe_shared(block.slice(start..end)).map_err(|_| Error::HeaderValue)?);
        }
        Ok(())
    }
}

fn name(text: &str) -> Result<HeaderName, Error> {
    match usual(text.as_bytes()) {
        Some(name) => Ok(name),
        None => HeaderName::from_bytes(text.as_bytes()).map_err(|_| Error::HeaderName),
    }
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

    fn read(text: &[u8]) -> Option<Vec<(HeaderName, HeaderValue)>> {
        let lines = lines(text, 64).ok()??;
        let mut pairs = Vec::new();
        let block = Bytes::copy_from_slice(text);
        lines.fields.take(&block, |name, value| pairs.push((name, value))).ok()?;
        Some(pairs)
    }

    #[test]
    fn fields_are_read_as_they_came() {
        let pairs = read(b"HTTP/1.0 404 Not Found\nDATE: now\nX!#$%&'*+-.^_`|~: \x80\xff\nx-y:\t a \tb \r\nempty:\n\n")
            .unwrap();
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let expected: [(&str, &[u8]); 4] =
            [("date", b"now"), ("x!#$%&'*+-.^_`|~", b"\x80\xff"), ("x-y", b"a \tb"), ("empty", b"")];
        assert_eq!(pairs, expected);
    }

    #[test]
    fn what_parsers_could_disagree_on_is_refused() {
        for fields in [
            &b"x: 1\r\n folded\r\n\r\n"[..],
            b"x: 1\r\n\tfolded\r\n\r\n",
            b" x: 1\r\n\r\n",
            b"x : 1\r\n\r\n",
            b"x\t: 1\r\n\r\n",
            b": 1\r\n\r\n",
            b"x\r\n\r\n",
            b"x: a\rb\r\n\r\n",
            b"x: a\0b\r\n\r\n",
            b"x: a\x7fb\r\n\r\n",
            b"x\x80: 1\r\n\r\n",
            b"x y: 1\r\n\r\n",
            b"x: 1\r\n\rx: 1\r\n\r\n",
        ] {
            let head = [b"HTTP/1.1 200 OK\r\n", fields].concat();
            assert!(lines(&head, 64).is_err(), "{}", head.escape_ascii());
            assert!(super::fields(fields, 64).is_err(), "{}", fields.escape_ascii());
        }
    }

    #[test]
    fn the_usual_names_are_those_that_are_looked_up() {
        for name in ["Accept-Ranges", "age", "Content-Encoding", "ETag", "Set-Cookie", "transfer-encoding", "Vary"] {
            assert_eq!(usual(name.as_bytes()), HeaderName::from_bytes(name.as_bytes()).ok(), "{name}");
        }
        assert_eq!(usual(b"DATE"), None);
    }
}
