//! A client as what resolves a connector's names.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use portolan_core::resolve::failed;
use portolan_core::{
    Answer, BoxFuture, Connector, Error, Family, Kind, Phase, Resolve, ResolveFailure, Resolver, ResolverSchemes,
    Result, Server, Servers, ServiceRecord, Services, Texts,
};

use super::PROTOCOL;
use super::client::Client;
use super::name::Name;
use super::options::{Options, SCHEMES};
use super::response::{MAX_ALIASES, Response};
use super::types::{Data, Question, Record, RecordType, Srv};

/// A resolver for [`ConnectorBuilder::resolver`](portolan_core::ConnectorBuilder::resolver), with a cache, that asks these servers, the
/// best first; URLs as [`Options::from_url`] reads them, or the word `system`. The next is asked where one fails or is slow, and nobody
/// else ever: without `dns`, `udp`, `tcp` or `system` in the list nothing is sent in the clear. The servers' own names are asked of the
/// resolver of `net`, by which they are reached.
///
/// ```
/// use portolan_core::Connector;
///
/// let servers = ["tls://dns.quad9.net@9.9.9.9", "tls://one.one.one.one@1.1.1.1"];
/// # #[cfg(feature = "dot")]
/// let net = Connector::builder().resolver(portolan_dns::dns::resolver(&Connector::default(), servers)?).build()?;
/// # Ok::<(), portolan_core::Error>(())
/// ```
pub fn resolver<S: AsRef<str>>(net: &Connector, servers: impl IntoIterator<Item = S>) -> Result<Resolver> {
    schemes(ResolverSchemes::default()).resolver(net, servers)
}

/// Adds the schemes of [`Options::from_url`] to those that configuration knows.
pub fn schemes(schemes: ResolverSchemes) -> ResolverSchemes {
    let make = |net: &Connector, url: &str| -> Result<Arc<dyn Resolve>> {
        Ok(Arc::new(Client::new(net, Options::from_url(url)?)?))
    };
    SCHEMES.into_iter().fold(schemes, |schemes, scheme| schemes.with(scheme, make))
}

impl Client {
    /// Both families, and the shortest life of what was found.
    pub(super) async fn lookup(&self, name: Name) -> Result<Answer> {
        let (v4, v6) = futures_util::future::join(
            self.lookup_family(name.clone(), RecordType::A),
            self.lookup_family(name.clone(), RecordType::Aaaa),
        )
        .await;
        let (v6, v4) = match (v6, v4) {
            (Ok(v6), Ok(v4)) => (v6, v4),
            // One family alone is better than nothing, but not finding is only certain when both say so.
            (Ok(found), Err(error)) | (Err(error), Ok(found)) if found.addrs.is_empty() => return Err(error),
            (Ok(found), Err(_)) | (Err(_), Ok(found)) => (found, Answer::new(Vec::new(), None)),
            (Err(error), Err(_)) => return Err(error),
        };
        let ttl = [v6.ttl, v4.ttl].into_iter().flatten().min();
        let addrs: Vec<_> = v6.addrs.into_iter().chain(v4.addrs).collect();
        if addrs.is_empty() {
            return Err(failed(&name.to_string(), ResolveFailure::NoSuchName).with_protocol(PROTOCOL));
        }
        Ok(Answer::new(addrs, ttl))
    }

    async fn lookup_family(&self, name: Name, record_type: RecordType) -> Result<Answer> {
        let (addrs, ttl) = self.followed(name, record_type, Response::addresses).await?;
        Ok(Answer::new(addrs, ttl))
    }

    /// What `take` finds in the answers for `name`, or for what it is an alias of; and the shortest life of all that led there.
    async fn followed<T>(
        &self,
        mut name: Name,
        record_type: RecordType,
        take: impl Fn(&Response) -> Result<Vec<T>>,
    ) -> Result<(Vec<T>, Option<Duration>)> {
        let mut ttl: Option<Duration> = None;
        for _ in 0..MAX_ALIASES {
            let response = self.ask(&Question::new(name.clone(), record_type)).await?;
            let found = take(&response)?;
            ttl = [ttl, response.ttl()].into_iter().flatten().min();
            let canonical = response.canonical_name()?.cloned().unwrap_or_else(|| name.clone());
            if !found.is_empty() || response.is_nxdomain() || canonical == name {
                return Ok((found, ttl));
            }
            // The server told the alias and no more: it does not ask others, or the target is not its own.
            name = canonical;
        }
        Err(Error::protocol(PROTOCOL, format!("more than {MAX_ALIASES} aliases, or a loop of them")))
    }
}

/// Lets a connector's names be resolved by this client: through a proxy, if the client goes through one.
impl Resolve for Client {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Answer>> {
        Box::pin(async move { self.lookup(name.parse()?).await.map_err(|error| unresolved(name, error)) })
    }

    fn resolve_family<'a>(&'a self, name: &'a str, family: Family) -> Option<BoxFuture<'a, Result<Answer>>> {
        let record_type = if family == Family::V4 { RecordType::A } else { RecordType::Aaaa };
        Some(Box::pin(async move {
            let answer = self.lookup_family(name.parse()?, record_type).await;
            let answer = answer.map_err(|error| unresolved(name, error))?;
            if answer.addrs.is_empty() { Err(failed(name, ResolveFailure::NoSuchName)) } else { Ok(answer) }
        }))
    }

    fn finds_services(&self) -> bool {
        true
    }

    fn services<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Services>> {
        Box::pin(async move {
            let records = |response: &Response| Ok(response.answers.iter().filter_map(service).collect());
            let (records, ttl) = self.followed(name.parse()?, RecordType::Https, records).await?;
            Ok(Services::new(records, ttl))
        })
    }

    fn texts<'a>(&'a self, name: &'a str) -> Option<BoxFuture<'a, Result<Texts>>> {
        Some(Box::pin(async move {
            let records = |response: &Response| Ok(response.txt().map(|strings| strings.concat()).collect());
            let (records, ttl) = self.followed(name.parse()?, RecordType::Txt, records).await?;
            Ok(Texts::new(records, ttl))
        }))
    }

    fn servers<'a>(&'a self, name: &'a str) -> Option<BoxFuture<'a, Result<Servers>>> {
        Some(Box::pin(async move {
            let server = |srv: &Srv| Server::new(srv.priority, srv.weight, srv.port, &srv.target.to_string());
            let records = |response: &Response| Ok(response.srv().map(server).collect());
            let (records, ttl) = self.followed(name.parse()?, RecordType::Srv, records).await?;
            Ok(Servers::new(records, ttl))
        }))
    }
}

/// Why there is no answer, with the reason in its words: a cache keeps no more than these.
fn unresolved(name: &str, error: Error) -> Error {
    match error.kind() {
        Kind::Resolve | Kind::Usage => error,
        _ => Error::new(Kind::Resolve, format!("{name}: no answer from the name service: {error}"))
            .with_phase(Phase::Resolve)
            .with_reply(ResolveFailure::Unavailable)
            .with_source(error),
    }
}

fn service(record: &Record) -> Option<ServiceRecord> {
    let Data::Https(said) = &record.data else { return None };
    let own = said.target.is_root() && said.priority != 0;
    let target = if own { &record.name } else { &said.target };
    let target = target.to_string().trim_end_matches('.').to_ascii_lowercase();
    let mut service = ServiceRecord::new(said.priority, target);
    service.alpn.clone_from(&said.alpn);
    service.no_default_alpn = said.no_default_alpn;
    service.port = said.port;
    let v6 = said.ipv6_hint.iter().map(|ip| IpAddr::from(*ip));
    service.hints = v6.chain(said.ipv4_hint.iter().map(|ip| IpAddr::from(*ip))).collect();
    service.mandatory.clone_from(&said.mandatory);
    Some(service)
}
