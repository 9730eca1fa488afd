//! Calls recorded as gRPC's binary log, and answered out of it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::BodyExt;
use portolan_core::{Connector, Error, Kind, Result, Secret};
use portolan_grpc::binlog::{Entry, Event, Log, NotRecorded, Options, Payload, Recorded, Recorder, Replay};
use portolan_grpc::{
    Channel, ChannelOptions, Client, Code, Encoding, Metadata, Method, Raw, Response, Status, Transport,
};
use support::{Call, Out, frame, h2_half, handler};

type Recording = Client<Recorded<portolan_http2::SendRequest>>;

const HEAD: &[(&str, &str)] = &[("x-head", "one"), ("x-head", "two"), ("x-head-bin", "AP8"), ("set-cookie", "id=5")];
/// `google.rpc.Status` with a code and words.
const NO: &[(&str, &str)] = &[
    ("grpc-status", "5"),
    ("grpc-message", "none%20%E2%98%BA"),
    ("grpc-status-details-bin", "CAUSAm5v"),
    ("x-t", "1"),
];

#[allow(clippy::cognitive_complexity, reason = "an arm for each method")]
async fn serve(mut call: Call) {
    match call.path() {
        "/t.S/Echo" => {
            let (flags, message) = call.message().await.unwrap();
            let message = if flags == 1 { "it came squeezed".into() } else { message };
            call.start(HEAD).await;
            call.send(message).await;
            call.end(&[("grpc-status", "0"), ("x-tail", "end")]).await;
        }
        "/t.S/Gzip" => {
            call.message().await;
            call.start(&[("grpc-encoding", "gzip")]).await;
            // "squeezed" by gzip, twice in one frame of HTTP/2 and cut in odd places.
            let squeezed = frame(1, &gzip(b"squeezed"));
            let both = [squeezed.clone(), squeezed].concat();
            for piece in both.chunks(7) {
                call.out(Out::Data(Bytes::copy_from_slice(piece), false)).await;
            }
            call.ok().await;
        }
        "/t.S/No" => {
            call.message().await;
            call.only(NO).await;
        }
        "/t.S/Html" => call.http(503, "text/html").await,
        "/t.S/Late" => {
            call.start(HEAD).await;
            call.send("one").await;
            call.end(NO).await;
        }
        "/t.S/Sum" => {
            let mut all = Vec::new();
            while let Some((_, message)) = call.message().await {
                all.extend_from_slice(&message);
            }
            call.start(&[]).await;
            call.send(all).await;
            call.ok().await;
        }
        "/t.S/Talk" => {
            call.start(HEAD).await;
            while let Some((_, message)) = call.message().await {
                call.send([b"re: ", &message[..]].concat()).await;
            }
            call.ok().await;
        }
        "/t.S/Reset" => {
            call.start(&[]).await;
            call.send("one").await;
            call.out(Out::Reset(2)).await;
        }
        _ => {
            call.start(&[]).await;
            call.send("one").await;
            call.gone().await;
        }
    }
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    coder.write_all(plain).unwrap();
    coder.finish().unwrap()
}

fn method(name: &str) -> Method<Raw> {
    Method::new(&format!("/t.S/{name}"), Raw::plain()).unwrap()
}

fn recorded(options: Options) -> (Recording, Recorder) {
    let recorder = Recorder::new(options);
    (h2_half::client(handler(serve)).record(&recorder), recorder)
}

/// What is seen of a call, to be compared.
type Seen = (Vec<String>, Vec<(String, String)>, Vec<(String, String)>, Code, String, Bytes);

fn pairs(metadata: &Metadata) -> Vec<(String, String)> {
    metadata.iter().map(|(name, value)| (name.to_owned(), String::from_utf8_lossy(value).into_owned())).collect()
}

fn seen(result: Result<Response<Bytes>>) -> Seen {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    match result {
        Ok(reply) => {
            let (head, tail) = (pairs(reply.metadata()), pairs(reply.trailers()));
            (vec![text(reply.message())], head, tail, Code::Ok, String::new(), Bytes::new())
        }
        Err(error) => failed(Vec::new(), Vec::new(), &error),
    }
}

fn failed(messages: Vec<String>, head: Vec<(String, String)>, error: &Error) -> Seen {
    let status = Status::of(error);
    let (words, details) = (status.message().to_owned(), status.details_bytes().clone());
    (messages, head, pairs(status.metadata()), status.code(), words, details)
}

async fn streamed<T: Transport>(client: &Client<T>, name: &str) -> Seen {
    let mut replies = client.server_streaming(&method(name), &Bytes::from("go")).await.unwrap();
    let head = pairs(replies.metadata().await.unwrap());
    let mut messages = Vec::new();
    loop {
        match replies.message().await {
            Ok(Some(message)) => messages.push(String::from_utf8(message.to_vec()).unwrap()),
            Ok(None) => {
                return (messages, head, pairs(replies.trailers().unwrap()), Code::Ok, String::new(), Bytes::new());
            }
            Err(error) => return failed(messages, head, &error),
        }
    }
}

/// One question at a time, each after the answer to the one before.
async fn talked<T: Transport>(client: &Client<T>, questions: &[&str]) -> Result<Vec<Bytes>> {
    let mut call = client.duplex(&method("Talk")).await?;
    let mut answers = Vec::new();
    for question in questions {
        call.send(&Bytes::copy_from_slice(question.as_bytes())).await?;
        answers.extend(call.message().await?);
    }
    call.finish();
    assert!(call.message().await?.is_none());
    Ok(answers)
}

/// Calls of every kind, and what came of them.
async fn scenario<T: Transport>(client: &Client<T>) -> Vec<Seen> {
    let mut all = Vec::new();
    for (name, message, encoding) in [
        ("Echo", "a", Encoding::Identity),
        ("Echo", "b", Encoding::Gzip),
        ("No", "", Encoding::Identity),
        ("Html", "", Encoding::Identity),
    ] {
        let call = client.unary(&method(name), &Bytes::from(message)).compress(encoding);
        all.push(seen(call.metadata_bin("x-sent-bin", [0, 255]).await));
    }
    all.push(streamed(client, "Gzip").await);
    all.push(streamed(client, "Late").await);
    let messages = futures_util::stream::iter(["x", "y", "z"].map(Bytes::from));
    all.push(seen(client.client_streaming(&method("Sum"), messages).await));
    let answers = talked(client, &["how", "why"]).await.unwrap();
    assert_eq!(answers, ["re: how", "re: why"]);
    all
}

#[tokio::test]
async fn what_was_recorded_is_answered_as_it_was() {
    let (client, recorder) = recorded(Options::new().with_messages(1 << 20));
    let real = scenario(&client).await;
    assert_eq!(real[0].0, ["a"]);
    assert_eq!((real[2].3, &*real[2].4, &real[2].5[..]), (Code::NotFound, "none \u{263a}", &b"\x08\x05\x12\x02no"[..]));
    assert_eq!(real[4].0, ["squeezed", "squeezed"]);
    assert_eq!((&real[5].0[..], real[5].3), (&["one".to_owned()][..], Code::NotFound));
    let log = recorder.take();
    let log = Log::from_bytes(&log.to_bytes()).unwrap();
    let replay = Replay::new(&log);
    assert_eq!(replay.unused(), 8);
    let replayed = scenario(&Client::new(replay.clone(), "http://nowhere.test").unwrap()).await;
    for (real, replayed) in real.into_iter().zip(replayed) {
        // Cookies are secrets.
        let real = (real.0, real.1.into_iter().map(hidden).collect(), real.2, real.3, real.4, real.5);
        assert_eq!(replayed, real);
    }
    assert_eq!(replay.unused(), 0);
}

fn hidden((name, value): (String, String)) -> (String, String) {
    let value = if name == "set-cookie" { "***".to_owned() } else { value };
    (name, value)
}

#[tokio::test]
async fn a_replay_gives_the_same_question_its_answer_and_every_answer_once_before_the_last_again() {
    let (client, recorder) = recorded(Options::new().with_messages(100));
    for text in ["a", "b", "c"] {
        client.unary(&method("Echo"), &Bytes::from(text)).await.unwrap();
    }
    let log = recorder.take();
    let ask = async |client: &Client<Replay>, text: &'static str| {
        client.unary(&method("Echo"), &Bytes::from(text)).await.map(Response::into_message)
    };
    let client = Client::new(Replay::new(&log), "http://nowhere.test").unwrap();
    for (asked, answered) in [("c", "c"), ("?", "a"), ("?", "b"), ("?", "c"), ("a", "a")] {
        assert_eq!(ask(&client, asked).await.unwrap(), answered);
    }
    let once = Client::new(Replay::new(&log).repeat_last(false), "http://nowhere.test").unwrap();
    assert_eq!(ask(&once, "b").await.unwrap(), "b");
    let error = ask(&once, "b").await.unwrap_err();
    let missing = error.server::<Status>().is_some() && error.kind() == Kind::Usage;
    assert!(missing, "{error}");
    let error = client.unary(&method("Other"), &Bytes::new()).await.unwrap_err();
    assert!(error.to_string().contains("no answer is recorded for /t.S/Other"), "{error}");
    let request = http::Request::post("http://x/t.S/Other").body(portolan_grpc::Body::default()).unwrap();
    let error = Replay::new(&log).send(request).await.map(drop).unwrap_err();
    assert_eq!(error.server::<NotRecorded>().unwrap().method, "/t.S/Other");
    // A body that is read by itself ends behind its trailers.
    let request = http::Request::post("http://x/t.S/Echo").body(portolan_grpc::Body::default()).unwrap();
    let mut body = Replay::new(&log).send(request).await.unwrap().into_body();
    assert!(body.frame().await.unwrap().unwrap().is_data() && body.frame().await.unwrap().unwrap().is_trailers());
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn a_stream_that_is_replayed_keeps_its_turns() {
    let (client, recorder) = recorded(Options::new().with_messages(100));
    talked(&client, &["how", "why"]).await.unwrap();
    let endless = client.server_streaming(&method("Endless"), &Bytes::new()).await.unwrap();
    let mut endless = endless;
    endless.message().await.unwrap();
    drop(endless);
    let client = Client::new(Replay::new(&recorder.take()), "http://nowhere.test").unwrap();
    // Less than was said is answered by the rest; more is a mistake, and nobody waits for ever.
    let mut call = client.duplex(&method("Talk")).await.unwrap();
    call.finish();
    assert_eq!(call.message().await.unwrap().unwrap(), "re: how");
    let error = talked(&client, &["how", "why", "what"]).await.unwrap_err();
    assert!(error.to_string().contains("no more messages"), "{error}");
    let mut replies = client.server_streaming(&method("Endless"), &Bytes::new()).await.unwrap();
    assert_eq!(replies.message().await.unwrap().unwrap(), "one");
    assert_eq!(replies.message().await.unwrap_err().kind(), Kind::Closed);
}

fn events(log: &Log) -> Vec<(u64, u64, Event)> {
    log.entries().map(|entry| (entry.call_id, entry.sequence_id_within_call, entry.r#type())).collect()
}

fn find(log: &Log, event: Event) -> &Entry {
    log.entries().find(|entry| entry.r#type() == event).unwrap()
}

#[tokio::test]
async fn each_event_is_written_once_and_in_order_however_the_call_ends() {
    use Event::{Cancel, ClientHalfClose, ClientHeader, ClientMessage, ServerHeader, ServerMessage, ServerTrailer};
    let (client, recorder) = recorded(Options::new());
    let asked = [ClientHeader, ClientMessage, ClientHalfClose];
    for (name, then) in [
        ("Echo", &[ServerHeader, ServerMessage, ServerTrailer][..]),
        ("No", &[ServerTrailer]),
        ("Html", &[ServerTrailer]),
        ("Late", &[ServerHeader, ServerMessage, ServerTrailer]),
    ] {
        let _ = client.unary(&method(name), &Bytes::new()).await;
        let log = recorder.take();
        let written = events(&log);
        let types: Vec<_> = written.iter().map(|(_, _, event)| *event).collect();
        assert_eq!(types, [&asked[..], then].concat(), "{name}");
        assert!(written.iter().enumerate().all(|(at, (_, seq, _))| *seq == at as u64 + 1), "{written:?}");
    }
    // A reset may take with it what came before.
    let _ = client.unary(&method("Reset"), &Bytes::new()).await;
    assert_eq!(events(&recorder.take()).last().unwrap().2, ServerTrailer);
    // Let go before the head, and in the middle.
    let mut replies = client.server_streaming(&method("Endless"), &Bytes::new()).await.unwrap();
    replies.message().await.unwrap();
    drop(replies);
    let types = |log: &Log| events(log).into_iter().map(|(_, _, event)| event).collect::<Vec<_>>();
    assert_eq!(types(&recorder.take()), [&asked[..], &[ServerHeader, ServerMessage, Cancel]].concat());
    let silent = h2_half::client(handler(async |call: Call| call.gone().await)).record(&recorder);
    let call = silent.unary(&method("Silent"), &Bytes::new()).timeout(std::time::Duration::from_millis(20));
    assert_eq!(Status::of(&call.await.unwrap_err()).code(), Code::DeadlineExceeded);
    let log = recorder.take();
    assert_eq!(types(&log), [&asked[..], &[Cancel]].concat());
    let Some(Payload::ClientHeader(header)) = &find(&log, ClientHeader).payload else { panic!("{log:?}") };
    let timeout = header.timeout.as_ref().unwrap();
    assert!(timeout.seconds == 0 && (1..=21_000_000).contains(&timeout.nanos), "{timeout:?}");
    assert_eq!((&*header.method_name, &*header.authority), ("/t.S/Silent", "grpc.test"));
    // Nobody there.
    let lazy = Channel::lazy(&Connector::default(), "http://127.0.0.1:1", ChannelOptions::new()).unwrap();
    let nobody = Client::from_channel(lazy).unwrap().record(&recorder);
    nobody.unary(&method("Echo"), &Bytes::new()).await.unwrap_err();
    let log = recorder.take();
    assert_eq!(types(&log), [&asked[..], &[ServerTrailer]].concat());
    let Some(Payload::Trailer(trailer)) = &find(&log, ServerTrailer).payload else { panic!("{log:?}") };
    assert_eq!(i64::from(trailer.status_code), Code::Unavailable.number());
}

#[tokio::test]
async fn secrets_and_messages_are_left_out_unless_they_are_asked_for() {
    let call = async |options| {
        let (client, recorder) = recorded(options);
        let call = client.unary(&method("Echo"), &Bytes::from("the message"));
        let call = call.bearer(&Secret::new("token")).metadata_secret("x-key", &Secret::new("hidden"));
        call.metadata("x-own", "mine").metadata_bin("x-b-bin", [0, 255]).await.unwrap();
        recorder.take()
    };
    let has = |log: &Log, text: &[u8]| log.to_bytes().windows(text.len()).any(|part| part == text);
    let log = call(Options::new()).await;
    for secret in [&b"token"[..], b"hidden", b"id=5", b"the message"] {
        assert!(!has(&log, secret), "{}", String::from_utf8_lossy(secret));
    }
    assert!(has(&log, b"authorization") && has(&log, b"x-key") && has(&log, b"mine") && has(&log, b"\x00\xff"));
    assert!(!has(&log, b"grpc-accept-encoding") && !has(&log, b"content-type"));
    let message = find(&log, Event::ServerMessage);
    let Some(Payload::Message(what)) = &message.payload else { panic!("{message:?}") };
    assert_eq!((what.length, what.data.len(), message.payload_truncated), (11, 0, true));
    let log = call(Options::new().with_redacted(http::HeaderName::from_static("x-own")).with_messages(3)).await;
    assert!(!has(&log, b"mine") && has(&log, b"the") && !has(&log, b"the "));
    let log = call(Options::new().dangerous().with_secrets()).await;
    assert!(has(&log, b"Bearer token") && has(&log, b"hidden") && has(&log, b"id=5"));
    // A part of the metadata, and it is said.
    let log = call(Options::new().with_metadata(4)).await;
    let header = find(&log, Event::ClientHeader);
    let Some(Payload::ClientHeader(head)) = &header.payload else { panic!("{header:?}") };
    assert!(header.payload_truncated && head.metadata.as_ref().unwrap().entry.len() <= 1, "{header:?}");
    // What was cut can't be answered with.
    let (client, recorder) = recorded(Options::new().with_messages(3));
    client.unary(&method("Echo"), &Bytes::from("the message")).await.unwrap();
    let client = Client::new(Replay::new(&recorder.take()), "http://nowhere.test").unwrap();
    let error = client.unary(&method("Echo"), &Bytes::from("the message")).await.unwrap_err();
    assert!(error.kind() == Kind::Usage && error.to_string().contains("a part alone"), "{error}");
}

/// A file that can't take more than so many writes.
#[derive(Clone)]
struct Disk(Arc<Mutex<Vec<u8>>>, usize);

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut disk = self.0.lock().unwrap();
        if disk.len() > self.1 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_is_written_to_a_file_is_a_log_and_a_full_disk_fails_no_call() {
    let disk = Disk(Arc::default(), 300);
    let recorder = Recorder::to_writer(Options::new().with_messages(100), disk.clone());
    let client = h2_half::client(handler(serve)).record(&recorder);
    for _ in 0..10 {
        client.unary(&method("Echo"), &Bytes::from("hello")).await.unwrap();
    }
    let log = Log::from_bytes(&disk.0.lock().unwrap()).unwrap();
    assert_eq!(log.entries().next().unwrap().r#type(), Event::ClientHeader);
    assert!((2..30).contains(&log.entries().len()) && recorder.take() == Log::new());
}
