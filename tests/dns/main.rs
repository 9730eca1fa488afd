//! DNS against BIND, Unbound, Knot Resolver, dnsdist and what speaks QUIC, directly and through proxies.

#![allow(clippy::panic, clippy::print_stdout, clippy::unwrap_used, reason = "these are tests")]

mod faults;
mod peers;
mod rogue;
mod secure;
mod servers;
