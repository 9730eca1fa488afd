//! Uploads a file as a stream, with its progress: `cargo run --example upload -- URL FILE`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to its user")]

use portolan_core::{Error, Result};
use portolan_http::multipart::{Form, Part};
use portolan_http::{Body, Client};

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(url), Some(path)) = (args.next(), args.next()) else {
        return Err(Error::usage("usage: upload URL FILE [--form]"));
    };
    let missing = |error: std::io::Error| Error::usage("the file can't be read").with_source(error);
    let file = tokio::fs::File::open(&path).await.map_err(missing)?;
    let length = file.metadata().await.map_err(missing)?.len();
    let client = Client::new();
    let response = if args.next().as_deref() == Some("--form") {
        let name = path.rsplit('/').next().unwrap_or(&path).to_owned();
        let part = Part::reader_with_length(file, length).with_file_name(name);
        client.post(&url).multipart(Form::new().part("file", part)).send().await?
    } else {
        let body = Body::from_reader(file).with_progress(move |sent, _| eprint!("\r{sent} of {length} bytes"));
        // The server may say no before the body goes out.
        let request = client.put(&url).header("content-length", length.to_string()).header("expect", "100-continue");
        request.body(body).send().await?
    };
    println!("\n{:?} {}", response.version(), response.status());
    println!("{}", response.text().await?);
    Ok(())
}
