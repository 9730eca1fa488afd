//! Handshakes with proxies that cut, stall, trickle and lie: each a typed error that names the hop, never a silent way round.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "these are tests, and they are the peer")]

use std::time::Duration;

use portolan_core::{Connector, Credentials, Delivery, Endpoint, Error, Hop, Kind, Phase, Stream, Timeouts};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// What the proxy waits for, in bytes, and what it answers.
type Script = Vec<(usize, Vec<u8>)>;

#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Whole,
    /// One byte in a segment of its own.
    Drops,
    Cut(usize),
    Stall(usize),
    /// A byte each 40 milliseconds.
    Trickle,
}

/// Plays `script` to one caller, then repeats what it hears.
async fn proxy(script: Script, manner: Manner) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let mut said = 0;
        for (expected, answer) in script {
            stream.read_exact(&mut vec![0; expected]).await?;
            for byte in answer {
                match manner {
                    Manner::Cut(at) if at == said => return Ok(()),
                    Manner::Stall(at) if at == said => {
                        while stream.read(&mut [0; 64]).await? > 0 {}
                        return Ok(());
                    }
                    Manner::Drops => tokio::task::yield_now().await,
                    Manner::Trickle => tokio::time::sleep(Duration::from_millis(40)).await,
                    _ => {}
                }
                stream.write_all(&[byte]).await?;
                said += 1;
            }
        }
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.map(|_| ())
    });
    port
}

fn hop(kind: &str, port: u16) -> Hop {
    let hop = Hop::parse(&format!("{kind}://127.0.0.1:{port}")).unwrap();
    if kind.ends_with("5h") { hop.credentials(Credentials::new("ann", "sesame")) } else { hop }
}

fn target() -> Endpoint {
    Endpoint::new("target.test", 25).unwrap()
}

async fn through(hop: Hop) -> Result<Stream, Error> {
    let short = Timeouts::default().hop(Duration::from_millis(150));
    Connector::builder().via(hop).timeouts(short).build().unwrap().connect(&target()).await
}

/// Each kind with its good conversation. The sizes are those of the requests for `target.test:25`.
fn kinds() -> Vec<(&'static str, Script)> {
    let connect = "CONNECT target.test:25 HTTP/1.1\r\nHost: target.test:25\r\n\r\n".len();
    vec![
        ("http", vec![(connect, b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n".to_vec())]),
        ("socks4a", vec![(9 + "target.test\0".len(), vec![0, 90, 0, 0, 0, 0, 0, 0])]),
        (
            "socks5h",
            vec![
                (4, vec![5, 2]),
                (3 + "annsesame".len(), vec![1, 0]),
                (5 + "target.test".len() + 2, vec![5, 0, 0, 3, 4, b'b', b'o', b'x', b'y', 0, 9]),
            ],
        ),
    ]
}

async fn echoes(mut stream: Stream) {
    let mut seen = [0; 4];
    stream.write_all(b"ahoy").await.unwrap();
    stream.read_exact(&mut seen).await.unwrap();
    assert_eq!(&seen, b"ahoy");
}

#[tokio::test]
async fn a_good_handshake_passes_in_one_piece_and_in_drops() {
    for (kind, script) in kinds() {
        for manner in [Manner::Whole, Manner::Drops] {
            let stream = through(hop(kind, proxy(script.clone(), manner).await)).await;
            let stream = stream.unwrap_or_else(|error| panic!("{kind}: {error:?}"));
            assert_eq!(stream.info().hops[0].kind, kind);
            echoes(stream).await;
        }
    }
}

#[tokio::test]
async fn a_handshake_cut_or_stalled_at_any_byte_names_the_hop() {
    for (kind, script) in kinds() {
        let length: usize = script.iter().map(|(_, answer)| answer.len()).sum();
        for at in 0..length {
            let cut = through(hop(kind, proxy(script.clone(), Manner::Cut(at)).await)).await.unwrap_err();
            assert_eq!(
                (cut.kind(), cut.hop(), cut.delivery()),
                (Kind::Hop, Some(0), Delivery::NotSent),
                "{kind} {at}: {cut:?}"
            );
            assert!(!format!("{cut:?}").contains("sesame"));
        }
        let stalls = (0..length).map(|at| {
            let script = script.clone();
            async move { (at, through(hop(kind, proxy(script, Manner::Stall(at)).await)).await.unwrap_err()) }
        });
        for (at, stalled) in futures_util::future::join_all(stalls).await {
            let seen = (stalled.kind(), stalled.phase(), stalled.hop());
            assert_eq!(seen, (Kind::Timeout, Some(Phase::Hop), Some(0)), "{kind} {at}: {stalled:?}");
        }
    }
}

#[tokio::test]
async fn a_trickle_is_ended_by_the_deadline_of_the_hop() {
    for (kind, script) in kinds() {
        let error = through(hop(kind, proxy(script, Manner::Trickle).await)).await.unwrap_err();
        assert_eq!((error.kind(), error.phase(), error.hop()), (Kind::Timeout, Some(Phase::Hop), Some(0)), "{kind}");
    }
}

#[tokio::test]
async fn socks4_tells_its_refusals_apart() {
    let request = kinds()[1].1[0].0;
    for (reply, code, words) in [
        ([0, 91], Some(91), "rejected"),
        ([0, 92], Some(92), "no identd"),
        ([0, 93], Some(93), "another user"),
        ([0, 94], Some(94), "unknown"),
        ([4, 90], None, "begins with 0, saw 4"),
        ([5, 0], None, "begins with 0, saw 5"),
    ] {
        let script = vec![(request, [&reply[..], &[0; 6]].concat())];
        let error = through(hop("socks4a", proxy(script, Manner::Whole).await)).await.unwrap_err();
        assert_eq!((error.kind(), error.code(), error.hop()), (Kind::Hop, code, Some(0)), "{error:?}");
        assert!(error.message().contains(words), "{error}");
    }
}

#[tokio::test]
async fn what_comes_with_the_answer_belongs_to_the_target() {
    for (kind, mut script) in kinds() {
        script.last_mut().unwrap().1.extend_from_slice(b"220 greeting\r\n");
        let mut stream = through(hop(kind, proxy(script, Manner::Whole).await)).await.unwrap();
        let mut greeting = [0; 14];
        stream.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"220 greeting\r\n", "{kind}");
    }
}

#[tokio::test]
async fn lies_and_refusals_are_told_apart() {
    let connect = kinds()[0].1[0].0;
    for (answer, kind, code, words) in [
        (&b"HTTP/2 200\r\n\r\n"[..], None, None, ""),
        (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 ok\r\n\r\n", None, None, ""),
        (
            b"HTTP/1.1 407 no\r\nProxy-Authenticate: NTLM\r\nproxy-authenticate: Digest realm=\"x\"\r\n\r\n",
            Some(Kind::Auth),
            Some(407),
            "NTLM, Digest",
        ),
        (
            b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\n\r\nno\x07pe",
            Some(Kind::Hop),
            Some(502),
            "502 Bad Gateway: no pe",
        ),
        (b"SSH-2.0-OpenSSH\r\n\r\n", Some(Kind::Hop), None, "expected an HTTP status line"),
        // A greeting is known for what it is before the deadline, though no empty line ever comes.
        (b"SSH-2.0-OpenSSH\r\n", Some(Kind::Hop), None, "saw \"SSH-2.0-OpenSSH\""),
        (b"\x15\x03\x01", Some(Kind::Hop), None, "expected an HTTP status line"),
        (b"HTTP/1.1 20x\r\n\r\n", Some(Kind::Hop), None, "expected an HTTP status line"),
    ] {
        let result = through(hop("http", proxy(vec![(connect, answer.to_vec())], Manner::Whole).await)).await;
        match (kind, result) {
            (None, result) => echoes(result.unwrap()).await,
            (Some(kind), result) => {
                let error = result.unwrap_err();
                assert_eq!((error.kind(), error.code(), error.hop()), (kind, code, Some(0)), "{error:?}");
                assert!(error.message().contains(words), "{error:?}");
            }
        }
    }
    let endless = [b"HTTP/1.1 200 ok\r\n".to_vec(), b"X: y\r\n".repeat(20_000)].concat();
    let error = through(hop("http", proxy(vec![(connect, endless)], Manner::Whole).await)).await.unwrap_err();
    assert!(error.kind() == Kind::Hop || error.is_timeout(), "{error:?}");
    let socks = |answers: Vec<(usize, Vec<u8>)>| async move {
        through(hop("socks5h", proxy(answers, Manner::Whole).await)).await.unwrap_err()
    };
    let wrong_version = socks(vec![(4, vec![4, 90])]).await;
    assert!(
        wrong_version.kind() == Kind::Hop && wrong_version.message().contains("expected SOCKS version 5, saw 4"),
        "{wrong_version:?}"
    );
    assert_eq!(socks(vec![(4, vec![5, 0xff])]).await.kind(), Kind::Auth);
    assert_eq!(socks(vec![(4, vec![5, 1])]).await.kind(), Kind::Hop);
    assert_eq!(socks(vec![(4, vec![5, 2]), (12, vec![1, 9])]).await.code(), Some(9));
    for code in 1..=9 {
        let refused = socks(vec![(4, vec![5, 0]), (18, vec![5, code, 0, 1, 0, 0, 0, 0, 0, 0])]).await;
        assert_eq!((refused.kind(), refused.code()), (Kind::Hop, Some(i64::from(code))));
    }
}

#[tokio::test]
async fn the_callers_mistakes_are_found_before_a_byte_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let long = "x".repeat(256);
    for (hop, kind) in [
        (hop("socks5", port).credentials(Credentials::new(long.clone(), "pw")), Kind::Usage),
        (hop("socks5", port).credentials(Credentials::new("", "pw")), Kind::Usage),
        (hop("socks4a", port).credentials(Credentials::new("a\0b", "")), Kind::Usage),
    ] {
        let error = through(hop).await.unwrap_err();
        assert_eq!((error.kind(), error.hop()), (kind, Some(0)));
    }
    assert!(tokio::time::timeout(Duration::from_millis(50), listener.accept()).await.is_err());
    assert!(hop("http", port).header("X", "a\r\nEvil: yes").is_err());
    assert!(hop("http", port).header("X Y", "a").is_err());
    for bad in ["ftp://p:1", "http://p:1/path", "socks5://", "proxy:1"] {
        assert!(Hop::parse(bad).is_err(), "{bad}");
    }
    let v6 = Connector::builder().via(hop("socks4", port)).build().unwrap();
    let error = v6.connect(&Endpoint::new("[2001:db8::1]", 1).unwrap()).await.unwrap_err();
    assert_eq!((error.kind(), error.hop()), (Kind::Unsupported, Some(0)));
}
