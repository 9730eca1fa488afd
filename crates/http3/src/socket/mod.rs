//! QUIC's socket over the connector's datagrams, so that it goes through every hop that carries them.
//!
//! Where nothing is between, many datagrams go through one system call ([`direct`]); a relay takes them one by one ([`relayed`]).

mod direct;
mod relayed;
#[cfg(test)]
mod tests;

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use portolan_core::Datagram;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use direct::Direct;
use relayed::Relayed;

/// Errors of the way in a row that one poll passes over.
const PASSED_OVER: usize = 8;
/// Datagrams that Linux may join into one read (UDP_GRO_CNT_MAX). QUIC makes its buffers once, by what its first socket says, and a later
/// one may be of the other kind: so both say the same.
const MAX_JOINED: usize = if cfg!(any(target_os = "linux", target_os = "android")) { 64 } else { 1 };

/// One peer's datagrams.
pub(crate) struct Socket {
    datagram: Arc<Datagram>,
    /// Where QUIC thinks it sends to; through a relay that resolves names this is made up.
    peer: SocketAddr,
    io: Io,
    fate: Fate,
}

enum Io {
    Direct(Direct),
    Relayed(Relayed),
}

impl Socket {
    pub(crate) fn new(datagram: Datagram, peer: SocketAddr) -> io::Result<Arc<Self>> {
        let datagram = Arc::new(datagram);
        let io = match datagram.socket() {
            Some(socket) => Io::Direct(Direct::new(socket)?),
            None => Io::Relayed(Relayed::new(&datagram)),
        };
        Ok(Arc::new(Self { datagram, peer, io, fate: Fate::default() }))
    }

    /// The peer has answered.
    pub(crate) fn established(&self) {
        self.fate.established.store(true, Ordering::Relaxed);
    }

    /// Waits until the system says that nobody listens there, which it does not say to who waits for datagrams. Cancel safe.
    pub(crate) async fn refused(&self) -> io::Error {
        let Some(socket) = self.datagram.socket() else { return std::future::pending().await };
        let error = direct::refused(socket).await;
        self.fate.lock().failed = Some(error.kind());
        error
    }

    /// What ended it, if anything did.
    pub(crate) fn failed(&self) -> Option<io::ErrorKind> {
        self.fate.lock().failed
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller(self))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        match &self.io {
            Io::Direct(io) => io.try_send(&self.datagram, transmit, &self.fate),
            Io::Relayed(io) => io.try_send(&self.datagram, transmit, &self.fate),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        if let Some(error) = self.fate.take(cx) {
            return Poll::Ready(Err(error));
        }
        let received = match &self.io {
            Io::Direct(io) => io.poll_recv(cx, &self.datagram, bufs, meta, &self.fate),
            Io::Relayed(io) => io.poll_recv(cx, &self.datagram, bufs, meta, &self.fate),
        };
        match received {
            Poll::Ready(Ok(count)) => {
                for meta in meta.iter_mut().take(count) {
                    // The socket hears nobody else, and QUIC need not choose our address.
                    (meta.addr, meta.dst_ip) = (self.peer, None);
                }
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => {
                self.fate.lock().failed = Some(error.kind());
                Poll::Ready(Err(error))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        let local = self.datagram.local_addr().map_err(io::Error::from)?;
        if local.is_ipv4() == self.peer.is_ipv4() {
            return Ok(local);
        }
        // Through a relay the families may differ, and QUIC would refuse the peer's.
        let any: IpAddr = match self.peer {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Ok(SocketAddr::new(any, local.port()))
    }

    fn max_transmit_segments(&self) -> usize {
        match &self.io {
            Io::Direct(io) => io.max_segments(),
            Io::Relayed(_) => 1,
        }
    }

    fn max_receive_segments(&self) -> usize {
        MAX_JOINED
    }

    /// A relay sends as it likes: the path is not probed through it, and what goes out fits any path.
    fn may_fragment(&self) -> bool {
        match &self.io {
            Io::Direct(io) => io.may_fragment(),
            Io::Relayed(_) => true,
        }
    }
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket").field("datagram", &self.datagram).field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// The connection that waits for room.
#[derive(Debug)]
struct Poller(Arc<Socket>);

impl UdpPoller for Poller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = &*self.0;
        match &socket.io {
            Io::Direct(io) => io.poll_writable(&socket.datagram, cx),
            Io::Relayed(io) => io.poll_writable(cx, &socket.fate).map(Ok),
        }
    }
}

/// What the way's errors mean.
#[derive(Default)]
struct Fate {
    /// The peer has answered: from now on an ICMP message alone ends nothing.
    established: AtomicBool,
    end: Mutex<End>,
}

#[derive(Default)]
struct End {
    /// What sending met, for the receiver to say.
    fatal: Option<io::Error>,
    failed: Option<io::ErrorKind>,
    /// The endpoint's driver, which always listens.
    driver: Option<Waker>,
}

impl Fate {
    fn lock(&self) -> MutexGuard<'_, End> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is what an ICMP message says, which anyone can forge.
    fn is_hearsay(error: &io::Error) -> bool {
        use io::ErrorKind as K;
        matches!(error.kind(), K::ConnectionRefused | K::HostUnreachable | K::NetworkUnreachable | K::ConnectionReset)
    }

    /// Whether nothing more can come of the socket. ICMP alone proves nothing once the peer has answered (RFC 9000 14.2.1);
    /// before, its word that nobody listens saves the wait.
    fn is_fatal(&self, error: &io::Error) -> bool {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => !self.established.load(Ordering::Relaxed),
            io::ErrorKind::Interrupted => false,
            _ => !Self::is_hearsay(error),
        }
    }

    /// Sending failed. A datagram lost here is lost like any other; a socket lost is for the receiver to say.
    fn unsent(&self, error: io::Error) {
        let lost = matches!(
            error.kind(),
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::NotConnected
        );
        if lost && self.is_fatal(&error) {
            let mut end = self.lock();
            end.fatal = Some(error);
            end.driver.iter().for_each(Waker::wake_by_ref);
        }
    }

    /// What sending met, if it was the end; otherwise the receiver is woken when it is.
    fn take(&self, cx: &Context<'_>) -> Option<io::Error> {
        let mut end = self.lock();
        match &mut end.driver {
            Some(driver) => driver.clone_from(cx.waker()),
            None => end.driver = Some(cx.waker().clone()),
        }
        let error = end.fatal.take()?;
        end.failed = Some(error.kind());
        Some(error)
    }

    fn driver(&self) -> Option<Waker> {
        self.lock().driver.clone()
    }
}
