//! HTTPS records: where an origin is served, and by which versions (RFC 9460).

use std::net::IpAddr;
use std::time::Duration;

use http::Uri;
use portolan_core::{Connector, Endpoint, Error, Kind as ErrorKind, Phase, Resolver, Result, ServiceRecord, Timeouts};

use crate::body::Body;
use crate::client::Client;
use crate::key::{Key, Kind};
use crate::response::Response;
use crate::ways::{Ways, may_go_on};

/// How long a request waits for records. Who asks later finds them: the look-up goes on.
const WAIT: Duration = Duration::from_millis(300);
/// Aliases of aliases that are followed.
const MAX_ALIASES: usize = 4;
/// Bindings of one origin that are tried, and addresses of one hint.
const MAX_BINDINGS: usize = 4;
/// The keys that are understood: mandatory, alpn, no-default-alpn, port, ipv4hint and ipv6hint.
const UNDERSTOOD: [u16; 6] = [0, 1, 2, 3, 4, 6];

/// One place where an origin is served.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Binding {
    host: String,
    port: u16,
    h1: bool,
    h2: bool,
    h3: bool,
    hints: Vec<IpAddr>,
}

impl Binding {
    /// What `record` says, if we understand it and speak what is spoken there (RFC 9460 8).
    fn of(record: &ServiceRecord, port: u16) -> Option<Self> {
        if record.mandatory.iter().any(|key| !UNDERSTOOD.contains(key))
            || (record.no_default_alpn && record.alpn.is_empty())
        {
            return None;
        }
        let speaks = |name: &str| record.alpn.iter().any(|alpn| alpn == name);
        let (h2, h3) = (speaks("h2"), speaks("h3"));
        let h1 = !record.no_default_alpn || speaks("http/1.1");
        let (host, port, hints) = (record.target.clone(), record.port.unwrap_or(port), record.hints.clone());
        (h1 || h2 || h3).then_some(Self { host, port, h1, h2, h3, hints })
    }

    /// How it is reached by the kind of connection that `key` is for, at `endpoint`; `None` if it isn't.
    fn ways(&self, key: &Key, endpoint: Endpoint, client: &Client) -> Option<Ways> {
        let endpoint = endpoint.with_scheme("https");
        let by = |kind| key.alternative(endpoint.clone(), kind);
        let open = |key: Key| (!client.broken().is(&key)).then_some(key);
        let ways = match key.kind {
            Kind::H1 => Ways::One(self.h1.then(|| by(Kind::H1)).and_then(open)?),
            Kind::H2 => Ways::One(self.h2.then(|| by(Kind::H2)).and_then(open)?),
            Kind::H3 => Ways::One(self.h3.then(|| by(Kind::H3)).and_then(open)?),
            Kind::Auto => {
                let h3 = self.h3.then(|| by(Kind::H3)).and_then(open);
                let other = (self.h1 || self.h2).then(|| by(Kind::Auto)).and_then(open);
                match (h3, other) {
                    (Some(h3), other) => {
                        let other = other.unwrap_or_else(|| key.clone());
                        Ways::Raced { h3, other, told: None }
                    }
                    (None, Some(other)) => Ways::One(other),
                    (None, None) => return None,
                }
            }
        };
        Some(ways)
    }
}

/// Where `host` and `port` are served, the best first; empty where nothing is said.
async fn bindings(resolver: &Resolver, host: &str, port: u16) -> Vec<Binding> {
    let mut name = if port == 443 { host.to_owned() } else { format!("_{port}._https.{host}") };
    for aliases in 0..=MAX_ALIASES {
        let records = resolver.services(&name).await;
        // RFC 9460 2.4.2: an alias makes all else of no account; without a target it says that there is nothing.
        match records.iter().find(|record| record.priority == 0) {
            Some(alias) if alias.target.is_empty() => return Vec::new(),
            Some(alias) => name.clone_from(&alias.target),
            None if records.is_empty() && aliases > 0 => {
                return vec![Binding { host: name, port, h1: true, h2: true, h3: false, hints: Vec::new() }];
            }
            None => return sorted(&records, port),
        }
    }
    Vec::new()
}

/// By priority; in any order where that is the same, so that load is spread (RFC 9460 2.4.1).
fn sorted(records: &[ServiceRecord], port: u16) -> Vec<Binding> {
    let random = || {
        let mut bytes = [0; 2];
        // Without randomness the order is the server's.
        let _ = getrandom::fill(&mut bytes);
        u16::from_be_bytes(bytes)
    };
    let mut found: Vec<_> =
        records.iter().filter_map(|record| Some(((record.priority, random()), Binding::of(record, port)?))).collect();
    found.sort_by_key(|(order, _)| *order);
    found.into_iter().map(|(_, binding)| binding).take(MAX_BINDINGS).collect()
}

impl Client {
    /// Whether records may say where the connections of `key` go. Through hops they do not: the name is theirs to resolve.
    pub(crate) fn has_records(&self, key: &Key) -> bool {
        let connector = key.connector.as_ref().unwrap_or_else(|| self.connector());
        self.settings().https_records
            && key.tls
            && key.endpoint.name().is_some()
            && connector.resolver().finds_services()
            && connector.is_direct(&key.endpoint)
    }

    async fn found(&self, connector: &Connector, host: &str, port: u16) -> Vec<Binding> {
        tokio::time::timeout(WAIT, bindings(connector.resolver(), host, port)).await.unwrap_or_default()
    }

    /// The https URL of an http one whose host has HTTPS records (RFC 9460 9.5).
    pub(crate) async fn secured(&self, uri: &Uri, connector: Option<&Connector>) -> Option<Uri> {
        let connector = connector.unwrap_or_else(|| self.connector());
        if uri.scheme_str() != Some("http") || !self.settings().https_records || !connector.resolver().finds_services()
        {
            return None;
        }
        let secure = crate::uri::secure(uri)?;
        let key = Key::new(&secure, Kind::Auto, Some(connector.clone())).ok()?;
        if !self.has_records(&key) {
            return None;
        }
        let found = Box::pin(self.found(connector, &key.name, key.endpoint.port())).await;
        (!found.is_empty()).then_some(secure)
    }

    /// One attempt at each place that the records of the origin of `key` name; `None` if that leaves it to the origin itself.
    pub(crate) async fn by_records(
        &self,
        key: &Key,
        parts: &http::request::Parts,
        body: &mut Body,
        timeouts: &Timeouts,
    ) -> Option<Result<Response>> {
        let connector = key.connector.as_ref().unwrap_or_else(|| self.connector());
        for binding in self.found(connector, &key.name, key.endpoint.port()).await {
            let named = Endpoint::new(&binding.host, binding.port).ok();
            let hints = binding
                .hints
                .iter()
                .take(MAX_BINDINGS)
                .filter_map(|ip| Endpoint::new(ip.to_string(), binding.port).ok());
            for endpoint in named.into_iter().chain(hints) {
                let Some(ways) = binding.ways(key, endpoint, self) else { break };
                let tried = ways.last().clone();
                match Box::pin(self.by_several(ways, parts, body, timeouts)).await {
                    Err(error) if leaves_hints(&error) => tracing::debug!(%error, "taking the hints"),
                    Err(error) if may_go_on(&error, body) => {
                        tracing::debug!(%error, host = binding.host, "passed a binding over");
                        if tried != *key {
                            self.broken().add(&tried);
                        }
                        break;
                    }
                    result => return Some(result),
                }
            }
        }
        None
    }
}

/// Whether the name could not be resolved: then the addresses that came with the record may serve (RFC 9460 7.3).
fn leaves_hints(error: &Error) -> bool {
    error.kind() == ErrorKind::Resolve || (error.is_timeout() && error.phase() == Some(Phase::Resolve))
}
