//! Event streams by servers of others that people use for them: sse-starlette under hypercorn, and better-sse on node.

use std::time::Duration;

use portolan_core::{Connector, Roots, Tls};
use portolan_http::{Client, ClientBuilder, Version};
use portolan_sse::{EventSource, Options, State};
use portolan_testbed::{Certs, Server, Service, find, free_port, record, row};

const TESTBED: &str = "/opt/portolan-testbed";
const PYTHON: &str = "pip:sse-starlette starlette hypercorn aioquic";
const HEAD: &str = "Six events with names, ids, comments and several lines; the server ends the connection after every second one, gets \
    the last id back each time, and says by 204 that there are no more.\n\n| server | transport | events |";

/// Follows the events until the server has no more.
async fn follow(client: ClientBuilder, url: String, server: &str, transport: &str, data: fn(u32) -> String) {
    let options = Options::new().min_wait(Duration::from_millis(1));
    let mut source = EventSource::get(&client.build().unwrap(), url, options).unwrap();
    for number in 1..=6_u32 {
        let event = source.recv().await.unwrap().unwrap();
        assert_eq!((event.name.as_str(), &*event.id), ("tick", number.to_string().as_str()));
        assert_eq!(event.data, data(number));
    }
    assert_eq!(source.recv().await.unwrap(), None);
    assert_eq!(source.state(), State::Closed);
    record("sse", "exchange", server, &format!("{transport}, reconnecting twice"), 6);
    row("Server-sent events", HEAD, &[server, transport, "6"]);
}

fn lines(number: u32) -> String {
    format!("line {number}\nand another")
}

/// As better-sse encodes a text.
fn json(number: u32) -> String {
    format!(r#""line {number}\nand another""#)
}

fn trusting(certs: &Certs) -> Connector {
    let tls = Tls::builder().roots(Roots::Custom).root_pem(certs.ca.as_bytes()).build().unwrap();
    Connector::builder().tls(tls).build().unwrap()
}

/// The line that a server says when it begins.
fn name(server: &Server, word: &str) -> String {
    server.log().lines().find(|line| line.starts_with(word)).unwrap().to_owned()
}

fn starlette(port: u16) -> Service {
    Service::new(PYTHON, format!("{TESTBED}/sse-starlette/bin/python"))
        .file("events.py", include_str!("events.py"))
        .args(["-u", "$D/events.py", &port.to_string()])
        .accepts(([127, 0, 0, 1], port).into())
        .says("sse-starlette")
}

#[tokio::test]
async fn events_of_starlette_are_followed_over_connections_that_end_until_there_are_no_more() {
    let port = free_port();
    let Some(server) = starlette(port).start() else { return };
    let name = name(&server, "sse-starlette");
    for (version, said) in [(Version::Http1Only, "HTTP/1.1"), (Version::Http2Only, "HTTP/2")] {
        follow(Client::builder().version(version), format!("http://127.0.0.1:{port}/events"), &name, said, lines).await;
    }
}

#[tokio::test]
async fn events_of_starlette_are_followed_over_tls_by_every_version_of_http() {
    let (port, certs) = (free_port(), Certs::new());
    let service = starlette(port).args(["$D/server.pem", "$D/server.key"]).tls(&certs);
    let Some(server) = service.start() else { return };
    let name = name(&server, "sse-starlette");
    for (version, said) in
        [(Version::Http1Only, "HTTP/1.1, TLS"), (Version::Http2Only, "HTTP/2, TLS"), (Version::Http3Only, "HTTP/3")]
    {
        let client = Client::builder().connector(trusting(&certs)).version(version);
        follow(client, format!("https://127.0.0.1:{port}/events"), &name, said, lines).await;
    }
}

#[tokio::test]
async fn events_of_better_sse_are_followed_until_there_are_no_more() {
    let (port, modules) = (free_port(), format!("{TESTBED}/npm"));
    let Some(_found) = find("npm:better-sse", &format!("{modules}/node_modules/better-sse")) else { return };
    let server = Service::new("nodejs", "node")
        .file("events.mjs", include_str!("events.mjs"))
        .args(["$D/events.mjs", &modules, &port.to_string()])
        .says("better-sse")
        .start();
    let Some(server) = server else { return };
    let name = name(&server, "better-sse");
    let client = Client::builder().version(Version::Http1Only);
    follow(client, format!("http://127.0.0.1:{port}/events"), &name, "HTTP/1.1", json).await;
}
