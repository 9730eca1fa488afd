//! Sends GETs over one cleartext connection, for counting instructions and syscalls:
//! `count 127.0.0.1:8080 /100.html 10000 32`, under callgrind or strace. The difference of two runs is what a request costs.

#![allow(clippy::disallowed_methods, reason = "the measured thing is the connection alone")]

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use portolan_http2::{Options, SendRequest, handshake};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("usage: count ADDRESS PATH REQUESTS IN_FLIGHT");
    let (address, path) = (next()?, next()?);
    let (requests, in_flight): (usize, usize) = (next()?.parse()?, next()?.parse()?);
    let io = tokio::net::TcpStream::connect(&address).await?;
    io.set_nodelay(true)?;
    let (client, connection) = handshake(io, Options::new())?;
    tokio::spawn(connection);
    let uri: http::Uri = format!("http://{address}{path}").parse()?;
    let tasks: Vec<_> = (0..in_flight)
        .map(|_| {
            let (client, uri) = (client.clone(), uri.clone());
            tokio::spawn(async move {
                for _ in 0..requests / in_flight {
                    fetch(&client, &uri).await?;
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

async fn fetch(client: &SendRequest, uri: &http::Uri) -> Result<(), portolan_core::Error> {
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = uri.clone();
    let headers = request.headers_mut();
    headers.insert("user-agent", http::HeaderValue::from_static("portolan/0.1"));
    headers.insert("accept", http::HeaderValue::from_static("*/*"));
    headers.insert("accept-encoding", http::HeaderValue::from_static("gzip, deflate, br"));
    headers.insert("x-request-kind", http::HeaderValue::from_static("bench"));
    let body = client.send(request).await?.into_body();
    body.collect().await.map(|_| ())
}
