//! CPU and allocations of one echo, by client, for 64 bytes and 1 MiB: `cargo run --release [ROUNDS [CLIENT [SIZE]]]`.
//!
//! One server for all, in a thread of its own; each client on a current-thread runtime over loopback. What is measured is the
//! CPU time of the client's thread (CLOCK_THREAD_CPUTIME_ID), in interleaved rounds; the median of the rounds' ratios counts,
//! since the absolute figures drift with the machine.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use portolan_websocket::handshake::accept;
use portolan_websocket::{Options, WebSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

thread_local!(static COUNT: Cell<u64> = const { Cell::new(0) });

struct Counting;

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        unsafe { System.alloc(layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        unsafe { System.realloc(at, layout, size) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOC: Counting = Counting;

/// Nanoseconds of CPU that this thread has used.
fn cpu() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn serve() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::Builder::new().name("server".to_owned());
    let _ = server.spawn(move || {
        runtime().block_on(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let (mut io, _) = listener.accept().await.unwrap();
                io.set_nodelay(true).unwrap();
                tokio::task::spawn_local(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(io.read_u8().await.unwrap());
                    }
                    let head = String::from_utf8(head).unwrap();
                    let mut request = portolan_core_http_request(&head);
                    *request.uri_mut() = "/".parse().unwrap();
                    let (response, options) = accept(&request, Options::new(), &[]).unwrap();
                    let mut out = "HTTP/1.1 101 Switching Protocols\r\n".to_owned();
                    for (name, value) in response.headers() {
                        out += &format!("{name}: {}\r\n", value.to_str().unwrap());
                    }
                    io.write_all((out + "\r\n").as_bytes()).await.unwrap();
                    let mut socket = WebSocket::from_stream(io, options);
                    while let Ok(Some(message)) = socket.recv().await {
                        if message.is_data() && socket.feed(message).await.is_err() {
                            return;
                        }
                        // What came together is answered together.
                        while let Some(Ok(Some(message))) = socket.recv().now_or_never() {
                            if message.is_data() && socket.feed(message).await.is_err() {
                                return;
                            }
                        }
                        let _ = socket.flush().await;
                    }
                });
            }
        });
    });
    address
}

fn portolan_core_http_request(head: &str) -> http::Request<()> {
    let mut request = http::Request::builder();
    for line in head.lines().skip(1).take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").unwrap();
        request = request.header(name, value);
    }
    request.body(()).unwrap()
}

fn runtime() -> tokio::runtime::LocalRuntime {
    tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap()
}

async fn upgraded(address: SocketAddr) -> TcpStream {
    let mut io = TcpStream::connect(address).await.unwrap();
    io.set_nodelay(true).unwrap();
    let request = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    io.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.unwrap());
    }
    io
}

/// CPU nanoseconds and allocations of one echo.
type Figures = (f64, f64);

/// What is echoed.
#[derive(Clone)]
struct Work {
    body: Bytes,
    /// Messages sent before the first echo is awaited.
    flight: u32,
    /// Such flights.
    count: u32,
}

/// Measures the flights of `work`, after some that warm up.
macro_rules! measure {
    ($work:expr, $send:expr, $recv:expr) => {{
        let mut figures = (0.0, 0.0);
        for count in [($work.count / 10).max(5), $work.count] {
            let (time, allocations) = (cpu(), COUNT.get());
            for _ in 0..count {
                $send;
                for _ in 0..$work.flight {
                    assert_eq!($recv, $work.body.len());
                }
            }
            let per = |total: u64| total as f64 / f64::from(count * $work.flight);
            figures = (per(cpu() - time), per(COUNT.get() - allocations));
        }
        figures
    }};
}

/// Feeds a sink a flight of messages and flushes it.
macro_rules! fly {
    ($work:expr, $socket:expr, $message:expr) => {{
        for _ in 0..$work.flight {
            $socket.feed($message).await.unwrap();
        }
        $socket.flush().await.unwrap();
    }};
}

async fn portolan(address: SocketAddr, work: Work) -> Figures {
    let net = portolan_core::Connector::default();
    let mut socket = WebSocket::connect(&net, &format!("ws://{address}/"), Options::new()).await.unwrap();
    measure!(work, fly!(work, socket, work.body.clone()), socket.recv().await.unwrap().unwrap().into_data().len())
}

/// It has no write buffer: each frame is a write.
async fn fast(address: SocketAddr, work: Work) -> Figures {
    use fastwebsockets::{FragmentCollector, Frame, Payload, Role, WebSocket};
    let mut socket = WebSocket::after_handshake(upgraded(address).await, Role::Client);
    socket.set_writev(true);
    let mut socket = FragmentCollector::new(socket);
    measure!(
        work,
        for _ in 0..work.flight {
            socket.write_frame(Frame::binary(Payload::Borrowed(&work.body))).await.unwrap();
        },
        socket.read_frame().await.unwrap().payload.len()
    )
}

async fn tungstenite(address: SocketAddr, work: Work) -> Figures {
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::{Message, protocol::Role};
    let mut socket = WebSocketStream::from_raw_socket(upgraded(address).await, Role::Client, None).await;
    measure!(work, fly!(work, socket, Message::Binary(work.body.clone())), socket.next().await.unwrap().unwrap().len())
}

async fn websockets(address: SocketAddr, work: Work) -> Figures {
    use tokio_websockets::{ClientBuilder, Message};
    let mut socket = ClientBuilder::new().take_over(upgraded(address).await);
    measure!(
        work,
        fly!(work, socket, Message::binary(work.body.clone())),
        socket.next().await.unwrap().unwrap().as_payload().len()
    )
}

/// The floor: frames made beforehand are written and their echoes counted, and nothing is looked at.
async fn bare(address: SocketAddr, work: Work) -> Figures {
    let mut io = upgraded(address).await;
    // A mask of zeros leaves the payload as it is.
    let mut frame = vec![0x82];
    let head = match work.body.len() {
        len @ ..126 => {
            frame.push(0x80 | len as u8);
            2
        }
        len => {
            frame.push(0xff);
            frame.extend((len as u64).to_be_bytes());
            10
        }
    };
    frame.extend([0; 4]);
    frame.extend(&work.body);
    let frames = frame.repeat(work.flight as usize);
    let mut buf = vec![0; (head + work.body.len()) * work.flight as usize];
    let mut left = 0;
    measure!(
        work,
        {
            io.write_all(&frames).await.unwrap();
            io.read_exact(&mut buf).await.unwrap();
            left = work.flight;
        },
        {
            left -= 1;
            std::hint::black_box(left);
            work.body.len()
        }
    )
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let rounds: usize = std::env::args().nth(1).map_or(9, |text| text.parse().unwrap());
    let address = serve();
    let names = ["portolan", "fastwebsockets", "tokio-tungstenite", "tokio-websockets", "bare socket"];
    let only = std::env::args().nth(2);
    let size_only: Option<usize> = std::env::args().nth(3).map(|text| text.parse().unwrap());
    let works = [(64, 1, 10_000u32), (64, 100, 400), (1 << 20, 1, 300)];
    for (size, flight, count) in works.into_iter().filter(|work| size_only.is_none_or(|only| only == work.0)) {
        let work = Work { body: Bytes::from(vec![b'x'; size]), flight, count };
        let mut seen: [Vec<Figures>; 5] = Default::default();
        for round in 0..rounds {
            // Each round begins with another client, so that none always runs in the wake of the same one.
            for at in (0..5).map(|at| (at + round) % 5).filter(|at| only.as_ref().is_none_or(|only| only == names[*at]))
            {
                let work = work.clone();
                let figures = runtime().block_on(async {
                    match at {
                        0 => portolan(address, work).await,
                        1 => fast(address, work).await,
                        2 => tungstenite(address, work).await,
                        3 => websockets(address, work).await,
                        _ => bare(address, work).await,
                    }
                });
                seen[at].push(figures);
            }
        }
        println!("echo of {size} bytes, {flight} in flight");
        for at in (0..5).filter(|at| !seen[*at].is_empty()) {
            let time = median(seen[at].iter().map(|figures| figures.0 / 1000.0).collect());
            let paired = seen[0].iter().chain(if seen[0].is_empty() { &seen[at][..] } else { &[] }).zip(&seen[at]);
            let ratio = median(paired.map(|(ours, theirs)| ours.0 / theirs.0).collect());
            let allocations = median(seen[at].iter().map(|figures| figures.1).collect());
            println!(
                "  {:<18} {time:9.2} us CPU  {allocations:6.3} allocations  portolan is {ratio:.2} of it",
                names[at]
            );
        }
    }
}
