use portolan_core::{Endpoint, Kind};
use portolan_wire::laws;

use super::known_hosts::{Verdict, fingerprint, line, name};
use super::{HostKeyError, HostKeys, Jump, KnownHosts, jump};

/// Made by `ssh-keygen -t ed25519`; its fingerprint by `ssh-keygen -l`.
const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAINc6DMIO5291CJnpqyvxEmLRp3VTl+qYofiSYVRK+YcL";
const KEY_FINGERPRINT: &str = "SHA256:fdiboxAh8m1LaZdPIIJIyVBIE/7P5H1pg5y3TFWl6K0";
const OTHER: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIG+pZlmxUh25Of2QWywOMoNRtmAigM8rHWRtknqnvzNN";
const RSA: &str = "AAAAB3NzaC1yc2EAAAADAQABAAABAQDNnzlBtct3pDTTJvYwRsXCSWdqISKk7oH2U9JMoDi6gz5sbk9wFNo1GxuNxyEuc9nantAJnrWhj0QDvt\
    Qfq1WrrbYIo87Nb9+aHbiUVoA/v66Dp9SFzuad7lS9AXY7jCWhdWGOqklEDv7BCHIpYZH5ZGZK+OZV01BzwLSkCsS9GYmExDSG3IqsffXUrFrc\
    I18WDifSvWjweEAZKvvEOtuIul5boCoJKtxl5/MSpz4KO0qAjsBfqp4L+Dr5T/FcGPwkRxTeOXJIuvfeMjRPDPlYMDNfLsTiHkWTHBu67pG52v\
    vExfpEHDVqDkEyLmcMgIx057NRGBZM6rNcMF6jY1EV";
const HASHED: [&str; 2] = [
    "|1|QBbNc7csfaXrng9dHjKxW+FV+QQ=|RmMJT8FoPkRcXMJ4kKEjfIcz7Tk=",
    "|1|ns4ckgyKGVb00N1BbZMcfEXCxgg=|NNHG2lmuqTFZbEvjpPzPh6T+bf8=",
];

fn blob(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

fn check(text: &str, host: &str, port: u16) -> Verdict {
    KnownHosts::decode(text.as_bytes()).unwrap().check(host, port, &blob(KEY))
}

#[test]
fn hosts_are_named_as_openssh_names_them() {
    assert_eq!(name("Bastion.Example.", 22), "bastion.example");
    assert_eq!(name("bastion", 2222), "[bastion]:2222");
    assert_eq!(name("2001:db8::1", 2222), "[2001:db8::1]:2222");
    assert_eq!(fingerprint(&blob(KEY)), KEY_FINGERPRINT);
    assert_eq!(line("a", 22, &blob(KEY)), format!("a ssh-ed25519 {KEY}\n"));
}

#[test]
fn patterns_match_as_openssh_matches_them() {
    for (hosts, host, port, known) in [
        ("a.example", "a.example", 22, true),
        ("A.Example", "a.eXAMPLE", 22, true),
        ("a.example", "a.example", 2222, true),
        ("[a.example]:2222", "a.example", 2222, true),
        ("[a.example]:2222", "a.example", 22, false),
        ("b,a.example,c", "a.example", 22, true),
        ("*.example", "a.example", 22, true),
        ("*.example", "example", 22, false),
        ("a?example", "a.example", 22, true),
        ("a?example", "aexample", 22, false),
        ("*", "anything", 1, true),
        ("*.example,!a.example", "a.example", 22, false),
        ("!a.example", "b.example", 22, false),
        ("10.0.0.?", "10.0.0.7", 22, true),
        ("*a*b*c*", "xxaxxbxxcxx", 22, true),
        ("*a*b*c*d", "xxaxxbxxcxx", 22, false),
        ("2001:db8::1", "2001:db8::1", 22, true),
        ("|1|broken", "broken", 22, false),
        (",", "", 22, false),
    ] {
        let verdict = check(&format!("{hosts} ssh-ed25519 {KEY} comment\n"), host, port);
        assert_eq!(verdict == Verdict::Known, known, "{hosts} {host}:{port} {verdict:?}");
    }
    // Takes no time even where there is much to try.
    let hosts = "*a".repeat(2000);
    assert_eq!(check(&format!("{hosts}b ssh-ed25519 {KEY}"), &"a".repeat(2000), 22), Verdict::Unknown);
}

#[test]
fn hashed_names_are_found() {
    // By ssh-keygen -H, of `bastion.example` and `[bastion.example]:2222`.
    let text = format!("{} ssh-ed25519 {KEY}\n{} ssh-ed25519 {OTHER}\n", HASHED[0], HASHED[1]);
    assert_eq!(check(&text, "bastion.example", 22), Verdict::Known);
    assert!(matches!(check(&text, "bastion.example", 2222), Verdict::Changed { line: 2, .. }));
    assert_eq!(check(&text, "other.example", 22), Verdict::Unknown);
}

#[test]
fn what_a_file_says_of_a_key() {
    let known = format!("h ssh-ed25519 {KEY}");
    assert_eq!(check(&known, "h", 22), Verdict::Known);
    assert_eq!(check(&format!("{known}\n@revoked * ssh-ed25519 {KEY}"), "h", 22), Verdict::Revoked { line: 2 });
    assert_eq!(check(&format!("@revoked x ssh-ed25519 {KEY}\n{known}"), "h", 22), Verdict::Known);
    let other = fingerprint(&blob(OTHER));
    let changed = format!("# a\n\nh ssh-ed25519 {OTHER}");
    assert_eq!(check(&changed, "h", 22), Verdict::Changed { line: 3, fingerprint: other });
    assert_eq!(check(&format!("{changed}\n{known}"), "h", 22), Verdict::Known);
    assert!(matches!(check(&format!("h ssh-rsa {RSA}"), "h", 22), Verdict::OtherType { line: 1, .. }));
    for nothing in [
        format!("@cert-authority h ssh-ed25519 {KEY}"),
        format!("@unheard-of h ssh-ed25519 {KEY}"),
        format!("h ssh-rsa {KEY}"),
        format!("h ssh-ed25519 {}", &KEY[1..]),
        "h 1024 35 1234567890".to_owned(),
        "h ssh-ed25519".to_owned(),
        "\u{feff}h".to_owned(),
    ] {
        assert_eq!(check(&nothing, "h", 22), Verdict::Unknown, "{nothing}");
    }
    let file = KnownHosts::decode(format!("@cert-authority *.example ssh-ed25519 {KEY}\n").as_bytes()).unwrap();
    assert!(file.authority("a.example", 22, Some(&blob(KEY))) && !file.authority("a.test", 22, None));
    assert!(!file.authority("a.example", 22, Some(&blob(OTHER))) && !file.knows("a.example", 22));
}

#[test]
fn known_hosts_keeps_the_laws() {
    let seeds = [
        format!("# all\n{} ssh-ed25519 {KEY} me@here\n@revoked * ssh-rsa {RSA}\n", HASHED[0]),
        format!("*.example,!b.example,[c]:2222 ssh-ed25519 {KEY}\r\n@cert-authority * ssh-ed25519 {OTHER}\n"),
    ];
    let seeds: Vec<_> = seeds.iter().map(String::as_bytes).collect();
    laws::check_datagram(KnownHosts::decode, &seeds);
    assert!(KnownHosts::decode(&vec![b'\n'; (64 << 20) + 1]).is_err());
}

#[test]
fn jump_hosts_are_read_from_urls() {
    let hop = jump("ssh://ann:sesame@bastion.example:2222").unwrap();
    assert_eq!(format!("{hop:?}"), "ssh://ann:***@bastion.example:2222");
    let made =
        Jump::parse("ssh://ann:sesame@bastion?identity=/a/key&identity=/b&known_hosts=/k&fingerprint=SHA256:a%2Bb");
    let shown = format!("{:?}", made.unwrap());
    for part in ["ssh://bastion", "[password, key /a/key, key /b]", "\"/k\"", "SHA256:a+b", "refused"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!shown.contains("sesame"), "{shown}");
    for wrong in ["http://a", "ssh://", "ssh://a/path", "ssh://a?strict=no", "ssh://a:99999", "ssh://a b"] {
        assert_eq!(jump(wrong).unwrap_err().kind(), Kind::Usage, "{wrong}");
    }
}

#[test]
fn nothing_secret_is_shown() {
    let to = Endpoint::new("bastion", 22).unwrap();
    let jump = Jump::new(to, "ann").password("sesame").key_pem("sesame").locked_key_pem("x", "sesame");
    let jump = jump.locked_key_file("/key", "sesame").answers(|_| None).agent("/agent");
    let shown = format!("{jump:?}{:?}", jump.clone().hop());
    assert!(!shown.contains("sesame") && shown.contains("password, key ***, key ***, key /key, answers, agent /agent"));
    let shown = format!("{:?}", jump.dangerous().accept_any_host_key());
    assert!(shown.contains("never looked at"), "{shown}");
}

#[test]
fn a_host_key_error_says_what_to_do_with_it() {
    let trusted = HostKeys::text(format!("bastion ssh-ed25519 {OTHER}\n")).load().unwrap();
    let shown = russh::keys::PublicKey::from_bytes(&blob(KEY)).unwrap();
    let error: Box<HostKeyError> = trusted.check("bastion", 22, &shown.clone().into()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "host key of bastion has changed: it is ssh-ed25519 {}, and not {} (line 1)",
            fingerprint(&blob(KEY)),
            fingerprint(&blob(OTHER))
        )
    );
    let error = trusted.check("other", 22, &shown.into()).unwrap_err();
    assert_eq!(error.to_string(), format!("host key of other is unknown: ssh-ed25519 {}", fingerprint(&blob(KEY))));
}
