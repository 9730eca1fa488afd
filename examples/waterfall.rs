//! Where the time of one request goes: `cargo run --example waterfall -- [--hop HOP].. [--ca FILE] URL`.
//!
//! Hops are passed in the order in which they are named: `--hop ssh://ann@bastion --hop socks5h://127.0.0.1:1080`. The login and host key
//! of an SSH jump host may be said in its URL: `ssh://ann@bastion?identity=FILE&known_hosts=FILE`.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::fmt::Write as _;
use std::time::Duration;

use portolan_core::{Connector, ConnectorBuilder, Error, Hop, Result, Roots, Tls, clock};
use portolan_http::{Client, Response};

/// How wide the whole time is drawn.
const WIDTH: f64 = 48.0;

#[tokio::main]
async fn main() -> Result<()> {
    print!("{}", run(std::env::args().skip(1)).await?);
    Ok(())
}

/// Fetches what the arguments say, and draws it.
pub(crate) async fn run(mut args: impl Iterator<Item = String>) -> Result<String> {
    let usage = || Error::usage("usage: waterfall [--hop HOP].. [--ca FILE] URL");
    let (mut net, mut url) = (Connector::builder(), None);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--hop" => net = net.via(hop(&args.next().ok_or_else(usage)?)?),
            "--ca" => net = trusting(net, &args.next().ok_or_else(usage)?)?,
            _ => url = Some(arg),
        }
    }
    let client = Client::builder().connector(net.build()?).build()?;
    let mut response = client.get(url.ok_or_else(usage)?).send().await?;
    let (began, mut bytes) = (clock::now(), 0);
    while let Some(data) = response.chunk().await? {
        bytes += data.len();
    }
    Ok(draw(&response, bytes, clock::now() - began))
}

/// A hop of any kind, by the scheme of its URL.
fn hop(url: &str) -> Result<Hop> {
    match url.split_once("://").map_or("", |(scheme, _)| scheme) {
        "ssh" => portolan_remote_access::ssh::jump(url),
        "ws+tunnel" | "wss+tunnel" => portolan_tunnel::hop(url),
        _ => Hop::parse(url),
    }
}

fn trusting(net: ConnectorBuilder, file: &str) -> Result<ConnectorBuilder> {
    let pem = std::fs::read(file).map_err(|error| Error::usage("the authority's file").with_source(error))?;
    let tls = Tls::builder().roots(Roots::Custom).root_pem(&pem).build()?;
    Ok(net.tls(tls.clone()).hop_tls(tls))
}

fn draw(response: &Response, bytes: usize, body: Duration) -> String {
    let (info, call) = (response.connection_info(), response.timings());
    let mut phases = vec![("resolve".to_owned(), info.timings.resolve)];
    let peer = info.peer.map(|peer| peer.to_string()).unwrap_or_default();
    phases.push((format!("connect {peer}"), info.timings.connect));
    for hop in &info.hops {
        phases.push((format!("{} {}", hop.kind, hop.authority), Some(hop.elapsed)));
    }
    let tls = info.tls.as_ref().map(|tls| tls.version).unwrap_or_default();
    phases.push((tls.to_owned(), info.timings.tls));
    phases.push(("first byte".to_owned(), Some(call.first_byte)));
    phases.push((format!("body, {bytes} bytes"), Some(body)));
    let phases: Vec<_> = phases.into_iter().filter_map(|(name, time)| Some((name, time?))).collect();
    let whole: Duration = phases.iter().map(|(_, time)| *time).sum();
    let mut out = format!("{} {:?} {}\n", response.uri(), response.version(), response.status());
    let (mut from, scale) = (Duration::ZERO, WIDTH / whole.as_secs_f64().max(f64::MIN_POSITIVE));
    for (name, time) in &phases {
        let at = |time: Duration| (time.as_secs_f64() * scale).round();
        let (start, end) = (at(from), at(from + *time));
        // A phase is at least one mark wide, or it could not be seen.
        let bar = "\u{2588}".repeat(((end - start) as usize).max(1));
        let space = " ".repeat(start.min(WIDTH - 1.0) as usize);
        let bar = format!("{space}{bar}");
        let _ = writeln!(out, "{name:<28.28} |{bar:<48}| {:>9.2} ms", time.as_secs_f64() * 1e3);
        from += *time;
    }
    let _ = writeln!(out, "{:<28} |{:<48}| {:>9.2} ms", "all", "", whole.as_secs_f64() * 1e3);
    out
}
