//! The commands that programs use most, typed. Any other goes through [`Client::run`].

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use portolan_core::{Error, Result};

use super::client::Client;
use super::cluster::ClusterClient;
use super::command::{All, Command, ToArgs};
use super::script::Script;
use super::session::Session;
use super::types::{FromValue, NotByte, ServerError, Value};

/// When and for how long a value is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use]
pub struct SetOptions {
    expire: Option<Duration>,
    only: Option<&'static str>,
    keep_ttl: bool,
}

impl SetOptions {
    /// Stored for good, whatever was there.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gone after this long, to the millisecond.
    pub fn expire(mut self, after: Duration) -> Self {
        self.expire = Some(after);
        self
    }

    /// Only where nothing is stored yet.
    pub fn if_absent(mut self) -> Self {
        self.only = Some("NX");
        self
    }

    /// Only where something is stored already.
    pub fn if_present(mut self) -> Self {
        self.only = Some("XX");
        self
    }

    /// Keep the time to live that the key has.
    pub fn keep_ttl(mut self) -> Self {
        self.keep_ttl = true;
        self
    }
}

/// The commands that a client of one server and one of a cluster have alike.
macro_rules! commands {
    ($client:ty) => {
        impl $client {
            /// The value of `key`.
            pub async fn get<T: FromValue>(&self, key: impl ToArgs) -> Result<T> {
                self.run(&Command::new("GET").arg(key)).await
            }

            /// Stores `value`.
            pub async fn set(&self, key: impl ToArgs, value: impl ToArgs) -> Result<()> {
                self.run(&Command::new("SET").arg(key).arg(value)).await
            }

            /// Stores `value` under conditions; whether it was stored.
            pub async fn set_with(&self, key: impl ToArgs, value: impl ToArgs, options: SetOptions) -> Result<bool> {
                let mut command = Command::new("SET").arg(key).arg(value).arg(options.only);
                if let Some(after) = options.expire {
                    let millis = u64::try_from(after.as_millis()).ok().filter(|ms| *ms > 0);
                    let millis =
                        millis.ok_or_else(|| Error::usage("a key expires after one millisecond at the least"))?;
                    command = command.arg("PX").arg(millis);
                }
                if options.keep_ttl {
                    command = command.arg("KEEPTTL");
                }
                self.run(&command).await
            }

            /// Removes keys; how many there were.
            pub async fn del<T: ToArgs>(&self, keys: &[T]) -> Result<u64> {
                self.run(&Command::new("DEL").arg(All(keys))).await
            }

            /// How many of the keys exist.
            pub async fn exists<T: ToArgs>(&self, keys: &[T]) -> Result<u64> {
                self.run(&Command::new("EXISTS").arg(All(keys))).await
            }

            /// Sets the time to live; whether the key exists.
            pub async fn expire(&self, key: impl ToArgs, after: Duration) -> Result<bool> {
                let millis = u64::try_from(after.as_millis()).map_err(|_| Error::usage("too long a time to live"))?;
                self.run(&Command::new("PEXPIRE").arg(key).arg(millis)).await
            }

            /// The time to live; `None` where the key has none or does not exist.
            pub async fn ttl(&self, key: impl ToArgs) -> Result<Option<Duration>> {
                let millis: i64 = self.run(&Command::new("PTTL").arg(key)).await?;
                Ok(u64::try_from(millis).ok().map(Duration::from_millis))
            }

            /// Adds `by` and gives the sum.
            pub async fn incr(&self, key: impl ToArgs, by: i64) -> Result<i64> {
                self.run(&Command::new("INCRBY").arg(key).arg(by)).await
            }

            /// The values of several keys, in their order.
            pub async fn mget<K: ToArgs, T: FromValue>(&self, keys: &[K]) -> Result<Vec<Option<T>>> {
                self.run(&Command::new("MGET").arg(All(keys))).await
            }

            /// Stores several values at once.
            pub async fn mset<K: ToArgs, V: ToArgs>(&self, pairs: &[(K, V)]) -> Result<()> {
                self.run(&Command::new("MSET").arg(All(pairs))).await
            }

            /// One field of a hash.
            pub async fn hget<T: FromValue>(&self, key: impl ToArgs, field: impl ToArgs) -> Result<T> {
                self.run(&Command::new("HGET").arg(key).arg(field)).await
            }

            /// Sets fields of a hash; how many are new.
            pub async fn hset<F: ToArgs, V: ToArgs>(&self, key: impl ToArgs, fields: &[(F, V)]) -> Result<u64> {
                self.run(&Command::new("HSET").arg(key).arg(All(fields))).await
            }

            /// A whole hash.
            pub async fn hgetall<V: FromValue>(&self, key: impl ToArgs) -> Result<HashMap<String, V>> {
                self.run(&Command::new("HGETALL").arg(key)).await
            }

            /// Appends to a list; its new length.
            pub async fn rpush<V: ToArgs>(&self, key: impl ToArgs, values: &[V]) -> Result<u64> {
                self.run(&Command::new("RPUSH").arg(key).arg(All(values))).await
            }

            /// Takes the first element of a list.
            pub async fn lpop<T: FromValue>(&self, key: impl ToArgs) -> Result<Option<T>> {
                self.run(&Command::new("LPOP").arg(key)).await
            }

            /// Part of a list; negative places count from its end.
            pub async fn lrange<T: FromValue + NotByte>(
                &self,
                key: impl ToArgs,
                first: i64,
                last: i64,
            ) -> Result<Vec<T>> {
                self.run(&Command::new("LRANGE").arg(key).arg(first).arg(last)).await
            }

            /// Adds to a set; how many are new.
            pub async fn sadd<V: ToArgs>(&self, key: impl ToArgs, members: &[V]) -> Result<u64> {
                self.run(&Command::new("SADD").arg(key).arg(All(members))).await
            }

            /// A whole set, in no order.
            pub async fn smembers<T: FromValue + NotByte>(&self, key: impl ToArgs) -> Result<Vec<T>> {
                self.run(&Command::new("SMEMBERS").arg(key)).await
            }

            /// Adds to a sorted set; how many are new.
            pub async fn zadd<V: ToArgs>(&self, key: impl ToArgs, members: &[(f64, V)]) -> Result<u64> {
                self.run(&Command::new("ZADD").arg(key).arg(All(members))).await
            }

            /// Publishes a message; how many heard it.
            pub async fn publish(&self, channel: impl ToArgs, payload: impl ToArgs) -> Result<u64> {
                self.run(&Command::new("PUBLISH").arg(channel).arg(payload)).await
            }

            /// Runs a script, sending its source only where the server does not have it.
            pub async fn eval<T: FromValue>(&self, script: &Script, keys: &[&str], args: &[&str]) -> Result<T> {
                let command = |name, body: &str| {
                    let mut command = Command::new(name).arg(body).arg(keys.len());
                    for word in keys.iter().chain(args) {
                        command.push(word.as_bytes());
                    }
                    command
                };
                match self.run(&command("EVALSHA", script.sha())).await {
                    Err(error) if error.server::<ServerError>().is_some_and(|e| e.code == "NOSCRIPT") => {
                        self.run(&command("EVAL", script.source())).await
                    }
                    other => other,
                }
            }
        }
    };
}

commands!(Client);
commands!(ClusterClient);
commands!(Session);

impl Client {
    /// Asks for a sign of life.
    pub async fn ping(&self) -> Result<()> {
        self.run(&Command::new("PING")).await
    }

    /// One step of walking all keys: the next cursor (`0` at the end) and some keys, which may repeat.
    pub async fn scan(&self, cursor: u64, pattern: Option<&str>, count: u32) -> Result<(u64, Vec<Bytes>)> {
        let pattern = pattern.map(|pattern| ("MATCH", pattern));
        self.run(&Command::new("SCAN").arg(cursor).arg(pattern).arg("COUNT").arg(count)).await
    }

    /// What the server says of itself.
    pub async fn info_text(&self, section: Option<&str>) -> Result<String> {
        self.run(&Command::new("INFO").arg(section)).await
    }

    /// Waits on a connection of its own until a list has an element, and takes it; `None` after `limit`.
    pub async fn blpop(&self, keys: &[&str], limit: Duration) -> Result<Option<(String, Bytes)>> {
        let command = Command::new("BLPOP").arg(All(keys)).arg(limit.as_secs_f64());
        let waiter = self.dedicated().await?;
        let taken: Value = waiter.run(&command).await?;
        waiter.close().await?;
        Option::from_value(taken)
    }
}
