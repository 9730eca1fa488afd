//! TLS as configuration.

use serde::{Deserialize, Serialize};

use super::is_default;
use super::text::Source;
use crate::error::{Error, Result};
use crate::tls::{Pin, Roots, Tls, TlsVersion};

/// How TLS is spoken: [`TlsBuilder`](crate::TlsBuilder).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct TlsConfig {
    /// Whom to trust.
    #[serde(skip_serializing_if = "is_default")]
    pub roots: RootsConfig,
    /// Further roots, as PEM.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ca: Vec<Source>,
    /// The certificate chain to show, as PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_cert: Option<Source>,
    /// Its key, as PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key: Option<Source>,
    /// Keys of which one is demanded, as `sha256/...`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pins: Vec<String>,
    /// The application protocols to offer where a call names none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alpn: Vec<String>,
    /// The lowest version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_version: Option<VersionConfig>,
    /// The highest version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_version: Option<VersionConfig>,
    /// How many sessions to keep for resumption.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumption: Option<usize>,
    /// Whether the server is told which name is meant. Default yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<bool>,
    /// Offer no post-quantum key exchange.
    #[serde(skip_serializing_if = "is_default")]
    pub classic_key_exchange_only: bool,
    /// Write session keys to the file that `SSLKEYLOGFILE` names.
    #[serde(skip_serializing_if = "is_default")]
    pub key_log_from_env: bool,
    /// What weakens security.
    #[serde(skip_serializing_if = "is_default")]
    pub dangerous: DangerousConfig,
}

/// What weakens security, each by its own loud name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct DangerousConfig {
    /// Accept any certificate for any name.
    #[serde(skip_serializing_if = "is_default")]
    pub accept_any_certificate: bool,
}

/// [`Roots`] by their name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is that of Roots")]
pub enum RootsConfig {
    #[default]
    Default,
    Platform,
    Webpki,
    Custom,
}

/// [`TlsVersion`] by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum VersionConfig {
    /// TLS 1.2.
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    V1_3,
}

impl VersionConfig {
    fn version(self) -> TlsVersion {
        match self {
            Self::V1_2 => TlsVersion::V1_2,
            Self::V1_3 => TlsVersion::V1_3,
        }
    }
}

impl TlsConfig {
    pub(super) fn to_tls(&self) -> Result<Tls> {
        let mut tls = Tls::builder().roots(match self.roots {
            RootsConfig::Default => Roots::Default,
            RootsConfig::Platform => Roots::Platform,
            RootsConfig::Webpki => Roots::Webpki,
            RootsConfig::Custom => Roots::Custom,
        });
        for ca in &self.ca {
            tls = tls.root_pem(ca.load("a root certificate")?.expose().as_bytes());
        }
        match (&self.client_cert, &self.client_key) {
            (Some(chain), Some(key)) => {
                let (chain, key) = (chain.load("the client certificate")?, key.load("the client key")?);
                tls = tls.client_cert_pem(chain.expose().as_bytes(), key.expose().as_bytes());
            }
            (None, None) => {}
            _ => return Err(Error::usage("client_cert and client_key go together")),
        }
        for pin in &self.pins {
            tls = tls.pin(Pin::parse(pin)?);
        }
        tls = tls.alpn(&self.alpn);
        if let Some(version) = self.min_version {
            tls = tls.min_version(version.version());
        }
        if let Some(version) = self.max_version {
            tls = tls.max_version(version.version());
        }
        if let Some(sessions) = self.resumption {
            tls = tls.resumption(sessions);
        }
        if self.sni == Some(false) {
            tls = tls.without_sni();
        }
        if self.classic_key_exchange_only {
            tls = tls.classic_key_exchange_only();
        }
        if self.key_log_from_env {
            tls = tls.key_log_from_env();
        }
        if self.dangerous.accept_any_certificate {
            tls = tls.dangerous().accept_any_certificate();
        }
        tls.build()
    }
}
