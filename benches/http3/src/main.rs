//! HTTP/3 beside reqwest's and the bare h3 crate's, interleaved in one run against caddy: `cargo xtask bench peers http3`.
//!
//! Printed is the CPU time of the client's thread per request, and of it what was spent in user mode; then system calls and
//! allocations per request. With `at NAME WORKLOAD URL TASKS EACH` it runs one client alone, against a server that is there.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    unsafe_code,
    reason = "a bench prints, counts allocations, and stops where it can't go on"
)]

mod bare;
#[path = "../../src/paired.rs"]
mod paired;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use paired::{Make, Work, fan, measure, measure_download, syscalls};
use portolan_testbed::{Certs, Service, free_port};

const BIG: usize = 100 << 20;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator as it is; only a number is kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOC: Counting = Counting;

/// The first is ours.
const CLIENTS: [(&str, Make, Make); 3] = [
    ("portolan", ours::get, ours::download),
    ("reqwest", reqwest_::get, reqwest_::download),
    ("h3+quinn", bare::get, bare::download),
];

fn client(name: &str) -> (&'static str, Make, Make) {
    *CLIENTS.iter().find(|(known, ..)| *known == name).unwrap()
}

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
        ["at", name, workload @ ("get" | "download"), url, tasks, each] => {
            let (name, get, download) = client(name);
            let make = if *workload == "get" { get } else { download };
            let (micros, rate, user) = paired::run(make, url, tasks.parse().unwrap(), each.parse().unwrap());
            println!("{name}: {micros:.2} us CPU/op, {user:.2} in user mode, {rate:.2} ops/s");
        }
        _ => panic!("usage: portolan-bench-http3 [at NAME get|download URL TASKS EACH]"),
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
    let gets = CLIENTS.map(|(name, get, _)| (name, get));
    measure("HTTP/3 GET 16 B, 50 streams on 1 connection", &small, (50, 400), &gets, &[]);
    measure("HTTP/3 GET 16 B, 1 stream", &small, (1, 10_000), &gets, &[]);
    let big = format!("https://localhost:{port}/big");
    let downloads = CLIENTS.map(|(name, _, download)| (name, download));
    measure_download("HTTP/3 download of 100 MiB", &big, BIG, &downloads, &["-k", "--http3-only"]);
    println!("At steady state, HTTP/3");
    for (name, get, _) in CLIENTS {
        for (title, tasks) in [("50 streams", 50), ("1 stream", 1)] {
            syscalls(title, name, "get", &small, tasks);
            println!("  {name:<12} {:>9.2} allocations a request: {title}", allocations(get, &small, tasks));
        }
    }
}

/// Those of a longer run less those of a shorter one, as with the system calls.
fn allocations(make: Make, url: &str, tasks: u64) -> f64 {
    let (few, many) = (50, 250);
    let count = |each| {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        paired::run(make, url, tasks, each);
        ALLOCATIONS.load(Ordering::Relaxed) - before
    };
    let (less, more) = (count(few), count(many));
    more.saturating_sub(less) as f64 / (tasks * (many - few)) as f64
}
