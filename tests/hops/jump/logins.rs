//! Logins: by password, key, certificate, agent and questions, and what is refused.

use portolan_core::{Error, Kind, Secret};
use portolan_remote_access::ssh::Jump;
use portolan_testbed::{Service, find, folder, free_port, record};

use super::peers::{Sshd, is_root, keygen, openssh, openssh_at, said};
use super::{net, refused};

/// Opens a tunnel to the server itself, whose greeting comes through.
async fn enter(sshd: &Sshd, jump: Jump) -> Result<(), Error> {
    use tokio::io::AsyncReadExt;
    let mut stream = net(jump).connect(&sshd.endpoint()).await?;
    let mut greeting = [0; 8];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"SSH-2.0-");
    Ok(())
}

#[tokio::test]
async fn passwords_and_questions() {
    if !is_root() {
        println!("SKIPPED: a user with a password needs root");
        return;
    }
    let Some(sshd) = openssh("") else { return };
    enter(&sshd, sshd.bare().password("sesame")).await.unwrap();
    record("ssh", "peer", &sshd.version, "password", 1);
    let asked = |secret: &'static str| {
        sshd.bare().answers(move |asked| {
            assert!(asked.prompts.is_empty() || asked.prompts == [("Password: ".to_owned(), false)]);
            Some(asked.prompts.iter().map(|_| Secret::new(secret)).collect())
        })
    };
    enter(&sshd, asked("sesame")).await.unwrap();
    record("ssh", "peer", &sshd.version, "keyboard-interactive", 1);
    for wrong in [sshd.bare().password("wrong"), asked("wrong"), sshd.bare().answers(|_| None)] {
        refused(&enter(&sshd, wrong).await.unwrap_err(), Kind::Auth);
    }
    let error = enter(&sshd, sshd.bare().password("wrong")).await.unwrap_err();
    assert!(error.message().contains("tried: password"), "{error}");
    // A wrong key, and then the password.
    keygen(sshd.server.dir(), "stranger", "ed25519", "");
    enter(&sshd, sshd.bare().key_file(sshd.path("stranger")).password("sesame")).await.unwrap();
    // The password as the answer to a question, where nothing else is taken; and both together.
    let Some(asking) = openssh("AuthenticationMethods keyboard-interactive") else { return };
    enter(&asking, asking.bare().password("sesame")).await.unwrap();
    let Some(both) = openssh("AuthenticationMethods publickey,password") else { return };
    enter(&both, both.by_key().password("sesame")).await.unwrap();
    enter(&both, both.bare().password("sesame").key_file(both.path("id"))).await.unwrap_err();
    refused(&enter(&both, both.by_key()).await.unwrap_err(), Kind::Auth);
    record("ssh", "peer", &both.version, "key and password both", 1);
}

#[tokio::test]
async fn keys_of_every_kind() {
    let dir = folder("jump");
    if find("openssh-client", "ssh-keygen").is_none() {
        return;
    }
    for (name, kind) in
        [("rsa", "rsa"), ("ecdsa", "ecdsa"), ("stranger", "ed25519"), ("ca", "ed25519"), ("signed", "ed25519")]
    {
        keygen(&dir, name, kind, "");
    }
    keygen(&dir, "locked", "ed25519", "sesame");
    let sign = |name: &str, user: &str| {
        let path = |name: &str| dir.join(name).display().to_string();
        said("ssh-keygen", &["-q", "-s", &path("ca"), "-I", "test", "-n", user, &path(&format!("{name}.pub"))]);
    };
    sign("signed", if is_root() { "ann" } else { "nobody" });
    let lines = "AuthorizedKeysFile $D/all.pub\nTrustedUserCAKeys $D/ca.pub";
    let Some(sshd) = openssh_at(free_port(), dir.clone(), lines) else { return };
    let all = ["id", "rsa", "ecdsa", "locked"].map(|name| sshd.public(name)).join("\n");
    std::fs::write(dir.join("all.pub"), all).unwrap();
    for name in ["id", "rsa", "ecdsa"] {
        enter(&sshd, sshd.bare().key_file(dir.join(name))).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let pem = std::fs::read_to_string(dir.join(name)).unwrap();
        enter(&sshd, sshd.bare().key_pem(pem)).await.unwrap();
    }
    record("ssh", "peer", &sshd.version, "ed25519, RSA and ECDSA keys", 6);
    enter(&sshd, sshd.bare().locked_key_file(dir.join("locked"), "sesame")).await.unwrap();
    if is_root() {
        enter(&sshd, sshd.bare().key_file(dir.join("signed"))).await.unwrap();
        record("ssh", "peer", &sshd.version, "user certificate", 1);
    }
    refused(&enter(&sshd, sshd.bare().key_file(dir.join("stranger"))).await.unwrap_err(), Kind::Auth);
    for broken in [
        sshd.bare().locked_key_file(dir.join("locked"), "wrong"),
        sshd.bare().key_file(dir.join("locked")),
        sshd.bare().key_file(dir.join("nowhere")),
        sshd.bare().key_file(dir.join("host.pub")),
        sshd.bare().key_pem("-----BEGIN OPENSSH PRIVATE KEY-----\nsesame\n-----END OPENSSH PRIVATE KEY-----\n"),
    ] {
        refused(&enter(&sshd, broken).await.unwrap_err(), Kind::Usage);
    }
}

#[tokio::test]
async fn the_keys_of_an_agent() {
    let Some(sshd) = openssh("MaxAuthTries 6") else { return };
    keygen(sshd.server.dir(), "stranger", "rsa", "");
    let socket = sshd.path("agent");
    let agent = Service::new("openssh-client", "ssh-agent").args(["-D", "-a", socket.to_str().unwrap()]);
    let ready = socket.clone();
    let Some(agent) = agent.probe(move |_| ready.exists()).start() else { return };
    let add = |name: &str| {
        let mut add = std::process::Command::new("ssh-add");
        let add = add.arg("-q").arg(sshd.path(name)).env("SSH_AUTH_SOCK", &socket).output().unwrap();
        assert!(add.status.success(), "{}", String::from_utf8_lossy(&add.stderr));
    };
    refused(&enter(&sshd, sshd.bare().agent(&socket)).await.unwrap_err(), Kind::Auth);
    add("stranger");
    refused(&enter(&sshd, sshd.bare().agent(&socket)).await.unwrap_err(), Kind::Auth);
    add("id");
    enter(&sshd, sshd.bare().agent(&socket)).await.unwrap();
    record("ssh", "peer", &sshd.version, "the keys of ssh-agent", 1);
    // One that is gone is one without keys.
    drop(agent);
    let error = enter(&sshd, sshd.bare().agent(&socket)).await.unwrap_err();
    refused(&error, Kind::Auth);
    enter(&sshd, sshd.bare().agent(&socket).key_file(sshd.path("id"))).await.unwrap();
}

#[tokio::test]
async fn nobody_and_too_many_tries() {
    let Some(sshd) = openssh("MaxAuthTries 2") else { return };
    let mut jump = sshd.bare();
    for at in 0..4 {
        let name = format!("stranger{at}");
        keygen(sshd.server.dir(), &name, "ed25519", "");
        jump = jump.key_file(sshd.path(&name));
    }
    // The server hangs up before all were tried: that is a refused login, and no broken connection.
    let error = enter(&sshd, jump).await.unwrap_err();
    refused(&error, Kind::Auth);
    assert!(error.message().contains("oo many"), "{error}");
    let nobody = Jump::new(sshd.endpoint(), "nobody-of-that-name").key_file(sshd.path("id"));
    let nobody = nobody.host_keys(portolan_remote_access::ssh::HostKeys::text(sshd.known()));
    refused(&enter(&sshd, nobody).await.unwrap_err(), Kind::Auth);
    for user in ["", "a\nb", &"x".repeat(5000)] {
        let jump = Jump::new(sshd.endpoint(), user).key_file(sshd.path("id"));
        assert_eq!(enter(&sshd, jump).await.unwrap_err().kind(), Kind::Usage);
    }
}
