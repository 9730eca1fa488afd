//! Sends lines to a WebSocket and shows what comes back: `cargo run --example ws_echo -- ws://HOST/PATH [LINE..]`.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::time::Duration;

use portolan_core::{Connector, Error, Result};
use portolan_websocket::{CloseCode, Deflate, Options, Request, WebSocket};

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let url = args.next().ok_or_else(|| Error::usage("usage: ws_echo URL [LINE..]"))?;
    let mut lines: Vec<String> = args.collect();
    if lines.is_empty() {
        lines.push("hello, sailor".to_owned());
    }
    let options = Options::new()
        .deflate(Deflate::new())
        .max_message(1 << 20)
        .keepalive(Duration::from_secs(20), Duration::from_secs(10));
    let mut socket = WebSocket::open(&Connector::default(), &Request::new(&url)?, options).await?;
    println!("open, compressed: {}", socket.is_compressed());
    for line in lines {
        socket.send(line).await?;
        match socket.recv().await? {
            Some(message) => println!("{}", message.as_text().unwrap_or("(binary)")),
            None => break,
        }
    }
    let last = socket.close(CloseCode::NORMAL, "done").await?;
    println!("closed: {:?}", last.map(|frame| frame.code));
    Ok(())
}
