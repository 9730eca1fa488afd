//! What the connections of a channel are of: HTTP/2, or HTTP/3.

use std::fmt::Debug;
use std::future::Future;

use portolan_core::{Connector, Endpoint, Error, Kind, Phase, Result, clock};
use portolan_http2::SendRequest;

use crate::PROTOCOL;
use crate::transport::Transport;

/// Makes the connections of a [`Channel`](crate::Channel).
pub trait Carrier: Debug + Send + Sync + 'static {
    /// A connection. It ends by itself when its last clone is gone and its last call over.
    type Connection: Transport;

    /// Connects to one address. Where `name` is said the connection is encrypted, and the certificate must be for it.
    fn connect(
        &self,
        connector: &Connector,
        to: &Endpoint,
        name: Option<&str>,
    ) -> impl Future<Output = Result<Self::Connection>> + Send;

    /// Whether a connection takes no more calls: it is lost, or the server is draining it.
    fn is_closed(connection: &Self::Connection) -> bool;

    /// How many calls a connection has in flight.
    fn active(connection: &Self::Connection) -> usize;
}

/// Connections of HTTP/2: over TLS where ALPN gives `h2`, in cleartext by prior knowledge.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Http2 {
    options: portolan_http2::Options,
}

impl Http2 {
    /// Connections that behave so: windows, keepalive, limits.
    pub fn new(options: portolan_http2::Options) -> Self {
        Self { options }
    }
}

impl Carrier for Http2 {
    type Connection = SendRequest;

    async fn connect(&self, connector: &Connector, to: &Endpoint, name: Option<&str>) -> Result<SendRequest> {
        let stream = match name {
            None => connector.connect(to).await?,
            Some(name) => {
                let stream = connector.connect_tls_as(to, name, &[b"h2"]).await?;
                if stream.alpn() != Some(b"h2") {
                    let error = Error::new(Kind::Tls, "the server did not agree to h2").with_phase(Phase::Tls);
                    return Err(error.with_protocol(PROTOCOL).with_endpoint(to.clone()));
                }
                stream
            }
        };
        let (handle, connection) = portolan_http2::handshake(stream, self.options.clone())?;
        // The driver ends by itself when the last handle is gone and the last call over.
        tokio::spawn(connection);
        // What accepts and says nothing, as a proxy before a server that is gone, is no server: no call is to wait there.
        clock::within(connector.timeouts().connect_limit(), Phase::Connect, handle.settled()).await?;
        Ok(handle)
    }

    fn is_closed(connection: &SendRequest) -> bool {
        connection.is_closed()
    }

    fn active(connection: &SendRequest) -> usize {
        connection.status().active
    }
}
