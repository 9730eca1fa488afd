//! Redis or a web page behind an SSH jump host: `cargo run --example ssh_jump -- ssh://user@bastion[:port] redis://10.0.0.5`, or
//! `https://intranet.example/`.
//!
//! Who the jump host is and who logs in is known as with `ssh`: `~/.ssh/known_hosts`, the agent, the keys of `~/.ssh`. Otherwise
//! the URL says it: `ssh://user:password@bastion?identity=FILE&known_hosts=FILE&fingerprint=SHA256:..`.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use portolan_core::{Connector, Error, HopInfo, Result};
use portolan_remote_access::ssh;

#[tokio::main]
async fn main() -> Result<()> {
    print!("{}", run(std::env::args().skip(1)).await?);
    Ok(())
}

/// Fetches what the arguments say.
pub(crate) async fn run(mut args: impl Iterator<Item = String>) -> Result<String> {
    let usage = || Error::usage("usage: ssh_jump ssh://user@bastion redis://HOST|http(s)://HOST/");
    let (jump, to) = (args.next().ok_or_else(usage)?, args.next().ok_or_else(usage)?);
    let net = Connector::builder().via(ssh::jump(&jump)?).build()?;
    if to.starts_with("redis") {
        let client = portolan_db::redis::Client::connect(&net, portolan_db::redis::Options::from_url(&to)?).await?;
        client.set("portolan:jump", "hello through SSH").await?;
        let said: String = client.get("portolan:jump").await?;
        let hops = client.info().map(|info| passed(&info.hops)).unwrap_or_default();
        client.close().await?;
        return Ok(format!("{said}\n{hops}"));
    }
    let response = portolan_http::Client::builder().connector(net).build()?.get(to).send().await?;
    let hops = passed(&response.connection_info().hops);
    Ok(format!("{}\n{}\n{hops}", response.status(), response.text().await?))
}

fn passed(hops: &[HopInfo]) -> String {
    hops.iter().map(|hop| format!("passed {} at {} in {:?}\n", hop.kind, hop.authority, hop.elapsed)).collect()
}
