//! The PROXY protocol, told to those who ask for it: nginx and haproxy say back whom they were told of.

use portolan_core::{Connector, Endpoint, Hop, Kind, ProxyHeader, Stream, Tls};
use portolan_testbed::{Certs, free_port, record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::h2::trusting;
use super::{Proxy, pass, redis, run, tinyproxy};

fn nginx(certs: &Certs, port: u16, tls: u16) -> Option<Proxy> {
    let say = "return 200 \"$proxy_protocol_addr:$proxy_protocol_port $proxy_protocol_server_addr:$proxy_protocol_server_port\";";
    let conf = format!(
        "daemon off;\nmaster_process off;\npid $D/pid;\nerror_log stderr notice;\nevents {{}}\nhttp {{\naccess_log off;\n\
         client_body_temp_path $D/a;\nproxy_temp_path $D/b;\nfastcgi_temp_path $D/c;\nuwsgi_temp_path $D/d;\nscgi_temp_path $D/e;\n\
         server {{ listen 127.0.0.1:{port} proxy_protocol; listen [::1]:{port} proxy_protocol; location / {{ {say} }} }}\n\
         server {{ listen 127.0.0.1:{tls} ssl proxy_protocol; ssl_certificate $D/server.pem; ssl_certificate_key $D/server.key; \
         location / {{ {say} }} }}\n}}\n"
    );
    run(
        "nginx",
        "nginx",
        port,
        |nginx| nginx.file("nginx.conf", conf).tls(certs).args(["-c", "$D/nginx.conf"]),
        &["-v"],
    )
}

/// Says whom it was told of; `front` passes on to a proxy at `behind`.
fn haproxy(certs: &Certs, port: u16, tls: u16, front: u16, behind: u16) -> Option<Proxy> {
    let say = "http-request return status 200 content-type text/plain lf-string \
               \"%[src]:%[src_port] %[dst]:%[dst_port] %[fc_pp_authority] %[fc_pp_unique_id]\"";
    let conf = format!(
        "defaults\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n\
         frontend plain\n mode http\n bind 127.0.0.1:{port} accept-proxy\n {say}\n\
         frontend secure\n mode http\n bind 127.0.0.1:{tls} accept-proxy ssl crt $D/both.pem\n {say}\n\
         listen front\n mode tcp\n bind 127.0.0.1:{front} accept-proxy\n server behind 127.0.0.1:{behind}\n"
    );
    let both = format!("{}{}", certs.server, certs.server_key);
    let files = |haproxy: portolan_testbed::Service| haproxy.file("haproxy.cfg", conf).file("both.pem", both);
    run("haproxy", "haproxy", port, |haproxy| files(haproxy).args(["-db", "-f", "$D/haproxy.cfg"]), &["-v"])
}

/// TLS before a proxy at `behind`.
pub(super) fn in_tls(certs: &Certs, behind: u16) -> Option<Proxy> {
    let port = free_port();
    let conf = format!(
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n\
         listen front\n bind 127.0.0.1:{port} ssl crt $D/both.pem\n server behind 127.0.0.1:{behind}\n"
    );
    let both = format!("{}{}", certs.server, certs.server_key);
    let files = |haproxy: portolan_testbed::Service| haproxy.file("haproxy.cfg", conf).file("both.pem", both);
    run("haproxy", "haproxy", port, |haproxy| files(haproxy).args(["-db", "-f", "$D/haproxy.cfg"]), &["-v"])
}

async fn said(mut stream: Stream) -> Option<String> {
    stream.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n").await.ok()?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.ok()?;
    let text = String::from_utf8_lossy(&text).into_owned();
    text.split_once("\r\n\r\n").map(|(_, body)| body.trim_end().to_owned())
}

async fn told(header: Option<ProxyHeader>, to: &Endpoint, tls: Option<&Tls>) -> Option<String> {
    let mut net = Connector::builder();
    if let Some(header) = header {
        net = net.proxy_header(header);
    }
    let stream = match tls {
        Some(tls) => net.tls(tls.clone()).build().unwrap().connect_tls(to, &[b"http/1.1"]).await,
        None => net.build().unwrap().connect(to).await,
    };
    said(stream.ok()?).await
}

fn as_far(header: ProxyHeader) -> ProxyHeader {
    header.source("192.0.2.7:4007".parse().unwrap()).destination("198.51.100.9:443".parse().unwrap())
}

#[tokio::test]
async fn nginx_and_haproxy_hear_whom_a_connection_is_for() {
    let certs = Certs::new();
    let tls = trusting(&certs);
    let (nginx_tls, haproxy_tls, front) = (free_port(), free_port(), free_port());
    let Some(nginx) = nginx(&certs, free_port(), nginx_tls) else { return };
    let Some(haproxy) = haproxy(&certs, free_port(), haproxy_tls, front, 9) else { return };
    let six = |header: ProxyHeader| {
        header.source("[2001:db8::7]:4007".parse().unwrap()).destination("[2001:db8::9]:443".parse().unwrap())
    };
    for (name, server, secure) in [("nginx", &nginx, nginx_tls), ("haproxy", &haproxy, haproxy_tls)] {
        let (plain, secure) = (server.endpoint(), Endpoint::new("localhost", secure).unwrap());
        for (version, header) in [("v1", ProxyHeader::v1()), ("v2", ProxyHeader::v2())] {
            for (to, tls) in [(&plain, None), (&secure, Some(&tls))] {
                let seen = told(Some(as_far(header.clone())), to, tls).await.unwrap_or_default();
                assert!(seen.starts_with("192.0.2.7:4007 198.51.100.9:443"), "{name} {version}: {seen:?}");
            }
            let seen = told(Some(six(header.clone())), &plain, None).await.unwrap_or_default();
            assert!(seen.starts_with("2001:db8::7:4007 2001:db8::9:443"), "{name} {version}: {seen:?}");
            // Said of nothing, it is the truth.
            let seen = told(Some(header), &plain, None).await.unwrap_or_default();
            assert!(seen.starts_with("127.0.0.1:") && seen.contains(&format!(" 127.0.0.1:{}", plain.port())), "{seen}");
            record("proxy-protocol", "peer", &server.version, version, 4);
        }
        let local = told(Some(ProxyHeader::v2().local()), &plain, None).await.unwrap_or_default();
        assert!(if name == "nginx" { local == ": :" } else { local.starts_with("127.0.0.1:") }, "{name}: {local:?}");
        // Without a header it answers nothing, which proves that it waits for one.
        let nothing = told(None, &plain, None).await.unwrap_or_default();
        assert!(!nothing.contains("127.0.0.1"), "{name}: {nothing:?}");
    }
}

#[tokio::test]
async fn haproxy_reads_names_and_checks_the_sum() {
    let certs = Certs::new();
    let Some(haproxy) = haproxy(&certs, free_port(), free_port(), free_port(), 9) else { return };
    let header = as_far(ProxyHeader::v2()).alpn(b"h2").unwrap().authority("a.example").unwrap();
    let header = header.unique_id(b"id-7").unwrap().tlv(0xe0, b"ours").unwrap().crc32c();
    let seen = told(Some(header), &haproxy.endpoint(), None).await.unwrap_or_default();
    assert_eq!(seen, "192.0.2.7:4007 198.51.100.9:443 a.example id-7");
    record("proxy-protocol", "peer", &haproxy.version, "v2 with ALPN, authority, unique id and CRC32c", 1);
}

#[tokio::test]
async fn a_proxy_behind_haproxy_is_told_before_anything_else() {
    let Some((_redis, to)) = redis() else { return };
    let certs = Certs::new();
    let Some(tiny) = tinyproxy(free_port(), false) else { return };
    let front = free_port();
    let Some(_haproxy) = haproxy(&certs, free_port(), free_port(), front, tiny.addr.port()) else { return };
    let hop = Hop::http(Endpoint::new("localhost", front).unwrap());
    for header in [ProxyHeader::v1(), ProxyHeader::v2().crc32c()] {
        pass(&to, &[hop.clone().proxy_header(header)], None).await.unwrap();
    }
    let error = pass(&to, &[hop], None).await.unwrap_err();
    assert_eq!((error.kind(), error.hop()), (Kind::Hop, Some(0)), "{error:?}");
}
