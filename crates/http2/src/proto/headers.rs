//! Header blocks received: gathered within bounds, decoded once, and judged by RFC 9113 8.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use bytes::BytesMut;
use http::header::{self, HeaderMap};
use http::{Response, StatusCode};
use portolan_core::{Delivery, Kind};
use portolan_hpack::{Field, Name, Pseudo};

use super::code::Code;
use super::failure::Failure;
use super::frame::{self, Head};
use super::stream::{Key, Stream};
use super::{Engine, Violation};

/// CONTINUATION frames of one block. A block within our limits needs one per 16 KiB; tiny ones are a flood (CVE-2024-27316).
const MAX_CONTINUATIONS: usize = 32;
/// Informational responses before the final one. Servers send one or two; without a bound a peer keeps a caller for ever.
const MAX_INFORMATIONAL: usize = 32;
/// What most responses fit in: asking for it at once saves growing twice.
const USUAL_FIELDS: usize = 12;

/// A block whose END_HEADERS has not come.
#[derive(Debug)]
pub(crate) struct Block {
    id: u32,
    end_stream: bool,
    frames: usize,
    bytes: BytesMut,
}

/// What a block says.
struct Message {
    status: Option<StatusCode>,
    fields: HeaderMap,
    plain_seen: bool,
    malformed: Option<&'static str>,
}

impl Message {
    fn push(&mut self, field: Field) {
        if field.malformed {
            self.malformed = Some("a field name or value that HTTP forbids");
            return;
        }
        match field.name {
            Name::Field(name) => {
                self.plain_seen = true;
                if portolan_hpack::request::is_connection_field(&name) {
                    self.malformed = Some("a field of the connection in a response");
                } else if self.fields.try_append(name, field.value).is_err() {
                    self.malformed = Some("more fields than a map can hold");
                }
            }
            Name::Pseudo(Pseudo::Status) if self.plain_seen || self.status.is_some() => {
                self.malformed = Some(":status twice or out of place");
            }
            Name::Pseudo(Pseudo::Status) => match StatusCode::from_bytes(field.value.as_bytes()) {
                Ok(status) => self.status = Some(status),
                Err(_) => self.malformed = Some("a :status that is no number"),
            },
            _ => self.malformed = Some("a pseudo-header that responses don't have"),
        }
    }
}

impl Engine {
    /// HEADERS (RFC 9113 6.2).
    pub(crate) fn on_headers(&mut self, head: Head, payload: &[u8]) -> Result<(), Violation> {
        if self.is_idle(head.id) {
            return Err(Violation::protocol("HEADERS on a stream that was never opened"));
        }
        let (mut block, _) =
            frame::unpad(head, payload).ok_or_else(|| Violation::protocol("more padding than payload"))?;
        if head.has(frame::HAS_PRIORITY) {
            block = block
                .get(5..)
                .ok_or_else(|| Violation::new(Code::FRAME_SIZE_ERROR, "HEADERS too short for its priority"))?;
        }
        let end_stream = head.has(frame::END_STREAM);
        if head.has(frame::END_HEADERS) {
            return self.on_block(head.id, end_stream, block);
        }
        self.block = Some(Block { id: head.id, end_stream, frames: 0, bytes: BytesMut::from(block) });
        Ok(())
    }

    /// CONTINUATION (RFC 9113 6.10), within the bounds of one block.
    pub(crate) fn on_continuation(&mut self, head: Head, payload: &[u8]) -> Result<(), Violation> {
        let mut block = match self.block.take() {
            Some(block) if block.id == head.id => block,
            _ => return Err(Violation::protocol("CONTINUATION out of place")),
        };
        block.frames = block.frames.saturating_add(1);
        // What is coded is no longer than what it stands for, but for a few bytes; twice the limit leaves room for fools.
        let most = (self.config.max_header_list_size as usize).saturating_mul(2);
        if block.frames > MAX_CONTINUATIONS || block.bytes.len().saturating_add(payload.len()) > most {
            return Err(Violation::calm("a header block without end"));
        }
        block.bytes.extend_from_slice(payload);
        if head.has(frame::END_HEADERS) {
            return self.on_block(block.id, block.end_stream, &block.bytes);
        }
        self.block = Some(block);
        Ok(())
    }

    /// A whole block. It is decoded even if nobody wants it, so that the tables stay in step.
    fn on_block(&mut self, id: u32, end_stream: bool, block: &[u8]) -> Result<(), Violation> {
        let key = self.streams.find(id);
        let fields = if key.is_some() { HeaderMap::with_capacity(USUAL_FIELDS) } else { HeaderMap::new() };
        let mut message = Message { status: None, fields, plain_seen: false, malformed: None };
        let decoded = self.decoder.decode(block, &mut |field| {
            if key.is_some() {
                message.push(field);
            }
        });
        let summary = decoded.map_err(|error| Violation::new(Code::COMPRESSION_ERROR, error.what))?;
        let Some(key) = key else { return self.on_unwanted(id) };
        self.budget.useful();
        if summary.cut {
            let (bytes, fields) = (self.config.max_header_list_size, self.config.max_header_fields);
            let message = format!("a header list of more than {bytes} bytes or {fields} fields");
            let failure = Failure::new(Kind::Limit, message).with_code(Code::CANCEL);
            self.reset(key, Code::CANCEL, failure.with_delivery(Delivery::Answered));
            return Ok(());
        }
        let outcome = match (message.malformed, self.streams.get(key)) {
            (_, None) => Ok(()),
            // Our half may still be open; the answer is complete and stands.
            (_, Some(stream)) if stream.remote_closed => Err(Violation::closed("HEADERS after the end of the stream")),
            (Some(what), _) => Err(Violation::protocol(what)),
            (None, Some(stream)) => stream.on_message(message, end_stream),
        };
        match outcome {
            Ok(()) if end_stream => self.on_end(key),
            Ok(()) => self.wake_reader(key),
            Err(violation) => self.malformed(key, violation),
        }
        Ok(())
    }

    /// A message that HTTP forbids: its stream ends (RFC 9113 8.1.1), the connection lives.
    pub(crate) fn malformed(&mut self, key: Key, violation: Violation) {
        let failure = Failure::new(violation.kind(), violation.what).with_code(violation.code);
        self.reset(key, violation.code, failure.with_delivery(Delivery::Answered));
    }

    /// END_STREAM came.
    pub(crate) fn on_end(&mut self, key: Key) {
        let Some(stream) = self.streams.get(key) else { return };
        if !stream.head_seen {
            return self.malformed(key, Violation::protocol("the stream ended without a response"));
        }
        if stream.promised.is_some_and(|left| left > 0) {
            return self.malformed(key, Violation::protocol("less data than content-length promised"));
        }
        stream.remote_closed = true;
        self.wake_reader(key);
        self.settle(key);
    }

    pub(crate) fn wake_reader(&mut self, key: Key) {
        if let Some(stream) = self.streams.get(key) {
            self.wakes.extend(stream.reader.take());
        }
    }
}

impl Stream {
    fn on_message(&mut self, message: Message, end_stream: bool) -> Result<(), Violation> {
        if self.head_seen {
            // RFC 9113 8.1: what follows the body are trailers, which end the stream and have no pseudo-headers.
            if message.status.is_some() || !end_stream {
                return Err(Violation::protocol("a second response, or trailers that don't end the stream"));
            }
            self.received.trailers = Some(Box::new(message.fields));
            return Ok(());
        }
        let status = message.status.ok_or(Violation::protocol("a response without :status"))?;
        if status.is_informational() {
            return self.on_informational(status, message.fields, end_stream);
        }
        self.promised = content_length(&message.fields).map_err(Violation::protocol)?;
        if self.is_head || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
            // These have no body, whatever length is said (RFC 9110 6.4.1).
            self.promised = Some(0);
        }
        if self.is_connect && status.is_success() {
            // RFC 9110 9.3.6: what follows is the tunnel's.
            self.promised = None;
        }
        self.head_seen = true;
        self.head = Some((status, message.fields));
        Ok(())
    }

    fn on_informational(&mut self, status: StatusCode, fields: HeaderMap, end_stream: bool) -> Result<(), Violation> {
        // RFC 9113 8.6: there is no switching of protocols.
        if end_stream || status == StatusCode::SWITCHING_PROTOCOLS {
            let what = "an informational response that ends the stream or switches protocols";
            return Err(Violation::protocol(what));
        }
        self.informational_seen = self.informational_seen.saturating_add(1);
        if self.informational_seen > MAX_INFORMATIONAL {
            return Err(Violation::calm("informational responses without end"));
        }
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = fields;
        self.informational.push_back(response);
        Ok(())
    }
}

/// What content-length says; several that differ, or one that is no number, make the message malformed.
fn content_length(fields: &HeaderMap) -> Result<Option<u64>, &'static str> {
    let mut said = None;
    for value in fields.get_all(header::CONTENT_LENGTH) {
        let length = decimal(value.as_bytes()).ok_or("a content-length that is no number")?;
        if said.is_some_and(|said| said != length) {
            return Err("two content-lengths that differ");
        }
        said = Some(length);
    }
    Ok(said)
}

/// Digits alone, within 64 bits (RFC 9110 8.6).
fn decimal(text: &[u8]) -> Option<u64> {
    let (first, rest) = text.split_first()?;
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u64::from(byte & 15));
    rest.iter().try_fold(digit(first)?, |number, byte| number.checked_mul(10)?.checked_add(digit(byte)?))
}
