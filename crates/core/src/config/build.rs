//! From configuration to a builder.

use std::time::Duration;

use super::text::Ports;
use super::{
    BindConfig, Config, HappyConfig, PolicyConfig, Preset, ResolverConfig, ResolverKind, RouteConfig, TcpConfig,
    TimeoutsConfig, WayConfig, is_default,
};
use crate::connector::{Connector, ConnectorBuilder};
use crate::error::{Error, Phase, Result};
use crate::happy::HappyOptions;
use crate::hop::{Hop, HopSchemes, Route};
use crate::policy::Policy;
use crate::resolve::{CacheOptions, Resolver, ResolverSchemes};
use crate::sockopt::{Bind, SourcePort, TcpOptions};
use crate::timeouts::{Limit, Timeouts};

pub(super) fn builder(config: &Config, hops: &HopSchemes, resolvers: &ResolverSchemes) -> Result<ConnectorBuilder> {
    let mut net = plain(config, hops)?;
    let named = &config.resolver;
    let resolver = if named.servers.is_empty() {
        if !named.bootstrap.is_empty() || named.tls.is_some() {
            return Err(Error::usage("resolver: bootstrap and tls are for servers, and there are none"));
        }
        of_kind(named.kind)?
    } else {
        resolvers.resolver(&to_servers(config, net.clone(), resolvers)?, &named.servers)?
    };
    let mut resolver = cached(named, resolver)?;
    for (name, addrs) in &config.hosts {
        resolver = resolver.with_override(name, addrs.iter().copied());
    }
    if let Some(header) = &config.proxy_header {
        net = net.proxy_header(header.to_header()?);
    }
    Ok(net.resolver(resolver))
}

/// How name servers are reached: by the same hops, but as somebody whom the operator has named, and with their own addresses found by
/// somebody else.
fn to_servers(config: &Config, net: ConnectorBuilder, resolvers: &ResolverSchemes) -> Result<Connector> {
    let mut net = net.policy(policy(&config.hop_policy)?);
    if let Some(tls) = &config.resolver.tls {
        net = net.tls(tls.to_tls()?);
    }
    let mut resolver = if config.resolver.bootstrap.is_empty() {
        of_kind(config.resolver.kind)?
    } else {
        resolvers.resolver(&net.clone().build()?, &config.resolver.bootstrap)?
    };
    for (name, addrs) in &config.hosts {
        resolver = resolver.with_override(name, addrs.iter().copied());
    }
    net.resolver(resolver).build()
}

/// All but the resolver, and what targets alone are told.
fn plain(config: &Config, schemes: &HopSchemes) -> Result<ConnectorBuilder> {
    let mut net = Connector::builder()
        .policy(of("policy", policy(&config.policy))?)
        .hop_policy(of("hop_policy", policy(&config.hop_policy))?)
        .trust_hop_resolution(config.trust_hop_resolution)
        .timeouts(timeouts(&config.timeouts))
        .tcp(tcp(&config.tcp)?)
        .happy_eyeballs(happy(&config.happy_eyeballs));
    if !is_default(&config.bind) {
        net = net.bind(bind(&config.bind));
    }
    if !is_default(&config.tls) {
        net = net.tls(of("tls", config.tls.to_tls())?);
    }
    if !is_default(&config.hop_tls) {
        net = net.hop_tls(of("hop_tls", config.hop_tls.to_tls())?);
    }
    ways(config, schemes, net)
}

fn ways(config: &Config, schemes: &HopSchemes, mut net: ConnectorBuilder) -> Result<ConnectorBuilder> {
    if let Some(direct) = &config.no_proxy {
        net = net.route(of("no_proxy", Route::to(direct))?.direct());
    }
    for (at, route) in config.routes.iter().enumerate() {
        net = net.route(of(&format!("routes[{at}]"), self::route(route, schemes))?);
    }
    if config.proxy_from_env {
        if config.via.is_some() {
            return Err(Error::usage("via and proxy_from_env: one of them says the way"));
        }
        net = net.proxy_from_env_with(schemes)?;
    }
    if config.proxy_from_system {
        if config.via.is_some() || config.proxy_from_env {
            return Err(Error::usage("via, proxy_from_env and proxy_from_system: one of them says the way"));
        }
        net = net.proxy_from_system_with(schemes)?;
    }
    if config.via.is_none() && !config.or_via.is_empty() {
        return Err(Error::usage("or_via without via"));
    }
    for (key, ways) in [("via", config.via.as_slice()), ("or_via", &config.or_via)] {
        for chain in of(key, chains(ways.iter(), schemes))? {
            net = net.or_via(chain);
        }
    }
    Ok(net)
}

/// Says where in the configuration it is what does not fit: the line is not known any more.
fn of<T>(key: &str, result: Result<T>) -> Result<T> {
    result.map_err(|error| {
        let told = Error::new(error.kind(), format!("{key}: {}", error.message()));
        told.with_phase(Phase::Setup).with_source(error)
    })
}

fn chains<'a>(ways: impl Iterator<Item = &'a WayConfig>, schemes: &HopSchemes) -> Result<Vec<Vec<Hop>>> {
    let chains = ways.map(|way| way.to_chains(schemes)).collect::<Result<Vec<_>>>()?;
    Ok(chains.into_iter().flatten().collect())
}

fn route(config: &RouteConfig, schemes: &HopSchemes) -> Result<Route> {
    let mut route = match &config.to {
        Some(patterns) => Route::to(patterns)?,
        None => Route::all(),
    };
    for scheme in &config.schemes {
        route = route.scheme(scheme);
    }
    for chain in chains(std::iter::once(&config.via).chain(&config.or_via), schemes)? {
        route = route.via(chain);
    }
    Ok(route)
}

fn policy(config: &PolicyConfig) -> Result<Policy> {
    let mut policy = match config.preset {
        Preset::Any => Policy::any(),
        Preset::PublicOnly => Policy::public_only(),
    };
    for net in &config.allow {
        policy = policy.allow(net)?;
    }
    for net in &config.deny {
        policy = policy.deny(net)?;
    }
    for name in &config.allow_hosts {
        policy = policy.allow_host(name);
    }
    for name in &config.deny_hosts {
        policy = policy.deny_host(name);
    }
    for ports in &config.ports {
        policy = policy.allow_ports(match ports {
            Ports::One(port) => *port..=*port,
            Ports::Range(range) => range.clone(),
            Ports::Privileged => crate::PRIVILEGED,
        });
    }
    Ok(match config.unix {
        Some(on) => policy.allow_unix(on),
        None => policy,
    })
}

fn of_kind(kind: ResolverKind) -> Result<Resolver> {
    Ok(match kind {
        ResolverKind::System => Resolver::system(),
        #[cfg(feature = "dns-hickory")]
        ResolverKind::Hickory => Resolver::new(crate::resolve::Hickory::from_system()?),
        #[cfg(not(feature = "dns-hickory"))]
        ResolverKind::Hickory => {
            return Err(Error::new(crate::Kind::Unsupported, "built without the feature `dns-hickory`"));
        }
    })
}

fn cached(config: &ResolverConfig, resolver: Resolver) -> Result<Resolver> {
    if config.cache == Some(false) {
        let times = [config.unknown_ttl, config.min_ttl, config.max_ttl, config.negative_ttl];
        return if times.iter().all(Option::is_none) && config.entries.is_none() {
            Ok(resolver.uncached())
        } else {
            Err(Error::usage("a resolver without cache has no times to keep answers"))
        };
    }
    let mut cache = CacheOptions::default();
    if let Some(ttl) = config.unknown_ttl {
        cache = cache.unknown_ttl(ttl);
    }
    match (config.min_ttl, config.max_ttl) {
        (Some(min), Some(max)) if min <= max => cache = cache.ttl_bounds(min, max),
        (None, None) => {}
        _ => return Err(Error::usage("min_ttl and max_ttl go together, the lesser first")),
    }
    if let Some(ttl) = config.negative_ttl {
        cache = cache.negative_ttl(ttl);
    }
    if let Some(entries) = config.entries {
        cache = cache.entries(entries);
    }
    Ok(resolver.cached(cache))
}

fn timeouts(config: &TimeoutsConfig) -> Timeouts {
    Timeouts::default()
        .resolve(config.resolve)
        .connect(config.connect)
        .attempt(config.attempt)
        .hop(config.hop)
        .tls(config.tls)
        .handshake(config.handshake)
        .first_byte(config.first_byte)
        .idle(config.idle)
        .total(config.total)
}

fn bind(config: &BindConfig) -> Bind {
    let mut bind = Bind::any();
    if let Some(addr) = config.addr {
        bind = bind.addr(addr);
    }
    if let Some(interface) = &config.interface {
        bind = bind.interface(interface);
    }
    match &config.port {
        None => bind,
        Some(Ports::One(port)) => bind.port(SourcePort::Fixed(*port)),
        Some(Ports::Range(range)) => bind.port(SourcePort::Range(range.clone())),
        Some(Ports::Privileged) => bind.port(SourcePort::Privileged),
    }
}

fn tcp(config: &TcpConfig) -> Result<TcpOptions> {
    let mut tcp = TcpOptions::default();
    if let Some(on) = config.nodelay {
        tcp = tcp.nodelay(on);
    }
    tcp = match config.keepalive {
        Limit::Unset => tcp,
        Limit::Off => tcp.keepalive(None),
        Limit::After(idle) => tcp.keepalive(Some(idle)),
    };
    match (config.keepalive_interval, config.keepalive_count) {
        (Some(interval), Some(count)) => tcp = tcp.keepalive_probes(interval, count),
        (None, None) => {}
        _ => return Err(Error::usage("keepalive_interval and keepalive_count go together")),
    }
    if let Some(limit) = config.user_timeout {
        tcp = tcp.user_timeout(limit);
    }
    if let Some(tos) = config.tos {
        tcp = tcp.tos(u32::from(tos));
    }
    if let Some(bytes) = config.send_buffer {
        tcp = tcp.send_buffer(bytes);
    }
    if let Some(bytes) = config.recv_buffer {
        tcp = tcp.recv_buffer(bytes);
    }
    Ok(tcp)
}

fn happy(config: &HappyConfig) -> HappyOptions {
    let mut happy = HappyOptions::default();
    let set =
        |value: Option<Duration>, happy: HappyOptions, set: fn(HappyOptions, Duration) -> HappyOptions| match value {
            Some(value) => set(happy, value),
            None => happy,
        };
    happy = set(config.attempt_delay, happy, HappyOptions::attempt_delay);
    happy = set(config.resolution_delay, happy, HappyOptions::resolution_delay);
    happy = set(config.memory, happy, HappyOptions::memory);
    if let Some(count) = config.first_family_count {
        happy = happy.first_family_count(count);
    }
    if let Some(on) = config.prefer_v4 {
        happy = happy.prefer_v4(on);
    }
    happy
}
