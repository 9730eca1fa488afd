//! Real servers: `websockets`, aiohttp and hypercorn of Python, `ws` and `http2` of node, nghttpx, mosquitto. Each is skipped, and said
//! so, where it is not installed.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "helpers of tests fail by panicking")]
#![allow(clippy::disallowed_methods, reason = "the test starts servers on loopback")]

mod support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use portolan_core::{Connector, Endpoint, Kind, Phase, Roots, Tls, clock};
use portolan_http::har::{HarOptions, Recorder};
use portolan_testbed::{Certs, Server, Service, Spec, folder, free_port};
use portolan_websocket::{CloseCode, DataKind, Deflate, Message, Options, Rejected, Request, WebSocket};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const VENVS: &str = "/opt/portolan-testbed";

/// The interpreter that has this package.
fn python(package: &str) -> Option<PathBuf> {
    let candidates = [format!("{VENVS}/{package}/bin/python"), "/usr/bin/python3".to_owned()];
    let has = |python: &String| quiet(Command::new(python).args(["-c", &format!("import {package}")]));
    let found = candidates.into_iter().find(has).map(PathBuf::from);
    if found.is_none() {
        support::skip(&format!("the Python package {package}: pip:{package}"));
    }
    found
}

fn node() -> Option<PathBuf> {
    let node = Path::new("/usr/bin/node");
    let has = quiet(Command::new(node).args(["-e", "require('ws')"]).env("NODE_PATH", node_path()));
    if !has {
        support::skip("node with the package ws: npm install --prefix /opt/portolan-testbed/npm ws");
    }
    has.then(|| node.to_owned())
}

fn node_path() -> String {
    format!("{VENVS}/npm/node_modules:/usr/share/nodejs:/usr/lib/node_modules")
}

fn quiet(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// A server out of tests/peers, and where it listens.
struct Peer {
    _server: Server,
    port: u16,
    certs: Option<Certs>,
}

impl Peer {
    fn start(interpreter: &Path, script: &str, tls: bool) -> Self {
        let port = free_port();
        let certs = tls.then(Certs::new);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(script);
        let mut args = vec![format!("NODE_PATH={}", node_path()), interpreter.display().to_string()];
        args.extend([script.display().to_string(), port.to_string()]);
        if tls {
            args.extend(["$D/server.pem".to_owned(), "$D/server.key".to_owned()]);
        }
        let files = certs.as_ref().map(Certs::server_files).unwrap_or_default();
        let spec = Spec { package: "coreutils", binary: "env", files, args };
        let server = Server::start_in(&spec, folder("websocket")).unwrap();
        let server = server.accepting(SocketAddr::from(([127, 0, 0, 1], port)));
        Self { _server: server, port, certs }
    }

    fn net(&self) -> Connector {
        let Some(certs) = &self.certs else { return Connector::default() };
        let tls = Tls::builder().roots(Roots::Custom).root_pem(certs.ca.as_bytes()).build().unwrap();
        Connector::builder().tls(tls).build().unwrap()
    }

    fn url(&self, path: &str) -> String {
        let scheme = if self.certs.is_some() { "wss" } else { "ws" };
        format!("{scheme}://localhost:{}{path}", self.port)
    }

    async fn h1(&self, options: Options) -> WebSocket {
        let request = Request::new(&self.url("/")).unwrap().subprotocol("echo").unwrap();
        WebSocket::open(&self.net(), &request, options).await.unwrap()
    }

    async fn h2(&self) -> portolan_http2::SendRequest {
        self.h2_with(portolan_http2::Options::new()).await
    }

    async fn h2_with(&self, options: portolan_http2::Options) -> portolan_http2::SendRequest {
        let endpoint = Endpoint::new("localhost", self.port).unwrap();
        let stream = match self.certs {
            Some(_) => self.net().connect_tls(&endpoint, &[b"h2"]).await.unwrap(),
            None => self.net().connect(&endpoint).await.unwrap(),
        };
        assert!(self.certs.is_none() || stream.alpn() == Some(b"h2"));
        let (client, connection) = portolan_http2::handshake(stream, options).unwrap();
        tokio::spawn(connection);
        client
    }
}

/// Messages of every length form, in one frame, in fragments and in pieces; pings; a close that is confirmed.
async fn exercise<T: AsyncRead + AsyncWrite + Unpin + Send>(mut socket: WebSocket<T>) {
    assert_eq!(socket.subprotocol(), Some("echo"));
    for len in [0, 1, 125, 126, 127, 65_535, 65_536, 300_000] {
        let prose: String = "h\u{e9}llo w\u{f6}rld \u{1f600} ".chars().cycle().take(len).collect();
        for message in
            [Message::text(prose), Message::binary((0..len).map(|at| at.to_le_bytes()[0]).collect::<Vec<_>>())]
        {
            socket.send(message.clone()).await.unwrap();
            assert!(socket.recv().await.unwrap() == Some(message), "{len}");
        }
    }
    in_parts(&mut socket).await;
    for at in 0..200u32 {
        socket.feed(format!("message {at}")).await.unwrap();
    }
    socket.flush().await.unwrap();
    for at in 0..200u32 {
        assert_eq!(socket.recv().await.unwrap(), Some(format!("message {at}").into()));
    }
    let last = socket.close(CloseCode::NORMAL, "done").await.unwrap();
    assert_eq!(last.map(|frame| frame.code), Some(CloseCode::NORMAL));
}

/// What [`exercise`] exchanges: sixteen messages, one in fragments, a ping, one read in pieces, two hundred at once.
const EXCHANGES: u64 = 16 + 3 + 200;

const HEAD: &str = "Messages of every length form as text and as bytes, in one frame, in fragments and in pieces, two hundred at once, \
    a ping, and a close that is confirmed.\n\n| server | transport and extensions | messages echoed |";

/// Writes down that a peer passed so many times.
fn record(peer: &str, configuration: &str, times: u64) {
    portolan_testbed::record("websocket", "peer", peer, configuration, times * EXCHANGES);
    portolan_testbed::row("WebSocket", HEAD, &[peer, configuration, &(times * EXCHANGES).to_string()]);
}

/// The names of packages of an interpreter's, with their versions.
fn versions(python: &Path, packages: &[&str]) -> String {
    let program =
        "import importlib.metadata as m, sys; print(' with '.join(f'{n} {m.version(n)}' for n in sys.argv[1:]))";
    said(Command::new(python).args(["-c", program]).args(packages))
}

fn node_version(program: &str) -> String {
    said(Command::new("/usr/bin/node").args(["-p", program]).env("NODE_PATH", node_path()))
}

fn said(command: &mut Command) -> String {
    String::from_utf8(command.output().unwrap().stdout).unwrap().trim().to_owned()
}

/// A message in fragments, a ping, and a message read in pieces.
async fn in_parts<T: AsyncRead + AsyncWrite + Unpin + Send>(socket: &mut WebSocket<T>) {
    let mut message = socket.send_stream(DataKind::Text).unwrap();
    for _ in 0..20 {
        message.write("fragment ").await.unwrap();
    }
    message.finish("end").await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), Some(format!("{}end", "fragment ".repeat(20)).into()));
    socket.send(Message::Ping("are you there".into())).await.unwrap();
    socket.send(vec![1; 500_000]).await.unwrap();
    let mut total = 0;
    let mut message = socket.recv_stream().await.unwrap().unwrap();
    while let Some(chunk) = message.chunk().await.unwrap() {
        total += chunk.len();
    }
    drop(message);
    assert_eq!(total, 500_000);
}

fn deflate() -> Options {
    Options::new().deflate(Deflate::new())
}

fn narrow() -> Options {
    let narrow = Deflate::new().client_max_window_bits(10).server_max_window_bits(10);
    Options::new().deflate(narrow.client_context_takeover(false).server_context_takeover(false))
}

#[tokio::test]
async fn websockets_of_python_plain_and_over_tls_with_and_without_compression() {
    let Some(python) = python("websockets") else { return };
    for tls in [false, true] {
        let peer = Peer::start(&python, "websockets_echo.py", tls);
        exercise(peer.h1(Options::new()).await).await;
        for options in [deflate(), narrow()] {
            let socket = peer.h1(options).await;
            assert!(socket.is_compressed());
            exercise(socket).await;
        }
    }
    record(&versions(&python, &["websockets"]), "HTTP/1.1, plain and TLS, permessage-deflate", 6);
}

#[tokio::test]
async fn aiohttp_of_python_with_cookies_refusals_and_redirects() {
    let Some(python) = python("aiohttp") else { return };
    let peer = Peer::start(&python, "aiohttp_echo.py", false);
    exercise(peer.h1(Options::new()).await).await;
    let socket = peer.h1(deflate()).await;
    assert!(socket.is_compressed());
    exercise(socket).await;
    let request = Request::new(&peer.url("/private")).unwrap().subprotocol("echo").unwrap();
    let error = WebSocket::open(&peer.net(), &request, Options::new()).await.unwrap_err();
    let rejected = error.server::<Rejected>().unwrap();
    assert_eq!((error.kind(), rejected.status.as_u16(), &rejected.body[..]), (Kind::Server, 401, &b"no cookie"[..]));
    let allowed = request.renewed().unwrap().header("cookie", "pass=yes").unwrap();
    exercise(WebSocket::open(&peer.net(), &allowed, Options::new()).await.unwrap()).await;
    let error = WebSocket::connect(&peer.net(), &peer.url("/moved"), Options::new()).await.unwrap_err();
    assert_eq!(error.server::<Rejected>().unwrap().headers["location"], "/");
    record(&versions(&python, &["aiohttp"]), "HTTP/1.1, cookies, refusals", 3);
}

#[tokio::test]
async fn ws_of_node_plain_and_over_tls_with_and_without_compression() {
    let Some(node) = node() else { return };
    for tls in [false, true] {
        let peer = Peer::start(&node, "node_echo.js", tls);
        exercise(peer.h1(Options::new()).await).await;
        // The server asks for windows of its own where the offer leaves them open.
        let wide = Options::new().deflate(Deflate::new().server_max_window_bits(12));
        let tight = Deflate::new().server_max_window_bits(12).client_max_window_bits(12).client_context_takeover(false);
        for options in [wide, Options::new().deflate(tight.server_context_takeover(false))] {
            let socket = peer.h1(options).await;
            assert!(socket.is_compressed());
            exercise(socket).await;
        }
    }
    record(
        &node_version("'ws ' + require('ws/package.json').version"),
        "HTTP/1.1, plain and TLS, permessage-deflate",
        6,
    );
}

#[tokio::test]
async fn http2_of_node_plain_and_over_tls() {
    let Some(node) = node() else { return };
    for tls in [false, true] {
        let peer = Peer::start(&node, "node_h2_echo.js", tls);
        let client = peer.h2().await;
        let request = Request::new(&peer.url("/")).unwrap().subprotocol("echo").unwrap();
        for _ in 0..2 {
            exercise(WebSocket::connect_h2(&client, &request, Options::new()).await.unwrap()).await;
        }
    }
    record(&node_version("'http2 of node ' + process.version"), "HTTP/2, plain and TLS", 4);
}

#[tokio::test]
async fn hypercorn_over_http_1_and_2() {
    let Some(python) = python("hypercorn") else { return };
    for tls in [false, true] {
        let peer = Peer::start(&python, "hypercorn_echo.py", tls);
        for options in [Options::new(), deflate()] {
            if !tls {
                exercise(peer.h1(options.clone()).await).await;
            }
            let client = peer.h2().await;
            let request = Request::new(&peer.url("/")).unwrap().subprotocol("echo").unwrap();
            exercise(WebSocket::connect_h2(&client, &request, options).await.unwrap()).await;
        }
    }
    record(&versions(&python, &["hypercorn"]), "HTTP/1.1 and HTTP/2, permessage-deflate", 6);
}

#[tokio::test]
async fn sockets_that_nobody_reads_do_not_stop_another_of_their_connection() {
    let Some(python) = python("hypercorn") else { return };
    let peer = Peer::start(&python, "hypercorn_echo.py", false);
    let client = peer.h2_with(portolan_http2::Options::new().connection_window(1 << 20)).await;
    let request = Request::new(&peer.url("/")).unwrap().subprotocol("echo").unwrap();
    let mut unread = Vec::new();
    for _ in 0..3 {
        let mut socket = WebSocket::connect_h2(&client, &request, Options::new()).await.unwrap();
        for _ in 0..8 {
            socket.send(vec![7; 64 << 10]).await.unwrap();
        }
        unread.push(socket);
    }
    let mut socket = WebSocket::connect_h2(&client, &request, Options::new()).await.unwrap();
    for len in [10, 100_000, 1 << 20, 4 << 20] {
        let work = async {
            socket.send(vec![9; len]).await?;
            socket.recv().await
        };
        let echo = clock::within(Some(std::time::Duration::from_secs(60)), Phase::Total, work).await.unwrap();
        assert!(echo == Some(vec![9; len].into()), "{len}");
    }
    for mut socket in unread {
        for _ in 0..8 {
            assert!(socket.recv().await.unwrap() == Some(vec![7; 64 << 10].into()));
        }
    }
}

/// MQTT 3.1.1 by hand over the byte stream: a connection, a subscription, a message that comes back.
#[tokio::test]
async fn mosquitto_speaks_mqtt_over_the_byte_stream() {
    let (plain, port) = (free_port(), free_port());
    // It refuses to start with a listener for WebSockets alone.
    let config = format!("listener {plain} 127.0.0.1\nallow_anonymous true\nlistener {port}\nprotocol websockets\n");
    let broker =
        Service::new("mosquitto", "mosquitto").file("mosquitto.conf", config).args(["-c", "$D/mosquitto.conf"]);
    let Some(_broker) = broker.accepts(SocketAddr::from(([127, 0, 0, 1], port))).start() else { return };
    let request = Request::new(&format!("ws://127.0.0.1:{port}/mqtt")).unwrap().subprotocol("mqtt").unwrap();
    let socket = WebSocket::open(&Connector::default(), &request, Options::new()).await.unwrap();
    assert_eq!(socket.subprotocol(), Some("mqtt"));
    let mut io = socket.into_io();
    // Packets and messages have borders of their own (MQTT 6.0): the first packet goes byte by byte.
    for byte in b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01p" {
        io.write_all(&[*byte]).await.unwrap();
    }
    let mut answer = [0; 4];
    io.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [0x20, 2, 0, 0]);
    let body = vec![b'z'; 5000];
    let publish = [&[0x30, 0x8b, 0x27, 0, 1, b't'][..], &body].concat();
    io.write_all(&[b"\x82\x06\0\x01\0\x01t\0", &publish[..]].concat()).await.unwrap();
    let mut answer = [0; 5];
    io.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [0x90, 3, 0, 1, 0]);
    let mut back = vec![0; publish.len()];
    io.read_exact(&mut back).await.unwrap();
    assert!(back == publish);
    io.write_all(&[0xe0, 0]).await.unwrap();
    io.shutdown().await.unwrap();
    let version = said(Command::new("mosquitto").arg("-h")).lines().next().unwrap_or("mosquitto").to_owned();
    portolan_testbed::record("websocket", "peer", &version, "a byte stream, MQTT inside", 3);
}

/// Opens and exercises one, plain and compressed.
async fn by_client(client: &portolan_http::Client, peer: &Peer) {
    for options in [Options::new(), deflate()] {
        let request = Request::new(&peer.url("/")).unwrap().subprotocol("echo").unwrap();
        exercise(WebSocket::open_with(client, &request, options).await.unwrap()).await;
    }
}

#[tokio::test]
async fn the_http_client_opens_them_over_http_3() {
    use portolan_http::{Client, Version};
    let Some(python) = python("hypercorn") else { return };
    if !quiet(Command::new(&python).args(["-c", "import aioquic, wsproto"])) {
        return support::skip("aioquic beside hypercorn: pip:hypercorn[h3]");
    }
    let peer = Peer::start(&python, "aioquic_echo.py", true);
    let client = Client::builder().connector(peer.net()).version(Version::Http3Only).build().unwrap();
    by_client(&client, &peer).await;
    assert_eq!(client.metrics().opened, 1, "streams share the connection");
    record(&versions(&python, &["aioquic", "wsproto"]), "HTTP/3, by the HTTP client, permessage-deflate", 2);
}

#[tokio::test]
async fn the_http_client_opens_them_by_http_1_and_2() {
    use portolan_http::{Client, Version};
    let Some(python) = python("hypercorn") else { return };
    let peer = Peer::start(&python, "hypercorn_echo.py", true);
    for version in [Version::Http1Only, Version::Auto, Version::Http2Only] {
        let client = Client::builder().connector(peer.net()).version(version).build().unwrap();
        by_client(&client, &peer).await;
        record(&versions(&python, &["hypercorn"]), &format!("by the HTTP client, {version:?}, permessage-deflate"), 2);
    }
    // In cleartext there is no telling: an upgrade, and HTTP/2 where that is said.
    let peer = Peer::start(&python, "hypercorn_echo.py", false);
    for version in [Version::Auto, Version::Http2Only] {
        let client = Client::builder().version(version).build().unwrap();
        let request = Request::new(&peer.url("/")).unwrap().subprotocol("echo").unwrap();
        exercise(WebSocket::open_with(&client, &request, Options::new()).await.unwrap()).await;
    }
}

/// What HAR has of a WebSocket: its handshake, and each message while it was said.
#[tokio::test]
async fn har_has_what_is_said_on_websockets_of_the_http_client() {
    let Some(python) = python("hypercorn") else { return };
    for (version, status) in [(portolan_http::Version::Http1Only, 101), (portolan_http::Version::Http2Only, 200)] {
        let peer = Peer::start(&python, "hypercorn_echo.py", false);
        let recorder = Recorder::new(HarOptions::new().with_bodies(1000));
        let client = portolan_http::Client::builder().version(version).middleware(recorder.clone()).build().unwrap();
        let request = Request::new(&peer.url("/")).unwrap().subprotocol("echo").unwrap();
        let mut socket = WebSocket::open_with(&client, &request, deflate()).await.unwrap();
        // There before the conversation is over, and it goes on being written.
        let har = recorder.take();
        socket.send("ahoy").await.unwrap();
        assert_eq!(socket.recv().await.unwrap(), Some("ahoy".into()));
        let mut parts = socket.send_stream(DataKind::Binary).unwrap();
        parts.write(vec![1, 2]).await.unwrap();
        parts.finish(vec![3]).await.unwrap();
        assert_eq!(socket.recv().await.unwrap(), Some(vec![1, 2, 3].into()));
        // The first that finds no room is the last that is heard.
        socket.send(vec![0; 1000]).await.unwrap();
        socket.recv().await.unwrap();
        socket.send("more").await.unwrap();
        socket.recv().await.unwrap();
        socket.close(CloseCode::NORMAL, "").await.unwrap();

        let file: serde_json::Value = serde_json::from_str(&har.to_json().unwrap()).unwrap();
        let entry = &file["log"]["entries"][0];
        assert_eq!((&entry["_resourceType"], &entry["response"]["status"]), (&"websocket".into(), &status.into()));
        let said = entry["_webSocketMessages"].as_array().unwrap();
        let said: Vec<_> = said
            .iter()
            .map(|one| (one["type"].as_str().unwrap(), one["opcode"].as_u64().unwrap(), one["data"].as_str().unwrap()))
            .collect();
        assert_eq!(
            said,
            [("send", 1, "ahoy"), ("receive", 1, "ahoy"), ("send", 2, "AQID"), ("receive", 2, "AQID")],
            "{version:?}"
        );
        assert!(entry["_webSocketMessages"][0]["time"].as_f64().unwrap() > 1e9);
    }
}

#[tokio::test]
async fn nghttpx_carries_it_from_http_2_to_a_server_of_http_1() {
    let Some(python) = python("websockets") else { return };
    let peer = Peer::start(&python, "websockets_echo.py", false);
    let port = free_port();
    let args = [
        format!("--frontend=127.0.0.1,{port};no-tls"),
        format!("--backend=127.0.0.1,{}", peer.port),
        "--workers=1".to_owned(),
        "--errorlog-file=/dev/null".to_owned(),
        "--conf=/dev/null".to_owned(),
    ];
    let spec = Spec { package: "nghttp2-proxy", binary: "nghttpx", files: Vec::new(), args: args.to_vec() };
    let Some(proxy) = Server::start(&spec) else { return };
    let proxy = proxy.accepting(SocketAddr::from(([127, 0, 0, 1], port)));
    let front = Peer { _server: proxy, port, certs: None };
    let client = front.h2().await;
    for options in [Options::new(), deflate()] {
        let request = Request::new(&front.url("/")).unwrap().subprotocol("echo").unwrap();
        exercise(WebSocket::connect_h2(&client, &request, options).await.unwrap()).await;
    }
    record(&said(Command::new("nghttpx").arg("--version")), "HTTP/2 to HTTP/1.1, permessage-deflate", 2);
}
