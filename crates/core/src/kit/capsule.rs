//! Datagrams as capsules on a byte stream (RFC 9297 3.5), as CONNECT-UDP carries them (RFC 9298 5) where there are no QUIC
//! datagrams.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::datagram::{DatagramIo, MAX_DATAGRAM};
use crate::endpoint::Endpoint;
use crate::stream::Stream;

/// The DATAGRAM capsule, and the context of UDP payloads.
const DATAGRAM: u64 = 0;
const UDP_PAYLOAD: u64 = 0;

/// The longest value of a DATAGRAM capsule that can be a UDP packet: what UDP's length can say, and a context.
const MAX_VALUE: u64 = 65_535 + 8;

/// How much is asked for at a time.
const READ: usize = 16 << 10;

/// What a datagram of `payload` bytes is on the stream.
pub fn capsule_size(payload: usize) -> usize {
    let value = payload as u64 + 1;
    1 + varint_len(value) + payload + 1
}

/// The datagrams of one CONNECT-UDP tunnel over a byte stream: none is lost on the way to the proxy, and a slow one holds up
/// the others.
#[derive(Debug)]
pub struct CapsuleDatagrams {
    target: Endpoint,
    local: Option<SocketAddr>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    stream: Stream,
    out: BytesMut,
    /// Who waits for `out` to leave.
    sender: Option<Waker>,
    input: BytesMut,
    /// Bytes of a capsule that is passed over.
    skip: u64,
}

impl CapsuleDatagrams {
    /// The datagrams to `target` that travel on `stream`.
    pub fn new(stream: Stream, target: Endpoint) -> Self {
        let local = stream.info().local;
        let state = State { stream, out: BytesMut::new(), sender: None, input: BytesMut::new(), skip: 0 };
        Self { target, local, state: Mutex::new(state) }
    }

    /// Where the tunnel leads.
    pub fn target(&self) -> &Endpoint {
        &self.target
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let n = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(n);
        }
        if let Some(sender) = self.sender.take() {
            sender.wake();
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// The next UDP payload that is there in whole.
    fn next(&mut self) -> Option<BytesMut> {
        loop {
            let passed = self.skip.min(self.input.len() as u64);
            // It is at most the length of the buffer.
            self.input.advance(usize::try_from(passed).unwrap_or(0));
            self.skip -= passed;
            if self.skip > 0 {
                return None;
            }
            let mut head: &[u8] = &self.input;
            let (kind, length) = (varint(&mut head)?, varint(&mut head)?);
            let head = self.input.len() - head.len();
            if kind != DATAGRAM || length > MAX_VALUE {
                // RFC 9297 3.2: unknown ones are passed over, whatever their length.
                self.input.advance(head);
                self.skip = length;
                continue;
            }
            let length = usize::try_from(length).unwrap_or(0);
            if self.input.len() < head + length {
                return None;
            }
            self.input.advance(head);
            let mut value = self.input.split_to(length);
            let mut rest: &[u8] = &value;
            let context = varint(&mut rest);
            let start = value.len() - rest.len();
            if context == Some(UDP_PAYLOAD) {
                value.advance(start);
                return Some(value);
            }
        }
    }
}

impl DatagramIo for CapsuleDatagrams {
    fn poll_send_to(&self, cx: &mut Context<'_>, datagram: &[u8], to: &Endpoint) -> Poll<io::Result<()>> {
        if *to != self.target {
            let message = format!("the tunnel leads to {} alone", self.target.authority());
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidInput, message)));
        }
        let mut state = self.lock();
        if state.poll_out(cx)?.is_pending() && !state.out.is_empty() {
            state.sender = Some(cx.waker().clone());
            return Poll::Pending;
        }
        put_varint(&mut state.out, DATAGRAM);
        put_varint(&mut state.out, datagram.len() as u64 + 1);
        put_varint(&mut state.out, UDP_PAYLOAD);
        state.out.extend_from_slice(datagram);
        // What does not leave at once leaves with the next one, or while one is waited for.
        let _ = state.poll_out(cx)?;
        Poll::Ready(Ok(()))
    }

    fn poll_recv_from(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<SocketAddr>> {
        let mut state = self.lock();
        let state = &mut *state;
        let _ = state.poll_out(cx)?;
        loop {
            if let Some(payload) = state.next() {
                let n = payload.len().min(buf.remaining());
                buf.put_slice(&payload[..n]);
                // A target that the proxy resolved has no address that we know.
                let unknown = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
                return Poll::Ready(Ok(self.target.socket_addr().unwrap_or(unknown)));
            }
            let mut room = [0; READ];
            let mut read = ReadBuf::new(&mut room);
            ready!(Pin::new(&mut state.stream).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                let message = "the proxy ended the tunnel";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, message)));
            }
            state.input.extend_from_slice(read.filled());
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local.unwrap_or_else(|| (Ipv4Addr::UNSPECIFIED, 0).into()))
    }

    fn max_size(&self) -> usize {
        MAX_DATAGRAM
    }
}

fn varint_len(value: u64) -> usize {
    match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        _ => 8,
    }
}

/// RFC 9000 16. Values come from lengths, which are far below 2^62.
fn put_varint(out: &mut BytesMut, value: u64) {
    let length = varint_len(value);
    let tag = (length.trailing_zeros() as u64) << (8 * length - 2);
    out.put_uint(value | tag, length);
}

fn varint(from: &mut &[u8]) -> Option<u64> {
    let first = *from.first()?;
    let length = 1 << (first >> 6);
    let mut bytes = from.get(..length)?;
    let value = bytes.get_uint(length);
    from.advance(length);
    Some(value & (u64::MAX >> (66 - 8 * length)))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::Datagram;

    fn tunnel() -> (Datagram, tokio::io::DuplexStream) {
        let (near, far) = tokio::io::duplex(1 << 20);
        let target = Endpoint::new("dns.example", 53).unwrap();
        (Datagram::from_io(CapsuleDatagrams::new(Stream::from_io(near), target.clone()), Some(target)), far)
    }

    #[test]
    fn varints_are_those_of_the_rfc() {
        for (value, bytes) in [
            (37, &[0x25][..]),
            (15_293, &[0x7b, 0xbd]),
            (494_878_333, &[0x9d, 0x7f, 0x3e, 0x7d]),
            (151_288_809_941_952_652, &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c]),
        ] {
            let mut out = BytesMut::new();
            put_varint(&mut out, value);
            assert_eq!(out, bytes);
            assert_eq!(varint(&mut &*out), Some(value));
        }
        assert_eq!((varint(&mut &[0x7b][..]), varint(&mut &[][..])), (None, None));
    }

    #[tokio::test]
    async fn datagrams_go_out_whole_and_come_in_whatever_the_pieces() {
        let (datagram, mut far) = tunnel();
        datagram.send(b"query").await.unwrap();
        let mut seen = [0; 8];
        far.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, b"\x00\x06\x00query");
        assert_eq!(capsule_size(5), 8);
        // An unknown capsule, a foreign context, an empty datagram, one to be taken, byte by byte.
        let stream = b"\x17\x03abc\x00\x04\x02nay\x00\x01\x00\x00\x04\x00yes";
        let write = async {
            for byte in stream {
                far.write_all(&[*byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
            far
        };
        let read = async {
            let mut buf = [0; 2];
            assert_eq!(datagram.recv(&mut buf).await.unwrap(), 0);
            assert_eq!(datagram.recv(&mut buf).await.unwrap(), 2);
            assert_eq!(&buf, b"ye");
        };
        let (far, ()) = tokio::join!(write, read);
        drop(far);
        assert!(datagram.recv(&mut [0; 8]).await.is_err());
    }

    #[tokio::test]
    async fn a_capsule_too_long_to_be_a_datagram_is_passed_over_unheld() {
        let (datagram, mut far) = tunnel();
        let mut head = BytesMut::new();
        put_varint(&mut head, DATAGRAM);
        put_varint(&mut head, 10 << 20);
        let write = async {
            far.write_all(&head).await.unwrap();
            for _ in 0..160 {
                far.write_all(&vec![7; 64 << 10]).await.unwrap();
            }
            far.write_all(b"\x00\x02\x00!").await.unwrap();
        };
        let mut buf = [0; 8];
        let (read, ()) = tokio::join!(datagram.recv(&mut buf), write);
        assert_eq!((read.unwrap(), buf[0]), (1, b'!'));
    }
}
