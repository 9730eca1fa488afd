//! Asks to whom something is registered, and follows the referrals:
//! `cargo run --example whois -- [-h server[:port]] [--via PROXY] QUERY`.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use portolan_classic::whois::{Client, DEFAULT_PORT, End, Options};
use portolan_core::{Connector, Endpoint, Error, Hop, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let usage = || Error::usage("usage: whois [-h server[:port]] [--via PROXY] QUERY");
    let mut server = Endpoint::new("whois.iana.org", DEFAULT_PORT)?;
    let mut net = Connector::builder();
    let mut words = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-h" => server = Endpoint::parse(&args.next().ok_or_else(usage)?, Some(DEFAULT_PORT))?,
            "--via" => net = net.via(Hop::parse(&args.next().ok_or_else(usage)?)?),
            _ => words.push(arg),
        }
    }
    let client = Client::connect(&net.build()?, Options::new(server)).await?;
    let answer = client.query(&words.join(" ")).await?;
    for reply in &answer.replies {
        let server = reply.server.as_ref().map(ToString::to_string).unwrap_or_default();
        println!("[{server} in {:?}]\n{}", reply.info.timings.total, reply.text.printable());
    }
    match answer.end {
        End::Final => {}
        other => println!("[no further: {other:?}]"),
    }
    Ok(())
}
