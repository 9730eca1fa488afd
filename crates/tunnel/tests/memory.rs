//! The bars of memory: 24 KiB for an idle tunnel, 300 KiB for one that is stalled both ways. `examples/measure.rs` gives the
//! figures of a thousand; here a hundred must stay below.

#![allow(
    clippy::disallowed_methods,
    clippy::large_futures,
    clippy::panic,
    clippy::unwrap_used,
    unsafe_code,
    reason = "a test that counts allocations"
)]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portolan_core::{Connector, Endpoint, Policy, TcpOptions};
use portolan_tunnel::gateway::{Gateway, Limits};
use support::soon;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const TUNNELS: usize = 100;
/// Small, so that the kernel holds little and the gateway all that it may.
const SOCKET_BUFFER: u32 = 32 << 10;

/// What the gateway's thread holds; its peers live in others.
static LIVE: AtomicUsize = AtomicUsize::new(0);
thread_local!(static COUNTED: Cell<bool> = const { Cell::new(false) });

struct Counting;

fn counted() -> bool {
    COUNTED.try_with(Cell::get).unwrap_or(false)
}

// SAFETY: all is done by the system's allocator; this counts beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if counted() {
            LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        }
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        if counted() {
            LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        }
        // SAFETY: the caller's promises are handed on.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn small() -> Connector {
    let tcp = TcpOptions::default().send_buffer(SOCKET_BUFFER).recv_buffer(SOCKET_BUFFER);
    Connector::builder().tcp(tcp).build().unwrap()
}

/// A gateway in a thread of its own, whose allocations are counted.
fn gateway() -> (Gateway, std::net::SocketAddr) {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        COUNTED.set(true);
        runtime.block_on(async move {
            let net = small();
            let listener = net.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
            let addr = listener.local_addr().unwrap();
            let gateway = Gateway::builder().connector(net).policy(Policy::any()).anyone();
            let gateway = gateway.limits(Limits::new().max_per_client(TUNNELS)).build().unwrap();
            tell.send((gateway.clone(), addr)).unwrap();
            gateway.serve(listener).await.unwrap();
            // Tunnels outlive the accepting.
            while gateway.metrics().active > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    });
    told.recv().unwrap()
}

/// Waits until nothing moves any more.
async fn still(gateway: &Gateway) {
    let bytes = || (gateway.metrics().bytes_up, gateway.metrics().bytes_down);
    let mut before = None;
    while before.replace(bytes()) != Some(bytes()) {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Waits until it is so, however slow the machine.
async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn idle_and_stalled_tunnels_stay_below_their_bars() {
    let (gateway, addr) = gateway();
    let before = LIVE.load(Ordering::Relaxed);
    let each = || LIVE.load(Ordering::Relaxed).saturating_sub(before) / TUNNELS;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Endpoint::from(listener.local_addr().unwrap());
    let net = small().to_builder().via(portolan_tunnel::hop(&format!("ws+tunnel://{addr}/")).unwrap()).build().unwrap();
    let mut ends = Vec::new();
    for _ in 0..TUNNELS {
        let (near, far) = soon("a tunnel", async { tokio::join!(net.connect(&target), listener.accept()) }).await;
        ends.push((near.unwrap(), far.unwrap().0));
    }
    for (near, far) in &mut ends {
        let (mut there, mut back) = (vec![0; 100_000], vec![0; 100_000]);
        let up = async {
            near.write_all(&[1; 100_000]).await?;
            near.flush().await
        };
        soon("up", async { tokio::try_join!(up, far.read_exact(&mut there)) }).await.unwrap();
        soon("down", async { tokio::try_join!(far.write_all(&[1; 100_000]), near.read_exact(&mut back)) })
            .await
            .unwrap();
    }
    soon("idle tunnels below 24 KiB", until(|| each() <= 24 << 10)).await;
    assert!(gateway.metrics().active == TUNNELS && each() > 1 << 10, "{} bytes each when idle", each());
    let mut tasks = tokio::task::JoinSet::new();
    for (mut near, mut far) in ends {
        tasks.spawn(async move {
            let up = async { while near.write_all(&[2; 16 << 10]).await.is_ok() {} };
            let down = async { while far.write_all(&[3; 16 << 10]).await.is_ok() {} };
            tokio::join!(up, down);
        });
    }
    soon("tunnels that fill", until(|| each() > 64 << 10)).await;
    soon("tunnels that are full", still(&gateway)).await;
    assert!(each() <= 300 << 10, "{} bytes each when stalled", each());
    tasks.shutdown().await;
    soon("the end", gateway.shutdown(Duration::ZERO)).await;
}
