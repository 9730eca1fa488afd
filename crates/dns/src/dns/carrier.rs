//! What carries queries besides plain UDP and TCP: TLS, HTTPS and QUIC, each a feature of its own.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use portolan_core::{BoxFuture, ConnectionInfo, Connector, Error, Kind, Result, Stream};

use super::PROTOCOL;
use super::codec::Query;
use super::options::Options;
use super::response::{Response, Transport};

/// Carries queries of many callers at once.
pub(crate) trait Carrier: fmt::Debug + Send + Sync {
    /// Sends a query, whose id is 0, and gives what answers it: the carrier has compared the questions. The whole takes `limit` at most.
    fn ask<'a>(&'a self, query: &'a Query, limit: Option<Duration>) -> BoxFuture<'a, Result<Carried>>;

    /// A new connection for messages in TCP's framing, where it is such.
    fn stream(&self) -> BoxFuture<'_, Result<Stream>> {
        let error = Error::new(Kind::Unsupported, "zones are transferred over TCP and TLS alone");
        Box::pin(std::future::ready(Err(error.with_protocol(PROTOCOL))))
    }

    /// Closes what is kept.
    fn close(&self) -> BoxFuture<'_, Result<()>>;
}

/// An answer and its way.
pub(crate) struct Carried {
    pub(crate) bytes: Bytes,
    pub(crate) connection: ConnectionInfo,
    pub(crate) attempts: u32,
    pub(crate) freshness: Freshness,
}

/// What a cache on the way did to an answer's times to live (RFC 8484 5.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Freshness {
    /// The seconds that the answer has been waiting there.
    pub(crate) age: u32,
    /// The seconds that are left to it, where they were said.
    pub(crate) left: Option<u32>,
}

impl Freshness {
    pub(crate) fn apply(self, response: &mut Response) {
        let parts = [&mut response.answers, &mut response.authorities, &mut response.additionals];
        for record in parts.into_iter().flatten() {
            record.ttl = record.ttl.saturating_sub(self.age).min(self.left.unwrap_or(u32::MAX));
        }
    }
}

type Make = fn(&Connector, &Options) -> Result<Box<dyn Carrier>>;

/// The carrier for the transport of `options`; none for UDP and TCP.
pub(crate) fn of(net: &Connector, options: &Options) -> Result<Option<Box<dyn Carrier>>> {
    let feature = match options.transport {
        Transport::Auto | Transport::Udp | Transport::Tcp => return Ok(None),
        Transport::Tls => "dot",
        Transport::Https | Transport::Http3 => "doh",
        Transport::Quic => "doq",
    };
    let make = carriers().into_iter().find(|(name, _)| *name == feature).map(|(_, make)| make);
    let missing = || Error::new(Kind::Unsupported, format!("built without the feature `{feature}`"));
    make.ok_or_else(|| missing().with_protocol(PROTOCOL))?(net, options).map(Some)
}

/// Those that this build has, by their features.
#[allow(clippy::vec_init_then_push, unused_mut, reason = "which there are depends on the features")]
fn carriers() -> Vec<(&'static str, Make)> {
    let mut carriers: Vec<(&'static str, Make)> = Vec::new();
    #[cfg(feature = "dot")]
    carriers.push(("dot", crate::dot::carrier));
    #[cfg(feature = "doh")]
    carriers.push(("doh", crate::doh::carrier));
    #[cfg(feature = "doq")]
    carriers.push(("doq", crate::doq::carrier));
    carriers
}
