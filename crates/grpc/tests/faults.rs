//! What a server said, said again cut, stalled and garbled at every byte: none of it is taken for a success that it is not.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]
#![allow(clippy::disallowed_methods, reason = "the server of the test listens on loopback itself")]
#![allow(clippy::large_futures, reason = "a test's future may be as large as it likes")]

mod support;

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use portolan_core::{Connector, Phase, Result, Timeouts, clock};
use portolan_grpc::{Channel, ChannelOptions, Client, Method, Raw, Transport};
use portolan_http2::SendRequest;
use portolan_testbed::Tape;
use support::handler;

async fn listen() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((io, _)) = listener.accept().await {
            let answer = handler(async |mut call| {
                while call.message().await.is_some() {}
                call.start(&[("x-a", "1")]).await;
                call.send("one").await;
                if call.path().ends_with("Two") {
                    call.send("two").await;
                }
                call.end(&[("grpc-status", "0"), ("x-b", "2")]).await;
            });
            tokio::spawn(support::h2_half::serve(io, answer));
        }
    });
    address
}

/// What a client says is as long in every run, since the tape goes on by how much it has heard: no port and no time is told,
/// and nothing is measured.
const ORIGIN: &str = "http://grpc.test";

fn quiet() -> portolan_http2::Options {
    portolan_http2::Options::new().max_window(256 << 10)
}

async fn client(to: SocketAddr) -> Result<Client<Channel>> {
    let options = ChannelOptions::new().http2(quiet());
    let net = Connector::builder().timeouts(Timeouts::default().connect(PATIENCE)).build()?;
    let channel = Channel::connect_with(&net, &format!("http://{to}"), options).await?;
    Client::new(channel, ORIGIN)
}

/// The connection ends without a word, so that no farewell is recorded.
async fn record<W: AsyncFnOnce(Client<SendRequest>) -> Result<()>>(work: W) -> Tape {
    Tape::record(listen().await, |to| async move {
        let io = tokio::net::TcpStream::connect(to).await.unwrap();
        let (transport, connection) = portolan_http2::handshake(io, quiet()).unwrap();
        let driver = tokio::spawn(connection);
        // As a channel does.
        transport.settled().await.unwrap();
        let client = Client::new(transport, ORIGIN).unwrap();
        let kept = client.clone();
        work(client).await.unwrap();
        driver.abort();
        drop((driver.await, kept));
    })
    .await
}

const PATIENCE: Duration = Duration::from_millis(1000);

async fn unary<T: Transport>(client: &Client<T>) -> Result<()> {
    let method = Method::new("/t.S/One", Raw::plain())?;
    let call = client.unary(&method, &Bytes::from("hello"));
    clock::within(Some(PATIENCE), Phase::Total, call.into_future()).await.map(drop)
}

async fn streaming<T: Transport>(client: &Client<T>) -> Result<()> {
    let method = Method::new("/t.S/Two", Raw::plain())?;
    let call = client.server_streaming(&method, &Bytes::from("hello"));
    let work = async {
        let mut replies = call.await?;
        while replies.message().await?.is_some() {}
        Ok(())
    };
    clock::within(Some(PATIENCE), Phase::Total, work).await
}

#[tokio::test]
async fn a_call_cut_stalled_or_garbled_anywhere_is_no_success() {
    let tape = record(async |client| unary(&client).await).await;
    let outcome = tape.replay(tape.len(), |to| async move { unary(&client(to).await?).await }).await;
    assert!(outcome.failed > outcome.fine, "{outcome:?}");
}

#[tokio::test]
async fn a_stream_cut_stalled_or_garbled_anywhere_is_no_success() {
    let tape = record(async |client| streaming(&client).await).await;
    let outcome = tape.replay(tape.len(), |to| async move { streaming(&client(to).await?).await }).await;
    assert!(outcome.failed > outcome.fine, "{outcome:?}");
}
