//! PING (RFC 9113 6.7): the caller's, the keepalive's and the estimator's.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use portolan_core::Kind;
use portolan_core::clock::Instant;

use super::failure::Failure;
use super::{Engine, frame};

/// PINGs in flight at once; a caller who asks for more is told so.
const MAX_IN_FLIGHT: usize = 16;

/// Why a PING was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Caller,
    Keepalive,
    Estimate,
}

#[derive(Debug)]
struct Flight {
    number: u64,
    purpose: Purpose,
    sent: Instant,
    answered: Option<Duration>,
    waker: Option<Waker>,
}

/// The PINGs in flight.
#[derive(Debug)]
pub(crate) struct Pings {
    flights: VecDeque<Flight>,
    next: u64,
    pub(crate) last_heard: Instant,
}

impl Pings {
    pub(crate) fn new(now: Instant) -> Self {
        Self { flights: VecDeque::new(), next: 0, last_heard: now }
    }

    pub(crate) fn fail(&mut self, wakes: &mut Vec<Waker>) {
        wakes.extend(self.flights.iter_mut().filter_map(|flight| flight.waker.take()));
    }

    fn keepalive_sent(&self) -> Option<Instant> {
        self.flights.iter().find(|flight| flight.purpose == Purpose::Keepalive).map(|flight| flight.sent)
    }

    /// The time a caller's PING took, once it is answered; otherwise `waker` is left with it.
    pub(crate) fn poll(&mut self, number: u64, waker: &Waker) -> Option<Duration> {
        let flight = self.flights.iter_mut().find(|flight| flight.number == number)?;
        if flight.answered.is_none() {
            flight.waker = Some(waker.clone());
        }
        flight.answered
    }

    pub(crate) fn forget(&mut self, number: u64) {
        self.flights.retain(|flight| flight.number != number);
    }
}

impl Engine {
    /// Sends a PING; `None` when too many are in flight.
    pub(crate) fn ping(&mut self, purpose: Purpose, now: Instant) -> Option<u64> {
        if self.pings.flights.len() >= MAX_IN_FLIGHT || self.failure.is_some() {
            return None;
        }
        self.pings.next += 1;
        let number = self.pings.next;
        self.pings.flights.push_back(Flight { number, purpose, sent: now, answered: None, waker: None });
        self.write(|out, _| frame::put_ping(0, number.to_be_bytes(), out));
        Some(number)
    }

    /// An answer came; one that we never asked for is ignored.
    pub(crate) fn pong(&mut self, payload: [u8; 8], now: Instant) {
        let number = u64::from_be_bytes(payload);
        let Some(at) = self.pings.flights.iter().position(|flight| flight.number == number) else { return };
        match self.pings.flights.get_mut(at) {
            Some(flight) if flight.purpose == Purpose::Caller => {
                flight.answered.get_or_insert(now.saturating_duration_since(flight.sent));
                self.wakes.extend(flight.waker.take());
            }
            _ => {
                let estimate = self.pings.flights.remove(at).is_some_and(|flight| flight.purpose == Purpose::Estimate);
                if estimate && let Some(target) = self.estimator.answered() {
                    // The connection carries several streams: it gets twice what one needs.
                    self.recv_window.grow(target.saturating_mul(2));
                    for stream in self.streams.iter_mut() {
                        stream.recv_window.grow(target);
                    }
                }
            }
        }
    }

    /// When [`on_timeout`](Self::on_timeout) must be called.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        if self.failure.is_some() {
            return None;
        }
        self.keepalive_due().into_iter().chain(self.first_due).min()
    }

    fn keepalive_due(&self) -> Option<Instant> {
        let keepalive = self.config.keepalive?;
        match self.pings.keepalive_sent() {
            // Whatever is heard shows that the peer lives.
            Some(sent) => Some(sent.max(self.pings.last_heard) + keepalive.timeout),
            None if keepalive.always || self.streams.open() > 0 => Some(self.pings.last_heard + keepalive.idle),
            None => None,
        }
    }

    /// Time has passed: responses that are overdue are given up, an idle peer is asked, and one that doesn't answer given up.
    pub(crate) fn on_timeout(&mut self, now: Instant) {
        if self.first_due.is_some_and(|due| due <= now) {
            self.give_up_overdue(now);
        }
        let Some(keepalive) = self.config.keepalive else { return };
        if self.failure.is_some() || self.keepalive_due().is_none_or(|due| due > now) {
            return;
        }
        if self.pings.keepalive_sent().is_none() {
            self.ping(Purpose::Keepalive, now);
            return;
        }
        let message = format!("keepalive: no answer to PING within {:?}", keepalive.timeout);
        self.fail(Failure::new(Kind::Timeout, message));
    }
}
