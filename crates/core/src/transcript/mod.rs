//! Conversations of any protocol, written down and played again.
//!
//! A [`Recorder`] hears every stream and every flow of datagrams that a connector opens, above TLS and above the proxies, and gives a
//! [`Transcript`] of it: readable text that can be kept beside tests. A [`Replay`] plays it: the connector over it opens nothing,
//! and whoever says what was said then hears what was heard then.
//!
//! ```no_run
//! # async fn run() -> portolan_core::Result<()> {
//! use portolan_core::transcript::{Recorder, Redact, Replay, Transcript};
//! use portolan_core::Connector;
//!
//! let recorder = Recorder::new(Redact::new());
//! let net = Connector::builder().record(&recorder).build()?;
//! // .. any client over `net` ..
//! recorder.transcript().save("session.jsonl")?;
//!
//! let replay = Replay::new(Transcript::load("session.jsonl")?);
//! let net = Connector::builder().dial(replay.clone()).build()?;
//! // .. the same client over this one, and no server ..
//! replay.finish()?;
//! # Ok(()) }
//! ```
//!
//! # What is written
//!
//! A line of JSON for each thing that happened; the first line names the format: `{"portolan":"transcript","version":1}`. In each of the
//! others `connection` counts the connections from 1, `at` is the time in seconds since the recorder was made, and one further
//! member says what happened:
//!
//! | member | meaning |
//! |---|---|
//! | `opened` | the connection is there: `to` (host and port), `over` (`stream` or `datagrams`), `peer`, `hops` and `tls` where there are such |
//! | `sent`, `received` | bytes, one write, read or datagram: a list of pieces |
//! | `secured` | TLS was begun in mid-stream: `version`, `cipher`, `alpn` |
//! | `shutdown`, `ended`, `broken` | we will say no more, the peer will say no more, reading failed: null |
//! | `left_out` | nothing more is written of this connection, and why |
//! | `closed` | the connection is gone: null |
//!
//! A piece is a string if it is text, `{"base64": ".."}` if it is not, and `{"hidden": N}` where a secret stood: N bytes of the peer's; 0 for our
//! own, whose length is nobody's business.
//!
//! - **What is not written**: HTTP/2 and HTTP/3 (they are coded with a memory, in which no secret could be found: record the messages as
//!   HAR instead), what was sent to no peer in particular (multicast), incoming connections.
//! - **What is written otherwise**: the frames of WebSocket without their masks.
//! - **What can't be replayed**: what both sides make of random numbers or of time (SCRAM, Kerberos, TLS inside a protocol). The ids of DNS
//!   and the keys of WebSocket are random too, and are known.
//! - **Security**: see [`Redact`] for what is hidden. What is compressed or coded is written as it is, and so is what only you know to be
//!   secret: name it ([`Redact::secret`], [`Redact::rule`]), and look at a transcript before you give it away.

mod dns;
mod entry;
mod matching;
mod play;
mod recorder;
mod redact;
mod replay;
#[cfg(test)]
mod tests;
mod websocket;

pub use entry::{Entry, Opening, Piece, TlsFacts, Transcript, What};
pub use matching::Match;
pub use recorder::Recorder;
pub use redact::{DangerousRedact, Redact, Side};
pub use replay::{Mismatch, Mode, Replay};
