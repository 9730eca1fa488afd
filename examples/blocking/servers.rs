//! A web server that also speaks WebSocket, and a gRPC health service, in a few lines each.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use portolan_core::Stream;
use portolan_websocket::{Options, WebSocket, handshake};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

const PAGE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 16\r\n\r\nwelcome on board";
const EVENTS: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: weigh\n\ndata: anchor\n\ndata: set sail\n\n";

/// Where both listen.
pub(crate) async fn start() -> (SocketAddr, SocketAddr) {
    let listen = async || {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        (listener, addr)
    };
    let ((web, web_addr), (health, health_addr)) = (listen().await, listen().await);
    tokio::spawn(async move {
        while let Ok((stream, _)) = web.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = health.accept().await {
            tokio::spawn(answer_health(stream));
        }
    });
    (web_addr, health_addr)
}

async fn serve(stream: TcpStream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut request, mut path) = (Request::new(()), String::new());
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        match (line.trim_end().split_once(": "), line.trim_end()) {
            (Some((name, value)), _) => {
                let name = http::HeaderName::try_from(name).unwrap();
                request.headers_mut().insert(name, HeaderValue::try_from(value).unwrap());
            }
            (None, "") => break,
            (None, first) => first.split(' ').nth(1).unwrap_or_default().clone_into(&mut path),
        }
    }
    match path.as_str() {
        "/echo" => return echo(stream.into_inner(), &request).await,
        "/events" => stream.write_all(EVENTS.as_bytes()).await?,
        _ => stream.write_all(PAGE.as_bytes()).await?,
    }
    stream.shutdown().await
}

async fn echo(mut stream: TcpStream, request: &Request<()>) -> io::Result<()> {
    let (response, options) = handshake::accept(request, Options::new(), &[])?;
    let mut head = String::from("HTTP/1.1 101 Switching Protocols\r\n");
    for (name, value) in response.headers() {
        head += &format!("{name}: {}\r\n", value.to_str().unwrap());
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await?;
    let mut socket = WebSocket::from_stream(Stream::from_tcp(stream), options);
    while let Some(message) = socket.recv().await? {
        socket.send(message).await?;
    }
    Ok(())
}

/// `grpc.health.v1.Health/Check`: all is well.
async fn answer_health(stream: TcpStream) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(call) = connection.accept().await {
        let (_, mut respond) = call?;
        let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut body = respond.send_response(head, false)?;
        // A message of two bytes: status = SERVING.
        body.send_data(Bytes::from_static(&[0, 0, 0, 0, 2, 0x08, 1]), false)?;
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        body.send_trailers(trailers)?;
    }
    Ok(())
}
