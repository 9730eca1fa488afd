//! Which connection a call takes.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::select_ok;
use portolan_core::clock::{self, Instant};
use portolan_core::{Endpoint, Error, Kind, Result};
use tokio::task::AbortHandle;

use super::carrier::Carrier;
use super::subchannel::{Subchannel, Way};
use super::{Balancing, ChannelOptions, Connectivity};
use crate::PROTOCOL;

type List<K> = Arc<[Arc<Subchannel<K>>]>;

/// What an address weighs.
#[derive(Clone)]
pub(super) struct Weights(pub(super) Arc<dyn Fn(SocketAddr) -> u32 + Send + Sync>);

impl Weights {
    fn of(&self, to: &Endpoint) -> usize {
        let weight = to.socket_addr().map_or(1, |address| self.0(address));
        usize::try_from(weight).unwrap_or(usize::MAX)
    }
}

impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Weights")
    }
}

/// The addresses of a service, and whose turn it is.
pub(super) struct Balancer<K: Carrier> {
    names: Arc<Names<K>>,
    /// Resolves anew while calls go on.
    renewing: Mutex<Option<AbortHandle>>,
    balancing: Balancing,
    weights: Option<Weights>,
    /// Whose health is watched.
    health: Option<Box<str>>,
    turn: AtomicUsize,
}

/// The addresses, and where they come from.
struct Names<K: Carrier> {
    way: Arc<Way<K>>,
    to: Endpoint,
    interval: Duration,
    list: Mutex<List<K>>,
    resolved: Mutex<Option<Instant>>,
    /// Whoever resolves has the one permit.
    resolving: tokio::sync::Semaphore,
}

impl<K: Carrier> Drop for Balancer<K> {
    fn drop(&mut self) {
        if let Some(task) = self.renewing.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

impl<K: Carrier> Balancer<K> {
    pub(super) fn new(way: Way<K>, to: Endpoint, options: &ChannelOptions) -> Self {
        // A name that need not be resolved here is left to the connector, and to its proxies.
        let list: Vec<_> = match options.balancing {
            Balancing::PickFirst => vec![Arc::new(Subchannel::new(to.clone()))],
            _ => Vec::new(),
        };
        let names = Names {
            way: Arc::new(way),
            to,
            interval: options.resolve_interval,
            list: Mutex::new(list.into()),
            resolved: Mutex::new(None),
            resolving: tokio::sync::Semaphore::new(1),
        };
        Self {
            names: Arc::new(names),
            renewing: Mutex::new(None),
            balancing: options.balancing,
            weights: options.weights.clone().filter(|_| options.balancing == Balancing::Weighted),
            health: options.health.clone(),
            turn: AtomicUsize::new(0),
        }
    }

    /// Whether this is what such options ask for.
    pub(super) fn is_as(&self, options: &ChannelOptions) -> bool {
        self.balancing == options.balancing && self.health == options.health
    }

    /// The best that is true of any address.
    pub(super) fn connectivity(&self) -> Connectivity {
        let list = self.list();
        let of = |state| list.iter().any(|one| one.connectivity() == state);
        // While it is resolved there may be no address yet.
        let resolving = self.names.resolving.available_permits() == 0;
        match () {
            () if of(Connectivity::Ready) => Connectivity::Ready,
            () if resolving || of(Connectivity::Connecting) => Connectivity::Connecting,
            () if of(Connectivity::Idle) => Connectivity::Idle,
            () if list.is_empty() && !self.names.were_resolved() => Connectivity::Idle,
            () => Connectivity::TransientFailure,
        }
    }

    fn list(&self) -> List<K> {
        self.names.list()
    }

    pub(super) fn connections(&self) -> usize {
        self.list().iter().filter(|one| one.ready().is_some()).count()
    }

    /// When the first address may be tried again.
    pub(super) fn next_try(&self) -> Instant {
        let soonest = self.list().iter().filter_map(|one| one.next_try()).min();
        soonest.unwrap_or_else(|| clock::now() + self.names.way.backoff.0)
    }

    /// A connection that takes calls, if there is nothing to be done for it.
    pub(super) fn ready(&self) -> Option<K::Connection> {
        let list = self.list();
        if self.balancing == Balancing::PickFirst {
            return list.first()?.ready();
        }
        // One that is not connected is to be looked after.
        let all = !list.is_empty() && list.iter().all(|one| one.ready().is_some());
        if all { self.choose(&list) } else { None }
    }

    /// A connection that takes calls, made if there is none.
    pub(super) async fn pick(&self) -> Result<K::Connection> {
        let way = &self.names.way;
        if self.balancing == Balancing::PickFirst {
            let one = self.list().first().cloned();
            return one.ok_or_else(nobody)?.get(way).await;
        }
        let list = self.addresses().await?;
        list.iter().for_each(|one| one.start(way));
        if let Some(handle) = self.choose(&list) {
            return Ok(handle);
        }
        // Whichever is there first: one that hangs keeps no call from the others.
        let turn = self.turn.load(Ordering::Relaxed).checked_rem(list.len()).ok_or_else(nobody)?;
        let in_turn = list.iter().cycle().skip(turn).take(list.len());
        select_ok(in_turn.map(|one| Box::pin(one.get(way)))).await.map(|(handle, _)| handle)
    }

    /// Among those that are connected.
    fn choose(&self, list: &List<K>) -> Option<K::Connection> {
        let ready = list.iter().filter_map(|one| Some((one, one.ready()?)));
        let (ones, mut ready): (Vec<_>, Vec<_>) = ready.unzip();
        if ready.is_empty() {
            return None;
        }
        if let Some(weights) = &self.weights {
            let weights: Vec<usize> = ones.iter().map(|one| weights.of(&one.to)).collect();
            return Some(ready.swap_remove(stride(&weights, || self.turn.fetch_add(1, Ordering::Relaxed))));
        }
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % ready.len();
        if self.balancing != Balancing::LeastRequests || ready.len() == 1 {
            return Some(ready.swap_remove(first));
        }
        // The one whose turn it is against another drawn at random: never the same one.
        let mut random = [0; 4];
        let step = getrandom::fill(&mut random).map_or(0, |()| u32::from_le_bytes(random)) as usize;
        let second = (first + 1 + step % (ready.len() - 1)) % ready.len();
        let load = |at: usize| ready.get(at).map_or(usize::MAX, K::active);
        let best = if load(second) < load(first) { second } else { first };
        Some(ready.swap_remove(best))
    }

    /// The addresses, resolved anew when some are in trouble and it is not too soon. While one of them takes calls none waits for
    /// that.
    async fn addresses(&self) -> Result<List<K>> {
        let list = self.list();
        if !list.is_empty() && !list.iter().any(|one| one.troubled()) {
            return Ok(list);
        }
        if !list.iter().any(|one| one.ready().is_some()) {
            return self.names.renewed().await;
        }
        let mut renewing = self.renewing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.names.are_due() && renewing.as_ref().is_none_or(AbortHandle::is_finished) {
            let names = Arc::clone(&self.names);
            *renewing = Some(tokio::spawn(async move { drop(names.renewed().await) }).abort_handle());
        }
        Ok(list)
    }
}

impl<K: Carrier> Names<K> {
    fn list(&self) -> List<K> {
        Arc::clone(&self.list.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn were_resolved(&self) -> bool {
        self.resolved.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn are_due(&self) -> bool {
        let resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        resolved.is_none_or(|at| clock::now().saturating_duration_since(at) >= self.interval)
    }

    /// The addresses, resolved anew unless that was done a moment ago.
    async fn renewed(&self) -> Result<List<K>> {
        let _one = self.resolving.acquire().await;
        let list = self.list();
        if !self.are_due() && !list.is_empty() {
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

    async fn resolve(&self, old: &List<K>) -> Result<List<K>> {
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

/// The next by weight: each is asked in turn, and passed over as often as it weighs less than the heaviest. That spreads the
/// turns of each evenly, and needs no state but a counter (the "static stride" of gRPC's own weighted balancing).
fn stride(weights: &[usize], mut next: impl FnMut() -> usize) -> usize {
    let Some(most) = weights.iter().copied().max().filter(|most| *most > 0) else {
        // Nobody weighs anything: each has its turn.
        return next().checked_rem(weights.len()).unwrap_or(0);
    };
    loop {
        let turn = next();
        let (at, round) = (turn % weights.len(), turn / weights.len());
        let weight = weights.get(at).copied().unwrap_or(0);
        // Those that weigh the same are passed over in different rounds.
        let place = round.wrapping_mul(weight).wrapping_add(at.wrapping_mul(most / 2)) % most;
        if place >= most - weight {
            return at;
        }
    }
}

fn nobody() -> Error {
    Error::new(Kind::Resolve, "no address to connect to").with_protocol(PROTOCOL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(weights: &[usize], picks: usize) -> Vec<usize> {
        let (mut turn, mut counts) = (0, vec![0; weights.len()]);
        for _ in 0..picks {
            let at = stride(weights, || {
                turn += 1;
                turn - 1
            });
            counts[at] += 1;
        }
        counts
    }

    #[test]
    fn turns_are_given_by_weight_and_spread() {
        assert_eq!(counts(&[1, 1, 1], 9), [3, 3, 3]);
        assert_eq!(counts(&[0, 0], 4), [2, 2]);
        assert_eq!(counts(&[3, 1], 400), [300, 100]);
        assert_eq!(counts(&[0, 5], 7), [0, 7]);
        let many = counts(&[100, 50, 25, 25], 2000);
        for (count, wanted) in many.into_iter().zip([1000_usize, 500, 250, 250]) {
            assert!(count.abs_diff(wanted) <= 10, "{count} for {wanted}");
        }
        // Never more than a few in a row for the heavier of two.
        assert_eq!(counts(&[3, 1], 4), [3, 1]);
    }
}
