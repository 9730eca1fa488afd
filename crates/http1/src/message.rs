//! The head of a response, from bytes to values, and what it says about the body.

use bytes::{Buf, Bytes, BytesMut};
use http::response::Parts;
use http::{HeaderMap, Response, StatusCode, Version, header};
use portolan_core::{Delivery, Error, Kind, Phase, Result};
use portolan_wire::DecodeError;

use crate::ext::Reason;
use crate::fields;
use crate::head::{Asked, decimal, forbidden_in_trailers, lists};
use crate::options::Options;

/// Empty lines that are forgiven before a head.
const MAX_BLANK: usize = 4;
/// What there is of a head is read anew while it is no longer than this, so that what is none is known for that at once.
const SHORT: usize = 1024;

/// How the body of a response ends (RFC 9112 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    Now,
    After(u64),
    Chunked,
    WithConnection,
    /// The connection is no longer HTTP.
    Never,
}

/// A head and what follows from it.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) parts: Parts,
    pub(crate) keep_alive: bool,
}

/// How far earlier looks at the bytes of an answer got.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    bytes: usize,
    /// Empty lines before its heads.
    blank: usize,
}

/// Takes a head off the front of `src`; `None` needs more bytes.
pub(crate) fn decode(src: &mut BytesMut, seen: &mut Seen, options: &Options) -> Result<Option<Head>> {
    // RFC 9112 2.2: empty lines before a status line are forgiven.
    while seen.bytes == 0 && seen.blank < MAX_BLANK && matches!(src[..], [b'\n', ..] | [b'\r', b'\n', ..]) {
        src.advance(if src[0] == b'\n' { 1 } else { 2 });
        seen.blank += 1;
    }
    match src[..] {
        [b'\r'] => return Ok(None),
        [b'\r' | b'\n', ..] => return Err(broken(format!("expected a response's head, saw {}", excerpt(src)))),
        _ => {}
    }
    let lines = if seen.bytes == 0 || section_end(src, seen.bytes).is_some() {
        fields::lines(src, options.max_headers).map_err(|error| refused(error, src, options))?
    } else {
        // One that comes in many pieces is not read anew with each of them.
        None
    };
    let Some(lines) = lines else {
        if src.len() > options.max_head {
            return Err(too_long(options));
        }
        seen.bytes = if src.len() < SHORT { 0 } else { src.len() - 3 };
        return Ok(None);
    };
    if lines.fields.len > options.max_head {
        return Err(too_long(options));
    }
    seen.bytes = 0;
    let mut parts = Response::new(()).into_parts().0;
    parts.status = lines.status;
    parts.version = if lines.is_1_0 { Version::HTTP_10 } else { Version::HTTP_11 };
    if !lines.reason.is_empty() && parts.status.canonical_reason() != Some(lines.reason) {
        parts.extensions.insert(Reason(lines.reason.into()));
    }
    let (is_1_0, fields) = (lines.is_1_0, lines.fields);
    let (mut close, mut keep) = (false, false);
    parts.headers.reserve(fields.count());
    let block = src.split_to(fields.len).freeze();
    let taken = fields.take(&block, |name, value| {
        if name == header::CONNECTION {
            // What HTTP/1.1 does by itself need not be looked for.
            keep |= is_1_0 && lists(value.as_bytes(), b"keep-alive");
            close |= lists(value.as_bytes(), b"close");
        }
        parts.headers.append(name, value);
    });
    taken.map_err(|error| refused(error, &block, options))?;
    // RFC 9110 8.6, RFC 9112 6.1: these have no body, and who says that they do may be followed by one. What follows a 101 is
    // another protocol's.
    let interim = parts.status.is_informational() && parts.status != StatusCode::SWITCHING_PROTOCOLS;
    let at_odds = (interim || parts.status == StatusCode::NO_CONTENT) && says_body(&parts.headers);
    if at_odds && interim {
        return Err(broken("expected no body of an informational response, saw a length"));
    }
    let keep_alive = !close && !at_odds && (keep || !is_1_0);
    Ok(Some(Head { parts, keep_alive }))
}

fn says_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get_all(header::CONTENT_LENGTH).iter().any(|length| length != "0")
}

fn refused(error: httparse::Error, src: &[u8], options: &Options) -> Error {
    match error {
        // Whatever else is wrong with it.
        _ if src.len() > options.max_head && section_end(src, 0).is_none_or(|end| end > options.max_head) => {
            too_long(options)
        }
        httparse::Error::TooManyHeaders => {
            answered(Error::new(Kind::Limit, format!("a response's head has more than {} fields", options.max_headers)))
        }
        error => broken(format!("expected a response's head, saw {}: {error}", excerpt(src))),
    }
}

/// The end of a section of fields, its empty line included: looked for from `from` on.
pub(crate) fn section_end(src: &[u8], from: usize) -> Option<usize> {
    let fresh = src.get(from..)?;
    memchr::memchr_iter(b'\n', fresh).find_map(|at| {
        let next = from + at + 1;
        match (src.get(next), src.get(next + 1)) {
            (Some(b'\n'), _) => Some(next + 1),
            (Some(b'\r'), Some(b'\n')) => Some(next + 2),
            _ => None,
        }
    })
}

/// A trailer section with its empty line. Fields that can't come late are left out (RFC 9110 6.5.1).
pub(crate) fn trailers(block: &Bytes, max: usize) -> Result<HeaderMap, DecodeError> {
    let refused = |error| match error {
        httparse::Error::TooManyHeaders => DecodeError::too_long("trailers", 0),
        httparse::Error::HeaderName => DecodeError::invalid("trailer name", 0),
        _ => DecodeError::invalid("trailer value", 0),
    };
    let fields = fields::fields(block, max).map_err(refused)?.ok_or(DecodeError::truncated("trailers", 0))?;
    let mut map = HeaderMap::new();
    let taken = fields.take(block, |name, value| {
        if !forbidden_in_trailers(&name) {
            map.append(name, value);
        }
    });
    taken.map(|()| map).map_err(refused)
}

/// RFC 9112 6.3, and stricter where parsers could disagree.
pub(crate) fn body(head: &Head, asked: &Asked) -> Result<Ends> {
    let (status, headers) = (head.parts.status, &head.parts.headers);
    if status == StatusCode::SWITCHING_PROTOCOLS || (asked.connect && status.is_success()) {
        return Ok(Ends::Never);
    }
    if asked.head || status.is_informational() || matches!(status.as_u16(), 204 | 304) {
        return Ok(Ends::Now);
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    match (codings.next(), lengths.next()) {
        (Some(_), Some(_)) => Err(broken("expected one length, saw both content-length and transfer-encoding")),
        (Some(_), None) if head.parts.version == Version::HTTP_10 => {
            Err(broken("expected no transfer-encoding in HTTP/1.0"))
        }
        (Some(coding), None) => {
            if codings.next().is_some() || !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") {
                let message = format!("transfer-encoding {:?}", coding.to_str().unwrap_or("?"));
                return Err(answered(Error::new(Kind::Unsupported, message)));
            }
            Ok(Ends::Chunked)
        }
        (None, Some(length)) => {
            if lengths.next().is_some() {
                return Err(broken("expected one content-length, saw several"));
            }
            let number = decimal(length.as_bytes());
            let number = number.ok_or_else(|| broken(format!("expected a content-length, saw {length:?}")))?;
            Ok(if number == 0 { Ends::Now } else { Ends::After(number) })
        }
        (None, None) => Ok(Ends::WithConnection),
    }
}

/// The peer broke the rules in its answer: never tried again.
pub(crate) fn broken(message: impl Into<Box<str>>) -> Error {
    answered(Error::new(Kind::Protocol, message))
}

fn answered(error: Error) -> Error {
    error.with_delivery(Delivery::Answered).with_phase(Phase::FirstByte).with_protocol(crate::PROTOCOL)
}

fn too_long(options: &Options) -> Error {
    answered(Error::new(Kind::Limit, format!("a response's head is longer than {} bytes", options.max_head)))
}

/// The first bytes of something that is no HTTP, for an error: whoever reads it knows what answered.
fn excerpt(src: &[u8]) -> String {
    let start = src.get(..src.len().min(40)).unwrap_or_default();
    format!("\"{}\"", start.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::Framing;

    const GET: Asked =
        Asked { framing: Framing::None, head: false, connect: false, upgrade: false, expect: false, close: false };

    fn read(text: &str) -> Result<(Head, Ends)> {
        let mut src = BytesMut::from(text);
        let head = decode(&mut src, &mut Seen::default(), &Options::new())?.expect("a whole head");
        let ends = body(&head, &GET)?;
        Ok((head, ends))
    }

    #[test]
    fn the_length_of_a_body_is_what_rfc_9112_says() {
        let cases = [
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", Ends::After(5)),
            ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Ends::Now),
            ("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", Ends::Now),
            ("HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", Ends::Now),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", Ends::Chunked),
            ("HTTP/1.0 200 OK\r\n\r\n", Ends::WithConnection),
        ];
        for (text, ends) in cases {
            assert_eq!(read(text).unwrap().1, ends, "{text}");
        }
    }

    #[test]
    fn an_ambiguous_length_is_refused() {
        for fields in [
            "content-length: 5\r\ntransfer-encoding: chunked",
            "content-length: 5\r\ncontent-length: 5",
            "content-length: 5, 5",
            "content-length: +5",
            "content-length: 5 5",
            "content-length: -1",
            "content-length:",
            "content-length: 99999999999999999999",
            "transfer-encoding: gzip, chunked",
            "transfer-encoding: chunked, chunked",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
            "transfer-encoding: identity",
            "transfer-encoding: xchunked",
        ] {
            let error = read(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n")).unwrap_err();
            assert_eq!(error.delivery(), Delivery::Answered, "{fields}");
            assert!(matches!(error.kind(), Kind::Protocol | Kind::Unsupported), "{fields}: {error}");
        }
    }

    #[test]
    fn a_head_that_is_none_is_refused() {
        for text in [
            "HTTP/1.1 200 OK\r\nx: 1\r\n folded\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: a\rb\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx : 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\n: 1\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        ] {
            let error = read(text).unwrap_err();
            assert_eq!((error.kind(), error.delivery()), (Kind::Protocol, Delivery::Answered), "{text}");
        }
    }

    #[test]
    fn a_head_in_pieces_is_the_same_head() {
        let text = b"HTTP/1.1 200 Fine\r\nx-a: 1\r\nx-b: two\r\ncontent-length: 3\r\n\r\nabc";
        for cut in 1..text.len() {
            let (mut src, mut seen) = (BytesMut::from(&text[..cut]), Seen::default());
            let first = decode(&mut src, &mut seen, &Options::new()).unwrap();
            src.extend_from_slice(&text[cut..]);
            let head = match first {
                Some(head) => head,
                None => decode(&mut src, &mut seen, &Options::new()).unwrap().unwrap(),
            };
            assert_eq!(head.parts.headers["x-b"], "two");
            assert_eq!(head.parts.extensions.get::<Reason>().unwrap().as_str(), "Fine");
            assert_eq!(&src[..], b"abc");
        }
    }

    #[test]
    fn limits_hold_before_the_head_is_whole() {
        let options = Options::new().max_head(100).max_headers(200);
        let (mut src, mut seen) = (BytesMut::from(&[b'x'; 101][..]), Seen::default());
        src[..13].copy_from_slice(b"HTTP/1.1 200 ");
        assert_eq!(decode(&mut src, &mut seen, &options).unwrap_err().kind(), Kind::Limit);
        for (count, fits) in [(64, true), (129, true), (200, true), (201, false)] {
            let text = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(count));
            let options = options.max_head(10_000);
            let head = decode(&mut BytesMut::from(&text[..]), &mut Seen::default(), &options);
            assert_eq!(head.is_ok(), fits, "{count}");
        }
    }
}
