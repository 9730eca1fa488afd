//! DNS, the name service (RFC 1034, 1035; EDNS RFC 6891, TCP RFC 7766, resilience RFC 5452, zone transfer RFC 5936).
//!
//! **Port and TLS**: 53, UDP and TCP; schemes `dns://`, `udp://`, `tcp://`. TLS never: DNS over TLS, HTTPS and QUIC are protocols of their
//! own (`dot`, `doh`, `doq`), and features of this client, which asks over them as it does over UDP: see [`Options::from_url`].
//!
//! **What works**: queries of any type and class, with typed data for A, AAAA, CNAME, NS, PTR, MX, TXT, SRV, SOA, CAA, SVCB,
//! HTTPS, DS, DNSKEY, TLSA and NAPTR, and bytes for all others; UDP with retransmission, TCP when an answer is cut, when the
//! proxies on the way carry no datagrams, or when somebody seems to be guessing ([`Info::fallback`] says which); pipelined
//! queries over one TCP connection; EDNS, with a second try without it; addresses over aliases; reverse names; class `CH`;
//! whole zones (AXFR) record by record; raw messages. A [`Client`] is a [`Resolve`](portolan_core::Resolve), so a connector's
//! names can be resolved through a proxy; [`resolver`] makes one of several servers, by their URLs.
//!
//! **What is not done**: no iteration from the root (a server that asks others is expected, or one that is responsible), no
//! cache (the connector's resolver has one), no verification of signatures, no cookies (RFC 7873), no TSIG, no update, no
//! IXFR; a record of a known type whose data is malformed fails the whole answer.
//!
//! **Tested against** BIND 9.18 (authoritative) and Unbound 1.17 (resolver with local data), directly and through SOCKS5.
//!
//! **Security**: plain DNS can be read and, by whoever sits on the way, changed. Against all others every query has a random
//! id and a random source port (and random case, if asked for), an answer counts only from the very server, with that id
//! and that question, and after a hundred wrong ones the client turns to TCP.
//!
//! ```no_run
//! use portolan_core::Connector;
//! use portolan_dns::dns::{Client, Options, RecordType};
//!
//! # async fn run() -> portolan_core::Result<()> {
//! let names = Client::connect(&Connector::default(), Options::from_url("dns://9.9.9.9")?).await?;
//! let answer = names.query("example.org", RecordType::Mx).await?;
//! for mx in answer.mx() {
//!     println!("{} {}", mx.preference, mx.exchange);
//! }
//! println!("{} bytes over {:?} in {:?}", answer.info.size, answer.info.transport, answer.info.elapsed);
//! # Ok(())
//! # }
//! ```

mod carrier;
mod client;
mod codec;
mod name;
mod options;
mod resolve;
mod response;
mod session;
mod transfer;
mod types;
mod udp;

#[cfg(test)]
mod tests;

/// The name in errors.
pub(crate) const PROTOCOL: &str = "dns";

#[cfg(any(feature = "dot", feature = "doh", feature = "doq"))]
pub(crate) use carrier::{Carried, Carrier, Freshness};
#[cfg(any(feature = "dot", feature = "doh", feature = "doq"))]
pub(crate) use codec::Query;

pub use client::Client;
pub use codec::{Framing, decode};
pub use name::Name;
pub use options::{DEFAULT_HTTPS_PORT, DEFAULT_PORT, DEFAULT_TLS_PORT, Dangerous, Method, Options};
pub use resolve::{resolver, schemes};
pub use response::{Edns, Fallback, Flags, Info, Response, Transport};
pub use transfer::Transfer;
pub use types::{Caa, Class, Data, Dnskey, Ds, Mx, Naptr, Question, Rcode, Record, RecordType, Soa, Srv, Svcb, Tlsa};
