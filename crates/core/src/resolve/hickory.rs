//! The hickory resolver: times to live from the wire, and no blocking pool.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::rdata::SVCB;
use hickory_resolver::proto::rr::rdata::svcb::SvcParamValue;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use super::{
    Answer, Family, Resolve, ResolveFailure, Server, Servers, ServiceRecord, Services, Texts, canonical, failed,
};
use crate::clock;
use crate::dial::BoxFuture;
use crate::error::{Error, Kind, Phase, Result};

/// Asks the name servers of the system's configuration itself.
pub struct Hickory(TokioResolver);

impl Hickory {
    /// With the system's name servers.
    pub fn from_system() -> Result<Self> {
        let broken = |error: NetError| {
            Error::new(Kind::Resolve, "the system's resolver configuration cannot be read")
                .with_phase(Phase::Setup)
                .with_source(error)
        };
        let builder = TokioResolver::builder_tokio().map_err(broken)?;
        builder.build().map(Self).map_err(broken)
    }

    /// A hickory resolver made elsewhere.
    pub fn new(resolver: TokioResolver) -> Self {
        Self(resolver)
    }

    /// What `pick` takes of the records of one type, and how long they hold; none is no error.
    async fn records<T>(
        &self,
        name: &str,
        kind: RecordType,
        pick: impl Fn(&Record) -> Option<T>,
    ) -> Result<(Vec<T>, Option<Duration>)> {
        match self.0.lookup(format!("{name}."), kind).await {
            Ok(answer) => Ok((answer.answers().iter().filter_map(pick).collect(), Some(left(answer.valid_until())))),
            Err(error) if error.is_nx_domain() || error.is_no_records_found() => Ok((Vec::new(), None)),
            Err(error) => Err(failed(name, ResolveFailure::Unavailable).with_source(error)),
        }
    }

    /// Whether both families say that there is no record. `lookup_ip` tells of one alone: of an empty AAAA even when the
    /// server failed over the A, and that is no certain answer.
    async fn has_neither(&self, name: &str) -> bool {
        let name = format!("{name}.");
        let (four, six) = tokio::join!(self.0.ipv4_lookup(name.as_str()), self.0.ipv6_lookup(name.as_str()));
        let none = |error: NetError| error.is_no_records_found();
        four.is_err_and(none) && six.is_err_and(none)
    }
}

impl Resolve for Hickory {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Answer>> {
        Box::pin(async move {
            // The dot keeps it from trying the search list: names are whole here.
            let answer = match self.0.lookup_ip(format!("{name}.")).await {
                Ok(answer) => answer,
                Err(error) => {
                    let certain = error.is_nx_domain() || (error.is_no_records_found() && self.has_neither(name).await);
                    let why = if certain { ResolveFailure::NoSuchName } else { ResolveFailure::Unavailable };
                    return Err(failed(name, why).with_source(error));
                }
            };
            Ok(Answer::new(answer.iter().collect(), Some(left(answer.valid_until()))))
        })
    }

    fn resolve_family<'a>(&'a self, name: &'a str, family: Family) -> Option<BoxFuture<'a, Result<Answer>>> {
        Some(Box::pin(async move {
            let kind = if family == Family::V4 { RecordType::A } else { RecordType::AAAA };
            match self.0.lookup(format!("{name}."), kind).await {
                // Aliases come along with the addresses.
                Ok(answer) => {
                    let addrs = answer.answers().iter().filter_map(|record| record.data.ip_addr()).collect();
                    Ok(Answer::new(addrs, Some(left(answer.valid_until()))))
                }
                Err(error) => {
                    let certain = error.is_nx_domain() || error.is_no_records_found();
                    let why = if certain { ResolveFailure::NoSuchName } else { ResolveFailure::Unavailable };
                    Err(failed(name, why).with_source(error))
                }
            }
        }))
    }

    fn finds_services(&self) -> bool {
        true
    }

    fn services<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Services>> {
        Box::pin(async move {
            let service = |record: &Record| match &record.data {
                RData::HTTPS(https) => Some(service(&record.name, &https.0)),
                _ => None,
            };
            let (records, ttl) = self.records(name, RecordType::HTTPS, service).await?;
            Ok(Services::new(records, ttl))
        })
    }

    fn texts<'a>(&'a self, name: &'a str) -> Option<BoxFuture<'a, Result<Texts>>> {
        Some(Box::pin(async move {
            let text = |record: &Record| match &record.data {
                RData::TXT(txt) => Some(txt.txt_data.concat()),
                _ => None,
            };
            let (records, ttl) = self.records(name, RecordType::TXT, text).await?;
            Ok(Texts::new(records, ttl))
        }))
    }

    fn servers<'a>(&'a self, name: &'a str) -> Option<BoxFuture<'a, Result<Servers>>> {
        Some(Box::pin(async move {
            let server = |record: &Record| match &record.data {
                RData::SRV(srv) => Some(Server::new(srv.priority, srv.weight, srv.port, &srv.target.to_ascii())),
                _ => None,
            };
            let (records, ttl) = self.records(name, RecordType::SRV, server).await?;
            Ok(Servers::new(records, ttl))
        }))
    }
}

fn service(owner: &Name, said: &SVCB) -> ServiceRecord {
    // A dot is the record's own name, but for an alias: that says that there is no service (RFC 9460 2.5).
    let own = said.target_name.is_root() && said.svc_priority != 0;
    let target = if own { owner } else { &said.target_name };
    let mut record = ServiceRecord::new(said.svc_priority, canonical(&target.to_ascii()));
    for (_, value) in &said.svc_params {
        match value {
            SvcParamValue::Mandatory(keys) => record.mandatory = keys.0.iter().map(|key| u16::from(*key)).collect(),
            SvcParamValue::Alpn(alpn) => record.alpn.clone_from(&alpn.0),
            SvcParamValue::NoDefaultAlpn => record.no_default_alpn = true,
            SvcParamValue::Port(port) => record.port = Some(*port),
            SvcParamValue::Ipv4Hint(hint) => record.hints.extend(hint.0.iter().map(|a| IpAddr::from(a.0))),
            SvcParamValue::Ipv6Hint(hint) => record.hints.extend(hint.0.iter().map(|a| IpAddr::from(a.0))),
            _ => {}
        }
    }
    record
}

fn left(until: std::time::Instant) -> Duration {
    until.checked_duration_since(clock::now().into_std()).unwrap_or(Duration::ZERO)
}

impl fmt::Debug for Hickory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hickory")
    }
}
