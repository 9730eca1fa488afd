//! The SSH servers, and what stands between them and us.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use portolan_core::Endpoint;
use portolan_remote_access::ssh::{HostKeys, Jump};
use portolan_testbed::{Server, Service, find, folder, free_port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(crate) fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap().trim().to_owned()
}

/// A key pair in a folder, readable to whoever the server becomes.
pub(crate) fn keygen(dir: &Path, name: &str, kind: &str, passphrase: &str) -> PathBuf {
    let file = dir.join(name);
    said("ssh-keygen", &["-q", "-t", kind, "-N", passphrase, "-C", name, "-f", file.to_str().unwrap()]);
    file
}

/// A running SSH server that lets `ann` in by the key `id` and, where it can, by the password `sesame`.
pub(crate) struct Sshd {
    pub(crate) server: Server,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) version: String,
}

impl Sshd {
    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::new("localhost", self.port).unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.server.dir().join(name)
    }

    pub(crate) fn public(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(&format!("{name}.pub"))).unwrap().trim().to_owned()
    }

    /// What known_hosts says of it.
    pub(crate) fn known(&self) -> String {
        format!("[localhost]:{} {}\n", self.port, self.public("host"))
    }

    /// The jump host with its key known, and no login said yet.
    pub(crate) fn bare(&self) -> Jump {
        Jump::new(self.endpoint(), &self.user).host_keys(HostKeys::text(self.known()))
    }

    pub(crate) fn by_key(&self) -> Jump {
        self.bare().key_file(self.path("id"))
    }

    pub(crate) fn logins(&self) -> usize {
        self.server.log().lines().filter(|line| line.starts_with("Accepted ") && line.contains(" for ")).count()
    }
}

/// OpenSSH with these lines of sshd_config besides. Run by root it has a user of its own, in copies of the system's files that it alone
/// sees; otherwise it can only let in who runs the test, and by key.
pub(crate) fn openssh(lines: &str) -> Option<Sshd> {
    openssh_at(free_port(), folder("jump"), lines)
}

pub(crate) fn is_root() -> bool {
    said("id", &["-un"]) == "root"
}

pub(crate) fn openssh_at(port: u16, dir: PathBuf, lines: &str) -> Option<Sshd> {
    find("openssh-server", "sshd")?;
    find("openssh-client", "ssh-keygen")?;
    if !dir.join("host").exists() {
        keygen(&dir, "host", "ed25519", "");
        keygen(&dir, "id", "ed25519", "");
    }
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o755)).unwrap();
    let root = is_root();
    let user = if root { "ann".to_owned() } else { said("id", &["-un"]) };
    let pam = if root { "yes" } else { "no" };
    let conf = format!(
        "{lines}\nListenAddress 127.0.0.1:{port}\nHostKey $D/host\nAuthorizedKeysFile $D/id.pub\nPidFile none\nStrictModes no\n\
         UsePAM {pam}\nPasswordAuthentication {pam}\nKbdInteractiveAuthentication {pam}\nAllowTcpForwarding yes\nMaxStartups 200\n\
         LogLevel VERBOSE\nPrintMotd no\n"
    );
    let service = Service::new("openssh-server", if root { "unshare" } else { "sshd" });
    let service = service.folder(dir).file("sshd_config", conf).accepts(([127, 0, 0, 1], port).into());
    let service = if root {
        std::fs::create_dir_all("/run/sshd").unwrap();
        // A salt of our own: `$D` in a hash would be taken for the folder.
        let hash = said("openssl", &["passwd", "-6", "-salt", "portolan", "sesame"]);
        let script = "set -e\ncp /etc/passwd passwd\ncp /etc/shadow shadow\necho 'ann:x:64999:65534::/nonexistent:/bin/sh' >> passwd\n\
                      cat ann >> shadow\nfor file in passwd shadow pam.d/sshd; do mount --bind $D/${file##*/} /etc/$file; done\n\
                      exec /usr/sbin/sshd -D -e -f $D/sshd_config\n";
        let pam = "auth required pam_unix.so\naccount required pam_permit.so\nsession required pam_permit.so\n";
        let service = service.file("ann", format!("ann:{hash}:19000:0:99999:7:::\n")).file("sshd", pam);
        service.file("run", script).args(["-m", "--propagation", "private", "sh", "-e", "$D/run"])
    } else {
        service.args(["-D", "-e", "-f", "$D/sshd_config"])
    };
    let server = service.start()?;
    let version = said("ssh", &["-V"]).split(',').next().unwrap().replace('_', " ");
    Some(Sshd { server, port, user, version })
}

/// Passes each connection on, and tampers with what the server says.
#[derive(Clone, Copy)]
pub(crate) enum Tamper {
    /// Closes after so many bytes of the server's.
    Cut(usize),
    /// Says nothing more after so many.
    Stall(usize),
    /// Turns a byte over.
    Flip(usize),
    /// Passes one byte at a time.
    Trickle(Duration),
}

/// A relay to `port` on this machine; gives its own port.
pub(crate) async fn relay(port: u16, tamper: Tamper) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            tokio::spawn(pass_on(client, server, tamper));
        }
    });
    own
}

async fn pass_on(client: TcpStream, server: TcpStream, tamper: Tamper) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let up = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let (mut seen, mut data) = (0, vec![0; 16 << 10]);
    loop {
        let n = from_server.read(&mut data).await?;
        if n == 0 {
            return Ok(());
        }
        let part = &mut data[..n];
        match tamper {
            Tamper::Cut(at) if seen + n >= at => {
                to_client.write_all(&part[..at - seen]).await?;
                up.abort();
                return Ok(());
            }
            Tamper::Stall(at) if seen + n >= at => {
                to_client.write_all(&part[..at - seen]).await?;
                return std::future::pending().await;
            }
            Tamper::Flip(at) if (seen..seen + n).contains(&at) => part[at - seen] ^= 0x55,
            _ => {}
        }
        seen += n;
        if let Tamper::Trickle(pause) = tamper {
            for byte in part {
                to_client.write_all(std::slice::from_ref(byte)).await?;
                if pause.is_zero() {
                    tokio::task::yield_now().await;
                } else {
                    tokio::time::sleep(pause).await;
                }
            }
        } else {
            to_client.write_all(part).await?;
        }
    }
}

/// Hands each connection to `serve`.
pub(crate) async fn target<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket));
        }
    });
    addr
}
