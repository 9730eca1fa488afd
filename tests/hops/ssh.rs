//! SOCKS 4a and 5 against OpenSSH: `ssh -D` towards a private sshd.

use portolan_core::{Endpoint, Hop, Kind};
use portolan_testbed::record::{Recorder, Redact, Side};
use portolan_testbed::{Server, Service, find, folder, free_port, record};

use super::jump::peers::{keygen, said};
use super::{Proxy, pass, redis};

/// An sshd with keys of its own, and `ssh -D` logged in to it: the proxy is the latter.
pub(super) fn dynamic_forward() -> Option<(Server, Proxy)> {
    find("openssh-server", "sshd")?;
    find("openssh-client", "ssh")?;
    let (dir, port, socks) = (folder("sshd"), free_port(), free_port());
    for name in ["host", "id"] {
        keygen(&dir, name, "ed25519", "");
    }
    let public = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    let known = format!("[127.0.0.1]:{port} {}", public("host.pub"));
    let user = said("id", &["-un"]);
    if user == "root" {
        // Where root's sshd drops its privileges; the package makes it only at boot.
        std::fs::create_dir_all("/run/sshd").unwrap();
    }
    let conf = format!(
        "ListenAddress 127.0.0.1:{port}\nHostKey $D/host\nAuthorizedKeysFile $D/id.pub\nPidFile none\nStrictModes no\n\
         UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n\
         AllowTcpForwarding yes\n"
    );
    let sshd = Service::new("openssh-server", "sshd")
        .folder(dir)
        .file("sshd_config", conf)
        .file("known", known)
        .args(["-D", "-e", "-f", "$D/sshd_config"])
        .accepts(([127, 0, 0, 1], port).into())
        .start()?;
    let keys = sshd.dir().display();
    let args = format!(
        "-N -F none -D 127.0.0.1:{socks} -p {port} -i {keys}/id -o IdentitiesOnly=yes -o BatchMode=yes \
         -o UserKnownHostsFile={keys}/known -o StrictHostKeyChecking=yes -o ExitOnForwardFailure=yes {user}@127.0.0.1"
    );
    let addr = ([127, 0, 0, 1], socks).into();
    let ssh = Service::new("openssh-client", "ssh").args(args.split(' ')).accepts(addr).start()?;
    let version = said("ssh", &["-V"]).split(',').next().unwrap().replace('_', " ");
    Some((sshd, Proxy { _server: ssh, addr, version }))
}

#[tokio::test]
async fn openssh_resolves_the_names_of_socks4a() {
    let Some((_redis, to)) = redis() else { return };
    let Some((_sshd, ssh)) = dynamic_forward() else { return };
    pass(&to, &[Hop::socks4a(ssh.endpoint())], None).await.unwrap();
    record("socks4a", "peer", &ssh.version, "ssh -D, redis inside", 4);
    pass(&to, &[Hop::socks5h(ssh.endpoint())], None).await.unwrap();
    record("socks5h", "peer", &ssh.version, "ssh -D, redis inside", 4);
    pass(&to, &[Hop::socks4a(ssh.endpoint()), Hop::socks4a(ssh.endpoint())], None).await.unwrap();
    record("socks4a", "peer", &ssh.version, "ssh -D, through itself", 4);

    // What went over the wire is the name, under an address that means "see the name" (0.0.0.x).
    let recorder = Recorder::tcp(ssh.addr).await.redact(Redact::nothing());
    pass(&to, &[Hop::socks4a(recorder.addr().into())], None).await.unwrap();
    let asked = recorder.finish().await.said(0, Side::Client);
    let port = to.port().to_be_bytes();
    assert!(asked.starts_with(&[4, 1, port[0], port[1], 0, 0, 0]), "{}", asked.escape_ascii());
    assert!(asked[7] != 0 && asked[8..].starts_with(b"\0localhost\0"), "{}", asked.escape_ascii());

    // OpenSSH refuses by closing, without a reply.
    for nobody in [Endpoint::new("127.0.0.1", free_port()).unwrap(), Endpoint::new("nobody.invalid", 1).unwrap()] {
        let error = pass(&nobody, &[Hop::socks4a(ssh.endpoint())], None).await.unwrap_err();
        assert_eq!((error.kind(), error.hop()), (Kind::Hop, Some(0)), "{error:?}");
    }
}
