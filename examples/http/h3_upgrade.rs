//! Watches a server being taken at its word: HTTP/2 first, HTTP/3 once it says `alt-svc`. What was learned can be kept.
//! `cargo run --example h3_upgrade -- URL`.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::process::ExitCode;

use portolan_core::Result;
use portolan_http::Client;
use portolan_http::alt_svc::AltSvcCache;

#[tokio::main]
async fn main() -> ExitCode {
    portolan_examples::start("usage: h3_upgrade URL", 1, run).await
}

async fn run(args: Vec<String>) -> Result<()> {
    let url = &args[0];
    let memory = AltSvcCache::new();
    let client = Client::builder().alt_svc(memory.clone()).build()?;
    for _ in 0..4 {
        let response = client.get(url).send().await?;
        let (version, timings) = (response.version(), response.timings());
        println!("{version:?} {} in {:.1?}, reused: {}", response.status(), timings.total, response.is_reused());
        response.bytes().await?;
    }
    print!("what was learned:\n{}", memory.to_text());
    Ok(())
}
