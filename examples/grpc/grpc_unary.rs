//! Asks a server whether a service is up, by a typed call with a deadline:
//! `cargo run --example grpc_unary -- http://HOST:PORT [SERVICE]`.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::time::Duration;

use portolan_core::{Connector, Error, Result};
use portolan_grpc::health::HealthClient;
use portolan_grpc::{Client, Status};

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let url = args.next().ok_or_else(|| Error::usage("usage: grpc_unary URL [SERVICE]"))?;
    let service = args.next().unwrap_or_default();
    let client = Client::connect(&Connector::default(), &url).await?.timeout(Duration::from_secs(5));
    match HealthClient::new(client).check(&service).await {
        Ok(health) => println!("{service:?} is {health:?}"),
        Err(error) => {
            let status = Status::of(&error);
            println!("{:?}: {} (delivery {:?})", status.code(), status.message(), error.delivery());
        }
    }
    Ok(())
}
