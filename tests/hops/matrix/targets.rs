//! What the matrix reaches: one real server for each protocol.

use std::path::Path;
use std::process::Command;

use portolan_classic::Transport::{Tcp, Udp};
use portolan_core::{Connector, ConnectorBuilder, Endpoint};
use portolan_testbed::{Certs, Server, Service, find, free_port};

use super::small::{Small, Smalls};

/// Where the testbed's Python environments are.
const TESTBED: &str = "/opt/portolan-testbed";

/// A protocol of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
    Http3,
    WebSocket,
    Grpc,
    Sse,
    Redis,
    Smtp,
    DnsUdp,
    DnsTcp,
    DnsTls,
    DnsHttps,
    DnsQuic,
    Small(Small),
}

impl Protocol {
    pub(super) const ALL: [Self; 27] = [
        Self::Http1,
        Self::Http2,
        Self::Http3,
        Self::WebSocket,
        Self::Grpc,
        Self::Sse,
        Self::Redis,
        Self::Smtp,
        Self::DnsUdp,
        Self::DnsTcp,
        Self::DnsTls,
        Self::DnsHttps,
        Self::DnsQuic,
        Self::Small(Small::Echo(Tcp)),
        Self::Small(Small::Echo(Udp)),
        Self::Small(Small::Discard(Tcp)),
        Self::Small(Small::Discard(Udp)),
        Self::Small(Small::Chargen(Tcp)),
        Self::Small(Small::Chargen(Udp)),
        Self::Small(Small::Daytime(Tcp)),
        Self::Small(Small::Daytime(Udp)),
        Self::Small(Small::Time(Tcp)),
        Self::Small(Small::Time(Udp)),
        Self::Small(Small::Qotd),
        Self::Small(Small::ActiveUsers),
        Self::Small(Small::Finger),
        Self::Small(Small::Whois),
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
            Self::Http3 => "HTTP/3",
            Self::WebSocket => "WebSocket",
            Self::Grpc => "gRPC",
            Self::Sse => "SSE",
            Self::Redis => "Redis",
            Self::Smtp => "SMTP STARTTLS",
            Self::DnsUdp => "DNS/UDP",
            Self::DnsTcp => "DNS/TCP",
            Self::DnsTls => "DNS/TLS",
            Self::DnsHttps => "DNS/HTTPS",
            Self::DnsQuic => "DNS/QUIC",
            Self::Small(small) => small.name(),
        }
    }

    pub(super) fn is_udp(self) -> bool {
        match self {
            Self::Small(small) => small.is_udp(),
            _ => matches!(self, Self::Http3 | Self::DnsUdp | Self::DnsQuic),
        }
    }
}

/// The servers, kept running.
pub(super) struct Targets {
    pub(super) certs: Certs,
    web: Target,
    websocket: Option<Target>,
    grpc: Option<Target>,
    redis: Target,
    mail: Postfix,
    dns: Names,
    smalls: Smalls,
}

/// Unbound, and DNS over QUIC in front of it.
struct Names {
    plain: Target,
    tls: u16,
    https: u16,
    quic: Option<Target>,
}

struct Target {
    port: u16,
    _server: Server,
}

/// The master leads a session of its own: it is ended by the pid that it wrote down.
struct Postfix(Target);

impl Drop for Postfix {
    fn drop(&mut self) {
        let pid = std::fs::read_to_string(self.0._server.dir().join("q/pid/master.pid")).unwrap_or_default();
        if !pid.trim().is_empty() {
            let _ = Command::new("kill").args(["-TERM", pid.trim()]).status();
        }
    }
}

fn loopback(port: u16) -> std::net::SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// HTTP of every version, and an event stream.
fn caddy(certs: &Certs) -> Option<Target> {
    let port = free_port();
    let conf = format!(
        "{{\n admin off\n auto_https off\n storage file_system $D/data\n}}\n\
         https://localhost:{port} {{\n bind 127.0.0.1\n tls $D/server.pem $D/server.key\n header /events Content-Type text/event-stream\n\
         \x20respond /events \"data: through\n\n\"\n respond /hello \"hello\"\n}}\n"
    );
    let caddy = Service::new("caddy", "caddy").file("Caddyfile", conf).tls(certs).env("HOME", "$D");
    let caddy = caddy.args(["run", "--config", "$D/Caddyfile", "--adapter", "caddyfile"]);
    Some(Target { port, _server: caddy.accepts(loopback(port)).start()? })
}

fn python(package: &str, script: &str) -> Service {
    let environment = package.trim_start_matches("pip:").split(' ').next().unwrap_or_default().to_owned();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates").join(script);
    Service::new(package, format!("{TESTBED}/{environment}/bin/python")).args(["-u", &script.display().to_string()])
}

fn websocket() -> Option<Target> {
    let port = free_port();
    let echo = python("pip:websockets", "websocket/tests/peers/websockets_echo.py").arg(port.to_string());
    Some(Target { port, _server: echo.accepts(loopback(port)).start()? })
}

fn grpc() -> Option<Target> {
    let port = free_port();
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/grpc/tests/protos");
    let package = "pip:grpcio grpcio-tools grpcio-reflection grpcio-health-checking grpcio-status";
    let server = python(package, "grpc/tests/peers/interop_server.py");
    let server = server.args([port.to_string(), protos.display().to_string()]).says("grpc").start()?;
    Some(Target { port, _server: server })
}

fn postfix(certs: &Certs) -> Option<Postfix> {
    find("postfix", "postfix")?;
    let port = free_port();
    let main = "compatibility_level = 3.6\nqueue_directory = $D/q\ndata_directory = $D/d\ncommand_directory = /usr/sbin\n\
                daemon_directory = /usr/lib/postfix/sbin\nmail_owner = postfix\nsetgid_group = postdrop\n\
                inet_interfaces = loopback-only\ninet_protocols = ipv4\nmyhostname = localhost\nmydestination =\nmynetworks =\n\
                alias_maps =\nalias_database =\nsmtpd_relay_restrictions = reject_unauth_destination\n\
                smtpd_tls_cert_file = $D/server.pem\nsmtpd_tls_key_file = $D/server.key\nsmtpd_tls_security_level = may\n\
                smtpd_peername_lookup = no\nsmtpd_client_connection_count_limit = 0\nmaillog_file = /dev/stdout\n";
    let master = format!(
        "127.0.0.1:{port} inet n - n - - smtpd\ntlsmgr unix - - n 1000? 1 tlsmgr\nrewrite unix - - n - - trivial-rewrite\n\
         proxymap unix - - n - - proxymap\nanvil unix - - n - 1 anvil\npostlog unix-dgram n - n - 1 postlogd\n\
         cleanup unix n - n - 0 cleanup\n"
    );
    let script = "set -e\nmkdir -p q d\nchown postfix d\nchmod 755 .\nexec postfix -c $D start-fg\n";
    let server = Service::new("postfix", "sh").file("main.cf", main).file("master.cf", master).file("run", script);
    let server = server.tls(certs).args(["-ex", "run"]).accepts(loopback(port)).start()?;
    Some(Postfix(Target { port, _server: server }))
}

fn unbound(certs: &Certs) -> Option<Names> {
    let (port, tls, https) = (free_port(), free_port(), free_port());
    let conf = format!(
        "server:\n interface: 127.0.0.1@{port}\n interface: 127.0.0.1@{tls}\n interface: 127.0.0.1@{https}\n tls-port: {tls}\n https-port: {https}\n\
         \x20tls-service-key: \"$D/server.key\"\n tls-service-pem: \"$D/server.pem\"\n\
         \x20do-daemonize: no\n username: \"\"\n chroot: \"\"\n directory: \"$D\"\n\
         \x20pidfile: \"$D/pid\"\n use-syslog: no\n module-config: \"iterator\"\n access-control: 127.0.0.0/8 allow\n\
         \x20local-zone: \"local.test.\" static\n local-data: \"host.local.test. 300 IN A 192.0.2.77\"\nremote-control:\n control-enable: no\n"
    );
    let unbound = Service::new("unbound", "unbound").file("u.conf", conf).args(["-d", "-c", "$D/u.conf"]);
    let plain = Target { port, _server: unbound.tls(certs).accepts(loopback(port)).start()? };
    Some(Names { plain, tls, https, quic: quic_names(certs, port) })
}

fn quic_names(certs: &Certs, behind: u16) -> Option<Target> {
    let port = free_port();
    let python = portolan_testbed::python("aioquic", "aioquic")?;
    let numbers = [port.to_string(), behind.to_string()];
    let service = Service::new("pip:aioquic", python).file("doq.py", include_str!("../../dns/doq.py")).tls(certs);
    let service = service.args(["$D/doq.py", &numbers[0], "$D/server.pem", "$D/server.key", &numbers[1]]);
    Some(Target { port, _server: service.says("ready").start()? })
}

fn redis() -> Option<Target> {
    let port = free_port();
    let number = port.to_string();
    let server = Service::new("redis-server", "redis-server")
        .args(["--port", &number, "--bind", "127.0.0.1", "--save", "", "--dir", "$D"])
        .accepts(loopback(port))
        .start()?;
    Some(Target { port, _server: server })
}

impl Targets {
    pub(super) async fn start() -> Option<Self> {
        let certs = Certs::new();
        Some(Self {
            web: caddy(&certs)?,
            websocket: websocket(),
            grpc: grpc(),
            redis: redis()?,
            mail: postfix(&certs)?,
            dns: unbound(&certs)?,
            smalls: Smalls::start().await?,
            certs,
        })
    }

    /// Whether there is a server for it here.
    pub(super) fn has(&self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::WebSocket => self.websocket.is_some(),
            Protocol::Grpc => self.grpc.is_some(),
            Protocol::DnsQuic => self.dns.quic.is_some(),
            _ => true,
        }
    }

    /// Whether its server is reached by a name.
    pub(super) fn is_named(&self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Small(small) => !small.is_udp(),
            _ => !matches!(protocol, Protocol::DnsUdp | Protocol::DnsTcp),
        }
    }

    pub(super) fn redis(&self) -> Endpoint {
        to(self.redis.port)
    }

    /// One exchange with the protocol's server, through whatever hops the connector has.
    pub(super) async fn exchange(&self, protocol: Protocol, net: ConnectorBuilder) -> portolan_core::Result<()> {
        let net = net.build()?;
        match protocol {
            Protocol::Http1 => self.web(net, portolan_http::Version::Http1Only).await,
            Protocol::Http2 => self.web(net, portolan_http::Version::Http2Only).await,
            Protocol::Http3 => self.web(net, portolan_http::Version::Http3Only).await,
            Protocol::Sse => self.events(net).await,
            Protocol::WebSocket => echo(&net, self.websocket.as_ref().map_or(0, |target| target.port)).await,
            Protocol::Grpc => call(&net, self.grpc.as_ref().map_or(0, |target| target.port)).await,
            Protocol::Redis => {
                let client = portolan_db::redis::Client::connect(&net, portolan_db::redis::Options::new(self.redis()));
                let client = client.await?;
                client.set("k", "through").await?;
                assert_eq!(client.get::<String>("k").await?, "through");
                client.close().await
            }
            Protocol::Smtp => {
                let options = portolan_mail::smtp::Options::new(to(self.mail.0.port));
                let mut client = portolan_mail::smtp::Client::connect(&net, options).await?;
                client.noop().await?;
                client.close().await
            }
            Protocol::DnsUdp => self.ask(&net, "udp://127.0.0.1", self.dns.plain.port).await,
            Protocol::DnsTcp => self.ask(&net, "tcp://127.0.0.1", self.dns.plain.port).await,
            Protocol::DnsTls => self.ask(&net, "tls://localhost", self.dns.tls).await,
            Protocol::DnsHttps => self.ask(&net, "https://localhost", self.dns.https).await,
            Protocol::DnsQuic => {
                let port = self.dns.quic.as_ref().map_or(0, |target| target.port);
                self.ask(&net, "quic://localhost", port).await
            }
            Protocol::Small(small) => self.smalls.exchange(&net, small).await,
        }
    }

    /// A page of the web server's.
    pub(super) fn page(&self) -> String {
        format!("https://localhost:{}/hello", self.web.port)
    }

    async fn web(&self, net: Connector, version: portolan_http::Version) -> portolan_core::Result<()> {
        let client = portolan_http::Client::builder().connector(net).version(version).build()?;
        let response = client.get(self.page()).send().await?;
        assert_eq!(response.text().await?, "hello");
        Ok(())
    }

    async fn events(&self, net: Connector) -> portolan_core::Result<()> {
        let client = portolan_http::Client::builder().connector(net).build()?;
        let url = format!("https://localhost:{}/events", self.web.port);
        let mut events = portolan_sse::EventSource::get(&client, url.as_str(), portolan_sse::Options::new())?;
        assert_eq!(events.recv().await?.unwrap().data.as_str(), "through");
        Ok(())
    }

    async fn ask(&self, net: &Connector, server: &str, port: u16) -> portolan_core::Result<()> {
        let options = portolan_dns::dns::Options::from_url(&format!("{server}:{port}"))?;
        let client = portolan_dns::dns::Client::connect(net, options).await?;
        let answer = client.query("host.local.test", portolan_dns::dns::RecordType::A).await?;
        assert_eq!(answer.answers.len(), 1);
        client.close().await
    }
}

pub(super) fn to(port: u16) -> Endpoint {
    Endpoint::new("localhost", port).unwrap()
}

async fn echo(net: &Connector, port: u16) -> portolan_core::Result<()> {
    use portolan_websocket::handshake::Request;
    use portolan_websocket::{CloseCode, Options, WebSocket};
    let request = Request::new(&format!("ws://localhost:{port}/"))?.subprotocol("echo")?;
    let mut socket = WebSocket::open(net, &request, Options::new()).await?;
    socket.send("through").await?;
    assert_eq!(socket.recv().await?.unwrap().as_text(), Some("through"));
    socket.close(CloseCode::NORMAL, "").await?;
    Ok(())
}

async fn call(net: &Connector, port: u16) -> portolan_core::Result<()> {
    use portolan_grpc::{Client, Method, Raw};
    let client = Client::connect(net, &format!("http://localhost:{port}")).await?;
    let method = Method::new("/grpc.testing.TestService/EmptyCall", Raw::protobuf())?;
    assert!(client.unary(&method, &bytes::Bytes::new()).await?.message().is_empty());
    Ok(())
}
