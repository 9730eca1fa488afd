//! DNS over dedicated QUIC connections (RFC 9250).
//!
//! **Port and TLS**: UDP port 853; TLS 1.3 is part of QUIC, ALPN is `doq` alone; scheme `quic://`, for
//! [`Options::from_url`](crate::dns::Options::from_url). QUIC runs over the connector's datagrams, so also through a SOCKS5 relay and
//! HTTP proxies that speak CONNECT-UDP.
//!
//! **What works**: every query of [`dns`](crate::dns) on a stream of its own, over one connection that all callers share and that is
//! kept: none waits for another. A connection that is gone is replaced, and a query that was on its way is sent again. A query
//! that is given up is cancelled. Padding. The server's error codes are in the errors ([`Code`]).
//!
//! **What is not done**: no zone transfer, no early data (whoever records it can send it again), no discovery.
//!
//! **Tested against** a server on aioquic, directly and through a SOCKS5 relay, and peers that break the rules.
//!
//! **Security**: as [`dot`](crate::dot). A broken rule ends the connection with DOQ_PROTOCOL_ERROR.
//!
//! ```no_run
//! use portolan_core::Connector;
//! use portolan_dns::dns::{Client, Options, RecordType};
//!
//! # async fn run() -> portolan_core::Result<()> {
//! let server = Options::from_url("quic://dns.adguard-dns.com@94.140.14.14")?;
//! let names = Client::connect(&Connector::default(), server).await?;
//! let answer = names.query("example.org", RecordType::Mx).await?;
//! println!("{:?}", answer.info.connection.timings.tls);
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use portolan_core::observe::Semantics;
use portolan_core::{BoxFuture, ConnectionInfo, Connector, Delivery, Endpoint, Error, Kind, Phase, Result, clock};
use portolan_http3::quic::{self, Quic, Speaks};
use quinn::{ConnectionError, ReadError, ReadToEndError, RecvStream, SendStream, VarInt, WriteError};
use tokio::sync::Mutex;

use crate::dns::{Carried, Carrier, Freshness, Options, Query};

/// The name in errors.
const PROTOCOL: &str = "doq";
const SPEAKS: Speaks = Speaks::new(PROTOCOL, Semantics::Dns, b"doq");
/// A message and its length.
const MAX_ANSWER: usize = 2 + 65_535;
/// The header of every message (RFC 1035 4.1.1).
const HEADER: usize = 12;

/// An error code of DNS over QUIC (RFC 9250 8.4), as [`Error::code`] has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(u64);

impl Code {
    /// Nothing is wrong: the connection is no longer wanted.
    pub const NO_ERROR: Self = Self(0);
    /// The sender failed.
    pub const INTERNAL_ERROR: Self = Self(1);
    /// A rule was broken.
    pub const PROTOCOL_ERROR: Self = Self(2);
    /// The query is no longer wanted.
    pub const REQUEST_CANCELLED: Self = Self(3);
    /// The server has too much to do.
    pub const EXCESSIVE_LOAD: Self = Self(4);
    /// Something is wrong.
    pub const UNSPECIFIED_ERROR: Self = Self(5);

    /// The number on the wire.
    pub fn value(self) -> u64 {
        self.0
    }

    fn of(code: VarInt) -> Self {
        Self(code.into_inner())
    }

    fn to_varint(self) -> VarInt {
        VarInt::from_u64(self.0).unwrap_or_default()
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NO_ERROR => f.write_str("DOQ_NO_ERROR"),
            Self::INTERNAL_ERROR => f.write_str("DOQ_INTERNAL_ERROR"),
            Self::PROTOCOL_ERROR => f.write_str("DOQ_PROTOCOL_ERROR"),
            Self::REQUEST_CANCELLED => f.write_str("DOQ_REQUEST_CANCELLED"),
            Self::EXCESSIVE_LOAD => f.write_str("DOQ_EXCESSIVE_LOAD"),
            Self::UNSPECIFIED_ERROR => f.write_str("DOQ_UNSPECIFIED_ERROR"),
            Self(other) => write!(f, "unknown code {other:#x}"),
        }
    }
}

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
    connection: quinn::Connection,
    /// It moves what the connection sends and hears.
    _endpoint: quinn::Endpoint,
    info: ConnectionInfo,
}

/// The carrier of a client.
pub(crate) fn carrier(net: &Connector, options: &Options) -> Result<Box<dyn Carrier>> {
    Ok(Box::new(Server { net: net.clone(), to: options.server()?, kept: Mutex::default() }))
}

impl Server {
    /// The kept connection, or a new one: callers who come meanwhile wait for it.
    async fn connection(&self) -> Result<Kept> {
        let mut kept = self.kept.lock().await;
        if let Some(kept) = kept.as_mut().filter(|kept| kept.connection.close_reason().is_none()) {
            kept.info.reused = true;
            return Ok(kept.clone());
        }
        *kept = None;
        let options = portolan_http3::Options::new().disable_keepalive();
        let name = self.to.host_text();
        // Rare, and large.
        let connecting = Box::pin(quic::connect(&self.net, &self.to, &name, SPEAKS, options));
        let Quic { connection, endpoint, info, .. } = connecting.await?;
        // RFC 9250 4.2: streams are the client's alone.
        connection.set_max_concurrent_uni_streams(VarInt::from_u32(0));
        connection.set_max_concurrent_bi_streams(VarInt::from_u32(0));
        Ok(kept.insert(Kept { connection, _endpoint: endpoint, info }).clone())
    }

    async fn asked(&self, query: &Query) -> Result<Carried> {
        let mut attempts = 1;
        loop {
            let Kept { connection, info, _endpoint } = self.connection().await?;
            let error = match answered(&connection, query).await {
                Ok(bytes) => return Ok(Carried { bytes, connection: info, attempts, freshness: Freshness::default() }),
                Err(error) => error,
            };
            if error.kind() == Kind::Protocol {
                let code = Code::PROTOCOL_ERROR.to_varint();
                connection.close(code, error.message().as_bytes());
            }
            // A server may close an idle connection at any time, or have forgotten it (RFC 9250 5.5.1).
            if connection.close_reason().is_some() && error.is_closed() && info.reused && attempts < ATTEMPTS {
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
            let asked = clock::within(limit, Phase::FirstByte, Box::pin(self.asked(query))).await;
            if asked.as_ref().is_err_and(Error::is_timeout) {
                // Whoever comes next should not wait for the same silence.
                if let Ok(mut kept) = self.kept.try_lock() {
                    *kept = None;
                }
            }
            asked.map_err(|error| error.with_protocol(PROTOCOL))
        })
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            if let Some(kept) = self.kept.lock().await.take() {
                kept.connection.close(Code::NO_ERROR.to_varint(), b"");
                // Until it is said, or the peer is past hearing it.
                let told = async {
                    kept._endpoint.wait_idle().await;
                    Ok(())
                };
                let _ = clock::within(Some(Duration::from_secs(1)), Phase::Close, told).await;
            }
            Ok(())
        })
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("to", &self.to).finish_non_exhaustive()
    }
}

/// A query's stream. Whoever drops it before the answer cancels the query (RFC 9250 4.2).
struct Turn {
    send: SendStream,
    recv: RecvStream,
    done: bool,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.done {
            let _ = self.recv.stop(Code::REQUEST_CANCELLED.to_varint());
            let _ = self.send.reset(Code::REQUEST_CANCELLED.to_varint());
        }
    }
}

/// One query on a stream of its own: written, ended, and read to the end.
async fn answered(connection: &quinn::Connection, query: &Query) -> Result<Bytes> {
    let (send, recv) = connection.open_bi().await.map_err(|error| lost(&error, Delivery::NotSent))?;
    let mut turn = Turn { send, recv, done: false };
    let length = u16::try_from(query.wire().len()).map_err(|_| Error::usage("a query of more than 64 KiB"))?;
    turn.send.write_all(&[&length.to_be_bytes(), query.wire()].concat()).await.map_err(unwritten)?;
    // RFC 9250 4.2: the end of the stream says that no more will be asked on it.
    turn.send.finish().map_err(|_| Error::closed("the stream of the query is gone"))?;
    let answer = turn.recv.read_to_end(MAX_ANSWER).await.map_err(unread)?;
    turn.done = true;
    message(&answer, query)
}

/// The one message that a stream has to hold.
fn message(stream: &[u8], query: &Query) -> Result<Bytes> {
    let broken = |what: &str| Error::protocol(PROTOCOL, what);
    let (length, message) = stream.split_first_chunk().ok_or_else(|| broken("a stream without an answer"))?;
    let length = usize::from(u16::from_be_bytes(*length));
    if message.len() < length || length < HEADER {
        return Err(broken("a stream that ends in mid-answer"));
    }
    if message.len() > length {
        return Err(broken("a stream with more than one answer"));
    }
    if message.first_chunk() != Some(&[0, 0]) {
        // RFC 9250 4.2.1.
        return Err(broken("an answer with an id"));
    }
    if !query.is_repeated_by(message) {
        return Err(broken("the answer is to another question"));
    }
    Ok(Bytes::copy_from_slice(message))
}

fn unwritten(error: WriteError) -> Error {
    match error {
        WriteError::ConnectionLost(error) => lost(&error, Delivery::Unknown),
        // RFC 9250 4.3.3: a server has no reason to.
        WriteError::Stopped(code) => refused(Code::of(code)),
        other => Error::closed("the query could not be sent").with_source(other),
    }
}

fn unread(error: ReadToEndError) -> Error {
    match error {
        ReadToEndError::TooLong => Error::protocol(PROTOCOL, "a stream with more than one answer"),
        ReadToEndError::Read(ReadError::Reset(code)) => refused(Code::of(code)),
        ReadToEndError::Read(ReadError::ConnectionLost(error)) => lost(&error, Delivery::Unknown),
        ReadToEndError::Read(other) => Error::closed("the answer could not be read").with_source(other),
    }
}

/// The server gave the query up.
fn refused(code: Code) -> Error {
    let number = i64::try_from(code.value()).unwrap_or(i64::MAX);
    Error::from_server(PROTOCOL, format!("the query was given up: {code}"), code).with_code(number)
}

/// The connection is gone.
fn lost(error: &ConnectionError, delivery: Delivery) -> Error {
    let lost = match error {
        ConnectionError::ApplicationClosed(close) => {
            let code = Code::of(close.error_code);
            let number = i64::try_from(code.value()).unwrap_or(i64::MAX);
            Error::closed(format!("the server closed the connection: {code}")).with_code(number).with_reply(code)
        }
        ConnectionError::TransportError(_) => Error::protocol(PROTOCOL, "the server broke QUIC"),
        // It is the connection that was silent, and a new one may not be.
        ConnectionError::TimedOut => Error::closed("nothing was heard of the server for too long"),
        _ => Error::closed("the connection is gone"),
    };
    lost.with_delivery(delivery).with_phase(Phase::FirstByte).with_source(error.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_holds_one_answer_without_an_id_to_the_question() {
        let asked = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";
        let query = Query::raw(asked, true).unwrap();
        let mut answer = asked.to_vec();
        answer[2] |= 0x80;
        let framed = |answer: &[u8]| [&u16::try_from(answer.len()).unwrap().to_be_bytes(), answer].concat();
        assert_eq!(message(&framed(&answer), &query).unwrap(), answer);
        for cut in 0..framed(&answer).len() {
            assert_eq!(message(&framed(&answer)[..cut], &query).unwrap_err().kind(), Kind::Protocol, "{cut}");
        }
        let mut with_id = answer.clone();
        with_id[1] = 1;
        let mut other = answer.clone();
        other[13] = b'b';
        for bad in [&framed(&with_id), &framed(&other), &framed(asked), &framed(b"short"), &framed(&answer).repeat(2)] {
            assert_eq!(message(bad, &query).unwrap_err().kind(), Kind::Protocol, "{bad:?}");
        }
    }
}
