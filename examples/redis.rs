//! Runs a Redis command: `cargo run --example redis -- [redis://localhost] [--via PROXY] COMMAND [ARG ...]`.
//!
//! The URL may also be that of a cluster (`redis+cluster://a,b`) or of sentinels (`redis+sentinel://a,b/service`).

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use portolan_core::{Connector, Error, Hop, Result};
use portolan_db::redis::{Client, ClusterClient, ClusterOptions, Command, Options, Value};

#[tokio::main]
async fn main() -> Result<()> {
    let (mut url, mut net, mut words) = ("redis://localhost".to_owned(), Connector::builder(), Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--via" => net = net.via(Hop::parse(&args.next().ok_or_else(|| Error::usage("--via needs a proxy"))?)?),
            text if words.is_empty() && text.contains("://") => url = arg,
            _ => words.push(arg),
        }
    }
    let net = net.build()?;
    let mut words = words.into_iter();
    let name = words.next();
    if let (Some(name), true) = (&name, url.contains("+cluster://")) {
        let cluster = ClusterClient::connect(&net, ClusterOptions::from_url(&url)?).await?;
        show(&cluster.run(&command(name.clone(), words)).await?, 0);
        return cluster.close().await;
    }
    let client = Client::connect(&net, Options::from_url(&url)?).await?;
    let Some(name) = name else {
        let info = client.info().ok_or_else(|| Error::usage("not connected"))?;
        println!("connected: {:#?}", info.timings);
        return client.close().await;
    };
    show(&client.run(&command(name, words)).await?, 0);
    client.close().await
}

fn command(name: String, words: impl Iterator<Item = String>) -> Command {
    // A name known only at run time lives as long as the program: this one ends soon.
    let mut command = Command::new(name.leak());
    for word in words {
        command.push(word.as_bytes());
    }
    command
}

fn show(value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Map(pairs) => {
            for (key, value) in pairs {
                show(key, depth);
                show(value, depth + 1);
            }
        }
        value => match (value.as_items(), value.as_bytes()) {
            (Some(items), _) => items.iter().for_each(|item| show(item, depth + 1)),
            (None, Some(bytes)) => println!("{indent}{}", String::from_utf8_lossy(bytes)),
            (None, None) => println!("{indent}{value:?}"),
        },
    }
}
