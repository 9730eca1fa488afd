//! What came back, and how.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use portolan_core::{ConnectionInfo, Error, Result};

use super::name::Name;
use super::types::{Caa, Data, Dnskey, Ds, Mx, Naptr, Question, Rcode, Record, RecordType, Soa, Srv, Svcb, Tlsa};

/// How many aliases are followed: as many as the usual resolvers do. A longer chain is a loop or an attack.
pub(crate) const MAX_ALIASES: usize = 16;

/// What a server answered. A name that does not exist is an answer too: see [`is_nxdomain`](Self::is_nxdomain).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Response {
    /// The number of the query.
    pub id: u16,
    /// What the server said.
    pub rcode: Rcode,
    /// What else the header says.
    pub flags: Flags,
    /// What was asked, as the server repeated it.
    pub question: Option<Question>,
    /// The answer.
    pub answers: Vec<Record>,
    /// Who is responsible.
    pub authorities: Vec<Record>,
    /// What may be of use besides.
    pub additionals: Vec<Record>,
    /// The server's EDNS, if it speaks it.
    pub edns: Option<Edns>,
    /// How the answer came.
    pub info: Info,
}

/// The bits of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Flags {
    /// It is a reply.
    pub reply: bool,
    /// It is about a standard query.
    pub standard: bool,
    /// The server is responsible for the name.
    pub authoritative: bool,
    /// The reply was cut to fit. Only seen where TCP was forbidden by the options.
    pub truncated: bool,
    /// We wanted the server to ask others.
    pub recursion_desired: bool,
    /// The server does ask others.
    pub recursion_available: bool,
    /// The server says that it has checked signatures. Worth as much as the way to the server.
    pub authentic: bool,
    /// We told it not to.
    pub checking_disabled: bool,
}

/// What the server's EDNS record says (RFC 6891 6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Edns {
    /// Its highest version.
    pub version: u8,
    /// The largest datagram that the server takes.
    pub max_payload: u16,
    /// It sends signatures.
    pub dnssec_ok: bool,
}

/// What carries a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Transport {
    /// UDP, and TCP where that does not do.
    #[default]
    Auto,
    /// UDP alone: an answer may come [cut](Flags::truncated).
    Udp,
    /// TCP alone.
    Tcp,
    /// TLS (feature `dot`).
    Tls,
    /// HTTPS, by whichever version of HTTP the server speaks (feature `doh`).
    Https,
    /// HTTPS over HTTP/3 alone (feature `doh`).
    Http3,
    /// QUIC (feature `doq`).
    Quic,
}

/// Why TCP was used although UDP was asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fallback {
    /// The answer did not fit a datagram.
    Truncated,
    /// The proxies on the way carry no datagrams.
    NoDatagrams,
    /// So many datagrams did not match that somebody seems to be guessing.
    Forgeries,
}

/// How an answer came.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Info {
    /// What carried it in the end: never `Auto`.
    pub transport: Transport,
    /// Why it was TCP, if UDP was tried.
    pub fallback: Option<Fallback>,
    /// How many queries were sent.
    pub attempts: u32,
    /// How many datagrams came that were no answer: another id, another question, garbage.
    pub ignored: u32,
    /// Whether the server could not cope with EDNS and was asked again without.
    pub edns_refused: bool,
    /// The size of the answer.
    pub size: usize,
    /// How long it took, all attempts together.
    pub elapsed: Duration,
    /// What is known about the way: addresses, hops, timings.
    pub connection: ConnectionInfo,
}

macro_rules! typed {
    ($($(#[$doc:meta])* $name:ident: $variant:ident => $type:ty;)*) => {
        impl Response {
            $(
                $(#[$doc])*
                pub fn $name(&self) -> impl Iterator<Item = &$type> {
                    self.answers.iter().filter_map(|record| match &record.data {
                        Data::$variant(data) => Some(data),
                        _ => None,
                    })
                }
            )*
        }
    };
}

typed! {
    /// The IPv4 addresses among the answers.
    a: A => Ipv4Addr;
    /// The IPv6 addresses among the answers.
    aaaa: Aaaa => Ipv6Addr;
    /// The aliases among the answers.
    cname: Cname => Name;
    /// The name servers among the answers.
    ns: Ns => Name;
    /// The names of addresses among the answers.
    ptr: Ptr => Name;
    /// The mail exchangers among the answers.
    mx: Mx => Mx;
    /// The texts among the answers, each as its strings.
    txt: Txt => Vec<Vec<u8>>;
    /// The services among the answers.
    srv: Srv => Srv;
    /// The start of the zone.
    soa: Soa => Soa;
    /// The certificate issuers among the answers.
    caa: Caa => Caa;
    /// The service bindings among the answers.
    svcb: Svcb => Svcb;
    /// The HTTPS bindings among the answers.
    https: Https => Svcb;
    /// The delegation signers among the answers.
    ds: Ds => Ds;
    /// The zone keys among the answers.
    dnskey: Dnskey => Dnskey;
    /// The certificate associations among the answers.
    tlsa: Tlsa => Tlsa;
    /// The rewriting rules among the answers.
    naptr: Naptr => Naptr;
}

impl Response {
    /// Whether there is no such name.
    pub fn is_nxdomain(&self) -> bool {
        self.rcode == Rcode::NxDomain
    }

    /// Whether the name exists, but has nothing of the type that was asked for (RFC 2308 2.2).
    pub fn is_nodata(&self) -> bool {
        self.rcode == Rcode::NoError && !self.answers.iter().any(|record| self.is_asked(record))
    }

    /// How long a negative answer may be kept (RFC 2308 5).
    pub fn negative_ttl(&self) -> Option<Duration> {
        self.authorities.iter().find_map(|record| match &record.data {
            Data::Soa(soa) => Some(Duration::from_secs(record.ttl.min(soa.minimum).into())),
            _ => None,
        })
    }

    /// The name at the end of the aliases among the answers. A loop, or more than 16 of them, is the server's fault.
    pub fn canonical_name(&self) -> Result<Option<&Name>> {
        let Some(mut name) = self.question.as_ref().map(|question| &question.name) else {
            return Ok(None);
        };
        for _ in 0..=MAX_ALIASES {
            let next = self.answers.iter().find_map(|record| match &record.data {
                Data::Cname(target) if record.name == *name => Some(target),
                _ => None,
            });
            match next {
                Some(target) => name = target,
                None => return Ok(Some(name)),
            }
        }
        Err(Error::protocol(super::PROTOCOL, format!("more than {MAX_ALIASES} aliases, or a loop of them")))
    }

    /// The addresses that belong to the name that was asked for, over its aliases; others are not believed.
    pub fn addresses(&self) -> Result<Vec<IpAddr>> {
        let Some(name) = self.canonical_name()? else {
            return Ok(Vec::new());
        };
        Ok(self
            .answers
            .iter()
            .filter(|record| record.name == *name)
            .filter_map(|record| match record.data {
                Data::A(ip) => Some(ip.into()),
                Data::Aaaa(ip) => Some(ip.into()),
                _ => None,
            })
            .collect())
    }

    /// The shortest life among the answers.
    pub fn ttl(&self) -> Option<Duration> {
        self.answers.iter().map(|record| Duration::from_secs(record.ttl.into())).min()
    }

    fn is_asked(&self, record: &Record) -> bool {
        let asked = self.question.as_ref().map(|question| question.record_type);
        asked.is_none_or(|asked| asked == RecordType::Any || asked == record.record_type)
    }
}
