//! One tunnel's proof to its proxy: what to send first, and what to answer to a 407.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;

use super::challenge::Challenge;
use super::digest::Digest;
use super::ntlm;
use super::proxy::{How, ProxyAuth, TokenExchange, TokenSource, basic, bearer};
use crate::endpoint::Endpoint;
use crate::error::{Error, Kind, Phase, Result};
use crate::secret::{Credentials, Secret};

/// Tokens of one exchange: Kerberos needs one or two, NTLM two.
const MAX_TOKENS: usize = 8;

/// What the tunnels through one proxy have learnt of it: the next one need not ask.
#[derive(Default)]
pub struct Remembered(Mutex<Known>);

#[derive(Default)]
enum Known {
    #[default]
    Nothing,
    Basic,
    Digest(Box<Digest>),
    Tokens(Arc<dyn TokenSource>),
}

impl fmt::Debug for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Remembered")
    }
}

/// The proof of one tunnel. It ends by itself: no answer of a proxy makes it try for ever.
pub struct Login<'a> {
    auth: Option<&'a ProxyAuth>,
    remembered: &'a Remembered,
    proxy: &'a Endpoint,
    /// Whether the connection is this tunnel's alone, as schemes with tokens need it.
    own: bool,
    sent: Sent,
    exchange: Option<(&'static str, Box<dyn TokenExchange>)>,
    tokens: usize,
    /// Challenges answered by a digest, and the last of them: shared once it is known to be good.
    digests: usize,
    digest: Option<Box<Digest>>,
    basic: bool,
    bound: bool,
}

/// What the last request carried.
enum Sent {
    Nothing,
    Whole,
    Digest,
    Token,
}

impl fmt::Debug for Login<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("auth", &self.auth).finish_non_exhaustive()
    }
}

impl<'a> Login<'a> {
    /// For one tunnel through `proxy`; `own` says whether the connection to it is this tunnel's alone.
    pub fn new(auth: Option<&'a ProxyAuth>, remembered: &'a Remembered, proxy: &'a Endpoint, own: bool) -> Self {
        Self {
            auth,
            remembered,
            proxy,
            own,
            sent: Sent::Nothing,
            exchange: None,
            tokens: 0,
            digests: 0,
            digest: None,
            basic: false,
            bound: false,
        }
    }

    /// The value of `Proxy-Authorization` of the first request to go to `target` (an authority, or a path).
    pub async fn first(&mut self, method: &str, target: &str) -> Result<Option<Secret>> {
        let Some(ProxyAuth(how)) = self.auth else { return Ok(None) };
        match how {
            How::Basic(who) => self.whole(basic(who)?),
            How::Bearer(token) => self.whole(bearer(token)?),
            How::Tokens(source) => self.begin(source).await,
            How::Any(who) | How::Strongest(who) | How::Digest(who) => {
                let tokens = {
                    let mut known = lock(self.remembered);
                    match &mut *known {
                        Known::Digest(digest) => {
                            self.sent = Sent::Digest;
                            return Ok(Some(digest.authorize(who, method, target, Some(b""))?.value().clone()));
                        }
                        Known::Tokens(source) if self.own => Some(source.clone()),
                        _ => None,
                    }
                };
                if let Some(source) = tokens {
                    return self.begin(&source).await;
                }
                let at_once = match how {
                    How::Any(_) => true,
                    How::Strongest(_) => matches!(&*lock(self.remembered), Known::Basic),
                    _ => false,
                };
                if at_once { self.basic(who) } else { Ok(None) }
            }
        }
    }

    /// The next request's value after a 407, or nothing where there is no more to say: then the proxy has refused.
    pub async fn again(&mut self, offered: &[Challenge], method: &str, target: &str) -> Result<Option<Secret>> {
        let Some(ProxyAuth(how)) = self.auth else { return Ok(None) };
        if matches!(self.sent, Sent::Token) {
            return self.turn(offered).await;
        }
        let who = match how {
            How::Basic(_) | How::Bearer(_) | How::Tokens(_) => return Ok(None),
            How::Any(who) | How::Strongest(who) | How::Digest(who) => who,
        };
        if let Some(mut digest) = Digest::strongest(offered) {
            // One that only says that its nonce is too old is worth another answer, once.
            let fresh = self.digests == 0 || (digest.is_stale() && self.digests == 1);
            if !fresh {
                return Ok(None);
            }
            self.digests += 1;
            self.sent = Sent::Digest;
            let answer = digest.authorize(who, method, target, Some(b""))?;
            self.digest = Some(Box::new(digest));
            return Ok(Some(answer.value().clone()));
        }
        if matches!(how, How::Digest(_)) {
            return Ok(None);
        }
        if let Some(source) = ntlm::tokens(who)
            && self.own
            && self.tokens == 0
            && offered.iter().any(|challenge| challenge.is(source.scheme()))
        {
            *lock(self.remembered) = Known::Tokens(source.clone());
            return self.begin(&source).await;
        }
        if !self.basic && offered.iter().any(|challenge| challenge.is("basic")) {
            *lock(self.remembered) = Known::Basic;
            return self.basic(who);
        }
        Ok(None)
    }

    /// The proxy let the tunnel through: `info` are its values of `Proxy-Authentication-Info`.
    pub fn passed<'i>(&mut self, info: impl IntoIterator<Item = &'i str>) {
        if let Some(digest) = self.digest.take() {
            // Not before: its first use must reach the proxy before the second one.
            *lock(self.remembered) = Known::Digest(digest);
        }
        if let Known::Digest(digest) = &mut *lock(self.remembered) {
            digest.update(info);
        }
    }

    /// Whether the next request must go by the connection of the last one.
    pub fn is_bound(&self) -> bool {
        self.bound
    }

    /// Whether the proxy was told anything.
    pub fn has_spoken(&self) -> bool {
        !matches!(self.sent, Sent::Nothing)
    }

    fn whole(&mut self, value: Secret) -> Result<Option<Secret>> {
        self.sent = Sent::Whole;
        Ok(Some(value))
    }

    fn basic(&mut self, who: &Credentials) -> Result<Option<Secret>> {
        self.basic = true;
        self.whole(basic(who)?)
    }

    async fn begin(&mut self, source: &Arc<dyn TokenSource>) -> Result<Option<Secret>> {
        if !self.own {
            let message = format!("{} belongs to a connection, and this proxy's is shared", source.scheme());
            return Err(Error::new(Kind::Unsupported, message).with_phase(Phase::Hop));
        }
        let mut exchange = source.begin(self.proxy)?;
        let token = exchange.next(None).await?;
        self.exchange = Some((source.scheme(), exchange));
        self.said(&token)
    }

    async fn turn(&mut self, offered: &[Challenge]) -> Result<Option<Secret>> {
        let Some((scheme, exchange)) = &mut self.exchange else { return Ok(None) };
        let token = offered.iter().find(|challenge| challenge.is(scheme)).and_then(Challenge::token);
        let Some(token) = token.filter(|_| self.tokens < MAX_TOKENS) else { return Ok(None) };
        let token = base64::engine::general_purpose::STANDARD.decode(token);
        let token = token.map_err(|_| refused("the proxy's token is not base64"))?;
        let next = exchange.next(Some(&token)).await?;
        self.bound = true;
        self.said(&next)
    }

    fn said(&mut self, token: &[u8]) -> Result<Option<Secret>> {
        let Some((scheme, _)) = &self.exchange else { return Ok(None) };
        let value = format!("{scheme} {}", base64::engine::general_purpose::STANDARD.encode(token));
        self.tokens += 1;
        self.sent = Sent::Token;
        Ok(Some(Secret::new(value)))
    }
}

fn lock(remembered: &Remembered) -> std::sync::MutexGuard<'_, Known> {
    remembered.0.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn refused(message: impl Into<Box<str>>) -> Error {
    Error::new(Kind::Auth, message).with_phase(Phase::Hop)
}
