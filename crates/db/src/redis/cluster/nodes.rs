//! The connections to the nodes: made when first needed, one for each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portolan_core::{Connector, Endpoint, Error, Kind, Result};

use crate::redis::PROTOCOL;
use crate::redis::client::Client;
use crate::redis::options::Options;

/// One node: whoever comes first connects, the others wait for that.
type Node = Arc<tokio::sync::Mutex<Option<Client>>>;

#[derive(Debug)]
pub(super) struct Nodes {
    connector: Connector,
    options: Options,
    max: usize,
    nodes: Mutex<HashMap<Endpoint, Node>>,
}

impl Nodes {
    pub(super) fn new(connector: Connector, options: Options, max: usize) -> Self {
        Self { connector, options, max, nodes: Mutex::default() }
    }

    pub(super) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// The options for one node.
    pub(super) fn options(&self, endpoint: &Endpoint) -> Options {
        self.options.clone().at(endpoint.clone())
    }

    /// The connection to a node. The connector's policy is asked as for any other connection, wherever the address came from.
    pub(super) async fn client(&self, endpoint: &Endpoint) -> Result<Client> {
        let node = self.node(endpoint)?;
        let mut client = node.lock().await;
        if let Some(client) = client.as_ref().filter(|client| client.is_live()) {
            return Ok(client.clone());
        }
        if client.take().is_some() {
            // It was lost: the name may lead elsewhere by now.
            if let Some(name) = endpoint.name() {
                self.connector.resolver().forget(name);
            }
        }
        let made = Client::connect(&self.connector, self.options(endpoint)).await?;
        *client = Some(made.clone());
        Ok(made)
    }

    fn node(&self, endpoint: &Endpoint) -> Result<Node> {
        let mut nodes = self.nodes();
        if let Some(node) = nodes.get(endpoint) {
            return Ok(node.clone());
        }
        if nodes.len() >= self.max {
            // Whoever holds one besides this list is using it.
            nodes.retain(|_, node| Arc::strong_count(node) > 1);
        }
        if nodes.len() >= self.max {
            let message = format!("connections to {} nodes of a cluster are open", self.max);
            return Err(Error::new(Kind::Limit, message).with_protocol(PROTOCOL).with_delivery(NOT_SENT));
        }
        Ok(nodes.entry(endpoint.clone()).or_default().clone())
    }

    /// Lets go of the nodes that are no longer wanted; calls under way there come to their end.
    pub(super) fn retain(&self, wanted: impl Fn(&Endpoint) -> bool) {
        self.nodes().retain(|endpoint, _| wanted(endpoint));
    }

    /// All connections, which are then forgotten.
    pub(super) async fn take(&self) -> Vec<Client> {
        let nodes: Vec<Node> = self.nodes().drain().map(|(_, node)| node).collect();
        let mut clients = Vec::new();
        for node in nodes {
            clients.extend(node.lock().await.take());
        }
        clients
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.nodes().len()
    }

    fn nodes(&self) -> MutexGuard<'_, HashMap<Endpoint, Node>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const NOT_SENT: portolan_core::Delivery = portolan_core::Delivery::NotSent;
