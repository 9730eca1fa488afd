//! Against a socket of the machine that sees what the kernel makes of it, and through a carrier that takes datagrams one by one.

#![allow(clippy::disallowed_methods, reason = "the tests are the peer")]

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::ready;

use portolan_core::observe::{Closed, Observer};
use portolan_core::{Connector, DatagramIo, Endpoint};
use quinn::udp::{EcnCodepoint, UdpSocketState};
use tokio::io::{Interest, ReadBuf};
use tokio::net::UdpSocket;

use super::*;

struct Peer {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl Peer {
    async fn bind(addr: &str) -> Self {
        let socket = UdpSocket::bind(addr).await.unwrap();
        Self { state: UdpSocketState::new((&socket).into()).unwrap(), socket }
    }

    fn addr(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    /// The lengths of so many bytes' worth of datagrams, their marks, and who sent them.
    async fn hear(&self, bytes: usize) -> (Vec<usize>, Vec<Option<EcnCodepoint>>, SocketAddr) {
        let (mut lengths, mut marks, mut from) = (Vec::new(), Vec::new(), self.addr());
        while lengths.iter().sum::<usize>() < bytes {
            let mut room = vec![0; 1 << 16];
            let mut meta = [RecvMeta::default()];
            let read = || self.state.recv((&self.socket).into(), &mut [IoSliceMut::new(&mut room)], &mut meta);
            self.socket.async_io(Interest::READABLE, read).await.unwrap();
            from = meta[0].addr;
            for at in (0..meta[0].len).step_by(meta[0].stride) {
                lengths.push(meta[0].stride.min(meta[0].len - at));
                marks.push(meta[0].ecn);
            }
        }
        (lengths, marks, from)
    }

    async fn say(&self, transmit: &Transmit<'_>) {
        let send = || self.state.try_send((&self.socket).into(), transmit);
        self.socket.async_io(Interest::WRITABLE, send).await.unwrap();
    }
}

/// Counts what a connection carried, once it is gone.
#[derive(Default)]
struct Count(Mutex<Option<(u64, u64)>>);

impl Observer for Count {
    fn closed(&self, closed: &Closed<'_>) {
        *self.0.lock().unwrap() = Some((closed.sent, closed.received));
    }
}

fn transmit(to: SocketAddr, contents: &[u8], segment: Option<usize>, ecn: Option<EcnCodepoint>) -> Transmit<'_> {
    Transmit { destination: to, ecn, contents, segment_size: segment, src_ip: None }
}

async fn send(socket: &Arc<Socket>, transmit: &Transmit<'_>) {
    let mut poller = Arc::clone(socket).create_io_poller();
    loop {
        poll_fn(|cx| poller.as_mut().poll_writable(cx)).await.unwrap();
        match socket.try_send(transmit) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            sent => return sent.unwrap(),
        }
    }
}

/// Every datagram that came, with its mark, until there are so many.
async fn receive(socket: &Socket, count: usize) -> Vec<(Vec<u8>, Option<EcnCodepoint>)> {
    let mut came = Vec::new();
    while came.len() < count {
        let (mut one, mut two) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        let mut meta = [RecvMeta::default(); 2];
        let reads = poll_fn(|cx| {
            let mut bufs = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut two)];
            socket.poll_recv(cx, &mut bufs, &mut meta)
        });
        let reads = reads.await.unwrap();
        for (meta, room) in meta.iter().zip([&one, &two]).take(reads) {
            assert_eq!(meta.addr, socket.peer);
            came.extend(room[..meta.len].chunks(meta.stride).map(|datagram| (datagram.to_vec(), meta.ecn)));
        }
    }
    came
}

async fn one_way_and_the_other(local: &str) {
    let peer = Peer::bind(local).await;
    let count = Arc::new(Count::default());
    let net = Connector::builder().observer(Arc::clone(&count) as Arc<dyn Observer>).build().unwrap();
    let socket = Socket::new(net.datagram(&Endpoint::from(peer.addr())).await.unwrap(), peer.addr()).unwrap();
    assert!(!socket.may_fragment());
    let bytes: Vec<u8> = (0..=255).cycle().take(3 * 1000 + 300).collect();
    let mark = Some(EcnCodepoint::Ect0);
    send(&socket, &transmit(peer.addr(), &bytes[..700], None, mark)).await;
    assert_eq!(peer.hear(700).await.1, [mark]);
    // The mark is taken off again.
    send(&socket, &transmit(peer.addr(), &bytes[..700], None, None)).await;
    assert_eq!(peer.hear(700).await.1, [None]);
    send(&socket, &transmit(peer.addr(), &bytes, Some(1000), mark)).await;
    let (lengths, marks, from) = peer.hear(bytes.len()).await;
    assert_eq!((lengths, marks), (vec![1000, 1000, 1000, 300], vec![mark; 4]));
    let congested = Some(EcnCodepoint::Ce);
    peer.say(&transmit(from, &bytes, Some(1000), congested)).await;
    peer.say(&transmit(from, &bytes[..50], None, None)).await;
    assert_eq!(socket.max_transmit_segments(), 1, "before anything was heard");
    let came = receive(&socket, 5).await;
    assert_eq!(socket.max_transmit_segments(), peer.state.max_gso_segments());
    let expected = bytes.chunks(1000).map(|part| (part.to_vec(), congested));
    assert_eq!(came, expected.chain([(bytes[..50].to_vec(), None)]).collect::<Vec<_>>());
    drop(socket);
    assert_eq!(*count.0.lock().unwrap(), Some((4700, 3350)));
}

#[tokio::test]
async fn many_datagrams_and_their_marks_go_through_one_call_over_ipv4() {
    one_way_and_the_other("127.0.0.1:0").await;
}

#[tokio::test]
async fn many_datagrams_and_their_marks_go_through_one_call_over_ipv6() {
    one_way_and_the_other("[::1]:0").await;
}

#[tokio::test]
async fn where_the_kernel_does_not_cut_datagrams_go_one_by_one() {
    let peer = Peer::bind("127.0.0.1:0").await;
    let socket = Socket::new(Connector::default().datagram(&peer.addr().into()).await.unwrap(), peer.addr()).unwrap();
    // More pieces than the kernel ever cuts: it refuses as a device does that cuts nothing.
    let bytes = vec![7; 1000];
    send(&socket, &transmit(peer.addr(), &bytes, Some(5), Some(EcnCodepoint::Ect0))).await;
    assert_eq!(peer.hear(1000).await.0, [5; 200]);
    assert_eq!(socket.max_transmit_segments(), 1);
    send(&socket, &transmit(peer.addr(), &bytes, Some(600), None)).await;
    assert_eq!(peer.hear(1000).await.0, [600, 400]);
}

#[tokio::test]
async fn before_the_peer_has_answered_a_refusal_ends_it_and_not_after() {
    let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let socket = Socket::new(Connector::default().datagram(&gone.into()).await.unwrap(), gone).unwrap();
    let mut room = [0; 64];
    let mut recv = async |socket: &Socket| {
        let mut meta = [RecvMeta::default()];
        poll_fn(|cx| socket.poll_recv(cx, &mut [IoSliceMut::new(&mut room)], &mut meta)).await
    };
    send(&socket, &transmit(gone, b"hello", None, None)).await;
    assert_eq!(socket.refused().await.kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(socket.failed(), Some(io::ErrorKind::ConnectionRefused));
    // Whoever sends may be told as well.
    for _ in 0..3 {
        send(&socket, &transmit(gone, b"hello", None, None)).await;
    }
    assert_eq!(recv(&socket).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    let socket = Socket::new(Connector::default().datagram(&gone.into()).await.unwrap(), gone).unwrap();
    socket.established();
    send(&socket, &transmit(gone, b"hello", None, None)).await;
    send(&socket, &transmit(gone, b"hello", None, None)).await;
    let back = UdpSocket::bind(gone).await.unwrap();
    send(&socket, &transmit(gone, b"hello", None, None)).await;
    let mut heard = [0; 8];
    let (_, from) = back.recv_from(&mut heard).await.unwrap();
    back.send_to(b"here", from).await.unwrap();
    assert_eq!(recv(&socket).await.unwrap(), 1);
}

/// Takes datagrams while it has room, and gives back what it was given.
#[derive(Debug, Default)]
struct Line(Arc<Mutex<VecDeque<Vec<u8>>>>);

impl DatagramIo for Line {
    fn poll_send_to(&self, _: &mut Context<'_>, datagram: &[u8], _: &Endpoint) -> Poll<io::Result<()>> {
        self.0.lock().unwrap().push_back(datagram.to_vec());
        Poll::Ready(Ok(()))
    }

    fn poll_recv_from(&self, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<SocketAddr>> {
        let next = self.0.lock().unwrap().pop_front();
        let next = ready!(next.map_or(Poll::Pending, Poll::Ready));
        buf.put_slice(&next);
        Poll::Ready(Ok(SocketAddr::from(([127, 0, 0, 1], 9))))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from(([127, 0, 0, 1], 1)))
    }
}

#[tokio::test]
async fn a_relay_is_given_one_datagram_at_a_time() {
    let (line, peer) = (Line::default(), SocketAddr::from(([127, 0, 0, 1], 9)));
    let datagram = Datagram::from_io(Line(Arc::clone(&line.0)), Some(peer.into()));
    let socket = Socket::new(datagram, peer).unwrap();
    assert_eq!((socket.max_transmit_segments(), socket.may_fragment()), (1, true));
    // What was made ready for a socket that cuts, before the connection went over to this one.
    send(&socket, &transmit(peer, &[1; 2500], Some(1200), None)).await;
    assert_eq!(line.0.lock().unwrap().iter().map(Vec::len).collect::<Vec<_>>(), [1200, 1200, 100]);
    let came = receive(&socket, 3).await;
    assert_eq!(came.iter().map(|(datagram, _)| datagram.len()).collect::<Vec<_>>(), [1200, 1200, 100]);
}
