//! Mail against its real servers.

#![allow(
    clippy::disallowed_methods,
    clippy::large_futures,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "these are tests"
)]

mod rogue;
mod smtp;
