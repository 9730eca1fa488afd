//! A tour: a dozen protocols, direct and through two kinds of proxy, against peers that live in this very process.
//!
//! `cargo run --example tour` needs nothing but Rust. Each line of the table is one conversation: what was said, by which way,
//! with which TLS, and where the time went. The same connector serves all of them.

#![allow(
    clippy::disallowed_methods,
    clippy::large_futures,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "the peers of the tour open sockets, and an example talks to its user"
)]

mod peers;
mod proxies;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use portolan_classic::{Transport, chargen, daytime, discard, echo, finger, qotd, time, whois};
use portolan_core::{ConnectionInfo, Connector, Credentials, Endpoint, Error, Hop, Result, Roots, Tls};
use portolan_db::redis;
use portolan_dns::dns;
use portolan_mail::smtp;

use peers::Peers;

/// What one conversation gave.
struct Stop {
    said: String,
    info: ConnectionInfo,
}

impl Stop {
    fn new(said: impl Into<String>, info: &ConnectionInfo) -> Self {
        Self { said: said.into(), info: info.clone() }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let peers = Arc::new(Peers::start().await);
    let socks = Hop::socks5h(proxies::socks5("ann", "sesame").await).credentials(Credentials::new("ann", "sesame"));
    let connect = Hop::http(proxies::connect("ann", "sesame").await).credentials(Credentials::new("ann", "sesame"));
    let tls = Tls::builder().roots(Roots::Custom).root_pem(peers.authority.as_bytes()).build()?;
    let base = || Connector::builder().tls(tls.clone());
    let ways = [
        ("direct", base().build()?),
        ("socks5h", base().via(socks.clone()).build()?),
        ("http connect", base().via(connect.clone()).build()?),
        ("socks5h > connect", base().via(socks).via(connect).build()?),
    ];
    println!("{}", Row::head());
    let mut failed = 0;
    for (way, net) in &ways {
        failed += tour(way, net, &peers).await;
    }
    if failed == 0 { Ok(()) } else { Err(Error::usage(format!("{failed} conversations failed"))) }
}

async fn tour(way: &str, net: &Connector, peers: &Peers) -> usize {
    let mut failed = 0;
    let mut done = |protocol: &str, stop: Result<Stop>| match stop {
        Ok(stop) => println!("{}", Row::of(protocol, way, &stop)),
        Err(error) if error.kind() == portolan_core::Kind::Unsupported => {
            println!("{:<14}{way:<19}not through this way: {}", protocol, error.message());
        }
        Err(error) => {
            failed += 1;
            println!("{:<14}{way:<19}FAILED: {error}", protocol);
        }
    };
    done("redis", within(redis_stop(net, peers.redis(), false)).await);
    done("redis + TLS", within(redis_stop(net, peers.redis_tls(), true)).await);
    done("smtp STARTTLS", within(smtp_stop(net, peers.smtp())).await);
    done("dns over udp", within(dns_stop(net, peers.dns(), dns::Transport::Udp)).await);
    done("dns over tcp", within(dns_stop(net, peers.dns(), dns::Transport::Tcp)).await);
    done("echo", within(echo_stop(net, peers.echo(), Transport::Tcp)).await);
    done("echo over udp", within(echo_stop(net, peers.echo(), Transport::Udp)).await);
    done("discard", within(discard_stop(net, peers.discard())).await);
    done("daytime", within(daytime_stop(net, peers.daytime())).await);
    done("time", within(time_stop(net, peers.time())).await);
    done("chargen", within(chargen_stop(net, peers.chargen())).await);
    done("qotd", within(qotd_stop(net, peers.qotd())).await);
    done("finger", within(finger_stop(net, peers.finger())).await);
    done("whois", within(whois_stop(net, peers.whois())).await);
    failed
}

/// No stop takes longer than this, whatever happens.
async fn within(stop: impl Future<Output = Result<Stop>>) -> Result<Stop> {
    portolan_core::clock::within(Some(Duration::from_secs(10)), portolan_core::Phase::Total, stop).await
}

async fn redis_stop(net: &Connector, to: Endpoint, tls: bool) -> Result<Stop> {
    let client = redis::Client::connect(net, redis::Options::new(to).tls(tls)).await?;
    client.set("harbour", "Lisboa").await?;
    let harbour: String = client.get("harbour").await?;
    let info = client.info().ok_or_else(|| Error::usage("not connected"))?;
    let stop = Stop::new(format!("SET, GET -> {harbour}"), &info);
    client.close().await?;
    Ok(stop)
}

async fn smtp_stop(net: &Connector, to: Endpoint) -> Result<Stop> {
    let mut client = smtp::Client::connect(net, smtp::Options::new(to)).await?;
    let report = client.send("joe@example.org", ["ann@example.com"], b"Subject: hi\r\n\r\n.dots\r\n").await?;
    let stop = Stop::new(format!("message -> {}", report.reply.text()), client.info());
    client.close().await?;
    Ok(stop)
}

async fn dns_stop(net: &Connector, to: Endpoint, transport: dns::Transport) -> Result<Stop> {
    let options = dns::Options::new(to).transport(transport);
    let client = dns::Client::connect(net, options).await?;
    let answer = client.query("harbour.test", dns::RecordType::A).await?;
    let said = format!("A harbour.test -> {} record(s)", answer.answers.len());
    Ok(Stop::new(said, &answer.info.connection))
}

async fn echo_stop(net: &Connector, to: Endpoint, transport: Transport) -> Result<Stop> {
    let mut client = echo::Client::connect(net, echo::Options::new(to).transport(transport)).await?;
    let took = client.exchange(b"ahoy").await?;
    Ok(Stop::new(format!("ahoy -> ahoy in {took:.0?}"), client.info()))
}

async fn discard_stop(net: &Connector, to: Endpoint) -> Result<Stop> {
    let mut client = discard::Client::connect(net, discard::Options::new(to)).await?;
    client.send(&[0; 1000]).await?;
    let stop = Stop::new("1000 bytes -> nothing", client.info());
    client.close().await?;
    Ok(stop)
}

async fn daytime_stop(net: &Connector, to: Endpoint) -> Result<Stop> {
    let client = daytime::Client::connect(net, daytime::Options::new(to)).await?;
    let info = client.info().clone();
    Ok(Stop::new(client.read().await?.printable().trim().to_owned(), &info))
}

async fn time_stop(net: &Connector, to: Endpoint) -> Result<Stop> {
    let client = time::Client::connect(net, time::Options::new(to)).await?;
    let info = client.info().clone();
    let there = client.read().await?.to_system_time();
    let off = portolan_core::clock::wall().duration_since(there).unwrap_or_else(|ahead| ahead.duration());
    Ok(Stop::new(format!("clocks differ by {}s", off.as_secs()), &info))
}

async fn chargen_stop(net: &Connector, to: Endpoint) -> Result<Stop> {
    let mut client = chargen::Client::connect(net, chargen::Options::new(to)).await?;
    let text = client.read(370).await?;
    Ok(Stop::new(format!("{} bytes, as usual: {}", text.len(), chargen::is_usual(&text)), client.info()))
}

async fn qotd_stop(net: &Connector, to: Endpoint) -> Result<Stop> {
    let client = qotd::Client::connect(net, qotd::Options::new(to)).await?;
    let info = client.info().clone();
    Ok(Stop::new(client.read().await?.printable().trim().to_owned(), &info))
}

async fn finger_stop(net: &Connector, to: Endpoint) -> Result<Stop> {
    let client = finger::Client::connect(net, finger::Options::new(to)).await?;
    let info = client.info().clone();
    let text = client.query(&finger::Query::user("vasco")?).await?;
    Ok(Stop::new(format!("vasco -> {}", text.printable().trim()), &info))
}

async fn whois_stop(net: &Connector, to: Endpoint) -> Result<Stop> {
    let client = whois::Client::connect(net, whois::Options::new(to)).await?;
    let answer = client.query("portolan.test").await?;
    let reply = answer.replies.first().ok_or_else(|| Error::usage("no reply"))?;
    Ok(Stop::new(format!("portolan.test -> {} bytes", reply.text.as_bytes().len()), &reply.info))
}

/// One line of the table.
struct Row;

impl Row {
    fn head() -> String {
        format!(
            "{:<14}{:<19}{:<40}{:<28}{:>9}{:>9}{:>9}{:>9}{:>9}",
            "protocol", "way", "exchange", "tls", "connect", "hops", "tls", "login", "total"
        )
    }

    fn of(protocol: &str, way: &str, stop: &Stop) -> String {
        let Stop { said, info } = stop;
        let tls = info.tls.as_ref().map_or_else(String::new, |tls| format!("{} {}", tls.version, tls.group));
        let time = |phase: Option<Duration>| {
            phase.map_or_else(|| "-".to_owned(), |time| format!("{:.2}ms", time.as_secs_f64() * 1e3))
        };
        let t = &info.timings;
        let said: String = said.chars().take(38).collect();
        format!(
            "{protocol:<14}{way:<19}{said:<40}{tls:<28}{:>9}{:>9}{:>9}{:>9}{:>9}",
            time(t.connect),
            time(t.hops),
            time(t.tls),
            time(t.handshake),
            time(Some(t.total)),
        )
    }
}
