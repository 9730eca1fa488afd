//! SSH jump hosts: OpenSSH and Dropbear, and what can go wrong with them.

mod failures;
mod flow;
mod logins;
mod odd;
pub(super) mod peers;
mod trust;

use peers::{keygen, openssh, said};
use portolan_core::{Connector, Endpoint, Error, Hop, Kind, Phase, Policy};
use portolan_remote_access::ssh::{HostKeys, Jump};
use portolan_testbed::{Service, find, folder, free_port, record};

use super::{ann, microsocks, pass, redis};

fn net(hop: Jump) -> Connector {
    Connector::builder().via(hop.hop()).build().unwrap()
}

/// A refusal that names the hop, its phase and its kind, and not the password.
fn refused(error: &Error, kind: Kind) {
    assert_eq!((error.kind(), error.phase(), error.hop()), (kind, Some(Phase::Hop), Some(0)), "{error:?}");
    assert_eq!(error.delivery(), portolan_core::Delivery::NotSent, "{error:?}");
    assert!(!format!("{error:?} {error}").contains("sesame"));
}

#[tokio::test]
async fn redis_through_openssh() {
    let Some((_redis, to)) = redis() else { return };
    let Some(sshd) = openssh("") else { return };
    pass(&to, &[sshd.by_key().hop()], None).await.unwrap();
    record("ssh", "peer", &sshd.version, "key, redis inside", 4);
    let url = format!(
        "ssh://{}@localhost:{}?identity={}&fingerprint={}",
        sshd.user,
        sshd.port,
        sshd.path("id").display(),
        fingerprint(&sshd, "host").replace('+', "%2B")
    );
    pass(&to, &[portolan_remote_access::ssh::jump(&url).unwrap()], None).await.unwrap();
    record("ssh", "peer", &sshd.version, "from a url, pinned fingerprint", 4);
}

fn fingerprint(sshd: &peers::Sshd, name: &str) -> String {
    said("ssh-keygen", &["-lf", sshd.path(name).to_str().unwrap()]).split(' ').nth(1).unwrap().to_owned()
}

#[tokio::test]
async fn redis_through_dropbear() {
    let Some((_redis, to)) = redis() else { return };
    let (Some(_), Some(_)) = (find("dropbear-bin", "dropbear"), find("openssh-client", "ssh-keygen")) else { return };
    // It reads the keys of who runs it from their home: the only login without touching that is one that fails.
    if !peers::is_root() {
        println!("SKIPPED: dropbear needs root for a home of its own");
        return;
    }
    let (dir, port) = (folder("dropbear"), free_port());
    keygen(&dir, "id", "ed25519", "");
    said("dropbearkey", &["-t", "ed25519", "-f", dir.join("hk").to_str().unwrap()]);
    let public = said("dropbearkey", &["-y", "-f", dir.join("hk").to_str().unwrap()]);
    let public = public.lines().find(|line| line.starts_with("ssh-ed25519")).unwrap().to_owned();
    let home = dir.join("home/.ssh");
    std::fs::create_dir_all(&home).unwrap();
    std::fs::copy(dir.join("id.pub"), home.join("authorized_keys")).unwrap();
    said("chmod", &["-R", "go-w", dir.to_str().unwrap()]);
    let script = format!(
        "set -e\ncp /etc/passwd passwd\necho 'ann:x:0:0::$D/home:/bin/sh' >> passwd\nmount --bind $D/passwd /etc/passwd\n\
         exec dropbear -F -E -s -r $D/hk -p 127.0.0.1:{port} -P $D/pid\n"
    );
    let dropbear = Service::new("dropbear-bin", "unshare").folder(dir.clone()).file("run", script);
    let dropbear = dropbear.args(["-m", "--propagation", "private", "sh", "-e", "$D/run"]);
    let Some(_dropbear) = dropbear.accepts(([127, 0, 0, 1], port).into()).start() else { return };
    let version = said("dropbear", &["-V"]).replace(" v", " ").replace('v', " ");
    let jump = Jump::new(Endpoint::new("localhost", port).unwrap(), "ann").key_file(dir.join("id"));
    let known = format!("[localhost]:{port} {public}\n");
    pass(&to, &[jump.clone().host_keys(HostKeys::text(known)).hop()], None).await.unwrap();
    record("ssh", "peer", version.split_whitespace().collect::<Vec<_>>().join(" ").as_str(), "key, redis inside", 4);
    let error = pass(&to, &[jump.host_keys(HostKeys::none()).hop()], None).await.unwrap_err();
    refused(&error, Kind::Hop);
}

#[tokio::test]
async fn chains_through_ssh() {
    let Some((_redis, to)) = redis() else { return };
    let (Some(first), Some(second), Some(micro)) = (openssh(""), openssh(""), microsocks(free_port(), true)) else {
        return;
    };
    let socks = Hop::socks5h(micro.endpoint()).credentials(ann());
    pass(&to, &[first.by_key().hop(), second.by_key().hop()], None).await.unwrap();
    pass(&to, &[socks.clone(), first.by_key().hop()], None).await.unwrap();
    pass(&to, &[first.by_key().hop(), socks.clone(), second.by_key().hop()], None).await.unwrap();
    record("ssh", "peer", &first.version, "in chains of two and three", 12);
    // The hop that fails is named by its place.
    let wrong = second.bare().key_pem("no key at all").hop();
    let error = pass(&to, &[first.by_key().hop(), wrong], None).await.unwrap_err();
    assert_eq!((error.kind(), error.hop()), (Kind::Usage, Some(1)), "{error:?}");
    let unknown = second.by_key().host_keys(HostKeys::none()).hop();
    let error = pass(&to, &[first.by_key().hop(), unknown], None).await.unwrap_err();
    assert_eq!((error.kind(), error.hop()), (Kind::Hop, Some(1)), "{error:?}");
}

#[tokio::test]
async fn the_policy_holds_behind_a_jump_host() {
    let Some((_redis, to)) = redis() else { return };
    let Some(sshd) = openssh("") else { return };
    let allowed = Connector::builder().via(sshd.by_key().hop()).policy(Policy::any().deny("203.0.113.0/24").unwrap());
    let allowed = allowed.build().unwrap();
    // A policy that forbids anything sees the addresses, and so they are resolved here.
    allowed.connect(&to).await.unwrap();
    let log = sshd.server.log();
    assert!(!log.contains("localhost port"), "{log}");
    let public = Connector::builder().via(sshd.by_key().hop()).policy(Policy::public_only()).build().unwrap();
    let error = public.connect(&to).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Blocked, "{error:?}");
    // A policy for hops is no policy for targets.
    let hops = Connector::builder().via(sshd.by_key().hop()).hop_policy(Policy::public_only()).build().unwrap();
    assert_eq!(hops.connect(&to).await.unwrap_err().kind(), Kind::Blocked);
    let error = net(sshd.by_key()).datagram(&to).await.unwrap_err();
    assert_eq!((error.kind(), error.hop()), (Kind::Unsupported, Some(0)), "{error:?}");
}
