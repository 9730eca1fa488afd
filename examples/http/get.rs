//! Fetches URLs, as curl does: `cargo run --example get -- [--http1|--http2|--http3] [--proxy HOP|system] [--timings] [-H 'name: value']
//! [-X METHOD] [-d BODY] [-i] URL`.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use portolan_core::{Error, Hop, Result};
use portolan_http::{Client, Response, Version};

const USAGE: &str = "usage: get [--http1|--http2|--http3] [--proxy HOP|system] [--timings] [-i] [-X METHOD] [-d BODY] [-H 'NAME: VALUE'] URL..";

#[derive(Default)]
struct Wanted {
    urls: Vec<String>,
    headers: Vec<(String, String)>,
    method: Option<String>,
    body: Option<String>,
    timings: bool,
    head: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let usage = || Error::usage(USAGE);
    let mut client = Client::builder().user_agent("portolan-get")?;
    let mut wanted = Wanted::default();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--http1" => client = client.version(Version::Http1Only),
            "--http2" => client = client.version(Version::Http2Only),
            "--http3" => client = client.version(Version::Http3Only),
            "--proxy" => {
                client = match args.next().ok_or_else(usage)?.as_str() {
                    "system" => client.proxy_from_system(),
                    hop => client.proxy(Hop::parse(hop)?),
                };
            }
            "--timings" => wanted.timings = true,
            "-i" => wanted.head = true,
            "-X" => wanted.method = args.next(),
            "-d" => wanted.body = args.next(),
            "-H" => {
                let field = args.next().ok_or_else(usage)?;
                let (name, value) = field.split_once(':').ok_or_else(usage)?;
                wanted.headers.push((name.trim().to_owned(), value.trim().to_owned()));
            }
            "-h" | "--help" => {
                println!("{USAGE}");
                return Ok(());
            }
            _ => wanted.urls.push(arg),
        }
    }
    if wanted.urls.is_empty() {
        return Err(usage());
    }
    let client = client.build()?;
    for url in &wanted.urls {
        let method = wanted.method.as_deref().unwrap_or(if wanted.body.is_some() { "POST" } else { "GET" });
        let method = method.parse().map_err(|_| Error::usage("no method"))?;
        let mut request = client.request(method, url);
        for (name, value) in &wanted.headers {
            request = request.header(name.as_str(), value.as_str());
        }
        if let Some(body) = &wanted.body {
            request = request.body(body.clone());
        }
        let mut response = request.send().await?;
        if wanted.head {
            show_head(&response);
        }
        while let Some(data) = response.chunk().await? {
            print!("{}", String::from_utf8_lossy(&data));
        }
        if wanted.timings {
            show_timings(&response);
        }
    }
    Ok(())
}

fn show_head(response: &Response) {
    println!("{:?} {}", response.version(), response.status());
    for (name, value) in response.headers() {
        println!("{name}: {}", String::from_utf8_lossy(value.as_bytes()));
    }
    println!();
}

fn show_timings(response: &Response) {
    let info = response.connection_info();
    let (made, call) = (info.timings, response.timings());
    println!(
        "\n{:?} from {:?}{}",
        response.version(),
        info.peer,
        if response.is_reused() { ", connection reused" } else { "" }
    );
    for hop in &info.hops {
        println!("  hop {:<12} {:>10.1?}  {}", hop.kind, hop.elapsed, hop.authority);
    }
    for (name, time) in [("resolve", made.resolve), ("connect", made.connect), ("hops", made.hops), ("tls", made.tls)] {
        if let Some(time) = time {
            println!("  {name:<16} {time:>10.1?}");
        }
    }
    println!("  {:<16} {:>10.1?}\n  {:<16} {:>10.1?}", "first byte", call.first_byte, "total", call.total);
    if let Some(tls) = &info.tls {
        println!("  {} {} {}", tls.version, tls.cipher, tls.group);
    }
}
