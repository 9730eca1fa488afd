//! HAR and those who read and write it besides: files of mitmproxy are answered from, and ours are held to the schema of HAR 1.2.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portolan_core::{Connector, Hop, Policy, Roots, Tls};
use portolan_http::cookie::Jar;
use portolan_http::har::{HarOptions, Missing, Recorder, Replay};
use portolan_http::multipart::{Form, Part};
use portolan_http::{Body, Client, Version};
use portolan_testbed::{Certs, Server, Service, find, free_port, record};

use crate::servers::{connector, nginx};

const TESTBED: &str = "/opt/portolan-testbed";

/// Answers of many kinds.
fn python() -> Option<(Server, String)> {
    let port = free_port();
    let server = Service::new("python3", "/usr/bin/python3")
        .file("har.py", include_str!("har.py"))
        .args(["$D/har.py", &port.to_string()])
        .accepts(([127, 0, 0, 1], port).into())
        .start()?;
    Some((server, format!("http://localhost:{port}")))
}

/// It writes `out.har` when it is asked to end.
fn mitmproxy(certs: &Certs) -> Option<(Server, u16)> {
    let port = free_port();
    let listens = port.to_string();
    let sets = ["confdir=$D/conf", "hardump=$D/out.har", "ssl_verify_upstream_trusted_ca=$D/ca.pem"];
    let server = Service::new("pip:mitmproxy", format!("{TESTBED}/mitmproxy/bin/mitmdump"))
        .tls(certs)
        .args(["-q", "--listen-host", "127.0.0.1", "--listen-port", &listens])
        .args(sets.iter().flat_map(|set| ["--set", set]))
        .accepts(([127, 0, 0, 1], port).into())
        .start()?;
    Some((server, port))
}

fn version() -> String {
    let output = Command::new(format!("{TESTBED}/mitmproxy/bin/mitmdump")).arg("--version").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().unwrap_or_default().replace("Mitmproxy:", "mitmproxy")
}

/// What is asked of both servers, and what was heard: bytes, but where a charset stands between.
async fn session(client: &Client, plain: &str, tls: &str) -> Vec<(u16, usize, Vec<u8>)> {
    let mut heard = Vec::new();
    for request in [
        client.get(format!("{plain}/")),
        client.get(format!("{plain}/gzip")),
        client.get(format!("{plain}/utf8")),
        client.get(format!("{plain}/bytes")),
        client.get(format!("{plain}/more?a=b&c=d%20e")),
        client.get(format!("{plain}/more")),
        client.get(format!("{plain}/json")),
        client.get(format!("{plain}/moved")),
        client.post(format!("{plain}/")).form([("a", "1"), ("b", "ü +")]),
        client.post(format!("{plain}/")).body(vec![0xff, 0, 1]),
        client.get(format!("{tls}/small.txt")),
        client.get(format!("{tls}/moved")),
        client.get(format!("{tls}/long.txt")),
        client.get(format!("{tls}/nowhere")),
    ] {
        let response = request.send().await.unwrap();
        heard.push((response.status().as_u16(), response.redirects().len(), response.bytes().await.unwrap().to_vec()));
    }
    let latin = client.get(format!("{plain}/latin")).send().await.unwrap().text().await.unwrap();
    assert_eq!(latin, "gr\u{fc}n");
    heard
}

/// The file, once its writer is done with it.
async fn written(server: &Server) -> Replay {
    let ended = Command::new("kill").args(["-TERM", &server.id().to_string()]).status().unwrap();
    assert!(ended.success());
    let (path, started) = (server.dir().join("out.har"), Instant::now());
    loop {
        match Replay::load(&path) {
            Ok(replay) => return replay,
            Err(error) => assert!(started.elapsed() < Duration::from_secs(30), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Nothing can be reached by it.
fn nowhere() -> Connector {
    Connector::builder().policy(Policy::public_only()).build().unwrap()
}

#[tokio::test]
async fn files_of_mitmproxy_are_answered_from_without_the_servers() {
    let certs = Certs::new();
    let (Some(site), Some((python, plain))) = (nginx(&certs), python()) else { return };
    let Some((proxy, port)) = mitmproxy(&certs) else { return };
    let ca = std::fs::read(proxy.dir().join("conf/mitmproxy-ca-cert.pem")).unwrap();
    let tls = Tls::builder().roots(Roots::Custom).root_pem(&ca).build().unwrap();
    let hop = Hop::parse(&format!("http://127.0.0.1:{port}")).unwrap();
    let net = Connector::builder().tls(tls).via(hop).build().unwrap();
    let with = |net: Connector| Client::builder().connector(net).alt_svc(None).cookie_jar(Arc::new(Jar::new()));
    let secure = format!("https://localhost:{}", site.tls.unwrap());
    let first = session(&with(net).build().unwrap(), &plain, &secure).await;
    assert_eq!(first[7], (200, 1, b"a=1; b=2".to_vec()));
    let replay = written(&proxy).await;
    drop((proxy, python, site));
    let client = with(nowhere()).middleware(replay.clone()).build().unwrap();
    for (n, (again, first)) in session(&client, &plain, &secure).await.into_iter().zip(&first).enumerate() {
        assert!(again == *first, "{n}: {again:?} is not {first:?}");
    }
    assert_eq!(replay.unused(), 0);
    // What was sent chooses, bytes that are no text too.
    let client = with(nowhere()).middleware(replay.match_bodies(true)).build().unwrap();
    let sent = client.post(format!("{plain}/")).body(vec![0xff, 0, 1]).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(&sent[..], b"sent \xff\0\x01");
    client.post(format!("{plain}/")).body("other").send().await.unwrap_err();
    record("http1", "exchange", &version(), "answers out of its HAR file", first.len() as u64);
}

/// `har-validator` has nothing against it; how many exchanges it saw.
fn validated(dir: &Path, file: &Path) -> Option<u64> {
    let modules = format!("{TESTBED}/npm");
    find("npm:har-validator", &format!("{modules}/node_modules/har-validator"))?;
    let node = find("nodejs", "node")?;
    let script = dir.join("har.mjs");
    std::fs::write(&script, include_str!("har.mjs")).unwrap();
    let output = Command::new(node).args([script.as_os_str(), modules.as_ref(), file.as_os_str()]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let count = said.trim().strip_prefix("valid: ").and_then(|count| count.parse().ok());
    assert!(count.is_some(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    count
}

#[tokio::test]
async fn what_is_recorded_is_har_by_its_schema() {
    let certs = Certs::new();
    let (Some(site), Some((python, plain))) = (nginx(&certs), python()) else { return };
    let mut count = 0;
    for options in [HarOptions::new(), HarOptions::new().with_bodies(1 << 20).dangerous().with_secrets()] {
        let recorder = Recorder::new(options.clone());
        let replay = Replay::new().missing(Missing::Record).options(options.with_bodies(1 << 20));
        let with = |version| {
            let builder = Client::builder().connector(connector(&certs)).alt_svc(None).version(version);
            builder.cookie_jar(Arc::new(Jar::new()))
        };
        for client in [
            with(Version::Auto).middleware(recorder.clone()),
            with(Version::Http1Only).middleware(recorder.clone()),
            with(Version::Auto).middleware(replay.clone()),
        ] {
            let client = client.build().unwrap();
            let secure = format!("https://localhost:{}", site.tls.unwrap());
            session(&client, &plain, &secure).await;
            let file = Part::bytes(vec![0xff; 100]).with_file_name("a.bin");
            let form = Form::new().text("a", "ü").part("b", file);
            client.post(format!("{plain}/form?x&y=%ff")).multipart(form).send().await.unwrap().bytes().await.unwrap();
            let pieces = Body::from_stream(futures_util::stream::iter([Ok::<_, std::io::Error>("12345")]));
            let streamed = client.put(format!("{secure}/upload")).body(pieces).send().await.unwrap();
            streamed.bytes().await.unwrap();
            client.head(format!("{secure}/long.txt")).send().await.unwrap();
            drop(client.get(format!("{secure}/big.bin")).send().await.unwrap());
            client.get(format!("http://127.0.0.1:{}/", free_port())).send().await.unwrap_err();
        }
        for (name, text) in [("recorder.har", recorder.take().to_json()), ("replay.har", replay.to_json())] {
            let path = python.dir().join(name);
            std::fs::write(&path, text.unwrap()).unwrap();
            let Some(exchanges) = validated(python.dir(), &path) else { return };
            assert!(exchanges >= 15, "{name}: {exchanges}");
            count += exchanges;
        }
    }
    record("http1", "exchange", "har-validator", "recorded HAR by its schema", count);
}
