//! The classic protocols against xinetd, in.fingerd and uwhoisd.

mod mini;
mod peers;
mod whois;
