//! Which destinations go which way.

use crate::endpoint::{Endpoint, Host};
use crate::error::Result;
use crate::hop::Hop;
use crate::policy::Net;

/// A way of its own for some destinations.
///
/// ```
/// use portolan_core::{Connector, Hop, Route};
///
/// let net = Connector::builder()
///     .route(Route::to("*.internal, 10.0.0.0/8")?.direct())
///     .via(Hop::parse("http://proxy.example:3128")?)
///     .build()?;
/// # Ok::<(), portolan_core::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Route {
    scheme: Vec<String>,
    patterns: Option<Vec<Pattern>>,
    chains: Vec<Vec<Hop>>,
}

#[derive(Debug, Clone)]
struct Pattern {
    host: HostPattern,
    port: Option<u16>,
}

#[derive(Debug, Clone)]
enum HostPattern {
    All,
    /// The name and all under it.
    Suffix(String),
    /// Only what is under it.
    Under(String),
    /// Names without a dot.
    Local,
    Net(Net),
}

impl Net {
    fn of(text: &str) -> Option<Self> {
        Self::parse(text).ok()
    }
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text())
    }
}

impl Route {
    /// For these destinations, separated by commas or spaces: `example.org` (and all under it), `*.example.org` (only under it),
    /// `10.0.0.0/8`, `[::1]`, each with a port behind a colon where only that is meant; `<local>` for names without a dot; `*` for all.
    pub fn to(patterns: &str) -> Result<Self> {
        let parsed = split(patterns).map(pattern).collect::<Result<_>>()?;
        Ok(Self { scheme: Vec::new(), patterns: Some(parsed), chains: Vec::new() })
    }

    /// As [`to`](Self::to), without what is no pattern.
    pub(crate) fn to_known(patterns: &str) -> Self {
        let parsed = split(patterns).filter_map(|text| pattern(text).ok()).collect();
        Self { scheme: Vec::new(), patterns: Some(parsed), chains: Vec::new() }
    }

    /// For every destination.
    pub fn all() -> Self {
        Self { scheme: Vec::new(), patterns: None, chains: Vec::new() }
    }

    /// Only for endpoints of this scheme; repeat for more.
    pub fn scheme(mut self, scheme: &str) -> Self {
        self.scheme.push(scheme.to_ascii_lowercase());
        self
    }

    /// Without any proxy.
    pub fn direct(mut self) -> Self {
        self.chains.clear();
        self
    }

    /// Through these proxies, the nearest first; again for a chain to try when those before it fail, as in
    /// [`or_via`](crate::ConnectorBuilder::or_via).
    pub fn via(mut self, hops: impl IntoIterator<Item = Hop>) -> Self {
        self.chains.push(hops.into_iter().collect());
        self
    }

    /// Whether `to` goes this way.
    pub fn matches(&self, to: &Endpoint) -> bool {
        let scheme =
            self.scheme.is_empty() || to.scheme().is_some_and(|scheme| self.scheme.iter().any(|s| s == scheme));
        scheme && self.patterns.as_ref().is_none_or(|patterns| patterns.iter().any(|pattern| pattern.matches(to)))
    }

    pub(crate) fn chains(&self) -> &[Vec<Hop>] {
        &self.chains
    }
}

impl Pattern {
    fn matches(&self, to: &Endpoint) -> bool {
        if self.port.is_some_and(|port| port != to.port()) {
            return false;
        }
        match (&self.host, to.host()) {
            (HostPattern::All, _) => true,
            (HostPattern::Net(net), Host::Ip(ip, _)) => net.contains(*ip),
            (HostPattern::Suffix(suffix), Host::Name(name)) => &**name == suffix || under(name, suffix),
            (HostPattern::Under(suffix), Host::Name(name)) => under(name, suffix),
            (HostPattern::Local, Host::Name(name)) => !name.contains('.'),
            _ => false,
        }
    }
}

fn split(patterns: &str) -> impl Iterator<Item = &str> {
    patterns.split(|c: char| c == ',' || c.is_whitespace()).filter(|text| !text.is_empty())
}

fn under(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix).is_some_and(|head| head.ends_with('.'))
}

fn pattern(text: &str) -> Result<Pattern> {
    if text == "*" {
        return Ok(Pattern { host: HostPattern::All, port: None });
    }
    if let Some(net) = Net::of(text) {
        return Ok(Pattern { host: HostPattern::Net(net), port: None });
    }
    let (host, port) = crate::endpoint::split_port(text)?;
    if let Some(net) = Net::of(host) {
        return Ok(Pattern { host: HostPattern::Net(net), port });
    }
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let host = match host.strip_prefix("*.") {
        _ if host == "<local>" => HostPattern::Local,
        Some(suffix) => HostPattern::Under(suffix.to_owned()),
        None => HostPattern::Suffix(host.trim_start_matches('.').to_owned()),
    };
    Ok(Pattern { host, port })
}

/// All ways of a connector.
#[derive(Debug, Clone, Default)]
pub(crate) struct Routes {
    routes: Vec<Route>,
    fallback: Vec<Vec<Hop>>,
}

impl Routes {
    /// A further hop of the chain being built.
    pub(crate) fn push_hop(&mut self, hop: Hop) {
        match self.fallback.last_mut() {
            Some(chain) => chain.push(hop),
            None => self.fallback.push(vec![hop]),
        }
    }

    /// A further chain.
    pub(crate) fn push_chain(&mut self, hops: Vec<Hop>) {
        self.fallback.push(hops);
    }

    pub(crate) fn push_route(&mut self, route: Route) {
        self.routes.push(route);
    }

    pub(crate) fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Every hop of every way.
    pub(crate) fn hops(&self) -> impl Iterator<Item = &Hop> {
        let routed = self.routes.iter().flat_map(|route| &route.chains);
        routed.chain(&self.fallback).flatten()
    }

    pub(crate) fn fallback(&self) -> &[Vec<Hop>] {
        &self.fallback
    }
}
