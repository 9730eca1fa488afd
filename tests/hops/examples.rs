//! The examples that go through hops, run as a user runs them.

#[path = "../../examples/ssh_jump.rs"]
#[allow(dead_code, reason = "its main is for its user")]
mod ssh_jump;
#[path = "../../examples/waterfall.rs"]
#[allow(dead_code, reason = "its main is for its user")]
mod waterfall;

use portolan_testbed::{Certs, Server, Service, free_port};

use super::jump::peers::{Sshd, openssh};
use super::{Proxy, microsocks, redis};

/// The jump host as a URL says it.
fn url(sshd: &Sshd) -> String {
    std::fs::write(sshd.path("known"), sshd.known()).unwrap();
    let (id, known) = (sshd.path("id"), sshd.path("known"));
    format!("ssh://{}@localhost:{}?identity={}&known_hosts={}", sshd.user, sshd.port, id.display(), known.display())
}

fn web(certs: &Certs) -> Option<(Server, u16)> {
    let port = free_port();
    let conf = format!(
        "{{\n admin off\n auto_https off\n storage file_system $D/data\n}}\n\
         https://localhost:{port} {{\n bind 127.0.0.1\n tls $D/server.pem $D/server.key\n respond /hello \"hello\"\n}}\n"
    );
    let caddy = Service::new("caddy", "caddy").file("Caddyfile", conf).tls(certs).env("HOME", "$D");
    let caddy = caddy.args(["run", "--config", "$D/Caddyfile", "--adapter", "caddyfile"]);
    Some((caddy.accepts(([127, 0, 0, 1], port).into()).start()?, port))
}

#[tokio::test]
async fn ssh_jump_reaches_redis() {
    let (Some((_redis, to)), Some(sshd)) = (redis(), openssh("")) else { return };
    let args = [url(&sshd), format!("redis://localhost:{}", to.port())];
    let said = ssh_jump::run(args.into_iter()).await.unwrap();
    assert!(said.starts_with("hello through SSH\npassed ssh at localhost:"), "{said}");
}

/// The waterfall of one HTTPS request through SSH and SOCKS5.
pub(super) async fn waterfall_through(sshd: &Sshd, micro: &Proxy, certs: &Certs, page: &str) -> String {
    let ca = sshd.path("ca.pem");
    std::fs::write(&ca, certs.ca.as_bytes()).unwrap();
    let socks = format!("socks5h://ann:sesame@localhost:{}", micro.addr.port());
    let args = ["--hop", &url(sshd), "--hop", &socks, "--ca", &ca.display().to_string(), page].map(str::to_owned);
    waterfall::run(args.into_iter()).await.unwrap()
}

#[tokio::test]
async fn the_waterfall_of_a_request_through_ssh_and_socks5() {
    let certs = Certs::new();
    let (Some(sshd), Some(micro), Some((_caddy, port))) = (openssh(""), microsocks(free_port(), true), web(&certs))
    else {
        return;
    };
    let drawn = waterfall_through(&sshd, &micro, &certs, &format!("https://localhost:{port}/hello")).await;
    println!("{drawn}");
    let said: Vec<_> = drawn.lines().collect();
    assert!(said[0].ends_with("200 OK") && !drawn.contains("sesame"), "{drawn}");
    for row in [
        "http GET https://localhost:",
        "to localhost:",
        "connect 127.0.0.1:",
        "hop ssh",
        "hop socks5h",
        "tls ",
        "body ",
    ] {
        assert!(said.iter().any(|line| line.starts_with(row) && line.contains(" ms")), "no {row:?} in\n{drawn}");
    }
    assert!(said.last().unwrap().contains("opened: 1"), "{drawn}");
}
