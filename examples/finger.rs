//! Asks who somebody is: `cargo run --example finger -- [-l] [user]@host[:port]`.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use portolan_classic::finger::{Client, DEFAULT_PORT, Options, Query};
use portolan_core::{Connector, Endpoint, Error, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let (switches, words): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|word| word == "-l");
    let asked = words.first().ok_or_else(|| Error::usage("usage: finger [-l] [user]@host[:port]"))?;
    let (user, host) = asked.rsplit_once('@').unwrap_or(("", asked));
    let query = if user.is_empty() { Query::all() } else { Query::user(user)? };
    let server = Endpoint::parse(host, Some(DEFAULT_PORT))?;
    let client = Client::connect(&Connector::default(), Options::new(server)).await?;
    println!("[{:?}, connected in {:?}]", client.info().peer, client.info().timings.total);
    print!("{}", client.query(&query.long(!switches.is_empty())).await?.printable());
    Ok(())
}
