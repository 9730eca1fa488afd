//! How to connect, as configuration (feature `serde`): every knob of [`ConnectorBuilder`] that is data.
//!
//! In TOML, with each kind of thing that there is to say (all of it optional):
//!
//! ```toml
//! via = "socks5h://joe@near.example:1080 -> http://ann:secret@far.example:3128?auth=digest | direct"
//! no_proxy = "localhost, 127.0.0.0/8, .internal"
//! trust_hop_resolution = false
//!
//! [[routes]]
//! to = "*.example.org, 10.0.0.0/8"
//! via = [{ url = "https://proxy.example", user = "joe", password = { env = "PROXY_PASSWORD" }, auth = "strongest" }]
//!
//! [policy]
//! preset = "public-only"
//! allow = ["10.1.0.0/16"]
//! ports = [443, "8000-8999"]
//!
//! [hop_policy]
//! deny = ["169.254.0.0/16"]
//!
//! [resolver]                # or just: resolver = ["https://..", ..]
//! servers = ["https://dns.example/dns-query", "tls://dns.example@192.0.2.53"]
//! bootstrap = ["udp://192.0.2.1"]
//! negative_ttl = "1s"
//! [hosts]
//! "db.example.org" = ["192.0.2.7"]
//!
//! [timeouts]
//! connect = "5s"
//! idle = "off"
//!
//! [bind]
//! addr = "192.0.2.1"
//! port = "40000-40100"
//!
//! [tcp]
//! keepalive = "30s"
//!
//! [tls]
//! ca = [{ file = "/etc/ssl/private-ca.pem" }]
//! client_cert = { file = "client.pem" }
//! client_key = { file = "client.key" }
//! min_version = "1.3"
//! pins = ["sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="]
//! ```
//!
//! - Unknown keys are refused, with the ones that are known. Whatever was left out has [`ConnectorBuilder`]'s default.
//! - Secrets are written out (`password = "..."`), or named: `{ env = "NAME" }`, `{ file = "path" }` (without its last line end).
//!   They are fetched when the connector is built, and so are certificates; relative paths begin at the working directory.
//! - `Debug` shows no secret; serializing writes out what was written out.
//! - Hops and resolvers of other crates need their schemes: [`Config::to_builder_with`].
//! - What is code has no key: resolvers and verifiers of your own making, hops by [`Hop::custom`](crate::Hop::custom), Negotiate.

mod build;
mod text;
mod tls;
mod way;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::connector::{Connector, ConnectorBuilder};
use crate::error::Result;
use crate::hop::HopSchemes;
use crate::resolve::ResolverSchemes;
use crate::timeouts::Limit;

pub use text::{Ports, Source};
pub use tls::{DangerousConfig, RootsConfig, TlsConfig, VersionConfig};
pub use way::{HopConfig, IsolationConfig, ProxyHeaderConfig, WayConfig};

/// How to connect, as configuration: see the [module](self).
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config: portolan_core::config::Config = serde_json::from_str(
///     r#"{ "via": "socks5h://joe:sesame@proxy.example", "timeouts": { "connect": "5s" } }"#,
/// )?;
/// let net = config.to_connector()?;
/// assert_eq!(net.timeouts().connect_limit(), Some(std::time::Duration::from_secs(5)));
/// assert!(!format!("{config:?} {net:?}").contains("sesame"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Config {
    /// The way of all that no route is for: text as [`HopSchemes::ways`] reads it, or a chain as a list of hops.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<WayConfig>,
    /// Ways to try when the ones before fail.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub or_via: Vec<WayConfig>,
    /// What is reached directly, before any route: as the variable `NO_PROXY`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_proxy: Option<String>,
    /// Whether the proxies of the environment are taken. Not together with `via`.
    #[serde(skip_serializing_if = "is_default")]
    pub proxy_from_env: bool,
    /// Whether those of the desktop's settings are taken where the environment names none: see
    /// [`ConnectorBuilder::proxy_from_system`]. Not together with `via`.
    #[serde(skip_serializing_if = "is_default")]
    pub proxy_from_system: bool,
    /// See [`ConnectorBuilder::trust_hop_resolution`].
    #[serde(skip_serializing_if = "is_default")]
    pub trust_hop_resolution: bool,
    /// Ways of their own for some destinations; the first that matches is taken.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteConfig>,
    /// Which addresses of targets are allowed.
    #[serde(skip_serializing_if = "is_default")]
    pub policy: PolicyConfig,
    /// Which addresses of proxies are allowed.
    #[serde(skip_serializing_if = "is_default")]
    pub hop_policy: PolicyConfig,
    /// Who resolves names, and how long that holds.
    #[serde(skip_serializing_if = "is_default")]
    pub resolver: ResolverConfig,
    /// Addresses of names, whatever the resolver says.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub hosts: BTreeMap<String, Vec<IpAddr>>,
    /// The bounds of every phase.
    #[serde(skip_serializing_if = "is_default")]
    pub timeouts: TimeoutsConfig,
    /// Where sockets come from.
    #[serde(skip_serializing_if = "is_default")]
    pub bind: BindConfig,
    /// How TCP sockets behave.
    #[serde(skip_serializing_if = "is_default")]
    pub tcp: TcpConfig,
    /// How addresses are raced.
    #[serde(skip_serializing_if = "is_default")]
    pub happy_eyeballs: HappyConfig,
    /// How TLS is spoken with targets.
    #[serde(skip_serializing_if = "is_default")]
    pub tls: TlsConfig,
    /// How TLS is spoken with proxies.
    #[serde(skip_serializing_if = "is_default")]
    pub hop_tls: TlsConfig,
    /// What targets are told of the client ahead of all else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_header: Option<ProxyHeaderConfig>,
}

impl Config {
    /// The connector, whose hops are of this crate.
    pub fn to_connector(&self) -> Result<Connector> {
        self.to_builder(&HopSchemes::default())?.build()
    }

    /// The builder, for what is no data, with hops of other crates. Reads the files and the variables that are named.
    pub fn to_builder(&self, schemes: &HopSchemes) -> Result<ConnectorBuilder> {
        self.to_builder_with(schemes, &ResolverSchemes::default())
    }

    /// The same with name servers of other crates.
    pub fn to_builder_with(&self, schemes: &HopSchemes, resolvers: &ResolverSchemes) -> Result<ConnectorBuilder> {
        build::builder(self, schemes, resolvers)
    }
}

/// A way of its own for some destinations.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RouteConfig {
    /// For whom, as [`Route::to`](crate::Route::to) reads it. Without it, for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Only for these schemes of URLs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schemes: Vec<String>,
    /// The way; `"direct"` for none.
    pub via: WayConfig,
    /// Ways to try when the ones before fail.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub or_via: Vec<WayConfig>,
}

/// Which addresses are allowed: [`Policy`](crate::Policy). A table, or the name of a preset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, remote = "Self")]
#[non_exhaustive]
pub struct PolicyConfig {
    /// What to begin with.
    #[serde(skip_serializing_if = "is_default")]
    pub preset: Preset,
    /// Networks that are allowed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// Networks that are not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
    /// Names that alone are allowed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_hosts: Vec<String>,
    /// Names that are not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny_hosts: Vec<String>,
    /// Ports that alone are allowed: numbers, or text such as `8000-8999`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Ports>,
    /// Whether Unix sockets are allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unix: Option<bool>,
}

impl Serialize for PolicyConfig {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, out)
    }
}

impl<'de> Deserialize<'de> for PolicyConfig {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = PolicyConfig;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a preset, or a table")
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<PolicyConfig, E> {
                let preset = Preset::deserialize(name.into_deserializer())?;
                Ok(PolicyConfig { preset, ..PolicyConfig::default() })
            }
            fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<PolicyConfig, A::Error> {
                PolicyConfig::deserialize(MapAccessDeserializer::new(table))
            }
        }
        input.deserialize_any(Either)
    }
}

/// What a policy begins with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Preset {
    /// Everything.
    #[default]
    Any,
    /// The public internet.
    PublicOnly,
}

/// Who resolves names. A table, or the servers alone: `"https://.."`, `["tls://..", ..]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, remote = "Self")]
#[non_exhaustive]
pub struct ResolverConfig {
    /// Who, where there are no servers.
    #[serde(skip_serializing_if = "is_default")]
    pub kind: ResolverKind,
    /// The name servers to ask, the best first, as URLs that [`ResolverSchemes`] reads. They are reached by the same hops, under
    /// `hop_policy`: they are named by the operator, as hops are. Nobody else is asked, unless the last of them is `system`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
    /// Whom to ask for the addresses of the servers themselves, as URLs without names. Default who `kind` says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bootstrap: Vec<String>,
    /// How TLS is spoken with the servers. Default as with targets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
    /// Whether answers are kept. Default yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<bool>,
    /// See [`CacheOptions::unknown_ttl`](crate::CacheOptions::unknown_ttl).
    #[serde(with = "text::duration", skip_serializing_if = "Option::is_none")]
    pub unknown_ttl: Option<Duration>,
    /// See [`CacheOptions::ttl_bounds`](crate::CacheOptions::ttl_bounds). Both or neither.
    #[serde(with = "text::duration", skip_serializing_if = "Option::is_none")]
    pub min_ttl: Option<Duration>,
    /// The other bound.
    #[serde(with = "text::duration", skip_serializing_if = "Option::is_none")]
    pub max_ttl: Option<Duration>,
    /// See [`CacheOptions::negative_ttl`](crate::CacheOptions::negative_ttl).
    #[serde(with = "text::duration", skip_serializing_if = "Option::is_none")]
    pub negative_ttl: Option<Duration>,
    /// See [`CacheOptions::entries`](crate::CacheOptions::entries).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<usize>,
}

impl Serialize for ResolverConfig {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, out)
    }
}

impl<'de> Deserialize<'de> for ResolverConfig {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = ResolverConfig;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the url of a name server, a list of them, or a table")
            }
            fn visit_str<E: de::Error>(self, server: &str) -> Result<ResolverConfig, E> {
                Ok(ResolverConfig { servers: vec![server.to_owned()], ..ResolverConfig::default() })
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<ResolverConfig, A::Error> {
                let servers = Vec::deserialize(SeqAccessDeserializer::new(list))?;
                Ok(ResolverConfig { servers, ..ResolverConfig::default() })
            }
            fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<ResolverConfig, A::Error> {
                ResolverConfig::deserialize(MapAccessDeserializer::new(table))
            }
        }
        input.deserialize_any(Either)
    }
}

/// A resolver.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ResolverKind {
    /// The system's.
    #[default]
    System,
    /// Hickory (feature `dns-hickory`), with the system's name servers.
    Hickory,
}

/// The bounds of every phase, as `"5s"`, `"250ms"`, `"1m30s"` or `"off"`: [`Timeouts`](crate::Timeouts).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is the setter of the same name of Timeouts")]
pub struct TimeoutsConfig {
    #[serde(skip_serializing_if = "is_default")]
    pub resolve: Limit,
    #[serde(skip_serializing_if = "is_default")]
    pub connect: Limit,
    #[serde(skip_serializing_if = "is_default")]
    pub attempt: Limit,
    #[serde(skip_serializing_if = "is_default")]
    pub hop: Limit,
    #[serde(skip_serializing_if = "is_default")]
    pub tls: Limit,
    #[serde(skip_serializing_if = "is_default")]
    pub handshake: Limit,
    #[serde(skip_serializing_if = "is_default")]
    pub first_byte: Limit,
    #[serde(skip_serializing_if = "is_default")]
    pub idle: Limit,
    #[serde(skip_serializing_if = "is_default")]
    pub total: Limit,
}

/// Where sockets come from: [`Bind`](crate::Bind).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct BindConfig {
    /// From this address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addr: Option<IpAddr>,
    /// Through this interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// From this port: a number, text such as `40000-40100`, or `"privileged"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<Ports>,
}

/// How TCP sockets behave: [`TcpOptions`](crate::TcpOptions).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct TcpConfig {
    /// Send small writes at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodelay: Option<bool>,
    /// Probe an idle peer after this long, or `"off"`.
    #[serde(skip_serializing_if = "is_default")]
    pub keepalive: Limit,
    /// The time between two probes. Together with the next.
    #[serde(with = "text::duration", skip_serializing_if = "Option::is_none")]
    pub keepalive_interval: Option<Duration>,
    /// How many probes may go unanswered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keepalive_count: Option<u32>,
    /// Give up when sent data stays unacknowledged this long.
    #[serde(with = "text::duration", skip_serializing_if = "Option::is_none")]
    pub user_timeout: Option<Duration>,
    /// The type-of-service byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tos: Option<u8>,
    /// The kernel's send buffer in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_buffer: Option<u32>,
    /// The kernel's receive buffer in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recv_buffer: Option<u32>,
}

/// How addresses are raced: [`HappyOptions`](crate::HappyOptions).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct HappyConfig {
    /// How long one address may be alone.
    #[serde(with = "text::duration", skip_serializing_if = "Option::is_none")]
    pub attempt_delay: Option<Duration>,
    /// How long the other family waits.
    #[serde(with = "text::duration", skip_serializing_if = "Option::is_none")]
    pub resolution_delay: Option<Duration>,
    /// How many addresses of the leading family are tried first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_family_count: Option<usize>,
    /// How long a family that won against the odds leads.
    #[serde(with = "text::duration", skip_serializing_if = "Option::is_none")]
    pub memory: Option<Duration>,
    /// Try IPv4 first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefer_v4: Option<bool>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
