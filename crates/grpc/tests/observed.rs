//! What observers of a connector hear of the calls on a channel.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]
#![allow(clippy::disallowed_methods, reason = "the servers of the test listen on loopback themselves")]

mod support;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use portolan_core::Connector;
use portolan_core::observe::{Done, Observer, Outcome};
use portolan_grpc::{Channel, Client, Code, Method, Raw, Status};
use support::{Call, handler};
use tokio::net::TcpListener;

/// The method, its status, and how it ended.
type Seen = (String, Option<i64>, &'static str);

#[derive(Default)]
struct Notes(Mutex<Vec<Seen>>);

impl Observer for Notes {
    fn operation(&self, done: &Done<'_>) {
        let end = match done.outcome {
            Outcome::Done => "done",
            Outcome::Failed(error) => Status::of(error).code().name(),
            _ => "dropped",
        };
        let name = done.operation.trim_start_matches("/t.S/").to_owned();
        self.0.lock().unwrap().push((name, done.facts.status, end));
    }
}

/// A message, and then the status that the method is named by.
async fn reply(mut call: Call) {
    call.message().await;
    match call.path() {
        "/t.S/Only" => return call.only(&[("grpc-status", "7")]).await,
        "/t.S/Html" => return call.http(503, "text/html").await,
        _ => call.start(&[]).await,
    }
    call.send("one").await;
    match call.path() {
        "/t.S/Good" => call.ok().await,
        "/t.S/Late" => call.end(&[("grpc-status", "5")]).await,
        _ => call.gone().await,
    }
}

#[tokio::test]
async fn a_call_is_told_with_the_status_at_its_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((io, _)) = listener.accept().await {
            tokio::spawn(support::h2_half::serve(io, handler(reply)));
        }
    });
    let notes = Arc::new(Notes::default());
    let net = Connector::builder().observer(notes.clone()).build().unwrap();
    let client = Client::from_channel(Channel::connect(&net, &url).await.unwrap()).unwrap();
    let method = |name: &str| Method::new(&format!("/t.S/{name}"), Raw::plain()).unwrap();
    let seen = || std::mem::take(&mut *notes.0.lock().unwrap());
    for (name, code, status, end) in [
        ("Good", Code::Ok, 0, "done"),
        ("Late", Code::NotFound, 5, "NOT_FOUND"),
        ("Only", Code::PermissionDenied, 7, "PERMISSION_DENIED"),
        ("Html", Code::Unavailable, 14, "UNAVAILABLE"),
    ] {
        let told = vec![(name.to_owned(), Some(status), end)];
        let result = client.unary(&method(name), &Bytes::new()).await;
        assert_eq!(result.map_or_else(|error| Status::of(&error).code(), |_| Code::Ok), code);
        assert_eq!(seen(), told);
        let Ok(mut replies) = client.server_streaming(&method(name), &Bytes::new()).await else {
            assert_eq!(seen(), told);
            continue;
        };
        replies.message().await.unwrap();
        assert_eq!(seen(), []);
        assert_eq!(replies.message().await.is_ok(), code == Code::Ok);
        assert_eq!(seen(), told);
    }
    let mut replies = client.server_streaming(&method("Endless"), &Bytes::new()).await.unwrap();
    replies.message().await.unwrap();
    drop(replies);
    assert_eq!(seen(), [("Endless".to_owned(), None, "dropped")]);
}
