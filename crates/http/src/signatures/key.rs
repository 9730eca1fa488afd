//! Keys, and the six algorithms of RFC 9421 3.3.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
    ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use portolan_core::{Error, Result};
use portolan_wire::asn1::{Decoder, Tag};
use zeroize::Zeroizing;

/// An algorithm of the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// `rsa-pss-sha512`.
    RsaPssSha512,
    /// `rsa-v1_5-sha256`.
    RsaV15Sha256,
    /// `hmac-sha256`.
    HmacSha256,
    /// `ecdsa-p256-sha256`.
    EcdsaP256Sha256,
    /// `ecdsa-p384-sha384`.
    EcdsaP384Sha384,
    /// `ed25519`.
    Ed25519,
}

impl Algorithm {
    /// Its name in the registry.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RsaPssSha512 => "rsa-pss-sha512",
            Self::RsaV15Sha256 => "rsa-v1_5-sha256",
            Self::HmacSha256 => "hmac-sha256",
            Self::EcdsaP256Sha256 => "ecdsa-p256-sha256",
            Self::EcdsaP384Sha384 => "ecdsa-p384-sha384",
            Self::Ed25519 => "ed25519",
        }
    }
}

/// A key that signs.
#[derive(Clone)]
#[must_use]
pub struct SigningKey {
    pub(super) algorithm: Algorithm,
    pub(super) id: Option<String>,
    inner: Arc<Private>,
}

enum Private {
    Rsa(RsaKeyPair),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Hmac(Arc<hmac::Key>),
}

/// A key that verifies.
#[derive(Clone)]
pub struct VerifyingKey {
    pub(super) algorithm: Algorithm,
    inner: Public,
}

#[derive(Clone)]
enum Public {
    Key(Arc<[u8]>),
    Hmac(Arc<hmac::Key>),
}

impl SigningKey {
    /// A private key in PEM: PKCS#8, or as RSA and elliptic curves have it of old.
    pub fn from_pem(algorithm: Algorithm, pem: &str) -> Result<Self> {
        Self::from_der(algorithm, &decode_pem(pem)?)
    }

    /// The same in DER.
    pub fn from_der(algorithm: Algorithm, der: &[u8]) -> Result<Self> {
        let wrong = || Error::usage(format!("no private key for {}", algorithm.as_str()));
        let inner = pkcs8(der);
        let curve = |curve| match inner {
            Some(_) => EcdsaKeyPair::from_pkcs8(curve, der).map_err(|_| wrong()),
            None => EcdsaKeyPair::from_private_key_der(curve, der).map_err(|_| wrong()),
        };
        let inner = match algorithm {
            // The wrapper may name RSA or RSA-PSS: within it is the same.
            Algorithm::RsaPssSha512 | Algorithm::RsaV15Sha256 => {
                Private::Rsa(RsaKeyPair::from_der(inner.unwrap_or(der)).map_err(|_| wrong())?)
            }
            Algorithm::EcdsaP256Sha256 => Private::Ecdsa(curve(&ECDSA_P256_SHA256_FIXED_SIGNING)?),
            Algorithm::EcdsaP384Sha384 => Private::Ecdsa(curve(&ECDSA_P384_SHA384_FIXED_SIGNING)?),
            Algorithm::Ed25519 => {
                Private::Ed25519(Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| wrong())?)
            }
            Algorithm::HmacSha256 => return Err(Error::usage("a secret is no key in PEM or DER: see hmac_sha256")),
        };
        Ok(Self { algorithm, id: None, inner: Arc::new(inner) })
    }

    /// A secret that both sides have.
    pub fn hmac_sha256(secret: &[u8]) -> Self {
        let inner = Arc::new(Private::Hmac(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, secret))));
        Self { algorithm: Algorithm::HmacSha256, id: None, inner }
    }

    /// What the key is called: `keyid`.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// The key that verifies what this one signs.
    pub fn verifying_key(&self) -> VerifyingKey {
        let inner = match &*self.inner {
            Private::Rsa(key) => Public::Key(key.public_key().as_ref().into()),
            Private::Ecdsa(key) => Public::Key(key.public_key().as_ref().into()),
            Private::Ed25519(key) => Public::Key(key.public_key().as_ref().into()),
            Private::Hmac(key) => Public::Hmac(key.clone()),
        };
        VerifyingKey { algorithm: self.algorithm, inner }
    }

    pub(super) fn sign(&self, base: &[u8]) -> Result<Vec<u8>> {
        let failed = || Error::usage(format!("a key that can't sign by {}", self.algorithm.as_str()));
        let random = SystemRandom::new();
        match &*self.inner {
            Private::Rsa(key) => {
                let padding: &dyn signature::RsaEncoding = match self.algorithm {
                    Algorithm::RsaPssSha512 => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut out = vec![0; key.public_modulus_len()];
                key.sign(padding, &random, base, &mut out).map_err(|_| failed())?;
                Ok(out)
            }
            Private::Ecdsa(key) => Ok(key.sign(&random, base).map_err(|_| failed())?.as_ref().to_vec()),
            Private::Ed25519(key) => Ok(key.sign(base).as_ref().to_vec()),
            Private::Hmac(key) => Ok(hmac::sign(key, base).as_ref().to_vec()),
        }
    }
}

impl VerifyingKey {
    /// A public key in PEM: `PUBLIC KEY`, or `RSA PUBLIC KEY`.
    pub fn from_pem(algorithm: Algorithm, pem: &str) -> Result<Self> {
        Self::from_der(algorithm, &decode_pem(pem)?)
    }

    /// The same in DER; for Ed25519 and ECDSA also the bare key.
    pub fn from_der(algorithm: Algorithm, der: &[u8]) -> Result<Self> {
        if algorithm == Algorithm::HmacSha256 {
            return Err(Error::usage("a secret is no public key: see hmac_sha256"));
        }
        Ok(Self { algorithm, inner: Public::Key(spki(der).unwrap_or(der).into()) })
    }

    /// A secret that both sides have.
    pub fn hmac_sha256(secret: &[u8]) -> Self {
        SigningKey::hmac_sha256(secret).verifying_key()
    }

    pub(super) fn verify(&self, base: &[u8], signature: &[u8]) -> bool {
        let by = |algorithm: &'static dyn signature::VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(algorithm, key).verify(base, signature).is_ok()
        };
        match (&self.inner, self.algorithm) {
            (Public::Hmac(key), _) => hmac::verify(key, base, signature).is_ok(),
            (Public::Key(key), Algorithm::RsaPssSha512) => by(&signature::RSA_PSS_2048_8192_SHA512, key),
            (Public::Key(key), Algorithm::RsaV15Sha256) => by(&signature::RSA_PKCS1_2048_8192_SHA256, key),
            (Public::Key(key), Algorithm::EcdsaP256Sha256) => by(&ECDSA_P256_SHA256_FIXED, key),
            (Public::Key(key), Algorithm::EcdsaP384Sha384) => by(&ECDSA_P384_SHA384_FIXED, key),
            (Public::Key(key), Algorithm::Ed25519) => by(&signature::ED25519, key),
            (Public::Key(_), Algorithm::HmacSha256) => false,
        }
    }
}

/// What is between the first BEGIN and its END.
fn decode_pem(pem: &str) -> Result<Zeroizing<Vec<u8>>> {
    let wrong = || Error::usage("no key in PEM");
    let (_, rest) = pem.split_once("-----BEGIN ").ok_or_else(wrong)?;
    let (_, rest) = rest.split_once("-----").ok_or_else(wrong)?;
    let (text, _) = rest.split_once("-----END ").ok_or_else(wrong)?;
    let text: Zeroizing<String> = Zeroizing::new(text.split_ascii_whitespace().collect());
    STANDARD.decode(text.as_bytes()).map(Zeroizing::new).map_err(|_| wrong())
}

/// The key within PKCS#8 (RFC 5958), if that is what it is.
fn pkcs8(der: &[u8]) -> Option<&[u8]> {
    let mut fields = Decoder::der(der).sequence("key").ok()?;
    fields.integer("version").ok()?;
    fields.sequence("algorithm").ok()?;
    let content = fields.element("key").ok()?;
    (content.tag == Tag::OCTET_STRING).then_some(content.content)
}

/// The key within a SubjectPublicKeyInfo (RFC 5280 4.1), if that is what it is.
fn spki(der: &[u8]) -> Option<&[u8]> {
    let mut fields = Decoder::der(der).sequence("key").ok()?;
    fields.sequence("algorithm").ok()?;
    fields.bit_string_octets("key").ok()
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("algorithm", &self.algorithm).field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyingKey").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}
