//! DNS against BIND and Unbound, directly and through proxies.

#![allow(clippy::panic, clippy::print_stdout, clippy::unwrap_used, reason = "these are tests")]

mod faults;
mod peers;
mod servers;
