//! Names to addresses: one resolver for all protocols.
//!
//! A [`Resolver`] answers from its overrides, then from its cache, and asks what lies beneath ([`Resolve`]) only once for any
//! number of callers who want the same name at the same time. Where what lies beneath can ask for IPv4 and IPv6 apart, a
//! connection is begun with whichever is there, and the other one joins the race when it comes (RFC 8305 3).

mod cache;
mod failover;
#[cfg(feature = "dns-hickory")]
mod hickory;
mod scheme;
mod service;
mod srv;
mod system;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;

use crate::clock;
use crate::dial::BoxFuture;
use crate::error::{Error, Kind, Phase, Result};

pub use cache::CacheOptions;
use cache::{Cache, Key, MAX_LOOKUP};
pub use failover::Failover;
#[cfg(feature = "dns-hickory")]
pub use hickory::Hickory;
pub use scheme::ResolverSchemes;
use service::ServiceCache;
pub use service::{ServiceRecord, Services};
pub use srv::{Server, Servers};
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

/// The TXT records of a name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Texts {
    /// Each with its strings joined; they need not be UTF-8.
    pub records: Vec<Vec<u8>>,
    /// How long they hold, where the source says so.
    pub ttl: Option<Duration>,
}

impl Texts {
    /// Texts that hold for `ttl`.
    pub fn new(records: Vec<Vec<u8>>, ttl: Option<Duration>) -> Self {
        Self { records, ttl }
    }
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Family {
    /// IPv4: A records.
    V4,
    /// IPv6: AAAA records.
    V6,
}

impl Family {
    /// That of an address.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
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

    /// The addresses of one family, for a resolver that can ask for each by itself: a slow or broken family then holds up
    /// nobody. `None`, the default, says that it cannot, whatever the name; [`resolve`](Self::resolve) is then asked for both.
    /// A name that has no address of this family is [`ResolveFailure::NoSuchName`].
    fn resolve_family<'a>(&'a self, _name: &'a str, _family: Family) -> Option<BoxFuture<'a, Result<Answer>>> {
        None
    }

    /// Whether [`services`](Self::services) can find any. Default no.
    fn finds_services(&self) -> bool {
        false
    }

    /// The HTTPS records of `name` (RFC 9460), aliases by CNAME followed; none is no error. The name may begin with
    /// `_port._https`.
    fn services<'a>(&'a self, _name: &'a str) -> BoxFuture<'a, Result<Services>> {
        Box::pin(std::future::ready(Ok(Services::default())))
    }

    /// The TXT records of `name`, aliases followed, for a resolver that can ask for them; none is no error. `None`, the default, says
    /// that it cannot, whatever the name.
    fn texts<'a>(&'a self, _name: &'a str) -> Option<BoxFuture<'a, Result<Texts>>> {
        None
    }

    /// The SRV records of `name`, in the same manner.
    fn servers<'a>(&'a self, _name: &'a str) -> Option<BoxFuture<'a, Result<Servers>>> {
        None
    }
}

/// One answer of those that a name has, as they come.
#[derive(Debug)]
pub(crate) struct Part {
    /// The family asked for, or `None` for both at once.
    pub(crate) family: Option<Family>,
    pub(crate) answer: Result<Answer>,
}

/// The answers under way for one name.
pub(crate) type Parts<'a> = FuturesUnordered<BoxFuture<'a, Part>>;

/// Asks `beneath`, for one family or for both.
async fn ask(beneath: &dyn Resolve, name: &str, family: Option<Family>) -> Result<Answer> {
    let Some(family) = family else {
        return beneath.resolve(name).await;
    };
    match beneath.resolve_family(name, family) {
        Some(answer) => answer.await.and_then(|answer| only(name, answer, family)),
        None => beneath.resolve(name).await.and_then(|answer| only(name, answer, family)),
    }
}

/// What an answer holds of one family; none is a certain no.
fn only(name: &str, mut answer: Answer, family: Family) -> Result<Answer> {
    answer.addrs.retain(|ip| Family::of(*ip) == family);
    if answer.addrs.is_empty() { Err(failed(name, ResolveFailure::NoSuchName)) } else { Ok(answer) }
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
    services: ServiceCache,
}

impl Resolver {
    /// The system's resolver (getaddrinfo) behind a cache.
    pub fn system() -> Self {
        Self::new(System::default())
    }

    /// Another resolver behind a cache.
    pub fn new(beneath: impl Resolve) -> Self {
        let cache = Some(Cache::new(CacheOptions::default()));
        Self(Arc::new(Inner {
            beneath: Arc::new(beneath),
            overrides: HashMap::new(),
            cache,
            services: ServiceCache::default(),
        }))
    }

    /// A function as a resolver, without cache: for tests.
    pub fn from_fn<F, Fut>(f: F) -> Self
    where
        F: Fn(String) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<IpAddr>>> + Send + 'static,
    {
        Self::new(FromFn(f)).uncached()
    }

    /// Answers `name` with these addresses, always; see [`ConnectorBuilder::resolve`](crate::ConnectorBuilder::resolve).
    #[must_use]
    pub fn with_override(self, name: &str, addrs: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut overrides = self.0.overrides.clone();
        overrides.insert(canonical(name), addrs.into_iter().collect());
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
        let (beneath, cache) = (self.0.beneath.clone(), cache.map(Cache::new));
        Self(Arc::new(Inner { beneath, overrides, cache, services: ServiceCache::default() }))
    }

    /// The addresses of `name`. Cancel safe: others who wait for the same name get their answer all the same.
    pub async fn lookup(&self, name: &str) -> Result<Answer> {
        let key = Key::new(name, None);
        match self.in_house(&key.name) {
            Some(answer) => answer,
            None => self.asked(&key).await,
        }
    }

    /// The addresses that `name` has of one family; none is [`ResolveFailure::NoSuchName`]. Cancel safe, as
    /// [`lookup`](Self::lookup) is.
    pub async fn lookup_family(&self, name: &str, family: Family) -> Result<Answer> {
        let key = Key::new(name, Some(family));
        if let Some(answer) = self.in_house(&key.name).or_else(|| self.kept_whole(&key)) {
            return answer.and_then(|answer| only(&key.name, answer, family));
        }
        if self.splits(&key.name) {
            return self.asked(&key).await;
        }
        let whole = Key { family: None, ..key };
        self.asked(&whole).await.and_then(|answer| only(&whole.name, answer, family))
    }

    /// The answers for `name` as they come: one look-up, or one for each of `families` where these can be had apart. Each has
    /// `limit` to itself.
    pub(crate) fn parts<'a>(&'a self, name: &str, families: &[Family], limit: Option<Duration>) -> Parts<'a> {
        let whole = Key::new(name, None);
        let mut parts = Parts::new();
        if let Some(answer) = self.in_house(&whole.name).or_else(|| self.kept_whole(&whole)) {
            parts.push(Box::pin(std::future::ready(Part { family: None, answer })));
            return parts;
        }
        let ask = |key: Key| -> BoxFuture<'a, Part> {
            Box::pin(async move {
                let answer = clock::within(limit, Phase::Resolve, self.asked(&key)).await;
                Part { family: key.family, answer }
            })
        };
        if self.splits(&whole.name) {
            parts.extend(families.iter().map(|family| ask(Key { family: Some(*family), name: whole.name.clone() })));
        } else {
            parts.push(ask(whole));
        }
        parts
    }

    /// What is known without asking anyone.
    fn in_house(&self, name: &str) -> Option<Result<Answer>> {
        if let Ok(ip) = name.parse() {
            return Some(Ok(Answer::new(vec![ip], None)));
        }
        if let Some(addrs) = self.0.overrides.get(name) {
            return Some(Ok(Answer::new(addrs.clone(), None)));
        }
        if name == "localhost" || name.ends_with(".localhost") {
            // RFC 6761 6.3: never asked of the name service.
            return Some(Ok(Answer::new(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()], None)));
        }
        if name == "onion" || name.ends_with(".onion") {
            // RFC 7686 2: asking for it would tell the name service.
            return Some(Err(failed(name, ResolveFailure::NoSuchName)));
        }
        None
    }

    /// The cached answer for both families, where somebody asked for both.
    fn kept_whole(&self, key: &Key) -> Option<Result<Answer>> {
        let whole = Key { family: None, name: key.name.clone() };
        self.0.cache.as_ref()?.kept(&whole)
    }

    fn splits(&self, name: &str) -> bool {
        self.0.beneath.resolve_family(name, Family::V6).is_some()
    }

    async fn asked(&self, key: &Key) -> Result<Answer> {
        match &self.0.cache {
            None => ask(&*self.0.beneath, &key.name, key.family).await,
            Some(cache) => cache.lookup(key, || self.0.beneath.clone()).await,
        }
    }

    /// Whether the addresses of `name` were set by hand.
    pub(crate) fn sets(&self, name: &str) -> bool {
        !self.0.overrides.is_empty() && self.0.overrides.contains_key(&canonical(name))
    }

    /// The TXT records of `name`, asked for anew each time; none is no error. A resolver that cannot ask, as the system's, is
    /// [`Kind::Unsupported`]. Dropping the future gives up.
    pub async fn texts(&self, name: &str) -> Result<Texts> {
        answered("TXT", self.0.beneath.texts(&canonical(name))).await
    }

    /// Whether HTTPS records can be asked for: see [`Resolve::services`].
    pub fn finds_services(&self) -> bool {
        self.0.beneath.finds_services()
    }

    /// The HTTPS records of `name`, which may begin with `_port._https` (RFC 9460 9.1): as long as they hold, asked for once.
    /// Empty where there are none, where nobody can say, and for hosts whose addresses are set by hand. Cancel safe: what was
    /// asked is known to the next caller.
    pub async fn services(&self, name: &str) -> Arc<[ServiceRecord]> {
        let name = canonical(name);
        let mut host = name.as_str();
        while let Some((_, rest)) = host.split_once('.').filter(|(label, _)| label.starts_with('_')) {
            host = rest;
        }
        if !self.finds_services() || self.in_house(host).is_some() {
            return Arc::new([]);
        }
        self.0.services.lookup(&name, &self.0.beneath).await
    }

    /// Forgets what is cached of `name`: before connecting anew after a failure.
    pub fn forget(&self, name: &str) {
        if let Some(cache) = &self.0.cache {
            cache.forget(&canonical(name));
        }
        self.0.services.forget(&canonical(name));
    }

    /// Forgets all that is cached: when the network has changed.
    pub fn clear(&self) {
        if let Some(cache) = &self.0.cache {
            cache.clear();
        }
        self.0.services.clear();
    }
}

/// What a resolver beneath says of records, if it can ask for that type.
async fn answered<T>(records: &str, asked: Option<BoxFuture<'_, Result<T>>>) -> Result<T> {
    let cannot = || {
        let message = format!("the resolver cannot ask for {records} records");
        Error::new(Kind::Unsupported, message).with_phase(Phase::Resolve)
    };
    clock::within(Some(MAX_LOOKUP), Phase::Resolve, asked.ok_or_else(cannot)?).await
}

/// The one spelling of a name: lower case, no dot at its end.
pub(crate) fn canonical(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
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
