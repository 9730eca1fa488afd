//! Uploads a file as a stream, with its progress: `cargo run --example upload -- URL FILE`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to its user")]

use std::process::ExitCode;

use portolan_core::{Error, Result};
use portolan_http::multipart::{Form, Part};
use portolan_http::{Body, Client};

#[tokio::main]
async fn main() -> ExitCode {
    portolan_examples::start("usage: upload URL FILE [--form]", 2, run).await
}

async fn run(args: Vec<String>) -> Result<()> {
    let (url, path) = (&args[0], &args[1]);
    let missing = |error: std::io::Error| Error::usage(format!("{path} can't be read")).with_source(error);
    let file = tokio::fs::File::open(path).await.map_err(missing)?;
    let length = file.metadata().await.map_err(missing)?.len();
    let client = Client::new();
    let response = if args.get(2).is_some_and(|word| word == "--form") {
        let name = path.rsplit('/').next().unwrap_or(path).to_owned();
        let part = Part::reader_with_length(file, length).with_file_name(name);
        client.post(url).multipart(Form::new().part("file", part)).send().await?
    } else {
        let body = Body::from_reader_with_length(file, length);
        let body = body.with_progress(move |sent, _| eprint!("\r{sent} of {length} bytes"));
        // The server may say no before the body goes out.
        client.put(url).expect_continue().body(body).send().await?
    };
    println!("\n{:?} {}", response.version(), response.status());
    println!("{}", response.text().await?);
    Ok(())
}
