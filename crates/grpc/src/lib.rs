//! gRPC for clients, over any version of HTTP that has trailers (gRPC over HTTP/2, PROTOCOL-HTTP2.md of the gRPC project).
//!
//! - **Port and TLS**: as the service says; over TLS ALPN must give `h2`, in cleartext it is HTTP/2 by prior knowledge.
//! - **What works**: the four kinds of call, metadata, deadlines, compression, status.
//! - **What is not done**: see below.
//! - **Tested against**: the h2 crate's server half.
//! - **Security**: a length is checked before room is made for it, and an inflated message has the same bound.

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
mod frame;
#[cfg(feature = "health")]
pub mod health;
#[cfg(feature = "http3")]
mod http3;
mod intercept;
mod metadata;
mod policy;
#[cfg(feature = "reflection")]
pub mod reflection;
#[cfg(feature = "json")]
mod service_config;
mod status;
#[cfg(any(feature = "connect", feature = "web"))]
mod tail;
#[cfg(feature = "tower")]
mod tower;
mod transport;
#[cfg(feature = "web")]
mod web;

pub use body::{Body, Shape};
pub use call::{
    Call, ClientStreaming, Duplex, DuplexCall, DuplexWith, Response, Sender, ServerStreaming, Streaming, Unary,
};
pub use channel::{Balancing, Channel, ChannelOptions};
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
pub use intercept::{Interceptor, Outgoing};
pub use metadata::Metadata;
pub use policy::{HedgingPolicy, MethodConfig, RetryPolicy, ServiceConfig, Throttling};
pub use status::{Code, Status};
#[cfg(any(feature = "connect", feature = "web"))]
pub use tail::TranslatedBody;
#[cfg(feature = "tower")]
pub use tower::Tower;
pub use transport::Transport;
#[cfg(feature = "web")]
pub use web::Web;

/// What all errors of this crate name as their protocol.
pub(crate) const PROTOCOL: &str = "grpc";

#[cfg(test)]
portolan_wire::laws::install!();
