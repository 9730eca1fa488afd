//! Several origins on one connection of the servers that people run, with one certificate for all of them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::Version as Spoken;
use portolan_core::{Connector, Roots, Tls};
use portolan_http::{Client, Version};
use portolan_testbed::{Certs, Leaf, Server, Service, free_port};

const NAMES: [&str; 3] = ["a.test", "b.test", "guarded.test"];

fn at(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn service(certs: &Certs, package: &str, binary: &str) -> Service {
    let pem = certs.sign(&Leaf::server(NAMES));
    Service::new(package, binary).file("site.pem", pem.cert).file("site.key", pem.key).file("ca.pem", certs.ca.clone())
}

/// It says the number of the connection. `guarded.test` asks for client certificates, and so refuses to be asked by those who
/// came for another name.
fn nginx(certs: &Certs) -> Option<(Server, u16)> {
    let port = free_port();
    let conf = format!(
        "daemon off; user root; worker_processes 1; pid $D/pid; error_log $D/error.log; events {{ worker_connections 64; }}\n\
         http {{ access_log off; client_body_temp_path $D/b; proxy_temp_path $D/p; fastcgi_temp_path $D/f;\n\
         uwsgi_temp_path $D/u; scgi_temp_path $D/s; ssl_certificate $D/site.pem; ssl_certificate_key $D/site.key;\n\
         server {{ listen 127.0.0.1:{port} ssl http2; server_name a.test b.test; location / {{ return 200 $connection; }} }}\n\
         server {{ listen 127.0.0.1:{port} ssl http2; server_name guarded.test; ssl_verify_client optional;\n\
         ssl_client_certificate $D/ca.pem; location / {{ return 200 $connection; }} }} }}\n"
    );
    let service = service(certs, "nginx", "nginx").file("nginx.conf", conf);
    Some((service.args(["-c", "$D/nginx.conf", "-e", "$D/error.log"]).accepts(at(port)).start()?, port))
}

/// It says the port that it was asked from.
fn caddy(certs: &Certs) -> Option<(Server, u16)> {
    let port = free_port();
    let conf = format!(
        "{{\n admin off\n auto_https off\n storage file_system $D/data\n}}\n\
         https://a.test:{port}, https://b.test:{port} {{\n bind 127.0.0.1\n tls $D/site.pem $D/site.key\n respond \"{{remote_port}}\"\n}}\n"
    );
    let service = service(certs, "caddy", "caddy").file("Caddyfile", conf).env("HOME", "$D");
    let args = ["run", "--config", "$D/Caddyfile", "--adapter", "caddyfile"];
    Some((service.args(args).accepts(at(port)).start()?, port))
}

fn h2o(certs: &Certs) -> Option<(Server, u16)> {
    let port = free_port();
    let host = |name: &str| {
        format!(
            "  \"{name}:{port}\":\n    listen:\n      host: 127.0.0.1\n      port: {port}\n      ssl:\n        certificate-file: $D/site.pem\n\
             \x20       key-file: $D/site.key\n    paths:\n      \"/\":\n        file.dir: $D\n"
        )
    };
    let conf = format!(
        "pid-file: $D/pid\nerror-log: $D/error.log\nnum-threads: 1\nuser: root\nhosts:\n{}{}",
        host(NAMES[0]),
        host(NAMES[1])
    );
    let service = service(certs, "h2o", "h2o").file("h2o.conf", conf).file("index.html", "the same");
    Some((service.args(["-c", "$D/h2o.conf"]).accepts(at(port)).start()?, port))
}

fn client(certs: &Certs, version: Version) -> Client {
    let tls = Tls::builder().roots(Roots::Custom).root_pem(certs.ca.as_bytes()).build().unwrap();
    let mut net = Connector::builder().tls(tls);
    for name in NAMES {
        net = net.resolve(name, [IpAddr::from([127, 0, 0, 1])]);
    }
    Client::builder().connector(net.build().unwrap()).version(version).build().unwrap()
}

/// What the server says of its connection, and whether ours was there.
async fn get(client: &Client, host: &str, port: u16, spoken: Spoken) -> (String, bool) {
    let response = client.get(format!("https://{host}:{port}/")).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, spoken));
    let reused = response.is_reused();
    (response.text().await.unwrap(), reused)
}

#[tokio::test]
async fn origins_share_the_connections_of_servers_that_people_run() {
    let certs = Certs::new();
    let (Some((_n, nginx)), Some((_c, caddy)), Some((_h, h2o))) = (nginx(&certs), caddy(&certs), h2o(&certs)) else {
        return;
    };
    for (name, port, version, spoken) in [
        ("nginx", nginx, Version::Auto, Spoken::HTTP_2),
        ("h2o", h2o, Version::Auto, Spoken::HTTP_2),
        ("caddy", caddy, Version::Http2Only, Spoken::HTTP_2),
        ("caddy", caddy, Version::Http3Only, Spoken::HTTP_3),
    ] {
        let client = client(&certs, version);
        let (first, _) = get(&client, "a.test", port, spoken).await;
        assert_eq!(get(&client, "b.test", port, spoken).await, (first.clone(), true), "{name}");
        assert_eq!(get(&client, "a.test", port, spoken).await, (first, true), "{name}");
        assert_eq!(client.metrics().failed, 0);
    }
    // nginx says 421 to who came for another name: the client comes again, for this one.
    let client = client(&certs, Version::Auto);
    let (first, _) = get(&client, "a.test", nginx, Spoken::HTTP_2).await;
    let (own, reused) = get(&client, "guarded.test", nginx, Spoken::HTTP_2).await;
    assert!(own != first && !reused);
    assert_eq!(get(&client, "guarded.test", nginx, Spoken::HTTP_2).await, (own, true));
}
