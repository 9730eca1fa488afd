//! HTTP/1.1 for clients (RFC 9112): one connection, a request in, a response out, driven by the caller's own task.
//!
//! - **Port and TLS**: any stream that is already connected; usually 80 in cleartext and 443 over TLS with ALPN `http/1.1`.
//! - **What works**: streamed bodies both ways, chunked with trailers both ways, informational responses (1xx, 103 among them),
//!   `expect: 100-continue`, upgrades and CONNECT tunnels, HEAD, 204 and 304, bodies that end with the connection, HTTP/1.0
//!   servers, an answer that comes before the request is sent, keep-alive with a check for the peer's close.
//! - **What is not done**: pipelining, transfer codings besides `chunked`, obs-fold (refused).
//! - **Tested against**: a scripted peer that breaks the rules, hyper's server; nginx, apache2, haproxy, caddy and h2o by way of
//!   the HTTP client's suites.
//! - **Security**: framing is strict (RFC 9112 6.3): both lengths, repeated or odd lengths, chunk sizes that overflow and bare CRs
//!   are errors, and the connection is not used again. Heads, fields, chunk extensions, trailers and informational responses
//!   are bounded; see [`Options`].
//!
//! Heads are read by httparse, with a table of fields on the stack; values stay slices of what was read. Reading them line by
//! line without it cost 180 instructions more for a GET against nginx (valgrind), not less.
//!
//! There is no task beneath: [`send`] writes the request and reads the head of the response, and [`RecvBody`] reads on when it
//! is polled. Whoever holds the connection (a box, a pool's lease, `&mut`) gets it back by the body's end.
//!
//! ```no_run
//! use http::Request;
//! use http_body_util::{BodyExt, Empty};
//! use portolan_http1::{Connection, Options, send};
//!
//! # async fn example(io: tokio::net::TcpStream) -> Result<(), Box<dyn std::error::Error>> {
//! let mut connection = Connection::new(io, Options::new());
//! let request = Request::get("http://localhost/").body(Empty::<bytes::Bytes>::new())?;
//! let response = send(&mut connection, request).await?;
//! let body = response.into_body().collect().await?.to_bytes();
//! assert!(connection.is_reusable());
//! # Ok(()) }
//! ```

mod body;
mod chunk;
mod connection;
pub mod ext;
mod fields;
mod head;
mod message;
mod options;
mod send;
mod upgrade;
mod upload;

pub use body::RecvBody;
pub use connection::Connection;
pub use options::Options;
pub use send::{send, send_parts};
pub use upgrade::Upgraded;

/// What all errors of this crate name as their protocol.
const PROTOCOL: &str = "http1";

#[cfg(test)]
portolan_wire::laws::install!();
