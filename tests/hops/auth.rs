//! Every way to prove oneself to squid: Basic, Digest, NTLM by its own helpers, Negotiate by a helper that knows one ticket.
//! Squid's log tells which proof it was shown.

use std::net::UdpSocket;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use portolan_core::{Connector, Credentials, Endpoint, Error, Hop, Kind, ProxyAuth};
use portolan_testbed::{Service, free_port, record};

use super::{Proxy, ann, pass, redis, refused_login, run};

/// A token that the helper below takes.
const TICKET: &str = "ticket for HTTP@localhost";

/// One of squid's helpers for Negotiate, in its protocol: YR and a token in base64, AF and a user.
const NEGOTIATE: &str = "#!/bin/sh\nwhile read word token rest; do\n\
    if [ \"$token\" = \"$1\" ]; then echo \"AF = ann\"; else echo \"NA = no such ticket\"; fi\ndone\n";

pub(super) fn digest(more: &str) -> String {
    format!(
        "auth_param digest program /usr/lib/squid/digest_file_auth -c $D/digest\nauth_param digest realm portolan\n\
         auth_param digest children 2 startup=2 idle=1\n{more}"
    )
}

const BASIC: &str = "auth_param basic program /usr/lib/squid/basic_ncsa_auth $D/users\nauth_param basic children 2 startup=2 idle=1\n\
    auth_param basic realm portolan\n";
pub(super) const NTLM: &str =
    "auth_param ntlm program /usr/lib/squid/ntlm_fake_auth\nauth_param ntlm children 2 startup=2 idle=1\n";

/// A squid that tells us by UDP what it logs: `STATUS PROOF` for each request. (It writes no file of ours: it gives up being root.)
pub(super) struct Squid {
    proxy: Proxy,
    socket: UdpSocket,
    told: Mutex<Vec<String>>,
}

impl std::ops::Deref for Squid {
    type Target = Proxy;
    fn deref(&self) -> &Proxy {
        &self.proxy
    }
}

/// Squid with these ways in.
pub(super) fn squid(auth: &str) -> Option<Squid> {
    squid_with(auth, &[])
}

/// The same with variables for it and its helpers.
pub(super) fn squid_with(auth: &str, variables: &[(&str, String)]) -> Option<Squid> {
    let port = free_port();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let told = socket.local_addr().unwrap().port();
    let apr1 = Command::new("openssl").args(["passwd", "-apr1", "-salt", "portolan", "sesame"]).output().unwrap();
    let md5 = Command::new("sh").args(["-c", "printf ann:portolan:sesame | md5sum"]).output().unwrap();
    let md5 = String::from_utf8(md5.stdout).unwrap();
    let conf = format!(
        "http_port 127.0.0.1:{port}\n{auth}acl known proxy_auth REQUIRED\nhttp_access allow known\nhttp_access deny all\n\
         pid_filename none\ncache deny all\nlogformat proof proof: %>Hs %{{Proxy-Authorization}}>h\n\
         access_log udp://127.0.0.1:{told} logformat=proof buffer-size=0KB\ncache_log stdio:/dev/stderr\n\
         shutdown_lifetime 0 seconds\nvisible_hostname localhost\nnetdb_filename none\ncoredump_dir $D\n"
    );
    use base64::Engine;
    let ticket = base64::engine::general_purpose::STANDARD.encode(TICKET);
    let change = |squid: Service| {
        variables
            .iter()
            .fold(squid, |squid, (name, value)| squid.env(*name, value))
            .file("squid.conf", conf.replace("$TICKET", &ticket))
            .file("users", format!("ann:{}\n", String::from_utf8(apr1.stdout).unwrap().trim()))
            .file("digest", format!("ann:portolan:{}\n", md5.split(' ').next().unwrap()))
            .file("negotiate.sh", NEGOTIATE)
            .args(["-N", "-n", &format!("portolan{port}"), "-f", "$D/squid.conf"])
    };
    let proxy = run("squid-openssl", "squid", port, change, &["-v"])?;
    Some(Squid { proxy, socket, told: Mutex::default() })
}

/// What squid has logged once it has logged `count` lines: tunnels are logged when they end.
pub(super) fn log(squid: &Squid, count: usize) -> Vec<String> {
    let mut told = squid.told.lock().unwrap();
    let mut buf = [0; 4096];
    while told.len() < count {
        let Ok(length) = squid.socket.recv(&mut buf) else {
            panic!("squid has not logged {count} requests, but {told:?}");
        };
        let text = String::from_utf8_lossy(&buf[..length]);
        // The line of status 0 is that of the one who looked whether squid is ready.
        let lines = text.lines().filter_map(|line| line.strip_prefix("proof: ")).filter(|line| !line.starts_with("0 "));
        told.extend(lines.map(|line| line.replace("%20", " ").replace("%22", "\"")));
    }
    told.clone()
}

fn net(squid: &Squid, auth: ProxyAuth) -> Connector {
    Connector::builder().via(Hop::http(squid.endpoint()).auth(auth)).build().unwrap()
}

async fn tunnels(net: &Connector, to: &Endpoint, count: usize) -> Result<(), Error> {
    for _ in 0..count {
        net.connect(to).await?;
    }
    Ok(())
}

#[tokio::test]
async fn digest_is_learnt_once_counted_and_renewed_when_stale() {
    let Some((_redis, to)) = redis() else { return };
    let Some(squid) = squid(&digest("")) else { return };
    let net1 = net(&squid, ProxyAuth::digest(ann()));
    tunnels(&net1, &to, 3).await.unwrap();
    let lines = log(&squid, 4);
    assert!(lines[0].starts_with("407 -"), "{lines:?}");
    for count in 1..=3 {
        let counted = format!("nc=0000000{count}");
        assert!(lines.iter().any(|line| line.starts_with("200 Digest ") && line.contains(&counted)), "{lines:?}");
    }
    // A hop with plain credentials does what it is asked for, too.
    pass(&to, &[Hop::http(squid.endpoint()).credentials(ann())], None).await.unwrap();
    record("http-connect", "peer", &squid.version, "digest login, redis inside", 4);
    // Many at once share one nonce, whatever order they arrive in.
    let many: Vec<_> = (0..30).map(|_| net1.connect(&to)).collect();
    for one in futures_util::future::join_all(many).await {
        one.unwrap();
    }
    for auth in [ProxyAuth::digest, ProxyAuth::any, ProxyAuth::strongest] {
        let before = log(&squid, 0).len();
        let wrong = net(&squid, auth(Credentials::new("ann", "wrong")));
        refused_login(&wrong.connect(&to).await.unwrap_err(), Some(407));
        let refused = log(&squid, before + 1).len() - before;
        assert!(refused <= 3, "a refusal is asked for again {refused} times");
    }
}

#[tokio::test]
async fn a_stale_nonce_is_no_refusal() {
    let Some((_redis, to)) = redis() else { return };
    let Some(squid) = squid(&digest("auth_param digest nonce_max_count 2\n")) else { return };
    tunnels(&net(&squid, ProxyAuth::digest(ann())), &to, 14).await.unwrap();
    let lines = log(&squid, 18);
    let stale = lines.iter().filter(|line| line.starts_with("407 Digest")).count();
    assert!(stale >= 3, "squid was made to tire of its nonces: {lines:?}");
    record("http-connect", "peer", &squid.version, "digest login, nonces of few uses", 14);
}

#[tokio::test]
async fn the_strongest_offer_is_taken_and_no_password_goes_where_it_must_not() {
    let Some((_redis, to)) = redis() else { return };
    let Some(both) = squid(&[BASIC, &digest(""), NTLM].concat()) else { return };
    tunnels(&net(&both, ProxyAuth::strongest(ann())), &to, 2).await.unwrap();
    let lines = log(&both, 3);
    assert!(lines.iter().filter(|line| line.starts_with("200 Digest")).count() == 2, "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("Basic")), "{lines:?}");
    let Some(basic) = squid(BASIC) else { return };
    tunnels(&net(&basic, ProxyAuth::strongest(ann())), &to, 2).await.unwrap();
    let lines = log(&basic, 3);
    assert_eq!(lines.iter().filter(|line| line.starts_with("407 -")).count(), 1, "learnt once: {lines:?}");
    let error = net(&basic, ProxyAuth::digest(ann())).connect(&to).await.unwrap_err();
    refused_login(&error, Some(407));
    assert!(error.message().ends_with("it takes Basic"), "{error}");
    assert!(!log(&basic, 4)[3].contains("Basic"));
    let error = net(&basic, ProxyAuth::bearer("t0ken")).connect(&to).await.unwrap_err();
    assert_eq!((error.kind(), error.code(), error.hop()), (Kind::Auth, Some(407), Some(0)));
}

#[tokio::test]
async fn ntlm_takes_its_turns_on_one_connection() {
    let Some((_redis, to)) = redis() else { return };
    let Some(squid) = squid(NTLM) else { return };
    let who = || Credentials::new("CORP\\ann", "sesame");
    for auth in [ProxyAuth::ntlm(who()), ProxyAuth::strongest(who()), ProxyAuth::any(who())] {
        tunnels(&net(&squid, auth), &to, 2).await.unwrap();
    }
    // Asked; said what we can; answered: the third is the second's connection, or squid would not know its challenge.
    let lines = log(&squid, 14);
    let proofs = lines.iter().filter(|line| line.starts_with("200 NTLM TlRMTVNTUAAD")).count();
    assert_eq!(proofs, 6, "{lines:?}");
    record("http-connect", "peer", &squid.version, "NTLM login by ntlm_fake_auth", 6);
    pass(&to, &[Hop::http(squid.endpoint()).credentials(who())], None).await.unwrap();
}

#[tokio::test]
async fn negotiate_sends_the_tokens_that_the_caller_makes() {
    let Some((_redis, to)) = redis() else { return };
    let helper = "auth_param negotiate program /bin/sh $D/negotiate.sh $TICKET\nauth_param negotiate children 2 startup=2 idle=1\n";
    let Some(squid) = squid(helper) else { return };
    let auth = ProxyAuth::negotiate(|proxy: Endpoint| async move {
        assert_eq!(proxy.host_text(), "localhost");
        Ok(TICKET.as_bytes().to_vec())
    });
    tunnels(&net(&squid, auth), &to, 2).await.unwrap();
    record("http-connect", "peer", &squid.version, "negotiate, a helper of one ticket", 2);
    let wrong = net(&squid, ProxyAuth::negotiate(|_| async { Ok(b"another".to_vec()) }));
    refused_login(&wrong.connect(&to).await.unwrap_err(), Some(407));
    let broken = net(&squid, ProxyAuth::negotiate(|_| async { Err(Error::new(Kind::Auth, "no ticket in the cache")) }));
    let error = broken.connect(&to).await.unwrap_err();
    assert_eq!((error.kind(), error.message(), error.hop()), (Kind::Auth, "no ticket in the cache", Some(0)));
}
