//! Where a socket comes from and how it behaves.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpSocket, TcpStream};

/// The ports from which r-commands and old NFS servers believe a client (below 1024, and above what rcmd(3) leaves free).
pub const PRIVILEGED: RangeInclusive<u16> = 512..=1023;

/// Which of our ports to connect from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SourcePort {
    /// Whatever the system gives.
    #[default]
    Any,
    /// This one.
    Fixed(u16),
    /// The first free one of a range, the highest first.
    Range(RangeInclusive<u16>),
    /// The first free one of 512 to 1023, the highest first: what rsh, rlogin and NFS servers demand. Needs CAP_NET_BIND_SERVICE.
    Privileged,
}

/// Where a socket comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bind {
    addr: Option<IpAddr>,
    interface: Option<String>,
    port: SourcePort,
}

impl Bind {
    /// Anywhere.
    pub fn any() -> Self {
        Self::default()
    }

    /// From this address. Peers of the other family then cannot be reached.
    #[must_use]
    pub fn addr(mut self, addr: IpAddr) -> Self {
        self.addr = Some(addr);
        self
    }

    /// Through this interface (SO_BINDTODEVICE; needs CAP_NET_RAW on older kernels).
    #[must_use]
    pub fn interface(mut self, name: impl Into<String>) -> Self {
        self.interface = Some(name.into());
        self
    }

    /// From this port.
    #[must_use]
    pub fn port(mut self, port: SourcePort) -> Self {
        self.port = port;
        self
    }

    pub(crate) fn source_port(&self) -> &SourcePort {
        &self.port
    }

    /// Whether a socket to `peer` can be bound so.
    pub(crate) fn reaches(&self, peer: SocketAddr) -> bool {
        self.addr.is_none_or(|addr| addr.is_ipv4() == peer.is_ipv4())
    }

    /// The addresses to try to bind, in order; none where the system may choose.
    fn candidates(&self, peer: SocketAddr) -> Vec<SocketAddr> {
        let any: IpAddr = if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let ip = self.addr.unwrap_or(any);
        let ports: Vec<u16> = match &self.port {
            SourcePort::Any if self.addr.is_none() => return Vec::new(),
            SourcePort::Any => vec![0],
            SourcePort::Fixed(port) => vec![*port],
            SourcePort::Range(range) => range.clone().rev().collect(),
            SourcePort::Privileged => PRIVILEGED.rev().collect(),
        };
        ports.into_iter().map(|port| SocketAddr::new(ip, port)).collect()
    }

    fn bind(&self, socket: &Socket, local: SocketAddr) -> io::Result<()> {
        socket.bind(&local.into()).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied if local.port() != 0 && local.port() < 1024 => io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("source port {} needs the capability CAP_NET_BIND_SERVICE", local.port()),
            ),
            _ => error,
        })
    }

    pub(crate) fn bind_device(&self, socket: &Socket) -> io::Result<()> {
        let Some(interface) = &self.interface else {
            return Ok(());
        };
        #[cfg(any(target_os = "linux", target_os = "android"))]
        return socket.bind_device(Some(interface.as_bytes()));
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("binding to {interface} is not supported here"),
        ));
    }

    /// Binds a datagram socket towards `peer`, over the range where one was asked for.
    pub(crate) fn bind_datagram(&self, socket: &Socket, peer: SocketAddr) -> io::Result<()> {
        self.bind_device(socket)?;
        let any = SocketAddr::new(
            if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() },
            0,
        );
        let candidates = self.candidates(peer);
        let candidates = if candidates.is_empty() { vec![any] } else { candidates };
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for local in candidates {
            match self.bind(socket, local) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }
}

impl From<IpAddr> for Bind {
    fn from(addr: IpAddr) -> Self {
        Self::any().addr(addr)
    }
}

impl From<SourcePort> for Bind {
    fn from(port: SourcePort) -> Self {
        Self::any().port(port)
    }
}

/// How a TCP socket behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpOptions {
    nodelay: bool,
    keepalive: Option<Duration>,
    keepalive_interval: Option<Duration>,
    keepalive_count: Option<u32>,
    user_timeout: Option<Duration>,
    tos: Option<u32>,
    send_buffer: Option<u32>,
    recv_buffer: Option<u32>,
}

impl Default for TcpOptions {
    /// No delay for small writes; keepalive after 60 s of silence, since half-open peers are common behind NAT.
    fn default() -> Self {
        Self {
            nodelay: true,
            keepalive: Some(Duration::from_secs(60)),
            keepalive_interval: None,
            keepalive_count: None,
            user_timeout: None,
            tos: None,
            send_buffer: None,
            recv_buffer: None,
        }
    }
}

impl TcpOptions {
    /// Send small writes at once. Default on; off trades latency for fewer packets.
    #[must_use]
    pub fn nodelay(mut self, on: bool) -> Self {
        self.nodelay = on;
        self
    }

    /// Probe an idle peer after this long; `None` never. Default 60 s.
    #[must_use]
    pub fn keepalive(mut self, idle: Option<Duration>) -> Self {
        self.keepalive = idle;
        self
    }

    /// The time between two probes, and how many may go unanswered. Default the system's.
    #[must_use]
    pub fn keepalive_probes(mut self, interval: Duration, count: u32) -> Self {
        self.keepalive_interval = Some(interval);
        self.keepalive_count = Some(count);
        self
    }

    /// Give the connection up when sent data stays unacknowledged this long (Linux). Default the system's, often 15 minutes.
    #[must_use]
    pub fn user_timeout(mut self, limit: Duration) -> Self {
        self.user_timeout = Some(limit);
        self
    }

    /// The IPv4 type-of-service byte (DSCP and ECN).
    #[must_use]
    pub fn tos(mut self, tos: u32) -> Self {
        self.tos = Some(tos);
        self
    }

    /// The kernel's send buffer in bytes. Setting it turns off the kernel's own tuning.
    #[must_use]
    pub fn send_buffer(mut self, bytes: u32) -> Self {
        self.send_buffer = Some(bytes);
        self
    }

    /// The kernel's receive buffer in bytes. Setting it turns off the kernel's own tuning.
    #[must_use]
    pub fn recv_buffer(mut self, bytes: u32) -> Self {
        self.recv_buffer = Some(bytes);
        self
    }

    /// Sets what must be set before the handshake.
    fn apply(&self, socket: &Socket, peer: SocketAddr) -> io::Result<()> {
        socket.set_tcp_nodelay(self.nodelay)?;
        if let Some(idle) = self.keepalive {
            let mut keepalive = TcpKeepalive::new().with_time(idle);
            if let Some(interval) = self.keepalive_interval {
                keepalive = keepalive.with_interval(interval);
            }
            if let Some(count) = self.keepalive_count {
                keepalive = keepalive.with_retries(count);
            }
            socket.set_tcp_keepalive(&keepalive)?;
        }
        #[cfg(target_os = "linux")]
        if let Some(limit) = self.user_timeout {
            socket.set_tcp_user_timeout(Some(limit))?;
        }
        if let Some(tos) = self.tos
            && peer.is_ipv4()
        {
            socket.set_tos_v4(tos)?;
        }
        if let Some(bytes) = self.send_buffer {
            socket.set_send_buffer_size(bytes as usize)?;
        }
        if let Some(bytes) = self.recv_buffer {
            socket.set_recv_buffer_size(bytes as usize)?;
        }
        Ok(())
    }
}

/// Connects to `peer`, trying every source port allowed. Cancel safe: dropping it closes the socket.
pub(crate) async fn connect_tcp(peer: SocketAddr, bind: &Bind, options: &TcpOptions) -> io::Result<TcpStream> {
    let candidates = bind.candidates(peer);
    if candidates.is_empty() {
        return open_tcp(peer, bind, options, None)?.connect(peer).await.and_then(|stream| not_itself(stream, peer));
    }
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for local in candidates {
        let attempt = match open_tcp(peer, bind, options, Some(local)) {
            Ok(socket) => socket.connect(peer).await.and_then(|stream| not_itself(stream, peer)),
            Err(error) => Err(error),
        };
        match attempt {
            Ok(stream) => return Ok(stream),
            // A taken source port shows at bind, or at connect where the four-tuple is still in TIME_WAIT.
            Err(error) if matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable) => {
                last = error
            }
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// A port of this machine that nobody listens on may be the one that the kernel gives to the very socket that asks for it: TCP then
/// connects it to itself (RFC 9293 3.5, simultaneous open).
fn not_itself(stream: TcpStream, peer: SocketAddr) -> io::Result<TcpStream> {
    match stream.local_addr() {
        Ok(local) if local == peer => Err(io::ErrorKind::ConnectionRefused.into()),
        _ => Ok(stream),
    }
}

fn open_tcp(peer: SocketAddr, bind: &Bind, options: &TcpOptions, local: Option<SocketAddr>) -> io::Result<TcpSocket> {
    let socket = Socket::new(Domain::for_address(peer), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    bind.bind_device(&socket)?;
    options.apply(&socket, peer)?;
    if let Some(local) = local {
        bind.bind(&socket, local)?;
    }
    Ok(TcpSocket::from_std_stream(socket.into()))
}

/// Applies the options that an accepted socket takes.
pub(crate) fn apply_accepted(stream: &TcpStream, options: &TcpOptions) -> io::Result<()> {
    SockRef::from(stream).set_tcp_nodelay(options.nodelay)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the tests are the peer")]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn privileged_source_ports_are_tried_over_the_range() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = listener.local_addr().unwrap();
        let bind = Bind::from(SourcePort::Privileged);
        let first = match connect_tcp(peer, &bind, &TcpOptions::default()).await {
            Ok(first) => first,
            Err(error) => {
                assert!(error.to_string().contains("CAP_NET_BIND_SERVICE"), "{error}");
                return;
            }
        };
        // The second call finds the first port taken and goes on down the range.
        let second = connect_tcp(peer, &bind, &TcpOptions::default()).await.unwrap();
        let (first, second) = (first.local_addr().unwrap().port(), second.local_addr().unwrap().port());
        assert!(PRIVILEGED.contains(&first) && PRIVILEGED.contains(&second) && second < first);
    }

    #[tokio::test]
    async fn a_fixed_address_and_port_are_those_the_peer_sees() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let free = std::net::TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap().port();
        let bind = Bind::any().addr("127.0.0.2".parse().unwrap()).port(SourcePort::Fixed(free));
        let _stream = connect_tcp(listener.local_addr().unwrap(), &bind, &TcpOptions::default()).await.unwrap();
        let (_, from) = listener.accept().await.unwrap();
        assert_eq!(from, SocketAddr::new("127.0.0.2".parse().unwrap(), free));
    }

    #[tokio::test]
    async fn the_named_interface_is_used() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = listener.local_addr().unwrap();
        match connect_tcp(peer, &Bind::any().interface("lo"), &TcpOptions::default()).await {
            Ok(stream) => assert_eq!(stream.peer_addr().unwrap(), peer),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
        assert!(connect_tcp(peer, &Bind::any().interface("no-such-if"), &TcpOptions::default()).await.is_err());
    }
}
