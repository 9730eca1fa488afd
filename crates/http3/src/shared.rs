//! What handles, bodies, uploads and the driver share.

use std::collections::HashMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;

use bytes::BytesMut;
use futures_util::future::{Either, select};
use http::HeaderMap;
use portolan_core::{ConnectionInfo, Delivery, Error, Kind, Phase, Result, clock};
use portolan_hpack::Limits;
use portolan_hpack::qpack::{Decoder, Encoder};
use portolan_hpack::request::fields_size;
use quinn::ConnectionError;
use tokio::sync::{Notify, Semaphore};

use crate::datagrams::Queue;
use crate::event::{Event, GoAway, State as Standing, Status};
use crate::options::OnEvent;
use crate::proto::budget::Budget;
use crate::proto::code::Code;
use crate::proto::failure::{Failure, PROTOCOL};
use crate::proto::settings::{self, PeerSettings};
use crate::proto::varint;
use crate::proto::{Config, Violation};
use crate::slot::Slot;

/// What the driver polls: an upload, a stream of the peer's.
pub(crate) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Bytes queued for one of our critical streams. A peer that takes none while it makes us say more is up to something.
const MAX_QUEUED: usize = 64 << 10;

/// Bytes of an unknown frame that cost as much as another frame.
const SKIPPED_PER_FRAME: u64 = 4096;

/// The streams of ours that the connection needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Critical {
    Control = 0,
    Encoder = 1,
    Decoder = 2,
}

/// One of our critical streams: what is to be written, and who writes it.
#[derive(Debug, Default)]
pub(crate) struct Outlet {
    pub(crate) bytes: BytesMut,
    pub(crate) writer: Option<Waker>,
}

/// The state of one connection, behind its lock.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) encoder: Encoder,
    pub(crate) decoder: Decoder,
    pub(crate) peer: PeerSettings,
    pub(crate) settings_seen: bool,
    pub(crate) goaway: Option<GoAway>,
    /// Why it ended. Set before anyone is woken.
    pub(crate) failure: Option<Failure>,
    /// Something was in flight then.
    pub(crate) interrupted: bool,
    /// The caller asked for a graceful end.
    pub(crate) closing: bool,
    /// Living handles that can open streams.
    pub(crate) handles: usize,
    /// The handshake is not done, and what is sent is early data.
    pub(crate) early: bool,
    pub(crate) streams: HashMap<u64, Weak<Slot>>,
    pub(crate) datagrams: HashMap<u64, Arc<Queue>>,
    pub(crate) outlets: [Outlet; 3],
    /// Who waits for entries of the header table, by stream.
    pub(crate) blocked: Vec<(u64, Waker)>,
    pub(crate) budget: Budget,
    pub(crate) driver: Option<Waker>,
    /// Woken once the lock is let go.
    pub(crate) wakes: Vec<Waker>,
}

pub(crate) struct Shared {
    pub(crate) quic: quinn::Connection,
    /// Ours alone, where we made the connection.
    pub(crate) endpoint: Option<quinn::Endpoint>,
    pub(crate) config: Config,
    pub(crate) on_event: Option<OnEvent>,
    pub(crate) info: Mutex<Arc<ConnectionInfo>>,
    state: Mutex<State>,
    /// Settings came, a GOAWAY came, the handshake is done, the connection ended.
    pub(crate) changed: Notify,
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) waiting: AtomicUsize,
    /// Uploads on their way to the driver; `None` once it is gone, so that none is kept for nobody.
    uploads: Mutex<Option<Vec<Task>>>,
    uploads_came: AtomicBool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl State {
    pub(crate) fn new(config: &Config, early: bool) -> Self {
        let mut limits = Limits::default();
        limits.table_size = config.header_table_size as usize;
        limits.list_size = config.max_field_section_size as usize;
        limits.fields = config.max_header_fields;
        // A section has been measured as a whole; a string in it that is beyond the limit fails its stream alone.
        limits.string = limits.list_size.saturating_mul(2);
        let mut control = BytesMut::new();
        varint::put(crate::uni::CONTROL, &mut control);
        settings::put(config, &mut control);
        let outlet = |kind| {
            let mut bytes = BytesMut::new();
            varint::put(kind, &mut bytes);
            Outlet { bytes, writer: None }
        };
        Self {
            encoder: Encoder::new(config.encoder_table_size),
            decoder: Decoder::new(limits, config.blocked_streams as usize),
            peer: PeerSettings::default(),
            settings_seen: false,
            goaway: None,
            failure: None,
            interrupted: false,
            closing: false,
            handles: 0,
            early,
            streams: HashMap::new(),
            datagrams: HashMap::new(),
            outlets: [
                Outlet { bytes: control, writer: None },
                outlet(crate::uni::QPACK_ENCODER),
                outlet(crate::uni::QPACK_DECODER),
            ],
            blocked: Vec::new(),
            budget: Budget::new(clock::now()),
            driver: None,
            wakes: Vec::new(),
        }
    }

    /// The connection is over, for this reason if there was none before.
    fn failed(&mut self, failure: impl FnOnce() -> Failure) -> Failure {
        if self.failure.is_none() {
            self.interrupted = !self.streams.is_empty();
        }
        self.failure.get_or_insert_with(failure).clone()
    }

    /// Why no request is taken, if none is.
    pub(crate) fn refusal(&self) -> Option<Failure> {
        if let Some(failure) = &self.failure {
            return Some(failure.clone());
        }
        if let Some(goaway) = self.goaway {
            let failure = Failure::new(Kind::Closed, "the peer is closing the connection");
            return Some(failure.with_drained(goaway.id > 0));
        }
        self.closing.then(|| Failure::new(Kind::Closed, "the connection is being closed on this side"))
    }

    /// The stream's writer has something to do. Errs when the peer lets too much pile up.
    pub(crate) fn written(&mut self, critical: Critical) -> Result<(), Violation> {
        let outlet = &mut self.outlets[critical as usize];
        if outlet.bytes.len() > MAX_QUEUED {
            return Err(Violation::new(Code::EXCESSIVE_LOAD, "a critical stream of ours is not read"));
        }
        if !outlet.bytes.is_empty() {
            self.wakes.extend(outlet.writer.take());
        }
        Ok(())
    }

    pub(crate) fn wake_blocked(&mut self) {
        let blocked = self.blocked.drain(..).map(|(_, waker)| waker);
        self.wakes.extend(blocked);
    }

    pub(crate) fn wake_driver(&mut self) {
        self.wakes.extend(self.driver.take());
    }

    /// Nothing is in flight and nothing will be.
    pub(crate) fn is_done(&self) -> bool {
        (self.handles == 0 || self.closing) && self.streams.is_empty()
    }
}

impl Shared {
    pub(crate) fn new(
        quic: quinn::Connection,
        endpoint: Option<quinn::Endpoint>,
        (config, on_event): (Config, Option<OnEvent>),
        info: ConnectionInfo,
        early: bool,
    ) -> Self {
        Self {
            quic,
            endpoint,
            info: Mutex::new(Arc::new(info)),
            state: Mutex::new(State::new(&config, early)),
            changed: Notify::new(),
            permits: Arc::new(Semaphore::new(config.max_streams.min(Semaphore::MAX_PERMITS))),
            waiting: AtomicUsize::new(0),
            uploads: Mutex::new(Some(Vec::new())),
            uploads_came: AtomicBool::new(false),
            config,
            on_event,
        }
    }

    /// The state, for those who wake nobody. Held for a few hundred instructions and never across a wait.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on the state, then wakes who is due, with the lock let go.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let result = work(&mut state);
        let wakes = if state.wakes.is_empty() { Vec::new() } else { std::mem::take(&mut state.wakes) };
        drop(state);
        wakes.into_iter().for_each(Waker::wake);
        result
    }

    pub(crate) fn event(&self, event: Event) {
        if let Some(on_event) = &self.on_event {
            on_event(event);
        }
    }

    /// Why the connection is gone: what we know ourselves goes before what QUIC says.
    pub(crate) fn lost(&self, error: &ConnectionError) -> Failure {
        let mut state = self.lock();
        state.failed(|| Failure::lost(error))
    }

    /// The peer broke a rule: the connection ends, and says why.
    pub(crate) fn violated(&self, violation: Violation) -> Failure {
        let first = self.lock().failure.is_none();
        let failure = self.fail(Failure::violation(violation));
        // Whoever ended it before has said why.
        if first {
            self.quic.close(violation.code.varint(), violation.what.as_bytes());
        }
        failure
    }

    /// The connection is over. Streams learn it from QUIC; who waits elsewhere is woken here.
    pub(crate) fn fail(&self, failure: Failure) -> Failure {
        let failure = self.with(|state| {
            state.wake_blocked();
            state.wake_driver();
            for queue in state.datagrams.values() {
                queue.close();
            }
            state.failed(|| failure)
        });
        self.changed.notify_waiters();
        failure
    }

    /// Something without use came, after so much that was of use; too much of it is a violation.
    pub(crate) fn spend(&self, bytes: u64, useful: u32) -> Result<(), ()> {
        let cost = u32::try_from(1 + bytes / SKIPPED_PER_FRAME).unwrap_or(u32::MAX);
        let mut state = self.lock();
        state.budget.useful(useful);
        if state.budget.spend(cost, clock::now()) { Ok(()) } else { Err(()) }
    }

    /// Does `work`, unless the connection takes no more requests before it is done.
    pub(crate) async fn while_open<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        let mut work = pin!(work);
        loop {
            let changed = pin!(self.changed.notified());
            if let Some(failure) = self.lock().refusal() {
                return Err(failure.error(Delivery::NotSent, Phase::Send));
            }
            match select(work.as_mut(), changed).await {
                Either::Left((value, _)) => return Ok(value),
                Either::Right(_) => {}
            }
        }
    }

    /// Waits until the state is as asked, or takes no more requests.
    pub(crate) async fn until(&self, ready: impl Fn(&State) -> bool) -> Result<()> {
        loop {
            let changed = self.changed.notified();
            {
                let state = self.lock();
                if let Some(failure) = state.refusal() {
                    return Err(failure.error(Delivery::NotSent, Phase::Send));
                }
                if ready(&state) {
                    return Ok(());
                }
            }
            changed.await;
        }
    }

    /// Waits until the handshake is done; errs when the connection is over.
    pub(crate) async fn until_settled(&self) -> Result<(), ()> {
        loop {
            let changed = self.changed.notified();
            {
                let state = self.lock();
                if state.failure.is_some() {
                    return Err(());
                }
                if !state.early {
                    return Ok(());
                }
            }
            changed.await;
        }
    }

    pub(crate) fn status(&self) -> Status {
        let state = self.lock();
        let standing = match state.refusal() {
            _ if state.failure.is_some() => Standing::Closed,
            Some(_) => Standing::Draining,
            None => Standing::Open,
        };
        let waiting = self.waiting.load(Ordering::Relaxed);
        Status { state: standing, active: state.streams.len(), limit: self.config.max_streams, waiting }
    }

    /// Gives an upload to the driver.
    pub(crate) fn hand_over(&self, upload: Task) {
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(list) = uploads.as_mut() else { return };
        list.push(upload);
        self.uploads_came.store(true, Ordering::Release);
        drop(uploads);
        self.with(State::wake_driver);
    }

    pub(crate) fn take_uploads(&self) -> Vec<Task> {
        if !self.uploads_came.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        uploads.as_mut().map(std::mem::take).unwrap_or_default()
    }

    pub(crate) fn has_uploads(&self) -> bool {
        self.uploads_came.load(Ordering::Acquire)
    }

    /// The driver is gone: no upload is taken any more.
    pub(crate) fn refuse_uploads(&self) {
        let refused = self.uploads.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(refused);
    }

    /// Why the peer would not take these trailers, if it would not.
    pub(crate) fn hinders(&self, trailers: &HeaderMap) -> Option<Error> {
        let limit = self.lock().peer.max_field_section_size?;
        let size = fields_size(trailers);
        let message = || format!("trailers of {size} bytes, and the peer takes {limit}");
        let error = || Error::new(Kind::Limit, message()).with_phase(Phase::Send).with_protocol(PROTOCOL);
        (size as u64 > limit).then(error)
    }

    /// The error when the queue for streams is full.
    pub(crate) fn full() -> Error {
        Error::new(Kind::Limit, "too many requests wait for a stream")
            .with_delivery(Delivery::NotSent)
            .with_phase(Phase::Pool)
            .with_protocol(PROTOCOL)
    }
}
