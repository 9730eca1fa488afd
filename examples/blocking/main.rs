//! Many protocols without `async`: `cargo run --example blocking`. Its servers live in this very process.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "the servers of the example open sockets, and an example talks to its user"
)]

#[allow(dead_code, unused_imports, reason = "the tour has more peers than are asked here")]
#[path = "../tour/peers.rs"]
mod peers;
mod servers;

use std::io::{Read, Write};
use std::time::Duration;

use portolan_core::blocking::{Io, Iter, Wait};
use portolan_core::{Connector, Error, Result, Roots, Tls};
use portolan_db::redis;
use portolan_dns::dns::{self, RecordType};
use portolan_grpc::health::HealthClient;
use portolan_http::blocking;
use portolan_mail::smtp;
use portolan_sse::EventSource;
use portolan_websocket::{Options, WebSocket};

use peers::Peers;

fn main() -> Result<()> {
    let host = tokio::runtime::Runtime::new().unwrap();
    let peers = host.block_on(Peers::start());
    let (web, health) = host.block_on(servers::start());
    let tls = Tls::builder().roots(Roots::Custom).root_pem(peers.authority.as_bytes()).build()?;
    let net = Connector::builder().tls(tls).build()?;
    let limit = Duration::from_secs(10);

    // HTTP has a client of its own for it, with every setting of the other.
    let mut page = blocking::Client::new().get(format!("http://{web}/")).header("accept", "text/plain").send()?;
    let mut text = String::new();
    page.read_to_string(&mut text).unwrap();
    println!("http       {} {text:?}", page.status());

    // All others are waited for, call by call.
    let redis = redis::Client::connect(&net, redis::Options::new(peers.redis())).wait()?;
    redis.set("harbour", "calm").wait()?;
    println!("redis      harbour is {}", redis.get::<String>("harbour").wait()?);

    let mut mail = smtp::Client::connect(&net, smtp::Options::new(peers.smtp())).wait()?;
    let sent = mail.send("joe@example.org", ["ann@example.com"], b"Subject: hi\r\n\r\nahoy\r\n").wait_within(limit)?;
    println!("smtp       {}", sent.reply.text());

    let names = dns::Client::connect(&net, dns::Options::new(peers.dns())).wait()?;
    println!("dns        {} record(s)", names.query("harbour.test", RecordType::A).wait()?.answers.len());

    let channel = portolan_grpc::Client::connect(&net, &format!("http://{health}")).wait()?;
    println!("grpc       {:?}", HealthClient::new(channel).check("ships").wait_within(limit)?);

    let mut socket = WebSocket::connect(&net, &format!("ws://{web}/echo"), Options::new()).wait()?;
    socket.send("ahoy").wait()?;
    println!("websocket  {:?}", socket.recv().wait()?.as_ref().and_then(|message| message.as_text()));

    // What comes piece by piece is iterated.
    let events = EventSource::get(&portolan_http::Client::new(), format!("http://{web}/events"), <_>::default())?;
    for event in Iter::new(events).within(limit).take(3) {
        println!("sse        {}", event?.data);
    }

    // And a bare stream is what `std` knows.
    let mut echo = Io::new(net.connect(&peers.echo()).wait()?);
    echo.write_all(b"ahoy").map_err(|error| Error::closed("echo").with_source(error))?;
    let mut back = [0; 4];
    echo.read_exact(&mut back).map_err(|error| Error::closed("echo").with_source(error))?;
    println!("stream     {}", back.escape_ascii());
    Ok(())
}
