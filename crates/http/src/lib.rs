//! An HTTP client: HTTP/1.1, HTTP/2 and HTTP/3 with one face, over any way that a [`Connector`](portolan_core::Connector) knows.
//!
//! - **Port and TLS**: 80 and 443; TLS with ALPN, and HTTP/2 in cleartext by prior knowledge.
//! - **What works**: HTTP/3 taken up from `Alt-Svc` and from HTTPS records, and raced, with a memory of what was broken;
//!   origins that share connections; a pool with limits by host and in
//!   all; retries that know what became of the request, within a budget, `Retry-After`, hedging; redirects; cookies with the
//!   public suffix list; gzip, deflate, br and zstd undone within limits; forms, multipart, JSON; Basic, Bearer and Digest; HSTS;
//!   a private cache (RFC 9111); HAR; informational responses, trailers, upgrades and extended CONNECT; streamed bodies both
//!   ways with progress; bounds for every phase, timings of each; middleware, tower services;
//!   requests signed as they go out, for AWS (feature `sigv4`) and by RFC 9421 (feature `signatures`); a face without `async` (feature `blocking`).
//! - **What is not done**: PAC, ECH, NTLM and Negotiate, server push.
//! - **Tested against**: nginx, apache2, caddy (HTTP/3 too), haproxy, h2o, nghttpd; squid, tinyproxy, dante, haproxy and nghttpx as
//!   proxies; the servers of hyper, h2 and h3, and scripted peers that break the rules.
//! - **Security**: the connector's address policy sees each address, redirects and alternatives included; credentials and cookies stay
//!   with their origin; https is not left for http; bodies are bounded where they are gathered, and in what they grow to.
//!
//! ```no_run
//! # async fn run() -> portolan_core::Result<()> {
//! let client = portolan_http::Client::new();
//! let response = client.get("https://example.org/").header("accept", "text/html").send().await?;
//! println!("{} by {:?} in {:?}", response.status(), response.version(), response.timings().total);
//! println!("{}", response.text().await?);
//! # Ok(()) }
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(test)]
portolan_wire::laws::install!();

pub mod alt_svc;
mod attempt;
mod auth;
#[cfg(feature = "blocking")]
pub mod blocking;
mod body;
mod builder;
pub mod cache;
pub mod charset;
mod civil;
mod client;
mod coalesce;
mod connection;
pub mod content_digest;
pub mod cookie;
pub mod decode;
pub mod digest;
mod field;
mod follow;
#[cfg(feature = "har")]
pub mod har;
pub mod hsts;
mod incoming;
mod key;
mod listen;
mod middleware;
pub mod multipart;
pub mod range;
mod records;
mod redirect;
mod request;
mod response;
mod service;
mod sign;
#[cfg(feature = "signatures")]
pub mod signatures;
#[cfg(feature = "sigv4")]
pub mod sigv4;
pub mod structured;
mod trail;
mod upgrade;
mod uri;
mod version;
mod ways;

pub use body::Body;
// The types that this crate's own are made of, so that one dependency will do.
pub use builder::ClientBuilder;
pub use client::Client;
pub use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
pub use incoming::Incoming;
pub use listen::{OnMessage, SocketMessage};
pub use middleware::{Middleware, Next};
pub use redirect::{Hop as RedirectHop, Redirect};
pub use request::{Request, RequestBuilder};
pub use response::{Failed, Response, Timings, retry_after};
pub use sign::Sign;
pub use upgrade::Upgraded;
pub use uri::IntoUri;
pub use version::Version;

/// Asks for what is there, by a client made for this one request: who asks more than once makes a [`Client`] and keeps it.
///
/// ```no_run
/// # async fn run() -> portolan_core::Result<()> {
/// let text = portolan_http::get("https://example.org/").await?.text().await?;
/// # Ok(()) }
/// ```
pub async fn get(uri: impl IntoUri) -> portolan_core::Result<Response> {
    Client::new().get(uri).send().await
}

/// What the errors of this crate name as their protocol.
const PROTOCOL: &str = "http";
