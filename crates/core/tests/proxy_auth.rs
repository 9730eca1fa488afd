//! Proxies that ask for proof in every way that there is to ask, and never let anybody through or around.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "these are tests, and they are the peer")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use portolan_core::{Connector, Credentials, Endpoint, Error, Hop, Kind, Phase, ProxyAuth, Stream, Timeouts};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// One request as the proxy saw it: on which of its connections, and with which proof.
type Asked = (usize, Option<String>);

/// What a proxy says to a request, and whether it closes then.
struct Says(Vec<u8>, bool);

fn stays(text: impl Into<Vec<u8>>) -> Says {
    Says(text.into(), false)
}

fn closes(text: impl Into<Vec<u8>>) -> Says {
    Says(text.into(), true)
}

struct Proxy {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    trap: TcpListener,
}

impl Proxy {
    /// Answers each request as `answer` says, which is given the proof and how many requests came before.
    async fn new(answer: impl Fn(Option<&str>, usize) -> Says + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (asked.clone(), Arc::new(answer));
        tokio::spawn(async move {
            let mut connection = 0;
            while let Ok((mut stream, _)) = listener.accept().await {
                connection += 1;
                let (seen, answer) = (seen.clone(), answer.clone());
                tokio::spawn(async move {
                    loop {
                        let mut head = Vec::new();
                        while !head.ends_with(b"\r\n\r\n") {
                            head.push(stream.read_u8().await?);
                        }
                        let head = String::from_utf8_lossy(&head).into_owned();
                        let proof = head.lines().find_map(|line| line.strip_prefix("Proxy-Authorization: "));
                        let before = {
                            let mut seen: std::sync::MutexGuard<'_, Vec<Asked>> = seen.lock().unwrap();
                            seen.push((connection, proof.map(str::to_owned)));
                            seen.len() - 1
                        };
                        let Says(text, close) = answer(proof, before);
                        stream.write_all(&text).await?;
                        if close {
                            return Ok::<_, std::io::Error>(());
                        }
                    }
                });
            }
        });
        Self { port, asked, trap: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    async fn through(&self, auth: ProxyAuth) -> Result<Stream, Error> {
        let hop = Hop::parse(&format!("http://127.0.0.1:{}", self.port)).unwrap().auth(auth);
        let short = Timeouts::default().hop(Duration::from_secs(8));
        let to = Endpoint::from(self.trap.local_addr().unwrap());
        Connector::builder().via(hop).timeouts(short).build().unwrap().connect(&to).await
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// The error of a login that failed at this hop, with nobody gone around it.
    async fn refused(&self, auth: ProxyAuth) -> Error {
        let error = self.through(auth).await.unwrap_err();
        assert_eq!((error.kind(), error.phase(), error.hop()), (Kind::Auth, Some(Phase::Hop), Some(0)), "{error:?}");
        assert!(!format!("{error:?} {error}").contains("sesame"));
        let around = tokio::time::timeout(Duration::from_millis(20), self.trap.accept()).await;
        assert!(around.is_err(), "the target was reached around the proxy");
        error
    }
}

fn ann() -> Credentials {
    Credentials::new("ann", "sesame")
}

const OK: &str = "HTTP/1.1 200 ok\r\n\r\n";
const DIGEST: &str = "Proxy-Authenticate: Digest realm=\"r\", nonce=\"n\", qop=\"auth\"\r\n";

#[tokio::test]
async fn of_several_challenges_the_strongest_is_answered() {
    let offers = "HTTP/1.1 407 who?\r\nProxy-Authenticate: Basic realm=\"r\", Digest realm=\"r\", nonce=\"md5\", qop=\"auth\", algorithm=MD5\r\n\
        proxy-authenticate: Digest realm=\"r\", nonce=\"unknown\", qop=\"auth\", algorithm=SHA3-512\r\n\
        Proxy-Authenticate: Digest realm=\"r\", nonce=\"best\", qop=\"auth\", algorithm=SHA-256-sess, NTLM\r\nContent-Length: 0\r\n\r\n";
    let proxy = Proxy::new(move |proof, _| match proof {
        Some(proof) if proof.contains("nonce=\"best\"") && proof.contains("uri=\"127.0.0.1:") => stays(OK),
        _ => stays(offers),
    })
    .await;
    proxy.through(ProxyAuth::strongest(ann())).await.unwrap();
    proxy.through(ProxyAuth::any(ann())).await.unwrap();
    let proofs: Vec<_> = proxy.asked().into_iter().map(|(_, proof)| proof.unwrap_or_default()).collect();
    assert_eq!((proofs[0].as_str(), &proofs[2][..5]), ("", "Basic"), "{proofs:?}");
    for digest in [&proofs[1], &proofs[3]] {
        assert!(digest.contains("algorithm=SHA-256-sess") && digest.contains("nc=00000001"), "{digest}");
    }
    assert_eq!(proofs.len(), 4);
}

#[tokio::test]
async fn a_proxy_that_is_never_content_is_not_asked_for_ever() {
    for (more, most) in [("", 3), (", stale=true", 4)] {
        let offer = format!(
            "HTTP/1.1 407 again\r\nProxy-Authenticate: Basic realm=\"r\"\r\n{}{more}\r\nContent-Length: 0\r\n\r\n",
            DIGEST.trim_end()
        );
        let proxy = Proxy::new(move |_, _| stays(offer.clone())).await;
        for auth in [ProxyAuth::any, ProxyAuth::strongest, ProxyAuth::digest, ProxyAuth::basic] {
            let before = proxy.asked().len();
            let error = proxy.refused(auth(ann())).await;
            assert_eq!(error.code(), Some(407));
            assert!(proxy.asked().len() - before <= most, "{:?}", &proxy.asked()[before..]);
        }
    }
    // Nor one that closes each time.
    let proxy = Proxy::new(|_, _| closes(format!("HTTP/1.1 407 no\r\n{DIGEST}\r\n"))).await;
    assert_eq!(proxy.refused(ProxyAuth::any(ann())).await.code(), Some(407));
    assert!(proxy.asked().len() <= 4);
}

#[tokio::test]
async fn a_refusal_that_ends_its_connection_is_answered_on_another() {
    let large = "x".repeat(300_000);
    let huge = "x".repeat(3_000_000);
    for (what, says, same) in [
        ("length", stays(format!("HTTP/1.1 407 no\r\n{DIGEST}Content-Length: 300000\r\n\r\n{large}")), true),
        (
            "chunks",
            stays(format!(
                "HTTP/1.1 407 no\r\n{DIGEST}Transfer-Encoding: chunked\r\n\r\n493e0;x=y\r\n{large}\r\n0\r\nT: x\r\n\r\n"
            )),
            true,
        ),
        (
            "close",
            stays(format!("HTTP/1.1 407 no\r\n{DIGEST}Proxy-Connection: close\r\nContent-Length: 2\r\n\r\nno")),
            false,
        ),
        ("until close", closes(format!("HTTP/1.1 407 no\r\n{DIGEST}\r\n{large}")), false),
        ("1.0", closes(format!("HTTP/1.0 407 no\r\n{DIGEST}Content-Length: 2\r\n\r\nno")), false),
        ("closed unsaid", closes(format!("HTTP/1.1 407 no\r\n{DIGEST}Content-Length: 2\r\n\r\nno")), false),
        ("cut", closes(format!("HTTP/1.1 407 no\r\n{DIGEST}Content-Length: 20\r\n\r\nno")), false),
        ("huge", stays(format!("HTTP/1.1 407 no\r\n{DIGEST}Content-Length: 3000000\r\n\r\n{huge}")), false),
        ("more than asked for", stays(format!("HTTP/1.1 407 no\r\n{DIGEST}Content-Length: 0\r\n\r\n{OK}")), false),
        ("a trickle", stays(format!("HTTP/1.1 407 no\r\n{DIGEST}Content-Length: 20\r\n\r\nno")), false),
    ] {
        let said = Mutex::new(Some(says));
        let proxy = Proxy::new(move |proof, _| match (proof, said.lock().unwrap().take()) {
            (None, Some(says)) => says,
            (Some(_), _) => stays(OK),
            _ => closes(""),
        })
        .await;
        proxy.through(ProxyAuth::digest(ann())).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let connections: Vec<_> = proxy.asked().iter().map(|(connection, _)| *connection).collect();
        assert_eq!(connections, if same { [1, 1] } else { [1, 2] }, "{what}");
    }
}

#[tokio::test]
async fn another_scheme_than_ours_is_named_and_not_answered() {
    for (scheme, auth) in [
        ("Negotiate", ProxyAuth::any(ann())),
        ("Basic realm=\"r\"", ProxyAuth::digest(ann())),
        ("Digest realm=\"r\", nonce=\"n\", algorithm=SHA3-512", ProxyAuth::digest(ann())),
        ("Digest realm=\"r\", nonce=\"n\", qop=\"other\"", ProxyAuth::digest(ann())),
        ("Bearer", ProxyAuth::basic(ann())),
        ("Digest realm=\"r\", nonce=\"n\"", ProxyAuth::bearer("sesame")),
    ] {
        let proxy = Proxy::new(move |_, _| {
            stays(format!("HTTP/1.1 407 no\r\nProxy-Authenticate: {scheme}\r\nContent-Length: 0\r\n\r\n"))
        })
        .await;
        let error = proxy.refused(auth).await;
        let word = scheme.split(' ').next().unwrap();
        assert!(error.message().ends_with(&format!("it takes {word}")), "{error}");
        assert_eq!(proxy.asked().len(), 1);
    }
    let silent = Proxy::new(|_, _| stays("HTTP/1.1 407 no\r\nContent-Length: 0\r\n\r\n")).await;
    assert!(silent.refused(ProxyAuth::any(ann())).await.message().ends_with("no scheme that it names"));
}

#[cfg(feature = "ntlm")]
#[tokio::test]
async fn ntlm_never_changes_its_connection_between_two_turns() {
    let challenge = "TlRMTVNTUAACAAAAAAAAADgAAAAzgoriASNFZ4mrze8AAAAAAAAAAAAAAAA4AAAABgBwFwAAAA8=";
    let proxy = Proxy::new(move |proof, _| match proof {
        Some(proof) if proof.starts_with("NTLM TlRMTVNTUAAD") => stays(OK),
        Some(_) => {
            stays(format!("HTTP/1.1 407 no\r\nProxy-Authenticate: NTLM {challenge}\r\nContent-Length: 0\r\n\r\n"))
        }
        None => closes("HTTP/1.1 407 no\r\nProxy-Authenticate: NTLM\r\nProxy-Connection: close\r\n\r\n"),
    })
    .await;
    proxy.through(ProxyAuth::strongest(ann())).await.unwrap();
    let connections: Vec<_> = proxy.asked().iter().map(|(connection, _)| *connection).collect();
    assert_eq!(connections, [1, 2, 2]);
    for (what, says) in [
        ("closes between", format!("NTLM {challenge}\r\nProxy-Connection: close")),
        ("garbage", "NTLM AAAA\r\nContent-Length: 0".to_owned()),
        ("no base64", "NTLM =\r\nContent-Length: 0".to_owned()),
        ("starts again", "NTLM\r\nContent-Length: 0".to_owned()),
        ("for ever", format!("NTLM {challenge}\r\nContent-Length: 0")),
    ] {
        let proxy =
            Proxy::new(move |_, _| stays(format!("HTTP/1.1 407 no\r\nProxy-Authenticate: {says}\r\n\r\n"))).await;
        let error = proxy.through(ProxyAuth::ntlm(ann())).await.unwrap_err();
        assert!(matches!(error.kind(), Kind::Auth | Kind::Hop), "{what}: {error:?}");
        assert_eq!(error.hop(), Some(0));
        assert!(proxy.asked().len() <= 8, "{what}");
    }
}
