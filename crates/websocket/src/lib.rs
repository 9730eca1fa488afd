//! WebSocket for clients (RFC 6455), with permessage-deflate (RFC 7692), over HTTP/1.1, HTTP/2 (RFC 8441) and HTTP/3 (RFC 9220).
//!
//! - **Port and TLS**: 80 for `ws`, 443 for `wss`, with TLS from the first byte; through every hop that the connector has, over
//!   any stream ([`WebSocket::handshake`]), and as one stream of an HTTP/2 connection that others share
//!   ([`WebSocket::connect_h2`]).
//! - **What works**: the opening handshake with subprotocols, origin, cookies, credentials (Basic, Bearer, Digest) and headers of one's own; messages
//!   whole, in pieces as they arrive, and in fragments as they are made; text checked as it arrives; permessage-deflate
//!   with context takeover and window bits; the closing handshake in every order, with a deadline; pings answered,
//!   keepalive; halves for two tasks; pings answered though the caller is busy ([`WebSocket::attended`]); backpressure counted in bytes; a byte stream for MQTT and its like ([`ByteStream`]);
//!   connections that come back ([`Reconnecting`]). As much of the server's half as gateways and tests need
//!   ([`handshake::accept`], [`Role::Server`]).
//! - **What is not done**: redirects are given to the caller ([`Rejected`]), unless the HTTP client opens the connection; other extensions than
//!   permessage-deflate; a compressing window of 8 bits (messages then go as they are); a final deflate block within a
//!   conversation with takeover forgets what came before it. HTTP/3 plugs in by [`WebSocket::connect_over`].
//! - **Tested against**: the Autobahn suite's own fuzzing server (517 cases, groups 1 to 13: 514 strictly right, 3 without a right
//!   answer), and its groups written anew from the RFC; websockets, aiohttp and hypercorn (Python), ws and http2 (node),
//!   nghttpx, websockify, the h2 crate's server (docs/INTEROP.md).
//! - **Security**: a mask key from the system's generator for each frame; frames, messages and what they inflate to are bounded
//!   before room is made ([`Options`]), and so are handshake heads and refusals; nothing is sent after a Close. Compression
//!   is off unless asked for: see [`Deflate`].
//!
//! ```no_run
//! use portolan_core::Connector;
//! use portolan_websocket::{CloseCode, Options, WebSocket};
//!
//! # async fn example() -> portolan_core::Result<()> {
//! let net = Connector::default();
//! let mut socket = WebSocket::connect(&net, "wss://example.org/chat", Options::new()).await?;
//! socket.send("hello").await?;
//! while let Some(message) = socket.recv().await? {
//!     if message.as_text() == Some("bye") {
//!         socket.close(CloseCode::NORMAL, "").await?;
//!     }
//! }
//! # Ok(()) }
//! ```

mod attended;
mod byte_stream;
mod client;
pub mod codec;
mod connect;
mod duplex;
mod extended;
pub mod handshake;
mod heard;
mod options;
mod outbound;
mod pieces;
mod poll;
mod reconnect;
mod socket;
mod split;

pub use attended::{Attendant, Attended};
pub use byte_stream::ByteStream;
pub use client::Carried;
pub use codec::{CloseCode, CloseFrame, DataKind, Deflate, Message, Role, Text};
pub use duplex::{Duplex, PipeBody, Received};
pub use handshake::{Rejected, Request};
pub use options::Options;
pub use pieces::{MessageReader, MessageWriter};
pub use poll::Incoming;
pub use portolan_http::{OnMessage, SocketMessage};
pub use reconnect::{ReconnectPolicy, Reconnecting};
pub use socket::WebSocket;
pub use split::{Reader, Writer};

#[cfg(test)]
portolan_wire::laws::install!();
