//! Calls any method by name, JSON in and JSON out; the server says itself what its messages look like:
//! `cargo run --example grpc_dynamic -- http://HOST:PORT [package.Service/Method ['{"json": 1}']]`.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use portolan_core::{Connector, Error, Result};
use portolan_grpc::Client;
use portolan_grpc::dynamic::Schema;
use portolan_grpc::reflection::Reflection;

#[tokio::main]
async fn main() -> Result<()> {
    let usage = || Error::usage("usage: grpc_dynamic URL [SERVICE/METHOD [JSON]]");
    let mut args = std::env::args().skip(1);
    let url = args.next().ok_or_else(usage)?;
    let client = Client::connect(&Connector::default(), &url).await?;
    let Some(name) = args.next() else {
        for service in Reflection::new(client.clone()).services().await? {
            println!("{service}");
            for (method, shape) in Schema::by_reflection(&client, &service).await?.methods(&service)? {
                println!("  {method} ({shape:?})");
            }
        }
        return Ok(());
    };
    let (service, _) = name.split_once('/').ok_or_else(usage)?;
    let request = args.next().unwrap_or_else(|| "{}".to_owned());
    let request = serde_json::from_str(&request).map_err(|error| Error::usage("no JSON").with_source(error))?;
    let schema = Schema::by_reflection(&client, service).await?;
    // Read as a stream, a single answer is a stream of one.
    let mut replies = client.server_streaming(&schema.method(&name)?, &request).await?;
    while let Some(reply) = replies.message().await? {
        println!("{reply:#}");
    }
    Ok(())
}
