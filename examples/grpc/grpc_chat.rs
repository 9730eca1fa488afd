//! A call in which both sides speak as they like: lines of JSON from the keyboard go out, replies are shown as they come.
//! `cargo run --example grpc_chat -- http://HOST:PORT package.Service/Method`.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use portolan_core::{Connector, Error, Result};
use portolan_grpc::Client;
use portolan_grpc::dynamic::Schema;
use tokio::io::{AsyncBufReadExt, BufReader};

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(url), Some(name)) = (args.next(), args.next()) else {
        return Err(Error::usage("usage: grpc_chat URL SERVICE/METHOD"));
    };
    let client = Client::connect(&Connector::default(), &url).await?;
    let schema = Schema::by_reflection(&client, name.split('/').next().unwrap_or_default()).await?;
    let mut call = client.duplex(&schema.method(&name)?).await?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut speaking = true;
    loop {
        tokio::select! {
            line = lines.next_line(), if speaking => match line.ok().flatten() {
                Some(line) => match serde_json::from_str(&line) {
                    Ok(message) => call.send(&message).await?,
                    Err(error) => println!("no JSON: {error}"),
                },
                None => {
                    call.finish();
                    speaking = false;
                }
            },
            reply = call.message() => match reply? {
                Some(reply) => println!("< {reply}"),
                None => break,
            },
        }
    }
    println!("{:?}", call.trailers());
    Ok(())
}
