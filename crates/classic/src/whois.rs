//! Whois (RFC 3912): to whom a name, an address or a number is registered.
//!
//! **Port and TLS**: 43, TCP; scheme `whois://`; no TLS.
//!
//! **What works**: a query of any form that the server knows; referrals to the servers that know more, followed through the
//! same connector, so that the address policy and the proxies hold for them; text as bytes, since servers do not name their
//! charset.
//!
//! **What is not done**: the answer is not parsed beyond its referrals; RWhois (RFC 2167) referrals are told and not
//! followed; query dialects of single registries are the caller's affair.
//!
//! **Tested against** uwhoisd 0.1 (a whois server and proxy in Python).
//!
//! **Security**: everything can be read and forged on the way. A referral is a server's word: it is followed only to port 43
//! (unless said otherwise), only to addresses that the policy allows, at most four deep, and never to the same server twice.
//!
//! ```no_run
//! use portolan_classic::whois::{Client, Options};
//! use portolan_core::{Connector, Policy};
//!
//! # async fn run() -> portolan_core::Result<()> {
//! let net = Connector::builder().policy(Policy::public_only()).build()?;
//! let whois = Client::connect(&net, Options::from_url("whois://whois.iana.org")?).await?;
//! let answer = whois.query("example.org").await?;
//! for reply in &answer.replies {
//!     println!("{:?}: {}", reply.server, reply.text.printable());
//! }
//! # Ok(())
//! # }
//! ```

use portolan_core::observe::{Probe, Semantics};
use portolan_core::{ConnectionInfo, Connector, Endpoint, Error, Result, Stream, Url};
use portolan_wire::Line;

use crate::Text;
use crate::conn::{Common, options, read_to_close, simple_url, write_all};

/// The longest query.
const MAX_QUERY: usize = 512;
/// How many referrals are followed unless said otherwise: root, registry, registrar, and one more.
const DEFAULT_REFERRALS: usize = 4;
/// The keys of lines that name another server, in lower case.
const REFERRAL_KEYS: [&str; 5] = ["refer", "whois", "referralserver", "registrar whois server", "whois server"];

options!("whois", 43, max: 1 << 20, "The longest answer that is taken from one server, in bytes. Default 1 MiB.");
simple_url!("whois", false);

/// How far referrals are followed.
#[derive(Debug, Clone, Copy)]
struct Reach {
    depth: usize,
    any_port: bool,
}

/// Asks whois servers. Each query has a connection of its own, as the protocol wants it.
#[derive(Debug)]
pub struct Client {
    way: Way,
    options: Options,
    reach: Reach,
}

#[derive(Debug)]
enum Way {
    Net(Connector),
    Stream(Box<Stream>),
}

/// What was answered, the first server first.
#[derive(Debug)]
#[non_exhaustive]
pub struct Answer {
    /// One for each server that answered: at least one.
    pub replies: Vec<Reply>,
    /// Why no more servers were asked.
    pub end: End,
}

/// One server's answer.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Reply {
    /// Which server; none for a client on a stream of the caller's.
    pub server: Option<Endpoint>,
    /// What it said.
    pub text: Text,
    /// What is known about the connection.
    pub info: ConnectionInfo,
}

/// Why no further server was asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum End {
    /// The last answer names no other server.
    Final,
    /// The last answer names this server, and that is one too many, or referrals were not to be followed.
    Depth(Endpoint),
    /// The last answer names a server that has answered already.
    Loop(Endpoint),
    /// The last answer names a server of another protocol or port, which is not followed.
    Foreign(String),
    /// The server that the last answer names could not be asked.
    Failed(Endpoint, Error),
}

impl Client {
    /// A client of the server named by `options`. Nothing is sent yet.
    pub async fn connect(net: &Connector, options: Options) -> Result<Self> {
        options.common.target()?;
        let reach = Reach { depth: DEFAULT_REFERRALS, any_port: false };
        Ok(Self { way: Way::Net(net.clone()), options, reach })
    }

    /// A client of the server of the URL, reached directly.
    pub async fn open(url: &str) -> Result<Self> {
        Self::connect(&Connector::default(), Options::from_url(url)?).await
    }

    /// A client on a stream that is there already: good for one query, whose referrals are told and not followed.
    pub fn from_stream(stream: Stream, options: Options) -> Self {
        Self { way: Way::Stream(Box::new(stream)), options, reach: Reach { depth: 0, any_port: false } }
    }

    /// How many referrals to follow. Default 4; 0 asks the first server alone.
    #[must_use]
    pub fn referrals(mut self, depth: usize) -> Self {
        self.reach.depth = if matches!(self.way, Way::Net(_)) { depth } else { 0 };
        self
    }

    /// Follows referrals to any port, and not to 43 alone. Default off: a server could have us send a line to anybody.
    #[must_use]
    pub fn referrals_to_any_port(mut self, on: bool) -> Self {
        self.reach.any_port = on;
        self
    }

    /// Asks, and follows the referrals. An error of the first server is the query's; one of a later server ends the
    /// [`Answer`]. Dropping the future closes the connection.
    pub async fn query(self, query: &str) -> Result<Answer> {
        let line = Line::within("query", query, MAX_QUERY)?;
        if line.as_str().trim().is_empty() {
            return Err(Error::usage("query is empty"));
        }
        let line = format!("{line}\r\n");
        match self.way {
            Way::Stream(mut stream) => {
                let reply = ask(&mut stream, &line, None, &self.options.common).await?;
                let end = match referral(&reply.text) {
                    None => End::Final,
                    Some(Referral::Server(next)) => End::Depth(next),
                    Some(Referral::Foreign(text)) => End::Foreign(text),
                };
                Ok(Answer { replies: vec![reply], end })
            }
            Way::Net(net) => {
                let common = &self.options.common;
                let probe = Probe::new("whois", Semantics::Plain, common.target()?, &net);
                probe.operation("query").about(query).run(follow(&net, &line, common, self.reach)).await
            }
        }
    }

    /// Closes without asking.
    pub async fn close(self) -> Result<()> {
        match self.way {
            Way::Stream(stream) => crate::conn::Conn::Stream(stream).close(&self.options.common).await,
            Way::Net(_) => Ok(()),
        }
    }
}

async fn follow(net: &Connector, line: &str, options: &Common, reach: Reach) -> Result<Answer> {
    let first = options.target()?.clone();
    let mut seen = vec![first.authority()];
    let mut replies = vec![ask_at(net, first, line, options).await?];
    let end = loop {
        let next = match replies.last().and_then(|reply| referral(&reply.text)) {
            None => break End::Final,
            Some(Referral::Foreign(text)) => break End::Foreign(text),
            Some(Referral::Server(next)) => next,
        };
        if seen.contains(&next.authority()) {
            // Registrars name themselves: that is the end of the way and no fault.
            let last = seen.last().is_some_and(|last| *last == next.authority());
            break if last { End::Final } else { End::Loop(next) };
        }
        if next.port() != DEFAULT_PORT && !reach.any_port {
            break End::Foreign(next.authority());
        }
        if seen.len() > reach.depth {
            break End::Depth(next);
        }
        seen.push(next.authority());
        match ask_at(net, next.clone(), line, options).await {
            Ok(reply) => replies.push(reply),
            Err(error) => break End::Failed(next, error),
        }
    };
    Ok(Answer { replies, end })
}

async fn ask_at(net: &Connector, server: Endpoint, line: &str, options: &Common) -> Result<Reply> {
    let mut stream = net.connect(&server).await.map_err(|error| error.with_protocol("whois"))?;
    ask(&mut stream, line, Some(server), options).await
}

async fn ask(stream: &mut Stream, line: &str, server: Option<Endpoint>, options: &Common) -> Result<Reply> {
    write_all(stream, line.as_bytes(), options).await?;
    let text: Text = read_to_close(stream, options).await?.into();
    if text.as_bytes().is_empty() {
        return Err(Error::closed("closed without an answer").with_protocol("whois"));
    }
    Ok(Reply { server, text, info: stream.info().clone() })
}

#[derive(Debug, PartialEq)]
enum Referral {
    Server(Endpoint),
    Foreign(String),
}

/// The server that an answer names, if it names one: `refer: host`, `ReferralServer: whois://host:port`, and their kin.
fn referral(text: &Text) -> Option<Referral> {
    text.lines().find_map(|line| {
        let line = std::str::from_utf8(line).ok()?.trim_start();
        let (key, value) = line.split_once(':')?;
        let value = value.trim();
        let known = REFERRAL_KEYS.iter().any(|known| key.trim_end().eq_ignore_ascii_case(known));
        if !known || value.is_empty() {
            return None;
        }
        if value.contains("://") {
            return match Url::parse(value) {
                Ok(url) if url.scheme() == "whois" => {
                    url.endpoint(DEFAULT_PORT).ok().and_then(plain).map(Referral::Server)
                }
                _ => Some(Referral::Foreign(value.to_owned())),
            };
        }
        Endpoint::parse(value.trim_end_matches('/'), Some(DEFAULT_PORT)).ok().and_then(plain).map(Referral::Server)
    })
}

/// Without the scheme, and never a socket of this machine: a server's word must not lead there.
fn plain(endpoint: Endpoint) -> Option<Endpoint> {
    match endpoint.host() {
        portolan_core::Host::Unix(_) => None,
        _ => Endpoint::new(endpoint.host_text(), endpoint.port()).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::answering;
    use portolan_core::{Kind, Policy};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn server(text: &str) -> Option<Referral> {
        referral(&Text::from(text))
    }

    fn at(authority: &str) -> Option<Referral> {
        Some(Referral::Server(authority.parse().unwrap()))
    }

    #[test]
    fn referrals_are_known_in_every_dialect() {
        assert_eq!(server("% IANA\n\nrefer:        whois.pir.org\n\ndomain: ORG\n"), at("whois.pir.org:43"));
        assert_eq!(server("whois:  whois.nic.example\r\n"), at("whois.nic.example:43"));
        assert_eq!(server("   Registrar WHOIS Server: whois.reg.example\r\n"), at("whois.reg.example:43"));
        assert_eq!(server("ReferralServer:  whois://whois.ripe.net\n"), at("whois.ripe.net:43"));
        assert_eq!(server("ReferralServer: whois://[2001:db8::1]:4343\n"), at("[2001:db8::1]:4343"));
        assert_eq!(
            server("ReferralServer: rwhois://rwhois.example:4321\n"),
            Some(Referral::Foreign("rwhois://rwhois.example:4321".into()))
        );
        for none in [
            "",
            "domain: x\n",
            "refer:\n",
            "refer: not a host\n",
            "see refer: x\n",
            "whois: unix:/run/x\n",
            "whois: whois:///run/x\n",
        ] {
            assert!(!matches!(server(none), Some(Referral::Server(_))), "{none:?}");
        }
        assert_eq!(server("refer: a.example\nwhois: b.example\n"), at("a.example:43"), "the first one counts");
    }

    #[test]
    fn looking_for_referrals_keeps_the_laws() {
        let seeds: [&[u8]; 3] =
            [b"refer: a.example\r\n", b"ReferralServer: whois://[2001:db8::1]:4343\n", b"whois: \xff:99999\n"];
        portolan_wire::laws::check_datagram(
            |bytes| Ok(referral(&Text::from(bytes::Bytes::copy_from_slice(bytes)))),
            &seeds,
        );
    }

    #[tokio::test]
    async fn a_query_can_hold_no_second_one() {
        let long = "x".repeat(513);
        for bad in ["a\r\nb", "a\nb", "a\0b", "", "  ", &long] {
            let (stream, _heard) = answering(b"x");
            let error = Client::from_stream(stream, Options::default()).query(bad).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Usage, "{bad:?}");
        }
        let (stream, heard) = answering(b"registrant: J\xf6rg\r\nrefer: h.example\r\n");
        let answer = Client::from_stream(stream, Options::default()).query("-T dn example.org").await.unwrap();
        assert_eq!(heard.await.unwrap(), b"-T dn example.org\r\n");
        assert_eq!(answer.replies[0].text.latin1().lines().next().unwrap(), "registrant: J\u{f6}rg");
        assert!(matches!(answer.end, End::Depth(next) if next.authority() == "h.example:43"));
        let (stream, _heard) = answering(b"");
        assert!(Client::from_stream(stream, Options::default()).query("x").await.unwrap_err().is_closed());
    }

    /// A server that answers each query with `text`, as often as it is asked.
    async fn serving(text: impl Fn(Endpoint) -> String + Send + 'static) -> Endpoint {
        let listener = Connector::default().listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let here = Endpoint::from(listener.local_addr().unwrap());
        let own = here.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept(None).await {
                while stream.read_u8().await.is_ok_and(|byte| byte != b'\n') {}
                let _ = stream.write_all(text(own.clone()).as_bytes()).await;
            }
        });
        here
    }

    async fn asked(net: &Connector, first: Endpoint) -> Answer {
        let client = Client::connect(net, Options::new(first)).await.unwrap();
        client.referrals_to_any_port(true).query("example.org").await.unwrap()
    }

    #[tokio::test]
    async fn referrals_are_followed_to_the_end_and_never_in_a_ring() {
        let last = serving(|here| format!("whois server: {here}\nowner: joe\n")).await;
        let next = last.clone();
        let first = serving(move |_| format!("refer: {next}\n")).await;
        let net = Connector::default();
        let answer = asked(&net, first.clone()).await;
        assert!(matches!(answer.end, End::Final), "{answer:?}");
        let servers: Vec<_> = answer.replies.iter().map(|reply| reply.server.clone().unwrap()).collect();
        assert_eq!(servers, [first.clone(), last]);

        let alone = Client::connect(&net, Options::new(first.clone())).await.unwrap().query("x").await.unwrap();
        assert!(matches!(alone.end, End::Foreign(_)), "another port than 43 is not followed unasked");
        let none =
            Client::connect(&net, Options::new(first.clone())).await.unwrap().referrals_to_any_port(true).referrals(0);
        assert!(matches!(none.query("x").await.unwrap().end, End::Depth(_)));

        let slot = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
        let back = slot.clone();
        let second = serving(move |_| format!("refer: {}\n", back.lock().unwrap())).await;
        let first = serving(move |_| format!("refer: {second}\n")).await;
        *slot.lock().unwrap() = first.to_string();
        let ring = asked(&net, first).await;
        assert!(matches!(ring.end, End::Loop(_)) && ring.replies.len() == 2, "{ring:?}");
    }

    #[tokio::test]
    async fn a_referral_cannot_get_round_the_policy() {
        let inner = serving(|_| "secret: yes\n".to_owned()).await;
        let forbidden = format!("127.0.0.2:{}", inner.port());
        let first = serving(move |_| format!("refer: {forbidden}\n")).await;
        let policy = Policy::any().deny("127.0.0.2/32").unwrap();
        let net = Connector::builder().policy(policy).build().unwrap();
        let answer = asked(&net, first).await;
        assert_eq!(answer.replies.len(), 1);
        assert!(matches!(&answer.end, End::Failed(_, error) if error.kind() == Kind::Blocked), "{answer:?}");
    }
}
