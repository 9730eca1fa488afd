//! One test authority and what it signed.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// An authority, a server's certificate for `localhost`, `127.0.0.1` and `::1`, and a client's; all in PEM.
#[derive(Debug)]
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
}

impl Certs {
    /// A new authority: nothing it signs is trusted by anyone else.
    pub fn new() -> Self {
        let ca_key = KeyPair::generate().expect("keys can be made");
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names are valid names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "portolan test authority");
        let ca = params.self_signed(&ca_key).expect("an authority signs itself");
        let issuer = Issuer::new(params, ca_key);
        let signed = |names: &[&str]| {
            let key = KeyPair::generate().expect("keys can be made");
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let params = CertificateParams::new(names).expect("the names are valid");
            let certificate = params.signed_by(&key, &issuer).expect("the authority signs");
            (certificate.pem(), key.serialize_pem())
        };
        let (server, server_key) = signed(&["localhost", "127.0.0.1", "::1"]);
        let (client, client_key) = signed(&["client.test"]);
        Self { ca: ca.pem(), server, server_key, client, client_key }
    }
}

impl Default for Certs {
    fn default() -> Self {
        Self::new()
    }
}
