//! What can be said about TLS.

use std::fmt;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{Tls, provider, verify};
use crate::error::{Error, Kind, Result};

/// Sessions kept for resumption: a ticket is about 1 KiB, and a client rarely talks to more names than this.
const SESSIONS: usize = 256;

/// Whom to trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Roots {
    /// The platform's where this build has it, else Mozilla's where it has those, else only the extra ones.
    #[default]
    Default,
    /// What the operating system trusts (feature `platform-verifier`).
    Platform,
    /// Mozilla's list, compiled in (feature `webpki-roots`).
    Webpki,
    /// Only the ones given by [`TlsBuilder::root_pem`] and [`TlsBuilder::root_der`].
    Custom,
}

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// The SHA-256 of a certificate's SubjectPublicKeyInfo, as RFC 7469 2.4 pins it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pin(pub(crate) [u8; 32]);

/// 32 bytes in base64.
const PIN_TEXT: usize = 44;

impl Pin {
    /// From the 32 bytes.
    pub fn new(sha256: [u8; 32]) -> Self {
        Self(sha256)
    }

    /// From base64, with or without the `sha256/` or `sha256//` in front.
    pub fn parse(text: &str) -> Result<Self> {
        use base64::Engine;
        // A second slash belongs to the prefix only where the pin is whole without it: base64 may begin with one.
        let bare = text.strip_prefix("sha256/").unwrap_or(text);
        let bare = if bare.len() > PIN_TEXT { bare.strip_prefix('/').unwrap_or(bare) } else { bare };
        let bytes = base64::engine::general_purpose::STANDARD.decode(bare).ok();
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| Error::usage("a pin is the base64 of 32 bytes"))
    }

    /// The pin of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Result<Self> {
        verify::spki_sha256(&CertificateDer::from(certificate), &*provider()?)
            .map(Self)
            .ok_or_else(|| Error::usage("not a certificate"))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use base64::Engine;
        write!(f, "sha256/{}", base64::engine::general_purpose::STANDARD.encode(self.0))
    }
}

/// Builds a [`Tls`].
#[derive(Clone, Default)]
#[must_use]
pub struct TlsBuilder {
    roots: Roots,
    extra: Vec<CertificateDer<'static>>,
    client: Option<Arc<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>>,
    pins: Vec<Pin>,
    alpn: Vec<Vec<u8>>,
    key_log: Option<Arc<dyn rustls::KeyLog>>,
    min: Option<TlsVersion>,
    max: Option<TlsVersion>,
    resumption: Option<usize>,
    provider: Option<Arc<CryptoProvider>>,
    verifier: Option<Arc<dyn ServerCertVerifier>>,
    without_sni: bool,
    classic_only: bool,
    broken: Option<&'static str>,
}

impl TlsBuilder {
    /// Whom to trust. Default [`Roots::Default`].
    pub fn roots(mut self, roots: Roots) -> Self {
        self.roots = roots;
        self
    }

    /// Trust these certificates (PEM, one or many) besides [`roots`](Self::roots).
    pub fn root_pem(mut self, pem: &[u8]) -> Self {
        let before = self.extra.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            match certificate {
                Ok(certificate) => self.extra.push(certificate),
                Err(_) => self.broken = Some("root certificate is not valid PEM"),
            }
        }
        if self.extra.len() == before {
            self.broken = Some("no certificate in the PEM given as root");
        }
        self
    }

    /// Trust this certificate (DER) besides [`roots`](Self::roots).
    pub fn root_der(mut self, der: impl Into<Vec<u8>>) -> Self {
        self.extra.push(der.into().into());
        self
    }

    /// Show this certificate chain, proved by this key (both PEM), to a server that asks.
    pub fn client_cert_pem(mut self, chain: &[u8], key: &[u8]) -> Self {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        match (chain, PrivateKeyDer::from_pem_slice(key)) {
            (Ok(chain), Ok(key)) if !chain.is_empty() => self.client = Some(Arc::new((chain, key))),
            _ => self.broken = Some("client certificate or key is not valid PEM"),
        }
        self
    }

    /// Besides a valid chain, demand that one of its certificates has one of the pinned keys. Repeat for a backup pin;
    /// without one, a key change at the server locks this client out.
    pub fn pin(mut self, pin: Pin) -> Self {
        self.pins.push(pin);
        self
    }

    /// The application protocols to offer, the best first, where a call names none.
    pub fn alpn<T: AsRef<[u8]>>(mut self, protocols: impl IntoIterator<Item = T>) -> Self {
        self.alpn = protocols.into_iter().map(|p| p.as_ref().to_vec()).collect();
        self
    }

    /// Write session keys to the file named by `SSLKEYLOGFILE`, for packet analysers. Whoever reads that file reads the traffic.
    pub fn key_log_from_env(mut self) -> Self {
        self.key_log = Some(Arc::new(rustls::KeyLogFile::new()));
        self
    }

    /// Hand session keys to `log`.
    pub fn key_log(mut self, log: Arc<dyn rustls::KeyLog>) -> Self {
        self.key_log = Some(log);
        self
    }

    /// The lowest version to speak. Default 1.2.
    pub fn min_version(mut self, version: TlsVersion) -> Self {
        self.min = Some(version);
        self
    }

    /// The highest version to speak. Default 1.3.
    pub fn max_version(mut self, version: TlsVersion) -> Self {
        self.max = Some(version);
        self
    }

    /// How many sessions to keep for resumption, 0 for none. Default 256.
    pub fn resumption(mut self, sessions: usize) -> Self {
        self.resumption = Some(sessions);
        self
    }

    /// Do not tell the server which name is meant. Servers with several names then show the wrong certificate.
    pub fn without_sni(mut self) -> Self {
        self.without_sni = true;
        self
    }

    /// Offer no post-quantum key exchange: for middle boxes that choke on a ClientHello of two packets.
    pub fn classic_key_exchange_only(mut self) -> Self {
        self.classic_only = true;
        self
    }

    /// Another crypto provider than the one this build chose.
    pub fn provider(mut self, provider: Arc<CryptoProvider>) -> Self {
        self.provider = Some(provider);
        self
    }

    /// What weakens security.
    pub fn dangerous(self) -> Dangerous {
        Dangerous(self)
    }

    /// Checks all of it, loads the roots and makes the configuration.
    pub fn build(self) -> Result<Tls> {
        let alpn = self.alpn.clone();
        self.config().map(|config| Tls::built(config, alpn))
    }

    pub(crate) fn config(self) -> Result<ClientConfig> {
        if let Some(broken) = self.broken {
            return Err(Error::usage(broken));
        }
        if self.alpn.iter().any(|p| p.is_empty() || p.len() > 255) {
            return Err(Error::usage("an ALPN protocol has 1 to 255 bytes"));
        }
        let provider = self.crypto()?;
        let verifier = self.verifier(&provider)?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions()?)
            .map_err(|error| Error::new(Kind::Tls, "unusable TLS versions").with_source(error))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &self.client {
            None => config.with_no_client_auth(),
            Some(client) => config
                .with_client_auth_cert(client.0.clone(), client.1.clone_key())
                .map_err(|error| Error::usage("client certificate and key do not fit").with_source(error))?,
        };
        config.alpn_protocols = self.alpn;
        config.enable_sni = !self.without_sni;
        config.resumption = match self.resumption.unwrap_or(SESSIONS) {
            0 => Resumption::disabled(),
            sessions => Resumption::in_memory_sessions(sessions),
        };
        if let Some(log) = self.key_log {
            config.key_log = log;
        }
        Ok(config)
    }

    fn crypto(&self) -> Result<Arc<CryptoProvider>> {
        let given = match &self.provider {
            Some(provider) => provider.clone(),
            None => provider()?,
        };
        if !self.classic_only {
            return Ok(given);
        }
        let mut classic = (*given).clone();
        classic.kx_groups.retain(|group| !format!("{:?}", group.name()).contains("MLKEM"));
        Ok(Arc::new(classic))
    }

    fn versions(&self) -> Result<Vec<&'static SupportedProtocolVersion>> {
        let (min, max) = (self.min.unwrap_or(TlsVersion::V1_2), self.max.unwrap_or(TlsVersion::V1_3));
        let all = [(TlsVersion::V1_3, &rustls::version::TLS13), (TlsVersion::V1_2, &rustls::version::TLS12)];
        let chosen: Vec<_> = all.into_iter().filter(|(v, _)| (min..=max).contains(v)).map(|(_, s)| s).collect();
        if chosen.is_empty() {
            Err(Error::usage("no TLS version between the lowest and the highest"))
        } else {
            Ok(chosen)
        }
    }

    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>> {
        let base = match &self.verifier {
            Some(verifier) => verifier.clone(),
            None => self.chain_verifier(provider)?,
        };
        Ok(if self.pins.is_empty() {
            base
        } else {
            Arc::new(verify::Pinned { base, pins: self.pins.clone(), provider: provider.clone() })
        })
    }

    #[allow(unused_variables, reason = "which arms use the provider depends on the features")]
    fn chain_verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>> {
        let by_default = self.roots == Roots::Default && cfg!(feature = "platform-verifier");
        if by_default || self.roots == Roots::Platform {
            #[cfg(feature = "platform-verifier")]
            return rustls_platform_verifier::Verifier::new_with_extra_roots(self.extra.clone(), provider.clone())
                .map(|verifier| Arc::new(verifier) as _)
                .map_err(|error| Error::new(Kind::Tls, "the platform's roots cannot be loaded").with_source(error));
            #[cfg(not(feature = "platform-verifier"))]
            return Err(Error::new(Kind::Unsupported, "built without the feature `platform-verifier`"));
        }
        let mut store = RootCertStore::empty();
        if self.roots == Roots::Webpki && !cfg!(feature = "webpki-roots") {
            return Err(Error::new(Kind::Unsupported, "built without the feature `webpki-roots`"));
        }
        #[cfg(feature = "webpki-roots")]
        if self.roots != Roots::Custom {
            store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        for certificate in &self.extra {
            store
                .add(certificate.clone())
                .map_err(|error| Error::usage("not a root certificate").with_source(error))?;
        }
        if store.is_empty() {
            return Err(Error::usage("no root to trust: give one, or enable `platform-verifier` or `webpki-roots`"));
        }
        rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone())
            .build()
            .map(|verifier| verifier as _)
            .map_err(|error| Error::usage("unusable roots").with_source(error))
    }
}

impl fmt::Debug for TlsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsBuilder")
            .field("roots", &self.roots)
            .field("extra", &self.extra.len())
            .field("client_cert", &self.client.is_some())
            .field("pins", &self.pins)
            .field("alpn", &self.alpn)
            .finish_non_exhaustive()
    }
}

/// Ways to weaken TLS, each by its own loud name.
#[derive(Debug)]
#[must_use]
pub struct Dangerous(TlsBuilder);

impl Dangerous {
    /// Accept any certificate for any name: whoever sits on the line can read and change everything.
    pub fn accept_any_certificate(mut self) -> TlsBuilder {
        self.0.verifier = Some(Arc::new(verify::AcceptAny));
        self.0
    }

    /// Check certificates with `verifier` and nothing else.
    pub fn verifier(mut self, verifier: Arc<dyn ServerCertVerifier>) -> TlsBuilder {
        self.0.verifier = Some(verifier);
        self.0
    }
}
