//! What there is beneath any client: a loop that knows what it will be asked and does nothing else, and C.

use std::process::Command;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::paired::Work;

/// A GET over HTTP/1.1 by each task, on a connection of its own: the request is made once, the fields are read into a map.
pub(super) fn h1(url: String, tasks: u64, each: u64) -> Work {
    Box::pin(async move {
        let tasks: Vec<_> = (0..tasks).map(|_| tokio::task::spawn_local(talk(url.clone(), each))).collect();
        for task in tasks {
            task.await.unwrap();
        }
    })
}

async fn talk(url: String, each: u64) {
    let uri: http::Uri = url.parse().unwrap();
    let (authority, path) = (uri.authority().unwrap().as_str(), uri.path());
    let mut stream = TcpStream::connect(authority).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {authority}\r\n\r\n");
    let mut input = BytesMut::new();
    for _ in 0..each {
        stream.write_all(request.as_bytes()).await.unwrap();
        let (fields, body) = loop {
            input.reserve(4096);
            assert_ne!(stream.read_buf(&mut input).await.unwrap(), 0);
            if let Some(response) = response(&mut input) {
                break response;
            }
        };
        assert_ne!(fields.len() * body.len(), 0);
    }
}

fn response(input: &mut BytesMut) -> Option<(HeaderMap, Bytes)> {
    let mut slots = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut slots);
    let httparse::Status::Complete(len) = head.parse(input).unwrap() else { return None };
    let mut fields = HeaderMap::with_capacity(head.headers.len());
    for field in head.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).unwrap();
        fields.append(name, HeaderValue::from_bytes(field.value).unwrap());
    }
    let length: usize = fields.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
    if input.len() < len + length {
        return None;
    }
    input.advance(len);
    Some((fields, input.split_to(length).freeze()))
}

/// The same by h2load, which has no fields to give to anyone.
pub(super) fn h2load_h1(url: &str, tasks: u64, each: u64) -> Command {
    h2load(&["--h1"], url, tasks, 1, tasks * each)
}

/// All on one connection of HTTP/2.
pub(super) fn h2load_h2(url: &str, tasks: u64, each: u64) -> Command {
    h2load(&[], url, 1, tasks, tasks * each)
}

fn h2load(args: &[&str], url: &str, connections: u64, streams: u64, requests: u64) -> Command {
    let mut h2load = Command::new("h2load");
    h2load.args(args).args([format!("-c{connections}"), format!("-m{streams}"), format!("-n{requests}")]).arg(url);
    h2load
}
