//! Cookies that outlive the program: `cargo run --example cookies -- FILE URL..`.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::process::ExitCode;
use std::sync::Arc;

use portolan_core::{Error, Result};
use portolan_http::Client;
use portolan_http::cookie::{Jar, Keep};

#[tokio::main]
async fn main() -> ExitCode {
    portolan_examples::start("usage: cookies FILE URL..", 1, run).await
}

async fn run(mut args: Vec<String>) -> Result<()> {
    let path = args.remove(0);
    let jar = Arc::new(Jar::new());
    if let Ok(text) = tokio::fs::read_to_string(&path).await {
        println!("{} cookies from {path}", jar.load_json_lines(&text)?);
    }
    let client = Client::builder().cookie_jar(jar.clone()).build()?;
    for url in args {
        let response = client.get(&url).send().await?;
        println!("{} {url}", response.status());
    }
    for cookie in jar.cookies() {
        println!("  {} {} {}", cookie.domain(), cookie.path(), cookie.name());
    }
    let kept = jar.to_json_lines(Keep::All);
    tokio::fs::write(&path, kept).await.map_err(|error| Error::usage("the file can't be written").with_source(error))
}
