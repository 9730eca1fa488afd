//! Many nodes as one server (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>).

mod client;
mod keys;
mod nodes;
mod options;
mod pipeline;
mod redirect;
mod slots;
mod topology;

pub use client::ClusterClient;
pub use options::ClusterOptions;
pub use slots::key_slot;

#[cfg(test)]
mod tests;
