//! What BIND really sent over TCP, cut and garbled at every byte.

use std::time::Duration;

use portolan_core::{Connector, Kind, Roots, Stream, Tls};
use portolan_dns::dns::{Client, Options, RecordType, Transport};
use portolan_testbed::rogue::{Datagrams, Rogue, Script, UdpRogue};
use portolan_testbed::{Certs, ServerTls, record};

use crate::servers;

/// A query for the MX of portolan.test as a caller would make it.
const QUERY: &[u8] = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x08portolan\x04test\0\0\x0f\0\x01";

async fn replayed(answer: &[u8], close: bool) -> (Result<usize, Kind>, bool) {
    let recorded = answer.to_vec();
    let script = Script::new().expect_until(&QUERY[QUERY.len() - 4..]).answer(move |query| {
        // The recorded answer under the id of this query, wherever the recorded one stood whole.
        let mut answer = recorded.clone();
        if let Some(id) = answer.get_mut(2..4) {
            id[0] ^= query[2];
            id[1] ^= query[3];
        }
        answer
    });
    let (ours, rogue) = Rogue::pipe(if close { script.close() } else { script.stall() });
    let options = Options::default().timeout(Duration::from_millis(60)).udp_payload(None);
    let client = Client::from_stream(Stream::from_io(ours), options);
    let first = client.query("portolan.test", RecordType::Mx).await;
    let first = first.map(|answer| answer.mx().count()).map_err(|error| error.kind());
    // A connection that failed may not be used again.
    let reusable =
        first.is_err() && !client.query("portolan.test", RecordType::Mx).await.is_err_and(|error| error.is_closed());
    drop(client);
    rogue.finish().await;
    (first, reusable)
}

#[tokio::test]
async fn the_recorded_answer_cut_stalled_or_garbled_anywhere_is_a_typed_error() {
    let Some(bind) = servers::bind() else { return };
    let client = bind.client(|o| o.transport(Transport::Tcp)).await;
    let mut answer = client.query_raw(QUERY).await.unwrap().to_vec();
    answer[..2].fill(0);
    let recorded = [&u16::try_from(answer.len()).unwrap().to_be_bytes(), answer.as_slice()].concat();
    assert_eq!(replayed(&recorded, true).await, (Ok(2), false));
    for at in 0..recorded.len() {
        let (cut, reusable) = replayed(&recorded[..at], true).await;
        assert!(cut == Err(Kind::Closed) && !reusable, "cut at {at}: {cut:?}");
    }
    for at in (0..recorded.len()).step_by(7) {
        let (stalled, reusable) = replayed(&recorded[..at], false).await;
        assert!(stalled == Err(Kind::Timeout) && !reusable, "stalled at {at}: {stalled:?}");
    }
    for at in 0..recorded.len() {
        let mut garbled = recorded.clone();
        garbled[at] ^= 0xff;
        let (outcome, _) = replayed(&garbled, true).await;
        let told =
            matches!(outcome, Ok(_) | Err(Kind::Protocol | Kind::Closed | Kind::Timeout | Kind::Server | Kind::Limit));
        assert!(told, "garbled at {at}: {outcome:?}");
    }
    record("dns", "faults", "BIND 9.18", "TCP", u64::try_from(recorded.len()).unwrap());
}

/// The recorded answer inside of TLS, under the id and with the question of the query; after that, or a part of it, silence or the end.
async fn replayed_over_tls(net: &Connector, tls: &ServerTls, answer: &[u8], silence: bool) -> Result<usize, Kind> {
    let recorded = answer.to_vec();
    let script = Script::new().expect_len(2 + 128).answer(move |query| {
        let mut answer = recorded.clone();
        for (place, id) in answer.iter_mut().skip(2).zip(&query[2..4]) {
            *place ^= id;
        }
        answer
    });
    let rogue = Rogue::tls(tls, if silence { script.stall() } else { script.close() }).await;
    let options = Options::from_url(&format!("tls://localhost@127.0.0.1:{}", rogue.addr().port())).unwrap();
    let limit = Duration::from_millis(if silence { 300 } else { 20_000 });
    let client = Client::connect(net, options.timeout(limit)).await.unwrap();
    let answer = client.query("portolan.test", RecordType::Mx).await;
    answer.map(|answer| answer.mx().count()).map_err(|error| error.kind())
}

#[tokio::test]
async fn the_recorded_answer_cut_stalled_or_garbled_anywhere_inside_of_tls_is_a_typed_error() {
    let certs = Certs::new();
    let Some(bind) = servers::secure_bind(&certs) else { return };
    let trust = Tls::builder().roots(Roots::Custom).root_pem(certs.ca.as_bytes()).build().unwrap();
    let net = Connector::builder().tls(trust).build().unwrap();
    let tls = ServerTls::new(&certs).alpn(["dot"]);
    let options = Options::from_url(&format!("tls://localhost@127.0.0.1:{}", bind.tls)).unwrap();
    let client = Client::connect(&net, options).await.unwrap();
    let mut answer = client.query_raw(QUERY).await.unwrap().to_vec();
    answer[..2].fill(0);
    let recorded = [&u16::try_from(answer.len()).unwrap().to_be_bytes(), answer.as_slice()].concat();
    assert_eq!(replayed_over_tls(&net, &tls, &recorded, true).await, Ok(2));
    for at in 0..recorded.len() {
        let cut = replayed_over_tls(&net, &tls, &recorded[..at], false).await;
        assert_eq!(cut, Err(Kind::Closed), "cut at {at}");
    }
    for at in (0..recorded.len()).step_by(11) {
        let stalled = replayed_over_tls(&net, &tls, &recorded[..at], true).await;
        assert_eq!(stalled, Err(Kind::Timeout), "stalled at {at}");
    }
    for at in 0..recorded.len() {
        let mut garbled = recorded.clone();
        garbled[at] ^= 0xff;
        let outcome = replayed_over_tls(&net, &tls, &garbled, false).await;
        let told = matches!(outcome, Ok(_) | Err(Kind::Protocol | Kind::Closed | Kind::Server | Kind::Limit));
        assert!(told, "garbled at {at}: {outcome:?}");
    }
    record("dot", "faults", bind.name, "inside of TLS", u64::try_from(recorded.len()).unwrap());
}

#[tokio::test]
async fn datagrams_that_are_forged_lost_doubled_or_out_of_order_still_give_each_question_its_answer() {
    let Some(bind) = servers::bind() else { return };
    let client = bind.client(|o| o.transport(Transport::Tcp)).await;
    let recorded = client.query_raw(QUERY).await.unwrap().to_vec();
    let answer = move |query: &[u8]| [&query[..2], &recorded[2..]].concat();
    let forged = |query: &[u8]| {
        // A refusal in the name of the server: the right id, a question of its own, no answer.
        let mut lie = query.to_vec();
        (lie[2], lie[3]) = (0x81, 0x85);
        lie
    };
    let wrong_id = {
        let answer = answer.clone();
        move |query: &[u8]| answer(&[&[query[0] ^ 0xff], &query[1..]].concat())
    };
    let script = Datagrams::new().lose(1).take().stranger(forged).answer(wrong_id).answer(answer.clone()).again(2);
    let rogue = UdpRogue::new(script.then(Datagrams::new().reorder(2, answer))).await;
    let options = Options::new(rogue.addr().into()).udp_payload(None).transport(Transport::Udp);
    let options = options.retransmit(Duration::from_millis(100)).timeout(Duration::from_secs(10));
    let client = Client::connect(&Connector::default(), options).await.unwrap();
    let first = client.query("portolan.test", RecordType::Mx).await.unwrap();
    assert_eq!(first.mx().count(), 2);
    let (one, two) =
        tokio::join!(client.query("portolan.test", RecordType::Mx), client.query("portolan.test", RecordType::Mx),);
    assert_eq!((one.unwrap().mx().count(), two.unwrap().mx().count()), (2, 2));
    rogue.finish().await;
}
