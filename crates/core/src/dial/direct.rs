//! Sockets of this machine.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{Stream as Answers, StreamExt};
use tokio::net::TcpStream;

use super::{BoxFuture, Dial, DialContext, allowed, check_onion};
use crate::clock::{self, Instant};
use crate::datagram::Datagram;
use crate::endpoint::{Endpoint, Host};
use crate::error::{Error, Kind, Phase, Result};
use crate::happy::{self, Answered, Lost, Rules, Won};
use crate::info::ConnectionInfo;
use crate::observe::{Stepping, Traffic};
use crate::resolve::{Family, Part, canonical};
use crate::sockopt::{Bind, connect_tcp};
use crate::stream::Stream;

/// Opens sockets on this machine: the bottom of every chain.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Direct {
    /// Whether it dials the target itself, and not a first proxy.
    pub last: bool,
}

impl Direct {
    /// The bottom of a chain; `last` if there is no proxy above it.
    pub fn new(last: bool) -> Self {
        Self { last }
    }

    async fn stream(self, to: &Endpoint, cx: &DialContext) -> Result<Stream> {
        #[cfg(unix)]
        if let Host::Unix(path) = to.host() {
            cx.policy(self.last).check_unix(path)?;
            return unix(path, cx).await;
        }
        let won = match to.name() {
            Some(name) => self.named(name, to.port(), cx, |addr| tcp(addr, cx)).await?,
            None => self.single(to, cx).await?,
        };
        cx.note(|p| {
            p.address = Some(won.addr);
            p.timings.connect = Some(clock::now() - won.began);
        });
        if let Some(name) = to.name() {
            cx.settings.remember(name, &won);
        }
        Ok(Stream::from_tcp(won.value))
    }

    /// Datagrams to each address of a name, until `handshake` succeeds over one. Which family wins is not remembered: UDP may be
    /// barred where TCP is not.
    pub(crate) async fn datagrams<T, F, Fut>(
        self,
        name: &str,
        port: u16,
        cx: &DialContext,
        traffic: Option<&Arc<Traffic>>,
        handshake: F,
    ) -> Result<(T, ConnectionInfo)>
    where
        F: Fn(Datagram) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let handshake = &handshake;
        let attempt = |addr| {
            Box::pin(async move {
                let datagram = Datagram::connected(addr, &cx.settings.bind);
                let datagram = datagram.map_err(|error| Error::io(Phase::Connect, error))?.counted(traffic.cloned());
                let info = datagram.info().clone();
                Ok((handshake(datagram).await?, info))
            })
        };
        let won = self.named(name, port, cx, attempt).await?;
        cx.note(|p| p.address = Some(won.addr));
        Ok(won.value)
    }

    /// Connects to an address that needs no resolving.
    async fn single(self, to: &Endpoint, cx: &DialContext) -> Result<Won<TcpStream>> {
        let addrs = self.addrs(to, cx).await;
        let answers = futures_util::stream::iter([(None, addrs)]);
        let connect = |addr| tcp(addr, cx);
        raced(answers, None, &[Family::V4, Family::V6], cx, connect).await.map_err(|lost| lost.error)
    }

    /// Resolves a name and connects, each family as soon as it is there. The policy sees every address before it is tried.
    async fn named<T, F, Fut>(self, name: &str, port: u16, cx: &DialContext, connect: F) -> Result<Won<T>>
    where
        F: Fn(SocketAddr) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let settings = &cx.settings;
        let policy = cx.policy(self.last);
        policy.check_name(name, port)?;
        check_onion(name)?;
        let families: Vec<Family> =
            [Family::V6, Family::V4].into_iter().filter(|family| settings.bind.reaches(any(*family))).collect();
        let started = clock::now();
        let parts = settings.resolver.parts(name, &families, settings.timeouts.resolve_limit());
        let mut step = Stepping::begin(cx, Phase::Resolve);
        let answers = parts.map(|Part { family, answer }| {
            step.part(&answer);
            let addrs = answer.and_then(|answer| allowed(name, port, answer, policy));
            (family, addrs.and_then(|addrs| reachable(addrs, &settings.bind)))
        });
        let won = raced(answers, Some((name, started)), &families, cx, connect).await;
        won.map_err(|lost| {
            if lost.tried {
                // The name may lead elsewhere by now: the next call asks anew.
                settings.resolver.forget(name);
                settings.winners.forget(&canonical(name));
            }
            lost.error
        })
    }

    async fn addrs(self, to: &Endpoint, cx: &DialContext) -> Result<Vec<SocketAddr>> {
        reachable(cx.resolve(to, self.last).await?, &cx.settings.bind)
    }

    async fn socket(self, to: &Endpoint, cx: &DialContext) -> Result<Datagram> {
        let addrs = self.addrs(to, cx).await?;
        let mut last = None;
        for addr in addrs {
            cx.note(|p| {
                p.address = Some(addr);
                p.attempts += 1;
            });
            match Datagram::connected(addr, &cx.settings.bind) {
                Ok(datagram) => return Ok(datagram),
                Err(error) => last = Some(Error::io(Phase::Connect, error)),
            }
        }
        Err(last.unwrap_or_else(|| Error::new(Kind::Connect, "no address")))
    }
}

impl Dial for Direct {
    fn dial<'a>(&'a self, to: &'a Endpoint, cx: &'a DialContext) -> BoxFuture<'a, Result<Stream>> {
        Box::pin(self.stream(to, cx))
    }

    fn datagram<'a>(&'a self, to: &'a Endpoint, cx: &'a DialContext) -> BoxFuture<'a, Result<Datagram>> {
        Box::pin(self.socket(to, cx))
    }
}

async fn tcp(addr: SocketAddr, cx: &DialContext) -> Result<TcpStream> {
    let connected = connect_tcp(addr, &cx.settings.bind, &cx.settings.tcp).await;
    connected.map_err(|error| Error::io(Phase::Connect, error))
}

/// Races what `answers` gives. `named` is the name and since when it is being resolved.
async fn raced<T, F, Fut>(
    answers: impl Answers<Item = Answered> + Unpin,
    named: Option<(&str, Instant)>,
    families: &[Family],
    cx: &DialContext,
    connect: F,
) -> std::result::Result<Won<T>, Lost>
where
    F: Fn(SocketAddr) -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let settings = &cx.settings;
    let name = named.map(|(name, _)| canonical(name));
    let remembered = name.as_ref().and_then(|name| settings.winners.of(name));
    let limit = settings.timeouts.connect_limit();
    let rules = Rules { options: &settings.happy, remembered, families, limit };
    let attempt_limit = settings.timeouts.attempt_limit();
    let first = AtomicBool::new(true);
    let attempt = |addr| {
        if let Some((_, since)) = named.filter(|_| first.swap(false, Ordering::Relaxed)) {
            cx.note(|p| *p.timings.resolve.get_or_insert_default() += clock::now() - since);
        }
        cx.tried(addr, clock::within(attempt_limit, Phase::Connect, connect(addr)))
    };
    happy::race(answers, rules, attempt).await
}

/// An address of a family, whichever.
fn any(family: Family) -> SocketAddr {
    let ip: IpAddr = match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(ip, 0)
}

/// Those that a socket of ours can reach.
fn reachable(mut addrs: Vec<SocketAddr>, bind: &Bind) -> Result<Vec<SocketAddr>> {
    addrs.retain(|addr| bind.reaches(*addr));
    if addrs.is_empty() {
        let message = "no address of the family of the local address";
        return Err(Error::new(Kind::Connect, message).with_phase(Phase::Connect));
    }
    Ok(addrs)
}

#[cfg(unix)]
#[allow(clippy::disallowed_methods, reason = "this is the place where sockets are opened")]
async fn unix(path: &std::path::Path, cx: &DialContext) -> Result<Stream> {
    let started = clock::now();
    let connect =
        async { tokio::net::UnixStream::connect(path).await.map_err(|error| Error::io(Phase::Connect, error)) };
    let stream = clock::within(cx.settings.timeouts.connect_limit(), Phase::Connect, connect).await?;
    cx.note(|p| {
        p.attempts += 1;
        p.timings.connect = Some(clock::now() - started);
    });
    Ok(Stream::from_unix(stream))
}
