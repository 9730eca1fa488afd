//! A proxy on the h2 crate that does as it is told.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header};
use portolan_testbed::{Certs, ServerTls};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

#[derive(Debug, Clone)]
pub(crate) enum How {
    /// As a proxy should.
    Tunnel,
    /// This status, these headers, this body, and the body's end if told so.
    Refuse(u16, &'static [(&'static str, &'static str)], &'static str, bool),
    /// As a proxy should, to those who answer this challenge of Digest, whatever their answer is.
    Digest(&'static str),
    /// RST_STREAM.
    Reset(h2::Reason),
    /// Nothing, ever.
    Silent,
    /// A first word from the target in the same breath as the head.
    Early(&'static str),
    /// GOAWAY after each tunnel's head; what is open goes on.
    GoAway,
    /// Closes the connection instead of an answer.
    Cut,
}

/// What was asked for, and with which credentials.
type Asked = Vec<(String, Option<String>)>;

pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    pub(crate) asked: Arc<Mutex<Asked>>,
    pub(crate) resets: Arc<AtomicUsize>,
}

#[derive(Clone)]
struct Shared {
    how: How,
    asked: Arc<Mutex<Asked>>,
    resets: Arc<AtomicUsize>,
}

impl Proxy {
    pub(crate) async fn new(how: How) -> Self {
        Self::with(how, h2::server::Builder::new(), None).await
    }

    pub(crate) async fn with(how: How, mut builder: h2::server::Builder, tls: Option<(&Certs, &str)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let tls = tls.map(|(certs, alpn)| ServerTls::new(certs).alpn([alpn]).acceptor());
        let proxy = Self { addr, connections: Arc::default(), asked: Arc::default(), resets: Arc::default() };
        let connections = Arc::clone(&proxy.connections);
        let shared = Shared { how, asked: Arc::clone(&proxy.asked), resets: Arc::clone(&proxy.resets) };
        builder.enable_connect_protocol();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (shared, builder, tls) = (shared.clone(), builder.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => {
                            if let Ok(io) = tls.accept(tcp).await {
                                serve(io, builder, shared).await;
                            }
                        }
                        None => serve(tcp, builder, shared).await,
                    }
                });
            }
        });
        proxy
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve<T: AsyncRead + AsyncWrite + Unpin>(io: T, builder: h2::server::Builder, shared: Shared) {
    let Ok(mut connection) = builder.handshake::<_, Bytes>(io).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let auth = request.headers().get(header::PROXY_AUTHORIZATION).map(|v| v.to_str().unwrap().to_owned());
        shared.asked.lock().unwrap().push((request.uri().to_string(), auth));
        match shared.how {
            How::Cut => return,
            How::GoAway => connection.graceful_shutdown(),
            _ => {}
        }
        tokio::spawn(answer(request, respond, shared.clone()));
    }
}

async fn answer(request: Request<h2::RecvStream>, respond: h2::server::SendResponse<Bytes>, shared: Shared) {
    Box::pin(answered(request, respond, shared)).await;
}

async fn answered(request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>, shared: Shared) {
    match shared.how {
        How::Digest(challenge) => {
            let proof = request.headers().get(header::PROXY_AUTHORIZATION).and_then(|value| value.to_str().ok());
            if proof.is_some_and(|proof| proof.starts_with("Digest ")) {
                return answer(request, respond, Shared { how: How::Tunnel, ..shared }).await;
            }
            let response = Response::builder().status(407).header("proxy-authenticate", challenge).body(()).unwrap();
            respond.send_response(response, true).unwrap();
        }
        How::Refuse(code, headers, body, ends) => {
            let mut response = Response::builder().status(code);
            for (name, value) in headers {
                response = response.header(*name, *value);
            }
            let mut send = respond.send_response(response.body(()).unwrap(), false).unwrap();
            send.send_data(Bytes::from_static(body.as_bytes()), ends).unwrap();
            if !ends {
                tokio::time::sleep(Duration::from_secs(600)).await;
            }
        }
        How::Reset(reason) => respond.send_reset(reason),
        How::Silent => tokio::time::sleep(Duration::from_secs(600)).await,
        How::Early(word) => {
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            send.send_data(Bytes::from_static(word.as_bytes()), false).unwrap();
            let target = TcpStream::connect(request.uri().authority().unwrap().as_str()).await.unwrap();
            tunnel(target, request.into_body(), send, &shared).await;
        }
        How::Tunnel | How::GoAway | How::Cut => {
            if request.extensions().get::<h2::ext::Protocol>().is_some() {
                let send = respond.send_response(Response::new(()), false).unwrap();
                return datagrams(request, send).await;
            }
            let Ok(target) = TcpStream::connect(request.uri().authority().unwrap().as_str()).await else {
                respond.send_response(Response::builder().status(502).body(()).unwrap(), true).unwrap();
                return;
            };
            let send = respond.send_response(Response::new(()), false).unwrap();
            tunnel(target, request.into_body(), send, &shared).await;
        }
    }
}

async fn tunnel(target: TcpStream, mut body: h2::RecvStream, send: h2::SendStream<Bytes>, shared: &Shared) {
    let (mut from, mut to) = target.into_split();
    let down = async move {
        let mut send = send;
        let mut room = vec![0; 16 << 10];
        loop {
            let n = from.read(&mut room).await.unwrap_or(0);
            send.reserve_capacity(n);
            if send.send_data(Bytes::copy_from_slice(&room[..n]), n == 0).is_err() || n == 0 {
                return;
            }
        }
    };
    let resets = Arc::clone(&shared.resets);
    let up = async move {
        while let Some(data) = body.data().await {
            let Ok(data) = data else {
                resets.fetch_add(1, Ordering::SeqCst);
                return;
            };
            let _ = body.flow_control().release_capacity(data.len());
            if to.write_all(&data).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(down, up);
}

/// Datagrams by capsules, to where the path says.
async fn datagrams(request: Request<h2::RecvStream>, mut send: h2::SendStream<Bytes>) {
    assert_eq!(request.headers()["capsule-protocol"], "?1");
    let mut parts = request.uri().path().split('/').skip(4);
    let target = format!("{}:{}", parts.next().unwrap(), parts.next().unwrap());
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(target).await.unwrap();
    let mut body = request.into_body();
    let (mut input, mut room) = (Vec::new(), vec![0; 2000]);
    loop {
        tokio::select! {
            data = body.data() => {
                let Some(Ok(data)) = data else { return };
                let _ = body.flow_control().release_capacity(data.len());
                input.extend_from_slice(&data);
                // The tests send less than 62 bytes, so lengths have one byte.
                while input.len() > 1 && input.len() >= 2 + usize::from(input[1]) {
                    let capsule: Vec<u8> = input.drain(..2 + usize::from(input[1])).collect();
                    assert_eq!((capsule[0], capsule[2]), (0, 0));
                    socket.send(&capsule[3..]).await.unwrap();
                }
            }
            n = socket.recv(&mut room) => {
                let n = n.unwrap();
                let mut capsule = vec![0, u8::try_from(n + 1).unwrap(), 0];
                capsule.extend_from_slice(&room[..n]);
                if send.send_data(capsule.into(), false).is_err() {
                    return;
                }
            }
        }
    }
}
