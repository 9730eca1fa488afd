//! What a jump host costs: `cargo run --release -p portolan-remote-access --features ssh,aws-lc-rs --example measure --
//! ssh://user@host HOST:PORT`, or `direct` in place of the jump host.
//!
//! The target sends until it is closed what it is asked for: `socat TCP-LISTEN:9000,fork,reuseaddr EXEC:'head -c 1073741824 /dev/zero'`.

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "it measures, and says so")]

use std::time::Instant;

use portolan_core::{Connector, Endpoint, Error, Result, Stream};
use portolan_remote_access::ssh;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let usage = || Error::usage("usage: measure ssh://..|direct HOST:PORT [up]");
    let (jump, to) = (args.next().ok_or_else(usage)?, Endpoint::parse(&args.next().ok_or_else(usage)?, None)?);
    let up = args.next().is_some();
    let make = || match jump.as_str() {
        "direct" => Connector::builder().build(),
        url => Connector::builder().via(ssh::jump(url)?).build(),
    };
    let mut first = Vec::new();
    for _ in 0..10 {
        let net = make()?;
        let began = Instant::now();
        drop(net.connect(&to).await?);
        first.push(began.elapsed().as_micros());
    }
    let net = make()?;
    drop(net.connect(&to).await?);
    let mut next = Vec::new();
    for _ in 0..200 {
        let began = Instant::now();
        drop(net.connect(&to).await?);
        next.push(began.elapsed().as_micros());
    }
    first.sort_unstable();
    next.sort_unstable();
    println!("connect: first {} us, next {} us", first[first.len() / 2], next[next.len() / 2]);
    let mut stream = net.connect(&to).await?;
    let began = Instant::now();
    let bytes = if up { send(&mut stream).await } else { receive(&mut stream).await };
    let bytes = bytes.map_err(|error| Error::io(portolan_core::Phase::Idle, error))?;
    let seconds = began.elapsed().as_secs_f64();
    println!("{} {:.0} MB/s ({bytes} bytes)", if up { "up" } else { "down" }, bytes as f64 / seconds / 1e6);
    Ok(())
}

async fn receive(stream: &mut Stream) -> std::io::Result<u64> {
    let (mut bytes, mut data) = (0, vec![0; 256 << 10]);
    loop {
        match stream.read(&mut data).await? {
            0 => return Ok(bytes),
            n => bytes += n as u64,
        }
    }
}

async fn send(stream: &mut Stream) -> std::io::Result<u64> {
    let data = vec![0; 256 << 10];
    let count = 4096;
    for _ in 0..count {
        stream.write_all(&data).await?;
    }
    stream.shutdown().await?;
    // The peer's end says that it has everything.
    receive(stream).await?;
    Ok(count * data.len() as u64)
}
