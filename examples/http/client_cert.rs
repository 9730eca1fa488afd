//! Shows a certificate of ours, and trusts one authority alone: `cargo run --example client_cert -- URL CA.pem CERT.pem KEY.pem`.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::process::ExitCode;

use portolan_core::{Connector, Error, Pin, Result, Roots, Tls};
use portolan_http::Client;

const USAGE: &str = "usage: client_cert URL CA.pem CERT.pem KEY.pem [PIN]";

#[tokio::main]
async fn main() -> ExitCode {
    portolan_examples::start(USAGE, 4, run).await
}

async fn run(args: Vec<String>) -> Result<()> {
    let [url, ca, cert, key, ..] = args.as_slice() else { return Err(Error::usage(USAGE)) };
    let read = |path: &str| {
        std::fs::read(path).map_err(|error| Error::usage(format!("{path} can't be read")).with_source(error))
    };
    let mut tls = Tls::builder().roots(Roots::Custom).root_pem(&read(ca)?).client_cert_pem(&read(cert)?, &read(key)?);
    if let Some(pin) = args.get(4) {
        tls = tls.pin(Pin::parse(pin)?);
    }
    let connector = Connector::builder().tls(tls.build()?).build()?;
    let client = Client::builder().connector(connector).build()?;
    let response = client.get(url).send().await?;
    if let Some(tls) = &response.connection_info().tls {
        println!("{} {} {}", tls.version, tls.cipher, tls.group);
        for certificate in tls.chain.iter() {
            println!("pin of a certificate in the chain: {:?}", Pin::of(certificate)?);
        }
    }
    println!("{}\n{}", response.status(), response.text().await?);
    Ok(())
}
