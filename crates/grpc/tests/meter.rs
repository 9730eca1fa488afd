//! What calls measure of themselves: the instruments of gRFC A66.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use portolan_grpc::{Client, Instrument, Measurement, Meter, Method, Raw, ServiceConfig};
use portolan_http2::SendRequest;
use support::handler;

/// Name, value (of times only whether there is one), method and status.
type Seen = (&'static str, f64, String, Option<&'static str>);

#[derive(Clone, Default)]
struct Seer(Arc<Mutex<Vec<Seen>>>);

impl Meter for Seer {
    fn record(&self, one: &Measurement<'_>) {
        let time = one.unit == "s";
        assert!(one.value >= 0.0 && one.target == "http://meter.test");
        assert_eq!(one.instrument == Instrument::Counter, one.unit == "{attempt}");
        let status = one.status.map(portolan_grpc::Code::name);
        let attributes: Vec<_> = one.attributes().collect();
        let expected = [("grpc.method", one.method), ("grpc.target", one.target)];
        assert!(attributes[..2] == expected && attributes.get(2).map(|(_, value)| *value) == status);
        let value = if time { 0.0 } else { one.value };
        self.0.lock().unwrap().push((one.name, value, one.method.to_owned(), status));
    }
}

impl Seer {
    /// What was seen since it was last asked, without what all names begin with.
    fn take(&self) -> Vec<(&'static str, f64, Option<&'static str>)> {
        let seen = std::mem::take(&mut *self.0.lock().unwrap());
        assert!(seen.iter().all(|(_, _, method, _)| method.starts_with("t.S/")));
        seen.into_iter()
            .map(|(name, value, _, status)| (name.strip_prefix("grpc.client.").unwrap(), value, status))
            .collect()
    }
}

const STARTED: (&str, f64, Option<&str>) = ("attempt.started", 1.0, None);

/// An attempt that is over.
fn over(status: &'static str, sent: f64, received: f64) -> [(&'static str, f64, Option<&'static str>); 3] {
    let status = Some(status);
    [
        ("attempt.duration", 0.0, status),
        ("attempt.sent_total_compressed_message_size", sent, status),
        ("attempt.rcvd_total_compressed_message_size", received, status),
    ]
}

fn method(name: &str) -> Method<Raw> {
    Method::new(&format!("/t.S/{name}"), Raw::protobuf()).unwrap()
}

/// Echoes, fails or stays silent, by the method's name; the first of `Flaky` is unavailable.
fn client() -> (Client<SendRequest>, Seer) {
    let tries = Arc::new(AtomicU32::new(0));
    let handle = handler(move |mut call: support::Call| {
        let tries = Arc::clone(&tries);
        async move {
            match call.path().rsplit('/').next().unwrap() {
                "Fail" => return call.only(&[("grpc-status", "5")]).await,
                "Flaky" if tries.fetch_add(1, Ordering::Relaxed) == 0 => {
                    return call.only(&[("grpc-status", "14")]).await;
                }
                "Silent" => return call.gone().await,
                _ => {}
            }
            call.start(&[]).await;
            while let Some((_, message)) = call.message().await {
                call.send(message).await;
            }
            call.ok().await;
        }
    });
    let transport = support::h2_half::client(handle).transport().clone();
    let seer = Seer::default();
    (Client::new(transport, "http://meter.test").unwrap().meter(seer.clone()), seer)
}

#[tokio::test]
async fn calls_and_attempts_are_measured_with_their_status_and_sizes() {
    let (client, seer) = client();
    client.unary(&method("Echo"), &Bytes::from("hello")).await.unwrap();
    assert_eq!(seer.take(), [&[STARTED][..], &over("OK", 5.0, 5.0), &[("call.duration", 0.0, Some("OK"))]].concat());
    client.unary(&method("Fail"), &Bytes::from("hello")).await.unwrap_err();
    let failed = over("NOT_FOUND", 5.0, 0.0);
    assert_eq!(seer.take(), [&[STARTED][..], &failed, &[("call.duration", 0.0, Some("NOT_FOUND"))]].concat());
    let words = stream::iter(["one", "three"].map(Bytes::from));
    let mut echoes = client.duplex_with(&method("Echo"), words).await.unwrap();
    while echoes.message().await.unwrap().is_some() {}
    assert_eq!(seer.take(), [&[STARTED][..], &over("OK", 8.0, 8.0), &[("call.duration", 0.0, Some("OK"))]].concat());
}

#[tokio::test]
async fn every_attempt_at_a_call_is_measured() {
    let (client, seer) = client();
    let config = r#"{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 3, "initialBackoff": "0.001s",
        "maxBackoff": "0.001s", "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}}]}"#;
    let client = client.service_config(ServiceConfig::parse(config).unwrap());
    client.unary(&method("Flaky"), &Bytes::from("hello")).await.unwrap();
    let attempts = [&[STARTED][..], &over("UNAVAILABLE", 5.0, 0.0), &[STARTED], &over("OK", 5.0, 5.0)];
    assert_eq!(seer.take(), [&attempts.concat()[..], &[("call.duration", 0.0, Some("OK"))]].concat());
}

#[tokio::test]
async fn what_is_given_up_is_measured_too() {
    let (client, seer) = client();
    let call = client.unary(&method("Silent"), &Bytes::new()).timeout(Duration::from_millis(20));
    call.await.unwrap_err();
    let late = Some("DEADLINE_EXCEEDED");
    let whole = [&[STARTED][..], &over("DEADLINE_EXCEEDED", 0.0, 0.0), &[("call.duration", 0.0, late)]].concat();
    assert_eq!(seer.take(), whole);
    let mut call = client.duplex(&method("Echo")).await.unwrap();
    call.send(&Bytes::from("hello")).await.unwrap();
    assert_eq!(call.message().await.unwrap().unwrap(), "hello");
    drop(call);
    let mut seen = seer.take();
    // Which of the two is let go first is nobody's business.
    seen.sort_by_key(|(name, ..)| *name != "attempt.started" && name.starts_with("call"));
    let whole = [&[STARTED][..], &over("CANCELLED", 5.0, 5.0), &[("call.duration", 0.0, Some("CANCELLED"))]].concat();
    assert_eq!(seen, whole);
}
