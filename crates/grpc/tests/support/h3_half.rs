//! The h3 crate's server half, on QUIC endpoints of the loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use portolan_core::{Connector, Endpoint, Roots, Tls};
use portolan_grpc::Client;
use portolan_testbed::Certs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::mpsc;

use super::{Call, Handler, Out};

/// A free port of the loopback.
pub(crate) const ANYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn endpoint(certs: &Certs, address: SocketAddr) -> quinn::Endpoint {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certs.server.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(certs.server_key.as_bytes()).unwrap();
    let mut config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
    config.alpn_protocols = vec![b"h3".to_vec()];
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(config).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    quinn::Endpoint::server(config, address).unwrap()
}

async fn serve(incoming: quinn::Incoming, handler: Handler) {
    let Ok(quic) = incoming.await else { return };
    let Ok(mut server) = h3::server::Connection::new(h3_quinn::Connection::new(quic)).await else { return };
    while let Ok(Some(resolver)) = server.accept().await {
        let handler = Arc::clone(&handler);
        tokio::spawn(async move {
            let Ok((request, stream)) = resolver.resolve_request().await else { return };
            let (sender, mut receiver) = stream.split();
            let (data, incoming) = mpsc::channel(16);
            let (out, outgoing) = mpsc::channel(16);
            tokio::spawn(async move {
                while let Ok(Some(mut piece)) = receiver.recv_data().await {
                    if data.send(piece.copy_to_bytes(piece.remaining())).await.is_err() {
                        break;
                    }
                }
            });
            tokio::spawn(answer(sender, outgoing));
            handler(Call::new(request.into_parts().0, incoming, out)).await;
        });
    }
}

type Sender = h3::server::RequestStream<h3_quinn::SendStream<Bytes>, Bytes>;

async fn answer(mut stream: Sender, mut outgoing: mpsc::Receiver<Out>) {
    while let Some(out) = outgoing.recv().await {
        let (result, end) = match out {
            Out::Head(head, end) => (stream.send_response(head).await, end),
            Out::Data(data, end) => (stream.send_data(data).await, end),
            Out::Trailers(trailers) => (stream.send_trailers(trailers).await, true),
            Out::Reset(code) => {
                stream.stop_stream(u64::from(code).into());
                return;
            }
        };
        if result.is_err() {
            return;
        }
        if end {
            let _ = stream.finish().await;
            return;
        }
    }
}

/// A server of this handler's.
pub(crate) fn listen(certs: &Certs, address: SocketAddr, handler: Handler) -> quinn::Endpoint {
    let endpoint = endpoint(certs, address);
    let accepting = endpoint.clone();
    tokio::spawn(async move {
        while let Some(incoming) = accepting.accept().await {
            tokio::spawn(serve(incoming, Arc::clone(&handler)));
        }
    });
    endpoint
}

pub(crate) fn connector(certs: &Certs) -> Connector {
    let tls = Tls::builder().roots(Roots::Custom).root_pem(certs.ca.as_bytes()).build().unwrap();
    Connector::builder().tls(tls).build().unwrap()
}

/// A client over a connection that this handler serves.
pub(crate) async fn client(handler: Handler) -> Client<portolan_http3::SendRequest> {
    let certs = Certs::new();
    let to = Endpoint::from(listen(&certs, ANYWHERE, handler).local_addr().unwrap());
    let connector = connector(&certs);
    let (transport, connection) =
        portolan_http3::connect(&connector, &to, portolan_http3::Options::new()).await.unwrap();
    tokio::spawn(connection);
    Client::new(transport, "https://localhost").unwrap()
}
