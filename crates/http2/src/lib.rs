//! HTTP/2 for clients (RFC 9113): one connection, requests in, responses out.
//!
//! - **Port and TLS**: any stream that is already connected. Over TLS (port 443) ALPN must have chosen `h2`; in cleartext
//!   (port 80) it is HTTP/2 by prior knowledge.
//! - **What works**: requests and streamed bodies with backpressure, trailers both ways, informational responses, `expect: 100-continue`, flow control
//!   whose windows grow with the bandwidth-delay product, a stateful HPACK encoder within the peer's limits, the peer's
//!   MAX_HEADER_LIST_SIZE and MAX_CONCURRENT_STREAMS (0 and lowered too) with a bounded queue, PING and keepalive, GOAWAY and
//!   REFUSED_STREAM as exact [`Delivery`](portolan_core::Delivery), CONNECT and extended CONNECT (RFC 8441), ALTSVC
//!   (RFC 7838) and ORIGIN (RFC 8336) as events; proxies: tunnels and datagrams for any protocol, see [`hop`].
//! - **What is not done**: server push (refused), priorities (ignored, and none are sent), the h2c upgrade of HTTP/1.1 (RFC 9113
//!   dropped it).
//! - **Tested against**: a scripted peer that breaks the rules, the h2 crate's server, nghttpd.
//! - **Security**: frames are measured before room is made for them; header lists, CONTINUATION, resets, SETTINGS, PING, empty
//!   and tiny frames are bounded without punishing a slow reader; what a stream may hold is its window. See [`Options`].
//!
//! ```no_run
//! use http::Request;
//! use http_body_util::{BodyExt, Empty};
//! use portolan_http2::{Options, handshake};
//!
//! # async fn example(io: tokio::net::TcpStream) -> Result<(), Box<dyn std::error::Error>> {
//! let (client, connection) = handshake(io, Options::new())?;
//! tokio::spawn(connection);
//! let request = Request::get("http://localhost/").body(Empty::<bytes::Bytes>::new())?;
//! let response = client.send(request).await?;
//! let body = response.into_body().collect().await?.to_bytes();
//! # Ok(()) }
//! ```

mod body;
mod connection;
mod event;
pub mod ext;
mod handle;
pub mod hop;
mod options;
mod proto;
mod shared;
mod upload;

pub use body::RecvBody;
pub use connection::{Connection, handshake};
pub use event::{Event, GoAway, State, Status};
pub use handle::SendRequest;
pub use options::Options;
pub use proto::code::Code;
pub use proto::settings::PeerSettings;
