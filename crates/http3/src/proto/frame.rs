//! Frames (RFC 9114 7): cut out of a stream's bytes without copying, each judged by the stream it came on.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use bytes::{Buf, Bytes, BytesMut};

use super::code::Code;
use super::{Violation, varint};

pub(crate) const DATA: u64 = 0x0;
pub(crate) const HEADERS: u64 = 0x1;
pub(crate) const CANCEL_PUSH: u64 = 0x3;
pub(crate) const SETTINGS: u64 = 0x4;
pub(crate) const PUSH_PROMISE: u64 = 0x5;
pub(crate) const GOAWAY: u64 = 0x7;
/// RFC 9412.
pub(crate) const ORIGIN: u64 = 0xc;
pub(crate) const MAX_PUSH_ID: u64 = 0xd;

/// The longest frame head: two integers of eight bytes.
const MAX_HEAD: usize = 16;
/// Bytes of SETTINGS. A real peer's take some fifty.
const MAX_SETTINGS_LEN: u64 = 4096;
/// Bytes of ORIGIN: as many as a frame of HTTP/2 has. A longer one is passed over.
const MAX_ORIGIN_LEN: u64 = 16_384;
/// Origins of one frame that are kept.
const MAX_ORIGINS: usize = 128;

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A response.
    Request,
    /// The peer's control stream.
    Control,
}

/// What came. Data comes in as many pieces as it arrived in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    Data(Bytes),
    Headers(Bytes),
    Settings(Bytes),
    GoAway(u64),
    Origin(Bytes),
    /// One that we don't know, of this length; it will be skipped. Or data that is none. Both cost us work for nothing.
    Idle(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Head,
    Data(u64),
    Gather(u64, usize),
    Skip(u64),
}

/// Cuts one stream into frames.
#[derive(Debug)]
pub(crate) struct Frames {
    role: Role,
    max_section: u64,
    settings_seen: bool,
    step: Step,
    /// What of a head, or of a frame that must be whole, arrived in earlier pieces.
    gathered: BytesMut,
}

impl Frames {
    /// For a stream of this role, whose field sections take at most `max_section` bytes as they are coded.
    pub(crate) fn new(role: Role, max_section: u64) -> Self {
        Self { role, max_section, settings_seen: false, step: Step::Head, gathered: BytesMut::new() }
    }

    /// The next frame; `None` when `input` is used up.
    pub(crate) fn next(&mut self, input: &mut Bytes) -> Result<Option<Frame>, Violation> {
        loop {
            match self.step {
                Step::Head => {
                    let Some((kind, len)) = self.head(input) else { return Ok(None) };
                    self.step = self.judge(kind, len)?;
                    match self.step {
                        Step::Skip(len) => return Ok(Some(Frame::Idle(len))),
                        Step::Data(0) => {
                            self.step = Step::Head;
                            return Ok(Some(Frame::Idle(0)));
                        }
                        _ => {}
                    }
                }
                Step::Data(left) => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let take = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    self.less(left, take, Step::Data);
                    return Ok(Some(Frame::Data(input.split_to(take))));
                }
                Step::Skip(left) => {
                    if left > 0 && input.is_empty() {
                        return Ok(None);
                    }
                    let take = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    input.advance(take);
                    self.less(left, take, Step::Skip);
                }
                Step::Gather(kind, len) => {
                    let Some(payload) = self.gather(len, input) else { return Ok(None) };
                    self.step = Step::Head;
                    return finish(kind, payload).map(Some);
                }
            }
        }
    }

    /// Whether the stream may end here: not within a frame (RFC 9114 7.1).
    pub(crate) fn end(&self) -> Result<(), Violation> {
        if self.is_between() {
            Ok(())
        } else {
            Err(Violation::new(Code::FRAME_ERROR, "the stream ends within a frame"))
        }
    }

    /// Whether no frame is under way.
    pub(crate) fn is_between(&self) -> bool {
        self.step == Step::Head && self.gathered.is_empty()
    }

    fn less(&mut self, left: u64, taken: usize, step: fn(u64) -> Step) {
        let left = left.saturating_sub(taken as u64);
        self.step = if left == 0 { Step::Head } else { step(left) };
    }

    fn head(&mut self, input: &mut Bytes) -> Option<(u64, u64)> {
        if self.gathered.is_empty() {
            if let Some((kind, len, size)) = read_head(input) {
                input.advance(size);
                return Some((kind, len));
            }
            self.gathered.extend_from_slice(&input.split_to(input.len()));
            return None;
        }
        let before = self.gathered.len();
        let more = MAX_HEAD.saturating_sub(before).min(input.len());
        self.gathered.extend_from_slice(input.get(..more)?);
        let Some((kind, len, size)) = read_head(&self.gathered) else {
            input.advance(more);
            return None;
        };
        input.advance(size.saturating_sub(before));
        self.gathered.clear();
        Some((kind, len))
    }

    fn gather(&mut self, len: usize, input: &mut Bytes) -> Option<Bytes> {
        if self.gathered.is_empty() && input.len() >= len {
            return Some(input.split_to(len));
        }
        let more = len.saturating_sub(self.gathered.len()).min(input.len());
        self.gathered.extend_from_slice(&input.split_to(more));
        (self.gathered.len() == len).then(|| self.gathered.split().freeze())
    }

    /// Whether a frame may come here, and what is done with it (RFC 9114 7.2).
    fn judge(&mut self, kind: u64, len: u64) -> Result<Step, Violation> {
        let unexpected = |what| Err(Violation::new(Code::FRAME_UNEXPECTED, what));
        if self.role == Role::Control {
            return self.judge_control(kind, len);
        }
        match kind {
            DATA => Ok(Step::Data(len)),
            HEADERS => match usize::try_from(len) {
                Ok(size) if len <= self.max_section => Ok(Step::Gather(kind, size)),
                _ => Err(Violation::of_stream(Code::EXCESSIVE_LOAD, "a header section beyond the limit")),
            },
            // RFC 9114 7.2.5: we granted no push, so any id is too large.
            PUSH_PROMISE => Err(Violation::new(Code::ID_ERROR, "a push, and none was granted")),
            CANCEL_PUSH | SETTINGS | GOAWAY | MAX_PUSH_ID => unexpected("a frame of the control stream on a request"),
            // RFC 9114 7.2.8: frames of HTTP/2.
            0x2 | 0x6 | 0x8 | 0x9 => unexpected("a frame of HTTP/2"),
            _ => Ok(Step::Skip(len)),
        }
    }

    fn judge_control(&mut self, kind: u64, len: u64) -> Result<Step, Violation> {
        if !self.settings_seen && kind != SETTINGS {
            return Err(Violation::new(Code::MISSING_SETTINGS, "the control stream does not begin with SETTINGS"));
        }
        let unexpected = |what| Err(Violation::new(Code::FRAME_UNEXPECTED, what));
        match kind {
            SETTINGS if self.settings_seen => unexpected("SETTINGS twice"),
            SETTINGS => {
                self.settings_seen = true;
                match usize::try_from(len) {
                    Ok(size) if len <= MAX_SETTINGS_LEN => Ok(Step::Gather(kind, size)),
                    _ => Err(Violation::new(Code::EXCESSIVE_LOAD, "SETTINGS without end")),
                }
            }
            GOAWAY => match usize::try_from(len) {
                Ok(size @ 1..=8) => Ok(Step::Gather(kind, size)),
                _ => Err(Violation::new(Code::FRAME_ERROR, "GOAWAY that is not one id")),
            },
            ORIGIN => match usize::try_from(len) {
                Ok(size) if len <= MAX_ORIGIN_LEN => Ok(Step::Gather(kind, size)),
                _ => Ok(Step::Skip(len)),
            },
            CANCEL_PUSH => Err(Violation::new(Code::ID_ERROR, "a push is cancelled, and none was granted")),
            DATA | HEADERS | PUSH_PROMISE => unexpected("a frame of requests on the control stream"),
            MAX_PUSH_ID => unexpected("MAX_PUSH_ID from a server"),
            0x2 | 0x6 | 0x8 | 0x9 => unexpected("a frame of HTTP/2"),
            _ => Ok(Step::Skip(len)),
        }
    }
}

fn finish(kind: u64, payload: Bytes) -> Result<Frame, Violation> {
    match kind {
        HEADERS => Ok(Frame::Headers(payload)),
        SETTINGS => Ok(Frame::Settings(payload)),
        ORIGIN => Ok(Frame::Origin(payload)),
        _ => match varint::read(&payload) {
            Some((id, len)) if len == payload.len() => Ok(Frame::GoAway(id)),
            _ => Err(Violation::new(Code::FRAME_ERROR, "GOAWAY that is not one id")),
        },
    }
}

/// The origins of an ORIGIN frame (RFC 8336 2.1); `None` where it is broken.
pub(crate) fn origins(mut payload: Bytes) -> Option<Vec<Bytes>> {
    let mut origins = Vec::new();
    while !payload.is_empty() {
        let len = usize::from(payload.try_get_u16().ok()?);
        if len > payload.len() {
            return None;
        }
        // Of their own: what was read with them may be much more.
        let origin = Bytes::copy_from_slice(&payload.split_to(len));
        if origins.len() < MAX_ORIGINS {
            origins.push(origin);
        }
    }
    Some(origins)
}

#[inline]
fn read_head(bytes: &[u8]) -> Option<(u64, u64, usize)> {
    let (kind, kind_len) = varint::read(bytes)?;
    let (len, len_len) = varint::read(bytes.get(kind_len..)?)?;
    Some((kind, len, kind_len.saturating_add(len_len)))
}

/// Writes the head of a frame.
pub(crate) fn put_head(kind: u64, len: usize, out: &mut BytesMut) {
    varint::put(kind, out);
    varint::put(len as u64, out);
}
