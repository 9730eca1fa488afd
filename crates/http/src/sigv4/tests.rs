use std::time::{Duration, UNIX_EPOCH};

use super::chunked::{Chunked, Seed, encoded_length};
use super::*;
use http_body_util::BodyExt;

/// 2015-08-30T12:36:00Z, the moment of AWS's test suite.
const SUITE: u64 = 1_440_938_160;
/// 2013-05-24T00:00:00Z, the moment of the examples in the S3 reference.
const S3_EXAMPLES: u64 = 1_369_353_600;

fn suite() -> SigV4 {
    let key = AccessKey::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
    SigV4::new(key, "us-east-1", "service").clock(|| UNIX_EPOCH + Duration::from_secs(SUITE))
}

fn s3() -> SigV4 {
    let key = AccessKey::new("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
    SigV4::new(key, "us-east-1", "s3").clock(|| UNIX_EPOCH + Duration::from_secs(S3_EXAMPLES))
}

fn request(method: &str, uri: &str, fields: &[(&'static str, &str)]) -> Parts {
    let mut parts = http::Request::new(()).into_parts().0;
    parts.method = method.parse().unwrap();
    parts.uri = uri.into_uri().unwrap();
    for (name, value) in fields {
        parts.headers.append(*name, value.parse().unwrap());
    }
    parts
}

fn signed(parts: &Parts) -> (&str, &str) {
    let field = parts.headers["authorization"].to_str().unwrap();
    let (rest, signature) = field.rsplit_once(", Signature=").unwrap();
    (rest.rsplit_once("SignedHeaders=").unwrap().1, signature)
}

/// AWS's test suite for Signature Version 4 (`aws-sig-v4-test-suite`, as kept in awslabs/aws-c-auth), by the names of its cases.
#[tokio::test]
async fn requests_of_the_aws_test_suite_get_its_signatures() {
    const HOST: &str = "https://example.amazonaws.com";
    for (case, path, fields, signature) in [
        ("get-vanilla", "/", &[][..], "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        (
            "get-vanilla-query-order-encoded",
            "/?Param-3=Value3&Param=Value2&%E1%88%B4=Value1",
            &[],
            "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac",
        ),
        (
            "get-header-value-trim",
            "/",
            &[("my-header1", "value1"), ("my-header2", "\"a   b   c\"")],
            "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
        ),
        (
            "get-slashes-normalized",
            "//example//",
            &[],
            "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84",
        ),
    ] {
        let mut parts = request("GET", &format!("{HOST}{path}"), fields);
        suite().sign(&mut parts, Body::empty()).await.unwrap();
        assert_eq!(signed(&parts).1, signature, "{case}");
        assert_eq!(parts.headers["x-amz-date"], "20150830T123600Z");
        assert!(parts.headers["authorization"].is_sensitive());
    }
    let mut parts = request("GET", &format!("{HOST}/"), &[]);
    let key = AccessKey::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
        .session_token("6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267");
    let signer = SigV4 { provider: Arc::new(key), ..suite() };
    signer.sign(&mut parts, Body::empty()).await.unwrap();
    let session = "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8";
    assert_eq!(signed(&parts), ("host;x-amz-date;x-amz-security-token", session));
    // query-signed-request of get-vanilla-with-session-token and of get-vanilla-utf8-query.
    let hour = Duration::from_secs(3600);
    let url = signer.presign(&Method::GET, HOST, hour).await.unwrap().to_string();
    assert!(
        url.ends_with("&X-Amz-Signature=7ff2b50b376cb4d151970630573d6291dc128cc5c2a12ffb237f73cc53f67b6c"),
        "{url}"
    );
    let url = suite().presign(&Method::GET, format!("{HOST}/?ሴ=bar"), hour).await.unwrap().to_string();
    assert!(
        url.ends_with("&X-Amz-Signature=0bdd809b1519ac4f0c1dc3540e2cc46bd0c7f778eda408b2ebf3b913d21ff600"),
        "{url}"
    );
}

/// The examples of the Amazon S3 API reference, "Authenticating Requests (AWS Signature Version 4)".
#[tokio::test]
async fn requests_of_the_s3_reference_get_its_signatures() {
    const HOST: &str = "https://examplebucket.s3.amazonaws.com";
    for (method, path, fields, body, signature) in [
        (
            "GET",
            "/test.txt",
            &[("range", "bytes=0-9")][..],
            "",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT",
            "/test$file.text",
            &[("date", "Fri, 24 May 2013 00:00:00 GMT"), ("x-amz-storage-class", "REDUCED_REDUNDANCY")],
            "Welcome to Amazon S3.",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        ("GET", "/?lifecycle", &[], "", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        ("GET", "/?max-keys=2&prefix=J", &[], "", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
    ] {
        let mut parts = request(method, &format!("{HOST}{path}"), fields);
        s3().sign(&mut parts, body.into()).await.unwrap();
        assert_eq!(signed(&parts).1, signature, "{method} {path}");
    }
    let url = s3().presign(&Method::GET, format!("{HOST}/test.txt"), Duration::from_secs(86_400)).await.unwrap();
    let signature = "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
    assert!(
        url.to_string().ends_with(&format!("X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature={signature}"))
    );
}

/// The same reference, "Signature Calculations for the Authorization Header: Transferring Payload in Multiple Chunks": 65 KiB of `a`.
#[tokio::test]
async fn streams_are_signed_piece_by_piece_as_the_s3_reference_does() {
    let data = vec![b'a'; 66_560];
    let mut parts = request(
        "PUT",
        "https://s3.amazonaws.com/examplebucket/chunkObject.txt",
        &[("x-amz-storage-class", "REDUCED_REDUNDANCY")],
    );
    let body = s3().chunked_payload().sign(&mut parts, data.clone().into()).await.unwrap();
    let seed = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9";
    assert_eq!(signed(&parts).1, seed);
    assert_eq!(parts.headers["content-length"], "66824");
    assert_eq!(parts.headers["x-amz-decoded-content-length"], "66560");
    assert_eq!(parts.headers["content-encoding"], "aws-chunked");
    let sent = body.collect().await.unwrap().to_bytes();
    assert_eq!(sent.len(), 66_824);
    let expected = [
        b"10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n",
        &data[..65_536],
        b"\r\n400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n",
        &data[65_536..],
        b"\r\n0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n",
    ]
    .concat();
    assert!(sent == expected);
}

#[tokio::test]
async fn a_stream_is_as_long_as_was_said_or_fails() {
    for (size, trailer) in [(0, true), (1, false), (65_535, true), (65_536, false), (65_537, true), (200_000, true)] {
        let scope = || Scope::new(0, "r", "s3");
        let seed = || Seed { scope: scope(), key: zeroize::Zeroizing::new([1; 32]), previous: "0".repeat(64) };
        let pieces = || {
            let data = vec![b'x'; size];
            let pieces: Vec<_> = data.chunks(777).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
            Body::from_stream(futures_util::stream::iter(pieces))
        };
        let whole = |length| Chunked::new(pieces(), length, seed(), trailer).collect();
        let sent = whole(size as u64).await.unwrap().to_bytes();
        assert_eq!(sent.len() as u64, encoded_length(size as u64, trailer), "{size} {trailer}");
        assert!(whole(size as u64 + 1).await.is_err());
        if size > 0 {
            assert!(whole(size as u64 - 1).await.is_err());
        }
    }
}

/// "Signature calculations for the authorization header: with trailing headers", of the same reference, whose checksum is a CRC-32C.
#[test]
fn trailers_are_signed_as_the_s3_reference_does() {
    let key = AccessKey::new("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
    let scope = Scope::new(S3_EXAMPLES.cast_signed(), "us-east-1", "s3");
    let key = scope.key(&key);
    let previous = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e".to_owned();
    let mut seed = Seed { scope, key, previous };
    let data = vec![b'a'; 66_560];
    assert_eq!(seed.next(&data[..65_536]), "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2");
    assert_eq!(seed.next(&data[65_536..]), "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7");
    assert_eq!(seed.next(b""), "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992");
    let trailer = seed.trailer(b"x-amz-checksum-crc32c:sOO8/Q==\n");
    assert_eq!(trailer, "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435");
}

#[tokio::test]
async fn urls_are_sent_in_the_form_that_is_signed() {
    for (written, sent) in [
        ("/a b/(c)+é", "/a%20b/%28c%29%2B%C3%A9"),
        ("/%41%2f%7e%zz", "/A%2F~%25zz"),
        ("/?x=a+b&y=%2b&z&=v&&w=1=2", "/?x=a%20b&y=%2B&z&=v&w=1%3D2"),
        ("/../a/./b//", "/../a/./b//"),
    ] {
        let mut parts = request("GET", &format!("http://h:8000{written}"), &[]);
        s3().sign(&mut parts, Body::empty()).await.unwrap();
        assert_eq!(parts.uri.path_and_query().unwrap(), sent, "{written}");
    }
}

#[tokio::test]
async fn what_cannot_be_signed_is_the_callers_mistake() {
    let stream = || Body::from_stream(futures_util::stream::iter([Ok::<_, std::io::Error>("once")]));
    let mut parts = request("PUT", "http://h/", &[]);
    for signer in [suite(), s3()] {
        let error = signer.sign(&mut parts, stream()).await.unwrap_err();
        assert_eq!(error.kind(), portolan_core::Kind::Usage, "{error}");
        signer.unsigned_payload().sign(&mut parts, stream()).await.unwrap();
        assert_eq!(parts.headers["x-amz-content-sha256"], "UNSIGNED-PAYLOAD");
    }
    let made = Body::from_fn(stream);
    suite().sign(&mut parts, made).await.unwrap();
    assert!(!parts.headers.contains_key("x-amz-content-sha256"));
    for expires in [Duration::ZERO, Duration::from_secs(604_801)] {
        assert!(s3().presign(&Method::GET, "http://h/", expires).await.is_err());
    }
    assert!(s3().presign(&Method::GET, "http://joe:pw@h/", Duration::from_secs(1)).await.is_err());
}

#[test]
fn keys_come_from_the_environment_and_from_profiles() {
    let vars = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("AWS_SESSION_TOKEN", "")];
    let lookup = |name: &str| vars.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    let key = AccessKey::from_lookup(lookup).unwrap();
    assert_eq!((key.id(), key.secret.expose(), &key.token), ("a", "b", &None));
    assert!(!format!("{key:?}").contains("\"b\""));
    let error = AccessKey::from_lookup(|name| lookup(name).filter(|_| name.ends_with("_ID"))).unwrap_err();
    assert!(error.message().contains("AWS_SECRET_ACCESS_KEY"));

    let text = "# c\n[default]\naws_access_key_id = A\r\naws_secret_access_key=S#1=/+\n\n[ two ]\nregion = x\n\
                AWS_ACCESS_KEY_ID=B\naws_secret_access_key = T\naws_session_token = tok==\n; aws_session_token = no\n[none]\n";
    let one = credentials::profile(text, "default").unwrap();
    assert_eq!((one.id(), one.secret.expose(), &one.token), ("A", "S#1=/+", &None));
    let two = credentials::profile(text, "two").unwrap();
    assert_eq!((two.id(), two.token.as_ref().unwrap().expose()), ("B", "tok=="));
    assert!(credentials::profile(text, "none").unwrap_err().message().contains("no access key"));
    assert!(credentials::profile(text, "three").unwrap_err().message().contains("there is no profile"));
}

#[tokio::test]
async fn the_first_of_a_chain_that_has_a_key_gives_it() {
    let missing = || Profile::new("/nonexistent/credentials", "x");
    let chain = KeyChain::default().or(missing()).or(AccessKey::new("id", "s"));
    assert_eq!(chain.access_key().await.unwrap().id(), "id");
    let error = KeyChain::default().or(missing()).access_key().await.unwrap_err();
    assert!(error.message().contains("/nonexistent/credentials"));
}
