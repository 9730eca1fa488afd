//! DNS over TLS (RFC 7858, usage profiles RFC 8310, padding RFC 8467, zone transfer RFC 9103).
//!
//! **Port and TLS**: 853, TLS from the first byte, ALPN `dot`; scheme `tls://`, for [`Options::from_url`](crate::dns::Options::from_url).
//!
//! **What works**: everything that [`dns`](crate::dns) does, over one connection that all callers share and that is kept: queries
//! are sent without waiting for each other, and answers come in any order. A connection that the server has closed, that was idle
//! for half a minute or that let a query wait for too long is replaced; a query that was on its way when it closed is sent
//! again. Padding. Whole zones (AXFR), over a connection of their own. The strict profile by default: the certificate must be
//! for the server's name, or its address where it has none. The opportunistic one by
//! [`Options::dangerous`](crate::dns::Options::dangerous).
//!
//! **What is not done**: no discovery of a server's TLS (RFC 9462, RFC 9463), no early data, no TSIG, no edns-tcp-keepalive.
//!
//! **Tested against** BIND 9.18, Unbound 1.17, Knot Resolver 5.6 and dnsdist 1.7, directly and through SOCKS5 and CONNECT.
//!
//! **Security**: who listens sees whom one talks to, and how much. It never falls back to plain DNS.
//!
//! ```no_run
//! use portolan_core::Connector;
//! use portolan_dns::dns::{Client, Options, RecordType};
//!
//! # async fn run() -> portolan_core::Result<()> {
//! let server = Options::from_url("tls://dns.quad9.net@9.9.9.9")?;
//! let names = Client::connect(&Connector::default(), server).await?;
//! let answer = names.query("example.org", RecordType::Mx).await?;
//! println!("{:?}", answer.info.connection.timings.tls);
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use portolan_core::{BoxFuture, ConnectionInfo, Connector, Endpoint, Error, Phase, Result, Stream, clock};
use portolan_wire::{Codec, Correlate, Mux, MuxOptions, Route};
use tokio::sync::Mutex;

use crate::dns::{Carried, Carrier, Framing, Freshness, Options, Query};

/// The name in errors.
const PROTOCOL: &str = "dot";
/// What ALPN offers (RFC 7858 is silent, IANA has the name; RFC 9103 7.1 demands it for transfers).
const ALPN: &[u8] = b"dot";
/// A connection that was idle for longer may be gone without a word: servers keep them for 10 to 30 seconds, and so do gateways.
const IDLE: Duration = Duration::from_secs(30);
/// Queries under way at once; further ones wait in turn.
const IN_FLIGHT: usize = 1024;
/// Bytes read without a whole message among them: a message has at most 64 KiB.
const MAX_BUFFER: usize = 128 * 1024;
/// How long it may take to close in good order.
const CLOSE: Duration = Duration::from_secs(2);

/// Connections that a query may ride on. Servers close those that were idle, and some after so many queries.
const ATTEMPTS: u32 = 3;

/// One server, and the connection that is kept to it.
pub(crate) struct Server {
    net: Connector,
    to: Endpoint,
    kept: Mutex<Option<Kept>>,
}

#[derive(Clone)]
struct Kept {
    mux: Mux<Framing>,
    info: ConnectionInfo,
    used: clock::Instant,
}

/// The carrier of a client.
pub(crate) fn carrier(net: &Connector, options: &Options) -> Result<Box<dyn Carrier>> {
    Ok(Box::new(Server { net: net.clone(), to: options.server()?, kept: Mutex::default() }))
}

impl Server {
    /// The kept connection, or a new one: callers who come meanwhile wait for it.
    async fn connection(&self) -> Result<Kept> {
        let mut kept = self.kept.lock().await;
        let now = clock::now();
        if let Some(kept) = kept.as_mut().filter(|kept| !kept.mux.is_closed() && now - kept.used < IDLE) {
            (kept.used, kept.info.reused) = (now, true);
            return Ok(kept.clone());
        }
        *kept = None;
        let stream = self.dial().await?;
        let info = stream.info().clone();
        // Each call has a bound of its own, and each query a TLS record: dnsdist 1.7 forgets the second of one that holds several
        // until more comes.
        let options = MuxOptions::default().in_flight(IN_FLIGHT).queued_bytes(1);
        let options = options.max_buffer(MAX_BUFFER).call_limit(None);
        let mux = Mux::spawn(stream, Framing, options);
        Ok(kept.insert(Kept { mux, info, used: clock::now() }).clone())
    }

    async fn dial(&self) -> Result<Stream> {
        self.net.connect_tls(&self.to, &[ALPN]).await.map_err(|error| error.with_protocol(PROTOCOL))
    }

    /// Lets others have a new connection; those who are still on this one may stay.
    async fn give_up(&self, id: u64) {
        let mut kept = self.kept.lock().await;
        if kept.as_ref().is_some_and(|kept| kept.info.id == id) {
            *kept = None;
        }
    }

    async fn asked(&self, query: &Query) -> Result<Carried> {
        let mut attempts = 1;
        loop {
            let Kept { mux, info, .. } = self.connection().await?;
            let error = match mux.call(query.wire()).await {
                Ok(bytes) if query.is_repeated_by(&bytes) => {
                    return Ok(Carried { bytes, connection: info, attempts, freshness: Freshness::default() });
                }
                Ok(_) => Error::protocol(PROTOCOL, "the answer is to another question"),
                Err(error) => error,
            };
            self.give_up(info.id).await;
            // A server may close an idle connection at any time, also while a query is on its way (RFC 7766 6.2.4).
            if error.is_closed() && info.reused && attempts < ATTEMPTS {
                attempts += 1;
                continue;
            }
            return Err(error.with_endpoint(self.to.clone()));
        }
    }
}

impl Carrier for Server {
    fn ask<'a>(&'a self, query: &'a Query, limit: Option<Duration>) -> BoxFuture<'a, Result<Carried>> {
        Box::pin(async move {
            let asked = clock::within(limit, Phase::FirstByte, self.asked(query)).await;
            if asked.as_ref().is_err_and(Error::is_timeout) {
                // Whoever comes next should not wait for the same silence.
                if let Ok(mut kept) = self.kept.try_lock() {
                    *kept = None;
                }
            }
            asked.map_err(|error| error.with_protocol(PROTOCOL))
        })
    }

    fn stream(&self) -> BoxFuture<'_, Result<Stream>> {
        Box::pin(self.dial())
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            match self.kept.lock().await.take() {
                Some(kept) => kept.mux.close(CLOSE).await,
                None => Ok(()),
            }
        })
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("to", &self.to).finish_non_exhaustive()
    }
}

/// Answers find their queries by id.
impl Correlate for Framing {
    fn route(&mut self, message: &Bytes) -> Route {
        let id = message.first_chunk().copied().map_or(0, u16::from_be_bytes);
        Route::Id { id: id.into(), last: true }
    }

    fn ids(&self) -> Option<RangeInclusive<u64>> {
        Some(0..=u16::MAX.into())
    }

    fn encode_call(&mut self, id: u64, message: &[u8], dst: &mut BytesMut) -> Result<()> {
        let start = dst.len();
        self.encode(message, dst)?;
        let id = u16::try_from(id).map_err(|_| Error::usage("an id of more than 16 bits"))?;
        // Behind the two bytes of length.
        if let Some(place) = dst.get_mut(start.saturating_add(2)..).and_then(|message| message.first_chunk_mut()) {
            *place = id.to_be_bytes();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_framed_under_their_ids_behind_what_waits() {
        let (mut codec, mut dst) = (Framing, BytesMut::from(&b"before"[..]));
        codec.encode_call(0x1234, b"\0\0\x01\0\0\x01\0\0\0\0\0\0rest", &mut dst).unwrap();
        assert_eq!(&dst[..], b"before\0\x10\x12\x34\x01\0\0\x01\0\0\0\0\0\0rest");
        let mut framed = dst.split_off(6);
        let message = codec.decode(&mut framed).unwrap().unwrap();
        assert!(matches!(codec.route(&message), Route::Id { id: 0x1234, last: true }));
        assert!(codec.encode_call(0x10000, &message, &mut dst).is_err());
    }
}
