//! The PROXY protocol: what a balancer tells the server behind it of the client, ahead of everything else.
//!
//! - **Spec**: haproxy's proxy-protocol.txt, versions 1 (a line) and 2 (binary).
//! - **What works**: both versions over TCP for IPv4 and IPv6, LOCAL and UNKNOWN, and of the TLVs of version 2: ALPN, authority,
//!   CRC32c, unique id, any of your own.
//! - **What is not done**: the TLV of TLS facts, addresses of Unix sockets, datagrams.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::io::AsyncWriteExt;

use crate::clock;
use crate::datagram::Datagram;
use crate::dial::{BoxFuture, Dial, DialContext};
use crate::endpoint::Endpoint;
use crate::error::{Error, Kind, Phase, Result};
use crate::stream::Stream;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Types of TLVs (section 2.2).
const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
const CRC32C: u8 = 0x03;
const UNIQUE_ID: u8 = 0x05;

/// Section 2.2.5.
const MAX_UNIQUE_ID: usize = 128;

/// A header to send before the first byte, to a target ([`ConnectorBuilder::proxy_header`](crate::ConnectorBuilder::proxy_header))
/// or to a proxy ([`Hop::proxy_header`](crate::Hop::proxy_header)). It goes ahead of TLS.
///
/// Unless said otherwise it tells the truth: from our own address to the one that was asked for.
///
/// ```
/// use portolan_core::{Connector, ProxyHeader};
///
/// let header = ProxyHeader::v2().source("192.0.2.7:40000".parse()?).authority("example.org")?.crc32c();
/// let net = Connector::builder().proxy_header(header).build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyHeader {
    version: Version,
    local: bool,
    source: Option<SocketAddr>,
    destination: Option<SocketAddr>,
    tlvs: Vec<(u8, Vec<u8>)>,
    crc: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

impl ProxyHeader {
    /// Version 1: one line of text.
    pub fn v1() -> Self {
        Self::new(Version::V1)
    }

    /// Version 2: binary, with room for more than addresses.
    pub fn v2() -> Self {
        Self::new(Version::V2)
    }

    fn new(version: Version) -> Self {
        Self { version, local: false, source: None, destination: None, tlvs: Vec::new(), crc: false }
    }

    /// Speaks for nobody, as health checks do: LOCAL, or UNKNOWN in version 1. The server takes the connection's own addresses.
    #[must_use]
    pub fn local(mut self) -> Self {
        self.local = true;
        self
    }

    /// Whom the connection is made for. Default our own address.
    #[must_use]
    pub fn source(mut self, source: SocketAddr) -> Self {
        self.source = Some(source);
        self
    }

    /// Where that client went. Default the address asked for, else that of the other end.
    #[must_use]
    pub fn destination(mut self, destination: SocketAddr) -> Self {
        self.destination = Some(destination);
        self
    }

    /// Which application protocol was agreed with the client (version 2).
    pub fn alpn(self, protocol: &[u8]) -> Result<Self> {
        self.tlv(ALPN, protocol)
    }

    /// Which name the client asked for (version 2).
    pub fn authority(self, name: &str) -> Result<Self> {
        self.tlv(AUTHORITY, name.as_bytes())
    }

    /// What the connection is called, up to 128 bytes (version 2).
    pub fn unique_id(self, id: &[u8]) -> Result<Self> {
        if id.len() > MAX_UNIQUE_ID {
            return Err(Error::usage("a unique id of more than 128 bytes"));
        }
        self.tlv(UNIQUE_ID, id)
    }

    /// With a checksum of the whole header (version 2).
    #[must_use]
    pub fn crc32c(mut self) -> Self {
        self.crc = true;
        self
    }

    /// A field of any type but the checksum's (version 2).
    pub fn tlv(mut self, kind: u8, value: &[u8]) -> Result<Self> {
        if kind == CRC32C {
            return Err(Error::usage("the checksum is reckoned, not given"));
        }
        if u16::try_from(value.len()).is_err() {
            return Err(Error::usage("a TLV of more than 65535 bytes"));
        }
        self.tlvs.push((kind, value.to_vec()));
        Ok(self)
    }

    /// Whether the header can be sent at all: found when a connector is built, not when it connects.
    pub(crate) fn check(&self) -> Result<()> {
        let unknown = "0.0.0.0:0".parse().ok();
        self.encode(unknown, unknown).map(|_| ())
    }

    /// The bytes, where nothing else was said between these addresses.
    fn encode(&self, ours: Option<SocketAddr>, theirs: Option<SocketAddr>) -> Result<Vec<u8>> {
        let pair = self.source.or(ours).zip(self.destination.or(theirs)).filter(|_| !self.local);
        match self.version {
            Version::V1 if self.crc || !self.tlvs.is_empty() => {
                Err(Error::usage("version 1 of the PROXY protocol has addresses alone"))
            }
            Version::V1 => Ok(line(pair).into_bytes()),
            Version::V2 => self.binary(pair),
        }
    }

    fn binary(&self, pair: Option<(SocketAddr, SocketAddr)>) -> Result<Vec<u8>> {
        let (family, addresses) = pair.map_or((0, Vec::new()), |(from, to)| addresses(from, to));
        let mut header = SIGNATURE.to_vec();
        header.extend_from_slice(&[if self.local { 0x20 } else { 0x21 }, family, 0, 0]);
        header.extend_from_slice(&addresses);
        for (kind, value) in &self.tlvs {
            push(&mut header, *kind, value);
        }
        let sum_at = self.crc.then(|| {
            push(&mut header, CRC32C, &[0; 4]);
            header.len() - 4
        });
        let length = u16::try_from(header.len() - SIGNATURE.len() - 4);
        let length = length.map_err(|_| Error::usage("a PROXY header of more than 65535 bytes"))?;
        if let Some(place) = header.get_mut(14..16) {
            place.copy_from_slice(&length.to_be_bytes());
        }
        if let Some(at) = sum_at {
            let sum = crc32c(&header).to_be_bytes();
            if let Some(place) = header.get_mut(at..) {
                place.copy_from_slice(&sum);
            }
        }
        Ok(header)
    }
}

impl fmt::Debug for ProxyHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("ProxyHeader");
        out.field("version", &self.version).field("local", &self.local).field("source", &self.source);
        out.field("destination", &self.destination).field("tlvs", &self.tlvs.len()).field("crc32c", &self.crc).finish()
    }
}

/// Section 2.1.
fn line(pair: Option<(SocketAddr, SocketAddr)>) -> String {
    let Some((from, to)) = pair else { return "PROXY UNKNOWN\r\n".to_owned() };
    let (word, from_ip, to_ip) = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ("TCP4", from.to_string(), to.to_string()),
        (from, to) => ("TCP6", v6(from).to_string(), v6(to).to_string()),
    };
    format!("PROXY {word} {from_ip} {to_ip} {} {}\r\n", from.port(), to.port())
}

/// Family and addresses of section 2.2.
fn addresses(from: SocketAddr, to: SocketAddr) -> (u8, Vec<u8>) {
    let mut bytes = Vec::with_capacity(36);
    let family = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            bytes.extend_from_slice(&from.octets());
            bytes.extend_from_slice(&to.octets());
            0x11
        }
        (from, to) => {
            bytes.extend_from_slice(&v6(from).octets());
            bytes.extend_from_slice(&v6(to).octets());
            0x21
        }
    };
    bytes.extend_from_slice(&from.port().to_be_bytes());
    bytes.extend_from_slice(&to.port().to_be_bytes());
    (family, bytes)
}

/// An address of either family as one of IPv6: a header has one family.
fn v6(ip: IpAddr) -> std::net::Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

fn push(header: &mut Vec<u8>, kind: u8, value: &[u8]) {
    header.push(kind);
    // Longer ones were refused when they were given.
    header.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
    header.extend_from_slice(value);
}

/// RFC 4960 B, bit by bit: a header has some hundred bytes.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 })
    })
}

/// Sends a header on each stream of what lies beneath.
#[derive(Debug)]
pub(crate) struct Headed {
    pub(crate) header: ProxyHeader,
    pub(crate) beneath: Arc<dyn Dial>,
}

impl Dial for Headed {
    fn dial<'a>(&'a self, to: &'a Endpoint, cx: &'a DialContext) -> BoxFuture<'a, Result<Stream>> {
        Box::pin(async move {
            let mut stream = self.beneath.dial(to, cx).await?;
            let info = stream.info();
            let bytes = self.header.encode(info.local, to.socket_addr().or(info.peer))?;
            let sent = async {
                stream.write_all(&bytes).await?;
                stream.flush().await
            };
            let sent = async { sent.await.map_err(|error| Error::io(Phase::Handshake, error)) };
            clock::within(cx.timeouts().handshake_limit(), Phase::Handshake, sent).await?;
            Ok(stream)
        })
    }

    fn datagram<'a>(&'a self, _: &'a Endpoint, _: &'a DialContext) -> BoxFuture<'a, Result<Datagram>> {
        let error = Error::new(Kind::Unsupported, "the PROXY protocol is sent on streams alone");
        Box::pin(async move { Err(error.with_phase(Phase::Setup)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Option<SocketAddr> {
        text.parse().ok()
    }

    #[test]
    fn lines_are_those_of_the_specification() {
        let text = |header: ProxyHeader, from: &str, to: &str| {
            String::from_utf8(header.encode(addr(from), addr(to)).unwrap()).unwrap()
        };
        assert_eq!(
            text(ProxyHeader::v1(), "192.168.0.1:56324", "192.168.0.11:443"),
            "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
        );
        assert_eq!(text(ProxyHeader::v1(), "[2001:db8::1]:1", "[::1]:2"), "PROXY TCP6 2001:db8::1 ::1 1 2\r\n");
        assert_eq!(text(ProxyHeader::v1(), "192.0.2.1:1", "[::1]:2"), "PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n");
        assert_eq!(text(ProxyHeader::v1().local(), "192.0.2.1:1", "192.0.2.2:2"), "PROXY UNKNOWN\r\n");
        assert_eq!(text(ProxyHeader::v1(), "", "192.0.2.2:2"), "PROXY UNKNOWN\r\n");
        let said = ProxyHeader::v1().source(addr("192.0.2.9:9").unwrap()).destination(addr("192.0.2.8:8").unwrap());
        assert_eq!(text(said, "", ""), "PROXY TCP4 192.0.2.9 192.0.2.8 9 8\r\n");
    }

    #[test]
    fn binary_headers_are_those_of_the_specification() {
        let header =
            ProxyHeader::v2().alpn(b"h2").unwrap().encode(addr("192.0.2.1:258"), addr("192.0.2.2:443")).unwrap();
        let expected = [&SIGNATURE[..], &[0x21, 0x11, 0, 17, 192, 0, 2, 1, 192, 0, 2, 2, 1, 2, 1, 187, 1, 0, 2], b"h2"];
        assert_eq!(header, expected.concat());
        let local = ProxyHeader::v2().local().encode(addr("192.0.2.1:1"), addr("192.0.2.2:2")).unwrap();
        assert_eq!(local, [&SIGNATURE[..], &[0x20, 0, 0, 0]].concat());
        let v6 = ProxyHeader::v2().encode(addr("[::1]:1"), addr("192.0.2.2:2")).unwrap();
        assert_eq!((v6[13], v6.len()), (0x21, 16 + 36));
        // RFC 3720 B.4: 32 bytes of zeros, and "123456789" as every table of checksums has it.
        assert_eq!((crc32c(&[0; 32]), crc32c(b"123456789")), (0x8a91_36aa, 0xe306_9283));
        let mut summed = ProxyHeader::v2().crc32c().encode(addr("[::1]:1"), addr("[::2]:2")).unwrap();
        let at = summed.len() - 4;
        let sum = u32::from_be_bytes(summed[at..].try_into().unwrap());
        summed[at..].fill(0);
        assert_eq!(crc32c(&summed), sum);
    }

    #[test]
    fn what_cannot_be_said_is_refused_before_anything_is_opened() {
        assert!(ProxyHeader::v1().alpn(b"h2").unwrap().check().is_err());
        assert!(ProxyHeader::v1().crc32c().check().is_err());
        assert!(ProxyHeader::v2().unique_id(&[0; 129]).is_err());
        assert!(ProxyHeader::v2().tlv(CRC32C, &[0; 4]).is_err());
        assert!(ProxyHeader::v2().tlv(0xe0, &[0; 70_000]).is_err());
        let full = ProxyHeader::v2().tlv(0xe0, &[0; 65_000]).unwrap();
        assert!(full.check().is_ok() && full.tlv(0xe1, &[0; 600]).unwrap().check().is_err());
    }
}
