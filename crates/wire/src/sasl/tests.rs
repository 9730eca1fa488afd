use super::scram::{Flag, MAX_ITERATIONS};
use super::*;

fn scram(hash: Hash, nonce: &str, flag: Flag) -> Client {
    let scram = Scram::new(hash, "user", "", "pencil", flag, nonce.into()).unwrap();
    Client { mechanism: Mechanism::ScramSha256, state: State::Scram(Box::new(scram)) }
}

fn text(message: Option<Vec<u8>>) -> String {
    String::from_utf8(message.unwrap()).unwrap()
}

const OURS: &str = "rOprNGfwEbeRWgbNEkqO";
/// RFC 7677 3.
const FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const VERDICT: &[u8] = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

#[test]
fn scram_sha_1_gives_what_rfc_5802_section_5_gives() {
    let mut client = scram(Hash::Sha1, "fyko+d2lbbFgONRv9qkxdawL", Flag::No);
    assert_eq!(text(client.initial().unwrap()), "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL");
    let answer = client.step(b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096").unwrap();
    assert_eq!(text(answer), "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=");
    client.finish(Some(b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=")).unwrap();
}

#[test]
fn scram_sha_256_gives_what_rfc_7677_section_3_gives() {
    let mut client = scram(Hash::Sha256, OURS, Flag::No);
    assert_eq!(text(client.initial().unwrap()), format!("n,,n=user,r={OURS}"));
    let answer = text(client.step(FIRST.as_bytes()).unwrap());
    assert!(answer.ends_with(",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="), "{answer}");
    // The verdict may come as a challenge too, and is answered with nothing.
    assert_eq!(client.step(VERDICT).unwrap(), Some(Vec::new()));
    client.finish(None).unwrap();
}

#[test]
fn scram_sha_512_and_the_bound_form_agree_with_python_s_hashlib() {
    // Computed with hashlib.pbkdf2_hmac and hmac of Python 3.11.
    let mut client = scram(Hash::Sha512, OURS, Flag::No);
    client.initial().unwrap();
    let answer = text(client.step(FIRST.as_bytes()).unwrap());
    assert_eq!(answer.split_once(",p=").unwrap().1, include_str!("vectors/sha512.proof").trim());
    let mut client = scram(Hash::Sha256, OURS, Flag::Bound("tls-exporter", vec![7; 32]));
    assert_eq!(text(client.initial().unwrap()), format!("p=tls-exporter,,n=user,r={OURS}"));
    let answer = text(client.step(FIRST.as_bytes()).unwrap());
    assert_eq!(answer.split_once(",p=").unwrap().1, include_str!("vectors/sha256-plus.proof").trim());
}

#[test]
fn a_server_that_does_not_prove_itself_is_refused() {
    let at_final = || {
        let mut client = scram(Hash::Sha256, OURS, Flag::No);
        client.initial().unwrap();
        client.step(FIRST.as_bytes()).unwrap();
        client
    };
    assert_eq!(at_final().finish(None).unwrap_err().kind(), Kind::Auth);
    let wrong = b"v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
    let mut client = at_final();
    assert_eq!(client.finish(Some(wrong)).unwrap_err().kind(), Kind::Auth);
    assert!(client.finish(Some(VERDICT)).is_err(), "no second try");
    assert_eq!(at_final().step(b"v=").unwrap_err().kind(), Kind::Auth);
    let error = at_final().step(b"e=invalid-proof").unwrap_err();
    assert_eq!((error.kind(), error.message()), (Kind::Auth, "the server says invalid-proof"));
    let mut early = scram(Hash::Sha256, OURS, Flag::No);
    early.initial().unwrap();
    assert_eq!(early.finish(None).unwrap_err().kind(), Kind::Auth);
}

#[test]
fn a_first_message_that_breaks_the_rules_is_refused() {
    let told = |message: &str| {
        let mut client = scram(Hash::Sha256, OURS, Flag::No);
        client.initial().unwrap();
        client.step(message.as_bytes()).unwrap_err().kind()
    };
    assert_eq!(told(&FIRST.replace("i=4096", &format!("i={}", MAX_ITERATIONS + 1))), Kind::Limit);
    assert_eq!(told(&FIRST.replace("i=4096", "i=99999999999999999999")), Kind::Limit);
    assert_eq!(told(&FIRST.replace("i=4096", "i=4095")), Kind::Auth);
    assert_eq!(told(&FIRST.replace("i=4096", "i=+4096")), Kind::Protocol);
    assert_eq!(told(&FIRST.replace("i=4096", "i=")), Kind::Protocol);
    assert_eq!(told(&FIRST.replace("r=rO", "r=xO")), Kind::Protocol);
    assert_eq!(told(&format!("r={OURS},s=QQ==,i=4096")), Kind::Protocol);
    assert_eq!(told(&FIRST.replace("s=W22", "s=*22")), Kind::Protocol);
    assert_eq!(told(&FIRST.replace("W22ZaJ0SNY7soEsUEjb6gQ==", "")), Kind::Protocol);
    assert_eq!(told(&format!("m=x,{FIRST}")), Kind::Protocol);
    assert_eq!(told("e=unknown-user"), Kind::Auth);
    assert_eq!(told(""), Kind::Protocol);
    assert_eq!(told(&"r".repeat(5000)), Kind::Limit);
}

#[test]
fn names_are_escaped_and_text_is_prepared() {
    let scram = Scram::new(Hash::Sha256, "a,b=c\u{a0}d\u{ad}", "x,y", "p", Flag::Could, "N".into());
    assert_eq!(text(scram.unwrap().first()), "y,a=x=2Cy,n=a=2Cb=3Dc d,r=N");
    assert_eq!(Scram::new(Hash::Sha256, "a", "", "p\u{7}", Flag::No, "N".into()).err().unwrap().kind(), Kind::Usage);
    let nonces = [scram::nonce().unwrap(), scram::nonce().unwrap()];
    assert!(nonces[0] != nonces[1] && nonces[0].len() == 24 && !nonces[0].contains([',', '=']));
}

#[test]
fn cram_md5_gives_what_rfc_2195_gives() {
    let identity = Identity::password("tim", "tanstaaftanstaaf");
    let mut client = Client::new(Mechanism::CramMd5, &identity, &ChannelBinding::None).unwrap();
    assert_eq!(client.initial().unwrap(), None);
    assert!(client.finish(None).is_err());
    let answer = client.step(b"<1896.697170952@postoffice.reston.mci.net>").unwrap();
    assert_eq!(text(answer), "tim b913a602c7eda7a495b4e6e7334d3890");
    client.finish(None).unwrap();
}

#[test]
fn plain_login_external_and_anonymous_say_what_they_are_told() {
    let none = ChannelBinding::None;
    let identity = Identity::password("tim", "p w").acting_as("root");
    assert_eq!(text(Client::new(Mechanism::Plain, &identity, &none).unwrap().initial().unwrap()), "root\0tim\0p w");
    assert!(Client::new(Mechanism::Login, &identity, &none).is_err(), "LOGIN cannot act as another");
    let mut login = Client::new(Mechanism::Login, &Identity::password("tim", ""), &none).unwrap();
    assert_eq!(login.initial().unwrap(), None);
    assert_eq!(text(login.step(b"Username:").unwrap()), "tim");
    assert!(login.finish(None).is_err());
    assert_eq!(text(login.step(b"Password:").unwrap()), "");
    login.finish(None).unwrap();
    let mut external = Client::new(Mechanism::External, &Identity::external(), &none).unwrap();
    assert_eq!(external.initial().unwrap(), Some(Vec::new()));
    let mut anonymous = Client::new(Mechanism::Anonymous, &Identity::anonymous("me@example"), &none).unwrap();
    // A server without initial responses asks with an empty challenge.
    assert_eq!(text(anonymous.step(b"").unwrap()), "me@example");
}

#[test]
fn a_refused_token_is_answered_as_each_form_wants_and_never_ends_in_success() {
    let none = ChannelBinding::None;
    let identity = Identity::token("me@example.com", "tok").at("mail.example.com", 143);
    let mut client = Client::new(Mechanism::XOAuth2, &identity, &none).unwrap();
    assert_eq!(text(client.initial().unwrap()), "user=me@example.com\u{1}auth=Bearer tok\u{1}\u{1}");
    assert_eq!(client.step(b"{\"status\":\"401\"}").unwrap(), Some(Vec::new()));
    assert_eq!(client.refusal(), Some("{\"status\":\"401\"}"));
    assert_eq!(client.finish(None).unwrap_err().kind(), Kind::Auth);
    // RFC 7628 4.1.
    let mut client = Client::new(Mechanism::OAuthBearer, &identity, &none).unwrap();
    assert_eq!(
        text(client.initial().unwrap()),
        "n,a=me@example.com,\u{1}host=mail.example.com\u{1}port=143\u{1}auth=Bearer tok\u{1}\u{1}"
    );
    assert_eq!(client.step(b"{}").unwrap(), Some(vec![1]));
    assert_eq!(client.step(b"{}").unwrap(), None);
}

#[test]
fn separators_in_user_password_or_token_are_usage_errors() {
    let none = ChannelBinding::None;
    let kind = |mechanism, identity: Identity| Client::new(mechanism, &identity, &none).err().map(|error| error.kind());
    assert_eq!(kind(Mechanism::Plain, Identity::password("a\0b", "p")), Some(Kind::Usage));
    assert_eq!(kind(Mechanism::Plain, Identity::password("a", "p\0q")), Some(Kind::Usage));
    assert_eq!(kind(Mechanism::Plain, Identity::password("a", "p").acting_as("r\0t")), Some(Kind::Usage));
    assert_eq!(kind(Mechanism::XOAuth2, Identity::token("a", "t\u{1}auth=x")), Some(Kind::Usage));
    assert_eq!(kind(Mechanism::CramMd5, Identity::password("a\r\nb", "p")), Some(Kind::Usage));
    assert_eq!(kind(Mechanism::ScramSha256Plus, Identity::password("a", "p")), Some(Kind::Usage));
}

#[test]
fn the_strongest_in_common_is_chosen_and_no_secret_goes_out_in_the_clear() {
    let binding = ChannelBinding::Exporter(vec![1; 32]);
    let (identity, all) = (Identity::password("u", "p"), Allow::default());
    let chosen = |offered: &[&str], allow: &Allow, tls, binding| {
        let offered = offered.iter().copied();
        choose(offered, &identity, allow, tls, binding).map(|client| client.mechanism()).map_err(|error| error.kind())
    };
    let offer = ["plain", "LOGIN", "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "EXTERNAL", "ANONYMOUS", "X"];
    assert_eq!(chosen(&offer, &all, true, &binding), Ok(Mechanism::ScramSha256Plus));
    assert_eq!(chosen(&offer, &all, true, &ChannelBinding::None), Ok(Mechanism::ScramSha256));
    assert_eq!(chosen(&offer, &all, false, &binding), Ok(Mechanism::ScramSha256));
    assert_eq!(chosen(&offer, &Allow::only([Mechanism::Plain]), true, &binding), Ok(Mechanism::Plain));
    assert_eq!(chosen(&offer, &Allow::only([Mechanism::Plain]), false, &binding), Err(Kind::Auth));
    let loud = Allow::only([Mechanism::Plain]).dangerous().cleartext_without_tls();
    assert_eq!(chosen(&offer, &loud, false, &binding), Ok(Mechanism::Plain));
    assert_eq!(chosen(&["PLAIN", "LOGIN"], &all, false, &binding), Err(Kind::Auth));
    assert_eq!(chosen(&["GSSAPI", "ANONYMOUS", "EXTERNAL"], &all, true, &binding), Err(Kind::Auth));
    assert_eq!(chosen(&[], &all, true, &binding), Err(Kind::Auth));
}

#[test]
fn an_offer_of_binding_that_was_cut_out_is_given_away_by_the_flag() {
    let identity = Identity::password("u", "p");
    let header = |offered: &[&str], binding| {
        let mut client = choose(offered.iter().copied(), &identity, &Allow::default(), true, binding).unwrap();
        text(client.initial().unwrap()).chars().take(2).collect::<String>()
    };
    let binding = ChannelBinding::ServerEndPoint(vec![1; 32]);
    assert_eq!(header(&["SCRAM-SHA-256"], &binding), "y,");
    assert_eq!(header(&["SCRAM-SHA-256"], &ChannelBinding::None), "n,");
    assert_eq!(header(&["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"], &binding), "p=");
}

#[test]
fn nothing_secret_is_printed() {
    let identity = Identity::password("u", "hunter2");
    let client = Client::new(Mechanism::Plain, &identity, &ChannelBinding::None).unwrap();
    let binding = ChannelBinding::Exporter(b"hunter2".to_vec());
    assert!(!format!("{identity:?} {client:?} {binding:?}").contains("hunter2"));
}
