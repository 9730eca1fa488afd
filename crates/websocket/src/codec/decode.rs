//! Bytes to messages: fragments joined, text checked, data inflated, all within limits.

use bytes::{Buf, Bytes, BytesMut};
use portolan_core::{Error, Result};
use portolan_wire::{Codec, DecodeError, Why};

use super::close::{CloseCode, CloseFrame};
use super::deflate::{Failure, Inflater};
use super::encode::Encoder;
use super::extension::DeflateAgreed;
use super::frame::{Header, HeaderRules, Opcode, Role};
use super::message::{DataKind, Message};
use super::text::Text;
use super::utf8::{Invalid, Utf8};
use super::{PROTOCOL, mask};

/// What the peer may ask us to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The longest payload of one frame, as it is on the wire.
    pub frame: usize,
    /// The longest message: its fragments together, inflated.
    pub message: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { frame: 16 << 20, message: 64 << 20 }
    }
}

/// What arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Message(DataKind, Bytes),
    /// A piece of a message that is read as it arrives.
    Piece {
        kind: DataKind,
        data: Bytes,
        end: bool,
    },
    Ping(Bytes),
    Pong(Bytes),
    Close(Option<CloseFrame>),
}

/// The peer broke a rule: what it is told, and what the caller is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) code: CloseCode,
    pub(crate) error: DecodeError,
}

impl Violation {
    fn utf8() -> Self {
        Self { code: CloseCode::INVALID_DATA, error: DecodeError::invalid("utf-8", 0) }
    }

    fn too_big(what: &'static str) -> Self {
        Self { code: CloseCode::TOO_BIG, error: DecodeError::too_long(what, 0) }
    }

    fn protocol(what: &'static str) -> Self {
        DecodeError::invalid(what, 0).into()
    }

    pub(crate) fn into_error(self) -> Error {
        self.error.into_error(PROTOCOL).with_code(i64::from(self.code.get()))
    }
}

impl From<DecodeError> for Violation {
    fn from(error: DecodeError) -> Self {
        let code = match (error.why, error.what) {
            (Why::TooLong, _) => CloseCode::TOO_BIG,
            (_, "utf-8") => CloseCode::INVALID_DATA,
            _ => CloseCode::PROTOCOL,
        };
        Self { code, error }
    }
}

impl From<Invalid> for Violation {
    fn from(_: Invalid) -> Self {
        Self::utf8()
    }
}

impl From<Failure> for Violation {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Corrupt => {
                Self { code: CloseCode::INVALID_DATA, error: DecodeError::invalid("compressed data", 0) }
            }
            Failure::TooBig => Self::too_big("inflated message"),
        }
    }
}

/// A message that lies in the buffer from its first byte to its last.
type Whole = Result<Option<(DataKind, Bytes)>, Violation>;

/// The receiving half of a connection. Whole messages come by [`Codec::decode`].
#[derive(Debug)]
pub struct Decoder {
    rules: HeaderRules,
    limits: Limits,
    inflater: Inflate,
    frame: Option<Frame>,
    message: Option<Joining>,
    encoder: Encoder,
}

#[derive(Debug)]
enum Inflate {
    Not,
    /// Made when the first compressed message comes: window bits and takeover.
    Later(u8, bool),
    Now(Box<Inflater>),
}

/// The data frame whose payload is coming.
#[derive(Debug)]
struct Frame {
    fin: bool,
    key: Option<[u8; 4]>,
    /// How much of the payload was seen: unmasked and checked.
    seen: usize,
    len: usize,
    /// How much of what was seen still lies at the front of the buffer: a message of one frame is taken out whole.
    held: usize,
}

/// The message whose frames are coming.
#[derive(Debug)]
struct Joining {
    kind: DataKind,
    compressed: bool,
    /// It may be taken out of the buffer whole.
    whole: bool,
    utf8: Utf8,
    /// What was joined or inflated and not yet given.
    joined: Vec<u8>,
    /// What was given piece by piece.
    given: usize,
}

impl Default for Decoder {
    /// A client's, with the default limits and without compression.
    fn default() -> Self {
        Self::new(Role::Client, Limits::default(), None)
    }
}

impl Decoder {
    /// The receiving half of this end.
    pub fn new(role: Role, limits: Limits, deflate: Option<DeflateAgreed>) -> Self {
        let inflater = match (deflate, role) {
            (None, _) => Inflate::Not,
            (Some(agreed), Role::Client) => Inflate::Later(agreed.server_bits, agreed.server_takeover),
            (Some(agreed), Role::Server) => Inflate::Later(agreed.client_bits, agreed.client_takeover),
        };
        Self {
            rules: HeaderRules { role, deflate: deflate.is_some() },
            limits,
            inflater,
            frame: None,
            message: None,
            encoder: Encoder::new(role, None, None),
        }
    }

    /// How many more bytes the buffer must hold before the message at hand can be taken out of it whole.
    pub(crate) fn wanted(&self) -> usize {
        match (&self.frame, &self.message) {
            (Some(frame), Some(message)) if message.whole => frame.len - frame.seen,
            _ => 0,
        }
    }

    /// Whether a message has begun and not ended.
    pub(crate) fn in_message(&self) -> bool {
        self.message.is_some()
    }

    /// The next event. With `pieces` a message is given as it arrives, otherwise whole; the manner may change under way.
    pub(crate) fn next(&mut self, src: &mut BytesMut, pieces: bool) -> Result<Option<Event>, Violation> {
        loop {
            if self.frame.is_none() {
                if !pieces && let Some((kind, data)) = self.short(src)? {
                    return Ok(Some(Event::Message(kind, data)));
                }
                let Some((header, at)) = Header::decode(src, self.rules)? else { return Ok(None) };
                if header.opcode.is_control() {
                    return control(header, at, src);
                }
                if !pieces && let Some((kind, data)) = self.at_once(&header, at, src)? {
                    return Ok(Some(Event::Message(kind, data)));
                }
                self.begin(header)?;
                src.advance(at);
            }
            if let Some(event) = self.payload(src, pieces)? {
                return Ok(Some(event));
            }
            if self.frame.is_some() {
                return Ok(None);
            }
        }
    }

    /// A message of one frame that is here whole and not compressed, as most are: nothing need be kept of it.
    fn at_once(&self, header: &Header, at: usize, src: &mut BytesMut) -> Whole {
        let kind = match header.opcode {
            Opcode::Text => DataKind::Text,
            Opcode::Binary => DataKind::Binary,
            _ => return Ok(None),
        };
        let Ok(len) = usize::try_from(header.len) else { return Ok(None) };
        if !header.fin || header.compressed || header.key.is_some() {
            return Ok(None);
        }
        self.whole(kind, at, len, src)
    }

    /// The same by a look at two bytes: no fragment, nothing reserved, no mask, and a length that they hold.
    #[inline]
    pub(crate) fn short(&self, src: &mut BytesMut) -> Whole {
        let (kind, len) = match src.first_chunk::<2>() {
            Some(&[0x81, len @ ..=125]) => (DataKind::Text, len),
            Some(&[0x82, len @ ..=125]) => (DataKind::Binary, len),
            _ => return Ok(None),
        };
        let ours = self.rules.role == Role::Client && self.frame.is_none();
        if ours { self.whole(kind, 2, usize::from(len), src) } else { Ok(None) }
    }

    #[inline]
    fn whole(&self, kind: DataKind, at: usize, len: usize, src: &mut BytesMut) -> Whole {
        let end = at.saturating_add(len);
        if self.message.is_some() || len > self.limits.frame || len > self.limits.message || src.len() < end {
            return Ok(None);
        }
        let mut data = src.split_to(end).freeze();
        data.advance(at);
        if kind == DataKind::Text {
            let mut utf8 = Utf8::default();
            utf8.push(&data)?;
            utf8.finish()?;
        }
        Ok(Some((kind, data)))
    }

    /// Takes up the header of a data frame; nothing is reserved for it.
    fn begin(&mut self, header: Header) -> Result<(), Violation> {
        let len = usize::try_from(header.len).ok().filter(|len| *len <= self.limits.frame);
        let len = len.ok_or_else(|| Violation::too_big("frame"))?;
        let kind = match (header.opcode, &self.message) {
            (Opcode::Continuation, None) => return Err(Violation::protocol("continuation of nothing")),
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err(Violation::protocol("message within a message")),
            (Opcode::Text, None) => Some(DataKind::Text),
            (Opcode::Binary, None) => Some(DataKind::Binary),
            _ => None,
        };
        if let Some(kind) = kind {
            self.message = Some(Joining {
                kind,
                compressed: header.compressed,
                whole: header.fin && !header.compressed,
                utf8: Utf8::default(),
                joined: Vec::new(),
                given: 0,
            });
        }
        let Some(message) = &self.message else { return Ok(()) };
        let total = message.joined.len().saturating_add(message.given).saturating_add(len);
        if !message.compressed && total > self.limits.message {
            return Err(Violation::too_big("message"));
        }
        self.frame = Some(Frame { fin: header.fin, key: header.key, seen: 0, len, held: 0 });
        Ok(())
    }

    /// Works on what has arrived of the payload.
    fn payload(&mut self, src: &mut BytesMut, pieces: bool) -> Result<Option<Event>, Violation> {
        let (Some(frame), Some(message)) = (&mut self.frame, &mut self.message) else { return Ok(None) };
        let fresh = src.len().saturating_sub(frame.held).min(frame.len - frame.seen);
        let Some(data) = src.get_mut(frame.held..frame.held + fresh) else { return Ok(None) };
        if let Some(key) = frame.key {
            mask::apply(data, key, frame.seen);
        }
        frame.seen += fresh;
        let frame_done = frame.seen == frame.len;
        let done = frame_done && frame.fin;
        if message.compressed {
            let from = message.joined.len();
            let inflater = self.inflater.ready()?;
            let limit = self.limits.message.saturating_sub(message.given);
            inflater.inflate(data, &mut message.joined, limit)?;
            if done {
                inflater.finish(&mut message.joined, limit)?;
            }
            src.advance(fresh);
            message.check(from)?;
        } else {
            if message.kind == DataKind::Text {
                message.utf8.push(data)?;
            }
            frame.held += fresh;
        }
        if done && message.kind == DataKind::Text {
            message.utf8.finish()?;
        }
        let held = frame.held;
        if frame_done {
            self.frame = None;
        }
        let event = if pieces { self.piece(src, held, done) } else { self.join(src, held, done) };
        if done {
            self.message = None;
        }
        Ok(event)
    }

    /// Gives what there is of a message.
    fn piece(&mut self, src: &mut BytesMut, held: usize, end: bool) -> Option<Event> {
        let message = self.message.as_mut()?;
        message.whole = false;
        if let Some(frame) = &mut self.frame {
            frame.held = 0;
        }
        let mut data = src.split_to(held).freeze();
        if !message.joined.is_empty() {
            let mut joined = std::mem::take(&mut message.joined);
            joined.extend_from_slice(&data);
            data = joined.into();
        }
        message.given = message.given.saturating_add(data.len());
        if data.is_empty() && !end {
            return None;
        }
        Some(Event::Piece { kind: message.kind, data, end })
    }

    /// Gives a message when it is whole; what can't be taken out of the buffer in one is joined as it arrives.
    fn join(&mut self, src: &mut BytesMut, held: usize, end: bool) -> Option<Event> {
        let message = self.message.as_mut()?;
        if message.whole {
            return end.then(|| Event::Message(message.kind, src.split_to(held).freeze()));
        }
        if let Some(frame) = &mut self.frame {
            frame.held = 0;
        }
        message.joined.extend_from_slice(src.get(..held).unwrap_or_default());
        src.advance(held);
        end.then(|| Event::Message(message.kind, std::mem::take(&mut message.joined).into()))
    }
}

impl Joining {
    /// Checks the text that was inflated from `from` on.
    fn check(&mut self, from: usize) -> Result<(), Invalid> {
        match self.kind {
            DataKind::Text => self.utf8.push(self.joined.get(from..).unwrap_or_default()),
            DataKind::Binary => Ok(()),
        }
    }
}

impl Inflate {
    fn ready(&mut self) -> Result<&mut Inflater, Violation> {
        if let Self::Later(bits, takeover) = *self {
            *self = Self::Now(Box::new(Inflater::new(bits, takeover)));
        }
        match self {
            Self::Now(inflater) => Ok(inflater),
            _ => Err(Violation::protocol("reserved bits")),
        }
    }
}

/// A control frame, once all of it is there.
fn control(header: Header, at: usize, src: &mut BytesMut) -> Result<Option<Event>, Violation> {
    let len = usize::try_from(header.len).unwrap_or(usize::MAX);
    if src.len().saturating_sub(at) < len {
        return Ok(None);
    }
    src.advance(at);
    let mut payload = src.split_to(len);
    if let Some(key) = header.key {
        mask::apply(&mut payload, key, 0);
    }
    Ok(Some(match header.opcode {
        Opcode::Close => Event::Close(CloseFrame::decode(&payload)?),
        Opcode::Ping => Event::Ping(payload.freeze()),
        _ => Event::Pong(payload.freeze()),
    }))
}

impl Event {
    /// As the caller sees it; pieces are not for this.
    pub(crate) fn into_message(self) -> Message {
        match self {
            Self::Message(DataKind::Text, data) | Self::Piece { kind: DataKind::Text, data, .. } => {
                Message::Text(Text::checked(data))
            }
            Self::Message(DataKind::Binary, data) | Self::Piece { kind: DataKind::Binary, data, .. } => {
                Message::Binary(data)
            }
            Self::Ping(data) => Message::Ping(data),
            Self::Pong(data) => Message::Pong(data),
            Self::Close(frame) => Message::Close(frame),
        }
    }
}

impl Codec for Decoder {
    type Frame = Message;
    type Out = Message;

    fn protocol(&self) -> &'static str {
        PROTOCOL
    }

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Message>, DecodeError> {
        match self.next(src, false) {
            Ok(event) => Ok(event.map(Event::into_message)),
            Err(violation) => Err(violation.error),
        }
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Message>, DecodeError> {
        match self.decode(src)? {
            Some(message) => Ok(Some(message)),
            None if src.is_empty() && self.message.is_none() => Ok(None),
            None => Err(DecodeError::truncated("message", src.len())),
        }
    }

    /// Encodes as this end would send it, without compression.
    fn encode(&mut self, item: &Message, dst: &mut BytesMut) -> Result<()> {
        self.encoder.message(item, dst)
    }
}

#[cfg(test)]
mod tests {
    use portolan_wire::laws::{self, Laws};

    use super::*;

    fn client(deflate: Option<DeflateAgreed>) -> Decoder {
        Decoder::new(Role::Client, Limits { frame: 1 << 20, message: 1 << 20 }, deflate)
    }

    fn server(deflate: Option<DeflateAgreed>) -> Decoder {
        Decoder::new(Role::Server, Limits { frame: 1 << 20, message: 1 << 20 }, deflate)
    }

    const DEFLATE: DeflateAgreed =
        DeflateAgreed { client_takeover: true, server_takeover: true, client_bits: 15, server_bits: 15 };

    const SEEDS: &[&[u8]] = &[
        b"\x81\x05Hello\x82\x03\x01\x02\x03",
        b"\x01\x03Hel\x89\x02hi\x80\x02lo",
        b"\x01\x01\xce\x00\x00\x80\x01\xba\x88\x05\x03\xe8bye",
        b"\x82\x7e\x00\x80aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
          aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        b"\x8a\x00\x88\x00",
    ];

    #[test]
    fn the_laws_hold_for_a_client() {
        laws::check(|| client(None), SEEDS);
    }

    #[test]
    fn the_laws_hold_for_a_server() {
        laws::check(|| server(None), &[b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58\x89\x80abcd\x82\x81abcd\x00"]);
    }

    #[test]
    fn the_laws_hold_with_compression() {
        // Inflating may multiply by a thousand, up to the limit of the message: that is the bound here.
        let seeds: &[&[u8]] =
            &[b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00\x81\x01x", b"\x41\x03\xf2\x48\xcd\x80\x04\xc9\xc9\x07\x00"];
        Laws::default().slack(2 << 20).check(|| client(Some(DEFLATE)), seeds);
    }

    #[test]
    fn what_is_encoded_comes_back() {
        let messages = [
            Message::text("h\u{e9}llo"),
            Message::binary(vec![7; 70_000]),
            Message::binary(vec![7; 200]),
            Message::Ping(Bytes::from_static(b"p")),
            Message::Pong(Bytes::new()),
            Message::Close(Some(CloseFrame::new(CloseCode::NORMAL, "bye"))),
            Message::Close(None),
        ];
        // A client's frames are for a server to read, so the two halves are joined here.
        let mut bytes = BytesMut::new();
        let (mut from, mut to) = (client(None), server(None));
        for message in &messages {
            from.encode(message, &mut bytes).unwrap();
        }
        for message in &messages {
            assert_eq!(to.decode(&mut bytes).unwrap().as_ref(), Some(message));
        }
        assert!(bytes.is_empty());
    }

    #[test]
    fn a_message_of_one_frame_is_not_copied() {
        let mut src = BytesMut::from(&b"\x82\x04abcd"[..]);
        let place = src[2..].as_ptr();
        assert_eq!(client(None).decode(&mut src).unwrap().unwrap().into_data().as_ptr(), place);
    }

    #[test]
    fn pieces_come_as_they_arrive_and_the_manner_may_change() {
        let mut decoder = client(None);
        let mut src = BytesMut::from(&b"\x82\x08ab"[..]);
        assert_eq!(decoder.next(&mut src, false), Ok(None));
        src.extend_from_slice(b"cd");
        let piece =
            |data: &'static [u8], end| Event::Piece { kind: DataKind::Binary, data: Bytes::from_static(data), end };
        assert_eq!(decoder.next(&mut src, true), Ok(Some(piece(b"abcd", false))));
        assert_eq!(decoder.next(&mut src, true), Ok(None));
        src.extend_from_slice(b"efgh\x82\x00");
        assert_eq!(decoder.next(&mut src, true), Ok(Some(piece(b"efgh", true))));
        assert_eq!(decoder.next(&mut src, true), Ok(Some(piece(b"", true))));
        src.extend_from_slice(b"\x02\x02ab");
        assert_eq!(decoder.next(&mut src, false), Ok(None));
        src.extend_from_slice(b"\x89\x00\x80\x02cd");
        assert_eq!(decoder.next(&mut src, true), Ok(Some(Event::Ping(Bytes::new()))));
        assert_eq!(decoder.next(&mut src, true), Ok(Some(piece(b"abcd", true))));
    }

    #[test]
    fn limits_hold_before_the_bytes_come_and_across_fragments() {
        let mut src = BytesMut::from(&b"\x82\x7f\x00\x00\x00\x00\x00\x10\x00\x01"[..]);
        assert_eq!(client(None).next(&mut src, false).unwrap_err().code, CloseCode::TOO_BIG);
        let mut decoder = Decoder::new(Role::Client, Limits { frame: 10, message: 15 }, None);
        let mut src = BytesMut::from(&b"\x02\x0aaaaaaaaaaa\x00\x06"[..]);
        assert_eq!(decoder.next(&mut src, false).unwrap_err().error, DecodeError::too_long("message", 0));
        let mut decoder = Decoder::new(Role::Client, Limits { frame: 10, message: 15 }, None);
        let mut src = BytesMut::from(&b"\x02\x0aaaaaaaaaaa\x00\x06"[..]);
        assert!(decoder.next(&mut src, true).is_ok());
        assert!(decoder.next(&mut src, true).is_err());
    }
}
