//! HTTP CONNECT over HTTP/1.1 (RFC 9110 9.3.6), in the clear or inside TLS; and the way to a proxy that forwards.

mod answer;

use super::{Way, cannot_reach, refused, write};
use crate::clock;
use crate::datagram::Datagram;
use crate::dial::{BoxFuture, Dial, DialContext};
use crate::endpoint::Endpoint;
use crate::error::{Error, Kind, Phase, Result};
use crate::kit::auth::{Login, ProxyAuth, Remembered, challenges};
use crate::kit::{QUOTE_WAIT, refusal};
use crate::secret::Secret;
use crate::stream::Stream;

use answer::{Answer, Head};

/// How often a proxy may close the connection on us before it has let us through: once when it asks for proof, once more when
/// its nonce is too old, and once when it hung up between the two.
const MAX_REDIALS: usize = 3;

#[derive(Debug)]
pub(super) struct Http {
    pub(super) way: Way,
    pub(super) tls: bool,
    pub(super) headers: Vec<(String, String)>,
    pub(super) auth: Option<ProxyAuth>,
    pub(super) remembered: Remembered,
    /// Whether requests of plain HTTP are left to the proxy.
    pub(super) forwards: bool,
}

/// Where a conversation on one connection ended.
enum Ended {
    Through(Stream),
    /// To be gone on with on another connection.
    Redial,
}

impl Http {
    async fn stream(&self, to: &Endpoint, cx: &DialContext) -> Result<Stream> {
        if self.forwards && self.way.place.last && cx.is_plain_http() {
            let stream = self.open(cx).await?;
            let fields = self.fields()?;
            return self.way.pass(cx, async { Ok(stream.with_forwards(fields)) }).await;
        }
        // The proxy always resolves: there is no other form than a name or an address in text.
        let targets = cx.targets(to, self.way.place, true).await?;
        let mut last = None;
        for target in &targets {
            match self.attempt(target, cx).await {
                Err(error) if cannot_reach(&error) => last = Some(error),
                result => return result,
            }
        }
        Err(self.way.none_left(last))
    }

    async fn attempt(&self, target: &Endpoint, cx: &DialContext) -> Result<Stream> {
        let authority = self.way.proxy.authority();
        let mut login = Login::new(self.auth.as_ref(), &self.remembered, &self.way.proxy, true);
        let mut proof = None;
        for redials in 0.. {
            let stream = self.open(cx).await?;
            let work = async {
                if redials == 0 {
                    proof = login.first("CONNECT", &target.authority()).await?;
                }
                self.converse(stream, target, &mut login, &mut proof, redials < MAX_REDIALS).await
            };
            if let Ended::Through(stream) = cx.hop(self.way.place, self.way.kind, &authority, work).await? {
                return Ok(stream);
            }
        }
        Err(self.way.none_left(None))
    }

    /// A connection to the proxy, inside TLS where that is its way.
    async fn open(&self, cx: &DialContext) -> Result<Stream> {
        let stream = self.way.to_proxy(cx).await?;
        if !self.tls {
            return Ok(stream);
        }
        let mut stream = self.way.start_tls(stream, &[b"http/1.1"], cx).await?;
        // From here on `tls` speaks of the target.
        stream.info_mut().tls = None;
        Ok(stream)
    }

    /// What a proxy that forwards wants to see on every request.
    fn fields(&self) -> Result<Vec<(String, Secret)>> {
        let proof = self.auth.as_ref().and_then(ProxyAuth::at_once).transpose()?;
        let proof = proof.map(|proof| ("Proxy-Authorization".to_owned(), proof));
        let headers = self.headers.iter().map(|(name, value)| (name.clone(), Secret::new(value.clone())));
        Ok(proof.into_iter().chain(headers).collect())
    }

    /// Asks until the proxy lets us through, says no, or closes. `proof` is what the next request carries.
    async fn converse(
        &self,
        mut stream: Stream,
        target: &Endpoint,
        login: &mut Login<'_>,
        proof: &mut Option<Secret>,
        may_redial: bool,
    ) -> Result<Ended> {
        let mut kept = false;
        loop {
            // A connection that was kept may have been closed meanwhile, unseen; what is bound to it ends with it.
            let stale = kept && may_redial && !login.is_bound();
            if let Err(error) = write(&mut stream, self.request(target, proof.as_ref())?.expose().as_bytes()).await {
                return if stale { Ok(Ended::Redial) } else { Err(error) };
            }
            let mut answer = match Answer::read(&mut stream).await {
                Ok(Some(answer)) => answer,
                Ok(None) | Err(_) if stale => return Ok(Ended::Redial),
                Ok(None) => return Err(refused("the proxy closed while it answered")),
                Err(error) => return Err(error),
            };
            if (200..300).contains(&answer.head.code) {
                login.passed(answer.head.values("proxy-authentication-info"));
                // A body is impossible here, whatever the head says of its length (RFC 9110 9.3.6).
                return Ok(Ended::Through(stream.with_early(answer.rest.freeze())));
            }
            if answer.head.code != 407 {
                return Err(quoted(&mut stream, answer).await);
            }
            let asked = login.has_spoken();
            let offered = challenges(answer.head.values("proxy-authenticate"));
            *proof = login.again(&offered, "CONNECT", &target.authority()).await?;
            if proof.is_none() {
                return Err(refusal_of(&answer.head, asked, b""));
            }
            kept = answer.finish(&mut stream).await;
            match (kept, login.is_bound(), may_redial) {
                (true, ..) => {}
                (false, true, _) => return Err(refused("the proxy closed between the turns of a login")),
                (false, false, true) => return Ok(Ended::Redial),
                (false, false, false) => return Err(refusal_of(&answer.head, asked, b"")),
            }
        }
    }

    fn request(&self, target: &Endpoint, proof: Option<&Secret>) -> Result<Secret> {
        let authority = target.authority();
        let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
        if let Some(proof) = proof {
            request.push_str(&format!("Proxy-Authorization: {}\r\n", proof.expose()));
        }
        for (name, value) in &self.headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        Ok(Secret::new(request))
    }
}

/// The error of a refusal, with what its body says.
async fn quoted(stream: &mut Stream, mut answer: Answer) -> Error {
    use tokio::io::AsyncReadExt;
    if answer.rest.is_empty() {
        let read = async { Ok(stream.read_buf(&mut answer.rest).await) };
        let _ = clock::within(Some(QUOTE_WAIT), Phase::Hop, read).await;
    }
    refusal_of(&answer.head, false, &answer.rest)
}

fn refusal_of(head: &Head, asked: bool, body: &[u8]) -> Error {
    refusal(head.code, &head.reason, head.values("proxy-authenticate"), asked, body)
}

impl Dial for Http {
    fn dial<'a>(&'a self, to: &'a Endpoint, cx: &'a DialContext) -> BoxFuture<'a, Result<Stream>> {
        Box::pin(self.stream(to, cx))
    }

    fn datagram<'a>(&'a self, _: &'a Endpoint, _: &'a DialContext) -> BoxFuture<'a, Result<Datagram>> {
        let error = Error::new(Kind::Unsupported, "HTTP CONNECT over HTTP/1.1 carries no datagrams")
            .with_hop(self.way.place.index);
        Box::pin(async move { Err(error.with_phase(Phase::Hop)) })
    }
}
