//! Whois against uwhoisd: a server in Python that looks the answer up at another, which this suite plays.

use portolan_classic::whois::{Client, End, Options};
use portolan_core::{Connector, Kind};
use portolan_testbed::record;
use portolan_testbed::rogue::{Rogue, Script};

use super::uwhoisd::uwhoisd;

/// The registry behind it: answers every query with `text`.
async fn registry(text: &str) -> Rogue {
    Rogue::tcp(Script::new().expect_until("\n").send(text)).await
}

#[tokio::test]
async fn an_answer_with_a_referral_comes_through_and_is_followed_as_far_as_allowed() {
    let registry = registry("domain: EXAMPLE.ORG\r\nowner: J\u{f6}rg\r\nrefer: 127.0.0.1:9\r\n").await;
    let Some((_server, addr)) = uwhoisd(registry.addr()) else { return };
    let net = Connector::default();
    let ask = async || Client::connect(&net, Options::new(addr.into())).await.unwrap();
    let answer = ask().await.query("example.org").await.unwrap();
    assert_eq!(answer.replies[0].text.lines().nth(1), Some("owner: J\u{f6}rg".as_bytes()));
    assert!(matches!(&answer.end, End::Foreign(port) if port == "127.0.0.1:9"), "{answer:?}");
    let refused = ask().await.referrals_to_any_port(true).query("example.org").await.unwrap();
    assert!(matches!(&refused.end, End::Failed(_, error) if error.is_refused()), "{refused:?}");
    let bad = ask().await.query("not a name!").await.unwrap();
    assert!(bad.replies[0].text.lossy().starts_with("; Bad query"), "{bad:?}");
    let short = Client::connect(&net, Options::new(addr.into()).max_bytes(10)).await.unwrap();
    assert_eq!(short.query("example.org").await.unwrap_err().kind(), Kind::Limit);
    record("whois", "exchange", "uwhoisd 0.1", "TCP, records served by the suite", 4);
}
