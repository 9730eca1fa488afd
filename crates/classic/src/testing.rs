//! Peers of the tests: one end of a pipe, or a UDP socket.

#![allow(dead_code, reason = "each protocol's tests use their part")]

use portolan_core::{Connector, Datagram, Endpoint, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

pub(crate) fn pipe() -> (Stream, DuplexStream) {
    let (ours, theirs) = tokio::io::duplex(1024);
    (Stream::from_io(ours), theirs)
}

/// A server that says `text` and closes.
pub(crate) fn telling(text: &[u8]) -> Stream {
    let (ours, mut theirs) = tokio::io::duplex(1024);
    let text = text.to_vec();
    tokio::spawn(async move {
        let _ = theirs.write_all(&text).await;
        let _ = theirs.shutdown().await;
    });
    Stream::from_io(ours)
}

/// A server that reads one line, says `text` and closes; what it read is given back.
pub(crate) fn answering(text: &[u8]) -> (Stream, tokio::task::JoinHandle<Vec<u8>>) {
    let (ours, mut theirs) = tokio::io::duplex(1024);
    let text = text.to_vec();
    let task = tokio::spawn(async move {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            match theirs.read_u8().await {
                Ok(byte) => line.push(byte),
                Err(_) => break,
            }
        }
        let _ = theirs.write_all(&text).await;
        line
    });
    (Stream::from_io(ours), task)
}

pub(crate) fn udp() -> (Datagram, Endpoint) {
    let peer = Connector::default().datagram_bound("127.0.0.1:0".parse().unwrap(), false).unwrap();
    let to = peer.local_addr().unwrap().into();
    (peer, to)
}

/// Hears one datagram and answers with these.
pub(crate) async fn answer_udp(peer: &Datagram, answers: &[&[u8]]) -> Vec<u8> {
    let mut buf = vec![0; 2048];
    let (n, from) = peer.recv_from(&mut buf).await.unwrap();
    for answer in answers {
        peer.send_to(answer, from).await.unwrap();
    }
    buf.truncate(n);
    buf
}
