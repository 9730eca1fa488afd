//! The answer to a challenge (RFC 7616): a second handshake, with the proof that the first one lacked.

use http::{Method, StatusCode, header};
use portolan_core::{Credentials, Error, Result};
use portolan_http::digest::{Digest, challenges};

use super::{Rejected, Request};

impl Request {
    /// User and password for a server that asks for Digest: the handshake is then made twice, the second time with the
    /// proof. [`WebSocket::connect`](crate::WebSocket::connect), `open` and `open_with` do so; who makes the handshake on a
    /// stream of its own asks [`proven`](Self::proven).
    pub fn digest_auth(mut self, credentials: Credentials) -> Self {
        self.digest = Some(credentials);
        self
    }

    /// The request for another handshake, with the proof that this refusal asks for; `None` if it asks for none, or was given
    /// one. `method` is that of the handshake: `GET` on HTTP/1.1, `CONNECT` on HTTP/2 and HTTP/3.
    pub fn proven(&self, refusal: &Error, method: &Method) -> Result<Option<Self>> {
        let (Some(credentials), Some(rejected)) = (&self.digest, refusal.server::<Rejected>()) else { return Ok(None) };
        if rejected.status != StatusCode::UNAUTHORIZED || self.headers.contains_key(header::AUTHORIZATION) {
            return Ok(None);
        }
        let challenges = challenges(rejected.headers.get_all(header::WWW_AUTHENTICATE));
        let Some(mut digest) = Digest::strongest(&challenges) else { return Ok(None) };
        let proof = digest.authorize(credentials, method, &self.target(), Some(b""))?;
        let mut again = self.renewed()?;
        again.headers.insert(header::AUTHORIZATION, proof.into_value());
        Ok(Some(again))
    }

    /// Makes a handshake, and another one where the server asks for a proof that the caller can give.
    pub(crate) async fn twice<T, F>(&self, method: Method, open: impl Fn(Self) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let refusal = match open(self.clone()).await {
            Err(error) => error,
            opened => return opened,
        };
        match self.proven(&refusal, &method)? {
            Some(again) => open(again).await,
            None => Err(refusal),
        }
    }
}
