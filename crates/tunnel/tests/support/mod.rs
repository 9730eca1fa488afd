//! What the suites share: a gateway on the loopback, targets, and a client that speaks WebSocket by hand.

#![allow(dead_code, reason = "each suite uses its part")]
#![allow(unreachable_pub, reason = "one module of several test binaries")]

use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;

use portolan_core::{Connector, Endpoint, Hop, Policy, Result, Stream};
use portolan_tunnel::gateway::{Gateway, GatewayBuilder, Metrics};
use portolan_tunnel::{SUBPROTOCOL, TARGET};
use portolan_websocket::{Incoming, Message, Options, Request, WebSocket};
use tokio::net::{TcpListener, TcpStream};

/// A wall's limit for what must come.
pub const SOON: Duration = Duration::from_secs(30);

pub async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, work).await.unwrap_or_else(|_| panic!("too late: {what}"))
}

/// A builder that lets everyone go anywhere.
pub fn open() -> GatewayBuilder {
    Gateway::builder().anyone().policy(Policy::any())
}

pub struct Running {
    pub gateway: Gateway,
    pub addr: SocketAddr,
}

impl Running {
    pub async fn start(builder: GatewayBuilder) -> Self {
        let gateway = builder.build().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let serving = gateway.clone();
        tokio::spawn(async move { serving.serve(listener).await });
        Self { gateway, addr }
    }

    pub fn url(&self) -> String {
        format!("ws+tunnel://{}/", self.addr)
    }

    pub fn hop(&self) -> Hop {
        portolan_tunnel::hop(&self.url()).unwrap()
    }

    pub fn net(&self) -> Connector {
        Connector::builder().via(self.hop()).build().unwrap()
    }

    pub async fn stream(&self, to: SocketAddr) -> Result<Stream> {
        self.net().connect(&Endpoint::from(to)).await
    }

    /// A WebSocket that asks for `target`.
    pub async fn socket(&self, target: &str) -> Result<WebSocket<Stream>> {
        let tcp = TcpStream::connect(self.addr).await.unwrap();
        handshake(Stream::from_tcp(tcp), target).await
    }

    /// Waits until the figures are so.
    pub async fn until(&self, what: &str, holds: impl Fn(&Metrics) -> bool) -> Metrics {
        let started = std::time::Instant::now();
        loop {
            let metrics = self.gateway.metrics();
            if holds(&metrics) {
                return metrics;
            }
            assert!(started.elapsed() < SOON, "{what}: {metrics:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// No tunnel is left.
    pub async fn empty(&self) -> Metrics {
        self.until("all tunnels end", |metrics| metrics.active == 0).await
    }
}

pub async fn handshake(stream: Stream, target: &str) -> Result<WebSocket<Stream>> {
    let request = Request::new("ws://gateway/")?.header(TARGET, target)?.subprotocol(SUBPROTOCOL)?;
    WebSocket::handshake(stream, &request, Options::new()).await
}

/// The next message, which is text.
pub async fn word(socket: &mut WebSocket<Stream>) -> String {
    match soon("a word", socket.recv()).await.unwrap() {
        Some(Message::Text(text)) => text.as_str().to_owned(),
        other => panic!("no word: {other:?}"),
    }
}

/// The code of the Close that comes, after whatever data.
pub async fn close_code(socket: &mut WebSocket<Stream>) -> u16 {
    soon("a Close", async {
        loop {
            match poll_fn(|cx| socket.poll_incoming(cx)).await {
                Ok(Some(Incoming::Close(frame))) => return frame.map_or(1005, |frame| frame.code.get()),
                Ok(Some(_)) => {}
                other => panic!("no Close: {other:?}"),
            }
        }
    })
    .await
}

/// A target that does `work` with each connection.
pub async fn target<F, A>(work: F) -> SocketAddr
where
    F: Fn(TcpStream) -> A + Send + 'static,
    A: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(work(tcp));
        }
    });
    addr
}

/// A target that says what it hears, and FIN after FIN.
pub async fn echo() -> SocketAddr {
    target(|mut tcp| async move {
        let (mut reader, mut writer) = tcp.split();
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut writer).await;
    })
    .await
}

/// Bytes that repeat late, so that a lost or doubled block shows.
pub struct Pattern(u64);

impl Pattern {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            chunk.copy_from_slice(&self.0.to_le_bytes()[..chunk.len()]);
        }
    }
}
