//! HTTP/3 beside reqwest's, interleaved in one run against caddy: `cargo xtask bench peers http3`.
//!
//! Printed is the CPU time of the client's thread per request. With `at NAME WORKLOAD URL TASKS EACH` it runs one client alone,
//! against a server that is there.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a bench prints, and stops where it can't go on"
)]

#[path = "../../src/paired.rs"]
mod paired;

use paired::{Make, Work, fan, measure, measure_download, syscalls};
use portolan_testbed::{Certs, Service, free_port};

const BIG: usize = 100 << 20;

mod ours {
    use super::{BIG, Work, fan};
    use portolan_core::{Connector, Tls};
    use portolan_http::{Client, Version};

    /// The server's certificate is the bench's own.
    fn client() -> Client {
        let tls = Tls::builder().dangerous().accept_any_certificate().build().unwrap();
        let net = Connector::builder().tls(tls).build().unwrap();
        Client::builder().connector(net).version(Version::Http3Only).build().unwrap()
    }

    pub(super) fn get(url: String, tasks: u64, each: u64) -> Work {
        let client = client();
        Box::pin(fan(tasks, each, move || {
            let (client, url) = (client.clone(), url.clone());
            async move { client.get(&url).send().await.unwrap().bytes().await.unwrap().len() }
        }))
    }

    pub(super) fn download(url: String, _: u64, each: u64) -> Work {
        let client = client();
        Box::pin(async move {
            for _ in 0..each {
                let mut response = client.get(&url).send().await.unwrap();
                let mut total = 0;
                while let Some(data) = response.chunk().await.unwrap() {
                    total += data.len();
                }
                assert_eq!(total, BIG);
            }
        })
    }
}

mod reqwest_ {
    use super::{BIG, Work, fan};

    fn client() -> reqwest::Client {
        let builder = reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true);
        builder.http3_prior_knowledge().build().unwrap()
    }

    fn ask(client: &reqwest::Client, url: &str) -> reqwest::RequestBuilder {
        client.get(url).version(reqwest::Version::HTTP_3)
    }

    pub(super) fn get(url: String, tasks: u64, each: u64) -> Work {
        Box::pin(async move {
            let client = client();
            fan(tasks, each, move || {
                let request = ask(&client, &url);
                async move { request.send().await.unwrap().bytes().await.unwrap().len() }
            })
            .await;
        })
    }

    pub(super) fn download(url: String, _: u64, each: u64) -> Work {
        Box::pin(async move {
            let client = client();
            for _ in 0..each {
                let mut response = ask(&client, &url).send().await.unwrap();
                let mut total = 0;
                while let Some(data) = response.chunk().await.unwrap() {
                    total += data.len();
                }
                assert_eq!(total, BIG);
            }
        })
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        [] => all(),
        ["at", name, "get", url, tasks, each] => {
            let make: Make = if *name == "portolan" { ours::get } else { reqwest_::get };
            let (micros, rate, _) = paired::run(make, url, tasks.parse().unwrap(), each.parse().unwrap());
            println!("{name}: {micros:.2} us CPU/op {rate:.0} ops/s");
        }
        ["at", name, "download", url, _, each] => {
            let make: Make = if *name == "portolan" { ours::download } else { reqwest_::download };
            let (micros, rate, _) = paired::run(make, url, 1, each.parse().unwrap());
            println!("{name}: {micros:.2} us CPU/op {rate:.2} ops/s");
        }
        _ => panic!("usage: portolan-bench-http3 [at NAME get URL TASKS EACH]"),
    }
}

fn all() {
    let (certs, port) = (Certs::new(), free_port());
    let conf = format!(
        "{{\n admin off\n auto_https off\n storage file_system $D/data\n}}\n\
         https://localhost:{port} {{\n bind 127.0.0.1\n tls $D/server.pem $D/server.key\n root * $D\n file_server\n}}\n"
    );
    let server = Service::new("caddy", "caddy").file("Caddyfile", conf).file("small", "sixteen bytes ok").tls(&certs);
    let server = server.env("HOME", "$D").args(["run", "--config", "$D/Caddyfile", "--adapter", "caddyfile"]);
    let Some(server) = server.accepts(([127, 0, 0, 1], port).into()).start() else {
        println!("HTTP/3: caddy is missing (apt-get install caddy)");
        return;
    };
    std::fs::File::create(server.dir().join("big")).unwrap().set_len(BIG as u64).unwrap();
    let small = format!("https://localhost:{port}/small");
    let gets: &[(&str, Make)] = &[("portolan", ours::get), ("reqwest", reqwest_::get)];
    measure("HTTP/3 GET 16 B, 50 streams on 1 connection", &small, 50, 400, gets);
    measure("HTTP/3 GET 16 B, 1 stream", &small, 1, 4_000, gets);
    let big = format!("https://localhost:{port}/big");
    let downloads: &[(&str, Make)] = &[("portolan", ours::download), ("reqwest", reqwest_::download)];
    measure_download("HTTP/3 download of 100 MiB", &big, BIG, downloads, &["-k", "--http3-only"]);
    println!("System calls at steady state, HTTP/3");
    for client in ["portolan", "reqwest"] {
        syscalls("50 streams", client, "get", &small, 50);
        syscalls("1 stream", client, "get", &small, 1);
    }
}
