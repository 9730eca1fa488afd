//! Names to addresses: one resolver for all protocols.
//!
//! A [`Resolver`] answers from its overrides, then from its cache, and asks what lies beneath ([`Resolve`]) only once for any
//! number of callers who want the same name at the same time.

mod cache;
#[cfg(feature = "dns-hickory")]
mod hickory;
mod system;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use crate::dial::BoxFuture;
use crate::error::{Error, Kind, Phase, Result};

use cache::Cache;
pub use cache::CacheOptions;
#[cfg(feature = "dns-hickory")]
pub use hickory::Hickory;
pub use system::System;

/// The addresses of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// In the order in which to prefer them.
    pub addrs: Vec<IpAddr>,
    /// How long they hold, where the source says so.
    pub ttl: Option<Duration>,
}

impl Answer {
    /// Addresses that hold for `ttl`.
    pub fn new(addrs: Vec<IpAddr>, ttl: Option<Duration>) -> Self {
        Self { addrs, ttl }
    }
}

/// Why a name has no address: read it with [`Error::server`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResolveFailure {
    /// There is no such name, or it has no address: the answer is certain, and is cached for a little while.
    NoSuchName,
    /// Nobody could say.
    Unavailable,
}

/// Whatever can resolve names.
pub trait Resolve: Send + Sync + fmt::Debug + 'static {
    /// The addresses of `name`: lower case, no trailing dot, never an address. Dropping the future gives up.
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Answer>>;
}

/// The error for a name that could not be resolved.
pub fn failed(name: &str, why: ResolveFailure) -> Error {
    let message = match why {
        ResolveFailure::NoSuchName => format!("{name}: no such name"),
        ResolveFailure::Unavailable => format!("{name}: no answer from the name service"),
    };
    Error::new(Kind::Resolve, message).with_phase(Phase::Resolve).with_reply(why)
}

/// Overrides, cache and what is asked beneath: cheap to clone, one cache for all clones.
#[derive(Clone)]
pub struct Resolver(Arc<Inner>);

struct Inner {
    beneath: Arc<dyn Resolve>,
    overrides: HashMap<String, Vec<IpAddr>>,
    cache: Option<Cache>,
}

impl Resolver {
    /// The system's resolver (getaddrinfo) behind a cache.
    pub fn system() -> Self {
        Self::new(System::default())
    }

    /// Another resolver behind a cache.
    pub fn new(beneath: impl Resolve) -> Self {
        let cache = Some(Cache::new(CacheOptions::default()));
        Self(Arc::new(Inner { beneath: Arc::new(beneath), overrides: HashMap::new(), cache }))
    }

    /// A function as a resolver, without cache: for tests.
    pub fn from_fn<F, Fut>(f: F) -> Self
    where
        F: Fn(String) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<IpAddr>>> + Send + 'static,
    {
        Self::new(FromFn(f)).uncached()
    }

    /// Answers `name` with these addresses, always.
    #[must_use]
    pub fn with_override(self, name: &str, addrs: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut overrides = self.0.overrides.clone();
        overrides.insert(name.trim_end_matches('.').to_ascii_lowercase(), addrs.into_iter().collect());
        self.rebuilt(overrides, self.0.cache.as_ref().map(Cache::options))
    }

    /// The same with another kind of cache. What was cached is forgotten.
    #[must_use]
    pub fn cached(self, options: CacheOptions) -> Self {
        self.rebuilt(self.0.overrides.clone(), Some(options))
    }

    /// The same without a cache: each call asks anew, and alone.
    #[must_use]
    pub fn uncached(self) -> Self {
        self.rebuilt(self.0.overrides.clone(), None)
    }

    fn rebuilt(&self, overrides: HashMap<String, Vec<IpAddr>>, cache: Option<CacheOptions>) -> Self {
        Self(Arc::new(Inner { beneath: self.0.beneath.clone(), overrides, cache: cache.map(Cache::new) }))
    }

    /// The addresses of `name`. Cancel safe: others who wait for the same name get their answer all the same.
    pub async fn lookup(&self, name: &str) -> Result<Answer> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if let Ok(ip) = name.parse() {
            return Ok(Answer::new(vec![ip], None));
        }
        if let Some(addrs) = self.0.overrides.get(&name) {
            return Ok(Answer::new(addrs.clone(), None));
        }
        if name == "localhost" || name.ends_with(".localhost") {
            // RFC 6761 6.3: never asked of the name service.
            return Ok(Answer::new(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()], None));
        }
        if name == "onion" || name.ends_with(".onion") {
            // RFC 7686 2: asking for it would tell the name service.
            return Err(failed(&name, ResolveFailure::NoSuchName));
        }
        match &self.0.cache {
            None => self.0.beneath.resolve(&name).await,
            Some(cache) => cache.lookup(&name, || self.0.beneath.clone()).await,
        }
    }

    /// Forgets what is cached of `name`: before connecting anew after a failure.
    pub fn forget(&self, name: &str) {
        if let Some(cache) = &self.0.cache {
            cache.forget(&name.trim_end_matches('.').to_ascii_lowercase());
        }
    }

    /// Forgets all that is cached: when the network has changed.
    pub fn clear(&self) {
        if let Some(cache) = &self.0.cache {
            cache.clear();
        }
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver")
            .field("beneath", &self.0.beneath)
            .field("cached", &self.0.cache.is_some())
            .finish_non_exhaustive()
    }
}

struct FromFn<F>(F);

impl<F> fmt::Debug for FromFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FromFn")
    }
}

impl<F, Fut> Resolve for FromFn<F>
where
    F: Fn(String) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Vec<IpAddr>>> + Send + 'static,
{
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Answer>> {
        let answer = (self.0)(name.to_owned());
        Box::pin(async move { answer.await.map(|addrs| Answer::new(addrs, None)) })
    }
}
