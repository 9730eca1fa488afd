//! Asks a name server: `cargo run --example dns -- [@server[:port]] [--tcp] [--via PROXY] NAME [TYPE] [CLASS]`.
//!
//! `TYPE` may be `AXFR` for a whole zone, or an address may stand for `NAME` to ask for its names.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use portolan_core::{Connector, Endpoint, Error, Hop, Result};
use portolan_dns::dns::{Client, DEFAULT_PORT, Name, Options, Question, RecordType, Transport};

#[tokio::main]
async fn main() -> Result<()> {
    let mut server = Endpoint::new("127.0.0.1", DEFAULT_PORT)?;
    let mut net = Connector::builder();
    let mut transport = Transport::Auto;
    let mut words = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--tcp" => transport = Transport::Tcp,
            "--via" => net = net.via(Hop::parse(&args.next().ok_or_else(|| Error::usage("--via needs a proxy"))?)?),
            other => match other.strip_prefix('@') {
                Some(text) => server = Endpoint::parse(text, Some(DEFAULT_PORT))?,
                None => words.push(arg),
            },
        }
    }
    let mut words = words.iter().map(String::as_str);
    let asked =
        words.next().ok_or_else(|| Error::usage("usage: dns [@server] [--tcp] [--via PROXY] NAME [TYPE] [CLASS]"))?;
    let (name, default) = match asked.parse() {
        Ok(ip) => (Name::reverse(ip), RecordType::Ptr),
        Err(_) => (asked.parse()?, RecordType::A),
    };
    let record_type = words.next().map_or(Ok(default), str::parse)?;
    let mut question = Question::new(name, record_type);
    if let Some(class) = words.next() {
        question = question.with_class(class.parse()?);
    }

    let names = Client::connect(&net.build()?, Options::new(server).transport(transport)).await?;
    if record_type == RecordType::Axfr {
        let mut zone = names.transfer(&question.name.to_string()).await?;
        while let Some(record) = zone.next().await? {
            println!("{record}");
        }
        return Ok(());
    }
    let answer = names.ask(&question).await?;
    println!(";; {} for {question}", answer.rcode);
    for (title, records) in
        [("answer", &answer.answers), ("authority", &answer.authorities), ("additional", &answer.additionals)]
    {
        for record in records {
            println!("{title:<10} {record}");
        }
    }
    let info = &answer.info;
    println!(";; {} bytes over {:?} in {:?}, {} queries", info.size, info.transport, info.elapsed, info.attempts);
    if let Some(fallback) = info.fallback {
        println!(";; TCP because: {fallback:?}");
    }
    for hop in &info.connection.hops {
        println!(";; via {} {} ({:?})", hop.kind, hop.authority, hop.elapsed);
    }
    Ok(())
}
