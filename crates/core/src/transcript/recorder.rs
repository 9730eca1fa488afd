//! What hears, and keeps.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use zeroize::Zeroizing;

use super::entry::{Entry, Opening, Piece, TlsFacts, Transcript, What, append};
use super::redact::{Redact, Side};
use super::websocket;
use crate::clock::{self, Instant};
use crate::connector::ConnectorBuilder;
use crate::info::TlsInfo;
use crate::observe::{Carried, Closed, Observer, Opened, Outcome, Said};

/// What one connection may hold, unless said otherwise: more than a test needs, less than a download.
const PER_CONNECTION: usize = 1 << 20;
/// What all of them may hold.
const IN_ALL: usize = 16 << 20;
/// What each thing that happened counts beside its bytes, so that a peer of many small words is bounded too.
const EACH: usize = 64;

/// Why nothing more is written.
const TOO_MUCH: &str = "more was said than a recording holds";
const CODED: &str = "HTTP/2 and HTTP/3 are recorded as HAR";

/// Writes down what goes over the connections of every connector that it is given to. Clones share the recording.
#[derive(Clone)]
pub struct Recorder(Arc<Inner>);

struct Inner {
    redact: Redact,
    per_connection: usize,
    in_all: usize,
    started: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By the number of the connect.
    connections: BTreeMap<u64, Connection>,
    opened: u64,
    held: usize,
}

struct Connection {
    number: u64,
    opened: (Duration, Opening),
    happened: Vec<(Duration, Raw)>,
    held: usize,
    left_out: Option<&'static str>,
    closed: bool,
}

enum Raw {
    Said(Side, Zeroizing<Vec<u8>>),
    Other(What),
}

impl Recorder {
    /// An empty recording that hides what `redact` says. It holds up to 1 MiB of each connection and 16 MiB in all.
    pub fn new(redact: Redact) -> Self {
        Self::with_limits(redact, PER_CONNECTION, IN_ALL)
    }

    /// The same with other bounds, in bytes: what is said beyond them is left out, and the transcript says so.
    pub fn with_limits(redact: Redact, per_connection: usize, in_all: usize) -> Self {
        let started = clock::now();
        Self(Arc::new(Inner { redact, per_connection, in_all, started, state: Mutex::default() }))
    }

    /// What was said so far, without its secrets.
    pub fn transcript(&self) -> Transcript {
        self.0.with(|state| self.0.write_down(state.connections.values()))
    }

    /// The same of the connections that have ended, which are forgotten: for programs that go on.
    pub fn take_ended(&self) -> Transcript {
        self.0.with(|state| {
            let ended: Vec<u64> =
                state.connections.iter().filter(|(_, one)| one.is_closed()).map(|(id, _)| *id).collect();
            let ended: Vec<Connection> = ended.iter().filter_map(|id| state.connections.remove(id)).collect();
            state.held -= ended.iter().map(|one| one.held).sum::<usize>();
            self.0.write_down(ended.iter())
        })
    }
}

impl ConnectorBuilder {
    /// Writes down what is said on the connections made. See [`transcript`](super).
    pub fn record(self, recorder: &Recorder) -> Self {
        self.observer(Arc::new(recorder.clone()))
    }
}

impl Inner {
    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, id: u64, what: impl FnOnce() -> Raw, size: usize) {
        let at = clock::now() - self.started;
        self.with(|state| {
            let in_all = self.in_all.saturating_sub(state.held);
            let Some(one) = state.connections.get_mut(&id).filter(|one| one.left_out.is_none()) else { return };
            let size = size + EACH;
            if size > in_all || one.held + size > self.per_connection {
                one.left_out = Some(TOO_MUCH);
                return;
            }
            let raw = what();
            // Who asks again hears again that it is over.
            if matches!((&raw, one.happened.last()), (Raw::Other(now), Some((_, Raw::Other(before)))) if now == before)
            {
                return;
            }
            one.held += size;
            one.happened.push((at, raw));
            state.held += size;
        });
    }

    fn leave_out(&self, id: u64, why: &'static str) {
        self.with(|state| {
            let Some(one) = state.connections.get_mut(&id) else { return };
            one.left_out = Some(why);
            one.happened.clear();
            state.held -= one.held - EACH;
            one.held = EACH;
        });
    }

    fn write_down<'a>(&self, connections: impl Iterator<Item = &'a Connection>) -> Transcript {
        let mut entries: Vec<Entry> = connections.flat_map(|one| one.entries(&self.redact)).collect();
        // Each connection's are in order already.
        entries.sort_by_key(|entry| entry.at);
        Transcript::new(entries)
    }
}

impl Connection {
    fn is_closed(&self) -> bool {
        self.closed
    }

    fn entries(&self, redact: &Redact) -> Vec<Entry> {
        let (at, opening) = &self.opened;
        let entry = |at: Duration, what| Entry { at, connection: self.number, what };
        let mut out = vec![entry(*at, What::Opened(opening.clone()))];
        let said = websocket::unmasked(self.happened.iter().filter_map(|(_, raw)| match raw {
            Raw::Said(side, bytes) => Some((*side, bytes.as_slice())),
            Raw::Other(_) => None,
        }));
        let [client, server] = redact.hidden(said.iter().map(|(side, bytes)| (*side, bytes.as_slice())));
        let (mut said, mut at_client, mut at_server) = (said.iter(), 0, 0);
        for (at, raw) in &self.happened {
            let what = match (raw, raw.is_said().then(|| said.next()).flatten()) {
                (_, Some((Side::Client, bytes))) => What::Sent(shown(bytes, &mut at_client, &client, false)),
                (_, Some((Side::Server, bytes))) => What::Received(shown(bytes, &mut at_server, &server, true)),
                (Raw::Other(what), _) => what.clone(),
                (Raw::Said(..), None) => continue,
            };
            match (out.last_mut().map(|entry| &mut entry.what), what) {
                (_, What::Sent(pieces)) if pieces.is_empty() => {}
                // What one side said of a stream in one go is one entry, however it was read.
                (Some(What::Sent(before)), What::Sent(more)) | (Some(What::Received(before)), What::Received(more))
                    if !opening.datagrams =>
                {
                    more.into_iter().for_each(|piece| append(before, piece));
                }
                (_, what) => out.push(entry(*at, what)),
            }
        }
        if let Some(why) = self.left_out {
            let last = self.happened.last().map_or(*at, |(at, _)| *at);
            out.push(entry(last, What::LeftOut(why.into())));
        }
        out
    }
}

impl Raw {
    fn is_said(&self) -> bool {
        matches!(self, Self::Said(..))
    }
}

/// What remains of these bytes; a secret of ours that goes over several writes leaves its mark in the first.
fn shown(bytes: &[u8], at: &mut usize, hidden: &[Range<usize>], lengths: bool) -> Vec<Piece> {
    let (from, end) = (*at, *at + bytes.len());
    let part = |range: Range<usize>| bytes.get(range.start - from..range.end - from).unwrap_or_default().to_vec();
    let (mut pieces, mut here) = (Vec::new(), from);
    let first = hidden.partition_point(|range| range.end <= from);
    for range in hidden.get(first..).unwrap_or_default().iter().take_while(|range| range.start < end) {
        if range.start > here {
            pieces.push(Piece::Bytes(part(here..range.start)));
        }
        let (start, stop) = (range.start.max(from), range.end.min(end));
        if lengths {
            pieces.push(Piece::Hidden(stop - start));
        } else if range.start >= from {
            pieces.push(Piece::Hidden(0));
        }
        here = stop;
    }
    if here < end {
        pieces.push(Piece::Bytes(part(here..end)));
    }
    *at = end;
    pieces
}

impl Observer for Recorder {
    fn opened(&self, opened: &Opened<'_>) {
        let (Some(info), Outcome::Done) = (opened.info, &opened.outcome) else { return };
        let opening = Opening {
            to: opened.endpoint.authority(),
            datagrams: opened.datagrams,
            peer: info.peer,
            hops: info.hops.iter().map(|hop| format!("{} {}", hop.kind, hop.authority)).collect(),
            tls: info.tls.as_ref().map(TlsFacts::from),
        };
        let at = clock::now() - self.0.started;
        let coded = info.tls.as_ref().and_then(|tls| tls.alpn.as_deref()) == Some(b"h2");
        self.0.with(|state| {
            if state.held + EACH > self.0.in_all {
                return;
            }
            state.opened += 1;
            state.held += EACH;
            let connection = Connection {
                number: state.opened,
                opened: (at, opening),
                happened: Vec::new(),
                held: EACH,
                left_out: coded.then_some(CODED),
                closed: false,
            };
            state.connections.insert(opened.id, connection);
        });
    }

    fn secured(&self, id: u64, tls: &TlsInfo) {
        if tls.alpn.as_deref() == Some(b"h2") {
            return self.0.leave_out(id, CODED);
        }
        self.0.add(id, || Raw::Other(What::Secured(tls.into())), 0);
    }

    fn carried(&self, carried: &Carried<'_>) {
        let (side, bytes) = match carried.said {
            Said::Sent(bytes) if self.0.with(|state| state.begins_coded(carried.id, bytes)) => {
                return self.0.leave_out(carried.id, CODED);
            }
            Said::Sent(bytes) => (Side::Client, bytes),
            Said::Received(bytes) => (Side::Server, bytes),
            Said::Shutdown => return self.0.add(carried.id, || Raw::Other(What::Shutdown), 0),
            Said::Ended => return self.0.add(carried.id, || Raw::Other(What::Ended), 0),
            Said::Broken => return self.0.add(carried.id, || Raw::Other(What::Broken), 0),
        };
        self.0.add(carried.id, || Raw::Said(side, Zeroizing::new(bytes.to_vec())), bytes.len());
    }

    fn closed(&self, closed: &Closed<'_>) {
        self.0.add(closed.id, || Raw::Other(What::Closed), 0);
        self.0.with(|state| {
            if let Some(one) = state.connections.get_mut(&closed.id) {
                one.closed = true;
            }
        });
    }
}

impl State {
    /// Whether these are the first bytes of ours, and those of the preface of HTTP/2 (RFC 9113 3.4) or of a first packet of QUIC
    /// (RFC 9000 14.1, 17.2).
    fn begins_coded(&self, id: u64, bytes: &[u8]) -> bool {
        let Some(one) = self.connections.get(&id) else { return false };
        if one.happened.iter().any(|(_, raw)| matches!(raw, Raw::Said(Side::Client, _))) {
            return false;
        }
        let is_quic = bytes.len() >= 1200 && bytes.first().is_some_and(|first| first & 0xc0 == 0xc0);
        if one.opened.1.datagrams { is_quic } else { bytes.starts_with(b"PRI * HTTP/2.0") }
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("redact", &self.0.redact).finish_non_exhaustive()
    }
}
