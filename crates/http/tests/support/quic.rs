//! An HTTP/3 server in this process: the h3 crate's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::Response;
use portolan_testbed::ServerTls;

pub type Server = h3::server::Connection<h3_quinn::Connection, Bytes>;
pub type Stream = h3::server::RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

/// A QUIC server on the loopback; `handle` gets each connection and its number.
pub fn serve<F, Fut>(tls: ServerTls, at: SocketAddr, handle: F) -> (SocketAddr, Arc<AtomicUsize>)
where
    F: Fn(usize, quinn::Connection, Server) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls.alpn(["h3"]).config()).unwrap();
    let endpoint = quinn::Endpoint::server(quinn::ServerConfig::with_crypto(Arc::new(crypto)), at).unwrap();
    let addr = endpoint.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let (counter, handle) = (count.clone(), Arc::new(handle));
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let handle = handle.clone();
            let number = counter.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let Ok(quic) = incoming.await else { return };
                let Ok(server) = h3::server::Connection::new(h3_quinn::Connection::new(quic.clone())).await else {
                    return;
                };
                handle(number, quic, server).await;
            });
        }
    });
    (addr, count)
}

pub const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// The next request that can be read; one that is reset before that is passed over.
pub async fn next(server: &mut Server) -> Option<Stream> {
    loop {
        let resolver = server.accept().await.ok()??;
        if let Ok((_, stream)) = resolver.resolve_request().await {
            return Some(stream);
        }
    }
}

pub async fn answer(mut stream: Stream) {
    let _ = stream.send_response(Response::new(())).await;
    let _ = stream.send_data(Bytes::from_static(b"ok")).await;
    let _ = stream.finish().await;
}

/// Answers everything.
pub async fn answers(_: usize, _: quinn::Connection, mut server: Server) {
    while let Some(stream) = next(&mut server).await {
        tokio::spawn(answer(stream));
    }
}
