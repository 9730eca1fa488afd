//! HTTP/2 as a whole: the frames have no decoder apart from the connection that they change.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use portolan_core::Kind;
use portolan_http2::{Options, handshake};

use crate::tape::Tape;

/// More than this is not read of a body.
const BODY: usize = 1 << 20;

/// One request against a server that says this and closes. Whatever it says, request and connection end, at once and
/// alike however the bytes were cut.
pub fn fuzzed_http2(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime can be made");
    let outcomes = [data.len().max(1), 7].map(|piece| runtime.block_on(exchange(Tape::new(data, piece))));
    assert_eq!(outcomes[0], outcomes[1], "the same bytes end alike: {}", data.escape_ascii());
}

/// The status and the length of the body, or the kind of the failure. How the connection ends may depend on how much it
/// had read when its last stream was done.
async fn exchange(tape: Tape) -> Result<(u16, usize), Kind> {
    let (client, connection) = handshake(tape, Options::new()).expect("the options are good");
    let request = http::Request::get("http://example.test/").body(Empty::<Bytes>::new()).expect("a good request");
    let call = async {
        let response = client.send(request).await.map_err(|error| error.kind())?;
        let status = response.status().as_u16();
        match Limited::new(response.into_body(), BODY).collect().await {
            Ok(body) => Ok((status, body.to_bytes().len())),
            Err(error) => Err(error.downcast::<portolan_core::Error>().map_or(Kind::Limit, |error| error.kind())),
        }
    };
    let both = async { tokio::join!(call, connection) };
    // The clock stands still while anything moves: what waits here would wait for ever.
    tokio::time::timeout(Duration::from_secs(3600), both).await.expect("it hangs").0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_a_real_server_said_is_a_whole_answer() {
        let said = |left: &'static [u8]| Tape::new(left, 5);
        assert_eq!(exchange(said(include_bytes!("../seeds/http2/nghttpd_page"))).await, Ok((200, 19)));
        assert_eq!(exchange(said(include_bytes!("../seeds/http2/nghttpd_missing"))).await.unwrap().0, 404);
    }
}
