//! HTTP/1.1 as a whole: heads, chunks and trailers have no public decoder of their own.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use portolan_core::{Error, Kind};
use portolan_http1::{Connection, Options, send};

use crate::tape::Tape;

/// More than this is not read of a body.
const BODY: usize = 1 << 20;

/// Status, fields, the body and how many trailers; or the kind of the failure.
type Outcome = Result<(u16, usize, Vec<u8>, usize), Kind>;

/// Two requests on one connection against a server that says this and closes. Whatever it says, they end, at once and alike
/// however the bytes were cut.
pub fn fuzzed_http1(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime can be made");
    let outcomes = [data.len().max(1), 7].map(|piece| runtime.block_on(exchange(Tape::new(data, piece))));
    // Whether a second response follows at once or is thrown away with what was not asked for depends on when it came.
    assert_eq!(outcomes[0], outcomes[1], "the same bytes end alike: {}", data.escape_ascii());
}

async fn exchange(tape: Tape) -> Outcome {
    let mut connection = Connection::new(tape, Options::new());
    let calls = async {
        let first = call(&mut connection).await;
        if connection.is_reusable() {
            connection.io_mut().hush();
            let _ = call(&mut connection).await;
        }
        first
    };
    // The clock stands still while anything moves: what waits here would wait for ever.
    tokio::time::timeout(Duration::from_secs(3600), calls).await.expect("it hangs")
}

async fn call(connection: &mut Connection<Tape>) -> Outcome {
    let request = http::Request::get("http://example.test/").body(Empty::<Bytes>::new()).expect("a good request");
    let response = send(connection, request).await.map_err(|error| error.kind())?;
    let (status, fields) = (response.status().as_u16(), response.headers().len());
    match Limited::new(response.into_body(), BODY).collect().await {
        Ok(body) => {
            let trailers = body.trailers().map_or(0, http::HeaderMap::len);
            Ok((status, fields, body.to_bytes().to_vec(), trailers))
        }
        Err(error) => Err(error.downcast::<Error>().map_or(Kind::Limit, |error| error.kind())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whole_answers_are_read_whole() {
        let said = |left: &'static [u8]| Tape::new(left, 5);
        let chunked = exchange(said(include_bytes!("../seeds/http1/chunked"))).await.unwrap();
        assert_eq!((chunked.0, &chunked.2[..], chunked.3), (200, &b"Wikipedia"[..], 1));
        assert_eq!(exchange(said(include_bytes!("../seeds/http1/early_hints"))).await.unwrap().2, b"sixteen bytes ok");
    }
}
