//! What is said about the connection as a whole.

use bytes::Bytes;

use crate::proto::code::Code;
use crate::proto::settings::PeerSettings;

/// What the peer said in its GOAWAY (RFC 9113 6.8).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GoAway {
    /// Streams above this were not processed.
    pub last_id: u32,
    /// Why.
    pub code: Code,
    /// The peer's words, at most 1 KiB of them.
    pub debug: Bytes,
}

impl GoAway {
    /// Whether it is the end in good order of a connection that has served: no failure, and no overload.
    pub(crate) fn has_served(&self) -> bool {
        self.code == Code::NO_ERROR && self.last_id > 0
    }
}

/// Something that concerns the connection, for [`Options::on_event`](crate::Options::on_event).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The peer's settings, each time it says some.
    Settings(PeerSettings),
    /// The peer will process nothing beyond a stream; it may come again with a lower one.
    GoAway(GoAway),
    /// Another way to reach an origin (RFC 7838 4).
    AltSvc {
        /// The stream whose origin is meant; 0: `origin` names it.
        stream: u32,
        /// The origin, when the stream is 0.
        origin: Bytes,
        /// What an Alt-Svc header would say.
        value: Bytes,
    },
    /// What the peer is authoritative for, at most 128 of them (RFC 8336).
    Origin(Vec<Bytes>),
}

/// Whether a connection takes requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// It does.
    Open,
    /// It finishes what is in flight and takes nothing new.
    Draining,
    /// It is over.
    Closed,
}

/// How a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Whether it takes requests.
    pub state: State,
    /// Streams open now.
    pub active: usize,
    /// Streams that may be open at once.
    pub limit: usize,
    /// Requests that wait for a stream.
    pub waiting: usize,
}
