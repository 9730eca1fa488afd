//! From an endpoint to a connection: QUIC over the connector's datagrams.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use portolan_core::observe::{Probe, Semantics};
use portolan_core::{Connector, Datagram, Endpoint, Error, Kind, Phase, Result, Tls, clock};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, ConnectError, ConnectionError, EndpointConfig, TokioRuntime};

use crate::connection::{Connection, Early, begin, tls_info};
use crate::handle::SendRequest;
use crate::options::Options;
use crate::proto::failure::PROTOCOL;
use crate::quic::{Quic, Speaks};
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
    let speaks = Speaks::new(PROTOCOL, Semantics::Http, ALPN);
    let (Quic { connection, endpoint, info }, early) = dial(connector, to, name, speaks, &options).await?;
    begin(connection, Some(endpoint), options, info, early)
}

/// QUIC to `to`, and the rest of its handshake where early data may be sent meanwhile.
pub(crate) async fn dial(
    connector: &Connector,
    to: &Endpoint,
    name: &str,
    speaks: Speaks,
    options: &Options,
) -> Result<(Quic, Option<Early>)> {
    let work = raced(connector, to, name, speaks, options);
    let connected = clock::within(connector.timeouts().total_limit(), Phase::Total, work).await;
    connected.map_err(|error| match error.endpoint() {
        Some(_) => error,
        None => error.with_endpoint(to.clone()).with_protocol(speaks.protocol),
    })
}

/// Does the handshake over whichever address of a name answers first. Through hops the choice is theirs.
async fn raced(
    connector: &Connector,
    to: &Endpoint,
    name: &str,
    speaks: Speaks,
    options: &Options,
) -> Result<(Quic, Option<Early>)> {
    let mut config = ClientConfig::new(Arc::new(tls_config(connector.tls(), speaks.alpn, options.early_data)?));
    config.transport_config(Arc::new(options.to_transport()?));
    let began = clock::now();
    let way = Way { connector, to, name, speaks, early: options.early_data, config };
    let (ended, mut info) = connector.datagram_raced(to, |datagram| way.attempt(datagram)).await?;
    let Made { connection, endpoint, early, handshake } = ended?;
    if early.is_none() {
        info.tls = Some(tls_info(&connection));
        info.timings.tls = Some(handshake);
    }
    info.timings.total = began.elapsed();
    Ok((Quic { connection, endpoint, info }, early))
}

/// Whether another address may do better: this one gave no answer.
fn may_try_next(error: &Error) -> bool {
    error.phase() == Some(Phase::Connect) && matches!(error.kind(), Kind::Connect | Kind::Timeout)
}

/// All that attempts at one peer have in common.
struct Way<'a> {
    connector: &'a Connector,
    to: &'a Endpoint,
    name: &'a str,
    speaks: Speaks,
    early: bool,
    config: ClientConfig,
}

/// A connection, or one to be where early data may be sent.
struct Made {
    connection: quinn::Connection,
    endpoint: quinn::Endpoint,
    early: Option<Early>,
    handshake: Duration,
}

impl Way<'_> {
    /// What a peer says for certain, such as by its certificate, ends the race too.
    async fn attempt(&self, datagram: Datagram) -> Result<Result<Made>> {
        let probe = Probe::on_datagram(self.speaks.protocol, self.speaks.semantics, &datagram);
        match probe.phase(Phase::Handshake, self.handshake(datagram)).await {
            Err(error) if may_try_next(&error) => Err(error),
            ended => Ok(ended),
        }
    }

    async fn handshake(&self, datagram: Datagram) -> Result<Made> {
        let peer = datagram.peer().and_then(Endpoint::socket_addr);
        let peer = peer.unwrap_or_else(|| SocketAddr::new(NOBODY.into(), self.to.port()));
        let socket = Socket::new(datagram, peer).map_err(|error| Error::io(Phase::Setup, error))?;
        let endpoint = quinn::Endpoint::new_with_abstract_socket(
            EndpointConfig::default(),
            None,
            Arc::clone(&socket) as Arc<dyn quinn::AsyncUdpSocket>,
            Arc::new(TokioRuntime),
        )
        .map_err(|error| Error::io(Phase::Setup, error))?;
        let connecting = endpoint.connect_with(self.config.clone(), peer, self.name).map_err(refused)?;
        let began = clock::now();
        let connecting = if self.early {
            match connecting.into_0rtt() {
                Ok((connection, accepted)) => {
                    let early = Some(Early { accepted, socket: Some(socket) });
                    return Ok(Made { connection, endpoint, early, handshake: Duration::ZERO });
                }
                Err(connecting) => connecting,
            }
        } else {
            connecting
        };
        let limit = self.connector.timeouts().attempt_limit();
        let connection = clock::within(limit, Phase::Connect, handshaken(connecting, &socket)).await?;
        socket.established();
        Ok(Made { connection, endpoint, early: None, handshake: began.elapsed() })
    }
}

pub(crate) fn tls_config(tls: &Tls, alpn: &[u8], early_data: bool) -> Result<QuicClientConfig> {
    let mut config = (*tls.to_rustls()?).clone();
    config.alpn_protocols = vec![alpn.to_vec()];
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

/// Waits for the handshake, or the word that nobody listens.
pub(crate) async fn handshaken(connecting: quinn::Connecting, socket: &Socket) -> Result<quinn::Connection> {
    let refused = pin!(socket.refused());
    match select(connecting, refused).await {
        Either::Left((connected, _)) => connected.map_err(|error| failed(error, socket)),
        Either::Right((error, _)) => Err(Error::io(Phase::Connect, error)),
    }
}

/// What TLS says of a certificate, as it is said over TCP.
fn in_words(reason: &str) -> String {
    match reason.strip_prefix("invalid peer certificate: ") {
        Some("UnknownIssuer") => "certificate refused: its authority is not trusted (UnknownIssuer)".to_owned(),
        Some(why) => format!("certificate refused: {why}"),
        None => reason.to_owned(),
    }
}

/// Why the handshake failed.
fn failed(error: ConnectionError, socket: &Socket) -> Error {
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
            tls(in_words(&inner.reason), inner.code.into())
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
