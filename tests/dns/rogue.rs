//! Servers of encrypted DNS that lie, stall, cut and flood.

use std::time::Duration;

use portolan_core::{Connector, Delivery, Kind, Phase};
use portolan_dns::dns::{Client, Options, RecordType};
use portolan_dns::doq::Code;
use portolan_testbed::rogue::{Rogue, Script};
use portolan_testbed::{Certs, Leaf, ServerTls, record};

use crate::servers::{self, trusting};

/// A padded query in TCP's framing.
const QUERY: usize = 2 + 128;
/// For peers that say nothing, and for all others.
const QUICK: Duration = Duration::from_secs(1);
const PATIENT: Duration = Duration::from_secs(20);

fn patience(kind: Kind) -> Duration {
    if kind == Kind::Timeout { QUICK } else { PATIENT }
}

fn net(certs: &Certs) -> Connector {
    Connector::builder().tls(trusting(certs)).build().unwrap()
}

async fn client(certs: &Certs, scheme: &str, port: u16, limit: Duration) -> Client {
    let options = Options::from_url(&format!("{scheme}://localhost@127.0.0.1:{port}")).unwrap();
    Client::connect(&net(certs), options.timeout(limit)).await.unwrap()
}

/// The answer to a query (both without length): 192.0.2.`last` for whatever was asked.
fn a_record(query: &[u8], last: u8) -> Vec<u8> {
    let labels = query[12..].iter().position(|&byte| byte == 0).unwrap();
    let mut answer = query[..12 + labels + 5].to_vec();
    (answer[2], answer[3]) = (0x81, 0x80);
    answer[4..12].copy_from_slice(&[0, 1, 0, 1, 0, 0, 0, 0]);
    answer.extend(b"\xc0\x0c\0\x01\0\x01\0\0\x0e\x10\0\x04\xc0\0\x02");
    answer.push(last);
    answer
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

fn right(query: &[u8]) -> Vec<u8> {
    framed(&a_record(&query[2..], 1))
}

fn changed(at: usize, to: u8) -> impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static {
    move |query| {
        let mut answer = right(query);
        answer[2 + at] ^= to;
        answer
    }
}

fn asked() -> Script {
    Script::new().expect_len(QUERY)
}

#[tokio::test]
async fn what_a_server_of_dns_over_tls_does_wrong_is_a_typed_error_and_the_next_query_has_a_new_connection() {
    let certs = Certs::new();
    let tls = ServerTls::new(&certs).alpn(["dot"]);
    for (what, then, kind) in [
        ("silence", Script::new().stall(), Kind::Timeout),
        ("closed", Script::new().close(), Kind::Closed),
        ("torn", Script::new().cut(), Kind::Closed),
        ("reset", Script::new().reset(), Kind::Closed),
        ("cut", Script::new().send(b"\0\x40\0\0\x81").close(), Kind::Closed),
        ("a length of nothing", Script::new().send(b"\0\0").stall(), Kind::Protocol),
        ("less than a header", Script::new().send(b"\0\x05hello").stall(), Kind::Protocol),
        ("a wrong id", Script::new().answer(changed(1, 0x5a)).stall(), Kind::Timeout),
        ("another question", Script::new().answer(changed(13, 1)).stall(), Kind::Protocol),
        ("another type", Script::new().answer(changed(12 + 15, 1)).stall(), Kind::Protocol),
        ("a query", Script::new().answer(|query| query.to_vec()).stall(), Kind::Protocol),
        (
            "trailing bytes",
            Script::new().answer(|query| framed(&[&right(query)[2..], b"x"].concat())).stall(),
            Kind::Protocol,
        ),
        ("messages nobody asked for", Script::new().flood(framed(&[7; 200]), 4 << 20).stall(), Kind::Timeout),
        ("a late answer", Script::new().delay(QUICK * 2).answer(right).stall(), Kind::Timeout),
    ] {
        let scripts = vec![asked().then(then), asked().answer(right).stall()];
        let rogue = Rogue::tls(&tls, scripts).await;
        let names = client(&certs, "tls", rogue.addr().port(), patience(kind)).await;
        let error = names.query("rogue.test", RecordType::A).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.protocol_name()),
            (kind, Some(if what == "trailing bytes" { "dns" } else { "dot" })),
            "{what}: {error:?}"
        );
        if what == "trailing bytes" {
            // The framing held: it is the answer that is broken.
            continue;
        }
        let next = names.query("rogue.test", RecordType::A).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert!(next.a().count() == 1 && !next.info.connection.reused, "{what}");
    }
}

#[tokio::test]
async fn answers_in_any_order_in_drops_and_among_strangers_find_their_queries() {
    let certs = Certs::new();
    let tls = ServerTls::new(&certs).alpn(["dot"]);
    // Both queries are there before either is answered; the second is answered first, twice, behind a stranger.
    let both = Script::new().expect_len(2 * QUERY).answer(|queries| {
        let (first, second) = queries.split_at(QUERY);
        let mut out = framed(&a_record(&first[2..], 66));
        out[2..4].copy_from_slice(&[0xff, 0xf0]);
        out.extend(framed(&a_record(&second[2..], 2)).repeat(2));
        out.extend(right(first));
        out
    });
    for script in [both.clone(), both.in_pieces(1)] {
        let rogue = Rogue::tls(&tls, script.then(asked().answer(right)).stall()).await;
        let names = client(&certs, "tls", rogue.addr().port(), PATIENT).await;
        let (one, two) = tokio::join!(names.query("one.test", RecordType::A), names.query("two.test", RecordType::A));
        let last = |answer: portolan_core::Result<portolan_dns::dns::Response>| {
            answer.unwrap().a().next().unwrap().octets()[3]
        };
        assert_eq!((last(one), last(two)), (1, 2));
        assert_eq!(last(names.query("three.test", RecordType::A).await), 1);
        assert_eq!(rogue.connections(), 1);
    }
}

#[tokio::test]
async fn a_query_given_up_leaves_the_connection_to_the_others() {
    let certs = Certs::new();
    let tls = ServerTls::new(&certs);
    let script = asked().answer(right).then(asked()).then(asked().answer(right)).stall();
    let rogue = Rogue::tls(&tls, script).await;
    let names = client(&certs, "tls", rogue.addr().port(), PATIENT).await;
    names.query("one.test", RecordType::A).await.unwrap();
    tokio::select! {
        biased;
        _ = names.query("two.test", RecordType::A) => panic!("nobody has answered"),
        // By now it is on its way.
        () = tokio::task::yield_now() => {}
    }
    let answer = names.query("three.test", RecordType::A).await.unwrap();
    assert_eq!((answer.a().count(), rogue.connections()), (1, 1));
}

#[tokio::test]
async fn a_connection_closed_while_it_was_kept_is_replaced_and_the_query_sent_again() {
    let certs = Certs::new();
    let tls = ServerTls::new(&certs).alpn(["dot"]);
    // The second query is read, and the connection closed over it.
    let rogue =
        Rogue::tls(&tls, vec![asked().answer(right).then(asked()).close(), asked().answer(right).stall()]).await;
    let names = client(&certs, "tls", rogue.addr().port(), PATIENT).await;
    names.query("one.test", RecordType::A).await.unwrap();
    let second = names.query("two.test", RecordType::A).await.unwrap();
    assert_eq!((second.info.attempts, second.info.connection.reused, rogue.connections()), (2, false, 2));
}

#[tokio::test]
async fn a_server_that_speaks_something_else_is_no_server_of_dns_over_tls() {
    let certs = Certs::new();
    for tls in
        [ServerTls::new(&certs).alpn(["http/1.1"]), ServerTls::with(certs.sign(&Leaf::server(["localhost"]).expired()))]
    {
        let rogue = Rogue::tls(&tls, Script::new().stall()).await;
        let names = client(&certs, "tls", rogue.addr().port(), PATIENT).await;
        let error = names.query("one.test", RecordType::A).await.unwrap_err();
        assert_eq!((error.kind(), error.phase(), error.delivery()), (Kind::Tls, Some(Phase::Tls), Delivery::NotSent));
    }
    // Plain DNS on the port: nothing is asked there.
    let rogue = Rogue::tcp(Script::new().expect_some().send(b"\0\x0cplain answer").stall()).await;
    let names = client(&certs, "tls", rogue.addr().port(), PATIENT).await;
    assert_eq!(names.query("one.test", RecordType::A).await.unwrap_err().kind(), Kind::Tls);
    assert_eq!(rogue.heard().first().map_or(0x16, |heard| heard.bytes()[0]), 0x16, "a handshake, and no query");
}

/// What a server of HTTP/1.1 says to a POST.
fn said(head: &str, body: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static) -> Script {
    let head = head.to_owned();
    Script::new().expect_until(b"\r\n\r\n").expect_len(128).answer(move |query| {
        let body = body(query);
        let length = format!("content-length: {}\r\n", body.len());
        let length = if head.contains("content-length") { "" } else { &length };
        [head.replace('\n', "\r\n").as_bytes(), length.as_bytes(), b"\r\n", &body].concat()
    })
}

const FINE: &str = "HTTP/1.1 200 OK\ncontent-type: application/dns-message\n";

#[tokio::test]
async fn what_a_server_of_dns_over_https_does_wrong_is_a_typed_error() {
    let certs = Certs::new();
    let tls = ServerTls::new(&certs).alpn(["http/1.1"]);
    let one = |query: &[u8]| a_record(query, 1);
    let with = |head: &str| format!("{FINE}{head}\n");
    let status = |line: &str| format!("HTTP/1.1 {line}\ncontent-type: application/dns-message\n");
    for (what, script, kind, code) in [
        ("a refusal", said(&status("403 Forbidden"), one), Kind::Server, Some(403)),
        ("a failure", said(&status("500 Oops"), one), Kind::Server, Some(500)),
        ("a redirect", said(&status("302 Found\nlocation: https://localhost/other"), one), Kind::Server, Some(302)),
        ("another media type", said("HTTP/1.1 200 OK\ncontent-type: text/html\n", one), Kind::Protocol, None),
        ("no media type", said("HTTP/1.1 200 OK\n", one), Kind::Protocol, None),
        ("nothing", said(FINE, |_| Vec::new()), Kind::Protocol, None),
        ("garbage", said(FINE, |_| vec![0xff; 40]), Kind::Protocol, None),
        (
            "another question",
            said(FINE, |query| {
                let mut answer = a_record(query, 1);
                answer[13] ^= 1;
                answer
            }),
            Kind::Protocol,
            None,
        ),
        ("a part", said(&with("content-length: 400"), one).close(), Kind::Closed, None),
        ("a part, and silence", said(&with("content-length: 400"), one).stall(), Kind::Timeout, None),
        ("more than a message", said(FINE, |_| vec![0; 70_000]), Kind::Limit, None),
        ("no end", said(&with("content-length: 999999999"), one).flood("x", u64::MAX), Kind::Limit, None),
        ("silence", Script::new().expect_until(b"\r\n\r\n").stall(), Kind::Timeout, None),
    ] {
        let rogue = Rogue::tls(&tls, script).await;
        let names = client(&certs, "https", rogue.addr().port(), patience(kind)).await;
        let error = names.query("rogue.test", RecordType::A).await.unwrap_err();
        assert_eq!((error.kind(), error.protocol_name()), (kind, Some("doh")), "{what}: {error:?}");
        assert!(code.is_none() || error.code() == code, "{what}: {error:?}");
        assert_eq!(rogue.connections(), 1, "{what}");
    }
    for script in [said(FINE, one), said(FINE, one).in_pieces(1), said(&with("cache-control: max-age=7"), one)] {
        let rogue = Rogue::tls(&tls, script.stall()).await;
        let names = client(&certs, "https", rogue.addr().port(), PATIENT).await;
        let answer = names.query("rogue.test", RecordType::A).await.unwrap();
        assert_eq!((answer.a().count(), answer.id), (1, 0));
    }
}

#[tokio::test]
async fn a_get_is_the_same_for_the_same_question_and_nothing_but_the_query_is_told() {
    let certs = Certs::new();
    let tls = ServerTls::new(&certs).alpn(["http/1.1"]);
    let script = || Script::new().expect_until(b"\r\n\r\n").send("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
    let rogue = Rogue::tls(&tls, script().times(2).close()).await;
    let url = format!("https://localhost@127.0.0.1:{}/q?key=value{{?dns}}", rogue.addr().port());
    let names = Client::connect(&net(&certs), Options::from_url(&url).unwrap()).await.unwrap();
    for _ in 0..2 {
        assert_eq!(names.query("rogue.test", RecordType::A).await.unwrap_err().code(), Some(404));
    }
    drop(names);
    let heard = rogue.finish().await[0].text();
    let requests: Vec<_> = heard.split_inclusive("\r\n\r\n").collect();
    assert_eq!((requests.len(), requests[0]), (2, requests[1]), "{heard}");
    assert!(requests[0].starts_with("GET /q?key=value&dns=AAABAAABAAAAAAAB"), "{heard}");
    assert!(!requests[0].contains('=') || !requests[0].split(' ').nth(1).unwrap().ends_with('='), "{heard}");
    for field in ["cookie", "user-agent", "referer", "accept-encoding", "accept-language"] {
        assert!(!requests[0].to_lowercase().contains(field), "{heard}");
    }
}

#[tokio::test]
async fn what_a_server_of_dns_over_quic_does_wrong_is_a_typed_error() {
    let certs = Certs::new();
    let Some(bind) = servers::bind() else { return };
    let Some(server) = servers::doq(&certs, &bind) else { return };
    let port = server.addr.port();
    for (what, kind, code) in [
        ("reset", Kind::Server, Some(Code::EXCESSIVE_LOAD)),
        ("close", Kind::Closed, Some(Code::EXCESSIVE_LOAD)),
        ("cut", Kind::Protocol, None),
        ("empty", Kind::Protocol, None),
        ("twice", Kind::Protocol, None),
        ("id", Kind::Protocol, None),
        ("other", Kind::Protocol, None),
        ("flood", Kind::Protocol, None),
        ("garbage", Kind::Protocol, None),
        ("stall", Kind::Timeout, None),
    ] {
        let names = client(&certs, "quic", port, patience(kind)).await;
        let error = names.query(&format!("{what}.portolan.test"), RecordType::A).await.unwrap_err();
        assert_eq!((error.kind(), error.protocol_name()), (kind, Some("doq")), "{what}: {error:?}");
        assert_eq!(error.server::<Code>().copied(), code, "{what}: {error:?}");
        // The next query does not suffer for it.
        let next =
            names.query("portolan.test", RecordType::Mx).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert_eq!(next.mx().count(), 2);
        assert_eq!(next.info.connection.reused, what == "reset", "{what}");
    }
    let names = client(&certs, "quic", port, PATIENT).await;
    assert!(names.query("trickle.portolan.test", RecordType::A).await.unwrap().is_nxdomain());
    // One stalls, and the others don't wait for it; given up, it is cancelled.
    let stalled = names.query("stall.portolan.test", RecordType::A);
    let others = async {
        for _ in 0..5 {
            assert_eq!(names.query("portolan.test", RecordType::Mx).await.unwrap().mx().count(), 2);
        }
    };
    tokio::select! {
        biased;
        _ = stalled => panic!("nobody has answered"),
        () = others => {}
    }
    let cancelled = || server.log().contains("given up with 3");
    while !cancelled() {
        names.query("portolan.test", RecordType::Mx).await.unwrap();
    }
    record("doq", "faults", "aioquic", "streams reset, cut, doubled, flooded, stalled", 12);
}

#[tokio::test]
async fn a_server_of_quic_that_went_away_is_connected_to_anew() {
    let certs = Certs::new();
    let Some(bind) = servers::bind() else { return };
    let Some(server) = servers::doq(&certs, &bind) else { return };
    let names = client(&certs, "quic", server.addr.port(), PATIENT).await;
    names.query("portolan.test", RecordType::Mx).await.unwrap();
    // It closes the connection over the query; the next one opens another.
    let closed = names.query("close.portolan.test", RecordType::A).await.unwrap_err();
    assert_eq!(closed.kind(), Kind::Closed);
    assert!(!names.query("portolan.test", RecordType::Mx).await.unwrap().info.connection.reused);
}
