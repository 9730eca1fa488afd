//! The hashes, by name.

use md5::Md5;
use sha2::digest::Output;
use sha2::{Digest, Sha256, Sha512_256};
use zeroize::Zeroizing;

/// A hash and whether the key is made anew for each session; weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// MD5: broken for much, but all that many servers know.
    Md5,
    /// MD5-sess.
    Md5Sess,
    /// SHA-256.
    Sha256,
    /// SHA-256-sess.
    Sha256Sess,
    /// SHA-512-256.
    Sha512_256,
    /// SHA-512-256-sess.
    Sha512_256Sess,
}

impl Algorithm {
    const ALL: [Self; 6] =
        [Self::Md5, Self::Md5Sess, Self::Sha256, Self::Sha256Sess, Self::Sha512_256, Self::Sha512_256Sess];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Md5Sess => "MD5-sess",
            Self::Sha256 => "SHA-256",
            Self::Sha256Sess => "SHA-256-sess",
            Self::Sha512_256 => "SHA-512-256",
            Self::Sha512_256Sess => "SHA-512-256-sess",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str().eq_ignore_ascii_case(name))
    }

    pub(super) fn is_session(self) -> bool {
        matches!(self, Self::Md5Sess | Self::Sha256Sess | Self::Sha512_256Sess)
    }

    /// The hash of the parts with colons between them, in lower-case hex.
    pub(crate) fn hash(self, parts: &[&[u8]]) -> Zeroizing<String> {
        match self {
            Self::Md5 | Self::Md5Sess => hex(joined::<Md5>(parts)),
            Self::Sha256 | Self::Sha256Sess => hex(joined::<Sha256>(parts)),
            Self::Sha512_256 | Self::Sha512_256Sess => hex(joined::<Sha512_256>(parts)),
        }
    }
}

fn joined<D: Digest>(parts: &[&[u8]]) -> Output<D> {
    let mut hash = D::new();
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            hash.update(b":");
        }
        hash.update(part);
    }
    hash.finalize()
}

pub(super) fn hex(bytes: impl AsRef<[u8]>) -> Zeroizing<String> {
    let bytes = bytes.as_ref();
    let mut text = Zeroizing::new(String::with_capacity(bytes.len() * 2));
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
    text
}
