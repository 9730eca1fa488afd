//! Redis servers that flood, tear and truncate.

use std::time::Duration;

use portolan_core::{Connector, Delivery, Endpoint, Kind, Roots, Timeouts, Tls};
use portolan_db::redis::{Client, Options, Value};
use portolan_testbed::rogue::{Rogue, Script};
use portolan_testbed::{Certs, ServerTls};

const GET: &str = "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";

/// The handshake of RESP2 without a login, and the question.
fn asked() -> Script {
    Script::new().expect("*1\r\n$4\r\nPING\r\n").send("+PONG\r\n").expect(GET)
}

fn options(to: Endpoint) -> Options {
    let short = Duration::from_secs(5);
    let limits = Timeouts::default().handshake(short).first_byte(short).idle(short);
    Options::new(to).resp2().reconnect(false).timeouts(limits)
}

#[tokio::test]
async fn a_reply_torn_or_flooded_is_a_typed_error_and_the_connection_is_not_used_again() {
    for (then, kind, delivery) in [
        (Script::new().send("$5\r\nval").close(), Kind::Closed, Delivery::Unknown),
        (Script::new().send("$5\r\nval").reset(), Kind::Closed, Delivery::Unknown),
        (Script::new().reset(), Kind::Closed, Delivery::Unknown),
        // A line without an end, and a bulk of more than anyone may have.
        (Script::new().send("+").flood("x", u64::MAX), Kind::Limit, Delivery::Unknown),
        (Script::new().send("$99999999999\r\n").flood("x", u64::MAX), Kind::Limit, Delivery::Unknown),
        (Script::new().send("?what\r\n").skip(), Kind::Unsupported, Delivery::Unknown),
        (Script::new().send("$x\r\n").skip(), Kind::Protocol, Delivery::Unknown),
    ] {
        let what = format!("{then:?}");
        let rogue = Rogue::tcp(asked().then(then)).await;
        let client = Client::connect(&Connector::default(), options(rogue.addr().into())).await.unwrap();
        let error = client.get::<Value>("k").await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (kind, delivery), "{what}: {error:?}");
        client.get::<Value>("k").await.unwrap_err();
        drop(client);
        assert_eq!(rogue.finish().await.len(), 1, "{what}");
    }
}

#[tokio::test]
async fn tls_without_its_goodbye_is_no_whole_reply() {
    let certs = Certs::new();
    let script = asked().send("$5\r\nval").cut();
    let rogue = Rogue::tls(&ServerTls::new(&certs), script).await;
    let tls = Tls::builder().roots(Roots::Custom).root_pem(certs.ca.as_bytes()).build().unwrap();
    let net = Connector::builder().tls(tls).build().unwrap();
    let to = Endpoint::new("localhost", rogue.addr().port()).unwrap();
    let client = Client::connect(&net, options(to).tls(true)).await.unwrap();
    let error = client.get::<Value>("k").await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Closed, Delivery::Unknown), "{error:?}");
    drop(client);
    rogue.finish().await[0].assert_done();
}
