//! Signs a request as RFC 9421 has it, and verifies the answer if a key of the server's is given: `cargo run --example signed -- --key
//! ed25519.pem [--id NAME] [--server-key ed25519.pub] [-d BODY] URL`.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use portolan_core::{Error, Result};
use portolan_http::Client;
use portolan_http::signatures::{Algorithm, Component, MessageSigner, SigningKey, Verifier, VerifyingKey};

const USAGE: &str = "usage: signed --key PEM [--id NAME] [--server-key PEM] [-d BODY] URL";

#[tokio::main]
async fn main() -> Result<()> {
    let usage = || Error::usage(USAGE);
    let (mut key, mut id, mut server_key, mut body, mut url) = (None, None, None, None, None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(usage);
        match arg.as_str() {
            "--key" => key = Some(read(&value()?)?),
            "--id" => id = Some(value()?),
            "--server-key" => server_key = Some(read(&value()?)?),
            "-d" => body = Some(value()?),
            _ => url = Some(arg),
        }
    }
    let mut key = SigningKey::from_pem(Algorithm::Ed25519, &key.ok_or_else(usage)?)?;
    if let Some(id) = id {
        key = key.id(id);
    }
    let mut signer = MessageSigner::new(key).cover_if_present("content-type").nonce(true);
    if let Some(pem) = server_key {
        let verifier = Verifier::new(VerifyingKey::from_pem(Algorithm::Ed25519, &pem)?);
        signer = signer.verify_responses(verifier.require("@status").require(Component::from("@target-uri").req()));
    }
    let client = Client::builder().sign(signer).build()?;
    let url = url.ok_or_else(usage)?;
    let request = match body {
        Some(body) => client.post(url).body(body),
        None => client.get(url),
    };
    let response = request.send().await?;
    println!("{}\n{}", response.status(), response.text().await?);
    Ok(())
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| Error::usage(format!("{path} can't be read")).with_source(error))
}
