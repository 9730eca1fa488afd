//! Fetches URLs, as curl does: `cargo run --example get -- --http3 --proxy socks5h://127.0.0.1:1080 --timings https://example.org/`.

#![allow(clippy::print_stderr, reason = "an example talks to its user")]

use std::io::Write;
use std::process::ExitCode;

use portolan_core::{Error, Hop, Result, Roots, Tls};
use portolan_http::{Client, ClientBuilder, Response, Version};

const USAGE: &str = "\
usage: get [OPTION].. URL..
  --http1, --http2, --http3  by this version alone
  --proxy HOP|system         through http://, https://, socks4://, socks5h://.., or what the desktop says; repeat for a chain
  --cacert FILE              trusts the authorities in this file alone
  --timings                  shows how long each part took, and by which way
  -i                         shows the head too
  -X METHOD, -d BODY         another method, and what is sent
  -H 'NAME: VALUE'           a field of the request";

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
async fn main() -> ExitCode {
    portolan_examples::start(USAGE, 1, run).await
}

/// What it does with the words that it was called with.
pub async fn run(args: Vec<String>) -> Result<()> {
    let (client, wanted) = read(args)?;
    for url in &wanted.urls {
        let method = wanted.method.as_deref().unwrap_or(if wanted.body.is_some() { "POST" } else { "GET" });
        let method = method.parse().map_err(|_| Error::usage(format!("{method:?} is no method")))?;
        let mut request = client.request(method, url);
        for (name, value) in &wanted.headers {
            request = request.header(name.as_str(), value.as_str());
        }
        if let Some(body) = &wanted.body {
            request = request.body(body.clone());
        }
        let mut response = request.send().await?;
        if wanted.head {
            show(&head(&response))?;
        }
        while let Some(data) = response.chunk().await? {
            show(&data)?;
        }
        if wanted.timings {
            show_timings(&response);
        }
    }
    Ok(())
}

fn read(args: Vec<String>) -> Result<(Client, Wanted)> {
    let mut client = Client::builder().user_agent("portolan-get")?;
    let mut wanted = Wanted::default();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| Error::usage(format!("{arg} needs a value\n{USAGE}")));
        match arg.as_str() {
            "--http1" => client = client.version(Version::Http1Only),
            "--http2" => client = client.version(Version::Http2Only),
            "--http3" => client = client.version(Version::Http3Only),
            "--proxy" => client = through(client, &value()?)?,
            "--cacert" => client = client.tls(trusting(&value()?)?),
            "--timings" => wanted.timings = true,
            "-i" => wanted.head = true,
            "-X" => wanted.method = Some(value()?),
            "-d" => wanted.body = Some(value()?),
            "-H" => {
                let field = value()?;
                let (name, value) =
                    field.split_once(':').ok_or_else(|| Error::usage(format!("{field:?} is no field")))?;
                wanted.headers.push((name.trim().to_owned(), value.trim().to_owned()));
            }
            option if option.starts_with('-') => return Err(Error::usage(format!("{option} is not known\n{USAGE}"))),
            _ => wanted.urls.push(arg),
        }
    }
    if wanted.urls.is_empty() {
        return Err(Error::usage(USAGE));
    }
    Ok((client.build()?, wanted))
}

fn through(client: ClientBuilder, hop: &str) -> Result<ClientBuilder> {
    Ok(if hop == "system" { client.proxy_from_system() } else { client.proxy(Hop::parse(hop)?) })
}

fn trusting(path: &str) -> Result<Tls> {
    let pem = std::fs::read(path).map_err(|error| Error::usage(format!("{path} can't be read")).with_source(error))?;
    Tls::builder().roots(Roots::Custom).root_pem(&pem).build()
}

/// As it came, whatever it is.
fn show(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    written.map_err(|error| Error::usage("nobody reads what is shown").with_source(error))
}

fn head(response: &Response) -> Vec<u8> {
    let mut head = format!("{:?} {}\r\n", response.version(), response.status()).into_bytes();
    for (name, value) in response.headers() {
        head.extend_from_slice(format!("{name}: ").as_bytes());
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

fn show_timings(response: &Response) {
    let info = response.connection_info();
    let (made, call) = (info.timings, response.timings());
    let peer = info.peer.map_or_else(|| "an unknown address".to_owned(), |peer| peer.to_string());
    let reused = if response.is_reused() { ", connection reused" } else { "" };
    eprintln!("\n{:?} from {peer}{reused}", response.version());
    for hop in &info.hops {
        eprintln!("  {:<16} {:>10.1?}  {}", format!("hop {}", hop.kind), hop.elapsed, hop.authority);
    }
    for (name, time) in [("resolve", made.resolve), ("connect", made.connect), ("hops", made.hops), ("tls", made.tls)] {
        if let Some(time) = time {
            eprintln!("  {name:<16} {time:>10.1?}");
        }
    }
    eprintln!("  {:<16} {:>10.1?}\n  {:<16} {:>10.1?}", "first byte", call.first_byte, "total", call.total);
    if let Some(tls) = &info.tls {
        eprintln!("  {} {} {}", tls.version, tls.cipher, tls.group);
    }
}
