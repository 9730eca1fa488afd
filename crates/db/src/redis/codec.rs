//! RESP2 and RESP3 between frames and bytes, without I/O.
//!
//! A reply is first measured, with a scan that goes on where it stopped when more bytes come, then cut out of the buffer
//! in one piece and parsed into slices of it: a bulk string costs no copy, and nothing is allocated for a length that
//! the peer only announced.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;
use portolan_wire::{Codec, Correlate, DecodeError, Route};

use super::command::Command;
use super::types::{ServerError, Value};

/// What one peer may make us hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The bytes of one whole reply. Default 512 MiB, the longest string that Redis stores.
    pub frame: usize,
    /// The bytes of one line: a status, an error, a number. Default 64 KiB; errors quote commands.
    pub line: usize,
    /// How deep arrays nest. Default 32; Redis itself stays below 8, and its Lua scripts at 7.
    pub depth: usize,
    /// The elements of one aggregate. Default 2^24; `KEYS` on a large server comes near.
    pub elements: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { frame: 512 << 20, line: 64 << 10, depth: 32, elements: 1 << 24 }
    }
}

impl Limits {
    /// The bytes of one whole reply.
    #[must_use]
    pub fn frame(mut self, bytes: usize) -> Self {
        self.frame = bytes;
        self
    }

    /// The bytes of one line.
    #[must_use]
    pub fn line(mut self, bytes: usize) -> Self {
        self.line = bytes;
        self
    }

    /// How deep arrays nest.
    #[must_use]
    pub fn depth(mut self, levels: usize) -> Self {
        self.depth = levels;
        self
    }

    /// The elements of one aggregate.
    #[must_use]
    pub fn elements(mut self, count: usize) -> Self {
        self.elements = count;
        self
    }
}

/// The codec of one connection.
#[derive(Debug, Clone, Default)]
pub struct RespCodec {
    limits: Limits,
    scan: Scan,
}

impl Codec for RespCodec {
    type Frame = Value;
    type Out = Command;

    fn protocol(&self) -> &'static str {
        super::PROTOCOL
    }

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Value>, DecodeError> {
        let Some(length) = self.measure(src)? else { return Ok(None) };
        let mut cut = Cut { rest: src.split_to(length).freeze(), depth: self.limits.depth.saturating_add(1) };
        let value = cut.value()?;
        if cut.rest.is_empty() { Ok(Some(value)) } else { Err(DecodeError::invalid("reply", length)) }
    }

    fn encode(&mut self, item: &Command, dst: &mut BytesMut) -> portolan_core::Result<()> {
        item.encode(dst);
        Ok(())
    }
}

impl Correlate for RespCodec {
    /// Replies come in the order of their commands; pushes come when they like.
    fn route(&mut self, frame: &Value) -> Route {
        if matches!(frame, Value::Push(_)) { Route::Event } else { Route::Next }
    }
}

/// How far the reply at the head of the buffer has been measured.
#[derive(Debug, Clone, Default)]
struct Scan {
    at: usize,
    /// Elements still to come of each open aggregate.
    open: Vec<usize>,
    begun: bool,
}

impl RespCodec {
    /// A codec with limits of its own.
    pub fn new(limits: Limits) -> Self {
        Self { limits, scan: Scan::default() }
    }

    /// Measures the first reply of `buf`: its length once it is all there.
    fn measure(&mut self, buf: &[u8]) -> Result<Option<usize>, DecodeError> {
        let Self { limits, scan } = self;
        loop {
            if scan.begun && scan.open.is_empty() {
                let length = scan.at;
                *scan = Scan { open: std::mem::take(&mut scan.open), ..Scan::default() };
                return Ok(Some(length));
            }
            let rest = buf.get(scan.at..).unwrap_or_default();
            let Some(item) = item(rest, scan.at, limits)? else { return Ok(None) };
            let end = scan.at.checked_add(item.length).filter(|end| *end <= limits.frame);
            let end = end.ok_or_else(|| DecodeError::too_long("reply", scan.at))?;
            if rest.len() < item.length {
                return Ok(None);
            }
            scan.begun = true;
            scan.count(&item, limits)?;
            scan.at = end;
        }
    }
}

impl Scan {
    /// Counts one item off the innermost aggregate, and opens it where it is one itself.
    fn count(&mut self, item: &Item, limits: &Limits) -> Result<(), DecodeError> {
        // An attribute stands in front of a value and does not count as one.
        if !item.attribute {
            if let Some(left) = self.open.last_mut() {
                *left = left.saturating_sub(1);
            }
        } else if self.open.is_empty() {
            // At the top level the value that it belongs to is still owed.
            self.open.push(1);
        }
        if item.children > 0 {
            if self.open.len() >= limits.depth {
                return Err(DecodeError::too_long("nesting", self.at));
            }
            self.open.push(item.children);
        }
        while self.open.last() == Some(&0) {
            self.open.pop();
        }
        Ok(())
    }
}

/// One item as the scan sees it.
struct Item {
    /// Its bytes: the head line alone of an aggregate.
    length: usize,
    children: usize,
    attribute: bool,
}

/// Looks at the item at the head of `rest`. `None`: its head line is not complete.
fn item(rest: &[u8], at: usize, limits: &Limits) -> Result<Option<Item>, DecodeError> {
    let Some((&kind, _)) = rest.split_first() else { return Ok(None) };
    if !matches!(
        kind,
        b'+' | b'-' | b':' | b'$' | b'*' | b'_' | b'#' | b',' | b'(' | b'!' | b'=' | b'%' | b'~' | b'>' | b'|'
    ) {
        return Err(DecodeError::unsupported("reply type", at));
    }
    let Some(line) = line(rest, at, limits.line)? else { return Ok(None) };
    let head = line.len().saturating_add(3);
    let scalar = Item { length: head, children: 0, attribute: false };
    let factor = match kind {
        b'$' | b'!' | b'=' => {
            let Some(length) = length(line, at, kind == b'$')? else { return Ok(Some(scalar)) };
            let body = length.checked_add(2).and_then(|n| n.checked_add(head)).filter(|n| *n <= limits.frame);
            let length = body.ok_or_else(|| DecodeError::too_long("bulk string", at))?;
            return Ok(Some(Item { length, ..scalar }));
        }
        b'*' | b'~' | b'>' => 1,
        b'%' | b'|' => 2,
        _ => return Ok(Some(scalar)),
    };
    let count = length(line, at, kind == b'*')?.unwrap_or(0);
    if count > limits.elements {
        return Err(DecodeError::too_long("element count", at));
    }
    Ok(Some(Item { length: head, children: count.saturating_mul(factor), attribute: kind == b'|' && count > 0 }))
}

/// The text between the type byte and CRLF.
fn line(rest: &[u8], at: usize, limit: usize) -> Result<Option<&[u8]>, DecodeError> {
    let body = rest.get(1..).unwrap_or_default();
    let Some(end) = memchr(b'\r', body) else {
        let long = body.len() > limit;
        return if long { Err(DecodeError::too_long("line", at)) } else { Ok(None) };
    };
    if end > limit {
        return Err(DecodeError::too_long("line", at));
    }
    match body.get(end.saturating_add(1)) {
        None => Ok(None),
        Some(b'\n') => Ok(body.get(..end)),
        Some(_) => Err(DecodeError::invalid("line end", at)),
    }
}

/// A length or count; RESP2's `-1` is null where it is allowed.
fn length(line: &[u8], at: usize, nullable: bool) -> Result<Option<usize>, DecodeError> {
    if nullable && line == b"-1" {
        return Ok(None);
    }
    if line == b"?" {
        return Err(DecodeError::unsupported("streamed reply", at));
    }
    let digits = !line.is_empty() && line.len() <= 19 && line.iter().all(u8::is_ascii_digit);
    let value = std::str::from_utf8(line).ok().filter(|_| digits).and_then(|text| text.parse().ok());
    value.map(Some).ok_or_else(|| DecodeError::invalid("length", at))
}

/// A whole reply being cut into values.
struct Cut {
    rest: Bytes,
    depth: usize,
}

impl Cut {
    fn line(&mut self) -> Result<Bytes, DecodeError> {
        let end = memchr(b'\r', &self.rest).ok_or_else(|| broken("line"))?;
        let line = self.rest.split_to(end);
        self.rest.advance(2.min(self.rest.len()));
        Ok(line)
    }

    fn bulk(&mut self, nullable: bool) -> Result<Option<Bytes>, DecodeError> {
        let line = self.line()?;
        let Some(length) = length(&line, 0, nullable)? else { return Ok(None) };
        if self.rest.len() < length.saturating_add(2) {
            return Err(broken("bulk string"));
        }
        let body = self.rest.split_to(length);
        if self.rest.split_to(2) != b"\r\n"[..] {
            return Err(DecodeError::invalid("bulk string end", 0));
        }
        Ok(Some(body))
    }

    fn items(&mut self, factor: usize, nullable: bool) -> Result<Option<Vec<Value>>, DecodeError> {
        let line = self.line()?;
        let Some(count) = length(&line, 0, nullable)? else { return Ok(None) };
        let count = count.saturating_mul(factor);
        // Every element has at least three bytes and all of them are here: the allocation is paid for by what arrived.
        let mut items = Vec::with_capacity(count.min(self.rest.len() / 3));
        self.depth = self.depth.saturating_sub(1);
        for _ in 0..count {
            items.push(self.value()?);
        }
        self.depth = self.depth.saturating_add(1);
        Ok(Some(items))
    }

    fn value(&mut self) -> Result<Value, DecodeError> {
        if self.depth == 0 {
            return Err(DecodeError::too_long("nesting", 0));
        }
        if self.rest.is_empty() {
            return Err(broken("value"));
        }
        let kind = self.rest.get_u8();
        Ok(match kind {
            b'$' => self.bulk(true)?.map_or(Value::Null, Value::Bulk),
            b'+' => Value::Simple(self.line()?),
            b':' => Value::Int(number(&self.line()?)?),
            b'-' => Value::Error(ServerError::parse(&self.line()?)),
            b'*' => self.items(1, true)?.map_or(Value::Null, Value::Array),
            b'_' => empty(&self.line()?).map(|()| Value::Null)?,
            b'#' => boolean(&self.line()?)?,
            b',' => Value::Double(double(&self.line()?)?),
            b'(' => big_number(self.line()?)?,
            b'!' => Value::Error(ServerError::parse(&self.bulk(false)?.unwrap_or_default())),
            b'=' => verbatim(self.bulk(false)?.unwrap_or_default())?,
            b'%' => Value::Map(pairs(self.items(2, false)?.unwrap_or_default())),
            b'~' => Value::Set(self.items(1, false)?.unwrap_or_default()),
            b'>' => Value::Push(self.items(1, false)?.unwrap_or_default()),
            b'|' => {
                // Attributes are hints about the value behind them (key popularity and the like); the value is what was asked for.
                self.items(2, false)?;
                return self.value();
            }
            _ => return Err(DecodeError::unsupported("reply type", 0)),
        })
    }
}

fn broken(what: &'static str) -> DecodeError {
    DecodeError::truncated(what, 0)
}

fn number(line: &[u8]) -> Result<i64, DecodeError> {
    let text = std::str::from_utf8(line).ok();
    text.and_then(|text| text.parse().ok()).ok_or_else(|| DecodeError::invalid("integer", 0))
}

fn empty(line: &[u8]) -> Result<(), DecodeError> {
    if line.is_empty() { Ok(()) } else { Err(DecodeError::invalid("null", 0)) }
}

fn boolean(line: &[u8]) -> Result<Value, DecodeError> {
    match line {
        b"t" => Ok(Value::Bool(true)),
        b"f" => Ok(Value::Bool(false)),
        _ => Err(DecodeError::invalid("boolean", 0)),
    }
}

fn double(line: &[u8]) -> Result<f64, DecodeError> {
    let text = std::str::from_utf8(line).ok();
    text.and_then(|text| text.parse().ok()).ok_or_else(|| DecodeError::invalid("double", 0))
}

fn big_number(line: Bytes) -> Result<Value, DecodeError> {
    let digits = line.strip_prefix(b"-").unwrap_or(&line);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(DecodeError::invalid("big number", 0));
    }
    Ok(Value::BigNumber(line))
}

/// `txt:` or `mkd:` in front of the text.
fn verbatim(mut body: Bytes) -> Result<Value, DecodeError> {
    if body.get(3) != Some(&b':') {
        return Err(DecodeError::invalid("verbatim string", 0));
    }
    let format = body.split_to(3);
    body.advance(1);
    Ok(Value::Verbatim { format, text: body })
}

fn pairs(items: Vec<Value>) -> Vec<(Value, Value)> {
    let mut items = items.into_iter();
    let mut pairs = Vec::with_capacity(items.len() / 2);
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        pairs.push((key, value));
    }
    pairs
}
