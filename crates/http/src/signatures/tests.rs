use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use portolan_core::Kind;

use super::*;
use crate::sign::Sign;
use crate::structured::{Bare, Dictionary, Member};
use crate::{Body, content_digest};

/// The moment of the examples of RFC 9421.
const CREATED: u64 = 1_618_884_473;

// RFC 9421 B.1: the keys of its examples.
const RSA_PSS: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAr4tmm3r20Wd/PbqvP1s2
+QEtvpuRaV8Yq40gjUR8y2Rjxa6dpG2GXHbPfvMs8ct+Lh1GH45x28Rw3Ry53mm+
oAXjyQ86OnDkZ5N8lYbggD4O3w6M6pAvLkhk95AndTrifbIFPNU8PPMO7OyrFAHq
gDsznjPFmTOtCEcN2Z1FpWgchwuYLPL+Wokqltd11nqqzi+bJ9cvSKADYdUAAN5W
Utzdpiy6LbTgSxP7ociU4Tn0g5I6aDZJ7A8Lzo0KSyZYoA485mqcO0GVAdVw9lq4
aOT9v6d+nb4bnNkQVklLQ3fVAvJm+xdDOp9LCNCN48V2pnDOkFV6+U9nV5oyc6XI
2wIDAQAB
-----END PUBLIC KEY-----";
const P256: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqIVYZVLCrPZHGHjP17CTW0/+D9Lf
w0EkjqF7xB4FivAxzic30tMM4GF+hR6Dxh71Z50VGGdldkkDXZCnTNnoXQ==
-----END PUBLIC KEY-----";
const P256_PRIVATE: &str = "-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIFKbhfNZfpDsW43+0+JjUr9K+bTeuxopu653+hBaXGA7oAoGCCqGSM49
AwEHoUQDQgAEqIVYZVLCrPZHGHjP17CTW0/+D9Lfw0EkjqF7xB4FivAxzic30tMM
4GF+hR6Dxh71Z50VGGdldkkDXZCnTNnoXQ==
-----END EC PRIVATE KEY-----";
const ED25519: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=
-----END PUBLIC KEY-----";
const ED25519_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF
-----END PRIVATE KEY-----";
const SECRET: &str = "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==";

const DIGEST: &str =
    "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:";
const ANSWER_DIGEST: &str =
    "sha-512=:mEWXIS7MaLRuGgxOBdODa3xqM1XdEvxoYhvlCFJ41QJgJc4GTsPp29l5oGX69wWdXymyU0rjJuahq4l5aGgfLQ==:";

fn secret() -> Vec<u8> {
    STANDARD.decode(SECRET).unwrap()
}

fn parts(method: &str, uri: &str, fields: &[(&'static str, &str)]) -> Parts {
    let mut parts = http::Request::new(()).into_parts().0;
    (parts.method, parts.uri) = (method.parse().unwrap(), uri.parse().unwrap());
    parts.headers = headers(fields);
    parts
}

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

/// RFC 9421 B.2, `test-request`.
fn test_request() -> Parts {
    parts(
        "POST",
        "https://example.com/foo?param=Value&Pet=dog",
        &[
            ("host", "example.com"),
            ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
            ("content-type", "application/json"),
            ("content-digest", DIGEST),
            ("content-length", "18"),
        ],
    )
}

fn verifier(key: VerifyingKey) -> Verifier {
    Verifier::new(key).clock(|| UNIX_EPOCH + Duration::from_secs(CREATED + 10)).max_age(Duration::from_secs(60))
}

fn signed(mut parts: Parts, input: &str, signature: &str) -> Parts {
    parts.headers.insert("signature-input", input.parse().unwrap());
    let label = input.split('=').next().unwrap();
    parts.headers.insert("signature", format!("{label}=:{signature}:").parse().unwrap());
    parts
}

fn pem(algorithm: Algorithm, pem: &str) -> VerifyingKey {
    VerifyingKey::from_pem(algorithm, pem).unwrap()
}

#[test]
fn the_signatures_of_rfc_9421_b_2_to_b_4_are_good() {
    let pss = || pem(Algorithm::RsaPssSha512, RSA_PSS);
    let client_cert = ":MIIBqDCCAU6gAwIBAgIBBzAKBggqhkjOPQQDAjA6MRswGQYDVQQKDBJMZXQncyBBdXRoZW50aWNhdGUxGzAZBgNVBAMMEkxBIEludGVybWVkaWF0ZSBDQTAeFw0yMDAxMTQyMjU1MzNaFw0yMTAxMjMyMjU1MzNaMA0xCzAJBgNVBAMMAkJDMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE8YnXXfaUgmnMtOXU/IncWalRhebrXmckC8vdgJ1p5Be5F/3YC8OthxM4+k1M6aEAEFcGzkJiNy6J84y7uzo9M6NyMHAwCQYDVR0TBAIwADAfBgNVHSMEGDAWgBRm3WjLa38lbEYCuiCPct0ZaSED2DAOBgNVHQ8BAf8EBAMCBsAwEwYDVR0lBAwwCgYIKwYBBQUHAwIwHQYDVR0RAQH/BBMwEYEPYmRjQGV4YW1wbGUuY29tMAoGCCqGSM49BAMCA0gAMEUCIBHda/r1vaL6G3VliL4/Di6YK0Q6bMjeSkC3dFCOOB8TAiEAx/kHSB4urmiZ0NX5r5XarmPk0wmuydBVoU4hBVZ1yhk=:";
    let proxied =
        parts("POST", "https://service.internal.example/foo?param=Value&Pet=dog", &[("client-cert", client_cert)]);
    let transformed =
        |accept: &[(&'static str, &str)]| parts("GET", "https://example.org/demo?name1=Value1&Name2=value2", accept);
    let b4 = r#"transform=("@method" "@path" "@authority" "accept");created=1618884473;keyid="test-key-ed25519""#;
    let b4_signature = "ZT1kooQsEHpZ0I1IjCqtQppOmIqlJPeo7DHR3SoMn0s5JZ1eRGS0A+vyYP9t/LXlh5QMFFQ6cpLt2m0pmj3NDA==";
    for (message, key, input, signature) in [
        (
            test_request(),
            pss(),
            r#"sig-b21=();created=1618884473;keyid="test-key-rsa-pss";nonce="b3k2pp5k7z-50gnwp.yemd""#,
            "d2pmTvmbncD3xQm8E9ZV2828BjQWGgiwAaw5bAkgibUopemLJcWDy/lkbbHAve4cRAtx31Iq786U7it++wgGxbtRxf8Udx7zFZsckzXaJMkA7ChG52eSkFxykJeNqsrWH5S+oxNFlD4dzVuwe8DhTSja8xxbR/Z2cOGdCbzR72rgFWhzx2VjBqJzsPLMIQKhO4DGezXehhWwE56YCE+O6c0mKZsfxVrogUvA4HELjVKWmAvtl6UnCh8jYzuVG5WSb/QEVPnP5TmcAnLH1g+s++v6d4s8m0gCw1fV5/SITLq9mhho8K3+7EPYTU8IU1bLhdxO5Nyt8C8ssinQ98Xw9Q==",
        ),
        (
            test_request(),
            pss(),
            r#"sig-b22=("@authority" "content-digest" "@query-param";name="Pet");created=1618884473;keyid="test-key-rsa-pss";tag="header-example""#,
            "LjbtqUbfmvjj5C5kr1Ugj4PmLYvx9wVjZvD9GsTT4F7GrcQEdJzgI9qHxICagShLRiLMlAJjtq6N4CDfKtjvuJyE5qH7KT8UCMkSowOB4+ECxCmT8rtAmj/0PIXxi0A0nxKyB09RNrCQibbUjsLS/2YyFYXEu4TRJQzRw1rLEuEfY17SARYhpTlaqwZVtR8NV7+4UKkjqpcAoFqWFQh62s7Cl+H2fjBSpqfZUJcsIk4N6wiKYd4je2U/lankenQ99PZfB4jY3I5rSV2DSBVkSFsURIjYErOs0tFTQosMTAoxk//0RoKUqiYY8Bh0aaUEb0rQl3/XaVe4bXTugEjHSw==",
        ),
        (
            test_request(),
            pss(),
            r#"sig-b23=("date" "@method" "@path" "@query" "@authority" "content-type" "content-digest" "content-length");created=1618884473;keyid="test-key-rsa-pss""#,
            "bbN8oArOxYoyylQQUU6QYwrTuaxLwjAC9fbY2F6SVWvh0yBiMIRGOnMYwZ/5MR6fb0Kh1rIRASVxFkeGt683+qRpRRU5p2voTp768ZrCUb38K0fUxN0O0iC59DzYx8DFll5GmydPxSmme9v6ULbMFkl+V5B1TP/yPViV7KsLNmvKiLJH1pFkh/aYA2HXXZzNBXmIkoQoLd7YfW91kE9o/CCoC1xMy7JA1ipwvKvfrs65ldmlu9bpG6A9BmzhuzF8Eim5f8ui9eH8LZH896+QIF61ka39VBrohr9iyMUJpvRX2Zbhl5ZJzSRxpJyoEZAFL2FUo5fTIztsDZKEgM4cUA==",
        ),
        (
            test_request(),
            VerifyingKey::hmac_sha256(&secret()),
            r#"sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret""#,
            "pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=",
        ),
        (
            test_request(),
            pem(Algorithm::Ed25519, ED25519),
            r#"sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519""#,
            "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==",
        ),
        (
            proxied,
            pem(Algorithm::EcdsaP256Sha256, P256),
            r#"ttrp=("@path" "@query" "@method" "@authority" "client-cert");created=1618884473;keyid="test-key-ecc-p256""#,
            "xVMHVpawaAC/0SbHrKRs9i8I3eOs5RtTMGCWXm/9nvZzoHsIg6Mce9315T6xoklyy0yzhD9ah4JHRwMLOgmizw==",
        ),
        // B.4: what intermediaries may do; the fields in two lines and in one.
        (
            transformed(&[("accept", "application/json"), ("accept", "*/*")]),
            pem(Algorithm::Ed25519, ED25519),
            b4,
            b4_signature,
        ),
        (transformed(&[("accept", "application/json, */*")]), pem(Algorithm::Ed25519, ED25519), b4, b4_signature),
    ] {
        let message = signed(message, input, signature);
        let verified = verifier(key.clone()).verify(&Message::request(&message)).unwrap();
        assert!(input.starts_with(&format!("{}=", verified.label)));
        let changed = signed(message, &input.replace("1618884473", "1618884474"), signature);
        let error = verifier(key).verify(&Message::request(&changed)).unwrap_err();
        assert_eq!((error.kind(), error.message()), (Kind::Auth, "a wrong signature"));
    }
    // B.4 again: the order of lines is a part of what was signed, and so is the method.
    for changed in [
        transformed(&[("accept", "*/*"), ("accept", "application/json")]),
        parts("POST", "https://example.org/demo?name1=Value1&Name2=value2", &[("accept", "application/json, */*")]),
    ] {
        let changed = signed(changed, b4, b4_signature);
        assert!(verifier(pem(Algorithm::Ed25519, ED25519)).verify(&Message::request(&changed)).is_err());
    }
}

#[test]
fn the_response_of_rfc_9421_b_2_4_is_good() {
    let fields = [
        ("date", "Tue, 20 Apr 2021 02:07:56 GMT"),
        ("content-type", "application/json"),
        ("content-digest", ANSWER_DIGEST),
        ("content-length", "23"),
        (
            "signature-input",
            r#"sig-b24=("@status" "content-type" "content-digest" "content-length");created=1618884473;keyid="test-key-ecc-p256""#,
        ),
        (
            "signature",
            "sig-b24=:wNmSUAhwb5LxtOtOpNa6W5xj067m5hFrj0XQ4fvpaCLx0NKocgPquLgyahnzDnDAUy5eCdlYUEkLIj+32oiasw==:",
        ),
    ];
    let headers = headers(&fields);
    let verifier = verifier(pem(Algorithm::EcdsaP256Sha256, P256)).require("@status").require("content-digest");
    let verified = verifier.verify(&Message::response(StatusCode::OK, &headers, None)).unwrap();
    assert!(verified.covers("content-length") && !verified.covers("date"));
    assert!(verifier.verify(&Message::response(StatusCode::CREATED, &headers, None)).is_err());
    content_digest::check(&headers, b"{\"message\": \"good dog\"}").unwrap();
    assert!(content_digest::check(&headers, b"{\"message\": \"bad dog\"}").is_err());
}

#[test]
fn what_signs_the_same_each_time_makes_the_signatures_of_rfc_9421() {
    let clock = || UNIX_EPOCH + Duration::from_secs(CREATED);
    for (key, label, components, signature) in [
        (
            SigningKey::hmac_sha256(&secret()).id("test-shared-secret"),
            "sig-b25",
            &["date", "@authority", "content-type"][..],
            "pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=",
        ),
        (
            SigningKey::from_pem(Algorithm::Ed25519, ED25519_PRIVATE).unwrap().id("test-key-ed25519"),
            "sig-b26",
            &["date", "@method", "@path", "@authority", "content-type", "content-length"],
            "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==",
        ),
    ] {
        let signer = MessageSigner::new(key).label(label).components(components.iter().copied());
        let mut message = test_request();
        signer.content_digest(None).clock(clock).sign_head(&mut message).unwrap();
        assert_eq!(message.headers["signature"], format!("{label}=:{signature}:"));
    }
}

#[test]
fn every_algorithm_verifies_what_it_signed_and_nothing_else() {
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    let rsa = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let rsa: aws_lc_rs::encoding::Pkcs8V1Der<'_> = rsa.as_der().unwrap();
    let p384 = aws_lc_rs::signature::EcdsaKeyPair::generate_pkcs8(
        &aws_lc_rs::signature::ECDSA_P384_SHA384_FIXED_SIGNING,
        &aws_lc_rs::rand::SystemRandom::new(),
    );
    let p384 = p384.unwrap();
    let keys = [
        SigningKey::from_der(Algorithm::RsaPssSha512, rsa.as_ref()).unwrap(),
        SigningKey::from_der(Algorithm::RsaV15Sha256, rsa.as_ref()).unwrap(),
        SigningKey::from_der(Algorithm::EcdsaP384Sha384, p384.as_ref()).unwrap(),
        SigningKey::from_pem(Algorithm::EcdsaP256Sha256, P256_PRIVATE).unwrap(),
        SigningKey::from_pem(Algorithm::Ed25519, ED25519_PRIVATE).unwrap(),
        SigningKey::hmac_sha256(b"sesame"),
    ];
    for (at, key) in keys.iter().enumerate() {
        let mut message = test_request();
        let signer = MessageSigner::new(key.clone().id("k")).alg(true).nonce(true).tag("t");
        signer.expires_in(Duration::from_secs(60)).sign_head(&mut message).unwrap();
        for (other, verifying) in keys.iter().map(SigningKey::verifying_key).enumerate() {
            let verified = Verifier::new(verifying).require("@target-uri").verify(&Message::request(&message));
            assert_eq!(verified.is_ok(), at == other, "{key:?} {other}");
        }
        assert!(!format!("{key:?}").contains("sesame"));
    }
    assert!(SigningKey::from_pem(Algorithm::EcdsaP384Sha384, P256_PRIVATE).is_err());
    assert!(SigningKey::from_pem(Algorithm::Ed25519, "nothing").is_err());
}

/// RFC 9421 2.1 and 2.2: the values of its examples.
#[test]
fn components_have_the_values_of_rfc_9421() {
    let request = parts(
        "POST",
        "https://www.example.com:443/path?param=value&var=this%20is%20a%20big%0Amultiline%20value&bar=with+plus+whitespace&fa%C3%A7ade%22%3A%20=something&empty&twice=1&twice=2",
        &[
            ("x-ows-header", "  Leading and trailing whitespace.   "),
            ("cache-control", "max-age=60"),
            ("cache-control", "   must-revalidate"),
            ("example-dict", "  a=1,    b=2;x=1;y=2,   c=(a   b   c), d "),
            ("example-header", "value, with, lots"),
            ("example-header", "of, commas"),
            ("x-empty-header", ""),
        ],
    );
    let message = Message::request(&request);
    for (component, value) in [
        (Component::from("@method"), "POST"),
        ("@authority".into(), "www.example.com"),
        ("@scheme".into(), "https"),
        ("@path".into(), "/path"),
        (Component::query_param("var"), "this%20is%20a%20big%0Amultiline%20value"),
        (Component::query_param("bar"), "with%20plus%20whitespace"),
        (Component::query_param("fa\u{e7}ade\": "), "something"),
        (Component::query_param("empty"), ""),
        ("X-OWS-Header".into(), "Leading and trailing whitespace."),
        ("cache-control".into(), "max-age=60, must-revalidate"),
        ("x-empty-header".into(), ""),
        (Component::from("example-dict").sf(), "a=1, b=2;x=1;y=2, c=(a b c), d"),
        (Component::from("example-dict").key("a"), "1"),
        (Component::from("example-dict").key("b"), "2;x=1;y=2"),
        (Component::from("example-dict").key("c"), "(a b c)"),
        (Component::from("example-dict").key("d"), "?1"),
        (Component::from("example-header").bs(), ":dmFsdWUsIHdpdGgsIGxvdHM=:, :b2YsIGNvbW1hcw==:"),
    ] {
        let mut input = crate::structured::InnerList::default();
        input.items.push(component.0.clone());
        let base = message.base(&input).unwrap();
        assert_eq!(base.lines().next().unwrap(), format!("{component}: {value}"));
    }
    let options = parts("OPTIONS", "https://a.example", &[]);
    for (component, value) in [("@request-target", "/"), ("@query", "?"), ("@target-uri", "https://a.example/")] {
        let mut input = crate::structured::InnerList::default();
        input.items.push(Component::from(component).0);
        let base = Message::request(&options).base(&input).unwrap();
        assert_eq!(base.lines().next().unwrap(), format!("\"{component}\": {value}"));
    }
}

#[test]
fn what_cannot_be_said_plainly_is_not_signed() {
    let request = parts("GET", "https://a.example/?x=1&x=2", &[("x", "v"), ("odd", "\u{e4}")]);
    let responses = headers(&[]);
    let response = Message::response(StatusCode::OK, &responses, None);
    for (message, components) in [
        (Message::request(&request), vec![Component::from("missing")]),
        (Message::request(&request), vec!["x".into(), "x".into()]),
        (Message::request(&request), vec!["odd".into()]),
        (Message::request(&request), vec!["@status".into()]),
        (Message::request(&request), vec!["@made-up".into()]),
        (Message::request(&request), vec!["@signature-params".into()]),
        (Message::request(&request), vec![Component::query_param("x")]),
        (Message::request(&request), vec![Component::query_param("y")]),
        (Message::request(&request), vec![Component::from("x").req()]),
        (Message::request(&request), vec![Component::from("x").tr()]),
        (Message::request(&request), vec![Component::from("x").key("k").bs()]),
        (Message::request(&request), vec![Component::from("x").with_unknown()]),
        (response, vec!["@method".into()]),
        (response, vec![Component::from("@method").req()]),
    ] {
        let mut input = crate::structured::InnerList::default();
        input.items.extend(components.iter().map(|component| component.0.clone()));
        assert!(message.base(&input).is_err(), "{components:?}");
    }
}

impl Component {
    fn with_unknown(mut self) -> Self {
        self.0.params.set("unknown", Bare::Boolean(true));
        self
    }
}

#[tokio::test]
async fn a_policy_is_kept_to_the_letter() {
    let now = || UNIX_EPOCH + Duration::from_secs(CREATED);
    let key = SigningKey::hmac_sha256(b"sesame").id("k");
    let signer = MessageSigner::new(key.clone()).clock(now).expires_in(Duration::from_secs(300)).tag("app");
    let mut message =
        parts("PUT", "https://a.example/x", &[("signature", "old=:AAAA:"), ("signature-input", "old=();tag=\"o\"")]);
    let body = signer.sign(&mut message, Body::from("hello")).await.unwrap();
    assert_eq!(body.as_bytes(), Some(&b"hello"[..]));
    content_digest::check(&message.headers, b"hello").unwrap();
    let field = Dictionary::of(&message.headers, INPUT).unwrap();
    assert!(matches!(field.get("sig1"), Some(Member::List(list)) if list.items.len() == 3));
    assert!(field.get("old").is_some());
    let at = |seconds: i64| {
        let now = UNIX_EPOCH + Duration::from_secs(CREATED.checked_add_signed(seconds).unwrap());
        Verifier::new(key.verifying_key()).tag("app").clock(move || now)
    };
    let check = |verifier: Verifier| verifier.verify(&Message::request(&message));
    assert_eq!(
        check(at(0).require("content-digest").label("sig1")).unwrap().params.get("tag"),
        Some(&Bare::String("app".into()))
    );
    for (verifier, why) in [
        (at(-61), "a signature of the future"),
        (at(361), "a signature that has expired"),
        (at(100).max_age(Duration::from_secs(30)), "a signature that is too old"),
        (at(0).require("date"), "\"date\" is not signed"),
        (at(0).label("old"), "no signature that counts"),
        (at(0).tag("other"), "no signature that counts"),
        (Verifier::with_keys(|_| None).tag("app").clock(now), "a signature by an unknown key"),
    ] {
        let error = check(verifier).unwrap_err();
        assert_eq!((error.kind(), error.message()), (Kind::Auth, why));
    }
    check(at(350)).unwrap();
    check(at(89).max_age(Duration::from_secs(30))).unwrap();
    let named = Verifier::with_keys(move |params| {
        (params.get("keyid") == Some(&Bare::String("k".into()))).then(|| key.verifying_key())
    });
    check(named.clock(now)).unwrap();
    // The message's own word for the algorithm can't turn a public key into a secret.
    let confused = VerifyingKey::hmac_sha256(b"sesame");
    let mut lying = message.clone();
    let input =
        lying.headers["signature-input"].to_str().unwrap().replace("tag=\"app\"", "tag=\"app\";alg=\"ed25519\"");
    lying.headers.insert("signature-input", input.parse().unwrap());
    let error = Verifier::new(confused).tag("app").clock(now).verify(&Message::request(&lying)).unwrap_err();
    assert_eq!(error.message(), "a signature by another algorithm than its key's");
}
