//! CPU and allocations of one call, by client: unary with 1 and 100 in flight, and streams of 1 KiB messages,
//! one and ten at once:
//! `cargo run --release [ROUNDS [WORK [CLIENT]]]`.
//!
//! One server for all (the h2 crate), in a thread of its own; each client on a current-thread runtime over loopback. What is
//! measured is the CPU time of the client's thread (CLOCK_THREAD_CPUTIME_ID), in interleaved rounds; the median of the rounds'
//! ratios counts, since the absolute figures drift with the machine.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use portolan_core::Connector;
use portolan_grpc::{Channel, Client, Method, Prost};
use prost::Message;
use http::uri::PathAndQuery;

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
    // SAFETY: the clock is there and the room is ours.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[derive(Clone, PartialEq, Message)]
struct Payload {
    #[prost(bytes = "vec", tag = "1")]
    body: Vec<u8>,
}

/// Messages of one stream.
const MESSAGES: usize = 1000;
/// Messages that the server sends at once.
const TOGETHER: usize = 10;

fn frame(message: &Payload) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.encoded_len() as u32);
    message.encode(&mut frame).unwrap();
    frame.freeze()
}

fn serve() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (io, _) = listener.accept().await.unwrap();
                io.set_nodelay(true).unwrap();
                tokio::spawn(connection(io));
            }
        });
    });
    address
}

async fn connection(io: tokio::net::TcpStream) {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(1000).initial_window_size(1 << 20).initial_connection_window_size(1 << 20);
    let mut connection = builder.handshake::<_, Bytes>(io).await.unwrap();
    let small = frame(&Payload { body: vec![7; 100] });
    // Messages that are ready together travel together, as servers send them; one by one, the server is what is measured.
    let large = Bytes::from(frame(&Payload { body: vec![7; 1024] }).repeat(TOGETHER));
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let (small, large) = (small.clone(), large.clone());
        tokio::spawn(async move {
            let streaming = request.uri().path().ends_with("Stream");
            let mut body = request.into_body();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
            }
            let response = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
            let mut send = respond.send_response(response, false).unwrap();
            if streaming {
                for _ in 0..MESSAGES / TOGETHER {
                    send.reserve_capacity(large.len());
                    while send.capacity() < large.len() {
                        if std::future::poll_fn(|cx| send.poll_capacity(cx)).await.is_none() {
                            return;
                        }
                    }
                    send.send_data(large.clone(), false).unwrap();
                }
            } else {
                send.send_data(small, false).unwrap();
            }
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
            let _ = send.send_trailers(trailers);
        });
    }
}

trait Caller: Clone {
    async fn unary(&mut self, message: Payload) -> Payload;
    async fn stream(&mut self, message: Payload) -> usize;
}

#[derive(Clone)]
struct Ours(Client<Channel>);

impl Caller for Ours {
    async fn unary(&mut self, message: Payload) -> Payload {
        let method = Method::from_static("/bench.Bench/Unary", Prost::<Payload, Payload>::new());
        self.0.unary(&method, &message).await.unwrap().into_message()
    }

    async fn stream(&mut self, message: Payload) -> usize {
        let method = Method::from_static("/bench.Bench/Stream", Prost::<Payload, Payload>::new());
        let mut replies = self.0.server_streaming(&method, &message).await.unwrap();
        let mut count = 0;
        while let Some(reply) = replies.message().await.unwrap() {
            assert_eq!(reply.body.len(), 1024);
            count += 1;
        }
        count
    }
}

/// Tonic's own calls, over a channel of its own or over one of ours as a tower service.
#[derive(Clone)]
struct Tonic<S>(tonic::client::Grpc<S>);

impl<S> Caller for Tonic<S>
where
    S: tonic::client::GrpcService<tonic::body::Body> + Clone,
    S::ResponseBody: tonic::transport::Body<Data = Bytes> + Send + 'static,
    <S::ResponseBody as tonic::transport::Body>::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    S::Error: std::fmt::Debug,
{
    async fn unary(&mut self, message: Payload) -> Payload {
        self.0.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<Payload, Payload>::default();
        let path = PathAndQuery::from_static("/bench.Bench/Unary");
        self.0.unary(tonic::Request::new(message), path, codec).await.unwrap().into_inner()
    }

    async fn stream(&mut self, message: Payload) -> usize {
        self.0.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<Payload, Payload>::default();
        let path = PathAndQuery::from_static("/bench.Bench/Stream");
        let mut replies =
            self.0.server_streaming(tonic::Request::new(message), path, codec).await.unwrap().into_inner();
        let mut count = 0;
        while let Some(reply) = replies.message().await.unwrap() {
            assert_eq!(reply.body.len(), 1024);
            count += 1;
        }
        count
    }
}

#[derive(Clone, Copy)]
enum Work {
    Unary { calls: usize, in_flight: usize },
    Stream { streams: usize, in_flight: usize },
}

/// CPU nanoseconds and allocations of one operation.
async fn run<C: Caller>(caller: &C, work: Work) -> (f64, f64) {
    let message = Payload { body: vec![7; 100] };
    let (before, allocations) = (cpu(), COUNT.get());
    let operations = match work {
        Work::Unary { calls, in_flight } => {
            let mut running = FuturesUnordered::new();
            for _ in 0..in_flight {
                let (mut caller, message) = (caller.clone(), message.clone());
                running.push(async move {
                    for _ in 0..calls / in_flight {
                        assert_eq!(caller.unary(message.clone()).await.body.len(), 100);
                    }
                });
            }
            while running.next().await.is_some() {}
            calls / in_flight * in_flight
        }
        Work::Stream { streams, in_flight } => {
            let mut running = FuturesUnordered::new();
            for _ in 0..in_flight {
                let (mut caller, message) = (caller.clone(), message.clone());
                running.push(async move {
                    for _ in 0..streams / in_flight {
                        assert_eq!(caller.stream(message.clone()).await, MESSAGES);
                    }
                });
            }
            while running.next().await.is_some() {}
            streams / in_flight * in_flight * MESSAGES
        }
    };
    ((cpu() - before) as f64 / operations as f64, (COUNT.get() - allocations) as f64 / operations as f64)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let rounds = arguments.next().map_or(15, |text| text.parse().unwrap());
    let (only_work, only_client) = (arguments.next(), arguments.next());
    let address = serve();
    let ours = Ours(Client::connect(&Connector::default(), &format!("http://{address}")).await.unwrap());
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let tonic = Tonic(tonic::client::Grpc::new(endpoint.connect().await.unwrap()));
    let mixed = Tonic(tonic::client::Grpc::new(ours.0.transport().clone()));
    assert_eq!(mixed.clone().unary(Payload { body: vec![7; 100] }).await.body.len(), 100);
    assert_eq!(mixed.clone().stream(Payload::default()).await, MESSAGES);
    for (name, work) in [
        ("unary-1", Work::Unary { calls: 2000, in_flight: 1 }),
        ("unary-100", Work::Unary { calls: 10_000, in_flight: 100 }),
        ("stream-1", Work::Stream { streams: 20, in_flight: 1 }),
        ("stream-10", Work::Stream { streams: 40, in_flight: 10 }),
    ] {
        if only_work.as_deref().is_some_and(|only| only != name) {
            continue;
        }
        let (mut a, mut b, mut c) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..=rounds {
            let one = if only_client.as_deref() != Some("tonic") { run(&ours, work).await } else { (0.0, 0.0) };
            let two = if only_client.as_deref() != Some("portolan") { run(&tonic, work).await } else { (0.0, 0.0) };
            let three = if only_client.is_none() { run(&mixed, work).await } else { (0.0, 0.0) };
            // The first round warms up.
            if round > 0 {
                a.push(one);
                b.push(two);
                c.push(three);
            }
        }
        let ratio = median(a.iter().zip(&b).map(|(a, b)| a.0 / b.0).collect());
        let of = |all: &[(f64, f64)]| {
            let cpu = median(all.iter().map(|one| one.0).collect()) / 1000.0;
            let allocations = median(all.iter().map(|one| one.1).collect());
            format!("{cpu:6.2} us {allocations:5.1} allocations")
        };
        println!("{name:10} portolan {}   tonic {}   CPU ratio {ratio:.2}   tonic over portolan {}", of(&a), of(&b), of(&c));
    }
}
