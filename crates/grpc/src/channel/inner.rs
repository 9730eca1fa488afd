//! What the clones of a channel share.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use portolan_core::observe::Probe;
use portolan_core::{Connector, Endpoint, Kind, Result, clock};

use super::asked::Asked;
use super::balance::Balancer;
use super::health::Watched;
use super::idle::{InUse, Usage};
use super::subchannel::Way;
use super::{Balancing, Carrier, ChannelOptions, Connectivity, origin};
use crate::policy::Config;

pub(super) struct Inner<K: Carrier> {
    pub(super) url: Box<str>,
    pub(super) probe: Probe,
    pub(super) asked: Option<Arc<Asked>>,
    pub(super) endpoint: Endpoint,
    pub(super) connector: Connector,
    pub(super) carrier: Arc<K>,
    pub(super) tls: bool,
    /// As they were set.
    pub(super) options: ChannelOptions,
    pub(super) usage: Option<Arc<Usage>>,
    pub(super) now: Mutex<Now<K>>,
}

/// What holds now.
pub(super) struct Now<K: Carrier> {
    /// None while the channel rests.
    balancer: Option<Arc<Balancer<K>>>,
    /// What the name service said, where it is asked.
    config: Option<Arc<Config>>,
}

impl<K: Carrier> Drop for Inner<K> {
    fn drop(&mut self) {
        if let Some(usage) = &self.usage {
            usage.lock().stop();
        }
    }
}

impl<K: Carrier> Default for Now<K> {
    fn default() -> Self {
        Self { balancer: None, config: None }
    }
}

impl<K: Carrier> Inner<K> {
    /// A call begins, if somebody counts.
    pub(super) fn begin(self: &Arc<Self>) -> Option<InUse> {
        let usage = self.usage.as_ref()?;
        Some(usage.begin(|| tokio::spawn(rest(Arc::downgrade(self), Arc::clone(usage))).abort_handle()))
    }

    /// Asks the name service how calls are to be made, unless that was done a moment ago.
    pub(super) async fn ask(&self) {
        if let Some(asked) = &self.asked {
            asked.expire();
            asked.config(None).await;
        }
    }

    /// The connections, as the options say and whatever was said since by the name service.
    pub(super) fn balancer(&self) -> Arc<Balancer<K>> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let said = self.asked.as_ref().map(|asked| asked.known());
        if let Some(config) = said
            && config.as_ref().map(Arc::as_ptr) != now.config.as_ref().map(Arc::as_ptr)
        {
            now.config = config;
            let options = self.options(&now);
            // Another way of balancing has other connections; calls that are under way keep theirs.
            now.balancer.take_if(|balancer| !balancer.is_as(&options));
        }
        if let Some(balancer) = &now.balancer {
            return Arc::clone(balancer);
        }
        let balancer = Arc::new(self.new_balancer(&self.options(&now)));
        now.balancer = Some(Arc::clone(&balancer));
        balancer
    }

    fn options(&self, now: &Now<K>) -> ChannelOptions {
        let options = self.options.clone();
        match &now.config {
            Some(config) => options.service_config(&config.service),
            None => options,
        }
    }

    fn new_balancer(&self, options: &ChannelOptions) -> Balancer<K> {
        let health = options.health.as_ref().filter(|_| options.balancing != Balancing::PickFirst);
        let way = Way {
            connector: self.connector.clone(),
            carrier: Arc::clone(&self.carrier),
            backoff: options.backoff,
            name: self.tls.then(|| self.endpoint.host_text().into()),
            health: health.map(|service| Watched::new(origin(&self.url), service)),
        };
        Balancer::new(way, self.endpoint.clone(), options)
    }

    /// A connection that takes calls, made if there is none.
    pub(super) async fn connected(&self, wait: bool) -> Result<K::Connection> {
        loop {
            let balancer = self.balancer();
            let error = match balancer.pick().await {
                Ok(handle) => return Ok(handle),
                Err(error) => error,
            };
            let hopeless = matches!(error.kind(), Kind::Usage | Kind::Blocked | Kind::Unsupported | Kind::Auth);
            if !wait || hopeless {
                return Err(error);
            }
            clock::sleep_until(balancer.next_try()).await;
        }
    }

    pub(super) fn connections(&self) -> usize {
        self.existing().map_or(0, |balancer| balancer.connections())
    }

    pub(super) fn connectivity(&self) -> Connectivity {
        self.existing().map_or(Connectivity::Idle, |balancer| balancer.connectivity())
    }

    fn existing(&self) -> Option<Arc<Balancer<K>>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).balancer.clone()
    }
}

/// Lets go of the connections once there was no call for so long: as if the channel had just been made.
async fn rest<K: Carrier>(inner: Weak<Inner<K>>, usage: Arc<Usage>) {
    let mut look = clock::now() + usage.limit;
    loop {
        clock::sleep_until(look).await;
        let Some(inner) = inner.upgrade() else { return };
        // Held while the channel is put to rest, so that no call begins meanwhile.
        let mut calls = usage.lock();
        match calls.next_look(usage.limit) {
            Some(next) => look = next,
            None => {
                inner.now.lock().unwrap_or_else(PoisonError::into_inner).balancer = None;
                return;
            }
        }
    }
}
