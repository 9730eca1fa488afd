//! Middleware of one's own, a cache and a recording: `cargo run --example middleware -- URL`.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;
use portolan_core::Result;
use portolan_http::cache::{Cache, FromCache};
use portolan_http::har::{HarOptions, Recorder};
use portolan_http::{Client, Middleware, Next, Request, Response};

/// Numbers the requests, and says how each one went.
struct Numbered(AtomicU64);

impl Middleware for Numbered {
    async fn handle(&self, mut request: Request, next: Next<'_>) -> Result<Response> {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        request.headers_mut().insert("x-request-id", HeaderValue::from(number));
        let result = next.run(request).await;
        match &result {
            Ok(response) => {
                let from = response.extensions().get::<FromCache>();
                println!("{number}: {} from {}", response.status(), from.map_or("the server", |_| "the cache"));
            }
            Err(error) => println!("{number}: {error}"),
        }
        result
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    portolan_examples::start("usage: middleware URL", 1, run).await
}

async fn run(args: Vec<String>) -> Result<()> {
    let url = &args[0];
    let recorder = Recorder::new(HarOptions::new());
    // The first one added sees a request first.
    let client = Client::builder()
        .middleware(Numbered(AtomicU64::new(1)))
        .cache(Cache::new())
        .middleware(recorder.clone())
        .build()?;
    for _ in 0..3 {
        client.get(url).send().await?.bytes().await?;
    }
    println!("{}", recorder.take().to_json()?);
    Ok(())
}
