//! The session of core, in the words of HTTP's types.

use http::{HeaderMap, HeaderValue, Method};
use portolan_core::kit::auth;
use portolan_core::{Credentials, Error, Result};

use super::{Algorithm, Challenge};
use crate::PROTOCOL;

/// The challenges in all fields, in their order. What follows a mistake in a field is left out; fields that are no UTF-8
/// are left out whole.
pub fn challenges<'a>(fields: impl IntoIterator<Item = &'a HeaderValue>) -> Vec<Challenge> {
    auth::challenges(fields.into_iter().filter_map(|field| std::str::from_utf8(field.as_bytes()).ok()))
}

/// The answer to one digest challenge, for as many requests as its nonce lasts. `Debug` shows no secret.
#[derive(Debug, Clone)]
pub struct Digest(auth::Digest);

impl Digest {
    /// The strongest of the digest challenges that we can answer, the first of equals.
    pub fn strongest(challenges: &[Challenge]) -> Option<Self> {
        auth::Digest::strongest(challenges).map(Self)
    }

    /// Takes a challenge up. An unknown algorithm or qop is [`Kind::Unsupported`](portolan_core::Kind::Unsupported), a missing
    /// nonce or realm [`Kind::Protocol`](portolan_core::Kind::Protocol).
    pub fn from_challenge(challenge: &Challenge) -> Result<Self> {
        auth::Digest::from_challenge(challenge).map(Self).map_err(named)
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.0.algorithm()
    }

    /// The realm: for whom the user name and password are good.
    pub fn realm(&self) -> &str {
        self.0.realm()
    }

    /// Whether the server said that only the nonce was too old, so that the same credentials are worth another try. If it did not,
    /// a second refusal means that they are wrong.
    pub fn is_stale(&self) -> bool {
        self.0.is_stale()
    }

    /// The field for one request. `target` is the request target as it is sent: path and query, or the authority for
    /// CONNECT. `body` is the whole body where it is in memory: a server that takes `auth-int` alone needs it, and is
    /// [`Kind::Unsupported`](portolan_core::Kind::Unsupported) without.
    pub fn authorize(
        &mut self,
        credentials: &Credentials,
        method: &Method,
        target: &str,
        body: Option<&[u8]>,
    ) -> Result<Authorization> {
        let answer = self.0.authorize(credentials, method.as_str(), target, body).map_err(named)?;
        let value = HeaderValue::from_bytes(answer.value().expose().as_bytes());
        let mut value = value.map_err(|_| Error::usage("credentials that no field can hold"))?;
        value.set_sensitive(true);
        Ok(Authorization { value, answer })
    }

    /// Takes `nextnonce` out of `Authentication-Info` or `Proxy-Authentication-Info`. Call it for each response.
    pub fn update(&mut self, headers: &HeaderMap) {
        self.0.update(info(headers));
    }
}

/// What one request carries, and what the server must know to answer it. `Debug` shows neither.
#[derive(Debug)]
pub struct Authorization {
    value: HeaderValue,
    answer: auth::Authorization,
}

impl Authorization {
    /// The value of `Authorization` or `Proxy-Authorization`.
    pub fn value(&self) -> &HeaderValue {
        &self.value
    }

    /// The value, taken out.
    pub fn into_value(self) -> HeaderValue {
        self.value
    }

    /// Checks the server's proof in `Authentication-Info`, if it gave one: [`Kind::Auth`](portolan_core::Kind::Auth) where it is
    /// wrong, for then the server does not know the password.
    pub fn check(&self, headers: &HeaderMap) -> Result<()> {
        self.answer.check(info(headers)).map_err(named)
    }
}

fn info(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let fields = ["authentication-info", "proxy-authentication-info"];
    fields.into_iter().flat_map(|field| headers.get_all(field)).filter_map(|value| value.to_str().ok())
}

fn named(error: Error) -> Error {
    error.with_protocol(PROTOCOL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_go_in_and_out_and_the_answer_is_marked_as_secret() {
        let offered = HeaderValue::from_static("Digest realm=\"r\", nonce=\"one\", qop=auth");
        let mut digest = Digest::strongest(&challenges([&offered, &HeaderValue::from_static("Basic")])).unwrap();
        let answer = digest.authorize(&Credentials::new("joe", "sesame"), &Method::GET, "/", None).unwrap();
        assert!(answer.value().is_sensitive() && !format!("{answer:?} {digest:?}").contains("one"));
        let mut headers = HeaderMap::new();
        headers.insert("authentication-info", HeaderValue::from_static("nextnonce=\"two\""));
        answer.check(&headers).unwrap();
        digest.update(&headers);
        let answer = digest.authorize(&Credentials::new("joe", "sesame"), &Method::GET, "/", None).unwrap();
        assert!(answer.into_value().to_str().unwrap().contains("nonce=\"two\", nc=00000001"));
        headers.insert("authentication-info", HeaderValue::from_static("rspauth=\"00\""));
        let answer = digest.authorize(&Credentials::new("joe", "sesame"), &Method::GET, "/", None).unwrap();
        let error = answer.check(&headers).unwrap_err();
        assert_eq!((error.kind(), error.protocol_name()), (portolan_core::Kind::Auth, Some(PROTOCOL)));
    }
}
