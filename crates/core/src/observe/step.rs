//! One phase while it lasts.

use std::net::SocketAddr;

use super::{Observers, Outcome, Step, StepHop, Traffic, micros};
use crate::clock::{self, Instant};
use crate::dial::DialContext;
use crate::endpoint::Endpoint;
use crate::error::{Phase, Result};

/// A phase under way. Dropped before its end it is told as dropped.
pub(crate) struct Stepping<'a> {
    of: Option<Of<'a>>,
    /// Some of it was told: what comes in parts is not dropped.
    told: bool,
    protocol: Option<&'static str>,
    phase: Phase,
    hop: Option<StepHop<'a>>,
    address: Option<SocketAddr>,
    started: Instant,
}

/// The connect it belongs to.
#[derive(Clone, Copy)]
pub(super) struct Of<'a> {
    pub(super) id: u64,
    pub(super) endpoint: &'a Endpoint,
    pub(super) observers: &'a Observers,
}

impl<'a> Stepping<'a> {
    /// One of a call to the connector.
    pub(crate) fn begin(cx: &'a DialContext, phase: Phase) -> Self {
        let of = Of { id: cx.id(), endpoint: cx.target(), observers: cx.observers() };
        Self::new(Some(of).filter(|of| of.observers.are_told()), phase)
    }

    /// One of a connection that is there already.
    pub(crate) fn later(traffic: Option<&'a Traffic>, phase: Phase) -> Self {
        let of = |traffic: &'a Traffic| Of {
            id: traffic.id(),
            endpoint: traffic.endpoint(),
            observers: traffic.observers(),
        };
        Self::new(traffic.map(of), phase)
    }

    pub(super) fn new(of: Option<Of<'a>>, phase: Phase) -> Self {
        Self { of, told: false, protocol: None, phase, hop: None, address: None, started: clock::now() }
    }

    pub(crate) fn hop(mut self, index: usize, kind: &'static str, authority: &'a str) -> Self {
        self.hop = Some(StepHop { index, kind, authority });
        self
    }

    pub(super) fn protocol(mut self, protocol: &'static str) -> Self {
        self.protocol = Some(protocol);
        self
    }

    pub(crate) fn address(mut self, address: SocketAddr) -> Self {
        self.address = Some(address);
        self
    }

    pub(crate) fn end<T>(mut self, result: &Result<T>) {
        self.tell(Outcome::of(result));
        self.of = None;
    }

    /// A part of what it waits for is there.
    pub(crate) fn part<T>(&mut self, result: &Result<T>) {
        self.tell(Outcome::of(result));
    }

    fn tell(&mut self, outcome: Outcome<'_>) {
        let Some(of) = self.of else { return };
        self.told = true;
        let elapsed = clock::now() - self.started;
        let elapsed_us = micros(elapsed);
        tracing::debug!(
            protocol = self.protocol,
            phase = self.phase.as_str(),
            hop = self.hop.map(|hop| hop.index),
            address = self.address.map(tracing::field::display),
            elapsed_us,
            error = outcome.error().map(tracing::field::display),
            dropped = matches!(outcome, Outcome::Dropped).then_some(true),
            "phase ended"
        );
        let step = Step {
            id: of.id,
            protocol: self.protocol,
            endpoint: of.endpoint,
            phase: self.phase,
            hop: self.hop,
            address: self.address,
            started: self.started,
            elapsed,
            outcome,
        };
        of.observers.tell(|observer| observer.phase(&step));
    }
}

impl Drop for Stepping<'_> {
    fn drop(&mut self) {
        if !self.told {
            self.tell(Outcome::Dropped);
        }
    }
}
