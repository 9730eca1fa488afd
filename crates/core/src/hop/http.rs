//! HTTP CONNECT over HTTP/1.1 (RFC 9110 9.3.6), in the clear or inside TLS; and the way to a proxy that forwards.

use bytes::BytesMut;
use tokio::io::AsyncReadExt;

use super::{Way, cannot_reach, lost, refused, write};
use crate::clock;
use crate::datagram::Datagram;
use crate::dial::{BoxFuture, Dial, DialContext};
use crate::endpoint::Endpoint;
use crate::error::{Error, Kind, Phase, Result};
use crate::kit::{ConnectAuth, QUOTE_WAIT, refusal};
use crate::secret::Secret;
use crate::stream::Stream;

/// The bytes of a proxy's answer up to the empty line: real ones need a few hundred.
const MAX_HEAD: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Http {
    pub(super) way: Way,
    pub(super) tls: bool,
    pub(super) headers: Vec<(String, String)>,
    /// Whether requests of plain HTTP are left to the proxy.
    pub(super) forwards: bool,
}

impl Http {
    async fn stream(&self, to: &Endpoint, cx: &DialContext) -> Result<Stream> {
        if self.forwards && self.way.place.last && cx.is_plain_http() {
            let stream = self.to_proxy(cx).await?;
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

    async fn to_proxy(&self, cx: &DialContext) -> Result<Stream> {
        let mut stream = self.way.to_proxy(cx).await?;
        if self.tls {
            let name = self.way.proxy.host_text();
            let alpn: &[&[u8]] = &[b"http/1.1"];
            let upgraded = stream.start_tls_with(&name, cx.hop_tls(), Some(alpn), cx.timeouts().tls_limit()).await;
            stream = upgraded.map_err(|error| error.with_hop(self.way.place.index))?;
            // From here on `tls` speaks of the target.
            stream.info_mut().tls = None;
            stream.info_mut().timings.tls = None;
        }
        Ok(stream)
    }

    async fn attempt(&self, target: &Endpoint, cx: &DialContext) -> Result<Stream> {
        let mut stream = self.to_proxy(cx).await?;
        let authority = self.way.proxy.authority();
        let work = async {
            write(&mut stream, self.request(target)?.as_bytes()).await?;
            self.answer(stream).await
        };
        cx.hop(self.way.place, self.way.kind, &authority, work).await
    }

    fn request(&self, target: &Endpoint) -> Result<String> {
        let authority = target.authority();
        let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
        for (name, value) in self.fields()? {
            request.push_str(&format!("{name}: {}\r\n", value.expose()));
        }
        request.push_str("\r\n");
        Ok(request)
    }

    /// What the proxy wants to see on every request.
    fn fields(&self) -> Result<Vec<(String, Secret)>> {
        let mut fields = Vec::new();
        if let Some(login) = &self.way.credentials {
            fields.push(("Proxy-Authorization".to_owned(), ConnectAuth::Basic(login.clone()).header()?));
        }
        fields.extend(self.headers.iter().map(|(name, value)| (name.clone(), Secret::new(value.clone()))));
        Ok(fields)
    }

    /// Reads heads until one is final. What follows a 2xx head belongs to the target.
    async fn answer(&self, mut stream: Stream) -> Result<Stream> {
        let mut buf = BytesMut::new();
        loop {
            let head = loop {
                if let Some(end) = memchr::memmem::find(&buf, b"\r\n\r\n") {
                    break buf.split_to(end + 4);
                }
                if buf.len() > MAX_HEAD {
                    return Err(refused(format!("an answer of more than {MAX_HEAD} bytes without an end")));
                }
                let n = stream.read_buf(&mut buf).await.map_err(|error| lost(error, "while it answered"))?;
                if n == 0 {
                    return Err(refused("the proxy closed while it answered"));
                }
            };
            let (code, reason) = status(&head)?;
            match code {
                100..=199 => {}
                // A body is impossible here, whatever the head says of its length (RFC 9110 9.3.6).
                200..=299 => return Ok(stream.with_early(buf.freeze())),
                _ => return Err(self.refusal(code, reason, &head, &mut stream, buf).await),
            }
        }
    }

    async fn refusal(&self, code: u16, reason: &str, head: &[u8], stream: &mut Stream, mut body: BytesMut) -> Error {
        if code != 407 && body.is_empty() {
            let _ = clock::within(Some(QUOTE_WAIT), Phase::Hop, async { Ok(stream.read_buf(&mut body).await) }).await;
        }
        let head = String::from_utf8_lossy(head);
        refusal(code, reason, offered(&head), self.way.credentials.is_some(), &body)
    }
}

/// Code and reason of `HTTP/1.1 200 OK`, `HTTP/2 200`.
fn status(head: &[u8]) -> Result<(u16, &str)> {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let broken = || {
        refused(format!("expected an HTTP status line, saw {:?}", String::from_utf8_lossy(&line[..line.len().min(60)])))
    };
    let line = std::str::from_utf8(line).map_err(|_| broken())?;
    let rest = line.strip_prefix("HTTP/").and_then(|rest| rest.split_once(' ')).ok_or_else(broken)?.1;
    let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
    let valid = code.len() == 3 && code.bytes().all(|b| b.is_ascii_digit());
    let code = code.parse().ok().filter(|code| valid && (100..600).contains(code)).ok_or_else(broken)?;
    Ok((code, reason))
}

/// The values of `Proxy-Authenticate`.
fn offered(head: &str) -> impl Iterator<Item = &str> {
    head.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("proxy-authenticate").then_some(value)
    })
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
