//! What all clients have: their face without `async`, their conversations recorded and replayed.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::large_futures,
    clippy::print_stdout,
    reason = "tests fail by panicking and start processes"
)]

mod blocking;
#[allow(dead_code, reason = "servers of another suite, of which this one needs some")]
#[path = "../http/servers.rs"]
mod servers;
mod transcript;
#[path = "../classic/uwhoisd.rs"]
mod uwhoisd;
