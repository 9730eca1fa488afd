//! Hops and chains as configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer};
use serde::ser::{SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};

use super::text::Source;
use crate::error::{Error, Result};
use crate::hop::{Hop, HopSchemes, HopSpec, Isolation, ProxyHeader};
use crate::secret::Credentials;
use crate::url::Url;

/// One proxy: its URL as text, or a table.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct HopConfig {
    /// `scheme://[user[:password]@]host[:port]`, with the options of [`HopSchemes::ways`].
    pub url: Url,
    /// The user, where the URL names none.
    pub user: Option<String>,
    /// The password, or the token of `auth = "bearer"`.
    pub password: Option<Source>,
    /// `any`, `strongest`, `basic`, `digest`, `ntlm` or `bearer`.
    pub auth: Option<String>,
    /// Headers for HTTP proxies.
    pub headers: BTreeMap<String, String>,
    /// What shares a circuit of Tor.
    pub isolation: Option<IsolationConfig>,
    /// What the proxy is told of the client ahead of all else.
    pub proxy_header: Option<ProxyHeaderConfig>,
}

/// [`Isolation`] by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum IsolationConfig {
    /// Each stream for itself.
    Stream,
    /// Streams to the same target together.
    Target,
}

/// The table that a hop may be.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    url: UrlText,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password: Option<Source>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    auth: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    isolation: Option<IsolationConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    proxy_header: Option<ProxyHeaderConfig>,
}

/// A URL that no error quotes.
struct UrlText(Url);

impl Serialize for UrlText {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(self.0.expose().expose())
    }
}

impl<'de> Deserialize<'de> for UrlText {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        let spec = HopSpec::parse(&text).map_err(|error| de::Error::custom(error.message()))?;
        Ok(Self(spec.url().clone()))
    }
}

impl HopConfig {
    /// A proxy by its URL.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(Self::new(HopSpec::parse(text)?.url().clone()))
    }

    fn new(url: Url) -> Self {
        Self {
            url,
            user: None,
            password: None,
            auth: None,
            headers: BTreeMap::new(),
            isolation: None,
            proxy_header: None,
        }
    }

    /// Whether the URL is all there is.
    fn is_plain(&self) -> bool {
        *self == Self::new(self.url.clone())
    }

    pub(super) fn to_hop(&self, schemes: &HopSchemes) -> Result<Hop> {
        let mut spec = HopSpec::new(self.url.clone());
        if self.user.is_some() || self.password.is_some() {
            let given = spec.credentials.take();
            if self.password.is_some() && self.url.password().is_some() || self.user.is_some() && given.is_some() {
                return Err(Error::usage("a hop's user or password is said in its url and beside it"));
            }
            let user = self.user.clone().or_else(|| given.map(|given| given.user)).unwrap_or_default();
            let password = self.password.as_ref().map(|password| password.load("the password of a hop")).transpose()?;
            spec.credentials = Some(Credentials::new(user, password.unwrap_or_else(|| "".into())));
        }
        spec.auth.clone_from(&self.auth);
        spec.headers = self.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        spec.isolation = self.isolation.map(|isolation| match isolation {
            IsolationConfig::Stream => Isolation::Stream,
            IsolationConfig::Target => Isolation::Target,
        });
        spec.proxy_header = self.proxy_header.as_ref().map(ProxyHeaderConfig::to_header).transpose()?;
        schemes.make(&spec)
    }
}

impl Serialize for HopConfig {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        if self.is_plain() {
            return UrlText(self.url.clone()).serialize(out);
        }
        let Self { url, user, password, auth, headers, isolation, proxy_header } = self.clone();
        Table { url: UrlText(url), user, password, auth, headers, isolation, proxy_header }.serialize(out)
    }
}

impl<'de> Deserialize<'de> for HopConfig {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = HopConfig;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a proxy's url, or a table with one")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<HopConfig, E> {
                HopConfig::parse(text).map_err(|error| E::custom(error.message()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<HopConfig, A::Error> {
                let table = Table::deserialize(MapAccessDeserializer::new(map))?;
                let Table { url: UrlText(url), user, password, auth, headers, isolation, proxy_header } = table;
                Ok(HopConfig { url, user, password, auth, headers, isolation, proxy_header })
            }
        }
        input.deserialize_any(Either)
    }
}

/// A way: text as [`HopSchemes::ways`] reads it, or a list of hops, the nearest first. `"direct"` and `[]` are no hops.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct WayConfig {
    /// Chains, to be tried one after the other. A list is one chain.
    pub chains: Vec<Vec<HopConfig>>,
}

impl WayConfig {
    /// From text.
    pub fn parse(text: &str) -> Result<Self> {
        let chain = |chain: &str| match chain.trim() {
            direct if direct.eq_ignore_ascii_case("direct") => Ok(Vec::new()),
            chain => chain.split("->").map(HopConfig::parse).collect(),
        };
        Ok(Self { chains: text.split('|').map(chain).collect::<Result<_>>()? })
    }

    pub(super) fn to_chains(&self, schemes: &HopSchemes) -> Result<Vec<Vec<Hop>>> {
        let chain = |hops: &Vec<HopConfig>| hops.iter().map(|hop| hop.to_hop(schemes)).collect();
        self.chains.iter().map(chain).collect()
    }

    fn text(&self) -> String {
        let chain = |hops: &Vec<HopConfig>| match hops.as_slice() {
            [] => "direct".to_owned(),
            hops => hops.iter().map(|hop| hop.url.expose().expose().to_owned()).collect::<Vec<_>>().join(" -> "),
        };
        self.chains.iter().map(chain).collect::<Vec<_>>().join(" | ")
    }
}

impl Serialize for WayConfig {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        if self.chains.iter().flatten().all(HopConfig::is_plain) {
            return out.serialize_str(&self.text());
        }
        let [chain] = self.chains.as_slice() else {
            return Err(serde::ser::Error::custom(
                "several chains of which one has a table: write each by itself in or_via",
            ));
        };
        let mut list = out.serialize_seq(Some(chain.len()))?;
        chain.iter().try_for_each(|hop| list.serialize_element(hop))?;
        list.end()
    }
}

impl<'de> Deserialize<'de> for WayConfig {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = WayConfig;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("proxies as text between \"->\", a list of them, or \"direct\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<WayConfig, E> {
                WayConfig::parse(text).map_err(|error| E::custom(error.message()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<WayConfig, A::Error> {
                let mut chain = Vec::new();
                while let Some(hop) = list.next_element()? {
                    chain.push(hop);
                }
                Ok(WayConfig { chains: vec![chain] })
            }
        }
        input.deserialize_any(Either)
    }
}

/// [`ProxyHeader`]: `"v1"`, `"v2"`, or a table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProxyHeaderConfig {
    /// `v1` or `v2`.
    pub version: String,
    /// Speaks for nobody.
    pub local: bool,
    /// Whom the connection is made for.
    pub source: Option<SocketAddr>,
    /// Where that client went.
    pub destination: Option<SocketAddr>,
    /// The application protocol.
    pub alpn: Option<String>,
    /// The name that was asked for.
    pub authority: Option<String>,
    /// What the connection is called.
    pub unique_id: Option<String>,
    /// With a checksum.
    pub crc32c: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderTable {
    version: String,
    #[serde(default, skip_serializing_if = "super::is_default")]
    local: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<SocketAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    destination: Option<SocketAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alpn: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    authority: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unique_id: Option<String>,
    #[serde(default, skip_serializing_if = "super::is_default")]
    crc32c: bool,
}

impl ProxyHeaderConfig {
    /// With nothing but a version: `v1` or `v2`.
    pub fn new(version: impl Into<String>) -> Self {
        Self {
            version: version.into(),
            local: false,
            source: None,
            destination: None,
            alpn: None,
            authority: None,
            unique_id: None,
            crc32c: false,
        }
    }

    pub(super) fn to_header(&self) -> Result<ProxyHeader> {
        let mut header = crate::hop::header(&self.version)?;
        if self.local {
            header = header.local();
        }
        if let Some(source) = self.source {
            header = header.source(source);
        }
        if let Some(destination) = self.destination {
            header = header.destination(destination);
        }
        if let Some(alpn) = &self.alpn {
            header = header.alpn(alpn.as_bytes())?;
        }
        if let Some(authority) = &self.authority {
            header = header.authority(authority)?;
        }
        if let Some(id) = &self.unique_id {
            header = header.unique_id(id.as_bytes())?;
        }
        Ok(if self.crc32c { header.crc32c() } else { header })
    }
}

impl Serialize for ProxyHeaderConfig {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        if *self == Self::new(self.version.clone()) {
            return out.serialize_str(&self.version);
        }
        let Self { version, local, source, destination, alpn, authority, unique_id, crc32c } = self.clone();
        HeaderTable { version, local, source, destination, alpn, authority, unique_id, crc32c }.serialize(out)
    }
}

impl<'de> Deserialize<'de> for ProxyHeaderConfig {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = ProxyHeaderConfig;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"v1\", \"v2\", or a table with a version")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<ProxyHeaderConfig, E> {
                Ok(ProxyHeaderConfig::new(text))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ProxyHeaderConfig, A::Error> {
                let table = HeaderTable::deserialize(MapAccessDeserializer::new(map))?;
                let HeaderTable { version, local, source, destination, alpn, authority, unique_id, crc32c } = table;
                Ok(ProxyHeaderConfig { version, local, source, destination, alpn, authority, unique_id, crc32c })
            }
        }
        input.deserialize_any(Either)
    }
}
