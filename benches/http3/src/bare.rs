//! The h3 crate on quinn, and nothing above.

use std::net::{Ipv4Addr, ToSocketAddrs};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use h3::client::SendRequest;
use h3_quinn::OpenStreams;
use http::{Request, Uri};
use rustls::DigitallySignedStruct;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::{BIG, Work, fan};

/// The server's certificate is the bench's own.
#[derive(Debug)]
struct Any(Arc<CryptoProvider>);

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

async fn connect(uri: &Uri) -> SendRequest<OpenStreams, Bytes> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider));
    let tls = tls.with_protocol_versions(&[&rustls::version::TLS13]).unwrap().dangerous();
    let mut tls = tls.with_custom_certificate_verifier(Arc::new(Any(provider))).with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let endpoint = quinn::Endpoint::client((Ipv4Addr::UNSPECIFIED, 0).into()).unwrap();
    let to = (uri.host().unwrap(), uri.port_u16().unwrap());
    let to = to.to_socket_addrs().unwrap().find(|addr| addr.is_ipv4()).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let quic = endpoint.connect_with(config, to, uri.host().unwrap()).unwrap().await.unwrap();
    let (mut driver, send) = h3::client::new(h3_quinn::Connection::new(quic)).await.unwrap();
    tokio::spawn(async move { driver.wait_idle().await });
    send
}

async fn fetch(mut client: SendRequest<OpenStreams, Bytes>, uri: Uri) -> usize {
    let mut stream = client.send_request(Request::get(uri).body(()).unwrap()).await.unwrap();
    stream.finish().await.unwrap();
    assert_eq!(stream.recv_response().await.unwrap().status(), 200);
    let mut total = 0;
    while let Some(data) = stream.recv_data().await.unwrap() {
        total += data.remaining();
    }
    total
}

pub(super) fn get(url: String, tasks: u64, each: u64) -> Work {
    Box::pin(async move {
        let uri: Uri = url.parse().unwrap();
        let client = connect(&uri).await;
        fan(tasks, each, move || fetch(client.clone(), uri.clone())).await;
    })
}

pub(super) fn download(url: String, _: u64, each: u64) -> Work {
    Box::pin(async move {
        let uri: Uri = url.parse().unwrap();
        let client = connect(&uri).await;
        for _ in 0..each {
            assert_eq!(fetch(client.clone(), uri.clone()).await, BIG);
        }
    })
}
