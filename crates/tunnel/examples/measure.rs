//! What a tunnel costs: `cargo run --release -p portolan-tunnel --example measure [memory|speed]`.
//!
//! Memory is the gateway's heap alone, by a counting allocator: its peers are another process. Speed is paired with a
//! plain TCP relay (`tokio::io::copy_bidirectional` with buffers of 64 KiB) of the same shape, in turns.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    unsafe_code,
    reason = "a program for measuring: it counts allocations, and opens both ends itself"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use portolan_core::{Connector, Endpoint, Policy, TcpOptions};
use portolan_tunnel::gateway::{Gateway, Metrics};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const TUNNELS: usize = 1000;
/// Small, so that a thousand stalled tunnels don't fill the machine's memory with what the kernel holds.
const SOCKET_BUFFER: u32 = 32 << 10;
const VOLUME: usize = 1 << 30;
const TURNS: usize = 5;
const ROUNDS: usize = 20_000;

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn grow(by: usize) {
    let live = LIVE.fetch_add(by, Ordering::Relaxed) + by;
    PEAK.fetch_max(live, Ordering::Relaxed);
}

// SAFETY: all is done by the system's allocator; this counts beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        grow(size);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.realloc(place, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[tokio::main(worker_threads = 2)]
async fn main() {
    let what = std::env::args().nth(1).unwrap_or_default();
    if what == "peers" {
        return peers().await;
    }
    if what != "speed" {
        memory().await;
    }
    if what != "memory" {
        speed().await;
    }
}

fn small() -> Connector {
    let tcp = TcpOptions::default().send_buffer(SOCKET_BUFFER).recv_buffer(SOCKET_BUFFER);
    Connector::builder().tcp(tcp).build().unwrap()
}

/// The process with clients and targets: it does what it is told, line by line, and says when it has.
struct Peers {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Peers {
    fn start(gateway: SocketAddr) -> Self {
        let exe = std::env::current_exe().unwrap();
        let command = |exe| {
            Command::new(exe).args(["peers", &gateway.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
        };
        let mut child = command(exe).unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Self { child, said }
    }

    fn tell(&mut self, word: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{word}").unwrap();
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), word);
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn peers() {
    let gateway = std::env::args().nth(2).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Endpoint::from(listener.local_addr().unwrap());
    let hop = portolan_tunnel::hop(&format!("ws+tunnel://{gateway}/")).unwrap();
    let net = small().to_builder().via(hop).build().unwrap();
    let (mut near, mut far) = (Vec::new(), Vec::new());
    for _ in 0..TUNNELS {
        let (stream, accepted) = tokio::join!(net.connect(&target), listener.accept());
        near.push(stream.unwrap());
        far.push(accepted.unwrap().0);
    }
    let mut ends: Vec<_> = near.into_iter().zip(far).collect();
    let mut lines = std::io::stdin().lines();
    let mut said = std::io::stdout();
    let mut tasks = tokio::task::JoinSet::new();
    while let Some(Ok(line)) = lines.next() {
        match line.as_str() {
            // Every tunnel was used, both ways, before it is idle.
            "use" => {
                for (near, far) in &mut ends {
                    let mut block = vec![7; 100_000];
                    let up = async {
                        near.write_all(&[1; 100_000]).await?;
                        near.flush().await
                    };
                    tokio::try_join!(up, far.read_exact(&mut block)).unwrap();
                    let mut back = vec![7; 100_000];
                    tokio::try_join!(far.write_all(&block), near.read_exact(&mut back)).unwrap();
                }
            }
            // All write for ever, and nobody reads.
            "stuff" => {
                for (mut near, mut far) in std::mem::take(&mut ends) {
                    tasks.spawn(async move {
                        let up = async { while near.write_all(&[2; 16384]).await.is_ok() {} };
                        let down = async { while far.write_all(&[3; 16384]).await.is_ok() {} };
                        tokio::join!(up, down);
                    });
                }
            }
            _ => {}
        }
        writeln!(said, "{line}").unwrap();
        said.flush().unwrap();
    }
}

async fn memory() {
    let net = small();
    let listener = net.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let limits = portolan_tunnel::gateway::Limits::new().max_per_client(TUNNELS);
    let gateway = Gateway::builder().connector(net).policy(Policy::any()).anyone().limits(limits).build().unwrap();
    let serving = gateway.clone();
    tokio::spawn(async move { serving.serve(listener).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = LIVE.load(Ordering::Relaxed);
    let each = |bytes: usize| format!("{:.1} KiB", bytes.saturating_sub(before) as f64 / TUNNELS as f64 / 1024.0);
    let mut peers = tokio::task::spawn_blocking(move || {
        let mut peers = Peers::start(addr);
        peers.tell("ready");
        peers
    })
    .await
    .unwrap();
    assert_eq!(gateway.metrics().active, TUNNELS);
    println!("heap per tunnel of {TUNNELS}, idle and never used: {}", each(LIVE.load(Ordering::Relaxed)));
    peers.tell("use");
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!("heap per tunnel, idle after use: {}", each(LIVE.load(Ordering::Relaxed)));
    PEAK.store(LIVE.load(Ordering::Relaxed), Ordering::Relaxed);
    peers.tell("stuff");
    let metrics = still(&gateway).await;
    println!("heap per tunnel under full backpressure both ways: {}", each(LIVE.load(Ordering::Relaxed)));
    println!(
        "the peak of it: {}; most payload held of one tunnel: {} bytes",
        each(PEAK.load(Ordering::Relaxed)),
        metrics.held_most
    );
    drop(peers);
    while gateway.metrics().active > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("left per tunnel when all are gone: {}", each(LIVE.load(Ordering::Relaxed)));
}

/// Waits until nothing moves any more.
async fn still(gateway: &Gateway) -> Metrics {
    let mut last = gateway.metrics();
    loop {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let now = gateway.metrics();
        if now == last {
            return now;
        }
        last = now;
    }
}

/// A target: it takes all, or gives for ever, or echoes, as the first byte says.
async fn target() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                tcp.set_nodelay(true)?;
                let mut block = vec![0; 256 << 10];
                match tcp.read_u8().await? {
                    b'u' => {
                        let mut left = VOLUME;
                        while left > 0 {
                            left -= tcp.read(&mut block).await?.max(1).min(left);
                        }
                        tcp.write_u8(1).await?;
                    }
                    b'd' => while tcp.write_all(&block).await.is_ok() {},
                    _ => loop {
                        let n = tcp.read(&mut block[..64]).await?;
                        if n == 0 {
                            break;
                        }
                        tcp.write_all(&block[..n]).await?;
                    },
                }
                std::io::Result::Ok(())
            });
        }
    });
    addr
}

async fn relay(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut far = TcpStream::connect(to).await?;
                near.set_nodelay(true)?;
                far.set_nodelay(true)?;
                tokio::io::copy_bidirectional_with_sizes(&mut near, &mut far, 64 << 10, 64 << 10).await
            });
        }
    });
    addr
}

async fn run(net: &Connector, to: &Endpoint, what: u8) -> f64 {
    let mut stream = net.connect(to).await.unwrap();
    let mut block = vec![5; 256 << 10];
    let started = Instant::now();
    stream.write_all(&[what]).await.unwrap();
    match what {
        b'u' => {
            for _ in 0..VOLUME / block.len() {
                stream.write_all(&block).await.unwrap();
            }
            stream.flush().await.unwrap();
            stream.read_u8().await.unwrap();
        }
        b'd' => {
            let mut left = VOLUME;
            while left > 0 {
                left -= stream.read(&mut block).await.unwrap().max(1).min(left);
            }
        }
        _ => {
            for _ in 0..ROUNDS {
                stream.write_all(&[9; 64]).await.unwrap();
                stream.read_exact(&mut block[..64]).await.unwrap();
            }
        }
    }
    started.elapsed().as_secs_f64()
}

async fn speed() {
    let to = target().await;
    let plain = Endpoint::from(relay(to).await);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let gateway = Gateway::builder().policy(Policy::any()).anyone().build().unwrap();
    let serving = gateway.clone();
    tokio::spawn(async move { serving.serve(listener).await });
    let hop = portolan_tunnel::hop(&format!("ws+tunnel://{addr}/")).unwrap();
    let (direct, via) = (Connector::default(), Connector::builder().via(hop).build().unwrap());
    let to = Arc::new(Endpoint::from(to));
    for (what, name) in [(b'u', "1 GiB up"), (b'd', "1 GiB down"), (b'e', "20,000 round trips of 64 bytes")] {
        let (mut tunnel, mut relay) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            relay.push(run(&direct, &plain, what).await);
            tunnel.push(run(&via, &to, what).await);
        }
        let median = |times: &mut Vec<f64>| {
            times.sort_by(f64::total_cmp);
            times[TURNS / 2]
        };
        let (tunnel, relay) = (median(&mut tunnel), median(&mut relay));
        println!("{name}: tunnel {tunnel:.3} s, plain relay {relay:.3} s, ratio {:.2}", relay / tunnel);
    }
}
