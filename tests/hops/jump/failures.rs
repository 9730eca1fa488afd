//! What a jump host, or something in its place, can do wrong.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use portolan_core::{Connector, Delivery, Endpoint, Error, Kind, Timeouts};
use portolan_remote_access::ssh::{HostKeys, Jump};
use portolan_testbed::rogue::{Rogue, Script};
use portolan_testbed::{free_port, record};

use super::peers::{Sshd, Tamper, openssh, relay, target};
use super::{net, refused};

/// Connects through the server, reached by `port`, within a second and a half.
async fn enter(sshd: &Sshd, port: u16, to: &Endpoint) -> Result<(), Error> {
    enter_within(Duration::from_millis(1500), sshd, port, to).await
}

async fn enter_within(limit: Duration, sshd: &Sshd, port: u16, to: &Endpoint) -> Result<(), Error> {
    let jump = Jump::new(Endpoint::new("127.0.0.1", port).unwrap(), &sshd.user).key_file(sshd.path("id"));
    let known = format!("[127.0.0.1]:{port} {}\n", sshd.public("host"));
    let limits = Timeouts::default().hop(limit);
    let net = Connector::builder().via(jump.host_keys(HostKeys::text(known)).hop()).timeouts(limits).build()?;
    net.connect(to).await.map(drop)
}

#[tokio::test]
async fn a_refused_tunnel_says_why() {
    let Some(sshd) = openssh("") else { return };
    let net_ = net(sshd.by_key());
    let nobody = Endpoint::new("127.0.0.1", free_port()).unwrap();
    let error = net_.connect(&nobody).await.unwrap_err();
    refused(&error, Kind::Hop);
    assert_eq!(error.code(), Some(2));
    assert!(error.message().contains("Connection refused"), "{error}");
    let unresolved = net_.connect(&Endpoint::new("nobody.invalid", 1).unwrap()).await.unwrap_err();
    refused(&unresolved, Kind::Hop);
    assert_eq!(unresolved.code(), Some(2), "{unresolved:?}");
    // The connection has taken no harm.
    net_.connect(&sshd.endpoint()).await.unwrap();
    assert_eq!(sshd.logins(), 1);
    record("ssh", "peer", &sshd.version, "tunnels refused: nobody there, no such name", 2);
    let Some(strict) = openssh("PermitOpen 127.0.0.1:1") else { return };
    let error = net(strict.by_key()).connect(&strict.endpoint()).await.unwrap_err();
    refused(&error, Kind::Hop);
    assert_eq!(error.code(), Some(1), "{error:?}");
    record("ssh", "peer", &strict.version, "tunnels refused: PermitOpen", 1);
}

#[tokio::test]
async fn addresses_of_both_families_and_long_names() {
    let Some(sshd) = openssh("") else { return };
    let listener = tokio::net::TcpListener::bind("[::1]:0").await;
    if let Ok(listener) = listener {
        let to: Endpoint = listener.local_addr().unwrap().into();
        let (stream, accepted) = (net(sshd.by_key()), listener.accept());
        let (stream, accepted) = tokio::join!(stream.connect(&to), accepted);
        stream.unwrap();
        accepted.unwrap();
    }
    let long = ["x".repeat(63), "y".repeat(63), "z".repeat(63), "w".repeat(61)].join(".");
    let error = net(sshd.by_key()).connect(&Endpoint::new(long, 80).unwrap()).await.unwrap_err();
    refused(&error, Kind::Hop);
}

#[tokio::test]
async fn what_is_no_ssh_server() {
    let Some(sshd) = openssh("") else { return };
    let nobody = enter(&sshd, free_port(), &sshd.endpoint()).await.unwrap_err();
    assert_eq!((nobody.kind(), nobody.hop()), (Kind::Hop, Some(0)), "{nobody:?}");
    for (what, script, kind) in [
        ("closes at once", Script::new().close(), Kind::Hop),
        ("resets", Script::new().reset(), Kind::Hop),
        ("says nothing", Script::new().stall(), Kind::Timeout),
        ("speaks HTTP", Script::new().send("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").close(), Kind::Hop),
        ("says bytes", Script::new().send([0, 1, 2, 3, 255, 254, 10, 13, 0]).close(), Kind::Hop),
        ("a line without end", Script::new().flood("x", 10 << 20).stall(), Kind::Hop),
        ("lines without end", Script::new().flood("welcome\r\n", 10 << 20).stall(), Kind::Hop),
        ("SSH 1", Script::new().send("SSH-1.5-old\r\n").stall(), Kind::Timeout),
        ("a banner and no more", Script::new().send("SSH-2.0-x\r\n").stall(), Kind::Timeout),
        ("a banner and zeros", Script::new().send("SSH-2.0-x\r\n").flood([0], 1 << 20).stall(), Kind::Hop),
        ("a packet of 4 GiB", Script::new().send("SSH-2.0-x\r\n\u{7f}\u{7f}\u{7f}\u{7f}").stall(), Kind::Hop),
    ] {
        let rogue = Rogue::tcp(script).await;
        let began = Instant::now();
        let error = enter(&sshd, rogue.addr().port(), &sshd.endpoint()).await.unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(4), "{what}: {:?}", began.elapsed());
        assert_eq!((error.kind(), error.hop()), (kind, Some(0)), "{what}: {error:?}");
    }
}

#[tokio::test]
async fn lines_before_the_version_are_passed_over() {
    let Some(sshd) = openssh("") else { return };
    let port = sshd.port;
    let front = target(move |mut socket| async move {
        use tokio::io::AsyncWriteExt;
        let mut server = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
        socket.write_all(b"authorized use only\r\nall is written down\n").await?;
        tokio::io::copy_bidirectional(&mut socket, &mut server).await.map(drop)
    });
    enter(&sshd, front.await.port(), &sshd.endpoint()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_is_cut_at_any_byte_is_an_error_in_time() {
    let Some(sshd) = openssh("UseDNS no") else { return };
    let to = sshd.endpoint();
    let cuts = (0..20_000).map(|at| {
        let (sshd, to) = (&sshd, &to);
        async move {
            let port = relay(sshd.port, Tamper::Cut(at)).await;
            (at, enter_within(Duration::from_secs(20), sshd, port, to).await)
        }
    });
    // Until the handshake is whole.
    let mut cuts = futures_util::stream::iter(cuts).buffered(8);
    let mut end = 0;
    while let Some((at, result)) = cuts.next().await {
        end = at;
        let Err(error) = result else { break };
        assert!(matches!(error.kind(), Kind::Hop | Kind::Auth), "cut at {at}: {error:?}");
        assert_eq!((error.hop(), error.delivery()), (Some(0), Delivery::NotSent), "cut at {at}: {error:?}");
    }
    drop(cuts);
    assert!((1000..19_999).contains(&end), "{end}");
    record("ssh", "faults", &sshd.version, "cut at each byte of the handshake", end as u64);
    for at in (0..end).step_by(end / 12) {
        for tamper in [Tamper::Stall(at), Tamper::Flip(at)] {
            let port = relay(sshd.port, tamper).await;
            let began = Instant::now();
            // A byte of a comment or of padding may be any; whatever else is turned over is found out.
            let result = enter(&sshd, port, &to).await;
            assert!(began.elapsed() < Duration::from_secs(4), "{at}");
            if let Err(error) = result {
                assert!(
                    matches!(error.kind(), Kind::Hop | Kind::Auth | Kind::Timeout | Kind::Unsupported),
                    "{at}: {error:?}"
                );
                assert_eq!(error.hop(), Some(0), "{at}: {error:?}");
            } else {
                assert!(matches!(tamper, Tamper::Flip(_)), "stalled at {at}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_trickle_passes_or_ends_at_the_deadline() {
    let Some(sshd) = openssh("") else { return };
    let fast = relay(sshd.port, Tamper::Trickle(Duration::ZERO)).await;
    enter(&sshd, fast, &sshd.endpoint()).await.unwrap();
    let slow = relay(sshd.port, Tamper::Trickle(Duration::from_millis(20))).await;
    let error = enter(&sshd, slow, &sshd.endpoint()).await.unwrap_err();
    refused(&error, Kind::Timeout);
    assert!(error.message().ends_with("(keys were exchanged)"), "{error}");
}
