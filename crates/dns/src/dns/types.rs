//! The vocabulary: record types, classes, response codes, records and their data.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use portolan_core::{Error, Result};

use super::name::Name;

macro_rules! codes {
    ($(#[$doc:meta])* $type:ident, $prefix:literal: $($(#[$item_doc:meta])* $name:ident = $code:literal $text:literal,)*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $type {
            $($(#[$item_doc])* $name,)*
            /// A number without a name here.
            Other(u16),
        }

        impl From<u16> for $type {
            fn from(code: u16) -> Self {
                match code {
                    $($code => Self::$name,)*
                    other => Self::Other(other),
                }
            }
        }

        impl From<$type> for u16 {
            fn from(value: $type) -> u16 {
                match value {
                    $($type::$name => $code,)*
                    $type::Other(other) => other,
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$name => f.write_str($text),)*
                    Self::Other(other) => write!(f, concat!($prefix, "{}"), other),
                }
            }
        }

        impl FromStr for $type {
            type Err = Error;

            /// The mnemonic in either case, or the form of RFC 3597 5 for numbers without one.
            fn from_str(text: &str) -> Result<Self> {
                let upper = text.to_ascii_uppercase();
                match upper.as_str() {
                    $($text => Ok(Self::$name),)*
                    other => other
                        .strip_prefix($prefix)
                        .and_then(|code| code.parse::<u16>().ok())
                        .map(Self::from)
                        .ok_or_else(|| Error::usage(format!(concat!("no ", stringify!($type), " is called {:?}"), text))),
                }
            }
        }
    };
}

codes! {
    /// What is asked for, and what a record is.
    RecordType, "TYPE":
    /// An IPv4 address.
    A = 1 "A",
    /// A name server of a zone.
    Ns = 2 "NS",
    /// Another name for this one.
    Cname = 5 "CNAME",
    /// The start of a zone.
    Soa = 6 "SOA",
    /// Another place in the tree: the name of an address.
    Ptr = 12 "PTR",
    /// A mail exchanger.
    Mx = 15 "MX",
    /// Text.
    Txt = 16 "TXT",
    /// An IPv6 address.
    Aaaa = 28 "AAAA",
    /// Where a service is (RFC 2782).
    Srv = 33 "SRV",
    /// How a name is rewritten (RFC 3403).
    Naptr = 35 "NAPTR",
    /// Another name for a whole subtree (RFC 6672).
    Dname = 39 "DNAME",
    /// A delegation's signing key (RFC 4034).
    Ds = 43 "DS",
    /// Fingerprints of SSH keys (RFC 4255).
    Sshfp = 44 "SSHFP",
    /// A signature (RFC 4034).
    Rrsig = 46 "RRSIG",
    /// Proof that a name is missing (RFC 4034).
    Nsec = 47 "NSEC",
    /// A zone's key (RFC 4034).
    Dnskey = 48 "DNSKEY",
    /// Proof that a hashed name is missing (RFC 5155).
    Nsec3 = 50 "NSEC3",
    /// Which certificate a TLS server has (RFC 6698).
    Tlsa = 52 "TLSA",
    /// How a service is reached (RFC 9460).
    Svcb = 64 "SVCB",
    /// How a web origin is reached (RFC 9460).
    Https = 65 "HTTPS",
    /// What changed in a zone (RFC 1995).
    Ixfr = 251 "IXFR",
    /// A whole zone (RFC 5936).
    Axfr = 252 "AXFR",
    /// Whatever the server has; it may have reasons to give less (RFC 8482).
    Any = 255 "ANY",
    /// Who may issue certificates (RFC 8659).
    Caa = 257 "CAA",
}

codes! {
    /// The class of a name: nearly always the Internet.
    Class, "CLASS":
    /// The Internet.
    In = 1 "IN",
    /// Chaosnet: today the place where servers tell about themselves.
    Ch = 3 "CH",
    /// Hesiod.
    Hs = 4 "HS",
    /// No class (RFC 2136).
    None = 254 "NONE",
    /// Any class.
    Any = 255 "ANY",
}

codes! {
    /// What a server said of a query. It is the typed reply of server errors: `error.server::<Rcode>()`.
    Rcode, "RCODE":
    /// All is well.
    NoError = 0 "NOERROR",
    /// The server could not read the query.
    FormErr = 1 "FORMERR",
    /// The server failed.
    ServFail = 2 "SERVFAIL",
    /// There is no such name.
    NxDomain = 3 "NXDOMAIN",
    /// The server does not do that.
    NotImp = 4 "NOTIMP",
    /// The server will not do that, for us.
    Refused = 5 "REFUSED",
    /// A name exists that should not (RFC 2136).
    YxDomain = 6 "YXDOMAIN",
    /// Records exist that should not (RFC 2136).
    YxRrset = 7 "YXRRSET",
    /// Records are missing that should exist (RFC 2136).
    NxRrset = 8 "NXRRSET",
    /// The server is not authoritative, or we are not authorised.
    NotAuth = 9 "NOTAUTH",
    /// The name is not in the zone (RFC 2136).
    NotZone = 10 "NOTZONE",
    /// The server does not know our version of EDNS (RFC 6891).
    BadVers = 16 "BADVERS",
    /// The server wants a fresh cookie (RFC 7873).
    BadCookie = 23 "BADCOOKIE",
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Question {
    /// About which name.
    pub name: Name,
    /// For which records.
    pub record_type: RecordType,
    /// In which class.
    pub class: Class,
}

impl Question {
    /// A question in class `IN`.
    pub fn new(name: Name, record_type: RecordType) -> Self {
        Self { name, record_type, class: Class::In }
    }

    /// The same in another class.
    #[must_use]
    pub fn with_class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.name, self.class, self.record_type)
    }
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Whose it is.
    pub name: Name,
    /// Its type, also where the data is [`Data::Other`].
    pub record_type: RecordType,
    /// Its class.
    pub class: Class,
    /// How many seconds it may be kept.
    pub ttl: u32,
    /// What it says.
    pub data: Data,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {} {}", self.name, self.ttl, self.class, self.record_type, self.data)
    }
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Data {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// The name that this one stands for.
    Cname(Name),
    /// A name server.
    Ns(Name),
    /// The name of an address.
    Ptr(Name),
    /// A mail exchanger.
    Mx(Mx),
    /// Strings of at most 255 bytes each.
    Txt(Vec<Vec<u8>>),
    /// The place of a service.
    Srv(Srv),
    /// The start of a zone.
    Soa(Soa),
    /// Who may issue certificates.
    Caa(Caa),
    /// How a service is reached.
    Svcb(Svcb),
    /// How a web origin is reached.
    Https(Svcb),
    /// A delegation's signing key.
    Ds(Ds),
    /// A zone's key.
    Dnskey(Dnskey),
    /// Which certificate a TLS server has.
    Tlsa(Tlsa),
    /// How a name is rewritten.
    Naptr(Naptr),
    /// Data of a type that is not taken apart here, as it came (names in it may be compressed).
    Other(Vec<u8>),
}

/// A mail exchanger (RFC 1035 3.3.9).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mx {
    /// The lower the better.
    pub preference: u16,
    /// The host. The root says that the name takes no mail (RFC 7505).
    pub exchange: Name,
}

/// The place of a service (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Srv {
    /// The lower the better.
    pub priority: u16,
    /// The share among those of one priority.
    pub weight: u16,
    /// The port.
    pub port: u16,
    /// The host. The root says that there is no such service.
    pub target: Name,
}

/// The start of a zone (RFC 1035 3.3.13); times in seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Soa {
    /// The primary server.
    pub primary: Name,
    /// The mailbox of whoever is responsible, its first dot standing for the `@`.
    pub mailbox: Name,
    /// The version.
    pub serial: u32,
    /// How often secondaries look for a newer one.
    pub refresh: u32,
    /// How long they wait after a failure.
    pub retry: u32,
    /// When they give up.
    pub expire: u32,
    /// How long a negative answer may be kept (RFC 2308 4).
    pub minimum: u32,
}

/// Who may issue certificates (RFC 8659).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Caa {
    /// Whether an issuer that does not know the tag must refuse.
    pub critical: bool,
    /// `issue`, `issuewild`, `iodef`, ...
    pub tag: String,
    /// What it says.
    pub value: Vec<u8>,
}

/// How a service is reached (RFC 9460).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Svcb {
    /// The lower the better; 0 makes it an alias.
    pub priority: u16,
    /// The host; the root stands for the record's own name.
    pub target: Name,
    /// Keys that must be understood.
    pub mandatory: Vec<u16>,
    /// Protocols spoken.
    pub alpn: Vec<String>,
    /// Whether the default protocol is not among them.
    pub no_default_alpn: bool,
    /// The port, where it is not the usual one.
    pub port: Option<u16>,
    /// Addresses to begin with.
    pub ipv4_hint: Vec<Ipv4Addr>,
    /// Addresses to begin with.
    pub ipv6_hint: Vec<Ipv6Addr>,
    /// Configurations for Encrypted Client Hello.
    pub ech: Option<Vec<u8>>,
    /// All other keys, as they came.
    pub other: Vec<(u16, Vec<u8>)>,
}

/// A delegation's signing key (RFC 4034 5).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ds {
    /// Which key.
    pub key_tag: u16,
    /// Its algorithm.
    pub algorithm: u8,
    /// How the digest was made.
    pub digest_type: u8,
    /// The digest of the key.
    pub digest: Vec<u8>,
}

/// A zone's key (RFC 4034 2).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dnskey {
    /// 256: signs the zone. 257: signs keys too.
    pub flags: u16,
    /// Always 3.
    pub protocol: u8,
    /// The algorithm.
    pub algorithm: u8,
    /// The key.
    pub key: Vec<u8>,
}

impl Dnskey {
    /// The number by which [`Ds`] records and signatures name the key (RFC 4034 appendix B).
    pub fn key_tag(&self) -> u16 {
        let head = [self.flags.to_be_bytes(), [self.protocol, self.algorithm]].concat();
        let mut sum = 0u32;
        for (index, byte) in head.iter().chain(&self.key).enumerate() {
            let byte = u32::from(*byte);
            sum = sum.wrapping_add(if index % 2 == 0 { byte << 8 } else { byte });
        }
        let [_, _, high, low] = sum.wrapping_add(sum >> 16 & 0xffff).to_be_bytes();
        u16::from_be_bytes([high, low])
    }
}

/// Which certificate a TLS server has (RFC 6698).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tlsa {
    /// 0 and 1: checked by the usual authorities too; 2: an authority; 3: the certificate itself.
    pub usage: u8,
    /// 0: the whole certificate; 1: its public key.
    pub selector: u8,
    /// 0: as it is; 1: SHA-256; 2: SHA-512.
    pub matching: u8,
    /// What to compare with.
    pub data: Vec<u8>,
}

/// How a name is rewritten (RFC 3403).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Naptr {
    /// The lower the earlier.
    pub order: u16,
    /// Among those of one order, the lower the better.
    pub preference: u16,
    /// What to do with the result.
    pub flags: Vec<u8>,
    /// For which service.
    pub services: Vec<u8>,
    /// The rule.
    pub regexp: Vec<u8>,
    /// The next name, where there is no rule.
    pub replacement: Name,
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::A(ip) => ip.fmt(f),
            Self::Aaaa(ip) => ip.fmt(f),
            Self::Cname(name) | Self::Ns(name) | Self::Ptr(name) => name.fmt(f),
            Self::Mx(mx) => write!(f, "{} {}", mx.preference, mx.exchange),
            Self::Txt(strings) => {
                for (index, string) in strings.iter().enumerate() {
                    write!(f, "{}\"{}\"", if index > 0 { " " } else { "" }, string.escape_ascii())?;
                }
                Ok(())
            }
            Self::Srv(srv) => write!(f, "{} {} {} {}", srv.priority, srv.weight, srv.port, srv.target),
            Self::Soa(soa) => write!(
                f,
                "{} {} {} {} {} {} {}",
                soa.primary, soa.mailbox, soa.serial, soa.refresh, soa.retry, soa.expire, soa.minimum
            ),
            Self::Caa(caa) => write!(f, "{} {} \"{}\"", u8::from(caa.critical) << 7, caa.tag, caa.value.escape_ascii()),
            Self::Svcb(svcb) | Self::Https(svcb) => svcb.fmt(f),
            Self::Ds(ds) => write!(f, "{} {} {} {}", ds.key_tag, ds.algorithm, ds.digest_type, Hex(&ds.digest)),
            Self::Dnskey(key) => write!(f, "{} {} {} {}", key.flags, key.protocol, key.algorithm, Hex(&key.key)),
            Self::Tlsa(tlsa) => write!(f, "{} {} {} {}", tlsa.usage, tlsa.selector, tlsa.matching, Hex(&tlsa.data)),
            Self::Naptr(naptr) => write!(
                f,
                "{} {} \"{}\" \"{}\" \"{}\" {}",
                naptr.order,
                naptr.preference,
                naptr.flags.escape_ascii(),
                naptr.services.escape_ascii(),
                naptr.regexp.escape_ascii(),
                naptr.replacement
            ),
            // RFC 3597 5: the form for types without one of their own.
            Self::Other(bytes) => write!(f, "\\# {} {}", bytes.len(), Hex(bytes)),
        }
    }
}

impl fmt::Display for Svcb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.priority, self.target)?;
        if !self.alpn.is_empty() {
            write!(f, " alpn={}", self.alpn.join(","))?;
        }
        if self.no_default_alpn {
            f.write_str(" no-default-alpn")?;
        }
        if let Some(port) = self.port {
            write!(f, " port={port}")?;
        }
        for (key, ips) in [("ipv4hint", list(&self.ipv4_hint)), ("ipv6hint", list(&self.ipv6_hint))] {
            if !ips.is_empty() {
                write!(f, " {key}={ips}")?;
            }
        }
        if let Some(ech) = &self.ech {
            write!(f, " ech={}", Hex(ech))?;
        }
        for (key, value) in &self.other {
            write!(f, " key{key}={}", Hex(value))?;
        }
        Ok(())
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
