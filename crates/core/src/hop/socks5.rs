//! SOCKS5 (RFC 1928) with user and password (RFC 1929).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use base64::Engine;
use sha2::{Digest, Sha256};

use super::reply::SocksReply;
use super::udp::Relay;
use super::{Way, cannot_reach, read, refused, write};
use crate::datagram::Datagram;
use crate::dial::{BoxFuture, Dial, DialContext};
use crate::endpoint::Endpoint;
use crate::error::{Error, Kind, Phase, Result};
use crate::secret::Credentials;
use crate::stream::Stream;

const VERSION: u8 = 5;
const CONNECT: u8 = 1;
const UDP_ASSOCIATE: u8 = 3;

/// RFC 1928 4 and RFC 1929 2: one byte of length.
const MAX_FIELD: usize = 255;

/// What shares a circuit of Tor, which keeps streams with different credentials apart (`IsolateSOCKSAuth`, on by default).
///
/// The credentials are made up and say nothing. A proxy that does not ask for them is refused, for it would not keep
/// anything apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isolation {
    /// Each stream has a circuit of its own.
    Stream,
    /// Streams of one connector to the same host and port share one.
    Target,
}

#[derive(Debug)]
pub(super) struct Socks5 {
    pub(super) way: Way,
    pub(super) remote: bool,
    pub(super) isolation: Option<Isolation>,
    /// What the credentials of one connector are made of.
    pub(super) salt: std::sync::OnceLock<[u8; 16]>,
}

/// The proof of one stream.
struct Login {
    credentials: Option<Credentials>,
    /// Whether a proxy that does not ask for it is none for us.
    must: bool,
}

impl Socks5 {
    async fn stream(&self, to: &Endpoint, cx: &DialContext) -> Result<Stream> {
        let login = self.login(to).map_err(|error| error.with_hop(self.way.place.index))?;
        let targets = cx.targets(to, self.way.place, self.remote).await?;
        let mut last = None;
        for target in &targets {
            match self.attempt(CONNECT, target, &login, cx).await {
                Err(error) if cannot_reach(&error) => last = Some(error),
                result => return result.map(|(stream, _)| stream),
            }
        }
        Err(self.way.none_left(last))
    }

    async fn attempt(
        &self,
        command: u8,
        target: &Endpoint,
        login: &Login,
        cx: &DialContext,
    ) -> Result<(Stream, Bound)> {
        let mut stream = self.way.to_proxy(cx).await?;
        let work = async {
            greet(&mut stream, login).await?;
            let mut request = vec![VERSION, command, 0];
            push_address(&mut request, target)?;
            write(&mut stream, &request).await?;
            let bound = reply(&mut stream).await?;
            Ok((stream, bound))
        };
        let done = cx.hop(self.way.place, self.way.kind, &self.way.proxy.authority(), work).await?;
        cx.hop_bound(done.1.to_string());
        Ok(done)
    }

    /// Whom to be towards the proxy on the way to `to`.
    fn login(&self, to: &Endpoint) -> Result<Login> {
        let Some(isolation) = self.isolation else {
            let credentials = self.way.credentials.clone();
            let fits = |text: &str| (1..=MAX_FIELD).contains(&text.len());
            if credentials.as_ref().is_some_and(|who| !fits(&who.user) || !fits(who.password.expose())) {
                return Err(Error::usage("user and password of SOCKS5 have 1 to 255 bytes each"));
            }
            return Ok(Login { credentials, must: false });
        };
        if self.way.credentials.is_some() {
            return Err(Error::usage(
                "a SOCKS5 hop has credentials of its own or made-up ones for isolation, not both",
            ));
        }
        let text = base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let (user, password) = match isolation {
            Isolation::Stream => (random()?, random()?),
            Isolation::Target => {
                let salt = match self.salt.get() {
                    Some(salt) => *salt,
                    None => {
                        let fresh = random()?;
                        *self.salt.get_or_init(|| fresh)
                    }
                };
                let hash = Sha256::new().chain_update(salt).chain_update(to.authority());
                let hash: [u8; 32] = hash.finalize().into();
                let (user, password) = hash.split_at(16);
                (user.try_into().unwrap_or(salt), password.try_into().unwrap_or(salt))
            }
        };
        Ok(Login { credentials: Some(Credentials::new(text.encode(user), text.encode(password))), must: true })
    }

    async fn associate(&self, to: &Endpoint, cx: &DialContext) -> Result<Datagram> {
        let login = self.login(to).map_err(|error| error.with_hop(self.way.place.index))?;
        let target = cx.targets(to, self.way.place, self.remote).await?.into_iter().next();
        let target = target.ok_or_else(|| refused("no address to ask the proxy for"))?;
        // RFC 1928 7: zeros where the client does not know from where it will send.
        let unknown = Endpoint::from(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        let (control, bound) = self.attempt(UDP_ASSOCIATE, &unknown, &login, cx).await?;
        // Of a proxy with several addresses it is the one reached; further down the chain only the proxy's name is known.
        let reached = control.info().peer.filter(|_| self.way.place.index == 0);
        let proxy = reached.map_or_else(|| self.way.proxy.clone(), Endpoint::from);
        let relay = bound.relay(&proxy)?;
        let beneath = self.way.beneath.datagram(&relay, cx).await.map_err(|error| self.way.unreachable(error))?;
        let (peer, local) = (beneath.info().peer, beneath.info().local);
        let mut datagram = Datagram::from_io(Relay::new(beneath, control), Some(target));
        (datagram.info_mut().peer, datagram.info_mut().local) = (peer, local);
        Ok(datagram)
    }
}

/// Agrees on a method, and logs in where that is user and password.
async fn greet(stream: &mut Stream, login: &Login) -> Result<()> {
    // With credentials both are offered: a proxy that needs none says so.
    let offer: &[u8] = match &login.credentials {
        None => &[VERSION, 1, 0],
        Some(_) if login.must => &[VERSION, 1, 2],
        Some(_) => &[VERSION, 2, 0, 2],
    };
    write(stream, offer).await?;
    let [version, method] = read(stream).await?;
    check_version(version)?;
    match (method, &login.credentials) {
        (0, _) if !login.must => Ok(()),
        (2, Some(who)) => {
            let mut request = zeroize::Zeroizing::new(vec![1]);
            for field in [who.user.as_bytes(), who.password.expose().as_bytes()] {
                request.push(u8::try_from(field.len()).unwrap_or(u8::MAX));
                request.extend_from_slice(field);
            }
            write(stream, &request).await?;
            match read::<2>(stream).await? {
                [_, 0] => Ok(()),
                [_, code] => Err(auth("the proxy refused the credentials").with_code(i64::from(code))),
            }
        }
        (0xff, Some(_)) if login.must => Err(auth("the proxy takes no user and password, so it isolates nothing")),
        (0xff, Some(_)) => Err(auth("the proxy takes neither no login nor user and password")),
        (0xff, None) => Err(auth("the proxy wants credentials")),
        (other, _) => Err(refused(format!("the proxy chose the method {other}, which was not offered"))),
    }
}

fn random() -> Result<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        Error::new(Kind::Unsupported, "no random bytes for credentials").with_phase(Phase::Setup).with_source(error)
    })?;
    Ok(bytes)
}

fn auth(message: &str) -> Error {
    Error::new(Kind::Auth, message).with_phase(Phase::Hop)
}

fn check_version(version: u8) -> Result<()> {
    if version == VERSION { Ok(()) } else { Err(refused(format!("expected SOCKS version 5, saw {version}"))) }
}

/// Where the proxy says it is bound: an address or, from some, a name.
#[derive(Debug)]
struct Bound {
    host: BoundHost,
    port: u16,
}

#[derive(Debug)]
enum BoundHost {
    Ip(IpAddr),
    Name(String),
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.host {
            BoundHost::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            BoundHost::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl Bound {
    /// The UDP relay: zeros mean the proxy's own address.
    fn relay(self, proxy: &Endpoint) -> Result<Endpoint> {
        match self.host {
            BoundHost::Ip(ip) if ip.is_unspecified() => Ok(proxy.clone().with_port(self.port)),
            BoundHost::Ip(ip) => Ok(SocketAddr::new(ip, self.port).into()),
            BoundHost::Name(name) => Endpoint::new(name, self.port).map_err(|_| refused("the relay's name is none")),
        }
    }
}

/// The reply of RFC 1928 6, read to its last byte and not further.
async fn reply(stream: &mut Stream) -> Result<Bound> {
    let [version, code, _, kind] = read(stream).await?;
    check_version(version)?;
    if code != 0 {
        let said = SocksReply::from_code(code);
        return Err(refused(format!("SOCKS5: {said}")).with_code(i64::from(code)).with_reply(said));
    }
    let host = match kind {
        1 => BoundHost::Ip(Ipv4Addr::from(read::<4>(stream).await?).into()),
        4 => BoundHost::Ip(Ipv6Addr::from(read::<16>(stream).await?).into()),
        3 => {
            use tokio::io::AsyncReadExt;
            let [length] = read(stream).await?;
            let mut name = vec![0; usize::from(length)];
            stream.read_exact(&mut name).await.map_err(|error| super::lost(error, "while it answered"))?;
            BoundHost::Name(String::from_utf8_lossy(&name).into_owned())
        }
        other => return Err(refused(format!("expected an address type of 1, 3 or 4, saw {other}"))),
    };
    let port = u16::from_be_bytes(read(stream).await?);
    Ok(Bound { host, port })
}

/// Type, address and port, as requests and UDP headers carry them.
pub(super) fn push_address(out: &mut Vec<u8>, target: &Endpoint) -> Result<()> {
    match (target.socket_addr(), target.name()) {
        (Some(SocketAddr::V4(v4)), _) => {
            out.push(1);
            out.extend_from_slice(&v4.ip().octets());
        }
        (Some(SocketAddr::V6(v6)), _) => {
            out.push(4);
            out.extend_from_slice(&v6.ip().octets());
        }
        (None, Some(name)) => {
            let length = u8::try_from(name.len()).map_err(|_| Error::usage("a name of more than 255 bytes"))?;
            out.extend_from_slice(&[3, length]);
            out.extend_from_slice(name.as_bytes());
        }
        (None, None) => return Err(Error::usage("neither a name nor an address")),
    }
    out.extend_from_slice(&target.port().to_be_bytes());
    Ok(())
}

impl Dial for Socks5 {
    fn dial<'a>(&'a self, to: &'a Endpoint, cx: &'a DialContext) -> BoxFuture<'a, Result<Stream>> {
        Box::pin(self.stream(to, cx))
    }

    fn datagram<'a>(&'a self, to: &'a Endpoint, cx: &'a DialContext) -> BoxFuture<'a, Result<Datagram>> {
        Box::pin(self.associate(to, cx))
    }
}
