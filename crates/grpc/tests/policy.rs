//! Retries, hedging, interceptors, compression: what is done around calls.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use portolan_core::{BoxFuture, Delivery, Error, Kind, Result, Secret, clock};
use portolan_grpc::{
    Client, Code, Encoding, HedgingPolicy, Interceptor, Json, Metadata, Method, MethodConfig, Outgoing, Raw,
    RetryPolicy, ServiceConfig, Shape, Status, Throttling,
};
use portolan_http2::SendRequest;
use support::h2_half::client;
use support::{Call, Handler, Out, handler};

fn method(path: &str) -> Method<Raw> {
    Method::new(path, Raw::protobuf()).unwrap()
}

async fn good(call: &Call, message: &str) {
    call.start(&[]).await;
    call.send(message).await;
    call.ok().await;
}

/// Fails the first calls with these fields and then succeeds; it counts what it saw.
fn failing(times: u32, fields: &'static [(&'static str, &'static str)]) -> (Handler, Arc<AtomicU32>) {
    let seen = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&seen);
    let handler = handler(move |mut call| {
        let seen = Arc::clone(&counted);
        async move {
            let before = seen.fetch_add(1, Relaxed);
            let said = (before > 0).then(|| before.to_string());
            assert_eq!(call.header("grpc-previous-rpc-attempts").map(str::to_owned), said);
            assert_eq!(call.message().await.unwrap().1, "request");
            if before < times { call.only(fields).await } else { good(&call, "reply").await }
        }
    });
    (handler, seen)
}

fn retries(handler: Handler, attempts: u32, throttling: Option<Throttling>) -> Client<SendRequest> {
    let policy = RetryPolicy::new(attempts, [Code::Unavailable]);
    let policy = policy.backoff(Duration::from_millis(100), Duration::from_secs(1), 2.0);
    let mut config = ServiceConfig::new().service("t.S", MethodConfig::new().retry(policy));
    if let Some(throttling) = throttling {
        config = config.throttling(throttling);
    }
    client(handler).service_config(config)
}

async fn ask(client: &Client<SendRequest>) -> Result<Bytes> {
    let reply = client.unary(&method("/t.S/M"), &Bytes::from("request")).await;
    reply.map(portolan_grpc::Response::into_message)
}

#[tokio::test(start_paused = true)]
async fn a_call_is_made_again_with_growing_waits_until_it_succeeds() {
    let (handler, seen) = failing(3, &[("grpc-status", "14")]);
    let started = clock::now();
    assert_eq!(ask(&retries(handler, 4, None)).await.unwrap(), "reply");
    assert_eq!(seen.load(Relaxed), 4);
    let waited = started.elapsed().as_millis();
    assert!((560..=850).contains(&waited), "{waited}");
}

#[tokio::test(start_paused = true)]
async fn attempts_have_an_end_and_other_codes_have_none_but_one() {
    let (handler, seen) = failing(9, &[("grpc-status", "14")]);
    assert_eq!(Status::of(&ask(&retries(handler, 3, None)).await.unwrap_err()).code(), Code::Unavailable);
    assert_eq!(seen.load(Relaxed), 3);
    let (handler, seen) = failing(9, &[("grpc-status", "13")]);
    assert_eq!(Status::of(&ask(&retries(handler, 3, None)).await.unwrap_err()).code(), Code::Internal);
    assert_eq!(seen.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn the_server_says_when_to_come_again_and_when_not_to() {
    let (handler, seen) = failing(1, &[("grpc-status", "14"), ("grpc-retry-pushback-ms", "7000")]);
    let started = clock::now();
    assert_eq!(ask(&retries(handler, 3, None)).await.unwrap(), "reply");
    assert!(started.elapsed() >= Duration::from_secs(7) && seen.load(Relaxed) == 2);
    let (handler, seen) = failing(1, &[("grpc-status", "14"), ("grpc-retry-pushback-ms", "-1")]);
    assert!(ask(&retries(handler, 3, None)).await.is_err());
    assert_eq!(seen.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn what_has_begun_to_answer_is_not_asked_again() {
    let seen = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&seen);
    let client = retries(
        handler(move |call| {
            counted.fetch_add(1, Relaxed);
            async move {
                call.start(&[]).await;
                call.end(&[("grpc-status", "14")]).await;
            }
        }),
        3,
        None,
    );
    assert_eq!(Status::of(&ask(&client).await.unwrap_err()).code(), Code::Unavailable);
    assert_eq!(seen.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn throttling_ends_a_storm() {
    let down = handler(async |call| call.only(&[("grpc-status", "14")]).await);
    let client = retries(down, 5, Some(Throttling::new(10, 0.1)));
    let mut waited = 0;
    for _ in 0..10 {
        let started = clock::now();
        assert!(ask(&client).await.is_err());
        waited += u32::from(started.elapsed() > Duration::from_millis(50));
    }
    // Five tokens go before half is left: the first call takes all of its attempts, and the others none but one.
    assert_eq!(waited, 1);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_spans_all_attempts() {
    let (handler, _) = failing(9, &[("grpc-status", "14"), ("grpc-retry-pushback-ms", "60000")]);
    let call =
        retries(handler, 5, None).unary(&method("/t.S/M"), &Bytes::from("request")).timeout(Duration::from_secs(5));
    let started = clock::now();
    assert_eq!(Status::of(&call.await.unwrap_err()).code(), Code::DeadlineExceeded);
    assert_eq!(started.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn streams_are_made_again_only_while_nothing_of_them_was_taken() {
    let (handler, seen) = failing(1, &[("grpc-status", "14")]);
    let client = retries(handler, 3, None);
    let requests = stream::iter([Bytes::from("request")]);
    let error = client.client_streaming(&method("/t.S/M"), requests).await.unwrap_err();
    assert_eq!((Status::of(&error).code(), seen.load(Relaxed)), (Code::Unavailable, 1));
    client.transport().close();
    let requests = stream::iter([Bytes::from("request")]);
    let error = client.client_streaming(&method("/t.S/M"), requests).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Closed, Delivery::NotSent));
}

/// Hedged calls: the first ones answer late, or as told.
fn hedged(handler: Handler, non_fatal: &[Code]) -> Client<SendRequest> {
    let policy = HedgingPolicy::new(3, Duration::from_millis(100), non_fatal.iter().copied());
    client(handler).service_config(ServiceConfig::new().default_config(MethodConfig::new().hedging(policy)))
}

#[tokio::test(start_paused = true)]
async fn a_slow_call_is_hedged_and_the_losers_are_cancelled() {
    let (gone, mut was_gone) = tokio::sync::mpsc::channel(4);
    let client = hedged(
        handler(move |call| {
            let gone = gone.clone();
            async move {
                match call.header("grpc-previous-rpc-attempts") {
                    Some("2") => good(&call, "third").await,
                    before => {
                        let before = before.map(str::to_owned);
                        call.gone().await;
                        gone.send(before).await.unwrap();
                    }
                }
            }
        }),
        &[],
    );
    let started = clock::now();
    assert_eq!(ask(&client).await.unwrap(), "third");
    assert_eq!(started.elapsed().as_millis() / 10, 20);
    let mut losers = [was_gone.recv().await.unwrap(), was_gone.recv().await.unwrap()];
    losers.sort();
    assert_eq!(losers, [None, Some("1".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_is_not_fatal_sends_the_next_at_once_and_another_ends_all() {
    let answers = |code: &'static str| {
        handler(async move |call| match call.header("grpc-previous-rpc-attempts") {
            None => call.only(&[("grpc-status", code)]).await,
            Some(_) => good(&call, "second").await,
        })
    };
    let started = clock::now();
    assert_eq!(ask(&hedged(answers("14"), &[Code::Unavailable])).await.unwrap(), "second");
    assert!(started.elapsed() < Duration::from_millis(100));
    let error = ask(&hedged(answers("3"), &[Code::Unavailable])).await.unwrap_err();
    assert_eq!(Status::of(&error).code(), Code::InvalidArgument);
    let all = handler(async |call| call.only(&[("grpc-status", "14")]).await);
    let error = ask(&hedged(all, &[Code::Unavailable])).await.unwrap_err();
    assert_eq!(Status::of(&error).code(), Code::Unavailable);
}

/// Writes down what it sees.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Interceptor for Log {
    fn request<'a>(&'a self, call: &'a mut Outgoing) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if call.path().ends_with("Forbidden") {
                return Err(Error::usage("not this one"));
            }
            tokio::task::yield_now().await;
            self.0.lock().unwrap().push(format!("{} {:?}", call.path(), call.shape()));
            call.metadata_mut().append_secret("authorization", &Secret::new("Bearer fresh"))
        })
    }

    fn response(&self, _: &str, metadata: &Metadata) {
        self.0.lock().unwrap().push(format!("head {:?}", metadata.get("x-a")));
    }

    fn finished(&self, _: &str, status: &Status, _: Duration) {
        self.0.lock().unwrap().push(status.code().name().to_owned());
    }
}

#[tokio::test]
async fn interceptors_see_each_call_from_its_beginning_to_its_one_end() {
    let log = Log::default();
    let client = client(handler(async |call| {
        assert_eq!(call.header("authorization"), Some("Bearer fresh"));
        if call.path().ends_with("Bad") {
            return call.only(&[("grpc-status", "5")]).await;
        }
        call.start(&[("x-a", "1")]).await;
        call.send("one").await;
        call.ok().await;
    }))
    .intercept(log.clone());
    let seen = || std::mem::take(&mut *log.0.lock().unwrap());
    client.unary(&method("/t.S/Good"), &Bytes::new()).await.unwrap();
    assert_eq!(seen(), ["/t.S/Good Unary", "head Some(\"1\")", "OK"]);
    client.unary(&method("/t.S/Bad"), &Bytes::new()).await.unwrap_err();
    assert_eq!(seen(), ["/t.S/Bad Unary", "NOT_FOUND"]);
    assert_eq!(client.unary(&method("/t.S/Forbidden"), &Bytes::new()).await.unwrap_err().kind(), Kind::Usage);
    assert!(seen().is_empty());
    let mut replies = client.server_streaming(&method("/t.S/Good"), &Bytes::new()).await.unwrap();
    replies.message().await.unwrap();
    drop(replies);
    assert_eq!(seen(), ["/t.S/Good ServerStreaming", "head Some(\"1\")", "CANCELLED"]);
    let mut call = client.duplex(&method("/t.S/Good")).await.unwrap();
    while call.message().await.unwrap().is_some() {}
    assert_eq!(seen().last().unwrap(), "OK");
    // The sending end is still held, but the call is over.
    while client.transport().status().active > 0 {
        tokio::task::yield_now().await;
    }
    drop(call);
}

/// The probes of client_compressed_unary and client_compressed_streaming: whether the flag is as it was said to be.
#[tokio::test]
async fn requests_are_compressed_when_and_only_when_they_are_said_to_be() {
    let client = client(handler(async |mut call| {
        let encoding = call.header("grpc-encoding").map(str::to_owned);
        assert!(call.header("grpc-accept-encoding").unwrap().contains("gzip"));
        let mut flags = String::new();
        while let Some((flag, message)) = call.message().await {
            let plain = if flag == 1 { message.len() < 500 } else { message == "x".repeat(10_000) };
            assert!(plain);
            flags.push_str(&flag.to_string());
        }
        good(&call, &format!("{encoding:?} {flags}")).await;
    }));
    let large = Bytes::from("x".repeat(10_000));
    let method = method("/t.S/M");
    for (encoding, name) in [(Encoding::Gzip, "gzip"), (Encoding::Deflate, "deflate"), (Encoding::Zstd, "zstd")] {
        let said = |flags: &str| format!("Some(\"{name}\") {flags}");
        let reply = client.unary(&method, &large).compress(encoding).await.unwrap();
        assert_eq!(reply.message(), said("1").as_bytes());
        let reply = client.unary(&method, &large).declare_encoding(encoding).await.unwrap();
        assert_eq!(reply.message(), said("0").as_bytes());
        let mut call = client.duplex(&method).compress(encoding).await.unwrap();
        call.send(&large).await.unwrap();
        call.send_plain(&large).await.unwrap();
        call.send(&large).await.unwrap();
        call.finish();
        assert_eq!(call.message().await.unwrap().unwrap(), said("101").as_bytes());
    }
    assert_eq!(client.unary(&method, &large).await.unwrap().message(), "None 0");
}

/// A MiB of zeros by each encoding, with its length said and not, in one piece and in two of which each is small.
fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    use std::io::Write;
    let zeros = vec![0; 1 << 20];
    let gzip = |plain: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    };
    let mut deflate = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    deflate.write_all(&zeros).unwrap();
    let half = &zeros[..1 << 19];
    let (member, piece) = (gzip(half), zstd::stream::encode_all(half, 19).unwrap());
    vec![
        ("gzip", gzip(&zeros)),
        ("deflate", deflate.finish().unwrap()),
        ("zstd", zstd::bulk::compress(&zeros, 19).unwrap()),
        ("zstd", zstd::stream::encode_all(&zeros[..], 19).unwrap()),
        ("gzip", [&member[..], &member].concat()),
        ("zstd", [&piece[..], &piece].concat()),
    ]
}

#[tokio::test]
async fn an_inflated_message_has_the_same_bound_as_any_other() {
    for (name, bomb) in bombs() {
        assert!(bomb.len() < 3000, "{name}");
        let client = client(handler(move |call| {
            let bomb = bomb.clone();
            async move {
                call.start(&[("grpc-encoding", name)]).await;
                call.send_flagged(1, bomb).await;
                call.ok().await;
            }
        }));
        let call = client.unary(&method("/t.S/M"), &Bytes::new()).max_receive_bytes(1 << 20);
        let reply = call.await.unwrap();
        assert_eq!((reply.message().len(), reply.is_compressed()), (1 << 20, true), "{name}");
        let call = client.unary(&method("/t.S/M"), &Bytes::new()).max_receive_bytes((1 << 20) - 1);
        let error = call.await.unwrap_err();
        assert_eq!((error.kind(), Status::of(&error).code()), (Kind::Limit, Code::ResourceExhausted), "{name}");
    }
}

/// What is no message of its encoding, and what stands behind one.
#[tokio::test]
async fn what_cannot_be_inflated_is_the_servers_mistake() {
    let cut = |bytes: &[u8]| bytes[..bytes.len() - 1].to_vec();
    let more = |bytes: &[u8]| [bytes, b"x"].concat();
    for (name, bomb) in bombs() {
        for broken in [Vec::new(), b"not compressed".to_vec(), cut(&bomb), more(&bomb)] {
            let client = client(handler(move |call| {
                let broken = broken.clone();
                async move {
                    call.start(&[("grpc-encoding", name)]).await;
                    call.send_flagged(1, broken).await;
                    call.ok().await;
                }
            }));
            let Err(error) = client.unary(&method("/t.S/M"), &Bytes::new()).await else { panic!("{name}") };
            assert_eq!((error.kind(), Status::of(&error).code()), (Kind::Protocol, Code::Internal), "{name}");
        }
    }
}

#[tokio::test]
async fn json_messages_travel_as_json() {
    let client = client(handler(async |mut call| {
        assert_eq!(call.header("content-type"), Some("application/grpc+json"));
        let (_, message) = call.message().await.unwrap();
        assert_eq!(message, r#"{"name":"Ada"}"#);
        call.start(&[("content-type", "application/grpc+json")]).await;
        call.send(if call.path().ends_with("Bad") { "{" } else { r#"{"hello":"Ada"}"# }).await;
        call.ok().await;
    }));
    let codec = Json::<serde_json::Value, std::collections::HashMap<String, String>>::new();
    let ask = serde_json::json!({"name": "Ada"});
    let reply = client.unary(&Method::new("/t.S/Hello", codec).unwrap(), &ask).await.unwrap();
    assert_eq!(reply.message()["hello"], "Ada");
    let error = client.unary(&Method::new("/t.S/Bad", codec).unwrap(), &ask).await.unwrap_err();
    assert_eq!((error.kind(), Status::of(&error).code()), (Kind::Protocol, Code::Internal));
}

#[tokio::test]
async fn a_reset_within_messages_has_its_status() {
    let client = client(handler(async |mut call| {
        call.start(&[]).await;
        call.send("one").await;
        call.message().await;
        call.out(Out::Reset(11)).await;
    }));
    let mut call = client.duplex(&method("/t.S/M")).await.unwrap();
    assert_eq!(call.message().await.unwrap().unwrap(), "one");
    call.send(&Bytes::new()).await.unwrap();
    let error = call.message().await.unwrap_err();
    assert_eq!((Status::of(&error).code(), error.delivery()), (Code::ResourceExhausted, Delivery::Answered));
    assert!(Shape::ServerStreaming.asks_once() && !Shape::ServerStreaming.answers_once());
}

/// Asks somebody who never answers.
struct Stuck;

impl Interceptor for Stuck {
    fn request<'a>(&'a self, _: &'a mut Outgoing) -> BoxFuture<'a, Result<()>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn an_interceptor_has_no_more_time_than_its_call() {
    let client = client(handler(async |call| good(&call, "reply").await)).intercept(Stuck);
    let error = client.unary(&method("/t.S/M"), &Bytes::new()).timeout(Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(Status::of(&error).code(), Code::DeadlineExceeded);
    assert_eq!(error.delivery(), Delivery::NotSent);
}

#[tokio::test]
async fn metadata_that_is_handed_on_brings_no_names_of_the_protocol() {
    let client = client(handler(async |call| {
        assert_eq!(call.header("content-type"), Some("application/grpc+proto"));
        assert_eq!((call.header("grpc-timeout"), call.header("connection")), (None, None));
        let all: Vec<_> = call.head.headers.get_all("x-a").iter().collect();
        assert_eq!(all, ["1", "2", "3"]);
        good(&call, "reply").await;
    }));
    let fields =
        [("content-type", "text/html"), ("grpc-timeout", "1n"), ("connection", "close"), ("x-a", "2"), ("x-a", "3")];
    let came = fields.map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)));
    let came = Metadata::from_headers(came.into_iter().collect());
    client.unary(&method("/t.S/M"), &Bytes::new()).metadata("x-a", "1").metadata_all(came).await.unwrap();
}
