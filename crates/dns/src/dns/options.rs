//! How a client asks.

use std::time::Duration;

use portolan_core::{Endpoint, Error, Limit, Result, Url};

use super::response::Transport;

/// The port of DNS, for UDP and TCP alike.
pub const DEFAULT_PORT: u16 = 53;
/// A datagram that crosses today's networks unfragmented: the agreed value of DNS Flag Day 2020.
const DEFAULT_PAYLOAD: u16 = 1232;
/// What every server may send without EDNS (RFC 1035 4.2.1); below it EDNS makes no sense (RFC 6891 6.2.3).
const MIN_PAYLOAD: u16 = 512;
/// Queries over UDP for one question.
const DEFAULT_ATTEMPTS: u32 = 3;
/// More than these are no longer patience but load.
const MAX_ATTEMPTS: u32 = 10;
/// Until a datagram counts as lost. Doubled after each attempt.
const DEFAULT_RETRANSMIT: Duration = Duration::from_secs(1);
/// Everything together.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(8);

/// How a [`Client`](super::Client) asks, and whom.
#[derive(Debug, Clone)]
pub struct Options {
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) transport: Transport,
    pub(crate) payload: Option<u16>,
    pub(crate) attempts: u32,
    pub(crate) retransmit: Duration,
    pub(crate) timeout: Limit,
    pub(crate) toss_case: bool,
    pub(crate) recursion_desired: bool,
    pub(crate) dnssec_ok: bool,
    pub(crate) checking_disabled: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            endpoint: None,
            transport: Transport::Auto,
            payload: Some(DEFAULT_PAYLOAD),
            attempts: DEFAULT_ATTEMPTS,
            retransmit: DEFAULT_RETRANSMIT,
            timeout: Limit::Unset,
            toss_case: false,
            recursion_desired: true,
            dnssec_ok: false,
            checking_disabled: false,
        }
    }
}

impl Options {
    /// To ask the server at `endpoint`.
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint: Some(endpoint), ..Self::default() }
    }

    /// `dns://host[:port]`, port 53 unless given. Query: `transport=auto|udp|tcp`, `case=random`. Anything else is refused
    /// rather than ignored.
    pub fn from_url(url: &str) -> Result<Self> {
        let url = Url::parse(url)?;
        let mut options = match url.scheme() {
            "dns" => Self::new(url.endpoint(DEFAULT_PORT)?),
            other => return Err(Error::usage(format!("scheme {other:?}: dns:// is known"))),
        };
        if url.user().is_some() || url.path().len() > 1 {
            return Err(Error::usage("dns:// takes a host and a port alone"));
        }
        for (key, value) in url.query_pairs() {
            options = match (key.as_str(), value.as_str()) {
                ("transport", "auto") => options.transport(Transport::Auto),
                ("transport", "udp") => options.transport(Transport::Udp),
                ("transport", "tcp") => options.transport(Transport::Tcp),
                ("case", "random") => options.random_case(true),
                _ => return Err(Error::usage(format!("unknown option {key}={value}"))),
            };
        }
        Ok(options)
    }

    /// What carries queries. Default [`Transport::Auto`]; with `Udp`, a long answer comes cut.
    #[must_use]
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// The largest datagram we say we take, in bytes; `None` asks without EDNS. Default 1232, at least 512. Too large, and
    /// answers get lost as fragments; too small, and every long answer costs a TCP connection.
    #[must_use]
    pub fn udp_payload(mut self, bytes: impl Into<Option<u16>>) -> Self {
        self.payload = bytes.into().map(|bytes| bytes.max(MIN_PAYLOAD));
        self
    }

    /// How many times to send a query over UDP, 1 to 10. Default 3. Each has an id and a source port of its own, and the
    /// answer to any of them counts.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.clamp(1, MAX_ATTEMPTS);
        self
    }

    /// How long to wait for an answer before sending again, doubled each time. Default 1 s. Too short loads slow servers,
    /// too long makes every lost datagram felt.
    #[must_use]
    pub fn retransmit(mut self, wait: Duration) -> Self {
        self.retransmit = wait;
        self
    }

    /// The whole of one question: all attempts, and TCP if it comes to that. Default 8 s.
    #[must_use]
    pub fn timeout(mut self, limit: impl Into<Limit>) -> Self {
        self.timeout = limit.into();
        self
    }

    /// Tosses the case of every letter, so that a forger has to guess it too ("0x20"). Default off: a few servers answer
    /// in lower case, and such answers are then ignored.
    #[must_use]
    pub fn random_case(mut self, on: bool) -> Self {
        self.toss_case = on;
        self
    }

    /// Asks the server to ask others. Default on; authoritative servers ignore it.
    #[must_use]
    pub fn recursion_desired(mut self, on: bool) -> Self {
        self.recursion_desired = on;
        self
    }

    /// Asks for DNSSEC records besides. Default off. They are handed on, not verified. Without EDNS it has no effect.
    #[must_use]
    pub fn dnssec_ok(mut self, on: bool) -> Self {
        self.dnssec_ok = on;
        self
    }

    /// Asks the server not to verify signatures. Default off; on, a bogus answer comes through.
    #[must_use]
    pub fn checking_disabled(mut self, on: bool) -> Self {
        self.checking_disabled = on;
        self
    }

    pub(crate) fn limit(&self) -> Option<Duration> {
        self.timeout.or(DEFAULT_TIMEOUT)
    }
}
