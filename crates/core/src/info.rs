//! What is known about a connection, or about the attempt that failed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::verify_server_name;
use rustls::server::ParsedCertificate;
use rustls_pki_types::{CertificateDer, ServerName};

/// How long each phase took. A phase that did not happen is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Timings {
    /// Resolving names, the proxy's or the target's.
    pub resolve: Option<Duration>,
    /// The TCP handshake with the first peer: the "TCP ping".
    pub connect: Option<Duration>,
    /// All proxy handshakes together; each alone is in [`HopInfo::elapsed`].
    pub hops: Option<Duration>,
    /// The TLS handshake with the target.
    pub tls: Option<Duration>,
    /// The protocol's own greeting and login, where it has one.
    pub handshake: Option<Duration>,
    /// From the call to a usable connection.
    pub total: Duration,
}

/// One proxy on the way, without its secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HopInfo {
    /// Its kind: `socks5`, `http`, `https`, ...
    pub kind: &'static str,
    /// Its host and port.
    pub authority: String,
    /// The address that it said it connects from, where it says so.
    pub bound: Option<String>,
    /// How long its handshake took; nothing where it was passed by an earlier call.
    pub elapsed: Duration,
    /// Whether a connection to it was there already, as with proxies that carry many tunnels on one.
    pub reused: bool,
}

impl HopInfo {
    /// A hop that was passed.
    pub fn new(kind: &'static str, authority: String, elapsed: Duration) -> Self {
        Self { kind, authority, bound: None, elapsed, reused: false }
    }
}

/// What the TLS handshake agreed on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TlsInfo {
    /// `TLSv1.3`, `TLSv1.2`.
    pub version: &'static str,
    /// The cipher suite, by its IANA name.
    pub cipher: String,
    /// The key exchange group, such as `X25519MLKEM768`.
    pub group: String,
    /// The application protocol, if one was agreed.
    pub alpn: Option<Vec<u8>>,
    /// The peer's certificates in DER, its own first.
    pub chain: Arc<[Vec<u8>]>,
    /// Whether the session was resumed.
    pub resumed: bool,
}

impl TlsInfo {
    /// Whether the peer's certificate is for this name or address: what a second origin needs to know before it shares a
    /// connection (RFC 9113 9.1.1). The certificate itself was checked when the connection was made.
    pub fn is_for(&self, name: &str) -> bool {
        let Some(certificate) = self.chain.first() else { return false };
        let certificate = CertificateDer::from(certificate.as_slice());
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let (Ok(certificate), Ok(name)) = (ParsedCertificate::try_from(&certificate), ServerName::try_from(name))
        else {
            return false;
        };
        verify_server_name(&certificate, &name).is_ok()
    }
}

/// One address that was tried, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tried {
    /// The address.
    pub address: SocketAddr,
    /// How long it took, until it ended or until another one was taken.
    pub elapsed: Duration,
    /// How it ended.
    pub outcome: TriedOutcome,
}

/// What became of an address that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TriedOutcome {
    /// It answered.
    Connected,
    /// It did not, and why.
    Failed(Arc<str>),
    /// Another one was faster, or the time of the call was over.
    Dropped,
}

/// What is known about a connection.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// The address at the other end of our own socket: the first proxy's, where there is one.
    pub peer: Option<SocketAddr>,
    /// Our own address.
    pub local: Option<SocketAddr>,
    /// The proxies, the nearest first.
    pub hops: Vec<HopInfo>,
    /// TLS with the target, if any.
    pub tls: Option<TlsInfo>,
    /// How long it took.
    pub timings: Timings,
    /// How many addresses were tried, the good one included.
    pub attempts: u32,
    /// Each of them, in the order in which they were begun; the first 32.
    pub tried: Vec<Tried>,
    /// Whether it came out of a pool.
    pub reused: bool,
    /// The number of the connect that made it, within the process: what observers know it by. 0 for a stream made elsewhere.
    pub id: u64,
}

/// The last attempt's facts, on every error that a connection attempt ended in.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Attempt {
    /// The address last tried.
    pub address: Option<SocketAddr>,
    /// The hop that was being passed, by its place in the chain.
    pub hop: Option<usize>,
    /// The time spent since the call began.
    pub elapsed: Duration,
    /// The phases that were finished.
    pub timings: Timings,
    /// How many addresses were tried.
    pub attempts: u32,
    /// Each of them, in the order in which they were begun; the first 32.
    pub tried: Vec<Tried>,
}
