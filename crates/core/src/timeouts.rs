//! A bound for every wait.

use std::time::Duration;

/// One bound, in its three states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Limit {
    /// Not said: the next outer setting or the default holds.
    #[default]
    Unset,
    /// Said to be unbounded.
    Off,
    /// Said to be this long.
    After(Duration),
}

impl Limit {
    /// The bound, or `default` where nothing was said.
    pub fn or(self, default: Duration) -> Option<Duration> {
        match self {
            Self::Unset => Some(default),
            Self::Off => None,
            Self::After(limit) => Some(limit),
        }
    }

    fn over(self, base: Self) -> Self {
        if self == Self::Unset { base } else { self }
    }
}

impl From<Duration> for Limit {
    fn from(limit: Duration) -> Self {
        Self::After(limit)
    }
}

impl From<Option<Duration>> for Limit {
    fn from(limit: Option<Duration>) -> Self {
        limit.map_or(Self::Off, Self::After)
    }
}

/// The bounds of every phase of a call. Each has three states (see [`Limit`]); the accessors give what holds.
///
/// ```
/// use std::time::Duration;
/// use portolan_core::{Limit, Timeouts};
///
/// let timeouts = Timeouts::default().connect(Duration::from_secs(3)).idle(Limit::Off);
/// assert_eq!(timeouts.connect_limit(), Some(Duration::from_secs(3)));
/// assert_eq!(timeouts.idle_limit(), None);
/// assert_eq!(timeouts.tls_limit(), Some(Duration::from_secs(10)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeouts {
    resolve: Limit,
    connect: Limit,
    attempt: Limit,
    hop: Limit,
    tls: Limit,
    handshake: Limit,
    first_byte: Limit,
    idle: Limit,
    total: Limit,
}

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident, $limit:ident, $default:expr;)*) => {
        impl Timeouts {
            $(
                $(#[$doc])*
                #[must_use]
                pub fn $name(mut self, limit: impl Into<Limit>) -> Self {
                    self.$name = limit.into();
                    self
                }

                #[doc = concat!("What holds for `", stringify!($name), "`: `None` is unbounded.")]
                pub fn $limit(&self) -> Option<Duration> {
                    $default(self.$name)
                }
            )*

            /// These bounds where they were said, `base`'s elsewhere.
            #[must_use]
            pub fn over(self, base: &Self) -> Self {
                Self { $($name: self.$name.over(base.$name),)* }
            }
        }
    };
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

limits! {
    /// Resolving a name. Default 10 s; too short and a lost UDP query (retried after 5 s by most resolvers) fails the call.
    resolve, resolve_limit, |l: Limit| l.or(secs(10));
    /// Connecting, over all addresses. Default 30 s; it bounds [`attempt`](Self::attempt).
    connect, connect_limit, |l: Limit| l.or(secs(30));
    /// Connecting to one address. Default 10 s; too long and a black hole eats the time of the next address.
    attempt, attempt_limit, |l: Limit| l.or(secs(10));
    /// The handshake with one proxy. Default 15 s.
    hop, hop_limit, |l: Limit| l.or(secs(15));
    /// One TLS handshake. Default 10 s.
    tls, tls_limit, |l: Limit| l.or(secs(10));
    /// The protocol's greeting, negotiation and login. Default 30 s: some mail servers wait on purpose before they greet.
    handshake, handshake_limit, |l: Limit| l.or(secs(30));
    /// From the last byte of a request to the first of its answer. Default 60 s.
    first_byte, first_byte_limit, |l: Limit| l.or(secs(60));
    /// Between two bytes of an answer. Default 60 s; a slow answer that keeps moving never trips it.
    idle, idle_limit, |l: Limit| l.or(secs(60));
    /// The whole call. Default unbounded, since every part is bounded.
    total, total_limit, |l: Limit| match l { Limit::After(limit) => Some(limit), _ => None };
}
