//! Sends what it reads: `cargo run --example smtp -- submission://user:password@host FROM TO [TO ...] < message`.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use portolan_core::{Error, Result};
use portolan_mail::smtp::{Client, Envelope};

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let usage = || Error::usage("usage: smtp URL FROM TO [TO ...] < message");
    let (url, from) = (args.next().ok_or_else(usage)?, args.next().ok_or_else(usage)?);
    let mut envelope = Envelope::new(&from)?;
    for to in args {
        envelope = envelope.to(&to)?;
    }
    let mut client = Client::open(&url).await?;
    println!("{} offers {:?}", client.greeting(), client.extensions().lines);
    let report = client.send_stream(envelope, tokio::io::stdin()).await?;
    for (address, reply) in &report.refused {
        println!("refused  {address}: {reply}");
    }
    for address in &report.accepted {
        println!("accepted {address}: {}", report.reply);
    }
    client.close().await
}
