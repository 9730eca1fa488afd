//! Where clients come from.

use std::future::Future;
use std::net::SocketAddr;

use portolan_core::{Error, Listener, Phase, Result, Stream};

/// A source of connections: a [`Listener`] of the connector's, a listener of tokio's that the caller made, or one's
/// own.
pub trait Accept: Send {
    /// The next connection and who it is from. It is called again after an error. Dropping the future must lose
    /// nothing.
    fn accept(&mut self) -> impl Future<Output = Result<(Stream, SocketAddr)>> + Send;
}

impl Accept for Listener {
    async fn accept(&mut self) -> Result<(Stream, SocketAddr)> {
        Self::accept(self, None).await
    }
}

impl Accept for tokio::net::TcpListener {
    async fn accept(&mut self) -> Result<(Stream, SocketAddr)> {
        let (stream, peer) = Self::accept(self).await.map_err(|error| Error::io(Phase::Connect, error))?;
        stream.set_nodelay(true).map_err(|error| Error::io(Phase::Connect, error))?;
        Ok((Stream::from_tcp(stream), peer))
    }
}
