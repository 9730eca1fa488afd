//! Where the time of one request goes: `cargo run --example waterfall -- [--hop HOP].. [--ca FILE] URL`.
//!
//! Hops are passed in the order in which they are named: `--hop ssh://ann@bastion --hop socks5h://127.0.0.1:1080`. The login and host key
//! of an SSH jump host may be said in its URL: `ssh://ann@bastion?identity=FILE&known_hosts=FILE`.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::sync::Arc;

use portolan_core::observe::Timeline;
use portolan_core::{Connector, ConnectorBuilder, Error, Hop, Result, Roots, Tls, clock};
use portolan_http::Client;

#[tokio::main]
async fn main() -> Result<()> {
    print!("{}", run(std::env::args().skip(1)).await?);
    Ok(())
}

/// Fetches what the arguments say, and draws it.
pub(crate) async fn run(mut args: impl Iterator<Item = String>) -> Result<String> {
    let usage = || Error::usage("usage: waterfall [--hop HOP].. [--ca FILE] URL");
    let timeline = Arc::new(Timeline::default());
    let (mut net, mut url) = (Connector::builder().observer(timeline.clone()), None);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--hop" => net = net.via(hop(&args.next().ok_or_else(usage)?)?),
            "--ca" => net = trusting(net, &args.next().ok_or_else(usage)?)?,
            _ => url = Some(arg),
        }
    }
    let client = Client::builder().connector(net.build()?).build()?;
    let mut response = client.get(url.ok_or_else(usage)?).send().await?;
    let (began, mut bytes) = (clock::now(), 0);
    while let Some(data) = response.chunk().await? {
        bytes += data.len();
    }
    timeline.add(began, clock::now() - began, "body", &format!("{bytes} bytes"));
    let said = format!("{} {:?} {}", response.uri(), response.version(), response.status());
    Ok(format!("{said}\n{timeline}{:?}\n", client.metrics()))
}

/// A hop of any kind, by the scheme of its URL.
fn hop(url: &str) -> Result<Hop> {
    match url.split_once("://").map_or("", |(scheme, _)| scheme) {
        "ssh" => portolan_remote_access::ssh::jump(url),
        "ws+tunnel" | "wss+tunnel" => portolan_tunnel::hop(url),
        _ => Hop::parse(url),
    }
}

fn trusting(net: ConnectorBuilder, file: &str) -> Result<ConnectorBuilder> {
    let pem = std::fs::read(file).map_err(|error| Error::usage("the authority's file").with_source(error))?;
    let tls = Tls::builder().roots(Roots::Custom).root_pem(&pem).build()?;
    Ok(net.tls(tls.clone()).hop_tls(tls))
}
