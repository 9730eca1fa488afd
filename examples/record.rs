//! Records a conversation with Redis, then has it again without the server:
//! `cargo run --example record -- redis://HOST[:PORT] FILE` records, `cargo run --example record -- redis://HOST[:PORT] FILE --replay` replays.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use portolan_core::transcript::{Recorder, Redact, Replay, Transcript};
use portolan_core::{Connector, Error, Result};
use portolan_db::redis;

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (url, file, replays) = match args.as_slice() {
        [url, file] => (url, file, false),
        [url, file, option] if option == "--replay" => (url, file, true),
        _ => return Err(Error::usage("usage: record URL FILE [--replay]")),
    };
    if replays {
        let replay = Replay::new(Transcript::load(file)?);
        session(&Connector::builder().dial(replay.clone()).build()?, url).await?;
        return replay.finish();
    }
    let recorder = Recorder::new(Redact::new());
    session(&Connector::builder().record(&recorder).build()?, url).await?;
    let transcript = recorder.transcript();
    println!("{} connection(s), written to {file}", transcript.connections());
    transcript.save(file)
}

/// What a test suite would do: it doesn't know where its answers come from.
async fn session(net: &Connector, url: &str) -> Result<()> {
    let client = redis::Client::connect(net, redis::Options::from_url(url)?).await?;
    client.set("harbour", "calm").await?;
    println!("the harbour is {}", client.get::<String>("harbour").await?);
    println!("ship {} came in", client.incr("ships", 1).await?);
    Ok(())
}
