//! From an endpoint to a connection: QUIC over the connector's datagrams.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use portolan_core::{ConnectionInfo, Connector, Endpoint, Error, Kind, Phase, Result, Tls, clock};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, ConnectError, ConnectionError, EndpointConfig, TokioRuntime};

use crate::connection::{Connection, begin, tls_info};
use crate::handle::SendRequest;
use crate::options::Options;
use crate::proto::failure::PROTOCOL;
use crate::socket::Socket;

/// What ALPN offers, and nothing else.
pub const ALPN: &[u8] = b"h3";

/// Where QUIC sends to when only the relay knows the address: one that is nobody's (RFC 5737).
pub(crate) const NOBODY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// TLS alerts as QUIC carries them (RFC 9001 4.8).
const CRYPTO_ERRORS: std::ops::Range<u64> = 0x100..0x200;

/// Connects to `to` over the connector's datagrams: UDP, or UDP through its hops. The certificate must be for that host.
///
/// The connector's TLS settings hold; ALPN is `h3` alone. With [`Options::early_data`], and a session from an earlier
/// connection, it does not wait for the handshake. Dropping the future closes what was opened.
pub async fn connect(connector: &Connector, to: &Endpoint, options: Options) -> Result<(SendRequest, Connection)> {
    connect_as(connector, to, &to.host_text(), options).await
}

/// The same where the certificate must be for `name`: where the address and the name differ, as with Alt-Svc.
pub async fn connect_as(
    connector: &Connector,
    to: &Endpoint,
    name: &str,
    options: Options,
) -> Result<(SendRequest, Connection)> {
    let work = dial(connector, to, name, options);
    let connected = clock::within(connector.timeouts().total_limit(), Phase::Total, work).await;
    connected.map_err(|error| match error.endpoint() {
        Some(_) => error,
        None => error.with_endpoint(to.clone()).with_protocol(PROTOCOL),
    })
}

async fn dial(connector: &Connector, to: &Endpoint, name: &str, options: Options) -> Result<(SendRequest, Connection)> {
    let began = clock::now();
    let mut config = ClientConfig::new(Arc::new(tls_config(connector.tls(), options.early_data)?));
    config.transport_config(Arc::new(options.to_plain_transport()?));
    let datagram = connector.datagram(to).await?;
    let mut info = datagram.info().clone();
    let peer = datagram.peer().and_then(Endpoint::socket_addr);
    let peer = peer.unwrap_or_else(|| SocketAddr::new(NOBODY.into(), to.port()));
    let socket = Socket::new(datagram, peer);
    let endpoint = quinn::Endpoint::new_with_abstract_socket(
        EndpointConfig::default(),
        None,
        Arc::clone(&socket) as Arc<dyn quinn::AsyncUdpSocket>,
        Arc::new(TokioRuntime),
    )
    .map_err(|error| Error::io(Phase::Setup, error))?;
    let connecting = endpoint.connect_with(config, peer, name).map_err(refused)?;
    let handshake = clock::now();
    let connecting = if options.early_data {
        match connecting.into_0rtt() {
            Ok((quic, accepted)) => {
                info.timings.total = began.elapsed();
                // It would be hard to say when; the first answer proves as much as a handshake.
                socket.established();
                return begin(quic, Some(endpoint), options, info, Some(accepted));
            }
            Err(connecting) => connecting,
        }
    } else {
        connecting
    };
    // One address is tried, so the bound of one attempt holds.
    let quic = clock::within(connector.timeouts().attempt_limit(), Phase::Connect, async {
        connecting.await.map_err(|error| failed(error, &socket))
    })
    .await?;
    socket.established();
    complete(&mut info, &quic, handshake, began);
    begin(quic, Some(endpoint), options, info, None)
}

fn complete(info: &mut ConnectionInfo, quic: &quinn::Connection, handshake: clock::Instant, began: clock::Instant) {
    info.tls = Some(tls_info(quic));
    info.timings.tls = Some(handshake.elapsed());
    info.timings.total = began.elapsed();
}

pub(crate) fn tls_config(tls: &Tls, early_data: bool) -> Result<QuicClientConfig> {
    let mut config = (*tls.to_rustls()?).clone();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_early_data = early_data;
    QuicClientConfig::try_from(config).map_err(|error| {
        Error::new(Kind::Tls, "QUIC needs TLS 1.3 with AES-128-GCM").with_phase(Phase::Tls).with_source(error)
    })
}

pub(crate) fn refused(error: ConnectError) -> Error {
    match error {
        ConnectError::InvalidServerName(name) => {
            Error::usage(format!("{name:?} is not a name or address that a certificate can hold"))
        }
        other => Error::new(Kind::Connect, "QUIC cannot begin").with_phase(Phase::Connect).with_source(other),
    }
}

/// Why the handshake failed.
pub(crate) fn failed(error: ConnectionError, socket: &Socket) -> Error {
    if let Some(kind) = socket.failed() {
        return Error::io(Phase::Connect, kind.into());
    }
    let tls = |message: String, code: u64| {
        let error = Error::new(Kind::Tls, message).with_phase(Phase::Tls);
        match i64::try_from(code - CRYPTO_ERRORS.start) {
            Ok(alert) if CRYPTO_ERRORS.contains(&code) => error.with_code(alert),
            _ => error,
        }
    };
    let failed = match &error {
        ConnectionError::TransportError(inner) if CRYPTO_ERRORS.contains(&inner.code.into()) => {
            tls(inner.reason.clone(), inner.code.into())
        }
        ConnectionError::ConnectionClosed(close) if CRYPTO_ERRORS.contains(&close.error_code.into()) => {
            tls("peer refused the handshake".to_owned(), close.error_code.into())
        }
        ConnectionError::TimedOut => Error::new(Kind::Timeout, "no answer to QUIC").with_phase(Phase::Connect),
        ConnectionError::VersionMismatch => Error::new(Kind::Connect, "no version of QUIC in common"),
        ConnectionError::ApplicationClosed(_) | ConnectionError::ConnectionClosed(_) => {
            Error::new(Kind::Connect, "peer closed in the handshake")
        }
        _ => Error::new(Kind::Connect, "QUIC failed"),
    };
    let failed = if failed.phase().is_none() { failed.with_phase(Phase::Connect) } else { failed };
    failed.with_delivery(portolan_core::Delivery::NotSent).with_source(error)
}
