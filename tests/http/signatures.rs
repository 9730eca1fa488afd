//! HTTP Message Signatures with `http-message-signatures` of Python at the other end: it verifies our requests, we verify its answers.

use std::path::Path;

use http::{Method, StatusCode};
use portolan_core::{Delivery, Kind};
use portolan_http::content_digest;
use portolan_http::signatures::{Algorithm, Component, MessageSigner, SigningKey, Verifier, VerifyingKey};
use portolan_http::{Body, Client};
use portolan_testbed::{Server, Service, free_port, python, record};

const ALGORITHMS: [Algorithm; 6] = [
    Algorithm::RsaPssSha512,
    Algorithm::RsaV15Sha256,
    Algorithm::HmacSha256,
    Algorithm::EcdsaP256Sha256,
    Algorithm::EcdsaP384Sha384,
    Algorithm::Ed25519,
];
const SECRET: &[u8] = b"a secret of both";

fn server() -> Option<(Server, String, String)> {
    let (python, port) = (python("http-message-signatures", "http_message_signatures")?, free_port());
    let program = "import importlib.metadata as m; print(m.version('http-message-signatures'))";
    let output = std::process::Command::new(&python).args(["-c", program]).output().unwrap();
    let version = format!("http-message-signatures {}", String::from_utf8_lossy(&output.stdout).trim());
    let server = Service::new("pip:http-message-signatures", python)
        .file("signatures.py", include_str!("signatures.py"))
        .args(["-u", "$D/signatures.py", &port.to_string(), "$D"])
        .accepts(([127, 0, 0, 1], port).into())
        .start()?;
    Some((server, version, format!("http://localhost:{port}")))
}

fn keys(dir: &Path, algorithm: Algorithm) -> (SigningKey, VerifyingKey) {
    let name = algorithm.as_str();
    if algorithm == Algorithm::HmacSha256 {
        return (SigningKey::hmac_sha256(SECRET).id(name), VerifyingKey::hmac_sha256(SECRET));
    }
    let read = |kind: &str| std::fs::read_to_string(dir.join(format!("{name}.{kind}"))).unwrap();
    let signing = SigningKey::from_pem(algorithm, &read("key")).unwrap().id(name);
    (signing, VerifyingKey::from_pem(algorithm, &read("pub")).unwrap())
}

fn answers(key: VerifyingKey) -> Verifier {
    Verifier::new(key)
        .tag("answers")
        .require("@status")
        .require("content-digest")
        .require(Component::from("@target-uri").req())
        .require(Component::from("signature").req().key("sig1"))
}

#[tokio::test]
async fn both_sides_verify_what_the_other_signed_by_every_algorithm() {
    let Some((server, version, base)) = server() else { return };
    let mut count = 0;
    for algorithm in ALGORITHMS {
        let (signing, verifying) = keys(server.dir(), algorithm);
        let signer = MessageSigner::new(signing)
            .cover("x-algorithm")
            .cover_if_present("content-type")
            .cover_if_present("authorization")
            .nonce(true)
            .alg(true)
            .verify_responses(answers(verifying));
        let client = Client::builder().sign(signer.clone()).build().unwrap();
        for (method, path, body) in [
            (Method::GET, "/", ""),
            (Method::POST, "/a%20b/(c)?x=1&x=2&y=a+b&z", "{\"hello\": \"world\"}"),
            (Method::PUT, "/ä?ö=ü", "\u{1F600}"),
            (Method::DELETE, "/?", "x"),
        ] {
            let request = client.request(method, format!("{base}{path}")).header("x-algorithm", algorithm.as_str());
            let request =
                if body.starts_with('{') { request.header("content-type", "application/json") } else { request };
            let response = request.bearer_auth("token").body(body).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{algorithm:?} {path}");
            assert!(response.text().await.unwrap().ends_with(body));
            count += 2;
        }
        let made = Body::from_fn(|| Body::from_stream(futures_util::stream::iter([Ok::<_, std::io::Error>("pieces")])));
        let request = client.post(format!("{base}/")).header("x-algorithm", algorithm.as_str());
        let signer = signer.content_digest(content_digest::Algorithm::Sha512);
        let response = request.sign(signer).header("content-length", "6").body(made).send().await.unwrap();
        assert!(response.text().await.unwrap().ends_with("pieces"));
        count += 2;
    }
    record("http1", "exchange", &version, "message signatures, both ways, six algorithms", count);
}

#[tokio::test]
async fn answers_that_were_changed_or_are_not_signed_are_refused() {
    let Some((server, _, base)) = server() else { return };
    let (signing, verifying) = keys(server.dir(), Algorithm::Ed25519);
    let signer = MessageSigner::new(signing.clone()).verify_responses(answers(verifying.clone()));
    let client = Client::builder().sign(signer.clone()).build().unwrap();
    let get = |path: &str| client.get(format!("{base}/{path}")).header("x-algorithm", "ed25519");
    assert_eq!(get("").send().await.unwrap().text().await.unwrap(), "3 ");
    for path in ["unsigned", "other"] {
        let error = get(path).send().await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (Kind::Auth, Delivery::Answered), "{path}: {error}");
    }
    let error = get("changed").send().await.unwrap().bytes().await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Protocol, Delivery::Answered), "{error}");
    // Signed by another key than the server knows: it says no, and what says no is not signed.
    let stranger = MessageSigner::new(SigningKey::hmac_sha256(b"other").id("ed25519"));
    let refused = get("").sign(stranger).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    // An answer by another key than was asked for is none.
    let (_, other) = keys(server.dir(), Algorithm::EcdsaP256Sha256);
    let error = get("").sign(signer.verify_responses(answers(other))).send().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Auth);
}
