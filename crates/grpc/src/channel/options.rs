//! What a channel is told when it is made.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::asked::Read;
use super::balance::Weights;
use crate::policy::ServiceConfig;

/// After how long without a call a channel rests, where nothing else is said.
const IDLE: Duration = Duration::from_secs(30 * 60);

/// How a call's connection is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Balancing {
    /// One connection, to the first address that answers; addresses are raced (RFC 8305), and proxies may resolve the name.
    #[default]
    PickFirst,
    /// A connection to each address, in turn.
    RoundRobin,
    /// A connection to each address; of two drawn at random the one with fewer calls in flight.
    LeastRequests,
    /// A connection to each address, in turn by [`ChannelOptions::weights`].
    Weighted,
}

/// How a [`Channel`](crate::Channel) behaves.
#[derive(Debug, Clone)]
#[must_use]
pub struct ChannelOptions {
    pub(super) http2: portolan_http2::Options,
    pub(super) balancing: Balancing,
    pub(super) weights: Option<Weights>,
    pub(super) health: Option<Box<str>>,
    pub(super) backoff: (Duration, Duration),
    pub(super) resolve_interval: Duration,
    pub(super) idle: Option<Duration>,
    /// Whether a service config is asked for: by a machine of which name, and who reads it.
    pub(crate) in_dns: Option<(Box<str>, Read)>,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            http2: portolan_http2::Options::new(),
            balancing: Balancing::PickFirst,
            weights: None,
            health: None,
            backoff: (Duration::from_secs(1), Duration::from_secs(120)),
            resolve_interval: Duration::from_secs(30),
            idle: Some(IDLE),
            in_dns: None,
        }
    }
}

impl ChannelOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How each connection of HTTP/2 behaves: windows, keepalive, limits. Where the carrier is said, it has options of its own.
    pub fn http2(mut self, options: portolan_http2::Options) -> Self {
        self.http2 = options;
        self
    }

    /// How a call's connection is chosen. Default [`Balancing::PickFirst`].
    pub fn balancing(mut self, balancing: Balancing) -> Self {
        self.balancing = balancing;
        self
    }

    /// Balances by weight: of two addresses one that weighs twice as much gets twice as many calls, and one that weighs nothing
    /// gets none while there are others. It is asked for the weights again with each call, so they may change.
    pub fn weights(mut self, weight: impl Fn(SocketAddr) -> u32 + Send + Sync + 'static) -> Self {
        (self.balancing, self.weights) = (Balancing::Weighted, Some(Weights(Arc::new(weight))));
        self
    }

    /// Watches, on each connection, how `service` is (`grpc.health.v1.Health`; the empty name is the server as a whole), and sends
    /// calls only where it serves (gRFC A17). A server that can't tell counts as one that serves. For balancing among addresses.
    /// Default not.
    pub fn health_service(mut self, service: impl Into<Box<str>>) -> Self {
        self.health = Some(service.into());
        self
    }

    /// Balancing and health as a service config says them. Where it says nothing, what was set stays.
    pub fn service_config(mut self, config: &ServiceConfig) -> Self {
        if let Some(balancing) = config.load_balancing().and_then(Balancing::named) {
            self.balancing = balancing;
        }
        if let Some(service) = config.health_service() {
            self.health = Some(service.into());
        }
        self
    }

    /// How long an address is left alone after it couldn't be connected to: first, and at most. Default 1 s and 120 s, growing by
    /// 1.6. Meanwhile calls fail at once, unless they wait for a connection.
    pub fn backoff(mut self, first: Duration, most: Duration) -> Self {
        self.backoff = (first, most.max(first));
        self
    }

    /// How often at most the name is resolved anew, which is done when a connection was lost or not made. Default 30 s. For
    /// balancing among addresses.
    pub fn resolve_interval(mut self, interval: Duration) -> Self {
        self.resolve_interval = interval;
        self
    }

    /// After how long without a call the channel rests: it closes its connections, forgets the addresses, and begins anew with the
    /// next call. A stream that is open is a call. `None` keeps the connections until the server ends them. Default 30 minutes, as in
    /// other clients of gRPC.
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.idle = timeout.into();
        self
    }
}

impl Balancing {
    /// By the name that service configs have for it.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "pick_first" => Some(Self::PickFirst),
            "round_robin" => Some(Self::RoundRobin),
            "least_request_experimental" => Some(Self::LeastRequests),
            _ => None,
        }
    }
}
