//! What is said about the connection as a whole.

use bytes::Bytes;

use crate::proto::settings::PeerSettings;

/// What the peer said in its GOAWAY (RFC 9114 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct GoAway {
    /// Streams of this id and above were not processed.
    pub id: u64,
}

/// Something that concerns the connection, for [`Options::on_event`](crate::Options::on_event).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The peer's settings; they come once.
    Settings(PeerSettings),
    /// The peer will process nothing from a stream on; it may come again with a lower one.
    GoAway(GoAway),
    /// What the server says that it serves (RFC 9412).
    Origin(Vec<Bytes>),
    /// Whether the server took what was sent before the handshake was done. What it did not take was sent again.
    EarlyData {
        /// It did.
        accepted: bool,
    },
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
    /// Streams that may be open at once, by our own limit; the peer's is kept by QUIC, which doesn't tell it.
    pub limit: usize,
    /// Requests that wait for a stream.
    pub waiting: usize,
}
