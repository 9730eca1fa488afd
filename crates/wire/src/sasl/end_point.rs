//! The hash of a certificate for `tls-server-end-point` (RFC 5929 4.1).

use sha1::Digest as _;
use sha2::{Sha256, Sha384, Sha512};

use crate::asn1::{Decoder, Tag};
use crate::error::DecodeError;

/// Hashes a certificate with the hash of its own signature, MD5 and SHA-1 replaced by SHA-256; `None` where that is not
/// defined (Ed25519 hashes nothing beforehand).
pub(super) fn hash(certificate: &[u8]) -> Option<Vec<u8>> {
    match name(certificate).ok()?.as_str() {
        // RSA with MD5, SHA-1, SHA-256; ECDSA with SHA-1, SHA-256 (RFC 3279 2.2, RFC 4055 5, RFC 5758 3.2).
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2"
        | "2.16.840.1.101.3.4.2.1" => Some(Sha256::digest(certificate).to_vec()),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" | "2.16.840.1.101.3.4.2.2" => {
            Some(Sha384::digest(certificate).to_vec())
        }
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" | "2.16.840.1.101.3.4.2.3" => {
            Some(Sha512::digest(certificate).to_vec())
        }
        _ => None,
    }
}

/// The signature's algorithm; for RSASSA-PSS, that of its hash.
fn name(certificate: &[u8]) -> Result<String, DecodeError> {
    let mut outer = Decoder::der(certificate).sequence("certificate")?;
    outer.element("to be signed")?;
    let mut algorithm = outer.sequence("signature algorithm")?;
    let oid = algorithm.oid("signature algorithm")?.to_string();
    if oid != "1.2.840.113549.1.1.10" {
        return Ok(oid);
    }
    // RFC 4055 3.1: the hash is the parameter tagged 0, and SHA-1 where it is left out.
    let mut parameters = algorithm.sequence("pss parameters")?;
    let explicit = Tag::context_constructed(0);
    let hash = parameters.optional(explicit, |p| {
        p.constructed(explicit, "pss hash")?.sequence("pss hash")?.oid("pss hash").map(|oid| oid.to_string())
    })?;
    Ok(hash.unwrap_or_else(|| "1.2.840.113549.1.1.5".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asn1::Encoder;

    fn certificate(write: impl FnOnce(&mut Encoder<'_>) -> portolan_core::Result<()>) -> Vec<u8> {
        let mut out = bytes::BytesMut::new();
        let written = Encoder::new(&mut out).sequence(|e| {
            e.sequence(|e| e.octet_string(b"to be signed"))?;
            e.sequence(write)?;
            e.bit_string_octets(b"signature")
        });
        written.unwrap();
        out.to_vec()
    }

    #[test]
    fn the_hash_is_that_of_the_signature_and_never_weaker_than_sha_256() {
        let simple = |oid: &str| certificate(|e| e.oid(&oid.parse()?));
        let of = |certificate: Vec<u8>| hash(&certificate).map(|hash| hash.len());
        assert_eq!(of(simple("1.2.840.113549.1.1.11")), Some(32));
        assert_eq!(of(simple("1.2.840.113549.1.1.5")), Some(32));
        assert_eq!(of(simple("1.2.840.10045.4.3.3")), Some(48));
        assert_eq!(of(simple("1.2.840.113549.1.1.13")), Some(64));
        assert_eq!(of(simple("1.3.101.112")), None, "Ed25519");
        let pss = |hash: Option<&str>| {
            certificate(|e| {
                e.oid(&"1.2.840.113549.1.1.10".parse()?)?;
                e.sequence(|e| match hash {
                    Some(hash) => e.constructed(Tag::context_constructed(0), |e| e.sequence(|e| e.oid(&hash.parse()?))),
                    None => Ok(()),
                })
            })
        };
        assert_eq!(of(pss(Some("2.16.840.1.101.3.4.2.3"))), Some(64));
        assert_eq!(of(pss(None)), Some(32));
        assert_eq!(hash(b"not a certificate"), None);
    }
}
