//! Channels against servers that let connections go, and that say how they are.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use portolan_core::{Connector, Phase, Resolver, clock};
use portolan_grpc::{Channel, ChannelOptions, Client, Connectivity, ServiceConfig};
use portolan_testbed::{free_port, record};

use crate::peers;
use crate::proto::grpc::testing::{SimpleRequest, StreamingInputCallRequest, TestServiceClient};

type Service = TestServiceClient<Channel>;

fn service(channel: Channel) -> Service {
    TestServiceClient::new(Client::from_channel(channel).unwrap())
}

/// What the server says of the connection: the peer of it, and where it listens.
async fn whom(service: &Service) -> (String, String) {
    let reply = service.unary_call(&SimpleRequest::default()).metadata("x-peer", "1").await.unwrap();
    let said = |name: &str| reply.trailers().get(name).unwrap().to_owned();
    (said("x-peer"), said("x-host"))
}

#[tokio::test]
async fn no_call_is_lost_where_grpcio_lets_its_connections_grow_old() {
    let Some(peer) = peers::python_at("127.0.0.1", free_port(), Some(Duration::from_millis(100))) else { return };
    let service = service(Channel::connect(&Connector::default(), &peer.url).await.unwrap());
    // A stream that lives longer than its connection may take new calls.
    let (send, mut queue) = tokio::sync::mpsc::channel(1);
    let requests = futures_util::stream::poll_fn(move |cx| queue.poll_recv(cx));
    let upload = tokio::spawn(service.streaming_input_call(requests).into_future());
    let mut seen = BTreeSet::new();
    let mut calls = 0_u64;
    while seen.len() < 5 {
        seen.insert(whom(&service).await.0);
        send.send(StreamingInputCallRequest::default()).await.unwrap();
        calls += 1;
    }
    drop(send);
    upload.await.unwrap().unwrap();
    assert_eq!(service.client().transport().connections(), 1);
    record("grpc", "exchange", &peer.name, "connections that grow old", calls);
}

#[tokio::test]
async fn a_channel_rests_between_calls_to_grpcio_and_connects_anew() {
    let Some(peer) = peers::python_at("127.0.0.1", free_port(), None) else { return };
    let options = ChannelOptions::new().idle_timeout(Duration::from_millis(50));
    let service = service(Channel::connect_with(&Connector::default(), &peer.url, options).await.unwrap());
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        seen.insert(whom(&service).await.0);
        let rests = async {
            while service.client().transport().connectivity() != Connectivity::Idle {
                clock::sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        };
        clock::within(Some(Duration::from_secs(60)), Phase::Idle, rests).await.unwrap();
        assert_eq!(service.client().transport().connections(), 0);
    }
    assert_eq!(seen.len(), 3, "each call has a connection of its own: {seen:?}");
    record("grpc", "exchange", &peer.name, "channels that rest", 3);
}

#[tokio::test]
async fn calls_go_to_the_grpcio_that_says_it_serves() {
    let port = free_port();
    let Some(one) = peers::python_at("127.0.0.1", port, None) else { return };
    let Some(_two) = peers::python_at("127.0.0.2", port, None) else { return };
    let addresses = [1, 2].map(|n| IpAddr::from([127, 0, 0, n]));
    let resolver = Resolver::system().with_override("svc.test", addresses);
    let connector = Connector::builder().resolver(resolver).build().unwrap();
    let config = r#"{"loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": "grpc.testing.TestService"}}"#;
    let options = ChannelOptions::new().service_config(&ServiceConfig::parse(config).unwrap());
    let url = format!("http://svc.test:{port}");
    let service = service(Channel::connect_with(&connector, &url, options).await.unwrap());
    let channel = service.client().transport();
    let until = async |count| {
        while channel.connections() != count {
            portolan_core::clock::sleep(Duration::from_millis(5)).await;
        }
        let mut hosts = HashMap::new();
        for _ in 0..10 {
            *hosts.entry(whom(&service).await.1).or_insert(0) += 1;
        }
        hosts
    };
    let both = HashMap::from([("127.0.0.1".to_owned(), 5), ("127.0.0.2".to_owned(), 5)]);
    assert_eq!(until(2).await, both);
    let direct = self::service(Channel::connect(&Connector::default(), &one.url).await.unwrap());
    let say = async |health| direct.unary_call(&SimpleRequest::default()).metadata("x-health", health).await.unwrap();
    say("NOT_SERVING").await;
    assert_eq!(until(1).await, HashMap::from([("127.0.0.2".to_owned(), 10)]));
    say("SERVING").await;
    assert_eq!(until(2).await, both);
    record("grpc", "exchange", &one.name, "balanced by health", 30);
}
