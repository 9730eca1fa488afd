//! gRPC for clients (PROTOCOL-HTTP2.md of the gRPC project, gRFC G2 for HTTP/3): over HTTP/2, HTTP/3, or whatever carries an
//! HTTP request and its trailers.
//!
//! - **Port and TLS**: as the service says. Over TLS ALPN must give `h2` (or `h3`); in cleartext it is HTTP/2 by prior knowledge.
//! - **What works**: all four kinds of call, with metadata before and after, as text and as bytes; messages of prost, of serde's
//!   JSON, as raw bytes, by a [`Codec`] of one's own; typed clients by `portolan-grpc-build`; deadlines that are told to the
//!   server, kept here, and handed on ([`Deadline`]); compression by message (gzip, deflate, zstd) within a limit; status,
//!   trailers-only, the standard error `details`; interceptors; metrics under the names of gRFC A66 ([`Meter`]); calls
//!   recorded as gRPC's binary log, and replayed (`binlog`); retries with pushback and throttling, hedging, and requests
//!   that never left made again ([`ServiceConfig`], also as JSON and as DNS has it); waiting for a connection; a [`Channel`] of HTTP/2 or HTTP/3
//!   that reconnects, balances (pick_first, round_robin, least requests, by weight; only where the service says that it
//!   serves) and rests when nobody calls; `health`, `reflection`, calls by name with JSON (`dynamic`); `Web` (binary and text), `Connect` (by GET too) and
//!   `Transcode` (`google.api.http`: plain HTTP and JSON) over any transport; tower services both ways.
//! - **What is not done**: servers; xDS, outlier detection, weights by load reports (ORCA);
//!   retries of a stream of which something was taken.
//! - **Tested against** (docs/INTEROP.md): grpcio (Python), grpc-js and connect-node (JavaScript), grpc-go and grpc++ with the interop
//!   cases of the gRPC project, in cleartext and over TLS, by gRPC, gRPC-Web and Connect; Envoy and grpc-gateway by JSON; the same service over HTTP/3 on
//!   aioquic, and behind Caddy; grpcio behind nginx, HAProxy and nghttpx; the server halves of the h2 and h3 crates; a server's bytes cut, stalled and garbled at every
//!   place.
//! - **Security**: a length is checked before there is room for it, and an inflated message has the same bound; reserved names
//!   can't be sent as metadata; secrets stay out of logs and of header compression; reflection is bounded in files and bytes.
//!
//! Errors are [`portolan_core::Error`]; how a call ended by gRPC's reckoning is [`Status::of`] it, whoever ended it.
//!
//! ```no_run
//! use portolan_core::{Connector, Result};
//! use portolan_grpc::{Client, Code, Json, Method, Status};
//! use serde_json::{Value, json};
//! use std::time::Duration;
//!
//! # async fn example() -> Result<()> {
//! let client = Client::connect(&Connector::default(), "https://shop.example").await?;
//! let count = Method::new("/shop.Stock/Count", Json::<Value, Value>::new())?;
//! match client.unary(&count, &json!({"item": "tea"})).metadata("x-tenant", "a").timeout(Duration::from_secs(2)).await {
//!     Ok(reply) => println!("{} {:?}", reply.message(), reply.trailers()),
//!     Err(error) if Status::of(&error).code() == Code::NotFound => println!("no tea"),
//!     Err(error) => return Err(error),
//! }
//!
//! let chat = Method::new("/shop.Desk/Chat", Json::<Value, Value>::new())?;
//! let mut call = client.duplex(&chat).await?;
//! call.send(&json!({"say": "hello"})).await?;
//! while let Some(said) = call.message().await? {
//!     call.send(&json!({"heard": said})).await?;
//! }
//! # Ok(()) }
//! ```

#[cfg(feature = "prost")]
pub mod binlog;
mod body;
mod call;
mod channel;
mod client;
mod codec;
#[cfg(feature = "json")]
mod codec_json;
#[cfg(feature = "prost")]
mod codec_prost;
mod compress;
#[cfg(feature = "connect")]
mod connect;
mod deadline;
#[cfg(feature = "prost")]
pub mod details;
#[cfg(feature = "dynamic")]
pub mod dynamic;
#[cfg(feature = "dynamic")]
mod dynamic_editions;
#[cfg(feature = "dynamic")]
mod dynamic_json;
mod frame;
#[cfg(feature = "health")]
pub mod health;
#[cfg(feature = "http3")]
mod http3;
#[cfg(feature = "http-client")]
mod http_client;
mod intercept;
mod metadata;
mod meter;
mod policy;
#[cfg(feature = "reflection")]
pub mod reflection;
#[cfg(feature = "json")]
mod service_config;
#[cfg(feature = "json")]
mod service_config_dns;
mod status;
#[cfg(any(feature = "connect", feature = "transcoding", feature = "web"))]
mod tail;
#[cfg(feature = "tower")]
mod tower;
#[cfg(feature = "transcoding")]
pub mod transcode;
mod transport;
#[cfg(feature = "web")]
mod web;
#[cfg(any(feature = "connect", feature = "transcoding"))]
mod whole;

pub use body::{Body, Shape};
pub use call::{
    Call, ClientStreaming, Duplex, DuplexCall, DuplexWith, Response, Sender, ServerStreaming, Streaming, Unary,
};
pub use channel::{Balancing, Carrier, Channel, ChannelOptions, Connectivity, Http2, Observed};
pub use client::{Client, Method};
pub use codec::{Codec, Raw};
#[cfg(feature = "json")]
pub use codec_json::Json;
#[cfg(feature = "prost")]
pub use codec_prost::Prost;
pub use compress::Encoding;
#[cfg(feature = "connect")]
pub use connect::Connect;
pub use deadline::Deadline;
// Named by generated code.
pub use frame::{COMPRESSED, Frame, Frames, PREFIX};
#[doc(no_inline)]
pub use futures_core::Stream;
#[cfg(feature = "http3")]
pub use http3::Http3;
pub use intercept::{Interceptor, Outgoing};
pub use metadata::Metadata;
pub use meter::{Instrument, Measurement, Meter};
pub use policy::{HedgingPolicy, MethodConfig, RetryPolicy, ServiceConfig, Throttling};
pub use status::{Code, Status};
#[cfg(any(feature = "connect", feature = "transcoding", feature = "web"))]
pub use tail::TranslatedBody;
#[cfg(feature = "tower")]
pub use tower::Tower;
#[cfg(feature = "transcoding")]
#[doc(inline)]
pub use transcode::Transcode;
pub use transport::Transport;
#[cfg(feature = "web")]
pub use web::Web;

/// What all errors of this crate name as their protocol.
pub(crate) const PROTOCOL: &str = "grpc";

#[cfg(test)]
portolan_wire::laws::install!();
