//! One test authority and what it signs.

use std::fmt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

/// An authority, a server's certificate for `localhost`, `127.0.0.1` and `::1`, and a client's; all in PEM. More can be
/// signed with [`sign`](Self::sign).
pub struct Certs {
    /// The authority's certificate: the one to trust.
    pub ca: String,
    /// The server's certificate.
    pub server: String,
    /// The server's key.
    pub server_key: String,
    /// A client's certificate.
    pub client: String,
    /// The client's key.
    pub client_key: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Pem {
    /// The certificate.
    pub cert: String,
    /// Its key (PKCS #8).
    pub key: String,
}

/// What to have signed.
#[derive(Debug, Clone)]
pub struct Leaf {
    names: Vec<String>,
    usage: ExtendedKeyUsagePurpose,
    expired: bool,
    common_name: Option<String>,
}

impl Leaf {
    /// A server's, for these names and addresses.
    pub fn server<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Self {
        let names = names.into_iter().map(Into::into).collect();
        Self { names, usage: ExtendedKeyUsagePurpose::ServerAuth, expired: false, common_name: None }
    }

    /// A client's, for this name.
    pub fn client(name: impl Into<String>) -> Self {
        let name = name.into();
        let (names, usage) = (vec![name.clone()], ExtendedKeyUsagePurpose::ClientAuth);
        Self { names, usage, expired: false, common_name: Some(name) }
    }

    /// The subject's common name. Default: none for servers, the name for clients.
    #[must_use]
    pub fn common_name(mut self, name: impl Into<String>) -> Self {
        self.common_name = Some(name.into());
        self
    }

    /// Valid in 2020 only.
    #[must_use]
    pub fn expired(mut self) -> Self {
        self.expired = true;
        self
    }
}

impl Certs {
    /// A new authority: nothing it signs is trusted by anyone else.
    pub fn new() -> Self {
        let ca_key = KeyPair::generate().expect("keys can be made");
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names are valid names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "portolan test authority");
        let ca = params.self_signed(&ca_key).expect("an authority signs itself");
        let issuer = Issuer::new(params, ca_key);
        let server = signed(&issuer, &Leaf::server(["localhost", "127.0.0.1", "::1"]));
        let client = signed(&issuer, &Leaf::client("client.test"));
        Self {
            ca: ca.pem(),
            server: server.cert,
            server_key: server.key,
            client: client.cert,
            client_key: client.key,
            issuer,
        }
    }

    /// Signs another certificate, with a key of its own.
    pub fn sign(&self, leaf: &Leaf) -> Pem {
        signed(&self.issuer, leaf)
    }

    /// The server's certificate and key.
    pub fn server_pem(&self) -> Pem {
        Pem { cert: self.server.clone(), key: self.server_key.clone() }
    }

    /// Writes `ca.pem`, `server.pem`, `server.key`, `client.pem` and `client.key` into this folder.
    pub fn write_to(&self, folder: &Path) {
        for (name, text) in [
            ("ca.pem", &self.ca),
            ("server.pem", &self.server),
            ("server.key", &self.server_key),
            ("client.pem", &self.client),
            ("client.key", &self.client_key),
        ] {
            std::fs::write(folder.join(name), text).expect("the folder can be written");
        }
    }

    /// The server's files for a server's folder: `ca.pem`, `server.pem` and `server.key`.
    pub fn server_files(&self) -> Vec<(&'static str, String)> {
        vec![("ca.pem", self.ca.clone()), ("server.pem", self.server.clone()), ("server.key", self.server_key.clone())]
    }
}

impl Pem {
    /// Writes `NAME.pem` and `NAME.key` into this folder, and says where they are.
    pub fn write_to(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (cert, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        std::fs::write(&cert, &self.cert).expect("the folder can be written");
        std::fs::write(&key, &self.key).expect("the folder can be written");
        (cert, key)
    }
}

fn signed(issuer: &Issuer<'_, KeyPair>, leaf: &Leaf) -> Pem {
    let key = KeyPair::generate().expect("keys can be made");
    let mut params = CertificateParams::new(leaf.names.clone()).expect("the names are valid");
    params.extended_key_usages = vec![leaf.usage.clone()];
    params.use_authority_key_identifier_extension = true;
    if let Some(name) = &leaf.common_name {
        params.distinguished_name.push(DnType::CommonName, name.as_str());
    }
    if leaf.expired {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 12, 31);
    }
    let certificate = params.signed_by(&key, issuer).expect("the authority signs");
    Pem { cert: certificate.pem(), key: key.serialize_pem() }
}

impl Default for Certs {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Certs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certs").finish_non_exhaustive()
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pem").finish_non_exhaustive()
    }
}
