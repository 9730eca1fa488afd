//! HTTPS records of a real name server (BIND), and HTTP/3 of a real web server (caddy) that they lead to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::Version as Spoken;
use portolan_core::resolve::Hickory;
use portolan_core::{Connector, Endpoint, Kind, Policy, ResolveFailure, Resolver, Roots, Tls};
use portolan_dns::dns;
use portolan_http::Client;
use portolan_testbed::{Certs, Leaf, Server, Service, free_port};

/// Where some records lead, and a policy may forbid to go.
const FAR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);

fn at(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// BIND, with a zone that leads to `port`.
fn bind(port: u16) -> Option<(Server, u16)> {
    let own = free_port();
    let conf = format!(
        "options {{ directory \"$D\"; pid-file \"$D/pid\"; session-keyfile \"$D/sk\"; managed-keys-directory \"$D\";\n\
         listen-on port {own} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; recursion no; dnssec-validation no; }};\n\
         controls {{}};\nzone \"web.test\" {{ type master; file \"zone\"; }};\n"
    );
    let zone = format!(
        "$TTL 300\n@ SOA ns h 1 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\n\
         @ HTTPS 1 www alpn=h3,h2 port={port}\nwww A 127.0.0.1\n\
         _{port}._https.www HTTPS 1 www alpn=h3,h2\n\
         alias HTTPS 0 @\n\
         cname CNAME @\n\
         hint HTTPS 1 nowhere alpn=h2 port={port} ipv4hint=127.0.0.1\n\
         strange HTTPS 1 www mandatory=key65001 port=9 key65001=x\nstrange HTTPS 2 www alpn=h2 port={port}\n\
         far A {FAR}\nled HTTPS 1 far alpn=h2 port={port}\nled A 127.0.0.1\n\
         _site._tcp SRV 3 0 {port} far\n_site._tcp SRV 2 0 {port} www\n_site._tcp SRV 1 0 1 www\n\
         _far._tcp SRV 1 0 {port} far\n_none._tcp SRV 0 0 0 .\n"
    );
    let named = Service::new("bind9", "named").args(["-g", "-n", "1", "-c", "$D/named.conf"]);
    let server = named.file("named.conf", conf).file("zone", zone).says(" running\n").start()?;
    Some((server, own))
}

fn caddy(certs: &Certs) -> Option<(Server, u16)> {
    let port = free_port();
    let names = ["web.test", "www.web.test", "alias.web.test", "cname.web.test", "hint.web.test", "strange.web.test"];
    let pem = certs.sign(&Leaf::server(names));
    let conf = format!(
        "{{\n admin off\n auto_https off\n storage file_system $D/data\n}}\n\
         https://:{port} {{\n bind 127.0.0.1\n tls $D/site.pem $D/site.key\n respond \"hello {{host}}\"\n}}\n"
    );
    let service =
        Service::new("caddy", "caddy").file("Caddyfile", conf).file("site.pem", pem.cert).file("site.key", pem.key);
    let service = service.env("HOME", "$D").args(["run", "--config", "$D/Caddyfile", "--adapter", "caddyfile"]);
    Some((service.accepts(at(port)).start()?, port))
}

/// What asks that name server: our own client, and hickory's.
async fn resolvers(port: u16) -> [(&'static str, Resolver); 2] {
    use hickory_resolver::TokioResolver;
    use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
    let options = dns::Options::new(Endpoint::from(at(port)));
    let own = dns::Client::connect(&Connector::default(), options).await.unwrap();
    let mut by_udp = ConnectionConfig::udp();
    by_udp.port = port;
    let server = NameServerConfig::new(IpAddr::V4(Ipv4Addr::LOCALHOST), true, vec![by_udp]);
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    let hickory = TokioResolver::builder_with_config(config, Default::default()).build().unwrap();
    [("portolan-dns", Resolver::new(own)), ("hickory", Resolver::new(Hickory::new(hickory)))]
}

#[tokio::test]
async fn records_of_a_real_name_server_lead_to_http3_at_once() {
    let certs = Certs::new();
    let Some((_web, port)) = caddy(&certs) else { return };
    let Some((_names, names)) = bind(port) else { return };
    let tls = Tls::builder().roots(Roots::Custom).root_pem(certs.ca.as_bytes()).build().unwrap();
    for (by, resolver) in resolvers(names).await {
        let net = Connector::builder().tls(tls.clone()).resolver(resolver).build().unwrap();
        // A request waits for records for a moment only: on a busy machine that may be too short.
        for name in ["web.test", "alias.web.test", "cname.web.test", "hint.web.test", "strange.web.test"] {
            assert!(!net.resolver().services(name).await.is_empty(), "{name} by {by}");
        }
        assert!(!net.resolver().services(&format!("_{port}._https.www.web.test")).await.is_empty());
        let client = || {
            let builder = Client::builder().connector(net.clone());
            builder.http3_head_start(std::time::Duration::from_secs(5)).build().unwrap()
        };
        for (url, host, spoken) in [
            ("https://web.test/", "web.test", Spoken::HTTP_3),
            ("http://web.test/", "web.test", Spoken::HTTP_3),
            (&format!("https://www.web.test:{port}/"), "www.web.test", Spoken::HTTP_3),
            ("https://alias.web.test/", "alias.web.test", Spoken::HTTP_3),
            ("https://cname.web.test/", "cname.web.test", Spoken::HTTP_3),
            ("https://hint.web.test/", "hint.web.test", Spoken::HTTP_2),
            ("https://strange.web.test/", "strange.web.test", Spoken::HTTP_2),
        ] {
            let client = client();
            let response = client.get(url).send().await.unwrap_or_else(|error| panic!("{url} by {by}: {error}"));
            assert_eq!(response.version(), spoken, "{url} by {by}");
            assert_eq!(response.text().await.unwrap(), format!("hello {host}"), "{by}");
        }
    }
}

#[tokio::test]
async fn what_records_lead_to_is_judged_like_any_target() {
    let near = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = near.local_addr().unwrap().port();
    let far = tokio::net::TcpListener::bind((FAR, port)).await.unwrap();
    let Some((_names, names)) = bind(port) else { return };
    for (by, resolver) in resolvers(names).await {
        let net = |policy| Connector::builder().resolver(resolver.clone()).policy(policy).build().unwrap();
        let (open, fenced) = (net(Policy::any()), net(Policy::any().deny(&FAR.to_string()).unwrap()));
        // Nobody is at the first server of the service; the second is there, and the third is not needed.
        for net in [&open, &fenced] {
            let stream = net.connect_service("_site._tcp.web.test").await.unwrap();
            assert_eq!(stream.info().peer, Some(at(port)), "{by}");
        }
        let stream = open.connect_service("_far._tcp.Web.Test.").await.unwrap();
        assert_eq!(stream.info().peer, Some((FAR, port).into()), "{by}");
        far.accept().await.unwrap();
        let error = fenced.connect_service("_far._tcp.web.test").await.unwrap_err();
        assert_eq!(error.kind(), Kind::Blocked, "{by}: {error:?}");
        for none in ["_none._tcp.web.test", "_other._tcp.web.test"] {
            let error = open.connect_service(none).await.unwrap_err();
            assert_eq!(error.server(), Some(&ResolveFailure::NoSuchName), "{by}: {error:?}");
        }
        // An HTTPS record leads there too.
        assert!(!fenced.resolver().services("led.web.test").await.is_empty());
        for (net, reached) in [(fenced, false), (open, true)] {
            let client = Client::builder().connector(net).timeout(std::time::Duration::from_secs(5)).build().unwrap();
            let asked = client.get("https://led.web.test/").send();
            tokio::select! {
                result = asked => assert!(!reached && result.is_err(), "{by}"),
                came = far.accept() => assert!(reached && came.is_ok(), "{by}"),
            }
        }
    }
}
