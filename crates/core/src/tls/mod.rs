//! TLS, said once: roots, client certificates, pins, key log, resumption, ALPN.
//!
//! On rustls. The crypto provider is passed explicitly and never installed for the process, so two libraries with two
//! providers live in one program. With aws-lc-rs the hybrid X25519MLKEM768 key exchange is offered first.

mod builder;
mod handshake;
mod verify;

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::ClientConfig;
use rustls::crypto::CryptoProvider;

use crate::error::{Error, Kind, Result};

pub use builder::{Dangerous, Pin, Roots, TlsBuilder, TlsVersion};
pub(crate) use handshake::handshake;

/// How TLS is spoken: cheap to clone; all clones share one session cache.
///
/// ```
/// use portolan_core::Tls;
///
/// let tls = Tls::builder().alpn(["h2", "http/1.1"]).build()?;
/// assert_eq!(tls.alpn(), [b"h2".to_vec(), b"http/1.1".to_vec()]);
/// # Ok::<(), portolan_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    config: OnceLock<Result<Arc<ClientConfig>, String>>,
    builder: Option<TlsBuilder>,
    alpn: Vec<Vec<u8>>,
}

impl Tls {
    /// A configuration to be said piece by piece.
    pub fn builder() -> TlsBuilder {
        TlsBuilder::default()
    }

    /// A rustls configuration made elsewhere; its ALPN list is the default one.
    pub fn from_rustls(config: Arc<ClientConfig>) -> Self {
        let alpn = config.alpn_protocols.clone();
        Self(Arc::new(Inner { config: OnceLock::from(Ok(config)), builder: None, alpn }))
    }

    pub(crate) fn built(config: ClientConfig, alpn: Vec<Vec<u8>>) -> Self {
        Self(Arc::new(Inner { config: OnceLock::from(Ok(Arc::new(config))), builder: None, alpn }))
    }

    /// The rustls configuration beneath, for QUIC and for crates that bring their own TLS stream.
    pub fn to_rustls(&self) -> Result<Arc<ClientConfig>> {
        let build = || {
            let builder = self.0.builder.clone().unwrap_or_default();
            builder.config().map(Arc::new).map_err(|error| error.message().to_owned())
        };
        match self.0.config.get_or_init(build) {
            Ok(config) => Ok(config.clone()),
            Err(message) => Err(Error::new(Kind::Tls, message.as_str())),
        }
    }

    /// The application protocols offered where the caller names none.
    pub fn alpn(&self) -> &[Vec<u8>] {
        &self.0.alpn
    }

    /// Whether both are one configuration, with one set of identities and one session cache: what a pool asks.
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Default for Tls {
    /// Trusts what the build trusts (see [`Roots::Default`]); the roots are loaded at the first handshake.
    fn default() -> Self {
        Self(Arc::new(Inner { config: OnceLock::new(), builder: Some(TlsBuilder::default()), alpn: Vec::new() }))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("alpn", &self.0.alpn).finish_non_exhaustive()
    }
}

/// The provider of this build, aws-lc-rs before ring where both are there.
#[allow(unreachable_code, reason = "each feature returns before the next is asked")]
pub(crate) fn provider() -> Result<Arc<CryptoProvider>> {
    #[cfg(feature = "aws-lc-rs")]
    return Ok(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    #[cfg(feature = "ring")]
    return Ok(Arc::new(rustls::crypto::ring::default_provider()));
    Err(Error::new(Kind::Unsupported, "built without a TLS provider: enable the feature `aws-lc-rs` or `ring`"))
}
