//! A relay: datagrams one by one.

use std::future::Future;
use std::io::{self, IoSliceMut};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use portolan_core::{Datagram, Result};
use quinn::udp::{RecvMeta, Transmit};
use tokio_util::sync::ReusableBoxFuture;

use super::{Fate, PASSED_OVER};

/// Room for one datagram: more than QUIC's default of 1472 bytes, which we don't raise.
const ROOM: usize = 2048;

type SendFuture = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

pub(super) struct Relayed {
    sending: Mutex<Sending>,
    receiving: Mutex<Receiving>,
}

#[derive(Default)]
struct Sending {
    /// What the relay had no room for.
    pending: Option<SendFuture>,
    /// Connections that wait for it.
    waiting: Vec<Waker>,
}

struct Receiving {
    next: ReusableBoxFuture<'static, (Result<usize>, Vec<u8>)>,
}

async fn receive(datagram: Arc<Datagram>, mut room: Vec<u8>) -> (Result<usize>, Vec<u8>) {
    let received = datagram.recv(&mut room).await;
    (received, room)
}

impl Relayed {
    pub(super) fn new(datagram: &Arc<Datagram>) -> Self {
        let next = ReusableBoxFuture::new(receive(Arc::clone(datagram), vec![0; ROOM]));
        Self { sending: Mutex::default(), receiving: Mutex::new(Receiving { next }) }
    }

    fn sending(&self) -> MutexGuard<'_, Sending> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn poll_writable(&self, cx: &mut Context<'_>, fate: &Fate) -> Poll<()> {
        let mut sending = self.sending();
        let room = sending.poll_pending(cx, fate);
        if room.is_pending() && !sending.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            sending.waiting.push(cx.waker().clone());
        }
        room
    }

    pub(super) fn try_send(&self, datagram: &Arc<Datagram>, transmit: &Transmit<'_>, fate: &Fate) -> io::Result<()> {
        let mut sending = self.sending();
        let driver = fate.driver();
        let mut cx = Context::from_waker(driver.as_ref().unwrap_or(Waker::noop()));
        if sending.poll_pending(&mut cx, fate).is_pending() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // Several at once come of a socket that was before this one.
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for contents in transmit.contents.chunks(size) {
            let mut quiet = Context::from_waker(Waker::noop());
            match pin!(datagram.send(contents)).poll(&mut quiet) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => fate.unsent(io_error(error)),
                // Of those that follow none has room either: they are lost, as on any way.
                Poll::Pending => {
                    let (datagram, contents) = (Arc::clone(datagram), contents.to_vec());
                    sending.pending = Some(Box::pin(async move { datagram.send(&contents).await }));
                    let _ = sending.poll_pending(&mut cx, fate);
                    break;
                }
            }
        }
        Ok(())
    }

    pub(super) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        datagram: &Arc<Datagram>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
        fate: &Fate,
    ) -> Poll<io::Result<usize>> {
        // The driver always listens, and so sends what waits.
        let _ = self.sending().poll_pending(cx, fate);
        let mut count = 0;
        for (buf, meta) in bufs.iter_mut().zip(meta) {
            match self.poll_one(cx, datagram, buf, fate) {
                Poll::Ready(Ok(len)) => {
                    (meta.len, meta.stride, meta.ecn) = (len, len, None);
                    count += 1;
                }
                Poll::Ready(Err(_)) | Poll::Pending if count > 0 => break,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(count))
    }

    fn poll_one(
        &self,
        cx: &mut Context<'_>,
        datagram: &Arc<Datagram>,
        buf: &mut [u8],
        fate: &Fate,
    ) -> Poll<io::Result<usize>> {
        let mut receiving = self.receiving.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..PASSED_OVER {
            let Poll::Ready((received, room)) = receiving.next.poll(cx) else { return Poll::Pending };
            let received = received.map(|len| {
                let len = len.min(room.len()).min(buf.len());
                buf[..len].copy_from_slice(&room[..len]);
                len
            });
            receiving.next.set(receive(Arc::clone(datagram), room));
            match received.map_err(io_error) {
                Ok(len) => return Poll::Ready(Ok(len)),
                Err(error) if fate.is_fatal(&error) => return Poll::Ready(Err(error)),
                Err(_) => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Sending {
    /// Sends what waits; pending while there is still no room.
    fn poll_pending(&mut self, cx: &mut Context<'_>, fate: &Fate) -> Poll<()> {
        let Some(pending) = &mut self.pending else { return Poll::Ready(()) };
        match pending.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(result) => {
                self.pending = None;
                if let Err(error) = result {
                    fate.unsent(io_error(error));
                }
                self.waiting.drain(..).for_each(Waker::wake);
                Poll::Ready(())
            }
        }
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
