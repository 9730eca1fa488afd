//! What goes through tunnels: many on one connection, slow readers, half-closes, connections that die.

use std::time::Duration;

use portolan_core::{Endpoint, Kind, Stream, clock};
use portolan_testbed::record;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::net;
use super::peers::{Sshd, openssh, openssh_at, target};

const MUCH: usize = 24 << 20;

fn pattern(at: usize) -> u8 {
    (at % 251) as u8
}

/// `MUCH` bytes of it, made once.
fn much() -> &'static [u8] {
    static DATA: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    DATA.get_or_init(|| (0..MUCH).map(pattern).collect())
}

/// Sends `MUCH` bytes to whoever comes, after the byte that it is asked with.
async fn source() -> Endpoint {
    let addr = target(|mut socket| async move {
        let mut byte = [0];
        socket.read_exact(&mut byte).await?;
        socket.write_all(much()).await
    });
    addr.await.into()
}

async fn drain(stream: &mut Stream) -> usize {
    let (mut seen, mut data) = (0, vec![0; 64 << 10]);
    loop {
        let n = stream.read(&mut data).await.unwrap();
        if n == 0 {
            return seen;
        }
        assert!(data[..n] == much()[seen..seen + n], "at {seen}");
        seen += n;
    }
}

/// Sends back what comes, once it has ended.
async fn echo() -> Endpoint {
    let addr = target(|mut socket| async move {
        let mut all = Vec::new();
        socket.read_to_end(&mut all).await?;
        socket.write_all(&all).await?;
        socket.shutdown().await
    });
    addr.await.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tunnels_share_one_connection() {
    let Some(sshd) = openssh("") else { return };
    let (net, to) = (net(sshd.by_key()), echo().await);
    let mut tasks = tokio::task::JoinSet::new();
    for at in 0..40_usize {
        let (net, to) = (net.clone(), to.clone());
        tasks.spawn(async move {
            let mut stream = net.connect(&to).await.unwrap();
            let said: Vec<u8> = (0..20_000 + at * 100).map(|byte| pattern(byte + at)).collect();
            stream.write_all(&said).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).await.unwrap();
            assert!(heard == said);
            let hop = &stream.info().hops[0];
            (hop.kind, hop.reused)
        });
    }
    let hops = tasks.join_all().await;
    assert_eq!(hops.iter().filter(|hop| **hop == ("ssh", false)).count(), 1);
    assert_eq!(sshd.logins(), 1, "{}", sshd.server.log());
    record("ssh", "peer", &sshd.version, "40 tunnels on one connection, half-closed", 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_pauses_loses_nothing() {
    let Some(sshd) = openssh("") else { return };
    let net = net(sshd.by_key().window(256 << 10).stall_limit(Duration::from_millis(500)));
    let mut slow = net.connect(&source().await).await.unwrap();
    slow.write_all(b"?").await.unwrap();
    clock::sleep(Duration::from_secs(2)).await;
    assert_eq!(drain(&mut slow).await, MUCH);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_that_nobody_reads_cannot_hold_up_the_others_for_ever() {
    let Some(sshd) = openssh("") else { return };
    let net = net(sshd.by_key().window(256 << 10).stall_limit(Duration::from_secs(4)));
    let (to, echo) = (source().await, echo().await);
    let mut before = net.connect(&echo).await.unwrap();
    let mut unread = net.connect(&to).await.unwrap();
    assert!(unread.info().hops[0].reused && much().len() == MUCH);
    unread.write_all(b"?").await.unwrap();
    clock::sleep(Duration::from_millis(500)).await;
    // Whoever comes while it stalls takes a connection of its own.
    let mut after = net.connect(&echo).await.unwrap();
    while after.info().hops[0].reused {
        clock::sleep(Duration::from_millis(50)).await;
        after = net.connect(&echo).await.unwrap();
    }
    after.write_all(b"new").await.unwrap();
    after.shutdown().await.unwrap();
    let mut heard = String::new();
    after.read_to_string(&mut heard).await.unwrap();
    assert_eq!((heard.as_str(), sshd.logins()), ("new", 2));
    // Who was there already waits until the stalled one is ended.
    before.write_all(b"old").await.unwrap();
    before.shutdown().await.unwrap();
    heard.clear();
    tokio::time::timeout(Duration::from_secs(10), before.read_to_string(&mut heard)).await.unwrap().unwrap();
    assert_eq!(heard, "old");
    // It gives what had come, and then says why there is no more.
    let mut data = Vec::new();
    let error = unread.read_to_end(&mut data).await.unwrap_err();
    assert!(data.len() >= 256 << 10 && data.len() < MUCH && error.to_string().contains("not read"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tunnels_apart_do_not_wait_for_each_other() {
    let Some(sshd) = openssh("") else { return };
    let net = net(sshd.by_key().tunnels_per_connection(1).window(256 << 10).stall_limit(Duration::from_secs(2)));
    // What one sends faster than the other takes is copied whole.
    let slow = target(|mut socket| async move {
        let (mut seen, mut data) = (0, vec![0; 1 << 20]);
        while let Ok(n @ 1..) = socket.read(&mut data).await {
            seen += n;
            clock::sleep(Duration::from_millis(20)).await;
        }
        socket.write_all(format!("{seen}").as_bytes()).await
    });
    let mut from = net.connect(&source().await).await.unwrap();
    let mut into = net.connect(&slow.await.into()).await.unwrap();
    let mut unread = Vec::new();
    for _ in 0..10 {
        let mut one = net.connect(&source().await).await.unwrap();
        one.write_all(b"?").await.unwrap();
        unread.push(one);
    }
    from.write_all(b"?").await.unwrap();
    let copied = tokio::io::copy(&mut from, &mut into).await.unwrap();
    into.shutdown().await.unwrap();
    let mut said = String::new();
    into.read_to_string(&mut said).await.unwrap();
    assert_eq!((copied as usize, said), (MUCH, MUCH.to_string()));
    assert_eq!(sshd.logins(), 12);
    for one in &mut unread {
        assert_eq!(drain(one).await, MUCH);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_wait_for_the_window_of_the_peer() {
    let Some(sshd) = openssh("") else { return };
    // The target reads nothing until it is told: every window on the way is exhausted.
    let told = std::sync::Arc::new(tokio::sync::Notify::new());
    let tell = told.clone();
    let addr = target(move |mut socket| {
        let told = told.clone();
        async move {
            told.notified().await;
            let mut all = Vec::new();
            socket.read_to_end(&mut all).await?;
            socket.write_all(if all == much() { b"whole" } else { b"wrong" }).await
        }
    });
    let mut stream = net(sshd.by_key()).connect(&addr.await.into()).await.unwrap();
    let mut write = std::pin::pin!(stream.write_all(much()));
    let early = tokio::time::timeout(Duration::from_secs(1), &mut write).await;
    assert!(early.is_err(), "24 MiB fit nowhere");
    tell.notify_one();
    write.await.unwrap();
    stream.shutdown().await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "whole");
    record("ssh", "peer", &sshd.version, "24 MiB against an exhausted window", 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_dropped_still_says_what_was_written() {
    let Some(sshd) = openssh("") else { return };
    let (told, mut heard) = tokio::sync::mpsc::channel(1);
    let addr = target(move |mut socket| {
        let told = told.clone();
        async move {
            let mut all = Vec::new();
            socket.read_to_end(&mut all).await?;
            told.send(all.len()).await.unwrap();
            Ok(())
        }
    });
    let net = net(sshd.by_key());
    let mut stream = net.connect(&addr.await.into()).await.unwrap();
    stream.write_all(&vec![7; 300_000]).await.unwrap();
    drop(stream);
    let seen = tokio::time::timeout(Duration::from_secs(10), heard.recv()).await.unwrap();
    assert_eq!(seen, Some(300_000));
}

async fn greeting(net: &portolan_core::Connector, sshd: &Sshd) -> portolan_core::Result<bool> {
    let mut stream = net.connect(&sshd.endpoint()).await?;
    let mut greeting = [0; 4];
    stream
        .read_exact(&mut greeting)
        .await
        .map_err(|error| portolan_core::Error::io(portolan_core::Phase::Idle, error))?;
    Ok(stream.info().hops[0].reused)
}

/// Signals the server's side of each connection; the listener is left alone.
fn signal_sessions(sshd: &Sshd, signal: &str) {
    let processes = super::said("ps", &["-eo", "pid,ppid"]);
    let mut parents = vec![sshd.server.id().to_string()];
    while let Some(parent) = parents.pop() {
        for line in processes.lines() {
            let mut numbers = line.split_whitespace();
            let (pid, of) = (numbers.next().unwrap(), numbers.next().unwrap());
            if of == parent {
                // It may have ended by itself meanwhile.
                let _ = std::process::Command::new("kill").args([signal, pid]).output().unwrap();
                parents.push(pid.to_owned());
            }
        }
    }
}

/// As when a host goes down.
fn kill_sessions(sshd: &Sshd) {
    signal_sessions(sshd, "-KILL");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_falls_silent_is_found_out() {
    let Some(sshd) = openssh("") else { return };
    let keepalive = Duration::from_millis(300);
    let limits = portolan_core::Timeouts::default().hop(Duration::from_millis(700));
    let net = portolan_core::Connector::builder().via(sshd.by_key().keepalive(keepalive).hop()).timeouts(limits);
    let net = net.build().unwrap();
    let mut stream = net.connect(&echo().await).await.unwrap();
    // Silence alone is none: the server answers what it is asked.
    clock::sleep(Duration::from_secs(3)).await;
    stream.write_all(b"still").await.unwrap();
    signal_sessions(&sshd, "-STOP");
    // A tunnel that is asked for meanwhile waits no longer than its deadline, and the next one takes another connection.
    let late = net.connect(&sshd.endpoint()).await.unwrap_err();
    assert_eq!((late.kind(), late.hop()), (Kind::Timeout, Some(0)), "{late:?}");
    assert!(!greeting(&net, &sshd).await.unwrap());
    let began = std::time::Instant::now();
    let mut data = Vec::new();
    let error = stream.read_to_end(&mut data).await.unwrap_err();
    assert!(error.to_string().contains("no longer answers"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5));
    signal_sessions(&sshd, "-CONT");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_made_anew_in_mid_stream() {
    let Some(sshd) = openssh("RekeyLimit 1M") else { return };
    let mut stream = net(sshd.by_key()).connect(&source().await).await.unwrap();
    stream.write_all(b"?").await.unwrap();
    assert_eq!(drain(&mut stream).await, MUCH);
    let mut stream = net(sshd.by_key()).connect(&echo().await).await.unwrap();
    stream.write_all(much()).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(drain(&mut stream).await, MUCH);
    record("ssh", "peer", &sshd.version, "rekeyed each MiB", 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_died_is_made_anew_and_cuts_what_it_carried() {
    let Some(sshd) = openssh("") else { return };
    let net = net(sshd.by_key());
    assert!(!greeting(&net, &sshd).await.unwrap());
    assert!(greeting(&net, &sshd).await.unwrap());
    let mut open = net.connect(&source().await).await.unwrap();
    open.write_all(b"?").await.unwrap();
    let mut some = [0; 100];
    open.read_exact(&mut some).await.unwrap();
    kill_sessions(&sshd);
    let mut rest = Vec::new();
    // A cut is an error and no end.
    let error = open.read_to_end(&mut rest).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error:?}");
    assert!(rest.len() < MUCH);
    assert!(!greeting(&net, &sshd).await.unwrap());
    assert_eq!(sshd.logins(), 2, "{}", sshd.server.log());
    // And when the whole server comes back.
    kill_sessions(&sshd);
    let (port, dir) = (sshd.port, sshd.server.stop());
    let gone = net.connect(&Endpoint::new("localhost", port).unwrap()).await.unwrap_err();
    assert_eq!((gone.kind(), gone.hop()), (Kind::Hop, Some(0)), "{gone:?}");
    std::fs::remove_file(dir.join("log")).unwrap();
    let Some(sshd) = openssh_at(port, dir, "") else { return };
    assert!(!greeting(&net, &sshd).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_is_closed() {
    let Some(sshd) = openssh("") else { return };
    let net = net(sshd.by_key().idle(Duration::from_millis(300)));
    let held = net.connect(&sshd.endpoint()).await.unwrap();
    clock::sleep(Duration::from_millis(900)).await;
    assert!(greeting(&net, &sshd).await.unwrap(), "a tunnel keeps it");
    drop(held);
    clock::sleep(Duration::from_millis(900)).await;
    assert!(!greeting(&net, &sshd).await.unwrap());
    assert_eq!(sshd.logins(), 2);
}
