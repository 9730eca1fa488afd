//! Servers for the tests: QUIC endpoints on loopback with certificates of their own.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part of this")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

pub mod raw;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use portolan_core::{Connector, Endpoint, Roots, Tls};
use portolan_http3::{Options, SendRequest, connect};
use portolan_testbed::Certs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A server's configuration for this ALPN.
pub fn server_config(certs: &Certs, alpn: &[u8]) -> quinn::ServerConfig {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certs.server.as_bytes()).map(|c| c.unwrap()).collect();
    let key = PrivateKeyDer::from_pem_slice(certs.server_key.as_bytes()).unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    config.max_early_data_size = u32::MAX;
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(config).unwrap();
    quinn::ServerConfig::with_crypto(Arc::new(crypto))
}

pub fn endpoint(config: quinn::ServerConfig) -> quinn::Endpoint {
    quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap()
}

/// Answers each request with its path after its body, on this endpoint, until the test ends.
pub fn serve(endpoint: quinn::Endpoint) -> SocketAddr {
    let addr = endpoint.local_addr().unwrap();
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(async move {
                let Ok(quic) = incoming.accept().unwrap().await else { return };
                let Ok(mut server) = h3::server::Connection::new(h3_quinn::Connection::new(quic)).await else { return };
                while let Ok(Some(resolver)) = server.accept().await {
                    tokio::spawn(answer(resolver));
                }
            });
        }
    });
    addr
}

pub async fn answer(resolver: h3::server::RequestResolver<h3_quinn::Connection, Bytes>) {
    let Ok((request, mut stream)) = resolver.resolve_request().await else { return };
    let mut body = Vec::new();
    while let Ok(Some(mut data)) = stream.recv_data().await {
        let len = data.remaining();
        body.extend_from_slice(&data.copy_to_bytes(len));
    }
    body.extend_from_slice(request.uri().path().as_bytes());
    stream.send_response(Response::new(())).await.unwrap();
    stream.send_data(Bytes::from(body)).await.unwrap();
    stream.finish().await.unwrap();
}

pub async fn body(client: &portolan_http3::SendRequest, path: &str) -> Bytes {
    client.send(get(path)).await.unwrap().into_body().collect().await.unwrap().to_bytes()
}

/// A connector that trusts the certificates.
pub fn connector(certs: &Certs) -> Connector {
    let tls = Tls::builder().roots(Roots::Custom).root_pem(certs.ca.as_bytes()).build().unwrap();
    Connector::builder().tls(tls).build().unwrap()
}

pub fn to(addr: SocketAddr) -> Endpoint {
    Endpoint::new("localhost", addr.port()).unwrap()
}

/// Connects and drives the connection.
pub async fn client(certs: &Certs, addr: SocketAddr, options: Options) -> SendRequest {
    let (client, connection) = connect(&connector(certs), &Endpoint::from(addr), options).await.unwrap();
    tokio::spawn(connection);
    client
}

pub fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("https://localhost{path}")).header("user-agent", "portolan").body(Empty::new()).unwrap()
}

/// Many calls from many tasks: some are given up in the queue, some in flight, some with half of their body, the rest read to
/// the end. Nothing of them may be left.
pub async fn storm(client: &SendRequest, path: fn(u32) -> &'static str) {
    let calls: Vec<_> = (0..64)
        .map(|task| {
            let client = client.clone();
            tokio::spawn(async move {
                for n in 0..40 {
                    one_of_a_storm(&client, path(n), (task * 7 + n * 13) % 5, n).await;
                }
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!((client.status().active, client.status().waiting), (0, 0));
}

async fn one_of_a_storm(client: &SendRequest, path: &str, polls: u32, n: u32) {
    let mut call = Box::pin(client.send(get(path)));
    for _ in 0..polls {
        if let std::task::Poll::Ready(response) = futures_util::poll!(call.as_mut()) {
            assert_eq!(response.unwrap().status(), 200);
            return;
        }
        tokio::task::yield_now().await;
    }
    if n.is_multiple_of(3) {
        return;
    }
    let mut body = call.await.unwrap().into_body();
    assert!(body.frame().await.unwrap().unwrap().is_data());
    if n % 4 != 3 {
        assert!(body.collect().await.is_ok());
    }
}
