//! The server's side of TLS, for peers that tests play themselves.

use std::fmt;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};

use crate::certs::{Certs, Pem};

/// How a played server speaks TLS.
#[derive(Clone)]
pub struct ServerTls {
    pem: Pem,
    alpn: Vec<Vec<u8>>,
    clients: Option<String>,
    versions: Vec<&'static SupportedProtocolVersion>,
}

impl ServerTls {
    /// With the authority's certificate for `localhost`; no ALPN; TLS 1.2 and 1.3.
    pub fn new(certs: &Certs) -> Self {
        Self::with(certs.server_pem())
    }

    /// With any certificate: one for another name, or one that has expired.
    pub fn with(pem: Pem) -> Self {
        Self { pem, alpn: Vec::new(), clients: None, versions: vec![&version::TLS13, &version::TLS12] }
    }

    /// What it agrees to speak inside, in order of preference.
    #[must_use]
    pub fn alpn<N: AsRef<[u8]>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.alpn = names.into_iter().map(|name| name.as_ref().to_vec()).collect();
        self
    }

    /// Demands a client certificate of this authority.
    #[must_use]
    pub fn client_auth(mut self, certs: &Certs) -> Self {
        self.clients = Some(certs.ca.clone());
        self
    }

    /// TLS 1.2 only.
    #[must_use]
    pub fn only_tls12(mut self) -> Self {
        self.versions = vec![&version::TLS12];
        self
    }

    /// rustls's settings, for those who run a server of their own on them.
    pub fn config(&self) -> ServerConfig {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(self.pem.cert.as_bytes()).collect::<Result<_, _>>().expect("PEM of our own");
        let key = PrivateKeyDer::from_pem_slice(self.pem.key.as_bytes()).expect("PEM of our own");
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&self.versions)
            .expect("the provider has suites for them");
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let mut roots = RootCertStore::empty();
                roots
                    .add(CertificateDer::from_pem_slice(ca.as_bytes()).expect("PEM of our own"))
                    .expect("an authority of our own");
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().expect("one root is enough"))
            }
        };
        let mut config = builder.with_single_cert(chain, key).expect("key and certificate match");
        config.alpn_protocols.clone_from(&self.alpn);
        config
    }

    /// What accepts connections.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::new(self.config()))
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("client_auth", &self.clients.is_some()).finish_non_exhaustive()
    }
}
