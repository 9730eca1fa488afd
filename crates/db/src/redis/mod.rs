//! Redis: a server of data structures in memory (RESP2 and RESP3, <https://redis.io/docs/latest/develop/reference/protocol-spec/>).
//!
//! **Port and TLS**: 6379; TLS from the first byte (`rediss://`).
//!
//! **What works**: RESP2 and RESP3; any command and typed ones; pipelines; transactions with `WATCH`; scripts by digest; publish
//! and subscribe with subscriptions that survive a reconnect; ACL logins; Unix sockets; every hop of the connector.
//!
//! **What is not done**: cluster (`MOVED` and `ASK` come back as errors), Sentinel, client-side caching, streamed RESP3 types.
//!
//! **Tested against** redis-server 7.0: plain, password, ACL user, TLS.
//!
//! **Security**: arguments are length-prefixed, so none can become a command. Without TLS, login and data are readable on the way.
//!
//! ```no_run
//! # async fn run() -> portolan_core::Result<()> {
//! use portolan_db::redis::Client;
//!
//! let client = Client::open("redis://localhost").await?;
//! client.set("greeting", "hello").await?;
//! let greeting: Option<String> = client.get("greeting").await?;
//! assert_eq!(greeting.as_deref(), Some("hello"));
//! # Ok(())
//! # }
//! ```

mod client;
mod codec;
mod command;
mod commands;
mod options;
mod pipeline;
mod pubsub;
mod script;
mod types;

pub use client::{Client, Watch};
pub use codec::{Limits, RespCodec};
pub use command::{All, Command, ToArgs};
pub use commands::SetOptions;
pub use options::Options;
pub use pipeline::{Aborted, Pipeline, Replies};
pub use pubsub::{Event, Message, Subscriber};
pub use script::Script;
pub use types::{FromValue, NotByte, ServerError, Value};

/// The port that the server listens on unless told otherwise.
pub const PORT: u16 = 6379;

pub(crate) const PROTOCOL: &str = "redis";

#[cfg(test)]
mod tests;
