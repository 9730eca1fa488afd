//! Who serves which slots.

use std::collections::HashMap;

use portolan_core::{Endpoint, Error, Kind, Result};

use super::redirect::place;
use super::slots::SLOTS;
use crate::redis::PROTOCOL;
use crate::redis::types::Value;

/// No node: a slot that nobody serves.
const NOBODY: u16 = u16::MAX;

/// The nodes and their slots, as one node tells it.
#[derive(Debug, Clone)]
pub(super) struct Topology {
    nodes: Vec<Endpoint>,
    places: HashMap<Endpoint, u16>,
    /// The primary of every slot, by its place.
    slots: Vec<u16>,
    /// The replicas of every primary.
    replicas: HashMap<u16, Vec<u16>>,
    /// Counts the tellings, so that nobody asks again for what another has just learnt.
    pub(super) generation: u64,
}

impl Default for Topology {
    fn default() -> Self {
        let slots = vec![NOBODY; usize::from(SLOTS)];
        Self { nodes: Vec::new(), places: HashMap::new(), slots, replicas: HashMap::new(), generation: 0 }
    }
}

impl Topology {
    /// Reads the reply to `CLUSTER SLOTS` by the node at `from`.
    pub(super) fn read(reply: &Value, from: &Endpoint, name: &Naming<'_>) -> Result<Self> {
        let bad = |what: &str| Error::protocol(PROTOCOL, format!("CLUSTER SLOTS: expected {what}"));
        let mut topology = Self::default();
        for range in reply.as_items().ok_or_else(|| bad("an array"))? {
            let range = range.as_items().ok_or_else(|| bad("a range"))?;
            let [first, last, nodes @ ..] = range else { return Err(bad("a range and its nodes")) };
            let (Some(first), Some(last)) = (slot(first), slot(last)) else { return Err(bad("slots below 16384")) };
            let mut served = Vec::with_capacity(nodes.len());
            for node in nodes {
                let parts = node.as_items().ok_or_else(|| bad("a node"))?;
                let [host, Value::Int(port), ..] = parts else { return Err(bad("a host and a port")) };
                let host = host.as_bytes().map(|bytes| String::from_utf8_lossy(bytes)).unwrap_or_default();
                let port = u16::try_from(*port).ok().filter(|port| *port != 0).ok_or_else(|| bad("a port"))?;
                // A node whose address is not known is called so: nobody can be sent there.
                served.push(match host.as_ref() {
                    "?" => None,
                    host => Some(topology.place(&(name.map)(place(host, port, from)?), name.max)?),
                });
            }
            let Some((Some(primary), replicas)) = served.split_first() else { continue };
            if first > last {
                return Err(bad("a range in its order"));
            }
            let range = usize::from(first)..=usize::from(last);
            topology.slots.get_mut(range).ok_or_else(|| bad("a range in its order"))?.fill(*primary);
            topology.replicas.insert(*primary, replicas.iter().flatten().copied().collect());
        }
        Ok(topology)
    }

    fn place(&mut self, node: &Endpoint, max: usize) -> Result<u16> {
        if let Some(place) = self.places.get(node) {
            return Ok(*place);
        }
        let place = u16::try_from(self.nodes.len()).ok().filter(|place| usize::from(*place) < max && *place < NOBODY);
        let place = place.ok_or_else(|| {
            Error::new(Kind::Limit, format!("a cluster of more than {max} nodes")).with_protocol(PROTOCOL)
        })?;
        self.nodes.push(node.clone());
        self.places.insert(node.clone(), place);
        Ok(place)
    }

    /// The primary of a slot, as a redirect has it.
    pub(super) fn patch(&mut self, slot: u16, node: &Endpoint, max: usize) {
        // A cluster that is too large will be refused when it is asked for as a whole.
        if let (Ok(place), Some(entry)) = (self.place(node, max), self.slots.get_mut(usize::from(slot))) {
            *entry = place;
        }
    }

    pub(super) fn primary(&self, slot: u16) -> Option<&Endpoint> {
        self.nodes.get(usize::from(*self.slots.get(usize::from(slot))?))
    }

    /// One of the replicas of a slot, in turn.
    pub(super) fn replica(&self, slot: u16, turn: usize) -> Option<&Endpoint> {
        let replicas = self.replicas.get(self.slots.get(usize::from(slot))?)?;
        let place = replicas.get(turn.checked_rem(replicas.len())?)?;
        self.nodes.get(usize::from(*place))
    }

    /// Whoever serves slots as a primary.
    pub(super) fn primaries(&self) -> Vec<&Endpoint> {
        let mut seen = vec![false; self.nodes.len()];
        for place in &self.slots {
            if let Some(seen) = seen.get_mut(usize::from(*place)) {
                *seen = true;
            }
        }
        self.nodes.iter().zip(seen).filter_map(|(node, seen)| seen.then_some(node)).collect()
    }

    pub(super) fn nodes(&self) -> &[Endpoint] {
        &self.nodes
    }

    pub(super) fn holds(&self, node: &Endpoint) -> bool {
        self.places.contains_key(node)
    }
}

/// How nodes are called, and how many there may be.
pub(super) struct Naming<'a> {
    pub(super) map: &'a dyn Fn(Endpoint) -> Endpoint,
    pub(super) max: usize,
}

fn slot(value: &Value) -> Option<u16> {
    match value {
        Value::Int(number) => u16::try_from(*number).ok().filter(|slot| *slot < SLOTS),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(reply: &Value, max: usize) -> Result<Topology> {
        let from = Endpoint::new("seed.example", 7000).unwrap();
        Topology::read(reply, &from, &Naming { map: &|node| node, max })
    }

    fn node(host: Option<&'static str>, port: i64) -> Value {
        let host = host.map_or(Value::Null, |host| Value::Bulk(host.into()));
        Value::Array(vec![host, Value::Int(port), Value::Bulk("id".into()), Value::Array(Vec::new())])
    }

    fn range(first: i64, last: i64, nodes: Vec<Value>) -> Value {
        Value::Array([vec![Value::Int(first), Value::Int(last)], nodes].concat())
    }

    #[test]
    fn ranges_primaries_and_replicas_are_read() {
        let reply = Value::Array(vec![
            range(0, 8000, vec![node(Some("10.0.0.1"), 6379), node(Some("10.0.0.3"), 6379), node(Some("?"), 1)]),
            range(8001, 16383, vec![node(None, 6380)]),
        ]);
        let mut topology = read(&reply, 8).unwrap();
        assert_eq!(topology.primary(8000).unwrap().authority(), "10.0.0.1:6379");
        assert_eq!(topology.primary(8001).unwrap().authority(), "seed.example:6380");
        assert_eq!(topology.replica(5, 7).unwrap().authority(), "10.0.0.3:6379");
        assert!(topology.replica(9000, 0).is_none());
        assert_eq!((topology.primaries().len(), topology.nodes().len()), (2, 3));
        topology.patch(9000, &Endpoint::new("10.0.0.9", 1).unwrap(), 8);
        assert_eq!(topology.primary(9000).unwrap().authority(), "10.0.0.9:1");
        let gap = read(&Value::Array(vec![range(0, 1, vec![node(None, 1)])]), 8).unwrap();
        assert!(gap.primary(2).is_none());
    }

    #[test]
    fn what_is_no_topology_is_refused() {
        let many = (0..9).map(|n| range(n, n, vec![node(Some("h"), n + 1)])).collect();
        assert_eq!(read(&Value::Array(many), 8).unwrap_err().kind(), Kind::Limit);
        for reply in [
            Value::Null,
            Value::Array(vec![Value::Int(1)]),
            Value::Array(vec![range(0, 16384, vec![node(None, 1)])]),
            Value::Array(vec![range(5, 4, vec![node(None, 1)])]),
            Value::Array(vec![range(-1, 4, vec![node(None, 1)])]),
            Value::Array(vec![range(0, 4, vec![node(None, 0)])]),
            Value::Array(vec![range(0, 4, vec![node(Some("a b"), 1)])]),
            Value::Array(vec![range(0, 4, vec![Value::Null])]),
        ] {
            assert_eq!(read(&reply, 8).unwrap_err().kind(), Kind::Protocol, "{reply:?}");
        }
    }
}
