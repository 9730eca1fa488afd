//! QUIC over the connector's datagrams, for what speaks something else on it than HTTP/3: DNS over QUIC.

use portolan_core::observe::Semantics;
use portolan_core::{ConnectionInfo, Connector, Endpoint, Result};

use crate::connect::dial;
use crate::options::Options;

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy)]
pub struct Speaks {
    pub(crate) protocol: &'static str,
    pub(crate) semantics: Semantics,
    pub(crate) alpn: &'static [u8],
}

impl Speaks {
    /// What errors and observers call it, how observers name what it does, and what ALPN offers, which is nothing else.
    pub const fn new(protocol: &'static str, semantics: Semantics, alpn: &'static [u8]) -> Self {
        Self { protocol, semantics, alpn }
    }
}

/// A connection whose handshake is done. It ends with the last handle to it and its streams.
#[derive(Debug)]
#[non_exhaustive]
pub struct Quic {
    /// The connection.
    pub connection: quinn::Connection,
    /// The endpoint that is the connection's alone.
    pub endpoint: quinn::Endpoint,
    /// Addresses, hops, TLS and timings.
    pub info: ConnectionInfo,
}

/// Connects to `to`, whose certificate must be for `name`, as [`connect_as`](crate::connect_as) does, and leaves the connection to the
/// caller. Of `options` those of QUIC hold: windows, keepalive, the idle timeout. There is no early data. Dropping the future closes
/// what was opened.
pub async fn connect(
    connector: &Connector,
    to: &Endpoint,
    name: &str,
    speaks: Speaks,
    options: Options,
) -> Result<Quic> {
    let options = options.early_data(false);
    dial(connector, to, name, speaks, &options).await.map(|(quic, _)| quic)
}
