//! What can be said about a cluster.

use std::fmt;
use std::sync::Arc;

use portolan_core::{Endpoint, Error, Result, Url};

use crate::redis::PORT;
use crate::redis::options::Options;

type Map = Arc<dyn Fn(&Endpoint) -> Endpoint + Send + Sync>;

/// How to reach a cluster and how to talk to its nodes.
///
/// ```
/// use portolan_db::redis::ClusterOptions;
///
/// let options = ClusterOptions::from_url("rediss+cluster://joe:secret@a.example,b.example:7001")?;
/// assert_eq!(options.seeds().len(), 2);
/// # Ok::<(), portolan_core::Error>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct ClusterOptions {
    pub(super) node: Options,
    pub(super) seeds: Vec<Endpoint>,
    pub(super) redirects: usize,
    pub(super) retries: usize,
    pub(super) replicas: bool,
    pub(super) max_nodes: usize,
    pub(super) map: Option<Map>,
}

impl ClusterOptions {
    /// A cluster of which one node is known. Login, TLS and limits hold for every node.
    pub fn new(node: Options) -> Self {
        let seed = bare(node.endpoint());
        Self {
            node: node.reconnect(false),
            seeds: vec![seed],
            redirects: 5,
            retries: 5,
            replicas: false,
            max_nodes: 1000,
            map: None,
        }
    }

    /// `redis+cluster://` or `rediss+cluster://` (TLS): `[user[:password]@]host[:port][,host[:port]...][?protocol=2&name=x]`.
    pub fn from_url(url: &str) -> Result<Self> {
        let url = Url::parse(url)?;
        let tls = match url.scheme() {
            "redis+cluster" => false,
            "rediss+cluster" => true,
            other => {
                let message = format!("the scheme of a cluster url is redis+cluster or rediss+cluster, not {other}");
                return Err(Error::usage(message));
            }
        };
        if !url.path().trim_matches('/').is_empty() {
            return Err(Error::usage("a cluster has no databases to choose from"));
        }
        let hosts = url.authority().split(',').map(|host| Endpoint::parse(host, Some(PORT)));
        let mut hosts = hosts.collect::<Result<Vec<_>>>()?.into_iter();
        let first = hosts.next().ok_or_else(|| Error::usage("url without a host"))?;
        let node = Options::from_parts(&url, first, "", tls)?;
        Ok(hosts.fold(Self::new(node), Self::seed))
    }

    /// A further node to begin with, where the others cannot be reached.
    pub fn seed(mut self, node: Endpoint) -> Self {
        self.seeds.push(bare(&node));
        self
    }

    /// How often one command is sent on to another node before the last redirect becomes its error. Default 5.
    pub fn redirects(mut self, count: usize) -> Self {
        self.redirects = count;
        self
    }

    /// How often one command is tried again while its slot is down, moving or without a node; the pauses double from 100 ms
    /// to 1.6 s. Default 5, about 3 s in all; too few and a failover is seen as errors.
    pub fn retries(mut self, count: usize) -> Self {
        self.retries = count;
        self
    }

    /// Lets commands that only read be answered by replicas, in turn. Default off: a replica may lag behind.
    pub fn read_from_replicas(mut self, on: bool) -> Self {
        self.replicas = on;
        self.node = self.node.read_only(on);
        self
    }

    /// How many nodes a cluster may have, and so how many connections there are at most. Default 1000, as far as Redis goes.
    pub fn max_nodes(mut self, count: usize) -> Self {
        self.max_nodes = count.max(1);
        self
    }

    /// Where a node really is that the cluster calls by an address which cannot be reached from here: behind NAT or in
    /// containers. The connector's policy judges what comes out of it.
    pub fn map_nodes(mut self, map: impl Fn(&Endpoint) -> Endpoint + Send + Sync + 'static) -> Self {
        self.map = Some(Arc::new(map));
        self
    }

    /// The nodes that are known from the start.
    pub fn seeds(&self) -> &[Endpoint] {
        &self.seeds
    }

    pub(super) fn mapped(&self, node: Endpoint) -> Endpoint {
        self.map.as_ref().map_or(node.clone(), |map| bare(&map(&node)))
    }
}

/// Without the scheme, so that one node has one spelling.
fn bare(node: &Endpoint) -> Endpoint {
    match Endpoint::new(node.host_text(), node.port()) {
        Ok(bare) if node.port() != 0 => bare,
        _ => node.clone(),
    }
}

impl fmt::Debug for ClusterOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterOptions")
            .field("node", &self.node)
            .field("seeds", &self.seeds)
            .field("replicas", &self.replicas)
            .finish_non_exhaustive()
    }
}
