//! A peer that no longer answers, found before QUIC's idle timeout.
//!
//! QUIC asks again when what it sent is not acknowledged, ever more rarely, and gives up at the idle timeout alone: 30 seconds
//! in which every request on a connection waits for a server that was restarted. A live peer acknowledges within a round trip
//! whatever it thinks of the request, so silence after several probes means that nobody is there.

use std::sync::Arc;
use std::time::Duration;

use portolan_core::{Kind, clock};

use crate::proto::code::Code;
use crate::proto::failure::Failure;
use crate::shared::Shared;

/// Looks that are taken in the time that a peer has.
const LOOKS: u32 = 4;
/// Looks between which something was sent, and nothing came: one may be a last acknowledgement of ours, which nobody answers.
const STRIKES: u32 = 2;

/// What was seen of the traffic so far, as counts of datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// Judges by looks at the traffic.
#[derive(Debug)]
pub(crate) struct Silence {
    last: Traffic,
    /// Looks since something came.
    looks: u32,
    strikes: u32,
}

impl Silence {
    pub(crate) fn new(last: Traffic) -> Self {
        Self { last, looks: 0, strikes: 0 }
    }

    /// Whether nobody is there.
    pub(crate) fn look(&mut self, now: Traffic) -> bool {
        let before = std::mem::replace(&mut self.last, now);
        if now.received != before.received {
            (self.looks, self.strikes) = (0, 0);
            return false;
        }
        self.looks += 1;
        // What was sent right after something came may be an acknowledgement.
        self.strikes += u32::from(self.looks > 1 && now.sent != before.sent);
        self.looks >= LOOKS && self.strikes >= STRIKES
    }
}

fn traffic(quic: &quinn::Connection) -> Traffic {
    let stats = quic.stats();
    Traffic { sent: stats.udp_tx.datagrams, received: stats.udp_rx.datagrams }
}

/// Ends the connection when nobody is there.
pub(crate) async fn watch(shared: Arc<Shared>, limit: Duration) {
    let mut silence = Silence::new(traffic(&shared.quic));
    loop {
        clock::sleep(limit / LOOKS).await;
        if silence.look(traffic(&shared.quic)) {
            let message = format!("the peer has acknowledged nothing for {limit:?}");
            shared.fail(Failure::new(Kind::Timeout, message));
            shared.quic.close(Code::NO_ERROR.varint(), b"");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(traffic: &[(u64, u64)]) -> Vec<bool> {
        let mut silence = Silence::new(Traffic { sent: 0, received: 0 });
        traffic.iter().map(|&(sent, received)| silence.look(Traffic { sent, received })).collect()
    }

    #[test]
    fn probes_without_an_answer_end_it_and_nothing_else_does() {
        assert_eq!(looks(&[(5, 5), (9, 5), (10, 5), (11, 5), (11, 5)]), [false, false, false, false, true]);
        // An idle connection is silent on both sides; the last thing sent is an acknowledgement.
        assert!(!looks(&[(5, 5), (6, 5), (6, 5), (6, 5), (6, 5), (6, 5), (6, 5)]).contains(&true));
        // An answer begins it anew.
        assert!(!looks(&[(5, 5), (9, 5), (10, 5), (11, 6), (12, 6), (13, 6), (14, 7)]).contains(&true));
        // Probes that come rarely, as over a long way, take longer.
        assert_eq!(
            looks(&[(1, 0), (1, 0), (2, 0), (2, 0), (2, 0), (2, 0), (3, 0)]).iter().position(|end| *end),
            Some(6)
        );
    }
}
