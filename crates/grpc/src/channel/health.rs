//! How the service behind a connection is, watched while the connection lasts (gRFC A17).

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use portolan_core::{Error, Result, clock};

use super::carrier::Carrier;
use super::subchannel::{Health, Shared, backoff};
use crate::PROTOCOL;
use crate::client::{Client, Method};
use crate::codec::Raw;
use crate::status::{Code, Status};
use crate::transport::Transport;

const WATCH: &str = "/grpc.health.v1.Health/Watch";
/// In `HealthCheckResponse`: field 1, a varint.
const STATUS: u8 = 0x08;
/// `HealthCheckResponse.SERVING`.
const SERVING: u8 = 1;

/// What is asked, and at which origin.
#[derive(Debug)]
pub(super) struct Watched {
    origin: Box<str>,
    /// `HealthCheckRequest`, encoded: field 1, a string.
    request: Bytes,
}

impl Watched {
    pub(super) fn new(origin: &str, service: &str) -> Self {
        let mut request = BytesMut::with_capacity(service.len() + 11);
        if !service.is_empty() {
            request.put_u8(0x0a);
            let mut length = service.len();
            while length >= 0x80 {
                request.put_u8(0x80 | (length & 0x7f) as u8);
                length >>= 7;
            }
            request.put_u8(length as u8);
            request.put_slice(service.as_bytes());
        }
        Self { origin: origin.into(), request: request.freeze() }
    }
}

/// Says what the server says, until the connection takes no more calls.
pub(super) async fn watch<K: Carrier>(
    connection: K::Connection,
    watched: &Watched,
    waits: (Duration, Duration),
    shared: &Shared<K>,
) {
    let mut failures = 0;
    while !K::is_closed(&connection) {
        let mut answered = false;
        let result = listen(&connection, watched, |health| {
            answered = true;
            shared.heard(health);
        });
        let error = result.await;
        if error.as_ref().is_err_and(|error| Status::of(error).code() == Code::Unimplemented) {
            // It can't tell, and so it counts as one that serves.
            return shared.heard(Health::Good);
        }
        shared.heard(Health::Bad);
        failures = if answered { 0 } else { failures + 1 };
        clock::sleep(backoff(waits, failures)).await;
    }
}

async fn listen<T: Transport>(transport: &T, watched: &Watched, mut heard: impl FnMut(Health)) -> Result<()> {
    let client = Client::new(transport.clone(), &watched.origin)?;
    let method = Method::new(WATCH, Raw::protobuf())?;
    let mut replies = client.server_streaming(&method, &watched.request).await?;
    while let Some(reply) = replies.message().await? {
        heard(if serving(&reply)? { Health::Good } else { Health::Bad });
    }
    Ok(())
}

/// Whether a `HealthCheckResponse` says that it serves. The message has one field, and is empty where that is zero.
fn serving(mut reply: &[u8]) -> Result<bool> {
    if reply.is_empty() {
        return Ok(false);
    }
    let strange = || Error::protocol(PROTOCOL, "a health check response that is none");
    let tag = reply.try_get_u8().map_err(|_| strange())?;
    let status = reply.try_get_u8().map_err(|_| strange())?;
    if tag == STATUS { Ok(status == SERVING && reply.is_empty()) } else { Err(strange()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_replies_are_those_of_the_health_protocol() {
        assert!(Watched::new("http://x", "").request.is_empty());
        assert_eq!(Watched::new("http://x", "a.B").request, &b"\x0a\x03a.B"[..]);
        let long = "x".repeat(200);
        assert_eq!(Watched::new("http://x", &long).request[..3], [0x0a, 0xc8, 0x01]);
        for (reply, expected) in
            [(&b""[..], false), (b"\x08\x01", true), (b"\x08\x02", false), (b"\x08\x81\x01", false)]
        {
            assert_eq!(serving(reply).unwrap(), expected, "{reply:?}");
        }
        assert!(serving(b"\x10\x01").is_err() && serving(b"\x08").is_err());
    }
}
