//! Health, reflection, and calls by name.

use futures_util::stream;
use portolan_grpc::dynamic::Schema;
use portolan_grpc::health::{Health, HealthClient};
use portolan_grpc::reflection::Reflection;
use portolan_grpc::{Client, Code, Encoding, Shape, Status, Transport};
use serde_json::json;

use crate::proto::grpc::testing::{BoolValue, SimpleRequest, StreamingInputCallRequest};

type Service<T> = crate::proto::grpc::testing::TestServiceClient<T>;

pub(crate) async fn health<T: Transport>(service: Service<T>) {
    let client = service.client();
    let health = HealthClient::new(client.clone());
    assert_eq!(health.check("").await.unwrap(), Health::Serving);
    assert_eq!(health.check("down").await.unwrap(), Health::NotServing);
    let error = health.check("missing").await.unwrap_err();
    assert_eq!(Status::of(&error).code(), Code::NotFound);
    assert_eq!(health.watch("grpc.testing.TestService").await.unwrap().next().await.unwrap(), Some(Health::Serving));
    assert_eq!(health.watch("missing").await.unwrap().next().await.unwrap(), Some(Health::ServiceUnknown));
}

pub(crate) async fn reflection_and_calls_by_name<T: Transport>(service: Service<T>) {
    let client = service.client();
    let reflection = Reflection::new(client.clone());
    let services = reflection.services().await.unwrap();
    assert!(services.iter().any(|name| name == "grpc.testing.TestService"), "{services:?}");
    let error = reflection.files("no.Such").await.unwrap_err();
    assert_eq!(Status::of(&error).code(), Code::NotFound);
    let schema = Schema::by_reflection(client, "grpc.testing.TestService").await.unwrap();
    dynamic(client, &schema).await;
    let kept = Schema::from_descriptor_set(include_bytes!("../generated/interop.bin")).unwrap();
    dynamic(client, &kept).await;
}

/// Requests that come otherwise than they say, which a server must be able to see.
pub(crate) async fn compression_probes<T: Transport>(service: Service<T>) {
    for value in [true, false] {
        let expect_compressed = Some(BoolValue { value: !value });
        let request = SimpleRequest { expect_compressed, ..SimpleRequest::default() };
        let call = service.unary_call(&request);
        let call = if value { call.compress(Encoding::Gzip) } else { call };
        assert_eq!(Status::of(&call.await.unwrap_err()).code(), Code::InvalidArgument);
    }
    let probe = StreamingInputCallRequest { expect_compressed: Some(BoolValue { value: true }), payload: None };
    let error = service.streaming_input_call(stream::iter([probe])).await.unwrap_err();
    assert_eq!(Status::of(&error).code(), Code::InvalidArgument);
}

async fn dynamic<T: Transport>(client: &Client<T>, schema: &Schema) {
    let shapes = schema.methods("grpc.testing.TestService").unwrap();
    assert!(shapes.contains(&("FullDuplexCall".to_owned(), Shape::Duplex)));
    let method = |name: &str| schema.method(&format!("grpc.testing.TestService/{name}")).unwrap();
    let reply = client.unary(&method("UnaryCall"), &json!({"responseSize": 3})).await.unwrap();
    assert_eq!(*reply.message(), json!({"payload": {"body": "AAAA"}}));
    let error = client.unary(&method("UnaryCall"), &json!({"noSuch": 3})).await.unwrap_err();
    assert_eq!(error.kind(), portolan_core::Kind::Usage);
    let requests = [json!({"payload": {"body": "AAAA"}}), json!({"payload": {"body": "AA=="}})];
    let reply = client.client_streaming(&method("StreamingInputCall"), stream::iter(requests)).await.unwrap();
    assert_eq!(*reply.message(), json!({"aggregatedPayloadSize": 4}));
    let request = json!({"responseParameters": [{"size": 1}, {"size": 2}]});
    let mut replies = client.server_streaming(&method("StreamingOutputCall"), &request).await.unwrap();
    assert_eq!(replies.message().await.unwrap().unwrap(), json!({"payload": {"body": "AA=="}}));
    assert_eq!(replies.message().await.unwrap().unwrap(), json!({"payload": {"body": "AAA="}}));
    assert!(replies.message().await.unwrap().is_none());
    assert!(schema.method("grpc.testing.TestService/Missing").is_err() && schema.method("x").is_err());
}
