//! One handshake over any stream.

use std::sync::Arc;
use std::time::Duration;

use rustls::{CommonState, HandshakeKind};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Tls;
use crate::clock;
use crate::error::{Error, Kind, Phase, Result};
use crate::info::TlsInfo;

/// Speaks TLS to `name` over `io`. `alpn`: `None` offers the configuration's own list.
pub(crate) async fn handshake<IO>(
    io: IO,
    name: &str,
    tls: &Tls,
    alpn: Option<&[&[u8]]>,
    limit: Option<Duration>,
) -> Result<(TlsStream<IO>, TlsInfo)>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let server = ServerName::try_from(name.to_owned())
        .map_err(|_| Error::usage(format!("{name:?} is not a name or address that a certificate can hold")))?;
    let connector = TlsConnector::from(tls.to_rustls()?);
    let offered: Vec<Vec<u8>> =
        alpn.map_or_else(|| tls.alpn().to_vec(), |list| list.iter().map(|p| p.to_vec()).collect());
    let connect = connector.with_alpn(offered.clone()).connect(server, io);
    let stream = clock::within(limit, Phase::Tls, async { connect.await.map_err(handshake_error) }).await?;
    let info = info(stream.get_ref().1);
    // A server that picks none is legal (RFC 7301 3.2); one that picks what was not offered is refused by rustls itself.
    Ok((stream, info))
}

fn handshake_error(error: std::io::Error) -> Error {
    let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        let closed = error.kind() == std::io::ErrorKind::UnexpectedEof;
        let message = if closed { "peer closed in the handshake" } else { "connection lost in the handshake" };
        return Error::new(Kind::Tls, message).with_phase(Phase::Tls).with_source(error);
    };
    let (message, code) = match inner {
        rustls::Error::AlertReceived(alert) => {
            (format!("peer sent the alert {alert:?}"), Some(i64::from(u8::from(*alert))))
        }
        rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) => {
            ("certificate refused: its authority is not trusted (UnknownIssuer)".to_owned(), None)
        }
        rustls::Error::InvalidCertificate(rustls::CertificateError::Other(reason)) => {
            (format!("certificate refused: {}", reason.0), None)
        }
        rustls::Error::InvalidCertificate(reason) => (format!("certificate refused: {reason}"), None),
        rustls::Error::InvalidMessage(_) => ("peer does not speak TLS".to_owned(), None),
        rustls::Error::NoApplicationProtocol => ("no application protocol in common".to_owned(), None),
        other => (other.to_string(), None),
    };
    let error = Error::new(Kind::Tls, message).with_phase(Phase::Tls).with_source(error);
    match code {
        Some(code) => error.with_code(code),
        None => error,
    }
}

fn info(state: &CommonState) -> TlsInfo {
    let version = match state.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "unknown",
    };
    let chain: Vec<Vec<u8>> =
        state.peer_certificates().unwrap_or_default().iter().map(|c| c.as_ref().to_vec()).collect();
    TlsInfo {
        version,
        cipher: state.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite())).unwrap_or_default(),
        group: state.negotiated_key_exchange_group().map(|group| format!("{:?}", group.name())).unwrap_or_default(),
        alpn: state.alpn_protocol().map(<[u8]>::to_vec),
        chain: Arc::from(chain),
        resumed: state.handshake_kind() == Some(HandshakeKind::Resumed),
    }
}
