//! A gateway that carries WebSockets to TCP: `cargo run --example ws_tunnel_gateway -- [127.0.0.1:8080] [--allow
//! 10.0.0.0/8]`.
//!
//! Who may use it: `TUNNEL_USER` and `TUNNEL_PASSWORD`, which must be set. Where to: public addresses, and the networks
//! of `--allow`. Ctrl-C drains for ten seconds. Through it: `redis_over_tunnel`.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]
#![allow(clippy::disallowed_methods, reason = "a program may read its environment")]

use std::time::Duration;

use portolan_core::{Connector, Credentials, Error, Policy, Result};
use portolan_tunnel::Gateway;
use portolan_tunnel::gateway::{Access, Limits};

#[tokio::main]
async fn main() -> Result<()> {
    let (mut listen, mut policy) = ("127.0.0.1:8080".to_owned(), Policy::public_only());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--allow" => policy = policy.allow(&args.next().ok_or_else(|| Error::usage("--allow needs a network"))?)?,
            _ => listen = arg,
        }
    }
    let var = |name: &str| std::env::var(name).map_err(|_| Error::usage(format!("{name} is not set")));
    let login = Credentials::new(var("TUNNEL_USER")?, var("TUNNEL_PASSWORD")?);
    let gateway = Gateway::builder()
        .policy(policy)
        .authenticate(move |attempt| {
            let access = if attempt.is_basic(&login) { Access::allow(&*login.user) } else { Access::ask_basic() };
            async { access }
        })
        .limits(Limits::new().max_tunnels(1000).idle(Duration::from_secs(300)))
        .build()?;
    let local = listen.parse().map_err(|_| Error::usage("an address to listen on, such as 127.0.0.1:8080"))?;
    let listener = Connector::default().listen(local).await?;
    println!("listening on {}", listener.local_addr()?);
    tokio::select! {
        served = gateway.serve(listener) => served?,
        stop = tokio::signal::ctrl_c() => stop.map_err(|error| Error::io(portolan_core::Phase::Idle, error))?,
    }
    gateway.shutdown(Duration::from_secs(10)).await;
    println!("{:#?}", gateway.metrics());
    Ok(())
}
