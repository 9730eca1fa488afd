//! The stream format (WHATWG HTML 9.2.5 and 9.2.6), without I/O.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use portolan_core::{Error, Result};
use portolan_wire::{Codec, DecodeError};

use crate::PROTOCOL;
use crate::event::Event;

/// What a stream may begin with, once.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// The most that an event holds, unless the caller says otherwise: more than any feed sends, and no danger to a client.
const EVENT: usize = 8 << 20;
/// The longest name of a field, and what comes between it and its value: all of an event may be in one line.
const FIELD: usize = "event: ".len();

/// What a server may ask us to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The longest line in bytes. Default 8 MiB, and the name of its field.
    pub line: usize,
    /// The most data, name and id of one event in bytes. Default 8 MiB.
    pub event: usize,
}

impl Limits {
    /// Both.
    pub fn new(line: usize, event: usize) -> Self {
        Self { line, event }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { line: EVENT + FIELD, event: EVENT }
    }
}

/// The parser of one stream: bytes in, events out.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    /// The start of the stream was seen, and its BOM dropped.
    begun: bool,
    /// The last line ended with CR: an LF that follows belongs to it.
    after_cr: bool,
    /// How much of the line at hand holds no line end.
    scanned: usize,
    data: String,
    name: String,
    /// The id that the next dispatch makes the last one.
    id: Arc<str>,
    last_id: Arc<str>,
    retry: Option<Duration>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(Limits::default(), Arc::default())
    }
}

impl Decoder {
    /// A parser for a stream that begins with this last event id: that of the connection before, or empty.
    pub fn new(limits: Limits, last_id: Arc<str>) -> Self {
        Self {
            limits,
            begun: false,
            after_cr: false,
            scanned: 0,
            data: String::new(),
            name: String::new(),
            id: Arc::clone(&last_id),
            last_id,
            retry: None,
        }
    }

    /// The id to resume from: that of the last event that was complete, even if it had no data.
    pub fn last_event_id(&self) -> &Arc<str> {
        &self.last_id
    }

    /// The last `retry` that the server gave.
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Drops the BOM; whether the start is known.
    fn begin(&mut self, src: &mut BytesMut) -> bool {
        if self.begun {
            return true;
        }
        if src.len() < BOM.len() && BOM.starts_with(src) {
            return false;
        }
        if src.starts_with(BOM) {
            src.advance(BOM.len());
        }
        self.begun = true;
        true
    }

    /// The length of the line at the front of `src`, without its end.
    fn line(&mut self, src: &mut BytesMut) -> Result<Option<usize>, DecodeError> {
        if self.after_cr && !src.is_empty() {
            if src.first() == Some(&b'\n') {
                src.advance(1);
            }
            self.after_cr = false;
        }
        let fresh = src.get(self.scanned..).unwrap_or_default();
        let Some(at) = memchr::memchr2(b'\r', b'\n', fresh) else {
            if src.len() > self.limits.line {
                return Err(DecodeError::too_long("line", self.limits.line));
            }
            self.scanned = src.len();
            return Ok(None);
        };
        let at = self.scanned.saturating_add(at);
        self.scanned = 0;
        if at > self.limits.line {
            return Err(DecodeError::too_long("line", self.limits.line));
        }
        Ok(Some(at))
    }

    fn field(&mut self, line: &[u8]) -> Result<(), DecodeError> {
        let (name, value) = match memchr::memchr(b':', line) {
            Some(0) => return Ok(()),
            Some(at) => {
                let (name, value) = line.split_at(at);
                let value = value.get(1..).unwrap_or_default();
                (name, value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (line, &b""[..]),
        };
        match name {
            b"data" => {
                self.hold(value.len().saturating_add(1), self.name.len().saturating_add(self.data.len()))?;
                self.data.push_str(&String::from_utf8_lossy(value));
                self.data.push('\n');
            }
            b"event" => {
                self.hold(value.len(), self.data.len())?;
                self.name = String::from_utf8_lossy(value).into_owned();
            }
            b"id" if memchr::memchr(0, value).is_none() => {
                self.hold(value.len(), 0)?;
                self.id = String::from_utf8_lossy(value).into();
            }
            b"retry" => self.retry = digits(value).or(self.retry),
            _ => {}
        }
        Ok(())
    }

    fn hold(&self, more: usize, held: usize) -> Result<(), DecodeError> {
        if held.saturating_add(more) > self.limits.event {
            return Err(DecodeError::too_long("event", self.limits.event));
        }
        Ok(())
    }

    /// The blank line: what was gathered becomes an event, if it has data.
    fn dispatch(&mut self) -> Option<Event> {
        self.last_id = Arc::clone(&self.id);
        let name = std::mem::take(&mut self.name);
        let mut data = std::mem::take(&mut self.data);
        data.pop()?;
        let name = if name.is_empty() { "message".to_owned() } else { name };
        Some(Event { name, data, id: Arc::clone(&self.last_id) })
    }
}

/// ASCII digits alone, in milliseconds; more than fit are none.
fn digits(value: &[u8]) -> Option<Duration> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok().map(Duration::from_millis)
}

impl Codec for Decoder {
    type Frame = Event;
    type Out = Event;

    fn protocol(&self) -> &'static str {
        PROTOCOL
    }

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Event>, DecodeError> {
        if !self.begin(src) {
            return Ok(None);
        }
        while let Some(len) = self.line(src)? {
            self.field(src.get(..len).unwrap_or_default())?;
            src.advance(len);
            // A CR ends the line at once; whether an LF belongs to it shows later.
            self.after_cr = src.first() == Some(&b'\r');
            src.advance(1);
            if len == 0
                && let Some(event) = self.dispatch()
            {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// An event that the end cuts off is no event (9.2.6).
    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Event>, DecodeError> {
        let event = self.decode(src)?;
        if event.is_none() {
            src.clear();
            self.scanned = 0;
        }
        Ok(event)
    }

    /// As a server would send it. A name or id that the format can't carry is the caller's mistake.
    fn encode(&mut self, item: &Event, dst: &mut BytesMut) -> Result<()> {
        if item.name.contains(['\r', '\n']) || item.id.contains(['\r', '\n', '\0']) || item.data.contains('\r') {
            return Err(Error::usage("a name, id or data that the format can't carry").with_protocol(PROTOCOL));
        }
        let mut field = |name: &str, value: &str| {
            for part in [name, ": ", value, "\n"] {
                dst.put_slice(part.as_bytes());
            }
        };
        if item.name != "message" {
            field("event", &item.name);
        }
        if !item.id.is_empty() {
            field("id", &item.id);
        }
        item.data.split('\n').for_each(|line| field("data", line));
        dst.put_u8(b'\n');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use portolan_wire::laws::{self, Laws};

    use super::*;

    fn all(text: &[u8]) -> Vec<(String, String, String)> {
        let mut decoder = Decoder::default();
        let mut src = BytesMut::from(text);
        let mut events = Vec::new();
        while let Some(event) = decoder.decode(&mut src).unwrap() {
            events.push((event.name, event.data, event.id.to_string()));
        }
        events
    }

    fn data(text: &[u8]) -> Vec<String> {
        all(text).into_iter().map(|(_, data, _)| data).collect()
    }

    /// After the format tests of the web platform (eventsource/format-*).
    #[test]
    fn the_format_is_read_as_the_standard_says() {
        let table: &[(&[u8], &[&str])] = &[
            (b"data:1\n\n", &["1"]),
            (b"\xef\xbb\xbfdata:1\n\n\xef\xbb\xbfdata:2\n\ndata:3\n\n", &["1", "3"]),
            (b"\xef\xbb\xbf\xef\xbb\xbfdata:1\n\ndata:2\n\n", &["2"]),
            (b"data:1\r:comment\ndata:2\r\ndata:3\n\n", &["1\n2\n3"]),
            (b"data:test\r\ndata\ndata:test\r\n\r\n", &["test\n\ntest"]),
            (b"data:\n\ndata\ndata\n\ndata:test\n\n", &["", "\n", "test"]),
            (b"data: test\n\ndata:  test\n\n", &["test", " test"]),
            (b"data:test\x00\n\n", &["test\0"]),
            (b"data:test\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacommentyay\n\n", &["test\n"]),
            (b"data\n\n", &[""]),
            (b"data:a\n\ndata:cut off", &["a"]),
            (b"data:a\n\ndata:cut off\n", &["a"]),
            (b"Data:case\n\ndata :space\n\ndata:ok\n\n", &["ok"]),
            (b":\n\n:keepalive\n\n\n\n", &[]),
            (b"event:x\n\ndata:y\n\n", &["y"]),
            (b"data:ok\xff\xe2\x82\n\n", &["ok\u{fffd}\u{fffd}"]),
            (b"data: a:b:c\n\n", &["a:b:c"]),
        ];
        for (text, expected) in table {
            assert_eq!(data(text), *expected, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn names_and_ids_are_kept_and_reset_as_the_standard_says() {
        let event = |name: &str, data: &str, id: &str| (name.to_owned(), data.to_owned(), id.to_owned());
        assert_eq!(
            all(b"event:add\nid:1\ndata:a\n\ndata:b\n\nid\ndata:c\n\nid:2\x00\ndata:d\n\nevent:\ndata:e\n\n"),
            [
                event("add", "a", "1"),
                event("message", "b", "1"),
                event("message", "c", ""),
                event("message", "d", ""),
                event("message", "e", "")
            ]
        );
        let mut decoder = Decoder::new(Limits::default(), "41".into());
        let mut src = BytesMut::from(&b"id:42\n\nid:43\ndata:never ends\n"[..]);
        assert_eq!(decoder.decode(&mut src), Ok(None));
        // An id without data counts once its block has ended (9.2.6), and not before.
        assert_eq!(&**decoder.last_event_id(), "42");
    }

    #[test]
    fn retry_is_digits_alone_and_stays() {
        let mut decoder = Decoder::default();
        for (line, expected) in [
            ("retry:1000", 1000),
            ("retry:1x", 1000),
            ("retry", 1000),
            ("retry: -5", 1000),
            ("retry:+5", 1000),
            ("retry:99999999999999999999", 1000),
            ("retry: 20", 20),
            ("retry:0", 0),
        ] {
            decoder.decode(&mut BytesMut::from(format!("{line}\n").as_str())).unwrap();
            assert_eq!(decoder.retry(), Some(Duration::from_millis(expected)), "{line}");
        }
    }

    #[test]
    fn the_laws_hold() {
        let seeds: &[&[u8]] = &[
            b"\xef\xbb\xbfid: 1\r\nevent: add\r\ndata: one\r\ndata: two\r\n\r\n:c\n\nretry: 5\ndata\r\rdata:x\n\n",
            b"data:\xe2\x82\xac\r\ndata:\xff\n\r\n\r\n",
            b"id:a\x00b\ndata:1\n\nid\ndata\n\n",
        ];
        laws::check(Decoder::default, seeds);
        Laws::default().check(|| Decoder::new(Limits::new(12, 20), Arc::default()), seeds);
    }

    #[test]
    fn what_is_encoded_comes_back() {
        let events = [Event::new("one\ntwo\n"), Event::new(""), Event::new(" x").with_name("add").with_id("7")];
        let items: Vec<&Event> = events.iter().collect();
        laws::round_trip(Decoder::default, &items, |out, frame| {
            out.name == frame.name && out.data == frame.data && (out.id.is_empty() || out.id == frame.id)
        });
        assert!(Decoder::default().encode(&Event::new("").with_id("a\nb"), &mut BytesMut::new()).is_err());
    }

    #[test]
    fn a_megabyte_in_one_line_is_an_event_by_default() {
        for len in [1 << 20, (8 << 20) - 1] {
            let mut src = BytesMut::from(format!("data: {}\n\n", "x".repeat(len)).as_str());
            assert_eq!(Decoder::default().decode(&mut src).unwrap().unwrap().data.len(), len);
        }
        let mut src = BytesMut::from(format!("data: {}\n\n", "x".repeat(8 << 20)).as_str());
        assert_eq!(Decoder::default().decode(&mut src), Err(DecodeError::too_long("event", 8 << 20)));
    }

    #[test]
    fn lines_and_events_are_bounded() {
        let mut decoder = Decoder::new(Limits::new(100, 250), Arc::default());
        assert_eq!(decoder.decode(&mut BytesMut::from(&[b'a'; 101][..])), Err(DecodeError::too_long("line", 100)));
        let mut decoder = Decoder::new(Limits::new(100, 250), Arc::default());
        let line = format!("data:{}\n", "x".repeat(90));
        let mut src = BytesMut::from(line.repeat(3).as_str());
        assert_eq!(decoder.decode(&mut src), Err(DecodeError::too_long("event", 250)));
    }
}
