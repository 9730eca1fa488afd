//! QUIC's socket over the connector's datagrams, so that it goes through every hop that carries them.

use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use portolan_core::{Datagram, Result};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio_util::sync::ReusableBoxFuture;

/// Room for one datagram: more than QUIC's default of 1472 bytes, which we don't raise.
const ROOM: usize = 2048;
/// Errors of the way in a row that one poll passes over.
const PASSED_OVER: usize = 8;

type SendFuture = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// One peer's datagrams, one by one: no segmentation, no path discovery.
pub(crate) struct Socket {
    datagram: Arc<Datagram>,
    /// Where QUIC thinks it sends to; through a relay that resolves names this is made up.
    peer: SocketAddr,
    /// The peer has answered: from now on an ICMP message alone ends nothing.
    established: AtomicBool,
    sending: Mutex<Sending>,
    receiving: Mutex<Receiving>,
}

#[derive(Default)]
struct Sending {
    /// A datagram that the socket had no room for.
    pending: Option<SendFuture>,
    /// Connections that wait for it.
    waiting: Vec<Waker>,
    /// The endpoint's driver, which always listens, and so sends it as well.
    driver: Option<Waker>,
    fatal: Option<io::Error>,
    failed: Option<io::ErrorKind>,
}

struct Receiving {
    next: ReusableBoxFuture<'static, (Result<usize>, Vec<u8>)>,
}

async fn receive(datagram: Arc<Datagram>, mut room: Vec<u8>) -> (Result<usize>, Vec<u8>) {
    let received = datagram.recv(&mut room).await;
    (received, room)
}

impl Socket {
    pub(crate) fn new(datagram: Datagram, peer: SocketAddr) -> Arc<Self> {
        let datagram = Arc::new(datagram);
        let next = ReusableBoxFuture::new(receive(Arc::clone(&datagram), vec![0; ROOM]));
        Arc::new(Self {
            datagram,
            peer,
            established: AtomicBool::new(false),
            sending: Mutex::default(),
            receiving: Mutex::new(Receiving { next }),
        })
    }

    /// The peer has answered.
    pub(crate) fn established(&self) {
        self.established.store(true, Ordering::Relaxed);
    }

    /// What ended it, if anything did.
    pub(crate) fn failed(&self) -> Option<io::ErrorKind> {
        self.sending().failed
    }

    fn sending(&self) -> MutexGuard<'_, Sending> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing more can come of the socket. Anyone can forge an ICMP message, so that one alone proves nothing once
    /// the peer has answered (RFC 9000 14.2.1); before, it saves the wait.
    fn is_fatal(&self, error: &io::Error) -> bool {
        use io::ErrorKind as K;
        match error.kind() {
            K::ConnectionRefused => !self.established.load(Ordering::Relaxed),
            K::HostUnreachable | K::NetworkUnreachable | K::ConnectionReset | K::Interrupted => false,
            _ => true,
        }
    }

    /// What sending came to. A datagram lost here is lost like any other; a socket lost is for the receiver to say.
    fn sent(&self, sending: &mut Sending, result: Result<()>) {
        let Err(error) = result.map_err(io_error) else { return };
        let fatal = matches!(
            error.kind(),
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::NotConnected
        );
        if fatal && self.is_fatal(&error) {
            sending.fatal = Some(error);
            sending.driver.iter().for_each(Waker::wake_by_ref);
        }
    }

    /// Sends what waits; pending while there is still no room.
    fn poll_pending(&self, sending: &mut Sending, cx: &mut Context<'_>) -> Poll<()> {
        let Some(pending) = &mut sending.pending else { return Poll::Ready(()) };
        match pending.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(result) => {
                sending.pending = None;
                self.sent(sending, result);
                sending.waiting.drain(..).for_each(Waker::wake);
                Poll::Ready(())
            }
        }
    }

    fn poll_one(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut receiving = self.receiving.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..PASSED_OVER {
            let Poll::Ready((received, room)) = receiving.next.poll(cx) else { return Poll::Pending };
            let received = received.map(|len| {
                let len = len.min(room.len()).min(buf.len());
                buf[..len].copy_from_slice(&room[..len]);
                len
            });
            receiving.next.set(receive(Arc::clone(&self.datagram), room));
            match received.map_err(io_error) {
                Ok(len) => return Poll::Ready(Ok(len)),
                Err(error) if self.is_fatal(&error) => return Poll::Ready(Err(error)),
                Err(_) => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// The kernel's own word, where there is one.
fn io_error(error: portolan_core::Error) -> io::Error {
    let mut source = std::error::Error::source(&error);
    while let Some(beneath) = source {
        if let Some(io) = beneath.downcast_ref::<io::Error>() {
            return io::Error::new(io.kind(), error);
        }
        source = beneath.source();
    }
    error.into()
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller(self))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let mut sending = self.sending();
        let driver = sending.driver.clone();
        let mut cx = Context::from_waker(driver.as_ref().unwrap_or(Waker::noop()));
        if self.poll_pending(&mut sending, &mut cx).is_pending() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut quiet = Context::from_waker(Waker::noop());
        match pin!(self.datagram.send(transmit.contents)).poll(&mut quiet) {
            Poll::Ready(result) => self.sent(&mut sending, result),
            Poll::Pending => {
                let (datagram, contents) = (Arc::clone(&self.datagram), transmit.contents.to_vec());
                sending.pending = Some(Box::pin(async move { datagram.send(&contents).await }));
                let _ = self.poll_pending(&mut sending, &mut cx);
            }
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        {
            let mut sending = self.sending();
            match &mut sending.driver {
                Some(driver) => driver.clone_from(cx.waker()),
                None => sending.driver = Some(cx.waker().clone()),
            }
            let _ = self.poll_pending(&mut sending, cx);
            if let Some(error) = sending.fatal.take() {
                sending.failed = Some(error.kind());
                return Poll::Ready(Err(error));
            }
        }
        let mut count = 0;
        for (buf, meta) in bufs.iter_mut().zip(meta) {
            match self.poll_one(cx, buf) {
                Poll::Ready(Ok(len)) => {
                    *meta = RecvMeta { addr: self.peer, len, stride: len, ecn: None, dst_ip: None };
                    count += 1;
                }
                Poll::Ready(Err(_)) | Poll::Pending if count > 0 => break,
                Poll::Ready(Err(error)) => {
                    self.sending().failed = Some(error.kind());
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(count))
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
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket").field("datagram", &self.datagram).field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// One connection that waits for room.
#[derive(Debug)]
struct Poller(Arc<Socket>);

impl UdpPoller for Poller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut sending = self.0.sending();
        if self.0.poll_pending(&mut sending, cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        if !sending.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            sending.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }
}
