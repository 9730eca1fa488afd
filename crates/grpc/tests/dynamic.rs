//! Calls by name, with JSON that protobuf's own Python is asked about too.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "support/peers.rs"]
mod peers;

use bytes::Bytes;
use portolan_core::{Connector, Kind};
use portolan_grpc::dynamic::Schema;
use portolan_grpc::{Client, Code, Method, Raw, Status};
use portolan_testbed::record;
use serde_json::Value;

/// One on each line: fields of every type, well-known types, proto2 with groups, extensions and required fields, an edition; good and bad.
const CASES: &str = include_str!("protos/json_cases.txt");

/// What is in JSON as a name where it is no number.
fn json(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap()
}

#[tokio::test]
async fn json_is_what_protobufs_own_python_takes_it_for() {
    let Some(peer) = peers::python_json() else { return };
    let client = Client::connect(&Connector::default(), &peer.url).await.unwrap();
    // Files of three syntaxes that import one another, as the server has them.
    let schema = Schema::by_reflection(&client, "rich.Echo").await.unwrap();
    let echo = schema.method("rich.Echo/Echo").unwrap();
    let parse = Method::new("/rich.Echo/Parse", Raw::protobuf()).unwrap();
    let mut good = 0;
    for case in CASES.lines() {
        let theirs = client.unary(&parse, &Bytes::from_static(case.as_bytes())).await;
        let ours = client.unary(&echo, &json(case.as_bytes())).await;
        match (theirs, ours) {
            (Ok(theirs), Ok(ours)) => {
                let expected = json(theirs.message());
                assert_eq!(*ours.message(), expected, "what is read of {case}");
                let arrived = ours.trailers().get_bin("json-bin").unwrap().unwrap();
                assert_eq!(json(&arrived), expected, "what was sent of {case}");
                good += 1;
            }
            (Err(theirs), Err(ours)) => {
                assert_eq!((Status::of(&theirs).code(), ours.kind()), (Code::InvalidArgument, Kind::Usage), "{case}");
            }
            (theirs, ours) => panic!("{case}: they say {theirs:?}, we say {ours:?}"),
        }
    }
    assert!(good > 60, "{good}");
    record("grpc", "exchange", &peer.name, "JSON as protobuf's own", good);
}
