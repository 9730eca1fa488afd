//! One connector, every protocol: how a peer is reached (resolver, address policy, proxies, TLS, deadlines) is said once, in a
//! [`Connector`], and what is said to the peer is a protocol module with a Cargo feature of its own.
//!
//! ```toml
//! [dependencies]
//! portolan = { version = "0.1", features = ["http", "redis"] }
//! ```
//!
//! - Everything of [`core`] is at the top: [`Connector`], [`Policy`], [`Hop`], [`Tls`], [`Error`] and their neighbours.
//! - Each protocol is a module named like its feature: `portolan::redis`, `portolan::smtp`, `portolan::dns`.
//! - `portolan::http` is the HTTP client, over HTTP/1.1, HTTP/2 and HTTP/3; each of these is a module too, by itself.
//! - [`wire`] is the kit to write a protocol of one's own with.
//! - [`connector_from_str`], [`connector_from_env`] and, with the feature `config`, `connector_from_toml` take how to connect from
//!   outside of the program, and know every hop that the features hold.
//! - [`registry()`] gives the table of all protocols as data.
//!
//! # Features
//!
//! No protocol is on unless asked for. These are:
#![doc = include_str!("features.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "config")]
mod configured;
mod connect;
mod registry;
mod rows;

pub use portolan_core as core;
#[doc(inline)]
pub use portolan_core::*;
#[cfg(feature = "hpack")]
pub use portolan_hpack as hpack;
#[cfg(feature = "http")]
pub use portolan_http as http;
#[cfg(feature = "pool")]
pub use portolan_pool as pool;
pub use portolan_wire as wire;

// begin: xtask sync
#[cfg(feature = "activeusers")]
pub use portolan_classic::activeusers;
#[cfg(feature = "chargen")]
pub use portolan_classic::chargen;
#[cfg(feature = "daytime")]
pub use portolan_classic::daytime;
#[cfg(feature = "discard")]
pub use portolan_classic::discard;
#[cfg(feature = "echo")]
pub use portolan_classic::echo;
#[cfg(feature = "finger")]
pub use portolan_classic::finger;
#[cfg(feature = "qotd")]
pub use portolan_classic::qotd;
#[cfg(feature = "time")]
pub use portolan_classic::time;
#[cfg(feature = "whois")]
pub use portolan_classic::whois;
#[cfg(feature = "redis")]
pub use portolan_db::redis;
#[cfg(feature = "dns")]
pub use portolan_dns::dns;
#[cfg(feature = "doh")]
pub use portolan_dns::doh;
#[cfg(feature = "doq")]
pub use portolan_dns::doq;
#[cfg(feature = "dot")]
pub use portolan_dns::dot;
#[cfg(feature = "grpc")]
pub use portolan_grpc as grpc;
#[cfg(feature = "http1")]
pub use portolan_http1 as http1;
#[cfg(feature = "http2")]
pub use portolan_http2 as http2;
#[cfg(feature = "http3")]
pub use portolan_http3 as http3;
#[cfg(feature = "smtp")]
pub use portolan_mail::smtp;
#[cfg(feature = "ssh")]
pub use portolan_remote_access::ssh;
#[cfg(feature = "sse")]
pub use portolan_sse as sse;
#[cfg(feature = "ws-tunnel")]
pub use portolan_tunnel as ws_tunnel;
#[cfg(feature = "websocket")]
pub use portolan_websocket as websocket;
// end: xtask sync

#[cfg(feature = "config")]
pub use configured::{config_from_json, config_from_toml, connector_from_json, connector_from_toml};
pub use connect::{connector_from_env, connector_from_str, hop_schemes, resolver_schemes};
pub use registry::{Protocol, Status, TlsForm, Transport, protocol, protocol_of_scheme, registry};

/// The examples of the README compile.
#[cfg(all(
    doctest,
    feature = "blocking",
    feature = "dns",
    feature = "http",
    feature = "redis",
    feature = "smtp",
    feature = "ssh"
))]
#[doc = include_str!("../../../README.md")]
#[derive(Debug)]
pub struct Readme;

/// Those of how to connect do too.
#[cfg(all(doctest, feature = "http", feature = "redis"))]
#[doc = include_str!("../../../docs/CONNECTING.md")]
#[derive(Debug)]
pub struct Connecting;
