//! The driver of a connection.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};

use futures_util::stream::{FuturesUnordered, StreamExt};
use portolan_core::{ConnectionInfo, Delivery, Kind, Phase, Result, TlsInfo};
use quinn::{ConnectionError, RecvStream, ZeroRttAccepted};

use crate::event::Event;
use crate::handle::SendRequest;
use crate::options::{Options, PEER_STREAMS};
use crate::proto::Violation;
use crate::proto::code::Code;
use crate::proto::failure::Failure;
use crate::shared::{Critical, Shared, Task};
use crate::socket::Socket;
use crate::uni::Seen;
use crate::{critical, datagrams, silence, uni};

/// Begins HTTP/3 as a client on a QUIC connection whose ALPN chose `h3`.
///
/// Nothing is awaited: requests may be sent at once. The [`Connection`] must be polled (spawned) for anything to move; it ends
/// when the connection does. For windows and timeouts to be those of the options, the endpoint must have been given
/// [`Options::to_transport`].
pub fn handshake(quic: quinn::Connection, options: Options) -> Result<(SendRequest, Connection)> {
    let mut info = ConnectionInfo::default();
    info.peer = Some(quic.remote_address());
    info.attempts = 1;
    info.tls = Some(tls_info(&quic));
    begin(quic, None, options, info, None)
}

/// The same while the handshake is still going on: what `quinn::Connecting::into_0rtt` gave. Safe requests without a body are
/// sent as early data, all others once the handshake is done; what the server refuses is sent again.
pub fn handshake_early(
    quic: quinn::Connection,
    accepted: ZeroRttAccepted,
    options: Options,
) -> Result<(SendRequest, Connection)> {
    let mut info = ConnectionInfo::default();
    info.peer = Some(quic.remote_address());
    info.attempts = 1;
    begin(quic, None, options, info, Some(Early { accepted, socket: None }))
}

/// A handshake that is still going on.
pub(crate) struct Early {
    pub(crate) accepted: ZeroRttAccepted,
    pub(crate) socket: Option<Arc<Socket>>,
}

pub(crate) fn begin(
    quic: quinn::Connection,
    endpoint: Option<quinn::Endpoint>,
    options: Options,
    info: ConnectionInfo,
    early: Option<Early>,
) -> Result<(SendRequest, Connection)> {
    let checked = options.checked()?;
    if early.is_none() {
        // An endpoint of the caller's may have other limits. As early data they could be lost.
        quic.set_max_concurrent_bi_streams(0u32.into());
        quic.set_max_concurrent_uni_streams(PEER_STREAMS.into());
    }
    let shared = Arc::new(Shared::new(quic, endpoint, checked, info, early.is_some()));
    let handle = SendRequest::new(Arc::clone(&shared));
    let tasks = FuturesUnordered::new();
    for stream in [Critical::Control, Critical::Encoder, Critical::Decoder] {
        tasks.push(Box::pin(critical::run(Arc::clone(&shared), stream)) as Task);
    }
    tasks.push(Box::pin(accept(Arc::clone(&shared))) as Task);
    if shared.config.datagrams {
        tasks.push(Box::pin(datagrams::receive(Arc::clone(&shared))) as Task);
    }
    if let Some(limit) = shared.config.answer_timeout {
        tasks.push(Box::pin(silence::watch(Arc::clone(&shared), limit)) as Task);
    }
    if let Some(early) = early {
        tasks.push(Box::pin(settle(Arc::clone(&shared), early)) as Task);
    }
    let closed = Box::pin(closed(shared.quic.clone()));
    let incoming = Box::pin(incoming(shared.quic.clone()));
    Ok((handle, Connection { shared, closed, incoming, seen: Arc::default(), tasks, over: false }))
}

/// What QUIC tells of the TLS handshake; the cipher suite and the group it keeps to itself.
pub(crate) fn tls_info(quic: &quinn::Connection) -> TlsInfo {
    use quinn::crypto::rustls::HandshakeData;
    let mut info = TlsInfo::default();
    info.version = "TLSv1.3";
    let data = quic.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    info.alpn = data.and_then(|data| data.protocol);
    let chain = quic.peer_identity().and_then(|chain| chain.downcast::<Vec<rustls_pki_types::CertificateDer>>().ok());
    info.chain = chain.into_iter().flat_map(|chain| *chain).map(|certificate| certificate.to_vec()).collect();
    info
}

async fn closed(quic: quinn::Connection) -> ConnectionError {
    quic.closed().await
}

type Incoming = Pin<Box<dyn futures_util::Stream<Item = RecvStream> + Send>>;

fn incoming(quic: quinn::Connection) -> impl futures_util::Stream<Item = RecvStream> + Send {
    futures_util::stream::unfold(quic, async |quic| {
        let stream = quic.accept_uni().await.ok()?;
        Some((stream, quic))
    })
}

/// A server opens no request streams (RFC 9114 6.1).
async fn accept(shared: Arc<Shared>) {
    if shared.quic.accept_bi().await.is_ok() {
        shared.violated(Violation::new(Code::STREAM_CREATION_ERROR, "a request stream from a server"));
    }
}

/// Waits until the server has taken the early data or not.
async fn settle(shared: Arc<Shared>, early: Early) {
    let accepted = early.accepted.await;
    if shared.quic.close_reason().is_some() {
        return;
    }
    if let Some(socket) = early.socket {
        socket.established();
    }
    {
        let mut info = shared.info.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut info).tls = Some(tls_info(&shared.quic));
    }
    if !accepted {
        let refused: Vec<_> = shared.lock().streams.values().filter_map(Weak::upgrade).collect();
        refused.iter().for_each(|slot| slot.refuse_early());
    }
    shared.lock().early = false;
    shared.changed.notify_waiters();
    shared.event(Event::EarlyData { accepted });
}

/// The driver of one connection: a future to be spawned. It gives `Ok` after a graceful end, and the reason otherwise.
///
/// Dropping it closes the connection at once and fails what is in flight.
#[must_use = "nothing moves unless the connection is polled"]
pub struct Connection {
    shared: Arc<Shared>,
    closed: Pin<Box<dyn Future<Output = ConnectionError> + Send>>,
    incoming: Incoming,
    seen: Arc<Mutex<Seen>>,
    /// Our streams, the peer's, and uploads.
    tasks: FuturesUnordered<Task>,
    over: bool,
}

impl Connection {
    /// Takes what is new, and does what can be done.
    fn work(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(stream)) = self.incoming.poll_next_unpin(cx) {
            let task = uni::run(Arc::clone(&self.shared), stream, Arc::clone(&self.seen));
            self.tasks.push(Box::pin(task));
        }
        loop {
            self.tasks.extend(self.shared.take_uploads());
            match self.tasks.poll_next_unpin(cx) {
                Poll::Ready(Some(())) => {}
                Poll::Ready(None) | Poll::Pending => return,
            }
        }
    }

    /// The connection is over.
    fn end(&mut self, error: &ConnectionError) -> Result<()> {
        self.over = true;
        let failure = self.shared.lost(error);
        self.shared.fail(failure.clone());
        self.shared.refuse_uploads();
        self.tasks.clear();
        let idle = !self.shared.lock().interrupted;
        let graceful = failure.code == Some(Code::NO_ERROR) || matches!(error, ConnectionError::LocallyClosed);
        if graceful && idle && failure.kind == Kind::Closed {
            return Ok(());
        }
        Err(failure.error(Delivery::Unknown, Phase::Idle))
    }
}

impl Future for Connection {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        loop {
            this.work(cx);
            if let Poll::Ready(error) = this.closed.as_mut().poll(cx) {
                return Poll::Ready(this.end(&error));
            }
            {
                let mut state = this.shared.lock();
                if !state.is_done() && !this.shared.has_uploads() {
                    state.driver = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                if this.shared.has_uploads() {
                    continue;
                }
            }
            // Everything asked for has been answered.
            this.shared.quic.close(Code::NO_ERROR.varint(), b"");
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.over {
            self.shared.fail(Failure::new(Kind::Closed, "the connection's driver was dropped"));
            self.shared.quic.close(Code::NO_ERROR.varint(), b"");
            self.shared.refuse_uploads();
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("status", &self.shared.status()).finish_non_exhaustive()
    }
}
