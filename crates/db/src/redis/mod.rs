//! Redis: a server of data structures in memory (RESP2 and RESP3, <https://redis.io/docs/latest/develop/reference/protocol-spec/>).
//!
//! **Port and TLS**: 6379; TLS from the first byte (`rediss://`).
//!
//! **What works**: RESP2 and RESP3; any command and typed ones; pipelines; transactions with `WATCH`; scripts by digest; publish
//! and subscribe with subscriptions that survive a reconnect; ACL logins; Unix sockets; every hop of the connector. Clusters
//! ([`ClusterClient`], `redis+cluster://`): slots and hash tags, `MOVED` and `ASK`, failovers, pipelines across nodes, reads
//! from replicas. Sentinels
//! ([`Options::sentinel`], `redis+sentinel://`). Pools of exclusive connections ([`Sessions`]) for commands that block and for transactions.
//!
//! **What is not done**: replicas known to sentinels, client-side caching, streamed RESP3 types. In a cluster: commands over several slots (they
//! are refused before a byte is sent), sharded publish and subscribe, `WATCH`, and `ASKING` within a transaction (it waits
//! until its slot has moved).
//!
//! **Tested against** redis-server 7.0: plain, password, ACL user, TLS; a cluster of three primaries and a replica; a
//! sentinel through a failover.
//!
//! **Security**: arguments are length-prefixed, so none can become a command. Without TLS, login and data are readable on the
//! way. A cluster names its own nodes and a sentinel the primary, and the login is sent there: under a policy of the connector, none is reached that it
//! forbids.
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
mod cluster;
mod codec;
mod command;
mod commands;
mod options;
mod pipeline;
mod pubsub;
mod script;
mod sentinel;
mod session;
mod types;

pub use client::{Client, Watch};
pub use cluster::{ClusterClient, ClusterOptions, key_slot};
pub use codec::{Limits, RespCodec};
pub use command::{All, Command, ToArgs};
pub use commands::SetOptions;
pub use options::Options;
pub use pipeline::{Aborted, Pipeline, Replies};
pub use portolan_pool::PoolOptions;
pub use pubsub::{Event, Message, Subscriber};
pub use script::Script;
pub use sentinel::SENTINEL_PORT;
pub use session::{Manager, Session, Sessions};
pub use types::{FromValue, NotByte, ServerError, Value};

/// The port that the server listens on unless told otherwise.
pub const PORT: u16 = 6379;

pub(crate) const PROTOCOL: &str = "redis";

#[cfg(test)]
mod tests;
