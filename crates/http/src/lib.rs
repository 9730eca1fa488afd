//! An HTTP client: HTTP/1.1, HTTP/2 and HTTP/3 with one face, over any way that a [`Connector`](portolan_core::Connector) knows.
//!
//! - **Port and TLS**: 80 and 443; TLS with ALPN, and HTTP/2 in cleartext by prior knowledge.
//! - **What works**: a pool with limits by host, retries that know what became of the request, redirects, informational
//!   responses, trailers both ways, streamed bodies both ways, bounds for every phase, middleware, tower services.
//! - **What is not done**: see docs/SHORTCOMINGS.md.
//! - **Tested against**: nginx, apache2, caddy, haproxy, h2o, nghttpd, and scripted peers that break the rules.
//! - **Security**: the connector's address policy sees each address, redirects included; credentials stay with their origin;
//!   https is not left for http; bodies are bounded where they are gathered.
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

pub mod alt_svc;
mod attempt;
mod auth;
mod body;
mod builder;
pub mod cache;
pub mod charset;
mod civil;
mod client;
mod connection;
pub mod cookie;
pub mod decode;
pub mod digest;
mod field;
#[cfg(feature = "har")]
pub mod har;
pub mod hsts;
mod incoming;
mod key;
mod middleware;
pub mod multipart;
pub mod range;
mod redirect;
mod request;
mod response;
mod service;
mod upgrade;
mod uri;
mod version;
mod ways;

pub use body::Body;
pub use builder::ClientBuilder;
pub use client::Client;
pub use incoming::Incoming;
pub use middleware::{Middleware, Next};
pub use redirect::{Hop as RedirectHop, Redirect};
pub use request::{Request, RequestBuilder};
pub use response::{Failed, Response, Timings};
pub use upgrade::Upgraded;
pub use uri::IntoUri;
pub use version::Version;

/// What the errors of this crate name as their protocol.
const PROTOCOL: &str = "http";
