//! The sans-IO core: bytes and time in, bytes and answers out. It opens nothing, waits for nothing and knows no runtime.
//!
//! Who waits for a stream leaves a [`Waker`] with it; wakers that are due are collected and woken by the driver after it has
//! let go of the lock, when all that they will see is already true.

pub(crate) mod answer;
pub(crate) mod budget;
pub(crate) mod code;
pub(crate) mod failure;
pub(crate) mod flow;
pub(crate) mod frame;
pub(crate) mod headers;

pub(crate) mod output;
pub(crate) mod ping;
pub(crate) mod recv;
pub(crate) mod request;
pub(crate) mod send;
pub(crate) mod settings;
pub(crate) mod slots;
pub(crate) mod stream;

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use portolan_core::clock::Instant;
use portolan_core::{Delivery, Kind};
use portolan_hpack::{Decoder, Encoder, Limits};

use crate::event::{Event, GoAway, State, Status};
use budget::Budget;
use code::Code;
use failure::Failure;
use flow::{Estimator, RecvWindow, SendWindow};
use output::Output;
use ping::Pings;
use settings::PeerSettings;
use slots::Slots;
use stream::{Key, Store};

/// Ids of streams that we reset, kept so that what was under way is ignored; older ones are forgotten.
const MAX_RESETS_KEPT: usize = 64;
/// Events not yet fetched; more are dropped, oldest first.
const MAX_EVENTS: usize = 64;
/// Bytes of answers (to PING, SETTINGS and what we refuse) that wait for the transport. A peer that makes us answer and takes
/// nothing is up to something.
const MAX_ANSWERS: usize = 64 << 10;

/// The numbers the engine runs by, as the options gave them.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) header_table_size: u32,
    pub(crate) encoder_table_size: usize,
    pub(crate) stream_window: u32,
    pub(crate) connection_window: u32,
    pub(crate) max_window: u32,
    pub(crate) max_frame_size: u32,
    pub(crate) max_header_list_size: u32,
    pub(crate) max_header_fields: usize,
    pub(crate) initial_max_streams: usize,
    pub(crate) max_streams: usize,
    pub(crate) max_waiting: usize,
    pub(crate) keepalive: Option<Keepalive>,
    pub(crate) expect: Duration,
}

/// When to ask an idle peer whether it is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keepalive {
    pub(crate) idle: Duration,
    pub(crate) timeout: Duration,
    /// Also while no stream is open.
    pub(crate) always: bool,
}

/// A rule that the peer broke: it ends the connection with this code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) code: Code,
    pub(crate) what: &'static str,
}

impl Violation {
    pub(crate) fn new(code: Code, what: &'static str) -> Self {
        Self { code, what }
    }

    pub(crate) fn protocol(what: &'static str) -> Self {
        Self::new(Code::PROTOCOL_ERROR, what)
    }

    pub(crate) fn calm(what: &'static str) -> Self {
        Self::new(Code::ENHANCE_YOUR_CALM, what)
    }

    pub(crate) fn closed(what: &'static str) -> Self {
        Self::new(Code::STREAM_CLOSED, what)
    }

    pub(crate) fn kind(self) -> Kind {
        if self.code == Code::ENHANCE_YOUR_CALM { Kind::Limit } else { Kind::Protocol }
    }
}

/// The state of one connection.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) config: Config,
    pub(crate) peer: PeerSettings,
    pub(crate) settings_seen: bool,
    pub(crate) encoder: Encoder,
    pub(crate) decoder: Decoder,
    pub(crate) streams: Store,
    pub(crate) slots: Slots,
    next_id: u32,
    pub(crate) send_window: SendWindow,
    pub(crate) recv_window: RecvWindow,
    pub(crate) estimator: Estimator,
    pub(crate) pings: Pings,
    pub(crate) budget: Budget,
    /// A header block under way: stream, flags, frames so far, bytes.
    pub(crate) block: Option<headers::Block>,
    resets: VecDeque<u32>,
    pub(crate) out: Output,
    /// Bytes of answers in it.
    answers: usize,
    /// Bytes ever queued, and how many of them the transport was handed.
    pub(crate) queued: u64,
    pub(crate) handed: u64,
    pub(crate) goaway: Option<GoAway>,
    /// Why it ended. Set before anyone is woken.
    pub(crate) failure: Option<Failure>,
    /// The caller asked for a graceful end.
    pub(crate) closing: bool,
    /// Living handles that can open streams.
    pub(crate) handles: usize,
    /// No response is due before this: one timer for all of them, which may ring for none.
    pub(crate) first_due: Option<Instant>,
    pub(crate) events: VecDeque<Event>,
    pub(crate) driver: Option<Waker>,
    /// Those whose upload waits for the connection's window or for room in the output, and those who wait for SETTINGS.
    pub(crate) blocked: Vec<Waker>,
    pub(crate) wakes: Vec<Waker>,
}

impl Engine {
    /// A connection's state, with preface, SETTINGS and the connection's window already queued.
    pub(crate) fn new(config: Config, now: Instant) -> Self {
        let mut limits = Limits::default();
        limits.table_size = config.header_table_size as usize;
        limits.list_size = config.max_header_list_size as usize;
        limits.string = limits.list_size;
        limits.fields = config.max_header_fields;
        let mut engine = Self {
            peer: PeerSettings::default(),
            settings_seen: false,
            encoder: Encoder::new(config.encoder_table_size),
            decoder: Decoder::new(limits),
            streams: Store::default(),
            slots: Slots::default(),
            next_id: 1,
            send_window: SendWindow::new(PeerSettings::default().initial_window_size),
            recv_window: RecvWindow::new(65_535),
            estimator: Estimator::new(config.stream_window, config.max_window),
            pings: Pings::new(now),
            budget: Budget::new(now),
            block: None,
            resets: VecDeque::new(),
            out: Output::default(),
            answers: 0,
            queued: 0,
            handed: 0,
            goaway: None,
            failure: None,
            closing: false,
            handles: 0,
            first_due: None,
            events: VecDeque::new(),
            driver: None,
            blocked: Vec::new(),
            wakes: Vec::new(),
            config,
        };
        engine.write(|out, config| {
            out.extend_from_slice(frame::PREFACE);
            settings::put(config, out);
        });
        if let Some(grant) = engine.recv_window.open(engine.config.connection_window) {
            engine.write(|out, _| frame::put_window_update(0, grant, out));
        }
        engine
    }

    /// Queues small frames.
    pub(crate) fn write(&mut self, put: impl FnOnce(&mut BytesMut, &Config)) {
        let tail = self.out.tail();
        let before = tail.len();
        put(tail, &self.config);
        self.queued += (tail.len() - before) as u64;
        self.wake_driver();
    }

    /// The same for what the peer makes us say, as long as it takes it.
    pub(crate) fn answer(&mut self, put: impl FnOnce(&mut BytesMut, &Config)) -> Result<(), Violation> {
        let before = self.queued;
        self.write(put);
        self.answers = self.answers.saturating_add(usize::try_from(self.queued - before).unwrap_or(usize::MAX));
        if self.answers > MAX_ANSWERS { Err(Violation::calm("answers that are not read")) } else { Ok(()) }
    }

    pub(crate) fn wake_driver(&mut self) {
        if let Some(driver) = self.driver.take() {
            self.wakes.push(driver);
        }
    }

    pub(crate) fn emit(&mut self, event: Event) {
        if self.events.len() >= MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// Whether new streams may be opened at all.
    pub(crate) fn is_open(&self) -> bool {
        self.failure.is_none() && self.goaway.is_none() && !self.closing && self.next_id <= frame::MAX_31
    }

    /// Why no stream can be opened.
    pub(crate) fn refusal(&self) -> Failure {
        let failure = match (&self.failure, &self.goaway) {
            (Some(failure), _) => failure.clone(),
            (None, Some(goaway)) => Failure::new(Kind::Closed, "the peer is going away")
                .with_code(goaway.code)
                .with_drained(goaway.has_served()),
            (None, None) => Failure::new(Kind::Closed, "the connection is closing"),
        };
        failure.with_delivery(Delivery::NotSent)
    }

    pub(crate) fn take_id(&mut self) -> u32 {
        let id = self.next_id;
        self.next_id = id.saturating_add(2);
        id
    }

    /// Whether the id was never ours to use: an idle or an even one.
    pub(crate) fn is_idle(&self, id: u32) -> bool {
        id.is_multiple_of(2) || id >= self.next_id
    }

    /// Whether we reset this stream not long ago.
    pub(crate) fn was_reset(&self, id: u32) -> bool {
        self.resets.contains(&id)
    }

    pub(crate) fn remember_reset(&mut self, id: u32) {
        if self.resets.len() >= MAX_RESETS_KEPT {
            self.resets.pop_front();
        }
        self.resets.push_back(id);
    }

    /// Ends the connection for a rule that the peer broke: GOAWAY is queued, and all that waits fails.
    pub(crate) fn violated(&mut self, violation: Violation) {
        if self.failure.is_some() {
            return;
        }
        self.fail(Failure::new(violation.kind(), violation.what).with_code(violation.code));
        self.write(|out, _| frame::put_goaway(violation.code, violation.what.as_bytes(), out));
    }

    /// The connection is lost. Closed is marked before anyone is woken.
    pub(crate) fn fail(&mut self, failure: Failure) {
        if self.failure.is_some() {
            return;
        }
        self.failure = Some(failure.clone());
        // What was not handed to the transport never will be, so that a request in it is not sent, and is told so.
        self.out = Output::default();
        for key in self.streams.keys() {
            self.fail_stream(key, failure.clone());
        }
        self.slots.wake_all(&mut self.wakes);
        self.pings.fail(&mut self.wakes);
        self.wakes.append(&mut self.blocked);
        self.wake_driver();
    }

    /// Ends one stream with `failure`, unless its answer is already complete.
    pub(crate) fn fail_stream(&mut self, key: Key, failure: Failure) {
        if let Some(stream) = self.streams.get(key) {
            if !stream.remote_closed {
                stream.failure.get_or_insert(failure);
            }
            self.wakes.extend(stream.reader.take());
        }
        self.retire(key);
    }

    /// The stream counts no longer; its upload, if any, is told.
    pub(crate) fn retire(&mut self, key: Key) {
        let Some(stream) = self.streams.get(key) else { return };
        self.wakes.extend(stream.writer.take().into_iter().chain(stream.supplier.take()));
        let detached = stream.detached;
        if !std::mem::replace(&mut stream.gone, true) {
            self.streams.forget(key.id);
            let limit = self.stream_limit();
            self.slots.freed(self.streams.open(), limit, &mut self.wakes);
            if self.streams.open() == 0 {
                self.wake_driver();
            }
        }
        if detached {
            self.streams.remove(key);
        }
    }

    /// Retires the stream when both sides have ended it.
    pub(crate) fn settle(&mut self, key: Key) {
        let Some(stream) = self.streams.get(key).filter(|stream| stream.remote_closed && !stream.gone) else { return };
        if stream.abandoned && !stream.local_closed {
            stream.local_closed = true;
            self.remember_reset(key.id);
            self.write(|out, _| frame::put_reset(key.id, Code::CANCEL, out));
        }
        if self.streams.get(key).is_some_and(|stream| stream.local_closed) {
            self.retire(key);
        }
    }

    /// How many streams may be open now, said to the caller.
    pub(crate) fn status(&self) -> Status {
        let state = match (&self.failure, self.is_open()) {
            (Some(_), _) => State::Closed,
            (None, true) => State::Open,
            (None, false) => State::Draining,
        };
        Status { state, active: self.streams.open(), limit: self.stream_limit(), waiting: self.slots.waiting() }
    }

    /// How many streams may be open now.
    pub(crate) fn stream_limit(&self) -> usize {
        let peer = match (self.peer.max_concurrent_streams, self.settings_seen) {
            (Some(limit), _) => limit as usize,
            // RFC 9113 6.5.2: without the setting there is no limit but our own.
            (None, true) => usize::MAX,
            (None, false) => self.config.initial_max_streams,
        };
        peer.min(self.config.max_streams)
    }

    /// Resets a stream for our own reasons, and remembers it.
    pub(crate) fn reset(&mut self, key: Key, code: Code, failure: Failure) {
        let Some(stream) = self.streams.get(key) else { return };
        if stream.gone {
            return;
        }
        self.remember_reset(key.id);
        self.write(|out, _| frame::put_reset(key.id, code, out));
        self.fail_stream(key, failure);
    }

    /// The reader of a stream is no longer there.
    pub(crate) fn detach(&mut self, key: Key) {
        let Some(stream) = self.streams.get(key) else { return };
        stream.detached = true;
        let unread = stream.received.len();
        stream.received = stream::Received::default();
        let (gone, wanted) = (stream.gone, !stream.remote_closed);
        // What nobody will read is given back to the connection's window.
        self.release_connection(unread);
        if gone {
            self.streams.remove(key);
        } else if wanted {
            self.reset(key, Code::CANCEL, Failure::new(Kind::Closed, "given up by the caller"));
        }
    }

    pub(crate) fn release_connection(&mut self, bytes: usize) {
        if let Some(grant) = self.recv_window.release_shared(bytes) {
            self.write(|out, _| frame::put_window_update(0, grant, out));
        }
    }

    /// Hands what is queued to the transport: uploads that waited for room may go on.
    pub(crate) fn take_output(&mut self, writing: &mut Output) {
        self.handed += self.out.len() as u64;
        std::mem::swap(&mut self.out, writing);
        self.answers = 0;
        self.wakes.append(&mut self.blocked);
    }

    /// The transport failed before it took the last `bytes` that it was handed.
    pub(crate) fn not_written(&mut self, bytes: usize) {
        self.handed = self.handed.saturating_sub(bytes as u64);
    }

    /// The transport takes nothing more, and did not take the last `bytes` that it was handed: what waits in the queue never
    /// leaves, and nothing new is taken.
    pub(crate) fn deafened(&mut self, bytes: usize) {
        self.not_written(bytes);
        self.closing = true;
        self.send_window.take(usize::MAX);
        let handed = self.handed;
        let failure = Failure::new(Kind::Closed, "the connection takes nothing more").with_delivery(Delivery::NotSent);
        for key in self.streams.keys() {
            if self.streams.get(key).is_some_and(|stream| stream.begins_at >= handed) {
                self.fail_stream(key, failure.clone());
            }
        }
        self.slots.wake_all(&mut self.wakes);
        self.wakes.append(&mut self.blocked);
    }

    /// Whether the connection has nothing left to do: every handle dropped, or a peer that goes away and nothing in flight.
    pub(crate) fn is_done(&self) -> bool {
        let unwanted = self.handles == 0 || self.goaway.is_some() || self.closing;
        self.failure.is_some() || (unwanted && self.streams.open() == 0)
    }

    /// The graceful end: GOAWAY is queued, and what still waits for a place is told.
    pub(crate) fn finish(&mut self) {
        if self.failure.is_none() {
            self.fail(self.refusal());
            self.write(|out, _| frame::put_goaway(Code::NO_ERROR, b"", out));
        }
    }
}

/// A copy that holds no larger buffer.
pub(crate) fn own(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

#[cfg(test)]
mod tests;
