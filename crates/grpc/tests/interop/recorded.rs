//! Binary logs that grpc-go reads, and those that it writes.

use std::process::Command;

use futures_util::stream;
use portolan_core::{Connector, Secret};
use portolan_grpc::binlog::{Log, Options, Recorder, Replay};
use portolan_grpc::{Client, Code, Encoding, Status, Transport};
use portolan_testbed::record;

use crate::peers;
use crate::proto::grpc::testing::{
    EchoStatus, Payload, ResponseParameters, SimpleRequest, StreamingOutputCallRequest, TestServiceClient,
};

const INITIAL: &str = "x-grpc-test-echo-initial";
const TRAILING: &str = "x-grpc-test-echo-trailing-bin";

fn good() -> SimpleRequest {
    let payload = Payload { body: b"from go".to_vec(), ..Payload::default() };
    SimpleRequest { response_size: 5, payload: Some(payload), ..SimpleRequest::default() }
}

fn bad() -> SimpleRequest {
    let status = EchoStatus { code: 2, message: "no \u{263a}".to_owned() };
    SimpleRequest { response_status: Some(status), ..SimpleRequest::default() }
}

fn sized(size: i32) -> StreamingOutputCallRequest {
    let parameters = vec![ResponseParameters { size, ..ResponseParameters::default() }];
    StreamingOutputCallRequest { response_parameters: parameters, ..StreamingOutputCallRequest::default() }
}

/// What the program of grpc-go calls too.
async fn calls<T: Transport>(client: Client<T>) {
    let service = TestServiceClient::new(client);
    let secret = Secret::new("hidden");
    let call = service.unary_call(&good()).compress(Encoding::Gzip).metadata_secret("x-secret", &secret);
    let reply = call.metadata(INITIAL, "said").metadata_bin(TRAILING, [0, 255]).await.unwrap();
    assert_eq!(reply.message().payload.as_ref().unwrap().body.len(), 5);
    assert_eq!(reply.metadata().get(INITIAL), Some("said"));
    assert_eq!(reply.trailers().get_bin(TRAILING).unwrap().as_deref(), Some(&[0, 255][..]));
    let status = Status::of(&service.unary_call(&bad()).await.unwrap_err());
    assert_eq!((status.code(), status.message()), (Code::Unknown, "no \u{263a}"));
    let mut call = service.full_duplex_call().await.unwrap();
    for size in [1, 2] {
        call.send(&sized(size)).await.unwrap();
        let reply = call.message().await.unwrap().unwrap();
        assert_eq!(reply.payload.unwrap().body.len(), usize::try_from(size).unwrap());
    }
    call.finish();
    assert!(call.message().await.unwrap().is_none());
}

#[tokio::test]
async fn grpc_go_reads_what_was_recorded_of_calls_to_it() {
    let (Some(program), Some(peer)) = (peers::go_binlog(), peers::go(false)) else { return };
    let folder = portolan_testbed::folder("binlog");
    let path = folder.join("ours");
    let file = std::fs::File::create(&path).unwrap();
    let recorder = Recorder::to_writer(Options::new().with_messages(1 << 20), file);
    calls(Client::connect(&Connector::default(), &peer.url).await.unwrap().record(&recorder)).await;
    let output = Command::new(program).arg("read").arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let told: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let types = told.iter().map(|words| words.iter().find_map(|word| word.strip_prefix("type:EVENT_TYPE_")).unwrap());
    // The head may come before or after the first message goes, and with a bad status not at all.
    let types: Vec<&str> = types.filter(|event| *event != "SERVER_HEADER").collect();
    let (asked, turn) =
        (["CLIENT_HEADER", "CLIENT_MESSAGE", "CLIENT_HALF_CLOSE"], ["CLIENT_MESSAGE", "SERVER_MESSAGE"]);
    let expected = [
        &asked[..],
        &["SERVER_MESSAGE", "SERVER_TRAILER"],
        &asked,
        &["SERVER_TRAILER", "CLIENT_HEADER"],
        &turn,
        &turn,
        &["CLIENT_HALF_CLOSE", "SERVER_TRAILER"],
    ];
    assert_eq!(types, expected.concat(), "{text}");
    for said in [
        r#"method_name:"/grpc.testing.TestService/UnaryCall""#,
        r#"key:"x-secret" value:"***""#,
        r#"key:"x-grpc-test-echo-trailing-bin" value:"\000\377""#,
        "from go",
        r#"status_code:2 status_message:"no"#,
        "logger:LOGGER_CLIENT",
    ] {
        assert!(text.contains(said), "{said} in {text}");
    }
    assert!(!text.contains("hidden") && !text.contains("payload_truncated"), "{text}");
    // And it answers as it did, without the server.
    drop(peer);
    calls(Client::new(Replay::load(&path).unwrap(), "http://nowhere.test").unwrap()).await;
    std::fs::remove_dir_all(folder).unwrap();
    record("grpc", "exchange", "grpc-go", "binary logs", told.len() as u64);
}

#[tokio::test]
async fn a_log_that_grpc_go_wrote_is_answered_from() {
    let (Some(program), Some(peer)) = (peers::go_binlog(), peers::go(false)) else { return };
    let folder = portolan_testbed::folder("binlog-go");
    let path = folder.join("theirs");
    let address = peer.url.trim_start_matches("http://").to_owned();
    let output = tokio::task::spawn_blocking({
        let path = path.clone();
        move || {
            let mut write = Command::new(program);
            write.arg("write").arg(path).arg(address).env("GRPC_BINARY_LOG_FILTER", "*").output().unwrap()
        }
    });
    let output = output.await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    drop(peer);
    let log = Log::load(&path).unwrap();
    assert!(log.entries().len() > 15, "{log:?}");
    let replay = Replay::new(&log);
    calls(Client::new(replay.clone(), "http://nowhere.test").unwrap()).await;
    assert_eq!(replay.unused(), 0);
    let service = TestServiceClient::new(Client::new(replay, "http://nowhere.test").unwrap());
    let never = service.streaming_input_call(stream::empty()).await.unwrap_err();
    assert!(never.to_string().contains("no answer is recorded"), "{never}");
    std::fs::remove_dir_all(folder).unwrap();
}
