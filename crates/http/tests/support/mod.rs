//! Servers and proxies in this process, for the client's tests.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::large_futures,
    reason = "support of several test binaries, which use different parts of it and fail by panicking"
)]

pub mod everywhere;
pub mod quic;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use portolan_core::{Connector, Hop, Policy, Tls};
use portolan_testbed::{Certs, ServerTls};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

pub type Reply = Response<BoxBody<Bytes, std::io::Error>>;
pub type Handler = Arc<dyn Fn(Request<Incoming>) -> Pin<Box<dyn Future<Output = Reply> + Send>> + Send + Sync>;

/// A reply with a whole body.
pub fn reply(status: u16, body: impl Into<Bytes>) -> Reply {
    Response::builder().status(status).body(Full::new(body.into()).map_err(|never| match never {}).boxed()).unwrap()
}

/// A handler that looks at the request's head alone.
pub fn heads(answer: impl Fn(&Request<Incoming>) -> Reply + Send + Sync + 'static) -> Handler {
    Arc::new(move |request| {
        let reply = answer(&request);
        Box::pin(async move { reply })
    })
}

/// A web server: HTTP/1.1 and HTTP/2, in cleartext or over TLS.
pub struct Web {
    pub addr: SocketAddr,
    pub tls: bool,
    pub connections: Arc<AtomicUsize>,
    tasks: Arc<Mutex<Vec<tokio::task::AbortHandle>>>,
}

impl Web {
    pub async fn plain(handler: Handler) -> Self {
        Self::start(None, handler).await
    }

    /// Over TLS with these protocols.
    pub async fn tls(certs: &Certs, alpn: &[&str], handler: Handler) -> Self {
        Self::start(Some(ServerTls::new(certs).alpn(alpn)), handler).await
    }

    /// Over TLS as said.
    pub async fn with(tls: ServerTls, handler: Handler) -> Self {
        Self::start(Some(tls), handler).await
    }

    async fn start(tls: Option<ServerTls>, handler: Handler) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let tasks: Arc<Mutex<Vec<tokio::task::AbortHandle>>> = Arc::default();
        let (count, kept, acceptor) = (connections.clone(), tasks.clone(), tls.as_ref().map(ServerTls::acceptor));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                stream.set_nodelay(true).unwrap();
                let (handler, acceptor) = (handler.clone(), acceptor.clone());
                let task = tokio::spawn(async move {
                    match acceptor {
                        None => serve(stream, handler).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream, handler).await;
                            }
                        }
                    }
                });
                kept.lock().unwrap().push(task.abort_handle());
            }
        });
        Self { addr, tls: tls.is_some(), connections, tasks }
    }

    /// A URL on it.
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://localhost:{}{path}", self.addr.port())
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Ends all connections, without a word.
    pub fn cut(&self) {
        for task in self.tasks.lock().unwrap().drain(..) {
            task.abort();
        }
    }

    /// The same, and they are over when this returns.
    pub async fn cut_off(&self) {
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap());
        tasks.iter().for_each(tokio::task::AbortHandle::abort);
        while !tasks.iter().all(tokio::task::AbortHandle::is_finished) {
            tokio::task::yield_now().await;
        }
    }
}

pub async fn serve<S>(stream: S, handler: Handler)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let handler = handler.clone();
        async move { Ok::<_, std::convert::Infallible>(handler(request).await) }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    let _ = server.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
}

/// A connector that trusts `certs` alone, through these hops.
pub fn connector(certs: &Certs, hops: &[String]) -> Connector {
    let mut builder = Connector::builder()
        .tls(Tls::builder().roots(portolan_core::Roots::Custom).root_pem(certs.ca.as_bytes()).build().unwrap())
        .policy(Policy::any());
    for hop in hops {
        builder = builder.via(Hop::parse(hop).unwrap());
    }
    builder.build().unwrap()
}

async fn listen<F, Fut>(serve: F) -> SocketAddr
where
    F: Fn(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    addr
}

/// A proxy that grants CONNECT, to one user where one is named. Its status line is `status`.
pub async fn connect_proxy(
    user: Option<(&'static str, &'static str)>,
    status: &'static str,
) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = heard.clone();
    let addr = listen(move |near| {
        let log = log.clone();
        async move {
            let mut near = BufReader::new(near);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if near.read_line(&mut head).await? == 0 {
                    return Ok(());
                }
            }
            log.lock().unwrap().push(head.clone());
            if let Some((user, password)) = user {
                let token = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
                if !head.contains(&format!("Basic {token}\r\n")) {
                    return near
                        .write_all(
                            b"HTTP/1.1 407 Who\r\nproxy-authenticate: Basic realm=x\r\ncontent-length: 0\r\n\r\n",
                        )
                        .await;
                }
            }
            let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let mut far = TcpStream::connect(target).await?;
            near.write_all(format!("{status}\r\n\r\n").as_bytes()).await?;
            tokio::io::copy_bidirectional(&mut near, &mut far).await?;
            Ok(())
        }
    })
    .await;
    (addr, heard)
}

/// A SOCKS5 proxy, for one user where one is named.
pub async fn socks5_proxy(user: Option<(&'static str, &'static str)>) -> SocketAddr {
    listen(move |mut near| async move {
        let mut head = [0; 2];
        near.read_exact(&mut head).await?;
        let mut methods = vec![0; usize::from(head[1])];
        near.read_exact(&mut methods).await?;
        if let Some((user, password)) = user {
            near.write_all(&[5, 2]).await?;
            near.read_exact(&mut head).await?;
            let name = take(&mut near, usize::from(head[1])).await?;
            let length = usize::from(take(&mut near, 1).await?[0]);
            let good = name == user.as_bytes() && take(&mut near, length).await? == password.as_bytes();
            near.write_all(&[1, u8::from(!good)]).await?;
            if !good {
                return Ok(());
            }
        } else {
            near.write_all(&[5, 0]).await?;
        }
        let asked = take(&mut near, 4).await?;
        if asked[1] == 3 {
            take(&mut near, 6).await?;
            return relay(near).await;
        }
        let host = match asked[3] {
            1 => take(&mut near, 4).await?.iter().map(u8::to_string).collect::<Vec<_>>().join("."),
            3 => {
                let length = usize::from(take(&mut near, 1).await?[0]);
                String::from_utf8(take(&mut near, length).await?).unwrap()
            }
            _ => return Ok(()),
        };
        let port = take(&mut near, 2).await?;
        let mut far = TcpStream::connect((host.as_str(), u16::from_be_bytes([port[0], port[1]]))).await?;
        near.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 0]).await?;
        tokio::io::copy_bidirectional(&mut near, &mut far).await?;
        Ok(())
    })
    .await
}

/// Datagrams of one client, by IPv4, as long as its connection lives.
async fn relay(mut control: TcpStream) -> std::io::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    let [high, low] = socket.local_addr()?.port().to_be_bytes();
    control.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, high, low]).await?;
    let (mut client, mut room, mut end) = (None, [0; 4096], [0; 1]);
    loop {
        let (length, from) = tokio::select! {
            packet = socket.recv_from(&mut room) => packet?,
            _ = control.read(&mut end) => return Ok(()),
        };
        let [high, low] = from.port().to_be_bytes();
        match client {
            Some(client) if client != from => {
                let packet = [&[0, 0, 0, 1, 127, 0, 0, 1, high, low], &room[..length]].concat();
                socket.send_to(&packet, client).await?;
            }
            _ => {
                client = Some(from);
                let (head, data) = room[..length].split_at(10);
                let ip: [u8; 4] = head[4..8].try_into().unwrap();
                socket.send_to(data, (std::net::Ipv4Addr::from(ip), u16::from_be_bytes([head[8], head[9]]))).await?;
            }
        }
    }
}

async fn take(stream: &mut TcpStream, length: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}
