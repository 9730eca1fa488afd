//! One connection for several origins (RFC 9113 9.1.1, RFC 9114 3.3): where the certificate is for all of them and they are at one
//! address, or the server says with an ORIGIN frame what it serves (RFC 8336, RFC 9412).

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use portolan_core::{Connector, Family};
use portolan_http2 as h2;
use portolan_http3 as h3;
use portolan_pool::{Life, Liveness};

use crate::connection::{Conn, Facts, Shared};
use crate::key::{Key, Kind};

/// Connections that others may join; more are not looked at.
const MAX_KNOWN: usize = 256;
/// Origins that one server may name.
const MAX_ORIGINS: usize = 1024;
/// Names that are remembered to be served elsewhere.
const MAX_MISDIRECTED: usize = 1024;
/// How long the address of a name may take before the name gets a connection of its own, whose families race.
const WAIT: Duration = Duration::from_millis(500);

/// The connections that others may join.
#[derive(Debug, Clone, Default)]
pub(crate) struct Coalescing(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    known: Vec<Known>,
    /// Names and ports that a shared connection was not for (421).
    misdirected: HashSet<(Box<str>, u16)>,
}

#[derive(Debug, Clone)]
struct Known {
    way: Option<Connector>,
    handle: Handle,
    facts: Arc<Facts>,
    group: Arc<Group>,
}

#[derive(Debug, Clone)]
enum Handle {
    H2(Weak<h2::SendRequest>),
    H3(Weak<h3::SendRequest>),
}

/// What those who share a connection have in common.
#[derive(Debug, Default)]
pub(crate) struct Group {
    members: Mutex<Vec<Member>>,
    /// What the server says that it serves, once it says so.
    origins: Mutex<Option<HashSet<Box<str>>>>,
}

#[derive(Debug, Clone)]
struct Member {
    /// The pool's mark.
    live: Weak<Liveness>,
    /// The origin, unless the connection was made for it.
    origin: Option<Box<str>>,
}

impl Group {
    /// A further member's mark.
    pub(crate) fn join(&self, origin: Option<Box<str>>) -> Arc<Liveness> {
        let live = Arc::new(Liveness::new());
        let mut members = lock(&self.members);
        members.retain(|member| member.live.strong_count() > 0);
        members.push(Member { live: Arc::downgrade(&live), origin });
        live
    }

    /// Nothing new begins on the connection.
    pub(crate) fn drain(&self) {
        self.each(|_, live| live.drain());
    }

    /// The connection is over.
    pub(crate) fn close(&self) {
        self.each(|_, live| live.close());
    }

    fn each(&self, mark: impl Fn(&Member, &Liveness)) {
        // Marked without the lock: the pool then lets go of its handles.
        let members = lock(&self.members).clone();
        for member in members {
            if let Some(live) = member.live.upgrade() {
                mark(&member, &live);
            }
        }
    }

    /// RFC 8336 2.3: the first frame begins the set with the origin that TLS was for, which needs no saying here; later ones add.
    /// Who is on the connection and not in the set leaves it.
    pub(crate) fn add_origins(&self, named: &[Bytes]) {
        {
            let mut origins = lock(&self.origins);
            let origins = origins.get_or_insert_default();
            for origin in named.iter().filter_map(|origin| std::str::from_utf8(origin).ok()) {
                if origins.len() < MAX_ORIGINS {
                    origins.insert(origin.to_ascii_lowercase().into());
                }
            }
        }
        self.each(|member, live| {
            if member.origin.as_ref().is_some_and(|origin| self.serves(origin) == Some(false)) {
                live.drain();
            }
        });
    }

    /// Whether the server says that it serves `origin`; `None` where it has said nothing of the kind.
    fn serves(&self, origin: &str) -> Option<bool> {
        lock(&self.origins).as_ref().map(|origins| origins.contains(origin))
    }

    fn is_alive(&self) -> bool {
        let is_open = |member: &Member| member.live.upgrade().is_some_and(|live| live.life() == Life::Open);
        lock(&self.members).iter().any(is_open)
    }
}

impl Coalescing {
    /// Lets others join the connection that was made for `key`.
    pub(crate) fn add(&self, key: &Key, conn: &Conn) {
        let (handle, facts, group) = match conn {
            Conn::H1(..) => return,
            Conn::H2(shared) => (Handle::H2(Arc::downgrade(&shared.send)), &shared.facts, &shared.group),
            Conn::H3(shared) => (Handle::H3(Arc::downgrade(&shared.send)), &shared.facts, &shared.group),
        };
        let known = Known { way: key.connector.clone(), handle, facts: facts.clone(), group: group.clone() };
        let mut state = lock(&self.0);
        state.known.retain(Known::is_there);
        if state.known.len() < MAX_KNOWN {
            state.known.push(known);
        }
    }

    /// A share of a connection that serves the origin of `key` too.
    pub(crate) async fn find(&self, key: &Key, connector: &Connector) -> Option<Conn> {
        let candidates: Vec<Known> = {
            let mut state = lock(&self.0);
            state.known.retain(Known::is_there);
            if state.known.is_empty() || state.misdirected.contains(&place(key)) {
                return None;
            }
            state.known.iter().filter(|known| known.may_serve(key)).cloned().collect()
        };
        for known in candidates {
            if known.serves(key, connector).await
                && let Some(conn) = known.join(key)
            {
                tracing::debug!(?key, "coalesced");
                return Some(conn);
            }
        }
        None
    }

    /// A shared connection was not for `key` (RFC 9110 15.5.20): it gets its own from now on.
    pub(crate) fn misdirected(&self, key: &Key) {
        let mut state = lock(&self.0);
        if state.misdirected.len() >= MAX_MISDIRECTED {
            state.misdirected.clear();
        }
        state.misdirected.insert(place(key));
    }
}

fn place(key: &Key) -> (Box<str>, u16) {
    (key.name.clone(), key.endpoint.port())
}

/// The origin as RFC 6454 6.2 writes it.
fn origin(key: &Key) -> Box<str> {
    match key.endpoint.port() {
        443 => format!("https://{}", key.name).into(),
        port => format!("https://{}:{port}", key.name).into(),
    }
}

impl Known {
    fn is_there(&self) -> bool {
        let held = match &self.handle {
            Handle::H2(send) => send.strong_count() > 0,
            Handle::H3(send) => send.strong_count() > 0,
        };
        held && self.group.is_alive()
    }

    /// What can be said without asking anyone: the version, the way, the port and the certificate.
    fn may_serve(&self, key: &Key) -> bool {
        let info = self.facts.info(false);
        let same_way = match (&self.way, &key.connector) {
            (None, None) => true,
            (Some(a), Some(b)) => a.same(b),
            _ => false,
        };
        same_way
            && matches!((&self.handle, key.kind), (Handle::H2(_), Kind::Auto | Kind::H2) | (Handle::H3(_), Kind::H3))
            && info.peer.is_some_and(|peer| peer.port() == key.endpoint.port())
            && info.tls.as_ref().is_some_and(|tls| tls.is_for(&key.name))
    }

    /// Whether the origin is there: the server's own word, or an address in common.
    async fn serves(&self, key: &Key, connector: &Connector) -> bool {
        let (port, Some(peer)) = (key.endpoint.port(), self.facts.info(false).peer) else { return false };
        if connector.policy().check_name(&key.name, port).is_err() {
            return false;
        }
        if let Some(serves) = self.group.serves(&origin(key)) {
            return serves;
        }
        let Some(name) = key.endpoint.name() else { return key.endpoint.socket_addr() == Some(peer) };
        let family = Family::of(peer.ip());
        match tokio::time::timeout(WAIT, connector.resolver().lookup_family(name, family)).await {
            Ok(Ok(answer)) => answer.addrs.contains(&peer.ip()),
            _ => false,
        }
    }

    fn join(&self, key: &Key) -> Option<Conn> {
        let (facts, group) = (self.facts.joined(), self.group.clone());
        let live = group.join(Some(origin(key)));
        match &self.handle {
            Handle::H2(send) => {
                let send = send.upgrade().filter(|send| !send.is_closed())?;
                Some(Conn::H2(Arc::new(Shared { send, facts, live, group })))
            }
            Handle::H3(send) => {
                let send = send.upgrade().filter(|send| !send.is_closed())?;
                Some(Conn::H3(Arc::new(Shared { send, facts, live, group })))
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
