//! A call in which both sides speak as they like: lines of JSON from the keyboard go out, replies are shown as they come.
//! `cargo run --example grpc_chat -- http://HOST:PORT package.Service/Method`.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use portolan_core::{Connector, Error, Result};
use portolan_grpc::Client;
use portolan_grpc::dynamic::Schema;
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(url), Some(name)) = (args.next(), args.next()) else {
        return Err(Error::usage("usage: grpc_chat URL SERVICE/METHOD"));
    };
    let client = Client::connect(&Connector::default(), &url).await?;
    let schema = Schema::by_reflection(&client, name.split('/').next().unwrap_or_default()).await?;
    let mut call = client.duplex(&schema.method(&name)?).await?;
    let mut lines = keyboard();
    let mut speaking = true;
    loop {
        tokio::select! {
            line = lines.recv(), if speaking => match line {
                Some(line) => match serde_json::from_str(&line) {
                    // Where the call is over, the reply says why.
                    Ok(message) => speaking = call.send(&message).await.is_ok(),
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

/// What is typed, by a thread of its own: the program must not wait for one more line when the server has ended the call.
fn keyboard() -> mpsc::Receiver<String> {
    let (say, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(std::result::Result::ok) {
            if say.blocking_send(line).is_err() {
                break;
            }
        }
    });
    lines
}
