//! HTTP/3: a connection as a transport, and what channels of it are made of.

use std::future::Future;

use http::{Request, Response};
use portolan_core::{Connector, Endpoint, Error, Result};

use crate::PROTOCOL;
use crate::body::Body;
use crate::channel::Carrier;
use crate::transport::Transport;

impl Transport for portolan_http3::SendRequest {
    type Body = portolan_http3::RecvBody;

    fn send(&self, request: Request<Body>) -> impl Future<Output = Result<Response<Self::Body>>> + Send {
        Self::send(self, request)
    }
}

/// Connections of HTTP/3, for [`Channel::connect_over`](crate::Channel::connect_over). They are always encrypted: the channel's URL
/// begins with `https://`.
///
/// ```no_run
/// # async fn example() -> portolan_core::Result<()> {
/// use portolan_core::Connector;
/// use portolan_grpc::{Channel, ChannelOptions, Client, Http3};
///
/// let (net, options) = (Connector::default(), ChannelOptions::new());
/// let channel = Channel::connect_over(Http3::default(), &net, "https://shop.example", options).await?;
/// let client = Client::from_channel(channel)?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Http3 {
    options: portolan_http3::Options,
}

impl Http3 {
    /// Connections that behave so: windows, keepalive, early data, limits.
    pub fn new(options: portolan_http3::Options) -> Self {
        Self { options }
    }
}

impl Carrier for Http3 {
    type Connection = portolan_http3::SendRequest;

    async fn connect(&self, connector: &Connector, to: &Endpoint, name: Option<&str>) -> Result<Self::Connection> {
        let Some(name) = name else {
            return Err(Error::usage("HTTP/3 is encrypted: the URL begins with https://").with_protocol(PROTOCOL));
        };
        let (handle, connection) = portolan_http3::connect_as(connector, to, name, self.options.clone()).await?;
        // The driver ends by itself when the last handle is gone and the last call over.
        tokio::spawn(connection);
        Ok(handle)
    }

    fn is_closed(connection: &Self::Connection) -> bool {
        connection.is_closed()
    }

    fn active(connection: &Self::Connection) -> usize {
        connection.status().active
    }
}
