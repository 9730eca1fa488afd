//! Raw IP sockets, and the unprivileged ICMP sockets that some kernels have.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::unix::AsyncFd;

use crate::error::{Error, Kind, Phase, Result};
use crate::sockopt::Bind;

/// A protocol above IP, by its IANA number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IpProtocol(u8);

impl IpProtocol {
    /// ICMP for IPv4.
    pub const ICMP: Self = Self(1);
    /// IGMP.
    pub const IGMP: Self = Self(2);
    /// ICMP for IPv6.
    pub const ICMPV6: Self = Self(58);
    /// OSPF.
    pub const OSPF: Self = Self(89);
    /// VRRP.
    pub const VRRP: Self = Self(112);

    /// Any other, by its number.
    pub const fn new(number: u8) -> Self {
        Self(number)
    }

    /// Its IANA number.
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// Which IP the packets travel in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A socket beneath TCP and UDP.
///
/// What it sends and receives is the payload of IP: the IPv4 header that a raw socket delivers is cut off, so that privileged
/// and unprivileged sockets read alike.
pub struct RawSocket {
    socket: AsyncFd<Socket>,
    version: IpVersion,
    privileged: bool,
}

impl RawSocket {
    /// Opens a raw socket; for ICMP, where that is not permitted, the kernel's unprivileged kind, which sends and receives
    /// only echo messages and chooses their identifier itself.
    pub(crate) fn open(protocol: IpProtocol, version: IpVersion, bind: &Bind) -> Result<Self> {
        let domain = match version {
            IpVersion::V4 => Domain::IPV4,
            IpVersion::V6 => Domain::IPV6,
        };
        let number = Some(Protocol::from(i32::from(protocol.number())));
        let echo =
            matches!((protocol, version), (IpProtocol::ICMP, IpVersion::V4) | (IpProtocol::ICMPV6, IpVersion::V6));
        let (socket, privileged) = match Socket::new(domain, Type::RAW, number) {
            Ok(socket) => (socket, true),
            Err(error) if denied(&error) && echo => {
                let socket = Socket::new(domain, Type::DGRAM, number).map_err(|error| lacking(error, true))?;
                (socket, false)
            }
            Err(error) if denied(&error) => return Err(lacking(error, false)),
            Err(error) => return Err(Error::io(Phase::Setup, error)),
        };
        let prepare = || -> io::Result<AsyncFd<Socket>> {
            socket.set_nonblocking(true)?;
            bind.bind_device(&socket)?;
            register(socket)
        };
        let socket = prepare().map_err(|error| Error::io(Phase::Setup, error))?;
        Ok(Self { socket, version, privileged })
    }

    /// Whether it is a true raw socket, and not the kernel's echo-only kind.
    pub fn is_privileged(&self) -> bool {
        self.privileged
    }

    /// Sends one packet's payload. The policy is the caller's to ask: there is no name here to resolve. Cancel safe.
    pub async fn send_to(&self, payload: &[u8], to: SocketAddr) -> Result<()> {
        let to = SockAddr::from(SocketAddr::new(to.ip(), 0));
        let sent = self.socket.async_io(tokio::io::Interest::WRITABLE, |socket| socket.send_to(payload, &to)).await;
        sent.map(|_| ()).map_err(|error| Error::io(Phase::Send, error))
    }

    /// Receives one packet's payload, cut to `buf`, and where it came from. Cancel safe.
    pub async fn recv_from(&self, buf: &mut [u8]) -> Result<(usize, SocketAddr)> {
        // Room for the longest IPv4 header in front of the payload.
        let mut packet = vec![MaybeUninit::<u8>::uninit(); buf.len() + 60];
        let received =
            self.socket.async_io(tokio::io::Interest::READABLE, |socket| socket.recv_from(&mut packet)).await;
        let (n, from) = received.map_err(|error| Error::io(Phase::FirstByte, error))?;
        let packet = filled(&packet, n);
        let payload = if self.privileged && self.version == IpVersion::V4 { payload(packet) } else { packet };
        let n = payload.len().min(buf.len());
        buf[..n].copy_from_slice(&payload[..n]);
        let from = from.as_socket().ok_or_else(|| Error::new(Kind::Protocol, "a packet without a source address"))?;
        Ok((n, from))
    }

    /// The socket's options beneath: hop limit, multicast membership, header inclusion.
    pub fn options(&self) -> socket2::SockRef<'_> {
        socket2::SockRef::from(self.socket.get_ref())
    }
}

impl fmt::Debug for RawSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawSocket")
            .field("version", &self.version)
            .field("privileged", &self.privileged)
            .finish_non_exhaustive()
    }
}

fn denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

fn lacking(error: io::Error, echo: bool) -> Error {
    let message = if echo {
        "raw sockets need the capability CAP_NET_RAW; ICMP echo also works where net.ipv4.ping_group_range holds the process's group"
    } else {
        "raw sockets need the capability CAP_NET_RAW"
    };
    Error::new(Kind::Unsupported, message).with_phase(Phase::Setup).with_source(error)
}

#[allow(unsafe_code, reason = "tokio asks for a promise about the descriptor")]
fn register(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: the AsyncFd owns the socket and `as_raw_fd` always names the same open descriptor, closed only by its drop.
    unsafe { AsyncFd::register(socket) }.map_err(io::Error::from)
}

#[allow(unsafe_code, reason = "the kernel has written these bytes")]
fn filled(packet: &[MaybeUninit<u8>], n: usize) -> &[u8] {
    let packet = &packet[..n.min(packet.len())];
    // SAFETY: recvfrom(2) reported `n` bytes written at the start of the buffer, and `u8` has no invalid values.
    unsafe { &*(std::ptr::from_ref(packet) as *const [u8]) }
}

/// Cuts the IPv4 header off (RFC 791 3.1: its length in 32-bit words is the low half of the first byte).
fn payload(packet: &[u8]) -> &[u8] {
    let header = packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
    packet.get(header..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// An echo request (RFC 792): type, code, checksum, identifier, sequence, data.
    fn echo(kind: u8, checksum: bool) -> Vec<u8> {
        let mut packet = vec![kind, 0, 0, 0, 0x12, 0x34, 0, 1];
        packet.extend_from_slice(b"portolan");
        if checksum {
            let words = packet.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
            let sum = words.sum::<u32>();
            let folded = !((sum & 0xffff) + (sum >> 16)) as u16;
            packet[2..4].copy_from_slice(&folded.to_be_bytes());
        }
        packet
    }

    async fn ping(version: IpVersion, to: &str) -> Result<()> {
        let (protocol, request, reply) = match version {
            IpVersion::V4 => (IpProtocol::ICMP, echo(8, true), 0),
            IpVersion::V6 => (IpProtocol::ICMPV6, echo(128, false), 129),
        };
        let socket = RawSocket::open(protocol, version, &Bind::any())?;
        let to = SocketAddr::new(to.parse().unwrap(), 0);
        socket.send_to(&request, to).await?;
        let mut buf = [0; 64];
        loop {
            let recv = async { socket.recv_from(&mut buf).await };
            let (n, from) = crate::clock::within(Some(Duration::from_secs(5)), Phase::FirstByte, recv).await?;
            if buf[0] == reply && buf[..n].ends_with(b"portolan") {
                assert_eq!(from.ip(), to.ip());
                return Ok(());
            }
        }
    }

    #[tokio::test]
    async fn loopback_answers_an_echo_or_the_missing_capability_is_named() {
        for (version, to) in [(IpVersion::V4, "127.0.0.1"), (IpVersion::V6, "::1")] {
            if let Err(error) = ping(version, to).await {
                let no_v6 = version == IpVersion::V6 && error.kind() != Kind::Unsupported;
                assert!(no_v6 || error.message().contains("CAP_NET_RAW"), "{error:?}");
            }
        }
    }

    #[tokio::test]
    async fn other_protocols_open_or_the_missing_capability_is_named() {
        match RawSocket::open(IpProtocol::OSPF, IpVersion::V4, &Bind::any()) {
            Ok(socket) => assert!(socket.is_privileged()),
            Err(error) => assert_eq!(error.kind(), Kind::Unsupported),
        }
    }
}
