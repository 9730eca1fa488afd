//! What a gateway has done.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// Both sides were over, or the client said Close.
    Done,
    /// The target could not be opened: policy, name, connection or deadline.
    NotOpened,
    /// The target reset the connection.
    TargetReset,
    /// The client was gone without a Close.
    ClientLost,
    /// The client broke the protocol.
    Violation,
    /// A limit of idle time, lifetime or bytes was reached.
    Limit,
    /// The gateway shut down.
    GoingAway,
}

const OUTCOMES: usize = 7;

/// The figures of a gateway at one moment; all but `active` only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Metrics {
    /// Connections that were accepted.
    pub accepted: u64,
    /// Of these, refused or lost before the upgrade, for whatever reason.
    pub refused: u64,
    /// Of the refused, those that the authentication hook did not allow.
    pub unauthorized: u64,
    /// Of the refused, those with an origin that is not allowed.
    pub foreign_origin: u64,
    /// Of the refused, those beyond a limit of tunnels.
    pub over_limit: u64,
    /// Tunnels whose target was connected.
    pub opened: u64,
    /// Tunnels that there are, opening and closing ones included.
    pub active: usize,
    /// Bytes from clients to targets.
    pub bytes_up: u64,
    /// Bytes from targets to clients.
    pub bytes_down: u64,
    /// The most that was ever held of one tunnel, both directions together, in bytes.
    pub held_most: usize,
    ended: [u64; OUTCOMES],
}

impl Metrics {
    /// How many tunnels ended so.
    pub fn ended(&self, outcome: Outcome) -> u64 {
        self.ended.get(outcome as usize).copied().unwrap_or(0)
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) accepted: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) unauthorized: AtomicU64,
    pub(super) foreign_origin: AtomicU64,
    pub(super) over_limit: AtomicU64,
    pub(super) opened: AtomicU64,
    pub(super) active: AtomicUsize,
    pub(super) bytes_up: AtomicU64,
    pub(super) bytes_down: AtomicU64,
    pub(super) held_most: AtomicUsize,
    ended: [AtomicU64; OUTCOMES],
}

pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn ended(&self, outcome: Outcome) {
        if let Some(counter) = self.ended.get(outcome as usize) {
            add(counter, 1);
        }
    }

    pub(super) fn read(&self) -> Metrics {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Metrics {
            accepted: get(&self.accepted),
            refused: get(&self.refused),
            unauthorized: get(&self.unauthorized),
            foreign_origin: get(&self.foreign_origin),
            over_limit: get(&self.over_limit),
            opened: get(&self.opened),
            active: self.active.load(Ordering::Relaxed),
            bytes_up: get(&self.bytes_up),
            bytes_down: get(&self.bytes_down),
            held_most: self.held_most.load(Ordering::Relaxed),
            ended: std::array::from_fn(|at| self.ended.get(at).map_or(0, get)),
        }
    }
}
