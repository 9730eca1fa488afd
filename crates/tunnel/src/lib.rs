//! TCP through WebSocket: a hop by which every protocol of the workspace rides, and the gateway at the other end. The
//! frames are those of RFC 6455; what they mean is said below.
//!
//! - **Port and TLS**: 443 for `wss+tunnel`, with TLS from the first byte; 80 for `ws+tunnel`, where credentials and
//!   bytes are readable on the way to the gateway. The gateway takes TLS itself
//!   ([`GatewayBuilder::tls`](gateway::GatewayBuilder::tls)), or stands behind a proxy that does.
//! - **What works**: the hop ([`hop`], [`Tunnel`]) at any place of a chain, through gateways of another make too
//!   ([`Tunnel::raw`]), with Basic, Bearer and headers of one's
//!   own, and errors that say whether credentials, the gateway's policy, the name or the target failed; half-close both
//!   ways. The gateway ([`Gateway`]): 101 before the target is dialled, and dialling bounded (10 s); backpressure
//!   counted in bytes below a mark of 1 MiB ([`HIGH_WATER`](gateway::HIGH_WATER)); messages of any length handed on
//!   piece by piece without a copy; strict order; address policy on the very addresses that are connected to;
//!   authentication hook, origins, path; limits of bytes, idle time, lifetime, tunnels, tunnels per client; shutdown
//!   that drains; figures ([`Metrics`](gateway::Metrics)).
//! - **What is not done**: datagrams; WebSocket over HTTP/2 and HTTP/3; compression (what is tunnelled is mostly
//!   encrypted); resets of the client are a FIN for the target.
//! - **Tested against**: redis-server through it, with TLS and without, in chains with microsocks; scripted peers at
//!   every stage; websockify and wstunnel of node as gateways for raw bytes. With words (half-close, reasons) the protocol
//!   is our own, and no foreign gateway speaks it; any WebSocket client can.
//! - **Measured** (`cargo run --release -p portolan-tunnel --example measure`, 1,000 tunnels on Linux, heap of the
//!   gateway): 6.5 KiB for an idle tunnel, used before or not, since buffers are given back; 174 to 205 KiB with both
//!   directions stalled at full backpressure. Against a plain TCP relay with buffers of 64 KiB, in pairs on two cores
//!   shared with other work: 1 GiB up at 0.78 to 0.98 of its speed (the client's masking included), down at 0.87 to 1.18,
//!   round trips of 64 bytes at 0.88 to 1.13.
//! - **Security**: without a hook there is no gateway unless one says [`anyone`](gateway::GatewayBuilder::anyone); only
//!   public addresses are reached unless a policy says otherwise; pages of foreign origins are refused; logs hold peer,
//!   identity and target, never headers or queries.
//!
//! # On the wire
//! The client upgrades with the subprotocol [`SUBPROTOCOL`] and names the target in the header [`TARGET`] (a browser,
//! which can't set headers, in the query `target`). Binary messages carry bytes; their borders mean nothing. Text
//! messages are words: the gateway says [`OPEN`] once the target is connected; either end says [`FIN`] when its side is
//! over, as a FIN of TCP does. When both sides are over, the gateway closes with 1000. A Close at any time ends both
//! sides: what the client sent before it is still delivered. Other codes say why a tunnel was cut short ([`Reason`]).
//!
//! ```
//! use portolan_core::Connector;
//!
//! let hop = portolan_tunnel::hop("wss+tunnel://ann:sesame@gateway.example/tcp")?;
//! assert_eq!(format!("{hop:?}"), "wss+tunnel://ann:***@gateway.example:443");
//! let net = Connector::builder().via(hop).build()?;
//! # Ok::<(), portolan_core::Error>(())
//! ```

mod client;
pub mod gateway;
mod io;
mod protocol;
mod raw;

pub use client::{Tunnel, hop, schemes};
pub use gateway::Gateway;
pub use protocol::{FIN, OPEN, Reason, SUBPROTOCOL, TARGET};
