//! Clients without `async`.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portolan_core::blocking::{Io, Iter, Runtime, Wait};
use portolan_core::{Connector, Endpoint, Kind, Phase};
use portolan_db::redis;
use portolan_http::blocking::Client;
use portolan_http::{Body, Version};
use portolan_testbed::{Certs, Server, Service, free_port, record};

use crate::servers::{self, BIG, big};

fn redis_server() -> Option<(Server, Endpoint)> {
    let port = free_port();
    let server = Service::new("redis-server", "redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", "$D"])
        .accepts(([127, 0, 0, 1], port).into())
        .start()?;
    Some((server, Endpoint::new("127.0.0.1", port).unwrap()))
}

#[test]
fn nginx_serves_threads_that_wait_by_every_version_it_speaks() {
    let certs = Certs::new();
    let Some(site) = servers::nginx(&certs) else { return };
    let ways = [
        (Version::Http1Only, format!("http://localhost:{}", site.plain.unwrap())),
        (Version::Http2Only, format!("http://localhost:{}", site.h2c.unwrap())),
        (Version::Auto, format!("https://localhost:{}", site.tls.unwrap())),
    ];
    let asked = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for (version, base) in &ways {
            let client = Client::builder().connector(servers::connector(&certs)).version(*version);
            let client = client.build_blocking().unwrap();
            for _ in 0..2 {
                let (client, asked) = (client.clone(), &asked);
                scope.spawn(move || {
                    let url = |path: &str| format!("{base}{path}");
                    let mut whole = Vec::new();
                    let mut response = client.get(url("/big.bin")).send().unwrap();
                    assert_eq!(response.copy_to(&mut whole).unwrap(), BIG as u64);
                    assert!(whole == big());
                    // Unpacked on the way, and read in small pieces.
                    let mut long = client.get(url("/long.txt")).send().unwrap();
                    let (mut text, mut room) = (Vec::new(), [0; 1000]);
                    while let n @ 1.. = long.read(&mut room).unwrap() {
                        text.extend_from_slice(&room[..n]);
                    }
                    assert_eq!(text.len(), 60_000);
                    assert_eq!(client.get(url("/moved")).send().unwrap().text().unwrap(), "sixteen bytes ok");
                    let known = client.get(url("/basic")).basic_auth("joe", "secret").send().unwrap();
                    assert_eq!(known.text().unwrap(), "sixteen bytes ok");
                    let error = client.get(url("/broken")).send().unwrap().error_for_status().unwrap_err();
                    assert_eq!((error.kind(), error.code()), (Kind::Server, Some(500)));
                    let put = client.put(url("/upload")).body(Body::from_read(std::io::Cursor::new(big()))).send();
                    assert!(matches!(put.unwrap().status().as_u16(), 201 | 204 | 405));
                    // Dropped in the middle of a body: the client goes on.
                    let mut dropped = client.get(url("/big.bin")).send().unwrap();
                    assert!(dropped.chunk().unwrap().is_some());
                    drop(dropped);
                    assert_eq!(client.get(url("/small.txt")).send().unwrap().bytes().unwrap(), "sixteen bytes ok");
                    asked.fetch_add(9, Ordering::Relaxed);
                });
            }
        }
    });
    record("http1", "peer", &site.version, "without async, TLS and cleartext", asked.into_inner() as u64);
}

#[test]
fn redis_serves_threads_that_wait_on_one_connection() {
    let Some((_server, endpoint)) = redis_server() else { return };
    let net = Connector::default();
    let client = redis::Client::connect(&net, redis::Options::new(endpoint.clone())).wait().unwrap();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let client = &client;
            scope.spawn(move || (0..100).for_each(|_| assert!(client.incr(&format!("n{n}"), 1).wait().unwrap() > 0)));
        }
    });
    assert_eq!(client.get::<i64>("n3").wait().unwrap(), 100);
    let wrong = client.lrange::<String>("n3", 0, -1).wait().unwrap_err();
    assert_eq!(wrong.kind(), Kind::Server);
    // A call that the server holds back, given up.
    let blocked = redis::Command::new("BLPOP").arg("empty").arg(0);
    let other = redis::Client::connect(&net, redis::Options::new(endpoint.clone())).wait().unwrap();
    let late = other.run::<redis::Value>(&blocked).wait_within(Duration::from_millis(50)).unwrap_err();
    assert_eq!((late.kind(), late.phase()), (Kind::Timeout, Some(Phase::Total)));
    assert_eq!(client.get::<i64>("n3").wait().unwrap(), 100);
    // The stream by itself, by the words of `std`.
    let mut bare = Io::new(net.connect(&endpoint).wait().unwrap());
    bare.write_all(b"PING\r\n").unwrap();
    let mut pong = [0; 7];
    bare.read_exact(&mut pong).unwrap();
    assert_eq!(&pong, b"+PONG\r\n");
    record("redis", "peer", "redis-server", "without async", 803);
}

#[test]
fn a_runtime_of_its_own_ends_with_what_was_opened_on_it() {
    let Some((_server, endpoint)) = redis_server() else { return };
    let net = Connector::default();
    let watch = redis::Client::connect(&net, redis::Options::new(endpoint.clone())).wait().unwrap();
    let clients = || watch.run::<String>(&redis::Command::new("CLIENT").arg("LIST")).wait().unwrap().lines().count();
    let runtime = Runtime::new().unwrap();
    let client = runtime.wait(redis::Client::connect(&net, redis::Options::new(endpoint))).unwrap();
    runtime.wait(client.set("a", 1)).unwrap();
    assert_eq!(clients(), 2);
    drop(runtime);
    // The connection closed with its runtime; the client opens another one where it is waited for next.
    while clients() > 1 {
        std::thread::yield_now();
    }
    assert_eq!(client.get::<i64>("a").wait_within(Duration::from_secs(10)).unwrap(), 1);
}

#[test]
fn what_a_server_sends_by_itself_is_iterated() {
    let certs = Certs::new();
    let Some(site) = servers::nginx(&certs) else { return };
    let client = portolan_http::Client::new();
    let url = format!("http://localhost:{}/big.bin", site.plain.unwrap());
    let stream = client.get(url).send().wait().unwrap().bytes_stream();
    let length: usize = Iter::new(stream).within(Duration::from_secs(10)).map(|piece| piece.unwrap().len()).sum();
    assert_eq!(length, BIG);
}
