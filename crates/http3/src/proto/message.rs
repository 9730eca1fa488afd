//! What a response stream says, judged by RFC 9114 4: the order of its parts, its fields, its length.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use http::header::{self, HeaderMap};
use http::{Response, StatusCode};
use portolan_hpack::request::is_connection_field;
use portolan_hpack::{Field, Name, Pseudo};

use super::Violation;
use super::code::Code;

/// Informational responses before the final one. Servers send one or two; without a bound a peer keeps a caller for ever.
const MAX_INFORMATIONAL: usize = 32;
/// What most responses fit in: asking for it at once saves growing twice.
const USUAL_FIELDS: usize = 12;

/// What a field section says.
#[derive(Debug)]
pub(crate) struct Message {
    status: Option<StatusCode>,
    fields: HeaderMap,
    plain_seen: bool,
    malformed: Option<&'static str>,
}

impl Message {
    pub(crate) fn new() -> Self {
        Self { status: None, fields: HeaderMap::with_capacity(USUAL_FIELDS), plain_seen: false, malformed: None }
    }

    pub(crate) fn push(&mut self, field: Field) {
        if field.malformed {
            self.malformed = Some("a field name or value that HTTP forbids");
            return;
        }
        match field.name {
            Name::Field(name) => {
                self.plain_seen = true;
                if is_connection_field(&name) {
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

/// What a field section turned out to be.
#[derive(Debug)]
pub(crate) enum Section {
    Informational(Response<()>),
    Head(StatusCode, HeaderMap),
    Trailers(HeaderMap),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Head,
    Body,
    /// A CONNECT that succeeded: bytes of something else.
    Tunnel,
    Trailed,
}

/// One response as it comes.
#[derive(Debug)]
pub(crate) struct Exchange {
    stage: Stage,
    is_head: bool,
    is_connect: bool,
    informational: usize,
    /// What content-length says and has not come.
    left: Option<u64>,
}

fn unexpected(what: &'static str) -> Violation {
    Violation::new(Code::FRAME_UNEXPECTED, what)
}

impl Exchange {
    /// The answer to a HEAD, or to a CONNECT, or to another request.
    pub(crate) fn new(is_head: bool, is_connect: bool) -> Self {
        Self { stage: Stage::Head, is_head, is_connect, informational: 0, left: None }
    }

    /// Whether the final response has begun.
    pub(crate) fn has_head(&self) -> bool {
        self.stage != Stage::Head
    }

    /// How much of the body is to come, where the response said so.
    pub(crate) fn left(&self) -> Option<u64> {
        self.left
    }

    /// Whether a HEADERS frame may come now (RFC 9114 4.1, 4.4).
    pub(crate) fn may_have_section(&self) -> Result<(), Violation> {
        match self.stage {
            Stage::Tunnel => Err(unexpected("HEADERS in a tunnel")),
            Stage::Trailed => Err(unexpected("HEADERS after the trailers")),
            Stage::Head | Stage::Body => Ok(()),
        }
    }

    pub(crate) fn on_section(&mut self, message: Message) -> Result<Section, Violation> {
        if let Some(what) = message.malformed {
            return Err(Violation::malformed(what));
        }
        if self.stage == Stage::Body {
            if message.status.is_some() {
                return Err(Violation::malformed("a pseudo-header in trailers"));
            }
            self.stage = Stage::Trailed;
            return Ok(Section::Trailers(message.fields));
        }
        let status = message.status.ok_or(Violation::malformed("a response without :status"))?;
        if status.is_informational() {
            return self.on_informational(status, message.fields).map(Section::Informational);
        }
        self.left = content_length(&message.fields).map_err(Violation::malformed)?;
        if self.is_head || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
            // These have no body, whatever length is said (RFC 9110 6.4.1).
            self.left = Some(0);
        }
        self.stage = Stage::Body;
        if self.is_connect && status.is_success() {
            (self.stage, self.left) = (Stage::Tunnel, None);
        }
        Ok(Section::Head(status, message.fields))
    }

    fn on_informational(&mut self, status: StatusCode, fields: HeaderMap) -> Result<Response<()>, Violation> {
        // RFC 9114 4.5: there is no switching of protocols.
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Violation::malformed("a response that switches protocols"));
        }
        self.informational = self.informational.saturating_add(1);
        if self.informational > MAX_INFORMATIONAL {
            return Err(Violation::of_stream(Code::EXCESSIVE_LOAD, "informational responses without end"));
        }
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = fields;
        Ok(response)
    }

    pub(crate) fn on_data(&mut self, len: usize) -> Result<(), Violation> {
        match self.stage {
            Stage::Head => return Err(unexpected("DATA before the response's head")),
            Stage::Trailed => return Err(unexpected("DATA after the trailers")),
            Stage::Body | Stage::Tunnel => {}
        }
        if let Some(left) = self.left {
            let left = left.checked_sub(len as u64);
            self.left = Some(left.ok_or(Violation::malformed("more data than content-length promised"))?);
        }
        Ok(())
    }

    /// The stream ended in good order.
    pub(crate) fn on_end(&self) -> Result<(), Violation> {
        if self.stage == Stage::Head {
            return Err(Violation::malformed("the stream ended without a response"));
        }
        if self.left.is_some_and(|left| left > 0) {
            return Err(Violation::malformed("less data than content-length promised"));
        }
        Ok(())
    }
}

/// What content-length says; several that differ, or one that is no number, make the message malformed.
fn content_length(fields: &HeaderMap) -> Result<Option<u64>, &'static str> {
    let mut said = None;
    for value in fields.get_all(header::CONTENT_LENGTH) {
        let digits = value.as_bytes();
        let length = match std::str::from_utf8(digits) {
            Ok(text) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => text.parse().ok(),
            _ => None,
        };
        let length: u64 = length.ok_or("a content-length that is no number")?;
        if said.is_some_and(|said| said != length) {
            return Err("two content-lengths that differ");
        }
        said = Some(length);
    }
    Ok(said)
}
