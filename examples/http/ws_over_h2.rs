//! Many WebSockets on one connection of HTTP/2 or HTTP/3, beside ordinary requests, by the HTTP client:
//! `cargo run --example ws_over_h2 -- wss://HOST/PATH [COUNT] [--http3]`.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use futures_util::future::try_join_all;
use portolan_core::{Error, Result};
use portolan_http::{Client, Version};
use portolan_websocket::{CloseCode, Options, Request, WebSocket};

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let url = args.first().ok_or_else(|| Error::usage("usage: ws_over_h2 URL [COUNT] [--http3]"))?;
    let count: usize = args.get(1).and_then(|text| text.parse().ok()).unwrap_or(10);
    let third = args.iter().any(|arg| arg == "--http3");
    let version = if third { Version::Http3Only } else { Version::Http2Only };
    let client = Client::builder().version(version).build()?;
    let talks = (0..count).map(|number| {
        let client = &client;
        async move {
            let mut socket = WebSocket::open_with(client, &Request::new(url)?, Options::new()).await?;
            socket.send(format!("this is number {number}")).await?;
            let answer = socket.recv().await?;
            socket.close(CloseCode::NORMAL, "").await?;
            Ok::<_, Error>(answer.is_some())
        }
    });
    let answered = try_join_all(talks).await?.into_iter().filter(|answered| *answered).count();
    println!("{answered} of {count} answered over {} connection(s)", client.metrics().opened);
    Ok(())
}
