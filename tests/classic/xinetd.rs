//! xinetd, with each of the small services on a port of its own.

use std::net::SocketAddr;

use portolan_core::{Connector, Endpoint};
use portolan_testbed::{Server, Service, find, free_port};

/// xinetd with everything, each service on a port of its own.
pub(crate) struct Xinetd {
    _server: Server,
    ports: Vec<(&'static str, u16)>,
}

impl Xinetd {
    pub(crate) fn start() -> Option<Self> {
        let fingerd = find("fingerd", "in.fingerd")?;
        let mut conf = String::from("defaults\n{\n instances = 60\n log_type = FILE $D/services\n}\n");
        let mut ports = Vec::new();
        for name in ["echo", "discard", "chargen", "daytime", "time"] {
            let port = both_free();
            ports.push((name, port));
            for (socket, protocol, wait) in [("stream", "tcp", "no"), ("dgram", "udp", "yes")] {
                conf.push_str(&format!(
                    "service {name}\n{{\n type = INTERNAL UNLISTED\n id = {name}-{protocol}\n cps = 1000 1\n socket_type = {socket}\n \
                     protocol = {protocol}\n wait = {wait}\n user = root\n port = {port}\n bind = 127.0.0.1\n}}\n"
                ));
            }
        }
        let fingerd = fingerd.display().to_string();
        for (name, server, args) in [
            ("qotd", "/bin/echo", "\n server_args = an apple a day"),
            ("systat", "/bin/ps", "\n server_args = -e"),
            ("finger", &fingerd, ""),
        ] {
            let port = both_free();
            ports.push((name, port));
            conf.push_str(&format!(
                "service {name}\n{{\n type = UNLISTED\n id = {name}\n socket_type = stream\n protocol = tcp\n wait = no\n \
                 user = root\n port = {port}\n bind = 127.0.0.1\n server = {server}{args}\n}}\n"
            ));
        }
        let args = ["-dontfork", "-filelog", "$D/messages", "-f", "$D/xinetd.conf", "-pidfile", "$D/pid"];
        let xinetd = Service::new("xinetd", "xinetd").file("xinetd.conf", conf).args(args);
        let server = xinetd.accepts(([127, 0, 0, 1], ports.last()?.1).into()).start()?;
        Some(Self { _server: server, ports })
    }

    pub(crate) fn at(&self, name: &str) -> Endpoint {
        self.addr(name).into()
    }

    pub(crate) fn addr(&self, name: &str) -> SocketAddr {
        let port = self.ports.iter().find(|(other, _)| *other == name).unwrap().1;
        SocketAddr::from(([127, 0, 0, 1], port))
    }
}

/// A port that is free for TCP and UDP.
pub(crate) fn both_free() -> u16 {
    loop {
        let port = free_port();
        if Connector::default().datagram_bound(SocketAddr::from(([127, 0, 0, 1], port)), false).is_ok() {
            return port;
        }
    }
}
