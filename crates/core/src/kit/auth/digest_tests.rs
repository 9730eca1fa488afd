//! Vectors of the RFCs, and what servers do to them.

use proptest::prelude::*;

use super::{Algorithm, Challenge, Digest, challenges};
use crate::error::Kind;
use crate::secret::Credentials;

fn parse(fields: &[&str]) -> Vec<Challenge> {
    challenges(fields.iter().copied())
}

fn digest(field: &str) -> Digest {
    Digest::from_challenge(&parse(&[field])[0]).unwrap()
}

fn param(field: &str, name: &str) -> String {
    parse(&[field])[0].param(name).unwrap_or_else(|| panic!("{name} in {field}")).to_owned()
}

fn sent(digest: &mut Digest, who: &Credentials, method: &str, target: &str, body: Option<&[u8]>) -> String {
    digest.authorize(who, method, target, body).unwrap().value().expose().to_owned()
}

#[test]
fn the_examples_of_rfc_7616_3_9_1_come_out_as_printed() {
    let who = Credentials::new("Mufasa", "Circle of Life");
    for (algorithm, response) in [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ] {
        let mut digest = digest(&format!(
            "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm={algorithm}, \
             nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
        ))
        .with_cnonce("f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ");
        assert_eq!(
            sent(&mut digest, &who, "GET", "/dir/index.html", None),
            format!(
                "Digest username=\"Mufasa\", realm=\"http-auth@example.org\", uri=\"/dir/index.html\", algorithm={algorithm}, \
                 nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", nc=00000001, \
                 cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\", qop=auth, response=\"{response}\", \
                 opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
            )
        );
    }
}

#[test]
fn the_example_of_rfc_7616_3_9_2_comes_out_as_its_erratum_says() {
    // Erratum 4897: the printed values are SHA-512 cut short, not SHA-512/256.
    let mut digest = digest(
        "Digest realm=\"api@example.org\", qop=\"auth\", algorithm=SHA-512-256, \
         nonce=\"5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK\", opaque=\"HRPCssKJSGjCrkzDg8OhwpzCiGPChXYjwrI2QmXDnsOS\", \
         charset=UTF-8, userhash=true",
    )
    .with_cnonce("NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v");
    let field = sent(&mut digest, &Credentials::new("Jäsøn Doe", "Secret, or not?"), "GET", "/doe.json", None);
    assert_eq!(param(&field, "username"), "793263caabb707a56211940d90411ea4a575adeccb7e360aeb624ed06ece9b0b");
    assert_eq!(param(&field, "response"), "3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5");
    assert!(field.ends_with(", userhash=true"));
}

#[test]
fn the_example_of_rfc_2617_3_5_comes_out_as_printed() {
    let mut digest = digest(
        "Digest realm=\"testrealm@host.com\", qop=\"auth,auth-int\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", \
         opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"",
    )
    .with_cnonce("0a4f113b");
    let who = Credentials::new("Mufasa", "Circle Of Life");
    let field = sent(&mut digest, &who, "GET", "/dir/index.html", None);
    assert_eq!(param(&field, "response"), "6629fae49393a05397450978507c4ef1");
    assert!(!field.contains("algorithm"), "what was not named is not echoed");
}

#[test]
fn a_server_of_rfc_2069_gets_neither_count_nor_nonce() {
    let mut digest = digest("Digest realm=\"r\", nonce=\"n\"").with_cnonce("unused");
    let field = sent(&mut digest, &Credentials::new("u", "p"), "GET", "/", None);
    let md5 = |text: &str| Algorithm::Md5.hash(&[text.as_bytes()]).to_string();
    let response = md5(&format!("{}:n:{}", md5("u:r:p"), md5("GET:/")));
    assert_eq!(field, format!("Digest username=\"u\", realm=\"r\", uri=\"/\", nonce=\"n\", response=\"{response}\""));
}

#[test]
fn sessions_and_bodies_are_hashed_in() {
    let sha = |text: &str| Algorithm::Sha256.hash(&[text.as_bytes()]).to_string();
    let mut digest =
        digest("Digest realm=\"r\", nonce=\"n\", qop=\"auth-int\", algorithm=sha-256-SESS").with_cnonce("c");
    let who = Credentials::new("u", "p");
    let field = sent(&mut digest, &who, "POST", "/", Some(b"body"));
    let key = sha(&format!("{}:n:c", sha("u:r:p")));
    let message = sha(&format!("POST:/:{}", sha("body")));
    assert_eq!(param(&field, "response"), sha(&format!("{key}:n:00000001:c:auth-int:{message}")));
    assert_eq!((param(&field, "qop").as_str(), param(&field, "algorithm").as_str()), ("auth-int", "sha-256-SESS"));
    let error = digest.authorize(&who, "POST", "/", None).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
}

#[test]
fn each_use_counts_and_a_next_nonce_starts_again() {
    let mut digest = digest("Digest realm=\"r\", nonce=\"one\", qop=auth");
    let who = Credentials::new("u", "p");
    let first = sent(&mut digest, &who, "GET", "/", None);
    let second = sent(&mut digest, &who, "GET", "/", None);
    assert_eq!((param(&first, "nc").as_str(), param(&second, "nc").as_str()), ("00000001", "00000002"));
    assert_eq!(param(&first, "cnonce"), param(&second, "cnonce"));
    digest.update(["qop=auth, nextnonce=\"two\""]);
    let third = sent(&mut digest, &who, "GET", "/", None);
    assert_eq!((param(&third, "nc").as_str(), param(&third, "nonce").as_str()), ("00000001", "two"));
    assert_ne!(param(&first, "cnonce"), param(&third, "cnonce"));
}

#[test]
fn a_server_that_does_not_know_the_password_is_found_out() {
    let mut digest = digest("Digest realm=\"r\", nonce=\"n\", qop=auth, algorithm=MD5").with_cnonce("c");
    let answer = digest.authorize(&Credentials::new("u", "p"), "GET", "/", None).unwrap();
    let md5 = |text: &str| Algorithm::Md5.hash(&[text.as_bytes()]).to_string();
    let right = md5(&format!("{}:n:00000001:c:auth:{}", md5("u:r:p"), md5(":/")));
    answer.check([]).unwrap();
    answer.check([format!("rspauth=\"{right}\", qop=auth").as_str()]).unwrap();
    let wrong = format!("rspauth=\"{}\"", right.replace(['0', '1'], "2"));
    assert_eq!(answer.check([wrong.as_str()]).unwrap_err().kind(), Kind::Auth);
    assert!(answer.check(["rspauth=\"\""]).is_err());
}

#[test]
fn the_strongest_that_we_know_is_taken() {
    let found = parse(&[
        "Basic realm=\"r\", Digest realm=\"r\", nonce=\"1\", algorithm=MD5, qop=\"auth\"",
        "Digest realm=\"r\", nonce=\"2\", algorithm=SHA-256, qop=\"auth\", stale=TRUE",
        "Digest realm=\"r\", nonce=\"3\", algorithm=SHA3-512, Digest realm=\"r\", nonce=\"4\", algorithm=SHA-512-256, qop=\"x\"",
    ]);
    assert_eq!(found.len(), 5);
    let best = Digest::strongest(&found).unwrap();
    assert_eq!((best.algorithm(), best.is_stale(), best.realm()), (Algorithm::Sha256, true, "r"));
    assert!(Digest::strongest(&found[..1]).is_none());
    for (field, kind) in [
        ("Basic realm=\"r\"", Kind::Usage),
        ("Digest realm=\"r\"", Kind::Protocol),
        ("Digest nonce=\"r\"", Kind::Protocol),
        ("Digest realm=\"r\", nonce=n, algorithm=x", Kind::Unsupported),
        ("Digest realm=\"r\", nonce=n, qop=x", Kind::Unsupported),
    ] {
        assert_eq!(Digest::from_challenge(&parse(&[field])[0]).unwrap_err().kind(), kind, "{field}");
    }
}

#[test]
fn quotes_and_foreign_letters_survive_in_names_and_realms() {
    let challenge = r#"Digest realm="a \"b\" \\c", nonce="n", qop="auth", opaque="o\"o""#;
    let mut plain = digest(challenge);
    let field = sent(&mut plain, &Credentials::new("d\"e\\", "p"), "GET", "/", None);
    assert!(field.starts_with(r#"Digest username="d\"e\\", realm="a \"b\" \\c", "#), "{field}");
    assert_eq!((param(&field, "opaque").as_str(), param(&field, "realm").as_str()), ("o\"o", "a \"b\" \\c"));
    let mut utf8 = digest(&format!("{challenge}, charset=utf-8"));
    let field = sent(&mut utf8, &Credentials::new("Jäsøn", "p"), "GET", "/", None);
    assert!(field.starts_with("Digest username*=UTF-8''J%C3%A4s%C3%B8n, realm"), "{field}");
    let error = plain.authorize(&Credentials::new("a\r\nX: y", "sesame"), "GET", "/", None).unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    assert!(!format!("{error:?} {plain:?}").contains("sesame"));
}

#[test]
fn challenges_are_told_apart_from_their_parameters() {
    let found =
        parse(&["Negotiate, NTLM TlRMTVNTUAAC==, ,Basic realm = \"a, b\" ,charset=utf-8,Bearer", "x-y a=b c=d"]);
    let list: Vec<_> = found.iter().map(|c| (c.scheme(), c.token(), c.realm())).collect();
    assert_eq!(
        list,
        [
            ("Negotiate", None, None),
            ("NTLM", Some("TlRMTVNTUAAC=="), None),
            ("Basic", None, Some("a, b")),
            ("Bearer", None, None),
            ("x-y", None, None),
        ]
    );
    assert_eq!((found[2].param("CHARSET"), found[4].param("c")), (Some("utf-8"), Some("d")));
    for (field, count) in [
        ("", 0),
        ("realm=\"x\"", 0),
        ("Basic realm=\"open", 1),
        ("Basic realm=", 1),
        ("\"Basic\"", 0),
        ("Basic a=b, =x, Digest", 1),
    ] {
        assert_eq!(parse(&[field]).len(), count, "{field}");
    }
    assert_eq!(parse(&["a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r"]).len(), 16);
}

proptest! {
    #[test]
    fn no_field_makes_the_parser_panic(
        raw in prop::collection::vec(any::<u8>(), 0..100),
        near in "((Basic|Digest|x)?[ ,]{0,2}[a-z]{0,5} ?=? ?\"?[a-z\\\\\", =]{0,8}\"?){0,6}",
    ) {
        for text in [String::from_utf8_lossy(&raw).as_ref(), near.as_str()] {
            if let Some(mut digest) = Digest::strongest(&challenges([text])) {
                let _ = digest.authorize(&Credentials::new("u", "p"), "GET", "/", None);
            }
            let mut digest = digest("Digest realm=\"r\", nonce=\"n\"");
            digest.update([text]);
        }
    }

    #[test]
    fn what_is_echoed_is_read_back_the_same(realm in "[ -~äø]{0,20}", nonce in "[ -~]{0,20}", user in "[ -~]{0,20}") {
        let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let mut digest = digest(&format!("Digest realm=\"{}\", nonce=\"{}\", qop=auth", quote(&realm), quote(&nonce)));
        let field = sent(&mut digest, &Credentials::new(user.clone(), "p"), "GET", "/", None);
        prop_assert_eq!((param(&field, "realm"), param(&field, "nonce"), param(&field, "username")), (realm, nonce, user));
    }
}
