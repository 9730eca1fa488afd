//! Datagrams: UDP, or UDP through a hop.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

use crate::endpoint::Endpoint;
use crate::error::{Error, Phase, Result};
use crate::info::ConnectionInfo;
use crate::observe::Traffic;
use crate::sockopt::Bind;

/// The largest payload of a UDP datagram over IPv4 (65,535 less both headers).
pub const MAX_DATAGRAM: usize = 65_507;

/// What carries datagrams: a socket, or a relay that wraps each one.
pub trait DatagramIo: Send + Sync + fmt::Debug + 'static {
    /// Sends one whole datagram to `to`, a name or an address; a relay may resolve the name.
    fn poll_send_to(&self, cx: &mut Context<'_>, datagram: &[u8], to: &Endpoint) -> Poll<io::Result<()>>;

    /// Receives one whole datagram and where it came from. A datagram longer than `buf` is cut, as recvfrom(2) does.
    fn poll_recv_from(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<SocketAddr>>;

    /// Our own address, as far as we know it.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// The largest payload that fits: less through a relay.
    fn max_size(&self) -> usize {
        MAX_DATAGRAM
    }
}

enum Inner {
    Udp(UdpSocket),
    Relay(Box<dyn DatagramIo>),
}

/// A datagram socket, tied to one peer or to none.
pub struct Datagram {
    io: Inner,
    peer: Option<Peer>,
    info: Box<ConnectionInfo>,
    traffic: Option<Arc<Traffic>>,
}

struct Peer {
    endpoint: Endpoint,
    addr: Option<SocketAddr>,
}

impl Datagram {
    /// Any carrier; with `peer`, [`send`](Self::send) goes there and [`recv`](Self::recv) hears only it.
    pub fn from_io(io: impl DatagramIo, peer: Option<Endpoint>) -> Self {
        let peer = peer.map(|endpoint| Peer { addr: endpoint.socket_addr(), endpoint });
        Self { io: Inner::Relay(Box::new(io)), peer, info: Box::default(), traffic: None }
    }

    /// A UDP socket that hears only `peer`: the kernel drops what others send.
    pub(crate) fn connected(peer: SocketAddr, bind: &Bind) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(peer), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        bind.bind_datagram(&socket, peer)?;
        socket.connect(&peer.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        let local = socket.local_addr().ok();
        let info = ConnectionInfo { peer: Some(peer), local, attempts: 1, ..ConnectionInfo::default() };
        let peer = Some(Peer { endpoint: peer.into(), addr: Some(peer) });
        Ok(Self { io: Inner::Udp(socket), peer, info: Box::new(info), traffic: None })
    }

    /// A UDP socket that sends anywhere and hears everyone, bound for the family of `local`.
    pub(crate) fn unconnected(local: SocketAddr, bind: &Bind, reuse: bool) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.set_reuse_address(reuse)?;
        if local.port() == 0 && local.ip().is_unspecified() {
            bind.bind_datagram(&socket, local)?;
        } else {
            bind.bind_device(&socket)?;
            socket.bind(&local.into())?;
        }
        let socket = UdpSocket::from_std(socket.into())?;
        let info = ConnectionInfo { local: socket.local_addr().ok(), ..ConnectionInfo::default() };
        Ok(Self { io: Inner::Udp(socket), peer: None, info: Box::new(info), traffic: None })
    }

    /// Sends one datagram to the peer. Cancel safe: it is sent whole or not at all.
    pub async fn send(&self, datagram: &[u8]) -> Result<()> {
        let peer = self.peer.as_ref().ok_or_else(|| Error::usage("no peer: use send_to"))?;
        self.check_size(datagram)?;
        match &self.io {
            Inner::Udp(socket) => socket.send(datagram).await.map(|_| ()),
            Inner::Relay(io) => std::future::poll_fn(|cx| io.poll_send_to(cx, datagram, &peer.endpoint)).await,
        }
        .map_err(|error| Error::io(Phase::Send, error))?;
        self.sent(datagram);
        Ok(())
    }

    /// Counts what it carries from now on.
    #[must_use]
    pub(crate) fn counted(mut self, traffic: Option<Arc<Traffic>>) -> Self {
        self.traffic = traffic;
        self
    }

    pub(crate) fn traffic(&self) -> Option<&Traffic> {
        self.traffic.as_deref()
    }

    fn sent(&self, bytes: &[u8]) {
        if let Some(traffic) = &self.traffic {
            traffic.sent(bytes);
        }
    }

    fn received(&self, bytes: &[u8]) {
        if let Some(traffic) = &self.traffic {
            traffic.received(bytes);
        }
    }

    /// Receives one datagram of the peer; what others send is dropped unseen. Cancel safe.
    pub async fn recv(&self, buf: &mut [u8]) -> Result<usize> {
        if self.peer.is_none() {
            return Err(Error::usage("no peer: use recv_from"));
        }
        self.recv_from(buf).await.map(|(n, _)| n)
    }

    /// Sends one datagram to `to`. The address was checked by whoever resolved it: go through the connector for names.
    pub async fn send_to(&self, datagram: &[u8], to: SocketAddr) -> Result<()> {
        self.check_size(datagram)?;
        match &self.io {
            Inner::Udp(socket) if self.peer.is_none() => socket.send_to(datagram, to).await.map(|_| ()),
            Inner::Udp(_) => return Err(Error::usage("tied to one peer: use send")),
            Inner::Relay(io) => {
                let to = Endpoint::from(to);
                std::future::poll_fn(|cx| io.poll_send_to(cx, datagram, &to)).await
            }
        }
        .map_err(|error| Error::io(Phase::Send, error))?;
        self.sent(datagram);
        Ok(())
    }

    /// Receives one datagram and where it came from. Cancel safe.
    pub async fn recv_from(&self, buf: &mut [u8]) -> Result<(usize, SocketAddr)> {
        loop {
            let received = match &self.io {
                Inner::Udp(socket) => socket.recv_from(buf).await,
                Inner::Relay(io) => {
                    let mut buf = ReadBuf::new(buf);
                    std::future::poll_fn(|cx| io.poll_recv_from(cx, &mut buf))
                        .await
                        .map(|from| (buf.filled().len(), from))
                }
            };
            let (n, from) = received.map_err(|error| Error::io(Phase::FirstByte, error))?;
            match &self.peer {
                // A relay that names its sources by domain shows zeros: there is nothing to compare.
                Some(Peer { addr: Some(peer), .. }) if *peer != from && !from.ip().is_unspecified() => {}
                _ => {
                    self.received(buf.get(..n).unwrap_or_default());
                    return Ok((n, from));
                }
            }
        }
    }

    /// Our own address.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        match &self.io {
            Inner::Udp(socket) => socket.local_addr(),
            Inner::Relay(io) => io.local_addr(),
        }
        .map_err(|error| Error::io(Phase::Setup, error))
    }

    /// The peer it is tied to.
    pub fn peer(&self) -> Option<&Endpoint> {
        self.peer.as_ref().map(|peer| &peer.endpoint)
    }

    /// The largest payload that can be sent.
    pub fn max_size(&self) -> usize {
        match &self.io {
            Inner::Udp(_) => MAX_DATAGRAM,
            Inner::Relay(io) => io.max_size(),
        }
    }

    /// What is known about the way.
    pub fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    /// The same, to be completed by a hop.
    pub fn info_mut(&mut self) -> &mut ConnectionInfo {
        &mut self.info
    }

    /// Sends to the peer, for a relay that wraps datagrams.
    pub(crate) fn poll_send(&self, cx: &mut Context<'_>, datagram: &[u8]) -> Poll<io::Result<()>> {
        let sent = match (&self.io, &self.peer) {
            (Inner::Udp(socket), _) => socket.poll_send(cx, datagram).map_ok(|_| ()),
            (Inner::Relay(io), Some(peer)) => io.poll_send_to(cx, datagram, &peer.endpoint),
            (Inner::Relay(_), None) => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        };
        if matches!(sent, Poll::Ready(Ok(()))) {
            self.sent(datagram);
        }
        sent
    }

    /// Receives from the peer, for a relay that unwraps datagrams.
    pub(crate) fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let received = match &self.io {
            Inner::Udp(socket) => socket.poll_recv(cx, buf),
            Inner::Relay(io) => io.poll_recv_from(cx, buf).map_ok(|_| ()),
        };
        if received.is_ready() {
            self.received(&buf.filled()[before..]);
        }
        received
    }

    /// The system's socket, unless a relay carries the datagrams: for who makes system calls of his own, as QUIC does to pass
    /// many datagrams in one. What they move is said to [`moved`](Self::moved), and they go to the peer alone.
    pub fn socket(&self) -> Option<&UdpSocket> {
        match &self.io {
            Inner::Udp(socket) => Some(socket),
            Inner::Relay(_) => None,
        }
    }

    /// Counts payloads that went through [`socket`](Self::socket), in bytes. Observers are not shown them.
    pub fn moved(&self, sent: usize, received: usize) {
        if let Some(traffic) = &self.traffic {
            traffic.moved(sent, received);
        }
    }

    /// The socket itself, for options that a relay cannot have.
    pub(crate) fn udp(&self) -> Result<&UdpSocket> {
        self.socket().ok_or_else(|| {
            Error::new(crate::Kind::Unsupported, "a relay has no socket options").with_phase(Phase::Setup)
        })
    }

    fn check_size(&self, datagram: &[u8]) -> Result<()> {
        let max = self.max_size();
        if datagram.len() <= max {
            return Ok(());
        }
        Err(Error::usage(format!("datagram of {} bytes: at most {max} fit", datagram.len())))
    }
}

impl fmt::Debug for Datagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datagram").field("peer", &self.peer()).field("local", &self.info.local).finish_non_exhaustive()
    }
}

// Poll helpers for carriers that are themselves built on a socket.
impl DatagramIo for UdpSocket {
    fn poll_send_to(&self, cx: &mut Context<'_>, datagram: &[u8], to: &Endpoint) -> Poll<io::Result<()>> {
        let Some(addr) = to.socket_addr() else {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a socket sends to addresses, not names",
            )));
        };
        self.poll_send_to(cx, datagram, addr).map_ok(|_| ())
    }

    fn poll_recv_from(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<SocketAddr>> {
        Pin::new(self).get_ref().poll_recv_from(cx, buf)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }
}
