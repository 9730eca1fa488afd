//! Us and the best peers, interleaved in one run: `cargo xtask bench peers redis`.
//!
//! What is printed is the CPU time of the client's thread per operation (user and system, getrusage) and operations per
//! second, the median of the rounds. The ratio within one run is what counts; the absolute figures drift with the machine.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a bench starts its server, reads the clock and prints"
)]

use std::future::Future;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use portolan_core::{Connector, Endpoint};
use portolan_db::redis as ours;

const ROUNDS: usize = 5;

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("redis") => redis_peers(),
        _ => panic!("usage: peers redis"),
    }
}

/// A redis-server of its own, ended when dropped.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("redis-server: {error} (apt-get install redis-server)"));
        let started = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(10), "redis-server does not listen");
            std::thread::yield_now();
        }
        Self { child, port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU time of this thread: the client's runtime is a current-thread one.
fn cpu() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    #[allow(unsafe_code, reason = "getrusage has no safe wrapper")]
    // SAFETY: `usage` is valid for writes of a whole rusage, which the call fills; zeroes are a valid rusage as well.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
        usage.assume_init()
    };
    let part = |t: libc::timeval| Duration::new(t.tv_sec.unsigned_abs(), u32::try_from(t.tv_usec).unwrap_or(0) * 1000);
    part(usage.ru_utime) + part(usage.ru_stime)
}

type Work = Pin<Box<dyn Future<Output = u64>>>;

/// One contender: makes its work for a port.
struct Contender {
    name: &'static str,
    work: fn(u16) -> Work,
}

fn measure(title: &str, port: u16, contenders: &[Contender]) {
    let mut results: Vec<Vec<(f64, f64)>> = vec![Vec::new(); contenders.len()];
    for _ in 0..ROUNDS {
        for (contender, results) in contenders.iter().zip(&mut results) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let local = tokio::task::LocalSet::new();
            let (before, started) = (cpu(), Instant::now());
            let operations = local.block_on(&runtime, (contender.work)(port)) as f64;
            let (cpu, wall) = (cpu() - before, started.elapsed());
            results.push((cpu.as_secs_f64() * 1e6 / operations, operations / wall.as_secs_f64()));
        }
    }
    println!("{title}");
    let mut base = None;
    for (contender, results) in contenders.iter().zip(&mut results) {
        results.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (micros, rate) = results[results.len() / 2];
        let base = *base.get_or_insert(micros);
        println!(
            "  {:<12} {micros:>7.2} us CPU/op {rate:>10.0} ops/s   portolan/it = {:.2}",
            contender.name,
            base / micros
        );
    }
}

fn redis_peers() {
    let server = Server::start();
    measure(
        "redis GET, 1 in flight",
        server.port,
        &[Contender { name: "portolan", work: ours_one }, Contender { name: "redis-rs", work: theirs_one }],
    );
    measure(
        "redis GET, 100 callers on one connection",
        server.port,
        &[Contender { name: "portolan", work: ours_hundred }, Contender { name: "redis-rs", work: theirs_hundred }],
    );
    measure(
        "redis GET, pipelines of 100",
        server.port,
        &[Contender { name: "portolan", work: ours_pipeline }, Contender { name: "redis-rs", work: theirs_pipeline }],
    );
}

const ONE: u64 = 20_000;
const EACH: u64 = 2_000;
const CALLERS: u64 = 100;
const PIPELINES: u64 = 2_000;

async fn our_client(port: u16) -> ours::Client {
    let options = ours::Options::new(Endpoint::new("127.0.0.1", port).unwrap());
    let client = ours::Client::connect(&Connector::default(), options).await.unwrap();
    client.set("key", "value").await.unwrap();
    client
}

async fn their_client(port: u16) -> redis::aio::MultiplexedConnection {
    redis::Client::open(("127.0.0.1", port)).unwrap().get_multiplexed_async_connection().await.unwrap()
}

fn ours_one(port: u16) -> Work {
    Box::pin(async move {
        let client = our_client(port).await;
        for _ in 0..ONE {
            let value: portolan_db::redis::Value = client.get("key").await.unwrap();
            assert!(!value.is_null());
        }
        ONE
    })
}

fn theirs_one(port: u16) -> Work {
    Box::pin(async move {
        let mut client = their_client(port).await;
        for _ in 0..ONE {
            let value: redis::Value = redis::cmd("GET").arg("key").query_async(&mut client).await.unwrap();
            assert_ne!(value, redis::Value::Nil);
        }
        ONE
    })
}

fn ours_hundred(port: u16) -> Work {
    Box::pin(async move {
        let client = our_client(port).await;
        let tasks: Vec<_> = (0..CALLERS)
            .map(|_| {
                let client = client.clone();
                tokio::task::spawn_local(async move {
                    for _ in 0..EACH {
                        let value: portolan_db::redis::Value = client.get("key").await.unwrap();
                        assert!(!value.is_null());
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        CALLERS * EACH
    })
}

fn theirs_hundred(port: u16) -> Work {
    Box::pin(async move {
        let client = their_client(port).await;
        let tasks: Vec<_> = (0..CALLERS)
            .map(|_| {
                let mut client = client.clone();
                tokio::task::spawn_local(async move {
                    for _ in 0..EACH {
                        let value: redis::Value = redis::cmd("GET").arg("key").query_async(&mut client).await.unwrap();
                        assert_ne!(value, redis::Value::Nil);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        CALLERS * EACH
    })
}

fn ours_pipeline(port: u16) -> Work {
    Box::pin(async move {
        let client = our_client(port).await;
        for _ in 0..PIPELINES {
            let mut pipeline = ours::Pipeline::new();
            for _ in 0..100 {
                pipeline.push(&ours::Command::new("GET").arg("key"));
            }
            let replies = client.pipeline(&pipeline).await.unwrap();
            assert_eq!(replies.count(), 100);
        }
        PIPELINES * 100
    })
}

fn theirs_pipeline(port: u16) -> Work {
    Box::pin(async move {
        let mut client = their_client(port).await;
        for _ in 0..PIPELINES {
            let mut pipeline = redis::pipe();
            for _ in 0..100 {
                pipeline.cmd("GET").arg("key");
            }
            let replies: Vec<redis::Value> = pipeline.query_async(&mut client).await.unwrap();
            assert_eq!(replies.len(), 100);
        }
        PIPELINES * 100
    })
}
