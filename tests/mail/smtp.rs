//! SMTP against postfix (STARTTLS, TLS from the first byte, every mechanism of Cyrus SASL) and aiosmtpd.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use portolan_core::{Connector, Credentials, Delivery, Endpoint, Kind, Phase, Roots, Timeouts, Tls};
use portolan_mail::smtp::{Client, Envelope, Notify, Options, Reply, Return, Security};
use portolan_testbed::{Certs, Server, Service, Tape, find, free_port, record};

struct Postfix {
    server: Server,
    port: u16,
    tls_port: u16,
    certs: Certs,
}

impl Drop for Postfix {
    /// The master leads a session of its own: it is ended by the pid that it wrote down.
    fn drop(&mut self) {
        let pid = std::fs::read_to_string(self.server.dir().join("q/pid/master.pid")).unwrap_or_default();
        if !pid.trim().is_empty() {
            let _ = Command::new("kill").args(["-TERM", pid.trim()]).status();
        }
    }
}

const SERVICES: &str = "
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
";

fn main_cf(uid: &str, gid: &str) -> String {
    format!(
        "compatibility_level = 3.6
queue_directory = $D/q
data_directory = $D/d
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
inet_interfaces = loopback-only
inet_protocols = ipv4
myhostname = localhost
mydestination =
mynetworks =
relay_domains =
alias_maps =
alias_database =
virtual_mailbox_domains = box.test
virtual_mailbox_base = $D/mail
virtual_mailbox_maps = inline:{{ {{ann@box.test=ann/}}, {{bob@box.test=bob/}} }}
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
message_size_limit = 1000000
smtpd_relay_restrictions = permit_sasl_authenticated, reject_unauth_destination
smtpd_tls_cert_file = $D/server.pem
smtpd_tls_key_file = $D/server.key
smtpd_tls_security_level = may
smtpd_tls_auth_only = yes
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = cyrus
smtpd_sasl_path = smtpd
cyrus_sasl_config_path = $D/sasl
smtpd_sasl_local_domain = localhost
smtpd_peername_lookup = no
maillog_file = /dev/stdout
"
    )
}

fn id(flag: &str) -> String {
    let id = Command::new("id").args([flag, "postfix"]).output().unwrap();
    String::from_utf8(id.stdout).unwrap().trim().to_owned()
}

fn postfix() -> Option<Postfix> {
    find("postfix", "postfix")?;
    find("sasl2-bin", "saslpasswd2")?;
    let (certs, port, tls_port) = (Certs::new(), free_port(), free_port());
    let listeners = format!(
        "127.0.0.1:{port} inet n - n - - smtpd\n127.0.0.1:{tls_port} inet n - n - - smtpd\n  -o smtpd_tls_wrappermode=yes\n"
    );
    let sasl = "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: $D/sasldb2\n\
                mech_list: PLAIN LOGIN CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-256\n";
    let script = "set -e\nmkdir -p q d mail sasl\nmv smtpd.conf sasl/\nchown postfix d mail\nchmod 755 .\n\
                  printf secret | saslpasswd2 -p -c -f ./sasldb2 -u localhost joe\nchown postfix sasldb2\nexec postfix -c $D start-fg\n";
    let server = Service::new("postfix", "sh")
        .file("main.cf", main_cf(&id("-u"), &id("-g")))
        .file("master.cf", format!("{listeners}{SERVICES}"))
        .file("smtpd.conf", sasl)
        .tls(&certs)
        .file("run", script)
        .args(["-ex", "run"])
        .accepts(([127, 0, 0, 1], port).into())
        .accepts(([127, 0, 0, 1], tls_port).into())
        .start()?;
    Some(Postfix { server, port, tls_port, certs })
}

impl Postfix {
    fn net(&self) -> Connector {
        let tls = Tls::builder().roots(Roots::Custom).root_pem(self.certs.ca.as_bytes()).build().unwrap();
        Connector::builder().tls(tls).build().unwrap()
    }

    fn options(&self) -> Options {
        Options::new(Endpoint::new("localhost", self.port).unwrap())
    }

    /// The one message in a mailbox, once it has been delivered.
    fn delivered(&self, user: &str) -> Vec<u8> {
        let folder = self.server.dir().join("mail").join(user).join("new");
        let started = Instant::now();
        loop {
            if let Some(file) = first(&folder) {
                let message = std::fs::read(&file).unwrap();
                std::fs::remove_file(file).unwrap();
                return message;
            }
            assert!(started.elapsed() < Duration::from_secs(20), "nothing was delivered to {user}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn first(folder: &Path) -> Option<std::path::PathBuf> {
    std::fs::read_dir(folder).ok()?.filter_map(|entry| entry.ok().map(|entry| entry.path())).next()
}

fn version() -> String {
    let version = Command::new("postconf").args(["-d", "-h", "mail_version"]).stderr(Stdio::null()).output().unwrap();
    format!("postfix {}", String::from_utf8_lossy(&version.stdout).trim())
}

/// What a mailbox holds of a body that was sent: line ends as the file system has them.
fn body(message: &[u8]) -> Vec<u8> {
    let at = message.windows(2).position(|two| two == b"\n\n").unwrap();
    message[at + 2..].to_vec()
}

#[tokio::test]
async fn messages_arrive_whole_through_starttls_and_every_mechanism() {
    let Some(postfix) = postfix() else { return };
    let net = postfix.net();
    let login = postfix.options().credentials(Credentials::new("joe", "secret"));
    for mechanism in ["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256"] {
        let options = login.clone().mechanism(mechanism);
        let mut client = Client::connect(&net, options).await.unwrap_or_else(|error| panic!("{mechanism}: {error:?}"));
        assert!(client.info().tls.is_some() && client.info().timings.tls.is_some());
        let text = format!("Subject: {mechanism}\r\n\r\n.\r\n..\r\n.x\r\nlast");
        let report = client.send("joe@box.test", ["ann@box.test"], text.as_bytes()).await.unwrap();
        assert_eq!((report.accepted.len(), report.reply.enhanced), (1, Some((2, 0, 0))));
        assert_eq!(body(&postfix.delivered("ann")), b".\n..\n.x\nlast\n", "{mechanism}");
        client.close().await.unwrap();
        record("smtp", "peer", &version(), &format!("STARTTLS, {mechanism}"), 8);
    }
    let wrong =
        Client::connect(&net, postfix.options().credentials(Credentials::new("joe", "wrong"))).await.unwrap_err();
    assert_eq!((wrong.kind(), wrong.code(), wrong.phase()), (Kind::Auth, Some(535), Some(Phase::Handshake)));
}

#[tokio::test]
async fn large_streams_chunks_and_recipients() {
    let Some(postfix) = postfix() else { return };
    let net = postfix.net();
    let implicit = Options::new(Endpoint::new("localhost", postfix.tls_port).unwrap()).security(Security::Implicit);
    for chunking in [false, true] {
        let mut client = Client::connect(&net, implicit.clone().chunking(chunking)).await.unwrap();
        assert!(client.extensions().pipelining && client.extensions().chunking && client.extensions().dsn);
        let line = b".dots and \xc3\xbcmlauts at every edge\r\n";
        let message: Vec<u8> = [b"Subject: large\r\n\r\n".to_vec(), line.repeat(20_000)].concat();
        let envelope =
            Envelope::new("joe@box.test").unwrap().to("ann@box.test").unwrap().to("nobody@box.test").unwrap();
        let envelope = envelope.to("bob@box.test").unwrap().notify(Notify::never()).ret(Return::Headers).id("id 1");
        let report = client.send_bytes(envelope, &message).await.unwrap();
        assert_eq!(report.accepted, ["ann@box.test", "bob@box.test"]);
        assert_eq!((report.refused.len(), report.refused[0].1.code), (1, 550));
        let expected = [&line[..line.len() - 2], b"\n"].concat().repeat(20_000);
        for user in ["ann", "bob"] {
            assert!(body(&postfix.delivered(user)) == expected, "the message changed on its way");
        }
        // Refusals leave the conversation in step.
        let relay = client.send("joe@box.test", ["x@elsewhere.test"], b"x").await.unwrap_err();
        assert_eq!((relay.kind(), relay.code(), relay.delivery()), (Kind::Server, Some(554), Delivery::Answered));
        assert_eq!(relay.server::<Reply>().unwrap().enhanced, Some((5, 7, 1)));
        let huge = client.send("joe@box.test", ["ann@box.test"], &[b'x'; 1_000_001]).await.unwrap_err();
        assert_eq!((huge.kind(), huge.delivery()), (Kind::Limit, Delivery::NotSent));
        client.noop().await.unwrap();
        client.close().await.unwrap();
        record("smtp", "peer", &version(), if chunking { "TLS, BDAT" } else { "TLS, DATA" }, 9);
    }
}

#[tokio::test]
async fn a_second_server_agrees() {
    let Some(python) = find("python3-aiosmtpd", "python3") else { return };
    let here = Command::new(python)
        .args(["-c", "import aiosmtpd; print(aiosmtpd.__version__)"])
        .env_remove("PYTHONPATH")
        .output()
        .unwrap();
    if !here.status.success() {
        assert!(!portolan_testbed::required(), "install python3-aiosmtpd");
        println!("SKIPPED: install python3-aiosmtpd");
        return;
    }
    let (certs, port) = (Certs::new(), free_port());
    let script = format!(
        "import ssl, time\nfrom aiosmtpd.controller import Controller\nfrom aiosmtpd.smtp import AuthResult\n\
         class Box:\n    async def handle_DATA(self, server, session, envelope):\n        open('$D/box', 'wb').write(envelope.content)\n        return '250 stored'\n\
         def login(server, session, envelope, mechanism, data):\n    return AuthResult(success=data.login == b'joe' and data.password == b'secret', handled=False)\n\
         tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\ntls.load_cert_chain('$D/server.pem', '$D/server.key')\n\
         Controller(Box(), hostname='127.0.0.1', port={port}, tls_context=tls, require_starttls=True, authenticator=login, auth_required=True).start()\n\
         time.sleep(3600)\n"
    );
    let service = Service::new("python3-aiosmtpd", "python3").file("serve.py", script).tls(&certs).arg("$D/serve.py");
    let Some(server) = service.accepts(([127, 0, 0, 1], port).into()).start() else { return };
    let tls = Tls::builder().roots(Roots::Custom).root_pem(certs.ca.as_bytes()).build().unwrap();
    let net = Connector::builder().tls(tls).build().unwrap();
    let options =
        Options::new(Endpoint::new("localhost", port).unwrap()).credentials(Credentials::new("joe", "secret"));
    let mut client = Client::connect(&net, options.clone()).await.unwrap();
    client.send("a@b.test", ["c@d.test"], b"Subject: x\n\n.\nbare\n").await.unwrap();
    assert_eq!(std::fs::read(server.dir().join("box")).unwrap(), b"Subject: x\r\n\r\n.\r\nbare\r\n");
    client.close().await.unwrap();
    let wrong = Client::connect(&net, options.credentials(Credentials::new("joe", "wrong"))).await.unwrap_err();
    assert_eq!(wrong.kind(), Kind::Auth);
    let version = String::from_utf8_lossy(&here.stdout).trim().to_owned();
    record("smtp", "peer", &format!("aiosmtpd {version}"), "STARTTLS, PLAIN", 8);
}

#[tokio::test]
async fn every_fault_of_the_conversation_ends_in_a_typed_error() {
    let Some(postfix) = postfix() else { return };
    let session = |addr: std::net::SocketAddr| async move {
        let short = Duration::from_millis(400);
        let limits = Timeouts::default().handshake(short).first_byte(short).idle(short);
        let options = Options::new(addr.into()).security(Security::Clear).timeouts(limits);
        let mut client = Client::connect(&Connector::default(), options).await?;
        client.send("joe@box.test", ["ann@box.test", "nobody@box.test"], b"Subject: x\r\n\r\nx\r\n").await?;
        client.noop().await?;
        if !client.is_reusable() {
            return Err(portolan_core::Error::protocol("smtp", "out of step"));
        }
        client.close().await
    };
    let tape =
        Tape::record(([127, 0, 0, 1], postfix.port).into(), |addr| async move { session(addr).await.unwrap() }).await;
    // The farewell may be cut: a server that closes instead of answering QUIT has still done its work.
    let outcome = tape.replay(tape.len() - "221 2.0.0 Bye\r\n".len(), session).await;
    assert!(outcome.runs > 1000 && outcome.failed > 50, "{outcome:?}");
    record("smtp", "faults", &version(), "plain", outcome.runs as u64);
}
