//! Sends GETs over one connection, for counting instructions and time: `count 127.0.0.1:8443 /small 10000 50 [h3]`, under
//! perf or callgrind. The difference of two runs is what a request costs. With `h3` it is the h3 crate's client, on QUIC's own
//! socket, to compare. Any certificate will do, so it is for a server of one's own.

#![allow(clippy::large_futures, reason = "the h3 crate's futures are what they are")]

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Empty};
use portolan_core::{Connector, Tls};
use portolan_http3::{Options, SendRequest, connect, handshake};
use quinn::crypto::rustls::QuicClientConfig;

type Failed = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failed> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("usage: count ADDRESS PATH REQUESTS IN_FLIGHT [h3|quinn]");
    let (address, path): (SocketAddr, String) = (next()?.parse()?, next()?);
    let (requests, in_flight): (usize, usize) = (next()?.parse()?, next()?.parse()?);
    let which = next().unwrap_or_default();
    let tls = Tls::builder().dangerous().accept_any_certificate().build()?;
    let uri: Uri = format!("https://localhost:{}{path}", address.port()).parse()?;
    let each = requests / in_flight;
    match which.as_str() {
        "h3" => return theirs(quic(&tls, address).await?, uri, each, in_flight).await,
        "quinn" => {
            let (client, connection) = handshake(quic(&tls, address).await?, Options::new())?;
            tokio::spawn(connection);
            ours(client, uri, each, in_flight).await
        }
        _ => {
            let net = Connector::builder().tls(tls).build()?;
            let (client, connection) = connect(&net, &address.into(), Options::new()).await?;
            tokio::spawn(connection);
            ours(client, uri, each, in_flight).await
        }
    }
}

fn request<B>(uri: &Uri, body: B) -> Request<B> {
    let mut request = Request::new(body);
    *request.uri_mut() = uri.clone();
    let headers = request.headers_mut();
    headers.insert("user-agent", HeaderValue::from_static("portolan/0.1"));
    headers.insert("accept", HeaderValue::from_static("*/*"));
    headers.insert("accept-encoding", HeaderValue::from_static("gzip, deflate, br"));
    headers.insert("x-request-kind", HeaderValue::from_static("bench"));
    request
}

async fn ours(client: SendRequest, uri: Uri, each: usize, in_flight: usize) -> Result<(), Failed> {
    let tasks: Vec<_> = (0..in_flight)
        .map(|_| {
            let (client, uri) = (client.clone(), uri.clone());
            tokio::spawn(async move {
                for _ in 0..each {
                    let body = client.send(request(&uri, Empty::<Bytes>::new())).await?.into_body();
                    body.collect().await?;
                }
                Ok::<_, portolan_core::Error>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// A connection on QUIC's own socket, with its offloads.
async fn quic(tls: &Tls, address: SocketAddr) -> Result<quinn::Connection, Failed> {
    let mut config = (*tls.to_rustls()?).clone();
    config.alpn_protocols = vec![b"h3".to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config)?));
    let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into())?;
    Ok(endpoint.connect_with(config, address, "localhost")?.await?)
}

async fn theirs(quic: quinn::Connection, uri: Uri, each: usize, in_flight: usize) -> Result<(), Failed> {
    let (mut driver, client) = h3::client::new(h3_quinn::Connection::new(quic)).await?;
    tokio::spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
    let tasks: Vec<_> = (0..in_flight)
        .map(|_| {
            let (mut client, uri) = (client.clone(), uri.clone());
            tokio::spawn(async move {
                for _ in 0..each {
                    let mut stream = client.send_request(request(&uri, ())).await?;
                    stream.finish().await?;
                    stream.recv_response().await?;
                    while stream.recv_data().await?.is_some() {}
                }
                Ok::<_, Failed>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}
