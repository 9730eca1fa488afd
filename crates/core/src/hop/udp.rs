//! Datagrams through a SOCKS5 relay (RFC 1928 7).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::socks5::push_address;
use crate::datagram::{Datagram, DatagramIo, MAX_DATAGRAM};
use crate::endpoint::Endpoint;
use crate::stream::Stream;

/// The longest header: three bytes, type, length, a name of 255, port.
const MAX_HEADER: usize = 3 + 1 + 1 + 255 + 2;

/// Wraps each datagram for the relay. The association lives as long as its control stream.
#[derive(Debug)]
pub(super) struct Relay {
    beneath: Datagram,
    control: Mutex<Stream>,
}

impl Relay {
    pub(super) fn new(beneath: Datagram, control: Stream) -> Self {
        Self { beneath, control: Mutex::new(control) }
    }

    /// Fails once the proxy has closed the control stream: the relay forwards nothing any more.
    fn check_control(&self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let mut room = [0; 64];
        loop {
            let mut buf = ReadBuf::new(&mut room);
            match Pin::new(&mut *control).poll_read(cx, &mut buf) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
                Poll::Ready(Ok(())) => {
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the proxy ended the association"));
                }
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
    }
}

impl DatagramIo for Relay {
    fn poll_send_to(&self, cx: &mut Context<'_>, datagram: &[u8], to: &Endpoint) -> Poll<io::Result<()>> {
        self.check_control(cx)?;
        let mut wrapped = Vec::with_capacity(datagram.len() + MAX_HEADER);
        wrapped.extend_from_slice(&[0, 0, 0]);
        push_address(&mut wrapped, to)?;
        wrapped.extend_from_slice(datagram);
        self.beneath.poll_send(cx, &wrapped)
    }

    fn poll_recv_from(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<SocketAddr>> {
        let mut wrapped = vec![0; MAX_HEADER + buf.remaining()];
        loop {
            self.check_control(cx)?;
            let mut wrapped = ReadBuf::new(&mut wrapped);
            ready!(self.beneath.poll_recv(cx, &mut wrapped))?;
            // Fragments (RFC 1928 7: FRAG is not zero) and broken headers are dropped, as the RFC allows.
            if let Some((from, payload)) = unwrap(wrapped.filled()) {
                let n = payload.len().min(buf.remaining());
                buf.put_slice(&payload[..n]);
                return Poll::Ready(Ok(from));
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.beneath.local_addr().map_err(io::Error::from)
    }

    fn max_size(&self) -> usize {
        self.beneath.max_size().min(MAX_DATAGRAM).saturating_sub(MAX_HEADER)
    }
}

/// Source and payload. A relay that names its source by a domain gives no address to compare: zeros stand for it.
fn unwrap(datagram: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let ([_, _, 0, kind], rest) = datagram.split_first_chunk::<4>()? else { return None };
    let (ip, rest): (IpAddr, &[u8]) = match kind {
        1 => rest.split_first_chunk::<4>().map(|(ip, rest)| (Ipv4Addr::from(*ip).into(), rest))?,
        4 => rest.split_first_chunk::<16>().map(|(ip, rest)| (Ipv6Addr::from(*ip).into(), rest))?,
        3 => {
            let (length, rest) = rest.split_first()?;
            (Ipv4Addr::UNSPECIFIED.into(), rest.get(usize::from(*length)..)?)
        }
        _ => return None,
    };
    let (port, payload) = rest.split_first_chunk::<2>()?;
    Some((SocketAddr::new(ip, u16::from_be_bytes(*port)), payload))
}
