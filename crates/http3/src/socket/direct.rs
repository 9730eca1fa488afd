//! A socket of this machine: many datagrams in one system call, marks of congestion both ways, and no fragments, so that QUIC
//! can find what the path carries.

use std::io::{self, IoSliceMut};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use portolan_core::Datagram;
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::{Fate, PASSED_OVER};

/// Reads of one call, each of which may be of many datagrams that the kernel has joined; `quinn-udp` makes no more.
const BATCH: usize = 32;
/// Linux gives fewer reads than asked for only when there is nothing more.
const SHORT_IS_ALL: bool = cfg!(any(target_os = "linux", target_os = "android"));
/// What the kernel is asked to keep for us while we are busy, in bytes: a burst of a fast path. It grants what its own limit allows.
const KEPT: usize = 2 << 20;

pub(super) struct Direct {
    state: UdpSocketState,
    /// The mark (RFC 3168) that the socket puts on what it sends.
    mark: AtomicU8,
    /// Whether anything came from the peer.
    heard: AtomicBool,
}

impl Direct {
    pub(super) fn new(socket: &UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new(socket.into())?;
        if state.recv_buffer_size(socket.into())? < KEPT {
            state.set_recv_buffer_size(socket.into(), KEPT)?;
        }
        Ok(Self { state, mark: AtomicU8::new(0), heard: AtomicBool::new(false) })
    }

    /// One until the peer has been heard: there are servers that lose what the kernel hands them joined (Envoy, as it comes), and
    /// a first flight that is lost costs a second.
    pub(super) fn max_segments(&self) -> usize {
        if self.heard.load(Ordering::Relaxed) { self.state.max_gso_segments() } else { 1 }
    }

    pub(super) fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    pub(super) fn poll_writable(&self, datagram: &Datagram, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        own(datagram)?.poll_send_ready(cx)
    }

    pub(super) fn try_send(&self, datagram: &Datagram, transmit: &Transmit<'_>, fate: &Fate) -> io::Result<()> {
        let socket = own(datagram)?;
        let sent = match self.send(socket, transmit) {
            // That was said of an earlier datagram (udp(7)), and this one has not left.
            Err(error) if Fate::is_hearsay(&error) && !fate.is_fatal(&error) => self.send(socket, transmit),
            sent => sent,
        };
        match sent {
            Ok(()) => datagram.moved(transmit.contents.len(), 0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
            // What is too large for the way is a probe of it, and lost.
            Err(error) => fate.unsent(error),
        }
        Ok(())
    }

    fn send(&self, socket: &UdpSocket, transmit: &Transmit<'_>) -> io::Result<()> {
        let Some(size) = transmit.segment_size.filter(|size| *size < transmit.contents.len()) else {
            return self.send_one(socket, transmit, transmit.contents);
        };
        if self.state.max_gso_segments() > 1 {
            let sent = socket.try_io(Interest::WRITABLE, || self.state.try_send(socket.into(), transmit));
            // Linux says only then that a device doesn't cut, and `quinn-udp` keeps it in mind.
            let refused = sent.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock);
            if !refused || self.state.max_gso_segments() > 1 {
                return sent;
            }
        }
        // Some of it may find no room, and is lost as on any way.
        let mut pieces = transmit.contents.chunks(size.max(1));
        let Some(first) = pieces.next() else { return Ok(()) };
        self.send_one(socket, transmit, first)?;
        pieces.try_for_each(|piece| match self.send_one(socket, transmit, piece) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            sent => sent,
        })
    }

    /// The cheapest call: the socket knows its peer, and the mark stays on it.
    fn send_one(&self, socket: &UdpSocket, transmit: &Transmit<'_>, contents: &[u8]) -> io::Result<()> {
        let mark = transmit.ecn.map_or(0, |mark| mark as u8);
        if self.mark.swap(mark, Ordering::Relaxed) != mark {
            // A kernel that knows no marks sends without.
            let _ = if transmit.destination.is_ipv4() {
                socket.set_tos_v4(mark.into())
            } else {
                socket.set_tclass_v6(mark.into())
            };
        }
        socket.try_send(contents).map(|_| ())
    }

    pub(super) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        datagram: &Datagram,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
        fate: &Fate,
    ) -> Poll<io::Result<usize>> {
        let socket = own(datagram)?;
        let most = bufs.len().min(meta.len()).min(BATCH);
        for _ in 0..PASSED_OVER {
            ready!(socket.poll_recv_ready(cx))?;
            let mut count = 0;
            let result = socket.try_io(Interest::READABLE, || {
                count = self.state.recv(socket.into(), &mut bufs[..most], meta)?;
                // Nothing is left: tokio is told at once, and not by another call. Of a flow more may have come meanwhile, and
                // to acknowledge that as well costs less than to do so apart.
                let flows = count > 1 || meta.first().is_some_and(|meta| meta.len > meta.stride);
                if SHORT_IS_ALL && count < most && !flows { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            if count > 0 {
                self.heard.store(true, Ordering::Relaxed);
                datagram.moved(0, meta.iter().take(count).map(|meta| meta.len).sum());
                return Poll::Ready(Ok(count));
            }
            match result {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock && fate.is_fatal(&error) => {
                    return Poll::Ready(Err(error));
                }
                _ => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// The socket that was there when this was made.
fn own(datagram: &Datagram) -> io::Result<&UdpSocket> {
    datagram.socket().ok_or_else(|| io::ErrorKind::NotConnected.into())
}

/// What ICMP brought, once it says that nobody listens.
pub(super) async fn refused(socket: &UdpSocket) -> io::Error {
    let look = || match socket.take_error() {
        Ok(Some(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(error),
        Ok(_) => Err(io::ErrorKind::WouldBlock.into()),
        Err(error) => Ok(error),
    };
    socket.async_io(Interest::ERROR, look).await.unwrap_or_else(|error| error)
}
