//! The HTTP client and its peers, interleaved in one run: `cargo xtask bench peers http`.
//!
//! Printed is the CPU time of the client's thread per request (user and system, getrusage) and requests per second, the median
//! of the rounds. The ratio within one run is what counts; the absolute figures drift with the machine.
//!
//! With `one NAME WORKLOAD TASKS EACH` it runs one client alone, with `at NAME WORKLOAD URL TASKS EACH` against a server that is
//! there: for valgrind, strace and perf.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a bench starts its server, reads the clock and prints"
)]

#[path = "../floor.rs"]
mod floor;
#[path = "../paired.rs"]
mod paired;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use paired::{Make, Program, Work, fan, measure, measure_download, run, syscalls};

const BIG: usize = 1 << 30;

/// An nginx of its own, ended when dropped: HTTP/1.1 and h2c ports, small and big files.
struct Nginx {
    child: Child,
    dir: PathBuf,
    h1: u16,
    h2: u16,
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Nginx {
    fn start(big: bool) -> Self {
        let (h1, h2) = (free_port(), free_port());
        let dir = std::env::temp_dir().join(format!("portolan-bench-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("small"), "sixteen bytes ok").unwrap();
        std::fs::write(dir.join("hundred"), [b'x'; 100]).unwrap();
        if big {
            std::fs::File::create(dir.join("big")).unwrap().set_len(BIG as u64).unwrap();
        }
        let config = format!(
            "daemon off; worker_processes 1; error_log {d}/error.log; pid {d}/pid;
            events {{ worker_connections 1024; }}
            http {{ access_log off; sendfile on; keepalive_requests 100000000; client_body_temp_path {d}/b;
              proxy_temp_path {d}/p; fastcgi_temp_path {d}/f; uwsgi_temp_path {d}/u; scgi_temp_path {d}/s;
              server {{ listen 127.0.0.1:{h1}; root {d}; }}
              server {{ listen 127.0.0.1:{h2} http2; sendfile off; root {d}; }} }}",
            d = dir.display()
        );
        std::fs::write(dir.join("nginx.conf"), config).unwrap();
        let child = Command::new("nginx")
            .arg("-c")
            .arg(dir.join("nginx.conf"))
            .arg("-e")
            .arg(dir.join("error.log"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("nginx: {error} (apt-get install nginx-light)"));
        for port in [h1, h2] {
            let started = Instant::now();
            while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
                assert!(started.elapsed() < Duration::from_secs(10), "nginx does not listen");
                std::thread::yield_now();
            }
        }
        Self { child, dir, h1, h2 }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

mod ours {
    use super::{Work, fan};
    use portolan_http::{Client, Version};

    fn work(url: String, tasks: u64, each: u64, version: Version) -> Work {
        let client = Client::builder().version(version).max_idle_per_host(256).max_connections_per_host(256);
        let client = client.max_streams_per_connection(1000).build().unwrap();
        Box::pin(fan(tasks, each, move || {
            let (client, url) = (client.clone(), url.clone());
            async move { client.get(&url).send().await.unwrap().bytes().await.unwrap().len() }
        }))
    }

    pub(super) fn h1(url: String, tasks: u64, each: u64) -> Work {
        work(url, tasks, each, Version::Http1Only)
    }

    pub(super) fn h2(url: String, tasks: u64, each: u64) -> Work {
        work(url, tasks, each, Version::Http2Only)
    }

    /// A whole body, piece by piece.
    pub(super) fn download(url: String, _: u64, each: u64) -> Work {
        let client = Client::new();
        Box::pin(async move {
            for _ in 0..each {
                let mut response = client.get(&url).send().await.unwrap();
                let mut total = 0;
                while let Some(data) = response.chunk().await.unwrap() {
                    total += data.len();
                }
                assert_eq!(total, super::BIG);
            }
        })
    }
}

mod reqwest_ {
    use super::{Work, fan};

    fn work(url: String, tasks: u64, each: u64, h2: bool) -> Work {
        let builder = reqwest::Client::builder().no_proxy();
        let client = if h2 { builder.http2_prior_knowledge() } else { builder.http1_only() }.build().unwrap();
        Box::pin(fan(tasks, each, move || {
            let (client, url) = (client.clone(), url.clone());
            async move { client.get(&url).send().await.unwrap().bytes().await.unwrap().len() }
        }))
    }

    pub(super) fn h1(url: String, tasks: u64, each: u64) -> Work {
        work(url, tasks, each, false)
    }

    pub(super) fn h2(url: String, tasks: u64, each: u64) -> Work {
        work(url, tasks, each, true)
    }

    pub(super) fn download(url: String, _: u64, each: u64) -> Work {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Box::pin(async move {
            for _ in 0..each {
                let mut response = client.get(&url).send().await.unwrap();
                let mut total = 0;
                while let Some(data) = response.chunk().await.unwrap() {
                    total += data.len();
                }
                assert_eq!(total, super::BIG);
            }
        })
    }
}

mod hyper_util_ {
    use super::{BodyExt, Bytes, Empty, Work, fan};
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;

    fn work(url: String, tasks: u64, each: u64, h2: bool) -> Work {
        let client = Client::builder(TokioExecutor::new()).http2_only(h2).build_http::<Empty<Bytes>>();
        Box::pin(fan(tasks, each, move || {
            let (client, url) = (client.clone(), url.clone());
            async move {
                let request = http::Request::get(&url).body(Empty::new()).unwrap();
                client.request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes().len()
            }
        }))
    }

    pub(super) fn h1(url: String, tasks: u64, each: u64) -> Work {
        work(url, tasks, each, false)
    }
}

mod hyper_ {
    use super::{BodyExt, Bytes, Empty, Rc, Work};
    use hyper_util::rt::{TokioExecutor, TokioIo};

    async fn tcp(url: &str) -> TokioIo<tokio::net::TcpStream> {
        let uri: http::Uri = url.parse().unwrap();
        let stream = tokio::net::TcpStream::connect((uri.host().unwrap(), uri.port_u16().unwrap())).await.unwrap();
        stream.set_nodelay(true).unwrap();
        TokioIo::new(stream)
    }

    fn get(url: &str) -> http::Request<Empty<Bytes>> {
        let uri: http::Uri = url.parse().unwrap();
        http::Request::get(url).header("host", uri.authority().unwrap().as_str()).body(Empty::new()).unwrap()
    }

    pub(super) fn h1(url: String, tasks: u64, each: u64) -> Work {
        Box::pin(async move {
            let url = Rc::new(url);
            let handles: Vec<_> = (0..tasks)
                .map(|_| {
                    let url = url.clone();
                    tokio::task::spawn_local(async move {
                        let (mut send, conn) = hyper::client::conn::http1::handshake(tcp(&url).await).await.unwrap();
                        tokio::task::spawn_local(conn);
                        for _ in 0..each {
                            send.ready().await.unwrap();
                            let body = send.send_request(get(&url)).await.unwrap().into_body();
                            assert_ne!(body.collect().await.unwrap().to_bytes().len(), 0);
                        }
                    })
                })
                .collect();
            for handle in handles {
                handle.await.unwrap();
            }
        })
    }

    pub(super) fn h2(url: String, tasks: u64, each: u64) -> Work {
        Box::pin(async move {
            let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
            let (send, conn) = builder.handshake(tcp(&url).await).await.unwrap();
            tokio::task::spawn_local(conn);
            super::fan(tasks, each, move || {
                let (mut send, url) = (send.clone(), url.clone());
                async move {
                    let request = http::Request::get(&url).body(Empty::<Bytes>::new()).unwrap();
                    send.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes().len()
                }
            })
            .await;
        })
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        [] => all(),
        ["one", name, workload, tasks, each] => one(name, workload, tasks.parse().unwrap(), each.parse().unwrap()),
        ["at", name, workload, url, tasks, each] => {
            at(name, workload, url, tasks.parse().unwrap(), each.parse().unwrap())
        }
        _ => panic!("usage: http [one NAME h1|h2|download TASKS EACH | at NAME h1|h2|download URL TASKS EACH]"),
    }
}

fn one(name: &str, workload: &str, tasks: u64, each: u64) {
    let nginx = Nginx::start(workload == "download");
    let (port, path) = match workload {
        "h2" => (nginx.h2, "hundred"),
        "download" => (nginx.h1, "big"),
        _ => (nginx.h1, "hundred"),
    };
    at(name, workload, &format!("http://127.0.0.1:{port}/{path}"), tasks, each);
}

fn at(name: &str, workload: &str, url: &str, tasks: u64, each: u64) {
    let make: Make = match (name, workload) {
        ("portolan", "h1") => ours::h1,
        ("portolan", "h2") => ours::h2,
        ("portolan", "download") => ours::download,
        ("reqwest", "h1") => reqwest_::h1,
        ("reqwest", "h2") => reqwest_::h2,
        ("reqwest", "download") => reqwest_::download,
        ("bare", "h1") => floor::h1,
        ("hyper-util", "h1") => hyper_util_::h1,
        ("hyper", "h1") => hyper_::h1,
        ("hyper", "h2") => hyper_::h2,
        _ => panic!("no such client or workload"),
    };
    let (micros, rate, user) = run(make, url, tasks, each);
    println!("{name} {workload}: {micros:.2} us CPU/op ({user:.2} in user mode) {rate:.0} ops/s");
}

fn all() {
    let nginx = Nginx::start(true);
    let small = format!("http://127.0.0.1:{}/small", nginx.h1);
    let h1: &[(&str, Make)] = &[
        ("portolan", ours::h1),
        ("reqwest", reqwest_::h1),
        ("hyper-util", hyper_util_::h1),
        ("hyper conn", hyper_::h1),
        ("bare loop", floor::h1),
    ];
    let c: &[(&str, Program)] = &[("h2load --h1", floor::h2load_h1)];
    let aims = "aims: 0.45 of reqwest, 0.75 of hyper-util, 1.25 of the bare loop";
    measure(&format!("HTTP/1.1 GET 16 B, 64 connections ({aims})"), &small, (64, 1_000), h1, c);
    measure("HTTP/1.1 GET 16 B, 1 connection", &small, (1, 10_000), h1, c);
    let small = format!("http://127.0.0.1:{}/small", nginx.h2);
    let h2: &[(&str, Make)] = &[("portolan", ours::h2), ("reqwest", reqwest_::h2), ("hyper conn", hyper_::h2)];
    let c: &[(&str, Program)] = &[("h2load", floor::h2load_h2)];
    let aims = "aims: 0.30 of reqwest, 0.65 of hyper, 1.5 of h2load";
    measure(&format!("HTTP/2 cleartext GET 16 B, 100 streams on 1 connection ({aims})"), &small, (100, 1_000), h2, c);
    measure("HTTP/2 cleartext GET 16 B, 1 stream", &small, (1, 10_000), h2, c);
    let big = format!("http://127.0.0.1:{}/big", nginx.h1);
    let downloads: &[(&str, Make)] = &[("portolan", ours::download), ("reqwest", reqwest_::download)];
    measure_download("HTTP/1.1 download of 1 GiB", &big, BIG, downloads, &[]);
    println!("System calls at steady state");
    let at = |port: u16| format!("http://127.0.0.1:{port}/small");
    for client in ["portolan", "reqwest"] {
        syscalls("HTTP/1.1, 64 connections", client, "h1", &at(nginx.h1), 64);
        syscalls("HTTP/2, 100 streams", client, "h2", &at(nginx.h2), 100);
        syscalls("HTTP/2, 1 stream", client, "h2", &at(nginx.h2), 1);
    }
}
