//! Listening, for protocols in which the server calls back: FTP in active mode, the r-commands' stderr, SIP.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use crate::clock;
use crate::error::{Error, Phase, Result};
use crate::sockopt::{Bind, SourcePort, TcpOptions, apply_accepted};
use crate::stream::Stream;

/// Connections that wait to be accepted: a client expects one or two.
const BACKLOG: i32 = 16;

/// A listening socket.
pub struct Listener {
    socket: TcpListener,
    options: TcpOptions,
}

impl Listener {
    /// Binds `local`; where its port is 0, the port of `bind` holds (a range is tried from its top).
    pub(crate) async fn bind(local: SocketAddr, bind: &Bind, options: &TcpOptions) -> Result<Self> {
        let ports: Vec<u16> = if local.port() == 0 { bind.listen_ports() } else { vec![local.port()] };
        let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
        for port in ports {
            match listen(SocketAddr::new(local.ip(), port), bind) {
                Ok(socket) => {
                    return Ok(Self { socket, options: options.clone() });
                }
                Err(error) => last = error,
            }
        }
        Err(Error::io(Phase::Setup, last))
    }

    /// Where it listens.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        self.socket.local_addr().map_err(|error| Error::io(Phase::Setup, error))
    }

    /// The next connection, within `limit`. Cancel safe: a connection is handed over whole or stays in the queue.
    pub async fn accept(&self, limit: Option<Duration>) -> Result<(Stream, SocketAddr)> {
        let accept = async { self.socket.accept().await.map_err(|error| Error::io(Phase::Connect, error)) };
        let (stream, peer) = clock::within(limit, Phase::Connect, accept).await?;
        apply_accepted(&stream, &self.options).map_err(|error| Error::io(Phase::Connect, error))?;
        Ok((Stream::from_tcp(stream), peer))
    }
}

fn listen(local: SocketAddr, bind: &Bind) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(local), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    bind.bind_device(&socket)?;
    socket.bind(&local.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("local", &self.socket.local_addr().ok()).finish_non_exhaustive()
    }
}

impl Bind {
    fn listen_ports(&self) -> Vec<u16> {
        match self.source_port() {
            SourcePort::Any => vec![0],
            SourcePort::Fixed(port) => vec![*port],
            SourcePort::Range(range) => range.clone().rev().collect(),
            SourcePort::Privileged => crate::sockopt::PRIVILEGED.rev().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_takes_a_port_of_the_range_and_gives_up_in_time() {
        let bind = Bind::from(SourcePort::Range(40_100..=40_180));
        let first = Listener::bind("127.0.0.1:0".parse().unwrap(), &bind, &TcpOptions::default()).await.unwrap();
        let second = Listener::bind("127.0.0.1:0".parse().unwrap(), &bind, &TcpOptions::default()).await.unwrap();
        let (a, b) = (first.local_addr().unwrap().port(), second.local_addr().unwrap().port());
        assert!((40_100..=40_180).contains(&a) && (40_100..=40_180).contains(&b) && a != b);
        let late = first.accept(Some(Duration::from_millis(20))).await.unwrap_err();
        assert!(late.is_timeout());
        let (bind, options) = (Bind::any(), TcpOptions::default());
        let client = crate::sockopt::connect_tcp(second.local_addr().unwrap(), &bind, &options);
        let (client, accepted) = tokio::join!(client, second.accept(Some(Duration::from_secs(5))));
        assert_eq!(accepted.unwrap().1, client.unwrap().local_addr().unwrap());
    }
}
