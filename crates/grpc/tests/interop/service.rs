//! The TestService in this process: what shows whether requests come compressed, and what other stacks are given to carry.

use std::io::{Read, Write};
use std::time::Duration;

use portolan_core::clock;
use prost::Message;

use crate::proto::grpc::testing::*;
use crate::support::{Call, Handler, handler};

const INITIAL: &str = "x-grpc-test-echo-initial";
const TRAILING: &str = "x-grpc-test-echo-trailing-bin";

pub(crate) fn service() -> Handler {
    handler(async |mut call| match call.path().rsplit('/').next().unwrap() {
        _ if !call.path().starts_with("/grpc.testing.TestService/") => refuse(&call, 12, "no such service").await,
        "EmptyCall" => {
            begin(&call).await;
            call.send("").await;
            end(&call).await;
        }
        "UnaryCall" => unary(&mut call).await,
        "StreamingInputCall" => input(&mut call).await,
        "StreamingOutputCall" | "FullDuplexCall" => duplex(&mut call).await,
        _ => refuse(&call, 12, "no such method").await,
    })
}

async fn begin(call: &Call) {
    let initial = call.header(INITIAL).map(|value| (INITIAL, value));
    let fields: Vec<_> = initial.into_iter().chain([("grpc-encoding", "gzip")]).collect();
    call.start(&fields).await;
}

async fn end(call: &Call) {
    let trailing = call.header(TRAILING).map(|value| (TRAILING, value));
    let fields: Vec<_> = trailing.into_iter().chain([("grpc-status", "0")]).collect();
    call.end(&fields).await;
}

async fn refuse(call: &Call, code: i32, message: &str) {
    let escaped: String = message.bytes().map(|byte| format!("%{byte:02x}")).collect();
    call.only(&[("grpc-status", &code.to_string()), ("grpc-message", &escaped)]).await;
}

/// The next request, and whether it came as it was said to.
async fn next<M: Message + Default>(call: &mut Call, expected: fn(&M) -> Option<&BoolValue>) -> Option<Result<M, ()>> {
    let (flag, bytes) = call.message().await?;
    let mut plain = Vec::new();
    if flag == 1 {
        assert_eq!(call.header("grpc-encoding"), Some("gzip"));
        flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut plain).unwrap();
    } else {
        plain.extend_from_slice(&bytes);
    }
    let message = M::decode(&plain[..]).unwrap();
    let right = expected(&message).is_none_or(|expected| expected.value == (flag == 1));
    Some(if right { Ok(message) } else { Err(()) })
}

async fn send(call: &Call, message: &impl Message, compressed: bool) {
    if !compressed {
        return call.send(message.encode_to_vec()).await;
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&message.encode_to_vec()).unwrap();
    call.send_flagged(1, encoder.finish().unwrap()).await;
}

fn payload(size: i32) -> Option<Payload> {
    Some(Payload { r#type: 0, body: vec![0; usize::try_from(size).unwrap()] })
}

async fn unary(call: &mut Call) {
    let request = next::<SimpleRequest>(call, |request| request.expect_compressed.as_ref()).await;
    let Ok(request) = request.unwrap() else { return refuse(call, 3, "not compressed as it was said").await };
    if let Some(status) = &request.response_status {
        return refuse(call, status.code, &status.message).await;
    }
    begin(call).await;
    let reply = SimpleResponse { payload: payload(request.response_size), ..SimpleResponse::default() };
    send(call, &reply, request.response_compressed.is_some_and(|said| said.value)).await;
    end(call).await;
}

async fn input(call: &mut Call) {
    let mut sum = 0;
    while let Some(request) = next::<StreamingInputCallRequest>(call, |one| one.expect_compressed.as_ref()).await {
        let Ok(request) = request else { return refuse(call, 3, "not compressed as it was said").await };
        sum += request.payload.map_or(0, |payload| payload.body.len());
    }
    begin(call).await;
    let reply = StreamingInputCallResponse { aggregated_payload_size: i32::try_from(sum).unwrap() };
    send(call, &reply, false).await;
    end(call).await;
}

async fn duplex(call: &mut Call) {
    let mut begun = false;
    while let Some(request) = next::<StreamingOutputCallRequest>(call, |_| None).await {
        let request = request.unwrap();
        if let Some(status) = &request.response_status {
            return refuse(call, status.code, &status.message).await;
        }
        if !std::mem::replace(&mut begun, true) {
            begin(call).await;
        }
        for parameters in &request.response_parameters {
            clock::sleep(Duration::from_micros(u64::try_from(parameters.interval_us).unwrap())).await;
            let reply = StreamingOutputCallResponse { payload: payload(parameters.size) };
            send(call, &reply, parameters.compressed.is_some_and(|said| said.value)).await;
        }
    }
    if !begun {
        begin(call).await;
    }
    end(call).await;
}
