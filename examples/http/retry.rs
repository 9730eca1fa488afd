//! How failures are tried again, and what an error says of the request: `cargo run --example retry -- URL`.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::process::ExitCode;
use std::time::Duration;

use portolan_core::Result;
use portolan_http::Client;
use portolan_pool::{Budget, Retry};

#[tokio::main]
async fn main() -> ExitCode {
    portolan_examples::start("usage: retry URL", 1, run).await
}

async fn run(args: Vec<String>) -> Result<()> {
    let url = &args[0];
    let retry = Retry::new()
        .attempts(4)
        .backoff(Duration::from_millis(100), Duration::from_secs(2))
        .retry_after_cap(Duration::from_secs(30))
        .budget(Budget::new(20));
    let client = Client::builder().retry(retry).first_byte_timeout(Duration::from_secs(5)).build()?;
    // A POST is sent again only if it is known that nothing came of it; the key says that twice does no harm.
    for request in [
        client.get(url),
        client.post(url).body("pay 5"),
        client.post(url).header("idempotency-key", "order-17").body("pay 5"),
    ] {
        match request.send().await {
            Ok(response) => println!("{} after {} attempts", response.status(), response.attempts()),
            Err(error) => println!(
                "{error}\n  kind {:?}, delivery {:?}, phase {:?}, attempt {:?}",
                error.kind(),
                error.delivery(),
                error.phase(),
                error.attempt().and_then(|attempt| attempt.address),
            ),
        }
    }
    Ok(())
}
