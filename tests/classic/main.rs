//! The classic protocols against xinetd, in.fingerd and uwhoisd.

mod peers;
mod whois;
