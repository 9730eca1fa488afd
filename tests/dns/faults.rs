//! What BIND really sent over TCP, cut and garbled at every byte.

use std::time::Duration;

use portolan_core::{Kind, Stream};
use portolan_dns::dns::{Client, Options, RecordType, Transport};
use portolan_testbed::record;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::servers;

/// A query for the MX of portolan.test as a caller would make it.
const QUERY: &[u8] = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x08portolan\x04test\0\0\x0f\0\x01";

async fn replayed(answer: &[u8], close: bool) -> (Result<usize, Kind>, bool) {
    let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
    let options = Options::default().timeout(Duration::from_millis(60)).udp_payload(None);
    let client = Client::from_stream(Stream::from_io(ours), options);
    let serve = async move {
        let length = theirs.read_u16().await.unwrap();
        let mut query = vec![0; length.into()];
        theirs.read_exact(&mut query).await.unwrap();
        // The recorded answer under the id of this query, wherever the recorded one stood whole.
        let mut answer = answer.to_vec();
        if let Some(id) = answer.get_mut(2..4) {
            id[0] ^= query[0];
            id[1] ^= query[1];
        }
        let _ = theirs.write_all(&answer).await;
        if !close {
            let _ = theirs.read(&mut [0; 1]).await;
        }
    };
    let ask = async {
        let first = client.query("portolan.test", RecordType::Mx).await;
        let first = first.map(|answer| answer.mx().count()).map_err(|error| error.kind());
        // A connection that failed may not be used again.
        let reusable = first.is_err()
            && !client.query("portolan.test", RecordType::Mx).await.is_err_and(|error| error.is_closed());
        drop(client);
        (first, reusable)
    };
    tokio::join!(ask, serve).0
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
