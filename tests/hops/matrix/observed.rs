//! What an observer hears of every protocol, directly and through a chain: the same things under the same names.

use std::sync::{Arc, Mutex};

use portolan_core::observe::{Closed, Done, Observer, Opened, Outcome, Step};
use portolan_core::{Connector, ConnectorBuilder, Hop, Phase};

use super::super::h2::trusting;
use super::super::h3::{h3, masque};
use super::super::{Proxy, danted};
use super::targets::{Protocol, Targets};
use portolan_testbed::free_port;

/// What was heard.
#[derive(Debug, Default)]
struct Heard {
    phases: Vec<(Phase, Option<usize>)>,
    opened: usize,
    closed: Vec<(u64, u64)>,
    operations: Vec<(&'static str, String)>,
    failures: Vec<String>,
}

#[derive(Default)]
struct Ear(Mutex<Heard>);

impl Ear {
    fn hear(&self, add: impl FnOnce(&mut Heard)) {
        add(&mut self.0.lock().unwrap());
    }

    fn failed(&self, what: &str, outcome: Outcome<'_>) {
        if let Some(error) = outcome.error() {
            self.hear(|heard| heard.failures.push(format!("{what}: {error}")));
        }
    }
}

impl Observer for Ear {
    fn phase(&self, step: &Step<'_>) {
        self.hear(|heard| heard.phases.push((step.phase, step.hop.map(|hop| hop.index))));
        assert_eq!(step.endpoint.host_text(), if step.endpoint.name().is_some() { "localhost" } else { "127.0.0.1" });
    }

    fn opened(&self, opened: &Opened<'_>) {
        self.hear(|heard| heard.opened += 1);
        self.failed("opened", opened.outcome);
    }

    fn closed(&self, closed: &Closed<'_>) {
        self.hear(|heard| heard.closed.push((closed.sent, closed.received)));
    }

    fn operation(&self, done: &Done<'_>) {
        self.hear(|heard| heard.operations.push((done.protocol, done.operation.to_owned())));
        self.failed(done.operation, done.outcome);
    }
}

/// The operations that an exchange with the protocol's server is made of.
fn expected(protocol: Protocol) -> (&'static str, &'static [&'static str]) {
    match protocol {
        Protocol::Http1 | Protocol::Http2 | Protocol::Http3 | Protocol::Sse => ("http", &["GET"]),
        Protocol::WebSocket => ("websocket", &["open"]),
        Protocol::Grpc => ("grpc", &["/grpc.testing.TestService/EmptyCall"]),
        Protocol::Redis => ("redis", &["SET", "GET"]),
        Protocol::Smtp => ("smtp", &["NOOP"]),
        Protocol::DnsUdp | Protocol::DnsTcp | Protocol::DnsTls | Protocol::DnsHttps | Protocol::DnsQuic => {
            ("dns", &["A"])
        }
        Protocol::Small(small) => small.operations(),
    }
}

async fn heard(targets: &Targets, protocol: Protocol, net: ConnectorBuilder) -> Heard {
    let ear = Arc::new(Ear::default());
    targets.exchange(protocol, net.observer(ear.clone())).await.unwrap();
    // Drivers that were spawned drop their connection a moment after its last user.
    for _ in 0..200 {
        if !ear.0.lock().unwrap().closed.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    std::mem::take(&mut *ear.0.lock().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observer_hears_of_every_protocol_and_every_hop() {
    let Some(targets) = Targets::start().await else { return };
    let (Some(dante), Some(masque)) = (danted(free_port()), masque(&targets.certs, false)) else { return };
    let tls = trusting(&targets.certs);
    let chain = |dante: &Proxy, masque: &Proxy| vec![Hop::socks5(dante.endpoint()), h3(masque).hop()];
    for protocol in Protocol::ALL {
        for hops in [Vec::new(), chain(&dante, &masque)] {
            let count = hops.len();
            let net = Connector::builder().tls(tls.clone()).hop_tls(tls.clone());
            let heard = heard(&targets, protocol, hops.into_iter().fold(net, ConnectorBuilder::via)).await;
            let what = format!("{} over {count} hops: {heard:#?}", protocol.name());
            let (name, operations) = expected(protocol);
            // Beneath DNS over HTTPS there is a request.
            let (below, own): (Vec<_>, Vec<_>) = heard.operations.iter().partition(|(protocol, _)| *protocol != name);
            assert!(own.iter().map(|(_, one)| one.as_str()).eq(operations.iter().copied()), "{what}");
            let carried: &[_] = if protocol == Protocol::DnsHttps { &[("http", "POST")] } else { &[] };
            assert!(below.iter().map(|(by, one)| (*by, one.as_str())).eq(carried.iter().copied()), "{what}");
            for index in 0..count {
                assert!(heard.phases.contains(&(Phase::Hop, Some(index))), "{what}");
            }
            let names = targets.is_named(protocol) || count > 0;
            assert!(heard.opened >= 1 && heard.failures.is_empty(), "{what}");
            assert_eq!(heard.phases.iter().any(|(phase, _)| *phase == Phase::Resolve), names, "{what}");
            let handshake = matches!(
                protocol,
                Protocol::Http3 | Protocol::DnsQuic | Protocol::Redis | Protocol::Smtp | Protocol::WebSocket
            );
            assert_eq!(heard.phases.iter().any(|(phase, _)| *phase == Phase::Handshake), handshake, "{what}");
            // Some of the small ones say nothing, others hear nothing.
            let small = matches!(protocol, Protocol::Small(_));
            let both = |(sent, received): &(u64, u64)| (*sent > 0 && *received > 0) || (small && sent + received > 0);
            assert!(heard.closed.iter().any(both), "{what}");
        }
    }
}
