//! Connections that a server ends again and again, under load: no request is lost to it.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portolan_http::Client;
use portolan_testbed::{Certs, Server, Service, free_port};

use super::connector;

/// An nginx whose connections live as `life` says.
struct Mortal {
    plain: u16,
    tls: u16,
    server: Server,
}

fn mortal(certs: &Certs, life: &str) -> Option<Mortal> {
    let (plain, tls) = (free_port(), free_port());
    let conf = format!(
        "daemon off; user root; worker_processes 2; pid $D/pid; error_log $D/error.log;
         events {{ worker_connections 512; }}
         http {{
           access_log off; {life}
           client_body_temp_path $D/b; proxy_temp_path $D/p; fastcgi_temp_path $D/f; uwsgi_temp_path $D/u; scgi_temp_path $D/s;
           ssl_certificate $D/server.pem; ssl_certificate_key $D/server.key;
           server {{
             listen 127.0.0.1:{plain}; listen 127.0.0.1:{tls} ssl http2; root $D;
             location / {{ try_files /text =404; }}
           }}
         }}"
    );
    let server = Service::new("nginx-light", "nginx")
        .file("nginx.conf", conf)
        .file("text", "0123456789abcdef".repeat(1024))
        .tls(certs)
        .args(["-c", "$D/nginx.conf", "-e", "$D/error.log"])
        .accepts(([127, 0, 0, 1], plain).into())
        .accepts(([127, 0, 0, 1], tls).into())
        .start()?;
    Some(Mortal { plain, tls, server })
}

/// Asks `count` times, `at_once` at a time, with a pause after each.
async fn storm(client: &Client, url: &str, count: usize, at_once: usize, pause: Duration) {
    let asked = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    for _ in 0..at_once {
        let (client, url, asked) = (client.clone(), url.to_owned(), asked.clone());
        tasks.push(tokio::spawn(async move {
            while asked.fetch_add(1, Ordering::SeqCst) < count {
                let response = client.get(&url).timeout(Duration::from_secs(20)).send().await.unwrap();
                assert_eq!(response.bytes().await.unwrap().len(), 16 << 10);
                tokio::time::sleep(pause).await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_end_after_seven_requests_cost_none() {
    let certs = Certs::new();
    let Some(nginx) = mortal(&certs, "keepalive_requests 7;") else { return };
    for url in [format!("http://localhost:{}/", nginx.plain), format!("https://localhost:{}/", nginx.tls)] {
        let client = Client::builder().connector(connector(&certs)).build().unwrap();
        storm(&client, &url, 600, 50, Duration::ZERO).await;
        assert!(client.metrics().opened >= 600 / 7, "{:?}", client.metrics());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_end_as_they_are_taken_cost_none() {
    let certs = Certs::new();
    let Some(nginx) = mortal(&certs, "keepalive_timeout 1s;") else { return };
    for url in [format!("http://localhost:{}/", nginx.plain), format!("https://localhost:{}/", nginx.tls)] {
        let client = Client::builder().connector(connector(&certs)).build().unwrap();
        // Each connection is taken up again just when the server gives it up.
        storm(&client, &url, 80, 40, Duration::from_millis(998)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_reloaded_under_load_costs_none() {
    let certs = Certs::new();
    let Some(nginx) = mortal(&certs, "") else { return };
    for url in [format!("http://localhost:{}/", nginx.plain), format!("https://localhost:{}/", nginx.tls)] {
        let client = Client::builder().connector(connector(&certs)).build().unwrap();
        let pid = std::fs::read_to_string(nginx.server.dir().join("pid")).unwrap();
        let reload = async {
            for _ in 0..4 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                assert!(Command::new("kill").args(["-HUP", pid.trim()]).status().unwrap().success());
            }
        };
        tokio::join!(storm(&client, &url, 3000, 32, Duration::from_millis(2)), reload);
        assert!(client.metrics().opened > 1, "{:?}", client.metrics());
    }
}
