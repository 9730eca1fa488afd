//! Host keys: known, unknown, changed, revoked, signed, learned.

use std::sync::atomic::{AtomicUsize, Ordering};

use portolan_core::{Error, Kind};
use portolan_remote_access::ssh::{HostKeyError, HostKeyProblem, HostKeys};
use portolan_testbed::{find, folder, free_port, record};

use super::peers::{Sshd, keygen, openssh, openssh_at, said};
use super::{fingerprint, net, refused};

async fn shown(sshd: &Sshd, keys: HostKeys) -> Result<(), Error> {
    let to = sshd.endpoint();
    net(sshd.by_key().host_keys(keys)).connect(&to).await.map(drop)
}

/// Why the key was refused; nothing was said of the user.
async fn problem(sshd: &Sshd, keys: HostKeys) -> HostKeyError {
    let before = sshd.logins();
    let error = shown(sshd, keys).await.unwrap_err();
    refused(&error, Kind::Hop);
    assert_eq!(sshd.logins(), before);
    let told = error.server::<HostKeyError>().unwrap_or_else(|| panic!("{error:?}")).clone();
    assert!(error.message().contains(&told.key.fingerprint), "{error}");
    told
}

#[tokio::test]
async fn a_host_key_is_known_unknown_changed_or_revoked() {
    let Some(sshd) = openssh("") else { return };
    let (known, own) = (sshd.known(), fingerprint(&sshd, "host"));
    keygen(sshd.server.dir(), "other", "ed25519", "");
    let (key, other, port) = (sshd.public("host"), sshd.public("other"), sshd.port);
    for (what, text) in [
        ("its line", known.clone()),
        ("upper case, a pattern, a comment", format!("# mine\nzzz,[LOCAL*]:{port} {key} of mine\n")),
        ("its usual port", format!("localhost {key}\n")),
        ("one of two", format!("[localhost]:{port} {other}\n{known}")),
    ] {
        shown(&sshd, HostKeys::text(text)).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    }
    record("ssh", "peer", &sshd.version, "host keys of known_hosts", 4);
    let unknown = problem(&sshd, HostKeys::none()).await;
    assert_eq!((unknown.problem, &unknown.key.fingerprint), (HostKeyProblem::Unknown, &own));
    assert_eq!((unknown.key.kind.as_str(), unknown.key.host), ("ssh-ed25519", format!("[localhost]:{port}")));
    let negated = HostKeys::text(format!("*,!*LOCALHOST* {key}\n"));
    assert_eq!(problem(&sshd, negated).await.problem, HostKeyProblem::Unknown);
    let changed = problem(&sshd, HostKeys::text(format!("\n[localhost]:{port} {other}\n"))).await;
    assert_eq!((changed.problem, changed.place.unwrap().1), (HostKeyProblem::Changed, 2));
    assert_eq!(changed.expected.unwrap(), fingerprint(&sshd, "other"));
    let revoked = HostKeys::text(format!("{known}@revoked * {key}\n"));
    assert_eq!(problem(&sshd, revoked.clone()).await.problem, HostKeyProblem::Revoked);
    assert_eq!(problem(&sshd, revoked.and_pinned(&own)).await.problem, HostKeyProblem::Revoked);
    // Who waited for the same connection is told the same.
    let (net, to) = (net(sshd.by_key().host_keys(HostKeys::none())), sshd.endpoint());
    let (first, second) = tokio::join!(net.connect(&to), net.connect(&to));
    for error in [first.unwrap_err(), second.unwrap_err()] {
        assert_eq!(error.server::<HostKeyError>().unwrap().problem, HostKeyProblem::Unknown);
    }
    let missing = shown(&sshd, HostKeys::file("/nonexistent/known_hosts")).await.unwrap_err();
    assert_eq!((missing.kind(), missing.hop()), (Kind::Usage, Some(0)), "{missing:?}");
}

#[tokio::test]
async fn hashed_hosts_are_found() {
    let Some(sshd) = openssh("") else { return };
    let file = sshd.path("hashed");
    std::fs::write(&file, sshd.known()).unwrap();
    said("ssh-keygen", &["-H", "-f", file.to_str().unwrap()]);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("|1|") && !text.contains("localhost"), "{text}");
    shown(&sshd, HostKeys::file(&file)).await.unwrap();
    record("ssh", "peer", &sshd.version, "hashed known_hosts of ssh-keygen -H", 1);
}

#[tokio::test]
async fn pinned_asked_and_accepted_keys() {
    let Some(sshd) = openssh("") else { return };
    let own = fingerprint(&sshd, "host");
    shown(&sshd, HostKeys::pinned(&own)).await.unwrap();
    let wrong = format!("SHA256:{}", "A".repeat(43));
    let told = problem(&sshd, HostKeys::pinned(&wrong)).await;
    assert_eq!((told.problem, told.expected), (HostKeyProblem::Changed, Some(wrong)));

    // Asked once, remembered for the connector; a no is a no.
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let expected = own.clone();
    let asking = HostKeys::none().ask(move |key| {
        assert_eq!(key.fingerprint, expected);
        ASKED.fetch_add(1, Ordering::SeqCst);
        true
    });
    for _ in 0..2 {
        shown(&sshd, asking.clone()).await.unwrap();
    }
    assert_eq!(ASKED.load(Ordering::SeqCst), 1);
    assert_eq!(problem(&sshd, HostKeys::none().ask(|_| false)).await.problem, HostKeyProblem::Unknown);

    // In a file: learned, and then held to it.
    let file = sshd.path("learned");
    std::fs::write(&file, "# no end of line").unwrap();
    shown(&sshd, HostKeys::none().accept_new_to(&file)).await.unwrap();
    shown(&sshd, HostKeys::file(&file)).await.unwrap();
    let lines = std::fs::read_to_string(&file).unwrap();
    assert_eq!(lines.lines().nth(1).unwrap(), sshd.known().trim().rsplit_once(' ').unwrap().0);
    let remembering = HostKeys::none().accept_new();
    shown(&sshd, remembering.clone()).await.unwrap();
    let (port, dir) = (sshd.port, folder("jump"));
    drop(sshd);
    let Some(imposter) = openssh_at(port, dir, "") else { return };
    assert_eq!(problem(&imposter, remembering).await.problem, HostKeyProblem::Changed);
    let any = imposter.by_key().dangerous().accept_any_host_key();
    net(any).connect(&imposter.endpoint()).await.unwrap();
}

#[tokio::test]
async fn a_server_of_many_keys_is_asked_for_the_one_that_is_known() {
    let dir = folder("jump");
    for (name, kind) in [("host_rsa", "rsa"), ("host_ecdsa", "ecdsa")] {
        if find("openssh-client", "ssh-keygen").is_none() {
            return;
        }
        keygen(&dir, name, kind, "");
    }
    let lines = "HostKey $D/host_rsa\nHostKey $D/host_ecdsa";
    let Some(sshd) = openssh_at(free_port(), dir, lines) else { return };
    for name in ["host", "host_rsa", "host_ecdsa"] {
        let known = HostKeys::text(format!("[localhost]:{} {}\n", sshd.port, sshd.public(name)));
        shown(&sshd, known).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        shown(&sshd, HostKeys::pinned(fingerprint(&sshd, "host"))).await.unwrap();
    }
    record("ssh", "peer", &sshd.version, "host keys of three types", 3);
    // Known by another type alone is not new.
    let rsa = openssh("HostKeyAlgorithms ssh-ed25519");
    let Some(rsa) = rsa else { return };
    let known = HostKeys::text(format!("[localhost]:{} {}\n", rsa.port, sshd.public("host_rsa"))).accept_new();
    assert_eq!(problem(&rsa, known).await.problem, HostKeyProblem::Changed);
}

#[tokio::test]
async fn host_certificates_are_taken_from_a_known_authority() {
    let dir = folder("jump");
    if find("openssh-client", "ssh-keygen").is_none() {
        return;
    }
    for name in ["ca", "host", "id"] {
        keygen(&dir, name, "ed25519", "");
    }
    let path = |name: &str| dir.join(name).display().to_string();
    let sign = |name: &str, extra: &[&str]| {
        let key = path("host.pub");
        let ca = path("ca");
        let mut args = vec!["-q", "-s", &ca, "-I", name, "-h", "-n", name];
        args.extend(extra);
        args.push(&key);
        said("ssh-keygen", &args);
    };
    sign("localhost", &[]);
    let Some(sshd) = openssh_at(free_port(), dir.clone(), "HostCertificate $D/host-cert.pub") else { return };
    let ca = HostKeys::text(format!("@cert-authority [local*]:* {}\n", sshd.public("ca")));
    shown(&sshd, ca.clone()).await.unwrap();
    record("ssh", "peer", &sshd.version, "host certificate", 1);
    let revoked = ca.clone().and_text(format!("@revoked * {}\n", sshd.public("ca")));
    assert_eq!(problem(&sshd, revoked).await.problem, HostKeyProblem::Revoked);
    // Without the authority the certificate is not asked for, and its key is unknown.
    assert_eq!(problem(&sshd, HostKeys::none()).await.problem, HostKeyProblem::Unknown);
    let other = HostKeys::text(format!("@cert-authority * {}\n", sshd.public("id")));
    assert_eq!(problem(&sshd, other).await.problem, HostKeyProblem::Certificate);
    let port = sshd.port;
    drop(sshd);
    for (name, extra) in [("elsewhere", vec![]), ("localhost", vec!["-V", "20200101:20200102"])] {
        let dir = folder("jump");
        for name in ["ca", "host", "id"] {
            keygen(&dir, name, "ed25519", "");
        }
        let (ca, key) = (dir.join("ca").display().to_string(), dir.join("host.pub").display().to_string());
        let mut args = vec!["-q", "-s", &ca, "-I", name, "-h", "-n", name];
        args.extend(extra);
        args.push(&key);
        said("ssh-keygen", &args);
        let Some(sshd) = openssh_at(port, dir, "HostCertificate $D/host-cert.pub") else { return };
        let ca = HostKeys::text(format!("@cert-authority * {}\n", sshd.public("ca")));
        assert_eq!(problem(&sshd, ca).await.problem, HostKeyProblem::Certificate, "{name}");
    }
}
