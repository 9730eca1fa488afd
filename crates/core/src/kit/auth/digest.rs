//! A digest session: one nonce of the server, and our count of its uses.

use std::fmt;
use std::fmt::Write as _;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::algorithm::{Algorithm, hex};
use super::challenge::{Challenge, params};
use crate::error::{Delivery, Error, Kind, Phase, Result};
use crate::secret::{Credentials, Secret};
use crate::url::percent_encode;

/// How much of the message is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Qop {
    /// RFC 2069: neither count nor nonce of ours.
    None,
    Auth,
    /// The body too.
    AuthInt,
}

/// The answer to one digest challenge, for as many requests as its nonce lasts. `Debug` shows no secret.
#[derive(Clone)]
pub struct Digest {
    algorithm: Algorithm,
    /// As the server wrote it: some compare the text. RFC 2069 servers name none.
    algorithm_name: Option<String>,
    realm: String,
    nonce: String,
    opaque: Option<String>,
    auth: bool,
    auth_int: bool,
    userhash: bool,
    utf8: bool,
    stale: bool,
    /// Ours, kept as long as the nonce: a -sess key is made of the first one.
    cnonce: Option<String>,
    count: u32,
}

impl Digest {
    /// The strongest of the digest challenges that we can answer, the first of equals.
    pub fn strongest(challenges: &[Challenge]) -> Option<Self> {
        let answerable = challenges.iter().filter_map(|challenge| Self::from_challenge(challenge).ok());
        answerable.reduce(|best, next| if next.algorithm > best.algorithm { next } else { best })
    }

    /// Takes a challenge up. An unknown algorithm or qop is [`Kind::Unsupported`], a missing nonce or realm
    /// [`Kind::Protocol`].
    pub fn from_challenge(challenge: &Challenge) -> Result<Self> {
        if !challenge.is("digest") {
            return Err(Error::usage("not a digest challenge"));
        }
        let missing = |name: &str| answered(Kind::Protocol, format!("digest challenge without {name}"));
        let algorithm_name = challenge.param("algorithm");
        let algorithm = match algorithm_name {
            None => Algorithm::Md5,
            Some(name) => Algorithm::from_name(name)
                .ok_or_else(|| answered(Kind::Unsupported, "digest with an unknown algorithm".into()))?,
        };
        let qop = challenge.param("qop");
        let offers =
            |word: &str| qop.is_some_and(|qop| qop.split([',', ' ']).any(|one| one.trim().eq_ignore_ascii_case(word)));
        let (auth, auth_int) = (offers("auth"), offers("auth-int"));
        if qop.is_some_and(|qop| !qop.trim().is_empty()) && !auth && !auth_int {
            return Err(answered(Kind::Unsupported, "digest with an unknown qop".into()));
        }
        let is_true = |name: &str| challenge.param(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
        Ok(Self {
            algorithm,
            algorithm_name: algorithm_name.map(str::to_owned),
            realm: challenge.realm().ok_or_else(|| missing("realm"))?.to_owned(),
            nonce: challenge.param("nonce").ok_or_else(|| missing("nonce"))?.to_owned(),
            opaque: challenge.param("opaque").map(str::to_owned),
            auth,
            auth_int,
            userhash: is_true("userhash"),
            utf8: challenge.param("charset").is_some_and(|charset| charset.eq_ignore_ascii_case("utf-8")),
            stale: is_true("stale"),
            cnonce: None,
            count: 0,
        })
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The realm: for whom the user name and password are good.
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// Whether the server said that only the nonce was too old, so that the same credentials are worth another try. If it did not,
    /// a second refusal means that they are wrong.
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// The field for one request. `target` is the request target as it is sent: path and query, or the authority for
    /// CONNECT. `body` is the whole body where it is in memory: a server that takes `auth-int` alone needs it, and is
    /// [`Kind::Unsupported`] without.
    pub fn authorize(
        &mut self,
        credentials: &Credentials,
        method: &str,
        target: &str,
        body: Option<&[u8]>,
    ) -> Result<Authorization> {
        if self.cnonce.is_none() {
            let mut random = [0; 16];
            getrandom::fill(&mut random).map_err(|error| {
                Error::new(Kind::Unsupported, "no random bytes for a nonce").with_phase(Phase::Setup).with_source(error)
            })?;
            self.cnonce = Some(hex(random).to_string());
        }
        self.answer(credentials, method, target, body)
    }

    /// Takes `nextnonce` out of the values of `Authentication-Info` or `Proxy-Authentication-Info`. Call it for each response.
    pub fn update<'a>(&mut self, info: impl IntoIterator<Item = &'a str>) {
        if let Some(nonce) = said(info, "nextnonce").filter(|nonce| *nonce != self.nonce) {
            self.nonce = nonce;
            self.cnonce = None;
            self.count = 0;
        }
    }

    #[cfg(test)]
    pub(super) fn with_cnonce(mut self, cnonce: &str) -> Self {
        self.cnonce = Some(cnonce.to_owned());
        self
    }

    fn answer(&mut self, who: &Credentials, method: &str, target: &str, body: Option<&[u8]>) -> Result<Authorization> {
        let qop = match (self.auth, self.auth_int, body) {
            (true, ..) => Qop::Auth,
            (false, true, Some(_)) => Qop::AuthInt,
            (false, true, None) => {
                return Err(
                    Error::new(Kind::Unsupported, "digest of a body that is not in memory").with_phase(Phase::Setup)
                );
            }
            (false, false, _) => Qop::None,
        };
        self.count = self.count.checked_add(1).ok_or_else(|| answered(Kind::Limit, "nonce used up".into()))?;
        let count = format!("{:08x}", self.count);
        let cnonce = self.cnonce.clone().unwrap_or_default();
        let hash = |parts: &[&[u8]]| self.algorithm.hash(parts);
        let mut key = hash(&[who.user.as_bytes(), self.realm.as_bytes(), who.password.expose().as_bytes()]);
        if self.algorithm.is_session() {
            key = hash(&[key.as_bytes(), self.nonce.as_bytes(), cnonce.as_bytes()]);
        }
        let word = match qop {
            Qop::AuthInt => "auth-int",
            _ => "auth",
        };
        let proof = |method: &str| {
            let message = match qop {
                Qop::AuthInt => {
                    let body = hash(&[body.unwrap_or_default()]);
                    hash(&[method.as_bytes(), target.as_bytes(), body.as_bytes()])
                }
                _ => hash(&[method.as_bytes(), target.as_bytes()]),
            };
            let (key, nonce, message) = (key.as_bytes(), self.nonce.as_bytes(), message.as_bytes());
            match qop {
                Qop::None => hash(&[key, nonce, message]),
                _ => hash(&[key, nonce, count.as_bytes(), cnonce.as_bytes(), word.as_bytes(), message]),
            }
        };
        let response = proof(method);
        let counted = (qop != Qop::None).then_some((count.as_str(), word));
        let value = self.field(who, target, &response, counted, &cnonce)?;
        Ok(Authorization { value, proof: (qop == Qop::Auth).then(|| proof("")) })
    }

    fn field(
        &self,
        who: &Credentials,
        uri: &str,
        response: &str,
        counted: Option<(&str, &str)>,
        cnonce: &str,
    ) -> Result<Secret> {
        let mut text = String::with_capacity(256);
        if self.userhash {
            let hashed = self.algorithm.hash(&[who.user.as_bytes(), self.realm.as_bytes()]);
            quoted(&mut text, "Digest username", &hashed);
        } else if self.utf8 && !who.user.is_ascii() {
            // RFC 7616 3.4.4.
            let _ = write!(text, "Digest username*=UTF-8''{}", percent_encode(&who.user));
        } else {
            quoted(&mut text, "Digest username", &who.user);
        }
        quoted(&mut text, ", realm", &self.realm);
        quoted(&mut text, ", uri", uri);
        // Writing to a string can't fail.
        if let Some(algorithm) = &self.algorithm_name {
            let _ = write!(text, ", algorithm={algorithm}");
        }
        quoted(&mut text, ", nonce", &self.nonce);
        if let Some((count, qop)) = counted {
            let _ = write!(text, ", nc={count}");
            quoted(&mut text, ", cnonce", cnonce);
            let _ = write!(text, ", qop={qop}");
        } else if self.algorithm.is_session() {
            quoted(&mut text, ", cnonce", cnonce);
        }
        quoted(&mut text, ", response", response);
        if let Some(opaque) = &self.opaque {
            quoted(&mut text, ", opaque", opaque);
        }
        if self.userhash {
            text.push_str(", userhash=true");
        }
        // Text that is no ASCII goes as UTF-8.
        if text.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(Error::usage("credentials that no field can hold"));
        }
        Ok(Secret::new(text))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Digest")
            .field("algorithm", &self.algorithm)
            .field("realm", &self.realm)
            .field("stale", &self.stale)
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

/// What one request carries, and what the server must know to answer it. `Debug` shows neither.
pub struct Authorization {
    value: Secret,
    proof: Option<Zeroizing<String>>,
}

impl Authorization {
    /// The value of `Authorization` or `Proxy-Authorization`.
    pub fn value(&self) -> &Secret {
        &self.value
    }

    /// Checks the server's proof in the values of `Authentication-Info`, if it gave one: [`Kind::Auth`] where it is wrong, for
    /// then the server does not know the password.
    pub fn check<'a>(&self, info: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let (Some(proof), Some(said)) = (&self.proof, said(info, "rspauth")) else { return Ok(()) };
        if bool::from(proof.as_bytes().ct_eq(said.to_ascii_lowercase().as_bytes())) {
            return Ok(());
        }
        Err(answered(Kind::Auth, "the server's digest proof is wrong".into()))
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorization(***)")
    }
}

fn quoted(text: &mut String, name: &str, value: &str) {
    text.push_str(name);
    text.push_str("=\"");
    for c in value.chars() {
        if matches!(c, '"' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('"');
}

fn said<'a>(fields: impl IntoIterator<Item = &'a str>, name: &str) -> Option<String> {
    let mut all = fields.into_iter().flat_map(params);
    all.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn answered(kind: Kind, message: String) -> Error {
    Error::new(kind, message).with_phase(Phase::FirstByte).with_delivery(Delivery::Answered)
}
