//! The opening handshake over HTTP/1.1, with servers that keep the rules and servers that don't.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]
#![allow(clippy::disallowed_methods, reason = "the test is the server")]

mod support;

use std::time::Duration;

use base64::Engine;
use portolan_core::{
    BoxFuture, Connector, Credentials, Datagram, Dial, DialContext, Endpoint, Error, Kind, Phase, Stream, Timeouts,
};
use portolan_websocket::handshake::accept;
use portolan_websocket::{Deflate, Options, Rejected, Request, WebSocket};
use sha1::Digest;
use support::text;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpListener;

/// Reads a request's head.
async fn head<T: AsyncReadExt + Unpin>(io: &mut T) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .find_map(|line| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)))
        .map(|(_, value)| value)
}

/// The answer's key, by the RFC and not by the code under test.
fn key(head: &str) -> String {
    let text = format!("{}258EAFA5-E914-47DA-95CA-C5AB0DC85B11", field(head, "sec-websocket-key").unwrap());
    base64::engine::general_purpose::STANDARD.encode(sha1::Sha1::digest(text))
}

fn good(head: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n",
        key(head)
    )
}

/// The handshake with a server that answers by `answer`.
async fn against(
    request: Request,
    options: Options,
    answer: impl FnOnce(&str) -> String + Send + 'static,
) -> Result<WebSocket<DuplexStream>, Error> {
    let (ours, mut theirs) = duplex(256 << 10);
    tokio::spawn(async move {
        let head = head(&mut theirs).await;
        let _ = theirs.write_all(answer(&head).as_bytes()).await;
        // Stays, so that an end is never what decides.
        let _ = theirs.read_u8().await;
    });
    WebSocket::handshake(ours, &request, options).await
}

fn plain() -> Request {
    Request::new("ws://example.test/chat?room=1").unwrap()
}

#[tokio::test]
async fn the_request_says_all_that_the_rfc_asks_for() {
    let (send, receive) = tokio::sync::oneshot::channel();
    let request = Request::new("ws://joe:p%40ss@Example.test:8080/chat?room=1")
        .unwrap()
        .subprotocol("mqtt")
        .unwrap()
        .subprotocol("stomp")
        .unwrap()
        .origin("https://example.test")
        .unwrap()
        .header("cookie", "a=b")
        .unwrap();
    let socket = against(request, Options::new().deflate(Deflate::new()), |head| {
        send.send(head.to_owned()).unwrap();
        good(head) + "Sec-WebSocket-Protocol: stomp\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    });
    let socket = socket.await.unwrap();
    assert_eq!((socket.subprotocol(), socket.is_compressed()), (Some("stomp"), true));
    let head = receive.await.unwrap();
    assert!(head.starts_with("GET /chat?room=1 HTTP/1.1\r\n"), "{head}");
    for (name, value) in [
        ("host", "example.test:8080"),
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "mqtt, stomp"),
        ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"),
        ("origin", "https://example.test"),
        ("cookie", "a=b"),
        ("authorization", "Basic am9lOnBAc3M="),
    ] {
        assert_eq!(field(&head, name), Some(value), "{name} in {head}");
    }
    let nonce = base64::engine::general_purpose::STANDARD.decode(field(&head, "sec-websocket-key").unwrap());
    assert_eq!(nonce.unwrap().len(), 16);
}

#[tokio::test]
async fn what_comes_with_the_answer_belongs_to_the_conversation() {
    let (ours, mut theirs) = duplex(4096);
    let server = tokio::spawn(async move {
        let head = head(&mut theirs).await;
        theirs.write_all(&[good(&head).as_bytes(), b"\r\n", &text("early")].concat()).await.unwrap();
        theirs
    });
    let mut socket = WebSocket::handshake(ours, &plain(), Options::new()).await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), Some("early".into()));
    server.await.unwrap();
}

#[tokio::test]
async fn answers_that_break_the_rules_are_refused() {
    type Answer = fn(&str) -> String;
    let answers: &[(&str, Answer)] = &[
        ("no upgrade", |head| good(head).replace("Upgrade: WebSocket\r\n", "") + "\r\n"),
        ("another upgrade", |head| good(head).replace("WebSocket\r\n", "h2c\r\n") + "\r\n"),
        ("no connection", |head| good(head).replace("keep-alive, upgrade", "keep-alive") + "\r\n"),
        ("no accept", |head| good(head).replace("Sec-WebSocket-Accept", "X-Accept") + "\r\n"),
        ("wrong accept", |head| good(head).replace(&key(head), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") + "\r\n"),
        ("accept twice", |head| good(head) + &format!("Sec-WebSocket-Accept: {}\r\n\r\n", key(head))),
        ("a subprotocol not offered", |head| good(head) + "Sec-WebSocket-Protocol: soap\r\n\r\n"),
        ("an extension not offered", |head| good(head) + "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
        ("HTTP/1.0", |head| good(head).replace("HTTP/1.1", "HTTP/1.0") + "\r\n"),
        ("no HTTP", |_| "SSH-2.0-OpenSSH_9.9\r\n\r\n".to_owned()),
    ];
    for (what, answer) in answers {
        let error = against(plain(), Options::new(), *answer).await.unwrap_err();
        assert_eq!((error.kind(), error.phase()), (Kind::Protocol, Some(Phase::Handshake)), "{what}: {error}");
    }
}

#[tokio::test]
async fn heads_without_end_are_stopped() {
    let endless = |_: &str| format!("HTTP/1.1 101 x\r\nA: {}", "a".repeat(70 << 10));
    assert_eq!(against(plain(), Options::new(), endless).await.unwrap_err().kind(), Kind::Limit);
    let many = |_: &str| format!("HTTP/1.1 101 x\r\n{}\r\n", "A: b\r\n".repeat(101));
    assert_eq!(against(plain(), Options::new(), many).await.unwrap_err().kind(), Kind::Limit);
    let hints = |_: &str| "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(17);
    assert_eq!(against(plain(), Options::new(), hints).await.unwrap_err().kind(), Kind::Protocol);
    let one = |head: &str| format!("HTTP/1.1 100 Continue\r\n\r\n{}\r\n", good(head));
    assert!(against(plain(), Options::new(), one).await.is_ok());
}

#[tokio::test]
async fn a_refusal_carries_status_headers_and_a_bounded_body() {
    let cases = [
        ("HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 2\r\n\r\nhi", 302, 2),
        ("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n", 401, 0),
        ("HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", 403, 5),
        ("HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", 200, 16 << 10),
    ];
    for (answer, status, length) in cases {
        let answer = if status == 200 { format!("{answer}{}", "x".repeat(20 << 10)) } else { answer.to_owned() };
        let error = against(plain(), Options::new(), move |_| answer).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (Kind::Server, Some(i64::from(status))), "{error}");
        let rejected = error.server::<Rejected>().unwrap();
        assert_eq!((rejected.status.as_u16(), rejected.body.len()), (u16::try_from(status).unwrap(), length));
    }
}

/// Refuses, and never comes to the end of what it says about it.
#[derive(Debug)]
struct Endless;

impl Dial for Endless {
    fn dial<'a>(&'a self, _: &'a Endpoint, _: &'a DialContext) -> BoxFuture<'a, Result<Stream, Error>> {
        let (ours, mut theirs) = duplex(1 << 10);
        tokio::spawn(async move {
            head(&mut theirs).await;
            theirs.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\nwait").await.unwrap();
            let _ = theirs.read_u8().await;
        });
        Box::pin(async { Ok(Stream::from_io(ours)) })
    }

    fn datagram<'a>(&'a self, _: &'a Endpoint, _: &'a DialContext) -> BoxFuture<'a, Result<Datagram, Error>> {
        Box::pin(async { Err(Error::new(Kind::Unsupported, "streams alone")) })
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_whose_body_never_ends_is_given_all_the_same() {
    let net = Connector::builder().dial(Endless).build().unwrap();
    let client = portolan_http::Client::builder().connector(net.clone()).build().unwrap();
    let work = async {
        for error in [
            WebSocket::open(&net, &plain(), Options::new()).await.unwrap_err(),
            WebSocket::open_with(&client, &plain(), Options::new()).await.unwrap_err(),
        ] {
            assert_eq!((error.kind(), error.code()), (Kind::Server, Some(403)), "{error}");
        }
    };
    tokio::time::timeout(Duration::from_secs(60), work).await.unwrap();
}

#[tokio::test]
async fn a_refusal_says_when_to_come_back_in_seconds_or_by_a_date() {
    let date = httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(3600));
    for (after, least) in [("7".to_owned(), 7), (date, 3590)] {
        let answer = format!("HTTP/1.1 503 Service Unavailable\r\nRetry-After: {after}\r\nContent-Length: 0\r\n\r\n");
        let error = against(plain(), Options::new(), move |_| answer).await.unwrap_err();
        let wait = error.retry_after().unwrap().as_secs();
        assert!((least..=least + 10).contains(&wait), "{after}: {wait}");
    }
}

/// Asks for Digest, and opens the WebSocket for who proves the password; what was asked is given back.
async fn challenging(connections: usize) -> (String, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://127.0.0.1:{}/chat?room=1", listener.local_addr().unwrap().port());
    let server = tokio::spawn(async move {
        let mut asked = Vec::new();
        for _ in 0..connections {
            let (mut io, _) = listener.accept().await.unwrap();
            let head = head(&mut io).await;
            let challenge = "Digest realm=\"chat\", nonce=\"abc\", qop=\"auth\", algorithm=SHA-256";
            let answer = match field(&head, "authorization") {
                None => format!(
                    "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: {challenge}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                ),
                Some(proof) if proof.contains(&format!("response=\"{}\"", proof_of(proof))) => good(&head) + "\r\n",
                Some(_) => "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned(),
            };
            io.write_all(answer.as_bytes()).await.unwrap();
            asked.push(head);
        }
        asked
    });
    (url, server)
}

/// The right response (RFC 7616 3.4.1), by hand: the password is `sesame`.
fn proof_of(said: &str) -> String {
    let of = |name: &str| said.split(&format!("{name}=\"")).nth(1).unwrap().split('"').next().unwrap().to_owned();
    let hash = |text: String| sha2::Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let secret = hash("ann:chat:sesame".to_owned());
    hash(format!("{secret}:abc:00000001:{}:auth:{}", of("cnonce"), hash(format!("GET:{}", of("uri")))))
}

#[tokio::test]
async fn a_server_that_asks_for_digest_is_answered_with_the_proof() {
    use portolan_http::Client;
    async fn opens(by_client: bool, request: Request) -> Result<(), Error> {
        // In a task of its own: the future can be sent to another thread.
        let opening = tokio::spawn(async move {
            if by_client {
                WebSocket::open_with(&Client::new(), &request, Options::new()).await.map(drop)
            } else {
                WebSocket::open(&Connector::default(), &request, Options::new()).await.map(drop)
            }
        });
        opening.await.unwrap()
    }
    for by_client in [false, true] {
        for (password, status) in [("sesame", None), ("wrong", Some(401))] {
            let (url, server) = challenging(2).await;
            let request = Request::new(&url).unwrap().digest_auth(Credentials::new("ann", password));
            assert!(!format!("{request:?}").contains(password));
            let opened = opens(by_client, request).await;
            assert!(opened.as_ref().err().is_none_or(|error| error.endpoint().is_some()), "{opened:?}");
            assert_eq!(opened.err().and_then(|error| error.code()), status, "{by_client} {password}");
            let asked = server.await.unwrap();
            assert!(field(&asked[0], "authorization").is_none());
            let proof = field(&asked[1], "authorization").unwrap();
            assert!(proof.contains("uri=\"/chat?room=1\"") && proof.contains("username=\"ann\""), "{proof}");
            assert_ne!(field(&asked[0], "sec-websocket-key"), field(&asked[1], "sec-websocket-key"));
        }
        // Who has no password for it is told once.
        let (url, server) = challenging(1).await;
        assert_eq!(opens(by_client, Request::new(&url).unwrap()).await.unwrap_err().code(), Some(401));
        server.await.unwrap();
    }
}

#[tokio::test]
async fn the_http_client_brings_its_cookies_and_follows_redirects() {
    use portolan_http::{Client, cookie::Jar};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://127.0.0.1:{}/", listener.local_addr().unwrap().port());
    let server = tokio::spawn(async move {
        let mut asked = Vec::new();
        for turn in 0..2 {
            let (mut io, _) = listener.accept().await.unwrap();
            let head = head(&mut io).await;
            let answer = match turn {
                0 => "HTTP/1.1 307 Temporary Redirect\r\nLocation: /there\r\nSet-Cookie: pass=yes\r\n\
                      Content-Length: 0\r\nConnection: close\r\n\r\n"
                    .to_owned(),
                _ => good(&head) + "\r\n",
            };
            io.write_all(answer.as_bytes()).await.unwrap();
            asked.push(head);
        }
        asked
    });
    let client = Client::builder().cookie_jar(std::sync::Arc::new(Jar::new())).build().unwrap();
    WebSocket::open_with(&client, &Request::new(&url).unwrap(), Options::new()).await.unwrap();
    let asked = server.await.unwrap();
    assert!(field(&asked[0], "cookie").is_none() && asked[0].starts_with("GET / "));
    assert!(field(&asked[1], "cookie") == Some("pass=yes") && asked[1].starts_with("GET /there "), "{}", asked[1]);
    assert_eq!(field(&asked[1], "upgrade"), Some("websocket"));
}

#[tokio::test]
async fn requests_that_contradict_the_handshake_are_the_callers_mistake() {
    for url in ["ftp://example.test", "ws://", "ws://example.test/#top", "example.test"] {
        assert_eq!(Request::new(url).unwrap_err().kind(), Kind::Usage, "{url}");
    }
    for name in ["Host", "upgrade", "Sec-WebSocket-Key", "content-length", "no token"] {
        assert_eq!(plain().header(name, "x").unwrap_err().kind(), Kind::Usage, "{name}");
    }
    assert!(plain().header("x", "a\r\nb: c").is_err());
    assert!(plain().subprotocol("a b").is_err() && plain().subprotocol("a").unwrap().subprotocol("a").is_err());
    let secret = plain().basic_auth(&Credentials::new("joe", "hunter2")).unwrap();
    let shown = format!("{secret:?}");
    assert!(!shown.contains("am9lOmh1bnRlcjI=") && !shown.contains("hunter2"), "{shown}");
}

#[tokio::test]
async fn the_servers_half_of_this_crate_answers_the_clients() {
    let deflate = || Options::new().deflate(Deflate::new().server_max_window_bits(10));
    let request = plain().subprotocol("b").unwrap().subprotocol("a").unwrap();
    let upgrade = request.upgrade(&deflate()).unwrap();
    let (response, _) = accept(&upgrade, deflate(), &["a", "b"]).unwrap();
    let agreed = request.verify(&deflate(), &response).unwrap();
    assert_eq!(agreed.subprotocol.as_deref(), Some("a"));
    assert_eq!(agreed.deflate.unwrap().server_bits, 10);
    assert!(request.renewed().unwrap().verify(&deflate(), &response).is_err());
    let extended = request.extended(&deflate()).unwrap();
    assert_eq!(
        (extended.method().as_str(), extended.uri().to_string().as_str()),
        ("CONNECT", "http://example.test/chat?room=1")
    );
    assert!(extended.headers().get("sec-websocket-key").is_none() && extended.headers().get("upgrade").is_none());
    assert!(accept(&extended, deflate(), &[]).is_err());
}

#[tokio::test]
async fn it_connects_by_the_connector_and_its_deadline_holds() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://127.0.0.1:{}/", listener.local_addr().unwrap().port());
    let server = tokio::spawn(async move {
        let (mut io, _) = listener.accept().await.unwrap();
        let head = head(&mut io).await;
        io.write_all((good(&head) + "\r\n").as_bytes()).await.unwrap();
        io.write_all(&text("hello")).await.unwrap();
        // The second gets no answer.
        listener.accept().await.unwrap()
    });
    let mut socket = WebSocket::connect(&Connector::default(), &url, Options::new()).await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), Some("hello".into()));
    let timeouts = Timeouts::default().handshake(Duration::from_millis(50));
    let net = Connector::builder().timeouts(timeouts).build().unwrap();
    let error = WebSocket::connect(&net, &url, Options::new()).await.unwrap_err();
    assert_eq!((error.kind(), error.phase()), (Kind::Timeout, Some(Phase::Handshake)));
    server.await.unwrap();
}
