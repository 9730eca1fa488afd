//! The classic protocols against xinetd, in.fingerd and uwhoisd.

#![allow(clippy::panic, clippy::print_stdout, clippy::unwrap_used, reason = "these are tests")]

mod peers;
mod uwhoisd;
mod whois;
mod xinetd;
