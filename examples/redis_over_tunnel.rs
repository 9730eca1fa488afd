//! Redis through a WebSocket gateway: `cargo run --example redis_over_tunnel -- ws+tunnel://user:pw@127.0.0.1:8080/
//! [redis://localhost]`.
//!
//! The gateway is `ws_tunnel_gateway`, with `--allow 127.0.0.1` for a server on the same machine.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use portolan_core::{Connector, Error, Result};
use portolan_db::redis::{Client, Options};

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let gateway = args.next().ok_or_else(|| Error::usage("the gateway's URL, such as ws+tunnel://127.0.0.1:8080/"))?;
    let server = args.next().unwrap_or_else(|| "redis://localhost".to_owned());
    let net = Connector::builder().via(portolan_tunnel::hop(&gateway)?).build()?;
    let client = Client::connect(&net, Options::from_url(&server)?).await?;
    client.set("portolan:tunnel", "hello through WebSocket").await?;
    println!("{}", client.get::<String>("portolan:tunnel").await?);
    if let Some(info) = client.info() {
        for hop in &info.hops {
            println!("passed {} at {} in {:?}", hop.kind, hop.authority, hop.elapsed);
        }
    }
    client.close().await
}
