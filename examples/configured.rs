//! Connects the way that a file says: `cargo run --example configured -- CONFIG.toml redis://db.example | https://example.org/`.
//!
//! `-` instead of a file takes the proxies of the environment, and a text with `://` in it is the way itself:
//! `socks5h://near.example -> http://far.example:3128`. A file may say all that a connector can be told:
//!
//! ```toml
//! via = [{ url = "http://proxy.example:3128", user = "joe", password = { env = "PROXY_PASSWORD" }, auth = "digest" }]
//! no_proxy = "localhost, .internal"
//! [timeouts]
//! connect = "5s"
//! [tls]
//! ca = [{ file = "ca.pem" }]
//! ```

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use portolan::{Connector, Error, Result};
use portolan_db::redis;

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [config, url] = args.as_slice() else {
        return Err(Error::usage("give a file (or - or a way) and a url"));
    };
    let net = connector(config)?;
    println!("{net:?}");
    if url.starts_with("redis") {
        let client = redis::Client::connect(&net, redis::Options::from_url(url)?).await?;
        client.ping().await?;
        println!("{:#?}", client.info().map(|info| (info.hops.clone(), info.timings)));
        return client.close().await;
    }
    let response = portolan_http::Client::builder().connector(net).build()?.get(url.as_str()).send().await?;
    println!("{} over {:?}", response.status(), response.version());
    println!("{} bytes", response.bytes().await?.len());
    Ok(())
}

fn connector(config: &str) -> Result<Connector> {
    if config == "-" {
        return portolan::connector_from_env();
    }
    if config.contains("://") {
        return portolan::connector_from_str(config);
    }
    let text = std::fs::read_to_string(config).map_err(|error| Error::usage("unreadable file").with_source(error))?;
    portolan::connector_from_toml(&text)
}
