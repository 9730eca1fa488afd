//! Connections follow the name that they were made for: one to an address that the name no longer has serves nothing new.

use std::sync::{Arc, Weak};
use std::time::Duration;

use portolan_core::{Connector, Resolver, clock};

use crate::coalesce::Group;
use crate::connection::Facts;
use crate::key::Key;

/// Looks in a row that miss the address before it is given up: servers of many addresses may name some of them at a time.
const MISSES: u32 = 2;

/// Looks `every` so often what the name of a new connection leads to, until the connection ends. Through hops nobody knows.
pub(crate) fn follow(
    every: Duration,
    connector: &Connector,
    key: &Key,
    facts: &Arc<Facts>,
    group: Option<&Arc<Group>>,
) {
    let (Some(name), Some(peer)) = (key.endpoint.name(), facts.peer()) else { return };
    if !connector.is_direct(&key.endpoint) {
        return;
    }
    let (resolver, name) = (connector.resolver().clone(), name.to_owned());
    let (facts, group) = (Arc::downgrade(facts), group.map(Arc::downgrade));
    // Ends with the connection, at its next look.
    tokio::spawn(async move {
        if has_left(every, &resolver, &name, peer.ip(), &facts).await {
            tracing::debug!(%name, %peer, "the name leads elsewhere: its connection drains");
            if let Some(facts) = facts.upgrade() {
                facts.leave();
            }
            if let Some(group) = group.and_then(|group| group.upgrade()) {
                group.drain();
            }
        }
    });
}

/// Waits until the name has lost the address, or the connection is gone.
async fn has_left(every: Duration, names: &Resolver, name: &str, ip: std::net::IpAddr, facts: &Weak<Facts>) -> bool {
    let mut missed = 0;
    while missed < MISSES {
        clock::sleep(every).await;
        if facts.strong_count() == 0 {
            return false;
        }
        // Who cannot be asked says nothing.
        match names.lookup(name).await {
            Ok(answer) if answer.addrs.contains(&ip) => missed = 0,
            Ok(_) => missed += 1,
            Err(_) => {}
        }
    }
    true
}
