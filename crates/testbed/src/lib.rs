//! What the tests of this workspace are made with: real servers in folders of their own, certificates, the fault replay.
//!
//! Any crate may have it as a dev-dependency; nothing that is published may use it otherwise.
//!
//! - [`Service`] says which installed server to start; the [`Server`] is ended when dropped, or when the test is killed. A
//!   suite that misses its server says which package to install and passes; with `PORTOLAN_REQUIRE_SERVERS` set it fails.
//! - [`Certs`] is a test authority: what it signs is trusted by nobody else.
//! - [`rogue`] plays peers that misbehave to the byte, from a script.
//! - [`record`](mod@record) writes down what goes between a client and a server, without the secrets, and plays it again.
//! - [`netns`] gives a test a network of its own, with interfaces, broadcast and privileged ports (Linux).
//! - [`Tape`] replays what a real server said, cut, stalled and garbled at every byte.
//! - [`record()`] writes down what a real-peer test has proved, for docs/REGISTRY.md, [`row`] and [`section`] what it met, for
//!   docs/INTEROP.md.
//! - [`built`] keeps a program that a test makes of sources.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::large_futures,
    clippy::panic,
    clippy::print_stdout,
    clippy::exhaustive_structs,
    reason = "this crate is part of the tests: it opens sockets, waits for processes, and fails loudly"
)]

mod certs;
mod guard;
#[cfg(target_os = "linux")]
pub mod netns;
pub mod record;
mod replay;
mod report;
pub mod rogue;
mod server;
mod tls;
mod wall;

pub use certs::{Certs, Leaf, Pem};
pub use replay::{Fault, Outcome, Tape};
pub use report::{built, row, section};
pub use server::{Server, Service, Spec, find, folder, free_port, python, record, required};
pub use tls::ServerTls;
