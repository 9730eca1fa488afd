//! Speaks the small protocols with one host: `cargo run --example classic -- HOST [NAME=PORT ...]`.
//!
//! What does not answer says why. Ports are the usual ones unless given: `classic 127.0.0.1 echo=7007 time=7037`.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::time::Duration;

use portolan_classic::{activeusers, chargen, daytime, discard, echo, qotd, time};
use portolan_core::{Connector, Endpoint, Error, Result, Timeouts};

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let host = args.next().ok_or_else(|| Error::usage("usage: classic HOST [NAME=PORT ...]"))?;
    let ports: Vec<String> = args.collect();
    let at = |name: &str, usual: u16| {
        let given = ports.iter().filter_map(|arg| arg.split_once('=')).find(|(other, _)| *other == name);
        let port = given.map_or(Ok(usual), |(_, port)| port.parse()).map_err(|_| Error::usage("a port is a number"))?;
        Endpoint::new(&host, port)
    };
    let net = Connector::builder().timeouts(Timeouts::default().connect(Duration::from_secs(3))).build()?;

    let to = at("echo", echo::DEFAULT_PORT)?;
    show("echo", async {
        let mut client = echo::Client::connect(&net, echo::Options::new(to)).await?;
        Ok(format!("there and back in {:?}", client.exchange(b"hello").await?))
    })
    .await;
    let to = at("discard", discard::DEFAULT_PORT)?;
    show("discard", async {
        let mut client = discard::Client::connect(&net, discard::Options::new(to)).await?;
        client.send(&[0; 1000]).await?;
        client.close().await.map(|()| "1000 bytes gone".to_owned())
    })
    .await;
    let to = at("chargen", chargen::DEFAULT_PORT)?;
    show("chargen", async {
        let text = chargen::Client::connect(&net, chargen::Options::new(to)).await?.read(740).await?;
        Ok(format!("740 bytes, the usual pattern: {}", chargen::is_usual(&text)))
    })
    .await;
    let to = at("daytime", daytime::DEFAULT_PORT)?;
    show("daytime", async {
        Ok(daytime::Client::connect(&net, daytime::Options::new(to)).await?.read().await?.printable())
    })
    .await;
    let to = at("time", time::DEFAULT_PORT)?;
    show("time", async {
        let time = time::Client::connect(&net, time::Options::new(to)).await?.read().await?;
        Ok(format!("{} is {:?}", time.seconds, time.to_system_time()))
    })
    .await;
    let to = at("qotd", qotd::DEFAULT_PORT)?;
    show("qotd", async { Ok(qotd::Client::connect(&net, qotd::Options::new(to)).await?.read().await?.printable()) })
        .await;
    let to = at("activeusers", activeusers::DEFAULT_PORT)?;
    show("activeusers", async {
        let users = activeusers::Client::connect(&net, activeusers::Options::new(to)).await?.read().await?;
        Ok(format!("{} lines", users.lines().count()))
    })
    .await;
    Ok(())
}

async fn show(name: &str, work: impl Future<Output = Result<String>>) {
    match work.await {
        Ok(text) => println!("{name:<12} {}", text.trim_end()),
        Err(error) => println!("{name:<12} {error}"),
    }
}
