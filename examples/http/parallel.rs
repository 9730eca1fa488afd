//! A thousand requests to one host over a few connections: `cargo run --release --example parallel -- URL [COUNT [CONNECTIONS]]`.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::process::ExitCode;

use futures_util::{StreamExt, stream};
use portolan_core::{Error, Result, clock};
use portolan_http::Client;

#[tokio::main]
async fn main() -> ExitCode {
    portolan_examples::start("usage: parallel URL [COUNT [CONNECTIONS]]", 1, run).await
}

/// What it does with the words that it was called with.
pub async fn run(args: Vec<String>) -> Result<()> {
    let number = |at: usize, default| match args.get(at) {
        Some(text) => text.parse().map_err(|_| Error::usage(format!("{text:?} is no number"))),
        None => Ok(default),
    };
    let (url, count, connections): (_, usize, usize) = (&args[0], number(1, 1000)?, number(2, 8)?);
    let client = Client::builder().max_connections_per_host(connections).max_idle_per_host(connections).build()?;
    let started = clock::now();
    // Those for whom there is no connection wait in the pool, in order.
    let results: Vec<Result<usize>> = stream::iter(0..count)
        .map(|_| async { Ok(client.get(url).send().await?.error_for_status()?.bytes().await?.len()) })
        .buffer_unordered(100)
        .collect()
        .await;
    let elapsed = started.elapsed();
    let bytes: usize = results.iter().flatten().sum();
    let failed: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    println!("{count} requests, {} failed, {bytes} bytes in {elapsed:.1?}", failed.len());
    println!("{:?}", client.metrics());
    failed.into_iter().next().map_or(Ok(()), Err)
}
