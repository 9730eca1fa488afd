//! The connection against node, which does what servers seldom do. Skipped, and said so, where it is not installed.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "helpers of tests fail by panicking, and reach servers on loopback without a connector"
)]

mod support;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Collected, Empty, Full};
use portolan_core::{Delivery, Kind};
use portolan_http1::ext::OnInformational;
use portolan_http1::{Connection, Options, send};
use portolan_testbed::{Server, Service, free_port, record};
use support::streamed;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
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

async fn connect(port: u16) -> Connection<TcpStream> {
    Connection::new(TcpStream::connect(("127.0.0.1", port)).await.unwrap(), Options::new())
}

fn pattern(len: usize) -> Bytes {
    (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

async fn ask(
    conn: &mut Connection<TcpStream>,
    method: Method,
    path: &str,
    body: Bytes,
) -> portolan_core::Result<(StatusCode, Collected<Bytes>)> {
    let request = Request::builder().method(method).uri(format!("http://localhost{path}"));
    let response = send(conn, request.body(Full::new(body)).unwrap()).await?;
    Ok((response.status(), response.into_body().collect().await?))
}

#[tokio::test]
async fn node_answers_one_connection_in_many_ways() {
    let Some((_server, port)) = node() else { return };
    let mut conn = connect(port).await;
    let hints = Arc::new(Mutex::new(Vec::new()));
    for round in 0..5u64 {
        let seen = Arc::clone(&hints);
        let mut request =
            Request::get("http://localhost/hints").header("te", "trailers").body(Empty::<Bytes>::new()).unwrap();
        let hear = move |hint: Response<()>| seen.lock().unwrap().push(hint.status().as_u16());
        request.extensions_mut().insert(OnInformational::new(hear));
        let body = send(&mut conn, request).await.unwrap().into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["x-sum"], "7");
        assert_eq!((body.to_bytes(), hints.lock().unwrap().split_off(0)), (Bytes::from("hinted"), vec![102, 103]));
        for status in ["204", "205", "304"] {
            let (seen, body) = ask(&mut conn, Method::GET, &format!("/none?{status}"), Bytes::new()).await.unwrap();
            assert_eq!((seen.as_str(), body.to_bytes()), (status, Bytes::new()));
        }
        assert_eq!(ask(&mut conn, Method::HEAD, "/echo", Bytes::new()).await.unwrap().1.to_bytes(), "");
        for len in [0, 1, 1024, 1025, 70_000, 1_000_000] {
            let back = ask(&mut conn, Method::POST, "/echo", pattern(len)).await.unwrap().1.to_bytes();
            assert!(back == pattern(len), "{len}");
        }
        assert!(
            ask(&mut conn, Method::PUT, "/slow", pattern(3_000_000)).await.unwrap().1.to_bytes() == pattern(3_000_000)
        );
        for (path, status, body) in [("/welcome", 200, "held back"), ("/refused", 417, "no")] {
            let request = Request::put(format!("http://localhost{path}")).header("expect", "100-continue");
            let response = send(&mut conn, request.body(Full::<Bytes>::from("held back")).unwrap()).await.unwrap();
            assert_eq!(response.status(), status);
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), body);
        }
        // The body that was announced never came: another connection.
        assert!(!conn.is_reusable() && conn.requests() == 14, "{conn:?}");
        conn = connect(port).await;
        record("http1", "peer", "node", "odd ways", 14 * (round + 1));
    }
}

#[tokio::test]
async fn node_ends_in_many_ways() {
    let Some((_server, port)) = node() else { return };
    for (path, body) in [("/until-close", "all there is"), ("/old", "old"), ("/close", "bye")] {
        let mut conn = connect(port).await;
        assert_eq!(ask(&mut conn, Method::GET, path, Bytes::new()).await.unwrap().1.to_bytes(), body);
        // The last of them said that it would keep the connection, and closed it: seen as soon as it has come.
        while conn.is_fit() {
            tokio::task::yield_now().await;
        }
        let error = ask(&mut conn, Method::GET, path, Bytes::new()).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (Kind::Closed, Delivery::NotSent));
    }
    let mut conn = connect(port).await;
    let body = ask(&mut conn, Method::GET, "/drops", Bytes::new()).await.unwrap().1;
    assert_eq!(body.trailers().unwrap()["x-sum"], "9");
    assert_eq!(body.to_bytes(), "hello world");
    let mut conn = connect(port).await;
    let error = ask(&mut conn, Method::GET, "/cut", Bytes::new()).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Closed, Delivery::Answered), "{error:?}");
    // Far more than any buffer on the way: the refusal is heard all the same.
    for _ in 0..10 {
        let mut conn = connect(port).await;
        let piece = pattern(16_384);
        let pieces = (0..3000).map(|_| Ok(http_body::Frame::data(piece.clone()))).collect();
        let request = Request::post("http://localhost/early").body(streamed(pieces)).unwrap();
        let response = send(&mut conn, request).await.unwrap();
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "too large");
        assert!(!conn.is_reusable());
    }
    record("http1", "peer", "node", "ends", 15);
}

#[tokio::test]
async fn node_turns_to_other_protocols_and_tunnels() {
    let Some((_server, port)) = node() else { return };
    let mut conn = connect(port).await;
    let request = Request::get("http://localhost/").header("connection", "upgrade").header("upgrade", "echo");
    let response = send(&mut conn, request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut stream = response.into_body().upgraded().unwrap();
    stream.write_all(b"then this").await.unwrap();
    let mut back = [0; 15];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"first then this");
    for (host, granted) in [("far.test:443", true), ("refused.test:443", false)] {
        let mut conn = connect(port).await;
        let request = Request::builder().method(Method::CONNECT).uri(host).body(Empty::<Bytes>::new()).unwrap();
        let response = send(&mut conn, request).await.unwrap();
        assert_eq!(response.body().is_upgraded(), granted);
        if !granted {
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "no");
            continue;
        }
        let mut stream = response.into_body().upgraded().unwrap();
        let (mut read, mut write) = tokio::io::split(&mut stream);
        let mut back = Vec::new();
        let sent = pattern(1_000_000);
        let both = tokio::join!(
            async {
                write.write_all(&sent).await.unwrap();
                write.shutdown().await.unwrap();
            },
            read.read_to_end(&mut back)
        );
        both.1.unwrap();
        assert!(back == sent);
    }
    record("http1", "peer", "node", "upgrades and tunnels", 3);
}
