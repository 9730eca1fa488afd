//! What the peer sends: each frame checked, then given to whom it concerns.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use bytes::{Buf, BytesMut};
use portolan_core::clock::Instant;
use portolan_core::{Delivery, Kind};

use super::code::Code;
use super::failure::Failure;
use super::frame::{self, Head};
use super::ping::Purpose;
use super::{Engine, Violation, own};
use crate::event::{Event, GoAway};

/// Debug data of a GOAWAY that is kept.
const MAX_DEBUG: usize = 1024;
/// Origins of one ORIGIN frame that are kept.
const MAX_ORIGINS: usize = 128;

impl Engine {
    /// Takes in what was read and leaves what is no whole frame yet. After a violation nothing more is taken in.
    pub(crate) fn recv(&mut self, input: &mut BytesMut, now: Instant) {
        self.pings.last_heard = now;
        while self.failure.is_none() {
            match self.next_frame(input, now) {
                Ok(true) => {}
                Ok(false) => return,
                Err(violation) => self.violated(violation),
            }
        }
        input.clear();
    }

    /// How much more must be read for the frame that has begun.
    pub(crate) fn wanted(&self, input: &[u8]) -> usize {
        let whole = Head::parse(input).map_or(frame::HEAD, |head| head.len.saturating_add(frame::HEAD));
        whole.saturating_sub(input.len())
    }

    fn next_frame(&mut self, input: &mut BytesMut, now: Instant) -> Result<bool, Violation> {
        let Some(head) = Head::parse(input) else { return Ok(false) };
        if !self.settings_seen && input.starts_with(b"HTTP/1.") {
            // The preface was made so that such a peer takes nothing of what follows for a request (RFC 9113 3.4).
            let failure =
                Failure::new(Kind::Unsupported, "the peer answers in HTTP/1").with_code(Code::HTTP_1_1_REQUIRED);
            self.fail(failure.with_delivery(Delivery::Refused));
            return Ok(false);
        }
        // On the nine bytes alone, before room for the rest is made (RFC 9113 4.2).
        if head.len > self.config.max_frame_size as usize {
            return Err(Violation::new(Code::FRAME_SIZE_ERROR, "a frame longer than SETTINGS_MAX_FRAME_SIZE"));
        }
        if !self.settings_seen && (head.kind != frame::SETTINGS || head.has(frame::ACK)) {
            return Err(Violation::protocol("the first frame is not SETTINGS"));
        }
        if self.block.is_some() && head.kind != frame::CONTINUATION {
            return Err(Violation::protocol("a frame within a header block"));
        }
        let whole = head.len.saturating_add(frame::HEAD);
        if input.len() < whole {
            return Ok(false);
        }
        if head.kind == frame::DATA {
            input.advance(frame::HEAD);
            self.on_data(head, input, now)?;
            return Ok(true);
        }
        let payload = input.get(frame::HEAD..whole).unwrap_or_default();
        self.on_frame(head, payload, now)?;
        input.advance(whole);
        Ok(true)
    }

    fn on_frame(&mut self, head: Head, payload: &[u8], now: Instant) -> Result<(), Violation> {
        match head.kind {
            frame::HEADERS => self.on_headers(head, payload),
            frame::CONTINUATION => self.on_continuation(head, payload),
            frame::WINDOW_UPDATE => self.on_window_update(head, payload, now),
            frame::RST_STREAM => self.on_reset(head, payload, now),
            frame::SETTINGS => self.on_settings(head, payload, now),
            frame::PING => self.on_ping(head, payload, now),
            frame::GOAWAY => self.on_goaway(head, payload, now),
            // We said that we take none (RFC 9113 8.4).
            frame::PUSH_PROMISE => Err(Violation::protocol("PUSH_PROMISE, which we refuse")),
            frame::PRIORITY if head.id == 0 => Err(Violation::protocol("PRIORITY of no stream")),
            frame::PRIORITY if head.len != 5 => {
                Err(Violation::new(Code::FRAME_SIZE_ERROR, "PRIORITY of the wrong size"))
            }
            frame::ALTSVC => self.on_altsvc(head, payload, now),
            frame::ORIGIN => self.on_origin(head, payload, now),
            // PRIORITY means nothing any more, and what is unknown is ignored (RFC 9113 5.3.2, 4.1).
            _ => self.spend(now),
        }
    }

    fn spend(&mut self, now: Instant) -> Result<(), Violation> {
        if self.budget.spend(now) { Ok(()) } else { Err(Violation::calm("too many frames without use")) }
    }

    fn granted(&mut self, increment: u32, now: Instant) -> Result<(), Violation> {
        if self.budget.granted(increment, now) {
            Ok(())
        } else {
            Err(Violation::calm("too many window updates for what was sent"))
        }
    }

    /// DATA (RFC 9113 6.1). The whole payload counts for flow control, padding included.
    fn on_data(&mut self, head: Head, input: &mut BytesMut, now: Instant) -> Result<(), Violation> {
        let payload = input.get(..head.len).unwrap_or_default();
        let (data, padding) =
            frame::unpad(head, payload).ok_or_else(|| Violation::protocol("more padding than payload"))?;
        if self.is_idle(head.id) {
            return Err(Violation::protocol("DATA on a stream that was never opened"));
        }
        if !self.recv_window.receive(head.len) {
            return Err(Violation::new(Code::FLOW_CONTROL_ERROR, "more data than the connection's window"));
        }
        let end = head.has(frame::END_STREAM);
        let len = data.len();
        if len == 0 && !end {
            self.spend(now)?;
        }
        let key = self.streams.find(head.id);
        let Some((key, stream)) = key.and_then(|key| self.streams.get(key).map(|stream| (key, stream))) else {
            input.advance(head.len);
            self.release_connection(head.len);
            return if self.was_reset(head.id) { Ok(()) } else { self.on_unwanted(head.id) };
        };
        if !stream.recv_window.receive(head.len) {
            return Err(Violation::new(Code::FLOW_CONTROL_ERROR, "more data than the stream's window"));
        }
        let promised = match stream.promised {
            _ if stream.remote_closed => Err(Violation::closed("data after the end of the stream")),
            _ if !stream.head_seen => Err(Violation::protocol("data before the response")),
            Some(left) => left.checked_sub(len as u64).map(Some).ok_or(Violation::protocol("more data than promised")),
            None => Ok(None),
        };
        match promised {
            Ok(promised) => stream.promised = promised,
            Err(violation) => {
                input.advance(head.len);
                self.release_connection(head.len);
                self.malformed(key, violation);
                return Ok(());
            }
        }
        let skip = usize::from(padding > 0);
        let small = len == 0 || stream.received.push_small(data);
        if small {
            input.advance(head.len);
        } else {
            input.advance(skip);
            stream.received.push_large(input.split_to(len).freeze());
            input.advance(padding.saturating_sub(skip));
        }
        self.after_data(key, len, padding, now);
        if end {
            self.on_end(key);
        } else if len > 0 {
            self.wake_reader(key);
        }
        Ok(())
    }

    /// Padding is given back at once, for nobody will read it; bulk data asks for an estimate.
    fn after_data(&mut self, key: super::stream::Key, len: usize, padding: usize, now: Instant) {
        if padding > 0 {
            self.release_stream(key, padding);
        }
        if len > 0 {
            self.budget.useful();
        }
        if self.estimator.receive(len) && self.ping(Purpose::Estimate, now).is_none() {
            self.estimator.give_up();
        }
    }

    /// The caller has read `bytes` of a stream.
    pub(crate) fn release_stream(&mut self, key: super::stream::Key, bytes: usize) {
        let grant = match self.streams.get(key) {
            Some(stream) if !stream.remote_closed && !stream.gone => stream.recv_window.release(bytes),
            _ => None,
        };
        if let Some(grant) = grant {
            self.write(|out, _| frame::put_window_update(key.id, grant, out));
        }
        self.release_connection(bytes);
    }

    /// HEADERS or DATA for a stream that is over. What we reset is expected; the rest is the peer's fault, answered once each
    /// (RFC 9113 5.1), and not without end.
    pub(crate) fn on_unwanted(&mut self, id: u32) -> Result<(), Violation> {
        let now = self.pings.last_heard;
        self.spend(now)?;
        if self.was_reset(id) {
            return Ok(());
        }
        self.remember_reset(id);
        self.answer(|out, _| frame::put_reset(id, Code::STREAM_CLOSED, out))
    }

    /// WINDOW_UPDATE (RFC 9113 6.9).
    fn on_window_update(&mut self, head: Head, payload: &[u8], now: Instant) -> Result<(), Violation> {
        if head.len != 4 {
            return Err(Violation::new(Code::FRAME_SIZE_ERROR, "WINDOW_UPDATE of the wrong size"));
        }
        let increment = frame::u32_at_start(payload).unwrap_or(0) & frame::MAX_31;
        if head.id == 0 {
            if increment == 0 || !self.send_window.shift(i64::from(increment)) {
                return Err(Violation::new(Code::FLOW_CONTROL_ERROR, "WINDOW_UPDATE of 0 or beyond 2^31-1"));
            }
            if self.blocked.is_empty() {
                return self.granted(increment, now);
            }
            self.wakes.append(&mut self.blocked);
            return Ok(());
        }
        if self.is_idle(head.id) {
            return Err(Violation::protocol("WINDOW_UPDATE on a stream that was never opened"));
        }
        let Some(key) = self.streams.find(head.id) else { return self.granted(increment, now) };
        let Some(stream) = self.streams.get(key) else { return Ok(()) };
        if increment == 0 || !stream.send_window.shift(i64::from(increment)) {
            let failure = Failure::new(Kind::Protocol, "WINDOW_UPDATE of 0 or beyond 2^31-1");
            self.reset(key, Code::FLOW_CONTROL_ERROR, failure.with_code(Code::FLOW_CONTROL_ERROR));
            return Ok(());
        }
        match stream.writer.take() {
            Some(writer) => self.wakes.push(writer),
            None => self.granted(increment, now)?,
        }
        Ok(())
    }

    /// RST_STREAM (RFC 9113 6.4).
    fn on_reset(&mut self, head: Head, payload: &[u8], now: Instant) -> Result<(), Violation> {
        if head.len != 4 {
            return Err(Violation::new(Code::FRAME_SIZE_ERROR, "RST_STREAM of the wrong size"));
        }
        if self.is_idle(head.id) {
            return Err(Violation::protocol("RST_STREAM on a stream that was never opened"));
        }
        let code = Code::new(frame::u32_at_start(payload).unwrap_or(0));
        let Some(key) = self.streams.find(head.id) else { return self.spend(now) };
        let mut failure = Failure::new(Kind::Server, format!("the stream was reset: {code}")).with_code(code);
        if code == Code::REFUSED_STREAM {
            failure = failure.with_delivery(Delivery::Refused);
        } else if code.is_verdict() {
            failure = failure.with_delivery(Delivery::Answered);
        }
        // An answer that is complete stands: the peer only wants no more of the upload (RFC 9113 8.1).
        self.fail_stream(key, failure);
        Ok(())
    }

    /// SETTINGS (RFC 9113 6.5).
    fn on_settings(&mut self, head: Head, payload: &[u8], now: Instant) -> Result<(), Violation> {
        if head.id != 0 {
            return Err(Violation::protocol("SETTINGS on a stream"));
        }
        if head.has(frame::ACK) {
            if head.len != 0 {
                return Err(Violation::new(Code::FRAME_SIZE_ERROR, "an acknowledgement with a payload"));
            }
            self.decoder.acknowledged();
            return Ok(());
        }
        self.spend(now)?;
        let before = self.peer.initial_window_size;
        // Each size in turn: a low one between two others has emptied the peer's table (RFC 7541 4.2).
        self.peer.apply(payload, |size| self.encoder.set_peer_table_size(size))?;
        self.settings_seen = true;
        let delta = i64::from(self.peer.initial_window_size).saturating_sub(i64::from(before));
        if delta != 0 {
            for stream in self.streams.iter_mut() {
                if !stream.send_window.shift(delta) {
                    return Err(Violation::new(Code::FLOW_CONTROL_ERROR, "a setting moved a window beyond 2^31-1"));
                }
                self.wakes.extend(stream.writer.take());
            }
        }
        self.answer(|out, _| frame::put_head(0, frame::SETTINGS, frame::ACK, 0, out))?;
        self.slots.wake_all(&mut self.wakes);
        self.wakes.append(&mut self.blocked);
        let peer = self.peer;
        self.emit(Event::Settings(peer));
        Ok(())
    }

    /// PING (RFC 9113 6.7).
    fn on_ping(&mut self, head: Head, payload: &[u8], now: Instant) -> Result<(), Violation> {
        if head.id != 0 {
            return Err(Violation::protocol("PING on a stream"));
        }
        let payload: [u8; 8] =
            payload.try_into().map_err(|_| Violation::new(Code::FRAME_SIZE_ERROR, "PING of the wrong size"))?;
        if head.has(frame::ACK) {
            self.pong(payload, now);
            return Ok(());
        }
        self.spend(now)?;
        self.answer(|out, _| frame::put_ping(frame::ACK, payload, out))
    }

    /// GOAWAY (RFC 9113 6.8): may come again with a lower id, never with a higher one.
    fn on_goaway(&mut self, head: Head, payload: &[u8], now: Instant) -> Result<(), Violation> {
        if head.id != 0 {
            return Err(Violation::protocol("GOAWAY on a stream"));
        }
        let Some((fixed, debug)) = payload.split_first_chunk::<8>() else {
            return Err(Violation::new(Code::FRAME_SIZE_ERROR, "GOAWAY too short"));
        };
        self.spend(now)?;
        let &[l0, l1, l2, l3, c0, c1, c2, c3] = fixed;
        let last_id = u32::from_be_bytes([l0, l1, l2, l3]) & frame::MAX_31;
        let code = Code::new(u32::from_be_bytes([c0, c1, c2, c3]));
        if self.goaway.as_ref().is_some_and(|before| last_id > before.last_id) {
            return Err(Violation::protocol("a second GOAWAY with a higher last stream"));
        }
        let debug = own(debug.get(..MAX_DEBUG).unwrap_or(debug));
        let goaway = GoAway { last_id, code, debug };
        // Marked before anyone is woken.
        self.goaway = Some(goaway.clone());
        let drained = self.goaway.as_ref().is_some_and(GoAway::has_served);
        let refused = Failure::new(Kind::Closed, "the peer went away without processing it").with_drained(drained);
        for key in self.streams.keys() {
            if key.id > last_id {
                self.fail_stream(key, refused.clone().with_code(code).with_delivery(Delivery::Refused));
            }
        }
        self.slots.wake_all(&mut self.wakes);
        self.emit(Event::GoAway(goaway));
        self.wake_driver();
        Ok(())
    }

    /// ALTSVC (RFC 7838 4): one that breaks its rules is ignored.
    fn on_altsvc(&mut self, head: Head, payload: &[u8], now: Instant) -> Result<(), Violation> {
        self.spend(now)?;
        let Some((length, rest)) = payload.split_first_chunk::<2>() else { return Ok(()) };
        let Some((origin, value)) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length))) else {
            return Ok(());
        };
        // On stream 0 the origin is named, on another it is the stream's own.
        if (head.id == 0) != origin.is_empty() {
            self.emit(Event::AltSvc { stream: head.id, origin: own(origin), value: own(value) });
        }
        Ok(())
    }

    /// ORIGIN (RFC 8336 2).
    fn on_origin(&mut self, head: Head, mut payload: &[u8], now: Instant) -> Result<(), Violation> {
        self.spend(now)?;
        if head.id != 0 || head.flags != 0 {
            return Ok(());
        }
        let mut origins = Vec::new();
        while let Some((length, rest)) = payload.split_first_chunk::<2>() {
            let Some((origin, rest)) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length))) else {
                return Ok(());
            };
            if origins.len() < MAX_ORIGINS {
                origins.push(own(origin));
            }
            payload = rest;
        }
        self.emit(Event::Origin(origins));
        Ok(())
    }

    /// The peer closed the connection.
    pub(crate) fn on_eof(&mut self) {
        let failure = match &self.goaway {
            Some(goaway) => Failure::new(Kind::Closed, format!("the peer closed after GOAWAY: {}", goaway.code))
                .with_code(goaway.code)
                .with_drained(goaway.has_served()),
            None => Failure::new(Kind::Closed, "the peer closed the connection"),
        };
        self.fail(failure);
    }

    /// Reading or writing failed.
    pub(crate) fn on_io_error(&mut self, error: &std::io::Error) {
        let mut failure = Failure::new(Kind::Closed, format!("the transport failed: {error}"));
        failure.io = Some(error.kind());
        self.fail(failure);
    }
}
