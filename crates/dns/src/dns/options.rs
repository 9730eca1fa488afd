//! How a client asks.

use std::net::IpAddr;
use std::time::Duration;

use portolan_core::{Connector, Endpoint, Error, Limit, Result, Tls, Url};

use super::response::Transport;

/// The port of DNS, for UDP and TCP alike.
pub const DEFAULT_PORT: u16 = 53;
/// The port of DNS over TLS (RFC 7858 3.1) and over QUIC (RFC 9250 4.1.1).
pub const DEFAULT_TLS_PORT: u16 = 853;
/// The port of DNS over HTTPS.
pub const DEFAULT_HTTPS_PORT: u16 = 443;
/// Where DNS over HTTPS is usually served: the example of RFC 8484 that all follow.
const DEFAULT_PATH: &str = "/dns-query";
/// How a URI template says that the query goes there (RFC 8484 4.1).
const TEMPLATE: &str = "{?dns}";
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

/// The schemes of [`Options::from_url`].
pub(crate) const SCHEMES: [&str; 7] = ["dns", "udp", "tcp", "tls", "https", "h3", "quic"];

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
    pub(crate) addrs: Vec<IpAddr>,
    pub(crate) path: String,
    pub(crate) method: Method,
    pub(crate) padding: bool,
    pub(crate) opportunistic: bool,
}

/// How DNS over HTTPS asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Method {
    /// The query is the body: shorter, and in nobody's log.
    #[default]
    Post,
    /// The query stands in the URL, so that caches on the way can answer.
    Get,
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
            addrs: Vec::new(),
            path: DEFAULT_PATH.to_owned(),
            method: Method::Post,
            padding: true,
            opportunistic: false,
        }
    }
}

impl Options {
    /// To ask the server at `endpoint`.
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint: Some(endpoint), ..Self::default() }
    }

    /// The server at a URL:
    ///
    /// - `dns://host[:port]`: UDP, and TCP where that does not do; `udp://` and `tcp://` for one alone. Port 53.
    /// - `tls://host[:port]`: DNS over TLS. Port 853.
    /// - `https://host[:port][/path][{?dns}]`: DNS over HTTPS, at `/dns-query` unless a path is said; with `{?dns}` it asks by GET, else
    ///   by POST. Port 443. `h3://` is the same over HTTP/3 alone.
    /// - `quic://host[:port]`: DNS over QUIC. Port 853.
    ///
    /// `name@address` in place of `host` says where the server of that name is, so that nobody has to be asked for it. A query may say
    /// `transport=auto|udp|tcp` and `case=random` (`dns`, the latter for all but HTTPS), and `dangerous=opportunistic` (`tls`). Anything
    /// else is refused rather than ignored.
    pub fn from_url(url: &str) -> Result<Self> {
        let (url, method) = match url.strip_suffix(TEMPLATE) {
            Some(url) => (url, Method::Get),
            None => (url, Method::Post),
        };
        let url = Url::parse(url)?;
        let (transport, port) = match url.scheme() {
            "dns" => (Transport::Auto, DEFAULT_PORT),
            "udp" => (Transport::Udp, DEFAULT_PORT),
            "tcp" => (Transport::Tcp, DEFAULT_PORT),
            "tls" => (Transport::Tls, DEFAULT_TLS_PORT),
            "https" => (Transport::Https, DEFAULT_HTTPS_PORT),
            "h3" => (Transport::Http3, DEFAULT_HTTPS_PORT),
            "quic" => (Transport::Quic, DEFAULT_TLS_PORT),
            other => return Err(Error::usage(format!("scheme {other:?}: {} are known", SCHEMES.join(", ")))),
        };
        let options = Self::placed(&url, port)?.transport(transport).method(method);
        if matches!(transport, Transport::Https | Transport::Http3) {
            return options.with_path(&url);
        }
        if url.path().len() > 1 || method == Method::Get {
            return Err(Error::usage(format!("{}:// takes a host and a port alone", url.scheme())));
        }
        options.with_query(&url)
    }

    /// The host, or the name and the address, of a URL.
    fn placed(url: &Url, port: u16) -> Result<Self> {
        let to = url.endpoint(port)?;
        if url.password().is_some() || url.fragment().is_some() {
            return Err(Error::usage("a name server has neither password nor fragment"));
        }
        let Some(name) = url.user() else { return Ok(Self::new(to)) };
        let addr = to.socket_addr().ok_or_else(|| Error::usage("name@address: what follows the name is no address"))?;
        Ok(Self::new(Endpoint::new(name, to.port())?).addresses([addr.ip()]))
    }

    fn with_path(mut self, url: &Url) -> Result<Self> {
        if url.path().len() > 1 {
            url.path().clone_into(&mut self.path);
        }
        if let Some(query) = url.query() {
            self.path.push('?');
            self.path.push_str(query);
        }
        if self.path.contains(['{', '}']) {
            return Err(Error::usage("of URI templates only {?dns} at the end is known"));
        }
        Ok(self)
    }

    fn with_query(self, url: &Url) -> Result<Self> {
        let mut options = self;
        for (key, value) in url.query_pairs() {
            options = match (url.scheme(), key.as_str(), value.as_str()) {
                ("dns", "transport", "auto") => options.transport(Transport::Auto),
                ("dns", "transport", "udp") => options.transport(Transport::Udp),
                ("dns", "transport", "tcp") => options.transport(Transport::Tcp),
                ("tls", "dangerous", "opportunistic") => options.dangerous().opportunistic(),
                (_, "case", "random") => options.random_case(true),
                _ => return Err(Error::usage(format!("unknown option {key}={value}"))),
            };
        }
        Ok(options)
    }

    /// The server's addresses, whatever anyone says of its name, which its certificate must be for all the same. Default: the
    /// connector's resolver is asked, which must not be this client itself.
    #[must_use]
    pub fn addresses(mut self, addrs: impl IntoIterator<Item = IpAddr>) -> Self {
        self.addrs = addrs.into_iter().collect();
        self
    }

    /// Where DNS over HTTPS is served: a path, and a query if need be. Default `/dns-query`.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// How DNS over HTTPS asks. Default [`Method::Post`].
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// Fills encrypted queries up to a multiple of 128 bytes (RFC 8467), so that their lengths tell less. Default on; it takes EDNS.
    #[must_use]
    pub fn padding(mut self, on: bool) -> Self {
        self.padding = on;
        self
    }

    /// What weakens the protection of queries.
    pub fn dangerous(self) -> Dangerous {
        Dangerous(self)
    }

    /// What carries queries. Default [`Transport::Auto`]; with `Udp`, a long answer comes cut. The port stays what it is.
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

    /// The connector that reaches the server: it knows the addresses that were said, and whether its certificate matters.
    pub(crate) fn connector(&self, net: &Connector) -> Result<Connector> {
        let name = self.endpoint.as_ref().and_then(Endpoint::name).filter(|_| !self.addrs.is_empty());
        if name.is_none() && !self.opportunistic {
            return Ok(net.clone());
        }
        let mut net = net.to_builder();
        if let Some(name) = name {
            net = net.resolve(name, self.addrs.iter().copied());
        }
        if self.opportunistic {
            net = net.tls(Tls::builder().dangerous().accept_any_certificate().build()?);
        }
        net.build()
    }

    /// Whom to ask.
    pub(crate) fn server(&self) -> Result<Endpoint> {
        self.endpoint.clone().ok_or_else(|| Error::usage("options name no server"))
    }

    pub(crate) fn limit(&self) -> Option<Duration> {
        self.timeout.or(DEFAULT_TIMEOUT)
    }
}

/// What weakens the protection of queries: [`Options::dangerous`].
#[derive(Debug)]
#[must_use]
pub struct Dangerous(Options);

impl Dangerous {
    /// Takes whatever certificate the server shows, as the opportunistic profile of DNS over TLS has it (RFC 7858 4.1): whoever only
    /// listens learns nothing, whoever stands on the way can answer in the server's place. It never falls back to plain DNS.
    pub fn opportunistic(self) -> Options {
        Options { opportunistic: true, ..self.0 }
    }
}
