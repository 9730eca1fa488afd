//! The servers of this suite: each in a folder of its own, on a free port of the loopback, gone when dropped.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use portolan_core::{Connector, Endpoint, Result, clock};
use portolan_dns::dns::{Client, Options};

/// A process and its folder.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    dir: PathBuf,
    pub(crate) addr: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            eprintln!("--- log of {} ---\n{log}", self.dir.display());
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Server {
    pub(crate) fn endpoint(&self) -> Endpoint {
        self.addr.into()
    }

    pub(crate) async fn client(&self, change: impl FnOnce(Options) -> Options) -> Client {
        self.client_via(&Connector::default(), change).await
    }

    pub(crate) async fn client_via(&self, net: &Connector, change: impl FnOnce(Options) -> Options) -> Client {
        Client::connect(net, change(Options::new(self.endpoint()))).await.unwrap()
    }

    /// Starts `binary` with files and arguments made from the folder and the port; `None` if it is not installed.
    fn start(
        package: &str,
        binary: &str,
        files: &[(&str, String)],
        args: impl FnOnce(&Path) -> Vec<String>,
        addr: SocketAddr,
    ) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let found = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"]
            .iter()
            .map(|folder| Path::new(folder).join(binary))
            .find(|path| path.exists());
        let Some(path) = found else {
            assert!(std::env::var_os("PORTOLAN_REQUIRE_PEERS").is_none(), "{binary} is missing: install {package}");
            eprintln!("SKIPPED: {binary} is missing: install {package}");
            return None;
        };
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("portolan-{binary}-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for (name, text) in files {
            std::fs::write(dir.join(name), text.replace("$D", &dir.display().to_string())).unwrap();
        }
        let log = File::create(dir.join("log")).unwrap();
        let child = Command::new(path)
            .args(args(&dir))
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Some(Self { child, dir, addr })
    }

    /// Waits until `ready` succeeds.
    async fn ready<T, F: Future<Output = Result<T>>>(mut self, mut ready: impl FnMut(&Self) -> F) -> Self {
        let until = clock::now() + Duration::from_secs(20);
        loop {
            match ready(&self).await {
                Ok(_) => return self,
                Err(error) => assert!(clock::now() < until, "not ready: {error:?}"),
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("ended before it was ready: {status}");
            }
            clock::sleep(Duration::from_millis(30)).await;
        }
    }

    async fn answering(self, name: &'static str) -> Self {
        self.ready(|server| {
            let options = Options::new(server.endpoint()).timeout(Duration::from_secs(1));
            async move {
                let client = Client::connect(&Connector::default(), options).await?;
                client.query(name, portolan_dns::dns::RecordType::Soa).await
            }
        })
        .await
    }
}

/// A port that was free just now.
pub(crate) async fn free_port() -> SocketAddr {
    let listener = Connector::default().listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    listener.local_addr().unwrap()
}

/// BIND, authoritative for `portolan.test` (transfers allowed) and `closed.test` (forbidden).
pub(crate) async fn bind() -> Option<Server> {
    let addr = free_port().await;
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
        addr.port()
    );
    let files = [("named.conf", conf), ("zone", zone()), ("closed", CLOSED.to_owned())];
    let args =
        |dir: &Path| ["-g", "-n", "1", "-c", &dir.join("named.conf").display().to_string()].map(str::to_owned).to_vec();
    let server = Server::start("bind9", "named", &files, args, addr)?;
    Some(server.answering("portolan.test").await)
}

/// Unbound with data of its own, asking `bind` for `portolan.test`.
pub(crate) async fn unbound(bind: &Server) -> Option<Server> {
    let addr = free_port().await;
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
        addr.port(),
        bind.addr.port()
    );
    let args = |dir: &Path| ["-d", "-c", &dir.join("unbound.conf").display().to_string()].map(str::to_owned).to_vec();
    let server = Server::start("unbound", "unbound", &[("unbound.conf", conf)], args, addr)?;
    Some(server.answering("local.test").await)
}

/// Dante: SOCKS5 with UDP ASSOCIATE.
pub(crate) async fn danted() -> Option<Server> {
    let addr = free_port().await;
    let conf = format!(
        "logoutput: stderr\ninternal: 127.0.0.1 port = {}\nexternal: lo\nclientmethod: none\nsocksmethod: none\n\
         user.privileged: root\nuser.unprivileged: root\n\
         client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}\n\
         socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 command: bind connect udpassociate }}\n\
         socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 command: bindreply udpreply }}\n",
        addr.port()
    );
    let args = |dir: &Path| {
        let at = |name: &str| dir.join(name).display().to_string();
        vec!["-f".to_owned(), at("danted.conf"), "-p".to_owned(), at("pid")]
    };
    let server = Server::start("dante-server", "danted", &[("danted.conf", conf)], args, addr)?;
    Some(server.ready(|server| accepting(server.endpoint())).await)
}

/// Microsocks: SOCKS5 without datagrams.
pub(crate) async fn microsocks() -> Option<Server> {
    let addr = free_port().await;
    let args = |_: &Path| vec!["-i".to_owned(), "127.0.0.1".to_owned(), "-p".to_owned(), addr.port().to_string()];
    let server = Server::start("microsocks", "microsocks", &[], args, addr)?;
    Some(server.ready(|server| accepting(server.endpoint())).await)
}

async fn accepting(to: Endpoint) -> Result<()> {
    Connector::default().connect(&to).await.map(drop)
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
