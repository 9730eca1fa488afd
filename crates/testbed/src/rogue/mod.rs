//! Rogue peers: a server that says what a script tells it, to the byte, and then misbehaves.
//!
//! A [`Script`] is data: what to expect, what to send, in which pieces, and how to end. It runs over
//!
//! - TCP on the loopback ([`Rogue::tcp`]), one script for all connections, a list of them, or a function of the
//!   connection's number;
//! - TLS with a certificate of the test authority ([`Rogue::tls`]), or from the middle of a conversation on
//!   ([`Script::start_tls`]);
//! - an in-memory pipe ([`Rogue::pipe`]);
//! - anything else that reads and writes ([`Script::run`]).
//!
//! Datagrams have a script of their own: [`Datagrams`], run by [`UdpRogue`].
//!
//! What the peer said and why each script ended is in a [`Heard`]; [`Rogue::finish`] fails the test with what was expected
//! and what came. Nothing here waits by tokio's clock except [`Script::delay`], so all of it works while that clock is paused.

mod heard;
mod listen;
mod play;
mod script;
#[cfg(test)]
mod tests;
mod udp;
mod wire;

pub use heard::{End, Heard};
pub use listen::{Plan, Rogue};
pub use script::Script;
pub use udp::{Datagrams, UdpRogue};
pub use wire::Pipe;
