//! Service bindings: what HTTPS and SVCB records say of how a service is reached (RFC 9460), and a cache of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::Resolve;
use crate::clock::{self, Instant};
use crate::error::Phase;

/// The longest that one look-up may take.
const MAX_LOOKUP: Duration = Duration::from_secs(10);
/// How long it is believed that a name has no such records, or that nobody could say: as long as browsers do.
const NONE_FOR: Duration = Duration::from_secs(60);
/// The bounds of a record's own life time.
const TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
/// Names kept, and asked for at once.
const MAX_NAMES: usize = 1024;
/// Records taken of one name: more than any service has.
const MAX_RECORDS: usize = 16;

/// One HTTPS or SVCB record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceRecord {
    /// The lower the better; 0 makes it an alias for another name's records.
    pub priority: u16,
    /// The host, in lower case and without a dot at its end. Where the record says its own name, that; empty for an alias that
    /// says that there is no service.
    pub target: String,
    /// The protocols spoken, by their ALPN names.
    pub alpn: Vec<String>,
    /// Whether the default protocol, for HTTPS `http/1.1`, is not among them.
    pub no_default_alpn: bool,
    /// The port, where it is not the usual one.
    pub port: Option<u16>,
    /// Addresses of the target, to begin with.
    pub hints: Vec<IpAddr>,
    /// The keys that must be understood, by their numbers.
    pub mandatory: Vec<u16>,
}

impl ServiceRecord {
    /// A record that says no more than this.
    pub fn new(priority: u16, target: impl Into<String>) -> Self {
        Self {
            priority,
            target: target.into(),
            alpn: Vec::new(),
            no_default_alpn: false,
            port: None,
            hints: Vec::new(),
            mandatory: Vec::new(),
        }
    }
}

/// The records of a name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Services {
    /// In any order.
    pub records: Vec<ServiceRecord>,
    /// How long they hold, where the source says so.
    pub ttl: Option<Duration>,
}

impl Services {
    /// Records that hold for `ttl`.
    pub fn new(records: Vec<ServiceRecord>, ttl: Option<Duration>) -> Self {
        Self { records, ttl }
    }
}

type Records = Arc<[ServiceRecord]>;

/// What is known, and what is being asked for.
#[derive(Debug, Default)]
pub(super) struct ServiceCache(Arc<Mutex<HashMap<String, Slot>>>);

#[derive(Debug)]
struct Slot {
    /// When it ends; not yet known while it is being asked for.
    until: Option<Instant>,
    found: watch::Receiver<Option<Records>>,
}

impl Slot {
    fn is_good(&self) -> bool {
        match self.until {
            Some(until) => until > clock::now(),
            // A task that ended with its runtime will say nothing any more.
            None => self.found.has_changed().is_ok(),
        }
    }
}

impl ServiceCache {
    /// The records of `name`: kept, or those of the one look-up for it, which goes on when its callers give up. Not finding any,
    /// for whatever reason, is none.
    pub(super) async fn lookup(&self, name: &str, beneath: &Arc<dyn Resolve>) -> Records {
        let mut found = self.find_or_begin(name, beneath);
        let found = found.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
        found.unwrap_or_else(|| Arc::new([]))
    }

    fn find_or_begin(&self, name: &str, beneath: &Arc<dyn Resolve>) -> watch::Receiver<Option<Records>> {
        let mut slots = lock(&self.0);
        if let Some(slot) = slots.get(name).filter(|slot| slot.is_good()) {
            return slot.found.clone();
        }
        if slots.len() >= MAX_NAMES {
            slots.retain(|_, slot| slot.is_good());
        }
        let (sender, found) = watch::channel(None);
        if slots.len() >= MAX_NAMES {
            sender.send_replace(Some(Records::from([])));
            return found;
        }
        slots.insert(name.to_owned(), Slot { until: None, found: found.clone() });
        drop(slots);
        let (slots, name, beneath) = (self.0.clone(), name.to_owned(), beneath.clone());
        tokio::spawn(async move {
            let asked = clock::within(Some(MAX_LOOKUP), Phase::Resolve, beneath.services(&name)).await;
            let Services { mut records, ttl } = asked.unwrap_or_else(|error| {
                tracing::debug!(%error, name, "no service bindings");
                Services::default()
            });
            records.truncate(MAX_RECORDS);
            let keep = if records.is_empty() { NONE_FOR } else { ttl.unwrap_or(NONE_FOR).clamp(TTL.0, TTL.1) };
            if let Some(slot) = lock(&slots).get_mut(&name) {
                slot.until = Some(clock::now() + keep);
            }
            sender.send_replace(Some(records.into()));
        });
        found
    }

    pub(super) fn forget(&self, name: &str) {
        lock(&self.0).remove(name);
    }

    pub(super) fn clear(&self) {
        lock(&self.0).clear();
    }
}

fn lock(slots: &Mutex<HashMap<String, Slot>>) -> MutexGuard<'_, HashMap<String, Slot>> {
    slots.lock().unwrap_or_else(PoisonError::into_inner)
}
