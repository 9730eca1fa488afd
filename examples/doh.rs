//! Fetches a page with every name resolved over HTTPS, TLS or QUIC:
//! `cargo run --example doh -- [--via PROXY] [--ca FILE] URL [SERVER ..]`.
//!
//! Servers are URLs such as `https://dns.quad9.net@9.9.9.9/dns-query`, `tls://one.one.one.one@1.1.1.1` and `quic://dns.adguard-dns.com`,
//! the best first.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use portolan_core::{Connector, Endpoint, Error, Hop, Result, Tls};
use portolan_dns::dns::{self, Client, Options, RecordType};

#[tokio::main]
async fn main() -> Result<()> {
    let mut net = Connector::builder();
    let mut words = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| Error::usage(format!("{arg} needs a value")));
        match arg.as_str() {
            "--via" => net = net.via(Hop::parse(&value()?)?),
            "--ca" => {
                let pem = std::fs::read(value()?).map_err(|error| Error::usage("no such file").with_source(error))?;
                net = net.tls(Tls::builder().root_pem(&pem).build()?);
            }
            _ => words.push(arg),
        }
    }
    let usage = || Error::usage("usage: doh [--via PROXY] [--ca FILE] URL [SERVER ..]");
    let (url, servers) = words.split_first().ok_or_else(usage)?;
    let default = ["https://dns.quad9.net@9.9.9.9/dns-query".to_owned()];
    let servers = if servers.is_empty() { &default } else { servers };
    let net = net.build()?;

    // What one answer took, server by server: the first one opens the connection, the second rides on it.
    let host = Endpoint::parse(portolan_core::Url::parse(url)?.authority(), Some(443))?;
    for server in servers {
        let names = Client::connect(&net, Options::from_url(server)?).await?;
        for _ in 0..2 {
            let answer = names.query(&host.host_text(), RecordType::A).await?;
            let (info, timings) = (&answer.info, answer.info.connection.timings);
            let addrs: Vec<_> = answer.a().map(ToString::to_string).collect();
            println!("{server}: {} in {:?} over {:?}", addrs.join(" "), info.elapsed, info.transport);
            if !info.connection.reused {
                println!("  new connection: connect {:?}, tls {:?}", timings.connect, timings.tls);
            }
        }
        names.close().await?;
    }

    // And the one line that resolves everything through them.
    let net = net.to_builder().resolver(dns::resolver(&net, servers)?).build()?;
    let web = portolan_http::Client::builder().connector(net).build()?;
    let response = web.get(url).send().await?;
    let (timings, info) = (response.timings(), response.connection_info());
    println!("{} from {:?}", response.status(), info.peer);
    println!(
        "  resolved in {:?}, connected in {:?}, head after {:?}",
        info.timings.resolve, info.timings.connect, timings.total
    );
    println!("  {} bytes", response.bytes().await?.len());
    Ok(())
}
