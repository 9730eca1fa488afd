//! R1.1 and R1.2: TLS as the caller says it, from the first byte and in mid-stream.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "these are tests, and they are the peer")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use portolan_core::observe::{Observer, Step};
use portolan_core::{Connector, Endpoint, Error, Hop, Kind, Phase, Pin, Roots, Stream, Tls, TlsBuilder, TlsVersion};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
    der: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), der: certificate.der().clone(), params, key }
    }

    fn sign(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        (certificate, key)
    }

    fn client(&self) -> TlsBuilder {
        Tls::builder().roots(Roots::Custom).root_pem(self.pem.as_bytes())
    }
}

struct Server {
    authority: Authority,
    leaf: CertificateDer<'static>,
    config: ServerConfig,
}

fn server(name: &str, demand_client: bool) -> Server {
    let authority = Authority::new();
    let (leaf, key) = authority.sign(name);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = if demand_client {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.der.clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = builder.with_single_cert(vec![leaf.der().clone()], key).unwrap();
    Server { authority, leaf: leaf.der().clone(), config }
}

/// Echoes over TLS for ever; says `go` in the clear first where `upgrade` is set.
async fn serve(config: ServerConfig, upgrade: Option<&'static [u8]>) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(echo(tcp, acceptor.clone(), upgrade));
        }
    });
    Endpoint::new("localhost", port).unwrap()
}

async fn echo(mut tcp: TcpStream, acceptor: TlsAcceptor, upgrade: Option<&'static [u8]>) -> std::io::Result<()> {
    if let Some(words) = upgrade {
        tcp.write_all(words).await?;
    }
    let mut tls = acceptor.accept(tcp).await?;
    let mut room = [0; 1024];
    loop {
        let n = tls.read(&mut room).await?;
        if n == 0 {
            return tls.shutdown().await;
        }
        tls.write_all(&room[..n]).await?;
    }
}

fn net(tls: TlsBuilder) -> Connector {
    Connector::builder().tls(tls.build().unwrap()).build().unwrap()
}

async fn exchange(stream: &mut Stream) -> Result<(), Error> {
    let mut seen = [0; 4];
    stream.write_all(b"ping").await.map_err(|error| Error::io(Phase::Send, error))?;
    stream.flush().await.map_err(|error| Error::io(Phase::Send, error))?;
    stream.read_exact(&mut seen).await.map_err(|error| Error::io(Phase::FirstByte, error))?;
    assert_eq!(&seen, b"ping");
    Ok(())
}

#[tokio::test]
async fn alpn_is_what_the_caller_says_and_is_read_back() {
    let mut server = server("localhost", false);
    server.config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let to = serve(server.config, None).await;
    let net = net(server.authority.client().alpn(["http/1.1"]));
    let mut stream = net.connect_tls(&to, &[b"h2"]).await.unwrap();
    assert_eq!(stream.alpn(), Some(&b"h2"[..]));
    exchange(&mut stream).await.unwrap();
    assert_eq!(net.connect_tls(&to, &[]).await.unwrap().alpn(), Some(&b"http/1.1"[..]));
    let none = net.connect_tls(&to, &[b"spdy/1"]).await.unwrap_err();
    // The alert no_application_protocol (RFC 7301 3.2).
    assert_eq!((none.kind(), none.code(), none.phase()), (Kind::Tls, Some(120), Some(Phase::Tls)));
}

#[tokio::test]
async fn post_quantum_key_exchange_is_the_default_and_can_be_left() {
    let server = server("localhost", false);
    let to = serve(server.config, None).await;
    let stream = net(server.authority.client()).connect_tls(&to, &[]).await.unwrap();
    let agreed = stream.info().tls.clone().unwrap();
    assert_eq!((agreed.version, agreed.group.as_str()), ("TLSv1.3", "X25519MLKEM768"));
    assert_eq!(agreed.chain.len(), 1);
    let classic = net(server.authority.client().classic_key_exchange_only()).connect_tls(&to, &[]).await.unwrap();
    assert!(!classic.info().tls.as_ref().unwrap().group.contains("MLKEM"));
    let old = net(server.authority.client().max_version(TlsVersion::V1_2)).connect_tls(&to, &[]).await.unwrap();
    assert_eq!(old.info().tls.as_ref().unwrap().version, "TLSv1.2");
    assert!(server.authority.client().min_version(TlsVersion::V1_3).max_version(TlsVersion::V1_2).build().is_err());
}

#[tokio::test]
async fn client_certificates_are_shown_where_they_are_demanded() {
    let server = server("localhost", true);
    let (certificate, key) = server.authority.sign("client.test");
    let to = serve(server.config, None).await;
    let with = server.authority.client().client_cert_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes());
    exchange(&mut net(with).connect_tls(&to, &[]).await.unwrap()).await.unwrap();
    // In TLS 1.3 the refusal comes after our handshake is done: at the handshake or at the first read.
    let without = match net(server.authority.client()).connect_tls(&to, &[]).await {
        Ok(mut stream) => exchange(&mut stream).await,
        Err(error) => Err(error),
    };
    assert_eq!(without.unwrap_err().kind(), Kind::Tls);
    assert!(server.authority.client().client_cert_pem(b"nonsense", b"nonsense").build().is_err());
}

#[tokio::test]
async fn a_pin_must_be_in_the_chain() {
    let server = server("localhost", false);
    let to = serve(server.config, None).await;
    let right = Pin::of(&server.leaf).unwrap();
    assert_eq!(Pin::parse(&format!("{right:?}")).unwrap(), right);
    // Base64 that begins with a slash of its own.
    let slash = Pin::new([0xff; 32]);
    let text = format!("{slash:?}");
    let bare = text.replacen("sha256/", "", 1);
    for pin in [text.clone(), text.replacen('/', "//", 1), bare] {
        assert_eq!(Pin::parse(&pin).unwrap(), slash, "{pin}");
    }
    net(server.authority.client().pin(Pin::new([7; 32])).pin(right)).connect_tls(&to, &[]).await.unwrap();
    let wrong = net(server.authority.client().pin(Pin::new([7; 32]))).connect_tls(&to, &[]).await.unwrap_err();
    assert!(wrong.kind() == Kind::Tls && wrong.message().ends_with("no key of its chain is pinned"), "{wrong}");
    // A pin is demanded besides a valid chain, not instead of one.
    let distrusted = Tls::builder().roots(Roots::Custom).root_pem(Authority::new().pem.as_bytes()).pin(right);
    assert_eq!(net(distrusted).connect_tls(&to, &[]).await.unwrap_err().kind(), Kind::Tls);
}

#[tokio::test]
async fn sessions_are_resumed_within_one_configuration_alone() {
    let server = server("localhost", false);
    let to = serve(server.config, None).await;
    let resumed = async |net: &Connector| {
        let mut stream = net.connect_tls(&to, &[]).await.unwrap();
        // The ticket comes with the first data.
        exchange(&mut stream).await.unwrap();
        stream.info().tls.as_ref().unwrap().resumed
    };
    let one = net(server.authority.client());
    assert!(!resumed(&one).await);
    assert!(resumed(&one).await);
    assert!(!resumed(&net(server.authority.client())).await);
    let none = net(server.authority.client().resumption(0));
    assert!(!resumed(&none).await && !resumed(&none).await);
}

#[derive(Debug, Default)]
struct Log(Mutex<Vec<String>>);

impl rustls::KeyLog for Log {
    fn log(&self, label: &str, _: &[u8], _: &[u8]) {
        self.0.lock().unwrap().push(label.to_owned());
    }
}

#[tokio::test]
async fn keys_are_logged_where_asked() {
    let server = server("localhost", false);
    let to = serve(server.config, None).await;
    let log = Arc::new(Log::default());
    net(server.authority.client().key_log(log.clone())).connect_tls(&to, &[]).await.unwrap();
    assert!(log.0.lock().unwrap().iter().any(|label| label == "CLIENT_TRAFFIC_SECRET_0"));
}

#[tokio::test]
async fn the_name_is_checked_and_danger_is_loud() {
    let server = server("other.test", false);
    let to = serve(server.config, None).await;
    let net_ = net(server.authority.client());
    let wrong = net_.connect_tls(&to, &[]).await.unwrap_err();
    assert!(wrong.kind() == Kind::Tls && wrong.message().contains("not valid for name \"localhost\""), "{wrong}");
    exchange(&mut net_.connect_tls_as(&to, "other.test", &[]).await.unwrap()).await.unwrap();
    let any = Tls::builder().dangerous().accept_any_certificate();
    exchange(&mut net(any).connect_tls(&to, &[]).await.unwrap()).await.unwrap();
    assert_eq!(net_.connect_tls_as(&to, "not a name", &[]).await.unwrap_err().kind(), Kind::Usage);
}

#[tokio::test]
async fn tls_begins_in_mid_stream_and_words_before_it_are_an_injection() {
    let server = server("localhost", false);
    let to = serve(server.config, Some(b"go\r\n")).await;
    let net = net(server.authority.client());
    let mut stream = net.connect(&to).await.unwrap();
    let mut go = [0; 4];
    stream.read_exact(&mut go).await.unwrap();
    let mut stream = stream.start_tls("localhost").await.unwrap();
    exchange(&mut stream).await.unwrap();
    assert!(stream.is_tls() && stream.info().timings.tls.is_some());
    let mut key = [0; 32];
    stream.export_key(b"EXPORTER-Channel-Binding", Some(b""), &mut key).unwrap();
    assert_ne!(key, [0; 32]);
    // Bytes already read but not consumed.
    let stream = net.connect(&to).await.unwrap().with_early(bytes::Bytes::from_static(b"250 evil\r\n"));
    assert_eq!(stream.start_tls("localhost").await.unwrap_err().kind(), Kind::Protocol);
    // Bytes still in the socket: they are no TLS record.
    let stream = net.connect(&to).await.unwrap();
    assert_eq!(stream.start_tls("localhost").await.unwrap_err().kind(), Kind::Tls);
}

#[tokio::test]
async fn a_peer_that_closes_or_stalls_in_the_handshake_is_left_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = Endpoint::new("localhost", listener.local_addr().unwrap().port()).unwrap();
    let timeouts = portolan_core::Timeouts::default().tls(Duration::from_millis(100));
    let net = Connector::builder().timeouts(timeouts).build().unwrap();
    let (stalled, held) = tokio::join!(net.connect_tls(&to, &[]), listener.accept());
    let stalled = stalled.unwrap_err();
    assert!(stalled.is_timeout() && stalled.phase() == Some(Phase::Tls) && stalled.attempt().is_some(), "{stalled:?}");
    drop(held);
    let (closed, _) = tokio::join!(net.connect_tls(&to, &[]), async { drop(listener.accept().await) });
    assert_eq!((closed.as_ref().unwrap_err().kind(), closed.unwrap_err().phase()), (Kind::Tls, Some(Phase::Tls)));
}

/// What was told of hops, and how long each took.
#[derive(Default)]
struct Hops(Mutex<Vec<(Phase, Option<usize>, Duration)>>);

impl Observer for Hops {
    fn phase(&self, step: &Step<'_>) {
        self.0.lock().unwrap().push((step.phase, step.hop.map(|hop| hop.index), step.elapsed));
    }
}

#[tokio::test]
async fn tls_with_a_proxy_is_told_and_its_time_is_the_hops() {
    let peer = server("localhost", false);
    let tls = peer.authority.client().build().unwrap();
    let (listener, acceptor) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), TlsAcceptor::from(Arc::new(peer.config)));
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut proxy = acceptor.accept(listener.accept().await?.0).await?;
        proxy.read_exact(&mut [0; 16]).await?;
        proxy.write_all(b"HTTP/1.1 200 ok\r\n\r\n").await?;
        while proxy.read(&mut [0; 64]).await? > 0 {}
        Ok::<_, std::io::Error>(())
    });
    let seen = Arc::new(Hops::default());
    let hop = Hop::https(Endpoint::new("localhost", port).unwrap());
    let net = Connector::builder().via(hop).hop_tls(tls).observer(seen.clone()).build().unwrap();
    let stream = net.connect(&Endpoint::new("target.test", 9).unwrap()).await.unwrap();
    let info = stream.info();
    assert!(info.tls.is_none() && info.timings.tls.is_none(), "those speak of the target");
    let seen = seen.0.lock().unwrap().clone();
    let told: Vec<_> = seen.iter().filter(|one| one.1.is_some()).map(|one| (one.0, one.1)).collect();
    assert_eq!(told, [(Phase::Tls, Some(0)), (Phase::Hop, Some(0))], "{seen:?}");
    let tls = seen.iter().find(|one| one.0 == Phase::Tls).unwrap().2;
    assert!(info.hops[0].elapsed > tls && info.timings.hops == Some(info.hops[0].elapsed), "{info:?}");
}
