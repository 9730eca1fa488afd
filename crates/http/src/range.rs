//! Parts of a representation (RFC 9110 14), and downloads that go on where they broke off.
//!
//! - **What works**: `Content-Range` of bytes, `Range` for what is missing, `If-Range` by a strong validator.
//! - **What is not done**: several ranges at once (`multipart/byteranges`).
//! - **Security**: nothing is joined unless the server says that it is the same representation, and that it goes on at the very byte.
//!
//! ```
//! use portolan_http::range::{ContentRange, Resume, Resumed};
//!
//! // The head of a response that broke off after 500 bytes.
//! let (first, ()) = http::Response::builder().header("etag", "\"v1\"").header("content-length", 1000).body(())?.into_parts();
//! let mut resume = Resume::new(&first).expect("it has a strong validator");
//! resume.advance(500);
//! let mut headers = http::HeaderMap::new();
//! resume.ask(&mut headers);
//! assert_eq!(headers["range"], "bytes=500-");
//! let answer = http::Response::builder().status(206).header("etag", "\"v1\"").header("content-range", "bytes 500-999/1000");
//! let (answer, ()) = answer.body(())?.into_parts();
//! assert_eq!(resume.judge(&answer)?, Resumed::GoesOn);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, IF_RANGE,
    LAST_MODIFIED, RANGE,
};
use http::{HeaderMap, HeaderValue, StatusCode, response};
use portolan_core::{Delivery, Error, Kind, Phase, Result};

use crate::PROTOCOL;

/// What a `Content-Range` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContentRange {
    /// The first and the last byte; `None` where the range could not be satisfied.
    pub range: Option<(u64, u64)>,
    /// The length of the whole, where it is known.
    pub length: Option<u64>,
}

impl ContentRange {
    /// Reads the value; `None` where it is not of bytes or breaks the rules.
    pub fn parse(text: &str) -> Option<Self> {
        let (unit, rest) = text.trim().split_once(' ')?;
        let (range, length) = rest.trim().split_once('/')?;
        let length = if length == "*" { None } else { Some(number(length)?) };
        let range = match range {
            "*" => None,
            range => Some(range.split_once('-').and_then(|(first, last)| Some((number(first)?, number(last)?)))?),
        };
        let sound = match (range, length) {
            (Some((first, last)), length) => first <= last && length.is_none_or(|length| last < length),
            (None, length) => length.is_some(),
        };
        (unit.eq_ignore_ascii_case("bytes") && sound).then_some(Self { range, length })
    }

    /// What the fields say, if they say it once and soundly.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut fields = headers.get_all(CONTENT_RANGE).iter();
        let (first, more) = (fields.next()?, fields.next());
        if more.is_some() { None } else { Self::parse(first.to_str().ok()?) }
    }

    /// How many bytes the range has.
    pub fn count(&self) -> Option<u64> {
        // A range that ends at the last number of all has one more than can be counted.
        self.range.and_then(|(first, last)| (last - first).checked_add(1))
    }
}

/// What an answer to a resumed request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resumed {
    /// Its body goes on where the first broke off.
    GoesOn,
    /// It is the whole from the beginning, for it changed or the server knows no ranges: drop what you have.
    Restarts,
    /// There is nothing more to come.
    Complete,
}

/// A download that can go on. The bytes are those of the wire: take it for bodies that no coding was undone of.
#[derive(Debug, Clone)]
pub struct Resume {
    validator: HeaderValue,
    /// Where the body of the response began.
    received: u64,
    length: Option<u64>,
}

impl Resume {
    /// From the head of the first response. `None` where it has no strong validator (an ETag, or a Last-Modified that is older than the
    /// response), is coded, or its server says that it has no ranges: then only a new beginning is safe.
    pub fn new(response: &response::Parts) -> Option<Self> {
        let headers = &response.headers;
        let none = headers.get(ACCEPT_RANGES).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"none"));
        let coded =
            headers.get(CONTENT_ENCODING).is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"));
        if none || coded {
            return None;
        }
        let (received, length) = match response.status {
            StatusCode::OK => (0, headers.get(CONTENT_LENGTH).and_then(|value| number(value.to_str().ok()?))),
            StatusCode::PARTIAL_CONTENT => {
                let range = ContentRange::of(headers)?;
                (range.range?.0, range.length)
            }
            _ => return None,
        };
        Some(Self { validator: validator(headers)?, received, length })
    }

    /// Counts bytes of the body that were received and kept.
    pub fn advance(&mut self, bytes: u64) {
        self.received = self.received.saturating_add(bytes);
    }

    /// How many bytes of the whole there are now.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// How many the whole has, where that is known.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Whether nothing is missing, as far as the length is known.
    pub fn is_complete(&self) -> bool {
        self.length.is_some_and(|length| self.received >= length)
    }

    /// One line that keeps it beside what was received, so that another process may go on: how many bytes there are, how many
    /// there will be, and what says that they are the same ones.
    ///
    /// ```
    /// use portolan_http::range::Resume;
    ///
    /// let resume = Resume::from_text("1000 5000 \"v1\"").expect("it was written so");
    /// assert_eq!((resume.received(), resume.length()), (1000, Some(5000)));
    /// assert_eq!(resume.to_text(), "1000 5000 \"v1\"");
    /// ```
    pub fn to_text(&self) -> String {
        let length = self.length.map_or_else(|| "-".to_owned(), |length| length.to_string());
        format!("{} {length} {}", self.received, String::from_utf8_lossy(self.validator.as_bytes()))
    }

    /// What [`to_text`](Self::to_text) wrote; `None` if it didn't write this.
    pub fn from_text(text: &str) -> Option<Self> {
        let mut words = text.trim_end().splitn(3, ' ');
        let received = number(words.next()?)?;
        let length = words.next().map(|word| if word == "-" { Some(None) } else { number(word).map(Some) })??;
        let validator = words.next()?;
        let sound = validator.starts_with('"') || httpdate::parse_http_date(validator).is_ok();
        let fits = length.is_none_or(|length| received <= length);
        let validator = HeaderValue::from_str(validator).ok().filter(|_| sound && fits)?;
        Some(Self { validator, received, length })
    }

    /// Adds to the fields of a request what asks for the rest.
    pub fn ask(&self, headers: &mut HeaderMap) {
        if let Ok(range) = HeaderValue::from_str(&format!("bytes={}-", self.received)) {
            headers.insert(RANGE, range);
        }
        headers.insert(IF_RANGE, self.validator.clone());
        // A range counts the bytes of one coding.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }

    /// Judges the head of the answer. After [`Resumed::Restarts`] this counts from zero again. An error is what can't be joined: a range that
    /// was not asked for ([`Kind::Protocol`]), or a status that is no answer to this ([`Kind::Server`]).
    pub fn judge(&mut self, response: &response::Parts) -> Result<Resumed> {
        let headers = &response.headers;
        match response.status {
            StatusCode::PARTIAL_CONTENT => self.judge_range(headers).map(|()| Resumed::GoesOn),
            StatusCode::OK => {
                self.received = 0;
                self.length = headers.get(CONTENT_LENGTH).and_then(|value| number(value.to_str().ok()?));
                if let Some(validator) = validator(headers) {
                    self.validator = validator;
                }
                Ok(Resumed::Restarts)
            }
            StatusCode::RANGE_NOT_SATISFIABLE => {
                let complete = match ContentRange::of(headers) {
                    Some(said) => said.range.is_none() && said.length == Some(self.received),
                    // apache2 leaves the length out; then ours must do.
                    None => !headers.contains_key(CONTENT_RANGE) && self.length == Some(self.received),
                };
                if complete { Ok(Resumed::Complete) } else { Err(broken("range refused, yet there should be more")) }
            }
            status => Err(Error::new(Kind::Server, format!("status {status} for a range"))
                .with_protocol(PROTOCOL)
                .with_phase(Phase::FirstByte)
                .with_code(i64::from(status.as_u16()))),
        }
    }

    fn judge_range(&mut self, headers: &HeaderMap) -> Result<()> {
        let said = ContentRange::of(headers).ok_or_else(|| broken("206 without a sound content-range"))?;
        let (first, _) = said.range.ok_or_else(|| broken("206 without a range"))?;
        if first != self.received {
            return Err(broken("206 for another range than was asked for"));
        }
        if let (Some(old), Some(new)) = (self.length, said.length)
            && old != new
        {
            return Err(broken("206 of a whole of another length"));
        }
        if headers.get(ETAG).is_some_and(|tag| self.validator.as_bytes().starts_with(b"\"") && tag != self.validator) {
            return Err(broken("206 of another version"));
        }
        self.length = self.length.or(said.length);
        Ok(())
    }
}

/// RFC 9110 13.1.5: If-Range takes strong ones alone.
fn validator(headers: &HeaderMap) -> Option<HeaderValue> {
    if let Some(tag) = headers.get(ETAG) {
        return tag.as_bytes().starts_with(b"\"").then(|| tag.clone());
    }
    let date = |name| httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok();
    let (modified, said) = (date(LAST_MODIFIED)?, date(DATE)?);
    // Within one second it might have changed twice (RFC 9110 8.8.2.2).
    let strong = said.duration_since(modified).is_ok_and(|age| age.as_secs() >= 1);
    headers.get(LAST_MODIFIED).filter(|_| strong).cloned()
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

fn broken(message: &'static str) -> Error {
    Error::protocol(PROTOCOL, message).with_phase(Phase::FirstByte).with_delivery(Delivery::Answered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(status: u16, fields: &[(&'static str, &str)]) -> response::Parts {
        let (mut parts, ()) = http::Response::builder().status(status).body(()).unwrap().into_parts();
        for (name, value) in fields {
            parts.headers.append(*name, value.parse().unwrap());
        }
        parts
    }

    #[test]
    fn content_ranges_are_read_strictly() {
        let parse = |text: &str| ContentRange::parse(text).map(|found| (found.range, found.length));
        assert_eq!(parse("bytes 0-499/1234"), Some((Some((0, 499)), Some(1234))));
        assert_eq!(parse("BYTES 42-1233/*"), Some((Some((42, 1233)), None)));
        assert_eq!(parse("bytes */1234"), Some((None, Some(1234))));
        assert_eq!(ContentRange::parse("bytes 0-0/1").unwrap().count(), Some(1));
        assert_eq!(ContentRange::parse("bytes 0-18446744073709551615/*").unwrap().count(), None);
        for bad in [
            "",
            "bytes",
            "bytes 5-4/10",
            "bytes 0-10/10",
            "bytes */*",
            "bytes=0-1/2",
            "items 0-1/2",
            "bytes 0-1",
            "bytes -1/2",
            "bytes +0-1/2",
            "bytes 0-99999999999999999999/*",
            "bytes 0 - 1/2",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        let twice = parts(206, &[("content-range", "bytes 0-1/2"), ("content-range", "bytes 0-1/2")]);
        assert_eq!(ContentRange::of(&twice.headers), None);
    }

    #[test]
    fn only_what_is_surely_the_same_is_resumed() {
        let dated = [("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"), ("date", "Sun, 06 Nov 1994 08:49:38 GMT")];
        let young = [("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"), ("date", "Sun, 06 Nov 1994 08:49:37 GMT")];
        for (status, fields, resumable) in [
            (200, &[("etag", "\"a\"")][..], true),
            (200, &dated[..], true),
            (206, &[("etag", "\"a\""), ("content-range", "bytes 5-9/10")], true),
            (200, &young[..], false),
            (200, &[("etag", "W/\"a\"")], false),
            (200, &[], false),
            (200, &[("etag", "\"a\""), ("accept-ranges", "none")], false),
            (200, &[("etag", "\"a\""), ("content-encoding", "gzip")], false),
            (206, &[("etag", "\"a\"")], false),
            (404, &[("etag", "\"a\"")], false),
        ] {
            assert_eq!(Resume::new(&parts(status, fields)).is_some(), resumable, "{status} {fields:?}");
        }
    }

    #[test]
    fn a_download_goes_on_at_the_very_byte_or_from_the_beginning() {
        let first = parts(200, &[("etag", "\"a\""), ("content-length", "10")]);
        let mut resume = Resume::new(&first).unwrap();
        resume.advance(4);
        let mut headers = HeaderMap::new();
        resume.ask(&mut headers);
        assert_eq!(
            (&headers[RANGE], &headers[IF_RANGE], &headers[ACCEPT_ENCODING]),
            (&"bytes=4-".parse().unwrap(), &"\"a\"".parse().unwrap(), &"identity".parse().unwrap())
        );
        let range = |range: &'static str| parts(206, &[("etag", "\"a\""), ("content-range", range)]);
        assert_eq!(resume.judge(&range("bytes 4-9/10")).unwrap(), Resumed::GoesOn);
        for bad in ["bytes 5-9/10", "bytes 3-9/10", "bytes 4-9/11", "bytes */10", "x"] {
            let error = resume.judge(&range(bad)).unwrap_err();
            assert_eq!((error.kind(), error.delivery()), (Kind::Protocol, Delivery::Answered), "{bad}");
        }
        let other = parts(206, &[("etag", "\"b\""), ("content-range", "bytes 4-9/10")]);
        assert_eq!(resume.judge(&other).unwrap_err().kind(), Kind::Protocol);
        let unavailable = resume.judge(&parts(503, &[])).unwrap_err();
        assert_eq!((unavailable.kind(), unavailable.code()), (Kind::Server, Some(503)));
        assert_eq!(resume.received(), 4, "a failure changes nothing");
        let again = parts(200, &[("etag", "\"b\""), ("content-length", "20")]);
        assert_eq!(resume.judge(&again).unwrap(), Resumed::Restarts);
        assert_eq!((resume.received(), resume.length(), resume.is_complete()), (0, Some(20), false));
    }

    #[test]
    fn a_download_is_kept_as_text_and_what_is_none_is_not_taken() {
        for (fields, text) in [
            (&[("etag", "\"a b\""), ("content-length", "10")][..], "4 10 \"a b\""),
            (
                &[("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"), ("date", "Sun, 06 Nov 1994 08:49:39 GMT")],
                "4 - Sun, 06 Nov 1994 08:49:37 GMT",
            ),
        ] {
            let mut resume = Resume::new(&parts(200, fields)).unwrap();
            resume.advance(4);
            assert_eq!(resume.to_text(), text);
            let again = Resume::from_text(&format!("{text}\n")).unwrap();
            let (mut first, mut second) = (HeaderMap::new(), HeaderMap::new());
            resume.ask(&mut first);
            again.ask(&mut second);
            assert_eq!((first, again.length()), (second, resume.length()));
        }
        for bad in [
            "",
            "4",
            "4 10",
            "x 10 \"a\"",
            "4 x \"a\"",
            "11 10 \"a\"",
            "4 10 W/\"a\"",
            "4 10 a",
            "-4 10 \"a\"",
            "4 10 \"a\"\nb",
        ] {
            assert!(Resume::from_text(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_refused_range_is_the_end_only_if_all_is_there() {
        let mut resume = Resume::new(&parts(200, &[("etag", "\"a\"")])).unwrap();
        resume.advance(10);
        assert_eq!(resume.judge(&parts(416, &[("content-range", "bytes */10")])).unwrap(), Resumed::Complete);
        assert!(resume.judge(&parts(416, &[("content-range", "bytes */11")])).is_err());
        assert!(resume.judge(&parts(416, &[])).is_err());
        let mut known = Resume::new(&parts(200, &[("etag", "\"a\""), ("content-length", "10")])).unwrap();
        known.advance(9);
        assert!(known.judge(&parts(416, &[])).is_err());
        known.advance(1);
        assert_eq!(known.judge(&parts(416, &[])).unwrap(), Resumed::Complete);
        assert!(known.judge(&parts(416, &[("content-range", "bytes */11")])).is_err());
    }
}
