//! A thousand requests to one host over a few connections: `cargo run --release --example parallel -- URL [COUNT [CONNECTIONS]]`.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use futures_util::{StreamExt, stream};
use portolan_core::{Error, Result, clock};
use portolan_http::Client;

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let url = args.next().ok_or_else(|| Error::usage("usage: parallel URL [COUNT [CONNECTIONS]]"))?;
    let mut number = |default| args.next().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (count, connections): (usize, usize) = (number(1000), number(8));
    let client = Client::builder().max_connections_per_host(connections).max_idle_per_host(connections).build()?;
    let started = clock::now();
    // Those for whom there is no connection wait in the pool, in order.
    let results: Vec<Result<usize>> = stream::iter(0..count)
        .map(|_| async { Ok(client.get(&url).send().await?.error_for_status()?.bytes().await?.len()) })
        .buffer_unordered(100)
        .collect()
        .await;
    let elapsed = started.elapsed();
    let bytes: usize = results.iter().flatten().sum();
    let failed: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    println!("{count} requests, {} failed, {bytes} bytes in {elapsed:.1?}", failed.len());
    if let Some(error) = failed.first() {
        println!("the first failure: {error}");
    }
    println!("{:?}", client.metrics());
    Ok(())
}
