//! A connection, whatever it runs over.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio_rustls::client::TlsStream;

use crate::clock;
use crate::error::{Error, Kind, Phase, Result};
use crate::info::{ConnectionInfo, TlsInfo};
use crate::observe::{Said, Stepping, Traffic};
use crate::secret::Secret;
use crate::tls::{self, Tls};

/// Any two-way byte stream that a [`Stream`] can be made from.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// A connection to a peer: TCP, a Unix socket, TLS over either, or anything a hop made.
///
/// It reads and writes as tokio's streams do (vectored writes included), knows how it came to be ([`Stream::info`]), and
/// can turn to TLS in mid-stream ([`Stream::start_tls`]). Dropping it closes it.
pub struct Stream {
    io: Inner,
    /// Bytes that a hop's handshake had already read: they belong to the target.
    early: Bytes,
    info: Box<ConnectionInfo>,
    upgrade: Option<Upgrade>,
    traffic: Option<Box<Traffic>>,
    forwards: Option<Arc<[(String, Secret)]>>,
    pub(crate) played_tls: Option<PlayedTls>,
}

/// What the connector says about a later STARTTLS.
#[derive(Clone)]
pub(crate) struct Upgrade {
    pub(crate) tls: Tls,
    pub(crate) limit: Option<Duration>,
}

/// TLS that was agreed on when the conversation was recorded: what is replayed is what went inside it.
pub(crate) type PlayedTls = Arc<dyn Fn() -> Result<TlsInfo> + Send + Sync>;

enum Inner {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
    TlsTcp(Box<TlsStream<TcpStream>>),
    Tls(Box<TlsStream<Stream>>),
    Boxed(Box<dyn Io>),
}

macro_rules! each {
    ($self:expr, $io:ident => $call:expr) => {
        match &mut $self.io {
            Inner::Tcp($io) => $call,
            #[cfg(unix)]
            Inner::Unix($io) => $call,
            Inner::TlsTcp($io) => $call,
            Inner::Tls($io) => $call,
            Inner::Boxed($io) => $call,
        }
    };
}

impl Stream {
    /// Any two-way byte stream: an in-memory pipe of a test, a channel of another protocol.
    pub fn from_io(io: impl Io) -> Self {
        Self::with_inner(Inner::Boxed(Box::new(io)), ConnectionInfo::default())
    }

    /// A TCP stream opened elsewhere.
    pub fn from_tcp(io: TcpStream) -> Self {
        let info =
            ConnectionInfo { peer: io.peer_addr().ok(), local: io.local_addr().ok(), ..ConnectionInfo::default() };
        Self::with_inner(Inner::Tcp(io), info)
    }

    /// A Unix stream opened elsewhere.
    #[cfg(unix)]
    pub fn from_unix(io: UnixStream) -> Self {
        Self::with_inner(Inner::Unix(io), ConnectionInfo::default())
    }

    fn with_inner(io: Inner, info: ConnectionInfo) -> Self {
        let (early, info) = (Bytes::new(), Box::new(info));
        Self { io, early, info, upgrade: None, traffic: None, forwards: None, played_tls: None }
    }

    /// What is known about the connection.
    pub fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    /// The same, to be completed by a hop or by the protocol's own handshake.
    pub fn info_mut(&mut self) -> &mut ConnectionInfo {
        &mut self.info
    }

    /// The protocol that TLS agreed on.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.info.tls.as_ref().and_then(|tls| tls.alpn.as_deref())
    }

    /// Whether TLS is spoken with the target.
    pub fn is_tls(&self) -> bool {
        self.info.tls.is_some()
    }

    /// Hands back bytes that were read too far: they are read again, before all others.
    #[must_use]
    pub fn with_early(mut self, early: Bytes) -> Self {
        self.early = if self.early.is_empty() { early } else { [early, self.early].concat().into() };
        self
    }

    /// Says that an HTTP proxy is at the other end, and what it wants to see on each request.
    #[must_use]
    pub(crate) fn with_forwards(mut self, fields: Vec<(String, Secret)>) -> Self {
        self.forwards = Some(fields.into());
        self
    }

    /// Set where an HTTP proxy at the other end takes requests in absolute form (RFC 9112 3.2.2): the fields that each of them
    /// must carry. Only [`Connector::connect_http`](crate::Connector::connect_http) makes such streams.
    pub fn forwards(&self) -> Option<&[(String, Secret)]> {
        self.forwards.as_deref()
    }

    /// The settings by which [`start_tls`](Self::start_tls) upgrades, as the connector would have set them.
    #[must_use]
    pub fn with_tls(mut self, tls: Tls, limit: Option<Duration>) -> Self {
        self.upgrade = Some(Upgrade { tls, limit });
        self
    }

    /// Turns to TLS in mid-stream, with the settings of the connector that made the stream: STARTTLS, AUTH TLS, SSLRequest.
    ///
    /// Plaintext that was read ahead and not yet consumed is refused as an injection (RFC 3207 6, CVE-2011-0411): a server
    /// has nothing to say between its agreement and our hello. A protocol that buffers must check its own buffer first.
    /// Dropping the future closes the connection.
    pub async fn start_tls(self, name: &str) -> Result<Self> {
        let upgrade = self
            .upgrade
            .clone()
            .unwrap_or_else(|| Upgrade { tls: Tls::default(), limit: Some(Duration::from_secs(10)) });
        self.start_tls_with(name, &upgrade.tls, None, upgrade.limit).await
    }

    /// [`start_tls`](Self::start_tls) with settings of its own; `alpn` of `None` offers the list in `tls`.
    pub async fn start_tls_with(
        self,
        name: &str,
        tls: &Tls,
        alpn: Option<&[&[u8]]>,
        limit: Option<Duration>,
    ) -> Result<Self> {
        if !self.early.is_empty() {
            let message =
                format!("{} plaintext bytes before the TLS handshake: injection across the upgrade", self.early.len());
            return Err(Error::new(Kind::Protocol, message).with_phase(Phase::Tls));
        }
        let started = clock::now();
        let Self { io, early, mut info, upgrade, traffic, forwards: _, played_tls } = self;
        let step = Stepping::later(traffic.as_deref(), Phase::Tls);
        let result = match &played_tls {
            Some(agreed) => agreed().map(|agreed| (io, agreed)),
            None => Self::secure(io, early, name, tls, alpn, limit).await,
        };
        step.end(&result);
        let (io, agreed) = result?;
        if let Some(traffic) = &traffic {
            traffic.secured(&agreed);
        }
        info.tls = Some(agreed);
        let elapsed = clock::now() - started;
        info.timings.tls = Some(elapsed);
        info.timings.total += elapsed;
        Ok(Self { io, early: Bytes::new(), info, upgrade, traffic, forwards: None, played_tls })
    }

    async fn secure(
        io: Inner,
        early: Bytes,
        name: &str,
        tls: &Tls,
        alpn: Option<&[&[u8]]>,
        limit: Option<Duration>,
    ) -> Result<(Inner, TlsInfo)> {
        Ok(match io {
            Inner::Tcp(tcp) => {
                // Boxed: a handshake under way is large, and every caller's future would carry it.
                let (io, agreed) = Box::pin(tls::handshake(tcp, name, tls, alpn, limit)).await?;
                (Inner::TlsTcp(Box::new(io)), agreed)
            }
            io => {
                let under = Self { early, ..Self::with_inner(io, ConnectionInfo::default()) };
                let (io, agreed) = Box::pin(tls::handshake(under, name, tls, alpn, limit)).await?;
                (Inner::Tls(Box::new(io)), agreed)
            }
        })
    }

    /// Counts what it carries from now on.
    #[must_use]
    pub(crate) fn counted(mut self, traffic: Option<Box<Traffic>>) -> Self {
        self.traffic = traffic;
        self
    }

    pub(crate) fn traffic(&self) -> Option<&Traffic> {
        self.traffic.as_deref()
    }

    /// Secret bytes known to both ends of this TLS connection alone (RFC 5705): for channel binding (RFC 9266).
    pub fn export_key(&self, label: &[u8], context: Option<&[u8]>, out: &mut [u8]) -> Result<()> {
        let connection = match &self.io {
            Inner::TlsTcp(io) => io.get_ref().1,
            Inner::Tls(io) => io.get_ref().1,
            _ => return Err(Error::usage("no TLS on this stream")),
        };
        connection
            .export_keying_material(out, label, context)
            .map(|_| ())
            .map_err(|error| Error::new(Kind::Tls, "no exporter").with_source(error))
    }

    /// Sends small writes at once (the default of the connector) or gathers them.
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        match &self.io {
            Inner::Tcp(io) => io.set_nodelay(on),
            Inner::TlsTcp(io) => io.get_ref().0.set_nodelay(on),
            Inner::Tls(io) => io.get_ref().0.set_nodelay(on),
            _ => Ok(()),
        }
    }

    /// Acknowledges at once what has arrived, where the kernel would wait for something to send along with it: a peer that
    /// gathers small writes sends its next one only then. It holds for this moment alone, on Linux; elsewhere it does nothing.
    pub fn ack_now(&self) -> io::Result<()> {
        match &self.io {
            #[cfg(target_os = "linux")]
            Inner::Tcp(io) => socket2::SockRef::from(io).set_tcp_quickack(true),
            #[cfg(target_os = "linux")]
            Inner::TlsTcp(io) => socket2::SockRef::from(&io.get_ref().0).set_tcp_quickack(true),
            Inner::Tls(io) => io.get_ref().0.ack_now(),
            _ => Ok(()),
        }
    }

    /// Whether nothing has arrived and the peer has not closed: what a pool asks of an idle connection. Never waits.
    ///
    /// Anything that arrives on an idle connection is out of step, so it counts as unusable. Bytes read by the check are
    /// not lost, but the stream should then be dropped.
    pub fn is_quiet(&mut self) -> bool {
        if !self.early.is_empty() {
            return false;
        }
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut room = [0u8; 1];
        let mut buf = ReadBuf::new(&mut room);
        match Pin::new(&mut *self).poll_read(&mut cx, &mut buf) {
            Poll::Pending => true,
            Poll::Ready(Ok(())) => {
                self.early = Bytes::copy_from_slice(buf.filled());
                false
            }
            Poll::Ready(Err(_)) => false,
        }
    }
}

impl Stream {
    fn wrote(&self, result: Poll<io::Result<usize>>, tell: impl FnOnce(&Traffic, usize)) -> Poll<io::Result<usize>> {
        if let (Some(traffic), Poll::Ready(Ok(n))) = (&self.traffic, &result) {
            tell(traffic, *n);
        }
        result
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.early.is_empty() {
            let n = this.early.len().min(buf.remaining());
            buf.put_slice(&this.early[..n]);
            if let Some(traffic) = &this.traffic {
                traffic.received(&this.early[..n]);
            }
            this.early.advance(n);
            return Poll::Ready(Ok(()));
        }
        let Some(traffic) = &this.traffic else { return each!(this, io => Pin::new(io).poll_read(cx, buf)) };
        let before = buf.filled().len();
        let result = each!(this, io => Pin::new(io).poll_read(cx, buf));
        match &result {
            Poll::Pending => {}
            Poll::Ready(Err(_)) => traffic.tell(Said::Broken),
            Poll::Ready(Ok(())) if buf.filled().len() > before => traffic.received(&buf.filled()[before..]),
            Poll::Ready(Ok(())) if buf.remaining() > 0 => traffic.tell(Said::Ended),
            Poll::Ready(Ok(())) => {}
        }
        result
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = each!(this, io => Pin::new(io).poll_write(cx, buf));
        this.wrote(result, |traffic, n| traffic.sent(&buf[..n]))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = each!(this, io => Pin::new(io).poll_write_vectored(cx, bufs));
        this.wrote(result, |traffic, n| traffic.sent_vectored(bufs, n))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Inner::Tcp(io) => io.is_write_vectored(),
            #[cfg(unix)]
            Inner::Unix(io) => io.is_write_vectored(),
            Inner::TlsTcp(io) => io.is_write_vectored(),
            Inner::Tls(io) => io.is_write_vectored(),
            Inner::Boxed(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = ready!(each!(this, io => Pin::new(io).poll_shutdown(cx)));
        if let Some(traffic) = &this.traffic {
            traffic.tell(Said::Shutdown);
        }
        Poll::Ready(match result {
            // The peer was quicker: the stream is as shut as it will be.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            result => result,
        })
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.io {
            Inner::Tcp(_) => "tcp",
            #[cfg(unix)]
            Inner::Unix(_) => "unix",
            Inner::TlsTcp(_) | Inner::Tls(_) => "tls",
            Inner::Boxed(_) => "boxed",
        };
        f.debug_struct("Stream").field("over", &kind).field("peer", &self.info.peer).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn bytes_read_too_far_are_read_again_first() {
        let (near, mut far) = tokio::io::duplex(64);
        far.write_all(b"def").await.unwrap();
        let mut stream =
            Stream::from_io(near).with_early(Bytes::from_static(b"c")).with_early(Bytes::from_static(b"ab"));
        let mut seen = [0; 6];
        stream.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, b"abcdef");
    }

    #[tokio::test]
    async fn plaintext_read_ahead_is_refused_at_the_upgrade() {
        let (near, _far) = tokio::io::duplex(64);
        let stream = Stream::from_io(near).with_early(Bytes::from_static(b"250 evil\r\n"));
        let error = stream.start_tls("localhost").await.unwrap_err();
        assert_eq!(error.kind(), Kind::Protocol);
    }

    #[tokio::test]
    async fn an_idle_stream_is_quiet_until_something_arrives_or_the_peer_closes() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut stream = Stream::from_io(near);
        assert!(stream.is_quiet());
        far.write_all(b"x").await.unwrap();
        assert!(!stream.is_quiet());
        let (near, far) = tokio::io::duplex(64);
        let mut stream = Stream::from_io(near);
        drop(far);
        assert!(!stream.is_quiet());
    }
}
