//! A server that does what OpenSSH never would, on asyncssh: `odd.py`.

use std::io;
use std::path::Path;
use std::time::Duration;

use portolan_core::{Connector, Endpoint, Kind, Secret, Stream, Timeouts};
use portolan_remote_access::ssh::{HostKeys, Jump};
use portolan_testbed::{Server, Service, find, folder, free_port, record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::peers::keygen;
use super::{net, pass, redis, refused};

struct Odd {
    server: Server,
    port: u16,
    known: String,
    version: String,
}

fn odd() -> Option<Odd> {
    let python = "/opt/portolan-testbed/asyncssh/bin/python";
    find("openssh-client", "ssh-keygen")?;
    find("pip:asyncssh", python)?;
    let (dir, port) = (folder("odd"), free_port());
    let key = keygen(&dir, "host", "ed25519", "");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("hops/jump/odd.py");
    let args = ["-u".to_owned(), script.display().to_string(), port.to_string(), key.display().to_string()];
    let server = Service::new("pip:asyncssh", python).folder(dir).args(args).says("ready").start()?;
    let public = std::fs::read_to_string(server.dir().join("host.pub")).unwrap();
    let version = server.log().lines().find_map(|line| line.strip_prefix("ready ").map(str::to_owned)).unwrap();
    Some(Odd { server, port, known: format!("[127.0.0.1]:{port} {public}"), version })
}

impl Odd {
    fn user(&self, user: &str) -> Jump {
        let to = Endpoint::new("127.0.0.1", self.port).unwrap();
        Jump::new(to, user).host_keys(HostKeys::text(&self.known))
    }

    fn ann(&self) -> Jump {
        self.user("ann").password("sesame")
    }
}

fn to(host: &str) -> Endpoint {
    Endpoint::new(host, 1).unwrap()
}

async fn all(stream: &mut Stream) -> io::Result<String> {
    let mut data = String::new();
    stream.read_to_string(&mut data).await.map(|_| data)
}

#[tokio::test]
async fn redis_through_asyncssh() {
    let (Some((_redis, to)), Some(odd)) = (redis(), odd()) else { return };
    pass(&to, &[odd.ann().hop()], None).await.unwrap();
    record("ssh", "peer", &odd.version, "password, redis inside", 4);
    let both = odd.user("ann").answers(|asked| {
        assert_eq!((asked.name.as_str(), asked.instructions.as_str(), asked.prompts.len()), ("Login", "say both", 2));
        assert_eq!(asked.prompts[1], ("Code: ".to_owned(), true));
        Some(vec![Secret::new("sesame"), Secret::new("123456")])
    });
    pass(&to, &[both.hop()], None).await.unwrap();
    record("ssh", "peer", &odd.version, "two questions, redis inside", 4);
}

#[tokio::test]
async fn logins_that_lead_nowhere() {
    let Some(odd) = odd() else { return };
    let answers =
        |user, give: fn(usize) -> Option<Vec<Secret>>| odd.user(user).answers(move |asked| give(asked.prompts.len()));
    let enough = |count| Some(vec![Secret::new("sesame"); count]);
    let one = |_| Some(vec![Secret::new("sesame")]);
    for (what, jump, kind) in [
        ("a wrong password", odd.user("ann").password("wrong"), Kind::Auth),
        ("wrong answers", answers("ann", enough), Kind::Auth),
        ("too few answers", answers("ann", one), Kind::Usage),
        ("no answers", answers("ann", |_| None), Kind::Auth),
    ] {
        let error = net(jump).connect(&to("x")).await.unwrap_err();
        assert_eq!((error.kind(), error.hop()), (kind, Some(0)), "{what}: {error:?}");
        assert!(!format!("{error:?}").contains("sesame"), "{what}");
    }
    for user in ["endless", "many"] {
        let error = net(answers(user, enough)).connect(&to("x")).await.unwrap_err();
        refused(&error, Kind::Hop);
        assert!(error.message().contains("asks"), "{user}: {error}");
    }
    // russh does not know the message that asks for a new password: nothing comes after it.
    let limits = Timeouts::default().hop(Duration::from_secs(1));
    let expired = Connector::builder().via(odd.user("expired").password("sesame").hop()).timeouts(limits).build();
    let error = expired.unwrap().connect(&to("x")).await.unwrap_err();
    refused(&error, Kind::Timeout);
    assert!(error.message().ends_with("(logging in)"), "{error}");
    // A round without questions is answered by none.
    let mut stream = net(answers("empty", enough)).connect(&to("close")).await.unwrap();
    assert_eq!(all(&mut stream).await.unwrap(), "bye");
}

#[tokio::test]
async fn tunnels_that_end_oddly() {
    let Some(odd) = odd() else { return };
    let net = net(odd.ann());
    for (host, code) in [("prohibited", 2), ("unknown", 3), ("short", 4), ("custom", 77)] {
        let error = net.connect(&to(host)).await.unwrap_err();
        refused(&error, Kind::Hop);
        assert!(error.code() == Some(code) || code == 77 && error.code() == Some(1), "{host}: {error:?}");
        assert!(error.message().len() < 400 && !error.message().contains(|c: char| c.is_control()), "{host}: {error}");
    }
    // Closed without an end said before: the end all the same, and nobody takes what is written.
    let mut stream = net.connect(&to("close")).await.unwrap();
    assert_eq!(all(&mut stream).await.unwrap(), "bye");
    let refused = async {
        loop {
            if let Err(error) = stream.write_all(b"more").await {
                return error;
            }
            tokio::task::yield_now().await;
        }
    };
    let refused = tokio::time::timeout(Duration::from_secs(5), refused).await.unwrap();
    assert_eq!(refused.kind(), io::ErrorKind::BrokenPipe);
    for (host, said) in [("opens", "refused 50"), ("keepalives", "there")] {
        let mut stream = net.connect(&to(host)).await.unwrap();
        assert_eq!(all(&mut stream).await.unwrap(), said, "{host}");
        assert!(stream.info().hops[0].reused, "{host}");
    }
    // The whole connection: an error, and the next call makes another one.
    let mut stream = net.connect(&to("abort")).await.unwrap();
    let error = all(&mut stream).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
    let stream = net.connect(&to("close")).await.unwrap();
    assert!(!stream.info().hops[0].reused);
    assert!(!odd.server.log().contains("Traceback"), "{}", odd.server.log());
    record("ssh", "peer", &odd.version, "tunnels that end oddly", 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_that_is_never_answered_ends_at_the_deadline() {
    let Some(odd) = odd() else { return };
    let limits = Timeouts::default().hop(Duration::from_millis(800));
    let net = Connector::builder().via(odd.ann().hop()).timeouts(limits).build().unwrap();
    let late = net.connect(&to("silent")).await.unwrap_err();
    refused(&late, Kind::Timeout);
    assert!(late.message().ends_with("(the tunnel was asked for)"), "{late}");
    let stream = net.connect(&to("close")).await.unwrap();
    assert!(!stream.info().hops[0].reused, "a server that owes an answer is not asked again at once");
    // Many that are given up, some before they begin: the others are not harmed.
    for millis in [0, 1, 5, 50] {
        let tired = Duration::from_millis(millis);
        assert!(tokio::time::timeout(tired, net.connect(&to("silent"))).await.is_err());
    }
    let mut stream = net.connect(&to("close")).await.unwrap();
    assert_eq!(all(&mut stream).await.unwrap(), "bye");
}
