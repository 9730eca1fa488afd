//! The client of a cluster: every command to the node that serves its keys, wherever that is by now.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use portolan_core::{Connector, Delivery, Endpoint, Error, Kind, Phase, Result, clock};

use super::keys;
use super::nodes::Nodes;
use super::options::ClusterOptions;
use super::redirect::Redirect;
use super::topology::{Naming, Topology};
use crate::redis::PROTOCOL;
use crate::redis::command::{Command, is_idempotent, is_reading};
use crate::redis::types::{FromValue, Value};

/// How long one node may take to tell the topology before the next is asked.
const TELL_LIMIT: Duration = Duration::from_secs(5);

/// Nodes that are asked for the topology, besides the seeds, before it is given up.
const MAX_ASKED: usize = 8;

/// A redirect tells of one slot. Many of them at once are one change: it is asked for as a whole no more often than this.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// The first pause before a command is tried again; each further one is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(1600);

/// A client of a cluster: cheap to clone, used by any number of tasks at once.
///
/// Every node that is needed gets one connection, shared as a [`Client`](crate::redis::Client)'s is, and reached through the
/// same connector: a node that the cluster calls by a forbidden address is refused with `Kind::Blocked`. Redirects are
/// followed, and a command whose slot is down or moving is tried again for a while; one whose fate is unknown is sent again
/// only if running it twice does no harm. Dropping a call forgets its reply, not the command.
///
/// ```no_run
/// # async fn run() -> portolan_core::Result<()> {
/// use portolan_db::redis::ClusterClient;
///
/// let cluster = ClusterClient::open("redis+cluster://a.example,b.example:7001").await?;
/// cluster.mset(&[("{user7}.name", "Ada"), ("{user7}.town", "London")]).await?;
/// let name: Option<String> = cluster.get("{user7}.name").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ClusterClient(pub(super) Arc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    options: ClusterOptions,
    nodes: Nodes,
    topology: Mutex<Topology>,
    /// Held while the topology is asked for.
    asking: tokio::sync::Mutex<Asked>,
    turn: AtomicUsize,
    closed: AtomicBool,
}

/// When the topology was told last, and when it was asked for last, told or not.
#[derive(Debug, Default)]
struct Asked {
    told: Option<clock::Instant>,
    ended: Option<clock::Instant>,
}

/// Why the topology is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// Somebody wants it.
    Wanted,
    /// A redirect came.
    Moved,
    /// A call failed and has waited.
    Failed,
}

/// What is to be run: in wire form, and where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) body: &'a [u8],
    pub(super) replies: usize,
    pub(super) slot: Option<u16>,
    pub(super) idempotent: bool,
    pub(super) reading: bool,
}

impl<'a> Call<'a> {
    /// One command.
    pub(super) fn new(body: &'a [u8], words: &[&[u8]]) -> Result<Self> {
        let slot = keys::slot(words)?;
        Ok(Self { body, replies: 1, slot, idempotent: is_idempotent(words), reading: is_reading(words) })
    }
}

/// What is to be done about a reply.
pub(super) enum Next {
    /// It is the answer.
    Done(Vec<Value>),
    Redirected(Redirect),
    /// The same again after a pause, since this is not for long.
    Again(Error),
}

impl ClusterClient {
    /// Connects to the first seed that answers, and learns from it who serves what.
    pub async fn connect(connector: &Connector, options: ClusterOptions) -> Result<Self> {
        if options.node.db() != 0 {
            return Err(Error::usage("a cluster has no databases to choose from"));
        }
        let nodes = Nodes::new(connector.clone(), options.node.clone(), options.max_nodes);
        let client = Self(Arc::new(Shared {
            options,
            nodes,
            topology: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            turn: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        }));
        client.refresh().await?;
        Ok(client)
    }

    /// Connects to a URL such as `redis+cluster://a.example,b.example` with the default connector.
    pub async fn open(url: &str) -> Result<Self> {
        Self::connect(&Connector::default(), ClusterOptions::from_url(url)?).await
    }

    /// Runs any command at the node that serves its keys. Keys of one command must be in one slot, else it is
    /// `Kind::Usage` before a byte is sent. A command without keys runs at some primary: see [`run_on_all`](Self::run_on_all).
    pub async fn run<T: FromValue>(&self, command: &Command) -> Result<T> {
        let mut body = BytesMut::new();
        command.encode(&mut body);
        let call = Call::new(&body, &command.words())?;
        match self.dispatch(call, None).await?.pop() {
            Some(Value::Error(error)) => Err(error.into_error()),
            Some(value) => T::from_value(value),
            None => Err(Error::protocol(PROTOCOL, "expected a reply")),
        }
    }

    /// Runs a command at every primary, such as `DBSIZE` or `SCRIPT LOAD`: each node with what it said.
    pub async fn run_on_all<T: FromValue>(&self, command: &Command) -> Result<Vec<(Endpoint, Result<T>)>> {
        let mut results = Vec::new();
        for node in self.primaries() {
            let result = match self.0.client(&node).await {
                Ok(client) => client.run(command).await,
                Err(error) => Err(error),
            };
            results.push((node, result));
        }
        Ok(results)
    }

    /// The nodes that serve slots as primaries, as far as is known.
    pub fn primaries(&self) -> Vec<Endpoint> {
        self.0.topology().primaries().into_iter().cloned().collect()
    }

    /// All nodes that are known, replicas among them.
    pub fn nodes(&self) -> Vec<Endpoint> {
        self.0.topology().nodes().to_vec()
    }

    /// The node that serves the slot of `key`, as far as is known.
    pub fn node_of(&self, key: impl AsRef<[u8]>) -> Option<Endpoint> {
        self.0.topology().primary(super::key_slot(key)).cloned()
    }

    /// A connection to one of the primaries that listens to channels: the nodes pass messages on to each other.
    pub async fn subscriber(&self) -> Result<crate::redis::Subscriber> {
        let mut last = None;
        for node in self.primaries() {
            let options = self.0.nodes.options(&node).reconnect(true);
            match crate::redis::Subscriber::connect(self.0.nodes.connector(), options).await {
                Ok(subscriber) => return Ok(subscriber),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(nobody))
    }

    /// Asks anew who serves what: after a change that is known of, rather than found out by redirects.
    pub async fn refresh(&self) -> Result<()> {
        let seen = self.0.topology().generation;
        self.0.refresh(seen, Why::Wanted).await
    }

    /// Lets the commands under way end, and closes. Later commands fail.
    pub async fn close(&self) -> Result<()> {
        self.0.closed.store(true, Ordering::Relaxed);
        let mut result = Ok(());
        for client in self.0.nodes.take().await {
            result = result.and(client.close().await);
        }
        result
    }

    /// Runs a call wherever that is, following redirects (also one that has come already) and waiting for slots that are down.
    pub(super) async fn dispatch(&self, call: Call<'_>, redirect: Option<Redirect>) -> Result<Vec<Value>> {
        let shared = &*self.0;
        let (mut redirects, mut retries) = (0, 0);
        let mut sent_to: Option<(Endpoint, bool)> = None;
        if let Some(redirect) = redirect {
            let seen = shared.topology().generation;
            redirects += 1;
            sent_to = Some(shared.follow(redirect, seen).await);
        }
        loop {
            let seen = shared.topology().generation;
            let (node, ask) = match sent_to.take() {
                Some(place) => place,
                None => match shared.route(&call, retries) {
                    Some(node) => (node, false),
                    None if retries >= shared.options.retries => return Err(nobody()),
                    None => {
                        shared.pause(seen, &mut retries).await;
                        continue;
                    }
                },
            };
            match shared.attempt(&node, &call, ask).await? {
                Next::Done(values) => return Ok(values),
                Next::Again(error) if retries >= shared.options.retries => return Err(error),
                Next::Again(_) => shared.pause(seen, &mut retries).await,
                Next::Redirected(_) if redirects >= shared.options.redirects => {
                    let message = format!("sent from node to node more than {redirects} times");
                    let error = Error::new(Kind::Server, message).with_protocol(PROTOCOL);
                    return Err(error.with_delivery(Delivery::Refused));
                }
                Next::Redirected(redirect) => {
                    redirects += 1;
                    sent_to = Some(shared.follow(redirect, seen).await);
                }
            }
        }
    }
}

impl Shared {
    pub(super) fn topology(&self) -> MutexGuard<'_, Topology> {
        self.topology.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn client(&self, node: &Endpoint) -> Result<crate::redis::Client> {
        if self.closed.load(Ordering::Relaxed) {
            let error = Error::closed("the client is closed").with_protocol(PROTOCOL);
            return Err(error.with_delivery(Delivery::NotSent));
        }
        self.nodes.client(node).await
    }

    /// The node to ask. After a failure it is the primary, whatever the command.
    pub(super) fn route(&self, call: &Call<'_>, retries: usize) -> Option<Endpoint> {
        let topology = self.topology();
        let turn = || self.turn.fetch_add(1, Ordering::Relaxed);
        let Some(slot) = call.slot else {
            let primaries = topology.primaries();
            let place = turn().checked_rem(primaries.len())?;
            return primaries.get(place).map(|node| (*node).clone());
        };
        let replica = (self.options.replicas && call.reading && retries == 0).then(|| topology.replica(slot, turn()));
        replica.flatten().or_else(|| topology.primary(slot)).cloned()
    }

    /// One attempt at one node.
    async fn attempt(&self, node: &Endpoint, call: &Call<'_>, ask: bool) -> Result<Next> {
        let asked;
        let (body, extra) = if ask {
            let mut both = BytesMut::new();
            Command::new("ASKING").encode(&mut both);
            both.extend_from_slice(call.body);
            asked = both;
            (&asked[..], 1)
        } else {
            (call.body, 0)
        };
        let result = match self.client(node).await {
            Ok(client) => client.raw(body, call.replies.saturating_add(extra)).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(mut values) => {
                values.drain(..extra.min(values.len()));
                judge(values, node)
            }
            Err(error) if self.may_repeat(&error, call.idempotent) => Ok(Next::Again(error)),
            Err(error) => Err(error),
        }
    }

    /// Whether a call that failed may be made again: its node was not reached or was lost, and the work was not done or may
    /// be done twice. What the policy, the login or the caller's own settings forbid stays forbidden.
    pub(super) fn may_repeat(&self, error: &Error, idempotent: bool) -> bool {
        if self.closed.load(Ordering::Relaxed) {
            return false;
        }
        let on_the_way =
            matches!(error.phase(), Some(Phase::Connect | Phase::Resolve | Phase::Total | Phase::Handshake));
        let lost = match error.kind() {
            Kind::Connect | Kind::Closed | Kind::Resolve => true,
            Kind::Timeout => on_the_way,
            _ => false,
        };
        lost && match error.delivery() {
            Delivery::NotSent | Delivery::Refused => true,
            Delivery::Unknown => idempotent,
            _ => false,
        }
    }

    /// Learns from a redirect; the node to go to, and whether with `ASKING`.
    pub(super) async fn follow(&self, redirect: Redirect, seen: u64) -> (Endpoint, bool) {
        match redirect {
            Redirect::Ask { to } => (self.options.mapped(to), true),
            Redirect::Moved { slot, to } => {
                let to = self.options.mapped(to);
                // Where nobody tells the whole, the one slot is still known.
                if let Err(error) = self.refresh(seen, Why::Moved).await {
                    tracing::debug!(%error, protocol = PROTOCOL, "topology not told");
                }
                self.topology().patch(slot, &to, self.options.max_nodes);
                (to, false)
            }
        }
    }

    /// Waits, twice as long each time, and asks who serves what by then.
    pub(super) async fn pause(&self, seen: u64, retries: &mut usize) {
        let doublings = u32::try_from(*retries).unwrap_or(u32::MAX).min(16);
        *retries = retries.saturating_add(1);
        clock::sleep(FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE)).await;
        if let Err(error) = self.refresh(seen, Why::Failed).await {
            tracing::debug!(%error, protocol = PROTOCOL, "topology not told");
        }
    }

    /// Asks the nodes in turn who serves what, unless that was told since generation `seen`, or is no news.
    async fn refresh(&self, seen: u64, why: Why) -> Result<()> {
        let came = clock::now();
        let mut last = self.asking.lock().await;
        let no_news = match why {
            Why::Wanted => false,
            Why::Moved => last.told.is_some_and(|told| clock::now() - told < REFRESH_INTERVAL),
            // Whoever waits with us has asked since: in an outage, one asks for all.
            Why::Failed => last.ended.is_some_and(|ended| ended >= came),
        };
        if no_news || self.topology().generation != seen {
            return Ok(());
        }
        let result = self.ask_in_turn().await;
        last.ended = Some(clock::now());
        if result.is_ok() {
            last.told = last.ended;
        }
        result
    }

    async fn ask_in_turn(&self) -> Result<()> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut asked: Vec<Endpoint> = self.topology().primaries().into_iter().cloned().collect();
        if !asked.is_empty() {
            let start = turn % asked.len();
            asked.rotate_left(start);
            asked.truncate(MAX_ASKED);
        }
        asked.extend(self.options.seeds.iter().cloned());
        let mut failure: Option<Error> = None;
        for node in asked {
            match clock::within(Some(TELL_LIMIT), Phase::Handshake, self.told_by(&node)).await {
                Ok(topology) => {
                    self.install(topology, &node);
                    return Ok(());
                }
                // That a node is forbidden says more than that another is down.
                Err(error) if failure.as_ref().is_none_or(|failure| failure.kind() != Kind::Blocked) => {
                    failure = Some(error);
                }
                Err(_) => {}
            }
        }
        Err(failure.unwrap_or_else(nobody))
    }

    #[cfg(test)]
    pub(super) fn nodes_open(&self) -> usize {
        self.nodes.len()
    }

    async fn told_by(&self, node: &Endpoint) -> Result<Topology> {
        let reply: Value = self.client(node).await?.run(&Command::new("CLUSTER SLOTS")).await?;
        let map = |node| self.options.mapped(node);
        Topology::read(&reply, node, &Naming { map: &map, max: self.options.max_nodes })
    }

    fn install(&self, mut topology: Topology, teller: &Endpoint) {
        let mut current = self.topology();
        topology.generation = current.generation.wrapping_add(1);
        self.nodes.retain(|node| topology.holds(node) || node == teller);
        *current = topology;
    }
}

/// What a node's replies ask for: the first redirect among those of a transaction, which then has not run.
pub(super) fn judge(values: Vec<Value>, node: &Endpoint) -> Result<Next> {
    let aborted = values.len() == 1 || matches!(values.last(), Some(Value::Error(_)));
    for value in values.iter().filter(|_| aborted) {
        let Value::Error(error) = value else { continue };
        match Redirect::parse(error, node)? {
            // `ASKING` holds for one command, and so for no transaction: it is over when the slot has moved.
            Some(Redirect::Ask { .. }) if values.len() > 1 => return Ok(Next::Again(error.clone().into_error())),
            Some(redirect) => return Ok(Next::Redirected(redirect)),
            None if matches!(error.code.as_str(), "TRYAGAIN" | "CLUSTERDOWN" | "LOADING" | "MASTERDOWN") => {
                return Ok(Next::Again(error.clone().into_error()));
            }
            None => {}
        }
    }
    Ok(Next::Done(values))
}

fn nobody() -> Error {
    Error::new(Kind::Connect, "no node of the cluster serves this slot").with_protocol(PROTOCOL)
}
