//! Objects of S3, or of a server that speaks like it: `cargo run --example s3 -- [--endpoint URL] [--region NAME] get|put|presign
//! BUCKET/KEY [FILE]`. The key comes from `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, or from `~/.aws/credentials`.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::time::Duration;

use portolan_core::{Error, Result};
use portolan_http::sigv4::{KeyChain, SigV4};
use portolan_http::{Body, Client};

const USAGE: &str = "usage: s3 [--endpoint URL] [--region NAME] get|put|presign BUCKET/KEY [FILE]";

#[tokio::main]
async fn main() -> Result<()> {
    let usage = || Error::usage(USAGE);
    let (mut endpoint, mut region, mut words) = (None, "us-east-1".to_owned(), Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--endpoint" => endpoint = Some(args.next().ok_or_else(usage)?),
            "--region" => region = args.next().ok_or_else(usage)?,
            _ => words.push(arg),
        }
    }
    let endpoint = endpoint.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
    let s3 = SigV4::new(KeyChain::from_env(), region, "s3");
    let client = Client::builder().sign(s3.clone()).build()?;
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["get", object] => {
            let mut response = client.get(format!("{endpoint}/{object}")).send().await?.error_for_status()?;
            while let Some(data) = response.chunk().await? {
                print!("{}", String::from_utf8_lossy(&data));
            }
        }
        ["put", object, file] => {
            let unreadable = |error| Error::usage(format!("{file} can't be read")).with_source(error);
            let file = tokio::fs::File::open(file).await.map_err(unreadable)?;
            let length = file.metadata().await.map_err(unreadable)?.len();
            // Streamed, and signed piece by piece as it goes.
            let request = client.put(format!("{endpoint}/{object}")).header("content-length", length);
            let response = request.body(Body::from_reader(file)).send().await?.error_for_status()?;
            println!("{}", response.status());
        }
        ["presign", object] => {
            let hour = Duration::from_secs(3600);
            println!("{}", s3.presign(&http::Method::GET, format!("{endpoint}/{object}"), hour).await?);
        }
        _ => return Err(usage()),
    }
    Ok(())
}
