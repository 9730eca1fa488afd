//! One site by every version of HTTP, and the ways to it.

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::request::Parts;
use http::{HeaderMap, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use portolan_core::{Connector, ConnectorBuilder, Hop, Roots, Tls};
use portolan_http::{Client, ClientBuilder, Version};
use portolan_testbed::{Certs, ServerTls};

use super::quic::{self, Stream};
use super::{Web, socks5_proxy};

/// What is answered: a head, pieces of a body, and its end.
pub struct Answer {
    pub head: Response<()>,
    pub body: VecDeque<Bytes>,
    pub trailers: Option<HeaderMap>,
    /// The body never ends.
    pub stuck: bool,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Bytes>) -> Self {
        let head = Response::builder().status(status).body(()).unwrap();
        Self { head, body: [body.into()].into(), trailers: None, stuck: false }
    }

    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.head.headers_mut().append(name, value.parse().unwrap());
        self
    }

    /// In pieces, so that no length is said.
    pub fn pieces<const N: usize>(mut self, pieces: [&'static str; N]) -> Self {
        self.body = pieces.map(Bytes::from).into();
        self
    }

    /// As an answer to HEAD.
    fn head_alone(mut self) -> Self {
        (self.body, self.trailers, self.stuck) = (VecDeque::new(), None, false);
        self
    }

    pub fn stuck(mut self) -> Self {
        self.stuck = true;
        self
    }
}

/// Asks, and leaves out what HEAD must not have.
async fn ask(say: Say, parts: Parts, body: Bytes) -> Answer {
    let head = parts.method == http::Method::HEAD;
    let answer = say(parts, body).await;
    if head { answer.head_alone() } else { answer }
}

type Pending = Pin<Box<dyn Future<Output = Answer> + Send>>;
pub type Say = Arc<dyn Fn(Parts, Bytes) -> Pending + Send + Sync>;

/// What answers at once.
pub fn say(answer: impl Fn(&Parts, &Bytes) -> Answer + Send + Sync + 'static) -> Say {
    Arc::new(move |parts, body| {
        let answer = answer(&parts, &body);
        Box::pin(async move { answer })
    })
}

struct Pieces(Answer);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if let Some(piece) = self.0.body.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match self.0.trailers.take() {
            Some(trailers) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            None if self.0.stuck => Poll::Pending,
            None => Poll::Ready(None),
        }
    }
}

/// HTTP/1.1 and 2 by TCP, HTTP/3 by UDP at the same port, all of them in TLS.
pub struct Everywhere {
    pub web: Web,
    quic: Arc<std::sync::atomic::AtomicUsize>,
    proxy: SocketAddr,
    ca: String,
}

impl Everywhere {
    pub async fn start(certs: &Certs, say: Say) -> Self {
        loop {
            let by_tcp = say.clone();
            let handler: super::Handler = Arc::new(move |request| {
                let say = by_tcp.clone();
                Box::pin(async move {
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                    let answer = ask(say, parts, body).await;
                    let (head, ()) = answer.head.clone().into_parts();
                    Response::from_parts(head, Pieces(answer).boxed())
                })
            });
            let web = Web::tls(certs, &["h2", "http/1.1"], handler).await;
            // The port may be somebody's by UDP.
            if std::net::UdpSocket::bind(web.addr).is_err() {
                continue;
            }
            let by_udp = say.clone();
            let (_, quic) = quic::serve(ServerTls::new(certs), web.addr, move |_, _, mut server| {
                let say = by_udp.clone();
                async move {
                    while let Ok(Some(resolver)) = server.accept().await {
                        let say = say.clone();
                        tokio::spawn(async move {
                            if let Ok((request, stream)) = resolver.resolve_request().await {
                                answer(request.into_parts().0, stream, say).await;
                            }
                        });
                    }
                }
            });
            let proxy = socks5_proxy(None).await;
            return Self { web, quic, proxy, ca: certs.ca.clone() };
        }
    }

    pub fn url(&self, path: &str) -> String {
        self.web.url(path)
    }

    /// Connections so far, of all versions.
    pub fn accepted(&self) -> usize {
        self.web.accepted() + self.quic.load(Ordering::SeqCst)
    }

    /// A connector that knows the site, by one way or the other.
    pub fn net(&self, way: Way) -> ConnectorBuilder {
        let tls = Tls::builder().roots(Roots::Custom).root_pem(self.ca.as_bytes()).build().unwrap();
        let net = Connector::builder().tls(tls).resolve("localhost", [self.web.addr.ip()]);
        match way {
            Way::Direct => net,
            Way::Proxy => net.via(Hop::parse(&format!("socks5://{}", self.proxy)).unwrap()),
        }
    }

    /// A client for one version by one way.
    pub fn builder(&self, place: Place) -> ClientBuilder {
        Client::builder().connector(self.net(place.1).build().unwrap()).version(place.0)
    }
}

async fn answer(parts: Parts, mut stream: Stream, say: Say) {
    let mut body = Vec::new();
    while let Ok(Some(mut data)) = stream.recv_data().await {
        body.extend_from_slice(&data.copy_to_bytes(data.remaining()));
    }
    let answer = ask(say, parts, body.into()).await;
    let _ = stream.send_response(answer.head).await;
    for piece in answer.body {
        let _ = stream.send_data(piece).await;
    }
    match answer.trailers {
        Some(trailers) => drop(stream.send_trailers(trailers).await),
        None if answer.stuck => std::future::pending().await,
        None => {}
    }
    let _ = stream.finish().await;
}

/// How the site is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Direct,
    /// SOCKS5, which carries datagrams too.
    Proxy,
}

/// A version by a way.
pub type Place = (Version, Way);

/// All of them.
pub fn places() -> impl Iterator<Item = Place> {
    [Version::Http1Only, Version::Http2Only, Version::Http3Only]
        .into_iter()
        .flat_map(|version| [(version, Way::Direct), (version, Way::Proxy)])
}

/// What several callers saw.
pub type Log<T> = Arc<Mutex<Vec<T>>>;
