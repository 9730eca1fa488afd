//! Signed requests, checked by those who verify them: botocore's signer, and S3 as moto serves it.

use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use portolan_http::sigv4::{AccessKey, SigV4};
use portolan_http::{Body, Client};
use portolan_testbed::{Server, Service, free_port, python, record};

fn here(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// A server that verifies with botocore.
fn botocore() -> Option<(Server, String, u16)> {
    let (python, port) = (python("moto", "botocore")?, free_port());
    let version = said(&python, "import botocore; print('botocore', botocore.__version__)");
    let server = Service::new("pip:moto", python)
        .file("signing.py", include_str!("signing.py"))
        .args(["-u", "$D/signing.py", &port.to_string()])
        .accepts(here(port))
        .start()?;
    Some((server, version, port))
}

fn said(python: &str, program: &str) -> String {
    let output = std::process::Command::new(python).args(["-c", program]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn stream(pieces: usize) -> Body {
    let pieces = (0..pieces).map(|n| Ok::<_, std::io::Error>(vec![b'a' + n as u8 % 26; 10_007]));
    Body::from_stream(futures_util::stream::iter(pieces))
}

async fn good(response: portolan_core::Result<portolan_http::Response>, what: &str) -> bytes::Bytes {
    let response = response.unwrap();
    let status = response.status();
    let body = response.bytes().await.unwrap();
    assert_eq!(status, StatusCode::OK, "{what}: {}", String::from_utf8_lossy(&body));
    body
}

const PATHS: [&str; 16] = [
    "/",
    "/plain/path",
    "/a b/ä/日本",
    "/./a/../b/./c/..",
    "/a//b///",
    "/a%20b%2Fc%2f%41%7e",
    "/(paren)!*'@:$,;=+&",
    "/%25%zz%",
    "/~tilde_-.",
    "/trailing/.",
    "/..",
    "/%E6%97%A5?prefix=%E6%97%A5&acl",
    "/?a=1&a=0&A=2&aa=&b",
    "/?x=a+b%2Bc&y=1=2=3&&&=v",
    "/?%41=%7e&~=-._&/?:@!$'()*,;=/?:@!$'()*,;",
    "/?ä=ö&日=本&space= s",
];

#[tokio::test]
async fn botocore_finds_the_same_signature_for_odd_requests() {
    let Some((_server, version, port)) = botocore() else { return };
    let client = Client::new();
    let mut count = 0;
    for key in [AccessKey::new("AKID", "secret"), AccessKey::new("ASIA", "other").session_token("token/+=")] {
        for service in ["s3", "execute-api"] {
            let signer = SigV4::new(key.clone(), "eu-central-1", service);
            for path in PATHS {
                for method in [Method::GET, Method::PUT, Method::DELETE] {
                    let body = if method == Method::PUT { "body \u{e4}" } else { "" };
                    let url = format!("http://LocalHost:{port}{path}");
                    let request = client.request(method.clone(), &url).sign(signer.clone());
                    let request = request.header("x-odd", "  a \t b  ").header("x-odd", "c").header("x-empty", "");
                    let request = request.header("content-type", "text/plain;  charset=utf-8").body(body);
                    assert_eq!(good(request.send().await, &format!("{service} {method} {path}")).await, body);
                    let signed = signer.presign(&method, &url, Duration::from_secs(60)).await.unwrap();
                    let send = client.request(method.clone(), signed).send().await;
                    good(send, &format!("presigned {service} {method} {path}")).await;
                    count += 2;
                }
            }
        }
    }
    record("http1", "exchange", &version, "SigV4, odd requests by fields and by query", count);
}

#[tokio::test]
async fn botocore_finds_the_same_signature_for_every_kind_of_body() {
    let Some((_server, version, port)) = botocore() else { return };
    let client = Client::new();
    let url = format!("http://127.0.0.1:{port}/bucket/key");
    let s3 = SigV4::new(AccessKey::new("AKID", "secret"), "eu-central-1", "s3");
    let mut count = 0;
    for trailer in [false, true] {
        let s3 = s3.clone().trailing_checksum(trailer);
        for pieces in [1, 7, 20] {
            let length = (pieces * 10_007).to_string();
            let request = client.put(&url).sign(s3.clone()).header("content-length", &length).body(stream(pieces));
            let body = good(request.header("content-encoding", "x-own").send().await, "stream").await;
            assert_eq!(body.len(), pieces * 10_007);
            let again = Body::from_fn(move || stream(pieces));
            let request = client.put(&url).sign(s3.clone()).header("content-length", &length).body(again);
            assert_eq!(good(request.send().await, "made").await.len(), pieces * 10_007);
            let request = client.put(&url).sign(s3.clone().chunked_payload()).body(vec![b'x'; pieces * 10_007]);
            assert_eq!(good(request.send().await, "bytes").await.len(), pieces * 10_007);
            count += 3;
        }
    }
    let unsigned = client.put(&url).sign(s3.clone().unsigned_payload()).header("content-length", "10007");
    assert_eq!(good(unsigned.body(stream(1)).send().await, "unsigned").await.len(), 10_007);
    let other = SigV4::new(AccessKey::new("AKID", "secret"), "eu-central-1", "execute-api");
    let made = client.put(&url).sign(other).header("content-length", "10007").body(Body::from_fn(|| stream(1)));
    assert_eq!(good(made.send().await, "read first").await.len(), 10_007);
    let mut headers = HeaderMap::new();
    headers.insert("x-amz-meta-a", "b c".parse().unwrap());
    let link = s3.presign_with(&Method::PUT, &url, &headers, Duration::from_secs(60)).await.unwrap();
    good(client.put(&link).header("x-amz-meta-a", "b c").body("any").send().await, "with a field").await;
    // What isn't signed as it should be is seen.
    let without = client.put(&link).body("any").send().await.unwrap();
    assert_ne!(without.status(), StatusCode::OK);
    let wrong = SigV4::new(AccessKey::new("AKID", "secret?"), "eu-central-1", "s3");
    assert_eq!(client.get(&url).sign(wrong).send().await.unwrap().status(), StatusCode::FORBIDDEN);
    record("http1", "exchange", &version, "SigV4, bodies signed whole, in pieces and not at all", count + 3);
}

#[tokio::test]
async fn moto_takes_what_was_signed_and_nothing_else() {
    let Some(python) = python("moto", "moto.server") else { return };
    let (version, port) = (said(&python, "import moto; print('moto', moto.__version__)"), free_port());
    let server = Service::new("pip:moto", python)
        // Four calls before it asks who is there: a user, its rights, its key.
        .env("INITIAL_NO_AUTH_ACTION_COUNT", "3")
        .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
        .accepts(here(port))
        .start();
    let Some(_server) = server else { return };
    let base = format!("http://127.0.0.1:{port}");
    let anyone = SigV4::new(AccessKey::new("any", "any"), "us-east-1", "iam");
    let iam = Client::builder().sign(anyone).build().unwrap();
    let policy = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;
    let ask = async |fields: &[(&str, &str)]| {
        let fields = fields.iter().copied().chain([("UserName", "joe"), ("Version", "2010-05-08")]).collect::<Vec<_>>();
        good(iam.post(&base).form(fields).send().await, "iam").await
    };
    ask(&[("Action", "CreateUser")]).await;
    ask(&[("Action", "PutUserPolicy"), ("PolicyName", "all"), ("PolicyDocument", policy)]).await;
    let key = String::from_utf8(ask(&[("Action", "CreateAccessKey")]).await.to_vec()).unwrap();
    let field = |name: &str| {
        let (_, rest) = key.split_once(&format!("<{name}>")).unwrap();
        rest.split_once('<').unwrap().0.to_owned()
    };
    let s3 = SigV4::new(AccessKey::new(field("AccessKeyId"), field("SecretAccessKey")), "us-east-1", "s3");
    let client = Client::builder().sign(s3.clone()).build().unwrap();
    let object = |key: &str| format!("{base}/bucket/{key}");
    good(client.put(format!("{base}/bucket")).send().await, "bucket").await;
    for key in ["plain", "a b+c/(d)", "ä/日本", "dots./..x", "q?r=1#s"] {
        let url = object(&key.replace('?', "%3F").replace('#', "%23").replace('+', "%2B"));
        good(client.put(&url).header("x-amz-meta-of", "ours").body(key.to_owned()).send().await, key).await;
        let response = client.get(&url).send().await;
        assert_eq!(response.as_ref().unwrap().headers()["x-amz-meta-of"], "ours");
        assert_eq!(good(response, key).await, key);
    }
    let list = client.get(format!("{base}/bucket")).query([("list-type", "2"), ("prefix", "a b+c/")]).send().await;
    let list = good(list, "list").await;
    assert!(String::from_utf8_lossy(&list).contains("a b+c/(d)"), "{}", String::from_utf8_lossy(&list));
    for (length, trailer) in [(1, false), (65_536, true), (200_000, false)] {
        let s3 = s3.clone().chunked_payload().trailing_checksum(trailer);
        let put = client.put(object("stream")).sign(s3).body(vec![b'z'; length]).send().await;
        good(put, "stream").await;
        assert_eq!(good(client.get(object("stream")).send().await, "stream").await.len(), length);
    }
    let wrong = SigV4::new(AccessKey::new(field("AccessKeyId"), "wrong"), "us-east-1", "s3");
    let refused = client.get(object("plain")).sign(wrong).send().await.unwrap();
    let error = refused.error_for_status().unwrap_err();
    assert_eq!((error.kind(), error.code()), (portolan_core::Kind::Server, Some(403)));
    record("http1", "exchange", &version, "SigV4, objects and streams", 18);
}
