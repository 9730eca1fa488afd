//! The client against node, which does what servers seldom do, and against nghttp2's codec by way of Apache. Skipped, and said
//! so, where they are not installed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "helpers of tests fail by panicking, and reach servers on loopback without a connector"
)]

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use portolan_core::{Delivery, Kind};
use portolan_http2::ext::{OnInformational, Protocol};
use portolan_http2::{Code, Event, Options, RecvBody, SendRequest, State, handshake};
use portolan_testbed::{Server, Service, free_port, record};
use tokio::net::TcpStream;

fn node() -> Option<(Server, u16)> {
    let port = free_port();
    let server = Service::new("nodejs", "node")
        .file("odd.mjs", include_str!("odd.mjs"))
        .args(["$D/odd.mjs", &port.to_string()])
        .says("ready")
        .start()?;
    Some((server, port))
}

async fn connect(port: u16, options: Options) -> SendRequest {
    let io = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (client, connection) = handshake(io, options).unwrap();
    tokio::spawn(connection);
    client
}

fn pattern(len: usize) -> Bytes {
    (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

async fn send(client: &SendRequest, path: &str, body: Bytes) -> portolan_core::Result<Response<RecvBody>> {
    let request = Request::post(format!("http://localhost{path}")).header("x-kept", "in the table");
    client.send(request.body(Full::new(body)).unwrap()).await
}

async fn text(client: &SendRequest, path: &str, body: Bytes) -> portolan_core::Result<Bytes> {
    Ok(send(client, path, body).await?.into_body().collect().await?.to_bytes())
}

#[tokio::test]
async fn node_changes_its_settings_in_mid_flight() {
    let Some((_server, port)) = node() else { return };
    let client = connect(port, Options::new()).await;
    for _ in 0..3 {
        // In this order: who comes when the limit of streams has just been lowered is refused.
        let beside = text(&client, "/echo", pattern(300_000));
        let upload = text(&client, "/settings", pattern(1_000_000));
        let (beside, upload) = tokio::join!(beside, upload);
        assert_eq!(upload.unwrap(), "1000000");
        assert!(beside.unwrap() == pattern(300_000));
    }
    let settings = client.peer_settings().unwrap();
    assert_eq!((settings.header_table_size, settings.max_concurrent_streams), (4096, Some(1)));
    record("http2", "peer", "node", "settings in mid-flight", 6);
}

#[tokio::test]
async fn node_hints_and_names_alternatives_and_origins() {
    let Some((_server, port)) = node() else { return };
    let events = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&events);
    let client = connect(port, Options::new().on_event(move |event| sink.lock().unwrap().push(event))).await;
    let hints = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&hints);
    let mut request = Request::get("http://localhost/hints").body(Empty::<Bytes>::new()).unwrap();
    let hear = move |hint: Response<()>| seen.lock().unwrap().push(hint.status().as_u16());
    request.extensions_mut().insert(OnInformational::new(hear));
    let body = client.send(request).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(
        (&body.trailers().unwrap()["x-sum"], hints.lock().unwrap().as_slice()),
        (&"7".parse().unwrap(), &[103, 102][..])
    );
    assert_eq!(body.to_bytes(), "hinted");
    assert_eq!(text(&client, "/alternatives", Bytes::new()).await.unwrap(), "pinged");
    let events: Vec<_> = events.lock().unwrap().drain(..).collect();
    let has = |event: &Event| assert!(events.contains(event), "{events:?}");
    has(&Event::AltSvc { stream: 0, origin: "https://one.test".into(), value: "h3=\":1\"".into() });
    has(&Event::AltSvc { stream: 3, origin: "".into(), value: "clear".into() });
    has(&Event::Origin(vec!["https://two.test".into(), "https://three.test".into()]));
    assert_eq!(text(&client, "/push", Bytes::new()).await.unwrap(), "false");
    record("http2", "peer", "node", "hints, alternatives, origins", 3);
}

#[tokio::test]
async fn node_ends_streams_and_connections_in_every_way() {
    let Some((_server, port)) = node() else { return };
    let client = connect(port, Options::new()).await;
    for code in 0..=13u32 {
        let reset = text(&client, &format!("/reset?{code}"), pattern(10)).await;
        let half = text(&client, &format!("/half?{code}"), pattern(10)).await.unwrap_err();
        // However it ends, that is not what was promised.
        assert_eq!(half.delivery(), Delivery::Answered, "{half:?}");
        let Err(error) = reset else { panic!("no answer came, and none is made up") };
        assert_eq!(error.code(), Some(i64::from(code)), "{error:?}");
        if Code::new(code) == Code::REFUSED_STREAM {
            assert_eq!(error.delivery(), Delivery::Refused);
        }
    }
    // Far more than the window: the upload stops, and the answer is read.
    for _ in 0..3 {
        let endless =
            futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(http_body::Frame::data(pattern(16_384))));
        let request = Request::post("http://localhost/early").body(StreamBody::new(endless)).unwrap();
        let response = client.send(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "too large");
    }
    assert!(text(&client, "/slow", pattern(2_000_000)).await.unwrap() == pattern(2_000_000));
    assert_eq!((client.status().state, client.status().active), (State::Open, 0));
    let last = text(&client, "/away?0", Bytes::new()).await;
    assert_eq!(last.unwrap(), "last");
    let late = text(&client, "/late", Bytes::new()).await.unwrap_err();
    assert_eq!((late.kind(), late.delivery()), (Kind::Closed, Delivery::NotSent));
    record("http2", "peer", "node", "resets and ends", 32);
}

#[tokio::test]
async fn node_takes_and_refuses_extended_connect() {
    let Some((_server, port)) = node() else { return };
    let client = connect(port, Options::new()).await;
    for (path, status) in [("/chat", StatusCode::OK), ("/refused", StatusCode::FORBIDDEN)] {
        let frames = [Ok::<_, std::io::Error>(http_body::Frame::data(pattern(100_000)))];
        let request = Request::builder().method(Method::CONNECT).uri(format!("http://localhost{path}"));
        let mut request = request.body(StreamBody::new(futures_util::stream::iter(frames))).unwrap();
        request.extensions_mut().insert(Protocol::new("websocket"));
        let response = client.send(request).await.unwrap();
        assert_eq!(response.status(), status);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(body == if status == StatusCode::OK { pattern(100_000) } else { Bytes::new() });
    }
}

fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

/// Apache speaks HTTP/2 by nghttp2: what it decodes of ours and encodes again is what we sent.
#[tokio::test]
async fn headers_survive_nghttp2s_codec() {
    let port = free_port();
    let modules = "/usr/lib/apache2/modules";
    let load = ["mpm_event", "authz_core", "http2", "headers"];
    let load: String = load.iter().map(|name| format!("LoadModule {name}_module {modules}/mod_{name}.so\n")).collect();
    let conf = format!(
        "{load}ServerRoot $D\nServerName localhost\nPidFile $D/pid\nErrorLog $D/error.log\nDefaultRuntimeDir $D\n\
         User www-data\nGroup www-data\nMutex file:$D default\nListen 127.0.0.1:{port}\nProtocols h2c\nDocumentRoot $D\n\
         MaxKeepAliveRequests 0\nHeader echo ^[Xx]-\n<Directory $D>\nRequire all granted\n</Directory>\n"
    );
    let server = Service::new("apache2", "apache2").file("apache.conf", conf).file("echo.txt", "echo");
    let server = server.args(["-f", "$D/apache.conf", "-D", "FOREGROUND"]);
    let Some(_server) = server.accepts(([127, 0, 0, 1], port).into()).start() else { return };
    for (ours, theirs) in [(4096, 4096), (0, 4096), (4096, 0), (200, 300), (16 << 10, 64 << 10)] {
        let client = connect(port, Options::new().encoder_table_size(ours).header_table_size(theirs)).await;
        let mut seed = ours as u64 + 1;
        for _ in 0..200 {
            let mut request = Request::get("http://localhost/echo.txt").body(Empty::<Bytes>::new()).unwrap();
            for _ in 0..random(&mut seed) % 8 {
                let name = HeaderName::try_from(format!("x-{}", random(&mut seed) % 20)).unwrap();
                let len = random(&mut seed) % 60;
                let other = (0..len).map(|_| char::from(33 + u8::try_from(random(&mut seed) % 90).unwrap())).collect();
                let value = if random(&mut seed).is_multiple_of(2) { "again".to_owned() } else { other };
                request.headers_mut().insert(name, HeaderValue::try_from(value).unwrap());
            }
            let sent = request.headers().clone();
            let response = client.send(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            let back = response.headers().iter().filter(|(name, _)| name.as_str().starts_with("x-"));
            let back: http::HeaderMap = back.map(|(name, value)| (name.clone(), value.clone())).collect();
            assert_eq!(back, sent);
            response.into_body().collect().await.unwrap();
        }
    }
    record("http2", "peer", "apache2 (nghttp2)", "fields echoed", 1000);
}
