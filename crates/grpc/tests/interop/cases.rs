//! The cases, by the names of doc/interop-test-descriptions.md.

use std::pin::Pin;
use std::time::Duration;

use futures_util::stream;
use portolan_core::Kind;
use portolan_grpc::details::Detail;
use portolan_grpc::{Code, Encoding, Metadata, Status, Transport};

use crate::extras::{compression_probes, health, reflection_and_calls_by_name};
use crate::proto::grpc::testing::*;

pub(crate) type Service<T> = TestServiceClient<T>;
pub(crate) type Case<T> = fn(Service<T>) -> Pin<Box<dyn Future<Output = ()>>>;

macro_rules! cases {
    ($($name:ident,)*) => {
        pub(crate) fn all<T: Transport>() -> Vec<(&'static str, Case<T>)> {
            vec![$((stringify!($name), |service| Box::pin($name(service))),)*]
        }
    };
}

cases! {
    empty_unary,
    large_unary,
    client_streaming,
    server_streaming,
    ping_pong,
    empty_stream,
    cancel_after_begin,
    cancel_after_first_response,
    timeout_on_sleeping_server,
    custom_metadata,
    status_code_and_message,
    special_status_message,
    unimplemented_method,
    unimplemented_service,
    server_compressed_unary,
    server_compressed_streaming,
    client_compressed_unary,
    client_compressed_streaming,
    compression_probes,
    rich_errors,
    deadline_reaches_the_server,
    health,
    reflection_and_calls_by_name,
}

const REQUEST: [usize; 4] = [27182, 8, 1828, 45904];
const RESPONSE: [i32; 4] = [31415, 9, 2653, 58979];

fn payload(size: usize) -> Option<Payload> {
    Some(Payload { r#type: 0, body: vec![0; size] })
}

fn sized(size: usize, response: i32) -> SimpleRequest {
    SimpleRequest { response_size: response, payload: payload(size), ..SimpleRequest::default() }
}

fn output(size: i32) -> ResponseParameters {
    ResponseParameters { size, ..ResponseParameters::default() }
}

fn duplex(size: i32, sent: usize) -> StreamingOutputCallRequest {
    let response_parameters = vec![output(size)];
    StreamingOutputCallRequest { response_parameters, payload: payload(sent), ..StreamingOutputCallRequest::default() }
}

fn length(payload: Option<Payload>) -> i32 {
    i32::try_from(payload.map_or(0, |payload| payload.body.len())).unwrap()
}

async fn empty_unary<T: Transport>(service: Service<T>) {
    assert_eq!(service.empty_call(&Empty {}).await.unwrap().into_message(), Empty {});
}

async fn large_unary<T: Transport>(service: Service<T>) {
    let reply = service.unary_call(&sized(271_828, 314_159)).await.unwrap();
    assert_eq!(length(reply.into_message().payload), 314_159);
}

async fn client_streaming<T: Transport>(service: Service<T>) {
    let requests = REQUEST.map(|size| StreamingInputCallRequest { payload: payload(size), expect_compressed: None });
    let reply = service.streaming_input_call(stream::iter(requests)).await.unwrap();
    assert_eq!(reply.message().aggregated_payload_size, 74922);
}

async fn server_streaming<T: Transport>(service: Service<T>) {
    let response_parameters = RESPONSE.map(output).to_vec();
    let request = StreamingOutputCallRequest { response_parameters, ..StreamingOutputCallRequest::default() };
    let mut replies = service.streaming_output_call(&request).await.unwrap();
    for size in RESPONSE {
        assert_eq!(length(replies.message().await.unwrap().unwrap().payload), size);
    }
    assert!(replies.message().await.unwrap().is_none());
}

async fn ping_pong<T: Transport>(service: Service<T>) {
    let mut call = service.full_duplex_call().await.unwrap();
    for (sent, size) in REQUEST.into_iter().zip(RESPONSE) {
        call.send(&duplex(size, sent)).await.unwrap();
        assert_eq!(length(call.message().await.unwrap().unwrap().payload), size);
    }
    call.finish();
    assert!(call.message().await.unwrap().is_none());
}

async fn empty_stream<T: Transport>(service: Service<T>) {
    let mut call = service.full_duplex_call().await.unwrap();
    call.finish();
    assert!(call.message().await.unwrap().is_none());
}

async fn cancel_after_begin<T: Transport>(service: Service<T>) {
    // Begun as a duplex call, which is the same on the wire: the end that receives can be cancelled before an answer.
    let method = portolan_grpc::Method::from_static(
        "/grpc.testing.TestService/StreamingInputCall",
        portolan_grpc::Prost::<StreamingInputCallRequest, StreamingInputCallResponse>::new(),
    );
    let mut call = service.client().duplex(&method).await.unwrap();
    call.cancel();
    assert_eq!(Status::of(&call.message().await.unwrap_err()).code(), Code::Cancelled);
}

async fn cancel_after_first_response<T: Transport>(service: Service<T>) {
    let mut call = service.full_duplex_call().await.unwrap();
    call.send(&duplex(31415, 27182)).await.unwrap();
    assert_eq!(length(call.message().await.unwrap().unwrap().payload), 31415);
    call.cancel();
    assert_eq!(Status::of(&call.message().await.unwrap_err()).code(), Code::Cancelled);
}

async fn timeout_on_sleeping_server<T: Transport>(service: Service<T>) {
    let mut call = service.full_duplex_call().timeout(Duration::from_millis(1)).await.unwrap();
    let request = StreamingOutputCallRequest { payload: payload(27182), ..duplex(31415, 0) };
    let slow = ResponseParameters { interval_us: 10_000_000, ..output(31415) };
    // The deadline may pass before this is sent.
    let _ = call.send(&StreamingOutputCallRequest { response_parameters: vec![slow], ..request }).await;
    let error = call.message().await.unwrap_err();
    assert_eq!(Status::of(&error).code(), Code::DeadlineExceeded, "{error:?}");
}

const INITIAL: (&str, &str) = ("x-grpc-test-echo-initial", "test_initial_metadata_value");
const TRAILING: (&str, [u8; 3]) = ("x-grpc-test-echo-trailing-bin", [0xab, 0xab, 0xab]);

fn echoed(initial: &Metadata, trailing: &Metadata) {
    assert_eq!(initial.get(INITIAL.0), Some(INITIAL.1));
    assert_eq!(trailing.get_all_bin(TRAILING.0).unwrap(), [&TRAILING.1[..]]);
}

async fn custom_metadata<T: Transport>(service: Service<T>) {
    let call = service.unary_call(&sized(271_828, 314_159));
    let reply = call.metadata(INITIAL.0, INITIAL.1).metadata_bin(TRAILING.0, TRAILING.1).await.unwrap();
    echoed(reply.metadata(), reply.trailers());
    let call = service.full_duplex_call().metadata(INITIAL.0, INITIAL.1).metadata_bin(TRAILING.0, TRAILING.1);
    let mut call = call.await.unwrap();
    call.send(&duplex(314_159, 271_828)).await.unwrap();
    call.finish();
    assert_eq!(length(call.message().await.unwrap().unwrap().payload), 314_159);
    assert!(call.message().await.unwrap().is_none());
    let initial = call.metadata().await.unwrap().clone();
    echoed(&initial, call.trailers().unwrap());
}

async fn status_of<T: Transport>(service: &Service<T>, code: i32, message: &str) {
    let response_status = Some(EchoStatus { code, message: message.to_owned() });
    let check = |error: portolan_core::Error| {
        let status = Status::of(&error);
        assert_eq!((status.code().number(), status.message(), error.kind()), (code.into(), message, Kind::Server));
    };
    let request = SimpleRequest { response_status: response_status.clone(), ..SimpleRequest::default() };
    check(service.unary_call(&request).await.unwrap_err());
    let mut call = service.full_duplex_call().await.unwrap();
    let request = StreamingOutputCallRequest { response_status, ..StreamingOutputCallRequest::default() };
    call.send(&request).await.unwrap();
    call.finish();
    check(call.message().await.unwrap_err());
}

async fn status_code_and_message<T: Transport>(service: Service<T>) {
    status_of(&service, 2, "test status message").await;
}

async fn special_status_message<T: Transport>(service: Service<T>) {
    status_of(&service, 2, "\t\ntest with whitespace\r\nand Unicode BMP \u{263a} and non-BMP \u{1f608}\t\n").await;
}

async fn unimplemented_method<T: Transport>(service: Service<T>) {
    let error = service.unimplemented_call(&Empty {}).await.unwrap_err();
    assert_eq!(Status::of(&error).code(), Code::Unimplemented);
}

async fn unimplemented_service<T: Transport>(service: Service<T>) {
    let service = UnimplementedServiceClient::new(service.client().clone());
    let error = service.unimplemented_call(&Empty {}).await.unwrap_err();
    assert_eq!(Status::of(&error).code(), Code::Unimplemented);
}

const fn said(value: bool) -> Option<BoolValue> {
    Some(BoolValue { value })
}

async fn server_compressed_unary<T: Transport>(service: Service<T>) {
    for compressed in [true, false] {
        let request = SimpleRequest { response_compressed: said(compressed), ..sized(271_828, 314_159) };
        let reply = service.unary_call(&request).await.unwrap();
        assert_eq!(reply.is_compressed(), compressed);
        assert_eq!(length(reply.into_message().payload), 314_159);
    }
}

async fn server_compressed_streaming<T: Transport>(service: Service<T>) {
    let wanted = [(31415, true), (92653, false)];
    let response_parameters =
        wanted.map(|(size, compressed)| ResponseParameters { compressed: said(compressed), ..output(size) }).to_vec();
    let request = StreamingOutputCallRequest { response_parameters, ..StreamingOutputCallRequest::default() };
    let mut replies = service.streaming_output_call(&request).await.unwrap();
    for (size, compressed) in wanted {
        assert_eq!(length(replies.message().await.unwrap().unwrap().payload), size);
        assert_eq!(replies.is_compressed(), compressed);
    }
    assert!(replies.message().await.unwrap().is_none());
}

/// Without the probe, which is a case of its own: not every server can see whether a request came compressed.
async fn client_compressed_unary<T: Transport>(service: Service<T>) {
    for compressed in [true, false] {
        let request = SimpleRequest { expect_compressed: said(compressed), ..sized(271_828, 314_159) };
        let call = service.unary_call(&request);
        let call = if compressed { call.compress(Encoding::Gzip) } else { call.declare_encoding(Encoding::Gzip) };
        assert_eq!(length(call.await.unwrap().into_message().payload), 314_159);
    }
}

async fn client_compressed_streaming<T: Transport>(service: Service<T>) {
    let method = portolan_grpc::Method::from_static(
        "/grpc.testing.TestService/StreamingInputCall",
        portolan_grpc::Prost::<StreamingInputCallRequest, StreamingInputCallResponse>::new(),
    );
    let mut call = service.client().duplex(&method).compress(Encoding::Gzip).await.unwrap();
    call.send(&StreamingInputCallRequest { payload: payload(27182), expect_compressed: said(true) }).await.unwrap();
    let plain = StreamingInputCallRequest { payload: payload(45904), expect_compressed: said(false) };
    call.send_plain(&plain).await.unwrap();
    call.finish();
    assert_eq!(call.message().await.unwrap().unwrap().aggregated_payload_size, 73086);
    assert!(call.message().await.unwrap().is_none());
}

/// What is in `grpc-status-details-bin`.
async fn rich_errors<T: Transport>(service: Service<T>) {
    let error = service.unary_call(&sized(1, 1)).metadata("x-rich-error", "1").await.unwrap_err();
    let status = Status::of(&error);
    assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, "sold out"));
    let details = status.details().unwrap();
    let [Detail::ErrorInfo(info), Detail::RetryInfo(retry), Detail::BadRequest(bad)] = &details[..] else {
        panic!("{details:?}")
    };
    assert_eq!((&*info.reason, &*info.domain, &*info.metadata["zone"]), ("STOCKOUT", "shop.test", "a"));
    assert_eq!(retry.delay(), Some(Duration::from_millis(1500)));
    assert_eq!((&*bad.field_violations[0].field, &*bad.field_violations[0].description), ("name", "too long"));
}

/// The server sees a deadline, and not a much longer one.
async fn deadline_reaches_the_server<T: Transport>(service: Service<T>) {
    let call = service.unary_call(&sized(1, 1)).metadata("x-deadline", "1").timeout(Duration::from_secs(7));
    let reply = call.await.unwrap();
    let left: f64 = reply.trailers().get("x-time-left").unwrap().parse().unwrap();
    assert!((5.0..=7.01).contains(&left), "{left}");
}
