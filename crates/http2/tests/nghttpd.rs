//! The client against nghttpd over cleartext, started by the test. Skipped, and said so, where it is not installed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests fail by panicking, and say what they skip"
)]
#![allow(clippy::disallowed_methods, reason = "the test reaches a server on loopback and needs no connector")]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty, Full};
use portolan_http2::{Options, SendRequest, handshake};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

struct Server {
    _child: Child,
    port: u16,
    root: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

async fn start(name: &str, arguments: &[&str]) -> Option<Server> {
    let root = std::env::temp_dir().join(format!("portolan-nghttpd-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&root).unwrap();
    std::fs::write(root.join("small"), [b'x'; 100]).unwrap();
    std::fs::write(root.join("large"), vec![b'y'; 5_000_000]).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let child = Command::new("nghttpd")
        .args(["--no-tls", "-a", "127.0.0.1", "-d"])
        .arg(&root)
        .args(arguments)
        .arg(port.to_string())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    match child {
        Ok(child) => Some(Server { _child: child, port, root }),
        Err(error) => {
            assert!(!portolan_testbed::required(), "nghttpd is missing: install nghttp2-server");
            eprintln!("SKIPPED: nghttpd ({error}); install nghttp2-server");
            let _ = std::fs::remove_dir_all(Path::new(&root));
            None
        }
    }
}

async fn connect(server: &Server, options: Options) -> SendRequest {
    for _ in 0..200 {
        // A port that nobody listens on yet may be the one that the kernel gives to this very socket: it then meets itself.
        let io = TcpStream::connect(("127.0.0.1", server.port)).await.ok();
        if let Some(io) = io.filter(|io| io.local_addr().ok() != io.peer_addr().ok()) {
            let (client, connection) = handshake(io, options).unwrap();
            tokio::spawn(connection);
            return client;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("nghttpd did not come up");
}

async fn fetch(client: &SendRequest, path: &str) -> Bytes {
    let request = Request::get(format!("http://127.0.0.1{path}"))
        .header("user-agent", "portolan")
        .header("x-request", path)
        .body(Empty::<Bytes>::new())
        .unwrap();
    let response = client.send(request).await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.unwrap().to_bytes()
}

#[tokio::test]
async fn nghttpd_serves_many_requests_on_one_connection() {
    let Some(server) = start("many", &[]).await else { return };
    let client = connect(&server, Options::new()).await;
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                for _ in 0..20 {
                    assert_eq!(fetch(&client, "/small").await, [b'x'; 100][..]);
                }
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    assert!(client.ping().await.unwrap() > Duration::ZERO);
    assert_eq!(fetch(&client, "/large").await.len(), 5_000_000);
    portolan_testbed::record("http2", "peer", "nghttpd", "the engine alone", 1001);
}

/// A tiny header table, few streams, padding on every frame: the limits of a peer that is hard to please.
#[tokio::test]
async fn nghttpd_with_narrow_limits_is_served_too() {
    let Some(server) =
        start("narrow", &["--header-table-size=64", "--max-concurrent-streams=3", "--padding=64", "--echo-upload"])
            .await
    else {
        return;
    };
    let client = connect(&server, Options::new()).await;
    // Streams opened before the limit is known would be refused, and rightly so.
    while client.peer_settings().is_none() {
        assert!(!client.is_closed());
        tokio::task::yield_now().await;
    }
    let calls: Vec<_> = (0..12)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { fetch(&client, "/large").await.len() })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), 5_000_000);
    }
    let body = Bytes::from(vec![b'z'; 300_000]);
    let request = Request::post("http://127.0.0.1/echo").body(Full::new(body.clone())).unwrap();
    let response = client.send(request).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), body);
    portolan_testbed::record("http2", "peer", "nghttpd", "the engine alone, narrow limits", 13);
}
