//! What a [`Mux`](super::Mux) keeps under its lock: the bytes to be written, the slots of calls, the pairing.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use portolan_core::clock::Instant;
use portolan_core::{Delivery, Error, Kind, Phase, Result};

use super::events::{Overflow, Queue};
use super::{MuxOptions, Route};
use crate::codec::Codec;

/// The lock. No panic leaves the state half changed in a way that matters more than going on, so poisoning is ignored.
pub(super) struct Guarded<C: Codec>(Mutex<State<C>>);

impl<C: Codec> Guarded<C> {
    pub(super) fn new(state: State<C>) -> Self {
        Self(Mutex::new(state))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State<C>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a connection ended, to be told to each call.
pub(super) struct Death {
    kind: Kind,
    message: Box<str>,
    protocol: &'static str,
    source: Option<Arc<Error>>,
    /// We closed it, or were told to.
    ours: bool,
}

/// One cause that many errors share.
#[derive(Debug)]
struct Cause(Arc<Error>);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&*self.0)
    }
}

impl Death {
    pub(super) fn by_us(protocol: &'static str, message: &str) -> Self {
        Self { kind: Kind::Closed, message: message.into(), protocol, source: None, ours: true }
    }

    pub(super) fn of(protocol: &'static str, error: Error) -> Self {
        let (kind, message) = (error.kind(), error.message().into());
        let source = std::error::Error::source(&error).is_some().then(|| Arc::new(error));
        Self { kind, message, protocol, source, ours: false }
    }

    fn error(&self, kind: Kind, delivery: Delivery, phase: Phase) -> Error {
        let error = Error::new(kind, self.message.clone());
        let error = error.with_protocol(self.protocol).with_delivery(delivery).with_phase(phase);
        match &self.source {
            Some(cause) => error.with_source(Cause(cause.clone())),
            None => error,
        }
    }

    /// What [`close`](super::Mux::close) says of it.
    pub(super) fn as_close(&self) -> Result<()> {
        if self.ours { Ok(()) } else { Err(self.error(self.kind, Delivery::Unknown, Phase::Close)) }
    }

    /// What the reader of events is told: nothing, if we closed it.
    pub(super) fn as_event(&self) -> Option<Error> {
        (!self.ours).then(|| self.error(self.kind, Delivery::Unknown, Phase::Idle))
    }
}

/// How many frames answer a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    One,
    Count(usize),
    UntilLast(usize),
}

pub(super) struct Request {
    pub(super) want: Want,
    pub(super) deadline: Option<Instant>,
    pub(super) limit: Option<Duration>,
    pub(super) waker: Waker,
}

#[derive(PartialEq, Eq)]
enum Stage {
    Free,
    Waiting,
    /// Nobody waits; what comes is dropped.
    GivenUp,
    Done,
    Failed,
}

struct Slot<F> {
    stage: Stage,
    want: Want,
    /// Frames still to come, where they are counted.
    left: usize,
    one: Option<F>,
    many: Vec<F>,
    error: Option<Error>,
    waker: Option<Waker>,
    /// Where in the stream of all bytes sent the request starts.
    start: u64,
    deadline: Option<Instant>,
    limit: Option<Duration>,
}

pub(super) struct State<C: Codec> {
    codec: C,
    pub(super) out: BytesMut,
    max_out: usize,
    /// All bytes ever queued, and ever written.
    queued: u64,
    pub(super) written: u64,
    slots: Vec<Slot<C::Frame>>,
    free: Vec<usize>,
    order: VecDeque<usize>,
    ids: Option<RangeInclusive<u64>>,
    by_id: HashMap<u64, usize>,
    next_id: u64,
    /// The driver's waker while it is parked.
    pub(super) driver: Option<Waker>,
    pub(super) closing: bool,
    pub(super) abandoned: bool,
    pub(super) death: Option<Death>,
    pub(super) earliest: Option<Instant>,
    pub(super) strays: u64,
    pub(super) events: Queue<C::Frame>,
}

impl<C: Codec> State<C> {
    pub(super) fn new(codec: C, options: &MuxOptions) -> Self
    where
        C: super::Correlate,
    {
        let ids = codec.ids();
        Self {
            out: BytesMut::new(),
            max_out: options.queued,
            queued: 0,
            written: 0,
            slots: Vec::new(),
            free: Vec::new(),
            order: VecDeque::new(),
            next_id: ids.as_ref().map_or(0, |ids| *ids.start()),
            ids,
            by_id: HashMap::new(),
            driver: None,
            closing: false,
            abandoned: false,
            death: None,
            earliest: None,
            strays: 0,
            events: Queue::new(options.events, options.overflow),
            codec,
        }
    }

    /// An error if no call can be taken.
    pub(super) fn check(&self, protocol: &'static str) -> Result<()> {
        if let Some(death) = &self.death {
            return Err(death.error(Kind::Closed, Delivery::NotSent, Phase::Setup));
        }
        if self.closing {
            let error = Error::closed("connection is being closed").with_delivery(Delivery::NotSent);
            return Err(error.with_protocol(protocol).with_phase(Phase::Setup));
        }
        Ok(())
    }

    pub(super) fn has_room(&self) -> bool {
        self.out.len() < self.max_out
    }

    pub(super) fn in_flight(&self) -> usize {
        self.order.len().max(self.by_id.len())
    }

    /// Appends bytes; those of a request that does not encode are cut off again.
    pub(super) fn append(&mut self, encode: impl FnOnce(&mut C, &mut BytesMut) -> Result<()>) -> Result<()> {
        let start = self.out.len();
        match encode(&mut self.codec, &mut self.out) {
            Ok(()) => {
                self.queued = self.queued.saturating_add(wide(self.out.len().saturating_sub(start)));
                Ok(())
            }
            Err(error) => {
                self.out.truncate(start);
                Err(error)
            }
        }
    }

    /// Queues a request and gives it a slot.
    pub(super) fn submit(
        &mut self,
        request: Request,
        encode: impl FnOnce(&mut C, u64, &mut BytesMut) -> Result<()>,
    ) -> Result<usize> {
        let by_id = self.ids.is_some();
        match request.want {
            Want::Count(_) if by_id => return Err(Error::usage("replies are counted only where they come in order")),
            Want::UntilLast(_) if !by_id => {
                return Err(Error::usage("a last reply is known only where calls have ids"));
            }
            _ => {}
        }
        let id = self.new_id()?;
        let start = self.queued;
        self.append(|codec, dst| encode(codec, id, dst))?;
        let slot = Slot {
            stage: Stage::Waiting,
            want: request.want,
            left: if let Want::Count(n) = request.want { n } else { 1 },
            one: None,
            many: Vec::new(),
            error: None,
            waker: Some(request.waker),
            start,
            deadline: request.deadline,
            limit: request.limit,
        };
        if let Some(deadline) = request.deadline {
            self.earliest = Some(self.earliest.map_or(deadline, |earliest| earliest.min(deadline)));
        }
        let key = self.free.pop().unwrap_or(self.slots.len());
        match self.slots.get_mut(key) {
            Some(place) => *place = slot,
            None => self.slots.push(slot),
        }
        if by_id {
            self.by_id.insert(id, key);
        } else {
            self.order.push_back(key);
        }
        Ok(key)
    }

    fn new_id(&mut self) -> Result<u64> {
        let Some(ids) = &self.ids else { return Ok(0) };
        // In flight is bounded, so among one more ids than that one is free, if there are as many.
        for _ in 0..=self.by_id.len() {
            let id = self.next_id;
            self.next_id = if id >= *ids.end() { *ids.start() } else { id.saturating_add(1) };
            if !self.by_id.contains_key(&id) {
                return Ok(id);
            }
        }
        Err(Error::new(Kind::Limit, "every id is in use").with_delivery(Delivery::NotSent))
    }

    /// Whether the slot is filled; its error, if that is what fills it.
    pub(super) fn poll_slot(&mut self, key: usize, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let Some(slot) = self.slots.get_mut(key) else { return Poll::Pending };
        match slot.stage {
            Stage::Done => Poll::Ready(Ok(())),
            Stage::Failed => match slot.error.take() {
                Some(error) => Poll::Ready(Err(error)),
                None => Poll::Pending,
            },
            _ => {
                match &mut slot.waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
        }
    }

    pub(super) fn take_one(&mut self, key: usize) -> Option<C::Frame> {
        let frame = self.slots.get_mut(key)?.one.take();
        self.release(key);
        frame
    }

    pub(super) fn take_many(&mut self, key: usize) -> Option<Vec<C::Frame>> {
        let frames = std::mem::take(&mut self.slots.get_mut(key)?.many);
        self.release(key);
        Some(frames)
    }

    fn release(&mut self, key: usize) {
        if let Some(slot) = self.slots.get_mut(key)
            && slot.stage != Stage::Free
        {
            slot.stage = Stage::Free;
            (slot.one, slot.error, slot.waker) = (None, None, None);
            slot.many = Vec::new();
            self.free.push(key);
        }
    }

    /// The caller went away: a slot that is done is free, one that waits drops what comes.
    ///
    /// A failed slot of a late call is still in the pairing: its reply is yet to be dropped.
    pub(super) fn give_up(&mut self, key: usize) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        match slot.stage {
            Stage::Waiting => {
                slot.stage = Stage::GivenUp;
                (slot.waker, slot.one) = (None, None);
                slot.many = Vec::new();
            }
            Stage::Failed if slot.left > 0 && self.death.is_none() => slot.stage = Stage::GivenUp,
            Stage::Done | Stage::Failed => self.release(key),
            Stage::Free | Stage::GivenUp => {}
        }
    }

    /// Gives a frame to whom it is for. `Err(frame)` is an event that must wait; `places` counts calls that are over.
    pub(super) fn deliver(
        &mut self,
        route: Route,
        frame: C::Frame,
        wakers: &mut Vec<Waker>,
        places: &mut usize,
    ) -> Result<Option<C::Frame>> {
        match route {
            Route::Ignore => Ok(None),
            Route::Event => self.event(frame, wakers),
            Route::Next => {
                let Some(&key) = self.order.front() else {
                    return Err(Error::new(Kind::Protocol, "a reply that nobody asked for"));
                };
                if self.fill(key, frame, false, wakers) {
                    self.order.pop_front();
                    *places = places.saturating_add(1);
                }
                Ok(None)
            }
            Route::Id { id, last } => {
                let Some(&key) = self.by_id.get(&id) else {
                    self.strays = self.strays.saturating_add(1);
                    return Ok(None);
                };
                if self.fill(key, frame, last, wakers) {
                    self.by_id.remove(&id);
                    *places = places.saturating_add(1);
                }
                Ok(None)
            }
        }
    }

    fn event(&mut self, frame: C::Frame, wakers: &mut Vec<Waker>) -> Result<Option<C::Frame>> {
        match self.events.push(frame, wakers) {
            Ok(()) => Ok(None),
            Err(_) if self.events.overflow() == Overflow::Close => {
                Err(Error::new(Kind::Limit, "unsolicited frames came faster than they were read"))
            }
            Err(frame) => Ok(Some(frame)),
        }
    }

    /// Puts a frame into its slot; whether the call is thereby over.
    fn fill(&mut self, key: usize, frame: C::Frame, last: bool, wakers: &mut Vec<Waker>) -> bool {
        let Some(slot) = self.slots.get_mut(key) else { return true };
        let over = match slot.want {
            Want::Count(_) => slot.left <= 1,
            Want::One | Want::UntilLast(_) => last || self.ids.is_none(),
        };
        slot.left = if over { 0 } else { slot.left.saturating_sub(usize::from(matches!(slot.want, Want::Count(_)))) };
        match slot.stage {
            Stage::Waiting => {}
            // A late call has been told already and its caller has yet to look; the others have nobody.
            Stage::Failed => return over,
            _ => {
                self.strays = self.strays.saturating_add(1);
                if over {
                    self.release(key);
                }
                return over;
            }
        }
        match slot.want {
            Want::One => slot.one = Some(frame),
            Want::UntilLast(max) if slot.many.len() >= max => {
                slot.stage = Stage::Failed;
                let error = Error::new(Kind::Limit, format!("a reply of more than {max} frames"));
                slot.error = Some(error.with_delivery(Delivery::Answered).with_phase(Phase::Idle));
                wakers.extend(slot.waker.take());
                return over;
            }
            Want::Count(_) | Want::UntilLast(_) => slot.many.push(frame),
        }
        if over {
            slot.stage = Stage::Done;
            wakers.extend(slot.waker.take());
        }
        over
    }

    /// Fails the calls whose deadline has passed; their replies are dropped when they come.
    pub(super) fn expire(&mut self, now: Instant, protocol: &'static str, wakers: &mut Vec<Waker>) {
        self.earliest = None;
        for slot in self.slots.iter_mut().filter(|slot| slot.stage == Stage::Waiting) {
            let Some(deadline) = slot.deadline else { continue };
            if deadline > now {
                self.earliest = Some(self.earliest.map_or(deadline, |earliest| earliest.min(deadline)));
                continue;
            }
            // What is queued is still going to be sent, so it cannot be called unsent.
            let error = Error::timeout(Phase::FirstByte, slot.limit.unwrap_or_default());
            slot.error = Some(error.with_protocol(protocol));
            slot.stage = Stage::Failed;
            wakers.extend(slot.waker.take());
        }
    }

    /// Gives back what an idle connection does not need.
    pub(super) fn shrink(&mut self, kept: usize) {
        if self.out.is_empty() && self.out.capacity() > kept {
            self.out = BytesMut::new();
        }
        if self.free.len() == self.slots.len() && self.in_flight() == 0 {
            (self.slots, self.free) = (Vec::new(), Vec::new());
            (self.order, self.by_id) = (VecDeque::new(), HashMap::new());
        }
    }

    /// Whether every call that somebody waits for is answered, and every byte handed to the driver.
    pub(super) fn is_drained(&self) -> bool {
        self.out.is_empty() && self.order.is_empty() && self.by_id.is_empty()
    }

    /// Closed first, then every call failed with what became of it; the wakers are for after the lock.
    pub(super) fn die(&mut self, death: Death, wakers: &mut Vec<Waker>) {
        if self.death.is_some() {
            return;
        }
        for slot in &mut self.slots {
            if slot.stage != Stage::Waiting {
                continue;
            }
            let delivery = if slot.start < self.written { Delivery::Unknown } else { Delivery::NotSent };
            slot.error = Some(death.error(death.kind, delivery, Phase::FirstByte));
            slot.stage = Stage::Failed;
            wakers.extend(slot.waker.take());
        }
        for key in 0..self.slots.len() {
            if self.slots.get(key).is_some_and(|slot| slot.stage == Stage::GivenUp) {
                self.release(key);
            }
        }
        self.order = VecDeque::new();
        self.by_id = HashMap::new();
        self.out = BytesMut::new();
        self.driver = None;
        self.death = Some(death);
        wakers.extend(self.events.close());
    }
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
impl<C: Codec> State<C> {
    pub(super) fn slots_len(&self) -> usize {
        self.slots.len()
    }
}
