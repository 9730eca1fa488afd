//! Databases against their real servers.

#![allow(
    clippy::cognitive_complexity,
    clippy::disallowed_methods,
    clippy::large_futures,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "these are tests"
)]

mod redis;
mod redis_cluster;
mod redis_sentinel;
mod rogue;
