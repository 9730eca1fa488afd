//! Real-peer suites of portolan: one test binary for each family, started with `cargo test -p portolan-tests --test dns`.
//!
//! A suite that misses its server says which package to install and passes; with `PORTOLAN_REQUIRE_SERVERS` set it fails.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::large_futures,
    clippy::panic,
    clippy::print_stdout,
    clippy::exhaustive_structs,
    reason = "this crate starts servers for tests: it opens sockets, waits for processes, and fails loudly"
)]

mod certs;
mod replay;
mod server;

pub use certs::Certs;
pub use replay::{Fault, Outcome, Tape};
pub use server::{Server, Spec, find, folder, free_port, record, required};
