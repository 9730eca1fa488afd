//! HTTP/3 for clients (RFC 9114): one connection, requests in, responses out. An own layer on QUIC by `quinn`.
//!
//! - **Port and TLS**: UDP port 443, found by Alt-Svc, an HTTPS record or the caller's word; TLS 1.3 is part of QUIC, and ALPN
//!   is `h3` alone. QUIC runs over the connector's datagrams, so also through a SOCKS5 relay.
//! - **What works**: requests and streamed bodies with backpressure, trailers both ways, informational responses, QPACK with
//!   the dynamic table both ways, the peer's MAX_FIELD_SECTION_SIZE, GOAWAY and H3_REQUEST_REJECTED as exact
//!   [`Delivery`](portolan_core::Delivery), CONNECT and extended CONNECT (RFC 9220), HTTP datagrams (RFC 9297), ORIGIN (RFC 9412) as an event,
//!   proxies ([`hop`]), early data on request, going over to another way ([`SendRequest::rebind`]). Where no relay is between,
//!   the addresses of a name are raced (RFC 8305), many datagrams go through one system call (GSO, GRO, recvmmsg), congestion is
//!   marked (ECN), and what the path carries is probed for ([`SendRequest::mtu`]).
//! - **What is not done**: server push (refused), priorities (RFC 9218), settings remembered for early data, datagrams
//!   beyond 1452 bytes, multipath, QUIC v2; through a relay datagrams go one by one, of 1200 bytes. What TLS agreed on is known
//!   but for the cipher suite and the group, which `quinn` doesn't tell.
//! - **Tested against**: a scripted peer that breaks the rules, the h3 crate's server, aioquic, Caddy.
//! - **Security**: frames are measured before room is made for them; header lists, unknown frames and streams, empty data and
//!   what waits for the header table are bounded; what a stream may hold is its window. See [`Options`].
//!
//! ```no_run
//! use http::Request;
//! use http_body_util::{BodyExt, Empty};
//! use portolan_core::{Connector, Endpoint};
//! use portolan_http3::{Options, connect};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let net = Connector::default();
//! let (client, connection) = connect(&net, &Endpoint::new("localhost", 443)?, Options::new()).await?;
//! tokio::spawn(connection);
//! let request = Request::get("https://localhost/").body(Empty::<bytes::Bytes>::new())?;
//! let response = client.send(request).await?;
//! let body = response.into_body().collect().await?.to_bytes();
//! # Ok(()) }
//! ```

#[cfg(test)]
portolan_wire::laws::install!();

mod body;
mod connect;
mod connection;
mod critical;
mod datagrams;
mod event;
pub mod ext;
#[doc(hidden)]
pub mod fuzzing;
mod handle;
pub mod hop;
mod options;
mod proto;
pub mod quic;
mod reading;
mod shared;
mod silence;
mod slot;
mod socket;
mod uni;
mod upload;

pub use body::RecvBody;
pub use connect::{ALPN, connect, connect_as};
pub use connection::{Connection, handshake, handshake_early};
pub use datagrams::Datagrams;
pub use event::{Event, GoAway, State, Status};
pub use handle::SendRequest;
pub use options::Options;
pub use proto::code::Code;
pub use proto::settings::PeerSettings;
