//! HTTPS through the proxies that people run, with HTTP/1.1 and HTTP/2 inside, and plain HTTP forwarded by them.

use http::Version as Spoken;
use portolan_core::{Connector, Hop, Kind, Roots, Tls};
use portolan_http::{Client, Version};
use portolan_testbed::{Certs, Server, Service, free_port, record};

use crate::servers::{Site, nginx};

fn at(port: u16) -> std::net::SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn tinyproxy(auth: bool) -> Option<(Server, u16)> {
    let port = free_port();
    let auth = if auth { "BasicAuth ann sesame\n" } else { "" };
    let conf = format!("Port {port}\nListen 127.0.0.1\nTimeout 60\nAllow 127.0.0.1\n{auth}");
    let service = Service::new("tinyproxy", "tinyproxy").file("tp.conf", conf).args(["-d", "-c", "$D/tp.conf"]);
    Some((service.accepts(at(port)).start()?, port))
}

fn squid() -> Option<(Server, u16)> {
    let port = free_port();
    let conf = format!(
        "http_port 127.0.0.1:{port}\nhttp_access allow all\npid_filename none\ncache deny all\naccess_log none\n\
         cache_log stdio:/dev/stderr\nshutdown_lifetime 0 seconds\nvisible_hostname localhost\nnetdb_filename none\ncoredump_dir $D\n"
    );
    let service = Service::new("squid-openssl", "squid").file("squid.conf", conf).args(["-N", "-f", "$D/squid.conf"]);
    Some((service.accepts(at(port)).start()?, port))
}

fn dante() -> Option<(Server, u16)> {
    let port = free_port();
    let conf = format!(
        "logoutput: stderr\ninternal: 127.0.0.1 port = {port}\nexternal: lo\nclientmethod: none\nsocksmethod: none\n\
         user.privileged: root\nuser.unprivileged: root\nclient pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}\n\
         socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 command: connect }}\n"
    );
    let service = Service::new("dante-server", "danted").file("danted.conf", conf);
    Some((service.args(["-f", "$D/danted.conf", "-p", "$D/pid"]).accepts(at(port)).start()?, port))
}

/// TLS towards us, in front of a proxy.
fn haproxy(certs: &Certs, behind: u16) -> Option<(Server, u16)> {
    let port = free_port();
    let conf = format!(
        "global\n maxconn 100\ndefaults\n mode tcp\n timeout client 30s\n timeout server 30s\n timeout connect 5s\n\
         frontend proxy\n bind 127.0.0.1:{port} ssl crt $D/both.pem\n default_backend tiny\nbackend tiny\n server tiny 127.0.0.1:{behind}\n"
    );
    let service = Service::new("haproxy", "haproxy")
        .file("haproxy.cfg", conf)
        .file("both.pem", format!("{}{}", certs.server, certs.server_key));
    Some((service.args(["-db", "-f", "$D/haproxy.cfg"]).accepts(at(port)).start()?, port))
}

/// A forward proxy in front of another: it takes CONNECT by HTTP/1.1 here.
fn nghttpx(behind: u16) -> Option<(Server, u16)> {
    let port = free_port();
    let front = format!("--frontend=127.0.0.1,{port};no-tls");
    let back = format!("--backend=127.0.0.1,{behind}");
    let service = Service::new("nghttp2-proxy", "nghttpx");
    let args = ["--conf=/dev/null", "--http2-proxy", "--workers=1", &front, &back];
    Some((service.args(args).accepts(at(port)).start()?, port))
}

fn connector(certs: &Certs, hop: Hop) -> Connector {
    let tls = Tls::builder().roots(Roots::Custom).root_pem(certs.ca.as_bytes()).build().unwrap();
    Connector::builder().tls(tls.clone()).hop_tls(tls).via(hop).build().unwrap()
}

/// Fetches by each version through `hop`.
async fn pass(certs: &Certs, site: &Site, hop: &str, protocol: &str, peer: &str) {
    let url = format!("https://localhost:{}/small.txt", site.tls.unwrap());
    for (version, spoken) in [(Version::Http1Only, Spoken::HTTP_11), (Version::Auto, Spoken::HTTP_2)] {
        let net = connector(certs, Hop::parse(hop).unwrap());
        let client = Client::builder().connector(net).version(version).build().unwrap();
        for turn in 0..2 {
            let response = client.get(&url).send().await.unwrap();
            assert_eq!((response.version(), response.is_reused()), (spoken, turn > 0), "{peer}");
            assert_eq!(response.connection_info().hops.len(), 1);
            assert_eq!(response.text().await.unwrap(), "sixteen bytes ok", "{peer}");
        }
    }
    record(protocol, "hop", peer, "HTTPS inside, by HTTP/1.1 and HTTP/2", 4);
}

#[tokio::test]
async fn https_goes_through_the_proxies_that_people_run() {
    let certs = Certs::new();
    let Some(site) = nginx(&certs) else { return };
    let (Some((_t, tiny)), Some((_a, asking)), Some((_s, squid)), Some((_d, dante))) =
        (tinyproxy(false), tinyproxy(true), squid(), dante())
    else {
        return;
    };
    pass(&certs, &site, &format!("http://127.0.0.1:{tiny}"), "http-connect", "tinyproxy").await;
    pass(&certs, &site, &format!("http://ann:sesame@127.0.0.1:{asking}"), "http-connect", "tinyproxy with login").await;
    pass(&certs, &site, &format!("http://127.0.0.1:{squid}"), "http-connect", "squid").await;
    pass(&certs, &site, &format!("socks5://127.0.0.1:{dante}"), "socks5", "dante").await;
    pass(&certs, &site, &format!("socks5h://127.0.0.1:{dante}"), "socks5h", "dante").await;
    let Some((_h, secure)) = haproxy(&certs, asking) else { return };
    pass(&certs, &site, &format!("https://ann:sesame@localhost:{secure}"), "https-proxy", "haproxy before tinyproxy")
        .await;
    let Some((_n, nghttpx)) = nghttpx(tiny) else { return };
    pass(&certs, &site, &format!("http://127.0.0.1:{nghttpx}"), "http-connect", "nghttpx before tinyproxy").await;
    let wrong = Hop::parse(&format!("http://ann:wrong@127.0.0.1:{asking}")).unwrap();
    let client = Client::builder().connector(connector(&certs, wrong)).build().unwrap();
    let error = client.get(format!("https://localhost:{}/", site.tls.unwrap())).send().await.unwrap_err();
    // tinyproxy says 401, not 407, to wrong credentials.
    assert!(matches!(error.kind(), Kind::Auth | Kind::Hop) && error.hop() == Some(0), "{error}");
}

#[tokio::test]
async fn plain_http_is_forwarded_by_the_proxies_that_people_run() {
    let certs = Certs::new();
    let Some(site) = nginx(&certs) else { return };
    let (Some((_t, tiny)), Some((_a, asking)), Some((_s, squid))) = (tinyproxy(false), tinyproxy(true), squid()) else {
        return;
    };
    let (Some((_h, secure)), Some((_n, nghttpx))) = (haproxy(&certs, asking), nghttpx(squid)) else { return };
    let url = format!("http://localhost:{}/small.txt", site.plain.unwrap());
    for (hop, peer) in [
        (format!("http://127.0.0.1:{tiny}"), "tinyproxy"),
        (format!("http://ann:sesame@127.0.0.1:{asking}"), "tinyproxy with login"),
        (format!("http://127.0.0.1:{squid}"), "squid"),
        (format!("https://ann:sesame@localhost:{secure}"), "haproxy before tinyproxy"),
        (format!("http://127.0.0.1:{nghttpx}"), "nghttpx before squid"),
    ] {
        let client = || Client::builder().connector(connector(&certs, Hop::parse(&hop).unwrap())).build().unwrap();
        // By a client of its own: tinyproxy closes after each response without a word, too late for a POST to see.
        // Not by nghttpx, which takes the connection that nginx closed then for the next request.
        if !peer.starts_with("nghttpx") {
            let body = portolan_http::Body::from(vec![b'x'; 100_000]);
            let response = client().post(&url).body(body).send().await.unwrap();
            assert_eq!(response.status(), 405, "{peer}: nginx posts nothing to files");
        }
        let client = client();
        for _ in 0..2 {
            let response = client.get(&url).send().await.unwrap();
            assert_eq!(response.connection_info().hops.len(), 1);
            // Each of them says that it was there (RFC 9110 7.6.3): in a tunnel it could not.
            assert!(response.headers().contains_key("via"), "{peer}: {:?}", response.headers());
            assert_eq!(response.text().await.unwrap(), "sixteen bytes ok", "{peer}");
        }
        // Two origins by one connection, where the proxy keeps it.
        let other = url.replace("localhost", "127.0.0.1");
        assert_eq!(client.get(&other).send().await.unwrap().text().await.unwrap(), "sixteen bytes ok", "{peer}");
        record("http-connect", "hop", peer, "plain HTTP in absolute form", 4);
    }
}
