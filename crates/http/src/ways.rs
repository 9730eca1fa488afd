//! Which connections may serve a request, and which of them is tried first.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::poll_immediate;
use http::request::Parts;
use http::{StatusCode, Uri};
use portolan_core::{Endpoint, Result, Timeouts, clock};
use portolan_pool::{Lease, Pool, may_fall_back};
use tokio::task::JoinHandle;

use crate::alt_svc::AltService;
use crate::body::Body;
use crate::client::Client;
use crate::connection::Manager;
use crate::key::{Key, Kind};
use crate::request::More;
use crate::response::Response;
use crate::version::Version;

/// Ways that are remembered as broken.
const MAX_BROKEN: usize = 1024;
/// How long a way is left alone after its first failure; twice as long after each further one.
const BROKEN_FOR: Duration = Duration::from_secs(300);
/// And no longer than this.
const BROKEN_AT_MOST: Duration = Duration::from_secs(2 * 86_400);

/// The ways to one server.
pub(crate) enum Ways {
    One(Key),
    /// The first, and what is used where it fails.
    Either(Key, Key),
    /// HTTP/3 as the server has told us of it, raced against what needs no telling.
    Raced {
        h3: Key,
        other: Key,
        told: Option<AltService>,
    },
}

impl Ways {
    /// The one that is tried last.
    pub(crate) fn last(&self) -> &Key {
        match self {
            Self::One(key) | Self::Either(_, key) | Self::Raced { other: key, .. } => key,
        }
    }

    /// The key of the origin, if HTTPS records may lead elsewhere: what the server itself told goes before.
    fn of_records(&self) -> Option<&Key> {
        match self {
            Self::Raced { told: Some(_), .. } | Self::Either(..) => None,
            Self::One(key) | Self::Raced { other: key, .. } => Some(key),
        }
    }
}

impl Client {
    /// One attempt, by the way that serves.
    pub(crate) async fn by_ways(
        &self,
        parts: &Parts,
        body: &mut Body,
        more: Option<&More>,
        timeouts: &Timeouts,
    ) -> Result<Response> {
        match self.way(parts, more)? {
            Ok(key) => self.once(parts, body, &key, None, timeouts).await,
            // What is rare is boxed: a future is moved about, and as large as its largest branch.
            Err(ways) => Box::pin(self.by_other_ways(*ways, parts, body, timeouts)).await,
        }
    }

    async fn by_other_ways(&self, ways: Ways, parts: &Parts, body: &mut Body, timeouts: &Timeouts) -> Result<Response> {
        if let Ways::One(key) = &ways
            && key.forwards.is_some()
        {
            return self.by_forwarding(key, parts, body, timeouts).await;
        }
        if let Some(key) = ways.of_records().filter(|key| self.has_records(key))
            && let Some(result) = Box::pin(self.by_records(key, parts, body, timeouts)).await
        {
            return result;
        }
        self.by_several(ways, parts, body, timeouts).await
    }

    /// Left to a proxy; by a tunnel through it, where it wants a login that only those have.
    async fn by_forwarding(&self, key: &Key, parts: &Parts, body: &mut Body, timeouts: &Timeouts) -> Result<Response> {
        if !self.broken().is(key) {
            match self.once(parts, body, key, None, timeouts).await {
                Err(error) if wants_a_login(&error) && body.is_replayable() => {
                    tracing::debug!(%error, "asking for tunnels");
                    self.broken().add(key);
                }
                result => return result,
            }
        }
        let tunnel = Key::new(&parts.uri, key.kind, key.connector.clone())?;
        self.once(parts, body, &tunnel, None, timeouts).await
    }

    pub(crate) async fn by_several(
        &self,
        ways: Ways,
        parts: &Parts,
        body: &mut Body,
        timeouts: &Timeouts,
    ) -> Result<Response> {
        match ways {
            Ways::One(key) => self.once(parts, body, &key, None, timeouts).await,
            Ways::Either(first, second) => match self.once(parts, body, &first, None, timeouts).await {
                Err(error) if may_go_on(&error, body) || (speaks_none(&error) && !body.is_spent()) => {
                    tracing::debug!(%error, "fell back");
                    // What else went wrong says nothing of what the server speaks: it may have been away.
                    if speaks_none(&error) {
                        self.broken().add(&first);
                    }
                    self.once(parts, body, &second, None, timeouts).await
                }
                result => result,
            },
            Ways::Raced { h3, other, told } => {
                let (lease, won) = self.race(&h3, &other, &parts.uri, told.as_ref()).await?;
                if !won {
                    return self.once(parts, body, &other, Some(Box::new(lease)), timeouts).await;
                }
                match self.once(parts, body, &h3, Some(Box::new(lease)), timeouts).await {
                    // RFC 7838 6: the alternative is none for this origin.
                    Ok(response) if response.status() == StatusCode::MISDIRECTED_REQUEST && body.is_replayable() => {
                        drop(response);
                        match (told, &self.settings().alt_svc) {
                            (Some(_), Some(alt_svc)) => alt_svc.forget(&parts.uri),
                            _ => self.broken().add(&h3),
                        }
                        self.once(parts, body, &other, None, timeouts).await
                    }
                    Err(error) if may_go_on(&error, body) => {
                        tracing::debug!(%error, "fell back from http3");
                        self.failed(&h3, &parts.uri, told.as_ref());
                        self.once(parts, body, &other, None, timeouts).await
                    }
                    result => result,
                }
            }
        }
    }

    /// The key, where there is one way, neither left to a proxy nor told of by HTTPS records; else the ways there are.
    fn way(&self, parts: &Parts, more: Option<&More>) -> Result<std::result::Result<Key, Box<Ways>>> {
        Ok(match self.ways(parts, more)? {
            Ways::One(key) if key.forwards.is_none() && !self.has_records(&key) => Ok(key),
            ways => Err(Box::new(ways)),
        })
    }

    fn ways(&self, parts: &Parts, more: Option<&More>) -> Result<Ways> {
        let uri = &parts.uri;
        let settings = self.settings();
        let version = more.and_then(|more| more.version).unwrap_or(settings.version);
        let connector = more.and_then(|more| more.connector.as_ref());
        let keepalive = more.and_then(|more| more.keepalive.as_ref()).unwrap_or(&settings.keepalive);
        let key = |kind| Ok(self.key(parts, kind, connector)?.with_keepalive(keepalive.clone()));
        let tls = uri.scheme_str() == Some("https");
        match version {
            Version::Http1Only => Ok(Ways::One(key(Kind::H1)?)),
            Version::Http2Only => Ok(Ways::One(key(Kind::H2)?)),
            Version::Http3Only => Ok(Ways::One(key(Kind::H3)?)),
            Version::PreferHttp2 if !tls => {
                let (h2, h1) = (key(Kind::H2)?, key(Kind::H1)?);
                Ok(if self.broken().is(&h2) { Ways::One(h1) } else { Ways::Either(h2, h1) })
            }
            Version::PreferHttp3 if tls => {
                let (h3, other) = (key(Kind::H3)?, key(Kind::Auto)?);
                Ok(if self.broken().is(&h3) { Ways::One(other) } else { Ways::Raced { h3, other, told: None } })
            }
            Version::Auto if tls => {
                let other = key(Kind::Auto)?;
                let Some(told) = settings.alt_svc.as_ref().and_then(|alt_svc| alt_svc.lookup(uri, "h3")) else {
                    return Ok(Ways::One(other));
                };
                let host = told.host.as_deref().unwrap_or(&other.name);
                let h3 = other.alternative(Endpoint::new(host, told.port)?.with_scheme("https"), Kind::H3);
                Ok(Ways::Raced { h3, other, told: Some(told) })
            }
            Version::Auto | Version::PreferHttp2 | Version::PreferHttp3 => Ok(Ways::One(key(Kind::Auto)?)),
        }
    }

    /// A connection by HTTP/3, or by another version if that one is there first; and whether it is HTTP/3.
    async fn race(
        &self,
        h3: &Key,
        other: &Key,
        uri: &Uri,
        told: Option<&AltService>,
    ) -> Result<(Lease<Manager>, bool)> {
        let mut first = Box::pin(acquire(self.pool().clone(), h3.clone()));
        // The pool lets the runtime have two turns before it gives away what was idle.
        for _ in 0..=2 {
            match poll_immediate(&mut first).await {
                Some(Ok(lease)) => return Ok((lease, true)),
                // At once, as through a hop that carries no datagrams.
                Some(Err(error)) => return self.after(error, h3, other, uri, told).await,
                None => tokio::task::yield_now().await,
            }
        }
        // A task of its own: it may come too late for this request, and then serves the next.
        let mut first = Racer { task: Some(tokio::spawn(first)) };
        let settings = self.settings();
        if let Ok(outcome) = tokio::time::timeout(settings.head_start, first.outcome()).await {
            return match outcome {
                Ok(lease) => {
                    self.worked(h3, uri, told);
                    Ok((lease, true))
                }
                Err(error) => self.after(error, h3, other, uri, told).await,
            };
        }
        let second = self.pool().acquire(other);
        tokio::select! {
            biased;
            outcome = first.outcome() => match outcome {
                Ok(lease) => {
                    self.worked(h3, uri, told);
                    Ok((lease, true))
                }
                Err(_) => {
                    self.failed(h3, uri, told);
                    Ok((self.pool().acquire(other).await?, false))
                }
            },
            outcome = second => match outcome {
                Ok(lease) => {
                    self.watch(first, h3.clone(), uri.clone(), told.cloned());
                    Ok((lease, false))
                }
                Err(error) => match first.outcome().await {
                    Ok(lease) => Ok((lease, true)),
                    Err(_) => Err(error),
                },
            },
        }
    }

    /// HTTP/3 has failed before the other one was begun.
    async fn after(
        &self,
        error: portolan_core::Error,
        h3: &Key,
        other: &Key,
        uri: &Uri,
        told: Option<&AltService>,
    ) -> Result<(Lease<Manager>, bool)> {
        // An alternative that the server told of is an offer: whatever is wrong with it, forbidden by the policy too, the server
        // itself is still there.
        if told.is_none() && !may_fall_back(&error) {
            return Err(error);
        }
        tracing::debug!(%error, "http3 failed");
        self.failed(h3, uri, told);
        Ok((self.pool().acquire(other).await?, false))
    }

    /// Learns how the slower one ended; its bounds are those of connecting.
    fn watch(&self, mut racer: Racer, h3: Key, uri: Uri, told: Option<AltService>) {
        let client = self.clone();
        tokio::spawn(async move {
            match racer.outcome().await {
                Ok(_) => client.worked(&h3, &uri, told.as_ref()),
                Err(_) => client.failed(&h3, &uri, told.as_ref()),
            }
        });
    }

    fn worked(&self, h3: &Key, uri: &Uri, told: Option<&AltService>) {
        match (told, &self.settings().alt_svc) {
            (Some(told), Some(alt_svc)) => alt_svc.mark_working(uri, told),
            _ => self.broken().forget(h3),
        }
    }

    fn failed(&self, h3: &Key, uri: &Uri, told: Option<&AltService>) {
        match (told, &self.settings().alt_svc) {
            (Some(told), Some(alt_svc)) => alt_svc.mark_broken(uri, told),
            _ => self.broken().add(h3),
        }
    }
}

/// Whether the request may go by another way: the first one failed, and the body is still whole.
pub(crate) fn may_go_on(error: &portolan_core::Error, body: &Body) -> bool {
    may_fall_back(error) && !body.is_spent()
}

/// Whether the peer answered in another version, having done nothing.
fn speaks_none(error: &portolan_core::Error) -> bool {
    // Whether the request had left by then is chance.
    error.kind() == portolan_core::Kind::Unsupported
        && error.code() == Some(i64::from(portolan_http2::Code::HTTP_1_1_REQUIRED.value()))
}

/// A login that a proxy takes for a tunnel only, here.
fn wants_a_login(error: &portolan_core::Error) -> bool {
    error.kind() == portolan_core::Kind::Unsupported && error.code() == Some(407)
}

async fn acquire(pool: Pool<Manager>, key: Key) -> Result<Lease<Manager>> {
    pool.acquire(&key).await
}

/// A connection being made, given up when dropped.
struct Racer {
    task: Option<JoinHandle<Result<Lease<Manager>>>>,
}

impl Racer {
    async fn outcome(&mut self) -> Result<Lease<Manager>> {
        let joined = std::future::poll_fn(|cx| match &mut self.task {
            Some(task) => std::pin::Pin::new(task).poll(cx),
            None => Poll::Pending,
        })
        .await;
        self.task = None;
        joined.unwrap_or_else(|_| Err(portolan_core::Error::closed("the runtime is shutting down")))
    }
}

impl Drop for Racer {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Ways that failed, and until when they are left alone.
#[derive(Debug, Default)]
pub(crate) struct Broken(Mutex<HashMap<Key, (clock::Instant, u32)>>);

impl Broken {
    pub(crate) fn is(&self, key: &Key) -> bool {
        let ways = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ways.get(key).is_some_and(|(until, _)| *until > clock::now())
    }

    pub(crate) fn add(&self, key: &Key) {
        let mut ways = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ways.len() >= MAX_BROKEN {
            ways.clear();
        }
        let entry = ways.entry(key.clone()).or_insert((clock::now(), 0));
        let time = BROKEN_FOR.saturating_mul(1 << entry.1.min(10)).min(BROKEN_AT_MOST);
        *entry = (clock::now() + time, entry.1 + 1);
    }

    fn forget(&self, key: &Key) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}
