//! The servers of this suite: each in a folder of its own, on a free port of the loopback, gone when dropped.

use std::net::{Ipv4Addr, SocketAddr};

use portolan_core::{Connector, Endpoint, Roots, Tls};
use portolan_dns::dns::{Client, Options};
use portolan_testbed::{Certs, Server, Service, free_port, python};

/// A server and where it is.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) addr: SocketAddr,
    server: Server,
}

impl Peer {
    pub(crate) fn log(&self) -> String {
        self.server.log()
    }

    pub(crate) async fn client(&self, change: impl FnOnce(Options) -> Options) -> Client {
        self.client_via(&Connector::default(), change).await
    }

    pub(crate) async fn client_via(&self, net: &Connector, change: impl FnOnce(Options) -> Options) -> Client {
        Client::connect(net, change(Options::new(Endpoint::from(self.addr)))).await.unwrap()
    }

    /// Starts it, and waits until its log says `ready`, or until it accepts connections where there is no such word.
    fn start(port: u16, ready: Option<&str>, service: Service) -> Option<Self> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let service = match ready {
            Some(word) => service.says(word),
            None => service.accepts(addr),
        };
        Some(Self { addr, server: service.start()? })
    }
}

/// BIND, authoritative for `portolan.test` (transfers allowed) and `closed.test` (forbidden).
pub(crate) fn bind() -> Option<Peer> {
    let port = free_port();
    let conf = format!(
        r#"options {{
    directory "$D"; pid-file "$D/pid"; session-keyfile "$D/sk"; managed-keys-directory "$D";
    listen-on port {} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
    recursion no; dnssec-validation no; allow-transfer {{ none; }}; version "portolan's peer"; minimal-responses no;
}};
controls {{}};
zone "portolan.test" {{ type master; file "zone"; check-names ignore; allow-transfer {{ any; }}; }};
zone "closed.test" {{ type master; file "closed"; }};
"#,
        port
    );
    let named = Service::new("bind9", "named").args(["-g", "-n", "1", "-c", "$D/named.conf"]);
    let named = named.file("named.conf", conf).file("zone", zone()).file("closed", CLOSED);
    Peer::start(port, Some(" running\n"), named)
}

/// Unbound with data of its own, asking `bind` for `portolan.test`.
pub(crate) fn unbound(bind: &Peer) -> Option<Peer> {
    let port = free_port();
    let conf = format!(
        r#"server:
    interface: 127.0.0.1
    port: {}
    do-daemonize: no
    username: ""
    chroot: ""
    directory: "$D"
    pidfile: "$D/pid"
    use-syslog: no
    module-config: "iterator"
    do-not-query-localhost: no
    access-control: 127.0.0.0/8 allow
    identity: "portolan"
    local-zone: "test." nodefault
    local-zone: "local.test." static
    local-data: "local.test. SOA a. b. 1 2 3 4 5"
    local-data: "host.local.test. 300 IN A 192.0.2.77"
    local-data: "host.local.test. 300 IN AAAA 2001:db8::77"
    local-zone: "refused.test." refuse
    local-zone: "dropped.test." deny
forward-zone:
    name: "portolan.test."
    forward-addr: 127.0.0.1@{}
remote-control:
    control-enable: no
"#,
        port,
        bind.addr.port()
    );
    let unbound = Service::new("unbound", "unbound").file("unbound.conf", conf).args(["-d", "-c", "$D/unbound.conf"]);
    Peer::start(port, Some("start of service"), unbound)
}

/// A server of DNS over TLS and HTTPS, with the certificate of `localhost`.
pub(crate) struct Secure {
    pub(crate) name: &'static str,
    pub(crate) tls: u16,
    /// Where it speaks HTTPS too.
    pub(crate) https: Option<u16>,
    _server: Server,
}

/// Who trusts these certificates.
pub(crate) fn trusting(certs: &Certs) -> Tls {
    Tls::builder().roots(Roots::Custom).root_pem(certs.ca.as_bytes()).build().unwrap()
}

/// BIND, which is responsible for `portolan.test`, over TLS and HTTPS.
pub(crate) fn secure_bind(certs: &Certs) -> Option<Secure> {
    let (tls, https) = (free_port(), free_port());
    let conf = format!(
        r#"tls t {{ cert-file "$D/server.pem"; key-file "$D/server.key"; }};
options {{
    directory "$D"; pid-file "$D/pid"; session-keyfile "$D/sk"; managed-keys-directory "$D";
    listen-on port {tls} tls t {{ 127.0.0.1; }}; listen-on port {https} tls t http default {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
    recursion no; dnssec-validation no; allow-transfer {{ none; }}; minimal-responses no;
}};
controls {{}};
zone "portolan.test" {{ type master; file "zone"; check-names ignore; allow-transfer {{ any; }}; }};
"#
    );
    let named = Service::new("bind9", "named").args(["-g", "-n", "1", "-c", "$D/named.conf"]).tls(certs);
    let server = named.file("named.conf", conf).file("zone", zone()).says(" running\n").start()?;
    Some(Secure { name: "BIND 9.18", tls, https: Some(https), _server: server })
}

/// Unbound over TLS and HTTPS, asking `bind`.
pub(crate) fn secure_unbound(certs: &Certs, bind: &Peer) -> Option<Secure> {
    let (tls, https) = (free_port(), free_port());
    let conf = format!(
        r#"server:
    interface: 127.0.0.1@{tls}
    interface: 127.0.0.1@{https}
    tls-port: {tls}
    https-port: {https}
    tls-service-key: "$D/server.key"
    tls-service-pem: "$D/server.pem"
    do-daemonize: no
    username: ""
    chroot: ""
    directory: "$D"
    pidfile: "$D/pid"
    use-syslog: no
    module-config: "iterator"
    do-not-query-localhost: no
    access-control: 127.0.0.0/8 allow
    local-zone: "test." nodefault
forward-zone:
    name: "portolan.test."
    forward-addr: 127.0.0.1@{}
remote-control:
    control-enable: no
"#,
        bind.addr.port()
    );
    let unbound = Service::new("unbound", "unbound").file("unbound.conf", conf).args(["-d", "-c", "$D/unbound.conf"]);
    let server = unbound.tls(certs).says("start of service").start()?;
    Some(Secure { name: "Unbound 1.17", tls, https: Some(https), _server: server })
}

/// dnsdist over TLS, handing queries to `bind`. Not over HTTPS: the library that 1.7 speaks HTTP/2 by ends it with a failed assertion
/// (`finalostream_send`) as soon as answers follow each other quickly.
pub(crate) fn dnsdist(certs: &Certs, bind: &Peer) -> Option<Secure> {
    let tls = free_port();
    let conf = format!(
        r#"setSecurityPollSuffix("")
setLocal("127.0.0.1:{}")
addTLSLocal("127.0.0.1:{tls}", "$D/server.pem", "$D/server.key")
newServer({{address="127.0.0.1:{}", healthCheckMode="up"}})
"#,
        free_port(),
        bind.addr.port()
    );
    let dnsdist = Service::new("dnsdist", "dnsdist").file("dnsdist.conf", conf);
    let dnsdist = dnsdist.args(["--supervised", "--disable-syslog", "-v", "-C", "$D/dnsdist.conf"]).tls(certs);
    let server = dnsdist.accepts(([127, 0, 0, 1], tls).into()).start()?;
    Some(Secure { name: "dnsdist 1.7", tls, https: None, _server: server })
}

/// Knot Resolver over TLS and HTTPS, asking `bind`.
pub(crate) fn kresd(certs: &Certs, bind: &Peer) -> Option<Secure> {
    let (tls, https) = (free_port(), free_port());
    let conf = format!(
        r#"net.tls("$D/server.pem", "$D/server.key")
net.listen("127.0.0.1", {tls}, {{ kind = "tls" }})
net.listen("127.0.0.1", {https}, {{ kind = "doh2" }})
trust_anchors.remove(".")
modules.unload("ta_update")
modules.unload("ta_signal_query")
modules.unload("priming")
modules.unload("detect_time_skew")
cache.size = 10 * MB
policy.add(policy.suffix(policy.STUB("127.0.0.1@{}"), {{ todname("portolan.test") }}))
"#,
        bind.addr.port()
    );
    let kresd = Service::new("knot-resolver", "kresd").file("kresd.conf", conf).tls(certs);
    let kresd = kresd.args(["-n", "-q", "-c", "$D/kresd.conf", "$D"]);
    let server = kresd.accepts(([127, 0, 0, 1], tls).into()).accepts(([127, 0, 0, 1], https).into()).start()?;
    Some(Secure { name: "Knot Resolver 5.6", tls, https: Some(https), _server: server })
}

/// A server of DNS over QUIC, on aioquic, in front of `bind`.
pub(crate) fn doq(certs: &Certs, bind: &Peer) -> Option<Peer> {
    let port = free_port();
    let service = Service::new("pip:aioquic", python("aioquic", "aioquic")?).file("doq.py", include_str!("doq.py"));
    let numbers = [port.to_string(), bind.addr.port().to_string()];
    let service = service.tls(certs).args(["$D/doq.py", &numbers[0], "$D/server.pem", "$D/server.key", &numbers[1]]);
    Peer::start(port, Some("ready"), service)
}

/// DNS over HTTPS by Hypercorn, in front of `bind`: by HTTP/3 alone, or by the versions of HTTP in `alpn`.
pub(crate) fn hypercorn(certs: &Certs, bind: &Peer, alpn: &str) -> Option<Peer> {
    let port = free_port();
    let python = python("hypercorn", "hypercorn, aioquic")?;
    let (bound, versions) = match alpn {
        "h3" => (format!("quic_bind = \"127.0.0.1:{port}\"\nbind = \"127.0.0.1:{}\"", free_port()), "h2"),
        other => (format!("bind = \"127.0.0.1:{port}\""), other),
    };
    let conf = format!(
        "{bound}\nalpn_protocols = [\"{versions}\"]\ncertfile = \"$D/server.pem\"\nkeyfile = \"$D/server.key\"\n"
    );
    let service = Service::new("pip:hypercorn aioquic wsproto", python).tls(certs);
    let service = service.file("doh.py", include_str!("doh.py")).file("conf.toml", conf);
    let service = service.env("NAMESERVER_PORT", bind.addr.port().to_string());
    let word = if alpn == "h3" { format!("127.0.0.1:{port} (QUIC") } else { format!("127.0.0.1:{port} (") };
    Peer::start(port, Some(&word), service.args(["-m", "hypercorn", "-c", "$D/conf.toml", "doh:app"]))
}

/// Dante: SOCKS5 with UDP ASSOCIATE.
pub(crate) fn danted() -> Option<Peer> {
    let port = free_port();
    let conf = format!(
        "logoutput: stderr\ninternal: 127.0.0.1 port = {}\nexternal: lo\nclientmethod: none\nsocksmethod: none\n\
         user.privileged: root\nuser.unprivileged: root\n\
         client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}\n\
         socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 command: bind connect udpassociate }}\n\
         socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 command: bindreply udpreply }}\n",
        port
    );
    let danted = Service::new("dante-server", "danted").file("danted.conf", conf);
    Peer::start(port, None, danted.args(["-f", "$D/danted.conf", "-p", "$D/pid"]))
}

/// An HTTP proxy that speaks CONNECT.
pub(crate) fn tinyproxy() -> Option<Peer> {
    let port = free_port();
    let conf = format!("Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 100\n");
    let tinyproxy = Service::new("tinyproxy", "tinyproxy").file("tiny.conf", conf).args(["-d", "-c", "$D/tiny.conf"]);
    Peer::start(port, None, tinyproxy)
}

/// An HTTP/3 proxy on aioquic that speaks CONNECT-UDP.
pub(crate) fn masque(certs: &Certs) -> Option<Peer> {
    let port = free_port();
    let service = Service::new("pip:aioquic", python("aioquic", "aioquic")?).tls(certs);
    let service = service.file("masque.py", include_str!("../hops/masque.py"));
    let number = port.to_string();
    Peer::start(port, Some("ready"), service.args(["$D/masque.py", &number, "$D/server.pem", "$D/server.key"]))
}

/// Microsocks: SOCKS5 without datagrams.
pub(crate) fn microsocks() -> Option<Peer> {
    let port = free_port();
    let microsocks = Service::new("microsocks", "microsocks").args(["-i", "127.0.0.1", "-p", &port.to_string()]);
    Peer::start(port, None, microsocks)
}

const CLOSED: &str = "$TTL 300\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 192.0.2.1\n";

/// One of everything.
fn zone() -> String {
    let mut zone = String::from(
        r#"$TTL 3600
@        SOA   ns hostmaster 2026112001 7200 900 1209600 300
@        NS    ns
@        NS    ns2
@        MX    10 mail
@        MX    20 backup.example.
@        TXT   "v=spf1 -all" "second string"
@        CAA   0 issue "ca.example"
@        CAA   128 iodef "mailto:security@portolan.test"
@        A     192.0.2.10
@        AAAA  2001:db8::10
@        HTTPS 1 . alpn=h3,h2 port=8443 ipv4hint=192.0.2.10,192.0.2.11 ipv6hint=2001:db8::10
ns       A     192.0.2.1
ns2      A     192.0.2.2
mail     A     192.0.2.25
loopback A     127.0.0.1
_grpc_config.loopback TXT "grpc_config=[" "{\"serviceConfig\": {\"methodConfig\": [{\"name\": [{}], \"maxRequestMessageBytes\": 10}]}}]"
www      CNAME @
far      CNAME elsewhere.example.
loop     CNAME pool
pool     CNAME loop
_sip._tcp SRV  10 60 5060 sip
sip      A     192.0.2.50
10       PTR   portolan.test.
_443._tcp TLSA 3 1 1 d2abde240d7cd3ee6b4b28c54df034b97983a1d16e8a410e4561cb106618e971
num      NAPTR 100 50 "u" "E2U+sip" "!^.*$!sip:info@portolan.test!" .
_svc     SVCB  2 mail alpn=imap key65000=hello
child    NS    ns.child
ns.child A     192.0.2.60
child    DS    60485 5 1 2bb183af5f22588179a53b0a98631fad1a292118
keyed    DNSKEY 256 3 5 AQPSKmynfzW4kyBv015MUG2DeIQ3Cbl+BBZH4b/0PY1kxkmvHjcZc8nokfzj31GajIQKY+5CptLr3buXA10hWqTkF7H6RfoRqXQeogmMHfpftf6zMv1LyBUgia7za6ZEzOJBOztyvhjL742iU/TpPSEDhm2SNKLijfUppn1UaNvv4w==
odd      TYPE65280 \# 4 0a000001
sub\.dot A     192.0.2.99
in\ space TXT  "spaced"
"#,
    );
    for n in 0..40 {
        zone.push_str(&format!("big TXT \"{n:03} {}\"\n", "x".repeat(200)));
    }
    for n in 0..300 {
        zone.push_str(&format!("h{n} A 198.51.100.{}\n", n % 250));
    }
    zone
}
