//! One error for the whole workspace, and what became of the work.
//!
//! [`Kind`] names the guilty party, [`Delivery`] what happened to the request, [`Phase`] where it happened. The three are
//! set where the fact is known and never guessed from text, so one piece of caller code serves every protocol.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::info::Attempt;

/// What [`Error::source`] gives: any error at all.
pub type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// The result of nearly everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose fault it was, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A name could not be resolved.
    Resolve,
    /// The address policy forbids the address.
    Blocked,
    /// No connection: refused, unreachable, no source port.
    Connect,
    /// A proxy on the way failed or said no.
    Hop,
    /// The TLS handshake or record layer failed.
    Tls,
    /// A deadline passed; [`Error::phase`] says which.
    Timeout,
    /// The connection ended before the conversation did.
    Closed,
    /// The peer broke the rules of the protocol.
    Protocol,
    /// The peer did not accept our credentials, or asked for a kind we refuse to give.
    Auth,
    /// The peer understood and said no; [`Error::code`] and [`Error::server`] carry its words.
    Server,
    /// The peer asked for more than we grant: a length, a depth, a count.
    Limit,
    /// The peer, the platform or this build lacks what was asked for.
    Unsupported,
    /// The caller's mistake, found before a byte was sent.
    Usage,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "name not resolved",
            Self::Blocked => "address blocked by policy",
            Self::Connect => "connection not made",
            Self::Hop => "proxy failed",
            Self::Tls => "tls failed",
            Self::Timeout => "timed out",
            Self::Closed => "connection closed",
            Self::Protocol => "peer broke the protocol",
            Self::Auth => "not authenticated",
            Self::Server => "server said no",
            Self::Limit => "limit exceeded",
            Self::Unsupported => "not supported",
            Self::Usage => "invalid use",
        }
    }
}

/// What became of the work: the whole of retry classification rests on this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Delivery {
    /// No byte of the request reached the peer: safe to send again.
    NotSent,
    /// The peer said that it did not process the request: safe to send again.
    Refused,
    /// It may or may not have been processed: send again only if idempotent.
    Unknown,
    /// The peer answered: never sent again.
    Answered,
}

/// Where in the life of a call it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Before anything was done.
    Setup,
    /// Waiting for a place in a pool.
    Pool,
    /// Resolving a name.
    Resolve,
    /// Connecting a socket.
    Connect,
    /// Talking to a proxy; the hop is named by its place in the chain.
    Hop,
    /// The TLS handshake.
    Tls,
    /// The protocol's own greeting, negotiation and login.
    Handshake,
    /// Sending a request.
    Send,
    /// Waiting for the first byte of an answer.
    FirstByte,
    /// Waiting for the next byte.
    Idle,
    /// The whole call.
    Total,
    /// Closing in good order.
    Close,
}

impl Phase {
    /// The phase in one lower-case word, as spans and logs name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Setup => "setup",
            Self::Pool => "pool",
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Hop => "hop",
            Self::Tls => "tls",
            Self::Handshake => "handshake",
            Self::Send => "send",
            Self::FirstByte => "first byte",
            Self::Idle => "idle",
            Self::Total => "total",
            Self::Close => "close",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The one error of the workspace: a single pointer wide.
///
/// ```
/// use portolan_core::{Delivery, Error, Kind};
///
/// let error = Error::protocol("redis", "expected a reply, saw 0xff").with_delivery(Delivery::Unknown);
/// assert_eq!(error.kind(), Kind::Protocol);
/// assert_eq!(std::mem::size_of_val(&error), std::mem::size_of::<usize>());
/// assert_eq!(error.to_string(), "redis: peer broke the protocol: expected a reply, saw 0xff");
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    delivery: Delivery,
    phase: Option<Phase>,
    protocol: Option<&'static str>,
    message: Box<str>,
    code: Option<i64>,
    hop: Option<usize>,
    retry_after: Option<Duration>,
    drained: bool,
    endpoint: Option<Endpoint>,
    attempt: Option<Attempt>,
    reply: Option<Arc<dyn Any + Send + Sync>>,
    source: Option<BoxError>,
}

impl Error {
    /// An error of `kind`, with words that hold no secret. The delivery is [`Delivery::NotSent`] until said otherwise, but
    /// [`Delivery::Unknown`] for [`Kind::Closed`], [`Kind::Timeout`] and [`Kind::Protocol`], and [`Delivery::Answered`] for [`Kind::Server`].
    pub fn new(kind: Kind, message: impl Into<Box<str>>) -> Self {
        let delivery = match kind {
            Kind::Closed | Kind::Timeout | Kind::Protocol | Kind::Limit => Delivery::Unknown,
            Kind::Server => Delivery::Answered,
            _ => Delivery::NotSent,
        };
        Self(Box::new(Inner {
            kind,
            delivery,
            phase: None,
            protocol: None,
            message: message.into(),
            code: None,
            hop: None,
            retry_after: None,
            drained: false,
            endpoint: None,
            attempt: None,
            reply: None,
            source: None,
        }))
    }

    /// The caller's mistake, found before a byte was sent.
    pub fn usage(message: impl Into<Box<str>>) -> Self {
        Self::new(Kind::Usage, message).with_phase(Phase::Setup)
    }

    /// The peer broke the rules: say what was expected and what was seen.
    pub fn protocol(protocol: &'static str, message: impl Into<Box<str>>) -> Self {
        Self::new(Kind::Protocol, message).with_protocol(protocol)
    }

    /// The connection ended before the conversation did.
    pub fn closed(message: impl Into<Box<str>>) -> Self {
        Self::new(Kind::Closed, message)
    }

    /// A deadline passed in `phase`. Phases before the request is sent leave it [`Delivery::NotSent`].
    pub fn timeout(phase: Phase, after: Duration) -> Self {
        let delivery = match phase {
            Phase::Setup
            | Phase::Pool
            | Phase::Resolve
            | Phase::Connect
            | Phase::Hop
            | Phase::Tls
            | Phase::Handshake => Delivery::NotSent,
            _ => Delivery::Unknown,
        };
        Self::new(Kind::Timeout, format!("{phase} took longer than {after:?}"))
            .with_phase(phase)
            .with_delivery(delivery)
    }

    /// An I/O error in the middle of a conversation: closed if the peer went away, connect otherwise.
    pub fn io(phase: Phase, source: std::io::Error) -> Self {
        use std::io::ErrorKind as E;
        // TLS errors travel inside io::Error; the record layer's complaint is not a closed connection.
        if source.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
            return Self::new(Kind::Tls, "record layer")
                .with_phase(phase)
                .with_delivery(Delivery::Unknown)
                .with_source(source);
        }
        let kind = match (phase, source.kind()) {
            (Phase::Connect | Phase::Setup, _) => Kind::Connect,
            (_, E::TimedOut) => Kind::Timeout,
            _ => Kind::Closed,
        };
        let message = match source.kind() {
            E::ConnectionRefused => "refused",
            E::ConnectionReset => "reset by peer",
            E::ConnectionAborted => "aborted",
            E::UnexpectedEof => "ended in mid-message",
            E::BrokenPipe => "peer no longer reads",
            E::AddrNotAvailable => "source address not available",
            E::AddrInUse => "source address in use",
            E::PermissionDenied => "permission denied",
            E::NetworkUnreachable => "network unreachable",
            E::HostUnreachable => "host unreachable",
            E::NotFound => "no such socket",
            E::TimedOut => "the network gave up",
            _ => "i/o failed",
        };
        let delivery = match phase {
            Phase::Setup
            | Phase::Pool
            | Phase::Resolve
            | Phase::Connect
            | Phase::Hop
            | Phase::Tls
            | Phase::Handshake => Delivery::NotSent,
            _ => Delivery::Unknown,
        };
        Self::new(kind, message).with_phase(phase).with_delivery(delivery).with_source(source)
    }

    /// The peer's own typed "no".
    pub fn from_server<T: Any + Send + Sync>(protocol: &'static str, message: impl Into<Box<str>>, reply: T) -> Self {
        let mut error = Self::new(Kind::Server, message).with_protocol(protocol);
        error.0.reply = Some(Arc::new(reply));
        error
    }

    /// The peer's typed "no" of another error that tells the same.
    pub(crate) fn with_reply_of(mut self, other: &Self) -> Self {
        self.0.reply.clone_from(&other.0.reply);
        self
    }

    /// Another kind.
    #[must_use]
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.0.kind = kind;
        self
    }

    /// What became of the work.
    #[must_use]
    pub fn with_delivery(mut self, delivery: Delivery) -> Self {
        self.0.delivery = delivery;
        self
    }

    /// Where it happened.
    #[must_use]
    pub fn with_phase(mut self, phase: Phase) -> Self {
        self.0.phase = Some(phase);
        self
    }

    /// Which protocol it happened in.
    #[must_use]
    pub fn with_protocol(mut self, protocol: &'static str) -> Self {
        self.0.protocol = Some(protocol);
        self
    }

    /// The peer's numeric code.
    #[must_use]
    pub fn with_code(mut self, code: i64) -> Self {
        self.0.code = Some(code);
        self
    }

    /// Which hop of the chain, counted from zero.
    #[must_use]
    pub fn with_hop(mut self, hop: usize) -> Self {
        self.0.hop = Some(hop);
        self
    }

    /// How long the peer asked us to wait.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// Who was being talked to.
    #[must_use]
    pub fn with_endpoint(mut self, endpoint: Endpoint) -> Self {
        self.0.endpoint = Some(endpoint);
        self
    }

    /// The last attempt's facts: address, hop, elapsed.
    #[must_use]
    pub fn with_attempt(mut self, attempt: Attempt) -> Self {
        self.0.attempt = Some(attempt);
        self
    }

    /// The connection was ending in good order after it had served others: the work was not done, and nobody is overloaded.
    #[must_use]
    pub fn with_drained(mut self, drained: bool) -> Self {
        self.0.drained = drained;
        self
    }

    /// The peer's typed reply, to be read back by [`Error::server`].
    #[must_use]
    pub fn with_reply<T: Any + Send + Sync>(mut self, reply: T) -> Self {
        self.0.reply = Some(Arc::new(reply));
        self
    }

    /// What lies beneath.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Whose fault it was.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// What became of the work.
    pub fn delivery(&self) -> Delivery {
        self.0.delivery
    }

    /// Where it happened, where that is known.
    pub fn phase(&self) -> Option<Phase> {
        self.0.phase
    }

    /// Which protocol it happened in.
    pub fn protocol_name(&self) -> Option<&'static str> {
        self.0.protocol
    }

    /// The words alone, without kind or source.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The peer's numeric code: an SMTP reply code, an HTTP status, a TLS alert.
    pub fn code(&self) -> Option<i64> {
        self.0.code
    }

    /// The hop that failed, by its place in the chain counted from zero.
    pub fn hop(&self) -> Option<usize> {
        self.0.hop
    }

    /// How long the peer asked us to wait before trying again.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Who was being talked to.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.0.endpoint.as_ref()
    }

    /// The last attempt's facts: every phase's time, the address, the hop, the time spent.
    pub fn attempt(&self) -> Option<&Attempt> {
        self.0.attempt.as_ref()
    }

    /// Whether the connection was ending in good order after it had served others: another one will do, at once.
    pub fn is_drained(&self) -> bool {
        self.0.drained && matches!(self.0.delivery, Delivery::NotSent | Delivery::Refused)
    }

    /// The protocol's own typed reply, such as `smtp::Reply`.
    pub fn server<T: Any>(&self) -> Option<&T> {
        self.0.reply.as_deref().and_then(|reply| reply.downcast_ref())
    }

    /// Whether a deadline passed.
    pub fn is_timeout(&self) -> bool {
        self.0.kind == Kind::Timeout
    }

    /// Whether the connection ended.
    pub fn is_closed(&self) -> bool {
        self.0.kind == Kind::Closed
    }

    /// Whether no connection was made: resolve, connect, hop, TLS or policy.
    pub fn is_connect(&self) -> bool {
        matches!(self.0.kind, Kind::Resolve | Kind::Blocked | Kind::Connect | Kind::Hop | Kind::Tls)
            || matches!(self.0.phase, Some(Phase::Resolve | Phase::Connect | Phase::Hop | Phase::Tls))
    }

    /// Whether the peer refused the connection (nobody listens).
    pub fn is_refused(&self) -> bool {
        self.io_kind() == Some(std::io::ErrorKind::ConnectionRefused)
    }

    /// Whether the peer reset the connection.
    pub fn is_reset(&self) -> bool {
        self.io_kind() == Some(std::io::ErrorKind::ConnectionReset)
    }

    fn io_kind(&self) -> Option<std::io::ErrorKind> {
        let mut source: Option<&(dyn StdError + 'static)> = self.source();
        while let Some(error) = source {
            if let Some(io) = error.downcast_ref::<std::io::Error>() {
                return Some(io.kind());
            }
            source = error.source();
        }
        None
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        let mut out = f.debug_struct("Error");
        out.field("kind", &inner.kind).field("delivery", &inner.delivery).field("message", &inner.message);
        if let Some(phase) = inner.phase {
            out.field("phase", &phase);
        }
        if let Some(protocol) = inner.protocol {
            out.field("protocol", &protocol);
        }
        if let Some(code) = inner.code {
            out.field("code", &code);
        }
        if let Some(hop) = inner.hop {
            out.field("hop", &hop);
        }
        if let Some(endpoint) = &inner.endpoint {
            out.field("endpoint", endpoint);
        }
        if let Some(attempt) = &inner.attempt {
            out.field("attempt", attempt);
        }
        if let Some(source) = &inner.source {
            out.field("source", source);
        }
        out.finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        if let Some(protocol) = inner.protocol {
            write!(f, "{protocol}: ")?;
        }
        if let Some(hop) = inner.hop {
            write!(f, "hop {hop}: ")?;
        }
        f.write_str(inner.kind.as_str())?;
        if !inner.message.is_empty() {
            write!(f, ": {}", inner.message)?;
        }
        if let Some(code) = inner.code {
            write!(f, " (code {code})")?;
        }
        if let Some(endpoint) = &inner.endpoint {
            write!(f, " [{endpoint}]")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        use std::io::ErrorKind as E;
        let kind = match error.kind() {
            Kind::Timeout => E::TimedOut,
            Kind::Closed => E::ConnectionAborted,
            Kind::Connect => error.io_kind().unwrap_or(E::ConnectionRefused),
            Kind::Protocol => E::InvalidData,
            Kind::Usage => E::InvalidInput,
            Kind::Blocked | Kind::Auth => E::PermissionDenied,
            Kind::Unsupported => E::Unsupported,
            _ => E::Other,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_is_one_pointer_wide_and_crosses_threads() {
        fn assert_send<T: Send + Sync + 'static>() {}
        assert_send::<Error>();
        assert_eq!(size_of::<Error>(), size_of::<usize>());
        assert_eq!(size_of::<Result<()>>(), size_of::<usize>());
    }

    #[test]
    fn server_reply_is_read_back_by_its_type() {
        #[derive(Debug, PartialEq)]
        struct Reply(u16);
        let error = Error::from_server("smtp", "mailbox unavailable", Reply(550)).with_code(550);
        assert_eq!(error.server::<Reply>(), Some(&Reply(550)));
        assert_eq!(error.server::<u8>(), None);
        assert_eq!(error.delivery(), Delivery::Answered);
        assert_eq!(error.to_string(), "smtp: server said no: mailbox unavailable (code 550)");
    }

    #[test]
    fn refused_reset_and_timed_out_are_told_apart() {
        let refused = Error::io(Phase::Connect, std::io::ErrorKind::ConnectionRefused.into());
        assert!(refused.is_refused() && !refused.is_reset() && !refused.is_timeout());
        assert_eq!((refused.kind(), refused.delivery()), (Kind::Connect, Delivery::NotSent));
        let reset = Error::io(Phase::FirstByte, std::io::ErrorKind::ConnectionReset.into());
        assert!(reset.is_reset() && reset.is_closed());
        assert_eq!(reset.delivery(), Delivery::Unknown);
        let late = Error::timeout(Phase::Resolve, Duration::from_secs(1));
        assert!(late.is_timeout() && late.is_connect());
        assert_eq!(late.delivery(), Delivery::NotSent);
    }
}
