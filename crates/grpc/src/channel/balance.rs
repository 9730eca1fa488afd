//! Which connection a call takes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portolan_core::clock::{self, Instant};
use portolan_core::{Endpoint, Error, Kind, Result};
use portolan_http2::SendRequest;

use super::Balancing;
use super::subchannel::{Subchannel, Way};
use crate::PROTOCOL;

type List = Arc<[Arc<Subchannel>]>;

/// The addresses of a service, and whose turn it is.
pub(super) struct Balancer {
    way: Arc<Way>,
    to: Endpoint,
    /// What the certificate must be for.
    name: Box<str>,
    balancing: Balancing,
    interval: Duration,
    list: Mutex<List>,
    resolved: Mutex<Option<Instant>>,
    resolving: tokio::sync::Mutex<()>,
    turn: AtomicUsize,
}

impl Balancer {
    pub(super) fn new(way: Way, to: Endpoint, balancing: Balancing, interval: Duration) -> Self {
        // A name that need not be resolved here is left to the connector, and to its proxies.
        let list: Vec<_> = match balancing {
            Balancing::PickFirst => vec![Arc::new(Subchannel::new(to.clone()))],
            _ => Vec::new(),
        };
        Self {
            way: Arc::new(way),
            name: to.host_text().into(),
            to,
            balancing,
            interval,
            list: Mutex::new(list.into()),
            resolved: Mutex::new(None),
            resolving: tokio::sync::Mutex::new(()),
            turn: AtomicUsize::new(0),
        }
    }

    fn list(&self) -> List {
        Arc::clone(&self.list.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn connections(&self) -> usize {
        self.list().iter().filter(|one| one.ready().is_some()).count()
    }

    /// When the first address may be tried again.
    pub(super) fn next_try(&self) -> Instant {
        let soonest = self.list().iter().filter_map(|one| one.next_try()).min();
        soonest.unwrap_or_else(|| clock::now() + self.way.backoff.0)
    }

    /// A connection that takes calls, if there is nothing to be done for it.
    pub(super) fn ready(&self) -> Option<SendRequest> {
        let list = self.list();
        if self.balancing == Balancing::PickFirst {
            return list.first()?.ready();
        }
        // One that is not connected is to be looked after.
        let all = !list.is_empty() && list.iter().all(|one| one.ready().is_some());
        if all { self.choose(&list, self.turn.fetch_add(1, Ordering::Relaxed)) } else { None }
    }

    /// A connection that takes calls, made if there is none.
    pub(super) async fn pick(&self) -> Result<SendRequest> {
        if self.balancing == Balancing::PickFirst {
            let one = self.list().first().cloned();
            return one.ok_or_else(nobody)?.get(&self.way, &self.name).await;
        }
        let list = self.addresses().await?;
        list.iter().for_each(|one| one.start(&self.way, &self.name));
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        if let Some(handle) = self.choose(&list, turn) {
            return Ok(handle);
        }
        let mut last = None;
        for one in list.iter().cycle().skip(turn.checked_rem(list.len()).unwrap_or(0)).take(list.len()) {
            match one.get(&self.way, &self.name).await {
                Ok(handle) => return Ok(handle),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(nobody))
    }

    /// Among those that are connected.
    fn choose(&self, list: &List, turn: usize) -> Option<SendRequest> {
        let mut ready: Vec<SendRequest> = list.iter().filter_map(|one| one.ready()).collect();
        if ready.is_empty() {
            return None;
        }
        let first = turn % ready.len();
        if self.balancing != Balancing::LeastRequests || ready.len() == 1 {
            return Some(ready.swap_remove(first));
        }
        // The one whose turn it is against another drawn at random: never the same one.
        let mut random = [0; 4];
        let step = getrandom::fill(&mut random).map_or(0, |()| u32::from_le_bytes(random)) as usize;
        let second = (first + 1 + step % (ready.len() - 1)) % ready.len();
        let load = |at: usize| ready.get(at).map_or(usize::MAX, |handle| handle.status().active);
        let best = if load(second) < load(first) { second } else { first };
        Some(ready.swap_remove(best))
    }

    /// The addresses, resolved anew when some are in trouble and it is not too soon.
    async fn addresses(&self) -> Result<List> {
        let list = self.list();
        if !list.is_empty() && !list.iter().any(|one| one.troubled()) {
            return Ok(list);
        }
        let _one = self.resolving.lock().await;
        let due = {
            let resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
            resolved.is_none_or(|at| clock::now().saturating_duration_since(at) >= self.interval)
        };
        let list = self.list();
        if !due && !list.is_empty() {
            return Ok(list);
        }
        let resolved = self.resolve(&list).await;
        *self.resolved.lock().unwrap_or_else(PoisonError::into_inner) = Some(clock::now());
        match resolved {
            Ok(list) => {
                *self.list.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&list);
                Ok(list)
            }
            // What was known is better than nothing.
            Err(_) if !list.is_empty() => Ok(list),
            Err(error) => Err(error),
        }
    }

    async fn resolve(&self, old: &List) -> Result<List> {
        let addresses = self.way.connector.resolve(&self.to).await?;
        let mut list = Vec::with_capacity(addresses.len());
        for address in addresses {
            let to = Endpoint::new(address.ip().to_string(), address.port())?;
            let known = old.iter().find(|one| one.to == to).cloned();
            list.push(known.unwrap_or_else(|| Arc::new(Subchannel::new(to))));
        }
        if list.is_empty() { Err(nobody()) } else { Ok(list.into()) }
    }
}

fn nobody() -> Error {
    Error::new(Kind::Resolve, "no address to connect to").with_protocol(PROTOCOL)
}
