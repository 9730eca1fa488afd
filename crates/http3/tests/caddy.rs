//! The client against Caddy, whose QUIC is quic-go. Skipped, and said so, where it is not installed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use portolan_http3::{Options, SendRequest, connect};
use portolan_testbed::{Certs, Server, Service, free_port, record};
use support::*;

const CONFIG: &str = r#"
{
    admin off
    auto_https off
    skip_install_trust
    servers {
        protocols h1 h2 h3
    }
}
https://localhost:PORT {
    bind 127.0.0.1
    tls $D/server.pem $D/server.key
    handle /file {
        root * $D
        file_server
    }
    handle {
        header X-Kind "the same value each time"
        respond "{method} {path} {http.request.proto} {http.request.header.X-Request}"
    }
}
"#;

struct Peer {
    _server: Server,
    certs: Certs,
    port: u16,
}

fn start() -> Option<Peer> {
    let (certs, port) = (Certs::new(), free_port());
    let server = Service::new("caddy", "caddy")
        .file("Caddyfile", CONFIG.replace("PORT", &port.to_string()))
        .file("file", "y".repeat(5_000_000))
        .env("HOME", "$D")
        .env("XDG_DATA_HOME", "$D")
        .env("XDG_CONFIG_HOME", "$D")
        .tls(&certs)
        .args(["run", "--adapter", "caddyfile", "--config", "$D/Caddyfile"])
        .accepts(([127, 0, 0, 1], port).into())
        .start()?;
    Some(Peer { _server: server, certs, port })
}

async fn text(client: &SendRequest, path: &str) -> String {
    let mut request = get(path);
    request.headers_mut().insert("x-request", "named each time".parse().unwrap());
    let body = client.send(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test]
async fn caddy_answers_downloads_uploads_and_many_at_once() {
    let Some(peer) = start() else { return };
    let net = connector(&peer.certs);
    let to = portolan_core::Endpoint::new("localhost", peer.port).unwrap();
    let (client, connection) = connect(&net, &to, Options::new()).await.unwrap();
    let driver = tokio::spawn(connection);
    assert_eq!(text(&client, "/one").await, "GET /one HTTP/3.0 named each time");
    assert!(client.peer_settings().is_some());
    let file = client.send(get("/file")).await.unwrap();
    assert_eq!(file.headers()["content-length"], "5000000");
    assert_eq!(file.into_body().collect().await.unwrap().to_bytes().len(), 5_000_000);
    let upload = Full::new(Bytes::from(vec![b'u'; 1 << 20]));
    let request = Request::post("https://localhost/up").body(upload).unwrap();
    let body = client.send(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "POST /up HTTP/3.0 ");
    let calls: Vec<_> = (0..300)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move {
                let expected = format!("GET /{number} HTTP/3.0 named each time");
                assert_eq!(text(&client, &format!("/{number}")).await, expected);
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    drop(client);
    driver.await.unwrap().unwrap();
    record("http3", "peer", "Caddy 2.6", "quic-go", 303);
}

/// Files are given up in the middle here and not against the h3 crate: a `quinn` server whose connection is full does not tell
/// its application that a stream was stopped.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn files_given_up_half_way_leave_nothing_open() {
    let Some(peer) = start() else { return };
    let to = portolan_core::Endpoint::new("localhost", peer.port).unwrap();
    let (client, connection) = connect(&connector(&peer.certs), &to, Options::new().max_streams(32)).await.unwrap();
    let driver = tokio::spawn(connection);
    storm(&client, |n| if n % 4 == 3 { "/file" } else { "/small" }).await;
    assert_eq!(text(&client, "/last").await, "GET /last HTTP/3.0 named each time");
    drop(client);
    driver.await.unwrap().unwrap();
}
