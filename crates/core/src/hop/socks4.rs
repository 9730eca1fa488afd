//! SOCKS4 and 4a.

use std::net::{IpAddr, SocketAddr};

use super::{Way, cannot_reach, read, refused, write};
use crate::datagram::Datagram;
use crate::dial::{BoxFuture, Dial, DialContext};
use crate::endpoint::{Endpoint, Host};
use crate::error::{Error, Kind, Phase, Result};
use crate::stream::Stream;

#[derive(Debug)]
pub(super) struct Socks4 {
    pub(super) way: Way,
    pub(super) remote: bool,
}

impl Socks4 {
    async fn stream(&self, to: &Endpoint, cx: &DialContext) -> Result<Stream> {
        let user = self.way.credentials.as_ref().map_or("", |login| &login.user);
        if user.contains('\0') {
            return Err(Error::usage("a SOCKS4 user id cannot hold NUL").with_hop(self.way.place.index));
        }
        let mut targets = cx.targets(to, self.way.place, self.remote).await?;
        targets.retain(|target| !matches!(target.host(), Host::Ip(IpAddr::V6(_), _)));
        if targets.is_empty() {
            return Err(Error::new(Kind::Unsupported, "SOCKS4 reaches IPv4 alone")
                .with_hop(self.way.place.index)
                .with_phase(Phase::Hop));
        }
        let mut last = None;
        for target in &targets {
            match self.attempt(target, user, cx).await {
                Err(error) if cannot_reach(&error) => last = Some(error),
                result => return result,
            }
        }
        Err(self.way.none_left(last))
    }

    async fn attempt(&self, target: &Endpoint, user: &str, cx: &DialContext) -> Result<Stream> {
        let mut stream = self.way.to_proxy(cx).await?;
        let work = async {
            write(&mut stream, &request(target, user)?).await?;
            let [version, code, ..] = read::<8>(&mut stream).await?;
            if version != 0 {
                return Err(refused(format!("expected a SOCKS4 reply, which begins with 0, saw {version}")));
            }
            let why = match code {
                90 => return Ok(stream),
                91 => "rejected or failed",
                92 => "no identd answers here",
                93 => "identd names another user",
                _ => "unknown reply code",
            };
            Err(refused(format!("SOCKS4: {why}")).with_code(i64::from(code)))
        };
        cx.hop(self.way.place, self.way.kind, &self.way.proxy.authority(), work).await
    }
}

fn request(target: &Endpoint, user: &str) -> Result<Vec<u8>> {
    let mut bytes = vec![4, 1];
    bytes.extend_from_slice(&target.port().to_be_bytes());
    let name = match target.socket_addr() {
        Some(SocketAddr::V4(v4)) => {
            bytes.extend_from_slice(&v4.ip().octets());
            None
        }
        _ => {
            // 4a: an impossible address, and the name behind the user.
            bytes.extend_from_slice(&[0, 0, 0, 1]);
            Some(target.name().ok_or_else(|| Error::usage("SOCKS4 reaches IPv4 and names alone"))?)
        }
    };
    bytes.extend_from_slice(user.as_bytes());
    bytes.push(0);
    if let Some(name) = name {
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
    }
    Ok(bytes)
}

impl Dial for Socks4 {
    fn dial<'a>(&'a self, to: &'a Endpoint, cx: &'a DialContext) -> BoxFuture<'a, Result<Stream>> {
        Box::pin(self.stream(to, cx))
    }

    fn datagram<'a>(&'a self, _: &'a Endpoint, _: &'a DialContext) -> BoxFuture<'a, Result<Datagram>> {
        let error = Error::new(Kind::Unsupported, "SOCKS4 carries no datagrams").with_hop(self.way.place.index);
        Box::pin(async move { Err(error.with_phase(Phase::Hop)) })
    }
}
