//! The heap that an idle connection holds: `cargo run --release -p portolan-benches --bin heap`.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    unsafe_code,
    reason = "a bench counts allocations, starts its peer and prints"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};

use portolan_core::{Connector, Endpoint};
use portolan_db::redis;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

static LIVE: AtomicIsize = AtomicIsize::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator as it is; only a number is kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size().cast_signed(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size().cast_signed(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOC: Counting = Counting;

const COUNT: usize = 200;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // The peer is a process of its own in all but name: a thread with a runtime, whose heap is counted before and after too,
    // so it keeps nothing per connection but the socket.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = Endpoint::from(listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                use std::io::{Read, Write};
                let mut room = [0; 256];
                while stream.read(&mut room).is_ok_and(|n| n > 0) {
                    let _ = stream.write_all(b"+PONG\r\n");
                }
            });
        }
    });
    let net = Connector::default();
    drop(net.connect(&to).await.unwrap());

    let mut plain = Vec::with_capacity(COUNT);
    let before = LIVE.load(Ordering::Relaxed);
    for _ in 0..COUNT {
        let mut stream = net.connect(&to).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        stream.read_exact(&mut [0; 7]).await.unwrap();
        plain.push(stream);
    }
    report("core::Stream over TCP", before);

    let options = redis::Options::new(to).resp2();
    let mut clients = Vec::with_capacity(COUNT);
    let before = LIVE.load(Ordering::Relaxed);
    for _ in 0..COUNT {
        let client = redis::Client::connect(&net, options.clone()).await.unwrap();
        client.ping().await.unwrap();
        clients.push(client);
    }
    report("redis::Client, its driver and buffers", before);
}

fn report(what: &str, before: isize) {
    let held = LIVE.load(Ordering::Relaxed) - before;
    println!("{what}: {} bytes of heap each (peer's thread handles included)", held / COUNT.cast_signed());
}
