//! Hops against the proxies that people run: squid, tinyproxy, nghttpx, Envoy, aioquic, dante, microsocks, OpenSSH; what rides through them is Redis.

#![allow(
    clippy::disallowed_methods,
    clippy::large_futures,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "these are tests"
)]

mod auth;
mod config;
mod desktop;
mod envoy;
mod examples;
mod faults;
mod h2;
mod h3;
mod jump;
mod kerberos;
mod matrix;
mod places;
mod policy;
mod proxy_header;
mod ssh;
mod tor;
#[path = "../classic/uwhoisd.rs"]
mod uwhoisd;
#[path = "../classic/xinetd.rs"]
mod xinetd;

use std::net::SocketAddr;
use std::process::Command;

use portolan_core::{Connector, Credentials, Endpoint, Error, Hop, Kind, Phase, Roots, Tls};
use portolan_db::redis::{Client, Options};
use portolan_testbed::{Certs, Server, Service, find, free_port, record};

struct Proxy {
    _server: Server,
    addr: SocketAddr,
    version: String,
}

impl Proxy {
    fn endpoint(&self) -> Endpoint {
        Endpoint::new("localhost", self.addr.port()).unwrap()
    }
}

fn run(
    package: &str,
    binary: &str,
    port: u16,
    change: impl FnOnce(Service) -> Service,
    version: &[&str],
) -> Option<Proxy> {
    let path = find(package, binary)?;
    let said = Command::new(path).args(version).output().unwrap();
    let said = [said.stdout, said.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let number =
        said.split(|c: char| !(c.is_ascii_digit() || c == '.')).find(|word| word.contains('.') && word.len() > 2);
    let version = format!("{binary} {}", number.unwrap_or("(version not told)").trim_matches('.'));
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let server = change(Service::new(package, binary)).accepts(addr).start()?;
    Some(Proxy { _server: server, addr, version })
}

fn redis() -> Option<(Server, Endpoint)> {
    let port = free_port();
    let number = port.to_string();
    let server = Service::new("redis-server", "redis-server")
        .args(["--port", &number, "--bind", "127.0.0.1", "--save", "", "--dir", "$D"])
        .accepts(([127, 0, 0, 1], port).into())
        .start()?;
    Some((server, Endpoint::new("localhost", port).unwrap()))
}

fn squid(certs: &Certs, port: u16, tls_port: u16) -> Option<Proxy> {
    let password =
        Command::new("openssl").args(["passwd", "-apr1", "-salt", "portolan", "sesame"]).output().unwrap().stdout;
    let users = format!("ann:{}\n", String::from_utf8(password).unwrap().trim());
    let conf = format!(
        "http_port 127.0.0.1:{port}\nhttps_port 127.0.0.1:{tls_port} tls-cert=$D/server.pem tls-key=$D/server.key\n\
         auth_param basic program /usr/lib/squid/basic_ncsa_auth $D/users\nauth_param basic children 2 startup=2 idle=1\nacl known proxy_auth REQUIRED\n\
         http_access allow known\nhttp_access deny all\npid_filename none\ncache deny all\naccess_log none\n\
         cache_log stdio:/dev/stderr\nshutdown_lifetime 0 seconds\nvisible_hostname localhost\nnetdb_filename none\n\
         coredump_dir $D\n"
    );
    let files = |squid: Service| squid.file("squid.conf", conf).file("users", users).tls(certs);
    run("squid-openssl", "squid", port, |squid| files(squid).args(["-N", "-f", "$D/squid.conf"]), &["-v"])
}

fn tinyproxy(port: u16, auth: bool) -> Option<Proxy> {
    let auth = if auth { "BasicAuth ann sesame\n" } else { "" };
    let conf = format!("Port {port}\nListen 127.0.0.1\nTimeout 60\nAllow 127.0.0.1\n{auth}");
    run("tinyproxy", "tinyproxy", port, |tiny| tiny.file("tp.conf", conf).args(["-d", "-c", "$D/tp.conf"]), &["-v"])
}

/// Apache's forward proxy, with a login.
fn apache(port: u16) -> Option<Proxy> {
    let modules = "/usr/lib/apache2/modules";
    let load =
        ["mpm_event", "authn_core", "authn_file", "authz_core", "authz_user", "auth_basic", "proxy", "proxy_connect"];
    let load: String = load.iter().map(|name| format!("LoadModule {name}_module {modules}/mod_{name}.so\n")).collect();
    let password = Command::new("openssl").args(["passwd", "-apr1", "-salt", "portolan", "sesame"]).output().unwrap();
    let users = format!("ann:{}\n", String::from_utf8(password.stdout).unwrap().trim());
    let conf = format!(
        "{load}ServerRoot $D\nServerName localhost\nPidFile $D/pid\nErrorLog $D/error.log\nDefaultRuntimeDir $D\n\
         User www-data\nGroup www-data\nMutex file:$D default\nListen 127.0.0.1:{port}\nProxyRequests On\n\
         AllowCONNECT 1-65535\n<Proxy *>\nAuthType Basic\nAuthName x\nAuthUserFile $D/users\nRequire valid-user\n</Proxy>\n"
    );
    let files = |apache: Service| apache.file("apache.conf", conf).file("users", users);
    let args = ["-f", "$D/apache.conf", "-D", "FOREGROUND"];
    run("apache2", "apache2", port, |apache| files(apache).args(args), &["-v"])
}

fn danted(port: u16) -> Option<Proxy> {
    let conf = format!(
        "logoutput: stderr\ninternal: 127.0.0.1 port = {port}\nexternal: lo\nclientmethod: none\nsocksmethod: none\n\
         user.privileged: root\nuser.unprivileged: root\n\
         client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}\n\
         socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 command: bind connect udpassociate }}\n\
         socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 command: bindreply udpreply }}\n"
    );
    let args = ["-f", "$D/danted.conf", "-p", "$D/pid"];
    run("dante-server", "danted", port, |dante| dante.file("danted.conf", conf).args(args), &["-v"])
}

fn microsocks(port: u16, auth: bool) -> Option<Proxy> {
    let number = port.to_string();
    let mut args = vec!["-i", "127.0.0.1", "-p", &number];
    if auth {
        args.extend(["-u", "ann", "-P", "sesame"]);
    }
    let mut proxy = run("microsocks", "microsocks", port, |micro| micro.args(args), &["-h"])?;
    let package = Command::new("dpkg-query").args(["-W", "-f", "${Version}", "microsocks"]).output().unwrap();
    proxy.version = format!("microsocks {}", String::from_utf8_lossy(&package.stdout));
    Some(proxy)
}

fn ann() -> Credentials {
    Credentials::new("ann", "sesame")
}

/// Redis through the hops; what was passed is what was asked for.
async fn pass(to: &Endpoint, hops: &[Hop], tls: Option<&Tls>) -> Result<(), Error> {
    let mut net = Connector::builder();
    for hop in hops {
        net = net.via(hop.clone());
    }
    if let Some(tls) = tls {
        net = net.hop_tls(tls.clone());
    }
    let client = Client::connect(&net.build()?, Options::new(to.clone())).await?;
    client.set("k", "through").await?;
    assert_eq!(client.get::<String>("k").await?, "through");
    let info = client.info().unwrap();
    let kinds: Vec<_> = info.hops.iter().map(|hop| hop.kind).collect();
    assert_eq!(kinds, hops.iter().map(Hop::kind).collect::<Vec<_>>());
    assert!(info.timings.hops.is_some() && info.tls.is_none());
    client.close().await
}

fn refused_login(error: &Error, code: Option<i64>) {
    assert_eq!((error.kind(), error.phase(), error.hop()), (Kind::Auth, Some(Phase::Hop), Some(0)), "{error:?}");
    assert!(code.is_none() || error.code() == code, "{error:?}");
    assert!(!format!("{error:?}").contains("sesame"));
}

#[tokio::test]
async fn http_proxies_with_and_without_login_and_inside_tls() {
    let Some((_redis, to)) = redis() else { return };
    let (certs, port, tls_port) = (Certs::new(), free_port(), free_port());
    let Some(squid) = squid(&certs, port, tls_port) else { return };
    let tls = Tls::builder().roots(Roots::Custom).root_pem(certs.ca.as_bytes()).build().unwrap();
    pass(&to, &[Hop::http(squid.endpoint()).credentials(ann())], None).await.unwrap();
    record("http-connect", "peer", &squid.version, "basic login, redis inside", 4);
    let secure = Hop::https(Endpoint::new("localhost", tls_port).unwrap()).credentials(ann());
    pass(&to, std::slice::from_ref(&secure), Some(&tls)).await.unwrap();
    record("https-proxy", "peer", &squid.version, "TLS, basic login, redis inside", 4);
    // The proxy's certificate is checked by the proxy's name and roots.
    let error = pass(&to, &[secure], None).await.unwrap_err();
    assert_eq!((error.kind(), error.hop()), (Kind::Tls, Some(0)), "{error:?}");
    for hop in [Hop::http(squid.endpoint()), Hop::http(squid.endpoint()).credentials(Credentials::new("ann", "wrong"))]
    {
        refused_login(&pass(&to, &[hop], None).await.unwrap_err(), Some(407));
    }
    let nobody = Endpoint::new("localhost", free_port()).unwrap();
    let error = pass(&nobody, &[Hop::http(squid.endpoint()).credentials(ann())], None).await.unwrap_err();
    assert_eq!((error.kind(), error.code(), error.hop()), (Kind::Hop, Some(503), Some(0)), "{error:?}");
    for auth in [false, true] {
        let Some(tiny) = tinyproxy(free_port(), auth) else { return };
        let hop = Hop::http(tiny.endpoint());
        let hop = if auth { hop.credentials(ann()) } else { hop };
        pass(&to, &[hop], None).await.unwrap();
        record(
            "http-connect",
            "peer",
            &tiny.version,
            if auth { "basic login, redis inside" } else { "no login, redis inside" },
            4,
        );
        if auth {
            refused_login(&pass(&to, &[Hop::http(tiny.endpoint())], None).await.unwrap_err(), None);
        }
    }
}

#[tokio::test]
async fn socks_proxies_of_each_version() {
    let Some((_redis, to)) = redis() else { return };
    let Some(dante) = danted(free_port()) else { return };
    for (name, hop) in [
        ("socks4", Hop::socks4(dante.endpoint())),
        ("socks5", Hop::socks5(dante.endpoint())),
        ("socks5h", Hop::socks5h(dante.endpoint())),
    ] {
        pass(&to, &[hop], None).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        record(name, "peer", &dante.version, "no login, redis inside", 4);
    }
    let nobody = Endpoint::new("127.0.0.1", free_port()).unwrap();
    let error = pass(&nobody, &[Hop::socks5(dante.endpoint())], None).await.unwrap_err();
    assert_eq!((error.kind(), error.code(), error.hop()), (Kind::Hop, Some(5), Some(0)), "{error:?}");
    let Some(micro) = microsocks(free_port(), true) else { return };
    pass(&to, &[Hop::socks5h(micro.endpoint()).credentials(ann())], None).await.unwrap();
    record("socks5h", "peer", &micro.version, "user and password, redis inside", 4);
    for hop in
        [Hop::socks5(micro.endpoint()), Hop::socks5(micro.endpoint()).credentials(Credentials::new("ann", "wrong"))]
    {
        refused_login(&pass(&to, &[hop], None).await.unwrap_err(), None);
    }
}

#[tokio::test]
async fn chains_of_unlike_hops() {
    let Some((_redis, to)) = redis() else { return };
    let (Some(tiny), Some(micro), Some(dante)) =
        (tinyproxy(free_port(), true), microsocks(free_port(), true), danted(free_port()))
    else {
        return;
    };
    let http = Hop::http(tiny.endpoint()).credentials(ann());
    let socks = Hop::socks5h(micro.endpoint()).credentials(ann());
    let old = Hop::socks4(dante.endpoint());
    pass(&to, &[http.clone(), socks.clone()], None).await.unwrap();
    pass(&to, &[socks.clone(), http.clone(), old.clone()], None).await.unwrap();
    record("http-connect", "peer", &tiny.version, "in a chain of three", 4);
    // The hop that fails is named by its place.
    let wrong = Hop::socks5h(micro.endpoint()).credentials(Credentials::new("ann", "wrong"));
    let error = pass(&to, &[http, wrong, old], None).await.unwrap_err();
    assert_eq!((error.kind(), error.hop()), (Kind::Auth, Some(1)), "{error:?}");
}
