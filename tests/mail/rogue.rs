//! SMTP servers that lie around STARTTLS, over real sockets and real TLS.

use portolan_core::{Connector, Credentials, Endpoint, Kind, Phase, Roots, Tls};
use portolan_mail::smtp::{Client, Options};
use portolan_testbed::rogue::{End, Rogue, Script};
use portolan_testbed::{Certs, Leaf, ServerTls};

fn net(certs: &Certs) -> Connector {
    let tls = Tls::builder().roots(Roots::Custom).root_pem(certs.ca.as_bytes()).build().unwrap();
    Connector::builder().tls(tls).build().unwrap()
}

fn options(rogue: &Rogue) -> Options {
    let to = Endpoint::new("localhost", rogue.addr().port()).unwrap();
    Options::new(to).hello("me.test").unwrap().credentials(Credentials::new("joe", "secret")).mechanism("PLAIN")
}

fn greeting() -> Script {
    Script::new()
        .send("220 hi\r\n")
        .expect("EHLO me.test\r\n")
        .send("250-hi\r\n250 STARTTLS\r\n")
        .expect("STARTTLS\r\n")
}

/// What a client that was led astray must never say.
fn no_secret_was_said(rogue: &Rogue) {
    for heard in rogue.heard() {
        assert!(!heard.text().contains("AUTH") && !heard.text().contains("MAIL"), "{heard}");
    }
}

#[tokio::test]
async fn the_login_goes_inside_tls_and_the_extensions_are_asked_for_again() {
    let certs = Certs::new();
    let inside = Script::new()
        .expect("EHLO me.test\r\n")
        .split("250-hi\r\n250 AUTH PLAIN\r\n", 1)
        .expect("AUTH PLAIN AGpvZQBzZWNyZXQ=\r\n")
        .send("235 welcome\r\n")
        .expect("QUIT\r\n")
        .send("221 bye\r\n");
    let rogue = Rogue::tcp(greeting().send("220 go\r\n").start_tls(&ServerTls::new(&certs)).then(inside)).await;
    let client = Client::connect(&net(&certs), options(&rogue)).await.unwrap();
    client.close().await.unwrap();
    rogue.finish().await[0].assert_done();
}

#[tokio::test]
async fn replies_before_the_handshake_are_an_injection() {
    let certs = Certs::new();
    for more in ["250 evil\r\n", "x"] {
        let script = greeting().send(format!("220 go\r\n{more}")).start_tls(&ServerTls::new(&certs));
        let rogue = Rogue::tcp(script).await;
        let error = Client::connect(&net(&certs), options(&rogue)).await.unwrap_err();
        assert_eq!((error.kind(), error.phase()), (Kind::Protocol, Some(Phase::Handshake)), "{error:?}");
        no_secret_was_said(&rogue);
    }
}

#[tokio::test]
async fn no_wrong_certificate_and_no_stripped_offer_gets_the_login() {
    let certs = Certs::new();
    for leaf in [Leaf::server(["other.test"]), Leaf::server(["localhost"]).expired()] {
        let tls = ServerTls::with(certs.sign(&leaf));
        let rogue = Rogue::tcp(greeting().send("220 go\r\n").start_tls(&tls)).await;
        let error = Client::connect(&net(&certs), options(&rogue)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Tls, "{error:?}");
        assert!(matches!(rogue.ended(0).await.end(), End::Tls(_)));
        no_secret_was_said(&rogue);
    }
    let stripped =
        Script::new().send("220 hi\r\n").expect("EHLO me.test\r\n").send("250-hi\r\n250 AUTH PLAIN\r\n").skip();
    let rogue = Rogue::tcp(stripped).await;
    let error = Client::connect(&net(&certs), options(&rogue)).await.unwrap_err();
    assert_ne!(error.kind(), Kind::Timeout, "{error:?}");
    no_secret_was_said(&rogue);
}
