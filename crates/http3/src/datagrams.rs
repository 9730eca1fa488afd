//! HTTP datagrams (RFC 9297): packets that belong to a request stream.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use portolan_core::{Delivery, Error, Kind, Phase, Result};
use quinn::SendDatagramError;
use tokio::sync::Notify;

use crate::proto::Violation;
use crate::proto::code::Code;
use crate::proto::failure::PROTOCOL;
use crate::proto::varint;
use crate::shared::Shared;

/// The greatest quarter of a stream id (RFC 9297 2.1).
const MAX_QUARTER: u64 = (1 << 60) - 1;

/// What has come for one stream and was not taken yet.
#[derive(Debug)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    came: Notify,
    most: usize,
}

#[derive(Debug, Default)]
struct Inner {
    datagrams: VecDeque<Bytes>,
    closed: bool,
}

impl Queue {
    pub(crate) fn new(most: usize) -> Self {
        Self { inner: Mutex::default(), came: Notify::new(), most }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more; beyond the limit it is lost, as on any network.
    pub(crate) fn push(&self, datagram: Bytes) {
        let mut inner = self.lock();
        if inner.datagrams.len() < self.most {
            inner.datagrams.push_back(datagram);
            drop(inner);
            self.came.notify_one();
        }
    }

    /// Nothing more will come.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.came.notify_waiters();
    }
}

/// The datagrams of one CONNECT stream, found in its response's extensions. They may be lost, and may come in any order; they
/// are exchanged as long as the stream is open. Clones share one queue.
#[derive(Clone)]
pub struct Datagrams {
    shared: Arc<Shared>,
    stream: u64,
    queue: Arc<Queue>,
}

impl Datagrams {
    pub(crate) fn new(shared: Arc<Shared>, stream: u64, queue: Arc<Queue>) -> Self {
        Self { shared, stream, queue }
    }

    /// Sends one datagram, or drops an older one that has not left yet where the way is slow. Fails where the peer takes none
    /// ([`Kind::Unsupported`]) and where it is larger than [`max_size`](Self::max_size) ([`Kind::Limit`]).
    pub fn send(&self, payload: &[u8]) -> Result<()> {
        let error = |kind, message: &'static str| {
            Error::new(kind, message).with_delivery(Delivery::NotSent).with_phase(Phase::Send).with_protocol(PROTOCOL)
        };
        if !self.shared.lock().peer.h3_datagram {
            return Err(error(Kind::Unsupported, "the peer takes no datagrams"));
        }
        if !self.is_open() {
            return Err(error(Kind::Closed, "the stream is over"));
        }
        let mut datagram = BytesMut::with_capacity(payload.len() + 8);
        varint::put(self.stream / 4, &mut datagram);
        datagram.extend_from_slice(payload);
        self.shared.quic.send_datagram(datagram.freeze()).map_err(|failure| match failure {
            SendDatagramError::TooLarge => error(Kind::Limit, "a datagram larger than the way takes"),
            SendDatagramError::ConnectionLost(lost) => self.shared.lost(&lost).error(Delivery::NotSent, Phase::Send),
            _ => error(Kind::Unsupported, "the peer takes no datagrams"),
        })
    }

    /// The next datagram; `None` once the stream is over and all were taken. Cancel safe.
    pub async fn recv(&self) -> Option<Bytes> {
        loop {
            let came = self.queue.came.notified();
            {
                let mut inner = self.queue.lock();
                if let Some(datagram) = inner.datagrams.pop_front() {
                    if !inner.datagrams.is_empty() {
                        // For another clone that waits.
                        self.queue.came.notify_one();
                    }
                    return Some(datagram);
                }
                if inner.closed {
                    return None;
                }
            }
            came.await;
        }
    }

    /// The largest payload that fits now; `None` where the peer takes none.
    pub fn max_size(&self) -> Option<usize> {
        let mut quarter = BytesMut::new();
        varint::put(self.stream / 4, &mut quarter);
        self.shared.quic.max_datagram_size().map(|max| max.saturating_sub(quarter.len()))
    }

    fn is_open(&self) -> bool {
        let state = self.shared.lock();
        state.datagrams.get(&(self.stream / 4)).is_some_and(|queue| Arc::ptr_eq(queue, &self.queue))
    }
}

impl fmt::Debug for Datagrams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datagrams").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// Hands the connection's datagrams to their streams, until it ends.
pub(crate) async fn receive(shared: Arc<Shared>) {
    while let Ok(mut datagram) = shared.quic.read_datagram().await {
        if let Err(violation) = take(&shared, &mut datagram) {
            shared.violated(violation);
            return;
        }
    }
}

fn take(shared: &Shared, datagram: &mut Bytes) -> std::result::Result<(), Violation> {
    let wrong = |what| Violation::new(Code::DATAGRAM_ERROR, what);
    let (quarter, len) = varint::read(datagram).ok_or(wrong("a datagram without a stream"))?;
    if quarter > MAX_QUARTER {
        return Err(wrong("a datagram for a stream that cannot be"));
    }
    let queue = shared.lock().datagrams.get(&quarter).cloned();
    // For a stream that is over, or that wants none: RFC 9297 2.1 lets it drop.
    if let Some(queue) = queue {
        queue.push(datagram.split_off(len));
    }
    Ok(())
}

/// What the settings say about datagrams must fit what QUIC agreed on (RFC 9297 2.1.1).
pub(crate) fn check(shared: &Shared) -> std::result::Result<(), Violation> {
    let grants = shared.lock().peer.h3_datagram;
    if grants && shared.config.datagrams && shared.quic.max_datagram_size().is_none() {
        return Err(Violation::new(Code::SETTINGS_ERROR, "HTTP datagrams without QUIC datagrams"));
    }
    Ok(())
}
