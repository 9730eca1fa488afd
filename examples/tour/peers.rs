//! The peers of the tour: a few lines each, on loopback ports of their own. The test suites talk to real servers instead.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use bytes::BytesMut;
use portolan_core::Endpoint;
use portolan_db::redis::{RespCodec, Value};
use portolan_wire::Codec;
use rcgen::{CertificateParams, KeyPair};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};

type Done = std::io::Result<()>;

/// Where each peer listens.
pub(crate) struct Peers {
    /// The certificate that their TLS is to be trusted by.
    pub(crate) authority: String,
    ports: HashMap<&'static str, SocketAddr>,
}

macro_rules! endpoints {
    ($($name:ident)*) => {
        impl Peers {
            $(
                #[doc = concat!("Where ", stringify!($name), " is served; by name, so that proxies and certificates have one to look at.")]
                pub(crate) fn $name(&self) -> Endpoint {
                    self.at(stringify!($name))
                }
            )*
        }
    };
}
endpoints!(redis redis_tls smtp dns echo discard daytime time chargen qotd finger whois);

impl Peers {
    pub(crate) async fn start() -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let acceptor = acceptor(&certificate, &key);
        let mut peers = Self { authority: certificate.pem(), ports: HashMap::new() };
        let store = Arc::new(Mutex::new(HashMap::new()));
        let (kept, tls) = (store.clone(), acceptor.clone());
        peers.tcp("redis", move |stream| redis(stream, kept.clone())).await;
        peers
            .tcp("redis_tls", move |stream| {
                let (tls, store) = (tls.clone(), store.clone());
                async move { redis(tls.accept(stream).await?, store).await }
            })
            .await;
        peers.tcp("smtp", move |stream| smtp(stream, acceptor.clone())).await;
        peers.tcp("echo", echo).await;
        peers
            .tcp("discard", |mut stream| async move {
                tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(|_| ())
            })
            .await;
        peers
            .tcp(
                "daytime",
                |mut stream| async move { stream.write_all(b"Thursday, July 8, 1497 09:00:00-UTC\r\n").await },
            )
            .await;
        peers.tcp("time", time).await;
        peers.tcp("chargen", chargen).await;
        peers.tcp("qotd", |mut stream| async move { stream.write_all(b"A ship in harbour is safe.\r\n").await }).await;
        peers.tcp("finger", |stream| answer(stream, |user| format!("{user} is at sea\r\n"))).await;
        peers.tcp("whois", |stream| answer(stream, |name| format!("domain: {name}\r\nholder: the crew\r\n"))).await;
        peers.tcp("dns", dns_tcp).await;
        peers.udp("echo", <[u8]>::to_vec).await;
        peers.udp("dns", dns_answer).await;
        peers
    }

    fn at(&self, name: &str) -> Endpoint {
        Endpoint::new("localhost", self.ports[name].port()).unwrap()
    }

    async fn tcp<F, Fut>(&mut self, name: &'static str, serve: F)
    where
        F: Fn(TcpStream) -> Fut + Send + 'static,
        Fut: Future<Output = Done> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.ports.insert(name, listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                tokio::spawn(serve(stream));
            }
        });
    }

    /// The same port as the TCP form has.
    async fn udp(&mut self, name: &'static str, reply: fn(&[u8]) -> Vec<u8>) {
        let socket = UdpSocket::bind(self.ports[name]).await.unwrap();
        tokio::spawn(async move {
            let mut room = [0; 2048];
            while let Ok((n, from)) = socket.recv_from(&mut room).await {
                let _ = socket.send_to(&reply(&room[..n]), from).await;
            }
        });
    }
}

fn acceptor(certificate: &rcgen::Certificate, key: &KeyPair) -> TlsAcceptor {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

async fn echo(mut stream: TcpStream) -> Done {
    let (mut read, mut write) = stream.split();
    tokio::io::copy(&mut read, &mut write).await.map(|_| ())
}

/// RFC 868: seconds since 1900.
async fn time(mut stream: TcpStream) -> Done {
    let since_1970 = portolan_core::clock::wall().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let seconds = u32::try_from((since_1970 + 2_208_988_800) & 0xffff_ffff).unwrap();
    stream.write_all(&seconds.to_be_bytes()).await
}

/// RFC 864: 72 of the 95 printable characters, one further each line.
async fn chargen(mut stream: TcpStream) -> Done {
    for first in 0.. {
        let mut line: Vec<u8> = (0..72_u8).map(|n| b' ' + (n + first % 95) % 95).collect();
        line.extend_from_slice(b"\r\n");
        stream.write_all(&line).await?;
        if first == 200 {
            break;
        }
    }
    Ok(())
}

async fn answer(stream: TcpStream, reply: fn(&str) -> String) -> Done {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    stream.write_all(reply(line.trim()).as_bytes()).await
}

async fn redis<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, store: Arc<Mutex<HashMap<Vec<u8>, Vec<u8>>>>) -> Done {
    let (mut codec, mut buf) = (RespCodec::default(), BytesMut::new());
    loop {
        while let Some(command) = codec.decode(&mut buf).map_err(std::io::Error::other)? {
            let words: Vec<Vec<u8>> =
                command.as_items().unwrap_or_default().iter().filter_map(Value::as_bytes).map(|w| w.to_vec()).collect();
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            let reply = {
                let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
                match words[..] {
                    [b"SET", key, value] => {
                        store.insert(key.to_vec(), value.to_vec());
                        b"+OK\r\n".to_vec()
                    }
                    [b"GET", key] => match store.get(key) {
                        Some(value) => [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat(),
                        None => b"$-1\r\n".to_vec(),
                    },
                    [b"PING"] => b"+PONG\r\n".to_vec(),
                    _ => b"-ERR unknown command\r\n".to_vec(),
                }
            };
            stream.write_all(&reply).await?;
        }
        if stream.read_buf(&mut buf).await? == 0 {
            return Ok(());
        }
    }
}

async fn smtp(stream: TcpStream, tls: TlsAcceptor) -> Done {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 tour\r\n").await?;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        match line.split([' ', '\r']).next().unwrap_or_default() {
            "EHLO" => stream.write_all(b"250-tour\r\n250 STARTTLS\r\n").await?,
            "STARTTLS" => {
                stream.write_all(b"220 go\r\n").await?;
                return mailbox(BufReader::new(tls.accept(stream.into_inner()).await?)).await;
            }
            _ => stream.write_all(b"530 TLS first\r\n").await?,
        }
    }
}

async fn mailbox(mut stream: BufReader<tokio_rustls::server::TlsStream<TcpStream>>) -> Done {
    let mut in_message = false;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        if in_message {
            in_message = line != ".\r\n";
            if !in_message {
                stream.write_all(b"250 stored\r\n").await?;
            }
            continue;
        }
        let reply: &[u8] = match line.split([' ', '\r']).next().unwrap_or_default() {
            "EHLO" => b"250-tour\r\n250 PIPELINING\r\n",
            "DATA" => {
                in_message = true;
                b"354 go\r\n"
            }
            "QUIT" => b"221 bye\r\n",
            _ => b"250 ok\r\n",
        };
        stream.write_all(reply).await?;
    }
}

/// Answers any question for one A record with 192.0.2.1: id, flags, counts, the question as it was, and a pointer to it.
fn dns_answer(query: &[u8]) -> Vec<u8> {
    let name = query.get(12..).unwrap_or_default().iter().position(|byte| *byte == 0).unwrap_or(0);
    let Some(question) = query.get(12..12 + name + 5) else { return Vec::new() };
    let mut answer = query[..2].to_vec();
    answer.extend_from_slice(&[0x85, 0, 0, 1, 0, 1, 0, 0, 0, 0]);
    answer.extend_from_slice(question);
    answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 192, 0, 2, 1]);
    answer
}

async fn dns_tcp(mut stream: TcpStream) -> Done {
    loop {
        let length = stream.read_u16().await?;
        let mut query = vec![0; usize::from(length)];
        stream.read_exact(&mut query).await?;
        let answer = dns_answer(&query);
        stream.write_u16(u16::try_from(answer.len()).unwrap()).await?;
        stream.write_all(&answer).await?;
    }
}
